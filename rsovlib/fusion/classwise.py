"""Class aggregation: at every place the classes look at each other, guided by their texts.

Linear attention (Katharopoulos et al., ICML 2020) over the classes, on a grid half as fine. The published networks
fill the list of classes up to 256 with a learned token. All of these are the same at all places, so that one is
computed and counted as often as it stands there, which gives the same numbers for a fiftieth of the work.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from rsovlib.fusion.guided import GuidedLinear

_EPS = 1e-6


class ClassAggregation(nn.Module):
    """Linear attention over classes and feed-forward.

    The classes' order has no meaning here: permuting them permutes the result.

    Args:
        width: C.
        guidance: channels of the text guidance.
        heads: of the attention.
        length: number of classes up to which the list is filled; 0 for no filling.
    """

    def __init__(self, width: int, guidance: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads, self.length = heads, length
        self.filling = nn.Parameter(torch.zeros(width))
        self.filling_guidance = nn.Parameter(torch.zeros(guidance))
        self.norm = nn.LayerNorm(width)
        self.query = GuidedLinear(width, guidance, width)
        self.key = GuidedLinear(width, guidance, width)
        self.value = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))

    def forward(self, volume: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
        """(B, T, h, w, C) and (T, G) to (B, T, h, w, C)."""
        grid = volume.shape[2:4]
        images = volume.movedim(-1, 2).flatten(0, 1)  # (B * T, C, h, w)
        # Odd sides keep their last row and column, as the mean of what is there.
        small = F.avg_pool2d(images, 2, ceil_mode=True, count_include_pad=False)
        half = small.shape[-2:]
        tokens = small.unflatten(0, volume.shape[:2]).flatten(3).permute(0, 3, 1, 2)  # (B, places, T, C)
        tokens = tokens + self._attend(self.norm(tokens), guidance)
        tokens = tokens + self.mlp(self.mlp_norm(tokens))
        small = tokens.permute(0, 2, 3, 1).unflatten(3, half).flatten(0, 1)
        large = F.interpolate(small, size=grid, mode="bilinear", align_corners=True)
        return volume + large.unflatten(0, volume.shape[:2]).movedim(2, -1)

    def _attend(self, x: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
        """Normalised tokens (B, places, T, C) to what the attention adds."""
        query, key = self._split(self.query(x, guidance)), self._split(self.key(x, guidance))
        query, key, value = F.elu(query) + 1, F.elu(key) + 1, self._split(self.value(x))
        summary, total = key.transpose(-1, -2) @ value, key.sum(dim=-2)  # (..., d, d), (..., d)
        missing = self.length - x.shape[2]
        if missing > 0:
            filling = self.norm(self.filling)
            fill_key = F.elu(self.key(filling, self.filling_guidance).unflatten(-1, (self.heads, -1))) + 1
            fill_value = self.value(filling).unflatten(-1, (self.heads, -1))
            summary = summary + missing * fill_key[:, :, None] * fill_value[:, None, :]
            total = total + missing * fill_key
        mixed = (query @ summary) / ((query * total[..., None, :]).sum(dim=-1, keepdim=True) + _EPS)
        return mixed.transpose(-3, -2).flatten(-2)

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        # (..., T, C) -> (..., heads, T, C / heads)
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)
