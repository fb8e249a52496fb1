"""Every way to a DINO: timm's names and tags, facebookresearch's files, embedded models; and the mistakes."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save, save_file

from rsovlib.backbones import DinoBackbone, load_dino, registry
from rsovlib.backbones.checkpoints import sha256_of
from rsovlib.backbones.dino import IMAGENET_MEAN
from rsovlib.backbones.embedded import ALIGNMENT_BIAS, ALIGNMENT_WEIGHT, EMBEDDED, embedded_path
from rsovlib.errors import InputError, WeightsError

TINY = {"embed_dim": 24, "depth": 2, "num_heads": 2}
SIZED = {**TINY, "img_size": 56}


def random(name: str, **overrides: Any) -> DinoBackbone:
    torch.manual_seed(41)
    dino = load_dino(name, weights="random", device="cpu", **overrides)
    for key, parameter in dino.model.named_parameters():
        if "gamma" in key or "token" in key or parameter.ndim == 1:
            parameter.add_(0.5 * torch.randn_like(parameter))
    return dino


def features(dino: DinoBackbone) -> torch.Tensor:
    pixels = torch.randn(1, 3, 2 * dino.patch_size, 3 * dino.patch_size, generator=torch.Generator().manual_seed(2))
    return dino.features(pixels).layers[-1]


def published(dino: DinoBackbone) -> dict[str, torch.Tensor]:
    """The weights in facebookresearch's names and layout."""
    state = {key: value.clone() for key, value in dino.model.state_dict().items()}
    if "reg_token" in state:  # timm folds the class token's position into the token; there it is still apart
        state["register_tokens"] = state.pop("reg_token")
        of_class = torch.randn(1, 1, 24)
        state["cls_token"] = state["cls_token"] - of_class
        state["pos_embed"] = torch.cat([of_class, state["pos_embed"]], dim=1)
    state["mask_token"] = torch.zeros(1, 24)
    return state


# ---- facebookresearch's files ------------------------------------------------------------------------------------


def wrap(state: dict[str, torch.Tensor], how: str) -> Any:
    heads = {"dino_head.mlp.0.weight": torch.ones(2, 2), "ibot_head.last_layer.weight": torch.ones(2)}
    if how == "plain":
        return state
    if how == "v2 training":
        return {"teacher": {**{f"backbone.{key}": value for key, value in state.items()}, **heads}}
    nested = {f"module.backbone.{key}": value for key, value in state.items()} | {"module.head.mlp": torch.ones(1)}
    return {"student": {"module.backbone.other": torch.ones(1)}, "teacher": nested, "epoch": 3}


@pytest.mark.parametrize("how", ["plain", "v2 training", "v1 training"])
@pytest.mark.parametrize("name", ["vit_base_patch14_reg4_dinov2", "vit_base_patch14_dinov2"])
def test_dinov2_as_published(name, how, tmp_path):
    dino = random(name, **SIZED)
    file = tmp_path / "dinov2.pth"
    torch.save(wrap(published(dino), how), file)
    loaded = load_dino(name, weights=file, device="cpu", **SIZED)
    torch.testing.assert_close(features(loaded), features(dino), rtol=1e-4, atol=1e-5)
    assert (loaded.weights, loaded.sha256) == (file.name, sha256_of(file))
    assert loaded.position == "bicubic_antialias"


@pytest.mark.parametrize("how", ["plain", "v1 training"])
@pytest.mark.parametrize("name", ["vit_base_patch8_224", "vit_base_patch8_224.dino", "dino-vitb8"])
def test_dino_v1_as_published(name, how, tmp_path):
    sized = {**TINY, "img_size": 32}
    dino = random("vit_base_patch8_224", **sized)
    torch.save(wrap(dino.model.state_dict(), how), tmp_path / "dino.pth")
    loaded = load_dino(name, weights=tmp_path / "dino.pth", device="cpu", **sized)
    torch.testing.assert_close(features(loaded), features(dino), rtol=1e-4, atol=1e-5)
    # timm's default weights of that architecture are supervised ones with other statistics.
    assert loaded.mean == pytest.approx(IMAGENET_MEAN)
    assert loaded.position == "bicubic_offset"
    assert loaded.weights == "dino.pth"


