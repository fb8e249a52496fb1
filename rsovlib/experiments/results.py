"""Results as rows: what one number is, and how a notebook hands it over.

``record(...)`` in a notebook adds a row. While the run engine drives the notebook the rows are stored as
``rows.json`` beside it, with everything that is needed to trace them; in JupyterLab the same call only shows the row.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

import rsovlib
from rsovlib.errors import InputError
from rsovlib.files import write_beside

SCHEMA_VERSION = 1
"""Of the rows. Raise it when a field changes its name or meaning; a new optional field needs no new version."""

CONTEXT_VARIABLE = "RSOV_RUN"
"""Environment variable that tells a kernel where the run's context is."""
CONTEXT_FILE = "context.json"
ROWS_FILE = "rows.json"

KEY_FIELDS = ("paper", "table", "row", "column", "metric", "seed", "profile", "dataset", "device")
"""What tells two rows of one run apart."""


class ResultRow(BaseModel):
    """One number, and where it comes from.

    Attributes:
        paper: short name of the paper whose table it belongs to; "" for none.
        table: name of the table, as ``rsovlib reproduce`` calls it.
        row, column: place in the table, in the paper's words.
        metric: what was measured: ``"miou"``, ``"gain"``, ``"flops"``, ...
        value: the number; None if it couldn't be measured, and then ``note`` says why.
        unit: ``"percent"``, ``"GFLOP"``, ``"s"``, ...; "" for a pure number.
        low, high: ends of its confidence interval.
        level: of confidence, as a fraction.
        std: standard deviation, where there is one instead of an interval.
        n: how many images (or repetitions) stand behind it.
        seed: of the run, if it has one.
        profile: ``"embedded"`` or ``"full"``.
        dataset, dataset_version: what it was measured on.
        weights: name of each set of weights -> its SHA-256.
        parameters: of the notebook.
        device: where it was computed.
        seconds: how long it took.
        peak_memory: of the process, in bytes.
        peak_device_memory: of a GPU, in bytes.
        run: name of the run that made it.
        code: version of the code that made it.
        note: what a reader must know.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    paper: str
    table: str = Field(min_length=1)
    row: str = Field(min_length=1)
    column: str
    metric: str = Field(min_length=1)
    value: float | None
    unit: str = ""
    low: float | None = None
    high: float | None = None
    level: float | None = Field(default=None, gt=0, lt=1)
    std: float | None = Field(default=None, ge=0)
    n: int | None = Field(default=None, ge=0)
    seed: int | None = None
    profile: str
    dataset: str
    dataset_version: str = ""
    weights: dict[str, str] = Field(default_factory=dict)
    parameters: dict[str, Any] = Field(default_factory=dict)
    device: str = ""
    seconds: float | None = Field(default=None, ge=0)
    peak_memory: int | None = Field(default=None, ge=0)
    peak_device_memory: int | None = Field(default=None, ge=0)
    run: str = ""
    code: str = ""
    note: str = ""

    @field_validator("value", "low", "high", "std", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        """A NumPy or torch number as Python's; "not a number" as nothing."""
        if value is None or isinstance(value, bool | str):
            return value
        try:
            number = float(value)
        except (TypeError, ValueError):
            return value
        return None if math.isnan(number) else number

    @model_validator(mode="after")
    def _consistent(self) -> ResultRow:
        if self.value is None and not self.note:
            raise ValueError("a row without a value needs a note that says why")
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval needs both ends, low and high")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"the interval [{self.low}, {self.high}] is upside down")
        return self


@dataclass(frozen=True)
class RunContext:
    """What the run engine tells a notebook's kernel about the run.

    Attributes:
        folder: where the rows go; None outside of a run.
        defaults: values of :class:`ResultRow` that hold for all rows of the run.
        started: when the run began, in seconds since the epoch.
        before: folders of the finished runs that this one needs.
    """

    folder: Path | None
    defaults: Mapping[str, Any]
    started: float
    before: tuple[Path, ...] = ()


@cache
def run_context() -> RunContext:
    """The context of this process, read once."""
    path = os.environ.get(CONTEXT_VARIABLE)
    if not path:
        return RunContext(None, {}, time.time())
    file = Path(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{CONTEXT_VARIABLE} names {file}, which can't be read ({error}); unset the variable."
        ) from error
    # A kernel of another environment would put the name of our code on the results of its own.
    wanted, here = content.get("package"), str(Path(rsovlib.__file__).resolve().parent)
    if wanted is not None and wanted != here:
        raise InputError(
            f"This kernel uses rsovlib in {here}, its run was planned with {wanted}; "
            "remove the Jupyter kernel 'python3' that starts another Python (`jupyter kernelspec list`)."
        )
    before = tuple(Path(folder) for folder in content.get("before", ()))
    return RunContext(file.parent, content["defaults"], content["started"], before)


