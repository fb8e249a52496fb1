"""What the report says of each table: its numbers beside the paper's, the runs behind them, and what is missing.

Numbers come from the rows of finished runs only; which runs make up a table stands in the plan that
``rsovlib reproduce`` left in the folder.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rsovlib.errors import InputError
from rsovlib.experiments.comparison import VERDICTS, Measured, Verdict, combine, judge
from rsovlib.experiments.digits import counted, decimals, printed
from rsovlib.experiments.matrix import plan_units
from rsovlib.experiments.papers import load_paper, paper_names
from rsovlib.experiments.progress import label_of, telling_names
from rsovlib.experiments.report_grids import Grid, grids
from rsovlib.experiments.reproduction import PLAN_VERSION, PLANS
from rsovlib.experiments.results import ROWS_FILE, ResultRow, read_rows
from rsovlib.experiments.runs import FINISHED, finished_run
from rsovlib.experiments.tables import PROFILES, Published, TableEntry, chosen_tables

GAIN = "gain"
"""The metric under which a notebook records the gain above the reference row."""

FEW = 12
"""So many single numbers are shown without being asked for."""


@dataclass(frozen=True)
class Line:
    """One number of the report.

    Attributes:
        row, column, metric: its place.
        unit: of both numbers.
        published: the paper's number.
        places: decimals that it was printed with.
        measured: ours.
        published_gain: the paper's gain above the table's reference row.
        measured_gain: ours.
        verdict: what they say of each other.
        profile: under which it was measured; "" if it wasn't.
    """

    row: str
    column: str
    metric: str
    unit: str
    published: float | None
    measured: Measured | None
    published_gain: float | None
    measured_gain: Measured | None
    verdict: Verdict
    profile: str
    places: int = 2

    @property
    def paper(self) -> str:
        """The paper's number as it stands there."""
        return printed(self.published, self.places)

    @property
    def note(self) -> str:
        """What a reader must know of the measured number, or why there is none."""
        return self.measured.note if self.measured is not None else self.verdict.reason


@dataclass(frozen=True)
class RunLine:
    """One run of the report: what it was, and what it cost.

    Attributes:
        name: of its folder.
        table, profile: what it belongs to.
        label: what tells it apart from the table's other runs.
        state: ``"finished"`` or what became of it.
        reason: why it isn't finished.
        seconds, peak_memory, threads, processor, started: of a finished one.
        code, commit: versions of the sources.
        libraries: name -> version.
    """

    name: str
    table: str
    profile: str
    label: str
    state: str
    reason: str = ""
    seconds: float | None = None
    peak_memory: int | None = None
    threads: int | None = None
    processor: str = ""
    started: str = ""
    code: str = ""
    commit: str = ""
    libraries: Mapping[str, str] | None = None

    @property
    def is_finished(self) -> bool:
        """Whether its results are there."""
        return self.state == FINISHED


@dataclass(frozen=True)
class Gap:
    """Something that isn't there.

    Attributes:
        table, profile: of what.
        reason: why, as exactly as it is known.
        command: what gets it; "" where something else is needed first.
        obtainable: whether a reader can do anything about it.
    """

    table: str
    profile: str
    reason: str
    command: str = ""
    obtainable: bool = True


