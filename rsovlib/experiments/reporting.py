"""All tables on one page: the papers' numbers, ours, and what they say of each other.

The page needs nothing from the network and nothing but the folder of the runs beside it, whose executed notebooks it
links to. Numbers come from the rows of finished runs only.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rsovlib.errors import InputError
from rsovlib.experiments.comparison import RULE, SEEDS_RULE, VERDICTS, Measured, Verdict, combine, judge
from rsovlib.experiments.gather import gather_results
from rsovlib.experiments.matrix import plan_units
from rsovlib.experiments.report_grids import SIGNS, Grid, grids
from rsovlib.experiments.reproduction import PLAN_VERSION, PLANS
from rsovlib.experiments.results import ROWS_FILE, ResultRow, read_rows
from rsovlib.experiments.runs import FINISHED, NOTEBOOK, PAGE, finished_run
from rsovlib.experiments.tables import PROFILES, TableEntry, load_tables
from rsovlib.files import write_beside

HTML, MARKDOWN = "report.html", "report.md"
_METRICS = {"miou": "mIoU", "iou": "IoU", "flops": "FLOPs"}
"""As people write them."""
GAIN = "gain"
"""The metric under which a notebook records the gain above the reference row."""


@dataclass(frozen=True)
class Line:
    """One number of the report.

    Attributes:
        row, column, metric: its place.
        unit: of both numbers.
        published: the paper's number.
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


@dataclass(frozen=True)
class RunLine:
    """One run of the report: what it was, and what it cost."""

    name: str
    profile: str
    label: str
    state: str
    reason: str
    seconds: float | None
    peak_memory: int | None
    threads: int | None
    processor: str
    started: str
    code: str
    commit: str


@dataclass(frozen=True)
class Section:
    """One table.

    Attributes:
        entry: what it is.
        lines: its numbers.
        runs: behind them.
        absent: profile -> why there is no number of it.
    """

    entry: TableEntry
    lines: tuple[Line, ...]
    runs: tuple[RunLine, ...]
    absent: Mapping[str, str]

    @property
    def has_gains(self) -> bool:
        """Whether any line has a gain."""
        return any(line.published_gain is not None or line.measured_gain is not None for line in self.lines)

    @property
    def grids(self) -> list[Grid]:
        """The same numbers as the paper lays them out."""
        return grids(self.lines)

    @property
    def counts(self) -> dict[str, int]:
        """How many numbers have each verdict."""
        return _counts(self.lines)

    @property
    def seconds(self) -> float:
        """Wall time of all its runs."""
        return sum(run.seconds or 0.0 for run in self.runs)

    @property
    def finished(self) -> int:
        """How many of its runs are finished."""
        return sum(run.state == FINISHED for run in self.runs)


@dataclass(frozen=True)
class Report:
    """A written report.

    Attributes:
        page: the HTML file.
        markdown: the same in Markdown.
        sections: what stands in both.
    """

    page: Path
    markdown: Path
    sections: tuple[Section, ...]

    def counts(self) -> dict[str, int]:
        """How many numbers have each verdict."""
        return _counts(line for section in self.sections for line in section.lines)

    def summary(self) -> str:
        """One line for a terminal."""
        counts = ", ".join(f"{count} {word or 'without a number in a paper'}" for word, count in self.counts().items())
        return f"{len(self.sections)} tables; {counts or 'no number'}"


def _counts(lines: Iterable[Line]) -> dict[str, int]:
    found = Counter(line.verdict.word for line in lines)
    return {word: found[word] for word in VERDICTS if found[word]}


