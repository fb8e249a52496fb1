"""SDCI with the numbers of a whole scene: two passes, levelled tiles, and one tile as it always was."""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rsovlib.backbones import ClipBackbone, DinoBackbone
from rsovlib.data.tiling import tile_grid
from rsovlib.segmenters import SDCI, SDCIConfig
from rsovlib.segmenters.images import enlarge
from rsovlib.segmenters.scenewide import LEVELLING, Leveller, Place, SceneConstants, branch_constants, statistics_of
from rsovlib.segmenters.sdci import scene_constants

CLASSES = ["water, river", "forest", "bare soil"]


def made(clip: ClipBackbone, dino: DinoBackbone, **changes: Any) -> SDCI:
    sizes = {"clip_size": None, "dino_scale": 1.5, "tolerance": 1e-5}
    return SDCI(clip, dino, SDCIConfig.official(**{**sizes, **changes}))


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 255, (53, 48, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"presence_threshold": 0.7},
        {"rescale": False},
        {"min_max": False},
        {"to_probability": "softmax"},
        {"to_probability": "sum", "min_max": False},
        {"window": 32, "overlap": 8},
    ],
)
def test_examined_and_decided_without_constants_is_the_plain_call(
    tiny_clip: ClipBackbone, tiny_dino: DinoBackbone, picture: NDArray[np.uint8], changes: dict[str, Any]
) -> None:
    segmenter = made(tiny_clip, tiny_dino, **changes)
    plain = segmenter(picture, CLASSES)
    again = segmenter.decide(picture, CLASSES, segmenter.examine(picture, CLASSES))
    np.testing.assert_array_equal(again.probabilities, plain.probabilities)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"presence_threshold": 0.9},
        {"min_max": False},
        {"min_max": False, "rescale": False},
        {"to_probability": "softmax"},
    ],
)
def test_a_scene_of_one_tile_gets_the_tiles_own_numbers(
    tiny_clip: ClipBackbone, tiny_dino: DinoBackbone, picture: NDArray[np.uint8], changes: dict[str, Any]
) -> None:
    segmenter = made(tiny_clip, tiny_dino, **changes)
    gather = segmenter.scene_gatherer()
    assert gather is not None
    examined = segmenter.examine(picture, CLASSES)
    valid = np.ones(picture.shape[:2], bool)
    place = SimpleNamespace(row=0, column=0, height=53, width=48)
    constants, offsets = gather([(place, examined, segmenter.tile_statistics(examined, valid))])
    assert np.abs(offsets[0]).max() == 0
    one = segmenter.decide(picture, CLASSES, examined, constants, offsets[0])
    np.testing.assert_allclose(one.probabilities, segmenter(picture, CLASSES).probabilities, atol=1e-5)
    assert SceneConstants.of(constants).plain() == constants


def test_what_differs_from_tile_to_tile(tiny_clip: ClipBackbone, tiny_dino: DinoBackbone) -> None:
    plain = {"rescale": False, "min_max": False, "to_probability": "sum"}
    assert made(tiny_clip, tiny_dino, **plain).scene_gatherer() is None
    for change in ({"rescale": True}, {"min_max": True}, {"to_probability": "auto"}, {"presence_threshold": 0.5}):
        assert made(tiny_clip, tiny_dino, **{**plain, **change}).scene_gatherer() is not None


def test_statistics_see_valid_pixels_only() -> None:
    maps = np.random.default_rng(0).random((3, 7, 9), dtype=np.float32)
    maps[:, :2] = 100
    valid = np.arange(7)[:, None] >= np.full(9, 2)
    found = statistics_of(maps, np.array([4, 5, 6], np.float32), valid)
    seen = maps[:, 2:].reshape(3, -1)
    np.testing.assert_allclose(found, [seen.min(1), seen.max(1), seen.mean(1), [4, 5, 6], [45] * 3], rtol=1e-6)
    assert (statistics_of(maps, np.ones(3, np.float32), ~valid & valid) == 0).all()


def test_constants_are_those_of_all_pixels() -> None:
    rng = np.random.default_rng(1)
    tiles = [rng.random((3, 8, 5 + n), dtype=np.float32) * [[[1]], [[n]], [[2]]] for n in (1, 2, 3)]
    table = np.stack([statistics_of(t.astype("f4"), t.max((1, 2)), np.ones(t.shape[1:], bool)) for t in tiles])
    every = np.concatenate([t.reshape(3, -1) for t in tiles], axis=1)
    rules: dict[str, Any] = {"threshold": 0.0, "rescaled": True, "stretched": True, "to_probability": "auto"}
    found = branch_constants(table, softmax_above=0.1, **rules)
    np.testing.assert_allclose(
        [found.low, found.high, found.presence], [every.min(1), every.max(1), every.max(1)], rtol=1e-6
    )
    low, high = every.min(1, keepdims=True), every.max(1, keepdims=True)
    total = ((every - low) / (high - low)).mean(axis=1).sum()
    assert branch_constants(table, softmax_above=total - 1e-4, **rules).softmax
    assert not branch_constants(table, softmax_above=total + 1e-4, **rules).softmax


