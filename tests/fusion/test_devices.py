"""Training on two devices (two processes on this CPU): one result, going on, errors, scripts, notebooks."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rsovlib.backbones import load_clip, load_dino
from rsovlib.errors import InputError, RasterError, ResourceError, WeightsError
from rsovlib.fusion.augment import SampleRule
from rsovlib.fusion.config import FusionConfig
from rsovlib.fusion.fabric_loop import LoopSettings
from rsovlib.fusion.network import CostAggregationNetwork
from rsovlib.fusion.pairs import suite_pool
from rsovlib.fusion.processes import run_in_processes
from rsovlib.fusion.stage2 import Stage2Recipe, fit

sys.path.insert(0, str(Path(__file__).parent))  # processes take the path over, and import the job from there
import device_jobs

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, device_jobs.Line, list[dict[str, float]]]:
    """Six steps on two devices, without a break."""
    folder = tmp_path_factory.mktemp("straight")
    return folder, *device_jobs.train_line(folder, 2, 6)


def test_two_devices_train_one_network(trained: tuple[Path, device_jobs.Line, list[dict[str, float]]]) -> None:
    folder, line, history = trained
    first, second = (torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert torch.equal(first, second)
    assert torch.equal(line.weight, first)  # what was trained there stands here
    assert not line.training
    losses = [row["loss"] for row in history]
    assert len(losses) == 6
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < 0.5 * losses[0]


def test_a_step_is_the_mean_over_the_devices(trained: tuple[Path, device_jobs.Line, list[dict[str, float]]]) -> None:
    """By hand: from weights of zero the loss is the mean of y squared, and its gradient -2 times that of x y."""
    first = trained[2][0]
    draws = [device_jobs.DrawLine()(np.random.default_rng([1, 0, rank])) for rank in (0, 1)]
    assert first["loss"] == pytest.approx(np.mean([float((y**2).mean()) for _, y in draws]), rel=1e-6)
    gradients = torch.stack([-2 * (x * y).mean(dim=0) for x, y in draws])
    assert first["gradient_norm"] == pytest.approx(float(gradients.mean(dim=0).norm()), rel=1e-5)


def test_two_devices_go_on_from_a_checkpoint(
    trained: tuple[Path, device_jobs.Line, list[dict[str, float]]], tmp_path: Path
) -> None:
    _, straight, whole = trained
    checkpoint = tmp_path / "c"
    with pytest.raises(RasterError, match=r"/data/scene.tif is missing; get it."):
        device_jobs.train_line(tmp_path, 2, 6, checkpoint, device_jobs.BreakingDraw(3))
    assert torch.load(checkpoint, weights_only=True)["step"] == 2
    line, history = device_jobs.train_line(tmp_path, 2, 6, checkpoint)
    assert torch.equal(line.weight, straight.weight)
    timeless = [[{k: v for k, v in row.items() if k != "cpu_seconds"} for row in rows] for rows in (whole, history)]
    assert timeless[0] == timeless[1]
    with pytest.raises(WeightsError, match="devices"):
        device_jobs.train_line(tmp_path, 1, 6, checkpoint)


@pytest.mark.slow
def test_a_fusion_network_on_two_devices(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = FusionConfig.embedded()
    network = CostAggregationNetwork(config, load_clip(device="cpu"), load_dino(device="cpu"), load_dino(device="cpu"))
    before = {name: value.clone() for name, value in network.named_parameters()}
    pool = suite_pool("mm-ovseg-ddhr-sk", 4, 48, progress=False)
    recipe = Stage2Recipe(4, samples=SampleRule(48, (48,)))
    loop = LoopSettings(12, 1e-2, log_every=3, save_every=3, devices=2)
    history = fit(network, [pool], recipe, loop, checkpoint=tmp_path / "c", progress=False)
    losses = [row["loss"] for row in history]
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]
    changed = {name for name, value in network.named_parameters() if not torch.equal(value, before[name])}
    trained = {id(parameter) for _, parameter in network.trained_parameters()}
    assert changed <= {name for name, value in network.named_parameters() if id(value) in trained}
    assert len(changed) > 0.8 * len(trained)
    again = fit(network, [pool], recipe, loop, checkpoint=tmp_path / "c", progress=False)
    assert again == history


def test_a_batch_is_shared_out() -> None:
    assert LoopSettings(1, 0.1, devices=2).share_of(8) == 4
    with pytest.raises(InputError, match="8 samples a step"):
        LoopSettings(1, 0.1, devices=3).share_of(8)


def test_a_split_network_can_be_pickled() -> None:
    clip = load_clip(
        "ViT-B-32",
        weights="random",
        device="cpu",
        embed_dim=24,
        vision_cfg={"image_size": 48, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        text_cfg={"width": 32, "heads": 2, "layers": 2},
    )
    config = replace(FusionConfig.embedded(optical_dino=False, sar_dino=False), clip_skips=(1, 1))
    network = CostAggregationNetwork(config, clip)
    again = pickle.loads(pickle.dumps(network))
    ours, theirs = dict(network.named_parameters()), dict(again.named_parameters())
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        assert torch.equal(value, theirs[name])
        assert value.requires_grad == theirs[name].requires_grad
    assert again.clip.model is again.clip_model
    image, text = torch.rand(1, 3, 48, 40), ["water", "road"]
    assert torch.equal(network(image, network.encode_text(text)), again(image, again.encode_text(text)))


def test_what_cannot_be_sent_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at the top of a module"):
        device_jobs.train_line(tmp_path, 2, draw=lambda rng: None)


def test_a_process_that_dies_is_told_of() -> None:
    with pytest.raises(ResourceError, match="exit code 3"):
        run_in_processes(device_jobs.leave, 1, (3,))
    with pytest.raises(ResourceError, match="KeyError: 'water'"):
        run_in_processes(device_jobs.fail, 1, ("water",))


def test_a_script_trains_on_two_devices(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "device_jobs.py"), str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert math.isfinite(float(done.stdout.split()[-1]))
    assert {path.name for path in tmp_path.iterdir()} == {"rank-0.pt", "rank-1.pt"}


@pytest.mark.slow
def test_a_notebook_trains_on_two_devices(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    cell = (
        f"import sys; sys.path.insert(0, {str(HERE)!r})\nfrom pathlib import Path\nimport device_jobs\n"
        f"device_jobs.train_line(Path({str(tmp_path)!r}), 2, 4)[1][-1]['loss'] < 100"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    NotebookClient(notebook, kernel_name="python3").execute()
    assert notebook.cells[0].outputs[-1].data["text/plain"] == "True"
