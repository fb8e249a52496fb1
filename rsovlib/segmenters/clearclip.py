"""ClearCLIP: queries with queries, and neither residual nor feed-forward in the last block.

Lan et al., "ClearCLIP: Decomposing CLIP Representations for Dense Vision-Language Inference", ECCV 2024.

Released thresholds (``prob_threshold``) where there is a background: 0.5 VOC21, 0.15 Context60, 0.4 COCO-Object; for
Cityscapes windows of 224.
"""

from __future__ import annotations

import torch

from rsovlib.segmenters import policies
from rsovlib.segmenters.dense import DenseClip, DenseConfig, LastBlock


class ClearCLIP(DenseClip[DenseConfig]):
    """The last block's attention alone, by queries, as a segmenter."""

    name = "clearclip"

    def attention(self, last: LastBlock) -> torch.Tensor:
        """Queries with queries."""
        return policies.query_query(last.query)
