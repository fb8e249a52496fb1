"""Run the papers' tables: plan, run what isn't finished, gather what is.

>>> from rsovlib.experiments import reproduce
>>> summary = reproduce(["sdci-table2"], workers=2)  # doctest: +SKIP
>>> summary.results  # a DataFrame of all rows  # doctest: +SKIP
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsovlib.errors import OutputError
from rsovlib.experiments.digits import counted
from rsovlib.experiments.gather import gather_results, read_results
from rsovlib.experiments.matrix import Unit, plan_units
from rsovlib.experiments.progress import Teller
from rsovlib.experiments.runs import Outcome, clean_working, finished_run
from rsovlib.experiments.scheduler import Site, run_units
from rsovlib.experiments.tables import TableEntry, chosen_tables, load_tables
from rsovlib.files import write_beside

if TYPE_CHECKING:
    import pandas as pd

STATES = {
    "finished": "finished now",
    "kept": "finished earlier",
    "failed": "failed",
    "stopped": "stopped",
    "not run": "not run",
}
"""State of a run -> what a person is told."""

PLANS = "plans"
PLAN_VERSION = 1


@dataclass(frozen=True)
class Summary:
    """What came of a reproduction.

    Attributes:
        out: folder of all runs.
        units: what was to be run.
        outcomes: what came of each, by the unit's key; those that were interrupted are not there.
        seconds: that it took.
    """

    out: Path
    units: tuple[Unit, ...]
    outcomes: Mapping[str, Outcome]
    seconds: float

    def count(self, *states: str) -> int:
        """How many units have one of these states."""
        return sum(outcome.state in states for outcome in self.outcomes.values())

    @property
    def is_good(self) -> bool:
        """Whether no run failed, and at least one has results."""
        return self.count("failed", "stopped") == 0 and self.count("finished", "kept") > 0

    @property
    def results(self) -> pd.DataFrame:
        """All rows of all finished runs in the folder."""
        return read_results(self.out)

    def failures(self) -> list[tuple[Unit, Outcome]]:
        """The failed units."""
        return self._of("failed", "stopped")

    def not_run(self) -> list[tuple[Unit, Outcome]]:
        """The units that couldn't be run."""
        return self._of("not run")

    def _of(self, *states: str) -> list[tuple[Unit, Outcome]]:
        pairs = ((unit, self.outcomes.get(unit.key)) for unit in self.units)
        return [(unit, outcome) for unit, outcome in pairs if outcome is not None and outcome.state in states]


def reproduce(
    tables: Sequence[str] = (),
    *,
    profile: str = "embedded",
    workers: int | None = None,
    scheduler: str | None = None,
    threads: int | None = None,
    seeds: Sequence[int] | None = None,
    parameters: Mapping[str, Any] | None = None,
    texts: Mapping[str, str] | None = None,
    out: str | os.PathLike[str] = "runs",
    force: bool = False,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
    tell: Callable[[str], None] | None = None,
) -> Summary:
    """Run tables, each run unless it is finished already, and gather the results.

    Args:
        tables: their names, or papers such as ``"sdci"``, which stand for all their tables; all tables if none is
            given. What has to be asked for by name is never among "all".
        profile: ``"embedded"`` or ``"full"``.
        workers: processes on this machine; 0 runs everything in this one, None takes one for two cores.
        scheduler: address of a Dask scheduler in place of ``workers``.
        threads: for the numerical libraries of each run; the cores shared out evenly if None.
        seeds: in place of the tables' own.
        parameters: of the notebooks: name to value, or table to names and values.
        texts: the same as text, as on the command line.
        out: folder of all runs; with a scheduler on storage that all workers share.
        force: run again what is finished.
        folder: of other tables' YAML files.
        progress: show a bar; without one the lines say how many runs are done and how long the rest takes.
        tell: is given a line for each run that is over; None prints nothing.

    Returns:
        What came of each run.

    Raises:
        InputError: an unknown table, profile or parameter, a wrong value; before anything runs.
        OutputError: the folder can't be written to.
        ResourceError: no scheduler, or one that went away.
    """
    began = time.monotonic()
    place = Path(out).resolve()
    known = load_tables(folder)
    chosen = chosen_tables(known, named_tables(known, tables), profile)
    units = plan_units(chosen, profile=profile, seeds=seeds, texts=texts, values=parameters)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{place} can't be made ({error.strerror or error}); choose another --out.") from error
    clean_working(place)
    outcomes: dict[str, Outcome] = {}
    teller = Teller(units, tell, bar=progress)
    _write_plans(place, chosen, units, outcomes, profile)
    try:
        _run_all(units, outcomes, place, workers, scheduler, threads, force, teller)
    except (KeyboardInterrupt, SystemExit):
        # At once: results are gathered by `rsovlib report` and by the next call.
        clean_working(place)
        for unit in units:  # a run may have been finished and not yet told of
            if unit.key not in outcomes and finished_run(place, unit.name, unit.key) is not None:
                outcomes[unit.key] = Outcome(unit.name, "finished")
        done = sum(outcome.is_done for outcome in outcomes.values())
        with suppress(OSError):  # nobody may be there to read it
            teller.say(f"Stopped: {done} of {counted(len(units), 'run')} are finished; the same command goes on.")
        raise
    except Exception:
        gather_results(place)
        raise
    finally:
        _write_plans(place, chosen, units, outcomes, profile)
    gather_results(place)
    return Summary(place, tuple(units), outcomes, time.monotonic() - began)


