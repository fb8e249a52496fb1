"""Cutting a dataset into tiles as a paper does, and an index of them.

Work that was stopped goes on where it was.  Every tile is written beside its place and renamed, and is noted in the
journal of its sample afterwards, with checksums.  What a later run keeps is what stands in a journal, was made from
the same files with the same settings, and still has its checksums; everything else is made again.

The folder that results::

    index.parquet            one row a tile; the settings are in its schema's metadata, under "rsovlib"
    <modality>/<tile>.tif    values as they are stored in the dataset
    labels/<tile>.tif        class indices, 255 where ignored
    cloud_mask/<tile>.tif    1 where there is cloud, in datasets that have such masks
    .progress/               the journals
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow
import pyarrow.parquet
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from tqdm.auto import tqdm

from rsovlib.data._journal import Journal, source_state
from rsovlib.data._pool import is_stopped, run_all
from rsovlib.data.clouds import CLOUD_VERSION
from rsovlib.data.cutting import Box, CutTile
from rsovlib.data.geotiff import open_raster, write_raster
from rsovlib.data.grid import Grid
from rsovlib.data.layout import CLOUD_MASK, LABELS, Sample
from rsovlib.data.manifest import IGNORE, Clouds, Manifest, load_manifest
from rsovlib.data.reading import OpenSample, Plan, open_sample
from rsovlib.data.usage import Item, Usage, open_usage
from rsovlib.errors import InputError, OutputError
from rsovlib.files import only_one, write_beside

INDEX = "index.parquet"
METADATA_KEY = b"rsovlib"

TileFormat = Literal["tif", "png"]

_PROGRESS = ".progress"
_VERSION = 1
"""Of what a tile looks like; another one makes all tiles again."""


@dataclass(frozen=True)
class PrepareReport:
    """What :func:`prepare_tiles` made.

    Attributes:
        index: the table of all tiles.
        settings: what they were made with, as plain values; also in the index's metadata.
        tiles: number of tiles.
        kept: how many of them were there from an earlier run and unaltered.
        splits: for each split the number of its tiles.
        paper_counts: how many tiles the paper or its lists have, for each role or "all"; empty where not known.
    """

    index: Path
    settings: dict[str, Any]
    tiles: int
    kept: int
    splits: dict[str, int]
    paper_counts: dict[str, int]

    def summary(self) -> str:
        """The whole in a few lines."""
        how = self.settings["tiles"]
        cut = "whole images" if how is None else f"{how['size']} pixels, stride {how['stride']}, edge {how['edge']}"
        lines = [
            f"{self.tiles} tiles of {self.settings['dataset']}: {cut}; protocol {self.settings['protocol'] or 'none'}; "
            f"{self.kept} of them kept from before"
        ]
        lines += [f"  {name or 'no split'}: {count}" for name, count in self.splits.items()]
        roles = self.settings["splits"]
        for role, count in self.paper_counts.items():
            here = self.tiles if role == "all" else self.splits.get(roles.get(role, role), 0)
            verdict = "the same" if here == count else "not the same; is the copy complete?"
            lines.append(f"  the paper has {count} tiles ({role}), here are {here}: {verdict}")
        lines.append(f"index: {self.index}")
        return "\n".join(lines)


def prepare_tiles(
    dataset: str | os.PathLike[str] | Manifest,
    root: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    *,
    protocol: str | None = None,
    layout: str | None = None,
    tile_format: TileFormat = "tif",
    fold: int = 0,
    allow_missing: bool = False,
    simulate_clouds: bool = False,
    workers: int = 1,
    progress: bool = True,
) -> PrepareReport:
    """Cut a dataset into tiles exactly as a paper does, and write an index of them.

    Tile, stride, edge rule, classes, modalities and splits are those of the protocol. Stored values are not changed;
    a modality of another resolution is resampled only where its pixels do not fall on whole ones.

    Args:
        dataset: its name, the path of a manifest, or a manifest.
        root: its folder; ``$RSOV_DATA/<name>`` by default.
        out: folder for the tiles; what an unfinished run left there is gone on with.
        protocol: the paper's use; by default the manifest's first. A dataset without protocols is not cut.
        layout: one of the manifest's folder trees; by default the protocol's, or the one that the files fit.
        tile_format: ``"tif"``: any values, with CRS and geotransform; ``"png"``: uint8 or uint16 of one or three
            bands, the CRS and geotransform only in the index.
        fold: of a protocol with a random split.
        allow_missing: images may be missing, as long as each sample has one.
        simulate_clouds: make cloudy images that are missing from clear ones, as the manifest says; their masks are
            written, too.
        workers: number of processes. The result does not depend on it.
        progress: whether to show a progress bar.

    Returns:
        Where the index is, and counts.

    Raises:
        InputError: a name is unknown, or nothing of the dataset is under the root, or the folder for the tiles holds
            other things.
        RasterError: a file is missing or damaged. Tiles that were finished stay.
        OutputError: a tile can't be written, or another process prepares tiles in this folder.
    """
    manifest = dataset if isinstance(dataset, Manifest) else load_manifest(dataset)
    if tile_format not in ("tif", "png"):
        raise InputError(f"Tiles are written as tif or png, not as {tile_format!r}.")
    if protocol is None and manifest.protocols:
        protocol = next(iter(manifest.protocols))
    usage = open_usage(manifest, root, layout=layout, protocol=protocol, simulate_clouds=simulate_clouds)
    _check_format(usage.plan, tile_format)
    items = usage.items(fold=fold)
    samples = list({item.sample.id: item.sample for item in items}.values())
    usage.require_files(samples, allow_missing=allow_missing)
    folder = Path(out)
    if folder.resolve() == usage.copy.root.resolve():
        raise InputError(f"{folder} is the dataset itself; give another folder for its tiles.")
    settings = _settings(usage, tile_format, fold)
    _refuse_other_things(folder)
    message = f"Another process is preparing tiles in {folder} at this moment; wait for it, or choose another folder."
    with only_one(folder / _PROGRESS / "lock", message):
        _claim(folder, settings)
        context = _Context(usage.plan, folder, tile_format)
        jobs = _jobs(items)
        kept = 0
        rows: list[dict[str, Any]] = []
        with tqdm(total=len(items), desc=f"prepare {manifest.name}", unit="tile", disable=not progress) as bar:
            for done in run_all(_cut_sample, context, jobs, workers):
                rows += done.rows
                kept += done.kept
                bar.update(len(done.rows))
        splits = [item.split for item in items]
        index = _write_index(folder, rows, splits, settings)
    use = usage.protocol
    return PrepareReport(
        index=index,
        settings=settings,
        tiles=len(rows),
        kept=kept,
        splits={name: splits.count(name) for name in dict.fromkeys(splits)},
        paper_counts=dict(use.tile_counts) if use is not None else {},
    )


def _check_format(plan: Plan, tile_format: TileFormat) -> None:
    """PNG holds few kinds of values, and takes a second or fourth band for transparency."""
    for name in plan.modalities:
        files, count = plan.layout.files[name], len(plan.manifest.modalities[name].bands)
        if tile_format == "png" and (files.dtype not in ("uint8", "uint16") or count not in (1, 3)):
            kind = files.dtype or "a type that the manifest doesn't state"
            raise InputError(f"PNG can't hold {name} ({count} bands of {kind}); write GeoTIFF tiles instead.")


def _settings(usage: Usage, tile_format: TileFormat, fold: int) -> dict[str, Any]:
    """What the tiles hang on, as plain values."""
    plan, use = usage.plan, usage.protocol
    random = None if use is None else use.random_split
    return {
        "version": _VERSION,
        "dataset": plan.manifest.name,
        "dataset_version": plan.manifest.version,
        "manifest_sha256": hashlib.sha256(plan.manifest.model_dump_json().encode()).hexdigest(),
        "layout": plan.layout_name,
        "protocol": plan.protocol,
        "modalities": list(plan.modalities),
        "bands": {name: list(plan.manifest.modalities[name].band_names) for name in plan.modalities},
        "reference": plan.reference,
        "classes": list(plan.classes),
        "ignore_index": IGNORE,
        "simulated_clouds": {name: _cloud_settings(clouds) for name, clouds in plan.simulated.items()},
        "splits": {} if use is None else dict(use.splits),
        "random_split": None if random is None else {**random.model_dump(mode="json"), "fold": fold},
        "tiles": None if usage.tiles is None else usage.tiles.model_dump(mode="json", exclude={"notes", "published"}),
        "format": tile_format,
    }


def _cloud_settings(clouds: Clouds) -> dict[str, Any]:
    """What simulated clouds hang on."""
    return {"clear": clouds.clear, "kind": clouds.kind, "cover": clouds.cover, "version": CLOUD_VERSION}


def _refuse_other_things(folder: Path) -> None:
    """Refuse a folder that neither is new nor holds tiles of ours."""
    if (folder / _PROGRESS / "settings.json").is_file() or not folder.exists():
        return
    if not folder.is_dir() or {entry.name for entry in folder.iterdir()} - {_PROGRESS}:
        raise InputError(f"{folder} is there and holds other things than tiles; choose a new or empty folder.")


def _claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make the folder ours, or make sure that it already was and with the same settings."""
    file = folder / _PROGRESS / "settings.json"
    if file.is_file():
        settings = json.loads(json.dumps(settings))  # tuples as lists, as they come back
        try:
            earlier = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise InputError(f"{file} is damaged; delete {folder} and begin again.") from error
        # The fold changes the index only.
        changed = [key for key in settings if key != "random_split" and earlier.get(key) != settings[key]]
        if changed:
            key = changed[0]
            raise InputError(
                f"{folder} holds tiles made with another {key} ({earlier.get(key)!r}, now {settings[key]!r}); "
                "choose another folder, or delete this one."
            )
    for pattern in (".*.part*", "*/.*.part*"):  # of a run that was killed in the middle of a file
        for stale in folder.glob(pattern):
            stale.unlink(missing_ok=True)
    with write_beside(file) as temporary:
        temporary.write_text(json.dumps(settings, indent=1, ensure_ascii=False), encoding="utf-8")


