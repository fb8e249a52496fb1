"""Backbones for the fusion tests: tiny ones with random weights, and one input."""

from __future__ import annotations

import pytest
import torch

from rsovlib.backbones import ClipBackbone, DinoBackbone, load_clip, load_dino
from rsovlib.fusion.config import FusionConfig

SMALL = FusionConfig.embedded(
    clip_dense="class_residual",
    clip_skips=(1, 2),
    dino_blocks=(1, 2, 3),
    dino_finer=2,
    width=8,
    window=4,
    layers=2,
    class_tokens=12,
    skip_widths=(10, 6),
    guidance_widths=(4, 2),
    decoder_widths=(6, 4),
    cost_skip=0.0,
)
NAMES = ["water, river", "forest", "farmland", "road"]


def random_clip() -> ClipBackbone:
    return load_clip(
        "ViT-B-32",
        weights="random",
        device="cpu",
        embed_dim=24,
        vision_cfg={"image_size": 48, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8},
        text_cfg={"width": 32, "heads": 2, "layers": 2},
    )


def random_dino() -> DinoBackbone:
    return load_dino(
        "vit_base_patch8_224", weights="random", device="cpu", img_size=48, embed_dim=24, depth=3, num_heads=2
    )


@pytest.fixture(scope="session")
def clip() -> ClipBackbone:
    torch.manual_seed(21)
    return random_clip()


@pytest.fixture(scope="session")
def optical_dino() -> DinoBackbone:
    torch.manual_seed(22)
    return random_dino()


@pytest.fixture(scope="session")
def sar_dino() -> DinoBackbone:
    torch.manual_seed(23)
    return random_dino()


@pytest.fixture
def small() -> FusionConfig:
    """A very small architecture with everything in it, for the random backbones."""
    return SMALL


@pytest.fixture
def names() -> list[str]:
    return NAMES