def test_levelling_is_the_least_squares_solution() -> None:
    """Against a dense solve with means taken on maps that were really enlarged."""
    rng = np.random.default_rng(2)
    places = [Place(t.row, t.column, t.height, t.width) for t in tile_grid(50, 44, 24, 9)]
    maps = [rng.random((2, 4, 5), dtype=np.float32) for _ in places]
    leveller = Leveller()
    for place, values in zip(places, maps, strict=True):
        leveller.add(place, values, place.row)
    full = [enlarge(torch.from_numpy(m), (p.height, p.width)).numpy() for p, m in zip(places, maps, strict=True)]
    canvas = []
    for place, values in zip(places, full, strict=True):
        whole = np.full((2, 50, 44), np.nan)
        whole[:, place.row : place.row + place.height, place.column : place.column + place.width] = values
        canvas.append(whole)
    equations, wanted = [], []
    for s, t in combinations(range(len(places)), 2):
        shared = np.isfinite(canvas[s][0] + canvas[t][0])
        if shared.any():
            row = np.zeros(len(places))
            row[[s, t]] = 1, -1
            weight = np.sqrt(shared.sum() / (places[s].height * places[s].width))
            equations.append(weight * row)
            wanted.append(weight * -(canvas[s] - canvas[t])[:, shared].mean(axis=1))
    equations += list(np.sqrt(LEVELLING) * np.eye(len(places)))
    wanted += [np.zeros(2)] * len(places)
    expected = np.linalg.lstsq(np.array(equations), np.array(wanted), rcond=None)[0]
    np.testing.assert_allclose(leveller.offsets(), expected, atol=1e-6)
    np.testing.assert_allclose(leveller.offsets().mean(axis=0), 0, atol=1e-9)


def test_tiles_that_share_nothing_are_left_alone() -> None:
    leveller = Leveller()
    assert leveller.offsets().shape[0] == 0
    for row in (0, 10):
        leveller.add(Place(row, 0, 10, 10), np.full((2, 3, 3), row, np.float32), row)
    assert (leveller.offsets() == 0).all()


def test_a_tile_is_decided_alike_wherever_the_grid_lies(
    tiny_clip: ClipBackbone, tiny_dino: DinoBackbone, picture: NDArray[np.uint8]
) -> None:
    """Two tiles that see the same image agree, though the one beside them would stretch each of them differently."""
    segmenter = made(tiny_clip, tiny_dino)
    other = (picture // 3).astype(np.uint8)
    tiles = []
    for column, image in ((0, picture), (100, other), (200, picture)):  # so far apart that nothing is shared
        examined = segmenter.examine(image, CLASSES)
        statistics = segmenter.tile_statistics(examined, np.ones(image.shape[:2], bool))
        tiles.append((SimpleNamespace(row=0, column=column, height=53, width=48), examined, statistics))
    constants, offsets = scene_constants(segmenter.config, tiles)
    first, second, third = (
        segmenter.decide(image, CLASSES, examined, constants, offset).probabilities
        for image, (_, examined, _), offset in zip((picture, other, picture), tiles, offsets, strict=True)
    )
    np.testing.assert_array_equal(first, third)
    for branch in ("clip", "dino"):
        low, high = (np.array(constants[branch][name]) for name in ("low", "high"))
        for _, examined, _ in tiles:
            maps = enlarge(torch.from_numpy(examined[f"{branch}_diffused"][0]), (53, 48)).numpy()
            assert (maps.min(axis=(1, 2)) >= low - 1e-6).all()
            assert (maps.max(axis=(1, 2)) <= high + 1e-6).all()
    alone = segmenter(other, CLASSES).probabilities
    assert np.abs(second - alone).max() > 1e-3


def test_texts_travel(tiny_clip: ClipBackbone, tiny_dino: DinoBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = made(tiny_clip, tiny_dino)
    texts = segmenter.text_features(CLASSES)
    assert texts is not None
    tiny_clip._words.clear()
    segmenter.use_text_features(texts)
    monkeypatch.setattr(type(tiny_clip), "encode_text", lambda *_: pytest.fail("encoded again"))
    segmenter.examine(np.zeros((40, 40, 3), np.uint8), CLASSES)
