"""The papers' architectures at their full size, once, with random weights: minutes, and several gigabytes of memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rsovlib.backbones import load_clip, load_dino
from rsovlib.data.scenes import make_scene
from rsovlib.segmenters import SDCI, SDCIConfig, ValuePath

CLASSES = ["water, river", "forest, trees", "buildings"]


@pytest.mark.slow
def test_sdci_with_vit_large_and_dinov2_base():
    torch.manual_seed(51)
    clip = load_clip("ViT-L-14-quickgelu", weights="random", device="cpu")
    dino = load_dino("vit_base_patch14_reg4_dinov2", weights="random", device="cpu")
    result = SDCI(clip, dino)(make_scene(512, seed=2).optical[:, :448], CLASSES)
    # 448 pixels on the short side become 512, then 518; DINO's 532.
    assert {name: np.shape(stage) for name, stage in result.stages.items() if "map" not in name} == {
        "clip_features": (1 + 37 * 42, 768),
        "clip_attention": (37 * 42, 37 * 42),
        "dino_attention": (38 * 43, 38 * 43),
        "clip_scores": (37 * 42, 3),
        "dino_scores": (38 * 43, 3),
        "clip_diffused": (3, 43, 38),
        "dino_diffused": (3, 42, 37),
        "clip_presence": (3,),
        "dino_presence": (3,),
        "superpixels": (512, 448),
        "relative_gap": (),
        "iterations": (),
    }
    assert all(np.isfinite(stage).all() for stage in result.stages.values())
    np.testing.assert_allclose(result.probabilities.sum(axis=0), 1, atol=1e-5)


#: SDCI's structural branches at their full size, and the width of CLIP's joint space that they must have.
#: The published ones are as wide as ViT-L/14's space; for ViT-B/16 (512) there is none, so one is made 512 wide.
BRANCHES = {
    ("ViT-L-14-quickgelu", "v1"): ("vit_base_patch8_224.dino", {}),
    ("ViT-L-14-quickgelu", "v2"): ("vit_base_patch14_reg4_dinov2", {}),
    ("ViT-L-14-quickgelu", "v3"): ("vit_base_patch16_dinov3", {}),
    ("ViT-B-16-quickgelu", "v1"): ("vit_base_patch8_224.dino", {"embed_dim": 512, "num_heads": 8}),
    ("ViT-B-16-quickgelu", "v2"): ("vit_base_patch14_reg4_dinov2", {"embed_dim": 512, "num_heads": 8}),
    ("ViT-B-16-quickgelu", "v3"): ("vit_base_patch16_dinov3", {"embed_dim": 512, "num_heads": 8}),
}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["ViT-B-16-quickgelu", "ViT-L-14-quickgelu"])
def test_sdci_and_the_value_path_on_both_architectures(architecture):
    """Every branch and both readings; the compared methods are in test_methods.py. Few patches: layouts are tried."""
    torch.manual_seed(52)
    clip = load_clip(architecture, weights="random", device="cpu")
    image = make_scene(128, seed=3).optical[:, :100]
    size: dict[str, int] = {"clip_size": 112, "dino_size": 112}
    found = {"value path": ValuePath(clip, clip_size=112)(image, CLASSES)}
    for (wanted, branch), (name, changes) in BRANCHES.items():
        if wanted == architecture:
            dino = load_dino(name, weights="random", device="cpu", **changes)
            for reading in (SDCIConfig.official, SDCIConfig.paper):
                found[f"{branch} {reading.__name__}"] = SDCI(clip, dino, reading(**size))(image, CLASSES)
    assert len(found) == 7
    for name, result in found.items():
        assert result.labels.shape == (128, 100), name
        assert result.probabilities.shape == (3, 128, 100), name
        assert np.isfinite(result.probabilities).all(), name
        np.testing.assert_allclose(result.probabilities.sum(axis=0), 1, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_dino_v1_at_its_published_size():
    dino = load_dino("vit_base_patch8_224.dino", weights="random", device="cpu")
    with torch.inference_mode():
        features = dino.features(torch.zeros(1, 3, 384, 384))
    assert features.grid == (48, 48)
    assert len(features.layers) == 12
    assert features.layers[0].shape == (1, 2304, 768)
    assert features.registers.shape == (1, 0, 768)
    assert features.attention.isfinite().all()


MEASURE = """
import numpy as np, torch
from pathlib import Path
from rsovlib.segmenters import make_segmenter

def resident(line):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(text.split()[1]) * 1024 for text in lines if text.startswith(line))

method, side = {method!r}, {side}
segmenter = make_segmenter(method, device="cpu", window=None)
image = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
segmenter(image[:128, :128], ["water", "forest"])
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
before = resident("VmRSS:")
segmenter(image, ["water", "forest"])
print(resident("VmHWM:") - before, segmenter.memory_needed(side, side, 2))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak can be measured on Linux only")
@pytest.mark.parametrize(("method", "side"), [("sdci", 320), ("valuepath", 640)])
def test_the_foreseen_memory_is_not_below_the_measured_peak(method, side):
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURE.format(method=method, side=side)],
        capture_output=True,
        text=True,
        check=True,
    )
    measured, foreseen = map(int, child.stdout.split())
    assert measured <= foreseen
    # And it is a forecast, not a scare.
    assert foreseen <= 5 * measured + 50 * 2**20
