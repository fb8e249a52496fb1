"""EBSeg: masks from a second image encoder, classes from three kinds of embeddings, balanced.

Shan et al., "Open-Vocabulary Semantic Segmentation with Image Embedding Balancing", CVPR 2024, arXiv 2406.09829. Each
of Q queries gives a mask and is classified by three embeddings:

* A, fully supervised: what the mask decoder says of the query; good at classes it was trained on;
* B, mask attention: CLIP's class token, copied for the query and let look where its mask lies, in CLIP's last blocks;
* D, frozen: CLIP's own dense features, averaged over the mask; knows nothing of the training.

With p the probabilities over the classes, a class that was trained is scored ``p_A^(1-a-g) p_D^a p_B^g`` and a new one
``p_A^(1-b-g) p_D^b p_B^g``; a pixel's score is the sum of its queries' scores, each times the mask.

What is simpler than the paper, see :data:`SIMPLIFIED`, is to be said wherever its numbers stand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import nn

from rsovlib.backbones.clip import ClipBackbone
from rsovlib.backbones.dino import DinoBackbone
from rsovlib.data.classes import ClassPrompt
from rsovlib.errors import InputError, unknown_name
from rsovlib.fusion.config import DENSE_READINGS, Provenance, Readings
from rsovlib.fusion.dense_clip import read_last
from rsovlib.fusion.ebseg_head import MaskDecoder, PixelDecoder, Prediction
from rsovlib.fusion.ebseg_loss import EBSegLosses, set_losses
from rsovlib.fusion.network import cell_grid, fitted
from rsovlib.fusion.prompts import class_words, encode_prompts

SIMPLIFIED = (
    "the pixel decoder is a pyramid of plain convolutions with two scales for the transformer (deformable attention "
    "and three in the paper); the second encoder is a DINO (SAM in the paper); masks are compared at all labelled "
    "pixels of the small map (sampled points in the paper); A is taught after every layer, B after the last (both "
    "after every one in the paper); CLIP's dense features are read as the other methods here do (CLIP Surgery in the "
    "paper)"
)
"""Where this EBSeg is not the published one."""

_TINY = 1e-8


@dataclass(frozen=True)
class EBSegConfig:
    """EBSeg's architecture; the defaults are those of its ViT-B/16.

    Attributes:
        size: side in pixels of the images that it is trained on.
        cell: side in pixels of what becomes one patch of CLIP (twice CLIP's patch: CLIP sees half the resolution).
        dino_finer: the second encoder's patches along a cell's side.
        clip_blocks: blocks of CLIP, from 1, whose features guide the masks; the last two finer scales and the cells.
        dino_blocks: the same of the second encoder.
        attention_from: blocks of CLIP, from 1, after which queries take part (mask attention).
        clip_dense: how D is read, see ``config.DENSE_READINGS``.
        clip_position: dialect in which CLIP's position table is resized.
        templates: P texts a class.
        width: of the mask decoder.
        queries: Q.
        layers: of the transformer decoder.
        heads: of its attentions.
        hidden: width of its feed-forward layers.
        alpha, beta, gamma: weights of the balance; alpha of D for trained classes, beta of D for new ones, gamma of B.
        seen: words of the classes that it was trained on, small letters.
        readings: only those of words, statistics and maps matter here.
    """

    size: int = 640
    cell: int = 32
    dino_finer: int = 2
    clip_blocks: tuple[int, int, int] = (3, 6, 9)
    dino_blocks: tuple[int, int, int] = (4, 8, 12)
    attention_from: int = 9
    clip_dense: str = "own_residual"
    clip_position: str = "bicubic"
    templates: tuple[str, ...] = ("a photo of a {}.",)
    width: int = 256
    queries: int = 100
    layers: int = 9
    heads: int = 8
    hidden: int = 2048
    alpha: float = 0.09
    beta: float = 0.3
    gamma: float = 0.7
    seen: tuple[str, ...] = ()
    readings: Readings = field(default_factory=Readings)

    method: ClassVar[str] = "ebseg"
    optical_dino: ClassVar[bool] = True
    sar_dino: ClassVar[bool] = False
    sar_clip: ClassVar[bool] = False
    uses_sar: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.clip_dense not in DENSE_READINGS:
            raise unknown_name("dense reading of CLIP", self.clip_dense, DENSE_READINGS)
        if self.width % self.heads or self.width % 4:
            raise InputError(f"The width must be a multiple of 4 and of the {self.heads} heads, got {self.width}.")
        for name, weight in (("alpha", self.alpha), ("beta", self.beta)):
            if min(weight, self.gamma) < 0 or weight + self.gamma > 1 + 1e-9:
                raise InputError(f"{name} and gamma must be at least 0 and sum to 1 at most.")

    @classmethod
    def full(cls, architecture: str = "vit-b", **changes: Any) -> Self:
        """The paper's sizes, ``"vit-b"`` or ``"vit-l"``."""
        large = {
            "cell": 28,
            "clip_blocks": (6, 12, 18),
            "dino_blocks": (8, 16, 24),
            "attention_from": 18,
            "alpha": 0.12,
            "beta": 0.4,
            "gamma": 0.6,
        }
        return cls(**{**(large if architecture == "vit-l" else {}), **changes})

    @classmethod
    def embedded(cls, **changes: Any) -> Self:
        """The size for rsov-tiny-clip and rsov-tiny-dino."""
        sizes = {
            "size": 96,
            "cell": 8,
            "dino_finer": 1,
            "clip_blocks": (2, 3, 4),
            "dino_blocks": (2, 4, 5),
            "attention_from": 4,
            "clip_dense": "value_path",
            "clip_position": "bilinear",
            "templates": ("a photo of a {}.",),
            "width": 48,
            "queries": 16,
            "layers": 3,
            "heads": 4,
            "hidden": 96,
        }
        return cls(**{**sizes, **changes})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Back from :meth:`to_dict`, or from the JSON of it.

        Raises:
            InputError: an entry is unknown.
        """
        known = [entry.name for entry in fields(cls)]
        for name in values:
            if name not in known:
                raise unknown_name("entry of an EBSeg configuration", name, known)
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**{**plain, "readings": Readings(**plain.get("readings", {}))})


class EBSegOutput(NamedTuple):
    """What a pass gives.

    Attributes:
        logits: (B, T, 4 h, 4 w), logarithms of the classes' scores.
        predictions: masks and embeddings A of the queries, after every layer.
        attended: (B, Q, D), embeddings B.
        pooled: (B, Q, D), embeddings D.
    """

    logits: torch.Tensor
    predictions: list[Prediction]
    attended: torch.Tensor
    pooled: torch.Tensor

    def stage_maps(self) -> dict[str, torch.Tensor]:
        """Maps (B, T, h, w) beside the logits: none."""
        return {}


class EBSegNetwork(nn.Module):
    """The network, with the interface of :class:`rsovlib.fusion.network.CostAggregationNetwork`.

    Args:
        config: the architecture.
        clip: image-text backbone; frozen but for its image tower's position table, as published.
        optical_dino: the second image encoder; frozen.

    Raises:
        InputError: a block is asked for that a backbone hasn't.
    """

    kind: ClassVar[str] = "ebseg"

    def __init__(self, config: EBSegConfig, clip: ClipBackbone, optical_dino: DinoBackbone) -> None:
        super().__init__()
        if config.attention_from >= len(clip.blocks) or max(config.clip_blocks) > config.attention_from:
            raise InputError(f"{clip.name} has {len(clip.blocks)} blocks; attention must begin before the last.")
        if max(config.dino_blocks) > optical_dino.depth:
            raise InputError(
                f"{optical_dino.name} has {optical_dino.depth} blocks; {config.dino_blocks} are asked for."
            )
        self.config, self.provenance = config, Provenance()
        self.clip, self.optical_dino = deepcopy(clip), optical_dino
        self.sar_dino: DinoBackbone | None = None
        self.sar_clip: ClipBackbone | None = None
        self.clip_model, self.optical_model = self.clip.model, optical_dino.model
        for model in (self.clip_model, self.optical_model):
            model.requires_grad_(False)
        self.pixel_decoder = PixelDecoder(optical_dino.width, clip.width, config.width)
        self.mask_decoder = MaskDecoder(
            config.width, config.queries, config.layers, config.heads, config.hidden, clip.embed_dim, clip.heads
        )
        self.no_class = nn.Parameter(0.02 * torch.randn(clip.embed_dim))
        self.thaw()

    # ---- what is trained -----------------------------------------------------------------------------------

    def thaw(self) -> None:
        """Let gradients flow to what is trained (so it is after construction)."""
        for _, parameter in self.trained_parameters():
            parameter.requires_grad_(True)

    def freeze(self) -> Self:
        """No gradients anywhere, for inference."""
        self.requires_grad_(False)
        return self.eval()

    def trained_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """What is trained, all at one rate: the decoders and CLIP's position table."""
        table: Any = self.clip_model.visual.positional_embedding  # type: ignore[union-attr]
        parts = [*self.pixel_decoder.parameters(), *self.mask_decoder.parameters(), self.no_class]
        return [("new", table), *(("new", parameter) for parameter in parts)]

    def train(self, mode: bool = True) -> Self:
        """Training mode for what is new."""
        super().train(mode)
        self.clip_model.eval()
        self.optical_model.eval()
        return self

    @property
    def volume_channels(self) -> int:
        """Numbers that a pass keeps a class and cell, about."""
        return 16 * 4

    # ---- running it ----------------------------------------------------------------------------------------

    def encode_text(self, prompts: Sequence[ClassPrompt | str]) -> torch.Tensor:
        """T classes to (T, P, D + 1): unit embeddings, and at the end 1 for classes that were trained, else 0."""
        text = encode_prompts(self.clip, prompts, self.config.templates, self.config.readings)
        known = set(self.config.seen)
        words = class_words(prompts, self.config.readings)
        seen = [float(any(word.casefold() in known for word in group)) for group in words]
        flags = text.new_tensor(seen)[:, None, None].expand(-1, text.shape[1], 1)
        return torch.cat([text, flags], dim=-1)

    def remember(self, prompts: Sequence[ClassPrompt | str]) -> None:
        """Note classes as trained; the training does so."""
        words = {word.casefold() for group in class_words(prompts, self.config.readings) for word in group}
        if not words <= set(self.config.seen):
            self.config = replace(self.config, seen=tuple(sorted(words | set(self.config.seen))))

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
    ) -> EBSegOutput:
        """Run the network on images of any size.

        Args:
            optical: (B, 3, H, W) in [0, 1].
            text: (T, P, D + 1) of :meth:`encode_text`.
            sar: must be None.
            sar_valid: must be None.

        Raises:
            InputError: radar, or texts of another network.
        """
        if sar is not None or sar_valid is not None:
            raise InputError("EBSeg has no SAR branch; call it without sar.")
        if text.ndim != 3 or text.shape[2] != self.clip.embed_dim + 1:
            raise InputError(f"Texts must be (T, P, {self.clip.embed_dim + 1}), got {tuple(text.shape)}.")
        grid = cell_grid(optical.shape[-2], optical.shape[-1], self.config.cell)
        pixels = self.clip.normalise(fitted(optical, grid, self.clip.patch_size))
        streams = self._streams(pixels)
        guides = [streams[number][:, 1:].transpose(1, 2).unflatten(2, grid) for number in self.config.clip_blocks]
        scales, features = self.pixel_decoder(self._structure(optical, grid), guides, grid)
        predictions = self.mask_decoder(scales, features)
        attended, tokens = self._attend(streams[self.config.attention_from], predictions[-1], features, grid)
        pooled = self._pool(tokens, predictions[-1].masks, grid)
        logits = self._logits(predictions[-1], attended, pooled, text)
        return EBSegOutput(logits, predictions, attended, pooled)

    def losses(
        self, optical: torch.Tensor, prompts: Sequence[ClassPrompt | str], labels: torch.Tensor
    ) -> tuple[EBSegLosses, torch.Tensor]:
        """The paper's losses for one batch, and the logits beside them.

        Args:
            optical: (B, 3, H, W) in [0, 1].
            prompts: the T seen classes.
            labels: (B, H, W), 0 to T - 1; anything else is left out.
        """
        self.remember(prompts)
        text = self.encode_text(prompts)
        out = self.run(optical, text)
        words = _mean_text(text)
        classifier = torch.cat([words, F.normalize(self.no_class, dim=0)[None]])
        return set_losses(out.predictions, out.attended, classifier, self._scale(), labels), out.logits

    # ---- the steps -----------------------------------------------------------------------------------------

    def _scale(self) -> torch.Tensor:
        """Inverse temperature of CLIP's cosines."""
        scale: Any = self.clip_model.logit_scale
        return scale.exp()

    def _streams(self, pixels: torch.Tensor) -> dict[int, torch.Tensor]:
        """CLIP's residual stream after the blocks that are used."""
        tokens = self.clip.embed(pixels, self.config.clip_position)
        wanted = {*self.config.clip_blocks, self.config.attention_from}
        steps = self.clip.walk(tokens, stop=max(wanted))
        return {step.index + 1: step.output for step in steps if step.index + 1 in wanted}

    def _structure(self, optical: torch.Tensor, grid: tuple[int, int]) -> list[torch.Tensor]:
        dino = self.optical_dino
        pixels = fitted(optical, grid, dino.patch_size * self.config.dino_finer)
        statistics = dino if self.config.readings.own_statistics else self.clip
        with torch.no_grad():
            layers, fine = dino.layers(statistics.normalise(pixels))
        return [layers[number - 1].transpose(1, 2).unflatten(2, fine) for number in self.config.dino_blocks]

    def _attend(
        self, tokens: torch.Tensor, prediction: Prediction, features: torch.Tensor, grid: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings B: copies of the class token look at the patches, biased by their masks; patches see no copies.

        Beside them the tokens before the last block.
        """
        maps = self.mask_decoder.bias_maps(prediction, features)
        bias = F.adaptive_max_pool2d(maps.flatten(0, 1), grid)
        bias = bias.unflatten(0, maps.shape[:2]).flatten(3).transpose(1, 2)  # (B, heads, Q, N)
        queries = tokens[:, :1].expand(-1, self.config.queries, -1)
        for block in self.clip.blocks[self.config.attention_from :]:
            _, key, value = self.clip.query_key_value(block, block.ln_1(tokens))
            query, own_key, own_value = self.clip.query_key_value(block, block.ln_1(queries))
            scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5  # (B, heads, Q, 1 + N)
            scores = torch.cat([scores[..., :1], scores[..., 1:] + bias], dim=-1)
            own = (query * own_key).sum(dim=-1, keepdim=True) * query.shape[-1] ** -0.5
            weights = torch.cat([scores, own], dim=-1).softmax(dim=-1)
            mixed = weights[..., :-1] @ value + weights[..., -1:] * own_value
            queries = self.clip.finish(block, queries, self.clip.join_heads(block, mixed))
            if block is not self.clip.blocks[-1]:
                tokens = _one_block(self.clip, block, tokens)
        return F.normalize(self.clip.project(queries), dim=-1), tokens

    def _pool(self, tokens: torch.Tensor, masks: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Embeddings D: dense features, averaged where the mask is more likely than not."""
        with torch.no_grad():
            last = read_last(self.clip, tokens, self.config.clip_dense)
            dense = last[:, 1:].transpose(1, 2).unflatten(2, grid)
            inside = (F.interpolate(masks, size=grid, mode="bilinear", align_corners=False) > 0).to(dense.dtype)
            pooled = torch.einsum("bqhw,bdhw->bqd", inside, F.normalize(dense, dim=1))
        return F.normalize(pooled, dim=-1)

    def _logits(
        self, prediction: Prediction, attended: torch.Tensor, pooled: torch.Tensor, text: torch.Tensor
    ) -> torch.Tensor:
        words, seen = _mean_text(text), text[:, 0, -1]
        scale, config = self._scale(), self.config
        supervised, looked, frozen = (
            (scale * embedding @ words.T).log_softmax(dim=-1) for embedding in (prediction.embeddings, attended, pooled)
        )
        of_frozen = torch.where(seen > 0, config.alpha, config.beta)
        balanced = (1 - of_frozen - config.gamma) * supervised + of_frozen * frozen + config.gamma * looked
        nothing = scale * prediction.embeddings @ F.normalize(self.no_class, dim=0)[:, None]
        existing = 1 - torch.cat([scale * prediction.embeddings @ words.T, nothing], dim=-1).softmax(dim=-1)[..., -1:]
        classes = balanced.softmax(dim=-1) * existing
        return torch.einsum("bqt,bqhw->bthw", classes, prediction.masks.sigmoid()).clamp_min(_TINY).log()


def _mean_text(text: torch.Tensor) -> torch.Tensor:
    # (T, P, D + 1) -> (T, D), unit norm
    return F.normalize(text[..., :-1].mean(dim=1), dim=-1)


def _one_block(clip: ClipBackbone, block: Any, tokens: torch.Tensor) -> torch.Tensor:
    query, key, value = clip.query_key_value(block, block.ln_1(tokens))
    return clip.finish(block, tokens, clip.join_heads(block, F.scaled_dot_product_attention(query, key, value)))
