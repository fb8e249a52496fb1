"""Many runs on one machine or on a cluster, by ``dask.distributed``, each after those that it needs.

A worker runs one notebook at a time in a kernel of its own. Without an address a cluster of processes is started on
this machine; with one, the work goes to the workers of a scheduler that runs already. A worker that is killed gets its
run taken away and given to another one.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsovlib.errors import InputError, ResourceError
from rsovlib.experiments.digits import counted
from rsovlib.experiments.execution import stop_session
from rsovlib.experiments.matrix import Unit
from rsovlib.experiments.runs import Outcome, finished_run, run_unit

if TYPE_CHECKING:
    from distributed import Client, LocalCluster, Nanny

LOST = "The scheduler {} doesn't answer any more; what was finished is kept. Start it and its workers, and run again."

CONNECT_SECONDS = 20
"""How long a scheduler may take to answer; one that is just starting takes a few."""

START_SECONDS = 300
"""How long workers of this machine may take to start; on a loaded one it is a minute."""

_FAREWELL = 2
"""Seconds that taking leave of other processes may take; they get along without it."""

_POLL = 0.1
"""Seconds between two looks for results; a run takes many of them."""


@dataclass(frozen=True)
class Site:
    """Where runs are done.

    Attributes:
        text: one sentence's end, for people: ``"on 2 workers of this machine, 1 thread each"``.
        lanes: how many runs go on side by side.
        threads: of each for the numerical libraries.
        host: this machine's name; "" for a cluster of other machines.
    """

    text: str
    lanes: int
    threads: int
    host: str


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
    started: Callable[[Site], None] | None = None,
) -> Generator[Outcome, None, None]:
    """Run all units, and tell of each when it is over.

    Args:
        units: each after those that it needs.
        out: folder of all runs.
        workers: processes on this machine; 0 runs one after the other in this process. One for two cores if None.
        scheduler: address of a scheduler that runs already, in place of ``workers``.
        threads: for the numerical libraries of each kernel; the machine's cores shared out evenly if None.
        force: run again what is finished.
        started: told where the work is done, before the first run begins.

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
    tell = started or (lambda site: None)
    count = default_workers() if workers is None else workers
    if scheduler is None and count == 0:
        share = threads or usable_cores()
        tell(Site(f"in this process, {counted(share, 'thread')}", 1, share, socket.gethostname()))
        yield from _one_by_one(units, place, share, replaced)
        return
    # No worker more than there are runs to share out.
    count = max(1, min(count, len(units)))
    with _connected(scheduler, count, threads) as (client, site):
        tell(site)
        yield from _spread(client, units, place, site.threads, replaced, scheduler)


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
    turn = {key: number for number, key in enumerate(most_urgent_first(units))}
    for unit in units:
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
            priority=-turn[unit.key],
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
        if waiting and address is not None:
            _stop_elsewhere(client, list(futures.values()), session)


def most_urgent_first(units: Sequence[Unit]) -> list[str]:
    """The keys in the order of what waits for them: a long run that is begun last keeps one worker busy alone.

    Args:
        units: each after those that it needs.

    Returns:
        Keys, those first whose run, with the runs that can only come after it, takes longest; otherwise as given.
    """
    chain: dict[str, float] = {}
    for unit in reversed(units):
        chain[unit.key] = unit.minutes + chain.get(unit.key, 0.0)
        for key in unit.needs:
            chain[key] = max(chain.get(key, 0.0), chain[unit.key])
    return sorted((unit.key for unit in units), key=lambda key: -chain[key])


