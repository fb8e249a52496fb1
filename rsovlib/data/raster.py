"""A whole scene in, a georeferenced class map out, in memory that does not grow with the scene's length.

The scene is read tile by tile (:mod:`rsovlib.data.reader`), here or by workers (:mod:`rsovlib.data.tile_crews`); each
tile is segmented (:mod:`rsovlib.data.tile_work`), kept on disk until it is no longer needed
(:mod:`rsovlib.data.tilestore`), blended over the overlaps into finished rows (:mod:`rsovlib.data.scene_run`), and those
are written at the end by one writer (:mod:`rsovlib.data.classmap`). At most one band of tile rows is held:
K x tile x W values.

This module is also the front door to all that reads and writes rasters: :func:`open_scene` (colours),
:func:`open_bands` and :func:`read_raster` (values as they are), :func:`open_pair` (optical and radar on one grid),
:func:`write_class_map`, :func:`read_class_map` and :func:`write_raster`.
"""

from __future__ import annotations

import functools
import importlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray

from rsovlib.data import tile_crews
from rsovlib.data.areas import PixelAreas, pixel_areas
from rsovlib.data.classes import ClassPrompt, parse_classes
from rsovlib.data.classmap import (
    NODATA,
    ClassMap,
    Colours,
    class_colours,
    class_map_writer,
    read_class_map,
    replaced_class_map,
    write_class_map,
)
from rsovlib.data.geotiff import TIFF_SUFFIXES, RowWriter, new_geotiff, open_raster, provenance, write_raster
from rsovlib.data.memory import available_memory, in_words
from rsovlib.data.outputs import check_output
from rsovlib.data.pair import ScenePair, open_pair
from rsovlib.data.reader import SceneRaster, StretchRule, open_scene
from rsovlib.data.scene_run import SceneRun, TileOrder, disk_needed
from rsovlib.data.source import BandReader, Bands, open_bands, read_raster
from rsovlib.data.stretch import PERCENTILES
from rsovlib.data.tile_work import Job, Segmenter
from rsovlib.data.tilestore import code_digest, file_facts, open_store, run_key
from rsovlib.data.tiling import BandAccumulator, TileGrid, check_tiling, tile_grid
from rsovlib.data.vector import VECTOR_SUFFIXES, polygonize, write_polygons
from rsovlib.errors import InputError, OutputError, RasterError, ResourceError, RsovError, unknown_name
from rsovlib.files import write_beside

if TYPE_CHECKING:
    import pandas

__all__ = [
    "NODATA",
    "BandReader",
    "Bands",
    "ClassMap",
    "ScenePair",
    "SceneRaster",
    "SceneReport",
    "Segmenter",
    "open_bands",
    "open_pair",
    "open_scene",
    "read_class_map",
    "read_raster",
    "segment_scene",
    "write_class_map",
    "write_overlay_png",
    "write_raster",
]

_GDAL_CACHE = 256 * 2**20
"""Bytes. GDAL's own default is 5 % of the machine's memory, whatever the user asked for."""

_DEFAULT_TILING = (512, 128)
"""Tile and overlap in pixels for segmenters that have none of their own."""

_PICTURE_SIDE = 2048
"""Longest side of the overlay picture in pixels; larger scenes are shown reduced."""


StatisticsRule = Literal["scene", "tile"]


@dataclass(frozen=True)
class SceneReport:
    """What :func:`segment_scene` did.

    Attributes:
        out: the class map.
        classes: names of the K classes; value k of the map is class k.
        pixels: number of pixels of each class.
        hectares: area of each class on the ground, or None if the scene has no place on Earth.
        nodata_pixels: pixels that the image has no data for.
        tiles: tiles that were segmented.
        empty_tiles: tiles without any data, which were left out.
        resumed: tasks (a tile, or each of its two passes) that an interrupted run had finished, and this one took over.
        seconds: wall time of the whole call, reading and writing included.
        segmenter_seconds: wall time inside the segmenter, of all workers together.
        cpu_seconds: processor time of the tiles, of all workers and their threads together.
        settings: everything that the map depends on, as in its tags.
        files: further files that were written, by kind: png, vector, probabilities, areas.
    """

    out: Path
    classes: list[str]
    pixels: dict[str, int]
    hectares: dict[str, float] | None
    nodata_pixels: int
    tiles: int
    empty_tiles: int
    resumed: int
    seconds: float
    segmenter_seconds: float
    cpu_seconds: float
    settings: dict[str, Any]
    files: dict[str, Path] = field(default_factory=dict)

    def table(self) -> pandas.DataFrame:
        """One row a class: pixels, share of the valid pixels in percent, and hectares where they are known."""
        import pandas as pd

        table = pd.DataFrame({"class": self.classes, "pixels": list(self.pixels.values())})
        table["share_percent"] = 100 * table["pixels"] / max(1, table["pixels"].sum())
        if self.hectares is not None:
            table["hectares"] = list(self.hectares.values())
        return table


