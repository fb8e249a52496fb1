"""What both trainings share: schedule, random state, and checkpoints from which a stopped run goes on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rsovlib.errors import WeightsError
from rsovlib.files import write_beside

_FLOOR = 0.02
_WARM_UP = 50
SAVE_EVERY = 250


def learning_rate(step: int, steps: int, highest: float) -> float:
    """Warm-up over 50 steps, then a cosine from ``highest`` down to a fiftieth of it."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return highest * min(1.0, (step + 1) / _WARM_UP) * (cosine * (1 - _FLOOR) + _FLOOR)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Gives every parameter group the same rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def adamw(module: nn.Module, rate: float, decay: float) -> torch.optim.AdamW:
    """AdamW that leaves biases, norms and scales undecayed."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=rate,
        betas=(0.9, 0.98),
    )


def save_progress(path: Path, step: int, rng: np.random.Generator, parts: dict[str, Any], log: list[Any]) -> None:
    """Writes everything that is needed to go on at ``step``."""
    state = {name: part.state_dict() for name, part in parts.items()}
    with write_beside(path) as temporary:
        torch.save({"step": step, "rng": rng.bit_generator.state, "log": log, **state}, temporary)


def load_progress(path: Path, rng: np.random.Generator, parts: dict[str, Any]) -> tuple[int, list[Any]]:
    """Restores what :func:`save_progress` wrote.

    Returns:
        The step to go on with, and the log so far; 0 and an empty log when there is no checkpoint.

    Raises:
        WeightsError: the checkpoint is damaged or belongs to another model.
    """
    if not path.is_file():
        return 0, []
    try:
        state = torch.load(path, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        rng.bit_generator.state = state["rng"]
        return int(state["step"]), list(state["log"])
    except (RuntimeError, KeyError, ValueError, EOFError, OSError) as error:
        raise WeightsError(f"{path} can't be gone on with ({error}); delete it to start afresh.") from error
