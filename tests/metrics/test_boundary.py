"""Boundary F1 and boundary IoU against slow obvious references and cases computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rsovlib.metrics import SegmentationMetrics

CLASSES = ["water", "forest", "road", "roof"]
IGNORE = 255


def scores_of(predicted: np.ndarray, true: np.ndarray, **options: object) -> dict:
    metrics = SegmentationMetrics(CLASSES, **options)
    metrics.update(predicted, true)
    return metrics.compute()


def contour(labels: np.ndarray, true: np.ndarray) -> dict[tuple[int, int], int]:
    """Scored pixels with a scored 4-neighbour of another label, pixel by pixel: place -> label."""
    height, width = true.shape
    found = {}
    for y in range(height):
        for x in range(width):
            around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            inside = [(v, u) for v, u in around if 0 <= v < height and 0 <= u < width and true[v, u] != IGNORE]
            if true[y, x] != IGNORE and any(labels[v, u] != labels[y, x] for v, u in inside):
                found[y, x] = int(labels[y, x])
    return found


def mean_of(scores: list[float]) -> float:
    return sum(scores) / len(scores)


def reference_boundary_f1(predicted: np.ndarray, true: np.ndarray, tolerance: float) -> float:
    """As the docstring defines it."""
    edges = contour(predicted, true), contour(true, true)

    def near(pixels: list, others: list) -> int:
        return sum(any(math.dist(p, o) <= tolerance for o in others) for p in pixels)

    scores = []
    for label in range(len(CLASSES)):
        p, t = ([place for place, value in found.items() if value == label] for found in edges)
        if not t:
            continue
        precision, recall = near(p, t) / max(len(p), 1), near(t, p) / len(t)
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return mean_of(scores)


def reference_boundary_iou(predicted: np.ndarray, true: np.ndarray, width: int) -> float:
    """Bands inside each region, at most ``width`` pixels thick, the contour itself being the first."""
    scores = []
    for label in range(len(CLASSES)):
        bands = []
        for labels in (predicted, true):
            own = [place for place, value in contour(labels, true).items() if value == label]
            region = np.argwhere((labels == label) & (true != IGNORE)).tolist()
            bands.append({tuple(p) for p in region if any(math.dist(p, o) <= width - 1 for o in own)})
        if bands[1]:
            scores.append(len(bands[0] & bands[1]) / len(bands[0] | bands[1]))
    return mean_of(scores)


def regions(seed: int, ignored: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = np.kron(rng.integers(0, 4, (3, 4)), np.ones((6, 5), dtype=int))
    predicted = np.roll(np.kron(rng.integers(0, 4, (3, 4)), np.ones((6, 5), dtype=int)), 2, axis=1)
    predicted[:9] = np.roll(true, 1, axis=0)[:9]
    if ignored:
        true[0:4, 7:12] = IGNORE
    return predicted, true


@pytest.mark.parametrize("tolerance", [0, 1, 2, 3])
def test_boundary_f1_equals_the_slow_reference(tolerance: int):
    predicted, true = regions(tolerance, ignored=True)
    expected = reference_boundary_f1(predicted, true, tolerance)
    assert scores_of(predicted, true, boundary_tolerance=tolerance)["boundary_f1"] == pytest.approx(expected)
    assert 0.05 < expected < 1  # the case says something


@pytest.mark.parametrize("width", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_boundary_iou_equals_the_slow_reference(width: int, seed: int):
    predicted, true = regions(seed, ignored=False)
    predicted[5:9, 3:6] = IGNORE  # no answer: belongs to no band, but bounds its neighbours
    expected = reference_boundary_iou(predicted, true, width)
    assert scores_of(predicted, true, boundary_width=width)["boundary_iou"] == pytest.approx(expected)
    assert 0.05 < expected < 1


def test_boundary_iou_by_hand():
    true = np.zeros((10, 20), dtype=int)
    true[:, 10:] = 1
    moved = np.roll(true, 1, axis=1)
    moved[:, 0] = 0
    # Width 2: water's bands are columns 8-9 and 9-10, forest's 10-11 and 11-12: one column of three is common.
    assert scores_of(moved, true, boundary_width=2)["boundary_iou"] == pytest.approx(1 / 3)
    assert scores_of(moved, true, boundary_width=1)["boundary_iou"] == 0
    assert scores_of(true, true, boundary_width=2)["boundary_iou"] == 1
    # A band as wide as the regions is the regions: the plain IoU.
    wide = scores_of(moved, true, boundary_width=30)
    assert wide["boundary_iou"] == pytest.approx(wide["miou"])


def test_boundary_iou_sees_a_shift_that_a_large_region_hides():
    true = np.zeros((60, 60), dtype=int)
    true[10:50, 10:50] = 1
    moved = np.roll(true, 3, axis=1)
    scores = scores_of(moved, true, boundary_width=3)
    assert scores["iou"]["forest"] == pytest.approx(37 / 43)
    assert scores["boundary_iou"] < 0.5


def test_boundary_f1_within_and_beyond_the_tolerance():
    true = np.zeros((20, 30), dtype=int)
    true[:, 12:] = 1
    moved = np.roll(true, 3, axis=1)
    moved[:, :3] = 0
    assert scores_of(moved, true, boundary_tolerance=3)["boundary_f1"] == 1.0
    assert scores_of(moved, true, boundary_tolerance=2)["boundary_f1"] == 0.0


def test_scores_left_out_and_maps_without_boundaries_are_not_defined():
    true = np.zeros((7, 9), dtype=int)
    true[:, 4:] = 1
    assert math.isnan(scores_of(true, true, boundary_tolerance=None)["boundary_f1"])
    assert math.isnan(scores_of(true, true, boundary_width=None)["boundary_iou"])
    flat = scores_of(true * 0, true * 0)
    assert math.isnan(flat["boundary_f1"])
    assert math.isnan(flat["boundary_iou"])
    # The edge of the image and of what is known bounds nothing.
    true[true == 1] = IGNORE
    assert math.isnan(scores_of(true * 0, true)["boundary_f1"])


def test_which_classes_count_follows_the_same_rule_as_elsewhere():
    true, predicted = np.zeros((8, 8), dtype=int), np.zeros((8, 8), dtype=int)
    true[:, 4:] = 1
    predicted[:, 4:] = 2
    # water is perfect, forest is missed, road is invented, roof is nowhere.
    for rule, expected in (("truth", 1 / 2), ("union", 1 / 3), ("all", 1 / 4)):
        scores = scores_of(predicted, true, mean_over=rule, boundary_width=2)
        assert scores["boundary_f1"] == pytest.approx(expected)
        assert scores["boundary_iou"] == pytest.approx(expected)