@dataclass(frozen=True)
class Section:
    """One table.

    Attributes:
        entry: what it is.
        lines: its numbers.
        runs: behind them.
        gaps: what is missing of it.
        settings: parameters that were chosen, the same for all runs of a profile: one line for each.
    """

    entry: TableEntry
    lines: tuple[Line, ...]
    runs: tuple[RunLine, ...]
    gaps: tuple[Gap, ...]
    settings: tuple[str, ...] = ()

    @property
    def started(self) -> bool:
        """Whether anybody has asked for it."""
        return bool(self.runs)

    @property
    def grids(self) -> list[Grid]:
        """The same numbers as the paper lays them out."""
        return grids(self.lines)

    @property
    def open_grids(self) -> list[Grid]:
        """Those that are shown without being asked for: what a paper has, or else the first."""
        return [grid for grid in self.grids if grid.printed] or self.grids[:1]

    @property
    def folded_grids(self) -> list[Grid]:
        """The others."""
        return self.grids[len(self.open_grids) :]

    @property
    def folded(self) -> bool:
        """Whether the list of its numbers is shown only when asked for."""
        return bool(self.grids) or len(self.lines) > FEW

    @property
    def counts(self) -> dict[str, int]:
        """How many numbers have each verdict."""
        return counts(self.lines)

    @property
    def seconds(self) -> float:
        """Wall time of all its runs."""
        return sum(run.seconds or 0.0 for run in self.runs)

    @property
    def finished(self) -> int:
        """How many of its runs are finished."""
        return sum(run.is_finished for run in self.runs)

    @property
    def short_title(self) -> str:
        """The title without the paper's name, for a list under that name: ``"Table 1: all methods"``."""
        title = self.entry.title
        if self.entry.paper and re.match(rf"{re.escape(self.entry.paper)}[,:] ", title, re.IGNORECASE):
            title = re.split("[,:] ", title, maxsplit=1)[1]
        return title[:1].upper() + title[1:]


def counts(lines: Iterable[Line]) -> dict[str, int]:
    """How many numbers have each verdict, in the order of the verdicts."""
    found = Counter(line.verdict.word for line in lines)
    return {word: found[word] for word in VERDICTS if found[word]}


def in_order(sections: Iterable[Section]) -> list[Section]:
    """By paper in the order in which they came out, then tables before figures, as the paper numbers them.

    What has no number in its paper follows: what sums up, other tables, figures, trainings; then what is of no paper.
    """
    return sorted(sections, key=_place)


def _place(section: Section) -> tuple[Any, ...]:
    entry = section.entry
    known = entry.paper in paper_names()
    paper = (0, load_paper(entry.paper).arxiv) if known else (1 if entry.paper else 2, "")
    match = re.search(r"\b(Table|Figure)s? ([A-Z]?)(\d+)", entry.title)
    kinds = ("table", "figure", "training", "lesson", "demo")
    if match:
        # Table 1, Table A1, Figure 1, Figure A1.
        return *paper, entry.paper, 0, match.group(1) == "Figure", match.group(2), int(match.group(3)), entry.title
    sums_up = "verdicts" in entry.name or "findings" in entry.name
    return *paper, entry.paper, 1 if sums_up else 2, kinds.index(entry.kind), "", 0, entry.title


def read_sections(out: Path, tables: Mapping[str, TableEntry], place: str = "") -> Iterator[Section]:
    """Each table that was run, and the papers' tables also where they weren't.

    Args:
        out: folder of all runs.
        tables: all that are known.
        place: of the folder, as it is given to ``--out`` in the commands that are shown; "" for the usual one.

    Raises:
        InputError: a plan can't be read.
    """
    for name, entry in tables.items():
        plans = {profile: plan for profile in PROFILES if (plan := _plan(out, name, profile)) is not None}
        if not plans and entry.published is None:
            continue  # nothing to show, and nothing published to miss
        lines: list[Line] = []
        runs: list[RunLine] = []
        gaps: list[Gap] = []
        settings: list[str] = []
        for profile in PROFILES:
            if profile not in plans:
                # A table that isn't a paper's is missed only where somebody began it.
                gaps += _never_started(tables, entry, profile, place) if entry.published is not None else ()
                continue
            found = [(unit, finished_run(out, unit["name"], unit["key"])) for unit in plans[profile]["units"]]
            rows = [
                row
                for unit, run in found
                if run is not None
                for row in read_rows(out / FINISHED / unit["name"] / ROWS_FILE)
            ]
            own = _run_lines(found, rows, name, profile)
            runs += own
            settings += _settings([unit["point"] for unit, _ in found], profile)
            missing = list(_unfinished(entry, profile, own, place))
            gaps += missing
            if rows:
                lines += _lines(entry, profile, rows, "; ".join(gap.reason for gap in missing))
        if not lines and entry.published is not None:
            reasons = "; ".join(f"{gap.profile}: {gap.reason}" for gap in gaps)
            lines += _lines(entry, "", [], reasons)
        yield Section(entry, tuple(lines), tuple(runs), tuple(gaps), tuple(settings))


