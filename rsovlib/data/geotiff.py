"""Writing a GeoTIFF from top to bottom, and making sure that it holds what was written to it.

A cloud-optimised GeoTIFF (COG) can't be written from top to bottom, because its overviews stand before the full
resolution; so a plain one is written first, and GDAL's own COG driver arranges it.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.shutil import copy as copy_raster
from rasterio.windows import Window

import rsovlib
from rsovlib.data.grid import Grid
from rsovlib.data.outputs import check_output
from rsovlib.errors import InputError, OutputError
from rsovlib.files import write_beside

TIFF_SUFFIXES = (".tif", ".tiff")

_BLOCK = 256


def open_raster(path: str | os.PathLike[str], mode: str = "r", **profile: Any) -> Any:
    """``rasterio.open`` for images that may have no coordinates, which is legal, and which rasterio warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path, mode, **profile)


@contextmanager
def new_geotiff(
    path: str | os.PathLike[str],
    *,
    buffered: bool = False,
    overviews: Literal["mode", "average"] | None = None,
    cog: bool = False,
    **profile: Any,
) -> Iterator[RowWriter]:
    """A new tiled, compressed GeoTIFF; closed, given overviews if wanted, and read back when the block ends well.

    Args:
        path: the file to write, in place: put ``write_beside`` around it.
        buffered: collect rows and write whole rows of blocks. A compressed block that is written twice leaves its
            first version as dead weight in the file; worth the copy for small types.
        overviews: add reduced copies down to one block, by the most frequent value or by the mean.
        cog: arrange the file as a cloud-optimised GeoTIFF; takes its space on the disk twice for a while.
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
        with ExitStack() as stack:
            plain = file
            if cog:
                # A folder of its own: no other program takes the plain file for a result.
                folder = tempfile.TemporaryDirectory(prefix=f".{file.stem}.", dir=file.parent)
                plain = Path(stack.enter_context(folder)) / "plain.tif"
            with open_raster(plain, "w", **layout, compress="deflate", **profile) as target:
                writer = RowWriter(target, _BLOCK if buffered else 1)
                yield writer
                writer.finish()
            if overviews is not None:
                _add_overviews(plain, Resampling[overviews])
            if cog:
                _arrange_as_cog(plain, file)
        # GDAL writes its last blocks when a file is closed, and does not always say that it failed.
        if _checksums(file) != writer.checksums:
            raise OutputError(f"A file in {file.parent} does not read back as it was written; is the disk full?")
    except (RasterioError, CPLE_BaseError) as error:
        raise OutputError(f"A GeoTIFF can't be written to {file.parent} ({error}); is the disk full?") from error


def write_raster(
    path: str | os.PathLike[str],
    values: NDArray[Any],
    grid: Grid | None = None,
    *,
    names: Sequence[str] = (),
    valid: NDArray[np.bool_] | None = None,
    nodata: float | None = None,
    tags: Mapping[str, Any] | None = None,
    cog: bool = False,
) -> Path:
    """Write values that are in memory: tiled, compressed, with overviews, band names and provenance in the file.

    Args:
        path: GeoTIFF to write (``.tif`` or ``.tiff``), replaced as a whole or not at all.
        values: (C, H, W) of any real type.
        grid: where the pixels lie: ``open_bands(...).grid`` of the raster that they come from; None if unknown.
        names: C names of the bands.
        valid: (H, W) False where the file shall have no data.
        nodata: the value that stands for no data; by default NaN for floating point. Whole numbers need one where
            ``valid`` is given.
        tags: settings to keep in the file; anything that JSON can hold.
        cog: write a cloud-optimised GeoTIFF.

    Returns:
        The path.

    Raises:
        InputError: the arrays, names and grid do not fit together, or valid values would become nodata.
        OutputError: the file can't be written.
    """
    target = check_output(path, TIFF_SUFFIXES)
    if values.ndim != 3 or 0 in values.shape:
        raise InputError(f"Values to write are (C, H, W), and these are {values.shape}.")
    count, height, width = values.shape
    if grid is not None and (grid.height, grid.width) != (height, width):
        raise InputError(f"The values have {height} x {width} pixels and the grid {grid.height} x {grid.width}.")
    if names and len(names) != count:
        raise InputError(f"There are {count} bands and {len(names)} names of bands.")
    values, nodata = _with_nodata(values, valid, nodata)
    georeference = {} if grid is None else grid.georeference()
    with (
        write_beside(target) as temporary,
        new_geotiff(
            temporary,
            overviews="average",
            cog=cog,
            height=height,
            width=width,
            count=count,
            dtype=values.dtype,
            nodata=nodata,
            **georeference,
        ) as writer,
    ):
        for band, name in enumerate(names, start=1):
            writer.target.set_band_description(band, name)
        writer.target.update_tags(**provenance(tags))
        writer.write(values)
    return target


def provenance(settings: Mapping[str, Any] | None) -> dict[str, str]:
    """The tags that tell what a file was made with: the version of the package, and the settings as JSON."""
    return {
        "TIFFTAG_SOFTWARE": f"rsovlib {rsovlib.__version__}",
        "RSOVLIB_VERSION": rsovlib.__version__,
        "RSOVLIB_SETTINGS": json.dumps(dict(settings or {}), ensure_ascii=False, default=str, sort_keys=True),
    }


def _with_nodata(
    values: NDArray[Any], valid: NDArray[np.bool_] | None, nodata: float | None
) -> tuple[NDArray[Any], float | None]:
    """The values with nodata written into them, and the value that it has."""
    if nodata is None and values.dtype.kind == "f":
        nodata = np.nan
    if valid is None:
        return values, nodata
    if valid.shape != values.shape[1:]:
        raise InputError(f"The values have {values.shape[1:]} pixels and the mask of valid ones {valid.shape}.")
    if nodata is None:
        raise InputError(f"Values of type {values.dtype} need a nodata value to go with a mask; give nodata=...")
    # Where 0 is the nodata of unsigned values, a single band may be 0: only a pixel that is 0 in all is lost.
    if (values[:, valid] == nodata).all(axis=0).any():
        raise InputError(f"Some pixels with data have the value {nodata:g}, which is to mean nodata; choose another.")
    return np.where(valid, values, np.asarray(nodata, dtype=values.dtype)), nodata


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


def _add_overviews(path: Path, resampling: Resampling) -> None:
    """Halve the raster until it fits into one block."""
    with rasterio.Env(COMPRESS_OVERVIEW="DEFLATE"), open_raster(path, "r+") as target:
        factors: list[int] = []
        while max(target.shape) > _BLOCK * 2 ** len(factors):
            factors.append(2 ** (len(factors) + 1))
        if factors:
            target.build_overviews(factors, resampling)


def _arrange_as_cog(plain: Path, path: Path) -> None:
    """A cloud-optimised copy: header and overviews first, then the data, so that a part is had with few requests."""
    # Without PAM, whatever does not fit into a TIFF is not put into a file beside it, where nobody would clean it up.
    with rasterio.Env(GDAL_PAM_ENABLED="NO"):
        with open_raster(plain) as source:
            # Neighbouring classes differ by nothing that a predictor could foresee.
            predictor = "floating_point" if source.dtypes[0].startswith("float") else "no"
        layout = {"driver": "COG", "blocksize": _BLOCK, "bigtiff": "if_safer"}
        copy_raster(plain, path, compress="deflate", predictor=predictor, **layout)


def _checksums(path: Path) -> list[int]:
    """CRC-32 of each band's rows, as they are read from the file."""
    with open_raster(path) as source:
        sums = [0] * source.count
        for band in range(source.count):
            for row in range(0, source.height, _BLOCK):
                window = Window(0, row, source.width, min(_BLOCK, source.height - row))
                sums[band] = zlib.crc32(source.read(band + 1, window=window), sums[band])
    return sums
