"""MM-OVSeg's tables: frames to look at, rows to hand over.

Every number is the mean over the seeds; its interval is a bootstrap over the test scenes of the seeds' pooled counts.
The paper's numbers stand beside ours through the tables' YAML, never in the same cell. Settings are the six suites of
the embedded profile unless others are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from rsovlib.data.manifest import load_manifest
from rsovlib.data.suites import load_suite
from rsovlib.experiments.fusion.claims import contrast, gain_terms, judged, judged_gain, mean_of, record_seeds
from rsovlib.experiments.fusion.evaluation import (
    METHOD_TITLES,
    NOT_AVAILABLE,
    SEEDS,
    Score,
    over_seeds,
    paired,
    row_fields,
    score,
)
from rsovlib.experiments.fusion.scenes import PLAIN, SCENES, scenes_of
from rsovlib.experiments.fusion.settings import SETTINGS, suite_settings, title_of
from rsovlib.experiments.reporting import GAIN
from rsovlib.experiments.results import record
from rsovlib.metrics import Interval
from rsovlib.plots import Picture
from rsovlib.plots.intervals import plot_intervals

Settings = Mapping[str, str]
"""Key of a setting -> source of its test scenes."""
MEAN_MISSING = "the mean needs all six settings in one run; the notebook of the verdicts takes it over the runs"
ABLATION = {"MM-OVSeg": "mm-ovseg", "without CMU": "mm-ovseg-no-cmu", "without CMU and DEF": "gsnet"}
"""Rows of Table 3: the last is GSNet, to the digit in the paper too."""
ABLATION_SUITE = "mm-ovseg-ddhr-sk"


def settings_table(settings: Settings | None = None) -> pd.DataFrame:
    """Table 1 as it is here: what stands for each of the six settings, or is it."""
    rows = {}
    for key, source in (settings or suite_settings()).items():
        scenes = scenes_of(source)
        seen = [name for name in scenes.classes if name not in scenes.unseen]
        rows[key] = {
            "setting": title_of(key),
            "clouds (kind, cover)": _clouds_of(source),
            "seen": ", ".join(seen),
            "unseen": ", ".join(scenes.unseen),
        }
        if scenes.source != scenes.dataset:
            rows[key] |= {"scenes": scenes.source, "test scenes": str(scenes.count("test"))}
    return pd.DataFrame(rows).T


def _clouds_of(source: str) -> str:
    """Kind and cover of a source's clouds, in words."""
    scenes = scenes_of(source)
    clouds: Any
    if scenes.source == scenes.dataset:
        clouds = load_suite(scenes.dataset).clouds
    else:
        manifest = load_manifest(scenes.dataset)
        name = manifest.protocol(scenes.source.rpartition("/")[2]).clouds
        clouds = None if name is None else manifest.clouds[name]
    if clouds is None:
        return "none"
    return clouds.kind if clouds.cover is None else f"{clouds.kind}, {clouds.cover[0]:.0%} to {clouds.cover[1]:.0%}"


