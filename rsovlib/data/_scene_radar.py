"""The other sensors of a simulated scene: near infrared, elevation, and side-looking radar."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rsovlib.data._noise import Field, fractal_noise, smooth_noise
from rsovlib.data._scene_light import _illumination, _shifted
from rsovlib.data._scene_plan import Plan
from rsovlib.data.lexicon import (
    BARE,
    BUILDING,
    CAR,
    CLASSES,
    FARMLAND,
    FOREST,
    GRASS,
    ORCHARD,
    POOL,
    ROAD,
    WATER,
)

# Mean backscatter (sigma nought, dB) at C band and about 35 degrees, VV and VH, in the order of magnitude of
# F. T. Ulaby and M. C. Dobson, Handbook of Radar Scattering Statistics for Terrain, 1989.
_BACKSCATTER = np.zeros((len(CLASSES), 2), np.float32)
_BACKSCATTER[BUILDING] = -5.0, -13.0
_BACKSCATTER[ROAD] = -16.0, -25.0
_BACKSCATTER[WATER] = -21.0, -28.0
_BACKSCATTER[BARE] = -13.0, -22.0
_BACKSCATTER[FOREST] = -8.0, -14.0
_BACKSCATTER[FARMLAND] = -10.5, -18.0
_BACKSCATTER[GRASS] = -12.0, -19.5
_BACKSCATTER[CAR] = -3.0, -14.0
_BACKSCATTER[ORCHARD] = -9.0, -15.5
_BACKSCATTER[POOL] = -20.0, -27.0

# Reflectance in the near infrared: high on live vegetation, low on water.
_INFRARED = np.zeros(len(CLASSES), np.float32)
_INFRARED[[BUILDING, ROAD, WATER, BARE, FOREST]] = 0.35, 0.25, 0.03, 0.40, 0.60
_INFRARED[[FARMLAND, GRASS, CAR, ORCHARD, POOL]] = 0.52, 0.52, 0.30, 0.50, 0.08

_DOUBLE_BOUNCE_DB = (6.0, 1.0)
_SHADOW_DB = -24.0
_NOISE_FLOOR_DB = -28.0


def near_infrared(rng: np.random.Generator, plan: Plan, greenness: float) -> NDArray[np.uint8]:
    """Near-infrared brightness, (H, W) uint8; vegetation is duller in dry regions."""
    reflectance = _INFRARED.copy()
    reflectance[[FOREST, FARMLAND, GRASS, ORCHARD]] *= 0.6 + 0.4 * greenness
    image = reflectance[plan.labels] * (1 + 0.08 * smooth_noise(rng, plan.shape, 1.5)) * _illumination(plan)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def surface_height(rng: np.random.Generator, plan: Plan) -> Field:
    """Elevation of the visible surface in metres, (H, W): terrain, crowns and roofs."""
    terrain = rng.uniform(0.5, 5) * fractal_noise(rng, plan.shape, 60)
    crowns = np.clip(9 + 3 * smooth_noise(rng, plan.shape, max(0.6, 2.4 / plan.gsd)), 1, None)
    low = np.where(plan.labels == ORCHARD, np.float32(3), 0) + np.where(plan.labels == CAR, np.float32(1.5), 0)
    terrain = np.where(plan.labels == WATER, terrain.min(), terrain)
    return (terrain + plan.height + low + np.where(plan.labels == FOREST, crowns, 0)).astype(np.float32)


def radar_backscatter(
    rng: np.random.Generator, plan: Plan, surface: Field, *, looks: int = 4, incidence: float = 35.0
) -> Field:
    """Radar backscatter in dB as a sensor that looks along +x sees it.

    Class means, gamma-distributed speckle, and three effects of standing objects: a bright line where wall and ground
    meet on the near side (double bounce), roofs leaning towards the sensor (layover), and shadow behind.

    Args:
        rng: source of randomness.
        plan: the scene.
        surface: elevation in metres, (H, W).
        looks: number of looks; fewer give stronger speckle.
        incidence: angle of incidence in degrees.

    Returns:
        (2, H, W) float32: VV and VH.
    """
    tangent = np.tan(np.radians(incidence))
    decibels = _BACKSCATTER[plan.labels] + fractal_noise(rng, plan.shape, 6)[..., None]
    standing = plan.height > 1
    wall = standing & ~_shifted(standing, 0, 1)
    bounce = wall | _shifted(wall, 0, -1)
    decibels[bounce] += np.asarray(_DOUBLE_BOUNCE_DB, np.float32)
    power = 10 ** (decibels / 10)

    for step in range(1, int(float(plan.height.max()) / tangent / plan.gsd) + 1):
        leaning = wall & (plan.height >= step * plan.gsd * tangent)
        power[_shifted(leaning, 0, -step)] += 10 ** (_BACKSCATTER[BUILDING] / 10) * 0.6

    hidden = _radar_shadow(surface, plan.gsd / tangent)
    power[hidden] = 10 ** (_SHADOW_DB / 10)
    power *= rng.gamma(looks, 1 / looks, power.shape)
    power += 10 ** (_NOISE_FLOOR_DB / 10)
    return np.ascontiguousarray(np.moveaxis(10 * np.log10(power), -1, 0), np.float32)


def _radar_shadow(surface: Field, drop: float) -> NDArray[np.bool_]:
    """Where the line of sight, which falls by ``drop`` metres a pixel along +x, is blocked, (H, W)."""
    columns = np.arange(surface.shape[1], dtype=np.float32) * np.float32(drop)
    sight = np.maximum.accumulate(surface + columns, axis=1)
    return sight > surface + columns + 2.0
