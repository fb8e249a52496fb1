"""CAT-Seg, GSNet and MM-OVSeg as one network: cost volumes of CLIP and DINO, fused, aggregated, decoded.

    optical -> CLIP, read densely ------------------> cost with the texts --+
    optical -> DINO, projected --+                                          +-> fused -> aggregator -> decoder -> logits
    SAR     -> DINO, projected --+-> added ---------> cost with the texts --+                           ^
                                 +-> skips of CLIP and DINO --------------------------------------------+

MM-OVSeg: CVPR 2026, arXiv 2603.17528. GSNet: Ye et al., AAAI 2025. CAT-Seg: Cho et al., CVPR 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from fractions import Fraction
from typing import ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import nn

from rsovlib.backbones.clip import ClipBackbone
from rsovlib.backbones.dino import DinoBackbone
from rsovlib.data.classes import ClassPrompt
from rsovlib.errors import InputError
from rsovlib.fusion.aggregator import CostAggregator
from rsovlib.fusion.clip_training import position_tables, query_and_value_weights, split_attention
from rsovlib.fusion.config import FusionConfig, Provenance
from rsovlib.fusion.cost import CostEmbedding, CostSkip, cosine_cost
from rsovlib.fusion.decoder import GuidedDecoder
from rsovlib.fusion.dense_clip import DenseFeatures, dense_features
from rsovlib.fusion.projections import ClipLevels, DinoLevels, Levels, add_levels, projection
from rsovlib.fusion.prompts import encode_prompts


class FusionOutput(NamedTuple):
    """The logits and what led to them.

    Attributes:
        logits: (B, T, 4 h, 4 w), one binary decision a class.
        cost_clip: (B, P, T, h, w), cosines.
        cost_dino: the same of DINO, or None.
        fused: (B, T, C, h, w), the volume that the aggregator got.
        refined: (B, T, C, h, w), what it made of it.
    """

    logits: torch.Tensor
    cost_clip: torch.Tensor
    cost_dino: torch.Tensor | None
    fused: torch.Tensor
    refined: torch.Tensor

    def stage_maps(self) -> dict[str, torch.Tensor]:
        """Maps (B, T, h, w) beside the logits: both costs, and both volumes' means over their channels."""
        maps = {"cost_clip": self.cost_clip.mean(dim=1)}
        if self.cost_dino is not None:
            maps["cost_dino"] = self.cost_dino.mean(dim=1)
        return maps | {"fused": self.fused.mean(dim=2), "refined": self.refined.mean(dim=2)}


