"""The fused CPU sweep of the dual solver: one pass over memory an iteration, exact and simultaneous.

Layout (H, K W): a row of the image holds its classes one after the other, each contiguous in x, so that the vector
lanes run over pixels whatever K is.
State: `yx`, `yy` the dual of the edges to the right and below (last column, last row: 0); `zx`, `zy` the points that
the next iteration starts from, already extrapolated and clipped; `base` = softmax(b / a); `reach` = a / (8 A), the
pixel's share of the diagonal step; `bx`, `by` (H, W) the bounds, beta w (last column, last row: 0).

A sweep goes down the rows.  Row i needs z of its own edges and of the vertical edges above it; from them follow Q_i and
the new duals of row i and of the edges between i-1 and i.  Q_{i+1} reads only edges
that are still old, so the update is a true Jacobi step, in place, and Q never goes to memory.

Several iterations share one pass over memory, the next following the last a row behind, as the sweep would otherwise
wait for memory more than it computes.

Rows are cut into chunks, one a thread.  A chunk also advances copies of the rows around it, as many as there are
iterations in the pass: so a cell's arithmetic depends neither on where the cuts are nor on how many iterations share a
pass, and any number of threads gives the same bits.
"""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
import numba as nb
import numpy as np

from rsovlib.kernels._curvature_numba import reach_row
from rsovlib.kernels._elementary_numba import exp, exp_short
from rsovlib.kernels._rows_numba import EXACT, FAST, copy, invert, largest, multiply, sum_of, sum_of_logs, total


@nb.njit(**FAST)
def _shift(u, zx, below, above, inverse):
    """u = -(D^T z) / a for one row: edges that start at the pixel minus edges that end at it.

    To the left of a class's first pixel lies the last of the class before, whose edge to the right is none: 0.
    """
    u[0] = (zx[0] + below[0] - above[0]) * inverse
    for x in range(1, u.size):
        u[x] = (zx[x] - zx[x - 1] + below[x] - above[x]) * inverse


@nb.njit(**FAST)
def _weigh_short(q, base):
    """q <- base exp(q) for |q| <= 1."""
    for x in range(q.size):
        q[x] = exp_short(q[x]) * base[x]


@nb.njit(**FAST)
def _weigh_long(q, base, top):
    """q <- base exp(q - top) of one class: any size of q."""
    for x in range(q.size):
        q[x] = exp(q[x] - top[x]) * base[x]


@nb.njit(**FAST)
def _softmax_row(q, sums, top, base, zx, below, above, inverse, short):
    """q (K W) <- base exp(-(D^T z) / a - top): the softmax before the division by its sums; leaves sums and top (W)."""
    width = sums.size
    _shift(q, zx, below, above, inverse)
    if short:
        _weigh_short(q, base)
    else:
        largest(top, q)
        for k in range(0, q.size, width):
            _weigh_long(q[k : k + width], base[k : k + width], top)
    total(sums, q)


@nb.njit(**FAST)
def _normalise(q, sums):
    """q <- q / sums, and sums <- 1 / sums."""
    width = sums.size
    invert(sums)
    for k in range(0, q.size, width):
        multiply(q[k : k + width], sums)


@nb.njit(**FAST)
def _steps_right(step, q, reach):
    """Unbounded steps of the edges to the right; after a class's last pixel it is nonsense, which the bound 0 cuts."""
    for x in range(step.size - 1):
        step[x] = (q[x + 1] - q[x]) * min(reach[x], reach[x + 1])


@nb.njit(**FAST)
def _steps_down(step, q0, q1, r0, r1):
    for x in range(step.size):
        step[x] = (q1[x] - q0[x]) * min(r0[x], r1[x])


@nb.njit(**FAST)
def _commit(step, y, z, bound, theta):
    """y <- clip(z + step), and z <- clip(y + theta times y's change) for the next iteration; one class."""
    for x in range(bound.size):
        b = bound[x]
        v = z[x] + step[x]
        v = v if v < b else b
        v = v if v > -b else -b
        w = v + theta * (v - y[x])
        w = w if w < b else b
        y[x] = v
        z[x] = w if w > -b else -b


@nb.njit(**EXACT)
def _commit_row(step, y, z, bound, theta):
    width = bound.size
    for k in range(0, step.size, width):
        _commit(step[k : k + width], y[k : k + width], z[k : k + width], bound, theta)


