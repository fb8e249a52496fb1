"""Spatial aggregation: every class's map looks around itself, in windows, guided by what the image looks like.

Swin's two blocks (Liu et al., ICCV 2021), one with windows on the grid and one with windows shifted by half, without
position terms. Queries and keys come from the volume and the image guidance together, values from the volume alone.
Grids of any size work: they are filled up to whole windows, and the filling takes no part.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn

from rsovlib.fusion.guided import GuidedLinear


class SpatialAggregation(nn.Module):
    """A pair of blocks, the second shifted.

    Args:
        width: C.
        guidance: channels of the image guidance.
        heads: of the attention.
        window: side in cells.
    """

    def __init__(self, width: int, guidance: int, heads: int, window: int) -> None:
        super().__init__()
        self.guidance_norm = nn.LayerNorm(guidance)
        self.blocks = nn.ModuleList(WindowBlock(width, guidance, heads, window, shifted) for shifted in (False, True))

    def forward(self, volume: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
        """(B, T, h, w, C) and (B, h, w, G) to (B, T, h, w, C)."""
        guidance = self.guidance_norm(guidance)
        for block in self.blocks:
            volume = block(volume, guidance)
        return volume


class WindowBlock(nn.Module):
    """Window attention and feed-forward, pre-norm residuals.

    Args:
        width: C.
        guidance: channels of the image guidance.
        heads: of the attention.
        window: side in cells.
        shifted: whether the windows are shifted by half.
    """

    def __init__(self, width: int, guidance: int, heads: int, window: int, shifted: bool) -> None:
        super().__init__()
        self.heads, self.window, self.shifted = heads, window, shifted
        self.norm = nn.LayerNorm(width)
        self.query = GuidedLinear(width, guidance, width)
        self.key = GuidedLinear(width, guidance, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, volume: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
        """(B, T, h, w, C) and normalised guidance (B, h, w, G) to (B, T, h, w, C)."""
        volume = volume + self._attend(self.norm(volume), guidance)
        return volume + self.mlp(self.mlp_norm(volume))

    def _attend(self, x: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
        grid = (x.shape[2], x.shape[3])
        full, shift = window_plan(grid, self.window, self.shifted)
        cells = _to_windows(x, full, shift, self.window)  # (B, T, n, w * w, C)
        guides = _to_windows(guidance[:, None], full, shift, self.window)  # (B, 1, n, w * w, G)
        query, key = self._split(self.query(cells, guides)), self._split(self.key(cells, guides))
        mask = window_mask(grid, self.window, self.shifted)
        mixed = F.scaled_dot_product_attention(
            query, key, self._split(self.value(cells)), None if mask is None else mask[:, None].to(x.device)
        )
        joined = self.out(mixed.transpose(-3, -2).flatten(-2))
        return _from_windows(joined, full, shift, self.window)[:, :, : grid[0], : grid[1]]

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        # (..., N, C) -> (..., heads, N, C / heads)
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


def window_plan(grid: tuple[int, int], window: int, shifted: bool) -> tuple[tuple[int, int], tuple[int, int]]:
    """The grid filled up to whole windows, and the shift along both sides.

    Along a side with a single window there is nothing to shift to.
    """
    rows, columns = (math.ceil(side / window) * window for side in grid)
    down, across = (window // 2 if shifted and side > window else 0 for side in (rows, columns))
    return (rows, columns), (down, across)


@lru_cache(maxsize=64)
def window_mask(grid: tuple[int, int], window: int, shifted: bool) -> torch.Tensor | None:
    """Which cells of a window may see each other.

    After the shift, windows at the border hold cells of opposite sides of the image, which are no neighbours; and
    cells that only fill up are nobody's neighbours. (Swin adds -100 instead, which is the same in float32.)

    Returns:
        (windows, N, N) bool, True where a cell (row) may see another (column); None where all may.
    """
    full, shift = window_plan(grid, window, shifted)
    if full == grid and shift == (0, 0):
        return None
    with torch.inference_mode(False):  # what is kept here may later meet gradients
        return _mask(grid, full, shift, window)


def _mask(grid: tuple[int, int], full: tuple[int, int], shift: tuple[int, int], window: int) -> torch.Tensor:
    regions = torch.zeros(full, dtype=torch.long, device="cpu")
    # After the roll the last window along a side ends with cells from the other border.
    for axis, (length, step) in enumerate(zip(full, shift, strict=True)):
        if step:
            wrapped = torch.arange(length, device="cpu") >= length - step
            regions += (2 if axis else 1) * wrapped.view((-1, 1) if axis == 0 else (1, -1)).long()
    filling = torch.ones(full, dtype=torch.bool, device="cpu")
    filling[: grid[0], : grid[1]] = False
    regions[filling.roll((-shift[0], -shift[1]), (0, 1))] = 4
    windows = _partition(regions[None, None, :, :, None], window)[0, 0, ..., 0]
    return windows[:, :, None] == windows[:, None, :]


def _to_windows(x: torch.Tensor, full: tuple[int, int], shift: tuple[int, int], window: int) -> torch.Tensor:
    # (B, T, h, w, C) -> (B, T, n, window ** 2, C)
    x = F.pad(x, (0, 0, 0, full[1] - x.shape[3], 0, full[0] - x.shape[2]))
    if any(shift):
        x = x.roll((-shift[0], -shift[1]), (2, 3))
    return _partition(x, window)


def _partition(x: torch.Tensor, window: int) -> torch.Tensor:
    x = x.unflatten(3, (-1, window)).unflatten(2, (-1, window))  # (B, T, i, window, j, window, C)
    return x.transpose(3, 4).flatten(4, 5).flatten(2, 3)


def _from_windows(x: torch.Tensor, full: tuple[int, int], shift: tuple[int, int], window: int) -> torch.Tensor:
    rows, columns = full[0] // window, full[1] // window
    x = x.unflatten(3, (window, window)).unflatten(2, (rows, columns)).transpose(3, 4)
    x = x.flatten(4, 5).flatten(2, 3)
    return x.roll(shift, (2, 3)) if any(shift) else x
