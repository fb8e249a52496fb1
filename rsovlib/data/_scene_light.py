"""What a scene looks like from above: colours, shadows, and a sensor that is never quite the same twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rsovlib.data._noise import Field, fractal_noise, smooth_noise
from rsovlib.data._scene_plan import Mask, Plan
from rsovlib.data.lexicon import (
    BARE,
    BUILDING,
    CAR,
    CLASSES,
    CROP_COLOURS,
    FARMLAND,
    FOREST,
    GRASS,
    ORCHARD,
    POOL,
    ROAD,
    ROOF_COLOURS,
    WATER,
)

Colour = tuple[float, float, float]

ROOFS: Mapping[str, Colour] = {
    "red": (0.55, 0.25, 0.20),
    "white": (0.86, 0.86, 0.85),
    "gray": (0.50, 0.50, 0.52),
    "blue": (0.28, 0.42, 0.66),
    "brown": (0.42, 0.33, 0.27),
}
CROPS: Mapping[str, Colour] = {
    "green": (0.36, 0.50, 0.24),
    "yellow": (0.76, 0.70, 0.40),
    "brown": (0.50, 0.40, 0.28),
    "dark green": (0.22, 0.36, 0.16),
}
CARS: tuple[Colour, ...] = (
    (0.9, 0.9, 0.9),
    (0.12, 0.12, 0.13),
    (0.7, 0.12, 0.1),
    (0.15, 0.25, 0.6),
    (0.6, 0.6, 0.62),
)


@dataclass(frozen=True)
class Region:
    """A part of the world: its colours and what grows there.

    Attributes:
        ground: class of the land that nothing else covers.
        greenness: 1 in moist regions, towards 0 in deserts.
        grass, forest, bare, water, road: colours to choose from, RGB in [0, 1].
        stretch: chance that the image is delivered stretched between its own percentiles.
        relief: usual height difference over 100 m, metres.
    """

    ground: int
    greenness: float
    grass: tuple[Colour, ...]
    forest: tuple[Colour, ...]
    bare: tuple[Colour, ...]
    water: tuple[Colour, ...]
    road: tuple[Colour, ...]
    stretch: float
    relief: float


_ASPHALT: tuple[Colour, ...] = ((0.46, 0.46, 0.47), (0.36, 0.36, 0.38), (0.58, 0.56, 0.54), (0.25, 0.25, 0.27))

REGIONS: Mapping[str, Region] = {
    "temperate": Region(
        ground=GRASS,
        greenness=1.0,
        grass=((0.42, 0.50, 0.30), (0.38, 0.48, 0.26), (0.55, 0.52, 0.36)),
        forest=((0.17, 0.27, 0.14), (0.14, 0.22, 0.12), (0.22, 0.30, 0.17)),
        bare=((0.66, 0.55, 0.42), (0.58, 0.48, 0.40), (0.74, 0.68, 0.56)),
        water=((0.12, 0.22, 0.28), (0.20, 0.30, 0.30), (0.10, 0.17, 0.16), (0.25, 0.33, 0.27)),
        road=_ASPHALT,
        stretch=0.2,
        relief=3.0,
    ),
    "tropical": Region(
        ground=GRASS,
        greenness=1.0,
        grass=((0.40, 0.55, 0.26), (0.46, 0.52, 0.30)),
        forest=((0.12, 0.26, 0.10), (0.16, 0.30, 0.14), (0.10, 0.18, 0.09)),
        bare=((0.62, 0.38, 0.26), (0.70, 0.48, 0.34), (0.55, 0.42, 0.34)),
        water=((0.33, 0.32, 0.22), (0.15, 0.25, 0.22), (0.08, 0.20, 0.26), (0.42, 0.36, 0.26)),
        road=(*_ASPHALT, (0.60, 0.46, 0.36)),
        stretch=0.2,
        relief=4.0,
    ),
    "dry": Region(
        ground=GRASS,
        greenness=0.6,
        grass=((0.60, 0.55, 0.38), (0.54, 0.50, 0.38), (0.50, 0.50, 0.34)),
        forest=((0.26, 0.30, 0.19), (0.20, 0.24, 0.16), (0.31, 0.32, 0.24)),
        bare=((0.74, 0.64, 0.50), (0.68, 0.56, 0.44), (0.80, 0.74, 0.64)),
        water=((0.16, 0.26, 0.28), (0.10, 0.15, 0.16), (0.25, 0.36, 0.34)),
        road=_ASPHALT,
        stretch=0.3,
        relief=6.0,
    ),
    "desert": Region(
        ground=BARE,
        greenness=0.25,
        grass=((0.34, 0.40, 0.26), (0.40, 0.42, 0.32), (0.28, 0.32, 0.24)),
        forest=((0.20, 0.23, 0.17), (0.27, 0.28, 0.22), (0.15, 0.19, 0.13)),
        bare=((0.78, 0.72, 0.62), (0.72, 0.68, 0.64), (0.70, 0.60, 0.48), (0.66, 0.65, 0.63)),
        water=((0.05, 0.07, 0.07), (0.08, 0.14, 0.14), (0.12, 0.26, 0.28), (0.14, 0.16, 0.10)),
        road=((0.30, 0.29, 0.29), (0.38, 0.36, 0.35), (0.24, 0.24, 0.25), (0.50, 0.48, 0.46)),
        stretch=0.6,
        relief=2.0,
    ),
}
REGION_SHARES: Mapping[str, float] = {"temperate": 0.38, "tropical": 0.12, "dry": 0.2, "desert": 0.3}

# How strongly fine grain, texture and broad mottling modulate each class's brightness.
_TEXTURE = np.zeros((len(CLASSES), 3), np.float32)
_TEXTURE[BUILDING] = 0.015, 0.005, 0.0
_TEXTURE[ROAD] = 0.02, 0.01, 0.01
_TEXTURE[WATER] = 0.006, 0.006, 0.02
_TEXTURE[BARE] = 0.02, 0.03, 0.05
_TEXTURE[FOREST] = 0.02, 0.06, 0.0
_TEXTURE[FARMLAND] = 0.015, 0.0, 0.015
_TEXTURE[GRASS] = 0.03, 0.02, 0.05
_TEXTURE[CAR] = 0.0
_TEXTURE[ORCHARD] = 0.02, 0.0, 0.0
_TEXTURE[POOL] = 0.01, 0.01, 0.0


@dataclass(frozen=True)
class Response:
    """How the optical sensor turned light into numbers; its infrared bands do the same.

    Attributes:
        sigma: blur in pixels.
        low, high: brightness that the image was stretched between, or 0 and 1.
        exponent: of the tone curve.
        haze: share of the light that comes from the air, in the visible.
        gain: brightness factor, the mean over the colours.
        noise: standard deviation of the sensor's noise.
    """

    sigma: float
    low: float
    high: float
    exponent: float
    haze: float
    gain: float
    noise: float


@dataclass(frozen=True)
class Painting:
    """An optical image and what the other bands of the same sensor need to know of it.

    Attributes:
        image: (H, W, 3) uint8, red green blue.
        red: (H, W) the ground's red in even light.
        light: (H, W) illumination, 1 in the sun.
        response: the sensor's.
    """

    image: NDArray[np.uint8]
    red: Field
    light: Field
    response: Response


def paint_optical(rng: np.random.Generator, plan: Plan, region: Region) -> Painting:
    """The scene as an optical sensor delivers it.

    Args:
        rng: source of randomness.
        plan: the scene.
        region: its colours.

    Returns:
        The image with what the infrared bands need.
    """
    image = _ground_colours(rng, plan, region)
    red, light = image[..., 0].copy(), illumination(plan)
    image *= light[..., None]
    finished, response = _sense(rng, image, region)
    return Painting(finished, red, light, response)


def _vary(rng: np.random.Generator, colour: Colour) -> NDArray[np.float64]:
    return np.asarray(colour, np.float32) * (1 + 0.1 * rng.standard_normal()) + 0.02 * rng.standard_normal(3)


def _choose(rng: np.random.Generator, colours: tuple[Colour, ...]) -> NDArray[np.float64]:
    return _vary(rng, colours[rng.integers(len(colours))])


def _ground_colours(rng: np.random.Generator, plan: Plan, region: Region) -> Field:
    """Colours in even light, (H, W, 3)."""
    labels, gsd = plan.labels, plan.gsd
    palette = np.zeros((len(CLASSES), 3), np.float32)
    palette[GRASS] = _choose(rng, region.grass)
    palette[FOREST] = _choose(rng, region.forest)
    palette[BARE] = _choose(rng, region.bare)
    palette[WATER] = _choose(rng, region.water)
    palette[ROAD] = _choose(rng, region.road)
    palette[POOL] = _vary(rng, (0.25, 0.72, 0.80))
    palette[ORCHARD] = _vary(rng, (0.55, 0.50, 0.36))
    image = palette[labels]

    farm, roofs, cars = labels == FARMLAND, labels == BUILDING, labels == CAR
    image[farm] = np.stack([_vary(rng, CROPS[name]) for name in CROP_COLOURS])[plan.crop[farm]]
    image[roofs] = np.asarray([ROOFS[name] for name in ROOF_COLOURS], np.float32)[plan.roof[roofs]]
    image[cars] = np.asarray(CARS, np.float32)[plan.paint[cars]]
    image[plan.markings & (labels == ROAD)] = 0.8
    crowns = (labels == ORCHARD) & (plan.relief < 0)
    image[crowns] = palette[FOREST] * 1.15

    grain = smooth_noise(rng, plan.shape, 0.6)
    texture = smooth_noise(rng, plan.shape, max(0.6, 2.4 / gsd))
    mottling = fractal_noise(rng, plan.shape, 12)
    strength = _TEXTURE * rng.uniform(0.6, 1.5, (1, 3)).astype(np.float32)
    light = strength[labels, 0] * grain + strength[labels, 1] * texture + strength[labels, 2] * mottling
    structured = farm | roofs
    light[structured] += plan.relief[structured]
    image[structured] *= plan.tone[structured, None]
    image += light[..., None]
    return image


def shifted(mask: Mask, dy: int, dx: int) -> Mask:
    """``mask`` moved by whole pixels; what leaves the scene is lost."""
    height, width = mask.shape
    moved = np.zeros_like(mask)
    if abs(dy) < height and abs(dx) < width:
        moved[max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)] = mask[
            max(0, -dy) : height + min(0, -dy), max(0, -dx) : width + min(0, -dx)
        ]
    return moved


def illumination(plan: Plan) -> Field:
    """1 in the sun, less in the shade of buildings and trees, (H, W); shadows are about 0.8 of the height long."""
    labels = plan.labels
    dx, dy = np.cos(plan.sun), np.sin(plan.sun)
    shade = np.zeros(plan.shape, bool)
    tallest = float(plan.height.max())
    for step in range(1, int(np.ceil(0.8 * tallest / plan.gsd)) + 1):
        tall = plan.height >= step * plan.gsd / 0.8
        shade |= shifted(tall, round(dy * step), round(dx * step))
    shade &= labels != BUILDING
    light = np.where(shade, np.float32(0.5), np.float32(1))
    reach = 2.5 / plan.gsd
    trees = labels == FOREST
    edge = shifted(trees, round(dy * reach), round(dx * reach)) & ~trees & (labels != BUILDING) & (labels != WATER)
    light[edge & ~shade] = 0.7
    return light


def _sense(rng: np.random.Generator, image: Field, region: Region) -> tuple[NDArray[np.uint8], Response]:
    """Blur, tone curve, haze, colour cast, stretch and noise."""
    low, high = 0.0, 1.0
    sigma = rng.uniform(0.3, 0.8)
    image = ndimage.gaussian_filter(image, (sigma, sigma, 0), truncate=2.5)
    np.clip(image, 0, 1, out=image)
    saturation = rng.uniform(0.35, 1.1)
    grey = image.mean(axis=2, keepdims=True)
    image = grey + saturation * (image - grey)
    np.clip(image, 0, None, out=image)
    if rng.random() < region.stretch:
        low, high = np.percentile(image[::3, ::3], [1, rng.uniform(96, 99.8)])
        image = (image - low) / max(high - low, 0.15)
        np.clip(image, 0, 1, out=image)
    exponent = np.exp(rng.uniform(-0.25, 0.4))
    # In double precision, whose last bit is the processor's but doesn't reach the image: see rsovlib.data._noise.
    image = np.power(image, float(np.float32(exponent)), dtype=np.float64).astype(np.float32)
    haze = rng.uniform(0, 0.15)
    gain = np.exp(rng.uniform(-0.4, 0.2)) * (1 + 0.05 * rng.standard_normal(3))
    image = ((1 - haze) * gain).astype(np.float32) * image + (haze * gain * (0.75, 0.8, 0.88)).astype(np.float32)
    noise = rng.standard_normal(image.shape[:2], dtype=np.float32)[..., None]
    chroma = rng.standard_normal(image.shape, dtype=np.float32)
    level = rng.uniform(0.003, 0.015)
    image += level * (noise + 0.5 * chroma)
    response = Response(sigma, float(low), float(high), float(exponent), haze, float(np.mean(gain)), level)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8), response
