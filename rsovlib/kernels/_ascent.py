"""The accelerated ascent that all back ends share: momentum, checks, the safety net, and when to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, log, sqrt
from typing import Any

import numpy as np

from rsovlib.kernels._engines import Engine
from rsovlib.kernels._problem import relative

# Inside merged regions the dual is locally well conditioned, so momentum close to 1 overshoots there; a cap serves
# all regions better than restarts of the whole image, which hardly ever trigger.  Problems that need more than
# 200 iterations have slower modes, for which the cap rises.
MOMENTUM_CAP = 0.94
_CAP_RISES = 10
# Iterations at which the step is set anew from the curvature where the iterates are by then.
_SHARPEN_FROM = 10
# Iterations between checks: ten at first, then as many as the gap's fall foretells, within limits.
_USUAL_PAUSE, _FIRST_CHECKS = 10, 4
_SHORTEST_PAUSE, _LONGEST_PAUSE = 5, 40


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
        every: iterations between checks; None: ten, and more of them where the gap is still far from small enough.
        callback: called with every :class:`Check`.
        should_stop: asked at every check; True cancels.
    """

    relative_gap: float
    gap_per_pixel: float
    iterations: int
    every: int | None
    callback: Callable[[Check], object] | None
    should_stop: Callable[[], bool] | None

    def reached(self, check: Check) -> bool:
        """Whether one of the two gaps is small enough."""
        return check.relative_gap <= self.relative_gap or check.gap_per_pixel <= self.gap_per_pixel

    def iterations_to_next_check(self, history: Sequence[Check]) -> int:
        """How many iterations to run after the checks so far; a check costs about as much as one and a half.

        The gap falls by about the same factor with each iteration, so the last two checks tell when it will be small
        enough.  Far from there, half of that way is run without looking.
        """
        if self.every is not None:
            return self.every
        if len(history) < _FIRST_CHECKS:
            return _USUAL_PAUSE
        before, last = history[-2:]
        speed = _log_ratio(before.gap_per_pixel, last.gap_per_pixel) / (last.iteration - before.iteration)
        way = min(_log_ratio(last.relative_gap, self.relative_gap), _log_ratio(last.gap_per_pixel, self.gap_per_pixel))
        if not speed > 0:
            return _USUAL_PAUSE
        left = way / speed
        if left > 2 * _USUAL_PAUSE:
            left = min(left / 2, _LONGEST_PAUSE)
        return max(_SHORTEST_PAUSE, ceil(left / _SHORTEST_PAUSE) * _SHORTEST_PAUSE)


def _log_ratio(larger: float, smaller: float) -> float:
    return log(max(larger, 1e-300) / max(smaller, 1e-300))


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


def momentum(t: float, iteration: int) -> tuple[float, float]:
    """theta of the next step, and the t after it.

    t' = (1 + sqrt(1 + 4 t^2)) / 2, theta = min((t - 1) / t', cap): Beck and Teboulle 2009, doi:10.1137/080716542, with
    a cap.
    """
    following = (1 + sqrt(1 + 4 * t * t)) / 2
    cap = max(MOMENTUM_CAP, 1 - _CAP_RISES / (iteration + 1))
    return min((t - 1) / following, cap), following


@dataclass
class _SafetyNet:
    """Watches d(y).  Capped momentum, clipped extrapolation and a sharpened step are outside the textbook proof.

    A first fall of d(y) restarts the momentum and brings back the step that is safe in the whole box; every further
    fall at the check after halves it.
    """

    last: np.ndarray[Any, Any] | None = None
    falls: int = 0
    share: float = 1.0
    may_sharpen: bool = True

    def fell(self, dual: np.ndarray[Any, Any], pixels: int) -> bool:
        """Whether d(y) of any item fell since the last check, by more than float32 sums waver."""
        before, self.last = self.last, dual
        if before is None:
            return False
        return bool((dual < before - 1e-7 * np.maximum(np.abs(before), pixels)).any())

    def react(self, engine: Engine) -> None:
        """Bring back, or shorten, the safe step."""
        if self.falls:
            self.share /= 2
        self.falls += 1
        self.may_sharpen = False
        engine.safe_step(self.share)


def ascend(engine: Engine, pixels: int, stopping: Stopping) -> Outcome:
    """Run the ascent until the gap is small enough, the iterations are used up, or someone cancels."""
    began = time.perf_counter()
    history: list[Check] = []
    done, t, sharpen_at = 0, 1.0, _SHARPEN_FROM
    net = _SafetyNet()
    while True:
        sharpen = net.may_sharpen and done >= sharpen_at
        gap, dual = engine.evaluate(sharpen)
        check = make_check(done, began, gap, dual, pixels, engine.primal)
        history.append(check)
        if stopping.callback is not None:
            stopping.callback(check)
        converged = stopping.reached(check)
        cancelled = not converged and stopping.should_stop is not None and bool(stopping.should_stop())
        if converged or cancelled or done >= stopping.iterations:
            return Outcome(done, converged, cancelled, tuple(history))
        if net.fell(dual, pixels):
            t = 1.0
            net.react(engine)
        else:
            net.falls = 0
        if sharpen:
            sharpen_at *= 2
        count = min(stopping.iterations_to_next_check(history), stopping.iterations - done)
        thetas = np.empty(count)
        for i in range(count):
            thetas[i], t = momentum(t, done + i)
        done += count
        engine.iterate(thetas, momentum(t, done)[0])
