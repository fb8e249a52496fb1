"""Writing a GeoTIFF from top to bottom, and making sure that it holds what was written to it."""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from rsovlib.errors import InputError, OutputError

TIFF_SUFFIXES = (".tif", ".tiff")

_BLOCK = 256


def open_raster(path: str | os.PathLike[str], mode: str = "r", **profile: Any) -> Any:
    """``rasterio.open`` for images that may have no coordinates, which is legal, and which rasterio warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path, mode, **profile)


@contextmanager
def new_geotiff(
    path: str | os.PathLike[str], *, buffered: bool = False, overviews: bool = False, **profile: Any
) -> Iterator[RowWriter]:
    """A new tiled, compressed GeoTIFF; closed, given overviews if wanted, and read back when the block ends well.

    Args:
        path: the file to write, in place: put ``write_beside`` around it.
        buffered: collect rows and write whole rows of blocks. A compressed block that is written twice leaves its
            first version as dead weight in the file; worth the copy for small types.
        overviews: add reduced copies, by the most frequent value, down to one block.
        **profile: height, width, count, dtype, nodata, crs, transform, ... as rasterio takes them.

    Yields:
        Where the rows go; its ``target`` is the open rasterio dataset, for tags and colours.

    Raises:
        OutputError: the file can't be written, or does not read back as it was written.
        InputError: fewer or more rows were given than the file has.
    """
    file = Path(path)
    layout = {"driver": "GTiff", "tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK, "bigtiff": "if_safer"}
    try:
        with open_raster(file, "w", **layout, compress="deflate", **profile) as target:
            writer = RowWriter(target, _BLOCK if buffered else 1)
            yield writer
            writer.finish()
        if overviews:
            _add_overviews(file)
        # GDAL writes its last blocks when a file is closed, and does not always say that it failed.
        if _checksums(file) != writer.checksums:
            raise OutputError(f"A file in {file.parent} does not read back as it was written; is the disk full?")
    except (RasterioError, CPLE_BaseError) as error:
        raise OutputError(f"A GeoTIFF can't be written to {file.parent} ({error}); is the disk full?") from error


class RowWriter:
    """Writes the rows of a raster in order. Made by :func:`new_geotiff`.

    Attributes:
        target: the open dataset.
        checksums: CRC-32 of the rows written so far, one for each band.
    """

    def __init__(self, target: rasterio.io.DatasetWriter, rows_at_once: int) -> None:
        self.target = target
        self.checksums = [0] * target.count
        self._rows_at_once = rows_at_once
        self._next_row = 0
        self._waiting: list[NDArray[Any]] = []

    def write(self, rows: NDArray[Any]) -> None:
        """Append rows (n, W), or (bands, n, W).

        Raises:
            InputError: the rows do not fit the raster.
        """
        rows = rows[None] if rows.ndim == 2 else rows
        if rows.shape[0] != self.target.count or rows.shape[2] != self.target.width:
            raise InputError(f"Rows of shape {rows.shape} do not fit {self.target.count} bands of {self.target.width}.")
        self._waiting.append(rows)
        ready = sum(part.shape[1] for part in self._waiting)
        if ready >= self._rows_at_once:
            self._write_waiting(ready - ready % self._rows_at_once)

    def finish(self) -> None:
        """Write what is left, and check that it was everything.

        Raises:
            InputError: fewer or more rows were given than the raster has.
        """
        if self._waiting:
            self._write_waiting(sum(part.shape[1] for part in self._waiting))
        if self._next_row != self.target.height:
            raise InputError(f"{self._next_row} rows were given for a raster of {self.target.height} rows.")

    def _write_waiting(self, count: int) -> None:
        rows = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting, axis=1)
        self._waiting = [rows[:, count:]] if count < rows.shape[1] else []
        window = Window(0, self._next_row, self.target.width, count)
        for band, values in enumerate(rows[:, :count]):
            self.target.write(values, band + 1, window=window)
            self.checksums[band] = zlib.crc32(np.ascontiguousarray(values).data, self.checksums[band])
        self._next_row += count


def _add_overviews(path: Path) -> None:
    """Halve the raster until it fits into one block."""
    with rasterio.Env(COMPRESS_OVERVIEW="DEFLATE"), open_raster(path, "r+") as target:
        factors: list[int] = []
        while max(target.shape) > _BLOCK * 2 ** len(factors):
            factors.append(2 ** (len(factors) + 1))
        if factors:
            target.build_overviews(factors, Resampling.mode)


def _checksums(path: Path) -> list[int]:
    """CRC-32 of each band's rows, as they are read from the file."""
    with open_raster(path) as source:
        sums = [0] * source.count
        for band in range(source.count):
            for row in range(0, source.height, _BLOCK):
                window = Window(0, row, source.width, min(_BLOCK, source.height - row))
                sums[band] = zlib.crc32(source.read(band + 1, window=window), sums[band])
    return sums
