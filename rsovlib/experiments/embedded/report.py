"""The scores of one pair, gathered: what the training notebook shows and the model cards quote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from rsovlib.backbones.clip import ClipBackbone
from rsovlib.backbones.dino import DinoBackbone
from rsovlib.data.lexicon import CLASSES
from rsovlib.data.scenes import SCENE_VERSION, make_scene
from rsovlib.experiments.embedded.alignment import fit_alignment
from rsovlib.experiments.embedded.controls import ColourBackbone, random_dino
from rsovlib.experiments.embedded.evaluation import (
    TESTED,
    Case,
    colour_scores,
    dubai_cases,
    ladder_configs,
    run_ladder,
    run_segmenter,
    scene_cases,
    value_path,
    word_lists,
)
from rsovlib.experiments.embedded.imagery import DUBAI_CLASSES, DUBAI_TEST
from rsovlib.experiments.embedded.recipe import TEST_SEEDS
from rsovlib.experiments.embedded.statistics import Counts, bootstrap, mean_iou
from rsovlib.metrics import class_scores
from rsovlib.segmenters.sdci import SDCIConfig

VALUE_PATH = "value path alone"
_CONTROL_ROWS = ("+ BCDR", "+ CSCP")


def score_pair(
    clip: ClipBackbone,
    dino: DinoBackbone,
    config: SDCIConfig,
    alignment_crops: torch.Tensor,
    *,
    scenes: int = 24,
    first_seed: int = TEST_SEEDS,
    colour_scenes: int = 60,
    real_imagery: str = "",
    real_tiles: Sequence[int] = DUBAI_TEST,
    per_part: int = 2,
) -> dict[str, Any]:
    """Scores a pair on scenes (and real tiles) that it was neither trained nor tuned on.

    Args:
        clip: the image-text model.
        dino: the structural model.
        config: SDCI's settings for it.
        alignment_crops: crops on which the control structures are aligned, as the DINO was; (B, 3, S, S) in [0, 1].
        scenes: how many simulated scenes.
        first_seed: seed of the first; the test scenes' by default.
        colour_scenes: how many scenes for the colours of roofs and fields.
        real_imagery: path of the Dubai zip file, or "".
        real_tiles: which of its tiles.
        per_part: squares of 256 x 256 a part of them.

    Returns:
        Plain values: tables of mean IoU with 95 % bootstrap intervals, the differences to the value path among them.
    """
    cases = scene_cases(scenes, first_seed)
    names = word_lists()["class names"]
    counts = _ladder_with_controls(clip, dino, config, cases, names, alignment_crops)
    result: dict[str, Any] = {
        "settings": asdict(config),
        "scene_version": SCENE_VERSION,
        "scenes": scenes,
        "first_scene_seed": first_seed,
        "chance": _chance(cases, len(TESTED)),
        "ladder": _table(counts),
        "class_iou": _class_iou(counts["+ CSCP"], [CLASSES[label] for label in TESTED]),
        "words": {
            name: _entry(run_segmenter(value_path(clip), cases, words)) | {"words": words}
            for name, words in word_lists().items()
        },
        "colours": _colours(clip, first_seed, colour_scenes),
    }
    if real_imagery:
        real = dubai_cases(Path(real_imagery), real_tiles, per_part)
        found = _ladder_with_controls(clip, dino, config, real, list(DUBAI_CLASSES), alignment_crops)
        result["dubai"] = {
            "tiles": list(real_tiles),
            "squares": len(real),
            "chance": _chance(real, len(DUBAI_CLASSES)),
            "ladder": _table(found),
            "class_iou": _class_iou(found["+ CSCP"], list(DUBAI_CLASSES)),
            "value_path_class_iou": _class_iou(found[VALUE_PATH], list(DUBAI_CLASSES)),
        }
    return result


def _ladder_with_controls(
    clip: ClipBackbone,
    dino: DinoBackbone,
    config: SDCIConfig,
    cases: Sequence[Case],
    names: Sequence[str],
    alignment_crops: torch.Tensor,
) -> dict[str, Counts]:
    configs = ladder_configs(config)
    counts = {VALUE_PATH: run_segmenter(value_path(clip), cases, names)}
    counts |= run_ladder(clip, dino, cases, names, configs)
    for label, structure in (("random DINO", random_dino()), ("raw colour", ColourBackbone())):
        weight, bias, _ = fit_alignment(clip, structure, alignment_crops)
        structure.alignment = (weight, bias)
        rows = run_ladder(clip, structure, cases, names, {row: configs[row] for row in _CONTROL_ROWS})
        counts |= {f"{row}, {label}": found for row, found in rows.items()}
    return counts


def _entry(counts: Counts) -> dict[str, float]:
    interval = bootstrap(counts)
    return {"miou": round(interval.value, 2), "low": round(interval.low, 2), "high": round(interval.high, 2)}


def _table(counts: dict[str, Counts]) -> dict[str, dict[str, float]]:
    """Each row's mean IoU, and its difference to the value path, with 95 % intervals over the images."""
    rows = {}
    for name, found in counts.items():
        gain = bootstrap(found, counts[VALUE_PATH])
        rows[name] = _entry(found) | {
            "gain": round(gain.value, 2),
            "gain_low": round(gain.low, 2),
            "gain_high": round(gain.high, 2),
        }
    return rows


