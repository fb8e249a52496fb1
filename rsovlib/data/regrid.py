"""A box of one image, found in another image of the same scene.

Which array positions a box of the reference image covers in another image follows by the ground where both files
have a geotransform, otherwise by their sizes, which then are taken to show the same scene.  Where grids agree, pixels
are copied; where they differ, images are interpolated bilinearly between pixel centres and labels by the nearest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from rsovlib.data.arrays import ArrayFile, Header, Pixels
from rsovlib.data.cutting import Box
from rsovlib.errors import RasterError

_SAME_PIXEL = 0.05
"""Pixels that two grids may be apart and still count as the same (rounded corners; see rsovlib.data.grid)."""


@dataclass(frozen=True)
class GridMapping:
    """Position in a file's pixels = start + scale * position in the reference's pixels, along both axes."""

    row_start: float
    row_scale: float
    column_start: float
    column_scale: float


def grid_mapping(reference: Header, header: Header, reference_name: str, name: str) -> GridMapping:
    """How the pixels of two images of the same scene correspond."""
    own, other = reference.transform, header.transform
    if own is not None and other is not None and reference.crs == header.crs:
        both = compose(~other, own)
        if abs(both.b * reference.height) > _SAME_PIXEL or abs(both.d * reference.width) > _SAME_PIXEL:
            raise RasterError(f"{name} is rotated against {reference_name}; warp one of them to the other's grid.")
        found = GridMapping(
            *_snapped(both.f, both.e, reference.height),
            *_snapped(both.c, both.a, reference.width),
        )
        _require_overlap(found, reference, header, reference_name, name)
        return found
    return GridMapping(0.0, header.height / reference.height, 0.0, header.width / reference.width)


def compose(outer: rasterio.Affine, inner: rasterio.Affine) -> rasterio.Affine:
    """First the inner, then the outer transform; written out, since the operator differs between affine's versions."""
    return rasterio.Affine(
        outer.a * inner.a + outer.b * inner.d,
        outer.a * inner.b + outer.b * inner.e,
        outer.a * inner.c + outer.b * inner.f + outer.c,
        outer.d * inner.a + outer.e * inner.d,
        outer.d * inner.b + outer.e * inner.e,
        outer.d * inner.c + outer.e * inner.f + outer.f,
    )


def _snapped(start: float, scale: float, size: int) -> tuple[float, float]:
    """A start and a scale without rounding errors."""
    if abs(scale - 1) * size < _SAME_PIXEL:
        scale = 1.0
    return (float(round(start)) if abs(start - round(start)) < _SAME_PIXEL else start), scale


def _require_overlap(mapping: GridMapping, reference: Header, header: Header, reference_name: str, name: str) -> None:
    for start, scale, size, limit in (
        (mapping.row_start, mapping.row_scale, reference.height, header.height),
        (mapping.column_start, mapping.column_scale, reference.width, header.width),
    ):
        ends = sorted((start, start + scale * size))
        if ends[1] <= 0 or ends[0] >= limit:
            raise RasterError(
                f"{name} and {reference_name} do not overlap on the ground; are they of different scenes?"
            )


def read_box(
    file: ArrayFile, channels: tuple[int, ...], box: Box, mapping: GridMapping, *, nearest: bool, ask_file: bool = True
) -> Pixels:
    """A box of the reference, read from a file on its own resolution."""
    rows = _positions(box.row, box.height, mapping.row_start, mapping.row_scale)
    columns = _positions(box.column, box.width, mapping.column_start, mapping.column_scale)
    header = file.header
    inside = _inside(rows, header.height)[:, None] & _inside(columns, header.width)[None, :]
    if not inside.any():
        kind = np.dtype(header.dtype)
        return Pixels(np.zeros((len(channels), len(rows), len(columns)), dtype=kind), inside)
    top, bottom = _reach(rows, header.height)
    left, right = _reach(columns, header.width)
    found = file.read(channels, slice(top, bottom), slice(left, right))
    values, valid = found.values, found.valid if ask_file else np.ones(found.valid.shape, dtype=bool)
    values, valid = _resampled(values, valid, rows - top, columns - left, nearest=nearest)
    values[:, ~inside] = 0
    return Pixels(values, valid & inside)


def _positions(first: int, length: int, start: float, scale: float) -> NDArray[np.float64]:
    """Where the pixel centres of a box lie in a file, in units of its pixels, 0 at the centre of its first one.

    A resolution that differs gives round(length * scale) pixels, spread evenly over the box.
    """
    count = max(1, round(length * abs(scale)))
    step = length * scale / count
    positions = start + first * scale + (np.arange(count) + 0.5) * step - 0.5
    whole = np.round(positions)
    return np.where(np.abs(positions - whole) < 1e-6, whole, positions)


def _inside(positions: NDArray[np.float64], size: int) -> NDArray[np.bool_]:
    return (positions > -0.5 - 1e-9) & (positions < size - 0.5 + 1e-9)


def _reach(positions: NDArray[np.float64], size: int) -> tuple[int, int]:
    """The first and the end of the pixels that positions inside the image are interpolated from."""
    low, high = float(positions.min()), float(positions.max())
    return max(0, min(size - 1, int(np.floor(low)))), min(size, max(1, int(np.ceil(high)) + 1))


def _resampled(
    values: NDArray[Any],
    valid: NDArray[np.bool_],
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
    *,
    nearest: bool,
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Values at positions; a pixel is valid where all that it is made of is."""
    (top, bottom, down), (left, right, along) = (
        _neighbours(rows, values.shape[1]),
        _neighbours(columns, values.shape[2]),
    )
    is_whole = not down.any() and not along.any()
    if is_whole or nearest:
        # Half-way goes to the lower index, so that the result doesn't hang on rounding to even.
        near_rows, near_columns = np.where(down > 0.5, bottom, top), np.where(along > 0.5, right, left)
        return values[:, near_rows[:, None], near_columns], valid[near_rows[:, None], near_columns]
    down, along = down[:, None], along[None, :]
    parts = (
        ((1 - down) * (1 - along), top, left),
        ((1 - down) * along, top, right),
        (down * (1 - along), bottom, left),
        (down * along, bottom, right),
    )
    total = np.zeros((values.shape[0], len(rows), len(columns)))
    good = np.ones(total.shape[1:], dtype=bool)
    clean = np.where(valid, values, 0)  # NaN times 0 would be NaN
    for weight, at_rows, at_columns in parts:
        total += weight * clean[:, at_rows[:, None], at_columns]
        good &= valid[at_rows[:, None], at_columns] | (weight == 0)
    if values.dtype.kind in "ui":
        total = np.round(total)
    return total.astype(values.dtype), good


def _neighbours(
    positions: NDArray[np.float64], size: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """The pixels before and after each position, and how far it is from the first towards the second."""
    clipped = np.clip(positions, 0, size - 1)
    before = np.floor(clipped).astype(np.intp)
    after = np.minimum(before + 1, size - 1)
    return before, after, clipped - before