def named_tables(known: Mapping[str, TableEntry], names: Sequence[str]) -> list[str]:
    """The names of tables, with a paper's name replaced by all its tables that don't have to be asked for by name.

    A table is a paper's if it says so, or if its name begins with the paper's.

    Args:
        known: all tables.
        names: of tables or papers; a table goes first where both have a name. What is neither stays as it is.
    """
    found: list[str] = []
    for name in names:
        own = [
            table
            for table, entry in known.items()
            if (entry.paper == name or table.startswith(f"{name}-")) and not entry.by_name
        ]
        found += [name] if name in known or not own else own
    return list(dict.fromkeys(found))


def _run_all(
    units: Sequence[Unit],
    outcomes: dict[str, Outcome],
    out: Path,
    workers: int | None,
    scheduler: str | None,
    threads: int | None,
    force: bool,
    teller: Teller,
) -> None:
    """Fill ``outcomes``; what needs no worker is settled first."""
    rest = []
    for unit in units:
        if unit.missing:
            outcomes[unit.key] = Outcome(unit.name, "not run", reason=unit.missing)
        elif not force and finished_run(out, unit.name, unit.key) is not None:
            outcomes[unit.key] = Outcome(unit.name, "kept")
        else:
            rest.append(unit)
    settled = count_states(outcomes.values())
    if not rest:  # no cluster is started for nothing
        teller.say(f"{counted(len(units), 'run')}: {settled}")
        return

    def begun(site: Site) -> None:
        teller.say(f"{counted(len(units), 'run')}: {settled + ', ' if settled else ''}{len(rest)} to do {site.text}")
        teller.begin(site, rest, out)

    by_name = {unit.name: unit for unit in rest}
    with teller.at_work(len(rest)):
        at_work = run_units(
            rest, out, workers=workers, scheduler=scheduler, threads=threads, force=force, started=begun
        )
        with closing(at_work):
            for outcome in at_work:
                unit = by_name[outcome.name]
                outcomes[unit.key] = outcome
                teller.settle(unit, outcome)


def count_states(outcomes: Iterable[Outcome]) -> str:
    """How many runs ended how: ``"2 finished now, 1 failed"``; "" for none."""
    found = Counter(outcome.state for outcome in outcomes)
    return ", ".join(f"{found[state]} {text}" for state, text in STATES.items() if found[state])


def _write_plans(
    out: Path, tables: Mapping[str, TableEntry], units: Sequence[Unit], outcomes: Mapping[str, Outcome], profile: str
) -> None:
    """For the report: which runs make up each table, and what came of them."""
    for name in tables:
        own = [unit for unit in units if unit.table == name]
        content = {
            "version": PLAN_VERSION,
            "table": name,
            "profile": profile,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "units": [
                {
                    "name": unit.name,
                    "key": unit.key,
                    "point": dict(unit.point),
                    "outcome": asdict(outcomes[unit.key]) if unit.key in outcomes else None,
                }
                for unit in own
            ],
        }
        with write_beside(out / PLANS / f"{name}.{profile}.json") as temporary:
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
