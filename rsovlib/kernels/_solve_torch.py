"""`solve_cscp` on torch: checks, batches, and the way from tensors to an engine and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rsovlib.errors import InputError
from rsovlib.kernels import primal_dual
from rsovlib.kernels._arrays import is_torch, require
from rsovlib.kernels._ascent import Outcome, ascend
from rsovlib.kernels._engine_torch import TorchEngine, certify
from rsovlib.kernels._problem import DualField, check_parameters, relative
from rsovlib.kernels.convex import CscpResult

if TYPE_CHECKING:
    from rsovlib.kernels.convex import _Settings


def solve(p_clip: Any, p_dino: Any, wx: Any, wy: Any, settings: _Settings, start: tuple[Any, Any] | None) -> CscpResult:
    """Solve one image or a batch with torch; arguments as :func:`rsovlib.kernels.solve_cscp` checked them."""
    single = p_clip.ndim == 3
    maps = [_maps(p, name) for p, name in ((p_clip, "p_clip"), (p_dino, "p_dino"))]
    first, second = maps[0], maps[1].to(maps[0])
    require(first.shape == second.shape, f"p_clip {tuple(p_clip.shape)} and p_dino {tuple(p_dino.shape)} must agree.")
    batch, classes, height, width = first.shape
    check_parameters(settings.lambda_clip, settings.lambda_dino, settings.beta, settings.floor, classes)
    bound_x = settings.beta * _weights(wx, "wx", (height, width - 1), batch, first)
    bound_y = settings.beta * _weights(wy, "wy", (height - 1, width), batch, first)
    field = None if start is None else _field(start, first)
    pixels = height * width
    with torch.set_grad_enabled(torch.is_grad_enabled() and settings.method == "dual"):
        q, dual, outcome = _run(first, second, bound_x, bound_y, settings, field, pixels)
    weights = (settings.lambda_clip, settings.lambda_dino)
    instance = primal_dual.make_instance(first.detach(), second.detach(), bound_x, bound_y, weights, settings.floor)
    with torch.no_grad():
        values, bounds = certify(q, dual, instance.b, bound_x, bound_y, instance.a)
    give = _giver(p_clip, single)
    return CscpResult(
        give(q),
        max(relative(float(v - d), float(v), pixels) for v, d in zip(values, bounds, strict=True)),
        outcome.iterations,
        DualField(give(dual.x.detach()), give(dual.y.detach())),
        max(float((values - bounds).max()), 0.0) / pixels,
        float(values.sum()),
        float(bounds.sum()),
        outcome.converged,
        outcome.cancelled,
        settings.method,
        "torch",
        outcome.history,
    )


def _run(
    first: Tensor,
    second: Tensor,
    bound_x: Tensor,
    bound_y: Tensor,
    settings: _Settings,
    start: DualField | None,
    pixels: int,
) -> tuple[Tensor, DualField, Outcome]:
    weights = (settings.lambda_clip, settings.lambda_dino)
    if settings.method == "dual":
        engine = TorchEngine(first, second, bound_x, bound_y, *weights, settings.floor, settings.step, start)
        outcome = ascend(engine, pixels, settings.stopping)
        return *engine.result(), outcome
    require(start is None, f"method {settings.method!r} takes no warm start: its state is more than the dual field.")
    instance = primal_dual.make_instance(first, second, bound_x, bound_y, weights, settings.floor)
    return primal_dual.run(instance, settings.method, first.dtype, settings.stopping)


def _maps(values: Any, name: str) -> Tensor:
    """(B, K, H, W) in float32 or float64."""
    tensor = values if is_torch(values) else torch.from_numpy(np.ascontiguousarray(values))
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()
    tensor = tensor if tensor.ndim == 4 else tensor[None]
    require(min(tensor.shape) >= 1, f"{name} must hold at least one class and one pixel, got {tuple(values.shape)}.")
    if not bool(torch.isfinite(tensor.detach().sum(dtype=torch.float64))):
        raise InputError(f"{name} holds NaN or infinite values; it must hold probabilities over its class axis.")
    return tensor


def _weights(values: Any, name: str, shape: tuple[int, int], batch: int, reference: Tensor) -> Tensor:
    """(B or 1, 1, rows, columns) of the maps' type and device."""
    tensor = (values if is_torch(values) else torch.from_numpy(np.ascontiguousarray(values))).to(reference)
    allowed = (shape, (batch, *shape))
    require(tuple(tensor.shape) in allowed, f"{name} must have the shape {shape}, got {tuple(tensor.shape)}.")
    if tensor.numel() and not (bool(torch.isfinite(tensor).all()) and float(tensor.detach().min()) >= 0):
        raise InputError(f"{name} must hold finite weights that aren't negative.")
    return tensor[None, None] if tensor.ndim == 2 else tensor[:, None]


def _field(start: tuple[Any, Any], reference: Tensor) -> DualField:
    parts = [torch.as_tensor(part).to(reference) for part in start]
    x, y = (part if part.ndim == 4 else part[None] for part in parts)
    batch, classes, height, width = reference.shape
    wanted = (batch, classes, height, width - 1), (batch, classes, height - 1, width)
    require(
        (tuple(x.shape), tuple(y.shape)) == wanted,
        f"warm_start has the shapes {tuple(x.shape)} and {tuple(y.shape)}; "
        f"this problem needs {wanted[0]} and {wanted[1]}.",
    )
    require(bool(torch.isfinite(x.sum() + y.sum())), "warm_start must hold finite values.")
    return DualField(x, y)


def _giver(reference: Any, single: bool) -> Any:
    """A function that hands results out as the caller's kind and rank."""

    def give(tensor: Tensor) -> Any:
        result = tensor[0] if single else tensor
        return result if is_torch(reference) else result.detach().cpu().numpy()

    return give
