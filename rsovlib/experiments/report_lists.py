"""Numbers one by one, in tables that leave out what says nothing.

A column that is empty in a whole table isn't there; what is the same in all rows is said once above it; a long text
that several rows share becomes a note below it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from rsovlib.experiments.comparison import DIRECTIONS, Measured
from rsovlib.experiments.digits import (
    duration,
    interval,
    memory,
    metric_name,
    number,
    sample,
    signed,
    unit_name,
)
from rsovlib.experiments.report_grids import Notes
from rsovlib.experiments.report_sections import Line, RunLine

LONG = 30
"""Characters; what is longer makes a column wide."""


@dataclass(frozen=True)
class Entry:
    """What stands in one place of a table.

    Attributes:
        text: of it.
        runs: names of the runs that made the number.
        verdict: whose sign and colour it has.
        mark: number of a note in place of the text.
    """

    text: str = ""
    runs: tuple[str, ...] = ()
    verdict: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        title: of it.
        entries: one a row.
        right: whether they are numbers, which stand at the right.
        whole: whether they stay on one line.
        once: whether entries that are all the same are said once above the table.
        where_known: with ``once``: whether empty entries don't matter for that.
        long: whether texts of more than :data:`LONG` characters that several rows share become notes.
    """

    title: str
    entries: tuple[Entry, ...]
    right: bool = False
    whole: bool = False
    once: bool = False
    where_known: bool = False
    long: bool = False


@dataclass(frozen=True)
class Listing:
    """A table without what says nothing.

    Attributes:
        columns: what is left.
        common: title and text of what all rows share.
        notes: by number, from 1.
    """

    columns: tuple[Column, ...]
    common: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    @property
    def rows(self) -> list[tuple[Entry, ...]]:
        """The same row by row."""
        return list(zip(*(column.entries for column in self.columns), strict=True))


def listing(columns: Iterable[Column]) -> Listing:
    """Leave out empty columns, say once what all rows share, and put long texts that several share below."""
    kept: list[Column] = []
    common: list[tuple[str, str]] = []
    notes = Notes()
    for column in columns:
        texts = [entry.text for entry in column.entries]
        if not any(texts):
            continue
        different = {text for text in texts if text or not column.where_known}
        if column.once and len(texts) > 1 and len(different) == 1:
            common.append((column.title, different.pop()))
            continue
        if column.long:
            times = Counter(text for text in texts if len(text) > LONG)
            entries = (
                replace(entry, text="", mark=notes.mark(entry.text)) if times[entry.text] > 1 else entry
                for entry in column.entries
            )
            column = replace(column, entries=tuple(entries))
        kept.append(column)
    return Listing(tuple(kept), tuple(common), notes.texts)


def list_numbers(lines: Sequence[Line]) -> Listing:
    """A table's numbers, with all that is known of each."""

    def column(title: str, text: Callable[[Line], str], **options: bool) -> Column:
        return Column(title, tuple(Entry(text(line)) for line in lines), **options)

    def measured(text: Callable[[Measured], str]) -> Callable[[Line], str]:
        return lambda line: "" if line.measured is None else text(line.measured)

    numbers = tuple(
        Entry(number(line.measured.value, line.unit), line.measured.runs) if line.measured is not None else Entry()
        for line in lines
    )
    return listing(
        [
            column("row", lambda line: line.row),
            column("column", lambda line: line.column, once=True),
            column("metric", _metric, once=True),
            column("paper", lambda line: line.paper, right=True),
            Column("measured", numbers, right=True),
            column("interval", lambda line: interval(line.measured, line.metric) if line.measured else "", whole=True),
            column("difference", _difference, right=True),
            column("gain, paper", lambda line: signed(line.published_gain, line.unit), right=True),
            column("gain, measured", _gain, right=True),
            column("gain's direction", lambda line: DIRECTIONS[line.verdict.direction], once=True),
            Column("verdict", tuple(Entry(line.verdict.word, verdict=line.verdict.word) for line in lines), once=True),
            column("why", lambda line: line.verdict.reason, once=True, long=True),
            column("note", measured(lambda found: found.note), once=True, long=True),
            column("profile", lambda line: line.profile, once=True, where_known=True),
            column("measured on", measured(lambda found: found.dataset), once=True, where_known=True, long=True),
            column("sample", measured(sample), once=True, whole=True),
            column("device", measured(lambda found: found.device), once=True, where_known=True),
        ]
    )


def list_runs(runs: Sequence[RunLine]) -> Listing:
    """What each run was and cost."""

    def column(title: str, text: Callable[[RunLine], str], **options: bool) -> Column:
        return Column(title, tuple(Entry(text(run)) for run in runs), **options)

    return listing(
        [
            Column("run of", tuple(Entry(run.table, (run.name,) if run.is_finished else ()) for run in runs)),
            column("profile", lambda run: run.profile, once=True),
            column("parameters", lambda run: run.label),
            column("state", lambda run: run.state, once=True),
            column("why", lambda run: run.reason, long=True),
            column("time", lambda run: duration(run.seconds), right=True),
            column("peak memory", lambda run: memory(run.peak_memory), right=True),
            column("threads", lambda run: str(run.threads or ""), right=True, once=True, where_known=True),
            column("processor", lambda run: run.processor, once=True, where_known=True),
            column("begun (UTC)", lambda run: run.started),
            column("code", lambda run: run.code, once=True, where_known=True),
            column("commit", lambda run: run.commit, once=True, where_known=True),
        ]
    )


def _metric(line: Line) -> str:
    unit = unit_name(line.metric, line.unit)
    return f"{metric_name(line.metric)}{f' ({unit})' if unit else ''}"


def _difference(line: Line) -> str:
    return signed(line.verdict.difference, line.unit, line.measured.value if line.measured is not None else None)


def _gain(line: Line) -> str:
    gain = line.measured_gain
    if gain is None:
        return ""
    return f"{signed(gain.value, line.unit)} {interval(gain, 'gain')}".strip()
