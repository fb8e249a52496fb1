"""Reading any raster that GDAL can, with all its bands and with the question which pixels hold data answered.

A scene is never held as a whole: values are read by window, and what has to be known of the whole scene is answered
from a decimated read.

Which pixels are valid.  A pixel of the chosen bands holds data unless
- the alpha or mask band is 0 there,
- any of the bands is NaN or infinite there,
- the bands hold the nodata value: any of them, except where that value is the 0 or the largest value of an unsigned
  type, which a single band of a dark or bright pixel also takes; then all of them must hold it (as GDAL has it).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, get_args

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from rsovlib.data._png import require_whole_png
from rsovlib.data.geotiff import open_raster
from rsovlib.data.grid import Grid, OpenOnGrid, ResamplingRule
from rsovlib.errors import InputError, RasterError, unknown_name

SAMPLE_SIDE = 1024
"""Longest side of the decimated read that a scene's statistics are found on."""

BandChoice: TypeAlias = str | Sequence[int | str] | Callable[[Any, str], tuple[int, ...]] | None
"""Bands by number or description; or a rule that takes the open dataset and its name; or None for all but alpha."""


_WARP_ERROR = 1e-6
"""Pixels that GDAL may err when it interpolates coordinates: next to nothing, for the errors of its default, 0.125,
depend on the window that is read."""


@dataclass(frozen=True)
class Bands:
    """Values of a window, and where they are data.

    Attributes:
        values: (C, H, W) as the file has them.
        valid: (H, W) False where there is no data.
        names: C names of the bands: their descriptions, or ``"band 1"``, ...
        palette: (256, 4) uint8 red, green, blue, alpha of the values of a single band with a palette; or None.
    """

    values: NDArray[Any]
    valid: NDArray[np.bool_]
    names: tuple[str, ...]
    palette: NDArray[np.uint8] | None = None

    def masked(self) -> np.ma.MaskedArray[Any, Any]:
        """The values (C, H, W) as NumPy's masked array: True in its mask is no data."""
        return np.ma.MaskedArray(self.values, np.broadcast_to(~self.valid, self.values.shape))

    def filled(self, value: float = math.nan) -> NDArray[np.floating[Any]]:
        """The values (C, H, W) as floating point, and ``value`` where there is no data."""
        wide = np.float64 if self.values.dtype.itemsize > 2 and self.values.dtype != np.float32 else np.float32
        return np.where(self.valid, self.values, wide(value)).astype(wide, copy=False)

    def colours(self) -> NDArray[np.uint8]:
        """The colours (H, W, 3) of a band with a palette; 0 where there is no data.

        Raises:
            InputError: there is no palette.
        """
        if self.palette is None:
            raise InputError("These bands hold no palette; their values are not numbers of colours.")
        rgb: NDArray[np.uint8] = self.palette[self.values[0].astype(np.intp), :3]
        rgb[~self.valid] = 0
        return rgb


def open_bands(path: str | os.PathLike[str], bands: str | Sequence[int | str] | None = None) -> BandReader:
    """Open a raster to be read as it is: any number of bands, any real type.

    Args:
        path: any file that GDAL reads.
        bands: numbers from 1 or band descriptions, as a sequence or as one string with commas (``"1,B08"``);
            by default all but alpha.

    Returns:
        The open raster; close it, or use it in a ``with`` statement.

    Raises:
        RasterError: the file is missing, no raster, cut short, or complex.
        InputError: a band that was asked for is not there.
    """
    return BandReader(path, bands)


def read_raster(
    path: str | os.PathLike[str], bands: str | Sequence[int | str] | None = None, window: Window | None = None
) -> Bands:
    """Read a raster, or a window of it; see :func:`open_bands`.

    Raises:
        RasterError: the file is missing, no raster, damaged, or complex.
        InputError: a band that was asked for is not there, or the window lies outside the raster.
    """
    with open_bands(path, bands) as source:
        return source.read(window)


