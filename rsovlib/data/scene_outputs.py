"""The files of a segmented scene: all of them appear together, or none does."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rsovlib.data.areas import PixelAreas, pixel_areas
from rsovlib.data.classes import ClassPrompt
from rsovlib.data.classmap import NODATA, Colours, class_map_writer, legend_path, replaced_class_map
from rsovlib.data.geotiff import TIFF_SUFFIXES, RowWriter, new_geotiff, open_raster, provenance
from rsovlib.data.outputs import check_output
from rsovlib.data.reader import SceneRaster
from rsovlib.data.regions import RegionStream
from rsovlib.data.scene_run import SceneRun
from rsovlib.data.vector import region_table
from rsovlib.data.vector_files import VECTOR_SUFFIXES, write_polygons
from rsovlib.errors import OutputError, RsovError
from rsovlib.files import remove_unfinished, write_beside

if TYPE_CHECKING:
    import pandas

_PICTURE_SIDE = 2048
"""Longest side of the overlay picture in pixels; larger scenes are shown reduced."""


@dataclass(frozen=True)
class SceneOutputs:
    """The files that a run writes: the class map, and others by kind (png, vector, probabilities)."""

    out: Path
    extra: dict[str, Path]

    @classmethod
    def checked(
        cls,
        sources: Sequence[str | os.PathLike[str]],
        out: str | os.PathLike[str],
        extra: Mapping[str, str | os.PathLike[str] | None],
    ) -> SceneOutputs:
        """Refuse what can't be written, before any work.

        Raises:
            OutputError: see :func:`rsovlib.data.outputs.check_output`.
        """
        taken = [*sources, out]
        first = check_output(out, TIFF_SUFFIXES, sources)
        others = {}
        for kind, path in extra.items():
            if path is not None:
                others[kind] = check_output(path, _SUFFIXES[kind], taken)
                taken.append(path)
        return cls(first, others)

    @contextmanager
    def temporary(self, prompts: Sequence[ClassPrompt], colours: Colours) -> Iterator[SceneOutputs]:
        """Paths to write to; renamed when the block ends well, the class map last, and removed when it does not."""
        # Of a run that was killed while it wrote; no other is at work, since this one holds the lock.
        for path in (self.out, legend_path(self.out), *self.extra.values()):
            remove_unfinished(path)
        with ExitStack() as stack:
            out = stack.enter_context(replaced_class_map(self.out, prompts, colours))
            extra = {kind: stack.enter_context(write_beside(path)) for kind, path in self.extra.items()}
            yield SceneOutputs(out, extra)


_SUFFIXES = {"png": (".png",), "vector": VECTOR_SUFFIXES, "probabilities": TIFF_SUFFIXES, "areas": (".csv",)}


class SceneMaps:
    """Writes the finished bands of a run, and counts.

    Attributes:
        pixels: (K,) pixels of each class.
    """

    def __init__(
        self,
        scene: SceneRaster,
        prompts: Sequence[ClassPrompt],
        files: SceneOutputs,
        *,
        cog: bool,
    ) -> None:
        self._scene = scene
        self._prompts = prompts
        self._files = files
        self._cog = cog
        self._areas: PixelAreas | None = pixel_areas(scene.crs, scene.transform, scene.height, scene.width)
        self._square_metres = np.zeros(len(prompts))
        self.pixels = np.zeros(len(prompts), dtype=np.int64)

    def hectares(self) -> dict[str, float] | None:
        """The area of each class, or None where it can't be known."""
        if self._areas is None:
            return None
        names = [prompt.name for prompt in self._prompts]
        return dict(zip(names, (self._square_metres / 1e4).tolist(), strict=True))

    def write(self, run: SceneRun, colours: Colours, settings: Mapping[str, Any]) -> None:
        """Write the class map, and the probabilities if wanted, from top to bottom."""
        scene = self._scene
        with ExitStack() as stack:
            shape = (scene.height, scene.width)
            place = scene.grid.georeference()
            class_map = stack.enter_context(
                class_map_writer(self._files.out, shape, self._prompts, colours, place, tags=settings, cog=self._cog)
            )
            probability_map = None
            if "probabilities" in self._files.extra:
                path = self._files.extra["probabilities"]
                probability_map = stack.enter_context(_probability_writer(path, scene, len(self._prompts), self._cog))
                probability_map.target.update_tags(**provenance(settings))
                for band, prompt in enumerate(self._prompts, start=1):
                    probability_map.target.set_band_description(band, prompt.name)
            for rows in run.bands():
                self._count(rows.first, rows.labels)
                class_map.write(rows.labels)
                if probability_map is not None:
                    probability_map.write(rows.float_probabilities())

    def _count(self, first: int, labels: NDArray[np.uint8]) -> None:
        """Pixels and area of each class in some rows."""
        step = 256  # areas in float64 need more room than the labels
        for start in range(0, len(labels), step):
            part = labels[start : start + step]
            valid = part != NODATA
            counted = part[valid]
            self.pixels += np.bincount(counted, minlength=len(self.pixels))
            if self._areas is not None:
                weights = self._areas.of_rows(first + start, len(part))[valid]
                self._square_metres += np.bincount(counted, weights=weights, minlength=len(self.pixels))


