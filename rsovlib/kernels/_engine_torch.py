"""The dual solver on torch tensors: any device, batches, and gradients through the iterations.

Without gradients and on a GPU one iteration is compiled by ``torch.compile`` into a few fused kernels; on a CPU the
numba sweep is several times faster, and this back end serves batches on other devices, gradients, and comparison.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsovlib.kernels._curvature import LEAST_CURVATURE, LOCAL_GAIN, LOCAL_SHIFT
from rsovlib.kernels._problem import DualField


def difference_x(q: Tensor) -> Tensor:
    """(D q) along the edges to the right."""
    return q[..., :, 1:] - q[..., :, :-1]


def difference_y(q: Tensor) -> Tensor:
    """(D q) along the edges down."""
    return q[..., 1:, :] - q[..., :-1, :]


def adjoint(x: Tensor, y: Tensor) -> Tensor:
    """D^T y: edges that end at a pixel minus edges that start there."""
    pad = torch.nn.functional.pad
    return pad(x, (1, 0)) - pad(x, (0, 1)) + pad(y, (0, 0, 1, 0)) - pad(y, (0, 0, 0, 1))


def project(z: Tensor, bound: Tensor) -> Tensor:
    """Into the box |z| <= bound."""
    return torch.maximum(torch.minimum(z, bound), -bound)


def log_probability(p: Tensor, floor: float) -> Tensor:
    """log p after the clamp and the renormalisation over classes (axis -3)."""
    clamped = p.clamp(floor, 1.0)
    return clamped.log() - clamped.sum(dim=-3, keepdim=True).log()


def logit_shift(bound_x: Tensor, bound_y: Tensor, a: float) -> Tensor:
    """rho, (..., 1, H, W): how far y can move a pixel's logits."""
    pad = torch.nn.functional.pad
    total = pad(bound_x, (1, 0)) + pad(bound_x, (0, 1)) + pad(bound_y, (0, 0, 1, 0)) + pad(bound_y, (0, 0, 0, 1))
    return total / a


def curvature(base: Tensor, shift: Tensor | float) -> Tensor:
    """See :func:`rsovlib.kernels._curvature.curvature`; classes on axis -3."""
    spread = torch.exp((2 * torch.as_tensor(shift, dtype=base.dtype, device=base.device)).clamp(max=80.0))
    high = base / (base + (1 - base) / spread)
    low = base / (base + (1 - base) * spread)
    laplacian = torch.maximum(2 * low * (1 - low), 2 * high * (1 - high))
    laplacian = torch.where((low <= 0.5) & (high >= 0.5), torch.full_like(laplacian, 0.5), laplacian)
    use_laplacian = laplacian.amax(dim=-3, keepdim=True) <= high.amax(dim=-3, keepdim=True)
    return torch.where(use_laplacian, laplacian, high).clamp(min=LEAST_CURVATURE)


