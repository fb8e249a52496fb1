"""Labels that are published as polygons in a table: one row of well-known text for each image and class."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from shapely.affinity import scale

from rsovlib.data.manifest import Polygons
from rsovlib.errors import RasterError


class PolygonTable:
    """The polygons of all images, and the extents that relate them to pixels.

    Args:
        table: the CSV file with the polygons.
        extents: the CSV file with the extent of each image in the polygons' coordinates.
        columns: the names of their columns.

    Raises:
        RasterError: a file is missing, is no table, or lacks a column.
    """

    def __init__(self, table: str | os.PathLike[str], extents: str | os.PathLike[str], columns: Polygons) -> None:
        self.name = os.fspath(table)
        self._columns = columns
        shapes = _read(self.name, [columns.image_column, columns.class_column, columns.geometry_column])
        sizes = _read(os.fspath(extents), [columns.extent_image_column, columns.x_column, columns.y_column])
        self._extents: dict[str, tuple[float, float]] = {}
        self._rows: dict[str, dict[int, str]] = {}
        try:
            for image, x, y in sizes.itertuples(index=False):
                self._extents[str(image)] = (float(x), float(y))
            for image, number, text in shapes.itertuples(index=False):
                self._rows.setdefault(str(image), {})[int(number)] = str(text)
        except ValueError as error:
            raise RasterError(
                f"{self.name} or {os.fspath(extents)} holds text where a number belongs ({error})."
            ) from error

    @property
    def images(self) -> set[str]:
        """The images that have polygons."""
        return set(self._rows)

    @property
    def class_numbers(self) -> set[int]:
        """All class numbers in the table."""
        return {number for rows in self._rows.values() for number in rows}

    def burn(self, image: str, shape: tuple[int, int], numbers: Iterable[int]) -> NDArray[np.uint8]:
        """The class numbers of an image's pixels.

        Args:
            image: its name in the table.
            shape: (H, W) of the raster.
            numbers: the classes to burn, in this order: where polygons overlap, the later one shows.

        Returns:
            (H, W), 0 where no polygon of these classes is. A pixel belongs to a polygon that holds its centre.

        Raises:
            RasterError: the image has no extent, or a geometry is no well-known text.
        """
        if image not in self._extents:
            raise RasterError(f"{self.name} has polygons of {image!r}, but its extent is not given.")
        height, width = shape
        x_max, y_min = self._extents[image]
        factors = {"xfact": width / x_max * width / (width + 1), "yfact": height / y_min * height / (height + 1)}
        labels = np.zeros(shape, dtype=np.uint8)
        rows: Mapping[int, str] = self._rows.get(image, {})
        for number in numbers:
            geometry = self._geometry(image, number, rows.get(number, ""))
            if geometry is not None and not geometry.is_empty:
                placed = scale(geometry, **factors, origin=(0, 0))
                rasterize([(placed, number)], out=labels)
        return labels

    def _geometry(self, image: str, number: int, text: str) -> shapely.Geometry | None:
        if not text:
            return None
        try:
            return shapely.from_wkt(text)
        except shapely.GEOSException as error:
            raise RasterError(f"{self.name}: the polygons of class {number} in {image!r} can't be read.") from error


def _read(name: str, columns: list[str]) -> pandas.DataFrame:
    """The wanted columns of a CSV file."""
    if not Path(name).is_file():
        raise RasterError(f"{name} does not exist; it belongs to the labels of this dataset.")
    try:
        table = pandas.read_csv(name, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError, OSError) as error:  # pandas' own errors are ValueErrors
        raise RasterError(f"{name} can't be read as a table ({error}).") from error
    # pandas names columns without a head; to the manifest they have none.
    table.columns = pandas.Index(["" if str(name).startswith("Unnamed: ") else str(name) for name in table.columns])
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise RasterError(f"{name} has no column {missing[0]!r}; its columns are {', '.join(table.columns)}.")
    return table[columns]
