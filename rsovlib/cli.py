"""The command line: ``rsovlib segment``, ``reproduce``, ``report``, ``data``, ``weights``.

Whatever a user can get wrong ends in one sentence on standard error and exit code 2, as argparse's own errors do.
Libraries are imported inside the commands, so that ``--help`` and mistakes in the arguments answer at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import rsovlib
from rsovlib.commands import data, report, reproduce, segment, weights
from rsovlib.errors import RsovError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_TERMINATED = 128 + signal.SIGTERM
EXIT_BROKEN_PIPE = 128 + 13  # SIGPIPE, by number: Windows has none


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: those of the command line if None.

    Returns:
        The exit code: 0; 1 when ``rsovlib data check`` found something wrong or a run of ``rsovlib reproduce`` failed;
        2 for anything that the user can mend; 130 after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        with _unwinding_when_terminated():
            code = command(options)
            sys.stdout.flush()
    except RsovError as error:
        print(f"rsovlib: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`rsovlib weights list | head`); Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rsovlib",
        description="Open-vocabulary segmentation of remote-sensing imagery: type class names, get a map.",
    )
    parser.add_argument("--version", action="version", version=f"rsovlib {rsovlib.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (segment, reproduce, report, data, weights):
        command.add_parser(commands)
    return parser


@contextmanager
def _unwinding_when_terminated() -> Iterator[None]:
    """Let SIGTERM (a batch system, `timeout`) unwind the stack like Ctrl-C does, so that no temporary file is left."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(EXIT_TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may decide about signals
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
