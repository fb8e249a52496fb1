"""Every way to a CLIP: names, tags, hub ids, published kinds of files; and every way to be told why not."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from open_clip.transformer import QuickGELU
from safetensors.torch import save, save_file

from rsovlib.backbones import ClipBackbone, load_clip, registry
from rsovlib.backbones.checkpoints import sha256_of
from rsovlib.backbones.clip import OPENAI_MEAN, OPENAI_STD
from rsovlib.backbones.embedded import EMBEDDED, embedded_path
from rsovlib.errors import InputError, WeightsError


def same_weights(one: ClipBackbone, other: ClipBackbone) -> bool:
    first, second = one.model.state_dict(), other.model.state_dict()
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def activation(clip: ClipBackbone) -> type:
    return type(clip.blocks[0].mlp.gelu)


# ---- embedded models ---------------------------------------------------------------------------------------------


def test_without_a_name_the_embedded_clip_is_loaded():
    clip = load_clip(device="cpu")
    assert clip.name == registry.DEFAULT_CLIP
    assert clip.sha256 == EMBEDDED[clip.name].sha256
    assert clip.weights == EMBEDDED[clip.name].file
    assert same_weights(clip, load_clip(registry.DEFAULT_CLIP, device="cpu"))
    assert same_weights(clip, load_clip(registry.DEFAULT_CLIP, weights=embedded_path(clip.name), device="cpu"))


@pytest.mark.parametrize("name", [name for name, entry in EMBEDDED.items() if entry.kind == "clip"])
def test_every_embedded_clip(name):
    clip = load_clip(name, device="cpu")
    assert clip.encode_text(["water", "a word of no lexicon: zyxwv"]).isfinite().all()
    assert all(parameter.dtype == torch.float32 for parameter in clip.model.parameters())


def test_random_weights_of_an_embedded_architecture():
    torch.manual_seed(0)
    clip = load_clip("rsov-tiny-clip", weights="random", device="cpu")
    assert clip.weights == "random"
    assert clip.sha256 == ""
    assert not same_weights(clip, load_clip(device="cpu"))


def test_an_embedded_dino_is_no_clip():
    with pytest.raises(InputError, match=r"load_dino\('rsov-tiny-dino'\)"):
        load_clip("rsov-tiny-dino")


def test_an_altered_embedded_file(monkeypatch, tmp_path):
    altered = bytearray(embedded_path(registry.DEFAULT_CLIP).read_bytes())
    altered[-1] ^= 1
    (tmp_path / "clip.safetensors").write_bytes(altered)
    monkeypatch.setattr(registry, "embedded_path", lambda _name: tmp_path / "clip.safetensors")
    with pytest.raises(WeightsError, match="altered"):
        load_clip(device="cpu")


# ---- OpenAI's format ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_an_openai_file_tells_its_architecture(openai_clip, tmp_path, half, ending):
    state = {name: value.half() if half else value for name, value in openai_clip.model.state_dict().items()}
    state |= {
        "input_resolution": torch.tensor(24),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(49408),
    }
    file = tmp_path / f"remote.{ending}"
    save_file(state, file) if ending == "safetensors" else torch.save(state, file)
    clip = load_clip(weights=file, device="cpu")
    assert (clip.patch_size, clip.heads, clip.width, clip.embed_dim, len(clip.blocks)) == (8, 2, 128, 24, 2)
    assert activation(clip) is QuickGELU
    assert all(parameter.dtype == torch.float32 for parameter in clip.model.parameters())
    assert (clip.name, clip.weights, clip.sha256) == ("remote", file.name, sha256_of(file))
    assert (clip.mean, clip.std) == (OPENAI_MEAN, OPENAI_STD)
    pixels, texts = torch.randn(1, 3, 32, 24), ["water", "bare soil"]
    for ours, theirs in (
        (clip.embed(pixels), openai_clip.embed(pixels)),
        (clip.encode_text(texts), openai_clip.encode_text(texts)),
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-2 if half else 0, atol=1e-2 if half else 0)


def test_overrides_come_before_what_the_file_tells(openai_clip, tmp_path):
    save_file(openai_clip.model.state_dict(), tmp_path / "x.safetensors")
    clip = load_clip(weights=tmp_path / "x.safetensors", device="cpu", quick_gelu=False)
    assert activation(clip) is torch.nn.GELU
    assert load_clip(weights=tmp_path / "x.safetensors", device="cpu", vision_cfg={"head_width": 32}).heads == 4


def test_a_file_that_is_no_openai_clip(tiny_clip, tmp_path):
    save_file({"blocks.0.norm1.weight": torch.ones(3)}, tmp_path / "dino.safetensors")
    with pytest.raises(WeightsError, match=r"no OpenAI-format CLIP.*visual\.proj"):
        load_clip(weights=tmp_path / "dino.safetensors")
    save_file(tiny_clip.model.state_dict(), tmp_path / "tiny.safetensors")  # widths of which nobody knows the heads
    with pytest.raises(WeightsError, match="width 32"):
        load_clip(weights=tmp_path / "tiny.safetensors")


# ---- checkpoints of a named architecture -------------------------------------------------------------------------


def test_remote_clips_kind_of_checkpoint(tiny_clip, tiny_config, tmp_path):
    """RemoteCLIP and GeoRSCLIP publish open_clip's training checkpoints, wrapped by a data-parallel trainer."""
    state = {f"module.{name}": value for name, value in tiny_clip.model.state_dict().items()}
    file = tmp_path / "RemoteCLIP-ViT-L-14.pt"
    torch.save({"epoch": 5, "name": "ViT-L-14", "state_dict": state}, file)
    clip = load_clip("ViT-L-14", weights=file, device="cpu", **tiny_config)
    assert same_weights(clip, tiny_clip)
    assert (clip.name, clip.weights, clip.sha256) == ("ViT-L-14", file.name, sha256_of(file))
    assert activation(clip) is torch.nn.GELU


