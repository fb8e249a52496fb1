"""Loops over one row of pixels, of which the compiled kernels are made, and how all of them are compiled.

A row of K classes is K W values, class after class.  Most loops run over all of it at once: what doesn't fill the
vector lanes at a loop's end is done one by one, and a loop for each class has K such ends.  What all classes share
has W values and is met class by class.

Loops are kept short on purpose: a loop over many arrays needs so many alias checks that the compiler gives up
vectorising it.

Numba's cache looks at the file of a compiled function, not at those of the functions that it calls: a change here takes
effect once ``rsovlib/kernels/__pycache__`` is removed.
"""

from __future__ import annotations

# Types stay implicit below: numba infers them, and annotations inside compiled code would only say "array".
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
import numba as nb
import numpy as np

from rsovlib.kernels._elementary_numba import exp, log

# A division by zero gives infinity or NaN: the test for Python's exception would keep its loop from being vectorised.
EXACT = {"cache": True, "nogil": True, "error_model": "numpy"}
# No "nnan"/"ninf": a NaN must stay visible to the gap check.  Contraction and reassociation are enough to vectorise.
FAST = {**EXACT, "fastmath": {"contract", "nsz", "arcp", "reassoc"}}


@nb.njit(**FAST)
def copy(out, values):
    """out <- values, of any type; numba's own ``out[:] = values`` goes one by one, as it may have to broadcast."""
    for x in range(out.size):
        out[x] = values[x]


@nb.njit(**FAST)
def add(values, more):
    """values += more."""
    for x in range(values.size):
        values[x] += more[x]


@nb.njit(**FAST)
def subtract(values, less):
    """values -= less."""
    for x in range(values.size):
        values[x] -= less[x]


@nb.njit(**FAST)
def scale(values, factor):
    """values *= factor, one for all."""
    for x in range(values.size):
        values[x] *= factor


@nb.njit(**FAST)
def multiply(values, factors):
    """values *= factors."""
    for x in range(values.size):
        values[x] *= factors[x]


@nb.njit(**FAST)
def invert(values):
    """values <- 1 / values."""
    one = values.dtype.type(1)
    for x in range(values.size):
        values[x] = one / values[x]


@nb.njit(**FAST)
def _lift(top, values):
    for x in range(top.size):
        top[x] = max(top[x], values[x])


@nb.njit(**EXACT)
def largest(top, values):
    """top (W) <- the largest of the classes' values (K W)."""
    width = top.size
    copy(top, values[:width])
    for k in range(width, values.size, width):
        _lift(top, values[k : k + width])


@nb.njit(**EXACT)
def total(sums, values):
    """sums (W) <- sums over the classes of values (K W)."""
    width = sums.size
    sums[:] = 0
    for k in range(0, values.size, width):
        add(sums, values[k : k + width])


@nb.njit(**FAST)
def sum_of(values):
    """The sum, in float64."""
    result = 0.0
    for x in range(values.size):
        result += values[x]
    return result


@nb.njit(**FAST)
def finite(values):
    """Whether none of the values is NaN or infinite."""
    result, nought = values.dtype.type(0), values.dtype.type(0)
    for x in range(values.size):
        result += nought * values[x]
    return result == nought


@nb.njit(**FAST)
def sum_of_logs(values):
    """Sum of log(values), in float64."""
    result = 0.0
    for x in range(values.size):
        result += log(np.float64(values[x]))
    return result


@nb.njit(**FAST)
def count_beyond(values, limit):
    """How many values exceed the limit in size; a maximum would be taken one by one, for the sake of NaN."""
    one, nought = values.dtype.type(1), values.dtype.type(0)
    result = nought
    for x in range(values.size):
        result += one if abs(values[x]) > limit else nought
    return result


@nb.njit(**FAST)
def _exp(values):
    for x in range(values.size):
        values[x] = exp(values[x])


@nb.njit(**FAST)
def _exp_below(values, top):
    for x in range(values.size):
        values[x] = exp(values[x] - top[x])


@nb.njit(**EXACT)
def exponentials(logits, top, sums):
    """logits (K W) <- exp(logits - top), and sums (W) <- their sums over the classes.

    `top` (W) becomes the largest of the classes, or 0 where nothing in the whole row is near over- or underflow.
    """
    width = top.size
    if count_beyond(logits, logits.dtype.type(80)) == 0:
        top[:] = 0
        _exp(logits)
    else:
        largest(top, logits)
        for k in range(0, logits.size, width):
            _exp_below(logits[k : k + width], top)
    total(sums, logits)
