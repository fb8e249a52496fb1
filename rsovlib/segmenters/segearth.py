"""SegEarth-OV: self-similarities of queries, keys and values, features as fine as the image, and less global bias.

Li et al., "SegEarth-OV: Towards Training-Free Open-Vocabulary Segmentation for Remote Sensing Images", CVPR 2025. The
bias is taken off as the released program does it, on cosines: cos(patch) - 0.3 cos(class token), both of the changed
last block; the paper's text subtracts tokens.

SimFeatUp, the upsampler, is a learned network whose weights come with the authors' repository; give
``upsampler="path/to/xclip_jbu_one_million_aid.ckpt"``. Without it features are enlarged bilinearly, or guided by the
image without anything learned, and results are called ``segearth-ov-bilinear`` or ``segearth-ov-guided``.

Released thresholds (``prob_threshold``): 0.3 LoveDA, 0.4 iSAID, 0.1 Potsdam, Vaihingen and OpenEarthMap, all of which
have a background among their classes (``background_index`` 0; 5 for Potsdam and Vaihingen).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from rsovlib.backbones.clip import ClipBackbone
from rsovlib.backbones.simfeatup import SimFeatUp, guided_upsample, load_simfeatup
from rsovlib.errors import InputError
from rsovlib.segmenters import policies
from rsovlib.segmenters.dense import DenseClip, DenseConfig, LastBlock, Window
from rsovlib.segmenters.queries import Queries


@dataclass(frozen=True)
class SegEarthConfig(DenseConfig):
    """Options of SegEarth-OV.

    Attributes:
        upsampler: a SimFeatUp checkpoint's path; or one of the stand-ins ``"bilinear"`` and ``"guided"``.
        class_token_weight: of the class token's cosine, which is added.
    """

    size_rule: str = "box"
    window: int | None = 224
    stride: int = 112
    upsampler: str = "bilinear"
    class_token_weight: float = -0.3

    RANGES: ClassVar[dict[str, tuple[float, float]]] = {**DenseConfig.RANGES, "class_token_weight": (-10, 10)}


class SegEarthOV(DenseClip[SegEarthConfig]):
    """SegEarth-OV as a segmenter.

    Raises:
        WeightsError: the upsampler's file can't be read.
        InputError: it was made for other features than this CLIP's.
    """

    name = "segearth-ov"
    config_type = SegEarthConfig

    def __init__(self, clip: ClipBackbone, config: SegEarthConfig | None = None) -> None:
        super().__init__(clip, config)
        self.upsampler: SimFeatUp | None = None
        if self.config.upsampler not in ("bilinear", "guided"):
            self.upsampler = load_simfeatup(self.config.upsampler, clip.device)
            made_for = self.upsampler.fixup_proj[1].in_channels
            if made_for != clip.embed_dim:
                raise InputError(
                    f"The upsampler {self.upsampler.source} takes features of size {made_for}, and {clip.name} has "
                    f"{clip.embed_dim}; use the CLIP that it was trained with."
                )

    @property
    def label(self) -> str:
        """The method's name, with the stand-in."""
        return self.name if self.upsampler is not None else f"{self.name}-{self.config.upsampler}"

    def settings(self) -> dict[str, Any]:
        """Method, weights and parameters as plain values."""
        learned = self.upsampler
        return {
            **super().settings(),
            "upsampler": f"{self.config.upsampler} (stand-in for SimFeatUp)" if learned is None else learned.source,
            "upsampler_sha256": "" if learned is None else learned.sha256,
        }

    def memory_needed(self, height: int, width: int, classes: int) -> int:
        """Foreseen peak in bytes above the models."""
        sides = self.config.window or max(height, width, self.config.size or 0)
        # Fine features several times over, and the kernels of a pixel's 121 neighbours.
        fine = (4 * self.clip.embed_dim + 3 * 121) * (sides + self.clip.patch_size) ** 2
        return super().memory_needed(height, width, classes) + 4 * fine

    def attention(self, last: LastBlock) -> torch.Tensor:
        """Queries, keys and values, each with itself."""
        return policies.self_self(last.query, last.key, last.value)

    def scores(self, window: Window, queries: Queries) -> torch.Tensor:
        """Cosines of every pixel, less a share of the class token's."""
        last = self.last_block(self.before_last(window), window.grid)
        features = self.read(last, self.attention(last))
        fine = self._upsample(features[1:].T.unflatten(1, window.grid)[None], window)
        cosines = self.compare(fine[0].flatten(1).T, queries, (fine.shape[2], fine.shape[3]))
        whole = queries.vectors @ F.normalize(features[0], dim=0)
        return cosines + self.config.class_token_weight * whole[:, None, None]

    def _upsample(self, features: torch.Tensor, window: Window) -> torch.Tensor:
        if self.upsampler is not None:
            return self.upsampler(features, window.pixels)
        if self.config.upsampler == "guided":
            return guided_upsample(features, window.pixels, window.place.sides)
        return F.interpolate(features, size=window.place.sides, mode="bilinear", align_corners=False)
