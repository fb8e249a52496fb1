"""The third dimension of a simulated scene: fractal terrain, level water, and what stands on the ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from rsovlib.data._noise import Field, smooth_noise, spline_noise
from rsovlib.data._scene_plan import Mask, Plan
from rsovlib.data.lexicon import CAR, FOREST, ORCHARD, WATER

HURST = 0.5
"""How roughness grows with distance: height differences over a distance d are about d ** HURST, as in fractional
Brownian motion (B. B. Mandelbrot and J. W. Van Ness, SIAM Review 10, 1968, doi:10.1137/1010093).  Profiles of real
land have a fractal dimension 2 - HURST of 1.49 (J. Huang and D. L. Turcotte, Fractal image analysis: application to the
topography of Oregon and synthetic images, Journal of the Optical Society of America A 7, 1990)."""

_FINEST = 8.0  # metres; below this the ground is ploughed, mown or paved level
_SPLINE_STD = 151 / 315  # standard deviation of spline_noise
_BANK = 30.0  # metres within which the land comes down to the water
_COARSE = 4  # pixels; distances to water need no finer grid


@dataclass(frozen=True)
class Relief:
    """Heights in metres.

    Attributes:
        terrain: (H, W) bare ground and water.
        above: (H, W) what stands on it: roofs, crowns, vehicles.
    """

    terrain: Field
    above: Field

    @property
    def surface(self) -> Field:
        """(H, W) elevation of the visible surface."""
        return self.terrain + self.above


def make_relief(rng: np.random.Generator, plan: Plan, roughness: float) -> Relief:
    """Heights of a scene.

    Args:
        rng: source of randomness.
        plan: the scene.
        roughness: usual height difference over 100 m, metres.

    Returns:
        Terrain and what stands on it.
    """
    water = plan.labels == WATER
    terrain = fractal_terrain(rng, plan.shape, plan.gsd, roughness * rng.uniform(0.5, 1.5))
    terrain = _lay_level(terrain, water, plan.gsd) if water.any() else terrain
    single, stands = (smooth_noise(rng, plan.shape, max(0.6, sigma / plan.gsd)) for sigma in (2.4, 15))
    crowns = np.clip(9 + 1.2 * single + 1.2 * stands, 3, None)
    above = plan.height + np.where(plan.labels == FOREST, crowns, np.float32(0))
    above[(plan.labels == ORCHARD) & (plan.relief < 0)] = 3
    above[plan.labels == CAR] = 1.5
    return Relief(terrain, above.astype(np.float32))


def fractal_terrain(rng: np.random.Generator, shape: tuple[int, int], gsd: float, roughness: float) -> Field:
    """Heights whose differences grow with the distance to the power of :data:`HURST`, whatever the pixel's size.

    Args:
        rng: source of randomness.
        shape: (H, W).
        gsd: metres a pixel.
        roughness: usual height difference (standard deviation) over 100 m, metres.

    Returns:
        (H, W) metres.
    """
    extent = max(shape) * gsd
    terrain = np.zeros(shape, np.float32)
    spacing = max(_FINEST, 2 * gsd)
    while True:
        # Over 100 m the sum of all octaves differs by about twice what one octave of 100 m spacing has.
        gain = roughness * (spacing / 100) ** HURST / (2 * _SPLINE_STD)
        terrain += np.float32(gain) * spline_noise(rng, shape, spacing / gsd)
        if spacing > 2 * extent:
            return terrain
        spacing *= 2


def _lay_level(terrain: Field, water: Mask, gsd: float) -> Field:
    """Terrain with its water level and the land falling towards it."""
    level = np.float32(np.percentile(terrain[::3, ::3], 5))
    height, width = water.shape
    padded = np.zeros((-(-height // _COARSE) * _COARSE, -(-width // _COARSE) * _COARSE), bool)
    padded[:height, :width] = water
    blocks = padded.reshape(padded.shape[0] // _COARSE, _COARSE, -1, _COARSE).any(axis=(1, 3))
    metres = ndimage.distance_transform_edt(~blocks) * (_COARSE * gsd)
    rise = ndimage.zoom(1 - np.exp(-metres / _BANK), _COARSE, order=1, mode="nearest", grid_mode=True)[:height, :width]
    banks = level + np.float32(0.3) + np.maximum(terrain - level, 0) * rise
    return np.where(water, level, banks).astype(np.float32)
