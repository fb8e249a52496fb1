"""Networks that are trained for a table alone and don't ship: CMU's target (Table A5), and the readings' effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rsovlib.experiments.comparison import combine
from rsovlib.experiments.fusion.evaluation import row_fields, score_network, trained_segmenter
from rsovlib.experiments.fusion.networks import TrainedNetwork, find_networks
from rsovlib.experiments.fusion.recipe import READINGS, ExperimentRecipe, named_readings, network_config
from rsovlib.experiments.fusion.scenes import PLAIN, SCENES, Condition
from rsovlib.experiments.fusion.training import (
    Encoders,
    held_out_pool,
    train_encoders,
    train_method,
    training_pools,
)
from rsovlib.experiments.results import ResultRow, record
from rsovlib.fusion.config import FusionConfig, Readings
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

UNSEEN_CALLED_SEEN = "pixels of unseen classes called a seen one"
_METRICS = {"miou": "mIoU", "miou_seen": "seen", "miou_unseen": "unseen"}


@dataclass
class VariantScores:
    """Counts of several variants on the same test scenes.

    Attributes:
        reference: the variant that the others are compared with.
        meters: by name, of one seed.
        seed: of the trainings.
        seconds: CPU time of each training.
        about: what result rows say of scenes and device.
        weights: name -> names and hashes of its weights.
        notes: name -> what a reader must know.
    """

    reference: str
    meters: dict[str, SegmentationMetrics] = field(default_factory=dict)
    seed: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=lambda: {"dataset": SUITE, "device": "cpu"})
    weights: dict[str, dict[str, str]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """A row a variant, in percent.

        mIoU of all, seen and unseen classes with intervals; the share of the unseen classes' pixels that it gives to a
        seen class; and the difference in mIoU to the reference, paired over scenes.
        """
        rows = {}
        for name, meter in self.meters.items():
            row: dict[str, str] = {}
            for metric, title in _METRICS.items():
                part = confidence_interval(meter, metric)
                row[title] = f"{100 * part.value:.1f} [{100 * part.low:.1f}, {100 * part.high:.1f}]"
            row["unseen called seen"] = f"{100 * unseen_called_seen(meter):.1f}"
            if name != self.reference and self.reference in self.meters:
                gap = compare(meter, self.meters[self.reference]).difference
                text = f"{100 * gap.value:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
                row[f"mIoU against {self.reference!r}"] = text
            rows[name] = row
        return pd.DataFrame(rows).T.fillna("")

    def hand_over(self, column: str, also: Sequence[str] = (), **fields: Any) -> None:
        """The rows: each network's mIoU of all, seen and unseen classes, and its gains, paired over the scenes.

        Args:
            column: of the rows.
            also: variants that the others are compared with beside the reference.
            fields: of the rows beside what they say anyway.
        """
        for name, meter in self.meters.items():
            extra = {"weights": self.weights[name]} if name in self.weights else {}
            about = {"unit": "percent", "seed": self.seed, "note": self.notes.get(name, "")}
            about |= self.about | {"n": len(meter.images)} | extra | fields
            found = {metric: confidence_interval(meter, metric) for metric in _METRICS}
            for other in (self.reference, *also):
                if other != name and other in self.meters:
                    for metric in _METRICS:
                        difference = compare(meter, self.meters[other], metric).difference
                        found[f"{metric} gain over {other}"] = difference
            for metric, part in found.items():
                missing = {} if np.isfinite(part.value) else {"note": "none of the classes is in these scenes"}
                ends = {"low": 100 * part.low, "high": 100 * part.high}
                record(name, column, metric, 100 * part.value, **about | ends | missing)
            strayed = 100 * unseen_called_seen(meter)
            missing = {} if np.isfinite(strayed) else {"note": "no unseen class is in these scenes"}
            record(name, column, UNSEEN_CALLED_SEEN, strayed, **about | missing)


def unseen_called_seen(meter: SegmentationMetrics) -> float:
    """Of the pixels of classes that weren't trained on, the share that a class that was is written over.

    It says what a gain on unseen classes comes from: fewer of their pixels taken by seen ones, or a better choice among
    the unseen. A pixel without an answer isn't called seen.

    Returns:
        In [0, 1]; NaN where no such pixel is.
    """
    unseen = np.array([name in meter.unseen for name in meter.classes])
    rows = meter.confusion[unseen]
    pixels = int(rows.sum())
    return float(rows[:, :-1][:, ~unseen].sum() / pixels) if pixels else float("nan")


def cmu_target_scores(
    networks: Sequence[str],
    source: str,
    scenes: int,
    device: str,
    *,
    seed: int = 0,
    share: float = 1.0,
    out: str = ".",
) -> list[VariantScores]:
    """Table A5: of given networks, or of the embedded ones of a seed, which are then trained here.

    Args:
        networks: folders of trainings in the full profile; none trains here.
        source: of the test scenes.
        scenes: how many; 0 takes all.
        device: where given networks compute.
        seed: of the trainings here.
        share: of the embedded recipe's steps and scenes.
        out: folder of the checkpoints of the trainings here.

    Returns:
        The scores, a seed each.
    """
    if networks:
        return given_cmu_targets(find_networks(networks), source, scenes, device)
    return [score_cmu_targets(seed, _recipe(share), Path(out), scenes)]


def reading_scores(
    networks: Sequence[str],
    source: str,
    scenes: int,
    device: str,
    *,
    seed: int = 0,
    share: float = 1.0,
    out: str = ".",
) -> list[VariantScores]:
    """What each reading does; see :func:`cmu_target_scores` for the arguments."""
    if networks:
        return given_readings(find_networks(networks), source, scenes, device)
    return [score_readings(seed, _recipe(share), Path(out), scenes=scenes)]


def _recipe(share: float) -> ExperimentRecipe:
    return ExperimentRecipe() if share == 1 else ExperimentRecipe().shorter(share)


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
        found.meters[name] = _scored(trained.network, "mm-ovseg", scenes, _shown_to(config.readings))
        found.seconds[name] = trained.history[-1]["cpu_seconds"]
    return found


def given_cmu_targets(networks: Sequence[TrainedNetwork], source: str, scenes: int, device: str) -> list[VariantScores]:
    """Scores Table A5's four networks, or those of them that are given, a :class:`VariantScores` a seed."""
    rows = {method: row for row, method in CMU_TARGETS.items()}
    named = [(rows[one.method], one) for one in networks if one.method in rows and one.readings == "corrected"]
    return _score_given(named, "neither", list(CMU_TARGETS), source, scenes, device)


