"""What holds over the seeds: differences on the same scenes, seed by seed, recorded and judged by one stated rule.

A difference of scores is measured once a seed, with a bootstrap in which all its parts see the same resampled scenes.
The seeds together are judged by :data:`rsovlib.experiments.sdci.verdicts.RULE`, which counts both the scenes and the
spread of the seeds: an interval over scenes alone would call the luck of three trainings an effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsovlib.errors import InputError
from rsovlib.experiments.comparison import Measured, combine
from rsovlib.experiments.fusion.evaluation import METHOD_TITLES, SEEDS, pooled, row_fields
from rsovlib.experiments.fusion.scenes import PLAIN, SCENES, Condition, scenes_of
from rsovlib.experiments.fusion.settings import SETTINGS
from rsovlib.experiments.results import ResultRow, record
from rsovlib.experiments.sdci.verdicts import Claim, word_of
from rsovlib.metrics import Interval, SegmentationMetrics

_RESAMPLES = 1000

CLAIMS = (
    Claim("MM-OVSeg is better than GSNet (radar helps)", "mm-ovseg-table2", "miou gain over GSNet", ("MM-OVSeg",)),
    Claim("MM-OVSeg is better than CAT-Seg", "mm-ovseg-table2", "miou gain over CAT-Seg", ("MM-OVSeg",)),
    Claim("MM-OVSeg is better than EBSeg", "mm-ovseg-table2", "miou gain over EBSeg", ("MM-OVSeg",)),
    Claim("MM-OVSeg is better than SegEarth-OV", "mm-ovseg-table2", "miou gain over SegEarth-OV", ("MM-OVSeg",)),
    Claim("GSNet is better than CAT-Seg (DINO helps)", "mm-ovseg-table2", "miou gain over CAT-Seg", ("GSNet",)),
    Claim("CMU helps", "mm-ovseg-table2", "miou gain over MM-OVSeg without CMU", ("MM-OVSeg",)),
    Claim("CMU helps on DDHR-SK, part by part", "mm-ovseg-table3", "step", ("CMU",)),
    Claim("the radar branch helps without CMU too", "mm-ovseg-table3", "step", ("DEF (radar branch without CMU)",)),
    Claim("radar helps on unseen classes", "mm-ovseg-table-a3-unseen", "miou_unseen gain over GSNet", ("MM-OVSeg",)),
    Claim("radar helps on seen classes", "mm-ovseg-table-a3-seen", "miou_seen gain over GSNet", ("MM-OVSeg",)),
    Claim("radar helps unseen classes more than seen ones", "mm-ovseg-table-a3-unseen", "gain on unseen minus on seen"),
    Claim("fusion's advantage grows with cloud cover", "mm-ovseg-clouds", "slope of the advantage"),
    Claim("radar helps under no cloud at all", "mm-ovseg-clouds", "miou gain over GSNet, clear"),
    Claim("misplaced radar is worse than none", "mm-ovseg-clouds", "miou gain over GSNet, misplaced", (), -1),
    Claim("another scene's radar helps as well", "mm-ovseg-clouds", "miou gain over GSNet, radar of another scene"),
    Claim("without its radar, worse than GSNet", "mm-ovseg-clouds", "miou gain over GSNet, radar missing", (), -1),
)  # fmt: skip
"""What the paper says of its tables, and what must be so for its reason to be the right one."""

CMU_CLAIMS = (
    Claim("CMU on DINO is better than no CMU", "mm-ovseg-table-a5", "miou gain over neither", ("DINO",)),
    Claim("CMU on CLIP is better than no CMU", "mm-ovseg-table-a5", "miou gain over neither", ("CLIP",)),
    Claim("CMU on both is better than no CMU", "mm-ovseg-table-a5", "miou gain over neither", ("CLIP and DINO",)),
    Claim("CMU on CLIP alone is worse than on DINO", "mm-ovseg-table-a5", "miou gain over DINO", ("CLIP",), -1),
    Claim("CMU on both is worse than on DINO", "mm-ovseg-table-a5", "miou gain over DINO", ("CLIP and DINO",), -1),
)
"""What Table A5 says of CMU's target."""

