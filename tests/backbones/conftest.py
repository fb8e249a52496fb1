"""Small networks with random weights, and a hub cache that holds whatever a test puts there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rsovlib.backbones import ClipBackbone, load_clip

#: Overrides that make any plain ViT of open_clip tiny: patch 8 on 6 x 6 tokens, joint size 24.
TINY_CLIP: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 48, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"width": 32, "heads": 2, "layers": 2},
}
#: The same in the widths that the OpenAI format allows: 64 a head.
OPENAI_CLIP: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 24, "layers": 2, "width": 128, "head_width": 64, "patch_size": 8},
    "text_cfg": {"width": 64, "heads": 1, "layers": 1, "context_length": 77, "vocab_size": 49408},
}


@pytest.fixture(scope="session")
def tiny_config() -> dict[str, Any]:
    return TINY_CLIP


@pytest.fixture(scope="session")
def tiny_clip() -> ClipBackbone:
    torch.manual_seed(21)
    return load_clip("ViT-B-32", weights="random", device="cpu", **TINY_CLIP)


@pytest.fixture(scope="session")
def openai_clip() -> ClipBackbone:
    torch.manual_seed(22)
    return load_clip("ViT-B-32-quickgelu", weights="random", device="cpu", **OPENAI_CLIP)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, bytes], Path]:
    """An empty cache folder for this test, and a way to put a file there as the hub's client would have."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setenv("RSOV_CACHE", str(cache))
    monkeypatch.setenv("RSOV_OFFLINE", "1")

    def put(repository: str, name: str, content: bytes) -> Path:
        folder = cache / f"models--{repository.replace('/', '--')}"
        revision = "0123456789abcdef0123456789abcdef01234567"
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        pointer = folder / "snapshots" / revision / name
        for path in (blob, pointer, folder / "refs" / "main"):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        (folder / "refs" / "main").write_text(revision)
        pointer.symlink_to(blob)
        return blob

    return put
