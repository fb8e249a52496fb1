"""What runs again when something changes is asserted by counting the steps that ran."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest

from rsovlib.data.scenes import make_scene
from rsovlib.segmenters.sdci import SDCI, SDCIConfig
from rsovlib.widgets.pipeline import READS, Live, answers_of, staged_answers
from rsovlib.widgets.stages import StageCache
from rsovlib.widgets.worker import Superseded, Ticket

CLASSES = ["building, rooftop", "water, river, lake", "forest, trees"]
WINDOWS = 2  # 64 x 96 pixels in windows of 64


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return make_scene((64, 96), 3, modalities=()).optical


def run(segmenter: SDCI, picture: np.ndarray, cache: StageCache, classes: list[str] = CLASSES):
    """The last answer, and which steps ran for it."""
    before = Counter(cache.runs)
    *_, last = staged_answers(segmenter, picture, classes, cache)
    return last, set((cache.runs - before).keys()), cache.runs - before


def changed(segmenter: SDCI, **settings) -> SDCI:
    return replace(segmenter, config=replace(segmenter.config, **settings))


def test_every_setting_is_read_by_one_step() -> None:
    named = [name for names in READS.values() for name in names]
    assert set(named) <= {entry.name for entry in fields(SDCIConfig)}
    assert {name for name in named if named.count(name) > 1} == {"diffusion_graph"}


def test_the_answer_is_the_segmenters(sdci: SDCI, picture: np.ndarray, cache: StageCache) -> None:
    answer, _, _ = run(sdci, picture, cache)
    expected = sdci(picture, CLASSES)
    assert answer.settled
    assert answer.segmentation.classes == expected.classes
    # Two solves may end at different points within the certified gap.
    np.testing.assert_allclose(answer.segmentation.probabilities, expected.probabilities, atol=0.02)
    assert (answer.segmentation.labels == expected.labels).mean() > 0.995
    np.testing.assert_allclose(answer.segmentation.probabilities.sum(axis=0), 1, atol=1e-4)


def test_nothing_changed_nothing_runs(sdci: SDCI, picture: np.ndarray, cache: StageCache) -> None:
    run(sdci, picture, cache)
    assert run(sdci, picture, cache)[1] == set()


CONVEX = {"fused", "fused, rough", "blended"}
AFTER_DIFFUSION = {"diffused", "probabilities", *CONVEX}


@pytest.mark.parametrize(
    ("setting", "value", "may_run"),
    [
        ("beta", 0.3, CONVEX),
        ("lambda_clip", 0.7, CONVEX),
        ("lambda_dino", 0.7, CONVEX),
        ("w_in", 0.5, CONVEX),
        ("w_cross", 0.5, CONVEX),
        ("superpixel_scale", 90.0, {"superpixels", *CONVEX}),
        ("superpixel_sigma", 1.5, {"superpixels", *CONVEX}),
        ("superpixel_min_size", 60, {"superpixels", *CONVEX}),
        ("alpha", 0.5, AFTER_DIFFUSION),
        ("steps", 5, AFTER_DIFFUSION),
        ("neighbours", 7, {"graph", *AFTER_DIFFUSION}),
        ("tau", 0.5, {"graph", *AFTER_DIFFUSION}),
        ("lambda_1", 0.0, {"scores", *AFTER_DIFFUSION}),
        ("score_threshold", 0.9, {"scores", *AFTER_DIFFUSION}),
        ("presence_threshold", 0.1, {"probabilities", *CONVEX}),
    ],
)
def test_a_setting_runs_only_what_follows_it(
    sdci: SDCI, picture: np.ndarray, cache: StageCache, setting: str, value: float, may_run: set[str]
) -> None:
    run(sdci, picture, cache)
    other = changed(sdci, **{setting: value})
    answer, ran, counts = run(other, picture, cache)
    assert ran <= may_run
    assert {"fused", "blended"} <= ran
    assert counts["fused"] == WINDOWS
    expected = other(picture, CLASSES)
    assert (answer.segmentation.labels == expected.labels).mean() > 0.99
    # And back again: all of it is remembered.
    assert run(sdci, picture, cache)[1] == set()


def test_a_word_runs_the_text_and_what_follows_but_no_network(
    sdci: SDCI, picture: np.ndarray, cache: StageCache
) -> None:
    run(sdci, picture, cache)
    _, ran, counts = run(sdci, picture, cache, [*CLASSES[:2], "meadow"])
    assert not ran & {"features", "neighbours", "graph", "superpixels"}
    assert counts["text"] == 1
    assert counts["scores"] == WINDOWS


def test_a_window_that_stays_the_same_is_not_looked_at_again(
    sdci: SDCI, picture: np.ndarray, cache: StageCache
) -> None:
    run(sdci, picture, cache)
    touched = picture.copy()
    touched[:10, :10] = 255  # only in the left window
    _, _, counts = run(sdci, touched, cache)
    assert counts["features"] == 1 + 1  # the window and the preview of the whole


def test_the_first_look_at_an_image_is_a_preview_and_later_ones_are_not(
    sdci: SDCI, picture: np.ndarray, cache: StageCache
) -> None:
    first = list(staged_answers(sdci, picture, CLASSES, cache))
    assert "preview" in first[0].note
    assert not first[0].settled
    assert first[0].segmentation.labels.shape == picture.shape[:2]
    assert first[-1].settled
    later = list(staged_answers(changed(sdci, beta=0.5), picture, CLASSES, cache))
    assert all("preview" not in answer.note for answer in later)
    assert later[-1].settled


def test_more_neighbours_than_are_held_are_searched_for(sdci: SDCI, picture: np.ndarray, cache: StageCache) -> None:
    run(changed(sdci, neighbours=60), picture, cache)
    assert "neighbours" not in run(changed(sdci, neighbours=3), picture, cache)[1]
    assert "neighbours" in run(changed(sdci, neighbours=80), picture, cache)[1]


def test_without_the_convex_step_clip_decides(sdci: SDCI, picture: np.ndarray, cache: StageCache) -> None:
    plain = changed(sdci, cscp=False)
    answer, ran, _ = run(plain, picture, cache)
    assert "fused, rough" not in ran
    np.testing.assert_allclose(answer.segmentation.probabilities, plain(picture, CLASSES).probabilities, atol=1e-5)


def test_a_warm_start_needs_fewer_iterations(sdci: SDCI, picture: np.ndarray) -> None:
    tight = changed(sdci, tolerance=1e-5)

    def iterations(start_from: float | None) -> int:
        cache = StageCache(2**28)
        if start_from is not None:
            run(changed(tight, beta=start_from), picture, cache)
        *_, last = staged_answers(tight, picture, CLASSES, cache)
        assert last.steps is not None
        return sum(last.steps.fused(tile).value.iterations for tile in last.steps.grid)

    assert iterations(0.11) < iterations(None)


def test_what_nobody_wants_any_more_ends_at_once(sdci: SDCI, picture: np.ndarray, cache: StageCache) -> None:
    ticket = Ticket()
    ticket.stop()
    with pytest.raises(Superseded):
        list(staged_answers(sdci, picture, CLASSES, cache, Live(ticket)))
    assert not cache.runs


def test_a_solve_is_stopped_between_its_iterations(sdci: SDCI, picture: np.ndarray, cache: StageCache) -> None:
    run(sdci, picture, cache)
    ticket = Ticket()
    answers = staged_answers(changed(sdci, beta=0.9, tolerance=1e-9), picture, CLASSES, cache, Live(ticket))
    next(answers)  # the rough one
    ticket.stop()
    before = cache.runs["fused"]
    with pytest.raises(Superseded):
        next(answers)
    assert cache.runs["fused"] == before


def test_it_says_what_it_does(sdci: SDCI, picture: np.ndarray, cache: StageCache) -> None:
    said: list[str] = []
    list(staged_answers(sdci, picture, CLASSES, cache, Live(say=said.append)))
    assert any("networks look at the image, window 2 of 2" in entry for entry in said)
    assert any("convex" in entry for entry in said)


def test_other_methods_are_remembered_as_a_whole(stand_ins, picture: np.ndarray, cache: StageCache) -> None:
    method = stand_ins["stand-in"]
    for _ in range(2):
        (answer,) = answers_of(method, "stand-in", picture, CLASSES, cache)
    assert method.calls == 1
    assert answer.settled
    assert answer.steps is None


def test_radar_reaches_only_methods_that_use_it(stand_ins, picture: np.ndarray, cache: StageCache) -> None:
    radar = np.full((*picture.shape[:2], 1), 255, np.uint8)
    for name, method in stand_ins.items():
        (with_radar,) = answers_of(method, name, picture, CLASSES, cache, sar=radar, sar_valid=None)
        (without,) = answers_of(method, name, picture, CLASSES, cache, sar=None, sar_valid=None)
        same = (with_radar.segmentation.labels == without.segmentation.labels).all()
        assert same != method.uses_sar
