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


def require(condition: bool, sentence: str) -> None:
    """Raise :class:`~rsovlib.errors.InputError` with ``sentence`` unless ``condition`` holds."""
    if not condition:
        raise InputError(sentence)
