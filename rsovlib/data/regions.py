"""The connected regions of a class map as polygons, from strips that come one after another, in bounded memory.

Each strip is labelled and polygonized by itself. Regions that touch its lower border are *open*: they are kept until
the next strip says what continues them (a neighbour of the same class below), and put together when nothing does any
more. All others are finished, and handed on at once. So memory holds one strip and the open regions, whatever the
map's height; the regions are those of the whole map, corner by corner.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import shapely
import shapely.geometry
from numpy.typing import NDArray

from rsovlib.data.areas import PixelAreas

STRIP = 2**20
"""Pixels that are labelled at a time."""

Strip: TypeAlias = tuple[NDArray[Any], NDArray[np.bool_], NDArray[Any] | None]
"""Rows of a map: labels (n, W), where they count (n, W), and the confidence (n, W) if there is one."""


@dataclass(frozen=True)
class Regions:
    """Finished regions: entry i of each array is of region i.

    Attributes:
        class_index: (n,) int64.
        pixels: (n,) int64.
        area: (n,) square metres; NaN where the map has no place on Earth.
        confidence: (n,) sums over the pixels; NaN where none was given.
        polygons: (n,) shapely polygons in pixels, x the column and y the row.
    """

    class_index: NDArray[np.int64]
    pixels: NDArray[np.int64]
    area: NDArray[np.float64]
    confidence: NDArray[np.float64]
    polygons: NDArray[np.object_]

    @classmethod
    def joined(cls, parts: Iterable[Regions]) -> Regions:
        """All of several, in their order."""
        listed = list(parts) or [_NONE]
        return cls(*(np.concatenate([getattr(part, name) for part in listed]) for name in cls.__dataclass_fields__))


_NONE = Regions(
    np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64), np.empty(0, np.float64), np.empty(0, object)
)


@dataclass
class _Open:
    """A region that may go on below: what is known of it so far.

    Attributes:
        fragments: its polygon in each strip, with the first row of the strip and the one after its last.
    """

    class_index: int
    pixels: int = 0
    area: float = 0.0
    confidence: float = 0.0
    fragments: list[tuple[Any, int, int]] = field(default_factory=list)

    def take(self, other: _Open) -> None:
        """Take over what is known of another part of the same region."""
        self.pixels += other.pixels
        self.area += other.area
        self.confidence += other.confidence
        self.fragments += other.fragments


class RegionStream:
    """Makes regions (4-neighbourhood) of strips of a map that come from top to bottom.

    Args:
        areas: of the pixels; None for a map without a place on Earth.
    """

    def __init__(self, areas: PixelAreas | None) -> None:
        self._areas = areas
        self._row = 0
        self._open: list[_Open] = []
        self._above: NDArray[np.int64] | None = None  # (W,) which of the open regions the last row belongs to, or -1

    def regions(self, strips: Iterable[Strip], at_once: int = STRIP) -> Iterator[Regions]:
        """The regions of a whole map, as they are finished.

        Args:
            strips: rows of the map, from top to bottom.
            at_once: pixels that are labelled at a time; higher strips are cut.
        """
        for labels, valid, confidence in strips:
            rows = max(1, at_once // labels.shape[1])
            for first in range(0, len(labels), rows):
                part = slice(first, first + rows)
                yield self._add(labels[part], valid[part], None if confidence is None else confidence[part])
        yield _closed(self._open)
        self._open, self._above = [], None

    def _add(self, labels: NDArray[Any], valid: NDArray[np.bool_], confidence: NDArray[Any] | None) -> Regions:
        components, found = self._components(labels, valid, confidence)
        count, before = len(found.pixels), len(self._open)
        group = self._groups(components, labels, count)
        below = np.unique(components[-1])
        below = below[below > 0] - 1
        # Groups that something is known of from above, or that may go on below; all others are finished here.
        special = np.zeros(len(group), dtype=bool)
        special[group[:before]] = True
        special[group[before + below]] = True
        members: dict[int, _Open] = {}
        for known, name in zip(self._open, group[:before].tolist(), strict=True):
            members.setdefault(name, _Open(known.class_index)).take(known)
        for index in np.flatnonzero(special[group[before:]]).tolist():
            part = _Open(
                int(found.class_index[index]),
                int(found.pixels[index]),
                float(found.area[index]),
                float(found.confidence[index]),
                [(found.polygons[index], self._row, self._row + len(labels))],
            )
            members.setdefault(int(group[before + index]), _Open(part.class_index)).take(part)
        going_on = np.unique(group[before + below])
        self._open = [members.pop(name) for name in going_on.tolist()]
        number_of = np.full(len(group) + 1, -1, dtype=np.int64)
        number_of[going_on] = np.arange(len(going_on))
        last = components[-1]
        self._above = np.where(last > 0, number_of[group[before + np.maximum(last, 1) - 1]] if count else -1, -1)
        self._row += len(labels)
        simple = ~special[group[before:]]
        finished = Regions(*(getattr(found, name)[simple] for name in Regions.__dataclass_fields__))
        return Regions.joined([finished, _closed(members.values())])

    def _components(
        self, labels: NDArray[Any], valid: NDArray[np.bool_], confidence: NDArray[Any] | None
    ) -> tuple[NDArray[np.int32], Regions]:
        """The components (n, W) of a strip, from 1 and 0 where nothing counts; and each of them as a region."""
        import rasterio.features
        import skimage.measure

        # Background 0 is left out by label(), so classes count from 1 here.
        shifted = np.where(valid, labels.astype(np.int32) + 1, 0)
        components = skimage.measure.label(shifted, background=0, connectivity=1).astype(np.int32)
        count = int(components.max(initial=0))
        index_of = np.zeros(count + 1, dtype=np.int64)
        index_of[components.ravel()] = shifted.ravel() - 1
        pixels = np.bincount(components.ravel(), minlength=count + 1)
        area = np.zeros(count + 1) if self._areas is not None else np.full(count + 1, np.nan)
        sums = np.zeros(count + 1) if confidence is not None else np.full(count + 1, np.nan)
        step = 64  # a few rows at a time: float64 needs more room than the labels
        for first in range(0, len(labels), step):
            part = components[first : first + step]
            if self._areas is not None:
                weights = self._areas.of_rows(self._row + first, len(part)).ravel()
                area += np.bincount(part.ravel(), weights=weights, minlength=count + 1)
            if confidence is not None:
                weights = confidence[first : first + step].ravel().astype(np.float64)
                sums += np.bincount(part.ravel(), weights=weights, minlength=count + 1)
        polygons = np.empty(count, dtype=object)
        place = rasterio.Affine.translation(0, self._row)
        for geometry, value in rasterio.features.shapes(components, mask=valid, connectivity=4, transform=place):
            polygons[int(value) - 1] = shapely.geometry.shape(geometry)
        return components, Regions(index_of[1:], pixels[1:].astype(np.int64), area[1:], sums[1:], polygons)

    def _groups(self, components: NDArray[np.int32], labels: NDArray[Any], count: int) -> NDArray[np.int64]:
        """What belongs together: a number for each open region, then for each component of the strip below them."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        before = len(self._open)
        if self._above is None or not before or not count:
            return np.arange(before + count)
        classes = np.array([known.class_index for known in self._open])
        touching = (components[0] > 0) & (self._above >= 0)
        touching[touching] = classes[self._above[touching]] == labels[0][touching]
        upper, lower = self._above[touching], before + components[0][touching] - 1
        shape = (before + count, before + count)
        links = coo_matrix((np.ones(len(upper), dtype=bool), (upper, lower)), shape=shape)
        return connected_components(links, directed=False)[1].astype(np.int64)