# --- one sample ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Context:
    """What all samples share."""

    plan: Plan
    folder: Path
    tile_format: TileFormat


@dataclass(frozen=True)
class _Job:
    """A sample and its tiles, None for the whole; and the name that its tiles begin with."""

    sample: Sample
    stem: str
    tiles: tuple[CutTile | None, ...]


@dataclass(frozen=True)
class _Done:
    """Index rows of a sample's tiles, and how many of them were kept from before."""

    rows: list[dict[str, Any]]
    kept: int


def _jobs(items: Sequence[Item]) -> list[_Job]:
    """Items by sample, in their order."""
    groups = [list(group) for _, group in groupby(items, key=lambda item: item.sample.id)]
    stems = _file_names([group[0].sample.id for group in groups])
    return [
        _Job(group[0].sample, stem, tuple(item.tile for item in group))
        for group, stem in zip(groups, stems, strict=True)
    ]


def _file_names(ids: Sequence[str]) -> list[str]:
    """Names without slashes and white space; names that would fall together get a piece of a checksum."""
    plain = [re.sub(r"[^\w.-]+", "_", name) for name in ids]
    # Some file systems take upper and lower case for the same.
    taken = Counter(name.casefold() for name in plain)
    return [
        name if taken[name.casefold()] == 1 else f"{name}_{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
        for name, whole in zip(plain, ids, strict=True)
    ]


