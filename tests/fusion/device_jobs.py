"""What is trained on several devices: at the top of a module, as processes have to import it.

Run as a program it trains as a script would: python device_jobs.py FOLDER
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rsovlib.errors import RasterError
from rsovlib.fusion.fabric_loop import LoopSettings, ParameterGroup, train


class Line(nn.Module):
    """Least squares by gradient; leaves each process's weights behind when it is over."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.weight = nn.Parameter(torch.zeros(3, 1))
        self.unused = nn.Parameter(torch.ones(2))  # as CLIP's last query weights: trained, and never asked

    def forward(self, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
        x, y = batch
        return {"loss": nn.functional.mse_loss(x @ self.weight, y)}

    def eval(self) -> Line:
        if "LOCAL_RANK" in os.environ:
            torch.save(self.weight.detach().clone(), self.folder / f"rank-{os.environ['LOCAL_RANK']}.pt")
        return super().eval()


@dataclass(frozen=True)
class DrawLine:
    """Points of y = x . (1, -2, 3)."""

    count: int = 8

    def __call__(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.from_numpy(rng.standard_normal((self.count, 3), dtype=np.float32))
        return x, x @ torch.tensor([[1.0], [-2.0], [3.0]])


@dataclass
class BreakingDraw:
    """The same, but in the second process a file is missing after so many draws."""

    left: int

    def __call__(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        self.left -= 1
        if self.left < 0 and os.environ["LOCAL_RANK"] == "1":
            raise RasterError("/data/scene.tif is missing; get it.")
        return DrawLine()(rng)


def leave(code: int) -> None:
    """A process that ends at once, as one that the system kills."""
    os._exit(code)


def fail(key: str) -> None:
    """An error that isn't this package's."""
    _ = {}[key]


def train_line(
    folder: Path, devices: int, steps: int = 6, checkpoint: Path | None = None, draw: Any = None
) -> tuple[Line, list[dict[str, float]]]:
    """Trains a line."""
    line = Line(folder)
    groups = [ParameterGroup("all", dict(line.named_parameters()))]
    settings = LoopSettings(steps, 0.3, seed=1, save_every=2, log_every=1, weight_decay=0.0, devices=devices)
    return line, train(line, groups, draw or DrawLine(), settings, checkpoint=checkpoint, progress=False)


if __name__ == "__main__":
    _, history = train_line(Path(sys.argv[1]), 2, 4)
    print(history[-1]["loss"])
