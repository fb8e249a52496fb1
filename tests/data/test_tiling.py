"""Tiles cover a scene, their weights sum to one, and streaming gives what the whole array would give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsovlib.data.tiling import BandAccumulator, tile_grid
from rsovlib.errors import InputError


@st.composite
def grids(draw):
    tile = draw(st.integers(1, 30))
    return tile_grid(draw(st.integers(1, 70)), draw(st.integers(1, 70)), tile, draw(st.integers(0, tile - 1)))


@settings(max_examples=150, deadline=None)
@given(grids())
def test_weights_are_a_positive_partition_of_unity(grid):
    total = np.zeros((grid.rows.size, grid.columns.size))
    for tile in grid:
        weights = grid.weights(tile)
        assert weights.shape == (tile.height, tile.width)
        assert (weights > 0).all()
        total[tile.slices] += weights
    np.testing.assert_allclose(total, 1, atol=1e-5)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 300), st.integers(1, 60), st.data())
def test_neighbours_share_at_least_the_overlap(size, tile, data):
    overlap = data.draw(st.integers(0, tile - 1))
    axis = tile_grid(size, 1, tile, overlap).rows
    starts = np.array(axis.starts)
    assert starts[0] == 0
    assert starts[-1] + axis.tile == size
    assert (starts[:-1] + axis.tile - starts[1:] >= overlap).all()
    # No more tiles than needed: with one tile less, the overlap could not be kept.
    assert len(starts) == 1 or size > axis.tile + (len(starts) - 2) * (axis.tile - overlap)


def test_weights_fall_smoothly_towards_a_neighbour():
    weights = tile_grid(1, 24, 16, 8).columns.weights
    np.testing.assert_array_equal(weights[0, :8], 1)  # nothing to blend with at the edge of the scene
    ramp = weights[0, 8:]
    assert (np.diff(ramp) < 0).all()
    np.testing.assert_allclose(ramp + ramp[::-1], 1, atol=1e-6)
    np.testing.assert_allclose(ramp, np.cos(np.pi / 2 * (np.arange(8) + 0.5) / 8) ** 2, atol=1e-6)


@pytest.mark.parametrize(("tile", "overlap"), [(16, 0), (16, 5), (16, 13), (64, 10)])
def test_streaming_equals_the_whole_array(tile, overlap):
    rng = np.random.default_rng(1)
    grid = tile_grid(61, 37, tile, overlap)
    whole = np.zeros((3, 61, 37))
    accumulator, streamed, next_row = BandAccumulator(grid, 3), [], 0
    for row_index in range(len(grid.rows.starts)):
        for place in grid.row_of_tiles(row_index):
            values = rng.random((3, place.height, place.width), dtype=np.float32)
            accumulator.add(place, values)
            whole[:, *place.slices] += values * grid.weights(place)
        first, rows = accumulator.flush(row_index)
        assert first == next_row
        next_row += rows.shape[1]
        streamed.append(rows.copy())
    np.testing.assert_allclose(np.concatenate(streamed, axis=1), whole, atol=1e-5)


def test_the_accumulator_holds_one_band_of_tile_rows():
    grid = tile_grid(100_000, 50, 32, 8)
    accumulator = BandAccumulator(grid, 4)
    assert accumulator._band.nbytes == BandAccumulator.memory_needed(grid, 4) == 4 * 32 * 50 * 4


def test_a_result_of_another_shape_is_refused():
    grid = tile_grid(20, 20, 10, 2)
    with pytest.raises(InputError, match=r"\(2, 10, 9\)"):
        BandAccumulator(grid, 2).add(next(iter(grid)), np.zeros((2, 10, 9), np.float32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5, 4, 1), "nothing to cut"),
        ((5, 5, 0, 0), "must be at least 1"),
        ((5, 5, 4, 4), "smaller than the tile"),
        ((5, 5, 4, 9), "smaller than the tile"),
        ((5, 5, 4, -1), "0 or more"),
        ((5, 5, 4.5, 1), "whole number"),
        ((5, 5, True, 0), "whole number"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        tile_grid(*arguments)