def segment_scene(
    path: str | os.PathLike[str],
    classes: str | Sequence[str],
    out: str | os.PathLike[str],
    *,
    method: str = "sdci",
    profile: str = "embedded",
    tile: int | None = None,
    overlap: int | None = None,
    bands: str | Sequence[int | str] | None = None,
    stretch: StretchRule = "auto",
    percentiles: tuple[float, float] = PERCENTILES,
    device: str = "auto",
    segmenter: Segmenter | None = None,
    progress: bool = True,
    png: str | os.PathLike[str] | None = None,
    vector: str | os.PathLike[str] | None = None,
    probabilities: str | os.PathLike[str] | None = None,
    areas: str | os.PathLike[str] | None = None,
    cog: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
    threads: int | None = None,
    statistics: StatisticsRule = "scene",
    resume: bool = True,
    tile_order: TileOrder = "rows",
    **options: Any,
) -> SceneReport:
    """Segment a whole raster by class names and write a georeferenced class map.

    All files appear together when everything has succeeded; on any error, or Ctrl-C, none is written and older ones
    of the same names stay as they were. Finished tiles are kept in ``<out>.partial``, and the same call goes on with
    them after any interruption, SIGKILL included; it is removed when all is done. The files do not depend on
    interruptions, nor on who computed which tile when.

    Args:
        path: raster of any size with at least three bands.
        classes: ``"water, river; forest"`` or ``["water, river", "forest"]``; see
            :func:`rsovlib.data.classes.parse_classes`.
        out: GeoTIFF to write: uint8, value k is class k, 255 is nodata.
        method: name of the segmentation method.
        profile: ``"embedded"`` (small models that ship with the package) or ``"full"`` (the papers' weights).
        tile: side of a tile in pixels; a tile is segmented as one image. None takes the segmenter's own.
        overlap: pixels that neighbouring tiles share at least; their probabilities are blended there. None takes
            the segmenter's own, or a quarter of the tile that was asked for.
        bands: which bands are red, green and blue; see :func:`rsovlib.data.reader.open_scene`.
        stretch: how sensor values become display values; see :func:`rsovlib.data.reader.open_scene`.
        percentiles: of the stretch.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ...
        segmenter: use this one instead of making one from ``method``, ``profile``, ``device`` and ``options``.
        progress: show a bar.
        png: also write a picture of the map over the image, with a legend (at most 2048 pixels a side).
        vector: also write polygons (.gpkg, .geojson, .parquet or .fgb); this holds the label map in memory.
        probabilities: also write the blended probabilities, a float32 GeoTIFF with one band a class, NaN where nodata.
        areas: also write the table of :meth:`SceneReport.table` as CSV: pixels, share and hectares of each class.
        cog: write the class map and the probabilities as cloud-optimised GeoTIFFs.
        workers: number of processes. 1 computes in this one. (A plain script that asks for more must keep its own
            work under ``if __name__ == "__main__":``, as always with processes.)
        scheduler: instead: address of a Dask scheduler, such as ``tcp://127.0.0.1:8786``; its workers must reach the
            scene under the same path.
        threads: of each worker; by default this machine's cores are shared out among its processes, and Dask workers
            decide for themselves.
        statistics: for methods that reshape their maps by the smallest and largest values of an image (SDCI does):
            ``"scene"`` takes those of the whole scene and levels neighbouring tiles, in two passes, so that no squares
            appear; ``"tile"`` takes each tile for an image of its own, as the papers do. A scene of one tile is the
            same either way.
        resume: go on with what an interrupted run left; False forgets it first. Nothing is kept for a segmenter of
            your own without ``settings()``, because nobody could tell whether it is still the same.
        tile_order: in which tiles are computed: ``"rows"``, ``"reversed"`` or ``"shuffled"``. The files do not depend
            on it; all but ``"rows"`` need disk space for all tiles at once.
        **options: further options of the method.

    Returns:
        What was found and written.

    Raises:
        InputError: classes, bands, tile, overlap, method or an option are not as they should be.
        RasterError: the image is missing, damaged, not usable, or holds no data.
        OutputError: an output can't be written, or would replace the input or another output.
        WeightsError: the weights of the method are missing or altered.
        ResourceError: a tile of this size is foreseen not to fit into memory.
    """
    started = time.perf_counter()
    prompts = parse_classes(classes)
    if tile is not None:
        check_tiling(tile, tile // 4 if overlap is None else overlap)
    extra = {"png": png, "vector": vector, "probabilities": probabilities, "areas": areas}
    outputs = _Outputs.checked(path, out, extra)
    _check_how(workers, scheduler, threads, statistics)
    if segmenter is not None and options:
        raise InputError(f"With a segmenter of your own, {', '.join(sorted(options))} would have no effect; leave out.")
    with (
        rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE),
        open_scene(path, bands, stretch=stretch, percentiles=percentiles) as scene,
    ):
        if vector is not None and scene.grid.has_only_points:
            raise RasterError(
                f"{scene.name} is placed by {len(scene.grid.gcps)} ground control points, and polygons need map "
                "coordinates; warp it first, for example with gdalwarp -tps, or ask for no polygons."
            )
        scene.require_data()
        origin = {"method": method, "profile": profile, "options": {key: str(value) for key, value in options.items()}}
        make: Any = functools.partial(_make_segmenter, method, profile=profile, device=device, **options)
        if segmenter is None:
            segmenter = make()
        else:
            origin = {"method": getattr(segmenter, "__name__", type(segmenter).__name__)}
            make = functools.partial(_given, segmenter)
        tile, overlap = _tiling(segmenter, tile, overlap)
        grid = tile_grid(scene.height, scene.width, tile, overlap)
        at_once = 1 if scheduler is not None else workers
        _check_memory(segmenter, scene, tile, overlap, len(prompts), at_once, with_polygons=vector is not None)
        gather = _gatherer(segmenter) if statistics == "scene" and len(grid) > 1 else None
        settings = _settings(scene, segmenter, origin, tile, overlap)
        settings["statistics"] = {"rule": "tile" if gather is None else "scene"}
        colours = class_colours(prompts)
        words = tuple(str(prompt) for prompt in prompts)
        key = _key(scene, segmenter, settings, words, keeps_probabilities=probabilities is not None)
        # Found once and sent along: no worker reads the whole scene again for its brightness.
        job = Job(
            name=key or run_key(settings),
            path=str(Path(path).absolute()) if Path(path).exists() else os.fspath(path),
            bands=scene.bands,
            stretch=scene.stretch,
            classes=words,
            make=make,
            texts=_texts(segmenter, words),
            threads=threads if workers == 1 or threads is not None else max(1, (os.cpu_count() or 1) // workers),
        )
        with open_store(outputs.out, key, resume=resume) as store:
            _check_disk(store.folder, grid, len(prompts), two_pass=gather is not None, probabilities=probabilities)
            run = SceneRun(grid, len(prompts), store, probabilities is not None, gather, tile_order)
            with ExitStack() as stack:
                if scheduler is not None:
                    crew = stack.enter_context(tile_crews.cluster(job, scheduler))
                elif workers > 1:
                    crew = stack.enter_context(tile_crews.processes(job, workers))
                else:
                    crew = stack.enter_context(tile_crews.alone(job, segmenter))
                del segmenter, make  # workers have models of their own
                run.compute(crew, progress=progress)
            if run.constants is not None:
                settings["statistics"] |= run.constants
            with outputs.temporary(prompts, colours) as files:
                maps = _Maps(scene, prompts, files, keep_confidence=vector is not None, cog=cog)
                maps.write(run, colours, settings)
                names = [prompt.name for prompt in prompts]
                report = SceneReport(
                    out=outputs.out,
                    classes=names,
                    pixels=dict(zip(names, maps.pixels.tolist(), strict=True)),
                    hectares=maps.hectares(),
                    nodata_pixels=scene.height * scene.width - int(maps.pixels.sum()),
                    tiles=run.tiles,
                    empty_tiles=len(grid) - run.tiles,
                    resumed=run.kept,
                    seconds=time.perf_counter() - started,
                    segmenter_seconds=run.segmenter_seconds,
                    cpu_seconds=run.cpu_seconds,
                    settings=settings,
                    files=outputs.extra,
                )
                if "png" in files.extra:
                    _write_picture(files.extra["png"], files.out, scene, prompts)
                if "vector" in files.extra:
                    _write_vector(files.extra["vector"], files.out, prompts, maps.confidence)
                if "areas" in files.extra:
                    _write_areas(files.extra["areas"], report)
    return report


def write_overlay_png(
    path: str | os.PathLike[str],
    image: NDArray[np.uint8],
    labels: NDArray[np.integer[Any]],
    classes: Sequence[str],
    valid: NDArray[np.bool_] | None = None,
) -> Path:
    """Write a picture of a class map over its image, with a legend.

    Args:
        path: PNG to write, replaced as a whole or not at all.
        image: (H, W, 3) uint8.
        labels: (H, W) class indices from 0.
        classes: K class names, or prompts of which the first word is the name.
        valid: (H, W) False where there is no data; those pixels stay without a class colour.

    Returns:
        The path.

    Raises:
        OutputError: the file can't be written.
    """
    target = check_output(path, (".png",))
    with write_beside(target) as temporary:
        _save_overlay(temporary, image, labels, parse_classes(classes), valid)
    return target


@dataclass(frozen=True)
class _Outputs:
    """The files that a run writes: the class map, and others by kind (png, vector, probabilities)."""

    out: Path
    extra: dict[str, Path]

    @classmethod
    def checked(
        cls,
        source: str | os.PathLike[str],
        out: str | os.PathLike[str],
        extra: Mapping[str, str | os.PathLike[str] | None],
    ) -> _Outputs:
        """Refuse what can't be written, before any work.

        Raises:
            OutputError: see :func:`rsovlib.data.outputs.check_output`.
        """
        taken = [source, out]
        first = check_output(out, TIFF_SUFFIXES, [source])
        others = {}
        for kind, path in extra.items():
            if path is not None:
                others[kind] = check_output(path, _SUFFIXES[kind], taken)
                taken.append(path)
        return cls(first, others)

    @contextmanager
    def temporary(self, prompts: Sequence[ClassPrompt], colours: Colours) -> Iterator[_Outputs]:
        """Paths to write to; renamed when the block ends well, the class map last, and removed when it does not."""
        with ExitStack() as stack:
            out = stack.enter_context(replaced_class_map(self.out, prompts, colours))
            extra = {kind: stack.enter_context(write_beside(path)) for kind, path in self.extra.items()}
            yield _Outputs(out, extra)


_SUFFIXES = {"png": (".png",), "vector": VECTOR_SUFFIXES, "probabilities": TIFF_SUFFIXES, "areas": (".csv",)}


class _Maps:
    """Writes the finished bands of a run, and counts.

    Attributes:
        pixels: (K,) pixels of each class.
        confidence: (H, W) uint8, the probability of the chosen class x 255; None if not asked for.
    """

    def __init__(
        self,
        scene: SceneRaster,
        prompts: Sequence[ClassPrompt],
        files: _Outputs,
        *,
        keep_confidence: bool,
        cog: bool,
    ) -> None:
        self._scene = scene
        self._prompts = prompts
        self._files = files
        self._cog = cog
        self._areas: PixelAreas | None = pixel_areas(scene.crs, scene.transform, scene.height, scene.width)
        self._square_metres = np.zeros(len(prompts))
        self.pixels = np.zeros(len(prompts), dtype=np.int64)
        self.confidence = np.zeros((scene.height, scene.width), dtype=np.uint8) if keep_confidence else None

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
                if self.confidence is not None:
                    self.confidence[rows.first : rows.first + len(rows.labels)] = rows.confidence

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


def _make_segmenter(method: str, **options: Any) -> Segmenter:
    """A segmenter by name. Looked up at run time, because methods are a layer above data."""
    made: Segmenter = importlib.import_module("rsovlib.segmenters").make_segmenter(method, **options)
    return made


def _given(segmenter: Segmenter) -> Segmenter:
    """The user's own segmenter, as it came to this process."""
    return segmenter


def _gatherer(segmenter: Segmenter) -> Any:
    """What makes the constants of a scene, for segmenters whose maps depend on such; else None."""
    gatherer = getattr(segmenter, "scene_gatherer", None)
    return None if gatherer is None else gatherer()


def _texts(segmenter: Segmenter, classes: Sequence[str]) -> Any:
    """The text features of the classes, computed once for all workers; None if the segmenter has no such thing."""
    features = getattr(segmenter, "text_features", None)
    return None if features is None else features(list(classes))


def _check_how(workers: int, scheduler: str | None, threads: int | None, statistics: str) -> None:
    """Refuse ways of running that contradict each other.

    Raises:
        InputError: see the messages.
    """
    for name, value in (("workers", workers), ("threads", threads)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InputError(f"The number of {name} is {value!r}, and must be a whole number from 1 up.")
    if scheduler is not None and workers != 1:
        raise InputError("With a scheduler, the workers of its cluster compute; leave workers out.")
    if statistics not in ("scene", "tile"):
        raise unknown_name("rule for statistics", statistics, ("scene", "tile"))


def _key(
    scene: SceneRaster,
    segmenter: Segmenter,
    settings: Mapping[str, Any],
    classes: Sequence[str],
    *,
    keeps_probabilities: bool,
) -> str | None:
    """A name for everything that the tiles depend on; None for a segmenter that doesn't say what it is."""
    if getattr(segmenter, "settings", None) is None:
        return None
    with open_raster(scene.name) as source:
        files = list(source.files)
    grid = scene.grid
    facts = {
        "files": file_facts(files),
        "scene": [str(Path(scene.name).absolute()), grid.height, grid.width, tuple(grid.transform), str(grid.crs)],
        "settings": settings,
        "classes": list(classes),
        "probabilities": keeps_probabilities,
        # The same networks round differently on another kind of device.
        "device": getattr(getattr(segmenter, "device", None), "type", "cpu"),
        "code": code_digest(),
    }
    return run_key(facts)


def _check_disk(folder: Path, grid: TileGrid, classes: int, *, two_pass: bool, probabilities: object) -> None:
    """Say before the work that there is no room for it, rather than in the middle.

    Raises:
        OutputError: the disk is foreseen to be too small.
    """
    needed = disk_needed(grid, classes, two_pass=two_pass, probabilities=probabilities is not None)
    try:
        taken = sum(path.stat().st_size for path in folder.iterdir())
        free = shutil.disk_usage(folder).free
    except OSError:
        return
    if needed - taken > free:
        raise OutputError(
            f"Finished tiles need up to {in_words(needed - taken)} beside the output while the scene is computed, and "
            f"{in_words(free)} are free in {folder.parent.parent}; make room, or choose another place for the output."
        )


def _tiling(segmenter: Segmenter, tile: int | None, overlap: int | None) -> tuple[int, int]:
    """The tile and overlap that were asked for, else those of the segmenter.

    A segmenter that cuts large images into windows itself names them as its tiling: tiles of another size would be cut
    a second time, and every pixel computed several times over.
    """
    own_tile, own_overlap = getattr(segmenter, "tiling", _DEFAULT_TILING)
    if tile is None:
        return own_tile, own_overlap if overlap is None else overlap
    return tile, tile // 4 if overlap is None else overlap


def _settings(
    scene: SceneRaster, segmenter: Segmenter, origin: Mapping[str, Any], tile: int, overlap: int
) -> dict[str, Any]:
    """What the map depends on, as plain values."""
    own_settings = getattr(segmenter, "settings", None)
    facts = scene.profile
    return {
        # The name only: where the image lies on somebody's disk is nobody else's business.
        "source": Path(scene.name).name,
        **origin,
        "segmenter": {} if own_settings is None else own_settings(),
        "tile": int(tile),
        "overlap": int(overlap),
        **{key: facts[key] for key in ("bands", "band_rule", "stretch", "stretch_low", "stretch_high")},
    }


def _check_memory(
    segmenter: Segmenter,
    scene: SceneRaster,
    tile: int,
    overlap: int,
    classes: int,
    workers: int,
    *,
    with_polygons: bool,
) -> None:
    """Refuse a tile that is foreseen not to fit, and name one that would.

    Raises:
        ResourceError: the run would need more memory than is free, in the machine or on its GPU.
    """
    host_free, gpu_free = available_memory(), _free_on_gpu(getattr(segmenter, "device", None))

    def shortage(side: int, shared: int) -> tuple[float, float, str] | None:
        """Bytes needed, bytes free and where, if these tiles do not fit."""
        grid = tile_grid(scene.height, scene.width, side, shared)
        on_host = _host_memory(scene, grid, classes, with_polygons)
        in_segmenter = workers * _segmenter_memory(segmenter, grid, classes)
        if gpu_free is None:
            on_host += in_segmenter
        elif in_segmenter > gpu_free:
            return in_segmenter, gpu_free, "on the GPU"
        return (on_host, host_free, "of memory") if on_host > host_free else None

    lacking = shortage(tile, overlap)
    if lacking is None:
        return
    side = min(tile, max(scene.height, scene.width))
    for smaller in range((side - 1) // 32 * 32, 31, -32):
        shared = overlap if overlap < smaller else smaller // 4
        if shortage(smaller, shared) is None:
            advice = f"tile={smaller}" if shared == overlap else f"tile={smaller} and overlap={shared}"
            raise ResourceError(
                f"A tile of {side} pixels with {classes} classes needs about {in_words(lacking[0])} {lacking[2]} and "
                f"{in_words(lacking[1])} are free; {advice} would fit."
            )
    needed, free, where = shortage(32, min(overlap, 8)) or lacking
    raise ResourceError(
        f"This scene with {classes} classes needs about {in_words(needed)} {where} even with the smallest tiles and "
        f"{in_words(free)} are free; use fewer classes, no polygons, a part of the scene, or another machine."
    )


def _segmenter_memory(segmenter: Segmenter, grid: TileGrid, classes: int) -> float:
    """Bytes that one tile takes inside the segmenter, above its models."""
    height, width = grid.rows.tile, grid.columns.tile
    foreseen = getattr(segmenter, "memory_needed", None)
    return float(foreseen(height, width, classes)) if foreseen is not None else 4.0 * classes * height * width


def _host_memory(scene: SceneRaster, grid: TileGrid, classes: int, with_polygons: bool) -> float:
    """Bytes that the run takes in the machine's memory around the segmenter."""
    # Blended values and where data is; per pixel of a band of rows: image and masks, areas in float64, probabilities
    # as they are kept and written, and their copies.
    band = BandAccumulator.memory_needed(grid, classes + 1) + (32.0 + 6.0 * classes) * grid.rows.tile * scene.width
    if not with_polygons:
        return band
    # Per pixel of the scene: the confidence during the run; then labels, components in int64 and int32, and copies.
    pixels = float(scene.height) * scene.width
    return max(band + pixels, 48.0 * pixels)


def _free_on_gpu(device: Any) -> int | None:
    """Bytes free on a CUDA device, or None where the segmenter computes in the machine's own memory."""
    if getattr(device, "type", None) != "cuda":
        return None
    import torch  # a segmenter with such a device has loaded it already

    free: int = torch.cuda.mem_get_info(device)[0]
    return free


def _write_picture(path: Path, class_map: Path, scene: SceneRaster, prompts: Sequence[ClassPrompt]) -> None:
    """The overlay of a scene, reduced where it is large."""
    image, valid = scene.preview(_PICTURE_SIDE)
    with open_raster(class_map) as source:
        labels = source.read(1, out_shape=valid.shape)
    valid &= labels != NODATA
    _save_overlay(path, image, np.where(valid, labels, 0).astype(np.int64), prompts, valid)


def _save_overlay(
    path: Path,
    image: NDArray[np.uint8],
    labels: NDArray[np.integer[Any]],
    prompts: Sequence[ClassPrompt],
    valid: NDArray[np.bool_] | None,
) -> None:
    from rsovlib import plots  # matplotlib is slow to import, and most runs do not draw

    try:
        plots.save_overlay(path, image, labels, [str(prompt) for prompt in prompts], valid=valid)
    except OSError as error:
        if isinstance(error, RsovError):
            raise
        raise OutputError(f"The picture can't be written to {path.parent} ({error}); is the disk full?") from error


def _write_vector(
    path: Path, class_map: Path, prompts: Sequence[ClassPrompt], confidence: NDArray[np.uint8] | None
) -> None:
    """The polygons of a class map that was just written."""
    with open_raster(class_map) as source:
        labels, crs, transform = source.read(1), source.crs, source.transform
    share = None if confidence is None else confidence / np.float32(255)
    names = [str(prompt) for prompt in prompts]
    write_polygons(path, polygonize(labels, names, transform, crs, labels != NODATA, share))


def _write_areas(path: Path, report: SceneReport) -> None:
    """The table of a report as CSV."""
    try:
        report.table().to_csv(path, index=False)
    except OSError as error:
        raise OutputError(f"The areas can't be written to {path.parent} ({error}); is the disk full?") from error