class CostAggregationNetwork(nn.Module):
    """The network; its switches give CAT-Seg, GSNet and MM-OVSeg, see :class:`FusionConfig`.

    The given CLIP is copied, for its query and value weights are trained here; the DINOs stay frozen and are shared.

    Args:
        config: the architecture.
        clip: image-text backbone.
        optical_dino: needed where ``config.optical_dino``.
        sar_dino: needed where ``config.sar_dino``; the optical one distilled on pairs (CMU), or a copy of it.
        sar_clip: needed where ``config.sar_clip``; CLIP distilled likewise.

    Raises:
        InputError: a DINO is missing or too many, or a block is asked for that a backbone hasn't.
    """

    kind: ClassVar[str] = "cost-aggregation"

    def __init__(
        self,
        config: FusionConfig,
        clip: ClipBackbone,
        optical_dino: DinoBackbone | None = None,
        sar_dino: DinoBackbone | None = None,
        sar_clip: ClipBackbone | None = None,
    ) -> None:
        super().__init__()
        _check(config, clip, optical_dino, sar_dino, sar_clip)
        self.config = config
        self.provenance = Provenance()
        self.clip, self.optical_dino, self.sar_dino = deepcopy(clip), optical_dino, sar_dino
        # Backbones are plain objects around their modules; registered here, the modules move and count with the rest.
        self.clip_model = self.clip.model
        self.optical_model = None if optical_dino is None else optical_dino.model
        self.sar_model = None if sar_dino is None else sar_dino.model
        self.sar_clip = sar_clip
        self.sar_clip_model = None if sar_clip is None else sar_clip.model
        for model in self._backbones():
            model.requires_grad_(False)
        split_attention(self.clip_model)

        joint, width, skips = self.clip.embed_dim, config.width, config.skip_widths
        self.clip_middle = projection(self.clip.width, skips[0], Fraction(2))
        self.clip_fine = projection(self.clip.width, skips[1], Fraction(4))
        self.optical_levels = _levels(optical_dino, joint, config)
        self.sar_levels = _levels(sar_dino, joint, config)
        self.sar_clip_levels = None if sar_clip is None else ClipLevels(sar_clip.width, joint, skips)
        self.embedding = CostEmbedding(len(config.templates), width, config.kernel, config.optical_dino)
        length = config.class_tokens if config.readings.pads_classes else 0
        self.aggregator = CostAggregator(joint, width, config.layers, config.heads, config.window, length)
        self.decoder = GuidedDecoder(
            width, config.decoder_widths, skips, config.guidance_widths, 2 if config.optical_dino else 1
        )
        self.cost_skip = CostSkip(config.cost_skip, 2 if config.optical_dino else 1) if config.cost_skip > 0 else None
        if self.cost_skip is not None:  # the decoder begins with no opinion of its own
            nn.init.zeros_(self.decoder.head.weight)
        self.thaw()

    # ---- what is trained -----------------------------------------------------------------------------------

    def thaw(self) -> None:
        """Let gradients flow to what is trained (so it is after construction)."""
        for _, parameter in self.trained_parameters():
            parameter.requires_grad_(True)

    def freeze(self) -> Self:
        """No gradients anywhere, for inference; texts are then remembered."""
        self.requires_grad_(False)
        return self.eval()

    def trained_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """What is trained: ``"clip"`` (its query and value weights, at a hundredth of the rate) and ``"new"``."""
        clip = query_and_value_weights(self.clip_model)
        if self.config.readings.trains_position:
            clip += position_tables(self.clip_model)
        modules = (self.clip_middle, self.clip_fine, self.optical_levels, self.sar_levels, self.sar_clip_levels)
        parts = [*modules, self.embedding, self.aggregator, self.decoder, self.cost_skip]
        new = [parameter for part in parts if part is not None for parameter in part.parameters()]
        return [("clip", parameter) for parameter in clip] + [("new", parameter) for parameter in new]

    def train(self, mode: bool = True) -> Self:
        """Training mode for what is new; the backbones have nothing that differs, and stay in evaluation mode."""
        super().train(mode)
        for model in self._backbones():
            model.eval()
        return self

    def _backbones(self) -> list[nn.Module]:
        models = (self.clip_model, self.optical_model, self.sar_model, self.sar_clip_model)
        return [model for model in models if model is not None]

    # ---- running it ----------------------------------------------------------------------------------------

    def encode_text(self, prompts: Sequence[ClassPrompt | str]) -> torch.Tensor:
        """T classes to (T, P, D), unit norm; with gradients in training."""
        return encode_prompts(self.clip, prompts, self.config.templates, self.config.readings)

    def forward(
        self,
        optical: torch.Tensor,
        text: torch.Tensor,
        sar: torch.Tensor | None = None,
        sar_valid: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits (B, T, 4 h, 4 w), see :meth:`run`."""
        return self.run(optical, text, sar, sar_valid).logits

    def run(
        self,
        optical: torch.Tensor,
        text: torch.Tensor,
        sar: torch.Tensor | None = None,
        sar_valid: torch.Tensor | None = None,
    ) -> FusionOutput:
        """Run the network on images of any size.

        The grid has ``h = round(H / cell)`` rows and likewise columns; every backbone gets the image resized to what
        its patches make of that grid.

        Args:
            optical: (B, 3, H, W) in [0, 1].
            text: (T, P, D) of :meth:`encode_text`.
            sar: (B, 3, H, W) in [0, 1] on the same grid, or None: then the network does without, as GSNet.
            sar_valid: (B, 1, H, W), bool or share, where ``sar`` holds data; None for everywhere.

        Raises:
            InputError: SAR for a network without a SAR branch, or shapes that don't agree.
        """
        self._check_inputs(optical, text, sar, sar_valid)
        if sar is not None and sar_valid is not None and self.config.readings.masks_missing_sar:
            # What stands where there is no data, NaN perhaps, must not reach its neighbours through the attention.
            mean = sar.new_tensor((self.sar_dino or self.clip).mean).view(1, 3, 1, 1)
            sar = torch.where(sar_valid > 0, sar, mean)
        else:
            sar_valid = None
        clip = self._clip_levels(optical, sar, sar_valid)
        dino = self._dino_levels(optical, sar, sar_valid)
        cost_clip = cosine_cost(clip.last, text)
        cost_dino = None if dino is None else cosine_cost(dino.last, text)
        fused = self.embedding(cost_clip, cost_dino)
        refined = self.aggregator(fused, clip.last, text)
        middle, fine = [clip.middle], [clip.fine]
        if dino is not None:
            middle.append(dino.middle)
            fine.append(dino.fine)
        logits = self.decoder(refined, middle, fine)
        if self.cost_skip is not None:
            costs = [cost for cost in (cost_clip, cost_dino) if cost is not None]
            logits = logits + self.cost_skip(costs, (logits.shape[-2], logits.shape[-1]))
        return FusionOutput(logits, cost_clip, cost_dino, fused, refined)

    @property
    def volume_channels(self) -> int:
        """Numbers that a pass keeps a class and cell, about."""
        config = self.config
        attention = 10 * config.width + 2 * config.heads * config.window**2
        decoder = 4 * 4 * config.decoder_widths[0] + 16 * 4 * config.decoder_widths[1]
        return max(attention, decoder) + 4 * config.width

    def _clip_levels(self, optical: torch.Tensor, sar: torch.Tensor | None, sar_valid: torch.Tensor | None) -> Levels:
        seen = self._clip_features(self.clip, optical)
        levels = Levels(seen.last, self.clip_middle(seen.skips[0]), self.clip_fine(seen.skips[1]))
        if sar is None or self.sar_clip is None or self.sar_clip_levels is None:
            return levels
        with torch.no_grad():
            radar = self._clip_features(self.sar_clip, sar)
        return add_levels(levels, self.sar_clip_levels(*radar.skips, radar.last), sar_valid)

    def _clip_features(self, clip: ClipBackbone, image: torch.Tensor) -> DenseFeatures:
        config = self.config
        pixels = fitted(image, cell_grid(image.shape[-2], image.shape[-1], config.cell), clip.patch_size)
        return dense_features(
            clip,
            clip.normalise(pixels),
            skips=_in_order(config.clip_skips, config),
            reading=config.clip_dense,
            position=config.clip_position,
        )

    def _dino_levels(
        self, optical: torch.Tensor, sar: torch.Tensor | None, sar_valid: torch.Tensor | None
    ) -> Levels | None:
        if self.optical_dino is None or self.optical_levels is None:
            return None
        levels: Levels = self.optical_levels(*self._dino_tokens(self.optical_dino, optical))
        if sar is None or self.sar_dino is None or self.sar_levels is None:
            return levels
        return add_levels(levels, self.sar_levels(*self._dino_tokens(self.sar_dino, sar)), sar_valid)

    def _dino_tokens(self, dino: DinoBackbone, image: torch.Tensor) -> list[torch.Tensor]:
        """Normalised tokens of the two skips' blocks and of the last, each (B, width, rows, columns)."""
        config = self.config
        grid = cell_grid(image.shape[-2], image.shape[-1], config.cell)
        pixels = fitted(image, grid, dino.patch_size * config.dino_finer)
        statistics = dino if config.readings.own_statistics else self.clip
        with torch.no_grad():
            layers, fine = dino.layers(statistics.normalise(pixels))
        blocks = (*_in_order(config.dino_blocks[:2], config), config.dino_blocks[2])
        return [layers[number - 1].transpose(1, 2).unflatten(2, fine) for number in blocks]

    def _check_inputs(
        self, optical: torch.Tensor, text: torch.Tensor, sar: torch.Tensor | None, sar_valid: torch.Tensor | None
    ) -> None:
        if optical.ndim != 4 or optical.shape[1] != 3:
            raise InputError(f"Optical images must be (B, 3, H, W), got {tuple(optical.shape)}.")
        expected = (len(self.config.templates), self.clip.embed_dim)
        if text.ndim != 3 or tuple(text.shape[1:]) != expected:
            raise InputError(f"Texts must be (T, {expected[0]}, {expected[1]}), got {tuple(text.shape)}.")
        if sar is None:
            return
        if not self.config.uses_sar:
            raise InputError(f"This {self.config.method} network has no SAR branch; call it without sar.")
        if sar.shape != optical.shape:
            raise InputError(f"SAR is {tuple(sar.shape)} and optical {tuple(optical.shape)}; bring them to one grid.")
        if sar_valid is not None and sar_valid.shape != sar[:, :1].shape:
            raise InputError(f"sar_valid must be {tuple(sar[:, :1].shape)}, got {tuple(sar_valid.shape)}.")


def cell_grid(height: int, width: int, cell: int) -> tuple[int, int]:
    """Cells of ``cell`` pixels for an image of this size, at least one each way."""
    # Halves up, as nobody expects Python's rounding of 2.5 to 2 and 3.5 to 4 here.
    return max(1, int(height / cell + 0.5)), max(1, int(width / cell + 0.5))


def fitted(image: torch.Tensor, grid: tuple[int, int], patch: int) -> torch.Tensor:
    """The image, resized bilinearly so that every cell of the grid takes ``patch`` pixels."""
    sides = (grid[0] * patch, grid[1] * patch)
    if tuple(image.shape[-2:]) == sides:
        return image
    return F.interpolate(image, size=sides, mode="bilinear", align_corners=False)


def _in_order(blocks: tuple[int, ...], config: FusionConfig) -> tuple[int, ...]:
    return blocks if config.readings.shallow_skip_first else tuple(reversed(blocks))


def _levels(dino: DinoBackbone | None, joint: int, config: FusionConfig) -> DinoLevels | None:
    if dino is None:
        return None
    return DinoLevels(dino.width, joint, config.skip_widths, config.dino_finer)


def _check(
    config: FusionConfig,
    clip: ClipBackbone,
    optical_dino: DinoBackbone | None,
    sar_dino: DinoBackbone | None,
    sar_clip: ClipBackbone | None,
) -> None:
    if config.sar_clip != (sar_clip is not None):
        state = "needs" if config.sar_clip else "has no place for"
        raise InputError(f"The configuration {state} sar_clip; give it, or change the configuration.")
    for name, wanted, given in (
        ("optical_dino", config.optical_dino, optical_dino),
        ("sar_dino", config.sar_dino, sar_dino),
    ):
        if wanted != (given is not None):
            state = "needs" if wanted else "has no place for"
            raise InputError(f"The configuration {state} {name}; give it, or change the configuration.")
        if given is not None and max(config.dino_blocks) > given.depth:
            raise InputError(f"{given.name} has {given.depth} blocks; block {max(config.dino_blocks)} is asked for.")
    if max(config.clip_skips) >= len(clip.blocks):
        raise InputError(f"{clip.name} has {len(clip.blocks)} blocks; skips must lie below the last.")
