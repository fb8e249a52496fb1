"""Work shared out to processes that can be stopped between two pieces of it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from typing import Any, TypeVar

from rsovlib.errors import InputError, ResourceError

Shared = TypeVar("Shared")
Job = TypeVar("Job")
Result = TypeVar("Result")

_process: dict[str, Any] = {}
"""In a worker: what all jobs share, and whether to stop."""


def run_all(
    work: Callable[[Shared, Job], Result], shared: Shared, jobs: Sequence[Job], workers: int = 1
) -> Iterator[Result]:
    """Do all jobs, in this process or in several.

    Args:
        work: a function of a module, called as ``work(shared, job)``; a long one asks :func:`is_stopped` in between.
        shared: what all jobs need; sent once to each process.
        jobs: one after another.
        workers: number of processes; 1 works in this one.

    Yields:
        The results, in the order of the jobs.

    Raises:
        InputError: the number of workers is not positive.
        ResourceError: a process was killed from outside, which mostly means that memory ran out.
    """
    if workers < 1:
        raise InputError(f"{workers} workers can't do anything; give 1 or more.")
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            yield work(shared, job)
        return
    # Fresh processes: forking one in which a library has threads can hang.
    context = get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)), mp_context=context, initializer=_begin, initargs=(work, shared, stop)
    )
    try:
        yield from pool.map(_work, jobs)
    except BrokenProcessPool as error:
        raise ResourceError(
            f"One of the {workers} processes was killed; is there too little memory? Use fewer workers."
        ) from error
    finally:
        # Also when the caller is interrupted: the workers end after the piece that they are at.
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def is_stopped() -> bool:
    """Whether the work of this process is no longer wanted."""
    stop: Event | None = _process.get("stop")
    return stop is not None and stop.is_set()


def _begin(work: Callable[[Any, Any], Any], shared: object, stop: Event) -> None:
    # Ctrl-C reaches all processes of a terminal; the first one tells the others when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _process.update(work=work, shared=shared, stop=stop)


def _work(job: Any) -> Any:
    return _process["work"](_process["shared"], job)
