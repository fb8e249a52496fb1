"""MM-OVSeg's tables on the embedded networks: frames to look at, rows to hand over.

Every number is the mean over the three seeds; its interval is a bootstrap over the test scenes of the seeds' pooled
counts. The paper's numbers stand beside ours through the tables' YAML, never in the same cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from rsovlib.data.suites import load_suite
from rsovlib.experiments.fusion.claims import contrast, gain_terms, judged, judged_gain, mean_of, record_seeds
from rsovlib.experiments.fusion.evaluation import (
    METHOD_TITLES,
    NOT_AVAILABLE,
    SCENES,
    SEEDS,
    SETTINGS,
    Condition,
    Score,
    over_seeds,
    paired,
    score,
)
from rsovlib.experiments.reporting import GAIN
from rsovlib.experiments.results import record
from rsovlib.metrics import Interval
from rsovlib.plots import Picture
from rsovlib.plots.intervals import plot_intervals

ALIGNED = Condition()
ABLATION = {"MM-OVSeg": "mm-ovseg", "without CMU": "mm-ovseg-no-cmu", "without CMU and DEF": "gsnet"}
"""Rows of Table 3: the last is GSNet, to the digit in the paper too."""
ABLATION_SUITE = "mm-ovseg-ddhr-sk"


def settings_table() -> pd.DataFrame:
    """Table 1 as it is here: the suites that stand for the six settings."""
    rows = {}
    for key, (title, name) in SETTINGS.items():
        suite = load_suite(name)
        clouds = "none" if suite.clouds is None else f"{suite.clouds.kind}, {suite.clouds.cover[0]:.0%} to "
        rows[key] = {
            "setting": title,
            "clouds (kind, cover)": clouds if suite.clouds is None else f"{clouds}{suite.clouds.cover[1]:.0%}",
            "seen": ", ".join(suite.seen),
            "unseen": ", ".join(suite.unseen),
        }
    return pd.DataFrame(rows).T


def settings_scores(
    methods: Sequence[str], metric: str = "miou", scenes: int = SCENES, seeds: Sequence[int] = SEEDS
) -> pd.DataFrame:
    """Methods by settings, in percent with intervals, and the mean of the settings; the rows are handed over.

    Args:
        methods: of :func:`rsovlib.experiments.fusion.evaluation.available_methods`.
        metric: "miou", "miou_seen" or "miou_unseen".
        scenes: of each setting.
        seeds: of the weights.
    """
    table: dict[str, dict[str, str]] = {}
    for method in tqdm(methods, desc=metric, unit="method"):
        title, row = METHOD_TITLES[method], {}
        means = np.zeros((len(SETTINGS), len(seeds)))
        for index, (key, (_, suite)) in enumerate(SETTINGS.items()):
            row[key] = str(over_seeds(method, suite, ALIGNED, metric, scenes, seeds))
            for place, seed in enumerate(seeds):
                found = score(method, seed, suite, ALIGNED, scenes)
                interval = found.interval(metric)
                means[index, place] = interval.value
                record_score(found, title, key, metric, interval=interval)
        for place, seed in enumerate(seeds):
            record(title, "mean", metric, means[:, place].mean(), unit="percent", dataset="six suites", seed=seed)
        row["mean"] = f"{means.mean():.1f} (seeds ± {_spread(means.mean(axis=0)):.1f})"
        table[title] = row
    for name, reason in NOT_AVAILABLE.items():
        for key, (_, suite) in SETTINGS.items():
            record(name, key, metric, None, unit="percent", dataset=suite, note=reason)
        table[name] = dict.fromkeys([*SETTINGS, "mean"], "not available")
    return pd.DataFrame(table).T


def record_score(found: Score, row: str, column: str, metric: str, **fields: Any) -> None:
    """Hands one score of one seed over."""
    record(
        row,
        column,
        metric,
        fields["interval"].value,
        unit="percent",
        n=len(found.counts.images),
        seed=found.seed,
        dataset=found.suite,
        weights=found.weights,
        device="cpu",
        **fields,
    )


def gains_table(
    pairs: Sequence[tuple[str, str]],
    metric: str = "miou",
    scenes: int = SCENES,
    seeds: Sequence[int] = SEEDS,
) -> pd.DataFrame:
    """First minus second method in each setting and their mean, points of percent; the seeds' rows are handed over.

    Each cell is judged by the verdicts' rule: whether the first method is better.

    Args:
        pairs: of methods.
        metric: which score.
        scenes: of each setting.
        seeds: of the weights.
    """
    rows = {}
    for first, second in tqdm(pairs, desc="gains", unit="pair"):
        name = f"{metric} gain over {METHOD_TITLES[second]}"
        parts: dict[int, list[Interval]] = {seed: [] for seed in seeds}
        row = {}
        for key, (_, suite) in SETTINGS.items():
            found = {seed: contrast(gain_terms(first, second, suite, ALIGNED, metric, scenes, seed)) for seed in seeds}
            row[key] = judged(record_seeds(found, METHOD_TITLES[first], key, name, dataset=suite, n=scenes))
            for seed in seeds:
                parts[seed].append(found[seed])
        means = {seed: mean_of(one) for seed, one in parts.items()}
        row["mean"] = judged(record_seeds(means, METHOD_TITLES[first], "mean", name, dataset="six suites", n=scenes))
        rows[f"{METHOD_TITLES[first]} - {METHOD_TITLES[second]}"] = {key: str(one) for key, one in row.items()}
    return pd.DataFrame(rows).T


def unseen_against_seen(first: str, second: str, scenes: int = SCENES, seeds: Sequence[int] = SEEDS) -> pd.DataFrame:
    """Gain on unseen classes minus gain on seen ones, in points, judged; the seeds' rows are handed over."""
    name, row = "gain on unseen minus on seen", f"{METHOD_TITLES[first]} - {METHOD_TITLES[second]}"
    texts = {}
    for key, (_, suite) in SETTINGS.items():
        found = {}
        for seed in seeds:
            unseen = gain_terms(first, second, suite, ALIGNED, "miou_unseen", scenes, seed)
            seen = gain_terms(first, second, suite, ALIGNED, "miou_seen", scenes, seed, -100.0)
            found[seed] = contrast([*unseen, *seen])
        texts[key] = str(judged(record_seeds(found, row, key, name, dataset=suite, n=scenes)))
    return pd.DataFrame({row: texts}).T


