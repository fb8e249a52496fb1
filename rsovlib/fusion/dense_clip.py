"""CLIP read at every patch: features in the space of text, and the residual stream on the way there.

The last block gets no attention, for tokens are to speak for their own place. What stands for the residual differs
(see ``config.DENSE_READINGS``): the release adds the *class token* to every patch's values, not the patch's own token.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from rsovlib.backbones.clip import ClipBackbone
from rsovlib.backbones.pixels import patch_grid


class DenseFeatures(NamedTuple):
    """What CLIP gives.

    Attributes:
        last: (B, D, h, w) in the joint space, not of unit norm.
        skips: a tensor (B, width, h, w) a block that was asked for: the residual stream after it, without norm.
    """

    last: torch.Tensor
    skips: list[torch.Tensor]


def dense_features(
    clip: ClipBackbone, pixels: torch.Tensor, *, skips: tuple[int, ...], reading: str, position: str
) -> DenseFeatures:
    """Run CLIP densely.

    Args:
        clip: the model, L blocks.
        pixels: (B, 3, H, W), normalised; H and W are multiples of the patch.
        skips: blocks, from 1, below L.
        reading: a key of ``config.DENSE_READINGS``.
        position: dialect in which the position table is resized.

    Raises:
        InputError: a side is no multiple of the patch.
    """
    grid = patch_grid(pixels, clip.patch_size)
    tokens = clip.embed(pixels, position)
    kept: dict[int, torch.Tensor] = {}
    for step in clip.walk(tokens, stop=len(clip.blocks) - 1):
        tokens = step.output
        if step.index + 1 in skips:
            kept[step.index + 1] = tokens
    last = read_last(clip, tokens, reading)
    return DenseFeatures(_image(last, grid), [_image(kept[number], grid) for number in skips])


def read_last(clip: ClipBackbone, tokens: torch.Tensor, reading: str) -> torch.Tensor:
    """The last block without attention: tokens before it, (B, 1 + N, width), to the joint space, (B, 1 + N, D)."""
    if reading == "value_path":
        return clip.attend_last(tokens)
    block = clip.blocks[-1]
    residual = tokens[:, :1] if reading == "class_residual" else tokens
    values = clip.join_heads(block, clip.value(block, block.ln_1(tokens)))
    return clip.project(clip.finish(block, residual, values))


def _image(tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    # (B, 1 + h * w, C) -> (B, C, h, w), without the class token
    return tokens[:, 1:].transpose(1, 2).unflatten(2, grid)
