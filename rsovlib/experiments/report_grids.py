"""The report's numbers as the papers lay them out: rows and columns, ours above the paper's.

A grid shows one metric in one profile. What stands beside a number in the long list (reasons, gains, what it was
measured on) is left out here; the sign before the verdict says as much as its colour does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rsovlib.experiments.reporting import Line

#: Verdict -> its sign, so that nothing hangs on colours.
SIGNS = {
    "agrees": "✓",
    "trend agrees": "↗",
    "differs": "✗",
    "not comparable": "◇",
    "not run": "–",
    "": "",
}


@dataclass(frozen=True)
class Grid:
    """One metric of one table in one profile.

    Attributes:
        metric: what was measured.
        unit: of all its numbers, or "" where they differ.
        profile: under which; "" for what wasn't run.
        columns: in the order in which they first appear, those of the paper first.
        rows: name, and a line or None for each column.
        on: what the measured numbers were measured on.
    """

    metric: str
    unit: str
    profile: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Line | None, ...]], ...]
    on: tuple[str, ...]

    @property
    def measured(self) -> bool:
        """Whether any of its numbers was measured."""
        return any(line is not None and line.measured is not None for _, cells in self.rows for line in cells)

    @property
    def printed(self) -> bool:
        """Whether a paper has any of its numbers."""
        return any(line is not None and line.published is not None for _, cells in self.rows for line in cells)


def grids(lines: Sequence[Line]) -> list[Grid]:
    """The grids of a table's lines: one for each profile and metric with at least two rows and two columns."""
    found = []
    for profile, metric in dict.fromkeys((line.profile, line.metric) for line in lines):
        own = [line for line in lines if (line.profile, line.metric) == (profile, metric)]
        columns, rows = _names(line.column for line in own), _names(line.row for line in own)
        if len(columns) < 2 or len(rows) < 2:
            continue
        place = {(line.row, line.column): line for line in own}
        units = {line.unit for line in own}
        on = _names(line.measured.dataset for line in own if line.measured is not None)
        found.append(
            Grid(
                metric,
                units.pop() if len(units) == 1 else "",
                profile,
                columns,
                tuple((row, tuple(place.get((row, column)) for column in columns)) for row in rows),
                on,
            )
        )
    return found


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
