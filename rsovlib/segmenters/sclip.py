"""SCLIP: patches attend to patches with alike queries and to patches with alike keys.

Wang, Mei and Yuille, "SCLIP: Rethinking Self-Attention for Dense Vision-Language Inference", ECCV 2024. Residual and
feed-forward stay, so that the sum of the two maps, whose rows sum to 2, is not the same as their mean.

Released settings for other sets: 560 pixels for Cityscapes; lambda 50 for Context60 and COCO-Object, 65 for VOC21;
thresholds 0.1 (``prob_threshold``) where there is a background, and 0.1 (``area_threshold``) for VOC21.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rsovlib.segmenters import policies
from rsovlib.segmenters.dense import DenseClip, DenseConfig, LastBlock


@dataclass(frozen=True)
class SCLIPConfig(DenseConfig):
    """Options of SCLIP: those that all methods have."""

    size: int | None = 336
    window: int | None = 224
    stride: int = 112
    logit_scale: float = 40.0


class SCLIP(DenseClip[SCLIPConfig]):
    """Correlative self-attention as a segmenter."""

    name = "sclip"
    config_type = SCLIPConfig
    layout = "full"

    def attention(self, last: LastBlock) -> torch.Tensor:
        """Queries with queries plus keys with keys."""
        return policies.correlative(last.query, last.key)
