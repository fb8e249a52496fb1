"""How ``rsovlib reproduce`` ends when it is told to: Ctrl-C, SIGTERM (a batch system, ``timeout``), a closed terminal.

The first signal unwinds the stack, so that workers and kernels are ended and files are whole or not there. That is
quick, but a loaded machine or a library may hold it up; so after some seconds, or at a second signal, the process and
all that it has started end at once. Nothing is lost by that: a run counts when its folder was renamed, and not before.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

GRACE = 5.0
"""Seconds for an orderly end, and again for the end of the interpreter."""

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


@contextmanager
def ending_promptly() -> Iterator[None]:
    """Within the block the first of these signals raises ``KeyboardInterrupt`` or ``SystemExit(128 + number)``.

    A signal that was ignored before (SIGHUP under ``nohup``) stays so. Outside of the main thread nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ending = _Ending()
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    heard = [number for number in numbers if before[number] not in (signal.SIG_IGN, None)]
    for number in heard:
        signal.signal(number, ending.hear)
    try:
        yield
    finally:
        ending.over.set()
        for number in heard:
            signal.signal(number, before[number])


class _Ending:
    """What has been heard, and the thread that sees to the end."""

    def __init__(self) -> None:
        import psutil  # here, since at the end nothing can be imported any more

        self.failed, self.process = psutil.Error, psutil.Process()
        self.over = threading.Event()  # the block has been left
        self.leaving = threading.Event()  # the interpreter ends
        self.number = 0

    def hear(self, number: int, frame: FrameType | None) -> None:
        """The handler of all signals."""
        if self.number:
            self.end()
        self.number = number
        atexit.register(self.leaving.set)
        threading.Thread(target=self.watch, daemon=True).start()
        if number == getattr(signal, "SIGHUP", None):
            _forget_terminal()
        else:
            _say("\nrsovlib: stopping; what is finished is kept. Once more to stop at once.\n")
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    def watch(self) -> None:
        """Wait for an orderly end, and bring about another one if it doesn't come."""
        if not self.over.wait(GRACE):
            self.end()
        self.leaving.wait()
        time.sleep(GRACE)
        self.end()

    def end(self) -> None:
        """End this process and all below it."""
        with suppress(self.failed):
            for process in self.process.children(recursive=True):
                with suppress(self.failed):
                    process.kill()
        os._exit(128 + self.number)


def _say(text: str) -> None:
    """To standard error, past Python's buffers, which the interrupted code may be just writing to."""
    with suppress(OSError, ValueError):
        os.write(sys.stderr.fileno(), text.encode())


def _forget_terminal() -> None:
    """Writing to a terminal that was closed is an error; what is left to say goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            if stream.isatty():
                os.dup2(nowhere, stream.fileno())
