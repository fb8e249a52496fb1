"""The accelerated ascent that all back ends share: momentum, checks, the safety net, and when to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from rsovlib.kernels._engines import Engine
from rsovlib.kernels._problem import relative

# Inside merged regions the dual is locally well conditioned, so momentum close to 1 overshoots there; a cap serves
# all regions better than restarts of the whole image, which hardly ever trigger.
MOMENTUM_CAP = 0.95


@dataclass(frozen=True)
class Check:
    """What the solver knows at one of its checks; handed to the callback and kept in the history.

    Attributes:
        iteration: iterations done.
        seconds: since the first iteration.
        gap: P(Q(y)) - d(y), in nats, summed over the image and the batch.
        gap_per_pixel: gap / (H W), the worst of the batch.
        relative_gap: gap / P, the worst of the batch.
        energy: P(Q(y)), in nats, summed over the image and the batch.
        dual_energy: d(y), in nats, likewise; a lower bound of the optimum.
        primal: call it for the current Q(y), (K, H, W); valid only during the callback.
    """

    iteration: int
    seconds: float
    gap: float
    gap_per_pixel: float
    relative_gap: float
    energy: float
    dual_energy: float
    primal: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Stopping:
    """When to stop: at whichever comes first.

    Attributes:
        relative_gap: the gap as a share of the energy.
        gap_per_pixel: the gap in nats a pixel.
        iterations: the most iterations.
        every: iterations between checks.
        callback: called with every :class:`Check`.
        should_stop: asked at every check; True cancels.
    """

    relative_gap: float
    gap_per_pixel: float
    iterations: int
    every: int
    callback: Callable[[Check], object] | None
    should_stop: Callable[[], bool] | None

    def reached(self, check: Check) -> bool:
        """Whether one of the two gaps is small enough."""
        return check.relative_gap <= self.relative_gap or check.gap_per_pixel <= self.gap_per_pixel


@dataclass(frozen=True)
class Outcome:
    """How an ascent ended."""

    iterations: int
    converged: bool
    cancelled: bool
    history: tuple[Check, ...]


def make_check(
    done: int,
    began: float,
    gap: np.ndarray[Any, Any],
    dual: np.ndarray[Any, Any],
    pixels: int,
    primal: Callable[[], Any],
) -> Check:
    """A check from the gaps and dual energies of a batch's items."""
    worst = max(relative(float(g), float(d + g), pixels) for g, d in zip(gap, dual, strict=True))
    seconds = time.perf_counter() - began
    total = float(gap.sum())
    energy, bound = float((dual + gap).sum()), float(dual.sum())
    return Check(done, seconds, total, float(gap.max()) / pixels, worst, energy, bound, primal)


def ascend(engine: Engine, pixels: int, stopping: Stopping) -> Outcome:
    """Run the ascent until the gap is small enough, the iterations are used up, or someone cancels.

    Momentum: t_{n+1} = (1 + sqrt(1 + 4 t_n^2)) / 2, theta_n = min((t_n - 1) / t_{n+1}, 0.95) (Beck and Teboulle 2009,
    doi:10.1137/080716542, capped).  Capped momentum with clipped extrapolation is outside the textbook proof, so d(y)
    is watched: if it fell since the last check the momentum starts anew, and if it falls again the step is halved.
    """
    began = time.perf_counter()
    history: list[Check] = []
    done, t, falls = 0, 1.0, 0
    last: np.ndarray[Any, Any] | None = None
    while True:
        gap, dual = engine.evaluate()
        check = make_check(done, began, gap, dual, pixels, lambda: engine.result()[0])
        history.append(check)
        if stopping.callback is not None:
            stopping.callback(check)
        converged = stopping.reached(check)
        cancelled = not converged and stopping.should_stop is not None and bool(stopping.should_stop())
        if converged or cancelled or done >= stopping.iterations:
            return Outcome(done, converged, cancelled, tuple(history))
        # float32 sums waver by rounding alone; only a real fall counts.
        if last is not None and bool((dual < last - 1e-7 * np.maximum(np.abs(last), pixels)).any()):
            t = 1.0
            falls += 1
            if falls >= 2:
                engine.shorten_step()
        else:
            falls = 0
        last = dual
        count = min(stopping.every, stopping.iterations - done)
        thetas = np.empty(count)
        for i in range(count):
            following = (1 + sqrt(1 + 4 * t * t)) / 2
            thetas[i] = min((t - 1) / following, MOMENTUM_CAP)
            t = following
        engine.iterate(thetas)
        done += count