def write_report(out: str | os.PathLike[str] = "runs", folder: str | os.PathLike[str] | None = None) -> Report:
    """Write ``report.html`` and ``report.md`` beside the runs.

    Args:
        out: folder of all runs.
        folder: of other tables' YAML files than rsovlib's.

    Returns:
        Where they are, and what stands in them.

    Raises:
        InputError: there is no such folder.
    """
    place = Path(out)
    if not place.is_dir():
        raise InputError(f"There is no folder {place}; run `rsovlib reproduce --out {place}` first.")
    gather_results(place)
    sections = tuple(_sections(place, load_tables(folder)))
    facts = {
        "sections": sections,
        "rule": RULE,
        "seeds_rule": SEEDS_RULE,
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "counts": Report(place, place, sections).counts(),
        "signs": SIGNS,
    }
    for name, template in ((HTML, "report.html.j2"), (MARKDOWN, "report.md.j2")):
        text = _environment(html=name == HTML).get_template(template).render(facts)
        with write_beside(place / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return Report(place / HTML, place / MARKDOWN, sections)


def _sections(out: Path, tables: Mapping[str, TableEntry]) -> Iterator[Section]:
    """Each table that was run, and the papers' tables also where they weren't."""
    for name, entry in tables.items():
        plans = {profile: plan for profile in PROFILES if (plan := _plan(out, name, profile)) is not None}
        if not plans and entry.published is None:
            continue  # nothing to show, and nothing published to miss
        lines: list[Line] = []
        runs: list[RunLine] = []
        absent = {profile: _unavailable(entry, profile) for profile in PROFILES if profile not in plans}
        for profile, plan in plans.items():
            found = [(unit, finished_run(out, unit["name"], unit["key"])) for unit in plan["units"]]
            rows = [
                row
                for unit, run in found
                if run is not None
                for row in read_rows(out / FINISHED / unit["name"] / ROWS_FILE)
            ]
            own = tuple(_run_line(unit, run, rows, profile) for unit, run in found)
            runs += own
            missing = _missing(entry, profile, own)
            if rows:
                lines += _lines(entry, profile, rows, missing)
            else:
                absent[profile] = missing
        if not lines and entry.published is not None:
            reasons = "; ".join(f"{profile}: {reason}" for profile, reason in absent.items())
            lines += _lines(entry, "", [], reasons)
        yield Section(entry, tuple(lines), tuple(runs), absent if entry.published is not None else {})


def _lines(entry: TableEntry, profile: str, rows: Sequence[ResultRow], missing: str) -> Iterator[Line]:
    """The numbers of one profile, those of the paper first, in its order."""
    groups: dict[tuple[str, str, str], list[ResultRow]] = {}
    for one in rows:
        groups.setdefault((one.row, one.column, one.metric), []).append(one)
    published: dict[tuple[str, str, str], float] = {}
    if entry.published is not None:
        published = {(row, column, metric): value for row, column, metric, value in entry.published.cells()}
    for key in [*published, *(key for key in groups if key not in published)]:
        row, column, metric = key
        if metric == GAIN and any(place[:2] == key[:2] and place[2] != GAIN for place in groups):
            continue  # it stands beside the number itself
        printed = entry.published if key in published else None
        group = groups.get(key, [])
        measured = combine(group)
        gains = _published_gain(entry, row, column), _measured_gain(entry, groups, row, column, metric)
        verdict = judge(
            published.get(key),
            measured,
            dataset=printed.of("dataset", column) if printed else "",
            tolerance=printed.tolerance if printed else 0.0,
            published_gain=gains[0],
            measured_gain=gains[1],
            missing="; ".join(dict.fromkeys(one.note for one in group if one.note)) or missing,
        )
        unit = group[0].unit if group else printed.of("unit", column) if printed else ""
        yield Line(row, column, metric, unit, published.get(key), measured, *gains, verdict, profile)


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
    return Measured(
        own.value - reference.value,
        None,
        None,
        None,
        own.runs,
        own.seeds,
        own.n,
        own.unit,
        own.dataset,
        own.profile,
        own.device,
        "",
    )


def _missing(entry: TableEntry, profile: str, runs: Sequence[RunLine]) -> str:
    """Why a number of a table that was started isn't there, as exactly as it is known."""
    reasons = list(dict.fromkeys(run.reason for run in runs if run.state != FINISHED and run.reason))
    if reasons:
        return "; ".join(reasons)
    if all(run.state == FINISHED for run in runs):
        return "the notebook doesn't measure it in this profile"
    return f"not finished; run `rsovlib reproduce {entry.name} --profile {profile}`"


def _unavailable(entry: TableEntry, profile: str) -> str:
    """Why a table was never started: what is missing for it on this machine, if anything is."""
    if profile not in entry.profiles:
        return f"there is no {profile} version of this table yet"
    before = os.environ.get("RSOV_OFFLINE")
    os.environ["RSOV_OFFLINE"] = "1"  # a report looks, and fetches nothing
    try:
        units = plan_units({entry.name: entry.model_copy(update={"needs": (), "inputs": {}})}, profile=profile, code="")
    except InputError as error:
        return str(error)  # one table that can't be run is no reason to show none
    finally:
        os.environ.pop("RSOV_OFFLINE")
        if before is not None:
            os.environ["RSOV_OFFLINE"] = before
    missing = list(dict.fromkeys(unit.missing for unit in units if unit.missing))
    return "; ".join(missing) or f"never started here; run `rsovlib reproduce {entry.name} --profile {profile}`"


def _run_line(
    unit: Mapping[str, Any], run: Mapping[str, Any] | None, rows: Iterable[ResultRow], profile: str
) -> RunLine:
    point = ", ".join(f"{name} = {value}" for name, value in unit["point"].items())
    if run is None:
        outcome = unit["outcome"] or {"state": "not finished", "reason": "", "cell": ""}
        state = "not finished" if outcome["state"] in ("finished", "kept") else outcome["state"]
        reason = f"{outcome['cell']}: {outcome['reason']}" if outcome["cell"] else outcome["reason"]
        return RunLine(unit["name"], profile, point, state, reason, None, None, None, "", "", "", "")
    peaks = [row.peak_memory for row in rows if row.run == unit["name"] and row.peak_memory is not None]
    about = run["environment"]
    return RunLine(
        name=unit["name"],
        profile=profile,
        label=point,
        state=FINISHED,
        reason="",
        seconds=run["seconds"],
        peak_memory=max(peaks, default=None),
        threads=run["threads"] or None,
        processor=about["processor"],
        started=run["started"][:16].replace("T", " "),
        code=run["identity"]["code"][:12],
        commit=about["commit"][:12] + ("+changes" if about["commit"].endswith("+changes") else ""),
    )


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


def _environment(*, html: bool) -> Any:
    """Templates with the filters that they use; text is escaped for where it goes."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("rsovlib.experiments", "templates"),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": _number,
        "interval": _interval,
        "signed": lambda value: "" if value is None else f"{value:+.4g}",
        "page": lambda run: quote(f"{FINISHED}/{run}/{PAGE}"),
        "notebook": lambda run: quote(f"{FINISHED}/{run}/{NOTEBOOK}"),
        "memory": lambda size: "" if size is None else f"{size / 2**20:,.0f} MiB",
        "cell": lambda text: str(text).replace("|", "\\|").replace("\n", " "),
        "sign": lambda word: SIGNS[word],
        "duration": _duration,
        "in_grid": lambda value, unit: f"{value:.2f}" if unit == "percent" else _number(value),
        "metric": _metric,
        "slug": lambda text: text.replace(" ", "-"),
    }
    return environment


def _number(value: float | None) -> str:
    """For people: two decimals, or four significant digits where those would say little."""
    if value is None:
        return ""
    if value == int(value) and abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:,.2f}" if 1 <= abs(value) < 1e6 else f"{value:.4g}"


def _metric(name: str) -> str:
    """``"miou, cloudy"`` as ``"mIoU, cloudy"``."""
    first, comma, rest = name.partition(",")
    return f"{_METRICS.get(first, first)}{comma}{rest}"


def _duration(seconds: float) -> str:
    """For people: ``12 s`` or ``3 min``."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _interval(measured: Measured) -> str:
    if measured.low is None or measured.high is None:
        return f"± {_number(measured.std)}" if measured.std is not None else ""
    return f"[{_number(measured.low)}, {_number(measured.high)}]"
