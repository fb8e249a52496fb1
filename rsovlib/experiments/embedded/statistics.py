"""Scores with their uncertainty: mean IoU over a set of images, and paired bootstrap over these images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

_RESAMPLES = 2000
_LEVEL = 95.0


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"


def mean_iou(confusion: Counts | NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean IoU in per cent over the classes that have ground truth, for confusion matrices (..., K, K)."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    union = true + predicted - hits
    iou = np.where(true > 0, hits / np.maximum(union, 1), np.nan)
    return 100 * np.nanmean(iou, axis=-1)


def bootstrap(confusions: Counts, other: Counts | None = None, seed: int = 0) -> Interval:
    """Mean IoU of a set of images, or its difference to another method's on the same images.

    Args:
        confusions: (images, K, K), rows are the truth.
        other: the same of the method to compare with, image by image, or None.
        seed: of the resampling.

    Returns:
        The value on the whole set, and the 2.5 and 97.5 percentiles over 2000 resamples of the images.
    """
    count, classes = confusions.shape[:2]
    rng = np.random.default_rng(seed)
    times = rng.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES).astype(float)

    def resampled(matrices: Counts) -> NDArray[np.float64]:
        return mean_iou((times @ matrices.reshape(count, -1)).reshape(-1, classes, classes))

    value, samples = mean_iou(confusions.sum(axis=0)), resampled(confusions)
    if other is not None:
        value, samples = value - mean_iou(other.sum(axis=0)), samples - resampled(other)
    tail = (100 - _LEVEL) / 2
    low, high = np.percentile(samples, [tail, 100 - tail])
    return Interval(float(value), float(low), float(high))
