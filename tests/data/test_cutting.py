"""Tiles as papers cut them, and random shares of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsovlib.data.cutting import Box, cut_tiles, random_parts
from rsovlib.data.manifest import RandomSplit, Tiles
from rsovlib.errors import InputError


def starts(height, width, **how):
    return [
        (tile.box.row, tile.box.column, tile.box.height, tile.box.width)
        for tile in cut_tiles(height, width, Tiles(**how))
    ]


def test_edges_by_hand():
    assert starts(10, 4, size=4, stride=4, edge="drop") == [(0, 0, 4, 4), (4, 0, 4, 4)]
    assert starts(10, 4, size=4, stride=4, edge="shift") == [(0, 0, 4, 4), (4, 0, 4, 4), (6, 0, 4, 4)]
    assert starts(10, 4, size=4, stride=4, edge="pad") == [(0, 0, 4, 4), (4, 0, 4, 4), (8, 0, 4, 4)]
    assert starts(10, 4, size=4, stride=4, edge="clip") == [(0, 0, 4, 4), (4, 0, 4, 4), (8, 0, 2, 4)]
    # A tile that fits exactly leaves no rest under any rule.
    for edge in ("drop", "shift", "pad", "clip"):
        assert starts(8, 4, size=4, stride=4, edge=edge) == [(0, 0, 4, 4), (4, 0, 4, 4)]
        assert starts(6, 4, size=4, stride=2, edge=edge) == [(0, 0, 4, 4), (2, 0, 4, 4)]


def test_images_smaller_than_a_tile():
    assert starts(3, 9, size=8, stride=8, edge="drop") == []
    assert starts(3, 9, size=8, stride=8, edge="shift") == [(0, 0, 8, 8), (0, 1, 8, 8)]
    assert starts(3, 9, size=8, stride=8, edge="clip") == [(0, 0, 3, 8), (0, 8, 3, 1)]


def test_the_papers_numbers_of_tiles():
    """From the published sizes of Potsdam's validation images, GID's and LoveDA's, as SDCI lists them."""
    tiles = Tiles(size=512, stride=512, edge="shift")
    assert 14 * len(cut_tiles(6000, 6000, tiles)) == 2016
    assert 30 * len(cut_tiles(6800, 7200, tiles)) == 6300
    assert 1669 * len(cut_tiles(1024, 1024, tiles)) == 6676


def test_no_tiles_is_the_whole_image():
    (tile,) = cut_tiles(7, 5, None)
    assert (tile.row_index, tile.column_index, tile.box) == (0, 0, Box(0, 0, 7, 5))
    with pytest.raises(InputError):
        cut_tiles(0, 5, None)


@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from(["shift", "pad", "clip"]),
)
def test_every_pixel_is_in_a_tile_unless_the_stride_leaves_gaps(height, width, size, stride, edge):
    stride = min(stride, size)
    covered = set()
    places = set()
    for tile in cut_tiles(height, width, Tiles(size=size, stride=stride, edge=edge)):
        box = tile.box
        places.add((tile.row_index, tile.column_index))
        assert 0 <= box.row < height
        assert 0 <= box.column < width
        assert (box.height, box.width) == (size, size) or edge == "clip"
        inside = box.row + box.height <= height and box.column + box.width <= width
        assert inside or edge == "pad" or height < size or width < size
        rows, columns = range(box.row, box.row + box.height), range(box.column, box.column + box.width)
        covered |= {(row, column) for row in rows for column in columns}
    assert {(row, column) for row in range(height) for column in range(width)} <= covered
    assert len(places) == len(cut_tiles(height, width, Tiles(size=size, stride=stride, edge=edge)))


FIVE = RandomSplit(fractions={"train": 0.72, "val": 0.08, "test": 0.2}, folds=5)


def test_five_folds_share_the_test_set_out():
    tested = [0] * 100
    for fold in range(5):
        parts = random_parts(100, FIVE, fold)
        assert [parts.count(name) for name in ("train", "val", "test")] == [72, 8, 20]
        for place, part in enumerate(parts):
            tested[place] += part == "test"
    assert tested == [1] * 100  # each tile is tested once
    assert random_parts(100, FIVE, 3) == random_parts(100, FIVE, 3)
    with pytest.raises(InputError, match="folds 0 to 4"):
        random_parts(100, FIVE, 5)


@given(st.integers(0, 200))
def test_every_tile_has_a_part(count):
    single = RandomSplit(fractions={"train": 0.6, "val": 0.1, "test": 0.3}, seed=3)
    parts = random_parts(count, single)
    assert len(parts) == count
    assert set(parts) <= {"train", "val", "test"}
    assert abs(parts.count("train") - 0.6 * count) <= 0.5
