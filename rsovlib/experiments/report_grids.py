"""The report's numbers as the papers lay them out: rows and columns, ours above the paper's, with notes below.

A grid shows one metric in one profile. What stands beside a number in the long list (gains, differences, reasons that
follow from the profile) is left out here; the sign before the verdict says as much as its colour does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rsovlib.experiments.report_sections import Line

#: Verdict -> its sign, so that nothing hangs on colours.
SIGNS = {
    "agrees": "✓",
    "trend agrees": "↗",
    "differs": "✗",
    "not comparable": "◇",
    "not run": "–",
    "": "",
}


class Notes:
    """Texts below a table, each once, and the numbers that stand for them in it."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, text: str) -> str:
        """The number of a note, as text; "" for none."""
        return str(self._numbers.setdefault(text, len(self._numbers) + 1)) if text else ""

    @property
    def texts(self) -> tuple[str, ...]:
        """All notes, in the order of their numbers."""
        return tuple(self._numbers)


@dataclass(frozen=True)
class Cell:
    """One place of a grid.

    Attributes:
        line: its number; None for none.
        mark: number of its note, or "".
    """

    line: Line | None
    mark: str = ""


@dataclass(frozen=True)
class GridRow:
    """One row of a grid.

    Attributes:
        name: of the row.
        note: that holds for all of it, or "".
        mark: its number, or "".
        cells: one a column.
    """

    name: str
    note: str
    mark: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Grid:
    """One metric of one table in one profile.

    Attributes:
        metric: what was measured.
        unit: of all its numbers, or "" where they differ.
        profile: under which; "" for what wasn't run.
        columns: in the order in which they first appear, those of the paper first.
        rows: likewise.
        on: what the measured numbers were measured on.
        samples: how many seeds and images stand behind them, or "" where they differ.
        notes: by number, from 1.
    """

    metric: str
    unit: str
    profile: str
    columns: tuple[str, ...]
    rows: tuple[GridRow, ...]
    on: tuple[str, ...]
    samples: str
    notes: tuple[str, ...]

    @property
    def lines(self) -> list[Line]:
        """Its numbers."""
        return [cell.line for row in self.rows for cell in row.cells if cell.line is not None]

    @property
    def narrow(self) -> bool:
        """Whether there is room for the notes beside the numbers."""
        return len(self.columns) == 1

    @property
    def any_profile(self) -> bool:
        """Whether its numbers are the same in any profile, as the notebook says by recording them under another."""
        return any(line.measured is not None and line.measured.profile != self.profile for line in self.lines)

    @property
    def measured(self) -> bool:
        """Whether any of its numbers was measured."""
        return any(line.measured is not None for line in self.lines)

    @property
    def printed(self) -> bool:
        """Whether a paper has any of its numbers."""
        return any(line.published is not None for line in self.lines)


def grids(lines: Sequence[Line]) -> list[Grid]:
    """The grids of a table's lines, those with numbers of a paper first.

    One for each profile and metric with at least two rows and two columns; of what a paper has, one column will do.
    """
    found = []
    for profile, metric in dict.fromkeys((line.profile, line.metric) for line in lines):
        own = [line for line in lines if (line.profile, line.metric) == (profile, metric)]
        columns, rows = _names(line.column for line in own), _names(line.row for line in own)
        printed = any(line.published is not None for line in own)
        if (printed and (len(rows) > 1 or not profile)) or (len(columns) > 1 and len(rows) > 1):
            found.append(_grid(profile, metric, columns, rows, own))
    return sorted(found, key=lambda grid: not grid.printed)


def _grid(profile: str, metric: str, columns: tuple[str, ...], rows: tuple[str, ...], lines: Sequence[Line]) -> Grid:
    from rsovlib.experiments.digits import sample

    place = {(line.row, line.column): line for line in lines}
    units = {line.unit for line in lines}
    samples = {sample(line.measured) for line in lines if line.measured is not None}
    notes = Notes()
    made = []
    for row in rows:
        cells = [place.get((row, column)) for column in columns]
        # What a whole table lacks is said once above it.
        texts = [line.note if line is not None and profile else "" for line in cells]
        shared = {text for text, line in zip(texts, cells, strict=True) if line is not None}
        common = shared.pop() if len(shared) == 1 else ""
        mark = notes.mark(common)
        marks = ["" if common else notes.mark(text) for text in texts]
        made.append(GridRow(row, common, mark, tuple(Cell(line, one) for line, one in zip(cells, marks, strict=True))))
    return Grid(
        metric=metric,
        unit=units.pop() if len(units) == 1 else "",
        profile=profile,
        columns=columns,
        rows=tuple(made),
        on=_names(line.measured.dataset for line in lines if line.measured is not None),
        samples=samples.pop() if len(samples) == 1 else "",
        notes=notes.texts,
    )


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
