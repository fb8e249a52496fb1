from __future__ import annotations

import json
from pathlib import Path

import nbformat
import numpy as np
import pytest
import rasterio

from rsovlib.data.lexicon import BUILDING, CAR, ORCHARD, ROAD
from rsovlib.data.scenes import make_scene
from rsovlib.errors import InputError
from rsovlib.experiments import demo
from rsovlib.experiments.quickstart import SIMULATED_CLASSES, prepare_task, simulated_labels, write_scene


@pytest.fixture
def scene_file(tmp_path: Path) -> Path:
    path = tmp_path / "my scene; with $odd 'name'.tif"
    write_scene(path, make_scene((80, 96), 2_000_001, modalities=()))
    return path


def test_a_simulated_scene_becomes_a_georeferenced_rgb_raster(tmp_path: Path) -> None:
    task = prepare_task("", "", size=64, seed=5, folder=tmp_path)
    scene = make_scene(64, 5, modalities=())
    with rasterio.open(task.path) as source:
        np.testing.assert_array_equal(np.moveaxis(source.read(), 0, 2), scene.optical)
        assert source.crs.to_epsg() == 32631
        assert source.res == (scene.gsd, scene.gsd)
        assert source.tags()["SIMULATED"] == "yes"
    assert task.classes == list(SIMULATED_CLASSES)
    assert task.labels is not None


def test_labels_follow_the_prompts() -> None:
    scene = make_scene(128, 2_000_031, modalities=())
    labels = simulated_labels(scene)
    assert set(labels[scene.labels == BUILDING]) == {0}
    assert set(labels[np.isin(scene.labels, [ROAD, CAR])]) == {1}
    assert set(labels[scene.labels == ORCHARD]) <= {255}


def test_own_classes_on_a_simulated_scene_have_no_labels(tmp_path: Path) -> None:
    assert prepare_task("", "water; land", size=32, seed=5, folder=tmp_path).labels is None


def test_the_demo_on_an_own_raster(scene_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results here"
    code = demo.main(["--image", str(scene_file), "--classes", "water, river; trees; roofs", "--out", str(out)])
    printed = capsys.readouterr().out
    assert code == 0, printed
    with rasterio.open(out / "map.tif") as target, rasterio.open(scene_file) as source:
        assert target.crs == source.crs
        assert target.transform == source.transform
        assert target.shape == source.shape
        assert set(np.unique(target.read(1))) <= {0, 1, 2}
    page = (out / "quickstart.html").read_text(encoding="utf-8")
    assert "cdnjs" not in page
    assert "Traceback" not in page
    for name in ("map.tif", "map.png", "quickstart.html", "quickstart.ipynb"):
        assert name in printed
        assert (out / name).stat().st_size > 0
    assert "mIoU" not in printed  # nothing is known of the truth here, so nothing is claimed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--image", "nowhere.tif"], "nowhere.tif"),
        (["--classes", "water; water"], "same name"),
        (["--classes", " , ,"], "no word"),
        (["--profile", "embeded"], "embedded"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert demo.main([*arguments, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not out.exists()


def notebook(path: Path, code: str) -> Path:
    parameters = nbformat.v4.new_code_cell("x: int = 1", metadata={"tags": ["parameters"]})
    content = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(code)])
    content.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(content, path)
    return path


def test_a_notebook_stands_only_when_every_cell_ran(tmp_path: Path) -> None:
    good = demo.run_notebook(
        notebook(tmp_path / "good.ipynb", "print(x + 1)"), tmp_path / "out" / "good.ipynb", {"x": 41}
    )
    assert "42" in json.dumps(nbformat.read(good, as_version=4).cells[-1].outputs)
    for code, error in {
        "1 / 0": demo.NotebookError,
        "from rsovlib.errors import RasterError\nraise RasterError('no such raster.')": InputError,
        "import os\nos._exit(1)": demo.NotebookError,
    }.items():
        with pytest.raises(error):
            demo.run_notebook(notebook(tmp_path / "bad.ipynb", code), tmp_path / "out" / "bad.ipynb", {})
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["good.ipynb"]
