"""The opened CLIP is open_clip's CLIP, layer by layer, in every variant that open_clip lets one choose."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from rsovlib.backbones import ClipBackbone, load_clip
from rsovlib.backbones.clip import OPENAI_MEAN
from rsovlib.errors import InputError, WeightsError


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    """Two normalised images at the tiny model's own size."""
    return torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))


def variant(tiny_config: dict[str, Any], **changes: Any) -> ClipBackbone:
    torch.manual_seed(5)
    clip = load_clip("ViT-B-32", weights="random", device="cpu", **{**tiny_config, **changes})
    for name, parameter in clip.model.named_parameters():
        if "ls_" in name or name.endswith("bias"):  # fresh ones are 1 and 0, and would hide mistakes
            parameter.add_(0.3 * torch.randn_like(parameter))
    return clip


@pytest.fixture(scope="module", params=["gelu", "quick_gelu", "layer_scale", "custom_text"])
def clip(request: pytest.FixtureRequest, tiny_config: dict[str, Any]) -> ClipBackbone:
    changes: dict[str, dict[str, Any]] = {
        "gelu": {},
        "quick_gelu": {"quick_gelu": True},
        "layer_scale": {"vision_cfg": {**tiny_config["vision_cfg"], "ls_init_value": 0.5}},
        "custom_text": {"custom_text": True},
    }
    return variant(tiny_config, **changes[request.param])


def hidden_states(clip: ClipBackbone, pixels: torch.Tensor) -> list[torch.Tensor]:
    """What open_clip's own forward pass has after every block."""
    seen: list[torch.Tensor] = []
    visual: Any = clip.model.visual
    hooks = [
        block.register_forward_hook(lambda _m, _i, out: seen.append(out)) for block in visual.transformer.resblocks
    ]
    visual(pixels)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("attention", [True, False, (1,)])
def test_every_layer_equals_open_clips(clip, pixels, attention):
    steps = list(clip.walk(clip.embed(pixels), attention=attention))
    for step, expected in zip(steps, hidden_states(clip, pixels), strict=True):
        torch.testing.assert_close(step.output, expected, rtol=1e-4, atol=1e-5)
        wanted = attention if isinstance(attention, bool) else step.index in attention
        assert (step.attention is not None) is wanted


def test_the_class_token_projected_is_the_image_embedding(clip, pixels):
    *_, last = clip.walk(clip.embed(pixels))
    model: Any = clip.model
    torch.testing.assert_close(clip.project(last.output)[:, 0], model.encode_image(pixels), rtol=1e-4, atol=1e-5)


