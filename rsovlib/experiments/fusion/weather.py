"""Beyond the paper's tables: what more cloud, misplaced radar and stronger speckle do, and whether confidence keeps up.

The claim to test is the paper's reason for radar: *fusion's advantage grows with cloud cover*. It is tested as one
number, the slope of the advantage over the cover: once a seed with a bootstrap over scenes that are the same at every
cover, and over all seeds by the verdicts' rule.

Of real images this takes a set that has them without clouds; what the number of looks does can't be asked of any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from rsovlib.experiments.fusion.claims import contrast, gain_terms, judged, judged_gain, record_seeds
from rsovlib.experiments.fusion.evaluation import (
    METHOD_TITLES,
    SEEDS,
    cover_conditions,
    over_seeds,
    row_fields,
    score,
)
from rsovlib.experiments.fusion.scenes import Condition
from rsovlib.experiments.results import record
from rsovlib.experiments.sdci.verdicts import HOLDS, OPPOSITE
from rsovlib.metrics import Interval
from rsovlib.plots import OKABE_ITO, Picture

SUITE = "mm-ovseg-ddhr-sk"
COVERS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
SHIFTS = (0, 1, 2, 4, 8, 16)
LOOKS = (1.0, 2.0, 4.0, 10.0, 50.0)
_MARKS = "os^Dv<>"


@dataclass(frozen=True)
class Curves:
    """A score of several methods over something that changes.

    Attributes:
        frame: a row a method and value: ``method``, ``x``, ``value``, ``low``, ``high``, ``std`` (over the seeds).
        x: what changes, with its unit.
        y: what is scored, with its unit.
    """

    frame: pd.DataFrame
    x: str
    y: str

    def table(self) -> pd.DataFrame:
        """Methods by values of x, as texts with intervals."""
        texts = self.frame.assign(text=[f"{r.value:.1f} [{r.low:.1f}, {r.high:.1f}]" for r in self.frame.itertuples()])
        return texts.pivot_table(index="method", columns="x", values="text", aggfunc="first", sort=False)


def cover_curves(
    methods: Sequence[str],
    suite: str = SUITE,
    covers: Sequence[float] = COVERS,
    scenes: int = 40,
    seeds: Sequence[int] = SEEDS,
    metric: str = "miou",
) -> Curves:
    """mIoU against the share of the scene under clouds."""
    conditions = cover_conditions(covers)
    return _curves(methods, suite, conditions, [100 * c for c in covers], "cloud cover (%)", scenes, seeds, metric)


def shift_curves(
    methods: Sequence[str],
    suite: str = SUITE,
    shifts: Sequence[int] = SHIFTS,
    cover: float = 0.6,
    scenes: int = 40,
    seeds: Sequence[int] = SEEDS,
) -> Curves:
    """mIoU against the distance by which the radar lies beside its place."""
    conditions = [Condition(cover=cover, shift=shift) for shift in shifts]
    return _curves(methods, suite, conditions, list(shifts), "shift of the radar (pixels, each way)", scenes, seeds)


def looks_curves(
    methods: Sequence[str],
    suite: str = SUITE,
    looks: Sequence[float] = LOOKS,
    cover: float = 0.6,
    scenes: int = 40,
    seeds: Sequence[int] = SEEDS,
) -> Curves:
    """mIoU against the radar's number of looks: few looks, much speckle."""
    conditions = [Condition(cover=cover, looks=one) for one in looks]
    return _curves(methods, suite, conditions, list(looks), "looks of the radar (training: 2 or 4)", scenes, seeds)


def _curves(
    methods: Sequence[str],
    suite: str,
    conditions: Sequence[Condition],
    values: Sequence[float],
    x: str,
    scenes: int,
    seeds: Sequence[int],
    metric: str = "miou",
) -> Curves:
    rows = []
    for method in tqdm(methods, desc=x, unit="method"):
        for value, condition in zip(values, conditions, strict=True):
            found = over_seeds(method, suite, condition, metric, scenes, seeds)
            title = METHOD_TITLES[method]
            rows.append((title, value, found.mean, found.low, found.high, found.std))
            for seed in seeds:
                one = score(method, seed, suite, condition, scenes)
                record(
                    title,
                    f"{x.partition(' (')[0]} {value:g}",
                    metric,
                    one.interval(metric).value,
                    interval=one.interval(metric),
                    unit="percent",
                    n=len(one.counts.images),
                    seed=seed,
                    dataset=one.dataset,
                    weights=one.weights,
                    device=one.device,
                    note=one.note,
                )
    frame = pd.DataFrame(rows, columns=["method", "x", "value", "low", "high", "std"])
    return Curves(frame, x, "mIoU (%)" if metric == "miou" else f"{metric} (%)")


