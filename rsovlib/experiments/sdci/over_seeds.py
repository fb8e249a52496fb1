"""Readings and parameters over all seeds: what the single runs measured, with one interval for tiles and models.

Each run of the readings and of the sensitivity maps is of one pair of models. An effect that is there for one training
and not for the next is an effect of that training; here all runs are taken together, by the rule of
:mod:`rsovlib.experiments.sdci.verdicts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from rsovlib.experiments.comparison import Measured, combine
from rsovlib.experiments.results import ResultRow, record
from rsovlib.experiments.sdci.readings import SIDES
from rsovlib.experiments.sdci.register import KINDS, REGISTER
from rsovlib.experiments.sdci.verdicts import word_of
from rsovlib.plots import Picture
from rsovlib.plots.intervals import plot_intervals

READINGS, SENSITIVITY = "sdci-readings", "sdci-sensitivity"
#: What a sign is called here: a switch has no side that is claimed to be better.
SIGNS = {"holds": "raises mIoU", "the opposite holds": "lowers mIoU", "unclear": "unclear"}


@dataclass(frozen=True)
class Overall:
    """One difference over all seeds.

    Attributes:
        row, column: of its table: an entry of the register and the side that it is switched from, or a parameter and
            its value.
        difference: of the mean IoU, in points.
        changed: percent of the pixels that get another label; None where that was not measured.
    """

    row: str
    column: str
    difference: Measured
    changed: Measured | None = None

    @property
    def word(self) -> str:
        """What the interval says, and whether a pixel changed at all."""
        if self.changed is not None and self.changed.value == 0:
            return "changes nothing"
        word = word_of(self.difference)
        return SIGNS.get(word, word)


def differences_over_seeds(rows: Iterable[ResultRow], table: str) -> list[Overall]:
    """Every difference that the runs of a table have recorded, over their seeds, in the order of the first run."""
    known = [one for one in rows if one.table == table]
    places = dict.fromkeys((one.row, one.column) for one in known if one.metric == "difference")
    found = []
    for row, column in places:
        own = [one for one in known if (one.row, one.column) == (row, column)]
        difference = combine([one for one in own if one.metric == "difference"])
        changed = combine([one for one in own if one.metric == "changed pixels"])
        if difference is not None:
            found.append(Overall(row, column, difference, changed))
    return found


def record_overall(found: Iterable[Overall], table: str) -> None:
    """Hand the differences over, with the table that they are of in the note."""
    for one in found:
        measured = one.difference
        ends = {} if measured.low is None else {"low": measured.low, "high": measured.high, "level": 0.95}
        record(
            f"{table}: {one.row}",
            one.column,
            "difference, all seeds",
            measured.value,
            unit="percent",
            n=measured.n,
            dataset=measured.dataset,
            std=measured.std,
            note=f"{one.word}; over {len(measured.seeds)} seeds",
            **ends,
        )


def readings_frame(found: Sequence[Overall]) -> pd.DataFrame:
    """Each entry's effect from either side, and the pixels that it changes."""
    effects = {(one.row, one.column): one for one in found}
    rows: dict[str, dict[tuple[str, str], str | float | None]] = {}
    for entry in REGISTER:
        for side in SIDES:
            one = effects.get((entry.id, f"from {side}"))
            if one is not None:
                cells = rows.setdefault(f"{entry.id}  {entry.what}", {})
                cells[f"from the {side} reading", "points"] = f"{_interval(one.difference)} {one.word}"
                cells[f"from the {side} reading", "pixels (%)"] = None if one.changed is None else one.changed.value
    return pd.DataFrame(rows).T.rename_axis("switched") if rows else pd.DataFrame()


def unmeasured_frame(found: Sequence[Overall]) -> pd.DataFrame:
    """The entries of the register without a number, and why."""
    measured = {one.row for one in found}
    rows = {
        f"{entry.id}  {entry.what}": {"why there is no number": entry.reason or KINDS[entry.kind]}
        for entry in REGISTER
        if entry.id not in measured
    }
    return pd.DataFrame(rows).T.rename_axis("entry")


def sensitivity_frame(found: Sequence[Overall]) -> pd.DataFrame:
    """Each parameter at each value, everything else at its default."""
    rows = {(one.row, one.column): {"difference (points)": f"{_interval(one.difference)} {one.word}"} for one in found}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["parameter", "value"]) if rows else pd.DataFrame()


def plot_sensitivity(found: Sequence[Overall]) -> Picture:
    """The same as a forest plot: a row a value, the two groups in their colours."""
    series: dict[str, dict[str, tuple[float, float, float]]] = {}
    order = []
    for one in found:
        group, _, name = one.row.partition(", ")
        label = f"{name} = {one.column}"
        order.append(label)
        low, high = one.difference.low, one.difference.high
        if low is not None and high is not None:
            series.setdefault(group, {})[label] = (one.difference.value, low, high)
    return plot_intervals(
        series, order=order, labels={}, xlabel="change of mIoU against the default (points)", linear=True
    )


def _interval(one: Measured) -> str:
    if one.low is None or one.high is None:
        return f"{one.value:+.1f}"
    return f"{one.value:+.1f} [{one.low:.1f}, {one.high:.1f}]"
