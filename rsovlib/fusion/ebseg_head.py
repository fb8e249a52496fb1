"""EBSeg's mask decoder: a pyramid of both encoders' features, and queries that look at it through their own masks.

After Mask2Former (Cheng et al., CVPR 2022), with convolutions where it has deformable attention.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn


class Prediction(NamedTuple):
    """What the queries say after one layer.

    Attributes:
        masks: (B, Q, 4 h, 4 w), logits.
        embeddings: (B, Q, D), embeddings A, unit norm.
        keys: (B, Q, width), what the masks are made from.
    """

    masks: torch.Tensor
    embeddings: torch.Tensor
    keys: torch.Tensor


class PixelDecoder(nn.Module):
    """Features at one, two and four times the cells' resolution, from coarse to fine.

    Args:
        structure: channels of the second encoder.
        clip: channels of CLIP.
        width: given back.
    """

    def __init__(self, structure: int, clip: int, width: int) -> None:
        super().__init__()
        self.structure = nn.ModuleList(nn.Conv2d(structure, width, 1) for _ in range(3))
        self.clip_norm = nn.ModuleList(nn.LayerNorm(clip) for _ in range(3))
        self.clip = nn.ModuleList(nn.Conv2d(clip, width, 1) for _ in range(3))
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(3))
        self.norm = nn.ModuleList(nn.GroupNorm(max(1, width // 16), width) for _ in range(3))
        self.features = nn.Conv2d(width, width, 1)

    def forward(
        self, structure: list[torch.Tensor], clip: list[torch.Tensor], grid: tuple[int, int]
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Blocks of both encoders, shallow to deep, to (B, width, h, w) and twice as fine; and features four times."""
        levels: list[torch.Tensor] = []
        for step in range(3):
            sides = (grid[0] * 2**step, grid[1] * 2**step)
            block = 2 - step  # the coarsest scale takes the deepest block
            guide = self.clip_norm[step](clip[block].movedim(1, -1)).movedim(-1, 1)
            level = _resized(self.structure[step](structure[block]), sides) + _resized(self.clip[step](guide), sides)
            if levels:
                level = level + _resized(levels[-1], sides)
            levels.append(F.relu(self.norm[step](self.smooth[step](level))))
        return levels[:2], self.features(levels[2])


class MaskDecoder(nn.Module):
    """Queries that look at two scales in turn, each only where its last mask was.

    Args:
        width: of queries and features.
        queries: Q.
        layers: a layer looks at one scale.
        heads: of the attentions.
        hidden: width of the feed-forward.
        joint: D, size of the space of texts.
        clip_heads: heads of CLIP's attentions, each of which gets a bias of its own.
    """

    def __init__(
        self, width: int, queries: int, layers: int, heads: int, hidden: int, joint: int, clip_heads: int
    ) -> None:
        super().__init__()
        self.clip_heads = clip_heads
        self.content = nn.Parameter(torch.randn(queries, width))
        self.place = nn.Parameter(torch.randn(queries, width))
        self.level = nn.Parameter(torch.randn(2, width))
        self.layers = nn.ModuleList(_QueryLayer(width, heads, hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.mask = _mlp(width, width)
        self.pooled = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.embed = _mlp(width, joint)
        self.bias = _mlp(width, width * clip_heads)

    def forward(self, scales: list[torch.Tensor], features: torch.Tensor) -> list[Prediction]:
        """Two scales (B, width, ..) and features (B, width, 4 h, 4 w) to predictions before and after each layer."""
        memories, places = [], []
        for number, scale in enumerate(scales):
            memories.append(scale.flatten(2).transpose(1, 2) + self.level[number])
            places.append(sine_places(scale.shape[-2], scale.shape[-1], scale.shape[1]).to(scale))
        queries = self.content.expand(len(features), -1, -1)
        predictions = [self._predict(queries, features)]
        for number, layer in enumerate(self.layers):
            turn = number % 2
            sides = scales[turn].shape[-2:]
            outside = F.interpolate(predictions[-1].masks, size=sides, mode="bilinear", align_corners=False) < 0
            outside = outside.flatten(2).detach()
            outside &= ~outside.all(dim=-1, keepdim=True)  # whoever would see nothing sees everything
            queries = layer(queries, self.place, memories[turn], places[turn], outside)
            predictions.append(self._predict(queries, features))
        return predictions

    def _predict(self, queries: torch.Tensor, features: torch.Tensor) -> Prediction:
        normed = self.norm(queries)
        keys = self.mask(normed)
        masks = torch.einsum("bqc,bchw->bqhw", keys, features)
        inside = (masks.detach() > 0).to(features.dtype)
        pooled = torch.einsum("bqhw,bchw->bqc", inside, features) / (inside.sum(dim=(-1, -2))[..., None] + 1e-8)
        embeddings = F.normalize(self.embed(normed + self.pooled(pooled)), dim=-1)
        return Prediction(masks, embeddings, keys)

    def bias_maps(self, prediction: Prediction, features: torch.Tensor) -> torch.Tensor:
        """(B, Q, heads of CLIP, 4 h, 4 w): a query's mask again, its keys mixed anew for every head."""
        mixed = self.bias(prediction.keys).unflatten(-1, (self.clip_heads, -1))
        return torch.einsum("bqnc,bchw->bqnhw", mixed, features)


class _QueryLayer(nn.Module):
    """Attention to the image, attention among the queries, feed-forward; norms after each residual."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.cross = nn.MultiheadAttention(width, heads, batch_first=True)
        self.among = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(
        self,
        queries: torch.Tensor,
        place: torch.Tensor,
        memory: torch.Tensor,
        memory_place: torch.Tensor,
        outside: torch.Tensor,
    ) -> torch.Tensor:
        mask = outside.repeat_interleave(self.cross.num_heads, dim=0)  # (B * heads, Q, N)
        seen, _ = self.cross(queries + place, memory + memory_place, memory, attn_mask=mask, need_weights=False)
        queries = self.norms[0](queries + seen)
        placed = queries + place
        heard, _ = self.among(placed, placed, queries, need_weights=False)
        queries = self.norms[1](queries + heard)
        return self.norms[2](queries + self.mlp(queries))


def sine_places(rows: int, columns: int, width: int) -> torch.Tensor:
    """Sines and cosines of a place's row and column, relative to the image: (rows * columns, width)."""
    quarter = width // 4
    waves = 10000 ** -(torch.arange(quarter) / max(1, quarter))
    parts = []
    for count in (rows, columns):
        phase = 2 * math.pi * (torch.arange(count) + 0.5)[:, None] / count * waves
        parts.append(torch.cat([phase.sin(), phase.cos()], dim=1))
    down, across = parts
    both = [down[:, None].expand(-1, columns, -1), across[None].expand(rows, -1, -1)]
    return torch.cat(both, dim=-1).flatten(0, 1)


def _mlp(width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)
    )


def _resized(x: torch.Tensor, sides: tuple[int, int]) -> torch.Tensor:
    if tuple(x.shape[-2:]) == sides:
        return x
    return F.interpolate(x, size=sides, mode="bilinear", align_corners=False)
