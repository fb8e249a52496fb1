"""Many runs on one machine or on a cluster, by ``dask.distributed``, each after those that it needs.

A worker runs one notebook at a time in a kernel of its own. Without an address a cluster of processes is started on
this machine; with one, the work goes to the workers of a scheduler that runs already. A worker that is killed gets its
run taken away and given to another one.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsovlib.errors import InputError, ResourceError
from rsovlib.experiments.execution import stop_session
from rsovlib.experiments.matrix import Unit
from rsovlib.experiments.runs import Outcome, finished_run, run_unit

if TYPE_CHECKING:
    from distributed import Client

LOST = "The scheduler {} doesn't answer any more; what was finished is kept. Start it and its workers, and run again."

CONNECT_SECONDS = 20
"""How long a scheduler may take to answer; one that is just starting takes a few."""

_POLL = 0.1
"""Seconds between two looks for results; a run takes many of them."""


def usable_cores() -> int:
    """Cores that this process may use: neither those of other containers nor those outside of its affinity."""
    from dask.system import cpu_count

    return max(1, int(cpu_count()))


def default_workers() -> int:
    """One worker for every two cores: numerical libraries use a second one well, and memory counts too."""
    return max(1, usable_cores() // 2)


def run_units(
    units: Sequence[Unit],
    out: str | os.PathLike[str],
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    threads: int | None = None,
    force: bool = False,
    started: Callable[[str], None] | None = None,
) -> Generator[Outcome, None, None]:
    """Run all units, and tell of each when it is over.

    Args:
        units: each after those that it needs.
        out: folder of all runs.
        workers: processes on this machine; 0 runs one after the other in this process. One for two cores if None.
        scheduler: address of a scheduler that runs already, in place of ``workers``.
        threads: for the numerical libraries of each kernel; the machine's cores shared out evenly if None.
        force: run again what is finished.
        started: told where the work is done, one sentence.

    Yields:
        The outcomes, in the order in which they come.

    Raises:
        InputError: both workers and a scheduler, or a number that makes no sense.
        ResourceError: the scheduler can't be reached, has no workers, or went away.
    """
    if workers is not None and scheduler is not None:
        raise InputError("Give either a number of workers on this machine or the address of a scheduler, not both.")
    if (workers is not None and workers < 0) or (threads is not None and threads < 1):
        raise InputError("The number of workers can't be negative, and a run needs at least one thread.")
    place = Path(out).resolve()
    replaced = {}
    for unit in units:
        there = finished_run(place, unit.name, unit.key) if force else None
        replaced[unit.key] = there["id"] if there else ""
    tell = started or (lambda text: None)
    count = default_workers() if workers is None else workers
    if scheduler is None and count == 0:
        share = threads or usable_cores()
        tell(f"in this process, {share} threads")
        yield from _one_by_one(units, place, share, replaced)
        return
    # No worker more than there are runs to share out.
    count = max(1, min(count, len(units)))
    with _connected(scheduler, count, threads) as (client, where, share):
        tell(where)
        yield from _spread(client, units, place, share, replaced, scheduler)


def _one_by_one(units: Sequence[Unit], out: Path, threads: int, replaced: Mapping[str, str]) -> Iterator[Outcome]:
    done: dict[str, Outcome] = {}
    for unit in units:
        before = [done[key] for key in unit.needs if key in done]
        done[unit.key] = run_unit(unit, out, before, threads=threads, replace=replaced[unit.key])
        yield done[unit.key]


def _spread(
    client: Client, units: Sequence[Unit], out: Path, threads: int, replaced: Mapping[str, str], address: str | None
) -> Iterator[Outcome]:
    from distributed import as_completed

    session = uuid.uuid4().hex
    futures: dict[str, Any] = {}
    unit_of = {}
    for order, unit in enumerate(units):
        future = client.submit(
            run_unit,
            unit,
            str(out),
            [futures[key] for key in unit.needs if key in futures],  # dask waits for these
            threads=threads,
            replace=replaced[unit.key],
            session=session,
            key=f"{unit.name}-{session[:8]}",
            pure=False,
            priority=-order,
        )
        futures[unit.key] = future
        unit_of[future.key] = unit
    waiting = dict(unit_of)
    completed = as_completed(list(futures.values()), loop=client.loop, with_results=True, raise_errors=False)
    try:
        while waiting:
            batch = completed.next_batch(block=False)
            if not batch:
                if client.status in ("closed", "closing"):  # it tried to connect again for a while
                    raise ResourceError(LOST.format(address or ""))
                time.sleep(_POLL)
            for future, result in batch:
                if future.status in ("cancelled", "lost"):
                    raise ResourceError(LOST.format(address or ""))
                unit = waiting.pop(future.key)
                yield _outcome(unit, future, result, out)
    finally:
        if waiting:
            # Interrupted: nothing further is started, and what is at work is stopped.
            with suppress(Exception):  # the way out; whatever goes wrong on it is no news
                client.cancel(list(futures.values()), force=True)
                client.run(stop_session, session, on_error="ignore")


def _outcome(unit: Unit, future: Any, result: Any, out: Path) -> Outcome:
    if future.status == "finished" and isinstance(result, Outcome):
        if result.is_done and finished_run(out, unit.name, unit.key) is None:
            reason = f"it is finished on {result.host}, but not in {out} here; --out must be a folder that all share."
            return Outcome(unit.name, "failed", result.seconds, reason=reason, host=result.host)
        return result
    if finished_run(out, unit.name, unit.key) is not None:
        return Outcome(unit.name, "finished")  # the worker died between its last step and its answer
    reason = str(result[1]) if isinstance(result, tuple) and len(result) > 1 else f"dask says: {future.status}"
    if "died" in reason or type(result).__name__ == "KilledWorker":
        reason = "its worker was killed again and again; mostly for want of memory."
    return Outcome(unit.name, "failed", reason=reason.strip().splitlines()[0])


@contextmanager
def _connected(scheduler: str | None, workers: int, threads: int | None) -> Iterator[tuple[Client, str, int]]:
    """A client, a sentence about where it works, and how many threads each run gets."""
    import dask
    from distributed import Client

    if scheduler is not None:
        with _client(scheduler) as client:
            yield client, *_shared_out(client, scheduler, threads)
        return
    from distributed import LocalCluster

    share = threads or max(1, usable_cores() // workers)
    # A kernel is a process below its worker, so a limit on the worker's own memory would measure the wrong thing.
    options = {
        "n_workers": workers,
        "threads_per_worker": 1,
        "processes": True,
        "memory_limit": 0,
        "dashboard_address": None,
        "host": "127.0.0.1",
        "silence_logs": 50,
    }
    with dask.config.set({"distributed.comm.timeouts.connect": "120s", "distributed.worker.daemon": True}):
        with _unheard_interrupts():
            cluster = LocalCluster(**options)
        try:
            with Client(cluster, set_as_default=False) as client:
                noun = "worker" if workers == 1 else "workers"
                yield client, f"on {workers} {noun} of this machine, {share} threads each", share
        finally:
            cluster.close(timeout=20)


@contextmanager
def _client(address: str) -> Iterator[Client]:
    from distributed import Client

    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise ResourceError(
            f"There is no Dask scheduler at {address!r} ({str(error).splitlines()[0]}); "
            "start one with `dask scheduler`, and give the address that it prints."
        ) from error
    logger = logging.getLogger("distributed.client")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # that the scheduler went away is told by an error of ours
    try:
        yield client
    finally:
        logger.setLevel(level)
        with suppress(Exception):  # a scheduler that went away can't be taken leave of
            client.close(timeout=10)


def _shared_out(client: Client, address: str, threads: int | None) -> tuple[str, int]:
    """Where the workers are, and how many threads a run may use so that those of one machine don't fight."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if not workers:
        raise ResourceError(f"The scheduler {address} has no workers; start some with `dask worker {address}`.")
    slots: dict[str, int] = {}
    for facts in workers.values():
        slots[facts["host"]] = slots.get(facts["host"], 0) + facts["nthreads"]
    cores = client.run(usable_cores)
    share = threads or min(max(1, cores[name] // slots[facts["host"]]) for name, facts in workers.items())
    count = sum(slots.values())
    where = f"on {len(workers)} workers of {len(slots)} machines at {address}, {count} runs at once"
    return f"{where}, {share} threads each", share


@contextmanager
def _unheard_interrupts() -> Iterator[None]:
    """Processes started in here don't hear Ctrl-C: this process does, and tells them in good order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
