"""Class maps as GeoTIFF: uint8, tiled, compressed, with colours, class names, settings and overviews in the file.

Value k is class k in the order of the prompts and 255 is nodata.  The type does not depend on which classes occur.
Class names stand in the tags of the TIFF (``CLASS_0=water``), and again in ``NAME.tif.aux.xml``, where GDAL, QGIS and
ArcGIS look for the legend of a raster.
"""

from __future__ import annotations

import json
import os
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import ArrayLike, NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

import rsovlib
from rsovlib.data.classes import ClassPrompt, parse_classes
from rsovlib.data.outputs import check_output
from rsovlib.data.vector import check_labels
from rsovlib.errors import InputError, OutputError
from rsovlib.files import write_beside

NODATA = 255
"""Value of a class map where the image had no data."""

TIFF_SUFFIXES = (".tif", ".tiff")
_BLOCK = 256


def write_class_map(
    path: str | os.PathLike[str],
    labels: ArrayLike,
    classes: Sequence[str],
    colours: ArrayLike | None = None,
    transform: rasterio.Affine | None = None,
    crs: rasterio.CRS | None = None,
    valid: ArrayLike | None = None,
    tags: Mapping[str, Any] | None = None,
) -> Path:
    """Write a label map that is in memory.

    Args:
        path: GeoTIFF to write (``.tif`` or ``.tiff``), replaced as a whole or not at all.
        labels: (H, W) class indices from 0.
        classes: K class names, or prompts of which the first word is the name.
        colours: (K, 3) uint8; the package's own palette if None.
        transform: from (column, row) to map coordinates, if known.
        crs: coordinate reference system, if known.
        valid: (H, W) False where the map shall be nodata.
        tags: settings to keep in the file; anything that JSON can hold.

    Returns:
        The path.

    Raises:
        InputError: the arrays do not fit together, or a label is not the index of a class.
        OutputError: the file can't be written.
    """
    target = check_output(path, TIFF_SUFFIXES)
    prompts = parse_classes(classes)
    label_map = np.asarray(labels)
    mask = np.ones(label_map.shape, dtype=bool) if valid is None else np.asarray(valid, dtype=bool)
    check_labels(label_map, len(prompts), mask)
    with (
        replaced_class_map(target, prompts, colours) as temporary,
        class_map_writer(temporary, label_map.shape, prompts, colours, transform, crs, tags) as writer,
    ):
        writer.write(np.where(mask, label_map, NODATA).astype(np.uint8))
    return target


@contextmanager
def replaced_class_map(path: Path, prompts: Sequence[ClassPrompt], colours: ArrayLike | None) -> Iterator[Path]:
    """A temporary path for a class map; the map and its legend replace those at ``path`` when the block ends well.

    Raises:
        OutputError: the files can't be written.
    """
    legend = path.with_name(path.name + ".aux.xml")
    with ExitStack() as stack:
        # Left in reverse order: the map is renamed first, its legend after it.
        stack.enter_context(write_beside(legend)).write_bytes(_legend_xml(prompts, class_colours(prompts, colours)))
        yield stack.enter_context(write_beside(path))
        # A legend or statistics of the map that is replaced must not describe the new one, not even for a moment.
        legend.unlink(missing_ok=True)


@contextmanager
def class_map_writer(
    path: Path,
    shape: tuple[int, ...],
    prompts: Sequence[ClassPrompt],
    colours: ArrayLike | None = None,
    transform: rasterio.Affine | None = None,
    crs: rasterio.CRS | None = None,
    tags: Mapping[str, Any] | None = None,
) -> Iterator[ClassMapWriter]:
    """Write a class map from top to bottom; closed, given overviews and read back when the block ends well.

    Args:
        path: the file to write, in place: put ``write_beside`` around it.
        shape: (H, W) of the map.
        prompts: the classes.
        colours: (K, 3) uint8; the package's own palette if None.
        transform: from (column, row) to map coordinates, if known.
        crs: coordinate reference system, if known.
        tags: settings to keep in the file; anything that JSON can hold.

    Raises:
        OutputError: the file can't be written, or does not hold what was written to it.
    """
    height, width = shape
    table = class_colours(prompts, colours)
    try:
        with _quiet_without_georeference():
            with rasterio.open(
                path,
                "w",
                driver="GTiff",
                height=height,
                width=width,
                count=1,
                dtype="uint8",
                nodata=NODATA,
                crs=crs,
                transform=transform,
                tiled=True,
                blockxsize=_BLOCK,
                blockysize=_BLOCK,
                compress="deflate",
                bigtiff="if_safer",
            ) as target:
                target.write_colormap(1, {NODATA: (0, 0, 0, 0)} | {k: (*rgb, 255) for k, rgb in enumerate(table)})
                target.update_tags(**_file_tags(prompts, tags))
                target.update_tags(1, **{f"CLASS_{k}": prompt.name for k, prompt in enumerate(prompts)})
                target.set_band_description(1, "class")
                writer = ClassMapWriter(target)
                yield writer
                writer.finish()
            _add_overviews(path, height, width)
            _check_written(path, writer.counts)
    except (RasterioError, CPLE_BaseError) as error:
        # The caller's block may raise anything; only errors of GDAL about this file arrive here as such.
        raise OutputError(f"The class map can't be written to {path.parent} ({error}); is the disk full?") from error


