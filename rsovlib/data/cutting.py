"""How papers cut images into tiles, and how they share the tiles out at random.

This is for making datasets: tiles of exactly one size, on the grid that a paper states. For running a method over a
scene there are the overlapping, blended tiles of :mod:`rsovlib.data.tiling`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from rsovlib.data.manifest import RandomSplit, Tiles
from rsovlib.errors import InputError


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels; it may reach beyond the right and lower edge of its image.

    Attributes:
        row, column: of its upper left pixel.
        height, width: in pixels.
    """

    row: int
    column: int
    height: int
    width: int


@dataclass(frozen=True)
class CutTile:
    """One tile of an image.

    Attributes:
        row_index, column_index: its place in the grid of tiles, from 0.
        box: its pixels.
    """

    row_index: int
    column_index: int
    box: Box


def cut_tiles(height: int, width: int, tiles: Tiles | None) -> list[CutTile]:
    """The tiles of an image, row by row.

    Args:
        height: rows of the image.
        width: columns of the image.
        tiles: side, stride, and what happens at the right and lower edge; None gives the image as a single tile.

    Returns:
        With ``edge`` "shift", "pad" and "drop" all tiles have full size: the last ones are moved inwards, reach
        beyond the image, or are left out. With "clip" the last ones are smaller. An image that is smaller than
        a tile is padded under "shift", too.

    Raises:
        InputError: the image has no pixels.
    """
    if height < 1 or width < 1:
        raise InputError(f"An image of {height} x {width} pixels has nothing to cut into tiles.")
    if tiles is None:
        return [CutTile(0, 0, Box(0, 0, height, width))]
    rows, columns = _starts(height, tiles), _starts(width, tiles)
    return [
        CutTile(row_index, column_index, Box(row, column, _length(row, height, tiles), _length(column, width, tiles)))
        for row_index, row in enumerate(rows)
        for column_index, column in enumerate(columns)
    ]


def _starts(size: int, tiles: Tiles) -> list[int]:
    """Where tiles begin along one axis."""
    whole = list(range(0, size - tiles.size + 1, tiles.stride))
    if tiles.edge == "drop":
        return whole
    rest = not whole or whole[-1] + tiles.size < size
    if rest:
        following = whole[-1] + tiles.stride if whole else 0
        # A stride beyond the tile leaves gaps; the last tile then may begin beyond the image.
        if tiles.edge == "shift":
            whole.append(max(0, size - tiles.size))
        elif following < size:
            whole.append(following)
    return whole


def _length(start: int, size: int, tiles: Tiles) -> int:
    return min(tiles.size, size - start) if tiles.edge == "clip" else tiles.size


def random_parts(count: int, rule: RandomSplit, fold: int = 0) -> list[str]:
    """Share tiles out at random.

    The tiles are permuted with ``numpy.random.default_rng(rule.seed)``. With a single fold the parts take their
    shares of the permutation one after the other. With several folds, the part "test" (the last one where none is
    called so) takes the ``fold``-th stretch of its share, and the others their shares of the rest, the smaller ones
    first: 5 folds of train 0.72, val 0.08, test 0.2 are one fifth for testing, then the first tenth of the rest for
    validation.

    Args:
        count: number of tiles.
        rule: shares, folds and seed.
        fold: 0 to ``rule.folds - 1``.

    Returns:
        For each tile the name of its part.

    Raises:
        InputError: there is no such fold.
    """
    if not 0 <= fold < rule.folds:
        raise InputError(f"There is no fold {fold}; this split has the folds 0 to {rule.folds - 1}.")
    order = np.random.default_rng(rule.seed).permutation(count)
    parts = [""] * count
    names = list(rule.fractions)
    if rule.folds > 1:
        test = "test" if "test" in names else names[-1]
        share = rule.fractions[test]
        first, last = round(fold * share * count), round(min(1.0, (fold + 1) * share) * count)
        for place in order[first:last]:
            parts[place] = test
        order = np.concatenate([order[:first], order[last:]])
        names = sorted((name for name in names if name != test), key=lambda name: rule.fractions[name])
    total = sum(rule.fractions[name] for name in names)
    ends = [round(share * len(order)) for share in accumulate(rule.fractions[name] / total for name in names)]
    for name, start, end in zip(names, [0, *ends[:-1]], ends, strict=True):
        for place in order[start:end]:
            parts[place] = name
    return parts