def _cut_sample(context: _Context, job: _Job) -> _Done:
    """Write the tiles of a sample that are not there yet."""
    source = source_state(context.plan, job.sample)
    journal = Journal(context.folder / _PROGRESS / f"{job.stem}.jsonl", source)
    rows: list[dict[str, Any]] = []
    kept = 0
    with open_sample(context.plan, job.sample) as opened:
        for tile in job.tiles:
            name = job.stem if tile is None else f"{job.stem}_r{tile.row_index:03d}_c{tile.column_index:03d}"
            row = journal.finished(name, context.folder)
            if row is not None:
                kept += 1
            elif is_stopped():
                break  # nobody waits for this result any more
            else:
                row = _write_tile(context, opened, tile, name)
                journal.add(name, row, context.folder)
            rows.append(row)
    return _Done(rows, kept)


def _write_tile(context: _Context, opened: OpenSample, tile: CutTile | None, name: str) -> dict[str, Any]:
    """Write the files of one tile and describe it."""
    plan, folder = context.plan, context.folder
    header = opened.reference
    box = None if tile is None else tile.box
    whole = box or Box(0, 0, header.height, header.width)
    place = Grid(whole.height, whole.width, *_placed(opened, box))
    paths: dict[str, str | None] = {}
    shares: list[float] = []
    for modality in plan.modalities:
        pixels = opened.image(modality, box)
        paths[modality] = None
        if pixels is None:
            continue
        paths[modality] = f"{modality}/{name}.{context.tile_format}"
        # A simulated image stands on the grid of the clear one.
        source = modality if modality in opened.sample.files else str(plan.simulated[modality].clear)
        file = opened.image_file(source)
        nodata = file.header.nodata
        names = plan.manifest.modalities[modality].band_names
        height, width = pixels.valid.shape
        grid = place if box is not None else Grid(height, width, *_placed_file(file.header))
        _write(folder / str(paths[modality]), pixels.values, grid, names, nodata)
        shares.append(float(pixels.valid.mean()))
    labels = opened.labels(box)
    counts = np.zeros(len(plan.classes), dtype=np.int64)
    paths[LABELS] = None
    labelled = 0.0
    if labels is not None:
        found = np.bincount(labels.ravel(), minlength=IGNORE + 1)
        counts = found[: len(plan.classes)]
        labelled = float(counts.sum() / labels.size)
        if plan.layout.labels.encoding != "folder":
            paths[LABELS] = f"{LABELS}/{name}.{context.tile_format}"
            _write(folder / str(paths[LABELS]), labels[None].astype(np.uint8), place, ("class",), IGNORE)
    clouds = opened.cloud_mask(box)
    paths[CLOUD_MASK] = None
    if clouds is not None:
        paths[CLOUD_MASK] = f"{CLOUD_MASK}/{name}.{context.tile_format}"
        _write(folder / str(paths[CLOUD_MASK]), clouds[None].astype(np.uint8), place, ("cloud",), None)
    crs, transform = opened.place(box)
    return {
        "id": name,
        "sample": opened.sample.id,
        "row_index": 0 if tile is None else tile.row_index,
        "column_index": 0 if tile is None else tile.column_index,
        "row": whole.row,
        "column": whole.column,
        # Of a tile that reaches beyond its image, the rest is filling.
        "height": min(whole.height, header.height - whole.row),
        "width": min(whole.width, header.width - whole.column),
        "paths": paths,
        "class_pixels": counts.tolist(),
        "labelled_share": labelled,
        "valid_share": min(shares, default=0.0),
        "image_class": int(labels.flat[0]) if labels is not None and plan.layout.labels.encoding == "folder" else None,
        "crs": crs,
        "geotransform": None if transform is None else list(transform)[:6],
    }