def _probability_writer(path: Path, scene: SceneRaster, classes: int, cog: bool) -> AbstractContextManager[RowWriter]:
    """A float32 GeoTIFF with one band a class, to be written from top to bottom; NaN is nodata."""
    return new_geotiff(
        path,
        overviews="average" if cog else None,
        cog=cog,
        height=scene.height,
        width=scene.width,
        count=classes,
        dtype="float32",
        nodata=np.nan,
        interleave="band",
        predictor=3,
        **scene.grid.georeference(),
    )


def write_picture(path: Path, class_map: Path, scene: SceneRaster, prompts: Sequence[ClassPrompt]) -> None:
    """The overlay of a scene, reduced where it is large."""
    image, valid = scene.preview(_PICTURE_SIDE)
    with open_raster(class_map) as source:
        labels = source.read(1, out_shape=valid.shape)
    valid &= labels != NODATA
    save_overlay(path, image, np.where(valid, labels, 0).astype(np.int64), prompts, valid)


def save_overlay(
    path: Path,
    image: NDArray[np.uint8],
    labels: NDArray[np.integer[Any]],
    prompts: Sequence[ClassPrompt],
    valid: NDArray[np.bool_] | None,
) -> None:
    """A picture of a class map over its image; see :func:`rsovlib.data.raster.write_overlay_png`."""
    from rsovlib import plots  # matplotlib is slow to import, and most runs do not draw

    try:
        plots.save_overlay(path, image, labels, [str(prompt) for prompt in prompts], valid=valid)
    except OSError as error:
        if isinstance(error, RsovError):
            raise
        raise OutputError(f"The picture can't be written to {path.parent} ({error}); is the disk full?") from error


def write_regions(path: Path, run: SceneRun, scene: SceneRaster, prompts: Sequence[ClassPrompt]) -> None:
    """The polygons of a finished run, in the order in which they end from top to bottom."""
    stream = RegionStream(pixel_areas(scene.crs, scene.transform, scene.height, scene.width))
    names = [prompt.name for prompt in prompts]
    strips = ((band.labels, band.labels != NODATA, band.confidence) for band in run.bands())
    tables = (
        region_table(regions, names, scene.transform, scene.crs, full_confidence=255)
        for regions in stream.regions(strips)
    )
    write_polygons(path, tables)


def write_areas(path: Path, table: pandas.DataFrame) -> None:
    """The table of a report as CSV."""
    try:
        table.to_csv(path, index=False)
    except OSError as error:
        raise OutputError(f"The areas can't be written to {path.parent} ({error}); is the disk full?") from error
