"""The paper's named algorithm: Chambolle and Pock's primal-dual iterations, in three forms.

With the notation of :mod:`rsovlib.kernels.convex`, g(q) = sum_p a <q_p, log q_p> - <b_p, q_p> on the simplex:

    y     <- clip(y + sigma D q_bar, -beta w, beta w)
    q_new <- argmin_q  g(q) + <D^T y, q> + (1/tau) B(q, q_old)
    q_bar <- q_new + theta (q_new - q_old)

* *Euclidean*, B = |q - q_old|^2 / 2, tau sigma |D|^2 <= 1 with |D|^2 <= 8 (Chambolle and Pock 2011,
  doi:10.1007/s10851-010-0251-1).  The step needs q_k = c W(exp((v_k - mu) / c) / c), c = tau a, with Lambert's W, and
  the mu for which they sum to 1; it is solved to float rounding here.
* *official*: the same with the published code's inner solver, 10 bisections of 5 Newton steps each, and 100
  iterations; its labels are those of the released program, not those of the optimum.
* *entropic*, B = KL(q || q_old): the step is a softmax.  Entropy is 1-strongly convex in the l1 norm, which with
  differences that sum to zero gives the condition 4 tau sigma <= 1, and g is a-strongly convex relative to it, which
  allows the accelerated steps theta = (1 + a tau)^{-1/2}, tau <- theta tau, sigma <- sigma / theta
  (Chambolle and Pock 2016, doi:10.1007/s10107-015-0957-3).

For lessons and comparisons; the dual ascent of :func:`rsovlib.kernels.solve_cscp` is far faster.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from torch import Tensor

from rsovlib.kernels._ascent import Check, Outcome, Stopping, make_check
from rsovlib.kernels._engine_torch import adjoint, certify, difference_x, difference_y, log_probability, project
from rsovlib.kernels._problem import DualField

OFFICIAL_ITERATIONS = 100
_OFFICIAL_STEP = 0.25
_EUCLIDEAN_STEP = 1 / sqrt(8)
# The proximal step works on so many pixels at once, so that its many small operations stay in the cache.
_CHUNK = 8192


@dataclass(frozen=True)
class Instance:
    """A batch for the primal-dual iterations: b (B, K, H, W) in float64, bounds beta w, and a."""

    b: Tensor
    bound_x: Tensor
    bound_y: Tensor
    a: float


def make_instance(
    p_clip: Tensor, p_dino: Tensor, bound_x: Tensor, bound_y: Tensor, weights: tuple[float, float], floor: float
) -> Instance:
    """The linear term and the bounds; see :class:`rsovlib.kernels._engine_torch.TorchEngine` for the shapes."""
    first = log_probability(p_clip.double(), floor)
    second = log_probability(p_dino.double(), floor)
    return Instance(weights[0] * first + weights[1] * second, bound_x, bound_y, weights[0] + weights[1])


@torch.no_grad()
def run(instance: Instance, method: str, kind: torch.dtype, stopping: Stopping) -> tuple[Tensor, DualField, Outcome]:
    """Run one of the three forms until a gap or an iteration limit is reached.

    Args:
        instance: the batch.
        method: ``"official"``, ``"pdhg"`` or ``"pdhg-entropic"``.
        kind: float type of the iterations.
        stopping: when to stop; the official form always runs all its iterations.

    Returns:
        q, the dual field of the last iteration, and how it ended.
    """
    b = instance.b.to(kind)
    bound_x, bound_y = instance.bound_x.to(kind), instance.bound_y.to(kind)
    q = torch.softmax(b / instance.a, dim=-3)
    q_bar, log_q = q, torch.log_softmax(b / instance.a, dim=-3)
    x = q.new_zeros(*q.shape[:-1], q.shape[-1] - 1)
    y = q.new_zeros(*q.shape[:-2], q.shape[-2] - 1, q.shape[-1])
    tau = sigma = {"official": _OFFICIAL_STEP, "pdhg": _EUCLIDEAN_STEP, "pdhg-entropic": 0.5}[method]
    pixels = q.shape[-1] * q.shape[-2]
    began = time.perf_counter()
    history: list[Check] = []
    done = 0
    while True:
        if done % (stopping.every or 10) == 0 or done >= stopping.iterations:
            energies = certify(q, DualField(x, y), instance.b, instance.bound_x, instance.bound_y, instance.a)
            current = q
            check = make_check(done, began, energies[0] - energies[1], energies[1], pixels, lambda: current)  # noqa: B023
            history.append(check)
            if stopping.callback is not None:
                stopping.callback(check)
            converged = stopping.reached(check)
            cancelled = not converged and stopping.should_stop is not None and bool(stopping.should_stop())
            finished = converged and method != "official"
            if finished or cancelled or done >= stopping.iterations:
                return q, DualField(x, y), Outcome(done, converged, cancelled, tuple(history))
        x = project(x + sigma * difference_x(q_bar), bound_x)
        y = project(y + sigma * difference_y(q_bar), bound_y)
        pull = adjoint(x, y)
        theta = 1.0
        if method == "pdhg-entropic":
            log_new = torch.log_softmax((b - pull + log_q / tau) / (instance.a + 1 / tau), dim=-3)
            new = log_new.exp()
            theta = 1 / sqrt(1 + instance.a * tau)
            tau, sigma, log_q = theta * tau, sigma / theta, log_new
        else:
            new = _proximal(q - tau * pull + tau * b, tau * instance.a, method == "official")
        q_bar = new + theta * (new - q)
        q = new
        done += 1


def _proximal(shifted: Tensor, c: float, official: bool) -> Tensor:
    """The Euclidean proximal step of g: argmin |q - v|^2 / (2 tau) + g(q), for shifted = v + tau b and c = tau a."""
    batch, classes, height, width = shifted.shape
    flat = shifted.permute(1, 0, 2, 3).reshape(classes, -1) - c
    solve = _official_chunk if official else _exact_chunk
    for start in range(0, flat.shape[1], _CHUNK):
        flat[:, start : start + _CHUNK] = solve(flat[:, start : start + _CHUNK], c)
    return flat.view(classes, batch, height, width).permute(1, 0, 2, 3).contiguous()


def _official_chunk(v: Tensor, c: float) -> Tensor:
    """The published inner solver: mu by 10 halvings, each with Lambert's W by 5 Newton steps from log(1 + x)."""

    def candidate(mu: Tensor) -> Tensor:
        argument = torch.exp(((v - mu) / c).clamp(-50, 50)) / c
        w = torch.log1p(argument)
        for _ in range(5):
            power = torch.exp(w)
            w = w - (w * power - argument) / (power * (w + 1) + 1e-12)
        return c * w

    low, high = v.amin(dim=0) - 20 * c, v.amax(dim=0) + 20 * c
    for _ in range(10):
        middle = (low + high) / 2
        too_large = candidate(middle).sum(dim=0) > 1
        low, high = torch.where(too_large, middle, low), torch.where(too_large, high, middle)
    q = candidate((low + high) / 2)
    return q / q.sum(dim=0)


