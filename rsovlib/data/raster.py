"""A whole scene in, a georeferenced class map out, in memory that does not grow with the scene's length.

The scene is read tile by tile (:mod:`rsovlib.data.reader`), each tile is segmented, the probabilities are blended over
the overlaps (:mod:`rsovlib.data.tiling`), and finished rows go to the file at once (:mod:`rsovlib.data.classmap`).
At most one band of tile rows is held: K x tile x W values.

This module is also the front door to all that reads and writes rasters: :func:`open_scene` (colours),
:func:`open_bands` and :func:`read_raster` (values as they are), :func:`open_pair` (optical and radar on one grid),
:func:`write_class_map`, :func:`read_class_map` and :func:`write_raster`.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from rsovlib.data.areas import pixel_areas
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
from rsovlib.data.source import BandReader, Bands, open_bands, read_raster
from rsovlib.data.stretch import PERCENTILES
from rsovlib.data.tiling import BandAccumulator, Tile, TileGrid, check_tiling, tile_grid
from rsovlib.data.vector import VECTOR_SUFFIXES, polygonize, write_polygons
from rsovlib.errors import InputError, OutputError, RasterError, ResourceError, RsovError
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


class _HasProbabilities(Protocol):
    @property
    def probabilities(self) -> Any: ...  # (K, H, W), an array or a tensor


class Segmenter(Protocol):
    """What :func:`segment_scene` needs: (image uint8 (H, W, 3), classes) -> something with .probabilities (K, H, W).

    More is used where a segmenter has it: ``memory_needed(height, width, classes) -> int`` (bytes that one call takes
    at most), ``device`` (a ``torch.device``: where it takes them), ``tiling`` (the tile and overlap that suit it) and
    ``settings() -> dict`` (plain values, kept in the map's tags).
    """

    def __call__(self, image: NDArray[np.uint8], classes: list[str], /) -> _HasProbabilities:
        """Segment one image."""
        ...


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
        seconds: wall time of the whole call, reading and writing included.
        segmenter_seconds: the part of it that the segmenter took.
        settings: everything that the map depends on, as in its tags.
        files: further files that were written, by kind: png, vector, probabilities.
    """

    out: Path
    classes: list[str]
    pixels: dict[str, int]
    hectares: dict[str, float] | None
    nodata_pixels: int
    tiles: int
    empty_tiles: int
    seconds: float
    segmenter_seconds: float
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
    cog: bool = False,
    **options: Any,
) -> SceneReport:
    """Segment a whole raster by class names and write a georeferenced class map.

    All files appear together when everything has succeeded; on any error, or Ctrl-C, none is written and older ones
    of the same names stay as they were.

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
        cog: write the class map and the probabilities as cloud-optimised GeoTIFFs.
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
    outputs = _Outputs.checked(path, out, {"png": png, "vector": vector, "probabilities": probabilities})
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
        if segmenter is None:
            segmenter = _make_segmenter(method, profile=profile, device=device, **options)
        else:
            origin = {"method": getattr(segmenter, "__name__", type(segmenter).__name__)}
        tile, overlap = _tiling(segmenter, tile, overlap)
        grid = tile_grid(scene.height, scene.width, tile, overlap)
        _check_memory(segmenter, scene, tile, overlap, len(prompts), with_polygons=vector is not None)
        settings = _settings(scene, segmenter, origin, tile, overlap)
        colours = class_colours(prompts)
        with outputs.temporary(prompts, colours) as files:
            run = _SceneRun(scene, grid, prompts, segmenter, confidence=vector is not None, progress=progress, cog=cog)
            run.write(files.out, files.extra.get("probabilities"), colours, settings)
            if "png" in files.extra:
                _write_picture(files.extra["png"], files.out, scene, prompts)
            if "vector" in files.extra:
                _write_vector(files.extra["vector"], files.out, prompts, run.confidence)
    names = [prompt.name for prompt in prompts]
    return SceneReport(
        out=outputs.out,
        classes=names,
        pixels=dict(zip(names, (int(count) for count in run.pixels), strict=True)),
        hectares=None if run.area is None else dict(zip(names, (float(m2) / 1e4 for m2 in run.area), strict=True)),
        nodata_pixels=scene.height * scene.width - int(run.pixels.sum()),
        tiles=run.tiles,
        empty_tiles=len(grid) - run.tiles,
        seconds=time.perf_counter() - started,
        segmenter_seconds=run.segmenter_seconds,
        settings=settings,
        files=outputs.extra,
    )


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


_SUFFIXES = {"png": (".png",), "vector": VECTOR_SUFFIXES, "probabilities": TIFF_SUFFIXES}


class _SceneRun:
    """One pass over the tiles of a scene.

    Attributes:
        pixels: (K,) pixels of each class.
        area: (K,) their area in square metres, or None where it can't be known.
        confidence: (H, W) uint8, the blended probability of the chosen class x 255; None if not asked for.
        tiles: number of tiles segmented.
        segmenter_seconds: time inside the segmenter.
    """

    def __init__(
        self,
        scene: SceneRaster,
        grid: TileGrid,
        prompts: Sequence[ClassPrompt],
        segmenter: Segmenter,
        *,
        confidence: bool,
        progress: bool,
        cog: bool,
    ) -> None:
        self._scene = scene
        self._grid = grid
        self._prompts = prompts
        self._classes = [str(prompt) for prompt in prompts]
        self._segmenter = segmenter
        self._progress = progress
        self._cog = cog
        self._areas = pixel_areas(scene.crs, scene.transform, scene.height, scene.width)
        self.pixels = np.zeros(len(prompts), dtype=np.int64)
        self.area = None if self._areas is None else np.zeros(len(prompts))
        self.confidence = np.zeros((scene.height, scene.width), dtype=np.uint8) if confidence else None
        self.tiles = 0
        self.segmenter_seconds = 0.0

    def write(self, out: Path, probabilities: Path | None, colours: Colours, settings: Mapping[str, Any]) -> None:
        """Segment all tiles and write the class map, and the probabilities if wanted, row by row."""
        from tqdm.auto import tqdm

        scene, grid = self._scene, self._grid
        accumulator = BandAccumulator(grid, len(self._prompts))
        with ExitStack() as stack:
            bar = stack.enter_context(tqdm(total=len(grid), unit="tile", disable=not self._progress, leave=False))
            class_map = stack.enter_context(
                class_map_writer(
                    out,
                    (scene.height, scene.width),
                    self._prompts,
                    colours,
                    scene.grid.georeference(),
                    tags=settings,
                    cog=self._cog,
                )
            )
            probability_map = None
            if probabilities is not None:
                probability_map = stack.enter_context(
                    _probability_writer(probabilities, scene, len(self._prompts), self._cog)
                )
                probability_map.target.update_tags(**provenance(settings))
                for band, prompt in enumerate(self._prompts, start=1):
                    probability_map.target.set_band_description(band, prompt.name)
            for row_index in range(len(grid.rows.starts)):
                for tile in grid.row_of_tiles(row_index):
                    blended = self._segment(tile)
                    if blended is not None:
                        accumulator.add(tile, blended)
                    bar.update()
                first, rows = accumulator.flush(row_index)
                valid = scene.valid(Window(0, first, scene.width, rows.shape[1]))
                class_map.write(self._label(first, rows, valid))
                if probability_map is not None:
                    rows[:, ~valid] = np.nan  # after the labels: these rows are not read again
                    probability_map.write(rows)

    def _segment(self, tile: Tile) -> NDArray[np.float32] | None:
        """The probabilities (K, height, width) of one tile, or None if it holds no data at all."""
        image, valid = self._scene.read(Window(tile.column, tile.row, tile.width, tile.height))
        if not valid.any():
            return None
        started = time.perf_counter()
        try:
            result = self._segmenter(image, self._classes).probabilities
        except (MemoryError, RuntimeError) as error:  # PyTorch raises RuntimeError where there is no memory left
            if isinstance(error, RsovError) or not _ran_out_of_memory(error):
                raise
            raise ResourceError(
                f"Memory ran out in a tile of {tile.height} x {tile.width} pixels; choose a smaller tile."
            ) from error
        if hasattr(result, "cpu"):  # a tensor, perhaps on another device
            result = result.detach().cpu().numpy()
        values = np.asarray(result, dtype=np.float32)
        self.segmenter_seconds += time.perf_counter() - started
        self.tiles += 1
        # A tile that failed in silence would become a confident patch of class 0.
        if not np.isfinite(values).all():
            where = f"the tile at row {tile.row}, column {tile.column}"
            raise RsovError(f"The segmenter gave probabilities that are not numbers in {where}; nothing was written.")
        return values

    def _label(self, first: int, rows: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """The class of each pixel of finished rows (K, n, W), counted; 255 where there is no data."""
        labels = rows.argmax(axis=0).astype(np.uint8)
        counted = labels[valid]
        self.pixels += np.bincount(counted, minlength=len(self.pixels))
        if self._areas is not None and self.area is not None:
            weights = self._areas.of_rows(first, rows.shape[1])[valid]
            self.area += np.bincount(counted, weights=weights, minlength=len(self.area))
        if self.confidence is not None:
            self.confidence[first : first + rows.shape[1]] = np.rint(np.clip(rows.max(axis=0), 0, 1) * 255)
        labels[~valid] = NODATA
        return labels


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
    return importlib.import_module("rsovlib.segmenters").make_segmenter(method, **options)


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
    segmenter: Segmenter, scene: SceneRaster, tile: int, overlap: int, classes: int, *, with_polygons: bool
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
        in_segmenter = _segmenter_memory(segmenter, grid, classes)
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
    # Per pixel of a band of rows: image and masks, argmax in int64, areas in float64, and their copies.
    band = BandAccumulator.memory_needed(grid, classes) + 48.0 * grid.rows.tile * scene.width
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


def _ran_out_of_memory(error: Exception) -> bool:
    """Whether an error is one of the ways in which NumPy and PyTorch say that memory ran out."""
    words = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)


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