def plot_curves(curves: Sequence[Curves], titles: Sequence[str], *, log_x: bool = False) -> Picture:
    """Curves with bands of their 95 % intervals over scenes."""
    figure = Picture(figsize=(6.0 * len(curves), 4.0), layout="constrained")
    colours = [colour for colour in OKABE_ITO if colour != "#F0E442"]
    for axes, one, title in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, titles, strict=True):
        for index, (name, part) in enumerate(one.frame.groupby("method", sort=False)):
            colour = colours[index % len(colours)]
            axes.plot(part["x"], part["value"], color=colour, marker=_MARKS[index % len(_MARKS)], label=str(name))
            axes.fill_between(part["x"], part["low"], part["high"], color=colour, alpha=0.12, linewidth=0)
        if log_x:
            axes.set_xscale("symlog", linthresh=1)
            axes.set_xticks(sorted(set(one.frame["x"])), [f"{value:g}" for value in sorted(set(one.frame["x"]))])
        axes.set_xlabel(one.x)
        axes.set_ylabel(one.y)
        axes.set_ylim(bottom=0)
        axes.set_title(title, loc="left", fontsize=10)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
    return figure


# ---- the claim -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Examined:
    """Whether the advantage of one method over another grows with cloud cover.

    Attributes:
        first, second: methods.
        advantages: points of mIoU at each cover, with the intervals of the verdicts' rule.
        covers: shares.
        slope: points of mIoU that the advantage grows by from no cover to full, straight line through all covers.
        verdict: in words.
    """

    first: str
    second: str
    advantages: tuple[Interval, ...]
    covers: tuple[float, ...]
    slope: Interval
    verdict: str

    def frame(self) -> pd.DataFrame:
        """A row a cover."""
        texts = [f"{one.value:+.1f} [{one.low:+.1f}, {one.high:+.1f}]" for one in self.advantages]
        name = f"{METHOD_TITLES[self.first]} - {METHOD_TITLES[self.second]}"
        return pd.DataFrame({name: texts}, index=[f"{100 * cover:.0f} % cover" for cover in self.covers]).T


def examine_claim(
    first: str,
    second: str,
    suite: str = SUITE,
    covers: Sequence[float] = COVERS,
    scenes: int = 40,
    seeds: Sequence[int] = SEEDS,
    metric: str = "miou",
) -> Examined:
    """The advantage at every cover, and its slope; the seeds' rows are handed over.

    A resample draws scenes once and for all covers, since they are the same scenes under growing clouds.

    Args:
        first: the method that is said to gain.
        second: the one it is compared with.
        suite: source of the test scenes.
        covers: shares of cloud.
        scenes: number of them.
        seeds: of the weights.
        metric: "miou", "miou_seen" or "miou_unseen".
    """
    advantages = []
    for cover in covers:
        name = f"{metric} gain over {METHOD_TITLES[second]}{'' if cover else ', clear'}"
        column, condition = f"cloud cover {100 * cover:g}", Condition(cover=cover)
        gain = judged_gain(first, second, column, suite, condition, metric, scenes, seeds, name=name)
        advantages.append(gain.interval)
    centred = np.asarray(covers) - np.mean(covers)
    weights = 100 * centred / (centred**2).sum()  # of least squares, in points for the whole way from clear to covered
    slopes = {}
    for seed in seeds:
        terms = []
        for cover, weight in zip(covers, weights, strict=True):
            terms += gain_terms(first, second, suite, Condition(cover=cover), metric, scenes, seed, float(weight))
        slopes[seed] = contrast(terms)
    name, unit = "slope of the advantage", "points from 0 to 100 % cover"
    about = row_fields(suite, scenes, (first, second), seeds[0])
    rows = record_seeds(slopes, METHOD_TITLES[first], METHOD_TITLES[second], name, unit=unit, **about)
    found = judged(rows)
    says = {
        HOLDS: "holds here: the advantage grows with the cover",
        OPPOSITE: "does not hold here: the advantage shrinks with the cover",
    }
    verdict = says.get(found.word, "not shown here: the slope's interval holds zero")
    return Examined(first, second, tuple(advantages), tuple(covers), found.interval, verdict)


