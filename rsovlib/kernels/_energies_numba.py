"""The compiled side of :mod:`rsovlib.kernels._problem`: softmax(b / a) for the iterations, and the energies in float64.

Row by row, as the sweep is, so that nothing but a few rows is held in addition; each row's sums go to a place of their
own, and whoever calls adds those in a fixed order: the result doesn't depend on the number of threads.

Maps come in bands of rows (K, rows, W) that begin at row `begin` of the image; `floor` has their type, and `pull`, b's
subtrahend, is empty where there is none.  `weights` holds lambda_clip, lambda_dino and 1 / a.
"""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
import numba as nb
import numpy as np

from rsovlib.kernels._elementary_numba import log
from rsovlib.kernels._rows_numba import EXACT, FAST, copy, exponentials, invert, scale, subtract, sum_of, sum_of_logs


@nb.njit(**FAST)
def _clamp(out, sums, p, floor):
    """out <- p within [floor, 1] for one class, and sums += out."""
    one = p.dtype.type(1)
    for x in range(p.size):
        v = p[x] if p[x] > floor else floor
        v = v if v < one else one
        out[x] = v
        sums[x] += v


@nb.njit(**FAST)
def _add_logs(b, values, weight):
    for x in range(b.size):
        b[x] += weight * log(values[x])


@nb.njit(**EXACT)
def _clamp_row(i, p, floor, values, sums):
    """values (K W) <- row i of a map, clamped, and sums (W) <- their sums over the classes."""
    width = sums.size
    sums[:] = 0
    for k in range(p.shape[0]):
        _clamp(values[k * width : (k + 1) * width], sums, p[k, i], floor)


@nb.njit(**EXACT)
def _linear_row(i, p_clip, p_dino, floor, weights, pull, b, work, norm, sums):
    """b of row i, (K W); the last three arguments are room to work in."""
    b[:] = 0
    norm[:] = 0
    for j in range(2):
        _clamp_row(i, p_clip if j == 0 else p_dino, floor, work, sums)
        _add_logs(b, work, weights[j])
        _add_logs(norm, sums, weights[j])
    width = norm.size
    for k in range(p_clip.shape[0]):
        row = b[k * width : (k + 1) * width]
        subtract(row, norm)
        if pull.size:
            subtract(row, pull[k, i])


@nb.njit(**FAST)
def _multiply(out, values, factors):
    for x in range(values.size):
        out[x] = values[x] * factors[x]


