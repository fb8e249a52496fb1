"""CLIP vision transformers, opened up: tokens of every layer, attention maps, the value path, text.

The network is open_clip's own; nothing of it is copied.  :class:`ClipBackbone` walks over its residual
blocks with the model's own weights and modules (so QuickGELU, LayerScale and the like are honoured) and
recomputes only the attention of a block, because ``nn.MultiheadAttention`` does not give out its maps
per head at a bearable price.  All methods take batches and are differentiable, so that training and
inference share them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from rsovlib.backbones.pixels import normalise, patch_grid
from rsovlib.backbones.position import resize_position
from rsovlib.errors import InputError, WeightsError

Tokenizer = Callable[[Sequence[str]], torch.Tensor]

#: Words whose embeddings are remembered at most; ten templates of a large model are 30 kB a word.
_MOST_WORDS = 1000

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class BlockStep:
    """What happened in one residual block.

    Attributes:
        index: the block's number, from 0.
        input: (B, 1 + N, D), the residual stream before the block.
        normed: (B, 1 + N, D), ``ln_1(input)``, from which the block made q, k and v.
        attention: (B, heads, 1 + N, 1 + N), rows sum to 1; None where it wasn't asked for.
        output: (B, 1 + N, D), the residual stream after the block.
    """

    index: int
    input: torch.Tensor
    normed: torch.Tensor
    attention: torch.Tensor | None
    output: torch.Tensor

    @property
    def maps(self) -> torch.Tensor:
        """``attention``, for those who asked the walk for it.

        Raises:
            InputError: the walk wasn't asked for attention.
        """
        if self.attention is None:
            raise InputError(f"Block {self.index} kept no attention; call walk(..., attention=True).")
        return self.attention


@dataclass
class ClipBackbone:
    """A CLIP model with a plain ViT image tower, ready for dense prediction.

    Attributes:
        model: open_clip's ``CLIP`` or ``CustomTextCLIP``, in evaluation mode.
        tokenizer: strings to token numbers (n, context length).
        name: what was asked for, for result rows.
        weights: where the weights came from.
        sha256: hash of the weights' file, or "" for random weights.
        mean, std: the image statistics that the model was trained with, of RGB in [0, 1].
    """

    model: nn.Module = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    name: str
    weights: str
    sha256: str = ""
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    _visual: Any = field(init=False, repr=False)
    _words: dict[tuple[Any, ...], torch.Tensor] = field(init=False, repr=False, default_factory=dict)
    _words_of: tuple[Any, ...] = field(init=False, repr=False, default=())

    def __post_init__(self) -> None:
        visual: Any = getattr(self.model, "visual", None)
        blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
        plain = (
            blocks is not None
            and hasattr(visual, "class_embedding")
            and isinstance(getattr(visual, "proj", None), nn.Parameter)
            and getattr(visual, "attn_pool", None) is None
            and all(isinstance(getattr(block, "attn", None), nn.MultiheadAttention) for block in blocks)
        )
        if not plain:
            raise WeightsError(
                f"{self.name} has no plain ViT image tower (a class token, nn.MultiheadAttention, a projection); "
                "dense prediction needs one: choose a ViT-B, ViT-L or ViT-H of open_clip."
            )
        self._visual = visual

    # ---- what the model is -------------------------------------------------------------------------------

    @property
    def blocks(self) -> Sequence[Any]:
        """The residual blocks of the image tower."""
        return self._visual.transformer.resblocks

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return int(self._visual.conv1.kernel_size[0])

    @property
    def heads(self) -> int:
        """Attention heads of a block."""
        return int(self.blocks[-1].attn.num_heads)

    @property
    def width(self) -> int:
        """D, the width of the residual stream."""
        return int(self._visual.conv1.out_channels)

    @property
    def embed_dim(self) -> int:
        """Size of the joint image-text space."""
        return int(self._visual.proj.shape[1])

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._visual.proj.device

    # ---- images ------------------------------------------------------------------------------------------

    def normalise(self, rgb: torch.Tensor) -> torch.Tensor:
        """Subtract the mean and divide by the deviation: (B, 3, H, W) in [0, 1] -> pixels for :meth:`embed`."""
        return normalise(rgb, self.mean, self.std)

    def embed(self, pixels: torch.Tensor, position: str = "bilinear") -> torch.Tensor:
        """Patches, class token and positions, up to and with ``ln_pre``: the residual stream's start.

        Args:
            pixels: (B, 3, H, W), normalised; H and W are multiples of the patch size.
            position: how the position embedding is resized, see ``position.POSITION_DIALECTS``.

        Returns:
            (B, 1 + N, D) with N = (H / patch) * (W / patch), the class token first.

        Raises:
            InputError: a side is no multiple of the patch size.
        """
        grid = patch_grid(pixels, self.patch_size)
        visual = self._visual
        patches = visual.conv1(pixels)
        table = visual.positional_embedding
        spatial = resize_position(table[1:], grid, position)
        tokens = patches.flatten(2).transpose(1, 2) + spatial
        first = (visual.class_embedding + table[0]).expand(len(tokens), 1, -1)
        return visual.ln_pre(torch.cat([first.to(tokens.dtype), tokens], dim=1))

    def walk(
        self,
        tokens: torch.Tensor,
        *,
        attention: bool | Sequence[int] = False,
        stop: int | None = None,
        mask: torch.Tensor | None = None,
    ) -> Iterator[BlockStep]:
        """Go through the residual blocks one by one.

        Nothing is stored: whoever needs the mean of all maps adds each as it comes and lets it go.

        Args:
            tokens: (B, 1 + N, D) from :meth:`embed`.
            attention: whether the attention maps are wanted; a sequence names the blocks.
            stop: the number of blocks to go through; None for all.
            mask: (L, L) bool, True where a token (row) may attend to another (column); None for everywhere.

        Yields:
            A :class:`BlockStep` a block.
        """
        last = len(self.blocks) if stop is None else stop
        for index, block in enumerate(self.blocks[:last]):
            wanted = attention if isinstance(attention, bool) else index in attention
            normed = block.ln_1(tokens)
            query, key, value = self.query_key_value(block, normed)
            if wanted:
                scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
                weights = (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(dim=-1)
                mixed = weights @ value
            else:
                weights = None
                mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            output = self.finish(block, tokens, self.join_heads(block, mixed))
            yield BlockStep(index, tokens, normed, weights, output)
            tokens = output
            # A map is the largest thing here: it must not wait for the next one to replace it.
            del weights, mixed

    @staticmethod
    def query_key_value(block: Any, normed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """q, k and v of a block, each (B, heads, L, D / heads), from its layer-normed input (B, L, D)."""
        packed = F.linear(normed, block.attn.in_proj_weight, block.attn.in_proj_bias)
        query, key, value = packed.chunk(3, dim=-1)
        heads = block.attn.num_heads
        return _split_heads(query, heads), _split_heads(key, heads), _split_heads(value, heads)

    @staticmethod
    def value(block: Any, normed: torch.Tensor) -> torch.Tensor:
        """v alone, as in :meth:`query_key_value`, at a third of the cost."""
        attn, width = block.attn, normed.shape[-1]
        packed = F.linear(normed, attn.in_proj_weight[2 * width :], attn.in_proj_bias[2 * width :])
        return _split_heads(packed, attn.num_heads)

    @staticmethod
    def join_heads(block: Any, mixed: torch.Tensor) -> torch.Tensor:
        """Heads side by side and through ``out_proj``: (B, heads, L, D / heads) -> (B, L, D)."""
        return block.attn.out_proj(_merge_heads(mixed))

    @staticmethod
    def finish(block: Any, tokens: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """The rest of a block: both residuals and the feed-forward, from its input and what its attention gave."""
        output = tokens + block.ls_1(attended)
        return output + block.ls_2(block.mlp(block.ln_2(output)))

    def attend_last(self, features: torch.Tensor, attention: torch.Tensor | None = None) -> torch.Tensor:
        """The last block's value path with another attention, without residual and without feed-forward.

        ``proj^T ln_post(out_proj(A W_v ln_1(features)))``, A shared or per head; A = identity is the value path
        of MaskCLIP ("common") and of the training of the embedded models.

        Args:
            features: (B, L, D), any layer's tokens.
            attention: (B, heads, L, L) or (B, 1, L, L), rows need not sum to 1; None for the identity.

        Returns:
            (B, L, E), tokens in the joint image-text space, not of unit norm.
        """
        block = self.blocks[-1]
        value = self.value(block, block.ln_1(features))
        if attention is not None:
            value = attention @ value
        return self.project(self.join_heads(block, value))

    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        """``ln_post`` and the projection to the joint space, for all tokens: (B, L, D) -> (B, L, E)."""
        return self._visual.ln_post(tokens) @ self._visual.proj

    # ---- text --------------------------------------------------------------------------------------------

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Text embeddings of unit norm, (n, E)."""
        tokens = self.tokenizer(list(texts)).to(self.device)
        model: Any = self.model
        return F.normalize(model.encode_text(tokens).float(), dim=-1)

    def remembered_words(self) -> dict[tuple[Any, ...], torch.Tensor] | None:
        """Where ``encode_words`` keeps its answers, so that a scene's next tile or the next prompt needn't wait again.

        Empty after the weights changed or moved; None for a model that is being trained.
        """
        parameters = list(self.model.parameters())
        if any(parameter.requires_grad for parameter in parameters):
            return None
        # Every change in place counts a tensor's version up.
        state = (self.device, parameters[0].dtype, sum(p._version for p in parameters if not p.is_inference()))
        if state != self._words_of or len(self._words) >= _MOST_WORDS:
            self._words, self._words_of = {}, state
        return self._words


def _split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    # (B, L, heads * d) -> (B, heads, L, d)
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _merge_heads(x: torch.Tensor) -> torch.Tensor:
    # (B, heads, L, d) -> (B, L, heads * d)
    return x.transpose(1, 2).flatten(2)