def harm_table(
    first: str = "mm-ovseg",
    second: str = "gsnet",
    suite: str = SUITE,
    shifts: Sequence[int] = SHIFTS,
    looks: Sequence[float] = LOOKS,
    cover: float = 0.6,
    scenes: int = 40,
    seeds: Sequence[int] = SEEDS,
) -> pd.DataFrame:
    """What bad radar does: gain over the method without radar, in points, judged; the seeds' rows are handed over.

    Args:
        first: a method with radar.
        second: one without.
        suite: source of the test scenes.
        shifts: by which the radar lies beside its place, pixels.
        looks: of the radar; none for real images.
        cover: share of the scenes under clouds.
        scenes: number of them.
        seeds: of the weights.
    """
    shown = {f"shifted by {shift} pixels": ("misplaced", Condition(cover=cover, shift=shift)) for shift in shifts}
    shown |= {f"{one:g} looks": ("other looks", Condition(cover=cover, looks=one)) for one in looks}
    shown["of another scene"] = ("radar of another scene", Condition(cover=cover, sar="other"))
    shown["right half missing"] = ("half of the radar", Condition(cover=cover, sar="half"))
    shown["missing"] = ("radar missing", Condition(cover=cover, sar="missing"))
    row = {}
    for column, (kind, condition) in shown.items():
        kind = "aligned" if kind == "misplaced" and not condition.shift else kind
        name = f"miou gain over {METHOD_TITLES[second]}, {kind}"
        row[column] = str(judged_gain(first, second, column, suite, condition, "miou", scenes, seeds, name=name))
    return pd.DataFrame({f"{METHOD_TITLES[first]} - {METHOD_TITLES[second]}": row})


# ---- confidence ------------------------------------------------------------------------------------------------------


def calibration_table(
    methods: Sequence[str],
    suite: str = SUITE,
    covers: Sequence[float] = COVERS,
    scenes: int = 40,
    seeds: Sequence[int] = SEEDS,
) -> pd.DataFrame:
    """Expected calibration error in percent, and mean confidence minus accuracy, by cover; mean over the seeds."""
    rows: dict[str, dict[str, str]] = {}
    for method in methods:
        row = {}
        for cover in covers:
            found = [score(method, seed, suite, Condition(cover=cover), scenes).calibration.compute() for seed in seeds]
            errors = [100 * one["expected_calibration_error"] for one in found]
            excess = [100 * (one["mean_confidence"] - one["accuracy"]) for one in found]
            row[f"{100 * cover:.0f} %"] = f"{np.mean(errors):.1f} ({np.mean(excess):+.1f})"
            for seed, error in zip(seeds, errors, strict=True):
                about = row_fields(suite, scenes, (method,), seed)
                record(
                    METHOD_TITLES[method], f"cover {100 * cover:g}", "ECE", error, unit="percent", seed=seed, **about
                )
        rows[METHOD_TITLES[method]] = row
    return pd.DataFrame(rows).T


def plot_reliability(
    methods: Sequence[str],
    suite: str = SUITE,
    covers: Sequence[float] = (0.0, 0.6, 1.0),
    scenes: int = 40,
    seeds: Sequence[int] = SEEDS,
) -> Picture:
    """Accuracy against confidence, a panel a cover; marks grow with the share of pixels."""
    figure = Picture(figsize=(4.4 * len(covers), 4.2), layout="constrained")
    colours = [colour for colour in OKABE_ITO if colour != "#F0E442"]
    for axes, cover in zip(figure.subplots(1, len(covers), squeeze=False)[0], covers, strict=True):
        axes.plot([0, 100], [0, 100], color="0.5", linewidth=1, linestyle=":", label="as sure as right")
        for index, method in enumerate(methods):
            parts = [score(method, seed, suite, Condition(cover=cover), scenes).calibration for seed in seeds]
            bins = [part.compute()["reliability"] for part in parts]
            pixels = np.array([one["pixels"] for one in bins], dtype=float)
            sums = [
                np.nansum(np.array([one[key] for one in bins]) * pixels, axis=0) for key in ("confidence", "accuracy")
            ]
            total = pixels.sum(axis=0)
            there = total > 0
            x, y = (100 * part[there] / total[there] for part in sums)
            colour = colours[index % len(colours)]
            axes.plot(x, y, color=colour, linewidth=1)
            sizes = 8 + 150 * total[there] / total.sum()
            axes.scatter(x, y, s=sizes, color=colour, marker=_MARKS[index % len(_MARKS)], label=METHOD_TITLES[method])
        axes.set_xlabel("confidence (%)")
        axes.set_ylabel("pixels that are right (%)")
        axes.set_title(f"{100 * cover:.0f} % cloud cover", loc="left", fontsize=10)
        axes.legend(frameon=False, fontsize=8)
    return figure
