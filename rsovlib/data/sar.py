r"""Radar backscatter: decibels and linear power, and filters against speckle.

Speckle multiplies: the measured intensity is z = x v, where x is the backscatter of the ground and v has mean 1 and
variance sigma_v^2 = 1 / L for L looks.  So filters work on linear intensity, and decibels are converted for them.

NaN is no data here.  It stays NaN, and is never part of a window's statistics; nor is what lies beyond the border.
No maintained light library filters speckle with regard to missing data, hence these few lines of NumPy.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from rsovlib.errors import InputError, unknown_name

Unit = Literal["db", "linear", "amplitude"]
"""Of radar values: 10 log10 of intensity; intensity (sigma nought, gamma nought, power); its square root (digital
numbers of detected products)."""

Filter = Literal["boxcar", "lee", "refined_lee"]

IW_LOOKS = 4.4
"""Looks that are usually given for Sentinel-1 IW GRD at 10 m.  Terrain correction and resampling raise them: measure
:func:`equivalent_looks` on a field or on calm water where it matters."""

MARGIN = 3
"""Pixels around a window that the filters of default size look at."""

_Values: TypeAlias = NDArray[np.floating[Any]]


def to_db(intensity: NDArray[Any]) -> _Values:
    """Linear intensity to decibels, 10 log10; NaN where it is 0 or negative, which no backscatter is."""
    positive = intensity > 0
    return 10 * np.log10(intensity, where=positive, out=np.full(intensity.shape, np.nan, _float_type(intensity)))


def from_db(decibels: NDArray[Any]) -> _Values:
    """Decibels to linear intensity, 10^(dB / 10)."""
    return np.power(10, decibels.astype(_float_type(decibels), copy=False) / 10)


def intensity(values: NDArray[Any], unit: Unit) -> _Values:
    """Radar values of any unit as linear intensity.

    Raises:
        InputError: the unit is unknown.
    """
    _check_unit(unit)
    if unit == "db":
        return from_db(values)
    wide = values.astype(_float_type(values), copy=False)
    return wide if unit == "linear" else wide**2


def from_intensity(values: _Values, unit: Unit) -> _Values:
    """Linear intensity as radar values of any unit; the inverse of :func:`intensity`.

    Raises:
        InputError: the unit is unknown.
    """
    _check_unit(unit)
    if unit == "db":
        return to_db(values)
    return values if unit == "linear" else np.sqrt(np.maximum(values, 0))


def equivalent_looks(values: NDArray[Any]) -> float:
    """The equivalent number of looks of a homogeneous area: mean^2 / variance of its linear intensity; NaN is left out.

    Raises:
        InputError: there are fewer than two values.
    """
    found = values[np.isfinite(values)].astype(np.float64)
    if found.size < 2:
        raise InputError("The number of looks needs at least two values of a homogeneous area.")
    variance = found.var()
    return float(found.mean() ** 2 / variance) if variance else float("inf")


def despeckle(values: NDArray[Any], method: Filter, unit: Unit, looks: float = IW_LOOKS) -> _Values:
    """Filter radar values band by band, in any unit.

    Args:
        values: (H, W) or (C, H, W), NaN where there is no data.
        method: ``"boxcar"``, ``"lee"`` or ``"refined_lee"``.
        unit: of the values, and of what is returned.
        looks: equivalent number of looks L of the product.

    Returns:
        The same shape.

    Raises:
        InputError: the method or unit is unknown, or an argument is not as it should be.
    """
    if method not in get_args(Filter):
        raise unknown_name("speckle filter", method, get_args(Filter))
    linear = intensity(values, unit)
    bands = linear.reshape(-1, *linear.shape[-2:])
    if method == "boxcar":
        filtered = [boxcar(band) for band in bands]
    elif method == "lee":
        filtered = [lee(band, looks) for band in bands]
    else:
        filtered = [refined_lee(band, looks) for band in bands]
    return from_intensity(np.stack(filtered).reshape(linear.shape), unit)


def boxcar(intensity: NDArray[Any], size: int = 7) -> _Values:
    """The mean over a window: the strongest filter where the ground is homogeneous, and the one that blurs edges most.

    Args:
        intensity: (H, W) linear, NaN where there is no data.
        size: side of the window in pixels, odd.

    Raises:
        InputError: the size is not odd, or the shape not (H, W).
    """
    window = _Window.square(intensity, size)
    return _finished(window.mean, intensity)


def lee(intensity: NDArray[Any], looks: float = IW_LOOKS, size: int = 7) -> _Values:
    r"""Lee's filter: the linear estimate of least squared error, from the mean and variance of a window.

        x^ = z_mean + k (z - z_mean),   k = Var(x) / Var(z),
        Var(x) = max(0, (Var(z) - z_mean^2 sigma_v^2) / (1 + sigma_v^2)),   sigma_v^2 = 1 / L

    Args:
        intensity: (H, W) linear, NaN where there is no data.
        looks: equivalent number of looks L.
        size: side of the window in pixels, odd.

    Returns:
        (H, W), NaN where the input is.

    Raises:
        InputError: the size is not odd, the looks are not positive, or the shape is not (H, W).

    Source:
        J.-S. Lee, Digital image enhancement and noise filtering by use of local statistics, IEEE Trans. Pattern
        Analysis and Machine Intelligence 2(2), 165-168, 1980, multiplicative case. doi:10.1109/TPAMI.1980.4766994
    """
    _check_looks(looks)
    window = _Window.square(intensity, size)
    return _finished(_least_squares(np.nan_to_num(intensity, nan=0.0), window, looks), intensity)


def refined_lee(intensity: NDArray[Any], looks: float = IW_LOOKS) -> _Values:
    """Lee's refined filter: near an edge, the statistics of the half of the window on the pixel's own side of it.

    In 7 x 7 pixels: where the variance is no more than speckle makes, the mean.  Elsewhere, the means of nine 3 x 3
    parts give the direction of the strongest gradient, of four; of the two halves of the window (28 pixels, those on
    the edge included), the one whose part is nearer to the centre's mean is taken; and its mean and variance make
    Lee's estimate, see :func:`lee`.

    Args:
        intensity: (H, W) linear, NaN where there is no data.
        looks: equivalent number of looks L.

    Returns:
        (H, W), NaN where the input is.

    Raises:
        InputError: the looks are not positive, or the shape is not (H, W).

    Source:
        J.-S. Lee, Refined filtering of image noise using local statistics, Computer Graphics and Image Processing
        15(4), 380-389, 1981. doi:10.1016/S0146-664X(81)80018-4
    """
    _check_looks(looks)
    window = _Window.square(intensity, 7)
    has_edge = window.variance > window.mean**2 / looks
    half = _half_windows(intensity, window.mean)
    edged = _Window.halves(intensity, half, has_edge)
    estimate = window.mean.copy()
    estimate[has_edge] = _least_squares(intensity[has_edge].astype(np.float64), edged, looks)
    return _finished(estimate, intensity)


_HALVES = (
    # The part of the 3 x 3 parts that a half of the window is named by, and which offsets (dy, dx) belong to it.
    ((1, 0), lambda dy, dx: dx <= 0),
    ((1, 2), lambda dy, dx: dx >= 0),
    ((0, 1), lambda dy, dx: dy <= 0),
    ((2, 1), lambda dy, dx: dy >= 0),
    ((0, 0), lambda dy, dx: dx + dy <= 0),
    ((2, 2), lambda dy, dx: dx + dy >= 0),
    ((0, 2), lambda dy, dx: dx - dy >= 0),
    ((2, 0), lambda dy, dx: dx - dy <= 0),
)
"""Halves of a 7 x 7 window, in pairs that lie opposite each other."""


class _Window:
    """Mean and variance of the valid pixels of a window around each pixel."""

    def __init__(self, count: _Values, total: _Values, squares: _Values) -> None:
        count = np.maximum(count, 1)  # a pixel without valid neighbours is not valid itself, and is dropped later
        self.mean = total / count
        self.variance = np.maximum(squares / count - self.mean**2, 0)

    @classmethod
    def square(cls, intensity: NDArray[Any], size: int) -> _Window:
        if intensity.ndim != 2:
            raise InputError(f"Speckle filters take one band (H, W) at a time, and this is {intensity.shape}.")
        if size < 1 or size % 2 == 0:
            raise InputError(f"The window of a speckle filter is an odd number of pixels, and {size} is not.")
        values, weights = _padded(intensity, size // 2)
        return cls(*(_box_sum(part, size) for part in (weights, values, values**2)))

    @classmethod
    def halves(cls, intensity: NDArray[Any], half: NDArray[np.int8], where: NDArray[np.bool_]) -> _Window:
        """Of the half of a 7 x 7 window that is chosen for each pixel of ``where``: values in their order."""
        values, weights = _padded(intensity, MARGIN)
        row_length = values.shape[1]
        rows, columns = np.nonzero(where)
        centres = (rows + MARGIN) * row_length + columns + MARGIN
        sums = np.zeros((3, len(centres)))
        for index, (_, belongs) in enumerate(_HALVES):
            chosen = np.flatnonzero(half[where] == index)
            centre = centres[chosen]
            count, total, squares = np.zeros((3, len(chosen)))
            for dy, dx in _offsets(MARGIN):
                if belongs(dy, dx):
                    there = centre + (dy * row_length + dx)
                    value = values.take(there)
                    count += weights.take(there)
                    total += value
                    squares += value**2
            sums[:, chosen] = count, total, squares
        return cls(*sums)


def _half_windows(intensity: NDArray[Any], mean: _Values) -> NDArray[np.int8]:
    """For each pixel the index into _HALVES of the half of its window that lies on its side of the edge."""
    height, width = intensity.shape
    values, weights = _padded(intensity, MARGIN)
    count = _box_sum(weights, 3)
    means = np.divide(_box_sum(values, 3), count, out=np.full(count.shape, np.nan), where=count > 0)
    # Centres of the nine parts are 2 pixels apart.  A part without data is no reason to see an edge.
    parts = np.empty((3, 3, height, width))
    for row in range(3):
        for column in range(3):
            part = means[2 * row : 2 * row + height, 2 * column : 2 * column + width]
            parts[row, column] = np.where(np.isnan(part), mean, part)
    gradients = np.abs(
        [
            parts[:, 2].sum(axis=0) - parts[:, 0].sum(axis=0),
            parts[2].sum(axis=0) - parts[0].sum(axis=0),
            parts[2, 2] + parts[1, 2] + parts[2, 1] - parts[0, 0] - parts[0, 1] - parts[1, 0],
            parts[0, 2] + parts[0, 1] + parts[1, 2] - parts[2, 0] - parts[1, 0] - parts[2, 1],
        ]
    )
    direction = gradients.argmax(axis=0)
    half = np.zeros((height, width), dtype=np.int8)
    for index in range(4):
        first, second = (np.abs(parts[part] - parts[1, 1]) for part, _ in _HALVES[2 * index : 2 * index + 2])
        half = np.where(direction == index, 2 * index + (second < first), half).astype(np.int8)
    return half


def _least_squares(values: _Values, window: _Window, looks: float) -> _Values:
    """Lee's estimate from the statistics of windows."""
    noise = 1 / looks
    signal = np.maximum((window.variance - window.mean**2 * noise) / (1 + noise), 0)
    k = np.divide(signal, window.variance, out=np.zeros_like(signal), where=window.variance > 0)
    return window.mean + k * (values - window.mean)


