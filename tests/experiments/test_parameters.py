"""Parameters are typed as the notebook's cell says, and wrong ones are refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import papermill
import pytest

from rsovlib.errors import InputError
from rsovlib.experiments.parameters import (
    Parameter,
    checked_parameters,
    declared_parameters,
    read_parameters,
    split_assignments,
)
from rsovlib.experiments.tables import load_tables

CELL = """
steps: int = 5  # of the solver
beta: float = 0.1
name: str = "a # b"  # ä, and a comment
bands: list[int] | None = None
kind: Literal["thin", "thick"] = "thin"
flag = True
plain = 3
nothing = None
"""


@pytest.fixture
def declared(make_notebook):
    return declared_parameters(make_notebook(CELL), "one.ipynb")


def test_names_types_defaults_and_comments(declared):
    assert {name: (one.kind, one.default) for name, one in declared.items()} == {
        "steps": ("int", 5),
        "beta": ("float", 0.1),
        "name": ("str", "a # b"),
        "bands": ("list[int] | None", None),
        "kind": ("Literal['thin', 'thick']", "thin"),
        "flag": ("bool", True),
        "plain": ("int", 3),
        "nothing": ("Any", None),
    }
    assert declared["steps"].help == "of the solver"
    assert declared["name"].help == "ä, and a comment"


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("steps", 7, 7),
        ("beta", 2, 2.0),
        ("bands", [4, 3, 2], [4, 3, 2]),
        ("bands", None, None),
        ("kind", "thick", "thick"),
        ("nothing", {"a": 1}, {"a": 1}),
    ],
)
def test_right_values_are_taken(declared, name, value, kept):
    got = checked_parameters(declared, {name: value})[name]
    assert got == kept
    assert type(got) is type(kept)


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 2.0), ("steps", True), ("steps", "2"), ("beta", "0.1"), ("name", 3), ("bands", [1.5]), ("bands", "4,3")],
)
def test_wrong_types_are_refused(declared, name, value):
    with pytest.raises(InputError, match=rf"{name}.*must be of type"):
        checked_parameters(declared, {name: value})


def test_a_value_that_the_choice_does_not_have_is_refused(declared):
    with pytest.raises(InputError, match="Literal"):
        checked_parameters(declared, {"kind": "thinn"})


def test_an_unknown_name_is_refused_with_the_nearest(declared):
    with pytest.raises(InputError, match="Did you mean 'steps'"):
        checked_parameters(declared, {"step": 2}, "one.ipynb")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("steps", "7", 7),
        ("beta", "1e-3", 1e-3),
        ("name", "3", "3"),
        ("name", "'quoted'", "'quoted'"),
        ("bands", "4,3,2", [4, 3, 2]),
        ("bands", "none", None),
        ("flag", "false", False),
        ("kind", "thick", "thick"),
    ],
)
def test_texts_of_the_command_line(declared, name, text, value):
    got = declared[name].from_text(text)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(("name", "text"), [("steps", "2.0"), ("steps", "two"), ("flag", "1"), ("bands", "a,b")])
def test_wrong_texts_are_refused(declared, name, text):
    with pytest.raises(InputError, match=name):
        declared[name].from_text(text)


@pytest.mark.parametrize(
    "cell", ["x = open('f')", "import os", "x, y = 1, 2", "x: int", "x: os.PathLike = 1", "x: print() = 1", "x ="]
)
def test_a_cell_that_is_no_list_of_values_is_refused(make_notebook, cell):
    with pytest.raises(InputError, match=r"one\.ipynb"):
        declared_parameters(make_notebook(cell), "one.ipynb")


def test_a_notebook_needs_one_parameters_cell(make_notebook):
    notebook = make_notebook("x: int = 1")
    del notebook["cells"][1]
    with pytest.raises(InputError, match="0 cells tagged"):
        declared_parameters(notebook, "one.ipynb")


def test_assignments():
    assert split_assignments(["beta=0.3", "sdci-table2.tiles=4", "name=a=b"]) == {
        "beta": "0.3",
        "sdci-table2.tiles": "4",
        "name": "a=b",
    }
    for wrong in ("beta", "=3", "a b=3"):
        with pytest.raises(InputError, match="NAME=VALUE"):
            split_assignments([wrong])
    with pytest.raises(InputError, match="twice"):
        split_assignments(["a=1", "a=2"])


def test_parameters_from_a_file(tmp_path: Path):
    path = tmp_path / "p.yaml"
    path.write_text("beta: 0.3\nwork:\n  seed: 2\n")
    assert read_parameters(path) == {"beta": 0.3, "work": {"seed": 2}}
    path.write_text("- 1\n")
    with pytest.raises(InputError, match="NAME: VALUE"):
        read_parameters(path)
    with pytest.raises(InputError, match="no file"):
        read_parameters(tmp_path / "none.yaml")


def test_all_notebooks_of_the_tables_are_read_as_papermill_reads_them():
    """Names and defaults agree with papermill's own reading, but for types that it can't parse."""
    import nbformat

    for entry in load_tables().values():
        path = entry.notebook_path()
        ours = declared_parameters(nbformat.read(path, as_version=4), path.name)
        theirs = papermill.inspect_notebook(str(path))
        assert set(theirs) <= set(ours)
        assert all("|" in ours[name].kind for name in set(ours) - set(theirs))


def test_a_parameter_says_what_it_wants():
    with pytest.raises(InputError, match=r"'beta' must be of type float, not 'x' \(str\)"):
        Parameter("beta", "float", 0.1).checked("x")
