"""The prompt study: moves against a slow count, wordings that differ in one class, changes and pictures."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rsovlib.experiments.labelled import LabelledTiles
from rsovlib.experiments.sdci import prompt_study
from rsovlib.experiments.sdci.prompt_study import (
    changes_by_class,
    count_moves,
    draw_example,
    draw_moves,
    exchanges_frame,
    most_moved_tile,
    moved_share,
    one_word_wordings,
    printed_miou,
    record_wordings,
    wording_scores,
    wordings_frame,
    words_frame,
)


class Toy:
    """The word "class n" finds the pixels of value n, other words find nothing; what nobody finds is class 0."""

    def __call__(self, image: np.ndarray, classes: list[str]) -> Any:
        labels = np.zeros(image.shape[:2], np.int64)
        for place, words in enumerate(classes):
            for word in words.split(", "):
                if word.startswith("class "):
                    labels[image[..., 0] == int(word.removeprefix("class "))] = place
        return SimpleNamespace(labels=labels)

    def settings(self) -> dict[str, Any]:
        return {"method": "toy"}


WORDS = {
    "original": ["class 0", "class 1", "nothing"],
    "generalized": ["class 0", "void", "class 2"],
    "candidates": ["class 0", "class 1", "class 2, nothing"],
}


@pytest.fixture
def tiles() -> LabelledTiles:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 3, (4, 6, 7, 1)).astype(np.uint8).repeat(3, axis=3)
    truths = images[..., 0].copy()
    truths[:, 0] = 255
    return LabelledTiles(
        "sdci-gid", "1", ["a", "b", "c"], 4, WORDS.__getitem__, lambda i: (f"tile {i}", images[i], truths[i])
    )


def test_moves_are_those_of_a_slow_count() -> None:
    rng = np.random.default_rng(2)
    before, after, truth = rng.integers(0, 3, (3, 9, 8))
    truth[:2] = 255
    slow = np.zeros((3, 3, 3), int)
    for first, last, true in zip(before.ravel(), after.ravel(), truth.ravel(), strict=True):
        if true != 255 and first != last:
            slow[first, last, 0 if last == true else 1 if first == true else 2] += 1
    found = count_moves(before, after, truth, 3)
    np.testing.assert_array_equal(found, slow)
    assert found.sum() == ((before != after) & (truth != 255)).sum() > 0


def test_one_class_changes_its_words_at_a_time() -> None:
    found = one_word_wordings(["a", "b", "c"], ["a", "x, y", "z"], ["one", "two", "three"])
    assert found == {"two: x, y": ["a", "x, y", "c"], "three: z": ["a", "b", "z"]}


def test_the_study_of_a_method_that_can_be_foreseen(tiles: LabelledTiles, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = wording_scores(Toy(), tiles, progress=False)
    assert list(scores.prompts) == ["Ori", "Gen", "Set of Gen", "b: void", "c: class 2"]
    iou = {wording: meter.compute()["iou"] for wording, meter in scores.meters.items()}
    assert iou["Set of Gen"] == {"a": 1.0, "b": 1.0, "c": 1.0}
    assert iou["Ori"]["c"] == iou["Gen"]["b"] == 0.0
    counts = scores.meters["Ori"].confusion.sum(axis=1)
    # Under Gen pixels of b fall back to a and become wrong, those of c leave a and become right.
    expected = np.zeros((3, 3, 3), int)
    expected[1, 0, 1], expected[0, 2, 0] = counts[1], counts[2]
    np.testing.assert_array_equal(scores.moves["Gen"], expected)
    assert moved_share(scores, "Gen") == pytest.approx((counts[1] + counts[2]) / counts.sum())
    assert scores.moves["Ori"].sum() == 0

    changes = changes_by_class(scores)
    assert changes["Gen"]["b"][0] == pytest.approx(-100)
    assert changes["Gen"]["c"][0] == pytest.approx(100)
    frame = exchanges_frame(scores)
    assert frame.loc["b: void", "its own IoU"].startswith("-100.0")
    assert frame.loc["c: class 2", "most changed other class"].startswith("a +")
    assert wordings_frame([scores]).loc["GID", ("Set of Gen", "here")].startswith("100.0 [100.0, 100.0]")
    printed = {wording: printed_miou("GID", wording) for wording in ("Ori", "Gen", "Set of Gen")}
    assert printed == {"Ori": 59.59, "Gen": 66.40, "Set of Gen": 64.10}
    assert printed_miou("Potsdam", "Set of Gen") is None
    assert words_frame([scores]).loc[("GID", "c"), "Set of Gen"] == "class 2, nothing"

    recorded = []
    monkeypatch.setattr(prompt_study, "record", lambda *given, **named: recorded.append((given, named)))
    record_wordings(scores, Toy(), "a note")
    values = {given[:3]: given[3] for given, _ in recorded}
    assert values["GID", "Set of Gen", "miou"] == pytest.approx(100)
    assert values["GID, b", "Gen", "change"] == pytest.approx(-100)
    single = values["GID, only c: class 2", "Gen", "change"]
    assert values["GID", "Gen", "change"] == pytest.approx(
        values["GID, only b: void", "Gen", "change"] + single, abs=40
    )
    assert all(named["note"] == "a note" for _, named in recorded)


def test_a_class_without_ground_truth_has_no_change(tiles: LabelledTiles, monkeypatch: pytest.MonkeyPatch) -> None:
    without = LabelledTiles(
        tiles.dataset,
        "1",
        tiles.classes,
        4,
        tiles.prompts,
        lambda i: (tiles[i][0], tiles[i][1], np.where(tiles[i][2] == 1, 255, tiles[i][2]).astype(np.uint8)),
    )
    scores = wording_scores(Toy(), without, single=False, progress=False)
    assert "b" not in changes_by_class(scores)["Gen"]
    recorded = []
    monkeypatch.setattr(prompt_study, "record", lambda *given, **named: recorded.append((given, named)))
    record_wordings(scores, Toy())
    (row,) = [(given, named) for given, named in recorded if given[:2] == ("GID, b", "Gen")]
    assert row[0][3] is None
    assert "no ground truth" in row[1]["note"]


def test_pictures(tiles: LabelledTiles) -> None:
    scores = wording_scores(Toy(), tiles, progress=False)
    figure = draw_moves(scores)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert [title.split(":")[0] for title in titles] == ["became right", "became wrong", "wrong before and after"]
    assert figure.axes[0].get_ylabel() == "class under Ori"
    index = most_moved_tile(Toy(), scores)
    assert 0 <= index < 4
    example = draw_example(Toy(), scores, index)
    assert [axes.get_title() for axes in example.axes][:5] == ["image", "truth", "Ori", "Gen", "Set of Gen"]
