"""The pooled scores against hand-computed cases, scikit-learn's and torchmetrics' numbers, and cut in pieces."""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassJaccardIndex,
    MulticlassPrecision,
)

from rsovlib.errors import InputError
from rsovlib.metrics import SegmentationMetrics, confusion_matrix

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


# ---- equal to what others compute ------------------------------------------------------------------------------------


def with_an_absent_class(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Maps in which "roof" is predicted but never true, and "road" is true but never predicted."""
    predicted, true = some_maps(seed)
    return np.where(predicted == 2, 3, predicted), np.where(true == 3, 0, true)


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_scikit_learn(seed: int):
    predicted, true = with_an_absent_class(seed)
    p, t = predicted[true != IGNORE], true[true != IGNORE]
    metrics = SegmentationMetrics(CLASSES, mean_over="all")
    metrics.update(predicted, true)
    scores = metrics.compute()
    np.testing.assert_array_equal(metrics.confusion[:, :4], sklearn_metrics.confusion_matrix(t, p, labels=range(4)))
    options = {"labels": range(4), "zero_division": 0}
    for name, theirs in (
        ("iou", sklearn_metrics.jaccard_score),
        ("f1", sklearn_metrics.f1_score),
        ("accuracy", sklearn_metrics.recall_score),
        ("precision", sklearn_metrics.precision_score),
    ):
        np.testing.assert_allclose(list(scores[name].values()), theirs(t, p, average=None, **options), rtol=1e-12)
        mean = scores["miou" if name == "iou" else f"mean_{name}"]
        assert mean == pytest.approx(theirs(t, p, average="macro", **options), rel=1e-12)
    assert scores["pixel_accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(t, p))
    # Only the classes with ground truth: what scikit-learn calls the balanced accuracy.
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        balanced = sklearn_metrics.balanced_accuracy_score(t, p)
    assert scores_of(predicted, true)["mean_accuracy"] == pytest.approx(balanced)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_union_rule_is_torchmetrics_own(seed: int):
    predicted, true = with_an_absent_class(seed)
    scores = scores_of(predicted, true, mean_over="union")
    options = {"num_classes": len(CLASSES), "ignore_index": IGNORE, "average": "macro"}
    p, t = torch.from_numpy(predicted), torch.from_numpy(true)
    for name, theirs in (
        ("miou", MulticlassJaccardIndex),
        ("mean_accuracy", MulticlassAccuracy),
        ("mean_precision", MulticlassPrecision),
        ("mean_f1", MulticlassF1Score),
    ):
        assert scores[name] == pytest.approx(float(theirs(**options)(p, t)), abs=1e-6), name
    matrix = MulticlassConfusionMatrix(len(CLASSES), ignore_index=IGNORE)(p, t).numpy()
    np.testing.assert_array_equal(confusion_matrix(p, t, len(CLASSES))[:, :-1], matrix)


def test_which_classes_a_mean_runs_over_by_hand():
    # water: TP 2, FP 1. forest: true, never predicted. road: predicted once, never true. roof: neither.
    true, predicted = np.array([[0, 0, 1, 1]]), np.array([[0, 0, 0, 2]])
    expected = {"truth": (2 / 3 + 0) / 2, "union": (2 / 3 + 0 + 0) / 3, "all": (2 / 3 + 0 + 0 + 0) / 4}
    for rule, value in expected.items():
        scores = scores_of(predicted, true, mean_over=rule)
        assert scores["miou"] == pytest.approx(value)
        counted = {"truth": 2, "union": 3, "all": 4}[rule]
        assert [math.isnan(v) for v in scores["iou"].values()] == [False] * counted + [True] * (4 - counted)


def test_scores_of_each_class_by_hand():
    true, predicted = np.array([[0, 0, 0, 1]]), np.array([[0, 0, 1, 1]])
    scores = scores_of(predicted, true)
    assert [scores[name]["water"] for name in ("accuracy", "precision", "f1", "iou")] == [2 / 3, 1, 4 / 5, 2 / 3]
    assert [scores[name]["forest"] for name in ("accuracy", "precision", "f1", "iou")] == [1, 1 / 2, 2 / 3, 1 / 2]
    assert scores["mean_precision"] == 3 / 4


# ---- seen and unseen -------------------------------------------------------------------------------------------------


def test_harmonic_mean_by_hand():
    true, predicted = np.array([[0, 0, 1, 1]]), np.array([[0, 0, 1, IGNORE]])
    scores = scores_of(predicted, true, unseen=["forest"])
    assert (scores["miou_seen"], scores["miou_unseen"]) == (1, 0.5)
    assert scores["miou_harmonic"] == pytest.approx(2 * 1 * 0.5 / 1.5)
    wrong = scores_of(1 - true, true, unseen=["forest"])
    assert wrong["miou_harmonic"] == 0
    assert math.isnan(scores_of(true, true)["miou_harmonic"])  # nothing is unseen


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_miou_is_the_weighted_mean_of_seen_and_unseen(seed: int):
    scores = scores_of(*some_maps(seed), unseen=["road"])
    assert 4 * scores["miou"] == pytest.approx(3 * scores["miou_seen"] + scores["miou_unseen"])
    assert min(scores["miou_seen"], scores["miou_unseen"]) <= scores["miou_harmonic"] + 1e-12
    assert scores["miou_harmonic"] <= (scores["miou_seen"] + scores["miou_unseen"]) / 2 + 1e-12


# ---- strata ----------------------------------------------------------------------------------------------------------


def test_strata_are_scored_alone_and_add_up():
    predicted, true = some_maps(3)
    clouds = np.random.default_rng(4).random(true.shape) < 0.4
    unknown = np.where(np.arange(true.shape[0])[:, None] < 5, IGNORE, clouds)
    metrics = SegmentationMetrics(CLASSES, strata=["clear", "cloudy"])
    metrics.update(predicted, true, strata=unknown)
    scores = metrics.compute()
    for row, name in enumerate(("clear", "cloudy")):
        alone = scores_of(predicted, np.where(unknown == row, true, IGNORE))
        assert scores["strata"][name] == {key: alone[key] for key in scores["strata"][name]}
    plain = scores_of(predicted, true)
    assert {key: value for key, value in scores.items() if key != "strata"} == {
        key: value for key, value in plain.items() if key != "strata"
    }
    # A mask of True and False does for two strata.
    both = SegmentationMetrics(CLASSES, strata=["clear", "cloudy"])
    both.update(torch.from_numpy(predicted), torch.from_numpy(true), strata=torch.from_numpy(clouds))
    parts = both.compute()["strata"]
    assert parts["clear"]["pixels"] + parts["cloudy"]["pixels"] == plain["pixels"]


def test_a_stratum_without_pixels_is_not_defined():
    metrics = SegmentationMetrics(CLASSES, strata=["clear", "cloudy"])
    metrics.update(np.array([[0, 1]]), np.array([[0, 0]]), strata=np.array([[0, 0]]))
    cloudy = metrics.compute()["strata"]["cloudy"]
    assert cloudy["pixels"] == 0
    assert math.isnan(cloudy["miou"])
    assert math.isnan(cloudy["pixel_accuracy"])


# ---- windows, workers, files -----------------------------------------------------------------------------------------


def windows(shape: tuple[int, int], side: int, margin: int):
    """Overlapping windows whose cores cut a scene into squares: (window, core inside it)."""
    for top in range(0, shape[0], side):
        for left in range(0, shape[1], side):
            parts = []
            for start, size in ((top, shape[0]), (left, shape[1])):
                low, high = max(0, start - margin), min(size, start + side + margin)
                parts.append((slice(low, high), slice(start - low, min(start + side, size) - low)))
            yield tuple(p[0] for p in parts), tuple(p[1] for p in parts)


def blocky_maps(seed: int, shape: tuple[int, int] = (41, 33)) -> tuple[np.ndarray, np.ndarray]:
    """Regions, so that there are boundaries, and insides of regions."""
    rng = np.random.default_rng(seed)
    true = np.kron(rng.integers(0, len(CLASSES), (9, 8)), np.ones((5, 5), dtype=int))[: shape[0], : shape[1]]
    predicted = np.where(rng.random(true.shape) < 0.05, IGNORE, np.roll(true, (1, -2), axis=(0, 1)))
    return predicted, np.where(rng.random(true.shape) < 0.03, IGNORE, true)


@given(
    seed=st.integers(0, 2**32 - 1),
    side=st.integers(6, 20),
    tolerance=st.sampled_from([None, 0, 1, 3]),
    width=st.sampled_from([None, 1, 2, 5]),
)
@settings(max_examples=25, deadline=None)
def test_a_scene_in_overlapping_windows_scores_as_in_one_piece(seed, side, tolerance, width):
    predicted, true = blocky_maps(seed)
    clouds = np.random.default_rng(seed).integers(0, 2, true.shape)
    options = {
        "boundary_tolerance": tolerance,
        "boundary_width": width,
        "strata": ["clear", "cloudy"],
        "keep_images": True,
    }
    whole = SegmentationMetrics(CLASSES, **options)
    whole.update(predicted, true, strata=clouds, image="scene")
    cut = SegmentationMetrics(CLASSES, **options)
    for window, core in windows(true.shape, side, cut.window_margin):
        cut.update(predicted[window], true[window], strata=clouds[window], image="scene", core=core)
    assert cut.state_dict() == whole.state_dict()
    assert cut.compute() == whole.compute()


def test_a_margin_of_one_pixel_less_is_too_small():
    true = np.zeros((6, 20), dtype=int)
    true[:, 10:] = 1
    whole, cut = SegmentationMetrics(CLASSES), SegmentationMetrics(CLASSES)
    whole.update(true, true)
    for window, core in windows(true.shape, 4, cut.window_margin - 1):
        cut.update(true[window], true[window], core=core)
    assert (cut.confusion == whole.confusion).all()
    assert cut.state_dict()["boundary"] != whole.state_dict()["boundary"]


def test_the_margin_is_what_the_scores_that_are_wanted_need():
    for tolerance, width, expected in ((None, None, 0), (2, 7, 7), (9, 7, 10), (0, None, 1), (None, 1, 1)):
        metrics = SegmentationMetrics(CLASSES, boundary_tolerance=tolerance, boundary_width=width)
        assert metrics.window_margin == expected


def part_of(seed: int) -> SegmentationMetrics:
    metrics = SegmentationMetrics(CLASSES, keep_images=True)
    for number in range(seed, seed + 3):  # neighbours share images, as workers share a scene's windows
        metrics.update(*some_maps(10 * seed + number, (9, 7)), image=f"tile {number}")
    return metrics


def joined(*parts: SegmentationMetrics) -> SegmentationMetrics:
    total = SegmentationMetrics(CLASSES, keep_images=True)
    for part in parts:
        total.merge(part)
    return total


def test_merging_is_associative_and_commutative():
    a, b, c = (part_of(seed) for seed in range(3))
    expected = joined(a, b, c).state_dict()
    for other in (joined(c, b, a), joined(joined(a, b), c), joined(a, joined(b, c)), joined(joined(b), joined(c, a))):
        assert other.state_dict() == expected
    assert joined(a, joined()).state_dict() == a.state_dict()


def test_counts_survive_json_and_pickle():
    metrics = part_of(4)
    read = SegmentationMetrics.from_state_dict(json.loads(json.dumps(metrics.state_dict())))
    assert read.compute() == metrics.compute()
    assert read.images == metrics.images
    assert (read.table() != metrics.table()).nnz == 0
    assert pickle.loads(pickle.dumps(metrics)).state_dict() == metrics.state_dict()
    read.merge(metrics)  # and it can go on
    assert read.compute()["pixels"] == 2 * metrics.compute()["pixels"]
    empty = SegmentationMetrics(["a"], keep_images=True)
    assert SegmentationMetrics.from_state_dict(empty.state_dict()).table().shape[0] == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kind": "CalibrationError"}, "of 'CalibrationError', not of 'SegmentationMetrics'"),
        ({"boundary": None}, "boundary doesn't hold 4 x 7 counts"),
        ({"confusion": [[[1.5]]]}, "confusion doesn't hold 1 x 4 x 5 counts"),
        ({"confusion": [[1], [2, 3]]}, "no table"),
        ({"images": {"a": [[99], [1]]}}, "'a' don't fit"),
        ({"settings": {}}, "lacks classes, ignore_index"),
    ],
)
def test_a_damaged_state_is_refused(change: dict, sentence: str):
    state = SegmentationMetrics(CLASSES).state_dict() | change
    with pytest.raises(InputError, match=sentence):
        SegmentationMetrics.from_state_dict(state)
    with pytest.raises(InputError, match="of 'list'"):
        SegmentationMetrics.from_state_dict([])


def test_counts_of_images_add_up_to_those_of_the_set():
    metrics = SegmentationMetrics(CLASSES, keep_images=True, unseen=["roof"], strata=["clear", "cloudy"])
    maps = [blocky_maps(seed, (21, 17)) for seed in range(3)]
    clouds = [np.full((21, 17), number % 2) for number in range(3)]
    metrics.update(*(np.stack(m) for m in zip(*maps, strict=True)), image=["b", "a", "c"], strata=np.stack(clouds))
    assert metrics.images == ["a", "b", "c"]
    table = metrics.table()
    whole = metrics.scores_of(table.sum(axis=0)[None])
    scores = metrics.compute()
    for name in ("miou", "miou_harmonic", "mean_f1", "boundary_f1", "boundary_iou", "pixel_accuracy"):
        assert whole[name][0] == scores[name]
    assert whole["iou/road"][0] == scores["iou"]["road"]
    assert whole["cloudy/miou"][0] == scores["strata"]["cloudy"]["miou"]
    one = SegmentationMetrics(CLASSES, unseen=["roof"])
    one.update(*maps[1])  # the batch's second image, "a"
    own = metrics.scores_of(table.toarray())
    assert own["miou"][0] == one.compute()["miou"]
    assert own["boundary_iou"][0] == one.compute()["boundary_iou"]


def test_forgetting():
    metrics = part_of(0)
    metrics.reset()
    assert metrics.state_dict() == SegmentationMetrics(CLASSES, keep_images=True).state_dict()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_counts_on_a_gpu_are_those_on_the_processor():
    predicted, true = blocky_maps(1)
    clouds = torch.from_numpy(true % 2 == 0)
    here, there = (SegmentationMetrics(CLASSES, strata=["clear", "cloudy"]) for _ in range(2))
    here.update(predicted, true, strata=clouds)
    there.update(torch.from_numpy(predicted).cuda(), torch.from_numpy(true).cuda(), strata=clouds)
    assert here.state_dict() == there.state_dict()


# ---- what makes no sense ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"mean_over": "unions"}, "Did you mean 'union'"),
        ({"unseen": "roof"}, r"give a list of names, such as \['roof'\]"),
        ({"boundary_width": 0}, "at least 1 pixel"),
        ({"strata": ["clear", "clear"]}, "stratum 'clear' is in the list twice"),
        ({"ignore_index": 5, "strata": list("abcdefg")}, "label of the stratum 'f'"),
    ],
)
def test_more_settings_that_make_no_sense(options: dict, sentence: str):
    with pytest.raises(InputError, match=sentence):
        SegmentationMetrics(CLASSES, **options)


@pytest.mark.parametrize(
    ("options", "arguments", "sentence"),
    [
        ({"keep_images": True}, {}, "every image needs a name"),
        ({"keep_images": True}, {"image": ["a", "b"]}, "1 images and 2 names"),
        ({"keep_images": True}, {"image": [3]}, "a text for each"),
        ({"strata": ["clear", "cloudy"]}, {}, "needs the map of the strata clear, cloudy"),
        ({}, {"strata": np.zeros((4, 5), int)}, "none are named"),
        ({"strata": ["clear", "cloudy"]}, {"strata": np.full((4, 5), 2)}, "map of strata holds the label 2"),
        ({"strata": ["clear"]}, {"strata": np.zeros((5, 4), int)}, "strata is 5 x 4 and the target 4 x 5"),
        ({}, {"core": (slice(0, 5), slice(0, 5))}, "rows 0:5 are no part of the window's 0:4"),
        ({}, {"core": (slice(0, 2), slice(3, 3))}, "columns 3:3"),
        ({}, {"core": (slice(0, 4, 2), slice(0, 5))}, "steps of 1"),
        ({}, {"core": slice(0, 2)}, "give two slices"),
    ],
)
def test_updates_that_make_no_sense_count_nothing(options: dict, arguments: dict, sentence: str):
    metrics = SegmentationMetrics(CLASSES, **options)
    with pytest.raises(InputError, match=sentence):
        metrics.update(np.zeros((4, 5), int), np.zeros((4, 5), int), **arguments)
    assert not metrics.confusion.any()
    assert not metrics.images


def test_intervals_need_the_counts_of_images():
    with pytest.raises(InputError, match="keep_images=True"):
        SegmentationMetrics(CLASSES).table()
