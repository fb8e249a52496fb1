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
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray

from rsovlib.data import tile_crews
from rsovlib.data.classes import parse_classes
from rsovlib.data.classmap import NODATA, ClassMap, class_colours, read_class_map, write_class_map
from rsovlib.data.geotiff import open_raster, write_raster
from rsovlib.data.outputs import check_output
from rsovlib.data.pair import ScenePair, open_pair
from rsovlib.data.reader import SceneRaster, StretchRule, open_scene
from rsovlib.data.sar import Filter
from rsovlib.data.sarscene import UnitRule
from rsovlib.data.scene_memory import batch_size, check_disk, check_memory
from rsovlib.data.scene_outputs import (
    SceneMaps,
    SceneOutputs,
    save_overlay,
    write_areas,
    write_picture,
    write_regions,
)
from rsovlib.data.scene_run import SceneRun, TileOrder
from rsovlib.data.source import BandReader, Bands, open_bands, read_raster
from rsovlib.data.stretch import PERCENTILES
from rsovlib.data.tile_work import Job, Segmenter
from rsovlib.data.tilestore import code_digest, file_facts, open_store, run_key
from rsovlib.data.tiling import check_tiling, tile_grid
from rsovlib.errors import InputError, RasterError, unknown_name
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
    sar: str | os.PathLike[str] | None = None,
    method: str = "sdci",
    profile: str = "embedded",
    tile: int | None = None,
    overlap: int | None = None,
    bands: str | Sequence[int | str] | None = None,
    stretch: StretchRule = "auto",
    percentiles: tuple[float, float] = PERCENTILES,
    sar_bands: str | Sequence[int | str] | None = None,
    sar_unit: UnitRule = "auto",
    despeckle: Filter | None = None,
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
    batch: int | None = None,
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
        sar: a radar raster of the same place, for methods that use one; it may differ in grid, resolution and
            coordinate system, and need not reach everywhere. Tiles that it doesn't reach are segmented without it.
        method: name of the segmentation method, see ``segmenters.METHODS``.
        profile: ``"embedded"`` (small models that ship with the package) or ``"full"`` (the papers' weights).
        tile: side of a tile in pixels; a tile is segmented as one image. None takes the segmenter's own.
        overlap: pixels that neighbouring tiles share at least; their probabilities are blended there. None takes
            the segmenter's own, or a quarter of the tile that was asked for.
        bands: which bands are red, green and blue; see :func:`rsovlib.data.reader.open_scene`.
        stretch: how sensor values become display values; see :func:`rsovlib.data.reader.open_scene`.
        percentiles: of the stretch.
        sar_bands: the polarisations; see :func:`rsovlib.data.sarscene.open_sar`.
        sar_unit: of the radar's values; see there.
        despeckle: speckle filter for the radar; see there.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ...
        segmenter: use this one instead of making one from ``method``, ``profile``, ``device`` and ``options``.
        progress: show a bar.
        png: also write a picture of the map over the image, with a legend (at most 2048 pixels a side).
        vector: also write polygons (.gpkg, .geojson, .parquet or .fgb), as they are finished from top to bottom.
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
        batch: at most so many tiles go through the networks together, and fewer where memory is short; only for
            segmenters with ``segment_batch`` or ``examine_batch``. None takes 1 on the CPU, where SDCI gained nothing
            from more (``benchmarks/bench_batches.py``) and the files must not depend on how much memory was free; and
            up to 16 on a GPU of this machine. Labels were measured to be the same; probabilities may differ by rounding
            (tested: 1e-5 at most).
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
    outputs = SceneOutputs.checked([path, *([] if sar is None else [sar])], out, extra)
    _check_how(workers, scheduler, threads, statistics, batch)
    if segmenter is not None and options:
        raise InputError(f"With a segmenter of your own, {', '.join(sorted(options))} would have no effect; leave out.")
    known: Any = None if segmenter is not None else _registry().find_method(method)
    if sar is not None and not getattr(segmenter or known, "uses_sar", False):
        raise _registry().without_radar(method if segmenter is None else type(segmenter).__name__)
    if sar is None and (sar_bands is not None or sar_unit != "auto" or despeckle is not None):
        raise InputError("sar_bands, sar_unit and despeckle belong to a radar raster; name it with sar=, or leave out.")
    with rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE), ExitStack() as opened:
        pair = None
        how: Any = {"bands": bands, "stretch": stretch, "percentiles": percentiles}
        if sar is None:
            scene = opened.enter_context(open_scene(path, **how))
        else:
            radar: Any = {"sar_bands": sar_bands, "unit": sar_unit, "despeckle": despeckle}
            pair = opened.enter_context(open_pair(path, sar, **radar, **how))
            scene = pair.optical
        if vector is not None and scene.grid.has_only_points:
            raise RasterError(
                f"{scene.name} is placed by {len(scene.grid.gcps)} ground control points, and polygons need map "
                "coordinates; warp it first, for example with gdalwarp -tps, or ask for no polygons."
            )
        scene.require_data()
        origin = {"method": method, "profile": profile, "options": {key: str(value) for key, value in options.items()}}
        if segmenter is None:
            # The method itself travels to the workers: one that was registered in this process is unknown to them.
            make: Any = functools.partial(_make_segmenter, known, profile=profile, device=device, **options)
            segmenter = make()
        else:
            origin = {"method": getattr(segmenter, "__name__", type(segmenter).__name__)}
            make = functools.partial(_given, segmenter)
        tile, overlap = _tiling(segmenter, tile, overlap)
        grid = tile_grid(scene.height, scene.width, tile, overlap)
        at_once = 1 if scheduler is not None else workers
        room = check_memory(segmenter, scene, tile, overlap, len(prompts), at_once, with_polygons=vector is not None)
        gather = _gatherer(segmenter) if statistics == "scene" and len(grid) > 1 else None
        settings = _settings(scene, segmenter, origin, tile, overlap)
        settings["statistics"] = {"rule": "tile" if gather is None else "scene"}
        if pair is not None:
            coverage = {name: round(share, 4) for name, share in pair.coverage.items()}
            settings["sar"] = {**pair.settings(), "coverage": coverage}
        colours = class_colours(prompts)
        words = tuple(str(prompt) for prompt in prompts)
        sources = [scene.name, *([] if pair is None else [pair.sar.name])]
        key = _key(sources, scene, segmenter, settings, words, keeps_probabilities=probabilities is not None)
        # Found once and sent along: no worker reads the whole scene again for its brightness.
        job = Job(
            name=key or run_key(settings),
            path=str(Path(path).absolute()) if Path(path).exists() else os.fspath(path),
            bands=scene.bands,
            stretch=scene.stretch,
            classes=words,
            make=make,
            texts=_texts(segmenter, words),
            radar=None if pair is None else pair.recipe(),
            threads=threads if workers == 1 or threads is not None else max(1, (os.cpu_count() or 1) // workers),
        )
        with open_store(outputs.out, key, resume=resume) as store:
            check_disk(store.folder, grid, len(prompts), two_pass=gather is not None, probabilities=probabilities)
            together = batch_size(segmenter, room, len(grid), at_once, asked=batch, elsewhere=scheduler is not None)
            run = SceneRun(grid, len(prompts), store, probabilities is not None, gather, tile_order, together)
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
                maps = SceneMaps(scene, prompts, files, cog=cog)
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
                    write_picture(files.extra["png"], files.out, scene, prompts)
                if "vector" in files.extra:
                    write_regions(files.extra["vector"], run, scene, prompts)
                if "areas" in files.extra:
                    write_areas(files.extra["areas"], report.table())
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
        save_overlay(temporary, image, labels, parse_classes(classes), valid)
    return target


def _registry() -> Any:
    """The methods by name. Looked up at run time, because methods are a layer above data."""
    return importlib.import_module("rsovlib.segmenters.registry")


def _make_segmenter(method: Any, **options: Any) -> Segmenter:
    """The segmenter of a registered method, with its models loaded."""
    made: Segmenter = method.make(**options)
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


def _check_how(workers: int, scheduler: str | None, threads: int | None, statistics: str, batch: int | None) -> None:
    """Refuse ways of running that contradict each other.

    Raises:
        InputError: see the messages.
    """
    for name, value in (("workers", workers), ("threads", threads), ("tiles in a batch", batch)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InputError(f"The number of {name} is {value!r}, and must be a whole number from 1 up.")
    if scheduler is not None and workers != 1:
        raise InputError("With a scheduler, the workers of its cluster compute; leave workers out.")
    if statistics not in ("scene", "tile"):
        raise unknown_name("rule for statistics", statistics, ("scene", "tile"))


def _key(
    names: Sequence[str],
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
    files = []
    for name in names:
        with open_raster(name) as source:
            files += source.files
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
