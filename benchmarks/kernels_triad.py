"""What the machine's memory can do, to measure a kernel against: two triads on arrays far larger than any cache."""

from __future__ import annotations

import numba
import numpy as np

from benchmarks._timing import seconds


@numba.njit(parallel=True, cache=True)
def _triad(a, b, c, s, chunks):  # type: ignore[no-untyped-def]
    for i in numba.prange(chunks):
        for x in range(i * a.size // chunks, (i + 1) * a.size // chunks):
            a[x] = b[x] + s * c[x]


@numba.njit(parallel=True, cache=True)
def _update(a, b, s, chunks):  # type: ignore[no-untyped-def]
    for i in numba.prange(chunks):
        for x in range(i * a.size // chunks, (i + 1) * a.size // chunks):
            a[x] += s * b[x]


class Triad:
    """Both triads over float32 arrays of ``length`` values.

    a = b + s c reads two arrays and writes one; as the compiled stores pass through the caches, the processor reads
    the lines of a as well before it writes them, which makes four transfers.  a += s b reads two and writes one, and
    nothing is left to guess: three.
    """

    def __init__(self, length: int) -> None:
        self.arrays = [np.full(length, value, np.float32) for value in (0.0, 1.0, 2.0)]

    def run(self, threads: int) -> tuple[float, float]:
        """Seconds of each."""
        a, b, c = self.arrays
        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        try:
            return (
                seconds(lambda: _triad(a, b, c, np.float32(3), threads)),
                seconds(lambda: _update(a, b, np.float32(1e-3), threads)),
            )
        finally:
            numba.set_num_threads(before)

    def bytes_per_second(self, threads: int) -> float:
        """The better of the two."""
        first, second = self.run(threads)
        size = self.arrays[0].nbytes
        return max(4 * size / first, 3 * size / second)
