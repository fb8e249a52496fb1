"""The scores against hand-computed cases, a slow obvious reference, and torchmetrics' own classes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassJaccardIndex

from rsovlib.errors import InputError
from rsovlib.metrics import SegmentationMetrics

CLASSES = ["water", "forest", "road", "roof"]
IGNORE = 255


def some_maps(seed: int = 0, shape: tuple[int, ...] = (37, 31), ignored: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Two random label maps that agree in about two thirds of the pixels."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, len(CLASSES), shape)
    predicted = np.where(rng.random(shape) < 0.35, rng.integers(0, len(CLASSES), shape), true)
    return predicted, np.where(rng.random(shape) < ignored, IGNORE, true)


def scores_of(predicted: np.ndarray, true: np.ndarray, **options: object) -> dict:
    metrics = SegmentationMetrics(CLASSES, **options)
    metrics.update(predicted, true)
    return metrics.compute()


def test_a_case_computed_by_hand():
    true = np.array([[0, 0, 0, 1], [1, 1, 255, 2]])
    predicted = np.array([[0, 0, 1, 1], [1, 3, 0, 2]])
    scores = scores_of(predicted, true, unseen=["road"])
    # water: TP 2, FP 0, FN 1. forest: TP 2, FP 1, FN 1. road: TP 1. roof: no ground truth, one false positive.
    assert scores["iou"]["water"] == pytest.approx(2 / 3)
    assert scores["iou"]["forest"] == pytest.approx(2 / 4)
    assert scores["iou"]["road"] == pytest.approx(1)
    assert math.isnan(scores["iou"]["roof"])
    assert scores["miou"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert scores["miou_seen"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores["miou_unseen"] == pytest.approx(1)
    assert scores["pixel_accuracy"] == pytest.approx(5 / 7)
    assert scores["mean_accuracy"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert scores["mean_f1"] == pytest.approx((4 / 5 + 4 / 6 + 1) / 3)
    assert scores["pixels"] == 7


def test_a_class_that_is_never_predicted_counts_as_zero():
    true = np.array([[0, 1], [0, 1]])
    assert scores_of(np.zeros_like(true), true)["miou"] == pytest.approx((2 / 4 + 0) / 2)


def test_no_answer_is_a_miss_and_nobodys_false_positive():
    true = np.array([[0, 0, 1, 1]])
    scores = scores_of(np.array([[0, IGNORE, 1, 1]]), true)
    assert scores["iou"] == {
        "water": 0.5,
        "forest": 1.0,
        "road": pytest.approx(math.nan, nan_ok=True),
        "roof": pytest.approx(math.nan, nan_ok=True),
    }
    assert scores["pixel_accuracy"] == 0.75


def test_equals_torchmetrics_over_the_whole_set():
    predicted, true = some_maps(shape=(3, 37, 31))
    scores = scores_of(predicted, true)
    options = {"num_classes": len(CLASSES), "ignore_index": IGNORE, "average": "macro"}
    p, t = torch.from_numpy(predicted), torch.from_numpy(true)
    assert scores["miou"] == pytest.approx(float(MulticlassJaccardIndex(**options)(p, t)), abs=1e-6)
    assert scores["mean_accuracy"] == pytest.approx(float(MulticlassAccuracy(**options)(p, t)), abs=1e-6)
    assert scores["mean_f1"] == pytest.approx(float(MulticlassF1Score(**options)(p, t)), abs=1e-6)
    options["average"] = "micro"
    assert scores["pixel_accuracy"] == pytest.approx(float(MulticlassAccuracy(**options)(p, t)), abs=1e-6)


@given(seed=st.integers(0, 2**32 - 1), parts=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_the_order_and_the_parts_do_not_matter(seed: int, parts: int):
    maps = [some_maps(seed + i, (11, 7)) for i in range(4)]
    whole = SegmentationMetrics(CLASSES, unseen=["roof"])
    for predicted, true in maps:
        whole.update(predicted, true)
    joined = SegmentationMetrics(CLASSES, unseen=["roof"])
    for first in range(parts):
        part = SegmentationMetrics(CLASSES, unseen=["roof"])
        for predicted, true in maps[first::parts]:
            part.update(predicted, true)
        joined.merge(part)
    batch = SegmentationMetrics(CLASSES, unseen=["roof"])
    batch.update(np.stack([m[0] for m in maps]), np.stack([m[1] for m in maps]))
    assert whole.compute() == joined.compute() == batch.compute()


def test_perfect_and_wholly_wrong():
    _, true = some_maps(ignored=0.2)
    filled = np.where(true == IGNORE, 0, true)
    perfect = scores_of(filled, true)
    for name in ("miou", "pixel_accuracy", "mean_accuracy", "mean_f1", "boundary_f1"):
        assert perfect[name] == 1.0
    wrong = scores_of((filled + 1) % len(CLASSES), true)
    for name in ("miou", "pixel_accuracy", "mean_accuracy", "mean_f1"):
        assert wrong[name] == 0.0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int64])
def test_types_kinds_and_memory_layouts_agree(dtype: type):
    predicted, true = some_maps()
    expected = scores_of(predicted, true)
    assert scores_of(predicted.astype(dtype), true.astype(dtype)) == expected
    assert scores_of(torch.from_numpy(predicted), torch.from_numpy(true)) == expected
    backwards = np.asfortranarray(predicted)[::-1], true[::-1]
    backwards[0].flags.writeable = False
    assert scores_of(*backwards) == expected


def reference_boundary_f1(predicted: np.ndarray, true: np.ndarray, tolerance: float) -> float:
    """Pixel by pixel, as the docstring defines it."""
    height, width = true.shape

    def edge_pixels(labels: np.ndarray, label: int) -> list[tuple[int, int]]:
        found = []
        for y in range(height):
            for x in range(width):
                if labels[y, x] != label or true[y, x] == IGNORE:
                    continue
                around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
                inside = [(v, u) for v, u in around if 0 <= v < height and 0 <= u < width and true[v, u] != IGNORE]
                if any(labels[v, u] != label for v, u in inside):
                    found.append((y, x))
        return found

    def near(pixels: list[tuple[int, int]], others: list[tuple[int, int]]) -> int:
        return sum(any(math.dist(p, o) <= tolerance for o in others) for p in pixels)

    scores = []
    for label in range(len(CLASSES)):
        p, t = edge_pixels(predicted, label), edge_pixels(true, label)
        if not t:
            continue
        precision, recall = near(p, t) / max(len(p), 1), near(t, p) / len(t)
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return sum(scores) / len(scores)


@pytest.mark.parametrize("tolerance", [0, 1, 2, 3])
def test_boundary_score_equals_the_slow_reference(tolerance: int):
    rng = np.random.default_rng(tolerance)
    true = np.kron(rng.integers(0, 4, (3, 4)), np.ones((6, 5), dtype=int))
    true[0:4, 7:12] = IGNORE
    predicted = np.roll(np.kron(rng.integers(0, 4, (3, 4)), np.ones((6, 5), dtype=int)), 2, axis=1)
    predicted[:9] = np.roll(true, 1, axis=0)[:9]
    expected = reference_boundary_f1(predicted, true, tolerance)
    assert scores_of(predicted, true, boundary_tolerance=tolerance)["boundary_f1"] == pytest.approx(expected)
    assert 0.05 < expected < 1  # the case says something


def test_boundary_score_within_and_beyond_the_tolerance():
    true = np.zeros((20, 30), dtype=int)
    true[:, 12:] = 1
    moved = np.roll(true, 3, axis=1)
    moved[:, :3] = 0
    assert scores_of(moved, true, boundary_tolerance=3)["boundary_f1"] == 1.0
    assert scores_of(moved, true, boundary_tolerance=2)["boundary_f1"] == 0.0
    assert math.isnan(scores_of(moved, true, boundary_tolerance=None)["boundary_f1"])
    assert math.isnan(scores_of(true * 0, true * 0)["boundary_f1"])


def test_seen_and_unseen_without_members_are_nan():
    true = np.array([[0, 1]])
    assert math.isnan(scores_of(true, true)["miou_unseen"])
    assert math.isnan(scores_of(true, true, unseen=CLASSES)["miou_seen"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"classes": []}, "empty"),
        ({"classes": ["a", "b", "a"]}, "'a' is in the list twice"),
        ({"classes": ["water"], "unseen": ["watr"]}, "Did you mean 'water'"),
        ({"classes": ["a", "b"], "ignore_index": 1}, "label of the class 'b'"),
        ({"classes": ["a"], "boundary_tolerance": -1}, "negative"),
    ],
)
def test_settings_that_make_no_sense(options: dict, sentence: str):
    with pytest.raises(InputError, match=sentence):
        SegmentationMetrics(**options)


@pytest.mark.parametrize(
    ("predicted", "true", "sentence"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), "2 x 3 and the target 3 x 2"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), "prediction has the type float64"),
        (torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.long), "torch.float32"),
        (np.full((2, 2), 4), np.zeros((2, 2), int), "prediction holds the label 4"),
        (np.zeros((2, 2), int), np.full((2, 2), -1), "target holds the label -1"),
        (np.zeros(4, int), np.zeros(4, int), "is 4; give"),
        (np.zeros((0, 4), int), np.zeros((0, 4), int), "not empty"),
    ],
)
def test_maps_that_make_no_sense(predicted: object, true: object, sentence: str):
    metrics = SegmentationMetrics(CLASSES)
    with pytest.raises(InputError, match=sentence):
        metrics.update(predicted, true)
    assert not metrics.confusion.any()


def test_nothing_to_score():
    metrics = SegmentationMetrics(CLASSES)
    metrics.update(np.zeros((2, 2), int), np.full((2, 2), IGNORE))
    with pytest.raises(InputError, match="nothing to score"):
        metrics.compute()


def test_merging_different_settings_is_refused():
    with pytest.raises(InputError, match="different classes"):
        SegmentationMetrics(["a"]).merge(SegmentationMetrics(["b"]))
