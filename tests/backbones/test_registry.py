"""Weights by name: the list, the copy on this machine, and one clear sentence when there is none."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import open_clip
import pytest
import timm

from rsovlib.backbones import registry
from rsovlib.errors import InputError, WeightsError


def test_the_list_is_of_things_that_exist():
    entries = registry.list_weights()
    assert len({entry.name for entry in entries}) == len(entries)
    assert entries[0].embedded
    for entry in entries:
        assert entry.kind in {"clip", "dino"}
        assert entry.licence
        assert entry.use
        assert registry.get(entry.name) is entry is registry.find(entry.name)
        if entry.embedded:
            assert re.fullmatch("[0-9a-f]{64}", entry.sha256)
            continue
        assert entry.page.startswith("https://")
        if entry.kind == "clip":
            assert open_clip.get_model_config(entry.architecture) is not None
            if entry.tag:
                assert entry.tag in open_clip.list_pretrained_tags_by_model(entry.architecture)
            else:
                assert entry.repository
                assert entry.file
        else:
            assert timm.get_pretrained_cfg(f"{entry.architecture}.{entry.tag}").hf_hub_id


def test_names_by_kind():
    assert registry.DEFAULT_CLIP in registry.names("clip")
    assert registry.DEFAULT_DINO in registry.names("dino")
    assert not set(registry.names("clip")) & set(registry.names("dino"))


def test_a_name_that_is_none():
    assert registry.find("openai-ViT-L14") is None
    with pytest.raises(InputError, match="Did you mean 'openai-ViT-L-14'"):
        registry.get("openai-ViT-L14")


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("RSOV_CACHE", str(tmp_path / "mine"))
    assert registry.cache_folder() == tmp_path / "mine"
    monkeypatch.setenv("RSOV_CACHE", "~/weights")
    assert registry.cache_folder() == Path.home() / "weights"
    monkeypatch.delenv("RSOV_CACHE")
    from huggingface_hub.constants import HF_HUB_CACHE

    assert registry.cache_folder() == Path(HF_HUB_CACHE)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [("1", "", True), ("true", "", True), ("", "1", True), ("0", "0", False), ("", "", False), ("no", "off", False)],
)
def test_the_offline_flag(monkeypatch, ours, theirs, expected):
    monkeypatch.setenv("RSOV_OFFLINE", ours)
    monkeypatch.setenv("HF_HUB_OFFLINE", theirs)
    assert registry.offline() is expected


@pytest.mark.parametrize("name", ["openai-ViT-L-14", "RemoteCLIP-ViT-B-32", "dino-vitb8", "dinov3-vitb16"])
def test_weights_that_are_not_here(hub, tmp_path, name):
    entry = registry.get(name)
    assert registry.status(entry) == "to be fetched"
    with pytest.raises(WeightsError, match="switched off") as caught:
        registry.fetch(entry)
    sentence = str(caught.value)
    assert str(tmp_path / "hub") in sentence
    assert "weights= a local file" in sentence
    assert "\n" not in sentence
    assert not list((tmp_path / "hub").iterdir())


def test_weights_that_are_here(hub):
    entry = registry.get("GeoRSCLIP-ViT-L-14")
    hub(entry.repository, entry.file, b"weights")
    assert registry.status(entry) == "on this machine"
    assert registry.fetch(entry).read_bytes() == b"weights"
    tagged = registry.get("openai-ViT-B-16")
    repository, file = open_clip.get_pretrained_cfg(tagged.architecture, tagged.tag)["hf_hub"].rsplit("/", 1)
    hub(repository, file or registry.HUB_WEIGHT_FILES[1], b"clip")
    assert registry.status(tagged) == "on this machine"
    assert registry.fetch(tagged).read_bytes() == b"clip"
    dino = registry.get("dinov2-vitb14")
    hub(timm.get_pretrained_cfg(f"{dino.architecture}.{dino.tag}").hf_hub_id, "model.safetensors", b"dino")
    assert registry.status(dino) == "on this machine"
    assert registry.fetch(dino).read_bytes() == b"dino"


@pytest.mark.parametrize("name", [entry.name for entry in registry.list_weights() if entry.embedded])
def test_embedded_weights(name):
    entry = registry.get(name)
    assert registry.status(entry) == "ships with the package"
    assert registry.verified_sha256(registry.fetch(entry), entry.sha256) == entry.sha256


def test_the_published_hash_is_checked(tmp_path):
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert registry.verified_sha256(file) == registry.verified_sha256(file, digest) == digest
    with pytest.raises(WeightsError, match=r"altered.*ba7816bf8f01.*000000000000.*delete it"):
        registry.verified_sha256(file, "0" * 64)
    with pytest.raises(WeightsError, match="check the path"):
        registry.verified_sha256(tmp_path / "absent")


def test_the_hubs_content_address_is_checked(tmp_path):
    """In the hub's cache a large file's name is its SHA-256, and the name in the snapshot is a link to it."""
    blob = tmp_path / "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    blob.write_bytes(b"abc")
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    assert registry.verified_sha256(link) == blob.name
    blob.write_bytes(b"abd")
    with pytest.raises(WeightsError, match="altered"):
        registry.verified_sha256(link)


def test_tags_that_are_not_on_the_hub(monkeypatch):
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: {"url": "https://example.org/x.pt"})
    with pytest.raises(WeightsError, match=r"not published on the hub.*https://example\.org/x\.pt"):
        registry.fetch_open_clip("ViT-B-32", "some")
    with pytest.raises(WeightsError, match="timm publishes no weights"):
        registry.fetch_timm("vit_base_patch14_dinov2.none")


@pytest.fixture
def far_hub(monkeypatch):
    """A hub that can't be reached; gives the list of what it was asked."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked: list[bool] = []

    def download(_repository, _file, *, cache_dir, local_files_only):
        asked.append(local_files_only)
        logging.getLogger("huggingface_hub.utils").warning("Retrying in 1s")
        raise LocalEntryNotFoundError("not here")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr(registry, "_hub", registry._Hub())
    monkeypatch.delenv("RSOV_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return asked


def test_a_hub_out_of_reach_is_asked_once_a_minute(far_hub, monkeypatch, caplog):
    clock = iter([100.0, 100.5, 101.0, 130.0, 200.0, 200.5])
    monkeypatch.setattr("rsovlib.backbones.registry.time.monotonic", lambda: next(clock))
    for _ in range(3):
        with pytest.raises(WeightsError, match="the hub can't be reached"):
            registry.fetch_hub_file("owner/name", ["model.safetensors"])
    assert far_hub == [False, True, True]
    with pytest.raises(WeightsError):
        registry.fetch_hub_file("owner/name", ["model.safetensors"])
    assert far_hub[-1] is False
    assert not caplog.records  # the client's own words about its attempts


def test_with_fetching_switched_off_the_hub_is_never_asked(far_hub, monkeypatch):
    monkeypatch.setenv("RSOV_OFFLINE", "1")
    for _ in range(2):
        with pytest.raises(WeightsError, match="fetching is switched off"):
            registry.fetch_hub_file("owner/name", ["model.safetensors"])
    assert far_hub == [True, True]
