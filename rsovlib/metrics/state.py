"""Saved counts: sums that come out the same in any order, and reading them back with care."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rsovlib.errors import InputError

_STEPS = 2**32


def to_fixed(probabilities: torch.Tensor) -> torch.Tensor:
    """Probabilities in steps of 2^-32, int64.

    Sums of floating-point numbers depend on their order in the last digits, and so would the scores of one worker
    and of two.  Sums of whole numbers don't; what rounding costs is 1e-10 of a pixel.
    """
    return (probabilities.double() * _STEPS).round().to(torch.int64)


def from_fixed(total: int) -> float:
    """A sum of :func:`to_fixed` as a number of pixels."""
    return total / _STEPS


def check_mergeable(ours: Mapping[str, Any], theirs: Mapping[str, Any], what: str) -> None:
    """Refuse to join or compare counts that were made with different settings.

    Raises:
        InputError: with the first setting that differs.
    """
    for name, value in ours.items():
        if value != theirs.get(name):
            raise InputError(f"{what} of different {name} don't go together: {value} and {theirs.get(name)}.")


def read_state(state: Mapping[str, Any], kind: str, settings: Sequence[str], entries: Sequence[str]) -> dict[str, Any]:
    """The settings of a saved state.

    Raises:
        InputError: it is of another kind, or something is missing.
    """
    if not isinstance(state, Mapping) or state.get("kind") != kind:
        got = state.get("kind") if isinstance(state, Mapping) else type(state).__name__
        raise InputError(f"This is a saved state of {got!r}, not of {kind!r}; give what its state_dict() returned.")
    saved = state.get("settings")
    missing = [name for name in entries if name not in state]
    missing += [name for name in settings if not isinstance(saved, Mapping) or name not in saved]
    if missing or saved is None:
        raise InputError(f"The saved state of {kind} lacks {', '.join(missing)}; it was cut or written by hand.")
    if "images" in entries and not isinstance(state["images"], Mapping):
        raise InputError(f"The saved state of {kind} has no counts by image name; it was cut or written by hand.")
    return {name: saved[name] for name in settings}


def read_table(values: Any, what: str, shape: Sequence[int | None]) -> np.ndarray:
    """Saved counts as an int64 array of a given shape; None for any length.

    Raises:
        InputError: not whole, not negative numbers of this shape.
    """
    try:
        table = np.array(values)
    except ValueError as error:  # rows of different length
        raise InputError(f"The saved {what} is no table: {error}.") from error
    if table.size == 0:
        table = table.astype(np.int64)
    fits = table.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, table.shape, strict=True))
    if not fits or table.dtype.kind not in "iu" or (table.size and table.min() < 0):
        wanted = " x ".join("n" if size is None else str(size) for size in shape)
        raise InputError(f"The saved {what} doesn't hold {wanted} counts; it was cut or written by hand.")
    return table.astype(np.int64)