def ablation_table(scenes: int = SCENES, seeds: Sequence[int] = SEEDS) -> pd.DataFrame:
    """Table 3: IoU of every class of DDHR-SK, with and without CMU and DEF; the rows are handed over."""
    suite = load_suite(ABLATION_SUITE)
    order = ["forest", "city", "farmland", "road", "water"]
    table = {}
    for title, method in ABLATION.items():
        row = {}
        for name in [*order, "mIoU"]:
            metric = "miou" if name == "mIoU" else f"iou/{name}"
            row[name if name == "mIoU" else f"{name} ({'unseen' if name in suite.unseen else 'seen'})"] = str(
                over_seeds(method, ABLATION_SUITE, ALIGNED, metric, scenes, seeds)
            )
            for seed in seeds:
                found = score(method, seed, ABLATION_SUITE, ALIGNED, scenes)
                short = "miou" if name == "mIoU" else "iou"
                record_score(found, title, name, short, interval=found.interval(metric))
        table[title] = row
    return pd.DataFrame(table).T


def ablation_gains(scenes: int = SCENES, seeds: Sequence[int] = SEEDS) -> pd.DataFrame:
    """What CMU and what DEF are worth: on all, seen, unseen and clouded pixels; the seeds' rows are handed over."""
    steps = {
        "CMU": ("mm-ovseg", "mm-ovseg-no-cmu"),
        "DEF (radar branch without CMU)": ("mm-ovseg-no-cmu", "gsnet"),
        "both": ("mm-ovseg", "gsnet"),
    }
    metrics = {"mIoU": "miou", "seen": "miou_seen", "unseen": "miou_unseen", "under clouds": "cloudy/miou"}
    found: dict[str, dict[str, str]] = {}
    for step, (first, second) in steps.items():
        place: dict[str, Any] = {"count": scenes, "seeds": seeds, "row": step, "name": "step"}
        found[step] = {
            title: str(judged_gain(first, second, title, ABLATION_SUITE, ALIGNED, metric, **place))
            for title, metric in metrics.items()
        }
    for title, method in ABLATION.items():  # beside the paper's gains above its last row
        if method != "gsnet":
            judged_gain(method, "gsnet", "mIoU", ABLATION_SUITE, count=scenes, seeds=seeds, row=title, name=GAIN)
    return pd.DataFrame(found).T


def class_differences(
    first: str, second: str, scenes: int = SCENES, seeds: Sequence[int] = SEEDS
) -> Mapping[str, Mapping[str, tuple[float, float, float]]]:
    """IoU of every class of every setting, first minus second method, in points with paired intervals."""
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for key, (title, name) in SETTINGS.items():
        row = {}
        for one in load_suite(name).class_names:
            part = paired(first, second, name, ALIGNED, f"iou/{one}", scenes, seeds).difference
            if np.isfinite([part.value, part.low, part.high]).all():
                row[one] = (100 * part.value, 100 * part.low, 100 * part.high)
        found[f"{key}: {title}"] = row
    return found


def plot_class_differences(first: str, second: str, scenes: int = SCENES, seeds: Sequence[int] = SEEDS) -> Picture:
    """Figure 3 as differences: a row a class and setting."""
    found = class_differences(first, second, scenes, seeds)
    rows, labels, notes = {}, {}, {}
    for setting, classes in found.items():
        suite = load_suite(SETTINGS[setting.partition(":")[0]][1])
        for name, triple in classes.items():
            key = f"{setting} {name}"
            rows[key], labels[key] = triple, f"{setting}, {name}"
            notes[key] = "unseen" if name in suite.unseen else "seen"
    title = f"{METHOD_TITLES[first]} - {METHOD_TITLES[second]}"
    label = f"IoU of {title} (points of percent)"
    return plot_intervals(
        {title: rows}, order=list(rows), labels=labels, xlabel=label, notes=notes, notes_title="", linear=True
    )


def class_table(methods: Sequence[str], suite: str, scenes: int = SCENES, seeds: Sequence[int] = SEEDS) -> pd.DataFrame:
    """IoU of every class of a suite in percent, mean over the seeds, for several methods."""
    rows = {}
    for method in methods:
        parts = [score(method, seed, suite, ALIGNED, scenes).classes for seed in seeds]
        rows[METHOD_TITLES[method]] = {name: np.mean([part[name] for part in parts]) for name in parts[0]}
    return pd.DataFrame(rows).T.round(1)


def _spread(values: np.ndarray[Any, Any]) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
