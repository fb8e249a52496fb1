"""The report: the rule of its verdicts, and that every number stands there with its paper's and its notebook."""

from __future__ import annotations

import html
import json
import re
import shutil
from contextlib import contextmanager
from html.parser import HTMLParser

import pytest

from rsovlib.cli import main
from rsovlib.errors import InputError
from rsovlib.experiments import reproduce, write_report
from rsovlib.experiments import tables as tables_module
from rsovlib.experiments.comparison import DIRECTIONS, MEANINGS, VERDICTS, Measured, combine, judge
from rsovlib.experiments.results import make_row
from tests.experiments.conftest import CODE, Tables


def measured(value, low=None, high=None, profile="full", dataset="gid"):
    return Measured(value, low, high, None, ("run",), (), 3, "percent", dataset, profile, "cpu", "")


def row(value, seed=0, low=None, high=None, **more):
    fields = {"paper": "p", "table": "t", "row": "r", "column": "c", "metric": "m", "profile": "full", "dataset": "d"}
    return make_row(fields | {"value": value, "seed": seed, "low": low, "high": high, "run": f"run-{seed}"} | more)


@pytest.mark.parametrize(
    ("ours", "gain", "word", "direction"),
    [
        (measured(50.0, 48.0, 52.0), None, "agrees", ""),
        (measured(47.4, 46.0, 48.6), None, "agrees", ""),  # 49 lies within the tolerance of 0.5 above 48.6
        (measured(47.4, 46.0, 48.4), None, "differs", ""),
        (measured(49.4), None, "agrees", ""),  # no interval: the tolerance alone
        (measured(48.4), None, "differs", ""),
        (measured(50.0, 48.0, 52.0), measured(-4.0, -7.0, -1.0), "agrees", "other"),
        (measured(40.0, 39.0, 41.0), measured(4.0, 1.0, 7.0), "trend agrees", "same"),
        (measured(40.0, 39.0, 41.0), measured(4.0), "trend agrees", "same"),
        (measured(40.0, 39.0, 41.0), measured(4.0, -1.0, 9.0), "differs", "unclear"),  # nobody knows its sign
        (measured(40.0, 39.0, 41.0), measured(-4.0, -7.0, -1.0), "differs", "other"),
        (measured(49.0, 48.0, 50.0, profile="embedded"), measured(4.0, 1.0, 7.0), "not comparable", "same"),
        (measured(49.0, 48.0, 50.0, dataset="gid (part)"), None, "not comparable", ""),
        (None, None, "not run", ""),
    ],
)
def test_the_rule(ours, gain, word, direction):
    verdict = judge(
        49.0, ours, dataset="gid", tolerance=0.5, published_gain=3.0, measured_gain=gain, missing="no GID here"
    )
    assert (verdict.word, verdict.direction) == (word, direction)
    assert verdict.word in VERDICTS
    assert verdict.direction in DIRECTIONS
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
    assert judge(None, None, missing="not measured").word == ""
    assert judge(None, None, missing="not measured").reason == "not measured"


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


@contextmanager
def steady():
    """The code's version doesn't change, as within a test."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("matrix", "runs"):
            patch.setattr(f"rsovlib.experiments.{module}.code_version", lambda: CODE)
        yield


class Page(HTMLParser):
    """Links, the tags that are still open, and the texts of each table's cells."""

    def __init__(self):
        super().__init__()
        self.links, self.open, self.ids, self.tables = [], [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)
        self.links += [value for name, value in attributes if name in ("href", "src")]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(report):
    page = report.page.read_text(encoding="utf-8")
    reader = Page()
    reader.feed(page)
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    assert not re.search(r"""(src|href)=["']?(https?:)?//|url\(|@import""", page), "nothing comes from the network"
    for link in reader.links:
        assert (link[1:] in reader.ids) if link.startswith("#") else (report.page.parent / link).is_file(), link
    return page, reader


RECORD = """
from rsovlib.experiments import record
for row, value in (("base", 40.0), ("+ step", 44.0), ("own <row>", 1.0)):
    record(row, "a|b", "miou", value + seed, low=value + seed - 1, high=value + seed + 1, unit="percent", dataset="gid",
           n=1200)
"""


@pytest.fixture(scope="module")
def reported_tables(tmp_path_factory):
    return Tables(tmp_path_factory.mktemp("report") / "tables")


@pytest.fixture(scope="module")
def reported(reported_tables):
    """A table that was run for two seeds in the profile full, one that failed, and one that was never started."""
    tables, out = reported_tables, reported_tables.folder.parent / "runs"
    published = {
        "source": "a paper",
        "dataset": "gid",
        "columns": ["a|b"],
        "reference": "base",
        "rows": {"base": [41.0], "+ step": [60.25], "late": [50.0]},
    }
    tables.add("scores", "seed: int = 0", RECORD, published=published, profiles={"full": {"matrix": {"seed": [0, 1]}}})
    tables.add("broken", "x: int = 1", "raise ValueError('no <b>luck</b>')", profiles={"full": {}})
    with steady():
        summary = reproduce(folder=tables.folder, out=out, profile="full", workers=0, progress=False)
    assert [outcome.state for outcome in summary.outcomes.values()] == ["failed", "finished", "finished"]
    never = {**published, "rows": {"other": [3.0], "one more": [4.5]}, "reference": "other"}
    tables.add("never", "x: int = 1", published=never, profiles={"full": {"data": ["datasets/gid"]}})
    return out, write_report(out, tables.folder)


