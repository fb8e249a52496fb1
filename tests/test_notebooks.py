"""Every notebook is stored clean, says what it is, takes parameters, and runs from top to bottom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from traitlets.config import Config

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = REPOSITORY / "notebooks"
NOTEBOOKS = sorted(
    path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
)

# Parameters that make a run small; a notebook without an entry runs with its defaults.
# Each value may use {out}, a folder that the test makes.
NOTEBOOK_PARAMETERS: dict[str, dict[str, Any]] = {
    "quickstart.ipynb": {"out": "{out}/quickstart", "size": 128, "ladder_scenes": 1},
    "lessons/01_data.ipynb": {"profile": "embedded"},
    "tables/sdci_costs.ipynb": {"size": 64, "repeats": 1},
    "tables/sdci_table2.ipynb": {"tiles": 2},
    "training/embedded_models.ipynb": {
        "out": "{out}/models",
        "scenes": 24,
        "value_steps": 3,
        "fused_steps": 3,
        "dino_steps": 4,
        "workers": 1,
        "test_scenes": 2,
        "colour_scenes": 4,
    },
}

# Notebooks that need minutes even when they are small: only in `make test-slow`.
SLOW = {"training/embedded_models.ipynb"}

# Notebooks that may be stored with their outputs, and why.
WITH_OUTPUTS: dict[str, str] = {}

# Kernels talk over TCP on this machine only; without this, ipykernel warns at every start that it isn't encrypted.
KERNEL = Config({"KernelManager": {"transport_encryption": "auto"}})


def load(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / name, as_version=4)


def parameters_of(name: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in load(name).cells if "parameters" in cell.metadata.get("tags", [])]


def test_the_lists_here_name_notebooks_that_exist():
    assert {*NOTEBOOK_PARAMETERS, *SLOW, *WITH_OUTPUTS} <= set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_valid_and_has_a_title(name: str):
    notebook = load(name)
    nbformat.validate(notebook)
    first = notebook.cells[0]
    assert first.cell_type == "markdown", "the first cell says what the notebook is about"
    assert first.source.startswith("# "), "and starts with a title"
    assert len(first.source.splitlines()) > 1, "and one or more sentences"
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_stored_without_outputs(name: str):
    if name in WITH_OUTPUTS:
        pytest.skip(WITH_OUTPUTS[name])
    for cell in load(name).cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_has_one_parameters_cell_that_papermill_understands(name: str):
    assert len(parameters_of(name)) == 1
    known = papermill.inspect_notebook(str(FOLDER / name))
    assert known, "the cell tagged `parameters` assigns plain values"
    assert set(NOTEBOOK_PARAMETERS.get(name, {})) <= set(known), "no parameter that the notebook doesn't have"


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in NOTEBOOKS])
def test_notebook_runs(name: str, tmp_path: Path):
    parameters = {
        key: value.format(out=tmp_path) if isinstance(value, str) else value
        for key, value in NOTEBOOK_PARAMETERS.get(name, {}).items()
    }
    output = tmp_path / "executed.ipynb"
    papermill.execute_notebook(
        str(FOLDER / name), str(output), parameters, cwd=str(tmp_path), progress_bar=False, config=KERNEL
    )
    executed = nbformat.read(output, as_version=4)
    for cell in executed.cells:
        for result in cell.get("outputs", []):
            assert result.output_type != "error"
            # Progress bars go to stderr; warnings don't belong into a notebook that people learn from.
            assert "Warning" not in result.get("text", "") or result.get("name") != "stderr", result.text
