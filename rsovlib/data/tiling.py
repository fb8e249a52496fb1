"""Tiles that overlap, and how their results become one seamless map in bounded memory.

A scene of (H, W) pixels is cut on a grid that is separable: starts along the rows times starts along the columns.
Every tile has weights that fall off smoothly towards its neighbours,

    w_ij(y, x) = u_i(y) v_j(x),   sum_i u_i(y) = 1 for every row y,   sum_j v_j(x) = 1 for every column x,

so that the weights of all tiles sum to one in every pixel (a partition of unity) and every weight inside a tile is
positive.  Because the sums are one along each axis, nothing has to be divided after the accumulation, and a row of
the map is finished as soon as the last tile row that touches it has been added: memory is one band of tile rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rsovlib.errors import InputError


@dataclass(frozen=True)
class Axis:
    """The tiles along one axis.

    Attributes:
        size: length of the axis in pixels.
        tile: length of a tile in pixels, at most ``size``.
        starts: first pixel of each tile, ascending; the first is 0 and the last tile ends at ``size``.
        weights: (n, tile) positive blending weights, which sum to 1 over the tiles in every pixel.
    """

    size: int
    tile: int
    starts: tuple[int, ...]
    weights: NDArray[np.float32]

    def finished(self, index: int) -> tuple[int, int]:
        """The pixels [first, last) that tile ``index`` touches and no later tile does."""
        last = self.size if index + 1 == len(self.starts) else self.starts[index + 1]
        return self.starts[index], last


@dataclass(frozen=True)
class Tile:
    """One tile of a grid: its place in the scene and in the grid, in pixels."""

    row_index: int
    column_index: int
    row: int
    column: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The tile as rows and columns of the scene."""
        return slice(self.row, self.row + self.height), slice(self.column, self.column + self.width)


@dataclass(frozen=True)
class TileGrid:
    """All tiles of a scene, row by row."""

    rows: Axis
    columns: Axis

    def __len__(self) -> int:
        return len(self.rows.starts) * len(self.columns.starts)

    def row_of_tiles(self, row_index: int) -> Iterator[Tile]:
        """The tiles of one row of the grid, from left to right."""
        for column_index, column in enumerate(self.columns.starts):
            yield Tile(row_index, column_index, self.rows.starts[row_index], column, self.rows.tile, self.columns.tile)

    def __iter__(self) -> Iterator[Tile]:
        for row_index in range(len(self.rows.starts)):
            yield from self.row_of_tiles(row_index)

    def weights(self, tile: Tile) -> NDArray[np.float32]:
        """The blending weights (height, width) of a tile; positive, and they sum to 1 over the tiles."""
        return np.outer(self.rows.weights[tile.row_index], self.columns.weights[tile.column_index])


def tile_grid(height: int, width: int, tile: int = 512, overlap: int = 128) -> TileGrid:
    """Cut (height, width) pixels into square tiles that overlap.

    All tiles have the same size (the whole axis where the scene is smaller than a tile), and they are spread evenly,
    so that neighbours share at least ``overlap`` pixels and no thin tile is left at the end.

    Args:
        height: rows of the scene, at least 1.
        width: columns of the scene, at least 1.
        tile: side of a tile in pixels.
        overlap: pixels that neighbours share at least, 0 <= overlap < tile.

    Raises:
        InputError: the numbers contradict each other.
    """
    check_tiling(tile, overlap)
    if height < 1 or width < 1:
        raise InputError(f"A scene of {height} x {width} pixels has nothing to cut into tiles.")
    return TileGrid(_axis(height, tile, overlap), _axis(width, tile, overlap))


