"""The convex fusion of scenes that are too large to solve at once: the same optimum, tile by tile.

The dual field y of the whole scene is kept; everything else exists for one tile at a time.  With the edges outside a
tile held fixed, what is left is the same problem on the tile, with b reduced by what those edges send into it: so
each tile's solve is an exact ascent step on a block of the whole scene's dual.  Tiles overlap, and sweeps over all of
them go on until the duality gap *of the whole scene*, evaluated band by band, is as small as asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from rsovlib.kernels._arrays import like, require
from rsovlib.kernels._ascent import Check, Stopping, ascend
from rsovlib.kernels._compiled import answer
from rsovlib.kernels._engines import NumbaEngine
from rsovlib.kernels._problem import (
    FLOOR,
    DualField,
    Problem,
    adjoint_rows,
    dual_energy,
    make_problem,
    relative,
)
from rsovlib.kernels.convex import CscpResult, thread_count

# A tile is solved to this share of the gap a pixel that the whole scene may have: neighbours disturb it afterwards.
_TILE_SHARE = 0.25


def solve_cscp_tiled(
    p_clip: Any,
    p_dino: Any,
    wx: Any,
    wy: Any,
    lambda_clip: float = 1.0,
    lambda_dino: float = 0.2,
    beta: float = 0.1,
    tolerance: float = 1e-4,
    *,
    tile: int = 1024,
    overlap: int = 64,
    max_sweeps: int = 20,
    max_iterations: int = 2000,
    callback: Callable[[Check], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
    threads: int | None = None,
    floor: float = FLOOR,
) -> CscpResult:
    """:func:`rsovlib.kernels.solve_cscp` with bounded memory; the two agree to their certified gaps.

    Args:
        p_clip: (K, H, W) probabilities; NumPy (a memory map too) or a torch tensor on the CPU.
        p_dino: likewise.
        wx: (H, W-1) edge weights.
        wy: (H-1, W) edge weights.
        lambda_clip: see :func:`rsovlib.kernels.solve_cscp`.
        lambda_dino: likewise.
        beta: likewise.
        tolerance: relative gap of the whole scene to stop at.
        tile: side of a tile in pixels, its overlaps included.
        overlap: how many pixels neighbouring tiles share, below ``tile``.
        max_sweeps: the most sweeps over all tiles.
        max_iterations: the most iterations on one tile in one sweep.
        callback: called with a :class:`Check` of the whole scene after each sweep; ``iteration`` counts sweeps.
        should_stop: asked before each tile; True cancels.
        threads: see :func:`rsovlib.kernels.solve_cscp`.
        floor: least probability.

    Returns:
        A :class:`CscpResult` whose ``iterations`` counts sweeps.

    Raises:
        InputError: as :func:`rsovlib.kernels.solve_cscp`, or a tile that isn't larger than its overlap.

    Memory beyond the inputs, in floats: 2K a pixel of the scene for y and K for q; 7K + 2 a pixel of one tile.
    """
    require(tile > overlap >= 0, f"tile must be larger than overlap, and that not negative, got {tile} and {overlap}.")
    require(tolerance >= 0, f"tolerance must not be negative, got {tolerance}.")
    require(max_sweeps >= 0, f"max_sweeps must not be negative, got {max_sweeps}.")
    problem = make_problem(p_clip, p_dino, wx, wy, lambda_clip, lambda_dino, beta, floor)
    classes, height, width = problem.shape
    kind = problem.bound_x.dtype
    field = DualField(np.zeros((classes, height, width - 1), kind), np.zeros((classes, height - 1, width), kind))
    tiles = [(top, left) for top in _starts(height, tile, overlap) for left in _starts(width, tile, overlap)]
    began = time.perf_counter()
    history: list[Check] = []
    cancelled = False
    for sweep in range(max_sweeps + 1):
        check = _check(problem, field, sweep, began)
        history.append(check)
        if callback is not None:
            callback(check)
        if check.relative_gap <= tolerance or cancelled or sweep == max_sweeps:
            break
        # Relative to what is known of the optimum: it lies between the dual and the primal energy.
        floor_energy = max(check.dual_energy, 1e-12 * height * width)
        target = _TILE_SHARE * tolerance * floor_energy / (height * width)
        stopping = Stopping(0.0, target, max_iterations, 10, None, should_stop)
        for top, left in tiles:
            cancelled = should_stop is not None and bool(should_stop())
            if cancelled:
                break
            _solve_tile(problem, field, top, left, tile, stopping, threads)
    q = np.empty(problem.shape, kind)
    value, bound = answer(problem, field, q, thread_count(threads, height))
    gap = relative(value - bound, value, height * width)
    return CscpResult(
        like(q, p_clip),
        gap,
        len(history) - 1,
        DualField(like(field.x, p_clip), like(field.y, p_clip)),
        max(value - bound, 0.0) / (height * width),
        value,
        bound,
        history[-1].relative_gap <= tolerance,
        cancelled,
        "dual",
        "numba-tiled",
        tuple(history),
    )


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """First pixels of tiles that cover ``length`` and share ``overlap`` pixels, the last one moved inwards."""
    last = max(length - tile, 0)
    return [*range(0, last, tile - overlap), last]


def _solve_tile(
    problem: Problem, field: DualField, top: int, left: int, tile: int, stopping: Stopping, threads: int | None
) -> None:
    """Improve the duals of all edges within a tile, in place."""
    _, height, width = problem.shape
    bottom, right = min(top + tile, height), min(left + tile, width)
    rows, columns = slice(top, bottom), slice(left, right)
    inner_x, inner_y = slice(left, right - 1), slice(top, bottom - 1)
    pull = np.zeros((problem.shape[0], bottom - top, right - left), field.x.dtype)
    if left > 0:
        pull[:, :, 0] += field.x[:, rows, left - 1]
    if right < width:
        pull[:, :, -1] -= field.x[:, rows, right - 1]
    if top > 0:
        pull[:, 0] += field.y[:, top - 1, columns]
    if bottom < height:
        pull[:, -1] -= field.y[:, bottom - 1, columns]
    part = replace(
        problem,
        p_clip=problem.p_clip[:, rows, columns],
        p_dino=problem.p_dino[:, rows, columns],
        bound_x=problem.bound_x[rows, inner_x],
        bound_y=problem.bound_y[inner_y, columns],
        pull=pull,
    )
    start = DualField(field.x[:, rows, inner_x], field.y[:, inner_y, columns])
    engine = NumbaEngine(part, field.x.dtype, "diagonal", thread_count(threads, bottom - top), start)
    ascend(engine, (bottom - top) * (right - left), stopping)
    solved = engine.field()
    field.x[:, rows, inner_x] = solved.x
    field.y[:, inner_y, columns] = solved.y


def _primal(problem: Problem, field: DualField, top: int, bottom: int) -> np.ndarray[Any, Any]:
    """Q(y) of some rows, float64."""
    logits = (problem.linear(top, bottom) - adjoint_rows(field, top, bottom)) / problem.a
    logits -= logits.max(axis=0)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=0)
    return logits


def _check(problem: Problem, field: DualField, sweep: int, began: float) -> Check:
    """The whole scene's gap and dual energy, band by band."""
    _, height, width = problem.shape
    gap = 0.0
    for top, bottom in problem.bands():
        q = _primal(problem, field, top, min(bottom + 1, height))
        across, down = np.diff(q[:, : bottom - top], axis=2), np.diff(q, axis=1)
        rows = slice(top, top + down.shape[1])
        gap += float((problem.bound_x[top:bottom] * np.abs(across) - field.x[:, top:bottom] * across).sum())
        gap += float((problem.bound_y[rows] * np.abs(down) - field.y[:, rows] * down).sum())
    dual = dual_energy(problem, field)
    pixels = height * width
    seconds = time.perf_counter() - began
    return Check(sweep, seconds, gap, gap / pixels, relative(gap, dual + gap, pixels), dual + gap, dual)