class ClassMapWriter:
    """Writes rows in order, in whole rows of blocks. Made by :func:`class_map_writer`.

    A compressed block that is written twice would leave its first version as dead weight in the file.

    Attributes:
        counts: (256,) how often each value was written.
    """

    def __init__(self, target: rasterio.io.DatasetWriter) -> None:
        self.counts = np.zeros(256, dtype=np.int64)
        self._target = target
        self._next_row = 0
        self._waiting: list[NDArray[np.uint8]] = []

    def write(self, rows: NDArray[np.uint8]) -> None:
        """Append rows (n, W)."""
        self.counts += np.bincount(rows.ravel(), minlength=256)
        self._waiting.append(rows)
        ready = sum(len(part) for part in self._waiting)
        if ready >= _BLOCK:
            self._write_waiting(ready - ready % _BLOCK)

    def finish(self) -> None:
        """Write what is left, and check that it was everything.

        Raises:
            InputError: fewer or more rows were given than the map has.
        """
        self._write_waiting(sum(len(part) for part in self._waiting))
        if self._next_row != self._target.height:
            raise InputError(f"{self._next_row} rows were given for a class map of {self._target.height} rows.")

    def _write_waiting(self, count: int) -> None:
        if not self._waiting:
            return
        rows = np.concatenate(self._waiting)
        self._waiting = [rows[count:]] if count < len(rows) else []
        self._target.write(rows[:count], 1, window=Window(0, self._next_row, self._target.width, count))
        self._next_row += count


def class_colours(prompts: Sequence[ClassPrompt], colours: ArrayLike | None = None) -> list[tuple[int, int, int]]:
    """The colour of each class, 0 to 255: those given, or the package's palette.

    Raises:
        InputError: the colours are not (K, 3) whole numbers from 0 to 255.
    """
    if colours is None:
        from rsovlib import plots

        colours = plots.class_colours([str(prompt) for prompt in prompts])
    table = np.asarray(colours)
    if table.shape != (len(prompts), 3) or table.dtype.kind not in "iu" or table.min() < 0 or table.max() > 255:
        raise InputError(f"The colours of {len(prompts)} classes are ({len(prompts)}, 3) whole numbers from 0 to 255.")
    return [(int(red), int(green), int(blue)) for red, green, blue in table]


@contextmanager
def _quiet_without_georeference() -> Iterator[None]:
    """A map of an image without coordinates has none either; rasterio warns of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _file_tags(prompts: Sequence[ClassPrompt], settings: Mapping[str, Any] | None) -> dict[str, str]:
    legend = "; ".join(f"{k} {prompt.name}" for k, prompt in enumerate(prompts))
    return {
        "TIFFTAG_SOFTWARE": f"rsovlib {rsovlib.__version__}",
        "TIFFTAG_IMAGEDESCRIPTION": f"Class map: {legend}; {NODATA} nodata",
        "RSOVLIB_VERSION": rsovlib.__version__,
        "RSOVLIB_CLASSES": json.dumps([prompt.name for prompt in prompts], ensure_ascii=False),
        "RSOVLIB_PROMPTS": json.dumps([str(prompt) for prompt in prompts], ensure_ascii=False),
        "RSOVLIB_SETTINGS": json.dumps(dict(settings or {}), ensure_ascii=False, default=str, sort_keys=True),
    }


def _add_overviews(path: Path, height: int, width: int) -> None:
    """Reduced copies in the file, by the most frequent class, down to one block."""
    factors: list[int] = []
    while max(height, width) > _BLOCK * 2 ** len(factors):
        factors.append(2 ** (len(factors) + 1))
    if factors:
        with rasterio.Env(COMPRESS_OVERVIEW="DEFLATE"), rasterio.open(path, "r+") as target:
            target.build_overviews(factors, Resampling.mode)


def _check_written(path: Path, counts: NDArray[np.int64]) -> None:
    """Read the file back: GDAL writes its last blocks when a file is closed, and does not always say that it failed."""
    found = np.zeros(256, dtype=np.int64)
    with rasterio.open(path) as written:
        for row in range(0, written.height, _BLOCK):
            window = Window(0, row, written.width, min(_BLOCK, written.height - row))
            found += np.bincount(written.read(1, window=window).ravel(), minlength=256)
    if not np.array_equal(found, counts):
        raise OutputError(f"The class map in {path.parent} does not read back as it was written; is the disk full?")


def _legend_xml(prompts: Sequence[ClassPrompt], colours: Sequence[tuple[int, int, int]]) -> bytes:
    """GDAL's auxiliary file with category names and a raster attribute table (value, class, red, green, blue)."""
    # Types and usages are numbers of GDAL's GDALRATFieldType (0 integer, 2 string) and GDALRATFieldUsage.
    columns = (("Value", "0", "5"), ("Class", "2", "2"), ("Red", "0", "6"), ("Green", "0", "7"), ("Blue", "0", "8"))
    root = ET.Element("PAMDataset")
    band = ET.SubElement(root, "PAMRasterBand", band="1")
    names = ET.SubElement(band, "CategoryNames")
    table = ET.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for index, (name, kind, usage) in enumerate(columns):
        field = ET.SubElement(table, "FieldDefn", index=str(index))
        for key, value in (("Name", name), ("Type", kind), ("Usage", usage)):
            ET.SubElement(field, key).text = value
    for index, (prompt, colour) in enumerate(zip(prompts, colours, strict=True)):
        ET.SubElement(names, "Category").text = prompt.name
        row = ET.SubElement(table, "Row", index=str(index))
        for cell in (index, prompt.name, *colour):
            ET.SubElement(row, "F").text = str(cell)
    ET.indent(root)
    return ET.tostring(root, encoding="utf-8")
