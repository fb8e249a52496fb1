"""Simulated scenes: perfectly labelled overhead images of plausible land cover, with the sensors that go with them.

``make_scene(size, seed)`` gives the same scene for the same arguments and the same :data:`SCENE_VERSION`, which is
part of every result that is made with scenes.  A scene is planned first (what lies where, how high), then painted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsovlib.data._scene_light import REGION_SHARES, REGIONS, paint_optical
from rsovlib.data._scene_plan import LAYOUT_SHARES, LAYOUTS, plan_scene
from rsovlib.data._scene_radar import near_infrared, radar_backscatter, surface_height
from rsovlib.data.lexicon import (
    BUILDING,
    CLASSES,
    CROP_COLOURS,
    FARMLAND,
    LEXICON,
    ROOF_COLOURS,
    WATER,
)
from rsovlib.errors import InputError, unknown_name

SCENE_VERSION = 1
"""Changes whenever the same arguments give another scene."""

MODALITIES = ("nir", "sar", "dsm")

_SMALLEST, _LARGEST = 16, 8192
_GSD_RANGE = (0.5, 2.0)
_CAPTION_SHARE = 0.06


@dataclass(frozen=True)
class Scene:
    """One simulated scene.

    Attributes:
        optical: (H, W, 3) uint8, red green blue.
        labels: (H, W) uint8, indices into ``classes``.
        classes: names of the label values.
        nir: (H, W) uint8 near infrared, or None when it was not asked for.
        sar: (2, H, W) float32 backscatter in dB, VV and VH, or None.
        dsm: (H, W) float32 surface elevation in metres, or None.
        roof: (H, W) uint8, index of the roof colour where there is a building.
        crop: (H, W) uint8, index of the crop colour where there is farmland.
        caption: one English sentence.
        region, layout: what kind of place it is.
        gsd: ground sampling distance, metres a pixel.
        seed, version: what it was made with.
        notes: further facts, for example the kind of water.
    """

    optical: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    classes: list[str]
    nir: NDArray[np.uint8] | None
    sar: NDArray[np.float32] | None
    dsm: NDArray[np.float32] | None
    roof: NDArray[np.uint8]
    crop: NDArray[np.uint8]
    caption: str
    region: str
    layout: str
    gsd: float
    seed: int
    version: int = SCENE_VERSION
    notes: Mapping[str, Any] = field(default_factory=dict)


def make_scene(
    size: int | tuple[int, int],
    seed: int,
    *,
    region: str | None = None,
    layout: str | None = None,
    gsd: float | None = None,
    modalities: Collection[str] = MODALITIES,
) -> Scene:
    """Makes a scene.

    Args:
        size: side of a square scene, or (H, W), in pixels.
        seed: which scene; any non-negative whole number.
        region: one of :data:`REGIONS`, or None to draw one.
        layout: one of :data:`LAYOUTS`, or None to draw one.
        gsd: metres a pixel, or None to draw one between 0.5 and 2.
        modalities: which of "nir", "sar" and "dsm" to make; leaving them out is faster and changes nothing else.

    Returns:
        The scene.

    Raises:
        InputError: a size, seed, ground sampling distance or name that can't be.
    """
    shape = _checked_shape(size)
    if seed != int(seed) or seed < 0:
        raise InputError(f"The seed of a scene is a whole number from 0 on, not {seed!r}.")
    for name in modalities:
        if name not in MODALITIES:
            raise unknown_name("modality", name, MODALITIES)
    # Every part draws from a stream of its own, so that asking for less, or fixing one choice, leaves the rest alone.
    choices, ground, light, infrared, elevation, radar = (
        np.random.Generator(np.random.PCG64(stream))
        for stream in np.random.SeedSequence([SCENE_VERSION, int(seed)]).spawn(6)
    )
    drawn_region, drawn_layout = _draw(choices, REGION_SHARES), _draw(choices, LAYOUT_SHARES)
    drawn_gsd = float(np.exp(choices.uniform(*np.log(_GSD_RANGE))))
    region, layout = region or drawn_region, layout or drawn_layout
    gsd = drawn_gsd if gsd is None else float(gsd)
    if region not in REGIONS:
        raise unknown_name("region", region, REGIONS)
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    if not 0.1 <= gsd <= 20:
        raise InputError(f"The ground sampling distance of a scene lies between 0.1 and 20 metres, not at {gsd}.")

    place = REGIONS[region]
    plan = plan_scene(ground, shape, gsd, LAYOUTS[layout], place.ground, place.greenness)
    surface = surface_height(elevation, plan) if {"dsm", "sar"} & set(modalities) else None
    return Scene(
        optical=paint_optical(light, plan, place),
        labels=plan.labels,
        classes=list(CLASSES),
        nir=near_infrared(infrared, plan, place.greenness) if "nir" in modalities else None,
        sar=radar_backscatter(radar, plan, surface) if surface is not None and "sar" in modalities else None,
        dsm=surface if "dsm" in modalities else None,
        roof=plan.roof,
        crop=plan.crop,
        caption=_caption(plan.labels, plan.roof, plan.crop, plan.water_kind),
        region=region,
        layout=layout,
        gsd=gsd,
        seed=int(seed),
        notes={"water": plan.water_kind},
    )


def _checked_shape(size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int | np.integer) else size
    for side in (height, width):
        if side != int(side) or not _SMALLEST <= side <= _LARGEST:
            raise InputError(f"A scene has sides of {_SMALLEST} to {_LARGEST} whole pixels, not {side!r}.")
    return int(height), int(width)


def _draw(rng: np.random.Generator, shares: Mapping[str, float]) -> str:
    names = list(shares)
    return names[int(np.searchsorted(np.cumsum(list(shares.values())), rng.random() * 0.999999))]


def _caption(labels: NDArray[np.uint8], roof: NDArray[np.uint8], crop: NDArray[np.uint8], water_kind: str) -> str:
    """Names up to three classes of the scene, the largest first, with a colour where one dominates."""
    shares = np.bincount(labels.ravel(), minlength=len(CLASSES)) / labels.size
    named = []
    for label in np.argsort(-shares, kind="stable")[:3]:
        if shares[label] < _CAPTION_SHARE:
            break
        name = LEXICON[label].trained[0] if label in LEXICON else CLASSES[label]
        if label == WATER:
            name = water_kind or name
        elif label == BUILDING:
            name = f"{_dominant(roof[labels == BUILDING], ROOF_COLOURS)}roofs"
        elif label == FARMLAND:
            name = f"{_dominant(crop[labels == FARMLAND], CROP_COLOURS)}fields"
        named.append(name)
    listed = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
    return f"an aerial image of {listed}"


def _dominant(indices: NDArray[np.uint8], names: tuple[str, ...]) -> str:
    counts = np.bincount(indices, minlength=len(names))
    return f"{names[int(counts.argmax())]} " if counts.max() > 0.7 * counts.sum() else ""
