"""The matrix: every run has a name that changes with what its results depend on, and with nothing else."""

from __future__ import annotations

import json

import nbformat
import pytest

from rsovlib.data.manifest import manifest_names
from rsovlib.errors import InputError
from rsovlib.experiments import identity
from rsovlib.experiments.identity import code_version, data_version, notebook_digest, weights_version
from rsovlib.experiments.matrix import plan_units
from rsovlib.experiments.tables import chosen_tables, load_tables


def plan(tables, names=(), **options):
    return plan_units(chosen_tables(load_tables(tables.folder), names), **options)


@pytest.fixture
def two(tables):
    tables.add("train", "seed: int = 0\nsteps: int = 5", "x = 1", matrix={"seed": [0, 1]}, kind="training")
    tables.add(
        "score",
        "seed: int = 0\nmodels: str = ''\nbeta: float = 0.1\nprofile: str = 'embedded'",
        "y = 2",
        matrix={"seed": [0, 1], "beta": [0.1, 0.2]},
        needs=["train"],
        inputs={"models": "train"},
    )
    return tables


def test_all_combinations_come_after_what_they_need(two):
    units = plan(two)
    assert [(unit.table, dict(unit.point)) for unit in units] == [
        ("train", {"seed": 0}),
        ("train", {"seed": 1}),
        ("score", {"seed": 0, "beta": 0.1}),
        ("score", {"seed": 0, "beta": 0.2}),
        ("score", {"seed": 1, "beta": 0.1}),
        ("score", {"seed": 1, "beta": 0.2}),
    ]
    trained = {unit.point["seed"]: unit.key for unit in units[:2]}
    for unit in units[2:]:  # each gets the folder of the training with its own seed
        assert unit.needs == (trained[unit.point["seed"]],)
        assert unit.inputs == {"models": trained[unit.point["seed"]]}
        assert unit.parameters["profile"] == "embedded"


def test_asking_for_a_table_brings_what_it_needs(two):
    assert {unit.table for unit in plan(two, ["score"])} == {"train", "score"}
    assert {unit.table for unit in plan(two, ["train"])} == {"train"}
    with pytest.raises(InputError, match="Did you mean 'score'"):
        plan(two, ["scores"])


def test_names_are_the_same_twice_and_differ_from_each_other(two):
    first, second = plan(two), plan(two)
    assert [unit.name for unit in first] == [unit.name for unit in second]
    assert len({unit.key for unit in first}) == 6


@pytest.mark.parametrize("what", ["cell", "tag", "parameter", "code", "need"])
def test_a_name_changes_with_what_the_results_depend_on(two, what):
    before = {unit.label: unit.key for unit in plan(two)}
    options = {}
    path = two.folder / ("train.ipynb" if what == "need" else "score.ipynb")
    notebook = nbformat.read(path, as_version=4)
    if what in ("cell", "need"):
        notebook.cells[-1].source += " "
    elif what == "tag":
        notebook.cells[-1].metadata["tags"] = ["other"]
    elif what == "parameter":
        options["texts"] = {"score.beta": "0.3"}
    elif what == "code":
        options["code"] = "another"
    nbformat.write(notebook, path)
    after = {unit.label: unit.key for unit in plan(two, **options)}
    assert not {after[label] for label in after if label.startswith("score")} & set(before.values())
    if what in ("cell", "tag", "parameter"):  # the training doesn't depend on any of these
        assert {after[label] for label in after if label.startswith("train")} <= set(before.values())


def test_a_name_does_not_change_with_outputs_or_metadata(two):
    before = [unit.key for unit in plan(two)]
    path = two.folder / "score.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="said")]
    notebook.cells[-1].execution_count = 9
    notebook.cells[-1].metadata["scrolled"] = True
    notebook.metadata["widgets"] = {}
    nbformat.write(notebook, path)
    assert [unit.key for unit in plan(two)] == before


def test_order_of_cells_counts(make_notebook):
    assert notebook_digest(make_notebook("a = 1", "x", "y")) != notebook_digest(make_notebook("a = 1", "y", "x"))


def test_seeds_replace_the_tables_own(two):
    units = plan(two, seeds=[7])
    assert {unit.point["seed"] for unit in units} == {7}
    assert len(units) == 3
    two.add("plain", "x: int = 1")
    with pytest.raises(InputError, match="several seeds"):
        plan(two, ["plain"], seeds=[7])


def test_points_may_be_listed_and_weights_named_by_parameters(tables):
    points = [{"seed": 0, "clip": "rsov-tiny-clip"}, {"seed": 1, "clip": "rsov-tiny-clip-s1"}]
    runs = {"matrix": points, "weights": ["{clip}"], "data": ["scenes"]}
    tables.add("pairs", "seed: int = 0\nclip: str = ''", profiles={"embedded": runs})
    units = plan(tables)
    assert [list(unit.identity["weights"]) for unit in units] == [["rsov-tiny-clip"], ["rsov-tiny-clip-s1"]]
    assert all(len(sha) == 64 for unit in units for sha in unit.identity["weights"].values())
    assert [unit.point["seed"] for unit in plan(tables, seeds=[1])] == [1]
    with pytest.raises(InputError, match="seed"):
        plan(tables, seeds=[5])


