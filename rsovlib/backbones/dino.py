"""Self-supervised vision transformers (DINO v1, v2, v3) from timm: features of every layer, last attention.

timm's own forward pass is used; two things are added.  The attention of the last block is watched where timm
asks torch for it, so that rotary positions, q/k normalisation and the like are whatever the model does
(:mod:`rsovlib.backbones.watching`).  And the position embedding is resized in the dialect that the weights'
publishers prescribe, which for DINO v1 is not timm's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from rsovlib.backbones.pixels import normalise, patch_grid
from rsovlib.backbones.position import resize_position
from rsovlib.backbones.watching import WatchedAttention
from rsovlib.errors import WeightsError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class DinoFeatures:
    """What a DINO gives for one image or a batch.

    Attributes:
        layers: a tensor (B, N, D) a layer: patch tokens after the model's final normalisation.
        text_layers: the same in the space of text embeddings: mapped by the checkpoint's alignment where it has
            one (embedded models), else ``layers`` themselves, as SDCI compares them.
        class_token: (B, D), of the last layer, normalised; None where the model has none.
        registers: (B, R, D), of the last layer, normalised; R may be 0.
        attention: (B, N, N), mean over heads of the last block's attention, prefix tokens taking part in the softmax
            and cut out afterwards without normalising again, so rows sum to less than 1.
        grid: rows and columns of patches, N = rows * columns.
    """

    layers: list[torch.Tensor]
    text_layers: list[torch.Tensor]
    class_token: torch.Tensor | None
    registers: torch.Tensor
    attention: torch.Tensor
    grid: tuple[int, int]


@dataclass
class DinoBackbone:
    """A timm vision transformer whose patch features serve as structure.

    Attributes:
        model: the timm model, in evaluation mode.
        name, weights, sha256: what was asked for, where the weights came from, hash of their file.
        position: dialect for resizing the position embedding, see ``position.POSITION_DIALECTS``; ignored by models
            with rotary positions.
        alignment: (L, E, D) and (L, E): maps every layer's features into the text space; None for the papers' models.
        mean, std: image statistics of RGB in [0, 1].
    """

    model: nn.Module = field(repr=False)
    name: str
    weights: str
    sha256: str = ""
    position: str = "bicubic_antialias"
    alignment: tuple[torch.Tensor, torch.Tensor] | None = field(default=None, repr=False)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    _model: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        model: Any = self.model
        last = getattr(model, "blocks", [None])[-1]
        if not hasattr(getattr(last, "attn", None), "attn_drop") or not hasattr(model, "forward_intermediates"):
            raise WeightsError(f"{self.name} is no timm vision transformer with softmax attention; choose a ViT.")
        for block in model.blocks:
            # timm then asks torch for its attention, which is where it can be watched; the numbers are the same.
            block.attn.fused_attn = True
        self._model = model

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return int(self._model.patch_embed.patch_size[0])

    @property
    def prefix_tokens(self) -> int:
        """Class token and registers in front of the patches."""
        return int(self._model.num_prefix_tokens)

    @property
    def width(self) -> int:
        """D, the width of the tokens."""
        return int(self._model.embed_dim)

    @property
    def depth(self) -> int:
        """L, the number of blocks."""
        return len(self._model.blocks)

    @property
    def embed_dim(self) -> int:
        """Size of the features that are compared with text."""
        return int(self._model.embed_dim if self.alignment is None else self.alignment[0].shape[1])

    @property
    def heads(self) -> int:
        """Attention heads of the last block."""
        return int(self._model.blocks[-1].attn.num_heads)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def normalise(self, rgb: torch.Tensor) -> torch.Tensor:
        """Subtract the mean and divide by the deviation: (B, 3, H, W) in [0, 1] -> pixels for :meth:`features`."""
        return normalise(rgb, self.mean, self.std)

    def features(self, pixels: torch.Tensor) -> DinoFeatures:
        """Run the model.

        Args:
            pixels: (B, 3, H, W), normalised; H and W are multiples of the patch size.

        Returns:
            :class:`DinoFeatures`.

        Raises:
            InputError: a side is no multiple of the patch size.
        """
        grid = patch_grid(pixels, self.patch_size)
        with WatchedAttention(self.depth - 1, self.prefix_tokens) as watched:
            layers, prefixes = self._run(pixels, grid)
        if watched.calls != self.depth:
            raise WeightsError(f"{self.name} attends {watched.calls} times in {self.depth} blocks; choose a plain ViT.")
        has_class = getattr(self._model, "cls_token", None) is not None
        text_layers = layers
        if self.alignment is not None:
            weight, bias = self.alignment
            text_layers = [x @ weight[i].T + bias[i] for i, x in enumerate(layers)]
        return DinoFeatures(
            layers=layers,
            text_layers=text_layers,
            class_token=prefixes[:, 0] if has_class else None,
            registers=prefixes[:, 1:] if has_class else prefixes,
            attention=watched.head_mean,
            grid=grid,
        )

    def layers(self, pixels: torch.Tensor) -> tuple[list[torch.Tensor], tuple[int, int]]:
        """The patch tokens of every layer alone, without the attention map: less memory than :meth:`features`.

        Args:
            pixels: (B, 3, H, W), normalised; H and W are multiples of the patch size.

        Returns:
            A tensor (B, N, D) a layer, after the model's final normalisation; rows and columns of patches.

        Raises:
            InputError: a side is no multiple of the patch size.
        """
        grid = patch_grid(pixels, self.patch_size)
        return self._run(pixels, grid)[0], grid

    def query_key(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int]]:
        """q and k of the last block, patches only; of rotary models, before the rotation.

        Args:
            pixels: (B, 3, H, W), normalised; H and W are multiples of the patch size.

        Returns:
            q and k, each (B, heads, N, d), and the grid of patches.

        Raises:
            InputError: a side is no multiple of the patch size.
        """
        grid = patch_grid(pixels, self.patch_size)
        attention = self._model.blocks[-1].attn
        caught: list[torch.Tensor] = []
        hook = attention.register_forward_pre_hook(lambda _module, inputs: caught.append(inputs[0]))
        try:
            self._run(pixels, grid)
        finally:
            hook.remove()
        return (*self.split_last(caught[0]), grid)

    def split_last(self, normed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """q and k (B, heads, N, d) of the last block, patches only, from the tokens (B, L, D) that it attends to."""
        attention = self._model.blocks[-1].attn
        query, key = (
            part[:, self.prefix_tokens :].unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
            for part in _query_key(attention, normed)
        )
        return attention.q_norm(query), attention.k_norm(key)

    def _run(self, pixels: torch.Tensor, grid: tuple[int, int]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Normalised patch tokens of every layer, and the last layer's prefix tokens."""
        model = self._model
        if getattr(model, "rope", None) is not None or model.pos_embed is None:
            pairs = model.forward_intermediates(
                pixels, norm=True, return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
            )
            return [patches for patches, _ in pairs], pairs[-1][1]
        tokens = model.norm_pre(model.patch_drop(self._embed(pixels, grid)))
        first, layers = self.prefix_tokens, []
        for block in model.blocks:
            tokens = block(tokens)
            normed = model.norm(tokens)
            layers.append(normed[:, first:])
        return layers, normed[:, :first]

    def _embed(self, pixels: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Patches, positions and prefix tokens, (B, prefix + N, D).

        Two layouts exist: DINOv2 with registers positions the patches alone (timm folded the class token's
        position into the token itself); all others have a position for the class token as well.
        """
        model = self._model
        tokens = model.patch_embed(pixels).flatten(1, 2)  # (B, h, w, D) -> (B, N, D)
        table = model.pos_embed[0]
        separate = 0 if model.no_embed_class else self.prefix_tokens
        tokens = tokens + resize_position(table[separate:], grid, self.position)
        prefix = [token for token in (model.cls_token, getattr(model, "reg_token", None)) if token is not None]
        if not prefix:
            return tokens
        front = torch.cat(prefix, dim=1)
        if separate:
            front = front + table[:separate]
        return torch.cat([front.expand(len(tokens), -1, -1), tokens], dim=1)


def _query_key(attention: Any, normed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """q and k (B, L, D) of an attention of timm, whose two families keep their weights differently."""
    if attention.qkv is None:
        return attention.q_proj(normed), attention.k_proj(normed)
    packed = attention.qkv(normed)
    if getattr(attention, "q_bias", None) is not None:
        packed = packed + torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
    query, key, _ = packed.chunk(3, dim=-1)
    return query, key
