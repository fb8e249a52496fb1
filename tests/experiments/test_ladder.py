from __future__ import annotations

import numpy as np
import pytest
import torch

from rsovlib.data.classes import parse_classes
from rsovlib.errors import InputError
from rsovlib.experiments.quickstart import SIMULATED_CLASSES, labelled_scenes
from rsovlib.experiments.results import ResultRow, make_row
from rsovlib.experiments.sdci import ladder_why as why
from rsovlib.experiments.sdci.ladder import (
    DINO_BRANCH,
    LATE_FUSION,
    PLAIN,
    RUNGS,
    VALUE_PATH,
    ladder_labels,
    ladder_labels_by_wording,
    ladder_table,
    plot_ladder,
)
from rsovlib.segmenters import SDCI, SDCIConfig, ValuePath, make_segmenter
from rsovlib.segmenters.images import enlarge

CLASSES = list(SIMULATED_CLASSES)


@pytest.fixture(scope="module")
def sdci() -> SDCI:
    segmenter = make_segmenter("sdci", device="cpu")
    assert isinstance(segmenter, SDCI)
    return segmenter


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray]:
    return labelled_scenes(1, 96, 2_000_031)[0]


def test_every_rung_is_what_its_own_segmenter_gives(sdci: SDCI, scene: tuple[np.ndarray, np.ndarray]) -> None:
    image, _ = scene
    rungs = ladder_labels(sdci, image, CLASSES)
    assert list(rungs) == [VALUE_PATH, *RUNGS]
    np.testing.assert_array_equal(rungs["+ CSCP"], sdci(image, CLASSES).labels)
    alone = SDCI(sdci.clip, sdci.dino, SDCIConfig.embedded(**RUNGS["+ CAF"]))
    np.testing.assert_array_equal(rungs["+ CAF"], alone(image, CLASSES).labels)
    value_path = ValuePath(sdci.clip, clip_size=None)
    np.testing.assert_array_equal(rungs[VALUE_PATH], value_path(image, CLASSES).labels)


def test_images_larger_than_the_window_are_blended(sdci: SDCI) -> None:
    (image, _) = labelled_scenes(1, 96, 2_000_031)[0]
    small = SDCI(sdci.clip, sdci.dino, SDCIConfig.embedded(window=64, overlap=16))
    rungs = ladder_labels(small, image, CLASSES)
    np.testing.assert_array_equal(rungs["+ CSCP"], small(image, CLASSES).labels)


def test_the_table_is_in_percent_and_its_gains_are_differences(
    sdci: SDCI, scene: tuple[np.ndarray, np.ndarray]
) -> None:
    table = ladder_table(sdci, [scene], CLASSES, progress=False)
    assert table["mIoU"].between(0, 100).all()
    assert table["mIoU"].max() > 1  # a fraction would not be
    np.testing.assert_allclose(table["gain"].iloc[1:], np.diff(table["mIoU"]))
    predicted = ladder_labels(sdci, scene[0], CLASSES)["+ CSCP"]
    scored = scene[1] != 255
    right = 100 * (predicted[scored] == scene[1][scored]).mean()
    assert table.loc["+ CSCP", "pixel accuracy"] == pytest.approx(right)
    figure = plot_ladder(table, "a title")
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == list(table.index)


def test_late_fusion_and_the_plain_decision(sdci: SDCI, scene: tuple[np.ndarray, np.ndarray]) -> None:
    image, _ = scene
    words = {"ori": CLASSES}
    rungs = ladder_labels_by_wording(sdci, image, words, late_fusion=True, plain=True)["ori"]
    assert list(rungs) == [VALUE_PATH, *RUNGS, LATE_FUSION, *PLAIN.values()]
    for name, labels in ladder_labels(sdci, image, CLASSES).items():
        np.testing.assert_array_equal(labels, rungs[name])
    # Slowly: both branches on their own, without CAF, BCDR and CSCP, each divided by its sum, and their mean.
    alone = SDCI(sdci.clip, sdci.dino, SDCIConfig.embedded(**RUNGS["baseline"]))
    with torch.inference_mode():
        prompts = parse_classes(CLASSES)
        text = alone.encode_text(prompts)
        features = alone.encode_image(image)
        stages = alone.refine(features, *alone.score(features, text, len(prompts)))
        branches = [alone.solve(image, stages[f"{one}_map"], stages[f"{one}_map"])[0] for one in ("clip", "dino")]
        np.testing.assert_array_equal(rungs[LATE_FUSION], torch.stack(branches).mean(dim=0).argmax(dim=0).numpy())
        plain = enlarge(stages["clip_diffused"], image.shape[:2]).argmax(dim=0).numpy()
    np.testing.assert_array_equal(rungs[PLAIN["baseline"]], plain)
    assert (rungs[PLAIN["baseline"]] != rungs["baseline"]).any(), "two rules that agree everywhere would prove nothing"
    with pytest.raises(InputError, match="same classes"):
        ladder_labels_by_wording(sdci, image, {"a": CLASSES, "b": CLASSES[1:]})


