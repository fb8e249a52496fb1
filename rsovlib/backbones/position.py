"""Resizing learned position embeddings to another grid of patches.

The field's programs do this in several dialects that differ at the third decimal of mIoU; each is a
named function of the same signature here, so that a reading can say which one it prescribes.
The class token's embedding is never touched, and the square training grid is returned as it is when
the wanted grid equals it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from rsovlib.errors import InputError, unknown_name

#: Dialect -> what it does and who uses it.
POSITION_DIALECTS = {
    "bilinear": "bilinear to the exact size (SDCI, CLIPer)",
    "bicubic": "bicubic to the exact size, no antialias (original MaskCLIP)",
    "bicubic_antialias": "bicubic to the exact size, antialias (timm; DINOv2 with registers)",
    "bicubic_offset": "bicubic by the scale factors (g + 0.1) / g0, no antialias (SCLIP family, DINO v1)",
}


def resize_position(position: torch.Tensor, grid: tuple[int, int], dialect: str = "bilinear") -> torch.Tensor:
    """Resize the position embeddings of a square grid of patches.

    Args:
        position: (N0, D), row-major over a square grid of N0 = g0 * g0 patches, without prefix tokens.
        grid: the wanted (rows, columns).
        dialect: a key of :data:`POSITION_DIALECTS`.

    Returns:
        (rows * columns, D).

    Raises:
        InputError: unknown dialect, or N0 is no square number.
    """
    if dialect not in POSITION_DIALECTS:
        raise unknown_name("position embedding dialect", dialect, POSITION_DIALECTS)
    side = math.isqrt(position.shape[0])
    if side * side != position.shape[0]:
        raise InputError(f"Position embeddings of {position.shape[0]} patches don't form a square grid.")
    if grid == (side, side):
        return position
    image = position.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if dialect == "bicubic_offset":
        # The offset kept floor() of the output size from rounding down; the given factor, not g / g0,
        # is then also the sampling step, which is what makes this dialect different.
        factors = ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)
        resized = F.interpolate(
            image, scale_factor=factors, mode="bicubic", align_corners=False, recompute_scale_factor=False
        )
    else:
        mode = "bilinear" if dialect == "bilinear" else "bicubic"
        resized = F.interpolate(
            image, size=grid, mode=mode, align_corners=False, antialias=dialect == "bicubic_antialias"
        )
    return resized.permute(0, 2, 3, 1).reshape(grid[0] * grid[1], -1).to(position.dtype)
