"""SDCI's official reading equals the official program at every stage (tests/parity/README.md says what is compared).

Where the full case lies beside the checkout, every entry of its arrays is compared; otherwise the small case's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from rsovlib.backbones import ClipBackbone, DinoBackbone, encode_classes, load_clip, load_dino
from rsovlib.data.classes import parse_classes
from rsovlib.kernels import cscp_energy, edge_weights
from rsovlib.segmenters import SDCI, Segmentation
from rsovlib.segmenters.class_maps import probabilities
from rsovlib.segmenters.images import enlarge

CLIP_GRID, DINO_GRID = (37, 37), (38, 38)


@pytest.fixture(scope="module")
def picture(parity_folder: Path) -> NDArray[np.uint8]:
    return np.array(Image.open(parity_folder / "case.png"))


@pytest.fixture(scope="module")
def sdci(parity_clip: ClipBackbone, parity_dino: DinoBackbone) -> SDCI:
    return SDCI(parity_clip, parity_dino)


@pytest.fixture(scope="module")
def result(sdci: SDCI, picture: NDArray[np.uint8], parity_folder: Path) -> Segmentation:
    return sdci(picture, json.loads((parity_folder / "text.json").read_text(encoding="utf-8"))["classes"])


@pytest.fixture(scope="module")
def small(parity_folder: Path) -> dict[str, NDArray]:
    with np.load(parity_folder / "expected.npz") as stored:
        return {name: stored[name] for name in stored.files}


@pytest.fixture(scope="module")
def full(shared: Path) -> dict[str, NDArray]:
    folder = shared / "parity" / "sdci_case_a"
    with np.load(folder / "expected.npz") as stored, np.load(folder / "optimum.npz") as optimum:
        return {name: stored[name] for name in stored.files} | {f"optimum_{k}": optimum[k] for k in optimum.files}


@pytest.fixture(params=["small", "full"])
def expect(request: pytest.FixtureRequest, cut_case: ModuleType) -> Callable[[str, NDArray], tuple[NDArray, NDArray]]:
    """The entries of a computed array that the case has, and what they should be."""
    values: dict[str, NDArray] = request.getfixturevalue(request.param)

    def pick(name: str, computed: NDArray) -> tuple[NDArray, NDArray]:
        computed = cut_case.thinned(name, computed) if request.param == "small" else computed
        assert computed.shape == values[name].shape
        return computed, values[name]

    return pick


def carried(scores: NDArray, source: tuple[int, int], target: tuple[int, int]) -> NDArray:
    """Scores (N, K) on another grid, the way in which they enter the diffusion."""
    maps = enlarge(torch.from_numpy(scores).T.unflatten(1, source), target)
    return maps.flatten(1).T.numpy()


def farthest(pair: tuple[NDArray, NDArray]) -> float:
    computed, expected = pair
    return float(np.abs(computed - expected).max())


@pytest.mark.parametrize(
    ("stage", "name", "step"),
    [("clip_features", "clip_features_last", 1), ("clip_attention", "attn_clip_mean_rows", 37)],
)
def test_features_and_attention(result, expect, stage, name, step):
    computed, expected = expect(name, result.stages[stage][::step])
    assert farthest((computed, expected)) <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("clip_scores", "seg"),
        ("dino_scores", "dino_seg"),
        ("clip_diffused", "diffused_clip"),
        ("dino_diffused", "diffused_dino"),
        ("clip_presence", "score_clip"),
        ("dino_presence", "score_dino"),
    ],
)
def test_scores_and_diffused_maps(result, expect, stage, name):
    assert farthest(expect(name, result.stages[stage])) <= 1e-4


def test_scores_on_the_other_branchs_grid(result, expect):
    of_clip = carried(result.stages["clip_scores"], CLIP_GRID, DINO_GRID)
    of_dino = carried(result.stages["dino_scores"], DINO_GRID, CLIP_GRID)
    assert farthest(expect("seg_matched", of_clip)) <= 1e-4
    assert farthest(expect("dino_seg_matched", of_dino)) <= 1e-4


@pytest.mark.parametrize("branch", ["clip", "dino"])
def test_maps_that_enter_the_convex_step(result, expect, branch):
    assert farthest(expect(f"prob_{branch}_processed", result.stages[f"{branch}_map"])) <= 1e-3


def test_superpixels_are_the_same(result, expect):
    computed, expected = expect("superpixels", result.stages["superpixels"])
    np.testing.assert_array_equal(computed, expected)


def test_labels_are_those_of_the_certified_minimiser(result, small):
    assert (result.labels == small["optimum_labels"]).mean() >= 0.999


def test_the_solution_has_the_minimisers_energy(sdci, result, small):
    wx, wy = edge_weights(result.stages["superpixels"])
    inputs = [
        probabilities(torch.from_numpy(result.stages[f"{branch}_map"]), sdci.config).numpy()
        for branch in ("clip", "dino")
    ]
    energy = cscp_energy(result.probabilities, *inputs, wx, wy)
    # The official program's maps differ from ours by up to 1e-5, and so do the two problems.
    assert energy == pytest.approx(float(small["optimum_energy"]), rel=1e-4)


@pytest.mark.slow
def test_the_official_100_iterations_miss_the_minimiser(sdci, result, picture, small):
    """A first finding: what the official program prints is not the solution of its own problem."""
    official = SDCI(sdci.clip, sdci.dino, replace(sdci.config, solver="official"))
    maps = [torch.from_numpy(result.stages[f"{branch}_map"]) for branch in ("clip", "dino")]
    q, record = official.solve(picture, *maps)
    labels = q.argmax(dim=0).numpy()
    assert record["iterations"] == 100
    assert (labels == small["labels_official"]).mean() >= 0.999
    assert (labels == small["optimum_labels"]).mean() == pytest.approx(0.9787, abs=0.001)


@pytest.mark.parametrize("full_size", [False, True])
def test_the_text_tower(parity_clip, parity_folder, cut_case, full_size, request):
    clip, folder = parity_clip, parity_folder
    if full_size:
        folder = request.getfixturevalue("shared") / "parity" / "sdci_case_a"
        clip = load_clip(weights=folder / "tiny_openai_clip.safetensors", device="cpu")
    text = json.loads((folder / "text.json").read_text(encoding="utf-8"))
    with np.load(folder / "expected.npz") as expected:
        for name, classes in (
            ("fg_text", text["classes"]),
            ("bg_text", [cut_case.BACKGROUND]),
            ("syn_text", [cut_case.SYNONYMS]),
        ):
            computed = encode_classes(clip, parse_classes(classes), text["templates"]).numpy()
            assert np.abs(computed - expected[name]).max() <= 1e-5, name
            # Those templates are the ones that "rs10" names.
            np.testing.assert_array_equal(computed, encode_classes(clip, parse_classes(classes), "rs10").numpy())


def test_the_small_case_is_cut_from_the_full_one(shared, cut_case, parity_folder, parity_clip, parity_dino):
    folder = shared / "parity" / "sdci_case_a"
    for name, arrays in cut_case.cut(folder).items():
        with np.load(parity_folder / f"{name}.npz") as stored:
            assert set(stored.files) == set(arrays)
            for key, array in arrays.items():
                np.testing.assert_array_equal(stored[key], array, err_msg=f"{name}.npz: {key}")
    ours, theirs = (np.array(Image.open(place / "case.png").convert("RGB")) for place in (parity_folder, folder))
    np.testing.assert_array_equal(ours, theirs)
    # And the weights put together again are the full ones, but for the words that no text of the case uses.
    whole = load_clip(weights=folder / "tiny_openai_clip.safetensors", device="cpu").model.state_dict()
    again = parity_clip.model.state_dict()
    assert [name for name in whole if not torch.equal(whole[name], again[name])] == ["token_embedding.weight"]
    dino = load_dino(
        "vit_base_patch14_reg4_dinov2",
        weights=folder / "tiny_dinov2_reg4.safetensors",
        device="cpu",
        embed_dim=96,
        depth=3,
        num_heads=3,
    )
    assert all(
        torch.equal(value, parity_dino.model.state_dict()[name]) for name, value in dino.model.state_dict().items()
    )
