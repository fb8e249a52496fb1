"""What papermill drives: the demo, the papers' tables and the engine that runs them, the embedded models' training.

``record`` hands a number over from a notebook, ``reproduce`` runs tables, ``write_report`` sets them beside the paper.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rsovlib.experiments.reporting import write_report
    from rsovlib.experiments.reproduction import reproduce
    from rsovlib.experiments.results import record

__all__ = ["record", "reproduce", "write_report"]

# Public name -> the module that defines it.
_OBJECTS = {"record": "results", "reproduce": "reproduction", "write_report": "reporting"}


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562): the demo needs no Dask, a notebook no scheduler."""
    if name not in _OBJECTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_OBJECTS[name]}"), name)
    globals()[name] = value
    return value
