"""One run: a folder that is whole or isn't there.

``finished/NAME`` holds the executed notebook, its HTML page, its rows, whatever the notebook wrote, and ``run.json``.
All of that is written in ``working/``, and renamed in one step when the last byte is on the disk. A process that is
killed at any moment leaves something in ``working/`` and nothing in ``finished/``; nobody reads ``working/``.

Long runs ask for a folder in ``checkpoints/`` besides (``keeps`` of their table). It is named by the run's whole key,
so what another version of the code left is never gone on with, and it is there until the run is finished.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rsovlib
from rsovlib.errors import OutputError, RsovError
from rsovlib.experiments.execution import NotebookFailedError, execute_notebook
from rsovlib.experiments.identity import LIBRARIES, code_version, environment
from rsovlib.experiments.matrix import Unit
from rsovlib.experiments.results import CONTEXT_FILE, CONTEXT_VARIABLE, ROWS_FILE, read_rows, write_rows
from rsovlib.files import write_beside

FINISHED, FAILED, WORKING, KEPT = "finished", "failed", "working", "checkpoints"
NOTEBOOK, PAGE, RECORD, FAILURE = "notebook.ipynb", "notebook.html", "run.json", "failure.json"
KERNEL_LOG = "kernel.log"
_OWNER = "owner.json"
"""Which process a working folder belongs to; it is there until the folder is finished."""
RECORD_VERSION = 1

_ABANDONED_AFTER = 7 * 24 * 3600
"""Seconds after which the working folder of another machine is taken for abandoned."""


@dataclass(frozen=True)
class Outcome:
    """What came of one unit.

    Attributes:
        name: of the run.
        state: ``"finished"``, ``"kept"`` (finished earlier), ``"failed"``, ``"not run"`` or ``"stopped"``.
        seconds: that it took now.
        cell: the cell that failed.
        reason: why it failed or wasn't run: one line.
        host: where it ran.
    """

    name: str
    state: str
    seconds: float = 0.0
    cell: str = ""
    reason: str = ""
    host: str = ""

    @property
    def is_done(self) -> bool:
        """Whether its results are there."""
        return self.state in ("finished", "kept")


def finished_run(out: Path, name: str, key: str = "") -> dict[str, Any] | None:
    """The record of a finished run, or None if there is none (or what is there isn't whole).

    Args:
        out: folder of all runs.
        name: of the run.
        key: the whole hash that it must have, if given.
    """
    folder = out / FINISHED / name
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        whole = (
            found["version"] == RECORD_VERSION
            and found["state"] == FINISHED
            and (not key or found["key"] == key)
            and all((folder / file).stat().st_size == size for file, size in found["files"].items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if whole else None


def run_unit(
    unit: Unit,
    out: str | os.PathLike[str],
    before: Sequence[Outcome] = (),
    *,
    threads: int = 0,
    replace: str = "",
    session: str = "",
) -> Outcome:
    """Run one unit, unless it is finished already. This is what a worker does.

    Args:
        unit: what to run.
        out: folder of all runs; every worker must see the same.
        before: what came of the runs that it needs.
        threads: for the numerical libraries in the kernel.
        replace: id of a finished run that is to be made again.
        session: see :func:`rsovlib.experiments.execution.stop_session`.

    Returns:
        What came of it; errors of the notebook are an outcome, too.
    """
    place = Path(out)
    host = socket.gethostname()
    broken = [one for one in before if not one.is_done]
    if unit.missing:
        return Outcome(unit.name, "not run", reason=unit.missing, host=host)
    if broken:
        state = "stopped" if broken[0].state == "stopped" else "not run"
        return Outcome(unit.name, state, reason=f"it needs {broken[0].name}, which is {broken[0].state}.", host=host)
    there = finished_run(place, unit.name, unit.key)
    if there is not None and there["id"] != replace:
        return Outcome(unit.name, "kept", host=host)
    started = time.time()
    try:
        _check_code(unit, host)
        working = _new_working_folder(place, unit.name)
        try:
            _run_in(working, unit, place, threads, session, started)
            _publish(working, place, unit, replace)
        except NotebookFailedError as failure:
            if failure.stopped:
                return Outcome(unit.name, "stopped", time.time() - started, host=host, reason="it was stopped.")
            _keep_failure(working, place, unit, failure.cell, failure.error, host)
            return Outcome(unit.name, "failed", time.time() - started, failure.cell, failure.error, host)
        finally:
            shutil.rmtree(working, ignore_errors=True)
    except (RsovError, OSError) as error:  # a full disk, a folder that went away, another version of the code
        reason = f"{type(error).__name__}: {error}"
        return Outcome(unit.name, "failed", time.time() - started, reason=reason.splitlines()[0], host=host)
    return Outcome(unit.name, "finished", time.time() - started, host=host)


def clean_working(out: Path) -> int:
    """Remove what killed runs left behind: working folders whose process on this machine is gone.

    Those of other machines are left for a week, since nobody here knows whether they are in use.

    Returns:
        How many were removed.
    """
    import psutil

    removed = 0
    host = socket.gethostname()
    for folder in (out / WORKING).glob("*"):
        abandoned = False
        try:
            owner = json.loads((folder / _OWNER).read_text(encoding="utf-8"))
            age = time.time() - folder.stat().st_mtime
            if owner["host"] != host:
                abandoned = age > _ABANDONED_AFTER
            else:
                abandoned = not _is_running(psutil, owner["pid"], owner["born"])
        except (OSError, ValueError, KeyError):
            # Killed between making the folder and saying whose it is, or somebody is about to say it.
            with suppress(OSError):
                abandoned = time.time() - folder.stat().st_mtime > 60
        if abandoned:
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
    return removed


def _is_running(psutil: Any, pid: int, born: float) -> bool:
    """Whether that very process is alive: not another one that got its number, nor one that nobody has buried yet.

    In a container without an init process the dead of a killed command stay in the list for good.
    """
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - born) < 2 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _new_working_folder(out: Path, name: str) -> Path:
    import psutil

    folder = out / WORKING / f"{name}-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True)
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "born": psutil.Process().create_time()}
        (folder / _OWNER).write_text(json.dumps(owner), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder} can't be made ({error.strerror or error}); choose another --out.") from error
    return folder


def _check_code(unit: Unit, host: str) -> None:
    """Refuse to label results with a version of the code that didn't make them."""
    wanted, here = unit.identity["code"], code_version()
    if wanted != here:
        raise OutputError(
            f"rsovlib on {host} is version {here[:12]}, the run was planned with {wanted[:12]}; install the same "
            f"sources and libraries ({', '.join(LIBRARIES)}) on all machines, and don't change them during a run."
        )


def _run_in(working: Path, unit: Unit, out: Path, threads: int, session: str, started: float) -> None:
    """Everything up to the rename, inside the working folder."""
    from rsovlib.experiments.pages import write_html

    source = working / "source.ipynb"
    source.write_text(unit.notebook, encoding="utf-8")
    folders = {run["key"]: folder for folder, run in finished_runs(out)} if unit.needs else {}
    inputs = {parameter: str(folders[key]) for parameter, key in unit.inputs.items()}
    if unit.keeps:
        kept = _kept_folder(out, unit)
        kept.mkdir(parents=True, exist_ok=True)
        inputs[unit.keeps] = Path(os.path.relpath(kept, working)).as_posix()  # no machine's path in the notebook
    context = {
        "defaults": {
            "paper": unit.paper,
            "table": unit.table,
            "profile": unit.profile,
            "parameters": dict(unit.parameters),
            "weights": dict(unit.identity["weights"]),
            "dataset": ", ".join(unit.identity["data"]),
            "dataset_version": "; ".join(f"{name}: {version}" for name, version in unit.identity["data"].items()),
            "seed": unit.parameters.get("seed"),
            "run": unit.name,
            "code": unit.identity["code"],
        },
        "started": started,
        "before": [str(folders[key].resolve()) for key in unit.needs],
        "package": str(Path(rsovlib.__file__).resolve().parent),
    }
    (working / CONTEXT_FILE).write_text(json.dumps(context), encoding="utf-8")
    target = working / NOTEBOOK
    execute_notebook(
        source,
        target,
        {**unit.parameters, **inputs},
        folder=working,
        variables={CONTEXT_VARIABLE: str(working / CONTEXT_FILE), "PYTHONHASHSEED": "0"},
        threads=threads,
        session=session,
        log=working / KERNEL_LOG,
    )
    _check_code(unit, socket.gethostname())
    _strip_paths(target)
    write_html(target, working / PAGE)
    if not (working / ROWS_FILE).exists():
        write_rows(working / ROWS_FILE, [])
    read_rows(working / ROWS_FILE)  # nothing is finished whose rows can't be read
    for name in (source.name, CONTEXT_FILE, KERNEL_LOG):
        (working / name).unlink()
    record = {
        "version": RECORD_VERSION,
        "state": FINISHED,
        "id": uuid.uuid4().hex,
        "name": unit.name,
        "key": unit.key,
        "table": unit.table,
        "paper": unit.paper,
        "profile": unit.profile,
        "notebook": unit.notebook_name,
        "parameters": dict(unit.parameters),
        "point": dict(unit.point),
        "identity": dict(unit.identity),
        "needs": list(unit.needs),
        "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 3),
        "host": socket.gethostname(),
        "threads": threads,
        "environment": environment(),
        "files": {
            path.relative_to(working).as_posix(): path.stat().st_size
            for path in sorted(working.rglob("*"))
            if path.is_file() and not path.is_symlink() and path != working / _OWNER
        },
    }
    (working / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
    _to_disk(working)


def _publish(working: Path, out: Path, unit: Unit, replace: str) -> None:
    """The one step from nothing to finished."""
    target = out / FINISHED / unit.name
    target.parent.mkdir(parents=True, exist_ok=True)
    there = finished_run(out, unit.name, unit.key)
    if target.exists() and (there is None or there["id"] == replace):
        # The old one, or something that isn't whole, is put aside first; killed here, the run is done again.
        aside = out / WORKING / f"{unit.name}-old-{uuid.uuid4().hex[:8]}"
        os.replace(target, aside)
        shutil.rmtree(aside, ignore_errors=True)
    try:
        (working / _OWNER).unlink()  # not earlier: killed in between, nobody knew that the folder is abandoned
        os.replace(working, target)
    except OSError:
        # Another command finished the same run in the meantime: its result is as good as ours.
        if finished_run(out, unit.name, unit.key) is None:
            raise
    shutil.rmtree(out / FAILED / unit.name, ignore_errors=True)
    if unit.keeps:
        shutil.rmtree(_kept_folder(out, unit), ignore_errors=True)


def _kept_folder(out: Path, unit: Unit) -> Path:
    """Where a run keeps what it goes on from when it was stopped."""
    return out / KEPT / unit.key


def _keep_failure(working: Path, out: Path, unit: Unit, cell: str, error: str, host: str) -> None:
    """The notebook as far as it came, for whoever looks for the reason."""
    target = out / FAILED / unit.name
    content = {"name": unit.name, "notebook": unit.notebook_name, "cell": cell, "error": error, "host": host}
    with suppress(OSError):  # the failure is told in any case
        with write_beside(target / FAILURE) as temporary:
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
        os.replace(working / KERNEL_LOG, target / KERNEL_LOG)
        _strip_paths(working / NOTEBOOK)
        os.replace(working / NOTEBOOK, target / NOTEBOOK)


def finished_runs(out: str | os.PathLike[str]) -> list[tuple[Path, dict[str, Any]]]:
    """All finished runs of a folder: where each is, and its record."""
    place = Path(out)
    records = [(folder, finished_run(place, folder.name)) for folder in sorted((place / FINISHED).glob("*"))]
    return [(folder, record) for folder, record in records if record is not None]


def _strip_paths(notebook: Path) -> None:
    """Take this machine's paths out of the notebook's metadata, and what a dead panel would need."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    papermill = content["metadata"].get("papermill", {})
    for name in ("input_path", "output_path", "environment_variables"):
        papermill.pop(name, None)
    notebook.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def _to_disk(folder: Path) -> None:
    """Ask the system to write everything below a folder, so that a power cut after the rename loses nothing."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            handle = os.open(path, os.O_RDONLY)
            try:
                with suppress(OSError):  # not every file system can
                    os.fsync(handle)
            finally:
                os.close(handle)
