"""The fused CPU sweep of the dual solver: one pass over memory an iteration, exact and simultaneous.

Layout (H, K, W): the rows of one class are contiguous in x, so the vector lanes run over pixels whatever K is.
State: `yx`, `yy` the dual of the edges to the right and below (last column, last row: 0); `zx`, `zy` the points that
the next iteration starts from, already extrapolated and clipped; `base` = softmax(b / a); `reach` = a / (8 A), the
pixel's share of the diagonal step.

A sweep goes down the rows.  Row i needs z of its own edges and of the vertical edges above it; from them follow Q_i and
the new duals of row i and of the edges between i-1 and i.  Q_{i+1} reads only edges
that are still old, so the update is a true Jacobi step, in place, and Q never goes to memory.

Several iterations share one pass over memory, the next following the last a row behind, as the sweep would otherwise
wait for memory more than it computes.

Rows are cut into chunks, one a thread.  A chunk also advances copies of the rows around it, as many as there are
iterations in the pass: so a cell's arithmetic depends neither on where the cuts are nor on how many iterations share a
pass, and any number of threads gives the same bits.

Loops are kept short on purpose: a loop over many arrays needs so many alias checks that the compiler gives up
vectorising it.
"""

from __future__ import annotations

# Types stay implicit below: numba infers them, and annotations inside compiled code would only say "array".
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
import numba as nb
import numpy as np

from rsovlib.kernels._curvature import LEAST_CURVATURE, LOCAL_GAIN, LOCAL_SHIFT

# No "nnan"/"ninf": a NaN must stay visible to the gap check.  Contraction and reassociation are enough to vectorise.
_FAST = {"contract", "nsz", "arcp", "reassoc"}


@nb.njit(fastmath=_FAST, cache=True, nogil=True)
def _shift(u, zx, below, above, inverse):
    """u = -(D^T z) / a for one class of one row: edges that start at the pixel minus edges that end at it."""
    u[0] = (zx[0] + below[0] - above[0]) * inverse
    for x in range(1, u.size):
        u[x] = (zx[x] - zx[x - 1] + below[x] - above[x]) * inverse


@nb.njit(fastmath=_FAST, cache=True, nogil=True)
def _weigh_short(q, base, total, c):
    """q <- base exp(q) for |q| <= 1, by the Taylor polynomial of exp(q/4) to the fourth power (float32 accuracy)."""
    quarter, c6, c5, c4, c3, c2, one = c[0], c[1], c[2], c[3], c[4], c[5], c[6]
    for x in range(q.size):
        u = q[x] * quarter
        p = (((((c6 * u + c5) * u + c4) * u + c3) * u + c2) * u + one) * u + one
        p = p * p
        p = p * p * base[x]
        q[x] = p
        total[x] += p


@nb.njit(fastmath=_FAST, cache=True, nogil=True)
def _weigh_long(q, base, total, top):
    """q <- base exp(q - top): any size of q, at the cost of the library's exponential."""
    for x in range(q.size):
        p = np.exp(q[x] - top[x]) * base[x]
        q[x] = p
        total[x] += p


@nb.njit(fastmath=_FAST, cache=True, nogil=True)
def _scale(q, factor):
    for x in range(q.size):
        q[x] *= factor[x]


@nb.njit(fastmath=_FAST, cache=True, nogil=True)
def _softmax_row(q, total, top, base, zx, below, above, inverse, short, c):
    """q (K, W) <- softmax over k of log base - (D^T z) / a; leaves sums in `total` and maxima in `top`."""
    classes = q.shape[0]
    total[:] = 0
    for k in range(classes):
        _shift(q[k], zx[k], below[k], above[k], inverse)
    if short:
        for k in range(classes):
            _weigh_short(q[k], base[k], total, c)
    else:
        top[:] = q[0]
        for k in range(1, classes):
            for x in range(top.size):
                top[x] = max(top[x], q[k, x])
        for k in range(classes):
            _weigh_long(q[k], base[k], total, top)


@nb.njit(fastmath=_FAST, cache=True, nogil=True)
def _normalise(q, total, one, inverse_total):
    for x in range(total.size):
        inverse_total[x] = one / total[x]
    for k in range(q.shape[0]):
        _scale(q[k], inverse_total)


@nb.njit(fastmath=_FAST, cache=True, nogil=True)
def _increase(step, q0, q1, r0, r1):
    for x in range(step.size):
        step[x] = (q1[x] - q0[x]) * min(r0[x], r1[x])


@nb.njit(fastmath=_FAST, cache=True, nogil=True)
def _commit(step, y, z, bound, theta):
    """y <- clip(z + step), and z <- clip(y + theta times y's change) for the next iteration."""
    for x in range(step.size):
        b = bound[x]
        v = z[x] + step[x]
        v = v if v < b else b
        v = v if v > -b else -b
        w = v + theta * (v - y[x])
        w = w if w < b else b
        y[x] = v
        z[x] = w if w > -b else -b