_COSTS = "the release's reading costs"
READING_CLAIMS = {
    "all classes": Claim(_COSTS, "mm-ovseg-readings", "miou gain over corrected", (), -1),
    "seen classes": Claim(f"{_COSTS} on seen classes", "mm-ovseg-readings", "miou_seen gain over corrected", (), -1),
    "unseen classes": Claim(
        f"{_COSTS} on unseen classes", "mm-ovseg-readings", "miou_unseen gain over corrected", (), -1
    ),
}
"""Why our reading differs from the release's: of all classes and of a part of them."""

VARIANT_CLAIMS = (*CMU_CLAIMS, *READING_CLAIMS.values())
"""Of the networks that are trained by name alone."""


@dataclass(frozen=True)
class Judged:
    """A difference over the seeds.

    Attributes:
        measured: mean, interval and spread; None where nothing could be measured.
        word: "holds", "the opposite holds", "unclear" or "not measured", of the claim that it is above 0.
    """

    measured: Measured | None
    word: str

    @property
    def interval(self) -> Interval:
        """Mean with the interval of the rule; NaN where there is none."""
        found = self.measured
        ends = (None, None) if found is None else (found.low, found.high)
        low, high = (float("nan") if end is None else end for end in ends)
        return Interval(float("nan") if found is None else found.value, low, high)

    def __str__(self) -> str:
        if self.measured is None:
            return self.word
        found = self.interval
        return f"{found.value:+.1f} [{found.low:+.1f}, {found.high:+.1f}] {self.word}"


def contrast(terms: Sequence[tuple[SegmentationMetrics, str, float]], resamples: int = _RESAMPLES) -> Interval:
    """A weighted sum of scores of the same scenes, with a bootstrap that draws the scenes once for all of them.

    Args:
        terms: counts that hold the same number of scenes in the same order, the score, and its weight: 100 and -100
            for a difference in points of percent.
        resamples: draws of the scenes, always the same ones.

    Returns:
        The sum on all scenes and its 95 % percentile interval.

    Raises:
        InputError: the counts are of different numbers of scenes.
    """
    tables = [(meter, np.asarray(meter.table().todense(), dtype=np.float64)) for meter, _, _ in terms]
    sizes = {len(table) for _, table in tables}
    if len(sizes) != 1:
        raise InputError(f"Counts of {sorted(sizes)} scenes can't be paired; score the same scenes.")
    scenes = sizes.pop()

    def total(times: NDArray[np.float64]) -> NDArray[np.float64]:
        parts = [
            weight * meter.scores_of(times @ table)[score]
            for (meter, table), (_, score, weight) in zip(tables, terms, strict=True)
        ]
        return np.asarray(np.sum(parts, axis=0), dtype=np.float64)

    draws = np.random.default_rng(0).multinomial(scenes, np.full(scenes, 1 / scenes), size=resamples)
    drawn = total(draws.astype(np.float64))
    drawn = drawn[np.isfinite(drawn)]  # a class may be missing from all scenes of a draw
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (np.nan, np.nan)
    return Interval(float(total(np.ones((1, scenes)))[0]), float(low), float(high))


def judged(rows: Sequence[ResultRow], sign: int = 1) -> Judged:
    """What the rule says of a difference whose seeds' rows are these."""
    measured = combine(rows)
    return Judged(measured, word_of(measured, sign))


def gain_terms(
    first: str,
    second: str,
    suite: str,
    condition: Condition,
    metric: str,
    count: int,
    seed: int,
    weight: float = 100.0,
) -> list[tuple[SegmentationMetrics, str, float]]:
    """First minus second method for :func:`contrast`, in points of percent, of one seed."""
    meters = [pooled(one, suite, condition, count, (seed,)) for one in (first, second)]
    return [(meters[0], metric, weight), (meters[1], metric, -weight)]


