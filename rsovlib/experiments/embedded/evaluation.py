"""What a pair of small models scores: SDCI's ladder with its control rows, kinds of words, real tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from rsovlib.backbones.clip import ClipBackbone
from rsovlib.backbones.dino import DinoBackbone
from rsovlib.data.classes import parse_classes
from rsovlib.data.lexicon import (
    BARE,
    BUILDING,
    CLASSES,
    CROP_COLOURS,
    FARMLAND,
    FOREST,
    GRASS,
    HELD_OUT_CROP,
    HELD_OUT_ROOF,
    LEXICON,
    NONSENSE,
    ROAD,
    ROOF_COLOURS,
    WATER,
)
from rsovlib.data.scenes import Scene, make_scene
from rsovlib.experiments.embedded.imagery import dubai_parts
from rsovlib.experiments.embedded.samples import IGNORE
from rsovlib.experiments.embedded.statistics import Counts
from rsovlib.metrics import confusion_matrix
from rsovlib.segmenters.sdci import SDCI, SDCIConfig
from rsovlib.segmenters.valuepath import ValuePath

TESTED = (BUILDING, ROAD, WATER, BARE, FOREST, FARMLAND, GRASS)
"""Classes of the scenes that the tables score; cars, orchards and pools are ignored."""

SIDE = 256


@dataclass(frozen=True)
class Case:
    """One labelled image: labels (H, W) index the class list that it is tested with, 255 is ignored."""

    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def scene_cases(count: int, first_seed: int, side: int = SIDE) -> list[Case]:
    """Simulated scenes with labels over :data:`TESTED`."""
    table = np.full(len(CLASSES), IGNORE, np.uint8)
    table[list(TESTED)] = np.arange(len(TESTED))
    made = [make_scene(side, first_seed + index, modalities=()) for index in range(count)]
    return [Case(f"scene {scene.seed}", scene.optical, table[scene.labels]) for scene in made]


def dubai_cases(archive: Path, tiles: Iterable[int], per_part: int = 4, side: int = SIDE) -> list[Case]:
    """Squares cut from the middle of every part of some Dubai tiles.

    Args:
        archive: zip file of the set.
        tiles: which tiles.
        per_part: at most so many squares a part, the innermost ones.
        side: of a square.
    """
    cases = []
    for name, image, labels in dubai_parts(archive, tiles):
        height, width = labels.shape
        rows, columns = height // side, width // side
        top, left = (height - rows * side) // 2, (width - columns * side) // 2
        cells = [(row, column) for row in range(rows) for column in range(columns)]
        cells.sort(key=lambda cell: abs(cell[0] - (rows - 1) / 2) + abs(cell[1] - (columns - 1) / 2))
        for row, column in sorted(cells[:per_part]):
            y, x = top + row * side, left + column * side
            square = np.s_[y : y + side, x : x + side]
            cases.append(Case(f"{name} {row},{column}", np.ascontiguousarray(image[square]), labels[square]))
    return cases


def confusion(predicted: NDArray[np.integer[Any]], truth: NDArray[np.uint8], classes: int) -> Counts:
    """Pixel counts (K, K), rows are the truth; ignored pixels are dropped."""
    return confusion_matrix(predicted, truth, classes, IGNORE)[:, :classes]


# ---- the ladder ------------------------------------------------------------------------------------------------------


def ladder_configs(config: SDCIConfig) -> dict[str, SDCIConfig]:
    """SDCI's steps one after another, and the rows that say what each of them is worth alone."""
    return {
        "baseline": replace(config, caf=False, bcdr=False, cscp=False),
        "+ CAF": replace(config, bcdr=False, cscp=False),
        "+ BCDR": replace(config, cscp=False),
        "+ CSCP": config,
        "BCDR without CAF": replace(config, caf=False, cscp=False),
        "CSCP, lambda_D = 0": replace(config, lambda_dino=0.0),
    }