@nb.njit(fastmath=_FAST, cache=True, nogil=True)
def _ascend(y, z, q0, q1, r0, r1, bound, theta, step):
    _increase(step, q0, q1, r0, r1)
    _commit(step, y, z, bound, theta)


@nb.njit(cache=True, nogil=True)
def _copy_halo(c, chunks, depth, yx, yy, zx, zy, halo):
    """Keep the `depth` rows above and below chunk c as they are before its neighbours move them."""
    height = yx.shape[0]
    first, last = (c * height) // chunks, ((c + 1) * height) // chunks - 1
    for j in range(depth):
        for i, slot in ((first - depth + j, j), (last + 1 + j, depth + j)):
            if 0 <= i < height:
                halo[c, slot, 0] = yx[i]
                halo[c, slot, 1] = yy[i]
                halo[c, slot, 2] = zx[i]
                halo[c, slot, 3] = zy[i]


@nb.njit(cache=True, nogil=True)
def _row(i, first, last, depth, part, field, halo):
    """Row i of one of the four state arrays: in place inside the chunk, from its halo outside."""
    if i < first:
        return halo[i - first + depth, part]
    if i > last:
        return halo[depth + i - last - 1, part]
    return field[i]


@nb.njit(fastmath=_FAST, cache=True, nogil=True)
def _advance_chunk(c, chunks, thetas, base, reach, yx, yy, zx, zy, bx, by, inverse, short, coef, halos):
    """len(thetas) iterations on the rows of chunk c, all in one pass over memory.

    Iteration t is at row i when iteration t + 1 is at row i - 1, so a row is still in the cache when the next iteration
    needs it.  Iteration t + 1 reads at row i what iteration t leaves there, which is complete once t is through with
    row i + 1.  Outside the chunk, `depth` rows on either side are advanced too, in the chunk's own copies: one row less
    in each iteration, as one row's error creeps in with each.
    """
    height, classes, width = base.shape
    depth = thetas.size
    first, last = (c * height) // chunks, ((c + 1) * height) // chunks - 1
    halo = halos[c]
    kind = base.dtype
    qs = np.empty((depth, 2, classes, width), kind)  # of each iteration's last two rows
    nothing = np.zeros((classes, width), kind)
    total, top, step = np.empty(width, kind), np.empty(width, kind), np.empty(width, kind)
    n = width - 1
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
            _softmax_row(q, total, top, base[i], z_right, z_down, z_up, inverse, short, coef)
            _normalise(q, total, coef[6], top)
            y_right = _row(i, first, last, depth, 0, yx, halo)
            for k in range(classes):
                r, now, right = reach[i, k], q[k, :n], q[k, 1:]
                _ascend(y_right[k, :n], z_right[k, :n], now, right, r[:n], r[1:], bx[i, :n], theta, step[:n])
            if i > begin:
                y_up = _row(i - 1, first, last, depth, 1, yy, halo)
                for k in range(classes):
                    r, r_above = reach[i, k], reach[i - 1, k]
                    _ascend(y_up[k], z_up[k], q_above[k], q[k], r_above, r, by[i - 1], theta, step)


@nb.njit(cache=True, nogil=True)
def iterate_serial(
    thetas, depth, chunks, base, reach, yx, yy, zx, zy, bx, by, inverse, short, coef, halos
):  # pragma: no cover
    """len(thetas) iterations on one thread, `depth` of them in each pass over memory."""
    for begin in range(0, thetas.size, depth):
        some = thetas[begin : begin + depth]
        for c in range(chunks):
            _copy_halo(c, chunks, some.size, yx, yy, zx, zy, halos)
        for c in range(chunks):
            _advance_chunk(c, chunks, some, base, reach, yx, yy, zx, zy, bx, by, inverse, short, coef, halos)