def given_readings(networks: Sequence[TrainedNetwork], source: str, scenes: int, device: str) -> list[VariantScores]:
    """Scores MM-OVSeg under those readings of which a network is given, a :class:`VariantScores` a seed."""
    named = [(one.readings, one) for one in networks if one.method == "mm-ovseg"]
    return _score_given(named, "corrected", list(READINGS), source, scenes, device)


def _score_given(
    named: Sequence[tuple[str, TrainedNetwork]],
    reference: str,
    order: Sequence[str],
    source: str,
    scenes: int,
    device: str,
) -> list[VariantScores]:
    found: dict[int, VariantScores] = {}
    about = row_fields(source, scenes, ())
    if any(network.unlike_paper for _, network in named):
        about["dataset"] = f"{about['dataset']} (own recipe)"
    for name, network in sorted(named, key=lambda one: order.index(one[0])):
        made = trained_segmenter(network, device)
        shown = _shown_to(named_readings(network.readings))
        about["device"] = made.device.type
        one = found.setdefault(network.seed, VariantScores(reference, seed=network.seed, about=about))
        one.meters[name] = score_network(made, source, shown, scenes)[0]
        one.seconds[name] = network.record["last"]["cpu_seconds"]
        settings = made.settings()
        one.weights[name] = {str(settings["weights"]): str(settings["weights_sha256"])}
        one.notes[name] = "; ".join(part for part in (network.unlike_paper, network.stand_ins) if part)
    return list(found.values())


def seed_means(rows: Sequence[ResultRow], table: str, metric: str) -> pd.DataFrame:
    """The mean of a metric over the seeds: a row a variant; columns ``mean`` and ``seeds``, their number."""
    groups: dict[str, list[ResultRow]] = {}
    for one in rows:
        if (one.table, one.metric) == (table, metric):
            groups.setdefault(one.row, []).append(one)
    means = {row: combine(group) for row, group in groups.items()}
    there = {row: {"mean": mean.value, "seeds": len(mean.seeds)} for row, mean in means.items() if mean is not None}
    return pd.DataFrame.from_dict(there, orient="index", columns=["mean", "seeds"])


def _shown_to(readings: Readings) -> Condition:
    """How scenes are shown to a network: the evaluation follows its reading, too."""
    return PLAIN if readings.sar_follows_optical else Condition(sar="released")


def _scored(network: Any, method: str, scenes: int, condition: Condition = PLAIN) -> SegmentationMetrics:
    made = FusionSegmenter(network, method, FusionOptions(window=0, keep_stages=False))
    return score_network(made, SUITE, condition, scenes)[0]
