"""Which words a training step uses: word lists, captions and pairs of synonyms, all drawn from the lexicon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rsovlib.data.lexicon import (
    BUILDING,
    COARSE_LISTS,
    CROP_COLOURS,
    CROP_NOUNS,
    FARMLAND,
    FINE_LIST,
    HELD_OUT_CROP,
    HELD_OUT_ROOF,
    LEXICON,
    OTHER_NAMES,
    ROOF_COLOURS,
    ROOF_NOUNS,
    TEMPLATES,
    WATER,
    Group,
    fill,
)
from rsovlib.experiments.embedded.samples import LABELS, VEGETATION, Batch

_PLANTS = COARSE_LISTS[0][1][-1]  # plants of any kind, as real imagery knows them
_CAPTION_SHARE = 0.06
_DOMINANT = 0.7
_COLOUR_CHANCE = 0.4

NAMED_ROOFS = tuple(index for index, name in enumerate(ROOF_COLOURS) if name != HELD_OUT_ROOF)
NAMED_CROPS = tuple(index for index, name in enumerate(CROP_COLOURS) if name != HELD_OUT_CROP)
"""Colours that training puts into words; the others are held out."""


@dataclass(frozen=True)
class WordList:
    """The classes that one step tells apart.

    Attributes:
        texts: one sentence a class.
        members: (LABELS, classes) float32, 1 where a label belongs to a class; labels without a class are ignored.
    """

    texts: list[str]
    members: torch.Tensor


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def sentence(rng: np.random.Generator, name: str) -> str:
    """A name in a random template."""
    return fill(_pick(rng, TEMPLATES), name)


def draw_word_lists(rng: np.random.Generator, *, real: bool, regrouped: float) -> tuple[WordList, WordList]:
    """Draws two ways to name what a step's images show.

    Args:
        rng: source of randomness.
        real: whether the images are real ones, which know plants of any kind only.
        regrouped: chance, in the second list, that one class is left out and called "other" (or the like) instead.

    Returns:
        Every class by itself and a coarser list; for real images two draws of names for their five classes.
    """
    chances = np.array([chance for chance, _ in COARSE_LISTS])
    drawn = int(rng.choice(len(COARSE_LISTS), p=chances / chances.sum()))
    first, second = (COARSE_LISTS[0][1],) * 2 if real else (FINE_LIST, COARSE_LISTS[drawn][1])
    groups = list(second)
    if rng.random() < regrouped:
        left_out = groups.pop(int(rng.integers(len(groups))))
        groups.append(Group(OTHER_NAMES, left_out.members))
    return _word_list(rng, first), _word_list(rng, groups)


def _word_list(rng: np.random.Generator, groups: Sequence[Group]) -> WordList:
    members = torch.zeros(LABELS, len(groups))
    for column, group in enumerate(groups):
        members[list(group.members), column] = 1
        if set(group.members) >= set(_PLANTS.members):
            members[VEGETATION, column] = 1
    return WordList([sentence(rng, _pick(rng, group.names)) for group in groups], members)


def draw_captions(rng: np.random.Generator, batch: Batch, count: int) -> tuple[list[str], list[tuple[int, ...]]]:
    """Captions of the first ``count`` images, and for each the set of classes that it names.

    Captions of equal sets are positives of each other in the contrast, since the words differ and the matter doesn't.
    """
    shares = batch.shares.mean(dim=1).numpy()
    roofs, crops = batch.roofs.sum(dim=1).numpy(), batch.crops.sum(dim=1).numpy()
    captions, sets = [], []
    for index in range(min(count, len(shares))):
        order = [int(label) for label in np.argsort(-shares[index], kind="stable")]
        present = [
            label
            for label in order
            if shares[index, label] > _CAPTION_SHARE and (label in LEXICON or label == VEGETATION)
        ][:3]
        names = [_caption_name(rng, label, batch.water[index], roofs[index], crops[index]) for label in present]
        sets.append(tuple(sorted(present)))
        captions.append(sentence(rng, _joined(names)) if names else "an aerial image")
    return captions, sets


def _caption_name(
    rng: np.random.Generator, label: int, water: str, roofs: NDArray[np.float32], crops: NDArray[np.float32]
) -> str:
    if label == VEGETATION:
        return _pick(rng, _PLANTS.names)
    if label == WATER and water and rng.random() < 0.5:
        return water
    if label in (BUILDING, FARMLAND) and rng.random() < _COLOUR_CHANCE:
        colours, nouns, named, amounts = (
            (ROOF_COLOURS, ROOF_NOUNS, NAMED_ROOFS, roofs)
            if label == BUILDING
            else (CROP_COLOURS, CROP_NOUNS, NAMED_CROPS, crops)
        )
        best = int(amounts.argmax())
        if best in named and amounts[best] > _DOMINANT * amounts.sum():
            return f"{colours[best]} {_pick(rng, nouns)}"
    return _pick(rng, LEXICON[label].trained)


def _joined(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def draw_colour_texts(rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """One sentence for each named roof colour and one for each named crop colour."""
    roofs = [sentence(rng, f"{ROOF_COLOURS[index]} {_pick(rng, ROOF_NOUNS)}") for index in NAMED_ROOFS]
    crops = [sentence(rng, f"{CROP_COLOURS[index]} {_pick(rng, CROP_NOUNS)}") for index in NAMED_CROPS]
    return roofs, crops


def draw_synonyms(rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """For each class one thesaurus word and one trained word: text that is pulled together without any picture."""
    new = [sentence(rng, _pick(rng, words.thesaurus)) for words in LEXICON.values()]
    known = [sentence(rng, _pick(rng, words.trained)) for words in LEXICON.values()]
    return new, known
