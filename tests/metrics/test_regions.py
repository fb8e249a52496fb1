"""Scores of partitions against counting by hand and against slow loops."""

from __future__ import annotations

import numpy as np
import pytest

from rsovlib.errors import InputError
from rsovlib.metrics.regions import majority, region_scores

RNG = np.random.default_rng(3)


def slow_scores(regions: np.ndarray, labels: np.ndarray, tolerance: float) -> tuple[float, float, float]:
    height, width = labels.shape
    steps = ((0, 1), (1, 0), (0, -1), (-1, 0))

    def border(values: np.ndarray, row: int, column: int, counted: np.ndarray) -> bool:
        for down, right in steps:
            r, c = row + down, column + right
            inside = 0 <= r < height and 0 <= c < width
            if inside and counted[r, c] and counted[row, column] and values[r, c] != values[row, column]:
                return True
        return False

    everywhere = np.ones(labels.shape, bool)
    scored = labels != 255
    places = [(r, c) for r in range(height) for c in range(width)]
    borders = [p for p in places if border(regions, *p, everywhere)]
    true = [p for p in places if border(labels, *p, scored)]
    near = [any((r - a) ** 2 + (c - b) ** 2 <= tolerance**2 for a, b in borders) for r, c in true]
    best = 0
    for region in np.unique(regions):
        own = labels[(regions == region) & scored]
        best += max((int((own == k).sum()) for k in np.unique(own)), default=0)
    return float(np.mean(near)), sum(scored[p] for p in borders) / scored.sum(), best / scored.sum()


@pytest.mark.parametrize("tolerance", [0.0, 1.5, 2.0])
def test_scores_equal_slow_loops(tolerance: float):
    regions = np.kron(RNG.integers(0, 6, (4, 5)), np.ones((4, 3), int))
    labels = np.kron(RNG.integers(0, 3, (3, 3)), np.ones((6, 6), int))[:16, :15]
    labels[2:5, 7:9] = 255
    found = region_scores(regions, labels, tolerance=tolerance)
    expected = slow_scores(regions, labels, tolerance)
    np.testing.assert_allclose((found.boundary_recall, found.boundary_pixels, found.achievable), expected)
    assert found.regions == len(np.unique(regions))


def test_the_truth_itself_is_perfect_and_one_region_finds_nothing():
    labels = np.kron(RNG.integers(0, 3, (3, 4)), np.ones((5, 5), int))
    perfect = region_scores(labels, labels, tolerance=0)
    assert (perfect.boundary_recall, perfect.achievable) == (1.0, 1.0)
    nothing = region_scores(np.zeros_like(labels), labels)
    assert (nothing.boundary_recall, nothing.boundary_pixels, nothing.regions) == (0.0, 0.0, 1)
    assert nothing.achievable == np.bincount(labels.ravel()).max() / labels.size


def test_where_nothing_is_known_nothing_is_said():
    found = region_scores(np.arange(12).reshape(3, 4), np.full((3, 4), 255))
    assert np.isnan([found.boundary_recall, found.boundary_pixels, found.achievable]).all()
    with pytest.raises(InputError, match="alike"):
        region_scores(np.zeros((3, 4), int), np.zeros((4, 3), int))


def test_a_vote_in_every_region():
    regions = np.array([[7, 7, 7, 2], [7, 2, 2, 9]])
    labels = np.array([[1, 1, 255, 4], [3, 4, 0, 255]])
    assert majority(regions, labels).tolist() == [[1, 1, 1, 4], [1, 4, 4, 255]]
    assert (majority(regions, np.full((2, 4), 255)) == 255).all()
    tie = majority(np.zeros((1, 2), int), np.array([[5, 2]]))
    assert (tie == 2).all(), "the smaller of two equally frequent labels"
    with pytest.raises(InputError):
        majority(regions, labels.T)
