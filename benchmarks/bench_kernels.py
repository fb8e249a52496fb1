"""The kernels' tables; `python -m benchmarks.kernels` runs single ones, and only prints."""

from __future__ import annotations

from pathlib import Path

from benchmarks.kernels import FOLDER, parts_folder, rows
from benchmarks.kernels_plots import draw

__all__ = ["plots", "rows"]


def plots(full: bool) -> list[Path]:
    """Draw what the last run measured."""
    return draw(parts_folder(FOLDER, full))
