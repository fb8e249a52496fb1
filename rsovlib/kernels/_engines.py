"""Back ends of the dual solver on a CPU: each holds the state of one image and knows five verbs.

``iterate`` runs accelerated steps, ``evaluate`` gives the duality gap and the dual energy and may sharpen the step,
``safe_step`` sets it back, ``primal`` gives Q(y), and ``result`` all that is known at the end.  The loop that drives
them is in :mod:`rsovlib.kernels._ascent`.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from rsovlib.kernels._arrays import all_finite, require
from rsovlib.kernels._compiled import answer, run, softmax_rows, take_start
from rsovlib.kernels._curvature import LEAST_CURVATURE, LOCAL_GAIN, LOCAL_SHIFT, curvature, logit_shift
from rsovlib.kernels._problem import DualField, Problem, adjoint_rows, certificate

# Bytes of cache that the rows of one pass may take. More than a core's own still pays: the next level beats memory.
_CACHE = 2**22

_NOT_FINITE = "warm_start must hold finite values."


class Engine(Protocol):
    """What the driver needs of a back end."""

    def iterate(self, thetas: np.ndarray[Any, Any], following: float = 0.0) -> None:
        """Run one accelerated step for each momentum in ``thetas``.

        ``following`` is the momentum that the first step of the next call will have, unless that restarts with 0.
        """

    def evaluate(self, sharpen: bool = False) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """The duality gap at y and d(y), (B,) each, in float64.

        With ``sharpen`` the step is set from the curvature at Q(y); see :mod:`rsovlib.kernels._curvature`.
        """

    def safe_step(self, share: float) -> None:
        """Set the step to a share of the one that is safe anywhere in the box."""

    def primal(self) -> Any:
        """Q(y), (K, H, W)."""


class NumbaEngine:
    """The fused sweep; state in (H, K W)."""

    def __init__(self, problem: Problem, kind: Any, step: str, threads: int, start: DualField | None) -> None:
        from rsovlib.kernels import _curvature_numba, _dual_numba

        self.problem = problem
        self.kernels, self.curvature = _dual_numba, _curvature_numba
        classes, height, width = problem.shape
        self.kind = np.dtype(kind).type
        self.diagonal = step == "diagonal"
        self.depth = _pass_depth(classes * width * np.dtype(kind).itemsize)
        self.split(max(1, min(threads, height)))
        self.bound_x = np.zeros((height, width), kind)
        self.bound_x[:, :-1] = problem.bound_x
        self.bound_y = np.zeros((height, width), kind)
        self.bound_y[:-1] = problem.bound_y
        self.inverse = self.kind(1 / problem.a)
        self.base, self.reach = np.empty((height, classes * width), kind), np.empty((height, classes * width), kind)
        self.log_base = softmax_rows(problem, self.base, self.chunks)
        self.safe_step(1.0)
        make = np.zeros if start is None else np.empty
        self.yx, self.yy, self.zx, self.zy = (make((height, classes * width), kind) for _ in range(4))
        self.foreseen = 0.0
        if start is not None:
            finite_x = take_start(problem, start.x, self.bound_x, self.yx, self.zx)
            finite_y = take_start(problem, start.y, self.bound_y, self.yy, self.zy)
            require(finite_x and finite_y, _NOT_FINITE)
        self.gaps, self.logs = np.zeros(height), np.zeros(height)
        self.local = np.array([np.exp(2 * LOCAL_SHIFT), LOCAL_GAIN * problem.a / 8, LEAST_CURVATURE], kind)

    def split(self, chunks: int) -> None:
        """Share the rows among so many threads."""
        self.chunks = chunks
        classes, _, width = self.problem.shape
        kept = 2 * self.depth if chunks > 1 else 0
        self.halos = np.empty((chunks, kept, 4, classes * width), self.kind)

    def iterate(self, thetas: np.ndarray[Any, Any], following: float = 0.0) -> None:
        """See :class:`Engine`."""
        if thetas[0] != self.foreseen:
            require(thetas[0] == 0, f"The next momentum is {self.foreseen} as foreseen, or 0, not {thetas[0]}.")
            self.zx[:], self.zy[:] = self.yx, self.yy
        self.foreseen = following
        state = (self.base, self.reach, self.yx, self.yy, self.zx, self.zy, self.bound_x, self.bound_y)
        after = np.append(thetas[1:], following).astype(self.kind)
        run(self.kernels, "iterate", self.chunks, after, self.depth, *state, self.inverse, self.short, self.halos)

    def evaluate(self, sharpen: bool = False) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """See :class:`Engine`."""
        state = (self.base, self.yx, self.yy, self.bound_x, self.bound_y, self.inverse, self.short)
        steps = (self.reach, sharpen and self.diagonal, self.local)
        run(self.kernels, "evaluate", self.chunks, *state, self.gaps, self.logs, *steps)
        # numpy adds in a fixed order, so the sums don't depend on the number of threads.
        dual = -self.problem.a * (float(self.logs.sum()) + self.log_base)
        return np.array([self.gaps.sum()]), np.array([dual])

    def safe_step(self, share: float) -> None:
        """See :class:`Engine`."""
        far = np.empty(len(self.base))
        bounds = (self.bound_x, self.bound_y, self.inverse)
        factors = (self.kind(share * self.problem.a / 8), self.kind(LEAST_CURVATURE))
        run(self.curvature, "safe", self.chunks, self.base, self.reach, *bounds, *factors, far)
        if not self.diagonal:
            self.reach[:] = share * self.problem.a / 4  # no eigenvalue of diag(q) - q q^T exceeds 1/2
        # The polynomial is accurate where no logit moves by more than 1, and only float32 is as coarse as it is.
        self.short = not far.any() and self.kind == np.float32

    def primal(self) -> np.ndarray[Any, Any]:
        """See :class:`Engine`."""
        q = np.empty(self.problem.shape, self.kind)
        answer(self.problem, self.field(), q, self.chunks)
        return q

    def field(self) -> DualField:
        """y, channel first."""
        return DualField(*(np.ascontiguousarray(part) for part in self._parts()))

    def result(self) -> tuple[np.ndarray[Any, Any], DualField, float, float]:
        """Q(y), y, P(Q(y)) and d(y); the last call, as they take the place of what only more iterations would need."""
        field = DualField(_moved(self._parts()[0], self.zx), _moved(self._parts()[1], self.zy))
        q = self.reach.reshape(self.problem.shape)
        return q, field, *answer(self.problem, field, q, self.chunks)

    def _parts(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Views of y, channel first."""
        classes, height, width = self.problem.shape
        x, y = (part.reshape(height, classes, width).transpose(1, 0, 2) for part in (self.yx, self.yy))
        return x[:, :, :-1], y[:, :-1]


