"""All rows of all finished runs as one table, in Parquet and CSV."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsovlib.experiments.results import ROWS_FILE, SCHEMA_VERSION, ResultRow, read_rows
from rsovlib.experiments.runs import FINISHED, finished_runs
from rsovlib.files import write_beside

if TYPE_CHECKING:
    import pandas as pd

PARQUET, CSV = "results.parquet", "results.csv"

# Types of the columns, so that a table without rows, or with nothing but missing numbers, has the same ones.
_TYPES = {
    "str": "string",
    "float": "Float64",
    "float | None": "Float64",
    "int | None": "Int64",
    "dict[str, str]": "string",
    "dict[str, Any]": "string",
}


def gather_results(out: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the rows of every finished run and write them beside the runs.

    Args:
        out: folder of all runs.

    Returns:
        A row a number, with the fields of :class:`ResultRow`, ``schema``, and ``started`` of the run. Dictionaries
        are JSON texts, since CSV and many a reader of Parquet know no others.
    """
    import pandas as pd

    place = Path(out)
    rows: list[dict[str, Any]] = []
    for folder, run in finished_runs(place):
        for row in read_rows(folder / ROWS_FILE):
            values = row.model_dump(mode="json")
            flat = {name: _flat(value) for name, value in values.items()}
            rows.append({"schema": SCHEMA_VERSION, **flat, "started": run["started"]})
    types = {"schema": "Int64", **{name: _type_of(name) for name in ResultRow.model_fields}, "started": "string"}
    frame = pd.DataFrame(rows, columns=list(types)).astype(types)
    with write_beside(place / PARQUET) as temporary:
        frame.to_parquet(temporary, index=False)
    with write_beside(place / CSV) as temporary:
        frame.to_csv(temporary, index=False)
    return frame


def read_results(out: str | os.PathLike[str]) -> pd.DataFrame:
    """The rows of all finished runs; gathered now if they aren't yet, or if a run was finished since."""
    import pandas as pd

    path, runs = Path(out) / PARQUET, Path(out) / FINISHED
    # A run is finished by a rename, which changes the folder.
    if not path.exists() or (runs.exists() and runs.stat().st_mtime_ns >= path.stat().st_mtime_ns):
        return gather_results(out)
    return pd.read_parquet(path)


def _flat(value: Any) -> Any:
    return json.dumps(value, sort_keys=True, ensure_ascii=False) if isinstance(value, dict) else value


def _type_of(name: str) -> str:
    annotation = ResultRow.model_fields[name].annotation
    text = (
        annotation.__name__ if isinstance(annotation, type) and not hasattr(annotation, "__args__") else str(annotation)
    )
    return _TYPES[text.replace("typing.", "")]
