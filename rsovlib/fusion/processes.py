"""Several processes on this machine that do one job together, a device each; from a script as from a notebook.

The job is pickled once and unpickled in every process, so that none shares memory with another: tensors that
``torch.multiprocessing`` sends by itself lie in shared memory, where several trainings on a CPU would write over each
other's weights, and which containers have little of.
"""

from __future__ import annotations

import os
import pickle
import re
import socket
from collections.abc import Callable
from typing import Any

from rsovlib import errors
from rsovlib.errors import InputError, ResourceError, RsovError

_OWN_ERROR = re.compile(r"rsovlib\.errors\.(\w+): (.*)")


def run_in_processes(job: Callable[..., None], count: int, arguments: tuple[Any, ...]) -> None:
    """Run ``job(*arguments)`` in several fresh processes, and wait for all of them.

    Each finds what Lightning Fabric asks for in its environment: its number, and the port at which they meet.

    Args:
        job: a function at the top of a module.
        count: how many processes.
        arguments: what it gets; anything that can be pickled.

    Raises:
        InputError: the arguments can't be sent, or the calling script isn't guarded.
        RsovError: what a process raised, if it is one of this package's errors.
        ResourceError: a process failed otherwise; what it said stands on the terminal.
    """
    import multiprocessing

    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise InputError(
            "Several devices are processes that import the calling script anew; put what it does under "
            "`if __name__ == '__main__':`."
        )
    try:
        content = pickle.dumps((job, arguments))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"The training can't be sent to the processes of {count} devices ({error}); define what it is made of at "
            "the top of a module, not in a cell or within a function."
        ) from error
    crew = start_processes(_member, (content, count, _free_port()), nprocs=count, join=False, start_method="spawn")
    try:
        while not crew.join(timeout=1):
            pass
    except ProcessRaisedException as error:
        raise _own_error(str(error)) from error
    except ProcessExitedException as error:
        raise ResourceError(
            f"A process of the training on {count} devices ended ({error}), mostly for want of memory; use fewer "
            "devices or smaller batches."
        ) from error
    finally:  # Ctrl-C, and whatever else leaves processes behind
        for process in crew.processes:
            if process.is_alive():
                process.terminate()


def _member(number: int, content: bytes, count: int, port: int) -> None:
    import torch

    os.environ |= {"LOCAL_RANK": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if "OMP_NUM_THREADS" not in os.environ:  # otherwise every process would take all cores
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
    job, arguments = pickle.loads(content)
    job(*arguments)


def _own_error(text: str) -> RsovError:
    """The error of this package that ends a process's traceback; another kind of error for anything else."""
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    found = _OWN_ERROR.fullmatch(last.strip())
    kind = getattr(errors, found[1], None) if found else None
    if found and isinstance(kind, type) and issubclass(kind, RsovError):
        return kind(found[2])
    return ResourceError(f"A process of the training failed: {last.strip()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