def test_dinos_branch_is_what_decides_when_it_stands_alone(sdci: SDCI, scene: tuple[np.ndarray, np.ndarray]) -> None:
    image, _ = scene
    rungs = ladder_labels_by_wording(sdci, image, {"ori": CLASSES}, dino_branch=True)["ori"]
    assert list(rungs) == [VALUE_PATH, *RUNGS, DINO_BRANCH]
    alone = SDCI(sdci.clip, sdci.dino, SDCIConfig.embedded(**RUNGS["+ BCDR"]))
    with torch.inference_mode():
        prompts = parse_classes(CLASSES)
        stages = alone.refine(
            alone.encode_image(image), *alone.score(alone.encode_image(image), alone.encode_text(prompts), len(prompts))
        )
        expected = alone.solve(image, stages["dino_map"], stages["dino_map"])[0].argmax(dim=0).numpy()
    np.testing.assert_array_equal(rungs[DINO_BRANCH], expected)
    assert (expected != rungs["+ BCDR"]).any()


# ---- why a rung adds something or doesn't ------------------------------------------------------------------------


def test_moves_are_counted_where_the_truth_is_known() -> None:
    truth = np.array([[0, 0, 1, 255], [1, 1, 2, 2]])
    before = np.array([[0, 1, 1, 0], [0, 1, 2, 0]])
    after = np.array([[0, 0, 0, 1], [2, 1, 2, 0]])  # one becomes right, one wrong, one stays wrong; one isn't scored
    counter = why.MoveCounter()
    rungs = {"baseline": before, "+ CAF": after, "+ BCDR": after, "+ CSCP": truth}
    counter.update("ori", rungs, truth)
    counter.update("ori", rungs, np.full_like(truth, 255))
    moves = counter.moves()
    assert moves["ori", "+ CAF"] == why.Moves(*(100 * count / 7 for count in (3, 1, 1)))
    assert moves["ori", "+ BCDR"] == why.Moves(0.0, 0.0, 0.0)
    assert moves["ori", "+ CSCP"].wrong == 0
    frame = why.moves_frame(counter, {"+ CAF": "baseline + CAF", "+ BCDR": "+ BCDR", "+ CSCP": "+ CSCP"})
    assert list(frame.index) == [("baseline + CAF", "Ori"), ("+ BCDR", "Ori"), ("+ CSCP", "Ori")]


@pytest.mark.parametrize(
    ("moves", "says"),
    [
        ((1.9, 1.9, 0.0), "too few"),
        ((10.0, 4.0, 3.9), "about as many"),
        ((10.0, 4.0, 2.0), "right than wrong"),
        ((10.0, 2.0, 4.0), "wrong than right"),
    ],
)
def test_what_moves_say(moves: tuple[float, float, float], says: str) -> None:
    assert says in why.Moves(*moves).says


def test_arrows_within_a_class_are_weighed() -> None:
    classes = np.array([0, 0, 1, 255])
    start, end = np.array([0, 0, 1, 2, 3]), np.array([1, 2, 0, 0, 0])
    weight = np.array([0.75, 0.25, 1.0, 1.0, 1.0])
    total, inside, chance = why.within_class(start, end, weight, classes)
    assert (total, inside) == (3.0, 1.75)  # the arrow from the unknown patch doesn't count
    assert chance == pytest.approx(3 * ((2 / 3) ** 2 + (1 / 3) ** 2))
    np.testing.assert_array_equal(why.patch_classes(np.array([[0, 0, 1, 1], [0, 9, 1, 8]]), (1, 2)), [9, 8])


def test_reasons_over_seeds_stand_beside_the_step() -> None:
    def row(metric: str, value: float, seed: int) -> ResultRow:
        content = {"paper": "sdci", "table": "t", "row": "+ BCDR", "column": "ori", "metric": metric, "value": value}
        return make_row(content | {"profile": "embedded", "dataset": "x", "seed": seed})

    rows = [row(why.MOVED, 10.0 + seed, seed) for seed in (0, 2)]
    rows += [row(why.RIGHT, 5.0, seed) for seed in (0, 2)] + [row(why.WRONG, 1.0, seed) for seed in (0, 2)]
    rows += [row("step", 1.0 + seed, seed) for seed in (0, 2)]
    frame = why.why_frame(rows, "t", ["baseline + CAF", "+ BCDR"])
    assert list(frame.index) == [("+ BCDR", "Ori")]
    assert frame.iloc[0]["labels that move (%)"] == 11
    assert frame.iloc[0]["step (points)"].startswith("+2.0 [")
    assert frame.iloc[0]["what that says"] == "more labels become right than wrong"
    assert why.why_frame(rows, "another", ["+ BCDR"]).empty
