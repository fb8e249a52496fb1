"""The compiled side of :mod:`rsovlib.kernels._curvature`: how long a step may be, row by row."""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
import numba as nb
import numpy as np

from rsovlib.kernels._elementary_numba import exp
from rsovlib.kernels._rows_numba import EXACT, FAST, add, copy, count_beyond, largest, scale


@nb.njit(**FAST)
def _bounds(q, spread, laplacian, high):
    """Both curvature bounds of one class: twice the largest q (1 - q) within the spread, and the largest q."""
    half, one, two = q.dtype.type(0.5), q.dtype.type(1), q.dtype.type(2)
    for x in range(q.size):
        v, s, rest = q[x], spread[x], one - q[x]
        up, down = v * s / (v * s + rest), v / (v + rest * s)
        steepest = two * max(down * (one - down), up * (one - up))
        laplacian[x] = half if down <= half and up >= half else steepest
        high[x] = up


@nb.njit(**FAST)
def _choose(laplacian, high):
    """From the classes' largest bounds to weights: 1 for the bound that a pixel takes, that of the lesser, 0 else."""
    one, nought = laplacian.dtype.type(1), laplacian.dtype.type(0)
    for x in range(laplacian.size):
        choice = one if laplacian[x] <= high[x] else nought
        laplacian[x] = choice
        high[x] = one - choice


@nb.njit(**FAST)
def _reach(reach, laplacian, high, take_laplacian, take_high, share, least):
    # A choice between two places to read from would become a gather, which is slow; hence weights 0 and 1.
    for x in range(reach.size):
        bound = take_laplacian[x] * laplacian[x] + take_high[x] * high[x]
        reach[x] = share / max(bound, least)


@nb.njit(**EXACT)
def reach_row(q, reach, spread, share, least, work):
    """The pixels' part of the step, share / A (K W), with logits that may move by log(spread) / 2 from those of q.

    `spread` holds W values, and `work` (4, K W) what is noted on the way.
    """
    width = spread.size
    laplacian, high, take_laplacian, take_high = work[0], work[1], work[2, :width], work[3, :width]
    for k in range(0, q.size, width):
        _bounds(q[k : k + width], spread, laplacian[k : k + width], high[k : k + width])
    largest(take_laplacian, laplacian)
    largest(take_high, high)
    _choose(take_laplacian, take_high)
    for k in range(0, q.size, width):
        some = slice(k, k + width)
        _reach(reach[some], laplacian[some], high[some], take_laplacian, take_high, share, least)


@nb.njit(**FAST)
def _spread(shift):
    """shift <- exp(2 shift), where that doesn't overflow."""
    two, most = shift.dtype.type(2), shift.dtype.type(80)
    for x in range(shift.size):
        shift[x] = exp(min(two * shift[x], most))


@nb.njit(**EXACT)
def _safe_chunk(c, chunks, base, reach, bx, by, inverse, share, least, far):
    """The safe step of the rows of chunk c, and in how many pixels of each row a logit can move by more than 1."""
    height, values = base.shape
    width = bx.shape[1]
    shift, work = np.empty(width, base.dtype), np.empty((4, values), base.dtype)
    for i in range((c * height) // chunks, ((c + 1) * height) // chunks):
        copy(shift, bx[i])
        add(shift[1:], bx[i])
        add(shift, by[i])
        if i > 0:
            add(shift, by[i - 1])
        scale(shift, inverse)
        far[i] = count_beyond(shift, shift.dtype.type(1))
        _spread(shift)
        reach_row(base[i], reach[i], shift, share, least, work)


@nb.njit(**EXACT)
def safe_serial(chunks, base, reach, bx, by, inverse, share, least, far):  # pragma: no cover
    """Fill `reach` (H, K W) and `far` (H) on one thread."""
    for c in range(chunks):
        _safe_chunk(c, chunks, base, reach, bx, by, inverse, share, least, far)


@nb.njit(**EXACT, parallel=True)
def safe_parallel(chunks, base, reach, bx, by, inverse, share, least, far):  # pragma: no cover
    """Fill `reach` (H, K W) and `far` (H), one chunk a thread."""
    for c in nb.prange(chunks):
        _safe_chunk(c, chunks, base, reach, bx, by, inverse, share, least, far)