def test_the_report(reported):
    _, report = reported
    lines = {(section.entry.name, line.row): line for section in report.sections for line in section.lines}
    assert lines["scores", "base"].verdict.word == "agrees"
    assert lines["scores", "base"].measured.value == 40.5
    assert lines["scores", "+ step"].verdict.word == "trend agrees"
    assert lines["scores", "+ step"].published_gain == 19.25
    assert lines["scores", "+ step"].measured_gain.value == pytest.approx(4.0)
    assert lines["scores", "late"].verdict.word == "not run"
    assert lines["scores", "own <row>"].verdict.word == ""
    assert "RSOV_DATA" in lines["never", "other"].verdict.reason
    assert report.counts() == {"agrees": 1, "trend agrees": 1, "not run": 3, "": 1}

    page, reader = read(report)
    assert sum(link.endswith("notebook.html") for link in reader.links) >= 6
    assert "own &lt;row&gt;" in page
    assert "no &lt;b&gt;luck&lt;/b&gt;" in page
    for text in (*MEANINGS.values(), "a paper", "ValueError"):
        assert text in html.unescape(page)


def test_single_numbers_as_they_are_read(reported):
    """Digits, signs, thousands, what is left out and what is said once."""
    _, reader = read(reported[1])
    table = next(table for table in reader.tables if table[0][:2] == ["row", "paper"])
    head = "row|paper|measured|interval|difference|gain, paper|gain, measured|gain's direction|verdict|why|sample"
    assert "|".join(table[0]) == head
    rows = {row[0]: dict(zip(table[0], row, strict=True)) for row in table[1:]}
    assert rows["base"]["paper"] == "41.00", "as the paper's other numbers"
    assert rows["base"]["measured"].split()[0] == "40.5"
    # Student's t for one degree of freedom is 12.706, s is 0.7071; the images add 1.
    assert rows["base"]["interval"] == "[34.1, 46.9]"
    assert rows["base"]["difference"] == "-0.5"
    assert rows["+ step"]["gain, paper"] == "+19.2"
    assert rows["+ step"]["gain, measured"] == "+4.0"
    assert rows["base"]["sample"] == "2 seeds, n = 1,200 each"
    assert rows["own <row>"]["interval"] == "[0.0, 7.9]", "an IoU isn't below 0"
    assert rows["late"]["verdict"] == "– not run"
    page = reported[1].page.read_text(encoding="utf-8")
    said = re.sub("<[^>]*>", "", next(line for line in page.splitlines() if "All rows:" in line))
    assert said == "All rows: column: a|b; metric: mIoU (percent); profile: full; measured on: gid."


def test_what_was_never_started_is_the_papers_grid_and_a_sentence(reported):
    page, reader = read(reported[1])
    start = page.index('<h3 id="never">')
    own = re.split("<h[23]", page[start + 1 :])[0]
    assert own.count("<table") == 1
    assert "<details" not in own
    assert [["", "a|b"], ["other", "3.0"], ["one more", "4.5"]] in reader.tables
    assert own.count("RSOV_DATA") == 1


def test_the_first_screen_says_what_is_missing_and_how_to_get_it(reported):
    out, report = reported
    page = html.unescape(report.page.read_text(encoding="utf-8"))
    first = page[: page.index('id="Tables"')]
    assert "2 finished, 1 failed" in first
    assert "full: the papers' weights and data" in first
    assert re.search(r"<dt>libraries</dt><dd>python 3\.\S+,.* torch \S+,", first)
    assert f"rsovlib reproduce broken --profile full --out {out}" in first
    assert "failed: In [2]: raise ValueError" in first
    assert "RSOV_DATA" in first
    assert first.index("failed: In [2]") < first.index("RSOV_DATA"), "what somebody began comes first"
    markdown = report.markdown.read_text(encoding="utf-8")
    assert f"`rsovlib reproduce broken --profile full --out {out}`" in markdown.partition("## What the verdicts")[0]


def test_the_markdown(reported):
    markdown = reported[1].markdown.read_text(encoding="utf-8")
    tables = re.findall(r"(?m)(?:^\|.*\| *\n)+", markdown)
    for table in tables:  # a bar within a cell would make one more
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table
    (grid,) = (table for table in tables if table.startswith("| | a\\|b | note |") and "base" in table)
    base = r"^\| base \| \[40\.5\]\(finished/scores-\w+/notebook\.ipynb\) \[34\.1, 46\.9\], paper 41\.00 ✓ \|"
    assert re.search(base, grid, re.M)
    assert "ValueError: no <b>luck</b>" in markdown


