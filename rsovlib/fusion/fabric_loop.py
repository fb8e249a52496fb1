"""One training loop for everything that is trained here, in plain sight.

Why Lightning Fabric and not Accelerate: Fabric is one object with five verbs (launch, setup, autocast, backward,
clip_gradients), and the loop stays the reader's.  Accelerate wraps data loader, optimiser and scheduler and changes
what their own methods do (a scheduler that is stepped once steps once a process), expects scripts to be started by its
own command.  Neither is needed for one GPU; for several and for mixed precision Fabric takes care of it: give
``devices=2`` and nothing else changes.  Only the processes are started by :mod:`rsovlib.fusion.processes`: of Fabric's
own ways one runs the whole script again, one is not for notebooks, and one not for GPUs that were touched before.

Randomness is a function of (seed, step, rank) and of nothing else: each step's batch is drawn from a stream of its own,
and torch's generator is set anew.  So there is no random state and no data order to restore, none can be forgotten, and
a run that was killed and goes on from its checkpoint ends with the same weights to the bit (on a CPU, with the same
number of threads).  Strategies that spread the weights over devices (FSDP, DeepSpeed) are not for this loop.
"""

from __future__ import annotations

import math
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from rsovlib.errors import InputError, WeightsError
from rsovlib.files import write_beside
from rsovlib.fusion.processes import run_in_processes

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
        matmul: of 32-bit products, as ``torch.set_float32_matmul_precision`` has it: "high" allows a GPU its TF32.
        accelerator, devices: as Fabric has them. Several devices need no other code, in scripts (under ``if __name__ ==
            "__main__":``) and notebooks: each is a process that draws batches of its own, and gradients are averaged.
        strategy: "auto"; or as Fabric has it, for scripts that are started by ``torchrun`` or ``srun``.
        workers: processes that draw batches ahead, of each device; the result doesn't depend on it.
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
    matmul: Literal["highest", "high", "medium"] = "highest"
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

    def share_of(self, batch: int) -> int:
        """Samples that each device draws of a batch, so that a step sees as many on any number of devices.

        Raises:
            InputError: they can't be shared out evenly.
        """
        if batch % self.devices:
            raise InputError(f"{batch} samples a step can't be shared out evenly to {self.devices} devices.")
        return batch // self.devices


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
    known = {"settings": lasting(settings), "identity": dict(identity or {})}
    job = _Job(draw, settings, known, label, progress)
    if settings.devices == 1 or settings.strategy != "auto":
        return _run(objective, groups, job, checkpoint)
    trained = _by_name(groups)
    names = {id(parameter): name for name, parameter in objective.named_parameters()}
    plan = [
        _NamedGroup(group.name, {own: names[id(one)] for own, one in group.parameters.items()}, group.factor)
        for group in groups
    ]
    with tempfile.TemporaryDirectory() as folder:
        # What comes back from the processes is the last checkpoint.
        path = checkpoint or Path(folder) / "training.ckpt"
        run_in_processes(_run_named, settings.devices, (objective, plan, job, path))
        state = _read(path, trained, known)
    _take(state, trained)
    objective.eval()
    return list(state["history"])


@dataclass(frozen=True)
class _Job:
    """What is to be done, apart from the module: it can be sent to another process."""

    draw: Draw
    settings: LoopSettings
    known: Mapping[str, Any]
    label: str
    progress: bool


@dataclass(frozen=True)
class _NamedGroup:
    """A :class:`ParameterGroup` whose parameters are known by their names in the objective."""

    name: str
    parameters: Mapping[str, str]
    factor: float


def _run_named(objective: nn.Module, plan: Sequence[_NamedGroup], job: _Job, checkpoint: Path) -> None:
    """What each of several processes does."""
    known = dict(objective.named_parameters())
    groups = [
        ParameterGroup(group.name, {own: known[name] for own, name in group.parameters.items()}, group.factor)
        for group in plan
    ]
    _run(objective, groups, job, checkpoint)


