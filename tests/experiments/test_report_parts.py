"""The parts of the report: digits, intervals, grids, lists and their order, on numbers that no run has made."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsovlib.experiments.comparison import VERDICTS, Measured, judge
from rsovlib.experiments.digits import (
    counted,
    decimals,
    duration,
    interval,
    metric_name,
    number,
    printed,
    sample,
    signed,
    unit_name,
)
from rsovlib.experiments.report_grids import SIGNS, grids
from rsovlib.experiments.report_lists import Column, Entry, list_numbers, listing
from rsovlib.experiments.report_sections import Line, Section, in_order, read_sections
from rsovlib.experiments.tables import TableEntry, load_tables


def measured(value=1.0, low=None, high=None, *, unit="percent", n=3, seeds=(), std=None, profile="full", note=""):
    return Measured(value, low, high, std, ("run",), seeds, n, unit, "gid", profile, "cpu", note)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "percent", ""),
        (41.25, "percent", "41.2"),
        (40.0, "percent", "40.0"),
        (2943.853, "GFLOP", "2,943.9"),
        (27558.0, "GFLOP", "27,558.0"),
        (3.9214, "GFLOP", "3.92"),
        (1.2554, "s", "1.26"),
        (0.02702, "s", "0.0270"),
        (91.98, "s", "92.0"),
        (2943.853, "s", "2,944"),
        (0.00000012, "Wh", "1.20e-07"),
        (12.0, "", "12"),
        (1234567.0, "", "1,234,567"),
        (123.333, "", "123"),
        (0.0, "", "0"),
        (-1.2554, "s", "-1.26"),
    ],
)
def test_numbers(value, unit, text):
    assert number(value, unit) == text


@pytest.mark.parametrize(
    ("value", "unit", "like", "text"),
    [
        (None, "percent", None, ""),
        (2.0, "percent", None, "+2.0"),
        (-0.26, "percent", None, "-0.3"),
        (-0.04, "percent", None, "0.0"),
        (-1.03, "GFLOP", 2943.9, "-1.0"),
        (-12796.6, "GFLOP", 148.3, "-12,796.6"),
        (0.25, "s", None, "+0.250"),
    ],
)
def test_differences(value, unit, like, text):
    assert signed(value, unit, like) == text


@pytest.mark.parametrize(
    ("metric", "unit", "low", "high", "text"),
    [
        ("miou", "percent", -28.04, 45.0, "[0.0, 45.0]"),
        ("miou, cloudy", "percent", -28.0, 145.0, "[0.0, 100.0]"),
        ("boundary F1", "percent", 90.0, 104.0, "[90.0, 100.0]"),
        ("mean_accuracy", "percent", -1.0, 45.0, "[0.0, 45.0]"),
        ("sharpness", "percent", -1.0, 45.0, "[-1.0, 45.0]"),  # an unknown name is left as it is
        ("best possible accuracy", "percent", -1.0, 45.0, "[0.0, 45.0]"),
        ("iou", "", -0.5, 0.75, "[0, 0.750]"),
        ("gain", "percent", -8.0, 45.0, "[-8.0, 45.0]"),
        ("gain over best compared", "percent", -8.0, 145.0, "[-8.0, 145.0]"),
        ("miou_unseen gain over GSNet, all seeds", "percent", -8.0, 145.0, "[-8.0, 145.0]"),
        ("difference in mIoU", "percent", -8.0, 45.0, "[-8.0, 45.0]"),
        ("latency", "s", -0.5, 2.0, "[-0.500, 2]"),
    ],
)
def test_intervals_go_no_further_than_a_score_can(metric, unit, low, high, text):
    found = measured(0.4, low, high, unit=unit)
    assert interval(found, metric) == text
    assert (found.low, found.high) == (low, high)


def test_numbers_without_an_interval():
    assert interval(measured(), "miou") == ""
    assert interval(measured(std=1.25), "miou") == "± 1.2"
    # What lies outside by itself isn't a score after all.
    assert interval(measured(140.0, 130.0, 150.0), "miou") == "[130.0, 150.0]"


def test_a_papers_numbers_stand_as_printed():
    places = decimals([58.93, 59.1, 40.0])
    assert [printed(value, places) for value in (58.93, 59.1, 40.0, 2944.5, None)] == [
        "58.93",
        "59.10",
        "40.00",
        "2,944.50",
        "",
    ]
    assert decimals([]) == 0
    assert printed(26943.0, decimals([3.0])) == "26,943"


def test_words_around_numbers():
    assert sample(measured(n=6, seeds=(0, 1, 2))) == "3 seeds, n = 6 each"
    assert sample(measured(n=1200, seeds=(0,))) == "n = 1,200"
    assert sample(measured(n=None, seeds=(0, 1))) == "2 seeds"
    assert sample(measured(n=None)) == ""
    assert [counted(count, "run") for count in (0, 1, 2000)] == ["0 runs", "1 run", "2,000 runs"]
    assert metric_name("miou, cloudy") == "mIoU, cloudy"
    assert unit_name("gain, all seeds", "percent") == "points"
    assert unit_name("miou gain over GSNet", "percent") == "points"
    assert unit_name("changed pixels", "percent") == "percent"
    assert metric_name("miou gain over GSNet, clear") == "mIoU gain over GSNet, clear"
    assert unit_name("miou", "percent") == "percent"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (99.4, "99 s"),
        (99.6, "2 min"),
        (3599, "1 h"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def line(row, column, published=None, ours=None, metric="miou", profile="embedded", note="", missing=""):
    found = None if ours is None else measured(ours, profile=profile, note=note)
    verdict = judge(published, found, dataset="gid", missing=missing)
    return Line(row, column, metric, "percent", published, found, None, None, verdict, profile)


def test_grids_lay_numbers_out_as_the_paper_does():
    lines = [
        line("a", "x", 1.0, 2.0),
        line("a", "y", 3.0),
        line("b", "x", 4.0, 5.0),
        line("own", "y", None, 6.0),
        line("a", "x", None, 7.0, metric="flops"),
        line("a", "x", 1.0, 8.0, profile="full"),
    ]
    (grid,) = grids(lines)  # the others are a single number each
    assert (grid.metric, grid.profile, grid.unit, grid.printed) == ("miou", "embedded", "percent", True)
    assert grid.columns == ("x", "y")
    places = {
        (row.name, column): cell.line for row in grid.rows for column, cell in zip(grid.columns, row.cells, strict=True)
    }
    assert places["b", "x"].measured.value == 5.0
    assert places["a", "y"].verdict.word == "not run"
    assert places["b", "y"] is None
    assert [row.name for row in grid.rows] == ["a", "b", "own"]
    assert set(SIGNS) == set(VERDICTS)


def test_what_a_paper_has_goes_first_and_needs_one_column():
    lines = [
        *(line(row, column, None, 1.0, metric="gain") for row in "ab" for column in "xy"),
        line("a", "GFLOPs", 5.0, 7.0, metric="flops", note="another setting"),
        line("b", "GFLOPs", 5.0, 8.0, metric="flops"),
    ]
    found = grids(lines)
    assert [(grid.metric, grid.narrow) for grid in found] == [("flops", True), ("gain", False)]
    assert [row.note for row in found[0].rows] == ["another setting", ""]
    section = Section(entry("t", "T"), tuple(lines), (), ())
    assert [grid.metric for grid in section.open_grids] == ["flops"]
    assert [grid.metric for grid in section.folded_grids] == ["gain"]


def test_a_note_of_a_whole_row_stands_at_its_name():
    lines = [
        line("a", "x", 1.0, 2.0, note="stand-in"),
        line("a", "y", 1.0, 2.0, note="stand-in"),
        line("b", "x", 1.0, 2.0, note="stand-in"),
        line("b", "y", 1.0, None, missing="no such class"),
        line("c", "x", 1.0, 2.0),
        line("c", "y", 1.0, 2.0),
    ]
    (grid,) = grids(lines)
    assert grid.notes == ("stand-in", "no such class")
    assert [(row.mark, [cell.mark for cell in row.cells]) for row in grid.rows] == [
        ("1", ["", ""]),
        ("", ["1", "2"]),
        ("", ["", ""]),
    ]


def column(title, *texts, **options):
    return Column(title, tuple(map(Entry, texts)), **options)


def test_a_list_leaves_out_what_says_nothing():
    long = "a reason that is much too long for a column of its own"
    found = listing(
        [
            column("row", "a", "b", "c"),
            column("empty", "", "", ""),
            column("same", "x", "x", "x", once=True),
            column("same but not asked", "x", "x", "x"),
            column("gap", "x", "", "x", once=True),
            column("known", "x", "", "x", once=True, where_known=True),
            column("shared", long, "short", long, long=True),
            column("unique", f"{long} 1", f"{long} 2", "", long=True),
        ]
    )
    assert [one.title for one in found.columns] == ["row", "same but not asked", "gap", "shared", "unique"]
    assert found.common == (("same", "x"), ("known", "x"))
    assert found.notes == (long,)
    assert [(row[3].text, row[3].mark) for row in found.rows] == [("", "1"), ("short", ""), ("", "1")]
    assert found.rows[0][4].text == f"{long} 1"


def test_a_single_row_keeps_its_columns():
    assert [one.title for one in listing([column("row", "a", once=True)]).columns] == ["row"]
    assert listing([column("row")]).columns == ()


def test_the_list_of_numbers_tells_what_the_verdict_rests_on():
    lines = [
        line("a", "x", 50.0, 40.0, profile="full", note="another setting"),
        line("b", "x", profile="full", missing="broken"),
    ]
    titles = [one.title for one in list_numbers(lines).columns]
    assert titles == ["row", "paper", "measured", "difference", "verdict", "why", "note", "sample"]
    first, second = (dict(zip(titles, row, strict=True)) for row in list_numbers(lines).rows)
    assert first["verdict"].text == "differs"
    assert "outside" in first["why"].text
    assert first["note"].text == "another setting"
    assert (second["verdict"].text, second["why"].text) == ("", "broken")
    assert first["measured"].runs == ("run",)


def entry(name, title, kind="table", paper="sdci", **more):
    return TableEntry(name=name, title=title, kind=kind, paper=paper, notebook="n.ipynb", profiles={}, **more)


def test_papers_then_tables_then_figures_as_they_are_numbered():
    """SDCI came out before MM-OVSeg."""
    wanted = [
        entry("a", "SDCI, Table 2: x"),
        entry("b", "SDCI, Table 10: x"),
        entry("c", "SDCI, Figure 1: x", "figure"),
        entry("sdci-verdicts", "SDCI: what holds"),
        entry("d", "SDCI: costs"),
        entry("e", "SDCI: curves", "figure"),
        entry("f", "SDCI: training", "training"),
        entry("g", "MM-OVSeg, Tables 1 and 2: x", paper="mm-ovseg"),
        entry("h", "MM-OVSeg, Table A3: seen", paper="mm-ovseg"),
        entry("i", "MM-OVSeg, Table A3: unseen", paper="mm-ovseg"),
        entry("j", "MM-OVSeg, Figures 4 and A1: x", "figure", paper="mm-ovseg"),
        entry("k", "Another paper's table", paper="unknown"),
        entry("l", "Lesson", "lesson", paper=""),
    ]
    sections = [Section(one, (), (), ()) for one in wanted]
    assert [section.entry.name for section in in_order(sections[::-1])] == [one.name for one in wanted]
    assert [section.short_title for section in sections[::6]] == ["Table 2: x", "Training", "Lesson"]


def test_all_tables_that_come_with_rsovlib_have_a_place(tmp_path: Path):
    """An empty folder: the papers' tables, none of them started."""
    sections = in_order(read_sections(tmp_path, load_tables()))
    assert {section.entry.paper for section in sections} >= {"sdci", "mm-ovseg"}
    for section in sections:
        assert not section.started
        assert {gap.profile for gap in section.gaps} == {"embedded", "full"}
        assert all(grid.printed and not grid.measured for grid in section.grids)
        assert sum(len(grid.lines) for grid in section.grids) == len(section.lines) > 0
