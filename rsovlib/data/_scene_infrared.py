"""Near and short-wave infrared of a simulated scene, as further bands of the camera that took the colours.

Live leaves reflect most of the near infrared and water nearly none of it, which is what the vegetation index is built
on (C. J. Tucker, Remote Sensing of Environment 8, 1979, doi:10.1016/0034-4257(79)90013-0).  The water in leaves and
soil absorbs the short-wave infrared, so that there dry ground is the brightest.  Numbers are brightnesses of the
displayed image, in [0, 1], which the optical sensor's tone curve is still to be put on: only so do ratios between the
bands of a scene mean something.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rsovlib.data._noise import Field, smooth_noise
from rsovlib.data._scene_light import Painting
from rsovlib.data._scene_plan import Plan
from rsovlib.data.lexicon import BARE, BUILDING, CAR, CLASSES, FARMLAND, FOREST, GRASS, ORCHARD, POOL, ROAD, WATER


@dataclass(frozen=True)
class Band:
    """Brightness of a band: plants and water have one of their own, dry surfaces follow their red.

    Attributes:
        own: brightness by class; NaN where it follows the red.
        crops: brightness by crop colour: green, yellow, brown, dark green.
        factor, offset: of dry surfaces, applied to their red.
        clarity: share of the visible haze that is left, which falls steeply with the wavelength.
    """

    own: NDArray[np.float32]
    crops: tuple[float, float, float, float]
    factor: float
    offset: float
    clarity: float


def _by_class(brightness: dict[int, float]) -> NDArray[np.float32]:
    table = np.full(len(CLASSES), np.nan, np.float32)
    table[list(brightness)] = list(brightness.values())
    return table


NEAR = Band(_by_class({WATER: 0.03, POOL: 0.07, FOREST: 0.72, GRASS: 0.95}), (0.90, 0.98, 0.56, 0.88), 1.06, 0.03, 0.4)
"""About 0.84 micrometres."""
SHORT_WAVE = Band(
    _by_class({WATER: 0.015, POOL: 0.03, FOREST: 0.30, GRASS: 0.50}), (0.46, 0.86, 0.64, 0.38), 1.12, 0.06, 0.15
)
"""About 1.6 micrometres."""

_PLANTS = (FOREST, GRASS)
_DRY = (BUILDING, ROAD, BARE, CAR)


def infrared(
    rng: np.random.Generator, plan: Plan, painting: Painting, band: Band, greenness: float
) -> NDArray[np.uint8]:
    """One infrared band, (H, W) uint8.

    Args:
        rng: source of randomness.
        plan: the scene.
        painting: the optical image, for the brightness of dry ground, the shadows and the sensor's response.
        band: :data:`NEAR` or :data:`SHORT_WAVE`.
        greenness: of the region; plants that want water are duller in the near and brighter in the short-wave band.

    Returns:
        Brightness on the scale of the optical image.
    """
    labels = plan.labels
    own = band.own.copy()
    vigour = 0.6 + 0.4 * greenness
    own[list(_PLANTS)] *= vigour if band is NEAR else 1 / vigour
    dry = band.factor * painting.red + band.offset
    image = own[labels]
    crowns = (labels == ORCHARD) & (plan.relief < 0)
    image[crowns] = own[FOREST]
    farm = labels == FARMLAND
    image[farm] = (np.asarray(band.crops, np.float32)[plan.crop] * plan.tone + plan.relief)[farm]
    follows_red = np.isnan(image)
    image[follows_red] = dry[follows_red]
    image *= 1 + 0.05 * smooth_noise(rng, plan.shape, 1.5)
    image *= painting.light
    return _respond(rng, image, painting, band)


def _respond(rng: np.random.Generator, image: Field, painting: Painting, band: Band) -> NDArray[np.uint8]:
    """The optical sensor's blur, stretch, tone curve, haze, gain and noise."""
    response = painting.response
    image = ndimage.gaussian_filter(image, response.sigma, truncate=2.5)
    if (response.low, response.high) != (0.0, 1.0):
        image = (image - response.low) / max(response.high - response.low, 0.15)
    np.clip(image, 0, 1, out=image)
    image = np.power(image, response.exponent, dtype=np.float64).astype(np.float32)
    haze = response.haze * band.clarity
    image = response.gain * ((1 - haze) * image + 0.75 * haze)
    image += response.noise * rng.standard_normal(image.shape, dtype=np.float32)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
