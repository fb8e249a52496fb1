"""Saving and loading: what a file holds, that it gives the same network, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rsovlib.backbones import load_clip, load_dino
from rsovlib.errors import InputError, WeightsError
from rsovlib.fusion import embedded
from rsovlib.fusion.config import FusionConfig
from rsovlib.fusion.embedded import EmbeddedFusion, embedded_fusions, write_manifest
from rsovlib.fusion.network import CostAggregationNetwork
from rsovlib.fusion.weights import load_fusion, read_record, save_fusion


@pytest.fixture
def network(small, clip, optical_dino, sar_dino) -> CostAggregationNetwork:
    """As after a training: everything trained has moved."""
    torch.manual_seed(41)
    made = CostAggregationNetwork(small, clip, optical_dino, sar_dino)
    with torch.no_grad():
        for _, parameter in made.trained_parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


def named(backbone, digest: str):
    """A backbone as if its weights had come from a file."""
    return replace(backbone, weights="some.safetensors", sha256=digest)


def test_a_loaded_network_is_the_saved_one(network, clip, optical_dino, sar_dino, names, tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    digest = save_fusion(file, network, {"steps": 3, "seed": 0})
    loaded = load_fusion(file, "cpu", clip=clip, optical_dino=optical_dino, sar_dino=sar_dino)
    torch.manual_seed(42)
    optical, sar = torch.rand(1, 3, 40, 48), torch.rand(1, 3, 40, 48)
    with torch.no_grad():
        expected = network(optical, network.encode_text(names), sar)
        torch.testing.assert_close(loaded(optical, loaded.encode_text(names), sar), expected, rtol=0, atol=0)
    assert loaded.config == network.config
    assert (loaded.provenance.weights, loaded.provenance.sha256) == ("net.safetensors", digest)
    assert loaded.provenance.record == {"steps": 3, "seed": 0}
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_file_holds_only_what_was_trained_and_what_has_no_file(small, clip, optical_dino, sar_dino, tmp_path) -> None:
    parts = named(clip, "c" * 64), named(optical_dino, "d" * 64)
    student = replace(sar_dino, name="vit_base_patch8_224 (SAR)", weights="CMU")
    network = CostAggregationNetwork(small, *parts, student)
    file = tmp_path / "net.safetensors"
    save_fusion(file, network)
    with safe_open(file, framework="pt") as stream:
        keys = set(stream.keys())
    trained = {id(parameter) for _, parameter in network.trained_parameters()}
    expected = {name for name, parameter in network.named_parameters() if id(parameter) in trained}
    expected |= {f"sar_model.{name}" for name in student.model.state_dict()}
    assert keys == expected
    assert not [key for key in keys if key.startswith("optical_model.")]
    loaded = load_fusion(file, "cpu", clip=parts[0], optical_dino=parts[1], sar_dino=optical_dino)
    assert loaded.sar_dino is not None
    assert (loaded.sar_dino.name, loaded.sar_dino.weights) == (student.name, "CMU")
    torch.testing.assert_close(loaded.sar_dino.model.state_dict(), dict(student.model.state_dict()))
    # The architecture was lent by the optical one, whose own weights were left alone.
    assert not torch.equal(optical_dino.model.pos_embed, student.model.pos_embed)


def test_a_second_clip_is_kept_too(small, clip, optical_dino, sar_dino, names, tmp_path: Path) -> None:
    config = FusionConfig(**{**small.__dict__, "sar_clip": True})
    network = CostAggregationNetwork(config, clip, optical_dino, sar_dino, clip)
    save_fusion(tmp_path / "net.safetensors", network)
    backbones = {"clip": clip, "optical_dino": optical_dino, "sar_dino": sar_dino, "sar_clip": clip}
    loaded = load_fusion(tmp_path / "net.safetensors", "cpu", **backbones)
    optical = torch.rand(1, 3, 24, 24)
    with torch.no_grad():
        text = network.encode_text(names)
        torch.testing.assert_close(loaded(optical, text, optical), network(optical, text, optical), rtol=0, atol=0)


def test_half_precision_is_half_the_size(network, tmp_path: Path) -> None:
    save_fusion(tmp_path / "full.safetensors", network)
    save_fusion(tmp_path / "half.safetensors", network, half=True)
    full, half = ((tmp_path / f"{name}.safetensors").stat().st_size for name in ("full", "half"))
    assert 0.45 < half / full < 0.65


def test_embedded_backbones_come_by_name(tmp_path: Path) -> None:
    config = FusionConfig.embedded(sar_dino=False, layers=0)
    network = CostAggregationNetwork(config, load_clip(device="cpu"), load_dino(device="cpu"))
    file = tmp_path / "gsnet.safetensors"
    save_fusion(file, network, half=True)
    loaded = load_fusion(file, "cpu")
    assert loaded.clip.name == "rsov-tiny-clip"
    assert loaded.optical_dino is not None
    assert loaded.optical_dino.sha256 == network.optical_dino.sha256
    assert read_record(file)["backbones"]["sar_dino"] is None
    other = load_clip("rsov-tiny-clip-s1", device="cpu")
    with pytest.raises(WeightsError, match="was trained on rsov-tiny-clip"):
        load_fusion(file, "cpu", clip=other)


def test_embedded_networks_by_name(network, clip, optical_dino, sar_dino, tmp_path: Path, monkeypatch) -> None:
    digest = save_fusion(tmp_path / "tiny.safetensors", network)
    write_manifest(tmp_path, {"tiny-net": EmbeddedFusion("tiny-net", "mm-ovseg", "tiny.safetensors", digest, "x.md")})
    monkeypatch.setattr(embedded, "folder", lambda: tmp_path)
    embedded_fusions.cache_clear()
    try:
        loaded = load_fusion("tiny-net", "cpu", clip=clip, optical_dino=optical_dino, sar_dino=sar_dino)
        assert loaded.provenance.weights == "tiny-net"
        (tmp_path / "tiny.safetensors").write_bytes(b"altered")
        with pytest.raises(WeightsError, match="altered"):
            load_fusion("tiny-net", "cpu")
        (tmp_path / "tiny.safetensors").unlink()
        with pytest.raises(WeightsError, match="install rsovlib again"):
            load_fusion("tiny-net", "cpu")
        with pytest.raises(InputError, match="Did you mean 'tiny-net'"):
            load_fusion("tiny-nett", "cpu")
    finally:
        embedded_fusions.cache_clear()


def test_every_shipped_network_loads() -> None:
    assert set(embedded_fusions()) == {row.name for row in embedded_fusions().values()}
    for name, row in embedded_fusions().items():
        network = load_fusion(name, "cpu")
        assert network.config.method == row.method.removesuffix("-no-cmu")
        assert (embedded.folder() / row.card).is_file()


def test_refused_files(network, clip, optical_dino, sar_dino, tmp_path: Path) -> None:
    backbones = {"clip": clip, "optical_dino": optical_dino, "sar_dino": sar_dino}
    with pytest.raises(WeightsError, match="no weights file"):
        load_fusion(tmp_path / "absent.safetensors")
    text = tmp_path / "text.safetensors"
    text.write_text("no tensors")
    with pytest.raises(WeightsError, match="no readable safetensors"):
        load_fusion(text)
    plain = tmp_path / "plain.safetensors"
    save_file({"a": torch.zeros(1)}, plain)
    with pytest.raises(WeightsError, match="no fusion network"):
        load_fusion(plain)
    with pytest.raises(InputError, match="plain values"):
        save_fusion(tmp_path / "x.safetensors", network, {"a": torch.zeros(1)})
    assert not (tmp_path / "x.safetensors").exists()

    good = tmp_path / "good.safetensors"
    save_fusion(good, network)
    with safe_open(good, framework="pt") as stream:
        tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
        content = json.loads(stream.metadata()["rsovlib_fusion"])

    def rewritten(change: dict[str, object], **drop: bool) -> Path:
        file = tmp_path / "bad.safetensors"
        kept = dict(list(tensors.items())[1:]) if drop else tensors
        save_file(kept, file, metadata={"rsovlib_fusion": json.dumps(content | change)})
        return file

    for change, message in (
        ({"format": 99}, "has format 99"),
        ({"network": "other"}, "kind 'other'"),
        ({"config": content["config"] | {"bogus": 1}}, "can't build"),
        ({"config": content["config"] | {"width": 16}}, "does not fit"),
    ):
        with pytest.raises(WeightsError, match=message):
            load_fusion(rewritten(change), "cpu", **backbones)
    with pytest.raises(WeightsError, match="does not fit"):
        load_fusion(rewritten({}, without_first=True), "cpu", **backbones)
