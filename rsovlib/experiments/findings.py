"""Findings about a paper: a claim, what the numbers say of it, and the evidence, computed here.

The findings themselves stand in ``findings_sdci`` and ``findings_mmovseg``; the papers' numbers come from
:mod:`rsovlib.experiments.papers`, so that every line of evidence can be traced to its place.
"""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rsovlib.experiments.relations import Relation
from rsovlib.experiments.results import ResultRow, record

if TYPE_CHECKING:
    import pandas as pd

Outcome = Literal["holds", "does not hold", "not comparable", "unclear"]
#: What is found of a claim -> what that means.
OUTCOMES: dict[Outcome, str] = {
    "holds": "the evidence supports it",
    "does not hold": "the evidence contradicts it",
    "not comparable": "numbers are set beside each other that don't measure the same",
    "unclear": "the evidence doesn't decide, or the paper doesn't say enough",
}


_VALUES: dict[Outcome, int] = {"holds": 1, "does not hold": 0}


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        name: short, for tables: ``"average-cass"``.
        claim: what the paper prints, says or implies, or what its readers would take for granted.
        outcome: one of :data:`OUTCOMES`.
        because: what the evidence shows, one or two sentences with numbers that were computed.
        evidence: rows of one form.
        where: places in the paper.
    """

    name: str
    claim: str
    outcome: Outcome
    because: str
    evidence: tuple[Mapping[str, Any], ...]
    where: str

    def frame(self) -> pd.DataFrame:
        """The evidence as a table; its first column names the rows."""
        import pandas as pd

        frame = pd.DataFrame(list(self.evidence))
        return frame.set_index(frame.columns[0])

    def __repr__(self) -> str:
        return f"{self.name} ({self.outcome}): {self.claim} {self.because}"

    def _repr_html_(self) -> str:
        text = [html.escape(part) for part in (self.claim, self.outcome, self.because, self.where)]
        from rsovlib.plots import page_table

        frame = self.frame()
        numbers = [name for name in frame.select_dtypes("number") if (frame[name].dropna() % 1 != 0).any()]
        table = page_table(frame, {name: _decimals(frame[name].dropna().tolist()) for name in numbers}).to_html()
        return (
            f'<div style="max-width: 70em"><p><b>Claim.</b> {text[0]}<br><b>Found: {text[1]}.</b> {text[2]}<br>'
            f'<span style="color: #555">{text[3]}</span></p>{table}</div>'
        )


def _decimals(numbers: Sequence[float]) -> int:
    """So many that the smallest number has two digits: 2 for percents, up to 5 for small shares."""
    smallest = min((abs(number) for number in numbers if number), default=1.0)
    return min(5, max(2, 1 - math.floor(math.log10(smallest))))


def findings_frame(findings: Iterable[Finding]) -> pd.DataFrame:
    """All findings, a line each."""
    import pandas as pd

    rows = [(one.name, one.claim, one.outcome, one.because, one.where) for one in findings]
    return pd.DataFrame(rows, columns=["finding", "claim", "outcome", "because", "where"]).set_index("finding")


def record_findings(findings: Iterable[Finding], **fields: Any) -> list[ResultRow]:
    """Hand findings over as result rows: how many have each outcome, and 1 or 0 for each claim that numbers decide."""
    found = list(findings)
    counts = Counter(one.outcome for one in found)
    rows = [record("all findings", outcome, "number", counts[outcome], n=len(found), **fields) for outcome in OUTCOMES]
    for one in found:
        if one.outcome in _VALUES:
            rows.append(record(one.name, "claim", "holds", _VALUES[one.outcome], note=one.because, **fields))
    return rows


def relation_row(one: Relation) -> dict[str, Any]:
    """A relation as a line of evidence."""
    return {
        "where": one.where,
        "printed": one.printed,
        "from the other numbers": round(one.computed, 2),
        "difference": round(one.difference, 2),
        "holds": one.holds,
    }


def places(relations: Iterable[Relation]) -> str:
    """Row and column of each, in words."""
    return "; ".join(", ".join(one.where.split(", ")[-2:]) for one in relations) or "none"
