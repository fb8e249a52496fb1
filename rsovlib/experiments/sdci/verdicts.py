"""What holds: the papers' claims against what was measured over all seeds, by one stated rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from rsovlib.experiments.comparison import Measured, combine
from rsovlib.experiments.results import ResultRow, record

RULE = (
    "A claim is that a difference has a sign. It holds where the mean of the paired difference over the seeds has that "
    "sign and its 95 % interval leaves out 0; the opposite holds where the interval leaves out 0 on the other side; "
    "else it is unclear. The interval adds two independent parts in quadrature: half the mean width of the runs' own "
    "intervals (paired bootstraps over the tiles) and Student's interval of the mean over the seeds (the models). "
    "Nothing is corrected for the number of claims: one in twenty differences that are 0 would not be called unclear."
)

#: Column of Table 2 -> how people read it.
WORDINGS = {"ori": "Ori", "gen": "Gen", "set_of_gen": "Set of Gen"}

HOLDS, OPPOSITE, UNCLEAR, MISSING = "holds", "the opposite holds", "unclear", "not measured"
WORDS = (HOLDS, OPPOSITE, UNCLEAR, MISSING)


@dataclass(frozen=True)
class Claim:
    """A difference that a paper says has a sign.

    Attributes:
        text: what is claimed.
        table: that measured it.
        metric: of its rows: a paired difference.
        rows: of the table; all with this metric if empty.
        sign: 1 or -1.
    """

    text: str
    table: str
    metric: str
    rows: tuple[str, ...] = ()
    sign: int = 1


STEPS = ("baseline + CAF", "+ BCDR", "+ CSCP (DINO-v1)", "+ CSCP (DINO-v2)")
_DATASETS = ("GID", "Potsdam", "Vaihingen", "LoveDA")
_SDCI = ("SDCI-v1", "SDCI-v2", "SDCI-v3")

#: What SDCI's paper says of its tables, and what the compared methods' papers say of CLIP's own last block.
CLAIMS = (
    Claim("each compared method is better than CLIP as it is", "sdci-table1", "gain over vanilla"),
    Claim("SDCI is better than the best compared method", "sdci-table1", "gain over best compared", _SDCI),
    Claim(
        "late fusion is worse than CLIP's branch alone", "sdci-table2", "gain", ("baseline + DINO-v1 late fusion",), -1
    ),
    Claim("each step adds to the one before", "sdci-table2", "step", STEPS),
    Claim("each rung is better than the baseline", "sdci-table2", "gain", STEPS),
    Claim("each step adds to the one before, plain decision", "sdci-table2", "step, plain decision", STEPS[:2]),
    Claim("the chosen words are better than the official names", "sdci-table3", "change", _DATASETS),
)


@dataclass(frozen=True)
class Finding:
    """A claim in one cell of its table.

    Attributes:
        claim: see there.
        row, column: the cell.
        measured: over all seeds; None where nothing was measured.
        word: one of :data:`WORDS`.
    """

    claim: Claim
    row: str
    column: str
    measured: Measured | None
    word: str


def word_of(measured: Measured | None, sign: int = 1) -> str:
    """What :data:`RULE` says of a difference."""
    if measured is None or measured.low is None or measured.high is None:
        return MISSING
    return word_of_interval(measured.low, measured.high, sign)


def word_of_interval(low: float, high: float, sign: int = 1) -> str:
    """What an interval of a difference says of its sign; :data:`MISSING` for ends that are no numbers."""
    if not low <= high:
        return MISSING
    if low <= 0 <= high:
        return UNCLEAR
    return HOLDS if (low > 0) == (sign > 0) else OPPOSITE


def findings(rows: Iterable[ResultRow], claims: Sequence[Claim] = CLAIMS) -> list[Finding]:
    """Every claim in every cell that it speaks of, over all seeds.

    Args:
        rows: of the tables' runs, all of one profile.
        claims: to be judged.
    """
    known = list(rows)
    found = []
    for claim in claims:
        cells: dict[tuple[str, str], list[ResultRow]] = {}
        for one in known:
            if (one.table, one.metric) == (claim.table, claim.metric) and (not claim.rows or one.row in claim.rows):
                cells.setdefault((one.row, one.column), []).append(one)
        for (row, column), group in cells.items():
            measured = combine(group)
            found.append(Finding(claim, row, column, measured, word_of(measured, claim.sign)))
    return found


def record_findings(found: Iterable[Finding]) -> None:
    """Hand the findings over: the difference over the seeds, and the word in the note."""
    for one in found:
        about = {"unit": "percent", "note": f"{one.word}: {one.claim.text}"}
        if one.measured is None:
            record(one.row, one.column, one.claim.metric, None, **about)
            continue
        interval = (
            {} if one.measured.low is None else {"low": one.measured.low, "high": one.measured.high, "level": 0.95}
        )
        record(
            one.row,
            one.column,
            f"{one.claim.metric}, all seeds",
            one.measured.value,
            n=one.measured.n,
            dataset=one.measured.dataset,
            std=one.measured.std,
            **about,
            **interval,
        )


def summary_frame(found: Sequence[Finding]) -> pd.DataFrame:
    """In how many cells each claim holds."""
    counts: dict[str, dict[str, int]] = {}
    for one in found:
        cell = counts.setdefault(one.claim.text, {"cells": 0, **dict.fromkeys(WORDS, 0)})
        cell["cells"] += 1
        cell[one.word] += 1
    frame = pd.DataFrame(counts).T if counts else pd.DataFrame(columns=["cells", *WORDS])
    return frame.rename_axis("claim")


def findings_frame(found: Sequence[Finding], claim: str) -> pd.DataFrame:
    """One claim cell by cell: a row a row of the table, ``"+1.2 [+0.3, +2.1] holds"``."""
    shown: dict[str, dict[str, str]] = {}
    for one in found:
        if one.claim.text == claim:
            shown.setdefault(one.row, {})[one.column] = _text(one)
    return pd.DataFrame(shown).T.rename(columns=WORDINGS)


def claims_frame(found: Sequence[Finding], claims: Iterable[Claim]) -> pd.DataFrame:
    """Claims of a cell or two each in one table: a row a claim and row of its table."""
    frames = {claim.text: findings_frame(found, claim.text) for claim in claims}
    frames = {text: frame for text, frame in frames.items() if len(frame)}
    return pd.concat(frames, names=["claim", ""]) if frames else pd.DataFrame()


def parts_frame(found: Sequence[Finding], parts: Mapping[str, Claim]) -> pd.DataFrame:
    """One claim of several parts side by side: a row a row of the table, a column a part.

    Args:
        found: the findings.
        parts: part, such as "seen classes" -> its claim, which is of one column of its table.
    """
    texts = {part: {one.row: _text(one) for one in found if one.claim == claim} for part, claim in parts.items()}
    return pd.DataFrame(texts) if any(texts.values()) else pd.DataFrame()


def parts_intervals(
    found: Sequence[Finding], parts: Mapping[str, Claim]
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Part -> row -> difference with its interval, as :func:`intervals_of`; parts without any are left out."""
    columns = {part: intervals_of(found, claim.text) for part, claim in parts.items()}
    return {part: row for part, series in columns.items() for row in series.values()}


def intervals_of(found: Sequence[Finding], claim: str) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Column -> row -> difference with its interval, for ``plots.plot_intervals``."""
    series: dict[str, dict[str, tuple[float, float, float]]] = {}
    for one in found:
        if one.claim.text == claim and one.measured and one.measured.low is not None and one.measured.high is not None:
            cell = one.measured.value, one.measured.low, one.measured.high
            series.setdefault(WORDINGS.get(one.column, one.column), {})[one.row] = cell
    return series


def _text(one: Finding) -> str:
    if one.measured is None:
        return one.word
    if one.measured.low is None or one.measured.high is None:
        return f"{one.measured.value:+.1f} ({one.word})"
    return f"{one.measured.value:+.1f} [{one.measured.low:.1f}, {one.measured.high:.1f}] {one.word}"
