"""Run the benchmarks: `python -m benchmarks [NAME ...]`, or all of them.

A benchmark is a module `benchmarks/bench_<name>.py` with a function `rows()` that yields dictionaries of plain
values; it may take `full` (large sizes too) and `resume`, and have a function `plots(full)` beside it. The rows are
printed as tables and appended to `benchmarks/results/<name>.csv`, each with the date, machine and versions that it was
measured with: a time without its machine says nothing.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.metadata
import inspect
import os
import platform
from pathlib import Path

import pandas as pd

import rsovlib
from rsovlib.files import write_beside

FOLDER = Path(__file__).resolve().parent
NAMES = sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))


def circumstances() -> dict[str, object]:
    """What every row is measured under."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rsovlib": rsovlib.__version__,
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "numpy": importlib.metadata.version("numpy"),
        "cpu": processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else "",
    }


def processor() -> str:
    """The processor's name where the system tells it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def append(rows: pd.DataFrame, path: Path) -> None:
    """Add rows to a CSV; columns may be added over time, and an interrupted run leaves the old file."""
    if path.exists():
        rows = pd.concat([pd.read_csv(path), rows], ignore_index=True)
    with write_beside(path) as temporary:
        rows.to_csv(temporary, index=False)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all of them by default")
    parser.add_argument("--full", action="store_true", help="large sizes too, where a benchmark has them")
    parser.add_argument(
        "--resume", action="store_true", help="keep what an interrupted run finished, where it was kept"
    )
    arguments = parser.parse_args()
    wanted = arguments.names or NAMES
    if unknown := sorted(set(wanted) - set(NAMES)):
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    for name in wanted:
        print(f"\n--- {name}")
        module = importlib.import_module(f"benchmarks.bench_{name}")
        options = {"full": arguments.full, "resume": arguments.resume}
        known = inspect.signature(module.rows).parameters
        measured = pd.DataFrame(module.rows(**{key: value for key, value in options.items() if key in known}))
        if measured.empty:  # something it needs is not here, as it has said
            continue
        for _, table in measured.groupby("table", sort=False) if "table" in measured else [("", measured)]:
            print(table.dropna(axis=1, how="all").to_string(index=False, na_rep=""), end="\n\n")
        append(measured.assign(**circumstances()), FOLDER / "results" / f"{name}.csv")
        for path in module.plots(arguments.full) if hasattr(module, "plots") else ():
            print(path)


if __name__ == "__main__":
    main()
