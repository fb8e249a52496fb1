"""Trained networks as segmenters: probabilities, windows, radar that is missing, settings, and names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rsovlib.errors import InputError, WeightsError
from rsovlib.fusion.config import FusionConfig, Readings
from rsovlib.fusion.ebseg import EBSegConfig, EBSegNetwork
from rsovlib.fusion.network import CostAggregationNetwork
from rsovlib.fusion.segmenter import FusionOptions, FusionSegmenter, make_fusion_segmenter
from rsovlib.fusion.weights import load_fusion, save_fusion
from rsovlib.segmenters.base import SarSegmenter, Segmenter

CLASSES = "water, river; forest; farmland"


@pytest.fixture
def network(small, clip, optical_dino, sar_dino) -> CostAggregationNetwork:
    torch.manual_seed(51)
    made = CostAggregationNetwork(small, clip, optical_dino, sar_dino)
    with torch.no_grad():  # fresh networks say nearly the same everywhere
        made.decoder.head.weight.mul_(20)
    return made


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(52).integers(0, 256, (75, 61, 3), dtype=np.uint8)


@pytest.fixture
def radar() -> np.ndarray:
    return np.random.default_rng(53).integers(0, 256, (75, 61), dtype=np.uint8)


def test_one_window_is_the_network_itself(network, picture, radar) -> None:
    segmenter = FusionSegmenter(network, "mm-ovseg", FusionOptions(window=0))
    result = segmenter(picture, CLASSES, sar=radar)
    optical = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    sar = torch.from_numpy(radar)[None, None].float().expand(1, 3, -1, -1) / 255
    with torch.no_grad():
        logits = network(optical, network.encode_text(CLASSES.split(";")), sar)
        logits = F.interpolate(logits, size=(75, 61), mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(result.stages["logits"], logits.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(result.labels, logits.argmax(dim=0).numpy())
    odds = np.exp(result.stages["logits"].astype(np.float64))
    np.testing.assert_allclose(result.probabilities, odds / odds.sum(axis=0), rtol=1e-4)
    assert result.classes == ["water", "forest", "farmland"]
    assert {name: stage.shape for name, stage in result.stages.items()} == dict.fromkeys(
        ("logits", "cost_clip", "cost_dino", "fused", "refined"), (3, 75, 61)
    )
    assert isinstance(segmenter, SarSegmenter)
    assert segmenter.uses_sar


def test_windows_are_blended(network, picture, radar) -> None:
    """In the middle of a window that no other touches, the map is that window's own."""
    segmenter = FusionSegmenter(network, "mm-ovseg", FusionOptions(window=40, overlap=8))
    result = segmenter(picture, CLASSES, sar=radar)
    # 75 x 61 in windows of 40: rows start at 0, 18 and 35, columns at 0 and 21.
    corner = FusionSegmenter(network, "mm-ovseg", FusionOptions(window=0))(
        picture[:40, :40], CLASSES, sar=radar[:40, :40]
    )
    np.testing.assert_allclose(
        result.stages["logits"][:, :18, :20], corner.stages["logits"][:, :18, :20], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(result.probabilities.sum(axis=0), 1, atol=1e-5)
    one_by_one = FusionSegmenter(network, "mm-ovseg", FusionOptions(window=40, overlap=8, batch=1))
    np.testing.assert_allclose(
        one_by_one(picture, CLASSES, sar=radar).stages["logits"], result.stages["logits"], rtol=1e-4, atol=1e-5
    )


def test_a_batch_is_its_images(network, picture, radar) -> None:
    segmenter = FusionSegmenter(network, "mm-ovseg", FusionOptions(window=40))
    other = np.ascontiguousarray(picture[::-1, :50])
    together = segmenter.segment_batch([picture, other], CLASSES, sar=[radar, None])
    for got, expected in zip(
        together, (segmenter(picture, CLASSES, sar=radar), segmenter(other, CLASSES)), strict=True
    ):
        np.testing.assert_allclose(got.stages["logits"], expected.stages["logits"], rtol=1e-4, atol=1e-5)


def test_missing_radar(network, picture, radar) -> None:
    segmenter = FusionSegmenter(network, "mm-ovseg", FusionOptions(window=40))
    without = segmenter(picture, CLASSES).stages["logits"]
    nowhere = segmenter(picture, CLASSES, sar=radar, sar_valid=np.zeros((75, 61), bool)).stages["logits"]
    np.testing.assert_array_equal(nowhere, without)
    full = segmenter(picture, CLASSES, sar=radar).stages["logits"]
    half = np.zeros((75, 61), bool)
    half[:, :5] = True
    partly = segmenter(picture, CLASSES, sar=radar, sar_valid=half).stages["logits"]
    # The last column of windows starts at 21, and no radar reaches it.
    np.testing.assert_allclose(partly[:, :, 45:], without[:, :, 45:], rtol=1e-4, atol=1e-5)
    assert np.abs(partly - without).max() > 1e-3
    assert np.abs(partly - full).max() > 1e-3


def test_released_reading_of_the_map(network, picture, small, clip, optical_dino, sar_dino) -> None:
    released = CostAggregationNetwork(
        FusionConfig(**{**small.__dict__, "readings": Readings(shows_logits_resized=False)}),
        clip,
        optical_dino,
        sar_dino,
    )
    released.load_state_dict(network.state_dict())
    options = FusionOptions(window=0)
    ours, theirs = FusionSegmenter(network, "a", options), FusionSegmenter(released, "b", options)
    with torch.no_grad():
        optical = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
        logits = network(optical, network.encode_text(CLASSES.split(";")))
        expected = F.interpolate(logits.sigmoid(), size=(75, 61), mode="bilinear", align_corners=False)[0]
    result = theirs(picture, CLASSES)
    np.testing.assert_array_equal(result.labels, expected.argmax(dim=0).numpy())
    np.testing.assert_allclose(result.probabilities.sum(axis=0), 1, atol=1e-5)
    assert np.abs(result.probabilities - ours(picture, CLASSES).probabilities).max() > 1e-6


def test_short_side_resizes_everything(network, picture, radar) -> None:
    segmenter = FusionSegmenter(network, "mm-ovseg", FusionOptions(window=0, short_side=32))
    valid = np.ones((75, 61), bool)
    assert segmenter(picture, CLASSES, sar=radar, sar_valid=valid).labels.shape == (75, 61)


def test_texts_of_another_process(network, picture) -> None:
    segmenter = FusionSegmenter(network, "mm-ovseg")
    texts = segmenter.text_features(CLASSES)
    assert texts
    expected = segmenter(picture, CLASSES).labels
    segmenter.use_text_features(texts)
    np.testing.assert_array_equal(segmenter(picture, CLASSES).labels, expected)


def test_settings_and_memory(network) -> None:
    segmenter = FusionSegmenter(network, "mm-ovseg", FusionOptions(window=40))
    settings = segmenter.settings()
    assert settings["method"] == "mm-ovseg"
    assert settings["window"] == 40
    assert settings["overlap"] == 10
    assert settings["weights"] == "untrained"
    assert settings["readings"]["sar_follows_optical"] is True
    assert segmenter.memory_needed(400, 400, 3) < segmenter.memory_needed(400, 400, 9)
    assert segmenter.memory_needed(40, 40, 3) < segmenter.memory_needed(400, 400, 3)
    assert segmenter.tiling == (130, 10)


def test_a_scene_is_seamless(network, picture) -> None:
    """All four kinds of window batches come together, on a picture larger than a tile."""
    large = np.tile(picture, (2, 3, 1))
    segmenter = FusionSegmenter(network, "mm-ovseg", FusionOptions(window=48, keep_stages=False))
    result = segmenter(large, CLASSES)
    assert result.labels.shape == (150, 183)
    assert result.stages == {}
    np.testing.assert_allclose(result.probabilities.sum(axis=0), 1, atol=1e-5)


# ---- by name ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["mm-ovseg", "mm-ovseg-no-cmu", "gsnet", "cat-seg", "ebseg"])
def test_random_weights_of_every_method(method: str, picture, radar) -> None:
    segmenter = make_fusion_segmenter(method, weights="random", device="cpu", window=48)
    assert isinstance(segmenter, Segmenter)
    assert segmenter.uses_sar is method.startswith("mm-ovseg")
    result = segmenter(picture, CLASSES, **({"sar": radar} if segmenter.uses_sar else {}))
    assert result.probabilities.shape == (3, 75, 61)
    np.testing.assert_allclose(result.probabilities.sum(axis=0), 1, atol=1e-5)
    assert result.settings["method"] == method
    if not segmenter.uses_sar:
        with pytest.raises(InputError, match="can't use a radar image"):
            segmenter(picture, CLASSES, sar=radar)


def test_an_ebseg_file_is_loaded_as_such(clip, optical_dino, tmp_path, picture) -> None:
    config = EBSegConfig.embedded(
        clip_blocks=(1, 1, 2), dino_blocks=(1, 2, 3), attention_from=2, width=16, queries=5, layers=2, heads=2
    )
    torch.manual_seed(54)
    network = EBSegNetwork(config, clip, optical_dino)
    network.remember(["forest", "water, river"])
    file = tmp_path / "ebseg.safetensors"
    save_fusion(file, network)
    loaded = load_fusion(file, "cpu", clip=clip, optical_dino=optical_dino)
    assert loaded.config.seen == ("forest", "river", "water")
    expected = FusionSegmenter(network, "ebseg")(picture, CLASSES).stages["logits"]
    np.testing.assert_array_equal(FusionSegmenter(loaded, "ebseg")(picture, CLASSES).stages["logits"], expected)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "mmovseg"}, InputError, "Did you mean"),
        ({"profile": "tiny"}, InputError, "no profile"),
        ({"profile": "full"}, WeightsError, "No trained weights"),
        ({"bogus": 1}, InputError, "no option of"),
        ({"weights": "random", "architecture": "vit-h"}, InputError, "no architecture"),
        ({"weights": "random", "window": -1}, InputError, "at least 0"),
        ({"weights": "random", "window": 20, "overlap": 20}, InputError, "leaves nothing"),
        ({"weights": "random", "precision": "float8"}, InputError, "no precision"),
        ({"weights": "random", "precision": "bfloat16"}, InputError, "needs a GPU"),
    ],
)
def test_bad_options(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_fusion_segmenter(**{"method": "gsnet", "device": "cpu", **options})


def test_weights_of_another_method(network, tmp_path, monkeypatch, clip, optical_dino, sar_dino) -> None:
    import rsovlib.fusion.segmenter as module

    monkeypatch.setattr(module, "load_fusion", lambda source, device: network)
    with pytest.raises(InputError, match="holds a network of mm-ovseg"):
        make_fusion_segmenter("gsnet", weights="some.safetensors", device="cpu")
