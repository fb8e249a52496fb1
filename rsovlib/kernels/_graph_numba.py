"""The compiled loop of the neighbour graph: exact selection of the k largest entries of each row."""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
import numba as nb
import numpy as np

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
    parts = min(n, max(4 * k, 64))
    maxima = np.empty(parts, block.dtype)
    candidates = np.empty(n, block.dtype)
    scratch = np.empty(n, block.dtype)
    where = np.empty(n, np.int64)
    for r in range(rows):
        row = block[r]
        maxima[:] = row[:parts]
        start = parts
        while start < n:
            stop = min(start + parts, n)
            _raise_maxima(maxima[: stop - start], row[start:stop])
            start = stop
        bound = _kth_largest(maxima, parts, k)
        count = 0
        for x in range(n):
            candidates[count] = row[x]
            where[count] = x
            count += row[x] >= bound
            if count == n:
                break
        scratch[:count] = candidates[:count]
        least = _kth_largest(scratch, count, k)
        ties = k
        for c in range(count):
            ties -= candidates[c] > least
        taken = 0
        for c in range(count):
            value = candidates[c]
            if value == least:
                ties -= 1
            if value > least or (value == least and ties >= 0):
                columns[r, taken] = where[c]
                values[r, taken] = value
                taken += 1