def _iteration(
    theta: Tensor,
    x: Tensor,
    y: Tensor,
    change_x: Tensor,
    change_y: Tensor,
    logits: Tensor,
    inverse: float,
    step_x: Tensor,
    step_y: Tensor,
    bound_x: Tensor,
    bound_y: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One accelerated step; pure, so that it can be compiled and differentiated."""
    zx = project(x + theta * change_x, bound_x)
    zy = project(y + theta * change_y, bound_y)
    q = torch.softmax(logits - adjoint(zx, zy) * inverse, dim=-3)
    new_x = project(zx + step_x * difference_x(q), bound_x)
    new_y = project(zy + step_y * difference_y(q), bound_y)
    return new_x, new_y, new_x - x, new_y - y


@functools.cache
def _compiled_iteration() -> Any:
    return torch.compile(_iteration, dynamic=False)


class TorchEngine:
    """State of a batch, (B, K, H, W).

    Args:
        p_clip: (B, K, H, W), float32 or float64, on the device to use.
        p_dino: likewise.
        bound_x: (B or 1, 1, H, W-1), beta wx.
        bound_y: (B or 1, 1, H-1, W), beta wy.
        lambda_clip: weight of the first divergence.
        lambda_dino: weight of the second divergence.
        floor: clamp of the probabilities.
        step: "diagonal" or "scalar".
        start: dual field to start from.
    """

    def __init__(
        self,
        p_clip: Tensor,
        p_dino: Tensor,
        bound_x: Tensor,
        bound_y: Tensor,
        lambda_clip: float,
        lambda_dino: float,
        floor: float,
        step: str,
        start: DualField | None,
    ) -> None:
        self.a = lambda_clip + lambda_dino
        self.p_clip, self.p_dino, self.floor = p_clip, p_dino, floor
        self.lambda_clip, self.lambda_dino = lambda_clip, lambda_dino
        self.bound_x, self.bound_y = bound_x, bound_y
        self.logits = self._linear(p_clip, p_dino) / self.a
        batch, classes, height, width = p_clip.shape
        x = self.logits.new_zeros(batch, classes, height, width - 1)
        y = self.logits.new_zeros(batch, classes, height - 1, width)
        self.diagonal = step == "diagonal"
        self.safe_step(1.0)
        self.change_x, self.change_y = torch.zeros_like(x), torch.zeros_like(y)
        if start is not None:
            x, y = project(start.x.to(x), bound_x), project(start.y.to(y), bound_y)
        self.x, self.y = x, y
        on_gpu = p_clip.device.type == "cuda"
        self.iteration = _compiled_iteration() if on_gpu and not self.logits.requires_grad else _iteration

    def _linear(self, p_clip: Tensor, p_dino: Tensor) -> Tensor:
        first = self.lambda_clip * log_probability(p_clip, self.floor)
        return first + self.lambda_dino * log_probability(p_dino, self.floor)

    def iterate(self, thetas: np.ndarray[Any, Any], following: float = 0.0) -> None:
        """See :class:`rsovlib.kernels._engines.Engine`."""
        # Momentum as a tensor: as a Python number every new value would be compiled anew.
        for theta in torch.as_tensor(thetas, dtype=self.x.dtype, device=self.x.device):
            self.x, self.y, self.change_x, self.change_y = self.iteration(
                theta,
                self.x,
                self.y,
                self.change_x,
                self.change_y,
                self.logits,
                1 / self.a,
                self.step_x,
                self.step_y,
                self.bound_x,
                self.bound_y,
            )

    def primal(self) -> Tensor:
        """Q(y), (B, K, H, W)."""
        return torch.softmax(self.logits - adjoint(self.x, self.y) / self.a, dim=-3)

    def evaluate(self, sharpen: bool = False) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """See :class:`rsovlib.kernels._engines.Engine`."""
        with torch.no_grad():
            logits = self.logits - adjoint(self.x, self.y) / self.a
            q = torch.softmax(logits, dim=-3)
            gx, gy = difference_x(q), difference_y(q)
            gap = (self.bound_x * gx.abs() - self.x * gx).sum(dim=(1, 2, 3), dtype=torch.float64)
            gap = gap + (self.bound_y * gy.abs() - self.y * gy).sum(dim=(1, 2, 3), dtype=torch.float64)
            dual = -self.a * torch.logsumexp(logits, dim=-3).sum(dim=(1, 2), dtype=torch.float64)
            if sharpen and self.diagonal:
                self._set_step(curvature(q, LOCAL_SHIFT) / LOCAL_GAIN)
        return gap.cpu().numpy(), dual.cpu().numpy()

    # The step only steers the path to the optimum, so no gradient runs through it.
    @torch.no_grad()
    def safe_step(self, share: float) -> None:
        """See :class:`rsovlib.kernels._engines.Engine`."""
        if self.diagonal:
            bound = curvature(torch.softmax(self.logits, dim=-3), logit_shift(self.bound_x, self.bound_y, self.a))
        else:
            bound = torch.full_like(self.logits, 0.5)  # no eigenvalue of diag(q) - q q^T is larger
        self._set_step(bound / share)

    def _set_step(self, bound: Tensor) -> None:
        reach = self.a / (8 * bound)
        self.step_x = torch.minimum(reach[..., :, 1:], reach[..., :, :-1])
        self.step_y = torch.minimum(reach[..., 1:, :], reach[..., :-1, :])

    def result(self) -> tuple[Tensor, DualField]:
        """See :class:`rsovlib.kernels._engines.Engine`."""
        return self.primal(), DualField(self.x, self.y)

    @torch.no_grad()
    def certify(self, q: Tensor, field: DualField) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """P(q) and d(y) of each item, in float64, from their definitions."""
        return certify(
            q, field, self._linear(self.p_clip.double(), self.p_dino.double()), self.bound_x, self.bound_y, self.a
        )


def certify(
    q: Tensor, field: DualField, b: Tensor, bound_x: Tensor, bound_y: Tensor, a: float
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """P(q) and d(y) of each item of a batch, in float64, for b in float64."""
    values = q.double()
    divergence = a * torch.special.xlogy(values, values) - b * values
    variation_x = bound_x.double() * difference_x(values).abs()
    variation_y = bound_y.double() * difference_y(values).abs()
    primal = sum(term.sum(dim=(1, 2, 3)) for term in (divergence, variation_x, variation_y))
    dual = -a * torch.logsumexp((b - adjoint(field.x.double(), field.y.double())) / a, dim=-3).sum(dim=(1, 2))
    return primal.cpu().numpy(), dual.cpu().numpy()  # type: ignore[union-attr]
