"""Several rasters of one place on one grid: an optical scene and the radar beside it, and whatever else there is.

The first raster is the reference: it is read as it is, and the others are warped to its grid by GDAL, window by
window.  A raster that lies on that grid already, but for rounding, is read without any resampling.  Where a raster
does not reach, or holds no data, it says so: availability is part of every answer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from rsovlib.data.grid import TOLERANCE, Grid, OpenOnGrid, ResamplingRule
from rsovlib.data.reader import SceneRaster, StretchRule, open_scene
from rsovlib.data.sar import IW_LOOKS, Filter
from rsovlib.data.sarscene import SarScene, UnitRule, polarisations
from rsovlib.data.source import SAMPLE_SIDE, BandReader, Bands
from rsovlib.data.stretch import PERCENTILES, Stretch
from rsovlib.errors import InputError, RasterError, unknown_name

_SPECK = 1e-6
"""Pixels of the reference that are no overlap: neighbours that only touch overlap by rounding."""


def open_pair(
    optical: str | os.PathLike[str],
    sar: str | os.PathLike[str],
    *,
    bands: str | Sequence[int | str] | None = None,
    stretch: StretchRule = "auto",
    sar_bands: str | Sequence[int | str] | None = None,
    unit: UnitRule = "auto",
    despeckle: Filter | None = None,
    looks: float = IW_LOOKS,
    percentiles: tuple[float, float] = PERCENTILES,
    resampling: ResamplingRule = "bilinear",
    tolerance: float = TOLERANCE,
) -> ScenePair:
    """Open an optical scene and a radar scene of the same place, both to be read on the optical grid.

    Args:
        optical: raster with three bands of colour; its grid is the one that all is read on.
        sar: raster with one to four polarisations; may differ in grid, resolution and CRS.
        bands: the optical bands; see :func:`rsovlib.data.reader.open_scene`.
        stretch: of the optical bands; see there.
        sar_bands: the polarisations; see :func:`rsovlib.data.sarscene.open_sar`.
        unit: of the radar's values; see there.
        despeckle: speckle filter, applied on the common grid; see there.
        looks: for the filter; see there.
        percentiles: of both stretches.
        resampling: how the radar's values, as the file has them (so decibels where it holds decibels), are found on
            the optical grid, unless both are on one grid.
        tolerance: pixels that corners may lie apart and still count as one grid.

    Returns:
        The open pair; close it, or use it in a ``with`` statement.

    Raises:
        RasterError: a file is not usable, one of them has no place on Earth, or they lie in different places.
        InputError: an option is unknown or does not fit.
    """
    radar = Radar(os.fspath(sar), _as_tuple(sar_bands), unit, despeckle, looks, percentiles, resampling, tolerance)
    with ExitStack() as stack:
        first = stack.enter_context(open_scene(optical, bands, stretch=stretch, percentiles=percentiles))
        scene, relation = radar.beside(first)
        stack.pop_all()
    return ScenePair(first, scene, relation, radar)


@dataclass(frozen=True)
class Radar:
    """A radar raster and how it is read beside an optical scene; see :func:`open_pair`. Travels to other processes.

    Attributes:
        stretch: where it is known already (:meth:`ScenePair.recipe`), nothing has to be found on the whole scene.
    """

    path: str
    bands: str | tuple[int | str, ...] | None = None
    unit: UnitRule = "auto"
    despeckle: Filter | None = None
    looks: float = IW_LOOKS
    percentiles: tuple[float, float] = PERCENTILES
    resampling: ResamplingRule = "bilinear"
    tolerance: float = TOLERANCE
    stretch: Stretch | None = None

    def beside(self, optical: SceneRaster) -> tuple[SarScene, str]:
        """The radar raster on the grid of an open scene, and in words how it came there.

        Raises:
            RasterError: the file is not usable, has no place on Earth, or lies in another place.
            InputError: an option is unknown or does not fit.
        """
        with ExitStack() as stack:
            reader = stack.enter_context(BandReader(self.path, polarisations(self.bands)))
            relation = place_on(optical.grid, optical.name, reader, self.resampling, self.tolerance)
            if self.stretch is None and not reader.holds_data():
                raise RasterError(
                    f"{reader.name} holds no data where {optical.name} lies: every pixel there is nodata or masked; "
                    "check that the two files belong together."
                )
            scene = SarScene(
                reader,
                unit=self.unit,
                despeckle=self.despeckle,
                looks=self.looks,
                percentiles=self.percentiles,
                stretch=self.stretch,
            )
            stack.pop_all()
        return scene, relation


def _as_tuple(bands: str | Sequence[int | str] | None) -> str | tuple[int | str, ...] | None:
    return bands if bands is None or isinstance(bands, str) else tuple(bands)


@dataclass(frozen=True)
class PairWindow:
    """A window of a pair.

    Attributes:
        optical: (H, W, 3) uint8 display values, 0 where not valid.
        optical_valid: (H, W) where the optical scene holds data.
        sar: (H, W, 3) uint8 display values, 0 where not valid.
        sar_valid: (H, W) where the radar scene holds data.
    """

    optical: NDArray[np.uint8]
    optical_valid: NDArray[np.bool_]
    sar: NDArray[np.uint8]
    sar_valid: NDArray[np.bool_]


class ScenePair(OpenOnGrid):
    """An optical and a radar scene on the optical grid. Made by :func:`open_pair`.

    Attributes:
        optical: the optical scene, as :func:`rsovlib.data.reader.open_scene` gives it.
        sar: the radar scene on the same grid; for decibels take its ``read_db``.
        relation: in words, how the radar came to this grid.
    """

    def __init__(self, optical: SceneRaster, sar: SarScene, relation: str, radar: Radar) -> None:
        self.optical = optical
        self.sar = sar
        self.relation = relation
        self._radar = radar

    def close(self) -> None:
        """Close both files."""
        self.optical.close()
        self.sar.close()

    @property
    def grid(self) -> Grid:
        """The optical grid."""
        return self.optical.grid

    def read(self, window: Window | None = None) -> PairWindow:
        """Display values and availability of both, in a window or as a whole.

        Raises:
            RasterError: the window can't be read in one of the files.
        """
        return PairWindow(*self.optical.read(window), *self.sar.read(window))

    def available(self, window: Window | None = None) -> dict[str, NDArray[np.bool_]]:
        """Where each of the two holds data, (H, W) each."""
        return {"optical": self.optical.valid(window), "sar": self.sar.valid(window)}

    @cached_property
    def coverage(self) -> dict[str, float]:
        """Shares of the grid, 0 to 1, where each and where both hold data, on the scene reduced to 1024 pixels."""
        optical, sar = self.optical.preview(SAMPLE_SIDE)[1], self.sar.preview(SAMPLE_SIDE)[1]
        return {"optical": optical.mean().item(), "sar": sar.mean().item(), "both": (optical & sar).mean().item()}

    def recipe(self) -> Radar:
        """How others read the same radar beside the same scene: what was found on the whole scene goes with it."""
        path = Path(self.sar.name)
        return replace(
            self._radar,
            path=str(path.absolute()) if path.exists() else self.sar.name,
            bands=self.sar.bands,
            unit=self.sar.unit,
            stretch=self.sar.stretch,
        )

    def settings(self) -> dict[str, Any]:
        """What is read depends on these, besides the optical scene's own; plain values, for the tags of a result."""
        # The name only: where the file lies on somebody's disk is nobody else's business.
        return {"source": Path(self.sar.name).name, "grid": self.relation, **self.sar.settings()}


