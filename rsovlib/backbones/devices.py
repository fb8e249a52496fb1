"""Which device to compute on."""

from __future__ import annotations

import torch

from rsovlib.errors import InputError


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """``"auto"`` becomes a CUDA or Apple GPU when there is one, else the CPU.

    Raises:
        InputError: the device has no such name or isn't there.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"There is no device {device!r}; use 'auto', 'cpu' or 'cuda'.") from error
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise InputError("No CUDA device is usable here; use device='cpu' or 'auto'.")
    return wanted
