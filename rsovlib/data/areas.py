"""The true area of a pixel, whatever the projection of the map.

A pixel of 10 x 10 "metres" in World Mercator covers 69 square metres at 34 degrees north, and a pixel in degrees has no
area at all until somebody projects it.  So pixels are measured in a Lambert azimuthal equal-area projection centred on
the scene.  The area changes slowly over a scene; it is measured on a coarse grid and interpolated in between.
"""

from __future__ import annotations

import numpy as np
import rasterio
import rasterio.warp
from numpy.typing import NDArray
from rasterio.errors import RasterioError

_NODES = 33
"""Grid nodes along each side of the scene on which the area is measured."""


class PixelAreas:
    """Areas of the pixels of a georeferenced scene, in square metres. Made by :func:`pixel_areas`."""

    def __init__(self, rows: NDArray[np.float64], columns: NDArray[np.float64], nodes: NDArray[np.float64]) -> None:
        self._rows = rows
        self._nodes = nodes
        self._columns = columns

    def of_rows(self, first: int, count: int) -> NDArray[np.float64]:
        """The areas (count, W) of the pixels of some rows of the scene, in square metres."""
        wanted = np.arange(first, first + count, dtype=np.float64)
        # (count, nodes along a row), then (count, W): linear along both axes.
        along_rows = np.stack([np.interp(wanted, self._rows, column) for column in self._nodes.T], axis=1)
        step = self._columns
        pixels = np.arange(int(step[-1]) + 1, dtype=np.float64)
        left = np.clip(np.searchsorted(step, pixels, side="right") - 1, 0, max(len(step) - 2, 0))
        right = np.minimum(left + 1, len(step) - 1)
        share = (pixels - step[left]) / np.where(right > left, step[right] - step[left], 1.0)
        return along_rows[:, left] * (1 - share) + along_rows[:, right] * share


def pixel_areas(crs: rasterio.CRS | None, transform: rasterio.Affine, height: int, width: int) -> PixelAreas | None:
    """The areas of the pixels of a scene, or None where they can't be known.

    Args:
        crs: coordinate reference system of the scene; None if it has none.
        transform: from (column, row) to map coordinates; may be rotated.
        height: rows of the scene.
        width: columns of the scene.

    Returns:
        None without a CRS, with a CRS that stands nowhere on Earth, or for a scene that leaves the domain of its CRS.
    """
    if crs is None:
        return None
    rows = np.unique(np.linspace(0, height - 1, min(_NODES, height)).round())
    columns = np.unique(np.linspace(0, width - 1, min(_NODES, width)).round())
    try:
        equal_area = _equal_area_crs(crs, transform, height, width)
        grid_rows, grid_columns = np.meshgrid(rows, columns, indexing="ij")
        # Through the middle of the pixel: its area to second order, also where pixels narrow towards a pole.
        left, right, top, bottom = (
            _project(crs, equal_area, transform, grid_rows + dy, grid_columns + dx)
            for dy, dx in ((0.5, 0.0), (0.5, 1.0), (0.0, 0.5), (1.0, 0.5))
        )
    except (RasterioError, ValueError):
        return None
    along, down = right - left, bottom - top
    nodes = np.abs(along[0] * down[1] - along[1] * down[0])
    return PixelAreas(rows, columns, nodes) if np.isfinite(nodes).all() else None


def _equal_area_crs(crs: rasterio.CRS, transform: rasterio.Affine, height: int, width: int) -> rasterio.CRS:
    """Lambert's azimuthal equal-area projection centred on the scene."""
    x, y = _place(transform, np.array([height / 2]), np.array([width / 2]))
    (longitude,), (latitude,) = rasterio.warp.transform(crs, "EPSG:4326", x, y)
    if not np.isfinite([longitude, latitude]).all():
        raise ValueError("the centre of the scene is outside the domain of its CRS")
    return rasterio.CRS.from_string(f"+proj=laea +lat_0={latitude} +lon_0={longitude} +datum=WGS84 +units=m +no_defs")


def _project(
    crs: rasterio.CRS,
    target: rasterio.CRS,
    transform: rasterio.Affine,
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Places (rows, columns) as (2, ...) coordinates of the target CRS, in metres."""
    xs, ys = _place(transform, rows.ravel(), columns.ravel())
    projected = rasterio.warp.transform(crs, target, xs, ys)
    return np.asarray(projected, dtype=np.float64).reshape(2, *rows.shape)


def _place(
    transform: rasterio.Affine, rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Map coordinates of places in pixels; written out, because versions of affine differ in the operator for it."""
    t = transform
    return t.a * columns + t.b * rows + t.c, t.d * columns + t.e * rows + t.f
