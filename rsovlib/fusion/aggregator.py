"""The cost aggregator: guidances from image and text, then layers of spatial and class aggregation (CAT-Seg)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from rsovlib.fusion.classwise import ClassAggregation
from rsovlib.fusion.spatial import SpatialAggregation


class CostAggregator(nn.Module):
    """Refines a cost volume.

    Args:
        joint: D, size of the joint image-text space.
        width: C, of the volume and of both guidances.
        layers: pairs of spatial and class aggregation.
        heads: of all attentions.
        window: side of the spatial windows in cells.
        class_tokens: see :class:`ClassAggregation`; 0 for no filling.
    """

    def __init__(self, joint: int, width: int, layers: int, heads: int, window: int, class_tokens: int) -> None:
        super().__init__()
        self.image_guidance = nn.Conv2d(joint, width, 3, padding=1)
        self.text_guidance = nn.Linear(joint, width)
        self.spatial = nn.ModuleList(SpatialAggregation(width, width, heads, window) for _ in range(layers))
        self.classes = nn.ModuleList(ClassAggregation(width, width, heads, class_tokens) for _ in range(layers))

    def forward(self, volume: torch.Tensor, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Refine.

        Args:
            volume: (B, T, C, h, w).
            image: (B, D, h, w), CLIP's dense features.
            text: (T, P, D).

        Returns:
            (B, T, C, h, w).
        """
        image_guide = F.relu(self.image_guidance(image)).movedim(1, -1)
        text_guide = F.relu(self.text_guidance(F.normalize(text.mean(dim=1), dim=-1)))
        x = volume.movedim(2, -1)
        for spatial, classes in zip(self.spatial, self.classes, strict=True):
            x = classes(spatial(x, image_guide), text_guide)
        return x.movedim(-1, 2)