@nb.njit(**EXACT)
def _base_chunk(c, chunks, begin, p_clip, p_dino, floor, weights, pull, base, logs):
    """base = softmax(b / a), and logs = logsumexp(b / a) summed over the row, of the rows of chunk c."""
    classes, rows, width = p_clip.shape
    kind = base.dtype
    b, work = np.empty(classes * width, kind), np.empty(classes * width, kind)
    top, sums = np.empty(width, kind), np.empty(width, kind)
    for i in range((c * rows) // chunks, ((c + 1) * rows) // chunks):
        _linear_row(i, p_clip, p_dino, floor, weights, pull, b, work, top, sums)
        scale(b, weights[2])
        exponentials(b, top, sums)
        logs[begin + i] = sum_of_logs(sums) + sum_of(top)
        invert(sums)
        for k in range(0, b.size, width):
            _multiply(base[begin + i, k : k + width], b[k : k + width], sums)


@nb.njit(**EXACT)
def base_serial(chunks, begin, p_clip, p_dino, floor, weights, pull, base, logs):  # pragma: no cover
    """Fill a band's rows of `base` (H, K W) and `logs` (H) on one thread."""
    for c in range(chunks):
        _base_chunk(c, chunks, begin, p_clip, p_dino, floor, weights, pull, base, logs)


@nb.njit(**EXACT, parallel=True)
def base_parallel(chunks, begin, p_clip, p_dino, floor, weights, pull, base, logs):  # pragma: no cover
    """Fill a band's rows of `base` (H, K W) and `logs` (H), one chunk a thread."""
    for c in nb.prange(chunks):
        _base_chunk(c, chunks, begin, p_clip, p_dino, floor, weights, pull, base, logs)


@nb.njit(**FAST)
def _divergence(q, b, a):
    """Sum of q (a log q - b); q log q is 0 where q is."""
    result, least = 0.0, 1e-300
    for x in range(q.size):
        result += q[x] * (a * log(max(q[x], least)) - b[x])
    return result


@nb.njit(**FAST)
def _variation(q0, q1, bound):
    result = 0.0
    for x in range(bound.size):
        result += abs(q1[x] - q0[x]) * bound[x]
    return result


@nb.njit(**FAST)
def _move(logits, b, right, down, up, inverse):
    """logits <- (b - D^T y) / a of one class: edges that start at a pixel raise it, those that end there lower it."""
    last = b.size - 1
    for x in range(1, last):
        logits[x] = (b[x] + right[x] - right[x - 1] + down[x] - up[x]) * inverse
    logits[0] = (b[0] + down[0] - up[0]) * inverse
    if last > 0:
        logits[0] += right[0] * inverse
        logits[last] = (b[last] - right[last - 1] + down[last] - up[last]) * inverse


@nb.njit(**EXACT)
def _answer_row(i, r, b, weights, yx, yy, nothing, rounded, exact, top, sums):
    """rounded (K W) <- Q(y) of row r, as it is stored, and exact <- the same in float64; gives the row's -d(y) / a."""
    width = top.size
    for k in range(yx.shape[0]):
        some = slice(k * width, (k + 1) * width)
        down = yy[k, r] if r < yy.shape[1] else nothing
        up = yy[k, r - 1] if r > 0 else nothing
        _move(exact[some], b[some], yx[k, r], down, up, weights[2])
    exponentials(exact, top, sums)
    blemish = 0 * sum_of(sums)  # NaN if one of them is, which the logarithm doesn't show
    dual = sum_of_logs(sums) + sum_of(top) + blemish
    invert(sums)
    for k in range(0, b.size, width):
        _multiply(rounded[k : k + width], exact[k : k + width], sums)
    copy(exact, rounded)
    return dual


@nb.njit(**EXACT)
def _variation_row(here, above, right, up):
    """The weighted variation between pixels of a row, and between them and those above; `up` is empty without."""
    width, result = right.size + 1, 0.0
    for k in range(0, here.size, width):
        row = here[k : k + width]
        result += _variation(row[:-1], row[1:], right)
        result += _variation(above[k : k + width], row, up)
    return result


@nb.njit(**EXACT)
def _answer_chunk(c, chunks, begin, p_clip, p_dino, floor, weights, pull, yx, yy, bx, by, q, primals, duals):
    """Q(y), P(Q(y)) and -d(y) / a of the rows of chunk c, with the edges to their right and above them."""
    classes, rows, width = p_clip.shape
    values, kind = classes * width, np.float64
    b, work = np.empty(values, kind), np.empty(values, kind)
    here, above, rounded = np.empty(values, kind), np.empty(values, kind), np.empty(values, q.dtype)
    top, sums = np.empty(width, kind), np.empty(width, kind)
    nothing, no_bound = np.zeros(width, yy.dtype), np.zeros(0, by.dtype)
    first = (c * rows) // chunks
    if first == 0 and begin > 0:
        for k in range(classes):
            copy(here[k * width : (k + 1) * width], q[k, begin - 1])
    # The row above the chunk belongs to another, which may not have come to it: its q is computed here too.
    for i in range(max(first - 1, 0), ((c + 1) * rows) // chunks):
        r = begin + i
        here, above = above, here
        _linear_row(i, p_clip, p_dino, floor, weights, pull, b, work, top, sums)
        dual = _answer_row(i, r, b, weights, yx, yy, nothing, rounded, here, top, sums)
        if i >= first:
            for k in range(classes):
                copy(q[k, r], rounded[k * width : (k + 1) * width])
            up = by[r - 1] if r > 0 else no_bound
            primals[r] = _divergence(here, b, 1 / weights[2]) + _variation_row(here, above, bx[r], up)
            duals[r] = dual


@nb.njit(**EXACT)
def answer_serial(
    chunks, begin, p_clip, p_dino, floor, weights, pull, yx, yy, bx, by, q, primals, duals
):  # pragma: no cover
    """Fill a band's rows of `q` (K, H, W), `primals` (H) and `duals` (H) on one thread."""
    for c in range(chunks):
        _answer_chunk(c, chunks, begin, p_clip, p_dino, floor, weights, pull, yx, yy, bx, by, q, primals, duals)


@nb.njit(**EXACT, parallel=True)
def answer_parallel(
    chunks, begin, p_clip, p_dino, floor, weights, pull, yx, yy, bx, by, q, primals, duals
):  # pragma: no cover
    """Fill a band's rows of `q` (K, H, W), `primals` (H) and `duals` (H), one chunk a thread."""
    for c in nb.prange(chunks):
        _answer_chunk(c, chunks, begin, p_clip, p_dino, floor, weights, pull, yx, yy, bx, by, q, primals, duals)
