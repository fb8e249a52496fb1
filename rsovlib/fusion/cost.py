"""Cost volumes: how well every cell's features agree with every class's text, and how two of them become one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def cosine_cost(features: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Cosines of features with texts.

    Args:
        features: (B, D, h, w).
        text: (T, P, D).

    Returns:
        (B, P, T, h, w) in [-1, 1].
    """
    return torch.einsum("bdhw,tpd->bpthw", F.normalize(features, dim=1), F.normalize(text, dim=-1))


class CostEmbedding(nn.Module):
    """Cosines to the volume that the aggregator refines.

    With one cost (CAT-Seg) a convolution of every class's map. With two, of CLIP and of DINO ("query guided", GSNet):
    each embedded so and squashed, then fused by a convolution, squashed again, and CLIP's added once more::

        e = sigmoid(conv(cost)),  volume = sigmoid(conv([e_clip, e_dino])) + e_clip

    Args:
        templates: P.
        width: C.
        kernel: side of the convolutions.
        dino: whether there is a second cost.
    """

    def __init__(self, templates: int, width: int, kernel: int, dino: bool) -> None:
        super().__init__()
        self.clip = nn.Conv2d(templates, width, kernel, padding=kernel // 2)
        self.dino = nn.Conv2d(templates, width, kernel, padding=kernel // 2) if dino else None
        self.fuse = nn.Conv2d(2 * width, width, kernel, padding=kernel // 2) if dino else None

    def forward(self, clip: torch.Tensor, dino: torch.Tensor | None) -> torch.Tensor:
        """Costs (B, P, T, h, w) to the volume (B, T, C, h, w)."""
        batch = len(clip)
        first = self.clip(_by_class(clip))
        if self.dino is not None and self.fuse is not None and dino is not None:
            first = first.sigmoid()
            second = self.dino(_by_class(dino)).sigmoid()
            first = self.fuse(torch.cat([first, second], dim=1)).sigmoid() + first
        return first.unflatten(0, (batch, -1))


class CostSkip(nn.Module):
    """The cosines' own answer as logits, beside the decoder's: ``sum_s slope_s (cos_s - offset_s)``, all learned.

    No part of the papers: with it a network that has been trained for minutes starts where its backbones are.

    Args:
        slope: at first, of CLIP's cosine; DINO's, if there is one, has half of it.
        sources: 1 (CLIP) or 2 (CLIP and DINO).
    """

    def __init__(self, slope: float, sources: int) -> None:
        super().__init__()
        self.log_slopes = nn.Parameter(torch.tensor([slope, slope / 2][:sources]).log())
        self.offsets = nn.Parameter(torch.full((sources,), 0.2))

    def forward(self, costs: list[torch.Tensor], sides: tuple[int, int]) -> torch.Tensor:
        """Costs (B, P, T, h, w) to logits (B, T, *sides)."""
        parts = zip(costs, self.log_slopes.exp(), self.offsets, strict=False)
        logits = torch.stack([slope * (cost.mean(dim=1) - offset) for cost, slope, offset in parts]).sum(dim=0)
        return F.interpolate(logits, sides, mode="bilinear", align_corners=False)


def _by_class(cost: torch.Tensor) -> torch.Tensor:
    # (B, P, T, h, w) -> (B * T, P, h, w)
    return cost.transpose(1, 2).flatten(0, 1)