@nb.njit(**EXACT)
def _copy_halo(c, chunks, depth, yx, yy, zx, zy, halo):
    """Keep the `depth` rows above and below chunk c as they are before its neighbours move them."""
    height = yx.shape[0]
    first, last = (c * height) // chunks, ((c + 1) * height) // chunks - 1
    for j in range(depth):
        for i, slot in ((first - depth + j, j), (last + 1 + j, depth + j)):
            if 0 <= i < height:
                copy(halo[c, slot, 0], yx[i])
                copy(halo[c, slot, 1], yy[i])
                copy(halo[c, slot, 2], zx[i])
                copy(halo[c, slot, 3], zy[i])


@nb.njit(**EXACT)
def _row(i, first, last, depth, part, field, halo):
    """Row i of one of the four state arrays: in place inside the chunk, from its halo outside."""
    if i < first:
        return halo[i - first + depth, part]
    if i > last:
        return halo[depth + i - last - 1, part]
    return field[i]


@nb.njit(**EXACT)
def _advance_chunk(c, chunks, thetas, base, reach, yx, yy, zx, zy, bx, by, inverse, short, halos):
    """len(thetas) iterations on the rows of chunk c, all in one pass over memory.

    Iteration t is at row i when iteration t + 1 is at row i - 1, so a row is still in the cache when the next iteration
    needs it.  Iteration t + 1 reads at row i what iteration t leaves there, which is complete once t is through with
    row i + 1.  Outside the chunk, `depth` rows on either side are advanced too, in the chunk's own copies: one row less
    in each iteration, as one row's error creeps in with each.
    """
    height, values = base.shape
    width = bx.shape[1]
    depth = thetas.size
    first, last = (c * height) // chunks, ((c + 1) * height) // chunks - 1
    halo = halos[c]
    kind = base.dtype
    qs = np.empty((depth, 2, values), kind)  # of each iteration's last two rows
    nothing = np.zeros(values, kind)
    sums, top, step = np.empty(width, kind), np.empty(width, kind), np.zeros(values, kind)
    for front in range(max(0, first - depth + 1), min(height - 1, last + depth) + depth):
        for t in range(depth):
            i = front - t
            begin = max(0, first - depth + 1 + t)
            if i < begin or i > min(height - 1, last + depth - t):
                continue
            theta = thetas[t]
            q, q_above = qs[t, i % 2], qs[t, (i + 1) % 2]
            z_right, z_down = _row(i, first, last, depth, 2, zx, halo), _row(i, first, last, depth, 3, zy, halo)
            z_up = _row(i - 1, first, last, depth, 3, zy, halo) if i > 0 else nothing
            _softmax_row(q, sums, top, base[i], z_right, z_down, z_up, inverse, short)
            _normalise(q, sums)
            _steps_right(step, q, reach[i])
            _commit_row(step, _row(i, first, last, depth, 0, yx, halo), z_right, bx[i], theta)
            if i > begin:
                _steps_down(step, q_above, q, reach[i - 1], reach[i])
                _commit_row(step, _row(i - 1, first, last, depth, 1, yy, halo), z_up, by[i - 1], theta)


@nb.njit(**EXACT)
def iterate_serial(
    chunks, thetas, depth, base, reach, yx, yy, zx, zy, bx, by, inverse, short, halos
):  # pragma: no cover
    """len(thetas) iterations on one thread, `depth` of them in each pass over memory."""
    for begin in range(0, thetas.size, depth):
        some = thetas[begin : begin + depth]
        for c in range(chunks):
            _copy_halo(c, chunks, some.size, yx, yy, zx, zy, halos)
        for c in range(chunks):
            _advance_chunk(c, chunks, some, base, reach, yx, yy, zx, zy, bx, by, inverse, short, halos)


