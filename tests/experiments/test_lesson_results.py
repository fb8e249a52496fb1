"""Lesson 08: floors by their formulas, and that every question gets its right answer."""

from __future__ import annotations

import numpy as np
import pytest

from rsovlib.errors import InputError
from rsovlib.experiments.lessons import results as lesson

CLASSES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def labels():
    """Eight tiles of stripes, 40 x 31; the third class is missing in six of them, a corner is unlabelled."""
    rng = np.random.default_rng(0)
    tiles = []
    for index in range(8):
        truth = np.repeat(rng.choice(3 if index < 2 else 2, size=8, p=[0.4, 0.3, 0.3] if index < 2 else [0.6, 0.4]), 5)
        tile = np.broadcast_to(truth[:, None], (40, 31)).astype(np.uint8).copy()
        tile[:3, :4] = 255
        tiles.append((f"tile {index}", tile))
    return tiles


def test_floors_by_their_formulas(labels):
    share = lesson.shares(labels, 3)
    assert share.sum() == pytest.approx(1)
    table = lesson.floors(labels, CLASSES)
    one, drawn, by_share, _ = table.index
    assert table.loc[one, "pixel accuracy"] == pytest.approx(100 * share.max())
    assert table.loc[one, "mIoU"] == pytest.approx(100 * share.max() / 3)
    assert table.loc[drawn, "mIoU"] == pytest.approx(lesson.drawn_miou(share), abs=1)
    assert table.loc[by_share, "pixel accuracy"] == pytest.approx(100 * (share**2).sum(), abs=1.5)
    assert lesson.floor_outcome(table).state == "told"
    with pytest.raises(InputError, match="label"):
        lesson.shares([("empty", np.full((2, 2), 255))], 3)


@pytest.mark.parametrize("classes", [2, 5, 15])
def test_equal_shares_are_the_best_for_a_drawn_map(classes: int):
    most = lesson.most_drawn_miou(classes)
    assert lesson.drawn_miou(np.full(classes, 1 / classes)) == pytest.approx(most)
    shares = np.random.default_rng(classes).dirichlet(np.ones(classes), 100)
    assert max(map(lesson.drawn_miou, shares)) <= most + 1e-9


def test_background_decides(labels):
    mostly = [(name, np.where(np.arange(31) < 28, 255, truth)) for name, truth in labels]
    table = lesson.with_and_without_background(mostly, CLASSES)
    paints, knows = table.loc["never answers background"], table.loc["knows the background"]
    assert abs(paints["foreground alone"] - knows["foreground alone"]) < 5
    assert paints["with background"] < 15 < 60 < knows["with background"]
    assert lesson.background_outcome(table, "c").right
    # A class that doesn't occur is neither drawn nor scored.
    more = lesson.with_and_without_background(mostly, [*CLASSES, "d"])
    np.testing.assert_allclose(more.to_numpy(), table.to_numpy())


def test_an_empty_map_scores_where_there_is_nothing(labels):
    scores = lesson.empty_map(labels, 2)
    assert scores[2:].all()
    assert scores.mean() == np.mean([not (truth == 2).any() for _, truth in labels])
    assert lesson.empty_outcome(scores, "a").state == "wrong"
    assert lesson.empty_outcome(np.zeros(3), "a").right


def test_nothing_spreads_more_than_all_or_nothing():
    table = lesson.all_or_nothing()
    assert (table["deviation as a share of it"] < 1.001).all()
    assert table["deviation as a share of it"].idxmax() == "dsm only"


def test_a_pair_knows_more_than_two_intervals(labels):
    two = lesson.two_methods(labels, CLASSES)
    paired = two.paired.difference
    assert paired.value == pytest.approx(two.second.value - two.first.value)
    assert paired.high - paired.low < (two.first.high - two.first.low) / 3
    assert lesson.paired_outcome(two, "b").right
    assert list(two.frame().columns) == ["mIoU", "low", "high"]


def test_ranks_without_a_column():
    table = lesson.ranks()
    assert lesson.ranks_outcome(table, "c").right
    assert sorted(table["rank"]) == sorted(table["rank without iSAID"]) == list(range(1, 12))


def test_exercises():
    assert lesson.average_exercise().check(41.40).right
    assert not lesson.average_exercise().check(40.41).right
    assert lesson.floor_exercise().check(4).right
    assert "Too large" in lesson.floor_exercise().check(20).text
    assert len(lesson.question_list()) == 6