def judged_gain(
    first: str,
    second: str,
    column: str,
    suite: str,
    condition: Condition = PLAIN,
    metric: str = "miou",
    count: int = SCENES,
    seeds: Sequence[int] = SEEDS,
    *,
    row: str = "",
    name: str = "",
) -> Judged:
    """First minus second method on the same scenes, in points: recorded for every seed, judged over all.

    Args:
        first: the method that is said to be better.
        second: the one it is compared with.
        column: under which the seeds' rows are recorded.
        suite: source of the test scenes.
        condition: how they are shown.
        metric: "miou", "miou_unseen", "cloudy/miou", ...
        count: number of scenes; 0 takes all.
        seeds: of the weights.
        row: of the rows; the first method's title if not given.
        name: of their metric; "miou gain over GSNet" and so on if not given.
    """
    name = name or f"{metric} gain over {METHOD_TITLES[second]}"
    found = {seed: contrast(gain_terms(first, second, suite, condition, metric, count, seed)) for seed in seeds}
    place = row_fields(suite, count, (first, second), seeds[0])
    if metric.startswith("cloudy/") and not scenes_of(suite).has_opacity and condition.cover is None:
        place["note"] = "where the clouds of these images are isn't published"
    rows = record_seeds(found, row or METHOD_TITLES[first], column, name, **place)
    return judged(rows)


def record_seeds(found: dict[int, Interval], row: str, column: str, name: str, **fields: Any) -> list[ResultRow]:
    """Hands a number of every seed over; one that couldn't be computed says so, or why by ``note``."""
    fields = {"unit": "percent", "device": "cpu"} | fields
    note = fields.pop("note", "none of the classes is in these scenes")
    rows = []
    for seed, part in found.items():
        if np.isfinite([part.value, part.low, part.high]).all():
            rows.append(record(row, column, name, part.value, interval=part, seed=seed, **fields))
        else:
            rows.append(record(row, column, name, None, seed=seed, note=note, **fields))
    return rows


def settings_means(rows: Sequence[ResultRow], metric: str = "miou") -> dict[str, dict[int | None, float]]:
    """The mean of the six settings of Table 2 over the runs that scored one each: method -> seed -> percent.

    Methods and seeds that lack a setting, and runs that had all settings and took the mean themselves, are left out.
    """
    cells: dict[tuple[str, int | None], dict[str, float]] = {}
    done = {
        (one.row, one.seed) for one in rows if one.column == "mean" and one.metric == metric and one.value is not None
    }
    for one in rows:
        if one.table == "mm-ovseg-table2" and one.metric == metric and one.column in SETTINGS and one.value is not None:
            cells.setdefault((one.row, one.seed), {})[one.column] = one.value
    found: dict[str, dict[int | None, float]] = {}
    for (row, seed), values in cells.items():
        if set(values) == set(SETTINGS) and (row, seed) not in done:
            found.setdefault(row, {})[seed] = float(np.mean(list(values.values())))
    return found


def record_settings_means(rows: Sequence[ResultRow]) -> dict[str, dict[int | None, float]]:
    """Hands :func:`settings_means` over."""
    found = settings_means(rows)
    for row, seeds in found.items():
        for seed, value in seeds.items():
            record(row, "mean", "miou", value, unit="percent", seed=seed, dataset="the six settings")
    return found


def mean_of(parts: Sequence[Interval]) -> Interval:
    """The mean of numbers from different scenes; their half widths add in quadrature."""
    half = float(np.sqrt(sum(((one.high - one.low) / 2) ** 2 for one in parts))) / len(parts)
    value = float(np.mean([one.value for one in parts]))
    return Interval(value, value - half, value + half)
