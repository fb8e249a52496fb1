"""Parameters and shapes of the published sizes, without memory for them (PyTorch's meta device)."""

from __future__ import annotations

import open_clip
import pytest
import timm
import torch
from open_clip.model import CLIP

from rsovlib.backbones import ClipBackbone, DinoBackbone
from rsovlib.fusion.config import FusionConfig
from rsovlib.fusion.network import CostAggregationNetwork


def full_clip(name: str) -> ClipBackbone:
    return ClipBackbone(CLIP(**open_clip.get_model_config(name)), lambda texts: torch.zeros(len(texts), 77), name, "")


def full_dino(name: str) -> DinoBackbone:
    model = timm.create_model(name, num_classes=0, dynamic_img_size=True)
    return DinoBackbone(model, name, "", position="bicubic_offset")


def network_of(method: str, size: str) -> CostAggregationNetwork:
    with torch.device("meta"):
        base = FusionConfig.vit_b() if size == "b" else FusionConfig.vit_l()
        config = FusionConfig.for_method(method, base)
        clip = full_clip("ViT-B-16-quickgelu" if size == "b" else "ViT-L-14-336-quickgelu")
        dino = "vit_base_patch8_224" if size == "b" else "vit_large_patch16_dinov3"
        return CostAggregationNetwork(
            config,
            clip,
            full_dino(dino) if config.optical_dino else None,
            full_dino(dino) if config.sar_dino else None,
        )


def size_of(*modules: torch.nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def trained(network: CostAggregationNetwork) -> int:
    return sum(p.numel() for _, p in network.trained_parameters())


@pytest.mark.parametrize(
    ("method", "total", "taught"),
    [
        ("mm-ovseg", 331_959_698, 31_170_449),
        ("gsnet", 243_988_242, 29_006_865),
        # Not in the specification; Table A1 says 25 million trained.
        ("cat-seg", 154_289_378, 25_115_873),
    ],
)
def test_totals_of_vit_b(method: str, total: int, taught: int) -> None:
    network = network_of(method, "b")
    assert size_of(network) == total
    assert trained(network) == taught
    # What is trained is what gradients flow to, each parameter once.
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == taught
    assert len({id(p) for _, p in network.trained_parameters()}) == len(network.trained_parameters())


def test_parts_of_vit_b() -> None:
    network = network_of("mm-ovseg", "b")
    assert size_of(network.clip_model) == 149_620_737
    assert size_of(network.optical_model) == size_of(network.sar_model) == 85_807_872
    assert sum(p.numel() for group, p in network.trained_parameters() if group == "clip") == 20_447_232
    assert (size_of(network.clip_middle), size_of(network.clip_fine)) == (786_688, 1_572_992)
    for levels in (network.optical_levels, network.sar_levels):
        assert [size_of(part) for part in (levels.last, levels.middle, levels.fine)] == [1_573_376, 196_864, 393_344]
    aggregator, decoder = network.aggregator, network.decoder
    assert size_of(aggregator.spatial, aggregator.classes) == 1_354_240
    assert size_of(network.embedding.fuse) == 1_605_760
    assert size_of(network.embedding.clip, network.embedding.dino) == 12_800
    reduce = [decoder.step1.reduce, decoder.step2.reduce]
    assert size_of(aggregator.image_guidance, aggregator.text_guidance, *reduce) == 840_032
    assert size_of(decoder) - size_of(*reduce) == 223_537
    assert size_of(network.embedding, aggregator, decoder) == 4_036_369


def test_parts_of_vit_l() -> None:
    network = network_of("mm-ovseg", "l")
    assert size_of(network.clip_model) == 427_944_193
    assert size_of(network.embedding, network.aggregator, network.decoder) == 4_364_049
    assert sum(p.numel() for group, p in network.trained_parameters() if group == "clip") == 64_487_424
    assert trained(network) == 79_864_209
    assert size_of(network) - size_of(network.optical_model, network.sar_model) == 443_320_978


@pytest.mark.parametrize(("size", "joint"), [("b", 512), ("l", 768)])
def test_shapes_at_384(size: str, joint: int) -> None:
    network = network_of("mm-ovseg", size)
    steps: list[tuple[int, ...]] = []
    for step in (network.decoder.step1, network.decoder.step2):
        step.register_forward_hook(lambda _module, _inputs, output: steps.append(tuple(output.shape)))
    image = torch.zeros(2, 3, 384, 384, device="meta")
    out = network.run(image, torch.zeros(6, 1, joint, device="meta"), image, image[:, :1])
    assert out.cost_clip.shape == (2, 1, 6, 24, 24)
    assert out.cost_dino is not None
    assert out.cost_dino.shape == (2, 1, 6, 24, 24)
    assert out.fused.shape == out.refined.shape == (2, 6, 128, 24, 24)
    assert steps == [(2, 6, 64, 48, 48), (2, 6, 32, 96, 96)]
    assert out.logits.shape == (2, 6, 96, 96)
    assert all(layer.length == 256 for layer in network.aggregator.classes)
