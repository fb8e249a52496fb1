"""CLIP as it was trained, read at every patch: the reference near chance level that all methods start from.

The last block keeps its own attention softmax(s q k^T), both residuals and the feed-forward; input, windows and
temperature are ClearCLIP's, so that the two differ in the last block alone.
"""

from __future__ import annotations

import torch

from rsovlib.segmenters import policies
from rsovlib.segmenters.dense import DenseClip, DenseConfig, LastBlock


class VanillaCLIP(DenseClip[DenseConfig]):
    """The unchanged network."""

    name = "vanilla"
    layout = "full"

    def attention(self, last: LastBlock) -> torch.Tensor:
        """The original attention."""
        return policies.query_key(last.query, last.key)
