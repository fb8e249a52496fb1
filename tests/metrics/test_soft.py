"""The missing-modality paper's soft scores by hand, by a slow reference, and cut in pieces."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from rsovlib.errors import InputError
from rsovlib.metrics import PerImageSoftMetrics

IGNORE = 255
SHAPE = (13, 11)


def some_images(seed: int = 0, count: int = 5) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Probabilities and masks; the third mask is empty."""
    rng = np.random.default_rng(seed)
    images = {}
    for number in range(count):
        mask = (rng.random(SHAPE) < 0.3) & (number != 2)
        probability = np.clip(0.5 * mask + 0.5 * rng.random(SHAPE), 0, 1)
        images[f"tile {number}"] = (probability, np.where(rng.random(SHAPE) < 0.1, IGNORE, mask))
    return images


def scores_of(images: dict, **options: object) -> dict:
    metrics = PerImageSoftMetrics("tree", **options)
    for name, (probability, mask) in images.items():
        metrics.update(probability, mask, image=name)
    return metrics.compute()


def reference(probability: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """The definition, on the pixels with ground truth."""
    e = 1e-8
    p, y = probability[mask != IGNORE], mask[mask != IGNORE].astype(float)
    if not y.any():
        p, y = 1 - p, 1 - y
    found, missed, false = (p * y).sum(), ((1 - p) * y).sum(), (p * (1 - y)).sum()
    precision, recall = (found + e) / (found + false + e), (found + e) / (found + missed + e)
    return (found + e) / (found + missed + false + e), 2 * precision * recall / (precision + recall)


def test_by_hand():
    scores = scores_of({"a": (np.array([[0.8, 0.6], [0.1, 0.0]]), np.array([[1, 0], [1, 0]]))})
    # TP 0.9, FN 0.2 + 0.9, FP 0.6: precision 0.9 / 1.5, recall 0.9 / 2.
    assert scores["soft_iou_per_image"] == pytest.approx(0.9 / 2.6)
    assert scores["soft_f1_per_image"] == pytest.approx(2 * 0.6 * 0.45 / (0.6 + 0.45))
    # Thresholded: TP 1, FP 1, FN 1.
    assert scores["iou_pooled"] == pytest.approx(1 / 3)
    assert scores["f1_pooled"] == pytest.approx(1 / 2)


def test_an_empty_mask_scores_the_background():
    empty = np.zeros(SHAPE, dtype=int)
    scores = scores_of({"a": (np.full(SHAPE, 0.01), empty)})
    assert scores["soft_iou_per_image"] == pytest.approx(0.99)
    assert scores["soft_f1_per_image"] == pytest.approx(2 * 0.99 / 1.99)
    assert scores["empty_share"] == 1
    for name in ("soft_iou_nonempty", "iou_pooled", "iou_pooled_nonempty", "f1_pooled_nonempty"):
        assert np.isnan(scores[name]), name
    assert scores_of({"a": (np.ones(SHAPE), empty)})["soft_iou_per_image"] == pytest.approx(0, abs=1e-6)


def test_finding_nothing_scores_the_share_of_empty_images():
    images = {name: (np.zeros(SHAPE), mask) for name, (_, mask) in some_images().items()}
    scores = scores_of(images)
    assert scores["soft_iou_per_image"] == pytest.approx(1 / 5, abs=1e-6)
    assert scores["soft_f1_per_image"] == pytest.approx(1 / 5, abs=1e-6)
    assert scores["empty_share"] == pytest.approx(1 / 5)
    assert scores["soft_iou_nonempty"] == pytest.approx(0, abs=1e-6)
    assert scores["iou_pooled"] == scores["f1_pooled"] == 0
    # The +- of the tables: population deviation over images, here of one 1 and four 0.
    assert scores["soft_iou_std"] == pytest.approx(np.std([1, 0, 0, 0, 0]), abs=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_equals_the_slow_reference(dtype: type):
    images = {name: (p.astype(dtype), mask) for name, (p, mask) in some_images(1).items()}
    scores = scores_of(images)
    expected = np.array([reference(p.astype(float), mask) for p, mask in images.values()])
    assert scores["soft_iou_per_image"] == pytest.approx(expected[:, 0].mean(), abs=1e-9)
    assert scores["soft_f1_per_image"] == pytest.approx(expected[:, 1].mean(), abs=1e-9)
    assert scores["soft_iou_std"] == pytest.approx(expected[:, 0].std(), abs=1e-9)
    assert scores["soft_f1_std"] == pytest.approx(expected[:, 1].std(), abs=1e-9)
    filled = np.delete(expected, 2, axis=0)
    assert scores["soft_iou_nonempty"] == pytest.approx(filled[:, 0].mean(), abs=1e-9)
    assert scores["soft_f1_nonempty"] == pytest.approx(filled[:, 1].mean(), abs=1e-9)
    metrics = PerImageSoftMetrics()
    metrics.update(
        torch.from_numpy(np.stack([p for p, _ in images.values()])),
        torch.from_numpy(np.stack([mask for _, mask in images.values()])),
        image=list(images),
    )
    assert metrics.compute() == scores
    np.testing.assert_allclose(metrics.per_image()["iou"], expected[:, 0], atol=1e-9)


@pytest.mark.parametrize("threshold", [0.3, 0.4])
def test_pooled_scores_equal_scikit_learn(threshold: float):
    images = some_images(2)
    scores = scores_of(images, threshold=threshold)
    for suffix, names in (("", list(images)), ("_nonempty", [name for name in images if name != "tile 2"])):
        found = np.concatenate([(images[name][0] >= threshold)[images[name][1] != IGNORE] for name in names])
        true = np.concatenate([images[name][1][images[name][1] != IGNORE] for name in names])
        assert scores[f"iou_pooled{suffix}"] == pytest.approx(sklearn_metrics.jaccard_score(true, found))
        assert scores[f"f1_pooled{suffix}"] == pytest.approx(sklearn_metrics.f1_score(true, found))
    assert scores["iou_pooled"] != scores["iou_pooled_nonempty"]


def test_windows_and_workers_give_the_very_same():
    images = some_images(3)
    whole = PerImageSoftMetrics("tree")
    workers = [PerImageSoftMetrics("tree") for _ in range(3)]
    for name, (probability, mask) in images.items():
        whole.update(probability, mask, image=name)
        # Each worker reads rows around its own.
        for worker, (first, last) in zip(workers, ((0, 5), (5, 6), (6, 13)), strict=True):
            low, high = max(0, first - 2), min(13, last + 2)
            worker.update(
                probability[low:high], mask[low:high], image=name, core=(slice(first - low, last - low), slice(None))
            )
    for order in ((0, 1, 2), (2, 0, 1)):
        total = PerImageSoftMetrics("tree")
        for number in order:
            total.merge(workers[number])
        assert total.state_dict() == whole.state_dict()
        assert total.compute() == whole.compute()


def test_state_survives_json():
    metrics = PerImageSoftMetrics("tree", threshold=0.25)
    for name, pair in some_images().items():
        metrics.update(*pair, image=name)
    read = PerImageSoftMetrics.from_state_dict(json.loads(json.dumps(metrics.state_dict())))
    assert read.compute() == metrics.compute()
    assert read.target == "tree"
    damaged = metrics.state_dict() | {"images": {"tile 0": [1, 2]}}
    with pytest.raises(InputError, match="doesn't hold 6 counts"):
        PerImageSoftMetrics.from_state_dict(damaged)
    with pytest.raises(InputError, match="no counts by image name"):
        PerImageSoftMetrics.from_state_dict(damaged | {"images": 3})


def test_what_is_not_known_is_not_counted():
    metrics = PerImageSoftMetrics()
    probability = np.array([[0.5, np.nan]])
    metrics.update(probability, np.array([[1, IGNORE]]), image="half")
    metrics.update(probability, np.array([[IGNORE, IGNORE]]), image="nothing")
    assert metrics.images == ["half"]
    assert metrics.compute()["soft_iou_per_image"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("probability", "mask", "sentence"),
    [
        (np.array([[0.5, np.nan]]), np.array([[0, 1]]), "hold nan where there is ground truth"),
        (np.array([[0.5, 1.5]]), np.array([[0, 1]]), "hold 1.5"),
        (np.array([[0.5, -0.1]]), np.array([[0, 1]]), "hold -0.1"),
        (np.array([[0, 1]]), np.array([[0, 1]]), "type int64; give floating-point"),
        (torch.tensor([[0, 1]]), torch.tensor([[0, 1]]), "torch.int64"),
        (np.array([[0.5, 0.5]]), np.array([[0, 2]]), "mask holds the label 2"),
        (np.array([[0.5, 0.5]]), np.array([[0.0, 1.0]]), "mask has the type float64"),
        (np.array([[0.5, 0.5]]), np.array([[0], [1]]), "1 x 2 and the mask 2 x 1"),
        (np.array([0.5]), np.array([1]), r"are 1; give \(H, W\)"),
    ],
)
def test_maps_that_make_no_sense(probability: object, mask: object, sentence: str):
    metrics = PerImageSoftMetrics()
    with pytest.raises(InputError, match=sentence):
        metrics.update(probability, mask, image="a")
    with pytest.raises(InputError, match="nothing to score"):
        metrics.compute()


def test_settings_that_make_no_sense():
    with pytest.raises(InputError, match="ignore_index=1 is a value of the mask"):
        PerImageSoftMetrics(ignore_index=1)
    with pytest.raises(InputError, match="threshold=0"):
        PerImageSoftMetrics(threshold=0)
    with pytest.raises(InputError, match="different threshold"):
        PerImageSoftMetrics().merge(PerImageSoftMetrics(threshold=0.4))
