"""Reading any raster that GDAL can as an RGB image of one agreed brightness, window by window.

A scene is never held as a whole: the stretch and the question whether there is any data are answered from a decimated
read, everything else is read per window.

Which pixels are valid.  A pixel of the three chosen bands holds data unless
- the alpha or mask band is 0 there,
- any of the bands is NaN or infinite there,
- the bands hold the nodata value: any of them, except where that value is the 0 or the largest value of an unsigned
  type, which a single band of a dark or bright pixel also takes; then all three must hold it (as GDAL has it).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window

from rsovlib.data.geotiff import open_raster
from rsovlib.data.stretch import AS_THEY_ARE, PERCENTILES, Stretch, percentile_stretch
from rsovlib.errors import InputError, RasterError

StretchRule = Literal["auto", "percentile", "none"]

_SAMPLE_SIDE = 1024
"""Longest side of the decimated read that the stretch is found on."""

_RED_GREEN_BLUE = (
    # Names of the bands as product readers write them: Sentinel-2 first, then words.
    (re.compile(r"^b0?4\b", re.I), re.compile(r"^b0?3\b", re.I), re.compile(r"^b0?2\b", re.I)),
    (re.compile(r"^red$", re.I), re.compile(r"^green$", re.I), re.compile(r"^blue$", re.I)),
)


def open_scene(
    path: str | os.PathLike[str],
    bands: str | Sequence[int | str] | None = None,
    *,
    stretch: StretchRule = "auto",
    percentiles: tuple[float, float] = PERCENTILES,
) -> SceneRaster:
    """Open a raster to be read as RGB.

    Args:
        path: any file that GDAL reads: GeoTIFF, VRT, JPEG 2000, PNG, ...
        bands: the bands to show as red, green and blue: three numbers from 1 or band descriptions, as a sequence
            or as one string with commas (``"4,3,2"``, ``"B04,B03,B02"``); a number may repeat.
            By default, the first of these that applies: bands described as Sentinel-2's B04, B03, B02, or as red,
            green, blue; bands whose colour interpretation is red, green, blue; the first three bands.
        stretch: ``"auto"`` leaves uint8 as it is and stretches all other types; ``"percentile"`` stretches uint8,
            too; ``"none"`` takes values as they are, clipped to 0..255.
        percentiles: of the whole scene's valid pixels, per band; they become 0 and 255.

    Returns:
        The open scene; close it, or use it in a ``with`` statement.

    Raises:
        RasterError: the file is missing, no raster, cut short, complex, or lacks three bands of colour.
        InputError: the bands asked for are not there, or the stretch is unknown.
    """
    return SceneRaster(path, bands, stretch=stretch, percentiles=percentiles)


class SceneRaster:
    """An open raster, read as uint8 RGB. Made by :func:`open_scene`.

    Attributes:
        name: the file as the user gave it, for messages.
        bands: the three band numbers (from 1) shown as red, green and blue.
        band_rule: in words, why these three.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        bands: str | Sequence[int | str] | None = None,
        *,
        stretch: StretchRule = "auto",
        percentiles: tuple[float, float] = PERCENTILES,
    ) -> None:
        if stretch not in ("auto", "percentile", "none"):
            raise InputError(f"There is no stretch {stretch!r}; choose one of auto, none, percentile.")
        self.name = os.fspath(path)
        self._stretch_rule = stretch
        self._percentiles = percentiles
        self._source = _open(self.name)
        try:
            _check_type(self._source, self.name)
            self.bands, self.band_rule = _choose_bands(self._source, self.name, bands)
            _check_complete(self._source, self.name, self.bands)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> SceneRaster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    @property
    def height(self) -> int:
        """Rows of the scene."""
        return self._source.height

    @property
    def width(self) -> int:
        """Columns of the scene."""
        return self._source.width

    @property
    def crs(self) -> rasterio.CRS | None:
        """The coordinate reference system, or None where the file has none."""
        return self._source.crs

    @property
    def transform(self) -> rasterio.Affine:
        """From (column, row) of a pixel's upper left corner to map coordinates; may be rotated."""
        return self._source.transform

    @property
    def pixel_size(self) -> tuple[float, float]:
        """Lengths of a pixel's sides along a row and along a column, in units of the CRS; right if rotated, too."""
        t = self.transform
        return math.hypot(t.a, t.d), math.hypot(t.b, t.e)

    @cached_property
    def profile(self) -> dict[str, Any]:
        """What there is to know about the scene, as plain values; finds the stretch if it was not known yet."""
        names = [self._source.descriptions[band - 1] or f"band {band}" for band in self.bands]
        return {
            "path": self.name,
            "driver": self._source.driver,
            "height": self.height,
            "width": self.width,
            "crs": self.crs.to_string() if self.crs else None,
            "transform": tuple(self.transform)[:6],
            "pixel_size": self.pixel_size,
            "dtype": self._source.dtypes[self.bands[0] - 1],
            "nodata": self._source.nodatavals[self.bands[0] - 1],
            "bands": list(self.bands),
            "band_names": names,
            "band_rule": self.band_rule,
            "stretch": self.stretch.rule,
            "stretch_low": list(self.stretch.low),
            "stretch_high": list(self.stretch.high),
        }

    @cached_property
    def stretch(self) -> Stretch:
        """How sensor values become display values, the same for every window of the scene.

        Raises:
            RasterError: the scene has no valid pixel, or can't be read.
        """
        is_display = all(self._source.dtypes[band - 1] == "uint8" for band in self.bands)
        if self._stretch_rule == "none" or (self._stretch_rule == "auto" and is_display):
            return AS_THEY_ARE if is_display else Stretch(AS_THEY_ARE.low, AS_THEY_ARE.high, "0-255, clipped")
        return percentile_stretch(*self._sample, self._percentiles)

    def read_rgb(self, window: Window | None = None) -> NDArray[np.uint8]:
        """The display values (H, W, 3) of a window, or of the whole scene; 0 where there is no data.

        Raises:
            RasterError: the window can't be read, or the scene has no valid pixel.
        """
        values, valid = self._read(window)
        return self._display(values, valid)

    def valid(self, window: Window | None = None) -> NDArray[np.bool_]:
        """Where a window, or the whole scene, holds data, (H, W).

        Raises:
            RasterError: the window can't be read.
        """
        if not self._can_miss_data:
            rows, columns = (window.height, window.width) if window else (self.height, self.width)
            return np.ones((int(rows), int(columns)), dtype=bool)
        return self._read(window)[1]

    def read(self, window: Window | None = None) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """:meth:`read_rgb` and :meth:`valid` from a single pass over the file."""
        values, valid = self._read(window)
        return self._display(values, valid), valid

    def preview(self, longest_side: int = _SAMPLE_SIDE) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The whole scene at reduced size: display values (h, w, 3) and where they hold data (h, w)."""
        values, valid = self._read(None, self.preview_shape(longest_side))
        return self._display(values, valid), valid

    def preview_shape(self, longest_side: int) -> tuple[int, int]:
        """The (h, w) that :meth:`preview` gives: the scene's own size, or smaller."""
        factor = max(self.height, self.width) / longest_side
        if factor <= 1:
            return self.height, self.width
        return max(1, round(self.height / factor)), max(1, round(self.width / factor))

    def require_data(self) -> None:
        """Raise RasterError if no pixel of the scene is valid."""
        if self._can_miss_data:
            _ = self._sample

    @property
    def _can_miss_data(self) -> bool:
        """Whether a pixel can be invalid at all; if not, masks need not be read."""
        floats = any(np.issubdtype(self._source.dtypes[band - 1], np.floating) for band in self.bands)
        return floats or any(MaskFlags.all_valid not in self._source.mask_flag_enums[band - 1] for band in self.bands)

    @cached_property
    def _sample(self) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Values (3, ...) and validity (...) of pixels from all over the scene, at least one of them valid."""
        values, valid = self._read(None, self.preview_shape(_SAMPLE_SIDE))
        if valid.any():
            return values, valid
        # The decimated read may step over small islands of data: look at every row before giving up.
        rows = max(1, _SAMPLE_SIDE**2 // self.width)
        for row in range(0, self.height, rows):
            values, valid = self._read(Window(0, row, self.width, min(rows, self.height - row)))
            if valid.any():
                return values, valid
        raise RasterError(f"{self.name} holds no data: every pixel is nodata or masked in bands {list(self.bands)}.")

    def _display(self, values: NDArray[np.generic], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        rgb = self.stretch(values) if self.stretch is not AS_THEY_ARE else np.moveaxis(values, 0, -1).astype(np.uint8)
        rgb[~valid] = 0
        return rgb

    def _read(
        self, window: Window | None, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Sensor values (3, H, W) and validity (H, W) of a window, decimated to ``shape`` where that is given."""
        try:
            values = self._source.read(list(self.bands), window=window, out_shape=shape and (3, *shape))
            valid = self._mask_band(window, values.shape[1:])
        except RasterioError as error:
            where = f"rows {int(window.row_off)} to {int(window.row_off + window.height) - 1}" if window else "all rows"
            raise RasterError(
                f"{self.name} is damaged: reading {where} failed; get the file again or repair it."
            ) from error
        if np.issubdtype(values.dtype, np.floating):
            valid &= np.isfinite(values).all(axis=0)
        missing = [
            band_values == nodata if nodata is not None else np.zeros(valid.shape, dtype=bool)
            for band_values, nodata in zip(values, self._nodata, strict=True)
        ]
        if any(nodata is not None for nodata in self._nodata):
            valid &= ~(np.all(missing, axis=0) if self._nodata_is_a_colour else np.any(missing, axis=0))
        return values, valid

    @cached_property
    def _nodata(self) -> list[float | None]:
        """The nodata value of each chosen band."""
        return [self._source.nodatavals[band - 1] for band in self.bands]

    @cached_property
    def _nodata_is_a_colour(self) -> bool:
        """Whether a band of a pixel with data may well take the nodata value: the ends of an unsigned type."""
        types = [np.dtype(self._source.dtypes[band - 1]) for band in self.bands]
        return all(
            dtype.kind == "u" and nodata in (None, 0, np.iinfo(dtype).max)
            for dtype, nodata in zip(types, self._nodata, strict=True)
        )

    def _mask_band(self, window: Window | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """What the alpha band or the mask bands say, (H, W); all True where there is none of them."""
        valid = np.ones(shape, dtype=bool)
        for band in self.bands:
            flags = self._source.mask_flag_enums[band - 1]
            # A mask that GDAL derives from the nodata value is left to the rule of this module.
            if MaskFlags.all_valid in flags or MaskFlags.nodata in flags:
                continue
            valid &= self._source.read_masks(band, window=window, out_shape=shape) > 0
            if MaskFlags.per_dataset in flags:
                break
        return valid


def _open(name: str) -> rasterio.DatasetReader:
    """Open a raster, or say in one sentence why it isn't one."""
    # Names that only GDAL understands: /vsizip/..., NETCDF:"file":variable, https://...
    is_gdal_name = name.startswith("/vsi") or re.match(r"^[A-Za-z][A-Za-z0-9_]+:", name) is not None
    file = Path(name)
    if not is_gdal_name or file.exists():
        if not file.exists():
            raise RasterError(f"{name} does not exist; check the path of the image.")
        if file.is_dir():
            raise RasterError(f"{name} is a folder; give the path of a raster file in it.")
        if not os.access(file, os.R_OK):
            raise RasterError(f"{name} can't be read: permission denied.")
        if file.is_file() and file.stat().st_size == 0:
            raise RasterError(f"{name} is empty (0 bytes); get the file again.")
    try:
        source: rasterio.DatasetReader = open_raster(name)
    except RasterioError as error:
        raise RasterError(
            f"{name} can't be opened as a raster; it is of an unknown format, or damaged from its start on."
        ) from error
    return source


def _check_type(source: rasterio.DatasetReader, name: str) -> None:
    """Refuse containers and numbers that no image is made of."""
    if source.count == 0:
        inside = ", ".join(source.subdatasets[:3])
        hint = f"; give one of the rasters in it, such as {inside}" if inside else ""
        raise RasterError(f"{name} holds no bands of its own{hint}.")
    complex_types = sorted({dtype for dtype in source.dtypes if "complex" in dtype})
    if complex_types:
        raise RasterError(
            f"{name} holds complex numbers ({complex_types[0]}); write their amplitude to a raster first."
        )


def _choose_bands(
    source: rasterio.DatasetReader, name: str, bands: str | Sequence[int | str] | None
) -> tuple[tuple[int, int, int], str]:
    """The three band numbers (from 1), and in words why."""
    if bands is not None:
        return _named_bands(source, name, bands), "chosen by the user"
    if source.count < 3 or source.colorinterp.count(ColorInterp.alpha) > source.count - 3:
        if source.colorinterp[0] == ColorInterp.palette:
            raise RasterError(
                f"{name} holds a palette, not colours; expand it first, for example with gdal_translate -expand rgb."
            )
        noun = "band" if source.count == 1 else "bands"
        raise RasterError(
            f"{name} has {source.count} {noun}, and three are needed for red, green and blue; "
            f"say which to use, for example bands=1,{source.count},1, or give another image."
        )
    descriptions = [(text or "").strip() for text in source.descriptions]
    for patterns in _RED_GREEN_BLUE:
        found = [[n for n, text in enumerate(descriptions, start=1) if pattern.match(text)] for pattern in patterns]
        if all(len(numbers) == 1 for numbers in found):
            return (found[0][0], found[1][0], found[2][0]), "by the bands' descriptions"
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(source.colorinterp.count(colour) == 1 for colour in colours):
        red, green, blue = (source.colorinterp.index(colour) + 1 for colour in colours)
        return (red, green, blue), "by the bands' colour interpretation"
    first, second, third = [n for n in range(1, source.count + 1) if source.colorinterp[n - 1] != ColorInterp.alpha][:3]
    return (first, second, third), "the first three bands"


def _named_bands(source: rasterio.DatasetReader, name: str, bands: str | Sequence[int | str]) -> tuple[int, int, int]:
    """The band numbers for what the user wrote."""
    wanted = bands.split(",") if isinstance(bands, str) else list(bands)
    if len(wanted) != 3:
        raise InputError(f"{len(wanted)} bands were chosen, and three are needed: red, green, blue, such as 4,3,2.")
    numbers = [_band_number(source, name, band) for band in wanted]
    return numbers[0], numbers[1], numbers[2]


def _band_number(source: rasterio.DatasetReader, name: str, band: int | str) -> int:
    """One band, given by number or by description."""
    text = str(band).strip()
    descriptions = [(described or "").strip().casefold() for described in source.descriptions]
    if descriptions.count(text.casefold()) == 1:
        return descriptions.index(text.casefold()) + 1
    if text.isdecimal() and 1 <= int(text) <= source.count:
        return int(text)
    named = [described for described in source.descriptions if described]
    described = f", described as {', '.join(named)}" if named else ""
    raise InputError(f"{name} has no band {text!r}; it has bands 1 to {source.count}{described}.")


def _check_complete(source: rasterio.DatasetReader, name: str, bands: Sequence[int]) -> None:
    """Refuse a TIFF whose blocks lie beyond the end of the file, before hours of work end on them.

    GDAL opens a TIFF that was cut short without complaint, because its directory stands at the start; only the block
    table tells. Other formats, and blocks that are there but damaged, are found when their rows are read.
    """
    file = Path(name)
    if source.driver != "GTiff" or not file.is_file():
        return
    size = file.stat().st_size
    # With pixel interleaving all bands share the blocks of the first.
    for band in sorted(set(bands)) if source.interleaving == rasterio.enums.Interleaving.band else [1]:
        height, width = source.block_shapes[band - 1]
        for row in range(math.ceil(source.height / height)):
            for column in range(math.ceil(source.width / width)):
                # None stands for a block that was never written: a sparse file, legally all nodata.
                offset = source.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=band)
                length = source.get_tag_item(f"BLOCK_SIZE_{column}_{row}", "TIFF", bidx=band)
                if offset is not None and length is not None and int(offset) + int(length) > size:
                    raise RasterError(
                        f"{name} is cut short: its data from row {row * height} on lie beyond the end of the file "
                        f"({size} bytes); get the file again."
                    )
