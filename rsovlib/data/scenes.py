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

from rsovlib.data._scene_infrared import NEAR, SHORT_WAVE, infrared
from rsovlib.data._scene_light import REGION_SHARES, REGIONS, paint_optical
from rsovlib.data._scene_plan import LAYOUT_SHARES, LAYOUTS, plan_scene
from rsovlib.data._scene_radar import LOOKS, RadarView, radar_backscatter
from rsovlib.data._scene_relief import make_relief
from rsovlib.data.lexicon import (
    BUILDING,
    CLASSES,
    CROP_COLOURS,
    FARMLAND,
    HELD_OUT_CROP,
    HELD_OUT_ROOF,
    HELD_OUT_TEMPLATES,
    LEXICON,
    ROOF_COLOURS,
    TEMPLATES,
    TEST_ONLY_KINDS,
    WATER,
    WORD_KINDS,
    fill,
)
from rsovlib.errors import InputError, unknown_name

SCENE_VERSION = 2
"""Changes whenever the same arguments give another scene.

1: the first.  2: radar geometry from the heights, fractal terrain, infrared bands of the optical sensor, and the same
bits on every processor.  Labels and captions are those of version 1.  So are optical images, but for single pixels that
differ by one grey level, as they did in version 1 from one processor to another.
"""

_STREAM = 1
"""Key of the random streams: raised, beside the version, when optical images are to change too."""