@nb.njit(cache=True, nogil=True, parallel=True)
def iterate_parallel(
    thetas, depth, chunks, base, reach, yx, yy, zx, zy, bx, by, inverse, short, coef, halos
):  # pragma: no cover
    """len(thetas) iterations, one chunk a thread; the end of each parallel loop is the barrier."""
    for g in range((thetas.size + depth - 1) // depth):
        some = thetas[g * depth : (g + 1) * depth]
        for c in nb.prange(chunks):
            _copy_halo(c, chunks, some.size, yx, yy, zx, zy, halos)
        for c in nb.prange(chunks):
            _advance_chunk(c, chunks, some, base, reach, yx, yy, zx, zy, bx, by, inverse, short, coef, halos)


@nb.njit(fastmath=_FAST, cache=True, nogil=True)
def _gap_terms(q0, q1, y, bound, zero):
    """Sum over edges of beta w |Dq| - y Dq: every term is >= 0 when y lies in its box."""
    gap = zero
    for x in range(q0.size):
        g = q1[x] - q0[x]
        gap += bound[x] * abs(g) - y[x] * g
    return gap


@nb.njit(cache=True, nogil=True)
def _sum_of_logs(values):
    """Sum of log(values) in float64: one logarithm for 16 values, whose product is far from over- or underflow."""
    result = 0.0
    for begin in range(0, values.size, 16):
        product = 1.0
        for x in range(begin, min(begin + 16, values.size)):
            product *= np.float64(values[x])
        result += np.log(product)
    return result


@nb.njit(cache=True, nogil=True)
def _sum(values):
    result = 0.0
    for x in range(values.size):
        result += values[x]
    return result


@nb.njit(fastmath=_FAST, cache=True, nogil=True)
def _bounds(q, spread, half, one, laplacian, high, peak_laplacian, peak_high):
    """Both curvature bounds of one class, and their largest values over the classes so far."""
    for x in range(q.size):
        v = q[x]
        up = v / (v + (one - v) / spread)
        down = v / (v + (one - v) * spread)
        steepest = max(down * (one - down), up * (one - up))
        steepest = (steepest if down > half or up < half else half * half) / half
        laplacian[x] = steepest
        high[x] = up
        peak_laplacian[x] = max(peak_laplacian[x], steepest)
        peak_high[x] = max(peak_high[x], up)


@nb.njit(fastmath=_FAST, cache=True, nogil=True)
def _choose(reach, laplacian, high, peak_laplacian, peak_high, share, least):
    for x in range(reach.size):
        bound = laplacian[x] if peak_laplacian[x] <= peak_high[x] else high[x]
        reach[x] = share / max(bound, least)


@nb.njit(cache=True, nogil=True)
def _reach_row(q, reach, spread, share, least, half, one, work):
    """The pixels' share of the step from the curvature at q, with logits free to move by log(spread) / 2."""
    classes = q.shape[0]
    work[2 * classes :] = 0
    for k in range(classes):
        _bounds(q[k], spread, half, one, work[k], work[classes + k], work[2 * classes], work[2 * classes + 1])
    for k in range(classes):
        low, high = work[k], work[classes + k]
        _choose(reach[k], low, high, work[2 * classes], work[2 * classes + 1], share, least)


@nb.njit(cache=True, nogil=True)
def _evaluate_chunk(c, chunks, base, yx, yy, bx, by, inverse, short, coef, gaps, logs, out, keep, reach, sharpen):
    """Q(y), the duality gap and the log-normalisers of the rows of chunk c.

    With `keep` Q goes to `out` (K, H, W); with `sharpen` the step is set anew from the curvature at Q.
    """
    height, classes, width = base.shape
    first = (c * height) // chunks
    last = ((c + 1) * height) // chunks - 1
    nothing = np.zeros((classes, width), base.dtype)
    q_above = np.empty((classes, width), base.dtype)
    q = np.empty((classes, width), base.dtype)
    total = np.empty(width, base.dtype)
    top = np.zeros(width, base.dtype)
    work = np.empty((2 * classes + 2, width), base.dtype)
    zero = coef[7]
    for i in range(max(first - 1, 0), last + 1):
        above = yy[i - 1] if i > 0 else nothing
        _softmax_row(q, total, top, base[i], yx[i], yy[i], above, inverse, short, coef)
        if i >= first:
            logs[i] = _sum_of_logs(total) if short else _sum_of_logs(total) + _sum(top)
        _normalise(q, total, coef[6], top)
        if i >= first:
            gap = 0.0
            n = width - 1
            for k in range(classes):
                gap += _gap_terms(q[k, :n], q[k, 1:], yx[i, k, :n], bx[i, :n], zero)
                if i > 0:
                    gap += _gap_terms(q_above[k], q[k], yy[i - 1, k], by[i - 1], zero)
            gaps[i] = gap
            if keep:
                for k in range(classes):
                    out[k, i] = q[k]
            if sharpen:
                _reach_row(q, reach[i], coef[8], coef[9], coef[10], coef[5], coef[6], work)
        q_above, q = q, q_above


@nb.njit(cache=True, nogil=True)
def evaluate_serial(
    chunks, base, yx, yy, bx, by, inverse, short, coef, gaps, logs, out, keep, reach, sharpen
):  # pragma: no cover
    """Fill `gaps` and `logs` (one float64 a row) on one thread."""
    for c in range(chunks):
        _evaluate_chunk(c, chunks, base, yx, yy, bx, by, inverse, short, coef, gaps, logs, out, keep, reach, sharpen)


@nb.njit(cache=True, nogil=True, parallel=True)
def evaluate_parallel(
    chunks, base, yx, yy, bx, by, inverse, short, coef, gaps, logs, out, keep, reach, sharpen
):  # pragma: no cover
    """Fill `gaps` and `logs` (one float64 a row), one chunk a thread."""
    for c in nb.prange(chunks):
        _evaluate_chunk(c, chunks, base, yx, yy, bx, by, inverse, short, coef, gaps, logs, out, keep, reach, sharpen)


def coefficients(dtype, a):
    """Constants in the state's own float type: a float64 literal in the loops would widen every operation."""
    polynomial = [1 / 4, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1, 0]
    return np.array([*polynomial, np.exp(2 * LOCAL_SHIFT), LOCAL_GAIN * a / 8, LEAST_CURVATURE], dtype=dtype)