def _moved(part: np.ndarray[Any, Any], place: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A contiguous copy of an array in the memory of another, which is lost."""
    copy = place.reshape(-1)[: part.size].reshape(part.shape)
    copy[:] = part
    return copy


def _pass_depth(row: int) -> int:
    """How many iterations go over memory together, for rows of so many bytes.

    Each keeps some eight arrays' rows in the cache; more than ten iterations between two checks are rare.
    """
    return max(1, min(10, _CACHE // (8 * row)))


def _box(bound: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return -bound, bound


class NumpyEngine:
    """The reference: every formula written out on whole arrays, in float64.  Slow, and meant to be read."""

    def __init__(self, problem: Problem, step: str, start: DualField | None) -> None:
        self.problem = problem
        classes, height, width = problem.shape
        self.b = problem.linear(0, height)
        self.bound = DualField(problem.bound_x.astype(np.float64), problem.bound_y.astype(np.float64))
        self.diagonal = step == "diagonal"
        self.safe_step(1.0)
        self.x = np.zeros((classes, height, width - 1))
        self.y = np.zeros((classes, height - 1, width))
        if start is not None:
            require(all_finite(start.x) and all_finite(start.y), _NOT_FINITE)
            self.x, self.y = self._project(start.x.astype(np.float64), start.y.astype(np.float64))
        self.change_x, self.change_y = np.zeros_like(self.x), np.zeros_like(self.y)

    def _project(self, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> DualField:
        return DualField(np.clip(x, *_box(self.bound.x)), np.clip(y, *_box(self.bound.y)))

    def _primal(self, field: DualField) -> np.ndarray[Any, Any]:
        return _softmax((self.b - adjoint_rows(field, 0, self.problem.shape[1])) / self.problem.a)

    def iterate(self, thetas: np.ndarray[Any, Any], following: float = 0.0) -> None:
        """See :class:`Engine`."""
        for theta in thetas:
            z = self._project(self.x + theta * self.change_x, self.y + theta * self.change_y)
            q = self._primal(z)
            new = self._project(
                z.x + self.step_x * np.diff(q, axis=2),
                z.y + self.step_y * np.diff(q, axis=1),
            )
            self.change_x, self.change_y = new.x - self.x, new.y - self.y
            self.x, self.y = new

    def evaluate(self, sharpen: bool = False) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """See :class:`Engine`."""
        q = self._primal(DualField(self.x, self.y))
        if sharpen and self.diagonal:
            self._set_step(curvature(q, LOCAL_SHIFT) / LOCAL_GAIN)
        gx, gy = np.diff(q, axis=2), np.diff(q, axis=1)
        gap = (self.bound.x * np.abs(gx) - self.x * gx).sum() + (self.bound.y * np.abs(gy) - self.y * gy).sum()
        logits = (self.b - adjoint_rows(DualField(self.x, self.y), 0, self.problem.shape[1])) / self.problem.a
        peak = logits.max(axis=0)
        dual = -self.problem.a * (np.log(np.exp(logits - peak).sum(axis=0)) + peak).sum()
        return np.array([gap]), np.array([dual])

    def safe_step(self, share: float) -> None:
        """See :class:`Engine`."""
        if self.diagonal:
            bound = curvature(_softmax(self.b / self.problem.a), logit_shift(self.problem))
        else:
            bound = np.full(self.problem.shape, 0.5)  # no eigenvalue of diag(q) - q q^T is larger
        self._set_step(bound / share)

    def _set_step(self, bound: np.ndarray[Any, Any]) -> None:
        reach = self.problem.a / (8 * bound)
        self.step_x = np.minimum(reach[:, :, 1:], reach[:, :, :-1])
        self.step_y = np.minimum(reach[:, 1:], reach[:, :-1])

    def result(self) -> tuple[np.ndarray[Any, Any], DualField, float, float]:
        """Q(y), y, P(Q(y)) and d(y)."""
        q, field = self.primal(), DualField(self.x, self.y)
        return q, field, *certificate(self.problem, q, field)

    def primal(self) -> np.ndarray[Any, Any]:
        """See :class:`Engine`."""
        return self._primal(DualField(self.x, self.y))


def _softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    weights = np.exp(logits - logits.max(axis=0))
    return weights / weights.sum(axis=0)
