"""Side-looking radar of a simulated scene: what each surface echoes, where the echo lands, and speckle.

The image is geocoded and radiometrically flattened with the bare terrain, as terrain-corrected products are (D. Small,
IEEE TGRS 49, 2011, doi:10.1109/TGRS.2011.2120616): hills neither shift nor brighten.  What stands on the ground is
not in that terrain, and shows the effects that G. Franceschetti, A. Iodice and D. Riccio (IEEE TGRS 40, 2002,
doi:10.1109/TGRS.2002.802459) derive for a building, as D. Brunner et al. (IEEE TGRS 48, 2010,
doi:10.1109/TGRS.2009.2031910) simulate them, with incidence angle theta and height h:

* **layover**: an echo from height h lands h / tan(theta) nearer to the sensor, on top of what lies there;
* **facade**: the wall that faces the sensor fills that stretch, h / tan(theta) before its foot;
* **double bounce**: wall and ground together send back a bright line at the wall's foot, brighter for higher walls
  and for walls that face the sensor squarely;
* **shadow**: the ground behind is unseen for h * tan(theta), and holds the receiver's noise alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rsovlib.data._noise import Field, fractal_noise
from rsovlib.data._scene_plan import Mask, Plan
from rsovlib.data._scene_relief import Relief
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

LOOKS = ("east", "west", "south", "north")
"""Directions that the radar can look in; "east" is towards larger columns, "south" towards larger rows."""

# Mean backscatter (sigma nought, dB) at C band and 35 degrees, VV and VH, in the order of magnitude of F. T. Ulaby and
# M. C. Dobson, Handbook of Radar Scattering Statistics for Terrain, Artech House, 1989, ISBN 978-0-89006-336-1.
# Buildings: their roofs; walls and corners are added.
_BACKSCATTER = np.zeros((len(CLASSES), 2), np.float32)
_BACKSCATTER[BUILDING] = -7.0, -14.0
_BACKSCATTER[ROAD] = -16.0, -25.0
_BACKSCATTER[WATER] = -21.0, -28.0
_BACKSCATTER[BARE] = -13.0, -22.0
_BACKSCATTER[FOREST] = -8.0, -14.0
_BACKSCATTER[FARMLAND] = -10.5, -18.0
_BACKSCATTER[GRASS] = -12.0, -19.5
_BACKSCATTER[CAR] = -3.0, -14.0
_BACKSCATTER[ORCHARD] = -9.0, -15.5
_BACKSCATTER[POOL] = -20.0, -27.0
_REFERENCE_ANGLE = np.radians(35.0)

# Standard deviation of the texture within a class, dB.  Water has none: there the speckle is all that varies.
_TEXTURE_DB = np.ones(len(CLASSES), np.float32)
_TEXTURE_DB[[WATER, POOL]] = 0
_TEXTURE_DB[[ROAD, CAR]] = 0.5
_CROP_DB = np.asarray([0.0, -1.0, -2.5, 1.0], np.float32)  # green, yellow, brown, dark green
_WIND_DB, _MOISTURE_DB = 1.5, 1.0
_DRY_SOIL_DB = -2.0  # in a region without any green

_FACADE_DB = np.asarray([-4.0, -13.0], np.float32)
# Of a wall 10 m high, spread over one metre of ground range; it grows with the height.
_CORNER_DB = np.asarray([8.0, -5.0], np.float32)
_SQUARELY = np.radians(12.0)
_OBLIQUE_SHARE = 0.1
_WALL = 2.0  # metres; lower steps are no walls
_NOISE_FLOOR_DB = -28.0
_GRAZING = np.float32(0.05)  # metres by which a line of sight may be blocked and still count as free


@dataclass(frozen=True)
class RadarView:
    """How the radar looks at the scene.

    Attributes:
        looks: number of looks; fewer give stronger speckle.
        incidence: angle of incidence from the vertical, degrees.
        direction: one of :data:`LOOKS`.
    """

    looks: float = 4.0
    incidence: float = 35.0
    direction: str = "east"

    @property
    def tangent(self) -> float:
        """tan(theta)."""
        return float(np.tan(np.radians(self.incidence)))

    def turned(self, field: NDArray[Any]) -> NDArray[Any]:
        """(H, W, ...) with the look direction along +x, towards larger columns."""
        if self.direction in ("south", "north"):
            field = field.swapaxes(0, 1)
        return field[:, ::-1] if self.direction in ("west", "north") else field

    def turned_back(self, field: NDArray[Any]) -> NDArray[Any]:
        """The inverse of :meth:`turned`."""
        if self.direction in ("west", "north"):
            field = field[:, ::-1]
        return field.swapaxes(0, 1) if self.direction in ("south", "north") else field


def radar_backscatter(
    rng: np.random.Generator, plan: Plan, relief: Relief, greenness: float, view: RadarView
) -> NDArray[np.float32]:
    """Radar backscatter (sigma nought) in dB.

    Args:
        rng: source of randomness.
        plan: the scene.
        relief: its heights.
        greenness: of the region; dry soil echoes less.
        view: looks, incidence and direction.

    Returns:
        (2, H, W) float32: VV and VH.
    """
    echo = _surface_echo(rng, plan, greenness, view)
    # What lies beyond the far edge of the scene leans into it: the last column is taken to go on.
    beyond = int(np.ceil(float(relief.above.max()) / (view.tangent * plan.gsd))) + 1

    def extended(field: NDArray[Any]) -> NDArray[Any]:
        turned = view.turned(field)
        return np.pad(turned, [(0, 0), (0, beyond)] + [(0, 0)] * (turned.ndim - 2), mode="edge")

    above, terrain, built = extended(relief.above), extended(relief.terrain), extended(plan.labels == BUILDING)
    power = image_geometry(extended(echo), above, terrain, built, plan.gsd, view.tangent)[:, :-beyond]
    power = view.turned_back(power) + np.float32(10 ** (_NOISE_FLOOR_DB / 10))
    power = power * speckle(rng, power.shape, view.looks)
    return np.ascontiguousarray(np.moveaxis(10 * np.log10(power, dtype=np.float64), -1, 0), np.float32)


def speckle(rng: np.random.Generator, shape: tuple[int, ...], looks: float) -> Field:
    """Multiplicative speckle of detected power: gamma distributed, mean 1 and variance 1 / looks.

    J. W. Goodman, Some fundamental properties of speckle, J. Opt. Soc. Am. 66, 1976, doi:10.1364/JOSA.66.001145: the
    power of one look is exponentially distributed, and the mean of L independent ones is gamma distributed.
    """
    return rng.standard_gamma(looks, shape, dtype=np.float32) / np.float32(looks)


def _surface_echo(rng: np.random.Generator, plan: Plan, greenness: float, view: RadarView) -> Field:
    """Power that each surface sends back, before geometry: class, texture, crop, wind and moisture, (H, W, 2)."""
    labels = plan.labels
    offset = np.zeros((len(CLASSES), 1), np.float32)
    offset[[WATER, POOL]] = _WIND_DB * float(np.clip(rng.standard_normal(), -2, 2))
    offset[[BARE, GRASS, FARMLAND]] = _MOISTURE_DB * float(np.clip(rng.standard_normal(), -2, 2))
    offset[BARE] += _DRY_SOIL_DB * (1 - greenness)
    # Rough surfaces follow Lambert's law, cos^2 (I. E. Mladenova et al., IEEE TGRS 51, 2013,
    # doi:10.1109/TGRS.2012.2205264).
    offset += np.float32(20 * np.log10(np.cos(np.radians(view.incidence)) / np.cos(_REFERENCE_ANGLE)))
    decibels = (_BACKSCATTER + offset)[labels]
    varied = _TEXTURE_DB[labels] * fractal_noise(rng, plan.shape, 6)
    varied += np.where(labels == FARMLAND, _CROP_DB[plan.crop], np.float32(0))
    decibels += varied[..., None]
    # In double precision, as everywhere where the last bit is the processor's.
    return np.exp(decibels * (np.log(10) / 10), dtype=np.float64).astype(np.float32)


def image_geometry(echo: Field, above: Field, terrain: Field, built: Mask, gsd: float, tangent: float) -> Field:
    """Where echoes land in an image of ground range whose sensor looks along +x.

    Args:
        echo: (H, W, 2) power of each surface.
        above: (H, W) metres above the terrain.
        terrain: (H, W) metres.
        built: (H, W) where buildings stand: their steps are walls.
        gsd: metres a pixel.
        tangent: tan(theta) of the incidence angle.

    Returns:
        (H, W, 2) power, 0 where nothing is seen.
    """
    height, width = above.shape
    seen = ~radar_shadow(terrain + above, gsd / tangent)
    raised = seen & (above > 0)
    image = np.where((seen & ~raised)[..., None], echo, np.float32(0))

    # Raised surfaces: each echo is shared between the two pixels around the place where it lands.
    rows, columns = np.nonzero(raised)
    landing = columns - above[raised] / np.float32(tangent * gsd)
    first = np.floor(landing).astype(np.int64)
    share = (landing - first).astype(np.float32)
    for place, weight in ((first, 1 - share), (first + 1, share)):
        inside = (place >= 0) & (place < width)
        index = rows[inside] * width + place[inside]
        for band in (0, 1):
            landed = np.bincount(index, echo[..., band][raised][inside] * weight[inside], height * width)
            image[..., band] += landed.reshape(height, width)

    _add_walls(image, above, built, seen, gsd, tangent)
    return image


def _add_walls(image: Field, above: Field, built: Mask, seen: Mask, gsd: float, tangent: float) -> None:
    """Adds the echo of facades and of the corners at their feet."""
    height, width = above.shape
    step = np.diff(above, axis=1)
    rows, columns = np.nonzero((step > _WALL) & built[:, 1:] & seen[:, 1:])
    if not len(rows):
        return
    rise, foot, top = step[rows, columns], above[rows, columns], above[rows, columns + 1]
    near = np.clip(columns + 1 - top / (tangent * gsd), 0, width)
    far = np.clip(columns + 1 - foot / (tangent * gsd), 0, width)
    # A facade adds the same to every pixel from `near` to `far`: its ends are marked, and summed along the row.
    marks = np.zeros((height, width + 2))
    for place, sign in ((near, 1.0), (far, -1.0)):
        first = np.floor(place).astype(np.int64)
        share = place - first
        np.add.at(marks, (rows, first), sign * (1 - share))
        np.add.at(marks, (rows, first + 1), sign * share)
    facade = np.cumsum(marks, axis=1)[:, :width, None].astype(np.float32)
    image += facade * 10 ** (_FACADE_DB / 10)

    strength = rise / 10 / gsd * _facing(above, rows, columns, gsd)
    corner = np.floor(far - 0.5).astype(np.int64).clip(0, width - 1)
    lit = seen[rows, columns]  # a foot in the dark has no ground to bounce from
    np.add.at(image, (rows[lit], corner[lit]), strength[lit, None] * 10 ** (_CORNER_DB / 10))


def _facing(above: Field, rows: NDArray[np.int64], columns: NDArray[np.int64], gsd: float) -> Field:
    """How squarely walls face the sensor: 1 for square ones, little for oblique ones.

    A. Ferro, D. Brunner, L. Bruzzone and G. Lemoine, On the relationship between double bounce and the orientation of
    buildings in VHR SAR images, IEEE GRSL 8, 2011, doi:10.1109/LGRS.2010.2097580: the line fades fastest within the
    first ten degrees or so.
    """
    smooth = ndimage.uniform_filter(np.minimum(above, 6), max(3, round(5 / gsd)), mode="nearest")
    height, width = above.shape
    up, down = smooth[np.maximum(rows - 1, 0), columns], smooth[np.minimum(rows + 1, height - 1), columns]
    left, right = smooth[rows, np.maximum(columns - 1, 0)], smooth[rows, np.minimum(columns + 1, width - 1)]
    angle = np.arctan2(np.abs(down - up), np.maximum(right - left, 1e-3), dtype=np.float64)
    square = np.exp(-((angle / _SQUARELY) ** 2), dtype=np.float64)
    return (_OBLIQUE_SHARE + (1 - _OBLIQUE_SHARE) * square).astype(np.float32)


def radar_shadow(surface: Field, drop: float) -> Mask:
    """Where the line of sight is blocked.

    Args:
        surface: (H, W) elevation, metres; the sensor looks along +x.
        drop: metres by which the line of sight falls in a pixel, gsd / tan(theta).

    Returns:
        (H, W), True behind what stands nearer.
    """
    lifted = surface + np.arange(surface.shape[1], dtype=np.float32) * np.float32(drop)
    return np.maximum.accumulate(lifted, axis=1) > lifted + _GRAZING
