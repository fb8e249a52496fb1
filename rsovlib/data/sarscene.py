"""Radar rasters as pictures of one agreed brightness, window by window, and as decibels.

Which picture: with two polarisations (VV and VH, or HH and HV) red is the co-polarised band, green the cross-polarised
one and blue their ratio in decibels; with four, HH, HV and VV; with one, grey.  All are stretched in decibels, by
percentiles of the whole scene.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from rsovlib.data import sar
from rsovlib.data.grid import Grid, OpenOnGrid
from rsovlib.data.source import SAMPLE_SIDE, BandChoice, BandReader, band_numbers
from rsovlib.data.stretch import AS_THEY_ARE, PERCENTILES, Stretch, percentile_stretch
from rsovlib.errors import InputError, RasterError, unknown_name

UnitRule = Literal["auto", "db", "linear", "amplitude", "display"]

_POLARISATION = re.compile(r"(?:^|[^A-Z])(VV|VH|HH|HV)(?:[^A-Z]|$)", re.I)


def open_sar(
    path: str | os.PathLike[str],
    bands: str | Sequence[int | str] | None = None,
    *,
    unit: UnitRule = "auto",
    despeckle: sar.Filter | None = None,
    looks: float = sar.IW_LOOKS,
    percentiles: tuple[float, float] = PERCENTILES,
) -> SarScene:
    """Open a radar raster.

    Args:
        path: any file that GDAL reads, with real values.
        bands: one to four polarisations by number or description, co-polarised first. By default those whose
            descriptions name one, in the order VV, VH or HH, HV (all four: HH, HV, VV, VH); else the first bands.
        unit: of the values; ``"display"`` are 8-bit pictures that are shown as they are. ``"auto"``: display for
            8-bit values, amplitude for other unsigned whole numbers, and for other numbers decibels where more
            than 1 in 100 of the scene's values is negative, linear intensity where not.
        despeckle: a filter of :mod:`rsovlib.data.sar` to apply to all that is read, except to the sample that the
            stretch is found on.
        looks: equivalent number of looks, for the filter.
        percentiles: of the whole scene's valid pixels in decibels, per channel; they become 0 and 255.

    Returns:
        The open scene; close it, or use it in a ``with`` statement.

    Raises:
        RasterError: the file is missing, no raster, cut short, complex, or holds no data.
        InputError: a band is not there, more than four were chosen, or an option is unknown or does not fit.
    """
    return SarScene(
        BandReader(path, polarisations(bands)), unit=unit, despeckle=despeckle, looks=looks, percentiles=percentiles
    )


class SarScene(OpenOnGrid):
    """An open radar raster. Made by :func:`open_sar`, or by :func:`rsovlib.data.pair.open_pair` on another grid.

    Attributes:
        name: the file as the user gave it, for messages.
        bands: the band numbers (from 1) that are read.
        despeckle: name of the filter, or None.
        looks: equivalent number of looks that the filter was told.

    Args:
        source: the file, on the grid that it is to be read on.
        unit, despeckle, looks, percentiles: see :func:`open_sar`.
        stretch: known already, so that it need not be found again.
    """

    def __init__(
        self,
        source: BandReader,
        *,
        unit: UnitRule = "auto",
        despeckle: sar.Filter | None = None,
        looks: float = sar.IW_LOOKS,
        percentiles: tuple[float, float] = PERCENTILES,
        stretch: Stretch | None = None,
    ) -> None:
        self._source = source
        self._known_stretch = stretch
        self.name = source.name
        self.bands = source.bands
        self.despeckle = despeckle
        self.looks = looks
        self._percentiles = percentiles
        try:
            if unit not in get_args(UnitRule):
                raise unknown_name("unit of radar values", unit, get_args(UnitRule))
            if despeckle is not None and despeckle not in get_args(sar.Filter):
                raise unknown_name("speckle filter", despeckle, get_args(sar.Filter))
            if not looks > 0:
                raise InputError(f"The number of looks is {looks}, and must be positive.")
            if len(self.bands) > 4:
                raise InputError(f"{len(self.bands)} bands of {self.name} were chosen, and a radar has four at most.")
            self.unit = self._found_unit() if unit == "auto" else unit
            if despeckle is not None and self.unit == "display":
                raise InputError(
                    f"{self.name} holds display values, whose speckle follows no known law; say what they are, for "
                    'example unit="amplitude", or filter the original product.'
                )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    @property
    def grid(self) -> Grid:
        """Size and place of what is read."""
        return self._source.grid

    @property
    def channels(self) -> tuple[str, str, str]:
        """What is shown as red, green and blue."""
        names = self._source.names
        if len(names) == 1:
            return names[0], names[0], names[0]
        if len(names) == 2:
            return names[0], names[1], names[0] if self.unit == "display" else f"{names[0]} / {names[1]}"
        return names[0], names[1], names[2]

    def read_db(self, window: Window | None = None) -> NDArray[np.float32]:
        """Backscatter (P, H, W) in decibels, filtered if a filter was chosen; NaN where there is no data.

        Raises:
            RasterError: the window can't be read.
            InputError: the scene holds display values, or the window lies outside of it.
        """
        if self.unit == "display":
            raise InputError(f"{self.name} holds display values and no backscatter; take read_rgb.")
        if self.despeckle is None:
            return self._decibels(self._source.read(window).filled())
        # The filter looks beyond the window, so that its result does not depend on where windows begin and end.
        around, inner = self._with_margin(window)
        decibels = self._decibels(self._source.read(around).filled())
        return sar.despeckle(decibels, self.despeckle, "db", self.looks)[:, inner[0], inner[1]]

    def read(self, window: Window | None = None) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Display values (H, W, 3), 0 where there is no data, and where there is (H, W).

        Raises:
            RasterError: the window can't be read, or the scene has no valid pixel.
        """
        if self.unit == "display":
            found = self._source.read(window)
            return self._display(found.values, found.valid)
        decibels = self.read_db(window)
        return self._display(decibels, _everywhere(decibels))

    def read_rgb(self, window: Window | None = None) -> NDArray[np.uint8]:
        """The display values of :meth:`read`."""
        return self.read(window)[0]

    def valid(self, window: Window | None = None) -> NDArray[np.bool_]:
        """Where there is data, (H, W)."""
        if self.unit == "linear" or self.unit == "amplitude":  # 0 has no decibels
            found = self._source.read(window)
            return found.valid & (found.values > 0).all(axis=0)
        return self._source.valid(window)

    def preview(self, longest_side: int = SAMPLE_SIDE) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The whole scene at reduced size and not filtered: display values (h, w, 3) and where they are data."""
        found = self._source.read(None, self._source.decimated_shape(longest_side))
        if self.unit == "display":
            return self._display(found.values, found.valid)
        decibels = self._decibels(found.filled())
        return self._display(decibels, _everywhere(decibels))

    def require_data(self) -> None:
        """Raise RasterError if no pixel of the scene is valid."""
        self._source.require_data()

    @cached_property
    def stretch(self) -> Stretch:
        """How decibels of the three channels become display values, the same for every window of the scene."""
        if self._known_stretch is not None:
            return self._known_stretch
        if self.unit == "display":
            return AS_THEY_ARE
        sample = self._source.sample
        channels = _composite(self._decibels(sample.filled()))
        valid = _everywhere(channels)
        if not valid.any():
            raise RasterError(f"{self.name} holds no positive backscatter; is unit={self.unit!r} right?")
        rule = f"in decibels, {self._source.sample_rule}"
        return percentile_stretch(channels, valid, self._percentiles, rule)

    def settings(self) -> dict[str, Any]:
        """What the pictures depend on, as plain values."""
        return {
            "bands": list(self.bands),
            "channels": list(self.channels),
            "unit": self.unit,
            "despeckle": self.despeckle,
            "looks": self.looks if self.despeckle in ("lee", "refined_lee") else None,
            "stretch": self.stretch.rule,
            "stretch_low": list(self.stretch.low),
            "stretch_high": list(self.stretch.high),
        }

    def _found_unit(self) -> UnitRule:
        sample = self._source.sample
        kind = self._source.file_dtype
        if kind == np.uint8:
            return "display"
        if kind.kind == "u":
            return "amplitude"
        return "db" if (sample.values[:, sample.valid] < 0).mean() > 0.01 else "linear"

    def _decibels(self, values: NDArray[Any]) -> NDArray[np.float32]:
        if self.unit == "db":
            return values.astype(np.float32, copy=False)
        return sar.to_db(sar.intensity(values, "linear" if self.unit == "linear" else "amplitude")).astype(np.float32)

    def _display(self, values: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        if self.unit == "display":
            three = values[[0, 1, 0]] if len(values) == 2 else values[[0, 0, 0]] if len(values) == 1 else values[:3]
            rgb = np.nan_to_num(np.moveaxis(three, 0, -1), nan=0).astype(np.uint8)
        else:
            rgb = self.stretch(_composite(values))
        rgb[~valid] = 0
        return rgb, valid

    def _with_margin(self, window: Window | None) -> tuple[Window, tuple[slice, slice]]:
        """A window with the margin that filters need, as far as the scene goes, and where the window lies in it."""
        if window is None:
            window = Window(0, 0, self.width, self.height)
        top, left = max(0, window.row_off - sar.MARGIN), max(0, window.col_off - sar.MARGIN)
        bottom = min(self.height, window.row_off + window.height + sar.MARGIN)
        right = min(self.width, window.col_off + window.width + sar.MARGIN)
        row, column = int(window.row_off - top), int(window.col_off - left)
        inner = slice(row, row + int(window.height)), slice(column, column + int(window.width))
        return Window(left, top, right - left, bottom - top), inner


def _everywhere(values: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Where all bands (C, ...) are numbers."""
    found: NDArray[np.bool_] = np.isfinite(values).all(axis=0)
    return found


def _composite(decibels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The three channels (3, H, W) in decibels of one to four polarisations; a ratio is a difference of decibels."""
    if len(decibels) == 1:
        return np.repeat(decibels, 3, axis=0)
    if len(decibels) == 2:
        return np.stack([decibels[0], decibels[1], decibels[0] - decibels[1]])
    return decibels[:3]


def polarisations(bands: str | Sequence[int | str] | None) -> BandChoice:
    """Which bands a BandReader is to take: those asked for, or those whose descriptions name a polarisation."""
    if bands is not None:
        return bands

    def choose(file: Any, name: str) -> tuple[int, ...]:
        numbers = band_numbers(file, name, None)
        named: dict[str, int] = {}
        for number in numbers:
            match = _POLARISATION.search(file.descriptions[number - 1] or "")
            if match:
                named.setdefault(match[1].upper(), number)
        if len(named) == 4:
            return tuple(named[key] for key in ("HH", "HV", "VV", "VH"))
        for pair in (("VV", "VH"), ("HH", "HV")):
            if all(key in named for key in pair):
                return named[pair[0]], named[pair[1]]
        return (min(named.values()),) if named else numbers[:4]

    return choose