class BandReader(OpenOnGrid):
    """An open raster. Made by :func:`open_bands`.

    Attributes:
        name: the file as the user gave it, for messages.
        bands: the band numbers (from 1) that are read.
    """

    def __init__(self, path: str | os.PathLike[str], bands: BandChoice = None) -> None:
        self.name = os.fspath(path)
        self._warped_by: str | None = None
        self._file = open_source(self.name)
        self._source: Any = self._file
        try:
            self.bands = bands(self._file, self.name) if callable(bands) else band_numbers(self._file, self.name, bands)
            _check_complete(self._file, self.name, self.bands)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        if self._source is not self._file:
            self._source.close()
        self._file.close()

    def warp_to(self, grid: Grid, resampling: ResamplingRule) -> None:
        """From now on, read on another grid; both grids need a CRS and a transform.

        The values become floating point, because what the other grid does not cover is NaN.

        Raises:
            InputError: the resampling is unknown.
            RasterError: the file can't be warped.
        """
        if resampling not in get_args(ResamplingRule):
            raise unknown_name("resampling", resampling, get_args(ResamplingRule))
        own = Grid.of(self._file)
        kind = self.dtype
        # float32 holds every value of up to 16 bits; larger whole numbers need float64.
        wide = "float32" if kind.itemsize <= 2 or kind == np.float32 else "float64"
        nodata = self._nodata[0]
        if len({str(value) for value in self._nodata}) > 1:  # as text, because NaN differs from itself
            raise RasterError(f"{self.name} has another nodata value in each band; warp it first with gdalwarp.")
        options: dict[str, Any] = {"UNIFIED_SRC_NODATA": "YES" if self._nodata_is_a_colour else "NO"}
        if nodata is None and kind.kind == "f":
            nodata = math.nan
        if nodata is not None:
            options["src_nodata"] = nodata
        scale = grid.pixels_in(own)
        if scale is not None:
            # GDAL finds these anew for each chunk that it warps, and a pixel would depend on the window it is read by.
            options |= {"XSCALE": 1 / scale[0], "YSCALE": 1 / scale[1]}
        try:
            self._source = WarpedVRT(
                self._file,
                crs=grid.crs,
                transform=grid.transform,
                height=grid.height,
                width=grid.width,
                resampling=Resampling[resampling],
                tolerance=_WARP_ERROR,
                nodata=math.nan,
                dtype=wide,
                **options,
            )
        except RasterioError as error:
            raise RasterError(f"{self.name} can't be warped to another grid ({error}).") from error
        self._warped_by = resampling
        self._forget()

    def _forget(self) -> None:
        """Drop what was found on the former grid."""
        for known in ("grid", "profile", "_nodata", "_nodata_is_a_colour", "_sample", "can_miss_data"):
            self.__dict__.pop(known, None)

    @cached_property
    def grid(self) -> Grid:
        """Size and place of what is read."""
        return Grid.of(self._source)

    @property
    def height(self) -> int:
        """Rows of the scene."""
        return self._source.height

    @property
    def width(self) -> int:
        """Columns of the scene."""
        return self._source.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that holds the values of all chosen bands."""
        return np.result_type(*(self._source.dtypes[band - 1] for band in self.bands))

    @property
    def file_dtype(self) -> np.dtype[Any]:
        """The type in the file, which differs from :attr:`dtype` when the raster is read on another grid."""
        return np.result_type(*(self._file.dtypes[band - 1] for band in self.bands))

    @property
    def names(self) -> tuple[str, ...]:
        """The bands' descriptions, or ``"band 1"``, ... where they have none, or the same as another band."""
        described = [(text or "").strip() for text in self._file.descriptions]
        own = [described[band - 1] for band in self.bands]
        return tuple(
            text if text and described.count(text) == 1 else f"band {band}"
            for band, text in zip(self.bands, own, strict=True)
        )

    @property
    def palette(self) -> NDArray[np.uint8] | None:
        """(256, 4) red, green, blue, alpha of the values, if the only band has a palette."""
        if len(self.bands) != 1 or self._file.colorinterp[self.bands[0] - 1] != ColorInterp.palette:
            return None
        table = np.zeros((256, 4), dtype=np.uint8)
        for value, colour in self._file.colormap(self.bands[0]).items():
            if value < len(table):
                table[value] = colour
        return table

    @cached_property
    def profile(self) -> dict[str, Any]:
        """What there is to know about what is read, as plain values."""
        grid = self.grid
        return {
            "path": self.name,
            "driver": self._file.driver,
            "height": grid.height,
            "width": grid.width,
            "crs": grid.crs.to_string() if grid.crs else None,
            "transform": tuple(grid.transform)[:6],
            "control_points": len(grid.gcps),
            "dtype": self._file.dtypes[self.bands[0] - 1],
            "nodata": self._file.nodatavals[self.bands[0] - 1],
            "bands": list(self.bands),
            "band_names": list(self.names),
            "resampling": self._warped_by,
        }

    def read(self, window: Window | None = None, shape: tuple[int, int] | None = None) -> Bands:
        """The values of a window, or of the whole scene.

        Args:
            window: rows and columns within the scene.
            shape: (h, w) to read decimated, from overviews where the file has them.

        Raises:
            RasterError: the window can't be read.
            InputError: the window lies outside the scene.
        """
        if window is not None:
            self._check_window(window)
        try:
            values = self._values(window, shape)
            valid = self._mask_band(window, values.shape[1:])
        except RasterioError as error:
            where = f"rows {int(window.row_off)} to {int(window.row_off + window.height) - 1}" if window else "all rows"
            raise RasterError(
                f"{self.name} is damaged: reading {where} failed; get the file again or repair it."
            ) from error
        if values.dtype.kind == "f":
            valid &= np.isfinite(values).all(axis=0)
        if any(nodata is not None for nodata in self._nodata):
            missing = [
                band_values == nodata if nodata is not None else np.zeros(valid.shape, dtype=bool)
                for band_values, nodata in zip(values, self._nodata, strict=True)
            ]
            valid &= ~(np.all(missing, axis=0) if self._nodata_is_a_colour else np.any(missing, axis=0))
        return Bands(values, valid, self.names, self.palette)

    def valid(self, window: Window | None = None) -> NDArray[np.bool_]:
        """Where a window, or the whole scene, holds data, (H, W).

        Raises:
            RasterError: the window can't be read.
        """
        if not self.can_miss_data:
            rows, columns = (window.height, window.width) if window else (self.height, self.width)
            return np.ones((int(rows), int(columns)), dtype=bool)
        return self.read(window).valid

    def decimated_shape(self, longest_side: int) -> tuple[int, int]:
        """The scene's own (h, w), or a smaller one of the same form."""
        factor = max(self.height, self.width) / longest_side
        if factor <= 1:
            return self.height, self.width
        return max(1, round(self.height / factor)), max(1, round(self.width / factor))

    @cached_property
    def can_miss_data(self) -> bool:
        """Whether a pixel can be invalid at all; if not, masks need not be read."""
        if self.dtype.kind == "f":
            return True
        return any(MaskFlags.all_valid not in self._source.mask_flag_enums[band - 1] for band in self.bands)

    @property
    def sample(self) -> Bands:
        """Pixels from all over the scene, at least one of them valid: the scene decimated to 1024 pixels a side.

        The same file gives the same sample: every n-th pixel, or those of the nearest overview where it has some.

        Raises:
            RasterError: the scene has no valid pixel, or can't be read.
        """
        if self._sample is None:
            raise RasterError(
                f"{self.name} holds no data: every pixel is nodata or masked in bands {list(self.bands)}."
            )
        return self._sample

    @cached_property
    def _sample(self) -> Bands | None:
        found = self.read(None, self.decimated_shape(SAMPLE_SIDE))
        if found.valid.any():
            return found
        # The decimated read may step over small islands of data: look at every row before giving up.
        rows = max(1, SAMPLE_SIDE**2 // self.width)
        for row in range(0, self.height, rows):
            found = self.read(Window(0, row, self.width, min(rows, self.height - row)))
            if found.valid.any():
                return found
        return None

    @property
    def sample_rule(self) -> str:
        """In words, which pixels the sample takes."""
        height, width = self.decimated_shape(SAMPLE_SIDE)
        if (height, width) == (self.height, self.width):
            return "all pixels"
        by = "of the overviews" if self._file.overviews(self.bands[0]) else "evenly spread"
        return f"{height} x {width} of {self.height} x {self.width} pixels, {by}"

    def require_data(self) -> None:
        """Raise RasterError if no pixel of the scene is valid."""
        if self.can_miss_data:
            _ = self.sample

    def holds_data(self) -> bool:
        """Whether any pixel of the scene is valid."""
        return not self.can_miss_data or self._sample is not None

    def _values(self, window: Window | None, shape: tuple[int, int] | None) -> NDArray[Any]:
        if len({self._source.dtypes[band - 1] for band in self.bands}) == 1:
            return self._source.read(
                list(self.bands), window=window, out_shape=None if shape is None else (len(self.bands), *shape)
            )
        # rasterio reads bands of several types (a virtual raster has them) one by one only.
        each = [self._source.read(band, window=window, out_shape=shape) for band in self.bands]
        return np.stack(each).astype(self.dtype, copy=False)

    def _check_window(self, window: Window) -> None:
        inside = window.row_off >= 0 and window.col_off >= 0 and window.height >= 1 and window.width >= 1
        inside &= window.row_off + window.height <= self.height and window.col_off + window.width <= self.width
        if not inside:
            raise InputError(
                f"The window of {window.height} x {window.width} pixels at row {window.row_off}, column "
                f"{window.col_off} lies outside {self.name}, which has {self.height} x {self.width} pixels."
            )

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


def open_source(name: str) -> Any:
    """Open a raster of real numbers, or say in one sentence why it isn't one.

    Raises:
        RasterError: the file is missing, empty, no raster, a container of several, or complex.
    """
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
        source = open_raster(name)
    except RasterioError as error:
        raise RasterError(
            f"{name} can't be opened as a raster; it is of an unknown format, or damaged from its start on."
        ) from error
    try:
        _check_type(source, name)
    except RasterError:
        source.close()
        raise
    return source


def _check_type(source: Any, name: str) -> None:
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


def band_numbers(source: Any, name: str, bands: str | Sequence[int | str] | None) -> tuple[int, ...]:
    """The band numbers (from 1) for what the user wrote; all but alpha where that is nothing.

    Raises:
        InputError: a band is not there, or none was named.
        RasterError: the raster has no band but alpha.
    """
    if bands is None:
        found = tuple(n for n in range(1, source.count + 1) if source.colorinterp[n - 1] != ColorInterp.alpha)
        if not found:
            raise RasterError(f"{name} has no band but an alpha band, which holds no values; give another raster.")
        return found
    wanted = bands.split(",") if isinstance(bands, str) else list(bands)
    if not wanted:
        raise InputError("No bands were chosen; name at least one, such as 1.")
    return tuple(_band_number(source, name, band) for band in wanted)


def _band_number(source: Any, name: str, band: int | str) -> int:
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


def _check_complete(source: Any, name: str, bands: Sequence[int]) -> None:
    """Refuse a TIFF whose blocks lie beyond the end of the file, before hours of work end on them.

    GDAL opens a TIFF that was cut short without complaint, because its directory stands at the start; only the block
    table tells. Other formats, and blocks that are there but damaged, are found when their rows are read.
    """
    file = Path(name)
    if source.driver == "PNG" and file.is_file():
        require_whole_png(file)
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
