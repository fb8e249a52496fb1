"""Reading any raster that GDAL can as an RGB image of one agreed brightness, window by window.

What the file holds, and which pixels are valid, is the business of :mod:`rsovlib.data.source`; this module chooses
three bands and stretches them to display values, the same way in every window of the scene.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from rsovlib.data.grid import Grid, OpenOnGrid
from rsovlib.data.source import SAMPLE_SIDE, BandReader, Bands, band_numbers
from rsovlib.data.stretch import AS_THEY_ARE, PERCENTILES, Stretch, percentile_stretch
from rsovlib.errors import InputError, RasterError

StretchRule = Literal["auto", "percentile", "none"]

_RED_GREEN_BLUE = (
    # Names of the bands as product readers write them: Sentinel-2 first, then words.
    (re.compile(r"^b0?4\b", re.I), re.compile(r"^b0?3\b", re.I), re.compile(r"^b0?2\b", re.I)),
    (re.compile(r"^red$", re.I), re.compile(r"^green$", re.I), re.compile(r"^blue$", re.I)),
)


def open_scene(
    path: str | os.PathLike[str],
    bands: str | Sequence[int | str] | None = None,
    *,
    stretch: StretchRule | Stretch = "auto",
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
            too; ``"none"`` takes values as they are, clipped to 0..255; or a stretch that is known already.
        percentiles: of the whole scene's valid pixels, per band; they become 0 and 255.

    Returns:
        The open scene; close it, or use it in a ``with`` statement.

    Raises:
        RasterError: the file is missing, no raster, cut short, complex, or lacks three bands of colour.
        InputError: the bands asked for are not there, or the stretch is unknown.
    """
    return SceneRaster(path, bands, stretch=stretch, percentiles=percentiles)


class SceneRaster(OpenOnGrid):
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
        stretch: StretchRule | Stretch = "auto",
        percentiles: tuple[float, float] = PERCENTILES,
    ) -> None:
        if not isinstance(stretch, Stretch) and stretch not in ("auto", "percentile", "none"):
            raise InputError(f"There is no stretch {stretch!r}; choose one of auto, none, percentile.")
        self.name = os.fspath(path)
        self._stretch_rule = stretch
        self._percentiles = percentiles

        def choose(file: Any, name: str) -> tuple[int, ...]:
            numbers, self.band_rule = _choose_bands(file, name, bands)
            return numbers

        self._source = BandReader(path, choose)
        self.bands = self._source.bands

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    @property
    def grid(self) -> Grid:
        """Size and place of the scene, control points included."""
        return self._source.grid

    @property
    def crs(self) -> rasterio.CRS | None:
        """The coordinate reference system, or None where the file has none."""
        return self.grid.crs

    @property
    def transform(self) -> rasterio.Affine:
        """From (column, row) of a pixel's upper left corner to map coordinates; may be rotated."""
        return self.grid.transform

    @property
    def pixel_size(self) -> tuple[float, float]:
        """Lengths of a pixel's sides along a row and along a column, in units of the CRS; right if rotated, too."""
        t = self.transform
        return math.hypot(t.a, t.d), math.hypot(t.b, t.e)

    @cached_property
    def profile(self) -> dict[str, Any]:
        """What there is to know about the scene, as plain values; finds the stretch if it was not known yet."""
        facts = self._source.profile
        return {
            **{key: value for key, value in facts.items() if key != "resampling"},
            "pixel_size": self.pixel_size,
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
        if isinstance(self._stretch_rule, Stretch):
            return self._stretch_rule
        is_display = self._source.dtype == np.uint8
        if self._stretch_rule == "none" or (self._stretch_rule == "auto" and is_display):
            return AS_THEY_ARE if is_display else Stretch(AS_THEY_ARE.low, AS_THEY_ARE.high, "0-255, clipped")
        sample = self._source.sample
        return percentile_stretch(sample.values, sample.valid, self._percentiles, self._source.sample_rule)

    def read_rgb(self, window: Window | None = None) -> NDArray[np.uint8]:
        """The display values (H, W, 3) of a window, or of the whole scene; 0 where there is no data.

        Raises:
            RasterError: the window can't be read, or the scene has no valid pixel.
        """
        return self.read(window)[0]

    def valid(self, window: Window | None = None) -> NDArray[np.bool_]:
        """Where a window, or the whole scene, holds data, (H, W).

        Raises:
            RasterError: the window can't be read.
        """
        return self._source.valid(window)

    def read(self, window: Window | None = None) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """:meth:`read_rgb` and :meth:`valid` from a single pass over the file."""
        return self._display(self._source.read(window))

    def preview(self, longest_side: int = SAMPLE_SIDE) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The whole scene at reduced size: display values (h, w, 3) and where they hold data (h, w)."""
        return self._display(self._source.read(None, self.preview_shape(longest_side)))

    def preview_shape(self, longest_side: int) -> tuple[int, int]:
        """The (h, w) that :meth:`preview` gives: the scene's own size, or smaller."""
        return self._source.decimated_shape(longest_side)

    def require_data(self) -> None:
        """Raise RasterError if no pixel of the scene is valid."""
        self._source.require_data()

    def _display(self, bands: Bands) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        if self.stretch == AS_THEY_ARE:
            rgb = np.moveaxis(bands.values, 0, -1).astype(np.uint8)
        else:
            rgb = self.stretch(bands.values)
        rgb[~bands.valid] = 0
        return rgb, bands.valid


def _choose_bands(source: Any, name: str, bands: str | Sequence[int | str] | None) -> tuple[tuple[int, ...], str]:
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


def _named_bands(source: Any, name: str, bands: str | Sequence[int | str]) -> tuple[int, ...]:
    """The three band numbers for what the user wrote."""
    wanted = bands.split(",") if isinstance(bands, str) else list(bands)
    if len(wanted) != 3:
        raise InputError(f"{len(wanted)} bands were chosen, and three are needed: red, green, blue, such as 4,3,2.")
    return band_numbers(source, name, wanted)
