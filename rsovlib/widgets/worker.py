"""One background thread that only ever works on the latest wish.

While a slider moves, dozens of wishes arrive. The running one is told to stop and its result is dropped; those that
came in between are never begun. The kernel stays free for the next message all the while.
"""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from rsovlib.errors import RsovError

_log = logging.getLogger(__name__)


class Superseded(Exception):  # noqa: N818 - no error, but the usual end of most wishes
    """A newer wish has come: the work on this one ends here."""


class Ticket:
    """What a job asks whether it is still wanted."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Say that it isn't wanted any more."""
        self._stopped.set()

    def stopped(self) -> bool:
        """Whether it isn't wanted any more; solvers ask this between their iterations."""
        return self._stopped.is_set()

    def check(self) -> None:
        """Raise :class:`Superseded` if it isn't wanted any more."""
        if self.stopped():
            raise Superseded


Job = Callable[[Ticket], Any]


class LatestWins:
    """Runs jobs one at a time; a new one replaces whatever waits, and cancels what runs.

    Args:
        threaded: False runs every job at once in the caller's thread, for tests and for scripts.
        on_error: gets one sentence when a job fails.
        on_busy: gets True when work begins and False when there is none left.

    Attributes:
        submitted, finished, dropped: how many jobs came, were completed, and were overtaken.
    """

    def __init__(
        self,
        threaded: bool = True,
        on_error: Callable[[str], None] | None = None,
        on_busy: Callable[[bool], None] | None = None,
    ) -> None:
        self.threaded = threaded
        self.submitted = self.finished = self.dropped = 0
        self._on_error = on_error or (lambda sentence: None)
        self._on_busy = on_busy or (lambda busy: None)
        self._condition = threading.Condition()
        self._waiting: tuple[Job, Ticket] | None = None
        self._running: Ticket | None = None
        self._idle_work: tuple[Iterator[Any], Ticket] | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        _open_workers.add(self)

    def submit(self, job: Job) -> None:
        """Let this job be the latest wish."""
        ticket = Ticket()
        self.submitted += 1
        if not self.threaded:
            self._run(job, ticket)
            self._on_busy(False)
            return
        with self._condition:
            if self._closed:
                return
            if self._waiting is not None:
                self.dropped += 1
            if self._running is not None:
                self._running.stop()
            self._waiting = (job, ticket)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="rsovlib-widget", daemon=True)
                self._thread.start()
            self._condition.notify_all()

    def when_idle(self, steps: Iterator[Any] | None) -> None:
        """Work to go on with, step by step, whenever nobody waits for anything else; None ends it."""
        if not self.threaded:
            self._run(lambda ticket: list(steps or ()), Ticket())
            return
        with self._condition:
            if self._idle_work is not None:
                self._idle_work[1].stop()
            self._idle_work = None if steps is None or self._closed else (steps, Ticket())
            if self._idle_work and self._thread is None:
                self._thread = threading.Thread(target=self._work, name="rsovlib-widget", daemon=True)
                self._thread.start()
            self._condition.notify_all()

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait until nothing is left to do; False if that takes longer."""
        with self._condition:
            return self._condition.wait_for(
                lambda: self._waiting is None and self._running is None and self._idle_work is None, seconds
            )

    def close(self) -> None:
        """Drop everything and end the thread."""
        with self._condition:
            self._closed = True
            self._waiting = self._idle_work = None
            if self._running is not None:
                self._running.stop()
            self._condition.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(10)

    # ---- the thread ----------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closed or self._waiting is not None or self._idle_work)
                if self._closed:
                    return
                job = self._next_job()
            self._run(*job)
            with self._condition:
                self._running = None
                busy = self._waiting is not None
                self._condition.notify_all()
            if not busy:
                self._on_busy(False)

    def _next_job(self) -> tuple[Job, Ticket]:
        if self._waiting is not None:
            job, ticket = self._waiting
            self._waiting, self._running = None, ticket
            return job, ticket
        assert self._idle_work is not None  # what the condition above waited for
        steps, own = self._idle_work
        self._running = Ticket()

        def one_step(_ticket: Ticket) -> None:
            try:
                next(steps)
            except StopIteration:
                self._end_idle(own)
            except Superseded:
                raise
            except BaseException:
                self._end_idle(own)
                raise

        return one_step, self._running

    def _end_idle(self, ticket: Ticket) -> None:
        with self._condition:
            if self._idle_work is not None and self._idle_work[1] is ticket:
                self._idle_work = None

    def _run(self, job: Job, ticket: Ticket) -> None:
        self._on_busy(True)
        try:
            job(ticket)
            self.finished += 1
        except Superseded:
            self.dropped += 1
        except RsovError as error:
            self._on_error(one_sentence(error))
        except Exception as error:  # the thread must live on, and the person must learn of it
            _log.debug("A step of the workbench failed.", exc_info=True)
            self._on_error(f"Something went wrong that should not have: {type(error).__name__}: {one_sentence(error)}")


def one_sentence(error: BaseException) -> str:
    """An error as a single line."""
    return " ".join(str(error).split()) or type(error).__name__


_open_workers: weakref.WeakSet[LatestWins] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """A thread inside torch while the interpreter goes away would end in a crash."""
    for worker in list(_open_workers):
        worker.close()
