"""A paper's number and ours: whether they agree, by a rule that is stated and doesn't look at the outcome.

:data:`MEANINGS` is that rule in words; the report prints it above its tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rsovlib.experiments.results import ResultRow

MEANINGS = {
    "agrees": "measured with the paper's data and weights (profile full), and the paper's number lies within the "
    "measured 95 % interval widened on both sides by the table's tolerance",
    "trend agrees": "measured with the paper's data and weights, the number itself differs, but the gain above the "
    "table's reference row has the paper's sign, and its interval, where there is one, leaves out zero",
    "differs": "measured with the paper's data and weights, and neither holds",
    "not comparable": "measured on other data, with other weights or in another setting; both numbers are shown, "
    "neither speaks for or against the other, and only the direction of the gain is told",
    "not run": "there is no measured number; the reason says what is missing",
}
"""Verdict -> what it means."""

SEEDS_RULE = (
    "Where a run was repeated with several seeds the mean is shown. Its interval adds two independent parts in "
    "quadrature: half the mean width of the runs' own intervals (the images), and Student's interval of the mean over "
    "the seeds."
)

VERDICTS = (*MEANINGS, "")
"""The last one stands for a number that the paper doesn't have, measured or not."""

DIRECTIONS = {"same": "as in the paper", "other": "the other way", "unclear": "unclear: its interval holds 0", "": ""}
"""What is told of a gain's direction -> the same in words."""


@dataclass(frozen=True)
class Measured:
    """A number from one or several runs.

    Attributes:
        value: the mean over the runs.
        low, high: of its interval, or None.
        std: over the seeds; None for one run.
        runs: names of the runs behind it.
        seeds: theirs.
        n: images (or repetitions) of one run.
        unit, dataset, profile, device: of all of them.
        note: whatever a row says beside its number.
    """

    value: float
    low: float | None
    high: float | None
    std: float | None
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    n: int | None
    unit: str
    dataset: str
    profile: str
    device: str
    note: str


@dataclass(frozen=True)
class Verdict:
    """What a paper's number and ours say of each other.

    Attributes:
        word: one of :data:`VERDICTS`.
        reason: why, in a few words; "" where there is nothing to say beyond the rule.
        difference: measured minus published; None where either is missing.
        direction: of the gain, one of :data:`DIRECTIONS`.
    """

    word: str
    reason: str
    difference: float | None = None
    direction: str = ""


def combine(rows: Sequence[ResultRow]) -> Measured | None:
    """One number from the rows of runs that differ in their seed; None if no row has a value.

    Rows without a value are left out, and what they say is kept in the note.
    """
    there = [(row, row.value) for row in rows if row.value is not None]
    notes = "; ".join(dict.fromkeys(row.note for row in rows if row.note))
    if not there:
        return None
    values = [value for _, value in there]
    mean = math.fsum(values) / len(values)
    std = low = high = None
    widths = [(row.high - row.low) / 2 for row, _ in there if row.low is not None and row.high is not None]
    if len(values) == 1:
        std, low, high = there[0][0].std, there[0][0].low, there[0][0].high
    else:
        from scipy.special import stdtrit  # scipy.stats has it too, and takes much longer to import

        std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
        of_seeds = float(stdtrit(len(values) - 1, 0.975)) * std / math.sqrt(len(values))
        of_images = math.fsum(widths) / len(widths) if widths else 0.0
        half = math.hypot(of_seeds, of_images)
        low, high = mean - half, mean + half
    first = there[0][0]
    return Measured(
        value=mean,
        low=low,
        high=high,
        std=std,
        runs=tuple(dict.fromkeys(row.run for row, _ in there)),
        seeds=tuple(row.seed for row, _ in there if row.seed is not None),
        n=first.n,
        unit=first.unit,
        dataset=first.dataset,
        profile=first.profile,
        device=first.device,
        note=notes,
    )


def judge(
    published: float | None,
    measured: Measured | None,
    *,
    dataset: str = "",
    tolerance: float = 0.0,
    published_gain: float | None = None,
    measured_gain: Measured | None = None,
    missing: str = "",
) -> Verdict:
    """The verdict on one number; see :data:`MEANINGS`.

    Args:
        published: the paper's number, or None.
        measured: ours, or None.
        dataset: what the paper measured on.
        tolerance: see the rule.
        published_gain: the paper's gain above the reference row.
        measured_gain: ours.
        missing: why there is no measured number.
    """
    if measured is None:
        return Verdict("not run" if published is not None else "", missing or "no run has recorded it")
    if published is None:
        return Verdict("", "")
    difference = measured.value - published
    direction = _direction(published_gain, measured_gain)
    if measured.profile != "full" or measured.dataset != dataset:
        if measured.profile == "full":
            reason = f"not as in the paper: {measured.dataset}; the paper: {dataset}"
        else:
            reason = f"{measured.profile} profile: {measured.dataset} with small models of ours, the paper: {dataset}"
        return Verdict("not comparable", reason, difference, direction)
    low = measured.value if measured.low is None else measured.low
    high = measured.value if measured.high is None else measured.high
    around = "the measured number" if measured.low is None else "the measured interval"
    widened = f"{around} ± {tolerance:g}"
    if low - tolerance <= published <= high + tolerance:
        return Verdict("agrees", f"the paper's number is within {widened}", difference, direction)
    outside = f"the paper's number is outside of {widened}"
    return Verdict("trend agrees" if direction == "same" else "differs", outside, difference, direction)


def _direction(published: float | None, measured: Measured | None) -> str:
    """Whether a measured gain has the paper's sign; one of :data:`DIRECTIONS`."""
    if published is None or measured is None:
        return ""
    if measured.low is not None and measured.high is not None and measured.low <= 0 <= measured.high:
        return "unclear"
    return "same" if published * measured.value > 0 else "other"