def _exact_chunk(v: Tensor, c: float) -> Tensor:
    """The same step solved: Newton's method on mu, with Lambert's W of an exponential by Newton in its logarithm.

    With s_k = (v_k - mu) / c - log c, W(e^s) is the w > 0 with w + log w = s.  sum_k c w_k(mu) - 1 is convex and
    decreasing in mu, so Newton's method started below its root climbs to it without overshooting.
    """
    classes = v.shape[0]
    log_c = float(np.log(c))
    # Where the largest class alone would have q = 1, or where classes all at their mean would have 1/K: by convexity
    # the sum is at least 1 at both, so both lie below the root.
    top = v.amax(dim=0)
    mu = torch.maximum(top - 1, v.mean(dim=0) - 1 / classes + c * float(np.log(classes)))
    w = v
    for _ in range(40):
        w = _wright_omega((v - mu) / c - log_c)
        excess = c * w.sum(dim=0) - 1
        slope = (w / (1 + w)).sum(dim=0)
        mu = mu + excess / slope
        if float(excess.abs().amax()) < 8 * torch.finfo(v.dtype).eps:
            break
    q = c * w
    return q / q.sum(dim=0)


def _wright_omega(s: Tensor) -> Tensor:
    """The w > 0 with w + log w = s: Lambert's W of e^s, without the exponential that overflows."""
    # Work with t = log w, where e^t + t = s: convex and increasing, so Newton from the right converges for any s.
    t = torch.where(s > 1, torch.log(s.clamp(min=1.0)), s)
    for _ in range(6):
        power = torch.exp(t)
        t = t - (power + t - s) / (power + 1)
    return torch.exp(t)