def test_a_tag_of_ones_own_goes_with_ones_own_file(tmp_path):
    save_file(random("vit_base_patch14_dinov2", **SIZED).model.state_dict(), tmp_path / "mine.safetensors")
    loaded = load_dino("vit_base_patch14_dinov2.mine", tmp_path / "mine.safetensors", "cpu", **SIZED)
    assert loaded.weights == "mine.safetensors"
    assert loaded.mean == pytest.approx(IMAGENET_MEAN)


def test_dinov3_as_published(tmp_path, capsys):
    dino = random("vit_base_patch16_dinov3", **TINY)
    state = {}
    for key, value in dino.model.state_dict().items():
        key = key.replace("reg_token", "storage_tokens").replace("gamma_", "ls")
        state[f"{key}.gamma" if key.endswith(("ls1", "ls2")) else key] = value
    state |= {
        "rope_embed.periods": torch.ones(6),
        "mask_token": torch.zeros(1, 24),
        "blocks.0.attn.qkv.bias": torch.zeros(72),  # all zero there, and left out by timm
        "blocks.0.attn.qkv.bias_mask": torch.zeros(72),
    }
    save_file(state, tmp_path / "dinov3.safetensors")
    loaded = load_dino("vit_base_patch16_dinov3", weights=tmp_path / "dinov3.safetensors", device="cpu", **TINY)
    torch.testing.assert_close(features(loaded), features(dino), rtol=1e-4, atol=1e-5)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "name", ["vit_base_patch14_reg4_dinov2", "vit_base_patch8_224.dino", "vit_base_patch16_dinov3"]
)
def test_timms_own_files(name, tmp_path):
    sized = TINY if "dinov3" in name else SIZED
    dino = random(name, **sized)
    save_file(dino.model.state_dict(), tmp_path / "timm.safetensors")
    loaded = load_dino(name, weights=tmp_path / "timm.safetensors", device="cpu", **sized)
    torch.testing.assert_close(features(loaded), features(dino), rtol=0, atol=0)


# ---- names and tags ----------------------------------------------------------------------------------------------


def test_half_precision_files_are_computed_with_in_single(tmp_path):
    dino = random("vit_base_patch14_dinov2", **SIZED)
    save_file({key: value.half() for key, value in dino.model.state_dict().items()}, tmp_path / "half.safetensors")
    loaded = load_dino("vit_base_patch14_dinov2", weights=tmp_path / "half.safetensors", device="cpu", **SIZED)
    assert all(parameter.dtype == torch.float32 for parameter in loaded.model.parameters())
    torch.testing.assert_close(features(loaded), features(dino), rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("vit_small_patch14_dinov2.lvd142m", None),
        ("vit_small_patch14_dinov2", "lvd142m"),
        ("vit_small_patch14_dinov2", None),
    ],
)
def test_a_tag_comes_from_the_hub(name, weights, hub, monkeypatch):
    """With a small stand-in for the architecture, since published weights have one size only."""
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda asked, **rest: create(asked, **{**rest, **SIZED}))
    dino = random("vit_small_patch14_dinov2")
    blob = hub("timm/vit_small_patch14_dinov2.lvd142m", "model.safetensors", save(dino.model.state_dict()))
    loaded = load_dino(name, weights, "cpu")
    torch.testing.assert_close(features(loaded), features(dino), rtol=0, atol=0)
    assert (loaded.weights, loaded.sha256) == ("lvd142m", blob.name)
    blob.write_bytes(blob.read_bytes() + b"\0")
    with pytest.raises(WeightsError, match="altered"):
        load_dino(name, weights, "cpu")


def test_random_weights_say_so():
    for name in ("vit_base_patch8_224.dino", "vit_base_patch14_dinov2", "dinov2-vitb14"):
        assert load_dino(name, weights="random", device="cpu", **SIZED).weights == "random"


# ---- embedded models ---------------------------------------------------------------------------------------------


def test_without_a_name_the_embedded_dino_is_loaded():
    dino = load_dino(device="cpu")
    assert (dino.name, dino.sha256) == (registry.DEFAULT_DINO, EMBEDDED[registry.DEFAULT_DINO].sha256)
    again = load_dino(dino.name, weights=embedded_path(dino.name), device="cpu")
    torch.testing.assert_close(features(again), features(dino), rtol=0, atol=0)
    seen = dino.features(torch.zeros(1, 3, dino.patch_size, 2 * dino.patch_size))
    assert seen.text_layers[0].shape == (1, 2, dino.embed_dim)


