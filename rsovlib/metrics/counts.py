"""From a confusion matrix to scores, for one matrix or for thousands at once.

Rows are the truth, columns the prediction.  A matrix may have more columns than classes: what stands there was
predicted as none of them ("no answer"), a miss of the true class and nobody's false positive.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from rsovlib.errors import unknown_name
from rsovlib.metrics.inputs import Labels, check_same_shape, checked_labels

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

MeanOver = Literal["truth", "union", "all"]
"""Which classes a mean over classes runs over.

* ``"truth"``: those with ground truth somewhere in the set.  One that is never predicted counts as 0; one without
  ground truth is left out, and predicting it still costs the classes in whose place it was predicted.
* ``"union"``: those with ground truth or a prediction; a class that is predicted but has no ground truth counts as 0.
* ``"all"``: all K, an absent one as 0.
"""


def check_mean_over(mean_over: str) -> None:
    """Refuse a rule that doesn't exist.

    Raises:
        InputError: with the rules that do.
    """
    if mean_over not in get_args(MeanOver):
        raise unknown_name("rule for the classes of a mean", mean_over, get_args(MeanOver))


def confusion_matrix(prediction: Labels, target: Labels, classes: int, ignore_index: int = 255) -> Counts:
    """Pixel counts of one label map or a batch.

    Args:
        prediction: (H, W) or (B, H, W) whole numbers 0..K-1, or ``ignore_index`` for no answer.
        target: same shape, 0..K-1, or ``ignore_index`` for pixels that are dropped.
        classes: K.
        ignore_index: the label that is no class.

    Returns:
        (K, K + 1) int64: row = true class, column = predicted class, last column = no answer.

    Raises:
        InputError: shapes differ, not whole numbers, or a label out of range.
    """
    predicted = checked_labels(prediction, "prediction", classes, ignore_index)
    true = checked_labels(target, "target", classes, ignore_index)
    check_same_shape(predicted, "prediction", true)
    return count_pixels(predicted, true, classes, ignore_index)


def count_pixels(predicted: torch.Tensor, true: torch.Tensor, classes: int, ignore_index: int) -> Counts:
    """:func:`confusion_matrix` of labels that were checked; on their device."""
    # Imported where it is needed: it takes seconds, and whoever only reads intervals needs none of it.
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    matrix = multiclass_confusion_matrix(
        torch.where(predicted == ignore_index, classes, predicted),
        true,
        num_classes=classes + 1,
        ignore_index=ignore_index,
        validate_args=False,  # checked before, in words
    )
    return matrix[:-1].cpu().numpy()


def class_scores(confusion: NDArray[np.integer] | Floats, mean_over: MeanOver = "truth") -> dict[str, Floats]:
    """Scores of each class.

    Args:
        confusion: (..., K, K) or (..., K, K + 1) counts, rows are the truth.
        mean_over: which classes count; the entry of one that doesn't is ``nan``.

    Returns:
        Each (..., K), fractions between 0 and 1, where 0 / 0 of a class that counts is 0:

        * ``iou``: TP / (TP + FP + FN);
        * ``f1``: 2 TP / (2 TP + FP + FN);
        * ``accuracy``: TP / (TP + FN), also called recall or producer's accuracy;
        * ``precision``: TP / (TP + FP), also called user's accuracy.

    Raises:
        InputError: an unknown rule.
    """
    check_mean_over(mean_over)
    counts = np.asarray(confusion, dtype=np.float64)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    true = counts.sum(axis=-1)
    predicted = counts.sum(axis=-2)[..., : counts.shape[-2]]
    counted = counted_classes(true, predicted, mean_over)
    return {
        "iou": ratio(hits, true + predicted - hits, counted),
        "f1": ratio(2 * hits, true + predicted, counted),
        "accuracy": ratio(hits, true, counted),
        "precision": ratio(hits, predicted, counted),
    }


def counted_classes(true: Floats, predicted: Floats, mean_over: MeanOver) -> NDArray[np.bool_]:
    """Which classes enter the means, from their true and predicted pixels; same shape."""
    if mean_over == "truth":
        return true > 0
    if mean_over == "union":
        return (true > 0) | (predicted > 0)
    return np.ones(true.shape, dtype=bool)


def ratio(part: Floats, whole: Floats, counted: NDArray[np.bool_] | bool = True) -> Floats:
    """part / whole, 0 where that is 0 / 0, and ``nan`` where it doesn't count."""
    shares = np.divide(part, whole, out=np.zeros(np.shape(whole)), where=np.asarray(whole) > 0)
    return np.where(counted, shares, np.nan)


def mean_over_classes(values: Floats) -> Floats:
    """Mean over the last axis of what isn't ``nan``; ``nan`` (without NumPy's warning) of nothing."""
    there = ~np.isnan(values)
    count = there.sum(axis=-1)
    return np.divide(np.where(there, values, 0).sum(axis=-1), count, out=np.full(count.shape, np.nan), where=count > 0)


def set_scores(
    confusion: NDArray[np.integer] | Floats, unseen: NDArray[np.bool_], mean_over: MeanOver
) -> dict[str, Any]:
    """Scores of whole sets.

    Args:
        confusion: (..., K, K + 1) counts.
        unseen: (K,), which classes weren't trained on.
        mean_over: which classes count.

    Returns:
        ``classes``: :func:`class_scores`; and by their names the scores of
        :meth:`rsovlib.metrics.SegmentationMetrics.compute`, each (...).
    """
    scores = class_scores(confusion, mean_over)
    iou = scores["iou"]
    hits = np.trace(confusion, axis1=-2, axis2=-1)
    pixels = np.sum(confusion, axis=(-2, -1))
    seen_mean, unseen_mean = mean_over_classes(iou[..., ~unseen]), mean_over_classes(iou[..., unseen])
    return {
        "miou": mean_over_classes(iou),
        "miou_seen": seen_mean,
        "miou_unseen": unseen_mean,
        "miou_harmonic": harmonic_mean(seen_mean, unseen_mean),
        "pixel_accuracy": ratio(hits, pixels, np.asarray(pixels) > 0),
        "mean_accuracy": mean_over_classes(scores["accuracy"]),
        "mean_precision": mean_over_classes(scores["precision"]),
        "mean_f1": mean_over_classes(scores["f1"]),
        "classes": scores,
    }


def plain_number(value: Any) -> float:
    """A Python float; every "not defined" is the same ``math.nan``, so that equal results compare as equal."""
    number = float(value)
    return math.nan if math.isnan(number) else number


def harmonic_mean(first: Floats, second: Floats) -> Floats:
    """2 a b / (a + b), 0 where both are 0, ``nan`` where one is."""
    total = np.asarray(first + second)
    product = np.asarray(2 * first * second)
    return np.divide(product, total, out=np.where(np.isnan(total), np.nan, 0.0), where=total > 0)