def _padded(intensity: NDArray[Any], margin: int) -> tuple[_Values, _Values]:
    """Values, 0 where there are none, and weights, 1 where there are some; with a margin that has none."""
    valid = np.isfinite(intensity)
    values = np.where(valid, intensity, 0).astype(np.float64)
    return np.pad(values, margin), np.pad(valid.astype(np.float64), margin)


def _box_sum(padded: _Values, size: int) -> _Values:
    """Sums over size x size windows that lie within the array.

    Not a running sum: after a ship of 1e6, its rounding would be the variance of the calm water beside it.
    """
    height, width = (side - size + 1 for side in padded.shape)
    rows = sum((padded[dy : dy + height] for dy in range(1, size)), padded[:height].copy())
    return sum((rows[:, dx : dx + width] for dx in range(1, size)), rows[:, :width].copy())


def _offsets(radius: int) -> list[tuple[int, int]]:
    around = range(-radius, radius + 1)
    return [(dy, dx) for dy in around for dx in around]


def _finished(estimate: _Values, intensity: NDArray[Any]) -> _Values:
    return np.where(np.isfinite(intensity), estimate, np.nan).astype(_float_type(intensity), copy=False)


def _float_type(values: NDArray[Any]) -> np.dtype[Any]:
    return values.dtype if values.dtype.kind == "f" else np.dtype(np.float32)


def _check_unit(unit: str) -> None:
    if unit not in get_args(Unit):
        raise unknown_name("unit of radar values", unit, get_args(Unit))


def _check_looks(looks: float) -> None:
    if not looks > 0:
        raise InputError(f"The number of looks is {looks}, and must be positive.")
