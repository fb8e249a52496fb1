"""The papers' numbers: their form, their place in the tables, and what they must be to each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rsovlib.errors import InputError
from rsovlib.experiments.papers import load_paper, paper_names, paper_table, published_part, read_paper
from rsovlib.experiments.relations import relations, relations_frame
from rsovlib.experiments.tables import Published, load_tables

# What doesn't hold in a paper itself. Everything else must, so that a slip in the transcription shows.
EXCEPTIONS = {
    "sdci": {
        "Table 1, CASS, average": (40.41, 41.40),
        "Table 1, gains, SDCI-v2, average": (6.44, 6.11),
        "Table 1, SDCI-v1, GFLOPs": (2022.72, 1995.87),
        "Table 1, SDCI-v2, GFLOPs": (1683.29, 1656.44),
    },
    "mm-ovseg": {"Table 2, MM-OVSeg, s6": (42.6, 42.74)},
    "scenario-sampling": {},
}


@pytest.mark.parametrize("name", paper_names())
def test_every_paper_is_well_formed(name: str):
    paper = load_paper(name)
    assert paper.name == name
    assert paper.doi.startswith("10.")
    for key, table in paper.tables.items():
        assert table.name == key
        assert table.source.startswith("arXiv ")
        assert all(value == value for _, _, value in table.cells())
        frame = table.frame()
        assert frame.shape == (len(table.rows), len(table.columns))


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_the_numbers_fit_each_other_with_these_exceptions(name: str):
    checked = relations(name)
    assert len({one.where for one in checked}) > 40
    broken = {one.where: (one.printed, pytest.approx(one.computed, abs=0.005)) for one in checked if not one.holds}
    assert broken == EXCEPTIONS[name]
    frame = relations_frame(checked)
    assert list(frame.index[~frame["holds"]]) == list(EXCEPTIONS[name])


def test_relations_of_a_paper_without_any():
    with pytest.raises(InputError, match="sdci"):
        relations("edc")


def test_transcription_against_an_independent_one(shared: Path):
    """Digit by digit against the transcription that was made when the papers were read."""
    source = shared / "specs" / "paper_tables_sdci.yaml"
    if not source.exists():
        pytest.skip("the other transcription is not here")
    other = yaml.safe_load(source.read_text(encoding="utf-8"))
    for row, values in other["table1"]["rows"].items():
        assert list(paper_table("sdci", "table1").row(row)) == values
    for row, values in other["table1"]["printed_gains_over_best_existing"].items():
        assert list(paper_table("sdci", "table1-gains").row(row)) == values
    for row in other["table2"]["rows"]:
        assert list(paper_table("sdci", "table2").row(row["name"])) == row["values"]
    other = yaml.safe_load((shared / "specs" / "paper_tables_trained.yaml").read_text(encoding="utf-8"))["mm_ovseg"]
    for row, values in other["table2_miou_vit_b16"].items():
        assert list(paper_table("mm-ovseg", "table2").row(row)) == list(values.values())
    for row, parts in other["tableA3_seen_unseen_miou"].items():
        for part, values in parts.items():
            assert list(paper_table("mm-ovseg", f"tableA3-{part}").row(row)) == list(values.values())


def test_cells_rows_and_columns():
    table = paper_table("sdci", "table1")
    assert table.value("SDCI-v1", "GID ori") == 58.93
    assert table.column("GFLOPs")["CASS"] == 26943.79
    assert (table.of("metric", "GFLOPs"), table.of("unit", "GFLOPs")) == ("flops", "GFLOP")
    assert table.of("dataset", "LoveDA gen") == "loveda"
    assert paper_table("sdci", "table1-gains").value("SDCI-v2", "GID gen") is None
    for wrong in (lambda: table.value("SDCI", "average"), lambda: table.column("GID"), lambda: table.row("x")):
        with pytest.raises(InputError, match="Table 1"):
            wrong()
    with pytest.raises(InputError, match="table1"):
        paper_table("sdci", "tabel1")
    with pytest.raises(InputError, match="mm-ovseg"):
        paper_table("mmovseg", "table1")


PAPER = {
    "name": "toy",
    "title": "Toy",
    "year": 2026,
    "venue": "nowhere",
    "read": "all of it",
    "tables": {"one": {"source": "Table 1", "title": "t", "columns": ["a", "b"], "rows": {"x": [1, 2], "y": [3, 4]}}},
}


def write(folder: Path, changes: dict[str, object] | None = None, **table: object) -> Path:
    path = folder / "toy.yaml"
    content = {**PAPER, **(changes or {}), "tables": {"one": {**PAPER["tables"]["one"], **table}}}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_a_paper_from_a_file(tmp_path: Path):
    table = read_paper(write(tmp_path)).tables["one"]
    assert (table.source, table.of("metric", "a"), table.of("unit", "b")) == ("nowhere, Table 1", "miou", "percent")
    gap = read_paper(write(tmp_path, rows={"x": [1, None]}, dash="not measured")).tables["one"]
    assert list(gap.cells()) == [("x", "a", 1.0)]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rows": {"x": [1]}}, "1 numbers for 2 columns"),
        ({"rows": {"x": [1, None]}}, "gap"),
        ({"columns": ["a", "a"]}, "twice"),
        ({"unit": {"a": "percent"}}, "unit doesn't name one for each column"),
        ({"titles": {"c": "?"}}, "no column"),
        ({"row": 1}, "row"),
    ],
)
def test_wrong_tables(change: dict[str, object], sentence: str, tmp_path: Path):
    with pytest.raises(InputError, match=sentence):
        read_paper(write(tmp_path, **change))


def test_a_file_under_another_name(tmp_path: Path):
    with pytest.raises(InputError, match="toy"):
        read_paper(write(tmp_path).rename(tmp_path / "other.yaml"))


def test_published_takes_its_numbers_from_a_paper():
    whole = Published.model_validate({"from": "sdci/table2", "reference": "baseline"})
    assert whole.columns == ("ori", "gen", "set_of_gen")
    assert whole.rows["+ BCDR"] == [58.09, 62.46, 58.65]
    assert whole.of("dataset", "gen") == "gid"
    part = Published.model_validate(
        {"from": "sdci/table1", "columns": {"one image": "GFLOPs"}, "rows": {"ours": "SDCI-v2"}, "dataset": "toy"}
    )
    assert list(part.cells()) == [("ours", "one image", "flops", 1683.29)]
    assert part.of("dataset", "one image") == "toy", "what is given goes before what the paper's table says"
    assert list(published_part("sdci/table1", rows=["CASS"], columns=["average"])["rows"]) == ["CASS"]
    for wrong in ("sdci", "sdci/table9", "nobody/table1"):
        with pytest.raises(ValueError, match=r"paper|table of sdci"):
            Published.model_validate({"from": wrong})


def test_no_table_of_a_paper_copies_numbers():
    """Every published number of the package's tables comes from the papers' files."""
    folder = Path(load_tables.__code__.co_filename).parent / "tables"
    for path in folder.glob("*.yaml"):
        published = yaml.safe_load(path.read_text(encoding="utf-8")).get("published")
        assert published is None or "from" in published, path.name
