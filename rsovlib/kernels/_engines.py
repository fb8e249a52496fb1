"""Back ends of the dual solver: each holds the state of one image and knows five verbs.

``iterate`` runs accelerated steps, ``evaluate`` gives the duality gap and the dual energy and may sharpen the step,
``safe_step`` sets it back, ``primal`` and ``result`` hand out Q(y) and y.  The loop that drives them is in
:mod:`rsovlib.kernels._ascent`.
"""

from __future__ import annotations

import threading
from typing import Any, Protocol

import numpy as np

from rsovlib.kernels._arrays import require
from rsovlib.kernels._curvature import LOCAL_GAIN, LOCAL_SHIFT, curvature, logit_shift
from rsovlib.kernels._problem import DualField, Problem, adjoint_rows

# Bytes of cache that the rows of one pass may take. More than a core's own still pays: the next level beats memory.
_CACHE = 2**22

# Numba's simplest threading layer must not be entered from two threads at once.
_PARALLEL_REGION = threading.Lock()


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

    def result(self) -> tuple[Any, DualField]:
        """Q(y) and y; the last call, as it lets go of what only more iterations would need."""


class NumbaEngine:
    """The fused sweep; state in (H, K, W)."""

    def __init__(self, problem: Problem, kind: Any, step: str, threads: int, start: DualField | None) -> None:
        self.problem = problem
        self.threads = threads
        classes, height, width = problem.shape
        self.kind = np.dtype(kind).type
        shift = logit_shift(problem)
        self.base = np.empty((height, classes, width), kind)
        self.reach = np.empty((height, classes, width), kind)
        self.diagonal = step == "diagonal"
        # sum_p logsumexp(b / a)
        self.log_base = sum(self._prepare(*band, shift) for band in problem.bands())
        self.bound_x = np.zeros((height, width), kind)
        self.bound_x[:, :-1] = problem.bound_x
        self.bound_y = np.zeros((height, width), kind)
        self.bound_y[:-1] = problem.bound_y
        self.yx, self.yy, self.zx, self.zy = (np.zeros((height, classes, width), kind) for _ in range(4))
        self.foreseen = 0.0
        if start is not None:
            self.yx[:, :, :-1] = np.clip(start.x.transpose(1, 0, 2), *_box(problem.bound_x[:, None]))
            self.yy[:-1] = np.clip(start.y.transpose(1, 0, 2), *_box(problem.bound_y[:, None]))
            self.zx[:], self.zy[:] = self.yx, self.yy
        from rsovlib.kernels import _dual_numba

        self.kernels = _dual_numba
        self.coefficients = _dual_numba.coefficients(kind, problem.a)
        # The polynomial is accurate for |u| <= 1, and only float32 is as coarse as the polynomial.
        self.short = bool(np.dtype(kind) == np.float32 and float(shift.max()) <= 1.0)
        self.depth = _pass_depth(classes * width * self.base.itemsize)
        self.split(max(1, min(threads, height)))
        self.gaps, self.logs = np.zeros(height), np.zeros(height)
        self.inverse = self.kind(1 / problem.a)

    def split(self, chunks: int) -> None:
        """Share the rows among so many threads."""
        self.chunks = chunks
        classes, _, width = self.problem.shape
        kept = 2 * self.depth if chunks > 1 else 0
        self.halos = np.empty((chunks, kept, 4, classes, width), self.kind)

    def _prepare(self, top: int, bottom: int, shift: np.ndarray[Any, Any]) -> float:
        """The constants of some rows: softmax(b / a) and the step; gives the sum of the log-normalisers."""
        logits = self.problem.linear(top, bottom, self.kind)
        logits *= self.kind(1 / self.problem.a)
        peak = logits.max(axis=0)
        logits -= peak
        np.exp(logits, out=logits)
        total = logits.sum(axis=0)
        logits /= total
        self.base[top:bottom] = logits.transpose(1, 0, 2)
        self._safe_rows(top, bottom, logits, shift, 1.0)
        return float((np.log(total, dtype=np.float64) + peak).sum())

    def _safe_rows(
        self, top: int, bottom: int, base: np.ndarray[Any, Any], shift: np.ndarray[Any, Any], share: float
    ) -> None:
        if self.diagonal:
            bound = curvature(base, shift[top:bottom])
            self.reach[top:bottom] = (self.kind(share * self.problem.a / 8) / bound).transpose(1, 0, 2)
        else:
            self.reach[top:bottom] = share * self.problem.a / 4

    def iterate(self, thetas: np.ndarray[Any, Any], following: float = 0.0) -> None:
        """See :class:`Engine`."""
        if thetas[0] != self.foreseen:
            require(thetas[0] == 0, f"The next momentum is {self.foreseen} as foreseen, or 0, not {thetas[0]}.")
            self.zx[:], self.zy[:] = self.yx, self.yy
        self.foreseen = following
        state = (self.base, self.reach, self.yx, self.yy, self.zx, self.zy, self.bound_x, self.bound_y)
        rest = (self.inverse, self.short, self.coefficients, self.halos)
        after = np.append(thetas[1:], following).astype(self.kind)
        self._run("iterate", after, self.depth, self.chunks, *state, *rest)

    def evaluate(self, sharpen: bool = False) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """See :class:`Engine`."""
        return self._evaluate(np.empty((1, 1, 1), self.kind), False, sharpen and self.diagonal)

    def _evaluate(
        self, out: np.ndarray[Any, Any], keep: bool, sharpen: bool = False
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        state = (self.base, self.yx, self.yy, self.bound_x, self.bound_y, self.inverse, self.short, self.coefficients)
        self._run("evaluate", self.chunks, *state, self.gaps, self.logs, out, keep, self.reach, sharpen)
        # numpy adds in a fixed order, so the sums don't depend on the number of threads.
        dual = -self.problem.a * (float(self.logs.sum()) + self.log_base)
        return np.array([self.gaps.sum()]), np.array([dual])

    def _run(self, name: str, *arguments: Any) -> None:
        if self.chunks == 1:
            getattr(self.kernels, name + "_serial")(*arguments)
            return
        import numba

        with _PARALLEL_REGION:
            before = numba.get_num_threads()
            numba.set_num_threads(min(self.chunks, numba.config.NUMBA_NUM_THREADS))
            try:
                getattr(self.kernels, name + "_parallel")(*arguments)
            finally:
                numba.set_num_threads(before)

    def safe_step(self, share: float) -> None:
        """See :class:`Engine`."""
        shift = logit_shift(self.problem)
        for top, bottom in self.problem.bands():
            self._safe_rows(top, bottom, self.base[top:bottom].transpose(1, 0, 2), shift, share)

    def result(self) -> tuple[np.ndarray[Any, Any], DualField]:
        """See :class:`Engine`."""
        nothing = np.zeros((0, 0, 0), self.kind)
        self.zx = self.zy = nothing  # make room for the results
        return self.primal(), self.field()

    def primal(self) -> np.ndarray[Any, Any]:
        """See :class:`Engine`."""
        q = np.empty(self.problem.shape, self.kind)
        self._evaluate(q, True)
        return q

    def field(self) -> DualField:
        """y, channel first."""
        x = np.ascontiguousarray(self.yx[:, :, :-1].transpose(1, 0, 2))
        return DualField(x, np.ascontiguousarray(self.yy[:-1].transpose(1, 0, 2)))


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

    def result(self) -> tuple[np.ndarray[Any, Any], DualField]:
        """See :class:`Engine`."""
        return self.primal(), DualField(self.x, self.y)

    def primal(self) -> np.ndarray[Any, Any]:
        """See :class:`Engine`."""
        return self._primal(DualField(self.x, self.y))


def _softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    weights = np.exp(logits - logits.max(axis=0))
    return weights / weights.sum(axis=0)
