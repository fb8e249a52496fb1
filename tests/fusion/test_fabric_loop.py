"""The training loop: schedule, groups, clipping, checkpoints, and going on after a kill to the same bits.

This file is also a program that is killed from within: python test_fabric_loop.py CHECKPOINT OUT [CALL].
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from rsovlib.errors import InputError, WeightsError
from rsovlib.fusion.fabric_loop import LoopSettings, ParameterGroup, learning_rate, make_optimiser, train


class Noisy(nn.Module):
    """Dropout and noise from torch's generator: whatever isn't restored shows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
        x, y = batch
        hidden = nn.functional.dropout(self.first(x + 0.1 * torch.randn_like(x)).relu(), 0.3)
        return {"loss": nn.functional.cross_entropy(self.second(hidden), y)}


def run(
    checkpoint: Path | None, kill: int = 0, steps: int = 24, workers: int = 0
) -> tuple[nn.Module, list[dict[str, float]]]:
    torch.manual_seed(0)
    module, calls = Noisy(), iter(range(1, 10_000))

    def draw(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        if next(calls) == kill:
            os.kill(os.getpid(), signal.SIGKILL)
        x = torch.from_numpy(rng.standard_normal((5, 6), dtype=np.float32))
        return x, (x[:, 0] > 0).long()

    groups = [
        ParameterGroup("first", dict(module.first.named_parameters("first")), 0.1),
        ParameterGroup("second", dict(module.second.named_parameters("second"))),
    ]
    settings = LoopSettings(steps, 1e-2, seed=3, save_every=4, log_every=2, workers=workers)
    return module, train(module, groups, draw, settings, checkpoint=checkpoint, progress=False)


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    command = [sys.executable, __file__]
    subprocess.run([*command, str(straight), str(tmp_path / "a.safetensors")], check=True)
    result = subprocess.run([*command, str(killed), str(tmp_path / "b.safetensors"), "15"], check=False)
    assert result.returncode == -signal.SIGKILL
    assert not (tmp_path / "b.safetensors").exists()
    assert 0 < torch.load(killed, weights_only=True)["step"] < 15
    subprocess.run([*command, str(killed), str(tmp_path / "b.safetensors")], check=True)
    first, second = (load_file(tmp_path / name) for name in ("a.safetensors", "b.safetensors"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    histories = [torch.load(path, weights_only=True)["history"] for path in (straight, killed)]
    timeless = [[{k: v for k, v in row.items() if k != "cpu_seconds"} for row in history] for history in histories]
    assert timeless[0] == timeless[1]
    assert len(timeless[0]) == 12


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    first, history = run(tmp_path / "c")
    second, again = run(tmp_path / "c")
    assert same_weights(first, second)
    assert history == again


def test_processes_that_draw_ahead_change_nothing() -> None:
    assert same_weights(run(None, steps=6)[0], run(None, steps=6, workers=1)[0])


def test_the_seed_decides() -> None:
    assert same_weights(run(None)[0], run(None)[0])
    module = Noisy()
    assert not same_weights(run(None)[0], module)


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "c")
    with pytest.raises(WeightsError, match="steps"):
        run(tmp_path / "c", steps=25)
    (tmp_path / "c").write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match="delete it"):
        run(tmp_path / "c")
    assert [path.name for path in tmp_path.iterdir()] == ["c"]  # nothing half-written lies about


def test_rates_rise_and_fall() -> None:
    settings = LoopSettings(steps=100, rate=2.0, warm_up=0.1, floor=0.25)
    rates = [learning_rate(step, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == pytest.approx(2.0) == max(rates)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert learning_rate(100, settings) == pytest.approx(0.5)
    assert learning_rate(55, settings) == pytest.approx(0.5 + 1.5 / 2)  # half-way down
    flat = LoopSettings(steps=80, rate=1.0, warm_up=0.0)
    assert learning_rate(0, flat) == 1.0
    assert learning_rate(40, flat) == pytest.approx(0.5)


def test_groups_have_their_rates_and_vectors_do_not_decay() -> None:
    module = Noisy()
    groups = [
        ParameterGroup("slow", dict(module.first.named_parameters()), 0.01),
        ParameterGroup("new", dict(module.second.named_parameters())),
    ]
    rows = make_optimiser(groups, LoopSettings(1, 1.0, weight_decay=0.3)).param_groups
    assert [(row["name"], row["factor"], row["weight_decay"]) for row in rows] == [
        ("slow", 0.01, 0.3),
        ("slow", 0.01, 0.0),
        ("new", 1.0, 0.3),
        ("new", 1.0, 0.0),
    ]
    assert [row["params"][0].ndim for row in rows] == [2, 1, 2, 1]
    with pytest.raises(InputError, match="two groups"):
        make_optimiser([groups[0], groups[0]], LoopSettings(1, 1.0))
    with pytest.raises(InputError, match="nothing to train"):
        make_optimiser([], LoopSettings(1, 1.0))


class Line(nn.Module):
    """loss = slope . batch: its gradient is known."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(2))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.slope * batch).sum(), "seen": batch.norm()}


def test_gradients_are_clipped_and_their_norm_is_told_as_it_was() -> None:
    line = Line()
    seen = []
    line.slope.register_hook(lambda g: seen.append(g.clone()))
    group = [ParameterGroup("all", {"slope": line.slope})]
    settings = LoopSettings(2, 0.1, clip=0.5, warm_up=0.0, log_every=1)
    history = train(line, group, lambda rng: torch.tensor([3.0, 4.0]), settings, progress=False)
    assert [row["gradient_norm"] for row in history] == pytest.approx([5.0, 5.0])
    assert line.slope.grad is not None
    assert float(line.slope.grad.norm()) == pytest.approx(0.5, rel=1e-4)
    assert history[0]["seen"] == pytest.approx(5.0)
    assert torch.equal(line.frozen, torch.ones(2))
    assert not line.training


def test_a_loss_that_explodes_stops_with_a_sentence() -> None:
    line = Line()
    with pytest.raises(InputError, match="lower the learning rate"):
        train(
            line,
            [ParameterGroup("all", {"slope": line.slope})],
            lambda rng: torch.tensor([math.inf, 1.0]),
            LoopSettings(1, 0.1),
            progress=False,
        )


def test_mixed_precision_runs() -> None:
    line = nn.Linear(4, 1)

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = line

        def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
            found = self.line(batch)
            assert found.dtype == torch.bfloat16
            return {"loss": (found.float() ** 2).mean()}

    half = Half()
    settings = LoopSettings(30, 0.05, precision="bf16-mixed", log_every=10)
    draw = lambda rng: torch.from_numpy(rng.standard_normal((8, 4), dtype=np.float32))  # noqa: E731
    history = train(half, [ParameterGroup("all", dict(half.named_parameters()))], draw, settings, progress=False)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert line.weight.dtype == torch.float32


@pytest.mark.parametrize("bad", [{"steps": 0}, {"rate": 0.0}, {"warm_up": 1.0}, {"devices": 0}])
def test_senseless_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError):
        LoopSettings(**{"steps": 1, "rate": 0.1, **bad})  # type: ignore[arg-type]


if __name__ == "__main__":  # the training that gets killed
    torch.set_num_threads(1)
    trained, _ = run(Path(sys.argv[1]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    save_file(trained.state_dict(), sys.argv[2])
