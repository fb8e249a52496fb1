"""One notebook in one kernel: executed by papermill, with an environment and a folder of the kernel's own.

papermill changes the working folder of its whole process for a notebook, and hands the process's environment to the
kernel. Two runs in one worker would stand in each other's way, so the kernel gets both directly. And a kernel that dies
leaves a notebook that looks like success, so nothing here is judged by the notebook: what doesn't raise has succeeded.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

ENGINE = "rsovlib"

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)

_OF_WORKERS = {"MALLOC_TRIM_THRESHOLD_": "65536"}
"""What Dask sets for its workers and is no good for kernels: memory goes back to the system at every ``free``, and the
next tensor has to have its pages made anew. Notebooks of many small tensors take up to six times as long with it."""

_STARTS = 3
"""How often a kernel may be started before the first cell. Its ports are chosen, let go, and only then bound by the
kernel itself: of many that start at the same time one may find its port taken."""

_clients: dict[str, list[Any]] = {}
"""Session -> papermill clients at work in this process, so that somebody else's thread can stop them."""
_stopped: set[str] = set()
_lock = threading.Lock()


class NotebookFailedError(Exception):
    """A notebook didn't come to its end.

    Attributes:
        cell: which one: ``"In [3]: x = 1 / 0"``; "" where none is to blame.
        error: the last line of what it raised.
        stopped: whether it was stopped from outside rather than failed.
    """

    def __init__(self, error: str, cell: str = "", stopped: bool = False) -> None:
        super().__init__(error, cell, stopped)  # all of them, so that it can be sent to another process
        self.error, self.cell, self.stopped = error, cell, stopped

    def __str__(self) -> str:
        return f"{self.cell}: {self.error}" if self.cell else self.error


class _NeverStartedError(NotebookFailedError):
    """The kernel died before the first cell, so that nothing has happened yet."""


def execute_notebook(
    source: Path,
    target: Path,
    parameters: Mapping[str, Any],
    *,
    folder: Path,
    variables: Mapping[str, str] | None = None,
    threads: int = 0,
    session: str = "",
    log: Path | None = None,
) -> None:
    """Execute a notebook from its first cell to its last.

    Args:
        source: the notebook.
        target: where the executed one is written, also after a failure.
        parameters: for its ``parameters`` cell.
        folder: the kernel's working folder.
        variables: of the environment, on top of this process's.
        threads: for the numerical libraries in the kernel; 0 leaves that to them.
        session: a name that :func:`stop_session` knows it by.
        log: file for what the kernel itself says, a crash for example; None leaves that on this process's terminal.

    Raises:
        NotebookFailedError: a cell raised something, or the kernel died or was stopped.
    """
    from traitlets.config import Config

    _register_engine()
    # papermill can't read `int | None` and warns of an unknown parameter; ours were checked before.
    logging.getLogger("papermill").setLevel(logging.ERROR)
    inherited = {name: value for name, value in os.environ.items() if _OF_WORKERS.get(name) != value}
    environment = {**inherited, **(variables or {})}
    if threads > 0:
        environment |= dict.fromkeys(THREAD_VARIABLES, str(threads))
    options = {
        "engine_name": ENGINE,
        "kernel_name": "python3",
        "progress_bar": False,
        "log_output": False,
        "start_timeout": 300,  # a loaded machine, not a broken one
        # Without it every kernel start prints a warning about unencrypted TCP on the machine's own loopback.
        "config": Config({"KernelManager": {"transport_encryption": "auto"}}),
        "environment": environment,
        "folder": str(folder),
        "session": session,
        "log": log,
    }
    for start in range(1, _STARTS + 1):
        try:
            return _execute_once(source, target, dict(parameters), options)
        except _NeverStartedError:
            if start == _STARTS:
                raise


