"""Which claims hold: the rule on its own, over seeds, and from the rows of earlier runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rsovlib.experiments.matrix import plan_units
from rsovlib.experiments.reproduction import named_tables, reproduce
from rsovlib.experiments.results import ResultRow, make_row, rows_before
from rsovlib.experiments.sdci.verdicts import (
    CLAIMS,
    HOLDS,
    MISSING,
    OPPOSITE,
    UNCLEAR,
    Claim,
    findings,
    findings_frame,
    intervals_of,
    record_findings,
    summary_frame,
    word_of_interval,
)
from rsovlib.experiments.tables import load_tables


@pytest.mark.parametrize(
    ("low", "high", "sign", "word"),
    [
        (0.1, 2.0, 1, HOLDS),
        (0.1, 2.0, -1, OPPOSITE),
        (-2.0, -0.1, 1, OPPOSITE),
        (-2.0, -0.1, -1, HOLDS),
        (-0.1, 2.0, 1, UNCLEAR),
        (0.0, 2.0, 1, UNCLEAR),
        (float("nan"), 2.0, 1, MISSING),
    ],
)
def test_the_rule(low: float, high: float, sign: int, word: str) -> None:
    assert word_of_interval(low, high, sign) == word


def difference(value: float | None, seed: int, row: str = "+ BCDR", half: float = 0.5) -> ResultRow:
    content: dict[str, Any] = {
        "paper": "sdci",
        "table": "t",
        "row": row,
        "column": "ori",
        "metric": "step",
        "value": value,
    }
    ends = {"note": "not run"} if value is None else {"low": value - half, "high": value + half}
    return make_row(content | ends | {"profile": "embedded", "dataset": "x", "seed": seed})


CLAIM = Claim("a step helps", "t", "step")


def test_seeds_that_disagree_make_a_claim_unclear() -> None:
    agree = findings([difference(value, seed) for seed, value in enumerate((2.0, 2.1, 1.9))], [CLAIM])
    assert [one.word for one in agree] == [HOLDS]
    # Each run on its own leaves out 0; together they don't.
    apart = findings([difference(value, seed) for seed, value in enumerate((0.7, 4.0, 1.0))], [CLAIM])
    assert [one.word for one in apart] == [UNCLEAR]
    (nothing,) = findings([difference(None, 0)], [CLAIM])
    assert nothing.word == MISSING
    assert findings([difference(1.0, 0)], [Claim("", "t", "step", ("another row",))]) == []


def test_findings_are_counted_shown_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings([difference(2.0, 0), difference(-2.0, 0, "+ CSCP"), difference(None, 0, "+ CAF")], [CLAIM])
    counts = summary_frame(found).loc["a step helps"]
    assert dict(counts) == {"cells": 3, HOLDS: 1, OPPOSITE: 1, UNCLEAR: 0, MISSING: 1}
    assert findings_frame(found, "a step helps").loc["+ BCDR", "ori"] == "+2.0 [+1.5, +2.5] holds"
    assert intervals_of(found, "a step helps") == {"ori": {"+ BCDR": (2.0, 1.5, 2.5), "+ CSCP": (-2.0, -2.5, -1.5)}}
    recorded = []
    name = "rsovlib.experiments.sdci.verdicts.record"
    monkeypatch.setattr(name, lambda *given, **named: recorded.append((given, named)))
    record_findings(found)
    assert recorded[1][0] == ("+ CSCP", "ori", "step, all seeds", -2.0)
    assert recorded[1][1]["note"] == f"{OPPOSITE}: a step helps"
    assert recorded[2][0][3] is None
    assert summary_frame([]).empty


def test_claims_speak_of_tables_that_exist() -> None:
    tables = load_tables()
    assert {claim.table for claim in CLAIMS} == set(tables["sdci-verdicts"].needs)
    assert len({claim.text for claim in CLAIMS}) == len(CLAIMS)


READ = """
from rsovlib.experiments import record
from rsovlib.experiments.results import rows_before

rows = rows_before(["work"])
assert not rows_before(["another"])
record("all", "column", "miou", sum(row.value for row in rows), n=len(rows), dataset="toy")
"""


def test_a_notebook_reads_the_rows_of_the_runs_that_it_needs(tables: Any, tmp_path: Path) -> None:
    tables.add_work([1, 2, 4])
    tables.add("sum", "profile: str = 'embedded'", READ, needs=["work"])
    out = tmp_path / "runs"
    summary = reproduce(["sum"], workers=0, out=out, folder=tables.folder, progress=False)
    assert summary.is_good
    (row,) = rows_before(["sum"], out)
    assert (row.value, row.n) == (71.5, 3)
    assert len(rows_before(["work", "sum"], out)) == 4
    assert rows_before(["work"], tmp_path / "nothing") == []


def test_a_papers_name_stands_for_its_tables(tables: Any) -> None:
    tables.add_work([0], name="toy-first", paper="toy")
    tables.add_work([0], name="other", paper="toy")
    tables.add_work([0], name="toy-long", paper="toy", by_name=True)
    tables.add_work([0], name="toy-second")
    tables.add_work([0], name="elsewhere")
    known = load_tables(tables.folder)
    assert set(named_tables(known, ["toy"])) == {"toy-first", "other", "toy-second"}
    assert named_tables(known, ["toy-long", "elsewhere"]) == ["toy-long", "elsewhere"]
    assert named_tables(known, ["nobody"]) == ["nobody"], "the error names it"
    tables.add_work([0], name="toy")
    assert named_tables(load_tables(tables.folder), ["toy"]) == ["toy"]
    assert {"sdci-table1", "sdci-table2", "sdci-verdicts"} <= set(named_tables(load_tables(), ["sdci"]))


def test_sdcis_tables_are_planned_for_three_seeds_and_in_order() -> None:
    tables = {name: entry for name, entry in load_tables().items() if name.startswith("sdci-")}
    chosen = {name: tables[name] for name in tables if name in ("sdci-table1", "sdci-cost-accuracy")}
    units = plan_units(chosen, profile="embedded")
    assert [unit.table for unit in units] == ["sdci-table1"] * 3 + ["sdci-cost-accuracy"]
    assert set(units[-1].needs) == {unit.key for unit in units[:3]}
