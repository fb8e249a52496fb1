"""Small tables to run: notebooks that take a second, and a folder that counts how often each was executed."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import rsovlib

CODE = "c0de"
"""In place of the hash of the sources, which may change while a test runs in a checkout that somebody edits."""

WORK = """
import os, time
from pathlib import Path
from rsovlib.experiments import record

for part in range(parts):
    time.sleep(wait)
    Path(f"part_{part}.txt").write_text("x" * 1000)
record("row", "column", "miou", 10 * seed + 0.5, unit="percent", n=3, dataset="toy")
with open(log, "a") as file:  # one write of a short line is atomic
    file.write(f"{seed}\\n")
"""


@pytest.fixture(autouse=True)
def steady_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code's version doesn't change during a test."""
    for module in ("matrix", "runs"):
        monkeypatch.setattr(f"rsovlib.experiments.{module}.code_version", lambda: CODE)


def write_notebook(path: Path, parameters: str, *cells: str) -> Path:
    """A notebook with a parameters cell."""
    made = [new_code_cell(parameters, metadata={"tags": ["parameters"]}), *map(new_code_cell, cells)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Test"), *made], metadata=kernel), path)
    return path


class Tables:
    """A folder of tables; ``add`` makes one of a notebook."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "executions.txt"

    def add(self, name: str, parameters: str, *cells: str, **entry: Any) -> None:
        write_notebook(self.folder / f"{name}.ipynb", parameters, *cells)
        profiles = entry.pop("profiles", {"embedded": {"matrix": entry.pop("matrix", {})}})
        content = {
            "name": name,
            "title": name.title(),
            "kind": "table",
            "notebook": str(self.folder / f"{name}.ipynb"),
            **entry,
        }
        text = yaml.safe_dump({**content, "profiles": profiles}, sort_keys=False)
        (self.folder / f"{name}.yaml").write_text(text, encoding="utf-8")

    def add_work(self, seeds: list[int], wait: float = 0.0, parts: int = 1, name: str = "work", **entry: Any) -> None:
        """Runs that write files, record a row, and say at their end that they were executed."""
        parameters = f"seed: int = 0\nwait: float = {wait}\nparts: int = {parts}\nlog: str = {str(self.log)!r}"
        self.add(name, parameters, WORK, matrix={"seed": seeds}, **entry)

    def executions(self) -> Counter[int]:
        """How often each seed was executed to its end."""
        return Counter(map(int, self.log.read_text().split())) if self.log.exists() else Counter()


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path / "tables")


@pytest.fixture
def make_notebook(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The content of a notebook with a parameters cell, as it is read from its file."""

    def make(parameters: str, *cells: str) -> dict[str, Any]:
        return dict(nbformat.read(write_notebook(tmp_path / "one.ipynb", parameters, *cells), as_version=4))

    return make


DRIVER = """
import sys
from pathlib import Path

if __name__ == "__main__":
    from rsovlib.experiments import tables

    tables.FOLDER = Path(sys.argv.pop(1))
    from rsovlib.cli import main

    sys.exit(main())
"""


@pytest.fixture(scope="session")
def frozen_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package's sources that nobody edits, for processes that hash them, and a program to run."""
    folder = tmp_path_factory.mktemp("frozen")
    package = Path(rsovlib.__file__).parent
    shutil.copytree(
        package, folder / "rsovlib", ignore=shutil.ignore_patterns("__pycache__", "*.safetensors", "*.nbi", "*.nbc")
    )
    (folder / "drive.py").write_text(DRIVER, encoding="utf-8")
    return folder


@pytest.fixture
def command(frozen_package: Path, tables: Tables) -> Callable[..., list[str]]:
    """The command line that runs ``rsovlib ...`` in a process of its own, on the test's tables."""

    def make(*arguments: str) -> list[str]:
        return [sys.executable, str(frozen_package / "drive.py"), str(tables.folder), *arguments]

    return make


@pytest.fixture
def environment(frozen_package: Path) -> dict[str, str]:
    """For such processes."""
    return {**os.environ, "PYTHONPATH": str(frozen_package), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def rows_of() -> Callable[[Path], list[dict[str, Any]]]:
    """All recorded rows of a folder, without what differs from run to run."""

    def read(out: Path) -> list[dict[str, Any]]:
        paths = sorted((out / "finished").glob("*/rows.json"))
        rows = [row for path in paths for row in json.loads(path.read_text())["rows"]]
        return [{name: value for name, value in row.items() if name not in ("seconds", "peak_memory")} for row in rows]

    return read
