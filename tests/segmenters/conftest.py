"""Networks for the segmenters' tests: tiny ones with random weights, and those of the parity case."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from rsovlib.backbones import ClipBackbone, DinoBackbone, load_clip, load_dino

PARITY_DINO = {"embed_dim": 96, "depth": 3, "num_heads": 3}


@pytest.fixture(scope="session")
def tiny_clip() -> ClipBackbone:
    """A CLIP of patch 8, 3 blocks, width 32 and joint size 24, random weights."""
    torch.manual_seed(11)
    return load_clip(
        "ViT-B-32",
        weights="random",
        device="cpu",
        embed_dim=24,
        vision_cfg={"image_size": 48, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8},
        text_cfg={"width": 32, "heads": 2, "layers": 2},
    )


@pytest.fixture(scope="session")
def tiny_dino() -> DinoBackbone:
    """A DINOv2 with registers of patch 14, 3 blocks and width 24, random weights."""
    torch.manual_seed(12)
    dino = load_dino(
        "vit_base_patch14_reg4_dinov2", weights="random", device="cpu", img_size=56, embed_dim=24, depth=3, num_heads=2
    )
    # Fresh LayerScales are 1e-5, which would make all layers the same.
    for name, parameter in dino.model.named_parameters():
        if name.endswith("gamma"):
            parameter.fill_(1.0)
    return dino


@pytest.fixture(scope="session")
def parity_folder(repository: Path) -> Path:
    return repository / "tests" / "parity"


@pytest.fixture(scope="session")
def cut_case(parity_folder: Path) -> ModuleType:
    """The script that cuts the parity case and puts its weights together again."""
    spec = importlib.util.spec_from_file_location("cut_case", parity_folder / "cut_case.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def parity_clip(cut_case: ModuleType, parity_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ClipBackbone:
    """The parity case's CLIP, loaded from an OpenAI-format file without a name."""
    file = cut_case.inflate(parity_folder / "clip.npz", tmp_path_factory.mktemp("parity") / "clip.safetensors")
    return load_clip(weights=file, device="cpu")


@pytest.fixture(scope="session")
def parity_dino(cut_case: ModuleType, parity_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> DinoBackbone:
    """The parity case's DINOv2, loaded from a facebookresearch state dict."""
    file = cut_case.inflate(parity_folder / "dino.npz", tmp_path_factory.mktemp("parity") / "dino.safetensors")
    return load_dino("vit_base_patch14_reg4_dinov2", weights=file, device="cpu", **PARITY_DINO)
