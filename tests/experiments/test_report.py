"""The report: the rule of its verdicts, and that every number stands there with its paper's and its notebook."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

import pytest

from rsovlib.cli import main
from rsovlib.errors import InputError
from rsovlib.experiments import reproduce, write_report
from rsovlib.experiments import tables as tables_module
from rsovlib.experiments.comparison import RULE, VERDICTS, Measured, combine, judge
from rsovlib.experiments.report_grids import SIGNS, grids
from rsovlib.experiments.reporting import Line
from rsovlib.experiments.results import make_row


def measured(value, low=None, high=None, profile="full", dataset="gid"):
    return Measured(value, low, high, None, ("run",), (), 3, "percent", dataset, profile, "cpu", "")


def row(value, seed=0, low=None, high=None, **more):
    fields = {"paper": "p", "table": "t", "row": "r", "column": "c", "metric": "m", "profile": "full", "dataset": "d"}
    return make_row(fields | {"value": value, "seed": seed, "low": low, "high": high, "run": f"run-{seed}"} | more)


@pytest.mark.parametrize(
    ("ours", "gain", "word"),
    [
        (measured(50.0, 48.0, 52.0), None, "agrees"),
        (measured(47.4, 46.0, 48.6), None, "agrees"),  # 49 lies within the tolerance of 0.5 above 48.6
        (measured(47.4, 46.0, 48.4), None, "differs"),
        (measured(49.4), None, "agrees"),  # no interval: the tolerance alone
        (measured(48.4), None, "differs"),
        (measured(40.0, 39.0, 41.0), measured(4.0, 1.0, 7.0), "trend agrees"),
        (measured(40.0, 39.0, 41.0), measured(4.0), "trend agrees"),
        (measured(40.0, 39.0, 41.0), measured(4.0, -1.0, 9.0), "differs"),  # nobody knows its sign
        (measured(40.0, 39.0, 41.0), measured(-4.0, -7.0, -1.0), "differs"),
        (measured(49.0, 48.0, 50.0, profile="embedded"), measured(4.0, 1.0, 7.0), "not comparable"),
        (measured(49.0, 48.0, 50.0, dataset="gid (part)"), None, "not comparable"),
        (None, None, "not run"),
    ],
)
def test_the_rule(ours, gain, word):
    verdict = judge(
        49.0, ours, dataset="gid", tolerance=0.5, published_gain=3.0, measured_gain=gain, missing="no GID here"
    )
    assert verdict.word == word
    assert verdict.word in VERDICTS
    assert word in RULE
    if ours is None:
        assert verdict.reason == "no GID here"
        assert verdict.difference is None
    else:
        assert verdict.difference == ours.value - 49.0


def test_the_reason_says_what_was_not_comparable():
    said = judge(49.0, measured(20.0, profile="embedded", dataset="sdci-gid"), dataset="gid").reason
    assert "embedded profile" in said
    assert "sdci-gid" in said
    assert "the paper: gid" in said


def test_a_number_without_a_paper_has_no_verdict():
    assert judge(None, measured(1.0)).word == ""


def test_one_run_keeps_its_interval():
    one = combine([row(5.0, low=4.0, high=7.0)])
    assert (one.value, one.low, one.high, one.runs) == (5.0, 4.0, 7.0, ("run-0",))


def test_several_seeds_have_a_mean_and_both_sources_of_doubt():
    """Three runs 4, 5, 6, each +-1: Student's t for two degrees of freedom is 4.3027, s is 1."""
    found = combine([row(value, seed, value - 1, value + 1) for seed, value in enumerate((4.0, 5.0, 6.0))])
    half = ((4.3027 / 3**0.5) ** 2 + 1) ** 0.5
    assert found.value == 5.0
    assert found.std == 1.0
    assert found.high - found.value == pytest.approx(half, rel=1e-4)
    assert found.value - found.low == pytest.approx(half, rel=1e-4)
    assert found.seeds == (0, 1, 2)


def test_rows_without_a_value_are_no_zeros():
    found = combine([row(4.0, 0), row(None, 1, note="the class was not there")])
    assert found.value == 4.0
    assert found.note == "the class was not there"
    assert combine([row(None, 1, note="x")]) is None


