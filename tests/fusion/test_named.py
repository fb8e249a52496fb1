"""Backbones by one text: names, tags, files, and what is wrong with the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rsovlib.backbones import load_dino
from rsovlib.errors import InputError, WeightsError
from rsovlib.fusion.named import load_named_clip, load_named_dino, split_name, weights_file


def test_names_and_weights() -> None:
    assert split_name("openai-ViT-B-16") == ("openai-ViT-B-16", None)
    assert split_name("vit_base_patch8_224@/data/a@b.pth") == ("vit_base_patch8_224", "/data/a@b.pth")
    for wrong in ("", "@openai", "ViT-B-16@"):
        with pytest.raises(InputError, match="names no network"):
            split_name(wrong)


def test_embedded_models_and_files(tmp_path: Path) -> None:
    assert load_named_clip("rsov-tiny-clip", "cpu").name == "rsov-tiny-clip"
    dino = load_dino("rsov-tiny-dino-s1", device="cpu")
    file = tmp_path / "own.pt"
    torch.save(dino.model.state_dict(), file)
    again = load_named_dino(f"rsov-tiny-dino@{file}", "cpu")
    assert (again.weights, again.sha256) != (dino.weights, dino.sha256)
    for one, other in zip(dino.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert weights_file(f"rsov-tiny-dino@{file}") == file


def test_files_of_names_and_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("rsovlib.backbones.registry.fetch_hub_file", lambda *given: asked.append(given) or Path("f"))
    for name in ("dino-vitb8", "vit_base_patch8_224@dino", "openai-ViT-B-16", "ViT-B-16-quickgelu@openai"):
        assert weights_file(name) == Path("f")
    assert asked[0][0] == asked[1][0]
    assert asked[2][0] == asked[3][0]
    assert weights_file("vit_base_patch8_224@random") is None
    assert weights_file("rsov-tiny-dino").is_file()
    with pytest.raises(InputError, match="Did you mean 'dino-vitb8'"):
        weights_file("dino-vitb9")
    with pytest.raises(WeightsError, match="timm publishes no weights"):
        weights_file("vit_base_patch8_224@nonsense")