def open_stack(
    paths: Mapping[str, str | os.PathLike[str]],
    *,
    bands: Mapping[str, str | Sequence[int | str]] | None = None,
    reference: str | None = None,
    resampling: ResamplingRule | Mapping[str, ResamplingRule] = "bilinear",
    tolerance: float = TOLERANCE,
) -> RasterStack:
    """Open any rasters of one place, to be read as they are on the grid of one of them.

    Args:
        paths: file of each modality by its name, such as ``{"optical": ..., "sar": ..., "elevation": ...}``.
        bands: which bands of a modality; by default all.
        reference: the modality whose grid is taken; by default the first.
        resampling: of all modalities, or of each by name (bilinear where not named); take ``"nearest"`` or
            ``"mode"`` for classes.
        tolerance: pixels that corners may lie apart and still count as one grid.

    Returns:
        The open stack; close it, or use it in a ``with`` statement.

    Raises:
        RasterError: a file is not usable, one of them has no place on Earth, or they lie in different places.
        InputError: no file, or an unknown name of a modality or resampling.
    """
    if not paths:
        raise InputError("A stack of rasters needs at least one file.")
    names = list(paths)
    for name in [reference or names[0], *(bands or {}), *(() if isinstance(resampling, str) else resampling)]:
        if name not in paths:
            raise unknown_name("modality", name, names)
    chosen, rules = reference or names[0], {} if isinstance(resampling, str) else resampling
    with ExitStack() as stack:
        readers = {name: stack.enter_context(BandReader(path, (bands or {}).get(name))) for name, path in paths.items()}
        first = readers[chosen]
        relations = {chosen: "the reference grid"}
        for name, reader in readers.items():
            if name != chosen:
                rule = resampling if isinstance(resampling, str) else rules.get(name, "bilinear")
                relations[name] = place_on(first.grid, first.name, reader, rule, tolerance)
        stack.pop_all()
    return RasterStack(readers, chosen, relations)