def record(row: str, column: str, metric: str, value: Any, **fields: Any) -> ResultRow:
    """Hand over one number of a notebook.

    What isn't given comes from the run: paper, table, profile, weights, parameters, seconds since the run began, and
    the peak memory of this process. A number that is recorded twice in a run counts as the latter says, so that a cell
    may be run again.

    Args:
        row: the table's row, in the paper's words.
        column: its column.
        metric: what was measured.
        value: the number; None (or "not a number") with ``note=`` if it couldn't be measured.
        **fields: any other field of :class:`ResultRow`, for example ``low=``, ``high=``, ``n=``, ``dataset=``, or
            ``interval=`` a :class:`rsovlib.metrics.uncertainty.Interval` in place of low, high and level.

    Returns:
        The row. It is stored beside the notebook when the run engine drives it, and nowhere otherwise.

    Raises:
        InputError: a field that rows don't have, or a value of the wrong type.

    Example:
        >>> record("baseline", "ori", "miou", 41.2, unit="percent", n=12, dataset="sdci-gid").value
        41.2
    """
    context = run_context()
    interval = fields.pop("interval", None)
    if interval is not None:
        fields = {"low": interval.low, "high": interval.high, "level": interval.level} | fields
    given = {"row": row, "column": column, "metric": metric, "value": value, **fields}
    measured = {
        "seconds": time.time() - context.started,
        "peak_memory": peak_memory(),
        "peak_device_memory": _peak_device_memory(),
    }
    found = make_row(
        {"paper": "", "table": "notebook", "profile": "", "dataset": ""} | measured | dict(context.defaults) | given
    )
    if context.folder is not None:
        path = context.folder / ROWS_FILE
        before = read_rows(path) if path.exists() else []
        write_rows(path, [*(one for one in before if _key(one) != _key(found)), found])
    return found


def rows_before(tables: Sequence[str], runs: str | os.PathLike[str] = "runs") -> list[ResultRow]:
    """What earlier runs of other tables have recorded, for a notebook that builds upon them.

    Args:
        tables: names of the tables.
        runs: while the run engine drives the notebook its rows come from the runs that its table ``needs``; otherwise
            from all finished runs of this folder, of each point the latest.

    Returns:
        The rows; none where nothing has been run yet.
    """
    context = run_context()
    if context.folder is not None:
        found = [row for folder in context.before for row in read_rows(folder / ROWS_FILE)]
    else:
        from rsovlib.experiments.runs import finished_runs

        latest: dict[tuple[Any, ...], ResultRow] = {}
        for folder, _ in sorted(finished_runs(runs), key=lambda one: str(one[1]["started"])):
            latest.update({_key(row): row for row in read_rows(folder / ROWS_FILE)})
        found = list(latest.values())
    return [row for row in found if row.table in tables]


def make_row(values: Mapping[str, Any]) -> ResultRow:
    """A checked row.

    Raises:
        InputError: an unknown or missing field, or a wrong value; the sentence names it.
    """
    try:
        return ResultRow.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            from rsovlib.errors import unknown_name

            raise unknown_name("field of a result row", where, ResultRow.model_fields) from error
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"A result row is wrong: {f'{where}: ' if where else ''}{message}.") from error


def write_rows(path: Path, rows: list[ResultRow]) -> None:
    """Store rows as JSON; the file is whole or not there."""
    content = {"schema": SCHEMA_VERSION, "rows": [row.model_dump(mode="json") for row in rows]}
    with write_beside(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def read_rows(path: Path) -> list[ResultRow]:
    """Rows that :func:`write_rows` stored.

    Raises:
        InputError: the file isn't one of these, or its schema is of a newer rsovlib.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, rows = content["schema"], content["rows"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no file of result rows; remove it and run the notebook again.") from error
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path} has result rows of schema {version}, this rsovlib reads schema {SCHEMA_VERSION}; "
            "run the notebook again, or use the version that wrote it."
        )
    try:
        return [make_row(row) for row in rows]
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    if sys.platform == "linux":
        # getrusage would do, but on Linux a program takes over the peak of the process that started it.
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(size if sys.platform == "darwin" else size * 1024)


def _peak_device_memory() -> int | None:
    """Of the first GPU, if torch is in use and has used one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_allocated())


def _key(row: ResultRow) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in KEY_FIELDS)
