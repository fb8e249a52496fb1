"""The lines of docs/cluster.md do what the page says: its commands are read from it, and run."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

import rsovlib
from rsovlib.experiments.runs import finished_runs

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")


@pytest.fixture(scope="module")
def blocks(repository: Path) -> list[str]:
    """The page's shell blocks: the laptop's, the cluster's, a scene's, and the batch script."""
    text = (repository / "docs" / "cluster.md").read_text(encoding="utf-8")
    found = re.findall(r"^```sh\n(.*?)^```", text, re.S | re.M)
    assert len(found) == 4
    return found


@pytest.fixture(autouse=True)
def weights(frozen_package: Path) -> None:
    """The copied package without its weights gets links to them: scenes are segmented here."""
    package = Path(rsovlib.__file__).parent
    for file in package.rglob("*.safetensors"):
        link = frozen_package / "rsovlib" / file.relative_to(package)
        if not link.exists():
            link.symlink_to(file)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "scene.tif"
    values = np.random.default_rng(0).integers(0, 255, (3, 40, 48), dtype=np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", width=48, height=40, count=3, dtype="uint8", crs="EPSG:32632",
        transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5.6e6),
    ) as file:  # fmt: skip
        file.write(values)
    return path


def lines_of(block: str, **places: str) -> list[list[str]]:
    """The commands of a block, with other places put in."""
    for name, place in places.items():
        block = block.replace(name, place)
    return [shlex.split(line, comments=True) for line in block.splitlines() if line.strip()]


def test_every_block_is_a_shell_script(blocks):
    for block in blocks:
        done = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_laptop_s_lines(blocks, tables, command, environment, tmp_path, scene):
    tables.add_work([0, 1])
    reproduce, segment = lines_of(blocks[0])
    assert (reproduce[:2], segment[:3]) == (["rsovlib", "reproduce"], ["rsovlib", "segment", scene.name])
    for line in (reproduce, segment):
        done = subprocess.run(
            command(*line[1:]), env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(finished_runs(tmp_path / "runs"))) == 2
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.shape == (40, 48)


@pytest.mark.slow
def test_the_cluster_s_lines(blocks, tables, command, environment, tmp_path, scene):
    tables.add_work([0, 1])
    address_of = {"8786": "18786", "HOST": "127.0.0.1", "/shared": str(tmp_path)}
    install, scheduler, worker, reproduce, report = lines_of(blocks[1], **address_of)
    (segment,) = lines_of(blocks[2], **address_of)
    assert install[:2] == ["pip", "install"]
    tools = [[sys.executable, "-m", f"distributed.cli.dask_{line[1]}", *line[2:]] for line in (scheduler, worker)]
    assert [line[0] for line in (scheduler, worker)] == ["dask", "dask"]
    with (tmp_path / "cluster.txt").open("wb") as log:
        started = [
            subprocess.Popen([*tool, "--no-dashboard"], env=environment, cwd=tmp_path, stdout=log, stderr=log)
            for tool in tools
        ]
        try:
            for line in (reproduce, report, segment):
                assert line[0] == "rsovlib"
                done = subprocess.run(
                    command(*line[1:]), env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, done.stdout + done.stderr
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait()
    assert len(list(finished_runs(tmp_path / "runs"))) == 2
    assert (tmp_path / "map.tif").exists()