def test_a_named_set_of_weights_comes_from_the_hub(tiny_clip, tiny_config, tmp_path, hub):
    torch.save({"state_dict": tiny_clip.model.state_dict()}, tmp_path / "x.pt")
    blob = hub("chendelong/RemoteCLIP", "RemoteCLIP-ViT-L-14.pt", (tmp_path / "x.pt").read_bytes())
    clip = load_clip("RemoteCLIP-ViT-L-14", device="cpu", **tiny_config)
    assert same_weights(clip, tiny_clip)
    assert clip.sha256 == blob.name
    # The hub names a blob by its content, so a file that was altered in the cache is found out.
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 255
    blob.write_bytes(content)
    with pytest.raises(WeightsError, match="altered or fetched incompletely"):
        load_clip("RemoteCLIP-ViT-L-14", device="cpu", **tiny_config)


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-32-quickgelu"])
def test_openais_weights_mean_quick_gelu_under_any_name(name, tiny_clip, tiny_config, hub):
    """Under the plain name open_clip itself would build an exact-GELU network, without a word."""
    import open_clip

    repository, file = open_clip.get_pretrained_cfg(name, "openai")["hf_hub"].rsplit("/", 1)
    hub(repository, file or "open_clip_model.safetensors", save(tiny_clip.model.state_dict()))
    clip = load_clip(name, "openai", device="cpu", **tiny_config)
    assert activation(clip) is QuickGELU
    assert clip.weights == "openai"
    assert clip.mean == pytest.approx(OPENAI_MEAN)
    assert same_weights(clip, tiny_clip)
    # And "openai" is what both names mean when no weights are named.
    assert load_clip(name, device="cpu", **tiny_config).weights == "openai"


def test_other_weights_keep_the_architectures_gelu(tiny_clip, tiny_config, hub):
    import open_clip

    repository, file = open_clip.get_pretrained_cfg("ViT-B-32", "laion2b_s34b_b79k")["hf_hub"].rsplit("/", 1)
    hub(repository, file or "open_clip_model.safetensors", save(tiny_clip.model.state_dict()))
    clip = load_clip("ViT-B-32", "laion2b_s34b_b79k", device="cpu", **tiny_config)
    assert activation(clip) is torch.nn.GELU


def test_position_embeddings_of_another_training_size(tiny_clip, tiny_config, tmp_path):
    save_file(tiny_clip.model.state_dict(), tmp_path / "x.safetensors")
    larger = {**tiny_config, "vision_cfg": {**tiny_config["vision_cfg"], "image_size": 64}}
    clip = load_clip("ViT-B-32", weights=tmp_path / "x.safetensors", device="cpu", **larger)
    assert clip.model.visual.positional_embedding.shape == (65, 32)


def test_a_logit_scale_of_shape_one(tiny_clip, tiny_config, tmp_path):
    state = tiny_clip.model.state_dict()
    state["logit_scale"] = state["logit_scale"].reshape(1)
    save_file(state, tmp_path / "x.safetensors")
    assert same_weights(load_clip("ViT-B-32", tmp_path / "x.safetensors", "cpu", **tiny_config), tiny_clip)


def test_custom_text_models_read_the_plain_layout(tiny_clip, tiny_config, tmp_path):
    save_file(tiny_clip.model.state_dict(), tmp_path / "x.safetensors")
    clip = load_clip("ViT-B-32", tmp_path / "x.safetensors", "cpu", custom_text=True, **tiny_config)
    assert type(clip.model).__name__ == "CustomTextCLIP"
    texts = ["water", "forest"]
    torch.testing.assert_close(clip.encode_text(texts), tiny_clip.encode_text(texts))
    save_file(clip.model.state_dict(), tmp_path / "own.safetensors")
    assert same_weights(
        load_clip("ViT-B-32", tmp_path / "own.safetensors", "cpu", custom_text=True, **tiny_config), clip
    )


# ---- hub ids -----------------------------------------------------------------------------------------------------