MODALITIES = ("nir", "swir", "sar", "dsm")

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
        nir: (H, W) uint8 near infrared on the scale of the optical image, or None when it was not asked for.
        swir: (H, W) uint8 short-wave infrared, likewise.
        sar: (2, H, W) float32 backscatter in dB, VV and VH, or None.
        dsm: (H, W) float32 surface elevation in metres, or None.
        roof: (H, W) uint8, index of the roof colour where there is a building.
        crop: (H, W) uint8, index of the crop colour where there is farmland.
        caption: one English sentence.
        region, layout: what kind of place it is.
        gsd: ground sampling distance, metres a pixel.
        seed, version: what it was made with.
        notes: further facts: "water", the kind of water; "shadow", the direction that shadows fall in, radians from +x
            (larger columns) to +y (larger rows); "sar_looks", "incidence" and "look" of the radar.
    """

    optical: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    classes: list[str]
    nir: NDArray[np.uint8] | None
    swir: NDArray[np.uint8] | None
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
    sar_looks: float = 4.0,
    incidence: float = 35.0,
    look: str = "east",
) -> Scene:
    """Makes a scene.

    Args:
        size: side of a square scene, or (H, W), in pixels.
        seed: which scene; any non-negative whole number.
        region: one of :data:`REGIONS`, or None to draw one.
        layout: one of :data:`LAYOUTS`, or None to draw one.
        gsd: metres a pixel, or None to draw one between 0.5 and 2.
        modalities: which of :data:`MODALITIES` to make; leaving them out is faster and changes nothing else.
        sar_looks: number of looks of the radar image; its speckle's variance is 1 / looks of the squared mean.
        incidence: angle of incidence of the radar, degrees from the vertical.
        look: direction that the radar looks in, one of "east" (towards larger columns), "west", "south" and "north".

    Returns:
        The scene.

    Raises:
        InputError: a size, seed, ground sampling distance, name, number of looks or angle that can't be.
    """
    shape = _checked_shape(size)
    if seed != int(seed) or seed < 0:
        raise InputError(f"The seed of a scene is a whole number from 0 on, not {seed!r}.")
    for name in modalities:
        if name not in MODALITIES:
            raise unknown_name("modality", name, MODALITIES)
    view = _checked_view(sar_looks, incidence, look)
    # Every part draws from a stream of its own, so that asking for less, or fixing one choice, leaves the rest alone.
    choices, ground, light, near, elevation, radar, short_wave = (
        np.random.Generator(np.random.PCG64(stream)) for stream in np.random.SeedSequence([_STREAM, int(seed)]).spawn(7)
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
    painting = paint_optical(light, plan, place)
    relief = make_relief(elevation, plan, place.relief) if {"dsm", "sar"} & set(modalities) else None
    return Scene(
        optical=painting.image,
        labels=plan.labels,
        classes=list(CLASSES),
        nir=infrared(near, plan, painting, NEAR, place.greenness) if "nir" in modalities else None,
        swir=infrared(short_wave, plan, painting, SHORT_WAVE, place.greenness) if "swir" in modalities else None,
        sar=radar_backscatter(radar, plan, relief, place.greenness, view) if relief and "sar" in modalities else None,
        dsm=relief.surface if relief and "dsm" in modalities else None,
        roof=plan.roof,
        crop=plan.crop,
        caption=_caption(plan.labels, plan.roof, plan.crop, plan.water_kind),
        region=region,
        layout=layout,
        gsd=gsd,
        seed=int(seed),
        notes={
            "water": plan.water_kind,
            "shadow": plan.sun,
            "sar_looks": view.looks,
            "incidence": view.incidence,
            "look": view.direction,
        },
    )


def _checked_shape(size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int | np.integer) else size
    for side in (height, width):
        if side != int(side) or not _SMALLEST <= side <= _LARGEST:
            raise InputError(f"A scene has sides of {_SMALLEST} to {_LARGEST} whole pixels, not {side!r}.")
    return int(height), int(width)


def _checked_view(looks: float, incidence: float, look: str) -> RadarView:
    if not 1 <= looks <= 1000:
        raise InputError(f"A radar image has 1 to 1000 looks, not {looks!r}.")
    if not 10 <= incidence <= 70:
        raise InputError(f"The angle of incidence lies between 10 and 70 degrees, not at {incidence!r}.")
    if look not in LOOKS:
        raise unknown_name("look direction", look, LOOKS)
    return RadarView(float(looks), float(incidence), look)


def _draw(rng: np.random.Generator, shares: Mapping[str, float]) -> str:
    names = list(shares)
    return names[int(np.searchsorted(np.cumsum(list(shares.values())), rng.random() * 0.999999))]


def describe(scene: Scene, *, words: str = "trained", seed: int = 0) -> str:
    """A caption in other words: synonyms and a sentence drawn from the lexicon, with colours where one dominates.

    Args:
        scene: the scene.
        words: which of :data:`rsovlib.data.lexicon.WORD_KINDS` to name classes with. "trained" and "thesaurus" stay
            within what training may say; "combined" and "unseen", for tests, also use the held-out sentences, and name
            held-out colours.
        seed: of the draws.

    Returns:
        One English sentence about up to three classes, the largest first. Classes without words of the kind are
        called by a trained one, and the class that training never names is left out of all but the tests' captions.

    Raises:
        InputError: there is no such kind of words.
    """
    if words not in WORD_KINDS:
        raise unknown_name("kind of words", words, WORD_KINDS)
    rng, testing = np.random.default_rng([_STREAM, scene.seed, int(seed)]), words in TEST_ONLY_KINDS
    attributes = {
        BUILDING: _dominant(scene.roof[scene.labels == BUILDING], ROOF_COLOURS),
        FARMLAND: _dominant(scene.crop[scene.labels == FARMLAND], CROP_COLOURS),
    }
    kept_back = {BUILDING: HELD_OUT_ROOF, FARMLAND: HELD_OUT_CROP}
    named = []
    for label in _largest(scene.labels):
        if label in LEXICON:
            choices = getattr(LEXICON[label], words) or LEXICON[label].trained
            colour = attributes.get(label, "")
            if not testing and colour.strip() == kept_back.get(label):
                colour = ""
            named.append(colour + choices[rng.integers(len(choices))])
        elif testing:
            named.append(CLASSES[label])
    templates = HELD_OUT_TEMPLATES if testing else TEMPLATES
    return fill(templates[rng.integers(len(templates))], _listed(named or ["land"]))


def _largest(labels: NDArray[np.uint8]) -> list[int]:
    """Up to three classes, the largest first; those that fill enough of it to be named."""
    shares = np.bincount(labels.ravel(), minlength=len(CLASSES)) / labels.size
    first = np.argsort(-shares, kind="stable")[:3]
    return [int(label) for label in first if shares[label] >= _CAPTION_SHARE]


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _caption(labels: NDArray[np.uint8], roof: NDArray[np.uint8], crop: NDArray[np.uint8], water_kind: str) -> str:
    """Names up to three classes of the scene, the largest first, with a colour where one dominates."""
    named = []
    for label in _largest(labels):
        name = LEXICON[label].trained[0] if label in LEXICON else CLASSES[label]
        if label == WATER:
            name = water_kind or name
        elif label == BUILDING:
            name = f"{_dominant(roof[labels == BUILDING], ROOF_COLOURS)}roofs"
        elif label == FARMLAND:
            name = f"{_dominant(crop[labels == FARMLAND], CROP_COLOURS)}fields"
        named.append(name)
    return f"an aerial image of {_listed(named)}"


def _dominant(indices: NDArray[np.uint8], names: tuple[str, ...]) -> str:
    counts = np.bincount(indices, minlength=len(names))
    return f"{names[int(counts.argmax())]} " if counts.max() > 0.7 * counts.sum() else ""
