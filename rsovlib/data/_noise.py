"""Smooth random fields, the raw material of the simulated scenes.

White noise on a coarse lattice is carried to the pixel grid with uniform cubic B-splines.  The spline is separable and
has four taps, so a field costs eight multiplications a pixel and no filtering of the full grid; a cubic B-spline is
within a few per cent of a Gaussian of standard deviation ``spacing / sqrt(3)``.

The taps are added one after the other, and not in a matrix product, whose last bit depends on the processor: a scene
is to be the same on every machine.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

_SIGMA_OF_UNIT_SPLINE = 3.0**-0.5
_OCTAVE_GAIN = 0.55


@lru_cache(maxsize=64)
def _spline_taps(length: int, spacing: float) -> tuple[NDArray[np.int64], Field]:
    """For each pixel the first of the four lattice points that it hangs on, (length,), and their weights, (4, length).

    ``spacing`` is the distance of the lattice points in pixels.
    """
    position = np.arange(length) / spacing
    first = np.floor(position).astype(np.int64)
    t = position - first
    weights = np.stack(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    )  # the four pieces of the cubic B-spline, times 6
    return first, (weights / 6).astype(np.float32)


def spline_noise(rng: np.random.Generator, shape: tuple[int, int], spacing: float) -> Field:
    """White noise of variance 1 on a lattice, carried to the pixels; its variance is (151 / 315) ** 2 on average.

    Args:
        rng: source of randomness.
        shape: (H, W).
        spacing: distance of the lattice points in pixels.

    Returns:
        (H, W) float32.
    """
    (top, rows), (left, columns) = (_spline_taps(length, spacing) for length in shape)
    lattice = rng.standard_normal((int(top[-1]) + 4, int(left[-1]) + 4), dtype=np.float32)
    tall = rows[0, :, None] * lattice[top]
    for tap in (1, 2, 3):
        tall += rows[tap, :, None] * lattice[top + tap]
    field = columns[0] * tall[:, left]
    for tap in (1, 2, 3):
        field += columns[tap] * tall[:, left + tap]
    return field


def _standardised(field: Field) -> Field:
    field -= field.mean()
    field /= field.std() + 1e-6
    return field


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> Field:
    """A random field of mean 0, variance 1 and about Gaussian covariance.

    Args:
        rng: source of randomness.
        shape: (H, W).
        sigma: standard deviation of the smoothing, in pixels; below 0.6 the field is white.

    Returns:
        (H, W) float32.
    """
    # Spacings are rounded so that the cached matrices are used again from scene to scene.
    spacing = round(sigma / _SIGMA_OF_UNIT_SPLINE * 4) / 4
    if spacing < 1:
        return rng.standard_normal(shape, dtype=np.float32)
    return _standardised(spline_noise(rng, shape, spacing))


def fractal_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float, octaves: int = 3) -> Field:
    """A sum of smooth fields, each half as wide and 0.55 times as strong as the one before.

    Args:
        rng: source of randomness.
        shape: (H, W).
        sigma: smoothing of the coarsest octave, in pixels.
        octaves: how many fields are added.

    Returns:
        (H, W) float32 of mean 0 and variance 1.
    """
    total = smooth_noise(rng, shape, sigma)
    for octave in range(1, octaves):
        total += _OCTAVE_GAIN**octave * smooth_noise(rng, shape, max(sigma / 2**octave, 0.6))
    return _standardised(total)
