"""Which claims hold: the rule on its own, over seeds, and from the rows of earlier runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rsovlib.experiments.matrix import plan_units
from rsovlib.experiments.reproduction import named_tables, reproduce
from rsovlib.experiments.results import ResultRow, make_row, rows_before
from rsovlib.experiments.sdci import over_seeds as overall
from rsovlib.experiments.sdci.register import REGISTER
from rsovlib.experiments.sdci.verdicts import (
    CLAIMS,
    HOLDS,
    MISSING,
    OPPOSITE,
    UNCLEAR,
    Claim,
    claims_frame,
    findings,
    findings_frame,
    intervals_of,
    parts_frame,
    parts_intervals,
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
    assert findings_frame(found, "a step helps").loc["+ BCDR", "Ori"] == "+2.0 [1.5, 2.5] holds"
    assert intervals_of(found, "a step helps") == {"Ori": {"+ BCDR": (2.0, 1.5, 2.5), "+ CSCP": (-2.0, -2.5, -1.5)}}
    recorded = []
    name = "rsovlib.experiments.sdci.verdicts.record"
    monkeypatch.setattr(name, lambda *given, **named: recorded.append((given, named)))
    record_findings(found)
    assert recorded[1][0] == ("+ CSCP", "ori", "step, all seeds", -2.0)
    assert recorded[1][1]["note"] == f"{OPPOSITE}: a step helps"
    assert recorded[2][0][3] is None
    assert summary_frame([]).empty


def test_several_claims_in_one_table() -> None:
    unseen = Claim("a step helps on unseen classes", "t", "step, unseen")
    rows = [difference(2.0, 0), difference(-2.0, 0, "+ CSCP")]
    rows += [rows[0].model_copy(update={"metric": "step, unseen", "value": 0.0, "low": -1.0, "high": 1.0})]
    found = findings(rows, [CLAIM, unseen])
    parts = parts_frame(found, {"all": CLAIM, "unseen": unseen})
    assert parts.loc["+ BCDR"].tolist() == ["+2.0 [1.5, 2.5] holds", "+0.0 [-1.0, 1.0] unclear"]
    assert parts.loc["+ CSCP", "all"] == "-2.0 [-2.5, -1.5] the opposite holds"
    assert parts.isna().loc["+ CSCP", "unseen"]
    together = claims_frame(found, [CLAIM, unseen, Claim("nobody's", "t", "step")])
    assert parts_intervals(found, {"all": CLAIM, "unseen": unseen, "none": Claim("nobody's", "t", "step")}) == {
        "all": {"+ BCDR": (2.0, 1.5, 2.5), "+ CSCP": (-2.0, -2.5, -1.5)},
        "unseen": {"+ BCDR": (0.0, -1.0, 1.0)},
    }
    assert together.index.tolist() == [(CLAIM.text, "+ BCDR"), (CLAIM.text, "+ CSCP"), (unseen.text, "+ BCDR")]
    assert claims_frame([], [CLAIM]).empty
    assert parts_frame([], {"all": CLAIM}).empty


def test_claims_speak_of_tables_that_exist() -> None:
    tables = load_tables()
    judged = {claim.table for claim in CLAIMS} | {overall.READINGS, overall.SENSITIVITY}
    assert judged == set(tables["sdci-verdicts"].needs)
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


# ---- readings and parameters over all seeds ----------------------------------------------------------------------


def of_table(table: str, row: str, column: str, metric: str, value: float, seed: int, half: float = 0.1) -> ResultRow:
    content = {"paper": "sdci", "table": table, "row": row, "column": column, "metric": metric, "value": value}
    ends = {"low": value - half, "high": value + half}
    return make_row(content | ends | {"profile": "embedded", "dataset": "x", "seed": seed})


def test_readings_are_taken_together_over_the_seeds() -> None:
    rows = []
    for seed in range(3):
        rows += [
            of_table(overall.READINGS, "D10", "from official", "difference", -20 + 0.1 * seed, seed),
            of_table(overall.READINGS, "D10", "from official", "changed pixels", 60.0 + seed, seed),
            of_table(overall.READINGS, "D07", "from official", "difference", 0.0, seed, 0.0),
            of_table(overall.READINGS, "D07", "from official", "changed pixels", 0.0, seed, 0.0),
            of_table(overall.READINGS, "D04", "from paper", "difference", (-5.0, 0.0, 5.0)[seed], seed),
            of_table("another", "D04", "from paper", "difference", 99.0, seed),
        ]
    found = {one.row: one for one in overall.differences_over_seeds(rows, overall.READINGS)}
    assert list(found) == ["D10", "D07", "D04"]
    assert found["D10"].word == "lowers mIoU"
    assert found["D07"].word == "changes nothing"
    assert found["D04"].word == "unclear"
    assert found["D10"].changed is not None
    assert found["D10"].changed.value == 61
    shown = overall.readings_frame(list(found.values()))
    assert [name.split()[0] for name in shown.index] == ["D04", "D07", "D10"], "in the order of the register"
    assert shown.loc[shown.index[2], ("from the official reading", "pixels (%)")] == 61
    others = overall.unmeasured_frame(list(found.values()))
    assert len(others) + len(shown) == len(REGISTER)
    assert others["why there is no number"].str.len().min() > 0
    assert overall.readings_frame([]).empty


def test_parameters_over_the_seeds_as_a_forest(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        of_table(overall.SENSITIVITY, row, "0.5", "difference", value + 0.01 * seed, seed)
        for seed in range(3)
        for row, value in (("BCDR, alpha", 2.0), ("CSCP, beta", -1.0))
    ]
    found = overall.differences_over_seeds(rows, overall.SENSITIVITY)
    assert [one.word for one in found] == ["raises mIoU", "lowers mIoU"]
    figure = overall.plot_sensitivity(found)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["alpha = 0.5", "beta = 0.5"]
    recorded = []
    monkeypatch.setattr(overall, "record", lambda *given, **named: recorded.append((given, named)))
    overall.record_overall(found, overall.SENSITIVITY)
    assert recorded[0][0][:3] == ("sdci-sensitivity: BCDR, alpha", "0.5", "difference, all seeds")
    assert "3 seeds" in recorded[0][1]["note"]
