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
    "explore/clouds_and_radar.ipynb": {"out": "{out}/explore", "size": 64},
    "explore/segment_by_words.ipynb": {"out": "{out}/explore", "size": 64},
    "quickstart.ipynb": {"out": "{out}/quickstart", "size": 128, "ladder_scenes": 1},
    "figures/sdci_figure1.ipynb": {"size": 96},
    "figures/sdci_figure3.ipynb": {"size": 96},
    "figures/sdci_figure4.ipynb": {"size": 96, "methods": ["maskclip", "cliper", "sdci"]},
    "figures/sdci_figure5.ipynb": {"size": 96},
    "lessons/01_data.ipynb": {"profile": "embedded"},
    "tables/findings_mmovseg.ipynb": {"side": 128},
    "lessons/06_radar_for_optical_people.ipynb": {"size": 128},
    "lessons/02_image_to_pixels.ipynb": {"size": 96, "scenes": 1},
    "lessons/03_graphs_and_random_walks.ipynb": {"size": 128, "scenes": 1},
    "lessons/05_superpixels_and_boundaries.ipynb": {"size": 96, "scenes": 1},
    "lessons/07_aligning_sar_with_optical.ipynb": {"size": 64, "train_scenes": 4, "test_scenes": 2, "steps": 3},
    "figures/mmovseg_figure3.ipynb": {"scenes": 2, "seeds": "0"},
    "figures/mmovseg_figures_maps.ipynb": {"keys": "s2"},
    "tables/mmovseg_clouds.ipynb": {"scenes": 2, "seeds": "0", "covers": "0, 1", "shifts": "0, 4", "looks": "1, 4"},
    "tables/mmovseg_readings.ipynb": {"checkpoints": "{out}", "scenes": 2, "share": 0.005},
    "tables/mmovseg_table1_2.ipynb": {"scenes": 2, "seeds": "0"},
    "tables/mmovseg_table3.ipynb": {"scenes": 2, "seeds": "0"},
    "tables/mmovseg_table_a1.ipynb": {"sizes": "ViT-B"},
    "tables/mmovseg_table_a2.ipynb": {"repeats": 1},
    "tables/mmovseg_table_a3.ipynb": {"scenes": 2, "seeds": "0"},
    "tables/mmovseg_table_a4.ipynb": {"classes": 2},
    "tables/mmovseg_table_a5.ipynb": {"checkpoints": "{out}", "scenes": 2, "share": 0.005},
    "training/mm_ovseg.ipynb": {"out": "{out}", "scenes": 2, "share": 0.005, "methods": "cat-seg, ebseg, mm-ovseg"},
    "training/mm_ovseg_cmu.ipynb": {"out": "{out}", "share": 0.005},
    "tables/sdci_costs.ipynb": {"size": 64, "repeats": 1},
    "tables/sdci_gflops.ipynb": {"size": 224},  # one window in place of four or sixteen
    "figures/sdci_sensitivity.ipynb": {"tiles": 2, "size": 64},
    "tables/sdci_readings.ipynb": {"tiles": 2, "size": 64},
    "tables/sdci_table1.ipynb": {"tiles": 2, "size": 64, "gflops": False},
    "tables/sdci_table2.ipynb": {"tiles": 2, "size": 64},
    "tables/sdci_table3.ipynb": {"tiles": 2, "size": 64},
    "figures/sdci_cost_accuracy.ipynb": {"size": 64, "repeats": 1, "methods": "vanilla, sclip, sdci-v2"},
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
