"""Class maps as GeoTIFF: uint8, tiled, compressed, with colours, class names, settings and overviews in the file.

Value k is class k in the order of the prompts and 255 is nodata.  The type does not depend on which classes occur.
Class names stand in the tags of the TIFF (``CLASS_0=water``), and again in ``NAME.tif.aux.xml``, where GDAL, QGIS and
ArcGIS look for the legend of a raster.
"""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import rasterio
from numpy.typing import ArrayLike, NDArray

from rsovlib.data.classes import ClassPrompt, parse_classes
from rsovlib.data.geotiff import TIFF_SUFFIXES, RowWriter, new_geotiff, open_raster, provenance
from rsovlib.data.grid import Grid
from rsovlib.data.outputs import check_output
from rsovlib.data.source import read_raster
from rsovlib.data.vector import check_labels
from rsovlib.errors import InputError, OutputError, RasterError
from rsovlib.files import write_beside

NODATA = 255
"""Value of a class map where the image had no data."""

Colours: TypeAlias = list[tuple[int, int, int]]
"""Red, green and blue of each class, 0 to 255."""


def write_class_map(
    path: str | os.PathLike[str],
    labels: ArrayLike,
    classes: Sequence[str],
    colours: ArrayLike | None = None,
    transform: rasterio.Affine | None = None,
    crs: rasterio.CRS | None = None,
    valid: ArrayLike | None = None,
    tags: Mapping[str, Any] | None = None,
    *,
    grid: Grid | None = None,
    cog: bool = False,
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
        grid: where the map lies, in place of transform and crs: of the raster that it was made from, and with its
            control points if it has them.
        cog: write a cloud-optimised GeoTIFF.

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
    table = class_colours(prompts, colours)
    if grid is not None and (grid.height, grid.width) != label_map.shape:
        raise InputError(f"The labels are {label_map.shape} and the grid is {(grid.height, grid.width)}.")
    place = {"transform": transform, "crs": crs} if grid is None else grid.georeference()
    with (
        replaced_class_map(target, prompts, table) as temporary,
        class_map_writer(temporary, label_map.shape, prompts, table, place, tags, cog=cog) as writer,
    ):
        writer.write(np.where(mask, label_map, NODATA).astype(np.uint8))
    return target


@dataclass(frozen=True)
class ClassMap:
    """A class map as it was written.

    Attributes:
        labels: (H, W) int64 class indices; 255 where there is no data.
        valid: (H, W) False where there is no data.
        classes: names of the K classes.
        settings: what the map was made with.
        grid: where it lies.
    """

    labels: NDArray[np.int64]
    valid: NDArray[np.bool_]
    classes: list[str]
    settings: dict[str, Any]
    grid: Grid

    def truth(self, target: NDArray[np.integer[Any]], ignore_index: int = NODATA) -> NDArray[np.int64]:
        """Ground truth (H, W) to score this map against: ``ignore_index`` where the image had no data.

        A map says nothing where the image has no data, and no score should say that it missed something there:
        ``metrics.update(np.where(map.valid, map.labels, ignore_index), map.truth(target, ignore_index))``.

        Raises:
            InputError: the ground truth has another shape.
        """
        if target.shape != self.labels.shape:
            raise InputError(f"The ground truth has {target.shape} pixels and the map {self.labels.shape}.")
        return np.where(self.valid, target, ignore_index).astype(np.int64)


def read_class_map(path: str | os.PathLike[str]) -> ClassMap:
    """Read a map that :func:`write_class_map` or ``segment_scene`` wrote.

    Raises:
        RasterError: the file can't be read, or is no class map of this package.
    """
    found = read_raster(path)
    with open_raster(path) as source:
        tags, grid = source.tags(), Grid.of(source)
    if "RSOVLIB_CLASSES" not in tags or found.values.shape[0] != 1:
        raise RasterError(f"{os.fspath(path)} is not a class map of rsovlib: it names no classes in its tags.")
    settings = json.loads(tags.get("RSOVLIB_SETTINGS", "{}"))
    return ClassMap(found.values[0].astype(np.int64), found.valid, json.loads(tags["RSOVLIB_CLASSES"]), settings, grid)


def legend_path(path: Path) -> Path:
    """Where GDAL looks for the names of a class map's values."""
    return path.with_name(path.name + ".aux.xml")


@contextmanager
def replaced_class_map(path: Path, prompts: Sequence[ClassPrompt], colours: Colours) -> Iterator[Path]:
    """A temporary path for a class map; the map and its legend replace those at ``path`` when the block ends well.

    Raises:
        OutputError: the files can't be written.
    """
    legend_text = _legend_xml(prompts, colours)
    legend = legend_path(path)
    with ExitStack() as stack:
        # Left in reverse order: the map is renamed first, its legend after it.
        temporary_legend = stack.enter_context(write_beside(legend))
        yield stack.enter_context(write_beside(path))
        try:
            temporary_legend.write_bytes(legend_text)
        except OSError as error:
            raise OutputError(f"{legend} can't be written ({error.strerror}); is the disk full?") from error
        # A legend or statistics of the map that is replaced must not describe the new one, not even for a moment.
        legend.unlink(missing_ok=True)


@contextmanager
def class_map_writer(
    path: Path,
    shape: tuple[int, ...],
    prompts: Sequence[ClassPrompt],
    colours: Colours,
    georeference: Mapping[str, Any],
    tags: Mapping[str, Any] | None = None,
    *,
    cog: bool = False,
) -> Iterator[RowWriter]:
    """Write a class map from top to bottom; closed, given overviews and read back when the block ends well.

    Args:
        path: the file to write, in place: put ``write_beside`` around it.
        shape: (H, W) of the map.
        prompts: the classes.
        colours: red, green and blue of each class, 0 to 255.
        georeference: where it lies, as :meth:`rsovlib.data.grid.Grid.georeference` gives it.
        tags: settings to keep in the file; anything that JSON can hold.
        cog: arrange the file as a cloud-optimised GeoTIFF.

    Raises:
        OutputError: the file can't be written, or does not hold what was written to it.
    """
    height, width = shape
    with new_geotiff(
        path,
        buffered=True,
        overviews="mode",
        cog=cog,
        height=height,
        width=width,
        count=1,
        dtype="uint8",
        nodata=NODATA,
        **georeference,
    ) as writer:
        target = writer.target
        target.write_colormap(1, {NODATA: (0, 0, 0, 0)} | {k: (*rgb, 255) for k, rgb in enumerate(colours)})
        target.update_tags(**_file_tags(prompts, tags))
        target.update_tags(1, **{f"CLASS_{k}": prompt.name for k, prompt in enumerate(prompts)})
        target.set_band_description(1, "class")
        yield writer


def class_colours(prompts: Sequence[ClassPrompt], colours: ArrayLike | None = None) -> Colours:
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


def _file_tags(prompts: Sequence[ClassPrompt], settings: Mapping[str, Any] | None) -> dict[str, str]:
    legend = "; ".join(f"{k} {prompt.name}" for k, prompt in enumerate(prompts))
    return provenance(settings) | {
        "TIFFTAG_IMAGEDESCRIPTION": f"Class map: {legend}; {NODATA} nodata",
        "RSOVLIB_CLASSES": json.dumps([prompt.name for prompt in prompts], ensure_ascii=False),
        "RSOVLIB_PROMPTS": json.dumps([str(prompt) for prompt in prompts], ensure_ascii=False),
    }


def _legend_xml(prompts: Sequence[ClassPrompt], colours: Colours) -> bytes:
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
