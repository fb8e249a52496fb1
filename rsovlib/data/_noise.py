"""Smooth random fields, the raw material of the simulated scenes.

White noise on a coarse lattice is carried to the pixel grid with uniform cubic B-splines.  The spline is separable, so
a field costs two small matrix products and no filtering of the full grid; a cubic B-spline is within a few per cent of
a Gaussian of standard deviation ``spacing / sqrt(3)``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import cast

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

_SIGMA_OF_UNIT_SPLINE = 3.0**-0.5
_OCTAVE_GAIN = 0.55


@lru_cache(maxsize=64)
def _spline_matrix(length: int, spacing: float) -> Field:
    """Weights that carry lattice values to ``length`` pixels, (length, lattice points)."""
    position = np.arange(length) / spacing
    first = np.floor(position).astype(int)
    t = position - first
    weights = np.stack(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1
    )  # the four pieces of the cubic B-spline, times 6
    matrix = np.zeros((length, int(first[-1]) + 4), np.float32)
    np.put_along_axis(matrix, first[:, None] + np.arange(4), (weights / 6).astype(np.float32), axis=1)
    return matrix


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
    rows, columns = (_spline_matrix(length, spacing) for length in shape)
    lattice = rng.standard_normal((rows.shape[1], columns.shape[1]), dtype=np.float32)
    smooth = cast("Field", rows @ lattice @ columns.T)  # float32 throughout, which NumPy's annotations don't know
    return _standardised(smooth)


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
