"""A colour for every class: expected where there is such a thing, and distinct for colour-blind people, too."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import numpy as np
from skimage.color import rgb2lab

# Okabe and Ito (2008), "Color Universal Design": distinct for people with any of the common colour deficiencies.
# Black, their eighth, comes last here: under an overlay it would look like shadow.
OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#000000")

# Colours that people expect for common kinds of land cover. Any of the words in a class name claims the colour.
LAND_COVER = {
    "#0072B2": "water river lake sea ocean pond reservoir canal stream",
    "#00704F": "forest tree woodland wood jungle",
    "#9AD15A": "grass grassland meadow lawn pasture rangeland vegetation shrub",
    "#F0E442": "farmland agriculture agricultural crop cropland field farm",
    "#D55E00": "building roof rooftop house built built-up city urban settlement",
    "#8A8A8A": "road street pavement paved asphalt highway impervious",
    "#E5CBA0": "bare barren soil sand desert ground land beach",
    "#5C4A00": "orchard vineyard plantation",
    "#A03070": "car vehicle truck",
    "#56B4E9": "swimming pool ship boat harbor harbour",
    "#D8F3FF": "snow ice glacier",
    "#2B2B2B": "background clutter other unlabelled unlabeled",
}

# Linear-light RGB as a person without the red (protanopia) or the green (deuteranopia) cones sees it:
# Viénot, Brettel and Mollon (1999), https://doi.org/10.1002/(SICI)1520-6378(199908)24:4<243::AID-COL5>3.0.CO;2-3
_PROTANOPIA = np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]])
_DEUTERANOPIA = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])


def class_colours(classes: Sequence[str]) -> np.ndarray:
    """A colour for each class: what people expect where there is such a thing, and distinct in any case.

    A class with a land-cover word in its name (water, forest, roads, ...) gets that kind's colour. The others get
    the Okabe-Ito colours that are left, and after these, colours chosen one by one to be as far as possible from
    all others, in CIELAB, as seen with full colour vision and with either common form of red-green blindness.

    Args:
        classes: the K names; synonyms after a comma count only when the first name says nothing.

    Returns:
        (K, 3) uint8, RGB, no two alike; the same names always give the same colours.
    """
    chosen: list[str | None] = [None] * len(classes)
    for position, name in enumerate(classes):
        colour = _expected_colour(name)
        if colour not in chosen:
            chosen[position] = colour
    taken = [_rgb(colour) for colour in chosen if colour is not None]
    # Okabe-Ito colours too close to a land-cover colour in use would be confused with it.
    spare = [_rgb(colour) for colour in OKABE_ITO[:-1]]
    colours = np.zeros((len(classes), 3), dtype=np.uint8)
    furthest: _Furthest | None = None
    for position, colour in enumerate(chosen):
        if colour is not None:
            colours[position] = _rgb(colour)
            continue
        spare = [candidate for candidate in spare if not taken or _distance(candidate[None], taken)[0] > 20]
        if spare:
            colours[position] = spare.pop(0)
        else:
            furthest = furthest or _Furthest(taken)
            colours[position] = furthest.next()
        taken.append(colours[position])
    return colours


def _expected_colour(name: str) -> str | None:
    """The land-cover colour that a class name asks for, by its first synonym that says something."""
    for synonym in name.lower().split(","):
        for word in reversed(re.findall(r"[a-z][a-z-]*", synonym)):  # the last word is the noun: "bare soil"
            for colour, kind in LAND_COVER.items():
                if {word, word.removesuffix("s"), word.removesuffix("es")} & set(kind.split()):
                    return colour
    return None


def _rgb(colour: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(colour[1:]), dtype=np.uint8)


def _as_seen(colours: np.ndarray) -> np.ndarray:
    """CIELAB of (M, 3) uint8 colours as three kinds of eyes see them: (3, M, 3)."""
    srgb = np.asarray(colours, dtype=np.float64) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    views = []
    for matrix in (np.eye(3), _PROTANOPIA, _DEUTERANOPIA):
        seen = np.clip(linear @ matrix.T, 0, 1)
        views.append(np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055))
    return rgb2lab(np.stack(views))


def _distance(candidates: np.ndarray, taken: Sequence[np.ndarray]) -> np.ndarray:
    """For each candidate, the CIELAB distance to the nearest taken colour, for the eyes that tell them apart least."""
    return _distance_seen(_as_seen(candidates), taken)


def _distance_seen(seen: np.ndarray, taken: Sequence[np.ndarray]) -> np.ndarray:
    """:func:`_distance` for candidates (3, M, 3) that went through :func:`_as_seen` already."""
    nearest = np.full(seen.shape[1], np.inf)
    for other in _as_seen(np.stack(taken)).swapaxes(0, 1):  # one at a time: all pairs of 254 colours would fill memory
        np.minimum(nearest, np.linalg.norm(seen - other[:, None], axis=-1).min(axis=0), out=nearest)
    return nearest


@functools.cache
def _candidates() -> tuple[np.ndarray, np.ndarray]:
    """A grid of colours, without the very dark and very light ones, which read as shadow or glare; and as seen."""
    steps = np.arange(0, 256, 17)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.uint8)
    lightness = rgb2lab(grid / 255)[:, 0]
    kept = grid[(lightness > 25) & (lightness < 92)]
    return kept, _as_seen(kept)


class _Furthest:
    """Hands out the colour that is furthest from all taken ones, again and again."""

    def __init__(self, taken: Sequence[np.ndarray]) -> None:
        self._colours, self._seen = _candidates()
        self._nearest = _distance_seen(self._seen, taken)

    def next(self) -> np.ndarray:
        colour = self._colours[self._nearest.argmax()]
        # Only the new colour can be nearer than what was nearest before.
        np.minimum(self._nearest, _distance_seen(self._seen, [colour]), out=self._nearest)
        return colour