def test_the_command_writes_it(reported, reported_tables, monkeypatch, capsys):
    out, _ = reported
    monkeypatch.setattr(tables_module, "FOLDER", reported_tables.folder)
    (out / "report.html").unlink()
    assert main(["report", "--out", str(out)]) == 0
    assert (out / "report.html").is_file()
    assert "1 agrees" in capsys.readouterr().out


def test_no_folder_is_a_clear_sentence(tmp_path, capsys):
    with pytest.raises(InputError, match="rsovlib reproduce"):
        write_report(tmp_path / "nowhere")
    assert main(["report", "--out", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_a_run_that_was_interrupted_is_missed(tables, tmp_path):
    """Of two runs one is there; the plan of an interrupted command has no outcome for the other."""
    tables.add_work([0, 1])
    out = tmp_path / "runs"
    reproduce(folder=tables.folder, out=out, workers=0, progress=False)
    path = out / "plans" / "work.embedded.json"
    plan = json.loads(path.read_text())
    plan["units"][1]["outcome"] = None
    path.write_text(json.dumps(plan))
    shutil.rmtree(out / "finished" / plan["units"][1]["name"])
    report = write_report(out, tables.folder)
    (section,) = report.sections
    (gap,) = section.gaps
    assert gap.reason == "not finished (1 of 2 runs)"
    assert gap.command == f"rsovlib reproduce work --out {out}"
    assert [run.label for run in section.runs] == ["seed 0", "seed 1"]
    assert "1 finished, 1 not finished" in report.page.read_text()


def test_what_failed_is_the_papers_grid_and_its_reason(tables, tmp_path):
    published = {"source": "a paper", "dataset": "gid", "columns": ["x"], "rows": {"base": [1.0], "step": [3.0]}}
    tables.add("bad", "x: int = 1", "raise ValueError('luckless')", published=published, profiles={"full": {}})
    reproduce(folder=tables.folder, out=tmp_path / "runs", profile="full", workers=0, progress=False)
    page, reader = read(write_report(tmp_path / "runs", tables.folder))
    own = page[page.index('<h3 id="bad">') : page.index('id="Costs"')]
    assert "failed: In [2]: raise ValueError(&#39;luckless&#39;): ValueError: luckless" in own
    assert [["", "x"], ["base", "1"], ["step", "3"]] in reader.tables
    assert "<details" not in own, "no list of numbers that aren't there"


FINDINGS = """
from rsovlib.experiments import record
for place, word in enumerate(("holds", "unclear", "holds")):
    record("method", str(place), "gain, all seeds", place, unit="percent", dataset="gid", note=f"{word}: new beats old")
record("method", "9", "gain", None, dataset="gid", note="not measured: old beats new")
"""


def test_what_holds_stands_on_the_first_screen(tables, tmp_path):
    tables.add("sums", "x: int = 1", FINDINGS, profiles={"full": {}})
    unmeasured = "record('r', 'c', 'energy', None, dataset='d', note='not measured: no meter')"
    cell = f"from rsovlib.experiments import record\n{unmeasured}"
    tables.add("costs", "x: int = 1", cell, profiles={"full": {}})  # the page has a part of that name
    reproduce(folder=tables.folder, out=tmp_path / "runs", profile="full", workers=0, progress=False)
    page, reader = read(write_report(tmp_path / "runs", tables.folder))
    assert reader.tables[0] == [
        ["claim, cell by cell", "holds", "unclear", "not measured"],
        ["new beats old", "2", "1", ""],
        ["old beats new", "", "", "1"],
    ]
    first = page[page.index('id="Holds"') : page.index('id="Missing"')]
    assert len(re.findall(r'href="finished/sums-\w+/notebook.html"', first)) == 1
    assert "costs" not in first, "what wasn't measured is no claim"


def test_the_page_has_a_grid_and_a_line_of_counts(tables, tmp_path):
    cells = "\n".join(
        f'record("{row}", "{column}", "miou", {value}, unit="percent", dataset="gid", note="{note}")'
        for row, column, value, note in (
            ("base", "x", 1, ""), ("base", "y", 2, "another word"), ("step", "x", 3, "a stand-in"),
            ("step", "y", 44, "a stand-in"),
        )
    )  # fmt: skip
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
    page, reader = read(report)
    assert page.count('<table class="grid">') == 1
    assert "✗ 1 differs" in page
    assert [
        ["", "x", "y"],
        ["base", "1.0paper 1 ✓", "2.0[1]paper 2 ✓"],
        ["step [2]", "3.0paper 3 ✓", "44.0paper 4 ✗"],
    ] in reader.tables
    assert "[1] another word</li><li>[2] a stand-in" in page
    assert "<details>" in page
    assert "<details open" not in page, "where there is a grid the list is folded"
