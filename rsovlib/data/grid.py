"""Where the pixels of a raster lie: its grid, whether two grids are the same, and how far they overlap.

Two files of one product seldom hold the same transform to the last bit: somebody has rounded corners, or multiplied
them by a pixel size.  Grids are compared by how far their corners lie apart, in pixels, which is what matters for
the picture, and not by equality of numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.errors import RasterioError
from rasterio.warp import transform as transform_points

from rsovlib.errors import InputError

ResamplingRule = Literal["nearest", "bilinear", "cubic", "average", "mode"]
"""How values are found between pixels. GDAL widens all kernels but that of nearest where pixels become larger."""

TOLERANCE = 0.05
"""Pixels that the corners of two grids may lie apart and still count as one grid.

A twentieth of a pixel is far above rounding (1e-9 m in elevation models that were cut for an image, 0.01 pixels in
corners written with five digits) and far below what resampling by GDAL itself may err (0.125 pixels by default).
"""

_EDGE_POINTS = 33
"""Points along each edge of a footprint: a straight edge is a curve in another projection."""


@dataclass(frozen=True)
class Grid:
    """Size and place of a raster.

    Attributes:
        height: rows.
        width: columns.
        transform: from (column, row) of a pixel's upper left corner to map coordinates; the identity where unknown.
        crs: coordinate reference system of the map coordinates, or None.
        gcps: ground control points, of rasters that have these in place of a transform (raw radar products).
        gcp_crs: coordinate reference system of the control points.
        rpcs: rational polynomial coefficients, of optical products in sensor geometry; or None.
    """

    height: int
    width: int
    transform: rasterio.Affine
    crs: rasterio.CRS | None
    gcps: tuple[GroundControlPoint, ...] = ()
    gcp_crs: rasterio.CRS | None = None
    rpcs: Any = None

    @classmethod
    def of(cls, source: Any) -> Grid:
        """The grid of an open rasterio dataset."""
        points, crs = source.gcps
        return cls(source.height, source.width, source.transform, source.crs, tuple(points), crs, source.rpcs)

    @property
    def has_transform(self) -> bool:
        """Whether there is a transform; GDAL shows a missing one as the identity."""
        return self.transform != rasterio.Affine.identity()

    @property
    def is_placed(self) -> bool:
        """Whether each pixel has a place on Earth by a transform and a CRS."""
        return self.crs is not None and self.has_transform

    @property
    def has_only_points(self) -> bool:
        """Whether control points are all that tells where the raster lies."""
        return bool(self.gcps) and not self.has_transform

    def georeference(self) -> dict[str, Any]:
        """What a new raster on this grid is to be opened with: ``rasterio.open(path, "w", **grid.georeference())``."""
        if self.has_only_points:
            # rasterio takes the CRS of the points in this place.
            place: dict[str, Any] = {"gcps": list(self.gcps), "crs": self.gcp_crs}
        else:
            place = {"crs": self.crs, "transform": self.transform if self.has_transform else None}
        return place | ({} if self.rpcs is None else {"rpcs": self.rpcs})

    def displacement(self, other: Grid) -> float:
        """The largest distance between corners of the two grids, in pixels of this one; both have the same CRS."""
        corners = np.array([(0, 0), (self.width, 0), (0, self.height), (self.width, self.height)], dtype=float)
        to_own_pixels = _inverse(self.transform) @ _matrix(other.transform)
        moved = _apply(to_own_pixels, corners) - corners
        return float(np.hypot(moved[:, 0], moved[:, 1]).max())

    def overlap(self, other: Grid) -> float:
        """The share of this grid that the extent of the other covers, 0 to 1; both need a CRS.

        Extents only: what of it holds data is another question.

        Raises:
            InputError: one of them has no coordinate reference system.
        """
        if self.crs is None or other.crs is None:
            raise InputError("Whether two grids overlap is known only if both have a coordinate reference system.")
        # Longitude and latitude are defined for every map; a map not for every longitude and latitude, and PROJ gives
        # finite nonsense far outside of it.  So the one on a map is looked for on the one in degrees.
        if self.crs.is_geographic and not other.crs.is_geographic:
            return _share(_footprint(other, self), self, of_all=self.height * self.width)
        seen = _footprint(self, other)
        return 0.0 if seen is None else _share(seen, other, of_all=seen.area)

    def pixels_in(self, other: Grid) -> tuple[float, float] | None:
        """How many pixels of another grid a pixel of this one is wide and high, or None if unknown.

        In the middle of the other one where that lies within this one, else in the middle of this one.
        """
        middle = _seen_from(self, other, np.array([[other.width / 2, other.height / 2]]))
        if middle is None or not ((middle >= 0) & (middle <= (self.width, self.height))).all():
            middle = np.array([[self.width / 2, self.height / 2]])
        seen = _seen_from(other, self, middle + np.array([(0, 0), (1, 0), (0, 1)]))
        if seen is None:
            return None
        width, height = (float(np.hypot(*(seen[n] - seen[0]))) for n in (1, 2))
        return (width, height) if width > 0 and height > 0 else None

    def centre(self) -> tuple[float, float] | None:
        """Longitude and latitude of the centre in degrees (WGS 84), or None where they can't be had."""
        middle = _apply(_matrix(self.transform), np.array([[self.width / 2, self.height / 2]]))
        try:
            (longitude,), (latitude,) = transform_points(self.crs, "EPSG:4326", middle[:, 0], middle[:, 1])
        except RasterioError:
            return None
        return (longitude, latitude) if np.isfinite([longitude, latitude]).all() else None