def check_tiling(tile: int, overlap: int) -> None:
    """Refuse a tile and an overlap that can't work together.

    Raises:
        InputError: a number is not whole, the tile is not positive, or the overlap is not in [0, tile).
    """
    for name, value in (("tile", tile), ("overlap", overlap)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise InputError(f"The {name} is {value!r}, and must be a whole number of pixels.")
    if tile < 1:
        raise InputError(f"The tile is {tile} pixels, and must be at least 1.")
    if overlap < 0:
        raise InputError(f"The overlap is {overlap} pixels, and must be 0 or more.")
    if overlap >= tile:
        raise InputError(f"The overlap ({overlap} pixels) must be smaller than the tile ({tile} pixels).")


def _axis(size: int, tile: int, overlap: int) -> Axis:
    """Evenly spread starts along one axis and their weights."""
    tile = min(tile, size)
    # An axis shorter than the tile may be shorter than the overlap too; then there is a single tile.
    count = 1 if tile == size else -(-(size - overlap) // (tile - overlap))
    starts = tuple(round(index * (size - tile) / max(count - 1, 1)) for index in range(count))
    return Axis(size, tile, starts, _blending_weights(size, tile, starts))


def _blending_weights(size: int, tile: int, starts: tuple[int, ...]) -> NDArray[np.float32]:
    """(n, tile) weights: raised-cosine ramps over the shared pixels, divided by their sum in every pixel.

    The ramp takes the value at pixel centres, sin^2(pi/2 (k + 1/2) / m) for the k-th of m shared pixels, and so is
    never zero: a pixel that only one tile covers, or that lies in the corner of a tile, always has a weight.
    Two ramps over the same pixels sum to one by themselves; the division matters where three tiles meet, which
    happens when the overlap is more than half of the tile.
    """
    raw = np.ones((len(starts), tile))
    for left in range(len(starts) - 1):
        shared = starts[left] + tile - starts[left + 1]
        if shared > 0:
            ramp = np.sin(0.5 * np.pi * (np.arange(shared) + 0.5) / shared) ** 2
            raw[left + 1, :shared] *= ramp
            raw[left, tile - shared :] *= ramp[::-1]
    total = np.zeros(size)
    for start, weight in zip(starts, raw, strict=True):
        total[start : start + tile] += weight
    return np.stack([weight / total[start : start + tile] for start, weight in zip(starts, raw, strict=True)]).astype(
        np.float32
    )


class BandAccumulator:
    """Weighted sums of tile results, kept for one band of tile rows only.

    Add all tiles of a grid row, then take the rows that are finished:

        for row_index in range(len(grid.rows.starts)):
            for tile in grid.row_of_tiles(row_index):
                accumulator.add(tile, values)        # (K, tile height, tile width)
            first, blended = accumulator.flush(row_index)

    Args:
        grid: the tiles.
        channels: K, the number of values per pixel.
    """

    def __init__(self, grid: TileGrid, channels: int) -> None:
        self.grid = grid
        self._band = np.zeros((channels, grid.rows.tile, grid.columns.size), dtype=np.float32)
        self._handed_out = 0

    @staticmethod
    def memory_needed(grid: TileGrid, channels: int) -> int:
        """Bytes that an accumulator of this grid takes."""
        return channels * grid.rows.tile * grid.columns.size * np.dtype(np.float32).itemsize

    def add(self, tile: Tile, values: NDArray[np.float32]) -> None:
        """Add the values (K, height, width) of one tile of the current grid row.

        Raises:
            InputError: the values do not have the shape of the tile.
        """
        expected = (self._band.shape[0], tile.height, tile.width)
        if values.shape != expected:
            raise InputError(f"A tile's result has the shape {tuple(values.shape)}, and {expected} was expected.")
        self._forget_finished_rows()
        self._band[:, :, tile.slices[1]] += values * self.grid.weights(tile)

    def flush(self, row_index: int) -> tuple[int, NDArray[np.float32]]:
        """The rows that no later tile touches; call it after the last tile of every grid row, in order.

        Returns:
            The first of the finished rows of the scene, and their blended values (K, rows, W): a view of the
            band, which the next :meth:`add` or :meth:`flush` overwrites.
        """
        self._forget_finished_rows()
        first, last = self.grid.rows.finished(row_index)
        self._handed_out = last - first
        return first, self._band[:, : self._handed_out]

    def _forget_finished_rows(self) -> None:
        """Move the unfinished rows to the top of the band and make room below them."""
        done = self._handed_out
        if done:
            # Channel by channel, so that the move does not need a second band.
            for channel in self._band:
                rest = channel[done:].copy()
                channel[: len(rest)] = rest
                channel[len(rest) :] = 0
            self._handed_out = 0
