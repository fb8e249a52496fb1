"""One training loop for everything that is trained here, in plain sight.

Why Lightning Fabric and not Accelerate: Fabric is one object with five verbs (launch, setup, autocast, backward,
clip_gradients), and the loop stays the reader's.  Accelerate wraps data loader, optimiser and scheduler and changes
what their own methods do (a scheduler that is stepped once steps once a process), expects scripts to be started by its
own command.  Neither is needed for one GPU; for several, for mixed precision and in notebooks Fabric takes care of it:
give ``devices=2`` and nothing else changes.

Randomness is a function of (seed, step, rank) and of nothing else: each step's batch is drawn from a stream of its own,
and torch's generator is set anew.  So there is no random state and no data order to restore, none can be forgotten, and
a run that was killed and goes on from its checkpoint ends with the same weights to the bit (on a CPU, with the same
number of threads).  Strategies that spread the weights over devices (FSDP, DeepSpeed) are not for this loop.
"""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from rsovlib.errors import InputError, WeightsError
from rsovlib.files import write_beside

Draw = Callable[[np.random.Generator], Any]
"""Draws one step's batch: tensors in any nesting of tuples, lists, dictionaries and dataclasses with ``to``."""


class Objective(Protocol):
    """What is trained: a module whose forward pass gives the loss of a batch, with its parts by name."""

    def __call__(self, batch: Any) -> Mapping[str, torch.Tensor]:
        """{"loss": to be minimised, anything else: to be logged}."""


