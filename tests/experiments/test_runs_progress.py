"""What is told while runs are at work: short names, and times only where they are known."""

from __future__ import annotations

import json
import socket
from dataclasses import replace

import pytest

from rsovlib.experiments.matrix import Unit
from rsovlib.experiments.progress import Remaining, Teller, short_labels
from rsovlib.experiments.runs import Outcome
from rsovlib.experiments.scheduler import Site

SITE = Site("here", 2, 3, socket.gethostname())


def unit(table, **point):
    """A run whose parameters are its point and one more."""
    parameters = {"size": 8, **point}
    key = f"{table}{sorted(point.items())}"
    return Unit(table, "", "embedded", f"{table}.ipynb", "", parameters, point, {}, key)


def test_a_name_says_what_tells_runs_apart_and_no_more():
    units = [
        unit("seeds", seed=0, clip="c0", tiles=6),
        unit("seeds", seed=1, clip="c1", tiles=6),
        unit("methods", method="sdci"),
        unit("methods", method="valuepath"),
        unit("grid", seed=0, mix=0.1),
        unit("grid", seed=0, mix=0.5),
        unit("grid", seed=1, mix=0.1),
        unit("single", seed=4),
    ]
    assert list(short_labels(units).values()) == [
        "seed 0",
        "seed 1",
        "method sdci",
        "method valuepath",
        "seed 0, mix 0.1",
        "seed 0, mix 0.5",
        "seed 1, mix 0.1",
        "",
    ]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def finished(out, table, seconds, host=None, threads=3, **parameters):
    """The record of an earlier run, as far as times go."""
    folder = out / "finished" / f"{table}-{len(list((out / 'finished').glob('*')))}"
    folder.mkdir(parents=True)
    content = {
        "version": 1,
        "state": "finished",
        "key": "",
        "files": {},
        "table": table,
        "profile": "embedded",
        "parameters": {"size": 8, **parameters},
        "seconds": seconds,
        "host": host or socket.gethostname(),
        "threads": threads,
    }
    (folder / "run.json").write_text(json.dumps(content))


def done(one, seconds=None):
    return Outcome(one.name, "finished" if seconds is not None else "failed", seconds or 0.0)


def test_nothing_is_said_before_a_run_is_done_and_while_a_table_was_never_timed(tmp_path):
    a, b, c = unit("a", seed=0), unit("a", seed=1), unit("other", seed=0)
    clock = Clock()
    rest = Remaining([a, b, c], SITE, tmp_path, clock)
    assert rest.seconds() is None
    rest.settle(a, done(a, 10.0))
    assert rest.seconds() is None, "nobody knows about the other table"
    rest.settle(c, done(c, 5.0))
    assert rest.seconds() == 10.0
    clock.now += 4
    assert rest.seconds() == 6.0
    clock.now += 100
    assert rest.seconds() == 0.0


def test_runs_are_shared_out_among_the_workers(tmp_path):
    """Two lanes, four runs of 10, 10, 10 and 30 s: 10 + 30 and 10, less what was done already."""
    units = [unit("a", seed=seed) for seed in range(3)] + [unit("long", seed=0), unit("first", seed=0)]
    finished(tmp_path, "a", 10.0, seed=7)
    finished(tmp_path, "long", 30.0, seed=0)
    finished(tmp_path, "first", 1.0, seed=0)
    clock = Clock()
    rest = Remaining([units[-1], *units[:-1]], SITE, tmp_path, clock)
    assert rest.seconds() is None, "no run is done yet, and who knows how busy the machine is"
    clock.now += 1
    rest.settle(units[-1], done(units[-1], 1.0))
    # The first of "a" has been at work for a second: lanes of 9 + 10 and 10 + 30.
    assert rest.seconds() == 40.0


@pytest.mark.parametrize(
    "other",
    [{"host": "elsewhere"}, {"threads": 1}, {"size": 9, "threads": 3}, {"scenes": 4}],
    ids=["machine", "threads", "size", "parameter"],
)
def test_times_of_other_conditions_do_not_count(tmp_path, other):
    a, b = unit("a", seed=0), unit("b", seed=0)
    finished(tmp_path, "b", 10.0, seed=0, **other)
    rest = Remaining([a, b], SITE, tmp_path, Clock())
    rest.settle(a, done(a, 10.0))
    assert rest.seconds() is None
    finished(tmp_path, "b", 10.0, seed=0)
    rest = Remaining([a, b], SITE, tmp_path, Clock())
    rest.settle(a, done(a, 10.0))
    assert rest.seconds() == 10.0


def test_the_same_parameters_count_before_others_and_today_before_earlier(tmp_path):
    fast, slow, third = (unit("costs", method=name) for name in ("fast", "slow", "third"))
    finished(tmp_path, "costs", 1.0, method="fast")
    finished(tmp_path, "costs", 9.0, method="slow")
    rest = Remaining([third, fast, slow], replace(SITE, lanes=1), tmp_path, Clock())
    rest.settle(third, done(third))
    assert rest.seconds() is None, "a failure takes no time that tells anything"
    rest = Remaining([third, fast, slow], replace(SITE, lanes=1), tmp_path, Clock())
    rest.settle(third, done(third, 4.0))
    assert rest.seconds() == 8.0
    rest.settle(fast, done(fast, 2.0))
    assert rest.seconds() == 3.0, "the median of today's two"


def test_lines_without_a_bar(tmp_path):
    units = [unit("table", seed=seed) for seed in range(3)]
    lines = []
    teller = Teller(units, lines.append, bar=False)
    with teller.at_work(3):
        teller.begin(replace(SITE, lanes=1), units, tmp_path)
        teller.settle(units[0], done(units[0], 100.0))
        teller.settle(units[1], Outcome(units[1].name, "failed", 1.0, "In [2]: x", "NameError: x"))
        teller.settle(units[2], done(units[2], 8.25))
    assert lines == [
        "[1/3] finished  table  seed 0   2 min   about 3 min left",
        "[2/3] failed    table  seed 1  In [2]: x: NameError: x   about 2 min left",
        "[3/3] finished  table  seed 2   8.2 s",
    ]
