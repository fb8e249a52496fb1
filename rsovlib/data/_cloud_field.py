"""The shape of simulated clouds: where they are, how opaque, what they shade, and how their tops are lit.

One random field z decides the shape.  It is the same for every cover and kind of one seed: raising the cover lets the
same clouds grow, and changing the kind changes only how opaque they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsovlib.data._noise import Field, smooth_noise

CLOUD_OPACITY = 0.1
"""A pixel counts as cloud when its opacity is above this."""

# Each octave of z is half as wide as the one before, and this much as strong.  The brightness of stratocumulus has a
# spectrum of k^(-5/3) above 200 m and k^(-3) below (Cahalan & Snider 1989, Remote Sensing of Environment 28, 95, from
# Landsat); with half-wide octaves these are gains of 0.79 and 0.5, and images here reach from metres to kilometres.
_GAIN = 0.62
_FINEST = 0.8  # pixels
_OPAQUE = 0.9995  # no cloud lets nothing through; keeps log(1 - opacity) finite

_IN_SHADE = 0.8  # brightness of a cloud's side turned away from the sun

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class CloudKind:
    """How opaque clouds of one kind are.

    Attributes:
        peak: opacity that the thickest parts tend to; drawn from this range for each image.
        softness: thickness over which the opacity rises, in multiples of the mean thickness; small is hard-edged.
    """

    peak: tuple[float, float]
    softness: float


@dataclass(frozen=True)
class CloudLayers:
    """Clouds before they meet the image: all (H, W) float32, NumPy as they are drawn and the image's kind when mixed.

    Attributes:
        opacity: share of the ground's light at 550 nm that the cloud keeps back, 0..1.
        shade: opacity of the cloud between each ground pixel and the sun, 0..1.
        light: brightness of the cloud's top relative to a fully lit one, 0..1.
        haze: opacity of the haze at 550 nm, 0..1; zero unless asked for.
    """

    opacity: Any
    shade: Any
    light: Any
    haze: Any


def cloud_layers(
    rng: np.random.Generator,
    shape: tuple[int, int],
    cover: float,
    kinds: tuple[CloudKind, ...],
    *,
    scale: float,
    haze: float,
    shadow_shift: tuple[int, int],
    valid: Mask | None = None,
) -> CloudLayers:
    """Draws the clouds of one image.

    Args:
        rng: source of randomness; the same one gives the same clouds and haze for every cover, kind and strength.
        shape: (H, W).
        cover: share of the valid pixels with an opacity above :data:`CLOUD_OPACITY`, 0..1.
        kinds: one kind, or a thin and a thick one that share the sky.
        scale: standard deviation of the coarsest structures, pixels.
        haze: mean opacity of the haze.
        shadow_shift: where the shadow falls, (rows down, columns right) of its cloud.
        valid: (H, W), where the image has data; everywhere if None.

    Returns:
        The layers.
    """
    clouds, mixture, mist = rng.spawn(3)
    strengths = clouds.random(2)
    z = _octaves(clouds, shape, scale)
    peaks = [
        low + (high - low) * float(draw) for (low, high), draw in zip((k.peak for k in kinds), strengths, strict=False)
    ]
    thickness = _thickness(z, cover, valid)
    if thickness is None:
        opacity = np.zeros(shape, np.float32)
    else:
        opacity = _opacity(thickness, peaks[0], kinds[0].softness)
        if len(kinds) > 1:
            # Thin in one part of the sky and thick in another, with all stages between.
            share = _smoothstep(0.5 + 0.6 * smooth_noise(mixture, shape, 1.5 * scale))
            opacity += share * (_opacity(thickness, peaks[1], kinds[1].softness) - opacity)
    shade = _shifted(opacity, shadow_shift)
    if valid is not None:
        opacity *= valid
    return CloudLayers(
        opacity=opacity, shade=shade, light=_relief(z, shadow_shift, scale), haze=_haze(mist, shape, haze, scale)
    )


def _octaves(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> Field:
    """A fractal field of mean 0; lattice noise summed over octaves, as Perlin (1985, doi 10.1145/325334.325247)."""
    count = max(1, 1 + round(math.log2(max(scale / _FINEST, 1.0))))
    z = smooth_noise(rng, shape, scale)
    for octave in range(1, count):
        z += np.float32(_GAIN**octave) * smooth_noise(rng, shape, scale / 2**octave)
    return z


def _thickness(z: Field, cover: float, valid: Mask | None) -> Field | None:
    """z above the cloud's edge in multiples of its mean there, negative outside; None where there is no cloud."""
    counted = z.ravel() if valid is None else z[valid]
    clouded = round(cover * counted.size)
    if not clouded:
        return None
    if clouded == counted.size:
        edge = counted.min() - np.float32(1e-3)
    else:
        # Exactly `clouded` values lie above: the cover is met to the pixel, whatever the distribution.
        edge = np.partition(counted, counted.size - clouded - 1)[counted.size - clouded - 1]
    excess = z - edge
    excess /= max(float(np.maximum(excess if valid is None else excess[valid], 0).sum()) / clouded, 1e-6)
    return excess


def _opacity(thickness: Field, peak: float, softness: float) -> Field:
    """Opacity from thickness: CLOUD_OPACITY at the edge, towards ``peak`` inside, a smooth fringe to 0 outside."""
    rise = peak - CLOUD_OPACITY
    inside = peak - rise * np.exp(np.maximum(thickness, 0) * np.float32(-1 / softness))
    # The fringe meets the inside with the same slope: no line is seen around a cloud.
    fringe = np.maximum(1 + np.minimum(thickness, 0) * np.float32(rise / (2 * CLOUD_OPACITY * softness)), 0)
    # Rounding must not decide on which side of the edge a pixel lies, and clear sky is exactly 0.
    above, below = (np.nextafter(np.float32(CLOUD_OPACITY), np.float32(to)) for to in (1, 0))
    edged = np.where(thickness > 0, np.maximum(inside, above), below * fringe * fringe)
    return np.minimum(edged, np.float32(_OPAQUE))


def _relief(z: Field, shadow_shift: tuple[int, int], scale: float) -> Field:
    """Cloud tops that rise towards the sun are in the light, those behind them aren't."""
    length = math.hypot(*shadow_shift)
    if not length:
        return np.ones_like(z)
    # Shading at the size of the cloud's towers, not of every pixel.
    reach = max(1.0, scale / 8) / length
    sunward = _shifted(z, (round(reach * shadow_shift[0]), round(reach * shadow_shift[1])))
    return _IN_SHADE + (1 - _IN_SHADE) * _smoothstep(0.7 + 0.6 * (z - sunward))


def _haze(rng: np.random.Generator, shape: tuple[int, int], haze: float, scale: float) -> Field:
    if not haze:
        return np.zeros(shape, np.float32)
    # Haze is broader than clouds.
    return np.clip(haze * (1 + 0.25 * smooth_noise(rng, shape, 3 * scale)), 0, _OPAQUE, dtype=np.float32)


def _shifted(field: Field, shift: tuple[int, int]) -> Field:
    """``field`` moved by whole pixels; what comes in from outside is its mirror image at the border."""
    rows, columns = (_mirrored(length, -by) for length, by in zip(field.shape, shift, strict=True))
    return field[rows[:, None], columns]


def _mirrored(length: int, by: int) -> NDArray[np.intp]:
    index = (np.arange(length) + by) % (2 * length)
    return np.minimum(index, 2 * length - 1 - index)


def _smoothstep(values: Field) -> Field:
    t = np.clip(values, 0, 1, dtype=np.float32)
    return t * t * (3 - 2 * t)
