"""MaskCLIP: the values of the last block, without any attention.

Zhou, Loy and Dai, "Extract Free Dense Labels from CLIP", ECCV 2022.

Two readings are about. Later papers, whose tables compare with it, drop residual and feed-forward as well and use
CLIP's own statistics, 448 pixels and a softmax: ``official()``, the default. The original program keeps residual and
feed-forward, and normalises by ImageNet's statistics: ``original()``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch

from rsovlib.backbones.dino import IMAGENET_MEAN, IMAGENET_STD
from rsovlib.backbones.pixels import normalise
from rsovlib.segmenters.dense import DenseClip, DenseConfig, LastBlock
from rsovlib.segmenters.images import RGB
from rsovlib.segmenters.queries import Queries


@dataclass(frozen=True)
class MaskCLIPConfig(DenseConfig):
    """Options of MaskCLIP.

    Attributes:
        residual: whether residual and feed-forward of the last block are kept (the original program).
        statistics: ``"clip"`` or ``"imagenet"`` (the original program), by which pixels are normalised.
        prompt_denoising: classes whose best pixel has less than this after softmax(100 cos) are dropped; 0 for none,
            0.5 in the paper.
    """

    residual: bool = False
    statistics: str = "clip"
    prompt_denoising: float = 0.0

    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {**DenseConfig.CHOICES, "statistics": ("clip", "imagenet")}
    RANGES: ClassVar[dict[str, tuple[float, float]]] = {**DenseConfig.RANGES, "prompt_denoising": (0, 1)}

    @classmethod
    def original(cls, **changes: Any) -> Self:
        """The original program: 512 pixels in a box, no windows, and no temperature (100, which no class depends on).

        Its exact GELU and its LayerNorm's epsilon, both not CLIP's, are left out; so is key smoothing, off there too.
        """
        values: dict[str, Any] = {
            "size": 512,
            "size_rule": "box",
            "window": None,
            "position_embedding": "bicubic",
            "templates": "maskclip85",
            "logit_scale": 100.0,
            "residual": True,
            "statistics": "imagenet",
        }
        return cls.official(**{**values, **changes})


class MaskCLIP(DenseClip[MaskCLIPConfig]):
    """The value path as a segmenter."""

    name = "maskclip"
    config_type = MaskCLIPConfig

    @property
    def layout(self) -> str:  # type: ignore[override]
        """As the configuration says."""
        return "full" if self.config.residual else "attention_only"

    def normalise(self, unit: torch.Tensor) -> torch.Tensor:
        """RGB in [0, 1] by CLIP's or ImageNet's statistics."""
        if self.config.statistics == "imagenet":
            return normalise(unit, IMAGENET_MEAN, IMAGENET_STD)
        return super().normalise(unit)

    def attention(self, last: LastBlock) -> None:
        """The identity: every patch keeps its own values."""

    def decide(self, image: RGB, logits: torch.Tensor, queries: Queries) -> torch.Tensor:
        """As usual, after prompt denoising."""
        if self.config.prompt_denoising > 0:
            best = (100 * logits).softmax(dim=0).amax(dim=(1, 2))
            absent = best < self.config.prompt_denoising
            if not absent.all():
                logits = logits.masked_fill(absent[:, None, None], -100.0)
        return super().decide(image, logits, queries)
