"""Who computes the tiles: this process, several processes of this machine, or the workers of a Dask cluster.

A crew takes tasks as they are needed and gives their pieces back in whatever order they are ready; at most two tasks
for each worker are under way, so that memory does not grow with the scene. Nobody but the caller writes anything.
"""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any, Protocol

import rsovlib
from rsovlib.data.tile_work import Job, Piece, Segmenter, Task, Worker
from rsovlib.errors import InputError, RasterError, ResourceError, RsovError

_AHEAD = 2
"""Tasks under way for each worker: one that it computes, and one that waits at its door."""

_PATIENCE = 30
"""Seconds to wait for a scheduler, and for its first worker."""


def _batches(tasks: Iterable[Task], size: int) -> Iterator[list[Task]]:
    """The tasks, so many at a time."""
    source = iter(tasks)
    while several := list(itertools.islice(source, size)):
        yield several


class Crew(Protocol):
    """Computes tasks."""

    def run(self, tasks: Iterable[Task], batch: int = 1) -> Iterator[tuple[Task, Piece]]:
        """The pieces of all tasks, in any order; tasks are taken from the iterable when there is room for them.

        Args:
            tasks: what is to be done.
            batch: so many tasks go to a worker at once.
        """
        ...


class Alone:
    """This process computes, one task after another.

    Args:
        job: the scene.
        segmenter: the segmenter, made already.
    """

    def __init__(self, job: Job, segmenter: Segmenter) -> None:
        self._worker = Worker.of(job, segmenter)

    def run(self, tasks: Iterable[Task], batch: int = 1) -> Iterator[tuple[Task, Piece]]:
        """In the order of the tasks."""
        for several in _batches(tasks, batch):
            yield from zip(several, self._worker.do(several), strict=True)

    def close(self) -> None:
        """Close the scene."""
        self._worker.close()


@contextmanager
def alone(job: Job, segmenter: Segmenter) -> Iterator[Crew]:
    """A crew of one: this process."""
    torch = sys.modules.get("torch")
    threads = None if torch is None else torch.get_num_threads()
    crew = Alone(job, segmenter)
    try:
        yield crew
    finally:
        crew.close()
        if torch is not None:
            torch.set_num_threads(threads)


@contextmanager
def processes(job: Job, count: int) -> Iterator[Crew]:
    """A crew of processes of this machine; each loads the models once.

    Args:
        job: the scene; travels to each process once.
        count: number of processes, at least 1.

    Raises:
        InputError: the segmenter can't be sent to another process.
    """
    try:
        pickle.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"This segmenter can't be sent to other processes ({error}); define it at the top of a module that they "
            "can import, or use one worker."
        ) from error
    # Fresh processes: forking one in which a library has threads can hang.
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_begin, initargs=(job,))
    try:
        yield _Pool(pool, count)
    finally:
        # Also when the caller is interrupted: the workers end after the tile that they are at.
        pool.shutdown(wait=True, cancel_futures=True)


class _Pool:
    def __init__(self, pool: ProcessPoolExecutor, count: int) -> None:
        self._pool = pool
        self._count = count

    def run(self, tasks: Iterable[Task], batch: int = 1) -> Iterator[tuple[Task, Piece]]:
        waiting: dict[Future[list[Piece]], list[Task]] = {}
        source = _batches(tasks, batch)
        try:
            while True:
                while len(waiting) < _AHEAD * self._count and (several := next(source, None)) is not None:
                    waiting[self._pool.submit(_work, several)] = several
                if not waiting:
                    return
                for done in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield from zip(waiting.pop(done), done.result(), strict=True)
        except BrokenProcessPool as error:
            raise ResourceError(
                f"One of the {self._count} worker processes ended before its work; is there too little memory? Use "
                "fewer workers or smaller tiles, or see what it printed."
            ) from error


_here: dict[str, Any] = {}
"""In a worker process: its Worker, or why there is none."""


def _begin(job: Job) -> None:
    # Ctrl-C reaches all processes of a terminal; the first one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    os.environ.setdefault("GDAL_CACHEMAX", "128")  # MB; GDAL's default is a share of the machine for every process
    if job.threads is not None and "torch" not in sys.modules:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
            os.environ[name] = str(job.threads)
    try:
        _here["worker"] = Worker.of(job)
    except RsovError as error:  # raised here, it would only break the pool
        _here["error"] = error


