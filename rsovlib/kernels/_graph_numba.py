"""The compiled loops of the neighbour graph: the k largest entries of each row, and the steps of the diffusion."""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
import numba as nb
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ir = cgutils.ir  # llvmlite's, which numba brings
LANES = 8  # columns of scores that are carried along together

_FAST = {"contract", "nsz", "reassoc"}


@nb.njit(cache=True, nogil=True)
def _kth_largest(values, n, k):
    """The k-th largest of values[:n], which are reordered (Hoare's selection)."""
    low, high, target = 0, n - 1, k - 1
    while low < high:
        middle = (low + high) >> 1
        first, second, third = values[low], values[middle], values[high]
        pivot = max(min(first, second), min(max(first, second), third))
        i, j = low, high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if target <= j:
            high = j
        elif target >= i:
            low = i
        else:
            return pivot
    return values[target]


@nb.njit(cache=True, nogil=True, fastmath=_FAST)
def _raise_maxima(maxima, part):
    for x in range(maxima.size):
        maxima[x] = max(maxima[x], part[x])


@nb.njit(cache=True, nogil=True)
def select_largest(block, k, columns, values):  # pragma: no cover
    """Columns (ascending) and values of the k largest entries of each row; of equal ones the first.

    The k-th largest among maxima over interleaved parts of the row is a bound from below that few entries pass, so
    one more look at the row leaves hardly more than k candidates.
    """
    rows, n = block.shape
    parts = min(n, max(2 * k, 64))
    maxima = np.empty(parts, block.dtype)
    candidates = np.empty(n, block.dtype)
    scratch = np.empty(n, block.dtype)
    where = np.empty(n + 1, np.uint32)
    for r in range(rows):
        row = block[r]
        maxima[:] = row[:parts]
        start = parts
        while start < n:
            stop = min(start + parts, n)
            _raise_maxima(maxima[: stop - start], row[start:stop])
            start = stop
        bound = _kth_largest(maxima, parts, k)
        passed = np.uint64(0)  # unsigned, so that no index is looked at for counting from the end
        for x in range(np.uint64(n)):
            where[passed] = x
            passed += np.uint64(row[x] >= bound)
        count = np.int64(passed)
        for c in range(count):
            candidates[c] = row[where[c]]
            scratch[c] = candidates[c]
        least = _kth_largest(scratch, count, k)
        ties = k
        for c in range(count):
            ties -= candidates[c] > least
        taken = 0
        for c in range(count):
            value = candidates[c]
            equal = value == least
            if value > least or (equal and ties > 0):
                columns[r, taken] = where[c]
                values[r, taken] = value
                taken += 1
            ties -= equal


@intrinsic
def _step_row(context, weights, columns, start, stop, current, restart, following, row):
    """following[row] = restart[row] + sum_e weights[e] * current[columns[e]], for e from start to stop.

    All LANES values of a row are one vector in a register.  Numba has no vector type, and its optimiser unrolls so
    short a loop into scalars, which takes three times as long; hence these few instructions by hand.
    """

    def generate(context, builder, signature, arguments):
        kinds = signature.args
        number = context.get_value_type(kinds[0].dtype)
        vector = ir.VectorType(number, LANES)
        aligned = kinds[0].dtype.bitwidth // 8

        def data(k):
            return context.make_array(kinds[k])(context, builder, arguments[k]).data

        def row_of(k, index):
            first = builder.gep(data(k), [builder.mul(index, ir.Constant(index.type, LANES))])
            return builder.bitcast(first, vector.as_pointer())

        def broadcast(value):
            undefined, int32 = ir.Constant(vector, ir.Undefined), ir.IntType(32)
            single = builder.insert_element(undefined, value, ir.Constant(int32, 0))
            everywhere = ir.Constant(ir.VectorType(int32, LANES), [0] * LANES)
            return builder.shuffle_vector(single, undefined, everywhere)

        total = cgutils.alloca_once_value(builder, builder.load(row_of(5, arguments[7]), align=aligned))
        one = ir.Constant(arguments[2].type, 1)
        with cgutils.for_range_slice(builder, arguments[2], arguments[3], one) as (edge, _):
            weight = broadcast(builder.load(builder.gep(data(0), [edge])))
            column = builder.load(builder.gep(data(1), [edge]))
            if column.type != edge.type:
                column = builder.sext(column, edge.type)
            scores = builder.load(row_of(4, column), align=aligned)
            product = builder.fmul(weight, scores, flags=("contract",))
            builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)
        builder.store(builder.load(total), row_of(6, arguments[7]), align=aligned)
        return context.get_dummy_value()

    return types.void(weights, columns, start, stop, current, restart, following, row), generate


@nb.njit(cache=True, nogil=True)
def walk(offsets, columns, weights, restart, current, following, steps):  # pragma: no cover
    """Run S <- restart + W S for a number of steps, from ``current``.

    The result is there if ``steps`` is even, else in ``following``.  All scores are contiguous (N, LANES); the columns
    must lie in 0..N-1, which isn't checked.
    """
    for _ in range(steps):
        for i in range(restart.shape[0]):
            first, last = np.int64(offsets[i]), np.int64(offsets[i + 1])
            _step_row(weights, columns, first, last, current, restart, following, np.int64(i))
        current, following = following, current
