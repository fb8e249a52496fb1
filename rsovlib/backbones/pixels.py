"""What both networks do to pixels before they look at them: subtract statistics, count patches."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rsovlib.errors import InputError


def normalise(rgb: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Subtract the mean and divide by the deviation of every channel: (B, 3, H, W) in [0, 1] -> the same shape."""
    return (rgb - rgb.new_tensor(mean).view(1, 3, 1, 1)) / rgb.new_tensor(std).view(1, 3, 1, 1)


def patch_grid(pixels: torch.Tensor, patch: int) -> tuple[int, int]:
    """Rows and columns of patches of (B, 3, H, W).

    Raises:
        InputError: a side is no multiple of the patch size.
    """
    height, width = pixels.shape[-2:]
    if height % patch or width % patch:
        raise InputError(
            f"An image of {height} x {width} pixels can't be cut into patches of {patch}; "
            f"resize its sides to multiples of {patch}."
        )
    return height // patch, width // patch
