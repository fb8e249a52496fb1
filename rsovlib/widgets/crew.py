"""Windows of a picture computed side by side, one thread for each core and each thread on its own.

torch and numba share out every single operation among all cores and wait for all of them after each; with the small
tensors of one window, and a browser that wants a core too, that waiting is most of the time. A window for each core
needs no waiting until the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """``[work(item) for item in items]``, in as many threads as torch has here; in each of them torch takes one.

    The first exception is raised when the items under way have ended; those that wait aren't begun.
    """
    jobs = list(items)
    before = torch.get_num_threads()
    count = min(before, len(jobs))
    if count <= 1:
        return [work(job) for job in jobs]
    pool = ThreadPoolExecutor(count, "rsovlib-window", _take_one_thread)
    try:
        futures = [pool.submit(work, job) for job in jobs]
        # torch's number of threads is each thread's own, but threads born later take over the one that was set last.
        torch.set_num_threads(before)
        return [future.result() for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def _take_one_thread() -> None:
    # A new thread takes over torch's common number at its first question for it, so it is asked before it is told.
    torch.get_num_threads()
    torch.set_num_threads(1)
