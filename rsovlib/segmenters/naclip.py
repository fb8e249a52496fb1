"""NACLIP: keys with keys, and a preference for neighbours.

Hajimiri, Ben Ayed and Dolz, "Pay Attention to Your Neighbours: Training-Free Open-Vocabulary Semantic Segmentation",
WACV 2025. Neither residual nor feed-forward; PAMR on the final scores is part of the method.

Released settings for other sets: 560 pixels for Cityscapes; the whole image for VOC; ``prob_threshold`` 0.1 where there
is a background.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from rsovlib.segmenters import policies
from rsovlib.segmenters.dense import DenseClip, DenseConfig, LastBlock


@dataclass(frozen=True)
class NACLIPConfig(DenseConfig):
    """Options of NACLIP.

    Attributes:
        sigma: of the neighbourhood, in patches.
    """

    size: int | None = 336
    window: int | None = 224
    stride: int = 112
    logit_scale: float = 40.0
    pamr_steps: int = 10
    sigma: float = 5.0

    RANGES: ClassVar[dict[str, tuple[float, float]]] = {**DenseConfig.RANGES, "sigma": (1e-6, float("inf"))}


class NACLIP(DenseClip[NACLIPConfig]):
    """Neighbour-aware attention as a segmenter."""

    name = "naclip"
    config_type = NACLIPConfig

    def attention(self, last: LastBlock) -> torch.Tensor:
        """Keys with keys, near before far."""
        omega = policies.neighbourhood(last.grid, self.config.sigma, like=last.key)
        return policies.neighbour_aware(last.key, omega)