def _work(tasks: list[Task]) -> list[Piece]:
    if "error" in _here:
        raise _here["error"]
    worker: Worker = _here["worker"]
    return worker.do(tasks)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone: killed, it can't tell anybody to stop."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def cluster(job: Job, address: str) -> Iterator[Crew]:
    """A crew of all workers of a Dask cluster; those that join later work too.

    The workers read the scene themselves, so it must lie under the same path for all of them.

    Args:
        job: the scene.
        address: of the scheduler, such as ``tcp://10.0.0.1:8786``.

    Raises:
        InputError: nobody answers at the address, there are no workers, or they have another version of rsovlib.
        RasterError: a worker doesn't find the scene.
    """
    from distributed import Client

    try:
        client = Client(address, timeout=_PATIENCE, name="rsovlib-scene", set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(
            f"No Dask scheduler answers at {address!r}; start one with `dask scheduler` and give the address that it "
            "prints, such as tcp://127.0.0.1:8786."
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError as error:
            raise InputError(
                f"The scheduler at {address} has no workers; start some with `dask worker {address} --nthreads 1`."
            ) from error
        _check_workers(client, job)
        yield _Cluster(client, job)


class _Cluster:
    def __init__(self, client: Any, job: Job) -> None:
        self._client = client
        self._job = client.scatter(job, broadcast=True, hash=False)

    def run(self, tasks: Iterable[Task], batch: int = 1) -> Iterator[tuple[Task, Piece]]:
        from distributed import KilledWorker
        from distributed import wait as wait_for

        waiting: dict[Any, list[Task]] = {}
        source = _batches(tasks, batch)
        room = self._room()
        try:
            while True:
                while len(waiting) < room and (several := next(source, None)) is not None:
                    waiting[self._client.submit(compute_tiles, self._job, several, pure=False)] = several
                if not waiting:
                    return
                try:
                    with self._client.as_current():
                        finished = wait_for(list(waiting), timeout=5, return_when="FIRST_COMPLETED").done
                except TimeoutError:
                    finished = set()
                room = self._room()
                for done in finished:
                    several = waiting.pop(done)
                    pieces = done.result()
                    done.release()  # or the cluster would keep every piece until the end
                    yield from zip(several, pieces, strict=True)
        except KilledWorker as error:
            raise ResourceError(
                "A tile ended several workers of the cluster, one after another; is there too little memory? Use "
                "smaller tiles, or workers with more memory."
            ) from error
        except (OSError, TimeoutError, CancelledError) as error:
            if isinstance(error, RsovError):
                raise
            raise self._lost() from error
        finally:
            self._cancel(list(waiting))

    def _room(self) -> int:
        if self._client.status != "running":
            raise self._lost()
        return _AHEAD * max(1, len(self._client.nthreads()))

    def _lost(self) -> ResourceError:
        return ResourceError(
            "The Dask cluster lost its scheduler or all of its workers; start it again and repeat the command: "
            "finished tiles are not computed again."
        )

    def _cancel(self, futures: list[Any]) -> None:
        if futures and self._client.status == "running":
            self._client.cancel(futures)


_turn = threading.Lock()


def compute_tiles(job: Job, tasks: list[Task]) -> list[Piece]:
    """What a Dask worker runs; it loads the models at its first tile, and keeps them for the next ones."""
    with _turn:
        worker: Worker | None = _here.get(job.name)
        if worker is None:
            # One scene at a time: its models need not be held beside those of the last. (Not closed: another thread
            # may be in the middle of a tile of it.)
            _here.clear()
            worker = _here[job.name] = Worker.of(job)
    return worker.do(tasks)


def _check_workers(client: Any, job: Job) -> None:
    """Ask every worker whether it can do the work at all."""
    for path in (job.path, *([] if job.radar is None else [job.radar.path])):
        _check_path(client, path)


def _check_path(client: Any, path: str) -> None:
    here = Path(path)
    size = here.stat().st_size if here.is_file() else None
    for worker, (version, found) in client.run(_look, path).items():
        if version != rsovlib.__version__:
            raise InputError(
                f"The worker {worker} has rsovlib {version}, and this is {rsovlib.__version__}; install the same there."
            )
        if size is not None and found != size:
            state = "finds no" if found is None else "finds another"
            raise RasterError(
                f"The worker {worker} {state} {path}; put the scene where all workers reach it under one path."
            )


def _look(path: str) -> tuple[str, int | None]:
    file = Path(path)
    return rsovlib.__version__, file.stat().st_size if file.is_file() else None
