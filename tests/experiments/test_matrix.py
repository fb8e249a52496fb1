"""The matrix: every run has a name that changes with what its results depend on, and with nothing else."""

from __future__ import annotations

import hashlib
import json

import nbformat
import pytest

from rsovlib.data.manifest import manifest_names
from rsovlib.errors import InputError
from rsovlib.experiments import identity, matrix, reproduce
from rsovlib.experiments.identity import code_version, data_version, notebook_digest, weights_version
from rsovlib.experiments.matrix import BESIDE, plan_units
from rsovlib.experiments.runs import FINISHED
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


# ---- several runs before ---------------------------------------------------------------------------------------------


@pytest.fixture
def gathered(tables):
    """Trainings of two methods on three sets, one of which isn't here, and a table that scores each set's networks."""
    sets = ["scenes", "clouds", "datasets/ddhr-sk/mm-ovseg"]
    matrix = {"train": sets, "method": ["a", "b"]}
    runs = {"matrix": matrix, "data": ["{train}"]}
    tables.add("train", "train: str = ''\nmethod: str = ''", "x = 1", profiles={"full": runs})
    tables.add("extra", "method: str = ''", "x = 1", profiles={"full": {"matrix": {"method": ["c"]}}})
    scores = {"matrix": {"train": sets}, "needs": ["train", "extra"], "inputs": {"networks": ["train", "extra"]}}
    tables.add("score", "train: str = ''\nnetworks: list[str] = []", "y = 2", profiles={"embedded": {}, "full": scores})
    return tables


def test_a_list_gets_the_folders_of_all_runs_that_fit(gathered, monkeypatch):
    monkeypatch.delenv("RSOV_DATA", raising=False)
    units = plan(gathered, profile="full")
    trained = {
        (unit.table, unit.point.get("train", ""), unit.point["method"]): unit for unit in units if unit.table != "score"
    }
    scored = {unit.point["train"]: unit for unit in units if unit.table == "score"}
    for name in ("scenes", "clouds"):
        wanted = [trained["train", name, "a"], trained["train", name, "b"], trained["extra", "", "c"]]
        assert {*scored[name].parameters["networks"]} == {f"{BESIDE}/{one.name}" for one in wanted}
        assert {*scored[name].needs} == {one.key for one in wanted}
        assert not scored[name].inputs
        assert "networks" not in scored[name].point
    assert len({unit.key for unit in units}) == 6 + 1 + 3


def test_what_a_list_cannot_have_is_left_out_unless_that_is_all(gathered, monkeypatch):
    monkeypatch.delenv("RSOV_DATA", raising=False)
    scored = {unit.point["train"]: unit for unit in plan(gathered, profile="full") if unit.table == "score"}
    here = scored["datasets/ddhr-sk/mm-ovseg"]
    assert not here.missing  # "extra" is there, whatever the data
    assert [name.split("/")[-1].rpartition("-")[0] for name in here.parameters["networks"]] == ["extra"]
    assert len(here.needs) == 1
    only = {"matrix": {"train": ["datasets/ddhr-sk/mm-ovseg"]}, "needs": ["train"], "inputs": {"networks": "train"}}
    gathered.add("score", "train: str = ''\nnetworks: list[str] = []", "y = 2", profiles={"full": only})
    (alone,) = [unit for unit in plan(gathered, profile="full") if unit.table == "score"]
    assert "RSOV_DATA" in alone.missing
    assert alone.parameters["networks"] == []
    wrong = {"matrix": {"train": ["elsewhere"]}, "needs": ["train"], "inputs": {"networks": "train"}}
    gathered.add("score", "train: str = ''\nnetworks: list[str] = []", "y = 2", profiles={"full": wrong})
    (lonely,) = [unit for unit in plan(gathered, profile="full") if unit.table == "score"]
    assert lonely.missing == "score needs runs of train, and none fits {'train': 'elsewhere'}."


def test_needs_of_one_profile_leave_the_other_alone(gathered, monkeypatch):
    monkeypatch.delenv("RSOV_DATA", raising=False)
    known = load_tables(gathered.folder)
    assert list(known).index("score") == 2  # after what it needs in any profile
    assert list(chosen_tables(known, ["score"])) == ["score"]
    assert list(chosen_tables(known, ["score"], "embedded")) == ["score"]
    assert set(chosen_tables(known, ["score"], "full")) == {"train", "extra", "score"}
    (alone,) = plan_units(chosen_tables(known, ["score"]))
    assert alone.needs == ()
    assert "networks" not in alone.parameters


def test_tables_that_a_profile_needs_come_from_those_that_ship(gathered, monkeypatch):
    monkeypatch.delenv("RSOV_DATA", raising=False)
    known = load_tables(gathered.folder)
    monkeypatch.setattr(matrix, "load_tables", lambda: known)
    units = plan_units(chosen_tables(known, ["score"]), profile="full")
    assert [unit.table for unit in units] == ["extra"] + 6 * ["train"] + 3 * ["score"]
    monkeypatch.setattr(matrix, "load_tables", dict)
    with pytest.raises(InputError, match="table that score may need"):
        plan_units(chosen_tables(known, ["score"]), profile="full")