def test_an_altered_embedded_file(monkeypatch, tmp_path):
    altered = bytearray(embedded_path(registry.DEFAULT_DINO).read_bytes())
    altered[-1] ^= 1
    (tmp_path / "dino.safetensors").write_bytes(altered)
    monkeypatch.setattr(registry, "embedded_path", lambda _name: tmp_path / "dino.safetensors")
    with pytest.raises(WeightsError, match="altered"):
        load_dino(device="cpu")


def test_alignment_travels_with_a_file(tmp_path):
    dino = random("vit_base_patch14_dinov2", **SIZED)
    state = dino.model.state_dict() | {ALIGNMENT_WEIGHT: torch.randn(2, 10, 24), ALIGNMENT_BIAS: torch.randn(2, 10)}
    save_file(state, tmp_path / "aligned.safetensors")
    loaded = load_dino("vit_base_patch14_dinov2", tmp_path / "aligned.safetensors", "cpu", **SIZED)
    assert loaded.embed_dim == 10
    assert loaded.features(torch.zeros(1, 3, 28, 28)).text_layers[1].shape == (1, 4, 10)
    del state[ALIGNMENT_BIAS]
    save_file(state, tmp_path / "half.safetensors")
    with pytest.raises(WeightsError, match="one half of a text alignment"):
        load_dino("vit_base_patch14_dinov2", tmp_path / "half.safetensors", "cpu", **SIZED)


def test_an_embedded_clip_is_no_dino():
    with pytest.raises(InputError, match=r"load_clip\('rsov-tiny-clip'\)"):
        load_dino("rsov-tiny-clip")


# ---- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "weights", "overrides", "kind", "words"),
    [
        ("vit_base_patch14_dinov", "random", {}, InputError, "DINO model 'vit_base_patch14_dinov'"),
        ("dinov2-vitb-14", None, {}, InputError, "Did you mean 'dinov2-vitb14'"),
        ("vit_base_patch14_dinov2", "lvd142", {}, InputError, "Did you mean 'lvd142m'"),
        ("vit_base_patch14_dinov2.lvd124m", None, {}, InputError, "Did you mean 'lvd142m'"),
        ("vit_base_patch14_dinov2", None, {}, WeightsError, "not on this machine"),
        ("vit_base_patch14_dinov2", None, TINY, InputError, "no published weights"),
        ("vit_base_patch14_dinov2", "absent/x.pth", {}, WeightsError, r"absent/x\.pth"),
        ("vit_base_patch14_dinov2", "random", {"embed_dimension": 3}, InputError, "can't be built"),
        ("vit_base_patch14_dinov2", "random", {"embed_dim": 25, "depth": 1}, InputError, "can't be built"),
        (None, "x.pth", {}, InputError, "without the name"),
        ("rsov-tiny-dino", "absent.safetensors", {}, WeightsError, "absent"),
    ],
)
def test_what_is_not_there(hub, name, weights, overrides, kind, words):
    with pytest.raises(kind, match=words) as caught:
        load_dino(name, weights, "cpu", **overrides)
    assert "\n" not in str(caught.value)


def test_weights_of_another_architecture(tmp_path):
    dino = random("vit_base_patch14_dinov2", **SIZED)
    save_file(dino.model.state_dict(), tmp_path / "x.safetensors")
    file = tmp_path / "x.safetensors"
    with pytest.raises(WeightsError, match=r"width 24.*width 48"):
        load_dino("vit_base_patch14_dinov2", file, "cpu", **{**SIZED, "embed_dim": 48})
    with pytest.raises(WeightsError, match=r"missing, first blocks\.2"):
        load_dino("vit_base_patch14_dinov2", file, "cpu", **{**SIZED, "depth": 3})
    with pytest.raises(WeightsError, match="does not fit"):
        load_dino("vit_base_patch14_reg4_dinov2", file, "cpu", **SIZED)
    with pytest.raises(WeightsError, match="does not fit"):
        load_dino("vit_base_patch16_dinov3", file, "cpu", **TINY)
    save_file({"visual.proj": torch.ones(2, 2)}, tmp_path / "clip.safetensors")
    with pytest.raises(WeightsError, match="does not fit"):
        load_dino("vit_base_patch14_dinov2", tmp_path / "clip.safetensors", "cpu", **SIZED)
