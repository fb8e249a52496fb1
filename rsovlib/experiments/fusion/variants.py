"""Networks that are trained for a table alone and don't ship: CMU's target (Table A5), and the readings' effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from rsovlib.experiments.fusion.evaluation import SCENES, Condition, score_network
from rsovlib.experiments.fusion.recipe import ExperimentRecipe, network_config
from rsovlib.experiments.fusion.training import (
    Encoders,
    held_out_pool,
    train_encoders,
    train_method,
    training_pools,
)
from rsovlib.experiments.results import record
from rsovlib.fusion.config import FusionConfig
from rsovlib.fusion.segmenter import FusionOptions, FusionSegmenter
from rsovlib.metrics import SegmentationMetrics, compare, confidence_interval

SUITE = "mm-ovseg-ddhr-sk"
CMU_TARGETS = {
    "neither": "mm-ovseg-no-cmu",
    "CLIP": "cmu-on-clip",
    "DINO": "mm-ovseg",
    "CLIP and DINO": "cmu-on-both",
}
"""Rows of Table A5."""

READINGS: Mapping[str, Mapping[str, bool]] = {
    "corrected": {},
    "SAR not aligned (release)": {"sar_follows_optical": False},
    "ignored pixels are negatives (release)": {"unseen_left_out": False},
    "CLIP's statistics for all (release)": {"own_statistics": False},
    "first synonym only (release)": {"all_synonyms": False},
    "all of the release's readings": {
        "sar_follows_optical": False,
        "unseen_left_out": False,
        "own_statistics": False,
        "all_synonyms": False,
        "masks_missing_sar": False,
        "shows_logits_resized": False,
        "plain_class_names": False,
    },
}
"""What is changed against the corrected reading, one at a time and together."""


@dataclass
class VariantScores:
    """Counts of several variants on the same test scenes.

    Attributes:
        reference: the variant that the others are compared with.
        meters: by name, of one seed.
        seed: of the trainings.
        seconds: CPU time of each training.
    """

    reference: str
    meters: dict[str, SegmentationMetrics] = field(default_factory=dict)
    seed: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """mIoU of all, seen and unseen classes in percent, and the difference to the reference, paired over scenes."""
        rows = {}
        for name, meter in self.meters.items():
            row: dict[str, str] = {}
            for title, metric in (("mIoU", "miou"), ("seen", "miou_seen"), ("unseen", "miou_unseen")):
                part = confidence_interval(meter, metric)
                row[title] = f"{100 * part.value:.1f} [{100 * part.low:.1f}, {100 * part.high:.1f}]"
            if name != self.reference:
                gap = compare(meter, self.meters[self.reference]).difference
                text = f"{100 * gap.value:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
                row[f"mIoU against {self.reference!r}"] = text
            rows[name] = row
        return pd.DataFrame(rows).T.fillna("")

    def hand_over(self, column: str, **fields: Any) -> None:
        """The rows."""
        for name, meter in self.meters.items():
            part = confidence_interval(meter, "miou")
            record(
                name,
                column,
                "miou",
                100 * part.value,
                low=100 * part.low,
                high=100 * part.high,
                unit="percent",
                n=len(meter.images),
                seed=self.seed,
                dataset=SUITE,
                device="cpu",
                **fields,
            )


def score_cmu_targets(seed: int, recipe: ExperimentRecipe, folder: Path | None, scenes: int = SCENES) -> VariantScores:
    """Trains and scores Table A5's four networks."""
    pools = training_pools(recipe)
    methods = list(CMU_TARGETS.values())
    encoders = train_encoders(pools, held_out_pool(recipe), recipe, seed, methods, folder)
    found = VariantScores("neither", seed=seed)
    for row, method in CMU_TARGETS.items():
        trained = train_method(method, pools, encoders, recipe, seed, folder)
        found.meters[row] = _scored(trained.network, method, scenes)
        found.seconds[row] = trained.history[-1]["cpu_seconds"]
    return found


def score_readings(
    seed: int,
    recipe: ExperimentRecipe,
    folder: Path | None,
    names: Sequence[str] = tuple(READINGS),
    scenes: int = SCENES,
) -> VariantScores:
    """Trains and scores MM-OVSeg under each reading; evaluation follows the reading too."""
    pools = training_pools(recipe)
    encoders: Encoders = train_encoders(pools, held_out_pool(recipe), recipe, seed, ["mm-ovseg"], folder)
    found = VariantScores("corrected", seed=seed)
    for index, name in enumerate(names):
        config: FusionConfig = network_config("mm-ovseg").with_readings(**READINGS[name])
        trained = train_method(
            "mm-ovseg", pools, encoders, recipe, seed, folder, config=config, label=f"reading-{index}"
        )
        condition = Condition() if config.readings.sar_follows_optical else Condition(sar="released")
        found.meters[name] = _scored(trained.network, "mm-ovseg", scenes, condition)
        found.seconds[name] = trained.history[-1]["cpu_seconds"]
    return found


def _scored(network: Any, method: str, scenes: int, condition: Condition | None = None) -> SegmentationMetrics:
    made = FusionSegmenter(network, method, FusionOptions(window=0, keep_stages=False))
    return score_network(made, SUITE, condition or Condition(), scenes)[0]
