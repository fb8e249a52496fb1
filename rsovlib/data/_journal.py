"""What a run of :mod:`rsovlib.data.prepare` has finished, so that a later run can trust it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsovlib.data.layout import Sample
from rsovlib.data.reading import Plan
from rsovlib.files import write_beside


def source_state(plan: Plan, sample: Sample) -> dict[str, list[int]]:
    """Size and time of the files that a sample is made from: tiles of other files are not kept."""
    names = [*plan.modalities, *(str(clouds.clear) for clouds in plan.simulated.values())]
    files = [sample.files[name] for name in names if name in sample.files]
    if plan.reference in sample.files:
        files.append(sample.files[plan.reference])
    files += [path for path in (sample.label_file, sample.cloud_file) if path is not None]
    states = {path.relative_to(plan.root).as_posix(): path.stat() for path in files}
    return {name: [state.st_size, state.st_mtime_ns] for name, state in sorted(states.items())}


class Journal:
    """What is finished of one sample: a first line for the source, and a line for each tile.

    A line is added after its tile's files have been renamed into place; a last line that was cut short by a crash
    doesn't parse, and its tile is made again.
    """

    def __init__(self, path: Path, source: Mapping[str, Any]) -> None:
        self._path = path
        head = json.dumps({"source": source})
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
        self._known: dict[str, dict[str, Any]] = {}
        if lines and lines[0] == head:
            for line in lines[1:]:
                entry = _parsed(line)
                if entry is not None:
                    self._known[entry["tile"]["id"]] = entry
        # Written anew, so that nothing half stands at the end when lines are added.
        with write_beside(path) as temporary:
            text = [head, *(json.dumps(entry) for entry in self._known.values())]
            temporary.write_text("\n".join(text) + "\n", encoding="utf-8")

    def finished(self, name: str, folder: Path) -> dict[str, Any] | None:
        """The row of a tile whose files are all as they were written; None for any other."""
        entry = self._known.get(name)
        if entry is None:
            return None
        if any(_sha256(folder / path) != wanted for path, wanted in entry["sha256"].items()):
            return None
        return entry["tile"]

    def add(self, name: str, row: Mapping[str, Any], folder: Path) -> None:
        """Note that a tile is finished."""
        paths = [path for path in row["paths"].values() if path is not None]
        entry = {"tile": row, "sha256": {path: _sha256(folder / path) for path in paths}}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    is_whole = isinstance(entry, dict) and isinstance(entry.get("tile"), dict) and isinstance(entry.get("sha256"), dict)
    return entry if is_whole else None


def _sha256(path: Path) -> str:
    """Of a file; empty if it is not there."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
