"""The control method against open_clip's own modules, and what it shares with the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rsovlib.backbones import encode_classes
from rsovlib.data.classes import parse_classes
from rsovlib.segmenters import Segmenter, ValuePath
from rsovlib.segmenters.images import as_rgb, patch_sides

CLASSES = ["water, river", "forest"]


def test_it_is_the_last_blocks_attention_with_every_token_looking_at_itself(tiny_clip):
    image = np.random.default_rng(4).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    answer = ValuePath(tiny_clip, clip_size=None)(image, CLASSES)

    visual: Any = tiny_clip.model.visual
    seen: list[torch.Tensor] = []
    last = visual.transformer.resblocks[-1]
    hook = last.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    pixels = tiny_clip.normalise(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)
    visual(pixels)
    hook.remove()
    tokens = last.ln_1(seen[0])
    # An attention of one token to itself alone has the weight 1: one sequence a token.
    alone = tokens.transpose(0, 1)
    values = last.attn(alone, alone, alone)[0].transpose(0, 1)
    features = F.normalize(visual.ln_post(values) @ visual.proj, dim=-1)[0, 1:]
    text = encode_classes(tiny_clip, parse_classes(CLASSES))
    expected = (50 * features @ text.T).softmax(dim=-1)
    np.testing.assert_allclose(answer.stages["clip_scores"], expected, atol=1e-5)
    # One patch covers 8 x 8 pixels; at their middle the enlarged map has its neighbours' mean.
    assert answer.probabilities.shape == (2, 48, 48)


@pytest.mark.parametrize("size", [(37, 31), (1, 1), (90, 12)])
def test_any_size(tiny_clip, size):
    answer = ValuePath(tiny_clip, clip_size=None)(np.zeros((*size, 3), np.uint8), CLASSES)
    assert answer.labels.shape == size
    np.testing.assert_allclose(answer.probabilities.sum(axis=0), 1, atol=1e-5)


def test_a_window_of_the_images_size_is_the_whole_image(tiny_clip):
    image = np.random.default_rng(5).integers(0, 255, (40, 33, 3), dtype=np.uint8)
    whole = ValuePath(tiny_clip, clip_size=None)(image, CLASSES)
    same = ValuePath(tiny_clip, clip_size=None, window=40, overlap=8)(image, CLASSES)
    np.testing.assert_array_equal(whole.probabilities, same.probabilities)
    parts = ValuePath(tiny_clip, clip_size=None, window=24, overlap=8)(image, CLASSES)
    assert parts.probabilities.shape == (2, 40, 33)
    np.testing.assert_allclose(parts.probabilities.sum(axis=0), 1, atol=1e-5)


def test_it_is_a_segmenter(tiny_clip):
    method = ValuePath(tiny_clip)
    assert isinstance(method, Segmenter)
    assert method.settings()["method"] == "valuepath"
    sizes = [method.memory_needed(side, side, 3) for side in (600, 1200, 2400)]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize(
    ("size", "patch", "short", "sides"),
    [
        ((512, 512), 14, 512, (518, 518)),
        ((512, 512), 8, 384, (384, 384)),
        ((600, 300), 14, 512, (1022, 518)),
        ((37, 31), 8, None, (40, 32)),
        ((3, 100), 16, None, (16, 96)),
        ((1, 1), 14, 224, (224, 224)),
    ],
)
def test_the_sides_of_a_networks_input(size, patch, short, sides):
    assert patch_sides(*size, patch, short) == sides


def test_read_only_images_are_taken():
    image = np.zeros((4, 5, 3), np.uint8)
    image.flags.writeable = False
    torch.from_numpy(as_rgb(image))
    floats = as_rgb(torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1))
    assert floats.ravel().tolist() == [0, 128, 255]