def _execute_once(source: Path, target: Path, parameters: dict[str, Any], options: Mapping[str, Any]) -> None:
    """Start a kernel and execute all cells; ``options`` are papermill's and the engine's."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    processes: list[Any] = []
    try:
        papermill.execute_notebook(str(source), str(target), parameters, processes=processes, **options)
    except PapermillExecutionError as error:
        lines = f"{error.ename}: {error.evalue}".strip().splitlines() or [error.ename]
        first = next((line for line in error.source.splitlines() if line.strip()), "")
        stopped = error.ename == "KeyboardInterrupt"
        raise NotebookFailedError(lines[-1], f"In [{error.exec_count}]: {first}", stopped) from error
    except RuntimeError as error:
        if options["session"] in _stopped:
            raise NotebookFailedError("stopped", stopped=True) from error
        if isinstance(error, DeadKernelError):
            raise NotebookFailedError(_obituary(processes[-1] if processes else None), _last_cell(target)) from error
        # jupyter_client: the kernel died before it was ready
        raise _NeverStartedError(f"the kernel could not be started ({error}).") from error


def stop_session(session: str) -> int:
    """Kill the kernels that this process runs for a session; no further one is started for it.

    Returns:
        How many there were.
    """
    with _lock:
        _stopped.add(session)
        clients = list(_clients.get(session, ()))
    for client in clients:
        _kill(client)
    return len(clients)


def _kill(client: Any) -> None:
    provisioner = getattr(client.km, "provisioner", None)
    pid = getattr(provisioner, "pid", None)
    if pid:
        with suppress(OSError):
            os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def _register_engine() -> None:
    """Make papermill know an engine that gives the kernel an environment and a folder."""
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine, papermill_engines

    if ENGINE in papermill_engines._engines:
        return

    class PromptClient(PapermillNotebookClient):
        """papermill's own, but for the end of an interrupted notebook."""

        def papermill_execute_cells(self) -> None:
            """Interrupted, the kernel is killed: one that is asked to leave, and busy, would be waited for."""
            try:
                super().papermill_execute_cells()
            except (KeyboardInterrupt, SystemExit):
                _kill(self)
                raise

    class OwnFolderEngine(NBClientEngine):
        """papermill's own, but for the kernel's start."""

        @classmethod
        def execute_managed_notebook(
            cls,
            nb_man: Any,
            kernel_name: str,
            log_output: bool = False,
            stdout_file: Any = None,
            stderr_file: Any = None,
            start_timeout: int = 60,
            execution_timeout: int | None = None,
            environment: Mapping[str, str] | None = None,
            folder: str | None = None,
            session: str = "",
            log: Path | None = None,
            processes: list[Any] | None = None,
            **options: Any,
        ) -> Any:
            options.pop("input_path", None)
            client = PromptClient(
                nb_man,
                kernel_name=kernel_name,
                startup_timeout=start_timeout,
                timeout=execution_timeout,
                log_output=False,
                **options,
            )

            def remember_process(**_: Any) -> None:
                # nbclient forgets the process when the kernel is dead, and its exit code with it.
                if processes is not None and not processes:
                    processes.append(getattr(client.km.provisioner, "process", None))

            client.on_cell_start = remember_process
            with _lock:
                if session in _stopped:
                    raise NotebookFailedError("stopped", stopped=True)
                _clients.setdefault(session, []).append(client)
            try:
                with ExitStack() as open_files:
                    words = open_files.enter_context(log.open("ab")) if log is not None else None
                    return client.execute(env=dict(environment or os.environ), cwd=folder, stdout=words, stderr=words)
            finally:
                with _lock:
                    _clients[session].remove(client)

    papermill_engines.register(ENGINE, OwnFolderEngine)


def _last_cell(target: Path) -> str:
    """The last cell that was begun, from what papermill saved of it."""
    code = [cell for cell in _cells(target) if cell["cell_type"] == "code"]
    begun = [cell for cell in code if cell["metadata"].get("papermill", {}).get("start_time")]
    if not begun:
        return ""
    # Cells are begun in order, each with the next number; the one that died may not have been told its own.
    first = next((line for line in "".join(begun[-1]["source"]).splitlines() if line.strip()), "")
    return f"In [{len(begun)}]: {first}"


def _obituary(process: Any) -> str:
    """How the kernel died, as far as the system tells: by which signal, or with which exit code."""
    code = process.poll() if process is not None else None
    why = "the system gave no reason"
    if code is not None and code < 0:
        why = f"killed by {signal.Signals(-code).name}"
        if -code == getattr(signal, "SIGKILL", None):
            why += ", mostly for want of memory"
    elif code is not None:
        why = f"it left by itself with exit code {code}"
    return f"DeadKernelError: the kernel died ({why})."


def _cells(target: Path) -> list[dict[str, Any]]:
    import json

    try:
        return list(json.loads(target.read_text(encoding="utf-8"))["cells"])
    except (OSError, ValueError, KeyError):
        return []