def region_memory(height: int, width: int) -> float:
    """Foreseen bytes of a stream over a map: a strip with its components, and the open regions of busy maps."""
    strip = min(height, max(1, STRIP // width)) * width
    # Measured with regions of 9 pixels in the mean: per pixel of a strip 450 bytes (polygons in GDAL, shapely and Arrow
    # far more than the arrays). With regions of 200 pixels it is less than half; open ones take 0.2 bytes a pixel.
    return 450.0 * strip + 0.5 * height * width


def _closed(regions: Iterable[_Open]) -> Regions:
    """Regions of which all parts are known."""
    listed = list(regions)
    polygons = np.empty(len(listed), dtype=object)
    for index, region in enumerate(listed):
        polygons[index] = _merged(region.fragments)
    return Regions(
        np.array([region.class_index for region in listed], dtype=np.int64),
        np.array([region.pixels for region in listed], dtype=np.int64),
        np.array([region.area for region in listed], dtype=np.float64),
        np.array([region.confidence for region in listed], dtype=np.float64),
        polygons,
    )


def _merged(fragments: list[tuple[Any, int, int]]) -> Any:
    """One polygon of its fragments in several strips."""
    if len(fragments) == 1:
        return fragments[0][0]
    shells, holes = [], []
    for polygon, top, bottom in fragments:
        rings = shapely.get_interior_ring(polygon, np.arange(shapely.get_num_interior_rings(polygon)))
        bounds = shapely.bounds(rings)
        # Holes inside a strip take no part in the union: that is nearly all of what a large region consists of.
        inside = (bounds[:, 1] > top) & (bounds[:, 3] < bottom)
        holes.append(rings[inside])
        shells.append(shapely.polygons(shapely.get_exterior_ring(polygon), rings[~inside]))
    whole = shapely.union_all(shells)
    cut = shapely.get_interior_ring(whole, np.arange(shapely.get_num_interior_rings(whole)))
    outline = _corners(shapely.get_exterior_ring(whole))
    return shapely.polygons(outline, np.concatenate([np.array([_corners(ring) for ring in cut], object), *holes]))


def _corners(ring: Any) -> Any:
    """A ring of edges along rows and columns without the points at which it does not turn."""
    points = shapely.get_coordinates(ring)[:-1]
    before, after = np.roll(points, 1, axis=0), np.roll(points, -1, axis=0)
    straight = ((points == before) & (points == after)).any(axis=1)
    return shapely.linearrings(points[~straight])