def _lines(entry: TableEntry, profile: str, rows: Sequence[ResultRow], missing: str) -> Iterator[Line]:
    """The numbers of one profile, those of the paper first, in its order."""
    groups: dict[tuple[str, str, str], list[ResultRow]] = {}
    for one in rows:
        groups.setdefault((one.row, one.column, one.metric), []).append(one)
    published: dict[tuple[str, str, str], float] = {}
    places: dict[str, int] = {}
    if entry.published is not None:
        published = {(row, column, metric): value for row, column, metric, value in entry.published.cells()}
        for column in entry.published.columns:
            kind = _kind(entry.published, column)
            places[column] = decimals(
                value for _, other, _, value in entry.published.cells() if _kind(entry.published, other) == kind
            )
    for key in [*published, *(key for key in groups if key not in published)]:
        row, column, metric = key
        if metric == GAIN and any(place[:2] == key[:2] and place[2] != GAIN for place in groups):
            continue  # it stands beside the number itself
        paper = entry.published if key in published else None
        group = groups.get(key, [])
        measured = combine(group)
        gains = _published_gain(entry, row, column), _measured_gain(entry, groups, row, column, metric)
        verdict = judge(
            published.get(key),
            measured,
            dataset=paper.of("dataset", column) if paper else "",
            tolerance=paper.tolerance if paper else 0.0,
            published_gain=gains[0],
            measured_gain=gains[1],
            missing="; ".join(dict.fromkeys(one.note for one in group if one.note))
            or missing
            or "the notebook doesn't measure it in this profile",
        )
        unit = group[0].unit if group else paper.of("unit", column) if paper else ""
        digits = places[column] if paper else 0
        yield Line(row, column, metric, unit, published.get(key), measured, *gains, verdict, profile, digits)


def _kind(published: Published, column: str) -> tuple[str, str]:
    """What a column's numbers are: those of one kind were printed with the same decimals."""
    return published.of("metric", column), published.of("unit", column)


def _published_gain(entry: TableEntry, row: str, column: str) -> float | None:
    table = entry.published
    if table is None or table.reference is None or row == table.reference or row not in table.rows:
        return None
    place = table.columns.index(column) if column in table.columns else None
    if place is None:
        return None
    value, reference = table.rows[row][place], table.rows[table.reference][place]
    return None if value is None or reference is None else value - reference


def _measured_gain(
    entry: TableEntry, groups: Mapping[tuple[str, str, str], list[ResultRow]], row: str, column: str, metric: str
) -> Measured | None:
    """The gain that the notebook recorded, with its paired interval; else the difference of the two numbers."""
    recorded = combine(groups.get((row, column, GAIN), []))
    if recorded is not None or entry.published is None or entry.published.reference in (None, row):
        return recorded
    own = combine(groups.get((row, column, metric), []))
    reference = combine(groups.get((str(entry.published.reference), column, metric), []))
    if own is None or reference is None:
        return None
    return replace(own, value=own.value - reference.value, low=None, high=None, std=None, note="")


def _unfinished(entry: TableEntry, profile: str, runs: Sequence[RunLine], place: str) -> Iterator[Gap]:
    """What is missing of a table that was started."""
    reasons: dict[tuple[str, str], list[RunLine]] = {}
    for run in runs:
        if not run.is_finished:
            reasons.setdefault((run.state, run.reason), []).append(run)
    for (state, reason), own in reasons.items():
        some = f" ({len(own)} of {counted(len(runs), 'run')})" if len(runs) > 1 else ""
        text = f"{state}{some}{f': {reason}' if reason else ''}"
        # What can't be run needs something first, and the reason says what.
        yield Gap(
            entry.name, profile, text, "" if state == "not run" else reproduce_command([entry.name], profile, place)
        )


