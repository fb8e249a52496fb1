"""ProxyCLIP: CLIP's values, gathered by the similarity of DINO's features.

Lan et al., "ProxyCLIP: Proxy Attention Improves CLIP for Open-Vocabulary Segmentation", ECCV 2024. The values are
carried to DINO's grid, which is finer; neither residual nor feed-forward.

Released settings for other sets: 448 pixels for ADE and Cityscapes, there with windows of 224; ``prob_threshold`` 0.2
VOC21, 0.15 Context60, 0.25 COCO-Object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from rsovlib.segmenters import policies
from rsovlib.segmenters.dense import DenseClipDino, DenseConfig, Window
from rsovlib.segmenters.queries import Queries


@dataclass(frozen=True)
class ProxyCLIPConfig(DenseConfig):
    """Options of ProxyCLIP.

    Attributes:
        beta: of the mean similarity that is subtracted.
        gamma: inverse temperature of the similarities.
        dino_scale: DINO's grid is this many times as fine as CLIP's; None gives DINO the window's own pixels.
    """

    size: int | None = 336
    window: int | None = 336
    stride: int = 112
    pad_to: int | None = 56
    logit_scale: float = 40.0
    beta: float = 1.2
    gamma: float = 3.0
    dino_scale: float | None = None

    EMBEDDED: ClassVar[dict[str, Any]] = {**DenseConfig.EMBEDDED, "pad_to": None, "dino_scale": 2.0}
    RANGES: ClassVar[dict[str, tuple[float, float]]] = {
        **DenseConfig.RANGES,
        "beta": (0, float("inf")),
        "gamma": (0, float("inf")),
        "dino_scale": (1e-3, float("inf")),
    }


class ProxyCLIP(DenseClipDino[ProxyCLIPConfig]):
    """Proxy attention as a segmenter."""

    name = "proxyclip"
    config_type = ProxyCLIPConfig

    def scores(self, window: Window, queries: Queries) -> torch.Tensor:
        """Cosines on DINO's grid."""
        last = self.last_block(self.before_last(window), window.grid)
        structure = self.dino.features(self.dino_pixels(window))
        weights = policies.proxy(structure.layers[-1], self.config.beta, self.config.gamma)[:, None]
        value = self.carry_values(last.value[:, :, 1:], window.grid, structure.grid)
        block = self.clip.blocks[-1]
        features = self.clip.project(self.clip.join_heads(block, weights @ value))[0]
        return self.compare(features, queries, structure.grid)