def _class_iou(counts: Counts, names: Sequence[str]) -> dict[str, float]:
    iou = class_scores(counts.sum(axis=0), mean_over="all")["iou"]
    return {name: round(float(100 * value), 1) for name, value in zip(names, iou, strict=True)}


def _colours(clip: ClipBackbone, first_seed: int, count: int) -> dict[str, Any]:
    scenes = [make_scene(160, first_seed + index, modalities=()) for index in range(count)]
    return {
        noun: {"accuracy": {name: value for name, value in score.accuracy.items() if value == value}}
        | {"held_out": score.held_out, "chance": round(100 / len(score.accuracy), 1)}
        for noun, score in colour_scores(clip, scenes).items()
    }


def compare_clips(
    chosen: ClipBackbone, other: ClipBackbone, cases: Mapping[str, tuple[Sequence[Case], Sequence[str]]]
) -> dict[str, dict[str, dict[str, float]]]:
    """Two CLIPs on the same images, value path: whether a change of the training data was worth it.

    Args:
        chosen: trained with the change.
        other: trained without it.
        cases: for each name the labelled images and the class names that are typed for them.

    Returns:
        For each name the mean IoU of both and the difference, each with its 95 % bootstrap interval.
    """
    table = {}
    for name, (images, words) in cases.items():
        first, second = (run_segmenter(value_path(clip), images, words) for clip in (chosen, other))
        gain = bootstrap(first, second)
        difference = {"miou": round(gain.value, 2), "low": round(gain.low, 2), "high": round(gain.high, 2)}
        table[name] = {"chosen": _entry(first), "other": _entry(second), "difference": difference}
    return table


def ladder_frame(ladder: dict[str, dict[str, float]]) -> pd.DataFrame:
    """A table of :func:`score_pair` for reading."""
    return pd.DataFrame(
        {
            name: {
                "mIoU": f"{row['miou']:.1f} [{row['low']:.1f}, {row['high']:.1f}]",
                "against the value path": f"{row['gain']:+.1f} [{row['gain_low']:+.1f}, {row['gain_high']:+.1f}]",
            }
            for name, row in ladder.items()
        }
    ).T


def _chance(cases: Sequence[Case], classes: int) -> dict[str, float]:
    """Mean IoU of guessing: always the commonest class, and every class equally often."""
    total = np.sum([np.bincount(case.labels[case.labels < classes], minlength=classes) for case in cases], axis=0)
    majority = np.zeros((classes, classes))
    majority[:, int(total.argmax())] = total
    uniform = np.tile(total[:, None] / classes, (1, classes))
    return {"majority": round(float(mean_iou(majority)), 2), "uniform": round(float(mean_iou(uniform)), 2)}