def _never_started(tables: Mapping[str, TableEntry], entry: TableEntry, profile: str, place: str) -> list[Gap]:
    """Why a table was never started: what is missing for it on this machine, if anything is."""
    if profile not in entry.profiles:
        return [Gap(entry.name, profile, f"there is no {profile} version of this table", obtainable=False)]
    before = os.environ.get("RSOV_OFFLINE")
    os.environ["RSOV_OFFLINE"] = "1"  # a report looks, and fetches nothing
    try:
        units = plan_units(chosen_tables(tables, [entry.name], profile), profile=profile, code="")
    except InputError as error:
        return [Gap(entry.name, profile, str(error))]  # one table that can't be run is no reason to show none
    finally:
        os.environ.pop("RSOV_OFFLINE")
        if before is not None:
            os.environ["RSOV_OFFLINE"] = before
    missing = list(dict.fromkeys(unit.missing for unit in units if unit.missing and unit.table == entry.name))
    if missing:
        return [Gap(entry.name, profile, reason) for reason in missing]
    return [Gap(entry.name, profile, "never started here", reproduce_command([entry.name], profile, place))]


def reproduce_command(names: Sequence[str], profile: str, place: str) -> str:
    """What runs these tables."""
    words = ["rsovlib", "reproduce", *names]
    words += ["--profile", profile] if profile != PROFILES[0] else []
    words += ["--out", place] if place else []
    return shlex.join(words)


def _run_lines(
    found: Sequence[tuple[Mapping[str, Any], Mapping[str, Any] | None]],
    rows: Iterable[ResultRow],
    table: str,
    profile: str,
) -> list[RunLine]:
    peaks: dict[str, int] = {}
    for row in rows:
        if row.peak_memory is not None:
            peaks[row.run] = max(row.peak_memory, peaks.get(row.run, 0))
    names = telling_names([unit["point"] for unit, _ in found])
    lines = []
    for unit, run in found:
        label = label_of(unit["point"], names)
        if run is None:
            outcome = unit["outcome"] or {"state": "not finished", "reason": "", "cell": ""}
            state = "not finished" if outcome["state"] in ("finished", "kept") else outcome["state"]
            reason = f"{outcome['cell']}: {outcome['reason']}" if outcome["cell"] else outcome["reason"]
            lines.append(RunLine(unit["name"], table, profile, label, state, reason))
            continue
        about = dict(run["environment"])
        commit = about.pop("commit")
        lines.append(
            RunLine(
                name=unit["name"],
                table=table,
                profile=profile,
                label=label,
                state=FINISHED,
                seconds=run["seconds"],
                peak_memory=peaks.get(unit["name"]),
                threads=run["threads"] or None,
                processor=about.pop("processor"),
                started=run["started"][:16].replace("T", " "),
                code=run["identity"]["code"][:12],
                commit=commit[:12] + ("+changes" if commit.endswith("+changes") else ""),
                libraries=about,
            )
        )
    return lines


def _settings(points: Sequence[Mapping[str, Any]], profile: str) -> Iterator[str]:
    """The parameters of the matrix, or of the command line, that all runs share."""
    shared = {name: value for name, value in points[0].items() if all(point.get(name) == value for point in points)}
    if shared:
        yield f"{profile}: {label_of(shared, tuple(shared))}"


def _plan(out: Path, table: str, profile: str) -> dict[str, Any] | None:
    path = out / PLANS / f"{table}.{profile}.json"
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read ({error}); run `rsovlib reproduce {table}` again.") from error
    if plan.get("version") != PLAN_VERSION:
        raise InputError(f"{path} was written by another rsovlib; run `rsovlib reproduce {table}` again.")
    return dict(plan)