def _footprint(grid: Grid, target: Grid) -> Any:
    """The outline of a grid in pixel coordinates of another one (a shapely polygon), or None if it can't be had."""
    steps = np.linspace(0, 1, _EDGE_POINTS)
    x = np.concatenate([steps, np.ones_like(steps), steps[::-1], np.zeros_like(steps)]) * grid.width
    y = np.concatenate([np.zeros_like(steps), steps, np.ones_like(steps), steps[::-1]]) * grid.height
    pixels = _seen_from(target, grid, np.column_stack([x, y]))
    return None if pixels is None else shapely.make_valid(shapely.Polygon(pixels))


def _share(footprint: Any, grid: Grid, of_all: float) -> float:
    """The area of a footprint within a grid, in its pixels, as a share."""
    if footprint is None or not of_all:
        return 0.0
    return float(shapely.intersection(footprint, shapely.box(0, 0, grid.width, grid.height)).area / of_all)


def _seen_from(target: Grid, grid: Grid, pixels: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Pixel coordinates (n, 2) of a grid as those of another one, or None where its CRS does not reach."""
    points = _apply(_matrix(grid.transform), pixels)
    if grid.crs != target.crs:
        try:
            points = np.column_stack(transform_points(grid.crs, target.crs, points[:, 0], points[:, 1]))
        except RasterioError:
            return None
    seen = _apply(_inverse(target.transform), points)
    return seen if np.isfinite(seen).all() else None


def _matrix(transform: rasterio.Affine) -> NDArray[np.float64]:
    return np.array((*transform[:6], 0, 0, 1), dtype=np.float64).reshape(3, 3)


def _inverse(transform: rasterio.Affine) -> NDArray[np.float64]:
    return np.linalg.inv(_matrix(transform)).astype(np.float64, copy=False)


def _apply(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    return points @ matrix[:2, :2].T + matrix[:2, 2]


class OpenOnGrid(ABC):
    """Something open whose pixels lie on a grid: closed by ``with``, and as large as its grid."""

    @property
    @abstractmethod
    def grid(self) -> Grid:
        """Size and place of what is read, control points included."""

    @abstractmethod
    def close(self) -> None:
        """Close what is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def height(self) -> int:
        """Rows."""
        return self.grid.height

    @property
    def width(self) -> int:
        """Columns."""
        return self.grid.width