@dataclass(frozen=True)
class LoopSettings:
    """How a training runs.

    Attributes:
        steps: optimiser steps.
        rate: highest learning rate; a group's ``factor`` multiplies it.
        warm_up: share of the steps over which the rate rises linearly.
        floor: share of ``rate`` that the cosine ends with.
        weight_decay: of matrices and kernels; vectors (biases, norms) have none.
        clip: global L2 norm that gradients are clipped to; None for no clipping.
        seed: of batches and of torch.
        save_every: steps between checkpoints.
        log_every: steps between entries of the history.
        precision: as Fabric has it: "32-true", "bf16-mixed", "16-mixed", ...
        accelerator, devices, strategy: as Fabric has them; more than one device needs no other code.
        workers: processes that draw batches ahead; the result doesn't depend on it.
    """

    steps: int
    rate: float
    warm_up: float = 0.05
    floor: float = 0.0
    weight_decay: float = 1e-4
    clip: float | None = 1.0
    seed: int = 0
    save_every: int = 100
    log_every: int = 10
    precision: str = "32-true"
    accelerator: str = "cpu"
    devices: int = 1
    strategy: str = "auto"
    workers: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "save_every", "log_every", "devices"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} of a training must be at least 1.")
        if not self.rate > 0 or not 0 <= self.warm_up < 1 or not 0 <= self.floor <= 1:
            raise InputError(
                f"A training needs rate > 0, 0 <= warm_up < 1 and 0 <= floor <= 1, not rate={self.rate}, "
                f"warm_up={self.warm_up}, floor={self.floor}."
            )


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate.

    Attributes:
        name: for the history.
        parameters: by name.
        factor: their share of the highest rate.
    """

    name: str
    parameters: Mapping[str, nn.Parameter]
    factor: float = 1.0


def learning_rate(step: int, settings: LoopSettings) -> float:
    """The rate of a step, 0 to ``steps - 1``: a linear rise, then half a cosine down to the floor."""
    rise = max(1, math.ceil(settings.warm_up * settings.steps))
    if step < rise and settings.warm_up > 0:
        return settings.rate * (step + 1) / rise
    begin = rise if settings.warm_up > 0 else 0
    share = (step - begin) / max(1, settings.steps - begin)
    return settings.rate * (settings.floor + (1 - settings.floor) * 0.5 * (1 + math.cos(math.pi * share)))


def make_optimiser(groups: Sequence[ParameterGroup], settings: LoopSettings) -> torch.optim.AdamW:
    """AdamW over the groups; each is split into what decays (two axes or more) and what doesn't.

    Raises:
        InputError: nothing to train, or a parameter in two groups.
    """
    seen: set[int] = set()
    rows: list[dict[str, Any]] = []
    for group in groups:
        for name, parameter in group.parameters.items():
            if id(parameter) in seen:
                raise InputError(f"The parameter {name} is in two groups; give it to one.")
            seen.add(id(parameter))
        for decays in (True, False):
            chosen = [p for p in group.parameters.values() if (p.ndim > 1) == decays]
            if chosen:
                decay = settings.weight_decay if decays else 0.0
                rows.append({"params": chosen, "weight_decay": decay, "factor": group.factor, "name": group.name})
    if not rows:
        raise InputError("There is nothing to train: no parameter was given.")
    return torch.optim.AdamW(rows, lr=settings.rate)


def train(
    objective: nn.Module,
    groups: Sequence[ParameterGroup],
    draw: Draw,
    settings: LoopSettings,
    *,
    checkpoint: Path | None = None,
    label: str = "training",
    identity: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Trains a module in place.

    Args:
        objective: an :class:`Objective`; ends where it began (on the CPU, say), in evaluation mode.
        groups: what is trained; everything else of the module stays as it is.
        draw: makes the batch of a step from the step's own generator.
        settings: how.
        checkpoint: where progress is kept; a stopped run goes on from there. None keeps none.
        label: for the progress bar.
        identity: plain values that a checkpoint must agree with to be gone on from, besides the settings.
        progress: show a bar.

    Returns:
        The history: a row every ``log_every`` steps with the step, the mean of each loss since the row before, the
        learning rate, the gradients' norm before clipping and seconds of CPU time so far.

    Raises:
        WeightsError: the checkpoint is damaged, or of another training.
        InputError: the loss is no finite number.
    """
    from lightning_fabric import Fabric

    fabric = Fabric(
        accelerator=settings.accelerator,
        devices=settings.devices,
        strategy=_strategy(settings),
        precision=settings.precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    home = next(objective.parameters()).device
    trained = {name: parameter for group in groups for name, parameter in group.parameters.items()}
    optimiser = make_optimiser(groups, settings)
    known = {"settings": _lasting(settings), "identity": dict(identity or {})}
    start, history = _resume(checkpoint, trained, optimiser, known) if checkpoint else (0, [])
    spent = history[-1]["cpu_seconds"] if history else 0.0

    module, wrapped = fabric.setup(objective, optimiser)
    module.train()
    began, sums, counted = time.process_time() - spent, {}, 0  # type: tuple[float, dict[str, float], int]
    batches = _batches(draw, settings, start, fabric.global_rank)
    bar = tqdm(
        zip(range(start, settings.steps), batches, strict=True),
        initial=start,
        total=settings.steps,
        desc=label,
        unit="step",
        disable=not (progress and fabric.is_global_zero),
    )
    for step, batch in bar:
        torch.manual_seed(_torch_seed(settings.seed, step, fabric.global_rank))
        rate = learning_rate(step, settings)
        for row in wrapped.param_groups:
            row["lr"] = rate * row["factor"]
        losses = module(fabric.to_device(batch))
        wrapped.zero_grad(set_to_none=True)
        fabric.backward(losses["loss"])
        limit = math.inf if settings.clip is None else settings.clip
        norm = fabric.clip_gradients(module, wrapped, max_norm=limit, error_if_nonfinite=False)
        wrapped.step()

        counted += 1
        for name, value in {**losses, "gradient_norm": norm}.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        last = step == settings.steps - 1
        if (step + 1) % settings.log_every == 0 or last:
            means = {name: total / counted for name, total in sums.items()}
            if not math.isfinite(means["loss"]):
                raise InputError(f"The loss of {label} is {means['loss']} at step {step}; lower the learning rate.")
            history.append({"step": step, **means, "rate": rate, "cpu_seconds": time.process_time() - began})
            bar.set_postfix(loss=f"{means['loss']:.3f}")
            sums, counted = {}, 0
        # At a save the sums must be empty, or a resumed history would differ: save_every is met at the next log.
        if checkpoint and (last or (counted == 0 and _due(step, settings))) and fabric.is_global_zero:
            _save(checkpoint, step + 1, history, trained, optimiser, known)
    objective.to(home)
    objective.eval()
    return history


def _strategy(settings: LoopSettings) -> str:
    """Fabric's strategy; over several devices one that bears weights without a gradient.

    CLIP's last image block is read through its values alone, so its query weights, counted as trained, get none.
    """
    if settings.strategy == "auto" and settings.devices > 1:
        return "ddp_find_unused_parameters_true"
    return settings.strategy


def _due(step: int, settings: LoopSettings) -> bool:
    """Whether a multiple of ``save_every`` lies within the steps since the last log."""
    return (step + 1) // settings.save_every > (step + 1 - settings.log_every) // settings.save_every


class _Steps(Dataset[Any]):
    """Item s is the batch of step s: a data loader then draws ahead in any number of processes, in order."""

    def __init__(self, draw: Draw, seed: int, rank: int) -> None:
        self.draw, self.seed, self.rank = draw, seed, rank

    def __getitem__(self, step: int) -> Any:
        return self.draw(np.random.default_rng([self.seed, step, self.rank]))


def _batches(draw: Draw, settings: LoopSettings, start: int, rank: int) -> Iterator[Any]:
    steps = _Steps(draw, settings.seed, rank)
    order: Any = range(start, settings.steps)
    return iter(DataLoader(steps, sampler=order, batch_size=None, num_workers=settings.workers))


def _torch_seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, step, rank, 1]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _lasting(settings: LoopSettings) -> dict[str, Any]:
    """The settings that decide the result."""
    free = ("save_every", "accelerator", "strategy", "workers")
    return {name: value for name, value in asdict(settings).items() if name not in free}


def _save(
    path: Path,
    step: int,
    history: list[dict[str, float]],
    trained: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    known: Mapping[str, Any],
) -> None:
    state = {
        "step": step,
        "history": history,
        "trained": {name: parameter.detach().cpu() for name, parameter in trained.items()},
        "optimiser": optimiser.state_dict(),
        **known,
    }
    with write_beside(path) as temporary:
        torch.save(state, temporary)


def _resume(
    path: Path, trained: Mapping[str, nn.Parameter], optimiser: torch.optim.Optimizer, known: Mapping[str, Any]
) -> tuple[int, list[dict[str, float]]]:
    """Takes over a checkpoint; step 0 and an empty history when there is none."""
    if not path.is_file():
        return 0, []
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        for key, value in known.items():
            if state[key] != value:
                odd = sorted(name for name in {**state[key], **value} if state[key].get(name) != value.get(name))
                raise WeightsError(f"{path} is of another training ({', '.join(odd)} differ); delete it, or move it.")
        if state["trained"].keys() != trained.keys():
            raise WeightsError(f"{path} is of another network; delete it to start afresh.")
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(state["trained"][name])
        optimiser.load_state_dict(state["optimiser"])
        return int(state["step"]), list(state["history"])
    except (RuntimeError, KeyError, ValueError, EOFError, OSError, AttributeError, pickle.UnpicklingError) as error:
        raise WeightsError(f"{path} can't be gone on with ({error}); delete it to start afresh.") from error
