"""The opened DINO is timm's: v1, v2 and v3, features of every layer, and the last attention written down by hand."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F

from rsovlib.backbones import DinoBackbone, load_dino
from rsovlib.backbones.dino import IMAGENET_MEAN
from rsovlib.backbones.position import resize_position
from rsovlib.errors import InputError, WeightsError

#: Architecture -> overrides, patch, prefix tokens, dialect of the position embedding.
KINDS: dict[str, tuple[dict[str, Any], int, int, str]] = {
    "vit_base_patch8_224.dino": ({"img_size": 32}, 8, 1, "bicubic_offset"),
    "vit_base_patch14_dinov2": ({"img_size": 56}, 14, 1, "bicubic_antialias"),
    "vit_base_patch14_reg4_dinov2": ({"img_size": 56}, 14, 5, "bicubic_antialias"),
    "vit_base_patch16_dinov3": ({}, 16, 5, ""),
}


@pytest.fixture(scope="module", params=list(KINDS))
def dino(request: pytest.FixtureRequest) -> DinoBackbone:
    return build(request.param)


def build(name: str) -> DinoBackbone:
    torch.manual_seed(31)
    overrides, *_ = KINDS[name]
    dino = load_dino(name, weights="random", device="cpu", embed_dim=24, depth=3, num_heads=2, **overrides)
    for key, parameter in dino.model.named_parameters():
        if "gamma" in key:  # LayerScales start at 1e-5, which would make all layers the same
            parameter.fill_(1.0)
        elif parameter.ndim == 1 or "token" in key or key == "pos_embed":  # and these start at nothing
            parameter.add_(0.2 * torch.randn_like(parameter))
    return dino


def images(dino: DinoBackbone, grid: tuple[int, int], count: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(count, 3, dino.patch_size * grid[0], dino.patch_size * grid[1], generator=generator)


def timms(dino: DinoBackbone, pixels: torch.Tensor, norm: bool) -> list[tuple[torch.Tensor, torch.Tensor]]:
    model: Any = dino.model
    return model.forward_intermediates(
        pixels, norm=norm, return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
    )


def attention_by_hand(dino: DinoBackbone, pixels: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Softmax of scaled products, head by head, from the input (B, prefix + N, D) of the last block."""
    model: Any = dino.model
    block = model.blocks[-1]
    normed = block.norm1(tokens)
    attn = block.attn
    packed = F.linear(normed, attn.qkv.weight, attn.qkv.bias)
    if getattr(attn, "q_bias", None) is not None:
        packed = packed + torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])
    heads = []
    for head in range(2):
        query, key = (packed[..., 24 * i + 12 * head : 24 * i + 12 * head + 12] for i in range(2))
        if getattr(model, "rope", None) is not None:
            # DINOv3: sine and cosine tables of the patch grid, halves rotated, prefix tokens left alone.
            sine, cosine = model.rope.get_embed(shape=[side // 16 for side in pixels.shape[-2:]]).chunk(2, dim=-1)
            first = dino.prefix_tokens
            rotated = []
            for x in (query, key):
                patches = x[:, first:]
                half = torch.cat([-patches[..., 6:], patches[..., :6]], dim=-1)
                rotated.append(torch.cat([x[:, :first], patches * cosine + half * sine], dim=1))
            query, key = rotated
        heads.append((query @ key.transpose(1, 2) / 12**0.5).softmax(dim=-1))
    return torch.stack(heads).mean(dim=0)


def test_layers_at_the_native_size_equal_timms(dino):
    grid = (14, 14) if dino.patch_size == 16 else (4, 4)
    pixels = images(dino, grid, count=2)
    features = dino.features(pixels)
    expected = timms(dino, pixels, norm=True)
    assert len(features.layers) == len(expected) == 3
    for layer, (patches, _) in zip(features.layers, expected, strict=True):
        torch.testing.assert_close(layer, patches, rtol=1e-4, atol=1e-5)
    assert features.text_layers is features.layers
    assert features.grid == grid
    prefix = expected[-1][1]
    torch.testing.assert_close(features.class_token, prefix[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features.registers, prefix[:, 1:], rtol=1e-4, atol=1e-5)


def test_the_last_layer_is_what_the_model_gives_out(dino):
    pixels = images(dino, (14, 14) if dino.patch_size == 16 else (4, 4))
    model: Any = dino.model
    whole = model.forward_features(pixels)
    first = dino.prefix_tokens
    torch.testing.assert_close(dino.features(pixels).layers[-1], whole[:, first:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (1, 1), (7, 2)])
def test_attention_against_a_hand_written_softmax(dino, grid):
    pixels = images(dino, grid, count=2)
    # The last block's input, caught from the run itself: positions are another test's matter.
    seen: list[torch.Tensor] = []
    model: Any = dino.model
    hook = model.blocks[-1].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    features = dino.features(pixels)
    hook.remove()
    expected = attention_by_hand(dino, pixels, seen[0])
    first, n = dino.prefix_tokens, grid[0] * grid[1]
    assert expected.shape == (2, first + n, first + n)
    torch.testing.assert_close(features.attention, expected[:, first:, first:], rtol=1e-4, atol=1e-6)
    # Prefix tokens took part in the softmax, and nothing was normalised after they were cut out.
    torch.testing.assert_close(features.attention.sum(dim=-1), 1 - expected[:, first:, :first].sum(dim=-1))
    assert (features.attention.sum(dim=-1) < 1).all()


def test_catching_the_attention_leaves_no_trace(dino):
    pixels = images(dino, (3, 5))
    model: Any = dino.model
    attn = model.blocks[-1].attn
    before = attn.fused_attn
    one = dino.features(pixels)
    assert attn.fused_attn is before
    assert not attn.attn_drop._forward_hooks
    two = dino.features(pixels)
    torch.testing.assert_close(one.attention, two.attention, rtol=0, atol=0)
    with pytest.raises(InputError):
        dino.features(pixels[..., 1:])
    assert attn.fused_attn is before


@pytest.mark.parametrize("grid", [(3, 5), (9, 4), (1, 6)])
@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind[3]])
def test_positions_at_other_sizes(name, grid):
    """Slowly: every patch, its position in the weights' dialect, and the prefix in front."""
    dino = build(name)
    _, _, prefix, dialect = KINDS[name]
    assert dino.position == dialect
    model: Any = dino.model
    pixels = images(dino, grid)
    table = model.pos_embed[0]
    separate = 0 if prefix == 5 else 1  # with registers timm folded the class token's position into the token
    position = resize_position(table[separate:], grid, dialect)
    patches = F.conv2d(pixels, model.patch_embed.proj.weight, model.patch_embed.proj.bias, stride=dino.patch_size)
    tokens = patches.flatten(2).transpose(1, 2) + position
    front = [model.cls_token + (table[:1] if separate else 0)] + ([model.reg_token] if prefix == 5 else [])
    x = torch.cat([*front, tokens], dim=1)
    features = dino.features(pixels)
    for block, layer in zip(model.blocks, features.layers, strict=True):
        x = block(x)
        torch.testing.assert_close(layer, model.norm(x)[:, prefix:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features.class_token, model.norm(x)[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features.registers, model.norm(x)[:, 1:prefix], rtol=1e-4, atol=1e-5)


def test_antialias_is_what_timm_does_with_other_sizes():
    dino = build("vit_base_patch14_reg4_dinov2")
    pixels = images(dino, (6, 3))
    for layer, (patches, _) in zip(dino.features(pixels).layers, timms(dino, pixels, norm=True), strict=True):
        torch.testing.assert_close(layer, patches, rtol=1e-3, atol=1e-4)


def test_a_batch_equals_one_by_one(dino):
    pixels = images(dino, (3, 5), count=3)
    together = dino.features(pixels)
    for i in range(3):
        alone = dino.features(pixels[i : i + 1])
        torch.testing.assert_close(together.attention[i], alone.attention[0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(together.layers[-1][i], alone.layers[-1][0], rtol=1e-4, atol=1e-5)


def test_alignment_maps_every_layer_into_the_text_space():
    dino = build("vit_base_patch14_dinov2")
    weight, bias = torch.randn(3, 24, 24), torch.randn(3, 24)
    aligned = DinoBackbone(dino.model, "x", "y", alignment=(weight, bias))
    features = aligned.features(images(dino, (2, 3)))
    for i in range(3):
        for token in range(6):
            expected = weight[i] @ features.layers[i][0, token] + bias[i]
            torch.testing.assert_close(features.text_layers[i][0, token], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", list(KINDS))
def test_what_it_says_about_itself(name):
    dino = build(name)
    _, patch, prefix, _ = KINDS[name]
    assert (dino.patch_size, dino.prefix_tokens, dino.heads, dino.embed_dim) == (patch, prefix, 2, 24)
    assert dino.mean == pytest.approx(IMAGENET_MEAN)
    assert dino.weights == "random"
    assert not dino.model.training
    grey = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
    torch.testing.assert_close(dino.normalise(grey), torch.zeros(1, 3, 1, 1))


@pytest.mark.parametrize("extra", [(1, 0), (0, 3)])
def test_sides_that_are_no_multiple_of_the_patch(dino, extra):
    with pytest.raises(InputError, match=f"patches of {dino.patch_size}"):
        dino.features(torch.zeros(1, 3, 2 * dino.patch_size + extra[0], 2 * dino.patch_size + extra[1]))


def test_networks_that_are_no_vision_transformers():
    with pytest.raises(WeightsError, match="choose a ViT"):
        DinoBackbone(timm.create_model("resnet10t", pretrained=False), "resnet10t", "random")
    with pytest.raises(WeightsError, match="choose a ViT"):
        load_dino("resnet10t", weights="random", device="cpu")