def _stop_elsewhere(client: Client, futures: list[Any], session: str) -> None:
    """Interrupted: nothing further is started on a cluster of others, and the kernels at work there are stopped."""

    def stop() -> None:
        with suppress(Exception):  # the way out; whatever goes wrong on it is no news
            client.cancel(futures, force=True)
            client.run(stop_session, session, on_error="ignore")

    # In a thread, since workers that don't answer would be waited for without end.
    messenger = threading.Thread(target=stop, daemon=True)
    messenger.start()
    messenger.join(_FAREWELL)


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
def _connected(scheduler: str | None, workers: int, threads: int | None) -> Iterator[tuple[Client, Site]]:
    """A client, and where it works."""
    import dask
    from distributed import Client

    if scheduler is not None:
        with _client(scheduler) as client:
            yield client, _shared_out(client, scheduler, threads)
        return
    share = threads or max(1, usable_cores() // workers)
    with dask.config.set({"distributed.comm.timeouts.connect": "120s", "distributed.worker.daemon": True}):
        cluster, nannies = _local_cluster()
        with _quiet():  # dask complains of workers that are killed, here on purpose
            try:
                with Client(cluster, set_as_default=False) as client:
                    _start_workers(cluster, client, workers)
                    text = f"on {counted(workers, 'worker')} of this machine, {counted(share, 'thread')} each"
                    yield client, Site(text, workers, share, socket.gethostname())
            finally:
                _end(cluster, nannies)


def _local_cluster() -> tuple[LocalCluster, list[Nanny]]:
    """A cluster of this machine, still without workers, and the list that its workers' nannies will be in."""
    from distributed import LocalCluster, Nanny

    nannies: list[Nanny] = []

    class KnownNanny(Nanny):
        """The cluster itself knows a nanny only when its worker is up."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            nannies.append(self)

    # A kernel is a process below its worker, so a limit on the worker's own memory would measure the wrong thing.
    options = {
        "n_workers": 0,
        "threads_per_worker": 1,
        "processes": True,
        "worker_class": KnownNanny,
        "memory_limit": 0,
        "dashboard_address": "127.0.0.1:0",  # unwanted, but at a fixed port two commands at once would meet
        "host": "127.0.0.1",
        "silence_logs": 50,
    }
    with _terminal_unheard():
        return LocalCluster(**options), nannies


def _start_workers(cluster: LocalCluster, client: Client, workers: int) -> None:
    cluster.scale(workers)
    try:
        client.wait_for_workers(workers, timeout=START_SECONDS)
    except TimeoutError as error:
        raise ResourceError(
            f"{workers} workers didn't start within {START_SECONDS} s; this machine is too busy, or short of memory. "
            "Try --workers 1, or --workers 0 for none."
        ) from error


def _end(cluster: LocalCluster, nannies: Sequence[Nanny]) -> None:
    """End the workers and their kernels without asking them.

    Idle ones have nothing to say, and a run that was interrupted leaves nothing that counts; on a loaded machine a
    worker that is asked takes many seconds to answer, and one that is just starting doesn't answer at all.
    """
    for nanny in nannies:
        nanny.close_gracefully()  # else it starts a new worker in place of the one that is killed
    kill_trees(nanny.pid for nanny in nannies)
    with suppress(Exception):  # what doesn't go ends with this process: its workers watch it, and kernels their workers
        cluster.close(timeout=_FAREWELL)
    kill_trees(nanny.pid for nanny in nannies)


def kill_trees(pids: Iterable[int | None]) -> None:
    """Kill processes with all that they have started, by SIGKILL where the system knows it."""
    import psutil

    for pid in pids:
        with suppress(psutil.Error):
            root = psutil.Process(pid) if pid else None
            for process in [root, *root.children(recursive=True)] if root is not None else []:
                with suppress(psutil.Error):
                    process.kill()


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
    try:
        with _quiet():  # that the scheduler went away is told by an error of ours
            yield client
    finally:
        with suppress(Exception):  # a scheduler that went away can't be taken leave of
            client.close(timeout=_FAREWELL)


def _shared_out(client: Client, address: str, threads: int | None) -> Site:
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
    where = f"{counted(len(workers), 'worker')} of {counted(len(slots), 'machine')}"
    text = f"on {where} at {address}, {counted(count, 'run')} at once, {counted(share, 'thread')} each"
    return Site(text, count, share, "")


@contextmanager
def _quiet() -> Iterator[None]:
    """Dask's loggers say nothing in here; each by itself, since a cluster changes the level of their common one."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith("distributed.")]
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


@contextmanager
def _terminal_unheard() -> Iterator[None]:
    """Threads that are started in here, and all processes that they start, don't hear what a terminal says.

    Ctrl-C and a closed terminal are told to every process of the command at once. Only this thread is to hear them,
    and ends the others in good order; it goes on hearing them while the others start.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