def _placed(opened: OpenSample, box: Box | None) -> tuple[rasterio.Affine, rasterio.CRS | None]:
    crs, transform = opened.place(box)
    return transform or rasterio.Affine.identity(), rasterio.CRS.from_string(crs) if crs else None


def _placed_file(header: Any) -> tuple[rasterio.Affine, rasterio.CRS | None]:
    return header.transform or rasterio.Affine.identity(), rasterio.CRS.from_string(header.crs) if header.crs else None


def _write(path: Path, values: NDArray[Any], grid: Grid, names: Sequence[str], nodata: float | None) -> None:
    """Write one tile of one modality, or of the labels."""
    count, height, width = values.shape
    if path.suffix == ".tif":
        write_raster(path, values, _of_size(grid, height, width), names=names, nodata=nodata)
        return
    try:
        with (
            write_beside(path) as temporary,
            open_raster(
                temporary, "w", driver="PNG", height=height, width=width, count=count, dtype=values.dtype
            ) as out,
        ):
            out.write(values)
    except RasterioError as error:
        raise OutputError(f"{path} can't be written ({error}); is the disk full?") from error


def _of_size(grid: Grid, height: int, width: int) -> Grid:
    """The same ground in another number of pixels."""
    if (grid.height, grid.width) == (height, width):
        return grid
    t, rows, columns = grid.transform, grid.height / height, grid.width / width
    if not grid.has_transform:
        return Grid(height, width, t, grid.crs)
    return Grid(
        height, width, rasterio.Affine(t.a * columns, t.b * rows, t.c, t.d * columns, t.e * rows, t.f), grid.crs
    )


# --- the index ----------------------------------------------------------------------------------------------


def _write_index(
    folder: Path, rows: Sequence[Mapping[str, Any]], splits: Iterable[str], settings: Mapping[str, Any]
) -> Path:
    """The table of all tiles."""
    parts = [*settings["modalities"], LABELS, CLOUD_MASK]
    table = [_flat(row, split, parts) for row, split in zip(rows, splits, strict=True)]
    schema = pyarrow.schema(list(_columns(parts)), metadata={METADATA_KEY: json.dumps(settings, ensure_ascii=False)})
    path = folder / INDEX
    with write_beside(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table, schema=schema), temporary)
    return path


def _flat(row: Mapping[str, Any], split: str, parts: Sequence[str]) -> dict[str, Any]:
    paths = {f"path_{part}": row["paths"][part] for part in parts}
    return {**{key: value for key, value in row.items() if key != "paths"}, "split": split, **paths}


def _columns(parts: Sequence[str]) -> Iterator[pyarrow.Field]:
    text, whole = pyarrow.string(), pyarrow.int64()
    for name in ("id", "sample", "split"):
        yield pyarrow.field(name, text, nullable=False)
    for name in ("row_index", "column_index", "row", "column", "height", "width"):
        yield pyarrow.field(name, whole, nullable=False)
    for part in parts:
        yield pyarrow.field(f"path_{part}", text)
    yield pyarrow.field("class_pixels", pyarrow.list_(whole), nullable=False)
    yield pyarrow.field("labelled_share", pyarrow.float64(), nullable=False)
    yield pyarrow.field("valid_share", pyarrow.float64(), nullable=False)
    yield pyarrow.field("image_class", whole)
    yield pyarrow.field("crs", text)
    yield pyarrow.field("geotransform", pyarrow.list_(pyarrow.float64()))
