"""The way from a problem's arrays to compiled code and back: bands of rows, threads, and sums in a fixed order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from rsovlib.kernels._arrays import plain
from rsovlib.kernels._problem import DualField, Problem

Array = np.ndarray[Any, Any]

# Numba's simplest threading layer must not be entered from two threads at once.
_PARALLEL_REGION = threading.Lock()


def run(kernels: ModuleType, name: str, chunks: int, *arguments: Any) -> None:
    """Call the compiled function of this name on so many chunks of rows, each of which may have a thread of its own.

    Args:
        kernels: the module that has the functions ``<name>_serial`` and ``<name>_parallel``.
        name: which of them.
        chunks: how many; the functions' first argument.
        *arguments: the others.
    """
    if chunks == 1:
        getattr(kernels, name + "_serial")(1, *arguments)
        return
    import numba

    with _PARALLEL_REGION:
        before = numba.get_num_threads()
        numba.set_num_threads(min(chunks, numba.config.NUMBA_NUM_THREADS))
        try:
            getattr(kernels, name + "_parallel")(chunks, *arguments)
        finally:
            numba.set_num_threads(before)


def softmax_rows(problem: Problem, base: Array, chunks: int) -> float:
    """Fill ``base`` (H, K W) with softmax(b / a), and give the sum of logsumexp(b / a) over all pixels."""
    from rsovlib.kernels import _energies_numba

    logs = np.empty(problem.shape[1])
    weights = _weights(problem).astype(base.dtype)
    for begin, p_clip, p_dino, floor, pull in _bands(problem):
        run(_energies_numba, "base", chunks, begin, p_clip, p_dino, floor, weights, pull, base, logs)
    return float(logs.sum())


def answer(problem: Problem, field: DualField, q: Array, chunks: int) -> tuple[float, float]:
    """Fill ``q`` (K, H, W) with Q(y), and give P(q) and d(y) in float64, whose difference certifies both.

    P is of q as it is stored, so the two are what :func:`rsovlib.kernels._problem.certificate` finds.

    Args:
        problem: the problem.
        field: y, contiguous.
        q: where Q(y) goes, contiguous.
        chunks: among how many threads to share the rows; the result doesn't depend on it.
    """
    from rsovlib.kernels import _energies_numba

    primals, duals = np.empty(problem.shape[1]), np.empty(problem.shape[1])
    rest = (*field, problem.bound_x, problem.bound_y, q, primals, duals)
    for begin, p_clip, p_dino, floor, pull in _bands(problem):
        run(_energies_numba, "answer", chunks, begin, p_clip, p_dino, floor, _weights(problem), pull, *rest)
    return float(primals.sum()), -problem.a * float(duals.sum())


def take_start(problem: Problem, start: Array, bound: Array, y: Array, z: Array) -> bool:
    """Fill one part of y and z, (H, K W), with that of an earlier answer, clipped to ``bound`` (H, W).

    Returns:
        Whether the earlier answer is finite; nothing is to be made of it otherwise.
    """
    from rsovlib.kernels import _dual_numba

    y[start.shape[1] :] = z[start.shape[1] :] = 0
    if plain(start, y.dtype):
        return bool(_dual_numba.take(0, start, bound, y, z))
    finite = True
    for top, bottom in problem.bands():
        part = np.array(start[:, top:bottom], y.dtype, order="C")
        finite &= bool(_dual_numba.take(top, part, bound, y, z))
    return finite


def _weights(problem: Problem) -> Array:
    return np.array([problem.lambda_clip, problem.lambda_dino, 1 / problem.a])


def _bands(problem: Problem) -> Iterator[tuple[int, Array, Array, Any, Array]]:
    """First row, both maps, floor and pull: of all rows where compiled code takes the maps, else of bands, copied."""
    p_clip, p_dino = problem.p_clip, problem.p_dino
    kind = np.float32 if np.result_type(p_clip, p_dino, np.float32) == np.float32 else np.float64
    pull = np.empty((0, 0, 0), problem.bound_x.dtype) if problem.pull is None else np.ascontiguousarray(problem.pull)
    if plain(p_clip, kind) and plain(p_dino, kind):
        yield 0, p_clip, p_dino, kind(problem.floor), pull
        return
    for top, bottom in problem.bands():
        # Clamped in their own type, as everywhere; what is less than the least normal number has no logarithm here.
        copies = [np.clip(p[:, top:bottom], problem.floor, 1.0).astype(kind, order="C") for p in (p_clip, p_dino)]
        yield top, copies[0], copies[1], np.finfo(kind).tiny, np.ascontiguousarray(pull[:, top:bottom])