def test_the_attention_is_the_modules_own(clip, pixels):
    for step in clip.walk(clip.embed(pixels), attention=True):
        block = clip.blocks[step.index]
        _, expected = block.attn(step.normed, step.normed, step.normed, average_attn_weights=False)
        torch.testing.assert_close(step.maps, expected, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(step.maps.sum(dim=-1), torch.ones(2, 2, 37))
        torch.testing.assert_close(step.normed, block.ln_1(step.input))


def test_attention_that_was_not_asked_for(tiny_clip, pixels):
    step = next(tiny_clip.walk(tiny_clip.embed(pixels)))
    with pytest.raises(InputError, match="attention=True"):
        _ = step.maps


def test_a_walk_may_stop_early(tiny_clip, pixels):
    tokens = tiny_clip.embed(pixels)
    assert [step.index for step in tiny_clip.walk(tokens, stop=2)] == [0, 1]
    assert not list(tiny_clip.walk(tokens, stop=0))


def test_quick_gelu_is_another_function(tiny_config, pixels):
    plain, quick = variant(tiny_config), variant(tiny_config, quick_gelu=True)
    quick.model.load_state_dict(plain.model.state_dict())
    ends = [list(clip.walk(clip.embed(pixels)))[-1].output for clip in (plain, quick)]
    assert (ends[0] - ends[1]).abs().max() > 1e-3


@pytest.mark.parametrize("grid", [(6, 6), (4, 9), (1, 1), (11, 3)])
def test_other_grids(tiny_clip, grid):
    pixels = torch.randn(1, 3, 8 * grid[0], 8 * grid[1])
    tokens = tiny_clip.embed(pixels)
    assert tokens.shape == (1, 1 + grid[0] * grid[1], 32)
    visual: Any = tiny_clip.model.visual
    table = visual.positional_embedding
    image = table[1:].reshape(1, 6, 6, 32).permute(0, 3, 1, 2)
    for dialect, arguments in (
        ("bilinear", {"mode": "bilinear", "align_corners": False}),
        ("bicubic_antialias", {"mode": "bicubic", "align_corners": False, "antialias": True}),
    ):
        position = F.interpolate(image, size=grid, **arguments).flatten(2).transpose(1, 2)[0]
        patches = visual.conv1(pixels).flatten(2).transpose(1, 2)[0] + position
        expected = visual.ln_pre(torch.cat([(visual.class_embedding + table[0])[None], patches]))
        torch.testing.assert_close(tiny_clip.embed(pixels, dialect)[0], expected, rtol=1e-5, atol=1e-5)


def test_rows_and_columns_are_not_swapped(tiny_clip):
    """The third token from the left in the second row sees exactly its own pixels."""
    one, other = torch.zeros(1, 3, 32, 40), torch.zeros(1, 3, 32, 40)
    other[..., 8:16, 16:24] = 1.0
    changed = (tiny_clip.embed(one) - tiny_clip.embed(other)).abs().sum(dim=-1)[0] > 1e-6
    assert changed.nonzero().ravel().tolist() == [1 + 1 * 5 + 2]


@pytest.mark.parametrize("size", [(47, 48), (48, 50), (7, 8)])
def test_sides_that_are_no_multiple_of_the_patch(tiny_clip, size):
    with pytest.raises(InputError, match="patches of 8"):
        tiny_clip.embed(torch.zeros(1, 3, *size))


def test_another_attention_in_the_last_block(tiny_config, pixels):
    clip = variant(tiny_config)
    tokens = clip.embed(pixels)
    for step in clip.walk(tokens, stop=2):
        tokens = step.output
    block = clip.blocks[-1]
    normed = block.ln_1(tokens)
    own, maps = block.attn(normed, normed, normed, average_attn_weights=False)
    torch.testing.assert_close(clip.attend_last(tokens, maps), clip.project(own), rtol=1e-4, atol=1e-5)
    eye = torch.eye(37).expand(2, 1, 37, 37)
    torch.testing.assert_close(clip.attend_last(tokens), clip.attend_last(tokens, eye), rtol=1e-4, atol=1e-5)


def test_the_value_path_does_not_care_for_the_scale_of_the_attention(tiny_config, pixels):
    """ln_post removes it, as long as the output projection has no offset."""
    clip = variant(tiny_config)
    block = clip.blocks[-1]
    block.attn.out_proj.bias.zero_()
    tokens = clip.embed(pixels)
    maps = torch.rand(2, 2, 37, 37)
    torch.testing.assert_close(clip.attend_last(tokens, maps), clip.attend_last(tokens, 7 * maps), rtol=1e-3, atol=1e-4)


def test_gradients_flow_to_the_pixels(tiny_clip):
    pixels = torch.randn(1, 3, 16, 24, requires_grad=True)
    *_, last = tiny_clip.walk(tiny_clip.embed(pixels), attention=True)
    tiny_clip.attend_last(last.output, last.attention).square().sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0


def test_texts(clip):
    texts = ["water", "a satellite image of a forest."]
    model: Any = clip.model
    expected = F.normalize(model.encode_text(clip.tokenizer(texts)), dim=-1)
    embedded = clip.encode_text(texts)
    torch.testing.assert_close(embedded, expected)
    torch.testing.assert_close(embedded.norm(dim=-1), torch.ones(2))
    # One by one gives the same: a text's embedding doesn't depend on its neighbours.
    torch.testing.assert_close(clip.encode_text(texts[1:]), embedded[1:], rtol=1e-4, atol=1e-5)


def test_what_it_says_about_itself(tiny_clip):
    assert (tiny_clip.patch_size, tiny_clip.heads, tiny_clip.width, tiny_clip.embed_dim) == (8, 2, 32, 24)
    assert tiny_clip.device == torch.device("cpu")
    assert not tiny_clip.model.training
    assert not any(parameter.requires_grad for parameter in tiny_clip.model.parameters())
    grey = torch.tensor(OPENAI_MEAN).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    torch.testing.assert_close(tiny_clip.normalise(grey), torch.zeros(1, 3, 2, 2))


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("RN50", {"embed_dim": 16, "vision_cfg": {"layers": [1, 1, 1, 1], "width": 16}}, "RN50"),
        ("convnext_base", {}, "timm"),
        ("ViT-B-16-SigLIP", {}, "timm"),
        ("coca_ViT-B-32", {}, "CoCa"),
        ("ViT-B-32", {"vision_cfg": {"attentional_pool": True, "layers": 1}}, "ViT-B-32"),
    ],
)
def test_towers_without_a_value_path_are_refused(name, changes, words, tiny_config):
    overrides = {"text_cfg": tiny_config["text_cfg"], **changes}
    with pytest.raises(WeightsError, match=words) as caught:
        load_clip(name, weights="random", device="cpu", **overrides)
    assert "choose" in str(caught.value)
    assert "\n" not in str(caught.value)