def settings_scores(
    methods: Sequence[str],
    metric: str = "miou",
    scenes: int = SCENES,
    seeds: Sequence[int] = SEEDS,
    settings: Settings | None = None,
    missing: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Methods by settings, in percent with intervals, and the mean of the settings; the rows are handed over.

    Args:
        methods: of :func:`rsovlib.experiments.fusion.evaluation.available_methods`.
        metric: "miou", "miou_seen" or "miou_unseen".
        scenes: of each setting; 0 takes all.
        seeds: of the weights.
        settings: see :data:`Settings`.
        missing: method -> why it can't be scored; its cells are handed over as not run.
    """
    settings = settings or suite_settings()
    is_whole = set(settings) == set(SETTINGS)
    about = {"unit": "percent", "dataset": "six suites" if settings == suite_settings() else "the six settings"}
    table: dict[str, dict[str, str]] = {}
    for method in tqdm(methods, desc=metric, unit="method"):
        title, row = METHOD_TITLES[method], {}
        means = np.zeros((len(settings), len(seeds)))
        for index, (key, source) in enumerate(settings.items()):
            row[key] = str(over_seeds(method, source, PLAIN, metric, scenes, seeds))
            for place, seed in enumerate(seeds):
                found = score(method, seed, source, PLAIN, scenes)
                interval = found.interval(metric)
                means[index, place] = interval.value
                record_score(found, title, key, metric, interval=interval)
        for place, seed in enumerate(seeds):
            mean = {"value": means[:, place].mean()} if is_whole else {"value": None, "note": MEAN_MISSING}
            record(title, "mean", metric, seed=seed, **mean, **about)
        if is_whole:
            row["mean"] = f"{means.mean():.1f} (seeds ± {_spread(means.mean(axis=0)):.1f})"
        table[title] = row
    reasons = {METHOD_TITLES[method]: reason for method, reason in (missing or {}).items()} | NOT_AVAILABLE
    columns = [*settings, *(["mean"] if is_whole else [])]
    for name, reason in reasons.items():
        for key, source in settings.items():
            record(name, key, metric, None, unit="percent", dataset=scenes_of(source).dataset, note=reason)
        table[name] = dict.fromkeys(columns, "not available" if name in NOT_AVAILABLE else "not run")
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
        dataset=found.dataset,
        weights=found.weights,
        device=found.device,
        note=found.note,
        **fields,
    )


def gains_table(
    pairs: Sequence[tuple[str, str]],
    metric: str = "miou",
    scenes: int = SCENES,
    seeds: Sequence[int] = SEEDS,
    settings: Settings | None = None,
) -> pd.DataFrame:
    """First minus second method in each setting and their mean, points of percent; the seeds' rows are handed over.

    Each cell is judged by the verdicts' rule: whether the first method is better.

    Args:
        pairs: of methods.
        metric: which score.
        scenes: of each setting; 0 takes all.
        seeds: of the weights.
        settings: see :data:`Settings`.
    """
    settings = settings or suite_settings()
    rows = {}
    for first, second in tqdm(pairs, desc="gains", unit="pair"):
        name = f"{metric} gain over {METHOD_TITLES[second]}"
        parts: dict[int, list[Interval]] = {seed: [] for seed in seeds}
        row = {}
        for key, source in settings.items():
            found = {seed: contrast(gain_terms(first, second, source, PLAIN, metric, scenes, seed)) for seed in seeds}
            about = row_fields(source, scenes, (first, second), seeds[0])
            row[key] = judged(record_seeds(found, METHOD_TITLES[first], key, name, **about))
            for seed in seeds:
                parts[seed].append(found[seed])
        if set(settings) == set(SETTINGS):
            means = {seed: mean_of(one) for seed, one in parts.items()}
            about = {"dataset": "six suites" if settings == suite_settings() else "the six settings", "n": scenes}
            row["mean"] = judged(record_seeds(means, METHOD_TITLES[first], "mean", name, **about))
        rows[f"{METHOD_TITLES[first]} - {METHOD_TITLES[second]}"] = {key: str(one) for key, one in row.items()}
    return pd.DataFrame(rows).T


def compared_pairs(methods: Sequence[str]) -> list[tuple[str, str]]:
    """What Table 2 compares, of methods that can be scored: MM-OVSeg with each other one, and GSNet with CAT-Seg."""
    pairs = [("mm-ovseg", name) for name in methods[::-1] if name != "mm-ovseg"] + [("gsnet", "cat-seg")]
    return [pair for pair in pairs if set(pair) <= set(methods)]


def unseen_against_seen(
    first: str,
    second: str,
    scenes: int = SCENES,
    seeds: Sequence[int] = SEEDS,
    settings: Settings | None = None,
) -> pd.DataFrame:
    """Gain on unseen classes minus gain on seen ones, in points, judged; the seeds' rows are handed over."""
    name, row = "gain on unseen minus on seen", f"{METHOD_TITLES[first]} - {METHOD_TITLES[second]}"
    texts = {}
    for key, source in (settings or suite_settings()).items():
        found = {}
        for seed in seeds:
            unseen = gain_terms(first, second, source, PLAIN, "miou_unseen", scenes, seed)
            seen = gain_terms(first, second, source, PLAIN, "miou_seen", scenes, seed, -100.0)
            found[seed] = contrast([*unseen, *seen])
        about = row_fields(source, scenes, (first, second), seeds[0])
        texts[key] = str(judged(record_seeds(found, row, key, name, **about)))
    return pd.DataFrame({row: texts}).T


def ablation_table(
    scenes: int = SCENES,
    seeds: Sequence[int] = SEEDS,
    source: str = ABLATION_SUITE,
    methods: Sequence[str] = tuple(ABLATION.values()),
) -> pd.DataFrame:
    """Table 3: IoU of every class of DDHR-SK, with and without CMU and DEF; the rows are handed over.

    Args:
        scenes: how many; 0 takes all.
        seeds: of the weights.
        source: of the scenes.
        methods: those that can be scored; the others' rows are left out.
    """
    unseen = scenes_of(source).unseen
    order = ["forest", "city", "farmland", "road", "water"]
    table = {}
    for title, method in ABLATION.items():
        if method not in methods:
            continue
        row = {}
        for name in [*order, "mIoU"]:
            metric = "miou" if name == "mIoU" else f"iou/{name}"
            row[name if name == "mIoU" else f"{name} ({'unseen' if name in unseen else 'seen'})"] = str(
                over_seeds(method, source, PLAIN, metric, scenes, seeds)
            )
            for seed in seeds:
                found = score(method, seed, source, PLAIN, scenes)
                short = "miou" if name == "mIoU" else "iou"
                record_score(found, title, name, short, interval=found.interval(metric))
        table[title] = row
    return pd.DataFrame(table).T


def ablation_gains(
    scenes: int = SCENES,
    seeds: Sequence[int] = SEEDS,
    source: str = ABLATION_SUITE,
    methods: Sequence[str] = tuple(ABLATION.values()),
) -> pd.DataFrame:
    """What CMU and what DEF are worth: on all, seen, unseen and clouded pixels; the seeds' rows are handed over.

    See :func:`ablation_table` for the arguments.
    """
    steps = {
        "CMU": ("mm-ovseg", "mm-ovseg-no-cmu"),
        "DEF (radar branch without CMU)": ("mm-ovseg-no-cmu", "gsnet"),
        "both": ("mm-ovseg", "gsnet"),
    }
    metrics = {"mIoU": "miou", "seen": "miou_seen", "unseen": "miou_unseen", "under clouds": "cloudy/miou"}
    found: dict[str, dict[str, str]] = {}
    for step, (first, second) in steps.items():
        if first not in methods or second not in methods:
            continue
        place: dict[str, Any] = {"count": scenes, "seeds": seeds, "row": step, "name": "step"}
        found[step] = {
            title: str(judged_gain(first, second, title, source, PLAIN, metric, **place))
            for title, metric in metrics.items()
        }
    for title, method in ABLATION.items():  # beside the paper's gains above its last row
        if method != "gsnet" and {method, "gsnet"} <= set(methods):
            judged_gain(method, "gsnet", "mIoU", source, count=scenes, seeds=seeds, row=title, name=GAIN)
    return pd.DataFrame(found).T


def class_differences(
    first: str,
    second: str,
    scenes: int = SCENES,
    seeds: Sequence[int] = SEEDS,
    settings: Settings | None = None,
) -> Mapping[str, Mapping[str, tuple[float, float, float]]]:
    """IoU of every class of every setting, first minus second method, in points with paired intervals."""
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for key, source in (settings or suite_settings()).items():
        row = {}
        for one in scenes_of(source).classes:
            part = paired(first, second, source, PLAIN, f"iou/{one}", scenes, seeds).difference
            if np.isfinite([part.value, part.low, part.high]).all():
                row[one] = (100 * part.value, 100 * part.low, 100 * part.high)
        found[key] = row
    return found


def plot_class_differences(
    first: str,
    second: str,
    scenes: int = SCENES,
    seeds: Sequence[int] = SEEDS,
    settings: Settings | None = None,
) -> Picture:
    """Figure 3 as differences: a row a class and setting."""
    chosen = settings or suite_settings()
    found = class_differences(first, second, scenes, seeds, chosen)
    rows, labels, notes = {}, {}, {}
    for setting, classes in found.items():
        unseen, title = scenes_of(chosen[setting]).unseen, f"{setting}: {title_of(setting)}"
        for name, triple in classes.items():
            key = f"{title} {name}"
            rows[key], labels[key] = triple, f"{title}, {name}"
            notes[key] = "unseen" if name in unseen else "seen"
    title = f"{METHOD_TITLES[first]} - {METHOD_TITLES[second]}"
    label = f"IoU of {title} (points of percent)"
    return plot_intervals(
        {title: rows}, order=list(rows), labels=labels, xlabel=label, notes=notes, notes_title="", linear=True
    )


def class_table(methods: Sequence[str], suite: str, scenes: int = SCENES, seeds: Sequence[int] = SEEDS) -> pd.DataFrame:
    """IoU of every class of a suite in percent, mean over the seeds, for several methods."""
    rows = {}
    for method in methods:
        parts = [score(method, seed, suite, PLAIN, scenes).classes for seed in seeds]
        rows[METHOD_TITLES[method]] = {name: np.mean([part[name] for part in parts]) for name in parts[0]}
    return pd.DataFrame(rows).T.round(1)


def _spread(values: np.ndarray[Any, Any]) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