def run_ladder(
    clip: ClipBackbone,
    dino: DinoBackbone,
    cases: Sequence[Case],
    classes: Sequence[str],
    configs: Mapping[str, SDCIConfig],
) -> dict[str, Counts]:
    """Confusion matrices of several readings of SDCI; each image goes through the networks once.

    Args:
        clip: the image-text model.
        dino: the structural model.
        cases: labelled images, none larger than the configurations' window.
        classes: what is typed.
        configs: named configurations that differ in what comes after the networks.

    Returns:
        For each name (images, K, K).
    """
    prompts = parse_classes(classes)
    segmenters = {name: SDCI(clip, dino, config) for name, config in configs.items()}
    counts: dict[str, list[Counts]] = {name: [] for name in configs}
    first = next(iter(segmenters.values()))
    with torch.inference_mode():
        text = first.encode_text(prompts)
        for case in tqdm(cases, desc=f"SDCI, {dino.name}", unit="image"):
            features = first.encode_image(case.image)
            refined: dict[SDCIConfig, dict[str, torch.Tensor]] = {}
            for name, segmenter in segmenters.items():
                before = _before_the_convex_step(segmenter.config)
                if before not in refined:
                    scores = segmenter.score(features, text, len(prompts))
                    refined[before] = segmenter.refine(features, *scores)
                maps = refined[before]
                fused, _ = segmenter.solve(case.image, maps["clip_map"], maps["dino_map"])
                labels = fused.argmax(dim=0).cpu().numpy()
                counts[name].append(confusion(labels, case.labels, len(prompts)))
    return {name: np.stack(rows) for name, rows in counts.items()}


def _before_the_convex_step(config: SDCIConfig) -> SDCIConfig:
    """The same for all configurations that differ in the convex step only."""
    return replace(config, cscp=False, lambda_clip=1.0, lambda_dino=0.0, beta=0.0)


def run_segmenter(
    segmenter: Callable[[Any, Sequence[str]], Any], cases: Sequence[Case], classes: Sequence[str]
) -> Counts:
    """Confusion matrices of a segmenter, (images, K, K)."""
    found = [confusion(segmenter(case.image, classes).labels, case.labels, len(classes)) for case in cases]
    return np.stack(found)


def value_path(clip: ClipBackbone) -> ValuePath:
    """CLIP alone: the control row below the ladder."""
    return ValuePath(clip, clip_size=None, window=SIDE)


# ---- words -----------------------------------------------------------------------------------------------------------


def word_lists() -> dict[str, list[str]]:
    """Lists for :data:`TESTED`, by what training has told the models about their words.

    Every class takes its first two words of a kind as synonyms, and one nonsense word.
    """

    def listed(kind: str, start: int = 0) -> list[str]:
        return [", ".join(getattr(LEXICON[label], kind)[start : start + 2]) for label in TESTED]

    return {
        "class names": [CLASSES[label] for label in TESTED],
        "other trained words": listed("trained", 1),
        "thesaurus words": listed("thesaurus"),
        "new combinations": listed("combined"),
        "unseen words": listed("unseen"),
        **{f"nonsense {number}": list(words) for number, words in enumerate(NONSENSE, start=1)},
    }


@dataclass(frozen=True)
class ColourScore:
    """How often a coloured name finds its object among names that differ in colour alone.

    Attributes:
        accuracy: share of correct pixels by colour, in per cent; NaN where there is none.
        held_out: the colour that training never put into words.
    """

    accuracy: dict[str, float]
    held_out: str


def colour_scores(clip: ClipBackbone, scenes: Sequence[Scene]) -> dict[str, ColourScore]:
    """Composition of colour and noun: pixels of roofs (fields) are told apart by "red roof", "blue roof", ..."""
    path = value_path(clip)
    jobs = {
        "roof": (BUILDING, ROOF_COLOURS, HELD_OUT_ROOF, "roof"),
        "field": (FARMLAND, CROP_COLOURS, HELD_OUT_CROP, "crop"),
    }
    scores = {}
    for noun, (label, colours, held_out, attribute) in jobs.items():
        names = [f"{colour} {noun}" for colour in colours]
        hits, total = np.zeros(len(colours)), np.zeros(len(colours))
        for scene in scenes:
            where = scene.labels == label
            if not where.any():
                continue
            found = path(scene.optical, names).labels[where]
            truth = getattr(scene, attribute)[where]
            total += np.bincount(truth, minlength=len(colours))
            hits += np.bincount(truth[found == truth], minlength=len(colours))
        share = np.divide(100 * hits, total, out=np.full(len(colours), np.nan), where=total > 0)
        scores[noun] = ColourScore(dict(zip(colours, share.round(1).tolist(), strict=True)), held_out)
    return scores