def _run(
    objective: nn.Module, groups: Sequence[ParameterGroup], job: _Job, checkpoint: Path | None
) -> list[dict[str, float]]:
    """The loop of one process."""
    from lightning_fabric import Fabric

    settings, label = job.settings, job.label
    fabric = Fabric(
        accelerator=settings.accelerator,
        devices=settings.devices,
        strategy=_strategy(settings),
        precision=settings.precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    home = next(objective.parameters()).device
    trained = _by_name(groups)
    optimiser = make_optimiser(groups, settings)
    module, wrapped = fabric.setup(objective, optimiser)
    # After the setup, for moments are put where the parameters are.
    start, history = _resume(checkpoint, trained, optimiser, job.known) if checkpoint else (0, [])
    spent = history[-1]["cpu_seconds"] if history else 0.0

    module.train()
    began, sums, counted = time.process_time() - spent, {}, 0  # type: tuple[float, dict[str, float], int]
    batches = _batches(job.draw, settings, start, fabric.global_rank)
    bar = tqdm(
        zip(range(start, settings.steps), batches, strict=True),
        initial=start,
        total=settings.steps,
        desc=label,
        unit="step",
        disable=not (job.progress and fabric.is_global_zero),
    )
    with _matmul(settings.matmul):
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
                means = _over_devices(fabric, {name: total / counted for name, total in sums.items()})
                if not math.isfinite(means["loss"]):
                    raise InputError(f"The loss of {label} is {means['loss']} at step {step}; lower the learning rate.")
                history.append({"step": step, **means, "rate": rate, "cpu_seconds": time.process_time() - began})
                bar.set_postfix(loss=f"{means['loss']:.3f}")
                sums, counted = {}, 0
            # At a save the sums must be empty, or a resumed history would differ: save_every is met at the next log.
            if checkpoint and (last or (counted == 0 and _due(step, settings))) and fabric.is_global_zero:
                _save(checkpoint, step + 1, history, trained, optimiser, job.known)
    objective.to(home)
    objective.eval()
    return history


def _by_name(groups: Sequence[ParameterGroup]) -> dict[str, nn.Parameter]:
    return {name: parameter for group in groups for name, parameter in group.parameters.items()}


def _strategy(settings: LoopSettings) -> str:
    """Fabric's strategy; over several devices one that bears weights without a gradient.

    CLIP's last image block is read through its values alone, so its query weights, counted as trained, get none.
    """
    if settings.strategy == "auto" and settings.devices > 1:
        return "ddp_find_unused_parameters_true"
    return settings.strategy


@contextmanager
def _matmul(precision: str) -> Iterator[None]:
    """Products of 32-bit matrices at a precision, while the block runs."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _over_devices(fabric: Any, means: dict[str, float]) -> dict[str, float]:
    """Means over all devices: the same numbers in every process, so that all of them stop where one would."""
    if fabric.world_size == 1:
        return means
    row = fabric.all_reduce(
        torch.tensor(list(means.values()), dtype=torch.float64, device=fabric.device), reduce_op="mean"
    )
    return dict(zip(means, row.tolist(), strict=True))


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


def lasting(settings: LoopSettings) -> dict[str, Any]:
    """The settings that decide the result."""
    free = ("save_every", "accelerator", "strategy", "workers")  # a history's rows depend on log_every
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
    state = _read(path, trained, known)
    _take(state, trained)
    try:
        optimiser.load_state_dict(state["optimiser"])
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} can't be gone on with ({error}); delete it to start afresh.") from error
    return int(state["step"]), list(state["history"])


def _read(path: Path, trained: Mapping[str, nn.Parameter], known: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint that fits a training."""
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        for key, value in known.items():
            if state[key] != value:
                odd = sorted(name for name in {**state[key], **value} if state[key].get(name) != value.get(name))
                raise WeightsError(f"{path} is of another training ({', '.join(odd)} differ); delete it, or move it.")
        shapes = [{name: one.shape for name, one in part.items()} for part in (state["trained"], trained)]
        if shapes[0] != shapes[1]:
            raise WeightsError(f"{path} is of another network; delete it to start afresh.")
        if not {"step", "history", "optimiser"} <= state.keys():
            raise WeightsError(f"{path} is not whole; delete it to start afresh.")
        return state
    except (RuntimeError, KeyError, ValueError, EOFError, OSError, AttributeError, pickle.UnpicklingError) as error:
        raise WeightsError(f"{path} can't be gone on with ({error}); delete it to start afresh.") from error


def _take(state: Mapping[str, Any], trained: Mapping[str, nn.Parameter]) -> None:
    """The trained weights of a checkpoint."""
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(state["trained"][name])