def test_a_table_may_run_with_a_part_of_what_it_needs(gathered, monkeypatch):
    monkeypatch.delenv("RSOV_DATA", raising=False)
    for partly in (False, True):
        runs = {"needs": ["train"], "partly": partly}
        gathered.add("verdict", "x: int = 1", "y = 2", profiles={"full": runs})
        (unit,) = [unit for unit in plan(gathered, profile="full") if unit.table == "verdict"]
        assert bool(unit.missing) is not partly
        assert len(unit.needs) == (4 if partly else 6)


def test_the_folders_are_there_when_the_notebook_runs(tables, tmp_path):
    write = "from pathlib import Path\nPath('network.txt').write_text(method)"
    tables.add("train", "method: str = ''", write, matrix={"method": ["a", "b"]})
    read = "from rsovlib.experiments import record\nfrom pathlib import Path\nfor folder in networks:\n"
    read += "    record((Path(folder) / 'network.txt').read_text(), 'c', 'm', 1.0)"
    tables.add("score", "networks: list[str] = []", read, needs=["train"], inputs={"networks": "train"})
    assert f"../../{FINISHED}" == BESIDE
    summary = reproduce(["score"], folder=tables.folder, out=tmp_path / "out", workers=0, progress=False)
    assert summary.is_good
    assert set(summary.results["row"]) == {"a", "b"}
    folders = next(unit for unit in summary.units if unit.table == "score").parameters["networks"]
    assert all((tmp_path / "out" / FINISHED / "score" / folder).resolve().is_dir() for folder in folders)


def test_lists_are_checked_like_other_inputs(tables):
    tables.add("one", "x: int = 1", inputs={"x": "two"})
    with pytest.raises(InputError, match="not among needs"):
        load_tables(tables.folder)
    tables.add("one", "x: int = 1", profiles={"full": {"inputs": {"x": ["two", "three"]}, "needs": ["two"]}})
    with pytest.raises(InputError, match="'three', which is not among needs"):
        load_tables(tables.folder)


# ---- data and weights ------------------------------------------------------------------------------------------------


def test_data_may_be_several_or_none_a_protocol_or_a_folder(tables, tmp_path, monkeypatch):
    monkeypatch.setenv("RSOV_DATA", str(tmp_path / "data"))
    copy = tmp_path / "data" / "ddhr-sk"
    copy.mkdir(parents=True)
    (copy / "a.png").write_text("x")
    own = tmp_path / "own"
    own.mkdir()
    runs = {"data": ["{pairs}"]}
    tables.add("one", "pairs: str = ''", profiles={"embedded": runs})

    def versions(pairs):
        (unit,) = plan(tables, values={"pairs": pairs})
        return unit

    assert versions("").identity["data"] == {}
    whole = versions(" scenes, datasets/ddhr-sk/mm-ovseg").identity["data"]
    assert list(whole) == ["scenes", "datasets/ddhr-sk"]
    assert whole["datasets/ddhr-sk"] == data_version(["datasets/ddhr-sk"])["datasets/ddhr-sk"]
    empty = versions(str(own))
    (own / "a.tif").write_text("x")
    assert versions(str(own)).key != empty.key
    assert "There is no folder" in versions(str(tmp_path / "nowhere")).missing


def test_weights_may_be_named_by_architecture_and_file(tables, tmp_path):
    file = tmp_path / "rsib.pth"
    file.write_bytes(b"weights")
    runs = {"weights": ["{dino}"]}
    tables.add("one", "dino: str = ''", profiles={"embedded": runs})

    def weights(dino):
        (unit,) = plan(tables, values={"dino": dino})
        return unit.missing or unit.identity["weights"]

    assert weights("") == {}
    assert weights("vit_base_patch8_224@random") == {"vit_base_patch8_224@random": "random"}
    named = f"vit_base_patch8_224@{file}"
    assert weights(named) == {named: hashlib.sha256(b"weights").hexdigest()}
    assert "There is no weights file" in weights(f"{named}x")
    assert "names no network" in weights("vit_base_patch8_224@")


def test_each_source_is_looked_at_once(gathered, monkeypatch):
    asked = []
    monkeypatch.setattr(matrix, "data_version", lambda names: asked.extend(names) or dict.fromkeys(names, "1"))
    plan(gathered, profile="full")
    assert sorted(asked) == ["clouds", "datasets/ddhr-sk", "scenes"]


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
    tables.add("real", "x: int = 1", profiles={"full": {"data": ["datasets/gid"], "hint": "(Or take your own.)"}})
    (unit,) = plan(tables, profile="full")
    assert unit.missing.endswith("(Or take your own.)")


def test_every_full_table_of_the_fusion_networks_says_what_is_missing(monkeypatch):
    monkeypatch.delenv("RSOV_DATA", raising=False)
    monkeypatch.setenv("RSOV_OFFLINE", "1")
    entries = {name: one for name, one in load_tables().items() if one.paper == "mm-ovseg" and "full" in one.profiles}
    units = plan_units(chosen_tables(entries, list(entries), "full"), profile="full")
    counted = {"mm-ovseg-table-a1", "findings-mmovseg"}  # nothing but shapes and printed numbers
    assert {unit.table for unit in units if not unit.missing} == counted
    for unit in units:
        assert unit.table in counted or "RSOV_DATA" in unit.missing, unit.label
    assert any("isn't published" in unit.missing for unit in units if unit.table == "mm-ovseg-cmu")


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
    entries = {name: entry for name, entry in load_tables().items() if "embedded" in entry.profiles}
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