def test_parameters_are_checked_before_anything_runs(two):
    with pytest.raises(InputError, match="Did you mean 'beta'"):
        plan(two, texts={"bta": "0.3"})
    with pytest.raises(InputError, match="must be of type float"):
        plan(two, texts={"beta": "much"})
    with pytest.raises(InputError, match="Did you mean 'steps'"):
        plan(two, texts={"train.step": "3"})
    with pytest.raises(InputError, match="Did you mean 'score'"):
        plan(two, texts={"scor.beta": "3"})
    with pytest.raises(InputError, match="must be of type int"):
        plan(two, values={"train": {"steps": 1.5}})
    with pytest.raises(InputError, match="folder of a run before"):
        plan(two, texts={"models": "elsewhere"})


def test_a_parameter_goes_to_all_that_declare_it_unless_one_is_named(two):
    found = plan(two, values={"seed": 3}, texts={"score.seed": "4", "train.seed": "4"})
    assert {unit.parameters["seed"] for unit in found} == {4}  # and points that became the same are one
    assert len(found) == 3


def test_an_unknown_profile_and_one_that_a_table_lacks(two):
    with pytest.raises(InputError, match="Did you mean 'embedded'"):
        plan(two, profile="embeded")
    assert all("no 'full' profile" in unit.missing for unit in plan(two, profile="full"))


def test_what_is_missing_is_said_with_the_way_to_get_it(tables, monkeypatch):
    monkeypatch.delenv("RSOV_DATA", raising=False)
    tables.add("real", "x: int = 1", profiles={"full": {"data": ["datasets/gid"]}})
    (unit,) = plan(tables, profile="full")
    assert "RSOV_DATA" in unit.missing
    assert "http" in unit.missing


def test_wrong_tables_are_refused_with_the_file_and_the_key(tables, tmp_path):
    tables.add("one", "x: int = 1", needs=["two"])
    with pytest.raises(InputError, match="two"):
        load_tables(tables.folder)
    tables.add("two", "x: int = 1", needs=["one"])
    with pytest.raises(InputError, match="circle"):
        load_tables(tables.folder)
    tables.add("two", "x: int = 1", colour="red")
    with pytest.raises(InputError, match=r"two\.yaml: colour"):
        load_tables(tables.folder)
    tables.add("two", "x: int = 1", published={"source": "s", "dataset": "d", "columns": ["a"], "rows": {"r": [1, 2]}})
    with pytest.raises(InputError, match="2 numbers for 1 columns"):
        load_tables(tables.folder)
    tables.add("two", "x: int = 1", matrix={"y": [1]})
    tables.add("one", "x: int = 1")
    with pytest.raises(InputError, match="parameter of"):
        plan(tables)


def test_the_tables_that_ship_can_be_planned():
    entries = load_tables()
    units = plan_units(chosen_tables(entries, list(entries)), profile="embedded")
    assert {unit.table for unit in units} == set(entries)
    assert not [unit.missing for unit in units if unit.missing], "everything of the embedded profile runs offline"


def test_every_notebook_of_a_table_has_an_entry(repository):
    known = {entry.notebook for entry in load_tables().values()}
    folders = ("tables", "figures")
    found = {
        f"notebooks/{path.relative_to(repository / 'notebooks').as_posix()}"
        for folder in folders
        for path in (repository / "notebooks" / folder).glob("*.ipynb")
    }
    assert found <= known


def test_code_version_sees_every_source_and_nothing_else(tmp_path):
    (tmp_path / "a").mkdir()
    source, other = tmp_path / "a" / "x.py", tmp_path / "a" / "x.txt"
    source.write_text("1")
    before = code_version(tmp_path)
    other.write_text("1")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "t.yaml").write_text("1")
    assert code_version(tmp_path) == before
    source.write_text("2")
    changed = code_version(tmp_path)
    source.rename(tmp_path / "a" / "y.py")
    assert len({before, changed, code_version(tmp_path)}) == 3


def test_data_versions(monkeypatch, tmp_path):
    found = data_version(["scenes", "clouds", "suites/sdci-gid"])
    assert list(found) == ["clouds", "scenes", "suites/sdci-gid"]
    monkeypatch.setattr("rsovlib.data.scenes.SCENE_VERSION", 99)
    assert data_version(["suites/sdci-gid"])["suites/sdci-gid"] != found["suites/sdci-gid"]
    name = manifest_names()[0]
    monkeypatch.setenv("RSOV_DATA", str(tmp_path))
    (tmp_path / name).mkdir()
    empty = data_version([f"datasets/{name}"])
    (tmp_path / name / "image.tif").write_text("x")
    assert data_version([f"datasets/{name}"]) != empty
    for wrong in ("suites/sdci-gidd", "datasets/nowhere", "elsewhere"):
        with pytest.raises(InputError):
            data_version([wrong])


def test_weights_are_known_by_their_content():
    found = weights_version(["rsov-tiny-clip"])
    assert len(found["rsov-tiny-clip"]) == 64
    with pytest.raises(InputError, match="Did you mean 'rsov-tiny-clip'"):
        weights_version(["rsov-tiny-clp"])


def test_the_environment_names_what_numbers_come_from():
    about = identity.environment()
    assert {"python", "torch", "numpy", "processor", "commit"} <= set(about)
    assert json.dumps(about)