class Page(HTMLParser):
    """Links, and the tags that are still open."""

    def __init__(self):
        super().__init__()
        self.links, self.open = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)
        self.links += [value for name, value in attributes if name in ("href", "src")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


RECORD = """
from rsovlib.experiments import record
for row, value in (("base", 40.0), ("+ step", 44.0), ("own <row>", 1.0)):
    record(row, "a|b", "miou", value + seed, low=value + seed - 1, high=value + seed + 1, unit="percent", dataset="gid")
"""


@pytest.fixture
def reported(tables, tmp_path):
    """A table that was run for two seeds in the profile full, one that failed, and one that was never started."""
    published = {
        "source": "a paper",
        "dataset": "gid",
        "columns": ["a|b"],
        "reference": "base",
        "rows": {"base": [41.0], "+ step": [60.0], "late": [50.0]},
    }
    tables.add("scores", "seed: int = 0", RECORD, published=published, profiles={"full": {"matrix": {"seed": [0, 1]}}})
    tables.add("broken", "x: int = 1", "raise ValueError('no <b>luck</b>')", profiles={"full": {}})
    out = tmp_path / "runs"
    summary = reproduce(folder=tables.folder, out=out, profile="full", workers=0, progress=False)
    assert [outcome.state for outcome in summary.outcomes.values()] == ["failed", "finished", "finished"]
    never = {**published, "rows": {"other": [3.0]}, "reference": "other"}
    tables.add("never", "x: int = 1", published=never, profiles={"full": {"data": ["datasets/gid"]}})
    return out, write_report(out, tables.folder)


def test_the_report(reported, monkeypatch):
    out, report = reported
    lines = {(section.entry.name, line.row): line for section in report.sections for line in section.lines}
    assert lines["scores", "base"].verdict.word == "agrees"
    assert lines["scores", "base"].measured.value == 40.5
    assert lines["scores", "+ step"].verdict.word == "trend agrees"
    assert lines["scores", "+ step"].published_gain == 19.0
    assert lines["scores", "+ step"].measured_gain.value == pytest.approx(4.0)
    assert lines["scores", "late"].verdict.word == "not run"
    assert lines["scores", "own <row>"].verdict.word == ""
    assert "RSOV_DATA" in lines["never", "other"].verdict.reason
    assert report.counts() == {"agrees": 1, "trend agrees": 1, "not run": 2, "": 1}

    page = report.page.read_text(encoding="utf-8")
    reader = Page()
    reader.feed(page)
    assert reader.open == []
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page), "nothing comes from the network"
    for link in reader.links:
        assert link.startswith("#") or (out / link).is_file(), link
    assert sum(link.endswith("notebook.html") for link in reader.links) >= 6
    assert "own &lt;row&gt;" in page
    assert "no &lt;b&gt;luck&lt;/b&gt;" in page
    for text in (RULE, "41", "40.5", "a paper", "ValueError"):
        assert text in html.unescape(page)

    markdown = report.markdown.read_text(encoding="utf-8")
    table = [line for line in markdown.splitlines() if line.startswith("| base")]
    assert len(table) == 1
    assert "a\\|b" in table[0]
    assert "finished/scores-" in table[0]


def test_the_command_writes_it(reported, tables, monkeypatch, capsys):
    out, _ = reported
    monkeypatch.setattr(tables_module, "FOLDER", tables.folder)
    (out / "report.html").unlink()
    assert main(["report", "--out", str(out)]) == 0
    assert (out / "report.html").is_file()
    assert "1 agrees" in capsys.readouterr().out


def test_no_folder_is_a_clear_sentence(tmp_path, capsys):
    with pytest.raises(InputError, match="rsovlib reproduce"):
        write_report(tmp_path / "nowhere")
    assert main(["report", "--out", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def line(row, column, published=None, ours=None, metric="miou", profile="embedded"):
    found = None if ours is None else measured(ours, profile=profile)
    return Line(row, column, metric, "percent", published, found, None, None, judge(published, found), profile)


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
    places = {(row, column): cell for row, cells in grid.rows for column, cell in zip(grid.columns, cells, strict=True)}
    assert places["b", "x"].measured.value == 5.0
    assert places["a", "y"].verdict.word == "not run"
    assert places["b", "y"] is None
    assert [row for row, _ in grid.rows] == ["a", "b", "own"]
    assert set(SIGNS) == set(VERDICTS)


def test_the_page_has_a_grid_and_a_line_of_counts(tables, tmp_path):
    cells = "\n".join(
        f'record("{row}", "{column}", "miou", {value}, unit="percent", dataset="gid")'
        for row, column, value in (("base", "x", 1), ("base", "y", 2), ("step", "x", 3), ("step", "y", 44))
    )
    published = {
        "source": "a paper",
        "dataset": "gid",
        "columns": ["x", "y"],
        "rows": {"base": [1.0, 2.0], "step": [3.0, 4.0]},
    }
    code = f"from rsovlib.experiments import record\n{cells}"
    tables.add("both", "x: int = 1", code, published=published, profiles={"full": {}})
    reproduce(folder=tables.folder, out=tmp_path / "runs", profile="full", workers=0, progress=False)
    report = write_report(tmp_path / "runs", tables.folder)
    (section,) = report.sections
    assert section.counts == {"agrees": 3, "differs": 1}
    assert (section.finished, len(section.runs)) == (1, 1)
    page = html.unescape(report.page.read_text(encoding="utf-8"))
    assert page.count('<table class="grid">') == 1
    assert "paper 4.00 " in page
    assert "✗ 1 differs" in page
