"""From sensor values to display values: one stretch for a whole scene, never one per tile.

A tile that is stretched by its own percentiles turns dark water grey and makes the same roof look different on both
sides of a tile border; so the two numbers per band are found once, on valid pixels of the whole scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rsovlib.errors import InputError

PERCENTILES = (2.0, 98.0)
"""Default percentiles of the stretch, the usual choice for optical reflectance."""


@dataclass(frozen=True)
class Stretch:
    """A linear map of each band from [low, high] to [0, 255], clipped.

    Attributes:
        low: value of each band that becomes 0.
        high: value of each band that becomes 255.
        rule: in words, how the two were found.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    rule: str

    def __call__(self, values: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Stretch values (C, H, W) of any real type to uint8 (H, W, C); NaN becomes 0."""
        rgb = np.empty((*values.shape[1:], len(values)), dtype=np.uint8)
        for band, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            # float64, because int32 and large float32 values would lose the difference that is stretched.
            scaled = (values[band].astype(np.float64) - low) * (255.0 / (high - low))
            rgb[..., band] = np.nan_to_num(np.clip(np.rint(scaled), 0, 255), nan=0.0)
        return rgb


AS_THEY_ARE = Stretch((0.0, 0.0, 0.0), (255.0, 255.0, 255.0), "uint8 values as they are")
"""The stretch of images that are in display values already."""


def percentile_stretch(
    values: NDArray[np.generic],
    valid: NDArray[np.bool_],
    percentiles: tuple[float, float] = PERCENTILES,
    sample: str = "",
) -> Stretch:
    """The stretch that a sample of a scene asks for.

    Args:
        values: (C, ...) sensor values.
        valid: (...) True where the sample holds data in all bands; at least one is True.
        percentiles: the two that become 0 and 255, in percent, ascending.
        sample: in words, which pixels of the scene these are; kept in the rule.

    Returns:
        One low and one high per band. Where the two percentiles are equal (a nearly flat band), the band's
        smallest and largest value are taken; a band with a single value v becomes [v, v + 1], that is, black.

    Raises:
        InputError: the percentiles are not ascending within 0 to 100.
    """
    if not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise InputError(f"The percentiles {percentiles} must ascend within 0 and 100, for example (2, 98).")
    lows, highs = [], []
    for band in values:
        found = band[valid].astype(np.float64)
        low, high = (float(value) for value in np.percentile(found, percentiles))
        if low == high:
            low, high = float(found.min()), float(found.max())
        lows.append(low)
        highs.append(high if high > low else low + 1.0)
    rule = f"{percentiles[0]:g}-{percentiles[1]:g} % of the whole scene's valid pixels, band by band"
    return Stretch(tuple(lows), tuple(highs), f"{rule} ({sample})" if sample else rule)
