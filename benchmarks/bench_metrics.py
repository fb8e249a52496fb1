"""What scoring costs: pixels and boundaries of a tile against other libraries, and resampling a large set's images."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from scipy import ndimage
from sklearn.metrics import confusion_matrix as scikit_learn_matrix
from torchmetrics.functional.classification import multiclass_calibration_error

from benchmarks._timing import best, paired
from rsovlib.metrics import CalibrationError, SegmentationMetrics, compare, confidence_interval

CLASSES = [f"class {number}" for number in range(6)]
IGNORE = 255


def maps(side: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels with regions like land cover, and a prediction that is wrong in some."""
    rng = np.random.default_rng(seed)
    fields = rng.normal(size=(len(CLASSES), side, side))
    true = ndimage.gaussian_filter(fields, (0, 9, 9)).argmax(axis=0)
    predicted = ndimage.gaussian_filter(fields + 0.5 * rng.normal(size=fields.shape), (0, 7, 7)).argmax(axis=0)
    return predicted, np.where(rng.random(true.shape) < 0.02, IGNORE, true)


def update(metrics: SegmentationMetrics, predicted: np.ndarray, true: np.ndarray) -> None:
    metrics.update(predicted, true, image="tile")


def scikit_learn(predicted: np.ndarray, true: np.ndarray) -> None:
    known = true != IGNORE
    scikit_learn_matrix(true[known], predicted[known], labels=range(len(CLASSES)))


def rows() -> Iterator[dict[str, object]]:
    for side in (256, 512, 1024):
        pair = maps(side)
        plain = SegmentationMetrics(CLASSES, boundary_tolerance=None, boundary_width=None)
        case = {"side": side, "classes": len(CLASSES)}
        yield {
            "job": "confusion matrix, beside scikit-learn's",
            **case,
            **paired(partial(update, plain, *pair), partial(scikit_learn, *pair), 5).row(),
        }
        for job, options in (
            ("with boundary F1", {"boundary_width": None}),
            ("with boundary IoU", {"boundary_tolerance": None}),
            ("with both", {}),
        ):
            work = partial(update, SegmentationMetrics(CLASSES, **options), *pair)
            yield {"job": job, **case, "ours_ms": round(1e3 * best(work, 5), 2)}

        fields = np.random.default_rng(0).normal(size=(len(CLASSES), side, side)).astype(np.float32)
        probabilities, target = torch.from_numpy(fields).softmax(dim=0), torch.from_numpy(pair[1])
        theirs = partial(
            multiclass_calibration_error,
            probabilities[None],
            target[None],
            num_classes=len(CLASSES),
            ignore_index=IGNORE,
        )
        ours = partial(CalibrationError(len(CLASSES)).update, probabilities, target)
        yield {"job": "calibration, beside torchmetrics'", **case, **paired(ours, theirs, 5).row()}

    for images in (400, 6000):
        first, second = (kept(images, seed) for seed in (0, 1))
        for method in ("percentile", "bca"):
            work = partial(confidence_interval, first, method=method)
            yield {
                "job": f"interval of 2000 resamples, {method}",
                "images": images,
                "ours_ms": round(1e3 * best(work, 2), 2),
            }
        yield {
            "job": "comparison with three tests",
            "images": images,
            "ours_ms": round(1e3 * best(partial(compare, first, second), 2), 2),
        }


def kept(images: int, seed: int) -> SegmentationMetrics:
    """A set of small images, whose number is what resampling costs."""
    metrics = SegmentationMetrics(CLASSES, keep_images=True, boundary_tolerance=None, boundary_width=None)
    rng = np.random.default_rng(seed)
    for number in range(images):
        true = np.random.default_rng(number).integers(0, len(CLASSES), (16, 16))
        predicted = np.where(rng.random(true.shape) < 0.3, 0, true)
        metrics.update(predicted, true, image=f"tile {number}")
    return metrics
