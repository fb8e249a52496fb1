"""Mean IoU in per cent over a set of images, with its uncertainty, for confusion matrices kept image by image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rsovlib import metrics
from rsovlib.metrics import Interval, class_scores, mean_over_classes

Counts = NDArray[np.int64]


def mean_iou(confusion: Counts | NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean IoU in per cent over the classes that have ground truth, for confusion matrices (..., K, K)."""
    return 100 * mean_over_classes(class_scores(confusion)["iou"])


def bootstrap(confusions: Counts, other: Counts | None = None, seed: int = 0) -> Interval:
    """Mean IoU of a set of images, or its difference to another method's on the same images.

    Args:
        confusions: (images, K, K), rows are the truth.
        other: the same of the method to compare with, image by image, or None.
        seed: of the resampling.

    Returns:
        The value on the whole set in per cent, and the 2.5 and 97.5 percentiles over 2000 resamples of the images.
    """
    count, classes = confusions.shape[:2]
    return metrics.bootstrap(
        confusions.reshape(count, -1),
        lambda totals: mean_iou(totals.reshape(-1, classes, classes)),
        None if other is None else other.reshape(count, -1),
        seed=seed,
    )
