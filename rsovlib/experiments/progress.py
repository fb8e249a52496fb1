"""What a person is told while runs are at work: a line a run, and how long the rest takes, where that is known."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

from rsovlib.experiments.digits import duration
from rsovlib.experiments.matrix import BESIDE, Unit
from rsovlib.experiments.runs import Outcome, finished_runs
from rsovlib.experiments.scheduler import Site
from rsovlib.experiments.tables import SEED

BAR = "{desc} {n_fmt}/{total_fmt} |{bar}| {elapsed}{postfix}"
"""Without tqdm's own estimate: it takes all runs for equally long."""

Kind = tuple[str, str, str]


def short_labels(units: Sequence[Unit]) -> dict[str, str]:
    """What tells each run apart from the others of its table, and nothing more.

    Args:
        units: of any tables.

    Returns:
        Key of each unit -> ``"seed 1"``, ``"method sdci"``, ``"seed 1, mix 0.5"``; "" for a table's only run.
    """
    labels: dict[str, str] = {}
    for table in dict.fromkeys((unit.table, unit.profile) for unit in units):
        own = [unit for unit in units if (unit.table, unit.profile) == table]
        names = telling_names([unit.point for unit in own])
        labels |= {unit.key: label_of(unit.point, names) for unit in own}
    return labels


def label_of(point: Mapping[str, Any], names: Sequence[str]) -> str:
    """``"seed 1, mix 0.5"``."""
    return ", ".join(f"{name} {point.get(name)}" for name in names)


def telling_names(points: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The fewest names whose values differ for every two of a table's runs; the seed goes first."""
    names = [name for name in {name: None for point in points for name in point} if _differs(points, name)]
    names.sort(key=lambda name: name != SEED)
    for size in range(len(names) + 1):
        for chosen in combinations(names, size):
            if len({repr([point.get(name) for name in chosen]) for point in points}) == len(points):
                return chosen
    return tuple(names)


def _differs(points: Sequence[Mapping[str, Any]], name: str) -> bool:
    return len({repr(point.get(name)) for point in points}) > 1


class Remaining:
    """How long the rest takes, from what runs of the same tables took: earlier ones in the folder, and those of now.

    Earlier runs count if they were made on this machine with as many threads, in the same profile and with the same
    parameters, but for those that this plan varies. As long as any table was never timed, nothing is said.

    Args:
        units: what is to be done, in order.
        site: where.
        out: folder of earlier runs.
        now: a clock, in seconds.
    """

    def __init__(self, units: Sequence[Unit], site: Site, out: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._site = now, site
        self._varied = {
            table: {name for point in points for name in point if _differs(points, name)}
            for table in {unit.table for unit in units}
            if (points := [unit.parameters for unit in units if unit.table == table])
        }
        self._waiting = list(units)
        self._begun: dict[str, float] = {}
        self._earlier: dict[Kind, list[tuple[Mapping[str, Any], float]]] = {}
        self._today: dict[Kind, list[tuple[Mapping[str, Any], float]]] = {}
        for _, run in finished_runs(out) if site.host else ():
            kind = self._kind(run["table"], run["profile"], run["parameters"])
            if run["host"] == site.host and run["threads"] == site.threads and run["table"] in self._varied:
                self._earlier.setdefault(kind, []).append((run["parameters"], run["seconds"]))
        self._begin()

    def settle(self, unit: Unit, outcome: Outcome) -> None:
        """A run is over."""
        self._waiting.remove(unit)
        if outcome.state == "finished":
            kind = self._kind(unit.table, unit.profile, unit.parameters)
            self._today.setdefault(kind, []).append((unit.parameters, outcome.seconds))
        self._begin()

    def seconds(self) -> float | None:
        """How long the rest takes; None where nobody knows."""
        lanes = [0.0] * self._site.lanes
        for unit in self._waiting:
            expected = self._expected(unit)
            if expected is None:
                return None
            if unit.key in self._begun:
                expected = max(0.0, expected - (self._now() - self._begun[unit.key]))
            first = min(range(len(lanes)), key=lanes.__getitem__)
            lanes[first] += expected
        return max(lanes) if self._today else None

    def _begin(self) -> None:
        """Runs are begun in order, as many as there is room for."""
        for unit in self._waiting[: self._site.lanes]:
            self._begun.setdefault(unit.key, self._now())

    def _expected(self, unit: Unit) -> float | None:
        kind = self._kind(unit.table, unit.profile, unit.parameters)
        known = self._today.get(kind) or self._earlier.get(kind) or []
        same = [seconds for parameters, seconds in known if parameters == unit.parameters]
        alike = same or [seconds for _, seconds in known]
        return statistics.median(alike) if alike else None

    def _kind(self, table: str, profile: str, parameters: Mapping[str, Any]) -> Kind:
        varied = self._varied.get(table, set())
        # Folders of other runs have other names for every version of the code.
        same = {name: repr(value) for name, value in parameters.items() if BESIDE not in repr(value)}
        return table, profile, repr(sorted((name, value) for name, value in same.items() if name not in varied))


class Teller:
    """Lines and a bar for the runs of one command.

    Args:
        units: all of them.
        tell: is given each line; None for none.
        bar: whether a bar is shown; without one the lines say how many are done and how long the rest takes.
    """

    def __init__(self, units: Sequence[Unit], tell: Callable[[str], None] | None, *, bar: bool) -> None:
        self._tell, self._with_bar = tell, bar
        self._bar: Any = None
        self._labels = short_labels(units)
        self._remaining: Remaining | None = None
        self._done = self._total = 0
        self._widths = (
            max((len(unit.table) for unit in units), default=0),
            max(map(len, self._labels.values()), default=0),
        )

    @contextmanager
    def at_work(self, total: int) -> Iterator[None]:
        """Show the bar for so many runs."""
        from tqdm.auto import tqdm

        self._total = total
        with tqdm(total=total, desc="runs", bar_format=BAR, disable=not self._with_bar) as self._bar:
            try:
                yield
            finally:
                self._bar.close()
                self._bar = None

    def begin(self, site: Site, units: Sequence[Unit], out: Path) -> None:
        """Workers are there, and these runs are begun."""
        self._remaining = Remaining(units, site, out)

    def settle(self, unit: Unit, outcome: Outcome) -> None:
        """A run is over."""
        self._done += 1
        left = None
        if self._remaining is not None:
            self._remaining.settle(unit, outcome)
            left = self._remaining.seconds() if self._done < self._total else None
        rest = f"about {duration(left)} left" if left is not None else ""
        line = self._line(unit, outcome)
        if not self._with_bar:
            line = f"[{self._done:{len(str(self._total))}d}/{self._total}] {line}{f'   {rest}' if rest else ''}"
        self.say(line)
        if self._bar is not None:
            self._bar.set_postfix_str(rest, refresh=False)
            self._bar.update()

    def say(self, line: str) -> None:
        """A line above the bar."""
        if self._tell is None:
            return
        if self._bar is None:
            self._tell(line)
            return
        with self._bar.external_write_mode():
            self._tell(line)

    def _line(self, unit: Unit, outcome: Outcome) -> str:
        table, label = (
            text.ljust(width) for text, width in zip((unit.table, self._labels[unit.key]), self._widths, strict=True)
        )
        what = "  ".join(part for part in (table, label) if part)
        if outcome.state == "finished":
            return f"{outcome.state:8s}  {what}  {duration(outcome.seconds):>6s}"
        why = f"{outcome.cell}: {outcome.reason}" if outcome.cell else outcome.reason
        return f"{outcome.state:8s}  {what}  {why}".rstrip()