@nb.njit(**EXACT, parallel=True)
def iterate_parallel(
    chunks, thetas, depth, base, reach, yx, yy, zx, zy, bx, by, inverse, short, halos
):  # pragma: no cover
    """len(thetas) iterations, one chunk a thread; the end of each parallel loop is the barrier."""
    for g in range((thetas.size + depth - 1) // depth):
        some = thetas[g * depth : (g + 1) * depth]
        for c in nb.prange(chunks):
            _copy_halo(c, chunks, some.size, yx, yy, zx, zy, halos)
        for c in nb.prange(chunks):
            _advance_chunk(c, chunks, some, base, reach, yx, yy, zx, zy, bx, by, inverse, short, halos)


@nb.njit(**FAST)
def _gap_terms(q0, q1, y, bound):
    """Sum over edges of beta w |Dq| - y Dq: every term is >= 0 when y lies in its box."""
    gap = q0.dtype.type(0)
    for x in range(bound.size):
        change = q1[x] - q0[x]
        gap += bound[x] * abs(change) - y[x] * change
    return gap


@nb.njit(**EXACT)
def _gap_row(q0, q1, y, bound):
    width = bound.size
    gap = 0.0
    for k in range(0, y.size, width):
        gap += _gap_terms(q0[k : k + width], q1[k : k + width], y[k : k + width], bound)
    return gap


@nb.njit(**EXACT)
def _evaluate_chunk(c, chunks, base, yx, yy, bx, by, inverse, short, gaps, logs, reach, sharpen, local):
    """The duality gap at y and the log-normalisers of the rows of chunk c.

    With `sharpen` the step is set anew from the curvature at Q(y), with the spread, share and least curvature in
    `local`.
    """
    height, values = base.shape
    width = bx.shape[1]
    kind = base.dtype
    first, last = (c * height) // chunks, ((c + 1) * height) // chunks - 1
    nothing = np.zeros(values, kind)
    # One value more than a row has: after a class's last pixel lies another class's, or that 0.  The change to it is
    # nonsense and counts for 0, as bound and y are 0 there.
    padded, padded_above = np.zeros(values + 1, kind), np.zeros(values + 1, kind)
    sums, top = np.empty(width, kind), np.zeros(width, kind)
    spread, work = np.full(width, local[0], kind), np.empty((4, values), kind)
    for i in range(max(first - 1, 0), last + 1):
        q, above = padded[:-1], yy[i - 1] if i > 0 else nothing
        _softmax_row(q, sums, top, base[i], yx[i], yy[i], above, inverse, short)
        if i >= first:
            logs[i] = sum_of_logs(sums) if short else sum_of_logs(sums) + sum_of(top)
        _normalise(q, sums)
        if i >= first:
            gaps[i] = _gap_row(q, padded[1:], yx[i], bx[i])
            if i > 0:
                gaps[i] += _gap_row(padded_above, q, above, by[i - 1])
            if sharpen:
                reach_row(q, reach[i], spread, local[1], local[2], work)
        padded, padded_above = padded_above, padded


@nb.njit(**EXACT)
def evaluate_serial(
    chunks, base, yx, yy, bx, by, inverse, short, gaps, logs, reach, sharpen, local
):  # pragma: no cover
    """Fill `gaps` and `logs` (one float64 a row) on one thread."""
    for c in range(chunks):
        _evaluate_chunk(c, chunks, base, yx, yy, bx, by, inverse, short, gaps, logs, reach, sharpen, local)


@nb.njit(**EXACT, parallel=True)
def evaluate_parallel(
    chunks, base, yx, yy, bx, by, inverse, short, gaps, logs, reach, sharpen, local
):  # pragma: no cover
    """Fill `gaps` and `logs` (one float64 a row), one chunk a thread."""
    for c in nb.prange(chunks):
        _evaluate_chunk(c, chunks, base, yx, yy, bx, by, inverse, short, gaps, logs, reach, sharpen, local)


@nb.njit(**FAST)
def _take_row(start, bound, y, z):
    """y, z <- start within its bounds, and 0 where there is none; one class.  Gives 0, or NaN if not all are finite."""
    nought = start.dtype.type(0)
    blemish = nought
    for x in range(start.size):
        b = bound[x]
        v = start[x]
        blemish += v * nought
        v = v if v < b else b
        v = v if v > -b else -b
        y[x] = v
        z[x] = v
    y[start.size :] = nought
    z[start.size :] = nought
    return blemish


@nb.njit(**EXACT)
def take(begin, start, bound, y, z):  # pragma: no cover
    """Fill rows of y and z with an earlier answer (K, rows, W or W-1), clipped; gives whether its values are finite."""
    classes, rows, _ = start.shape
    width = bound.shape[1]
    blemish = start.dtype.type(0)
    for i in range(rows):
        for k in range(classes):
            some = slice(k * width, (k + 1) * width)
            blemish += _take_row(start[k, i], bound[begin + i], y[begin + i, some], z[begin + i, some])
    return blemish == 0
