"""Torch and NumPy through one door: the kernels take either kind and give back the kind they were given."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from rsovlib.errors import InputError

if TYPE_CHECKING:
    import torch

    ArrayT = TypeVar("ArrayT", bound=np.ndarray[Any, Any] | torch.Tensor)
else:
    ArrayT = TypeVar("ArrayT")


def is_torch(array: object) -> bool:
    """Whether ``array`` is a torch tensor; never imports torch to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def to_numpy(array: object) -> np.ndarray[Any, Any]:
    """The array as NumPy, without a copy where it already lies in the CPU's memory."""
    if is_torch(array):
        return array.detach().cpu().numpy()  # type: ignore[attr-defined]
    return np.asarray(array)


def like(array: np.ndarray[Any, Any], reference: object) -> Any:
    """``array`` as the kind of ``reference``: a torch tensor on its device, or NumPy."""
    if not is_torch(reference):
        return array
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).to(reference.device)  # type: ignore[attr-defined]


def plain(array: np.ndarray[Any, Any], kind: Any) -> bool:
    """Whether compiled code takes the array as it is: of this type, contiguous, aligned, writable.

    It would take others too, but be compiled once more for each.
    """
    return bool(array.dtype == kind and array.flags.carray)


def all_finite(array: np.ndarray[Any, Any]) -> bool:
    """Whether no value of a (K, H, W) array is NaN or infinite."""
    if plain(array, np.float32) or plain(array, np.float64):
        from rsovlib.kernels._rows_numba import finite

        return bool(finite(array.reshape(-1)))
    # Class by class: of a whole scene in a memory map, not even a byte a value should be held.
    return all(bool(np.isfinite(layer).all()) for layer in array)


def require(condition: bool, sentence: str) -> None:
    """Raise :class:`~rsovlib.errors.InputError` with ``sentence`` unless ``condition`` holds."""
    if not condition:
        raise InputError(sentence)