class RasterStack(OpenOnGrid):
    """Rasters of one place on one grid, by name of their modality. Made by :func:`open_stack`.

    Attributes:
        readers: the open raster of each modality.
        reference: the modality whose grid it is.
        relations: in words, how each came to this grid.
    """

    def __init__(self, readers: dict[str, BandReader], reference: str, relations: dict[str, str]) -> None:
        self.readers = readers
        self.reference = reference
        self.relations = relations

    def close(self) -> None:
        """Close all files."""
        for reader in self.readers.values():
            reader.close()

    @property
    def grid(self) -> Grid:
        """The grid that all are read on."""
        return self.readers[self.reference].grid

    def read(self, window: Window | None = None) -> dict[str, Bands]:
        """Values and availability of each modality, in a window or as a whole.

        Raises:
            RasterError: the window can't be read in one of the files.
        """
        return {name: reader.read(window) for name, reader in self.readers.items()}

    def available(self, window: Window | None = None) -> dict[str, NDArray[np.bool_]]:
        """Where each modality holds data, (H, W) each."""
        return {name: reader.valid(window) for name, reader in self.readers.items()}


def place_on(
    grid: Grid, name: str, reader: BandReader, resampling: ResamplingRule = "bilinear", tolerance: float = TOLERANCE
) -> str:
    """See to it that a raster is read on a grid: as it is where it lies there already, warped where not.

    Args:
        grid: the reference.
        name: file of the reference, for messages.
        reader: the raster; afterwards it reads on the grid.
        resampling: how values are found between pixels.
        tolerance: pixels that corners may lie apart and still count as one grid.

    Returns:
        In words, what was done.

    Raises:
        RasterError: one of the two has no place on Earth, or they lie in different places.
        InputError: the resampling is unknown.
    """
    own = reader.grid
    same_size = (own.height, own.width) == (grid.height, grid.width)
    sizes = f"{grid.height} x {grid.width} and {own.height} x {own.width} pixels"
    if grid.has_only_points and own.has_only_points and same_size and _points(grid) == _points(own):
        return "same control points"
    for file, place in ((name, grid), (reader.name, own)):
        if place.has_only_points:
            # rasterio's WarpedVRT takes control points, but puts them in the wrong place on a given grid.
            raise RasterError(
                f"{file} is placed by ground control points, and can't be brought together with "
                f"{reader.name if file == name else name} as it is; warp it to a map first, for example with "
                "gdalwarp -tps."
            )
    if grid.crs is None and own.crs is None:
        if same_size and (not own.has_transform or not grid.has_transform or grid.displacement(own) <= tolerance):
            return "same size, both without a coordinate reference system"
        raise RasterError(
            f"{name} and {reader.name} have no coordinate reference system and different grids ({sizes}), so nothing "
            "tells how they fit together; give them one, for example with gdal_translate -a_srs."
        )
    for file, place in ((name, grid), (reader.name, own)):
        if not place.is_placed:
            lacks = "coordinate reference system" if place.crs is None else "geotransform"
            raise RasterError(
                f"{file} has no {lacks}, and {reader.name if file == name else name} has one, so they can't be "
                "brought together; give it one, for example with gdal_translate -a_srs ... -a_ullr ..."
            )
    if own.crs == grid.crs and same_size:
        apart = grid.displacement(own)
        if apart <= tolerance:
            return "same grid" if apart == 0 else f"same grid, corners {apart:.1g} pixels apart"
    if grid.overlap(own) * grid.height * grid.width < _SPECK:
        raise RasterError(
            f"{name} and {reader.name} do not overlap: they show different places ({_place(grid)}; {_place(own)}); "
            "check that the two files belong together."
        )
    reader.warp_to(grid, resampling)
    origin = "another grid" if own.crs == grid.crs else "another coordinate reference system"
    return f"warped from {origin} by {resampling} resampling"


def _place(grid: Grid) -> str:
    """Where a grid lies, for people."""
    centre = grid.centre()
    return "centre unknown" if centre is None else f"centre at longitude {centre[0]:.4f}, latitude {centre[1]:.4f}"


def _points(grid: Grid) -> list[tuple[Any, ...]]:
    return [(point.row, point.col, point.x, point.y) for point in grid.gcps]
