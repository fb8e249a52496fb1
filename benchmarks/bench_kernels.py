"""The kernels' tables in their quick sizes; `python -m benchmarks.kernels --full` has the large ones."""

from __future__ import annotations

from benchmarks.kernels import rows

__all__ = ["rows"]