def hub_config(tiny_config: dict[str, Any]) -> bytes:
    return json.dumps(
        {
            "model_cfg": {**tiny_config, "quick_gelu": True},
            "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]},
        }
    ).encode()


def test_a_hub_id(tiny_clip, tiny_config, hub):
    hub("someone/aerial-clip", "open_clip_config.json", hub_config(tiny_config))
    blob = hub("someone/aerial-clip", "open_clip_model.safetensors", save(tiny_clip.model.state_dict()))
    clip = load_clip("hf-hub:someone/aerial-clip", device="cpu")
    assert same_weights(clip, tiny_clip)
    assert activation(clip) is QuickGELU
    assert (clip.mean, clip.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    assert (clip.name, clip.sha256) == ("hf-hub:someone/aerial-clip", blob.name)
    blob.write_bytes(blob.read_bytes()[:-4])
    with pytest.raises(WeightsError, match="altered or fetched incompletely"):
        load_clip("hf-hub:someone/aerial-clip", device="cpu")


def test_a_hub_id_with_a_pickled_checkpoint(tiny_clip, tiny_config, hub, tmp_path):
    hub("someone/aerial-clip", "open_clip_config.json", hub_config(tiny_config))
    torch.save(tiny_clip.model.state_dict(), tmp_path / "x.bin")
    hub("someone/aerial-clip", "open_clip_pytorch_model.bin", (tmp_path / "x.bin").read_bytes())
    assert same_weights(load_clip("hf-hub:someone/aerial-clip", device="cpu"), tiny_clip)
    assert load_clip("hf-hub:someone/aerial-clip", weights="random", device="cpu").weights == "random"


@pytest.mark.parametrize("content", [b"not json", b"\xff\xfe", b'{"a": 1}', b'{"model_cfg": {"embed_dim": 3}}'])
def test_a_hub_id_of_something_else(hub, content):
    hub("someone/thing", "open_clip_config.json", content)
    with pytest.raises(WeightsError):
        load_clip("hf-hub:someone/thing", device="cpu")


def test_a_hub_id_that_is_not_here(hub):
    with pytest.raises(WeightsError, match=r"someone/else.*switched off.*weights= a local file"):
        load_clip("hf-hub:someone/else", device="cpu")
    with pytest.raises(InputError, match="owner/name"):
        load_clip("hf-hub:a/b/c", device="cpu")


# ---- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "weights", "kind", "words"),
    [
        ("ViT-L14", "random", InputError, "Did you mean 'ViT-L-14'"),
        ("RemoteClip-ViT-L-14", None, InputError, "Did you mean 'RemoteCLIP-ViT-L-14'"),
        ("ViT-L-14", "openia", InputError, "Did you mean 'openai'"),
        ("ViT-L-14", None, WeightsError, "not on this machine"),
        ("ViT-L-14", "absent/file.pt", WeightsError, r"absent/file\.pt"),
        (None, "absent/file.pt", WeightsError, r"absent/file\.pt"),
        ("rsov-tiny-clip", "absent.safetensors", WeightsError, "absent"),
    ],
)
def test_what_is_not_there(hub, name, weights, kind, words):
    with pytest.raises(kind, match=words) as caught:
        load_clip(name, weights, "cpu")
    assert "\n" not in str(caught.value)


def test_weights_of_another_architecture(tiny_clip, tiny_config, tmp_path):
    save_file(tiny_clip.model.state_dict(), tmp_path / "x.safetensors")
    wider = {**tiny_config, "embed_dim": 40}
    with pytest.raises(WeightsError, match=r"does not fit this architecture: .* is \(.*24\), the model has \(.*40\)"):
        load_clip("ViT-B-32", tmp_path / "x.safetensors", "cpu", **wider)
    deeper = {**tiny_config, "vision_cfg": {**tiny_config["vision_cfg"], "layers": 4}}
    with pytest.raises(WeightsError, match=r"12 missing, first visual\.transformer\.resblocks\.3"):
        load_clip("ViT-B-32", tmp_path / "x.safetensors", "cpu", **deeper)


@pytest.mark.parametrize(
    "overrides", [{"embed_dimension": 8}, {"vision_cfg": {"depth": 3}}, {"vision_cfg": {"width": 32, "head_width": 64}}]
)
def test_overrides_that_open_clip_does_not_know(tiny_config, overrides):
    with pytest.raises(InputError, match="open_clip can't build"):
        load_clip("ViT-B-32", "random", "cpu", **{**tiny_config, **overrides})


@pytest.mark.parametrize("device", ["gpu", "cpu:x", ""])
def test_devices_that_do_not_exist(device):
    with pytest.raises(InputError, match="device"):
        load_clip(device=device)


def test_a_gpu_that_is_not_there():
    if torch.cuda.is_available():
        assert load_clip(device="cuda").device.type == "cuda"
    else:
        with pytest.raises(InputError, match="CUDA"):
            load_clip(device="cuda")
    assert load_clip(device="auto").device.type in {"cpu", "cuda", "mps"}
    assert load_clip(device=torch.device("cpu")).device.type == "cpu"
