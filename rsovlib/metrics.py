"""Scores of label maps against ground truth, accumulated over a whole set of images.

Everything here follows from one confusion matrix, counted by torchmetrics over all images together: the papers
score a set, not the mean of its images.  The boundary score adds counts of boundary pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from skimage.morphology import disk
from torchmetrics.functional.classification import multiclass_confusion_matrix

from rsovlib.errors import InputError, unknown_name

Labels = np.ndarray | torch.Tensor


class SegmentationMetrics:
    """Streaming scores of predicted label maps over a set of images.

    Feed it image by image with :meth:`update`, join the counts of several processes with :meth:`merge`, and read
    the scores with :meth:`compute`.  Only counts are kept, so the memory doesn't grow with the set.

    How the numbers are averaged, since that decides them by tens of points:

    * Every mean over classes is over the classes that have ground truth somewhere in the set.  One of these that is
      never predicted counts as 0; a class without ground truth is left out of the means, its own entry is ``nan``,
      but predicting it is still an error that lowers the scores of the classes it was predicted in place of.
    * Pixels whose ground truth is ``ignore_index`` are dropped.  A *prediction* of ``ignore_index`` where there is
      ground truth means "no answer": it counts as a miss of the true class.

    Args:
        classes: names of the K classes; label value = position in this list.
        ignore_index: the label of pixels without ground truth, and of pixels without an answer.
        unseen: names of the classes that were not trained on, for ``miou_unseen`` against ``miou_seen``.
        boundary_tolerance: how far apart, in pixels (Euclidean), a predicted and a true boundary pixel may lie to
            count as the same, in ``boundary_f1``; 0 asks for the very pixel, ``None`` leaves this score out.

    Raises:
        InputError: no classes, a class named twice, an unknown unseen class, or an ``ignore_index`` that is a class.
    """

    def __init__(
        self,
        classes: Sequence[str],
        ignore_index: int = 255,
        unseen: Iterable[str] = (),
        boundary_tolerance: int | None = 2,
    ) -> None:
        self.classes = list(classes)
        self.ignore_index = ignore_index
        self.unseen = frozenset(unseen)
        self.boundary_tolerance = boundary_tolerance
        if not self.classes:
            raise InputError("The list of classes is empty; name at least one class to score.")
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if twice:
            raise InputError(f"The class {twice[0]!r} is in the list twice; every class needs a name of its own.")
        for name in self.unseen:
            if name not in self.classes:
                raise unknown_name("class (given as unseen)", name, self.classes)
        if 0 <= ignore_index < len(self.classes):
            raise InputError(
                f"ignore_index={ignore_index} is the label of the class {self.classes[ignore_index]!r}; "
                f"take a value outside 0..{len(self.classes) - 1}, such as 255 or -1."
            )
        if boundary_tolerance is not None and boundary_tolerance < 0:
            raise InputError(f"boundary_tolerance={boundary_tolerance} is negative; give a distance in pixels.")
        self.reset()

    def reset(self) -> None:
        """Forget everything counted so far."""
        count = len(self.classes)
        # One column more than classes: pixels with ground truth but without an answer.
        self._confusion = torch.zeros((count + 1, count + 1), dtype=torch.int64)
        # Per class: predicted boundary pixels, those of them near a true one, true ones, those near a predicted one.
        self._boundary = np.zeros((count, 4), dtype=np.int64)

    @property
    def confusion(self) -> np.ndarray:
        """Pixel counts (K, K + 1) int64: row = true class, column = predicted class, last column = no answer."""
        return self._confusion[:-1].numpy()

    def update(self, prediction: Labels, target: Labels) -> None:
        """Count one label map, or a batch of them.

        Args:
            prediction: (H, W) or (B, H, W) integer labels 0..K-1, or ``ignore_index`` for no answer.
            target: the ground truth, same shape, labels 0..K-1 or ``ignore_index``.

        Raises:
            InputError: the shapes differ or aren't (H, W) or (B, H, W), the type isn't integer, or there is a label
                that is neither a class nor ``ignore_index``.
        """
        predicted = self._checked(prediction, "prediction")
        true = self._checked(target, "target")
        if predicted.shape != true.shape:
            raise InputError(
                f"The prediction is {_shape(predicted)} and the target {_shape(true)}; they must have the same shape."
            )
        no_answer = len(self.classes)
        self._confusion += multiclass_confusion_matrix(
            torch.where(predicted == self.ignore_index, no_answer, predicted),
            true,
            num_classes=no_answer + 1,
            ignore_index=self.ignore_index,
            validate_args=False,  # checked above, in words
        ).cpu()
        if self.boundary_tolerance is not None:
            shape = (-1, *true.shape[-2:])
            pairs = zip(predicted.cpu().numpy().reshape(shape), true.cpu().numpy().reshape(shape), strict=True)
            for one_predicted, one_true in pairs:
                self._boundary += _boundary_counts(
                    one_predicted, one_true, len(self.classes), self.ignore_index, self.boundary_tolerance
                )

    def merge(self, other: SegmentationMetrics) -> None:
        """Add the counts of another part of the set, for example from another process.

        Raises:
            InputError: ``other`` was made with other classes or settings.
        """
        for name in ("classes", "ignore_index", "unseen", "boundary_tolerance"):
            if getattr(self, name) != getattr(other, name):
                raise InputError(
                    f"Scores of different {name} can't be merged: {getattr(self, name)} and {getattr(other, name)}."
                )
        self._confusion += other._confusion
        self._boundary += other._boundary

    def compute(self) -> dict[str, Any]:
        """The scores of everything counted so far, as fractions between 0 and 1.

        Returns:
            A dictionary with

            * ``miou``: mean over classes of TP / (TP + FP + FN);
            * ``miou_seen``, ``miou_unseen``: the same over a part of the classes; ``nan`` when it is empty;
            * ``pixel_accuracy``: correct pixels / pixels with ground truth;
            * ``mean_accuracy``: mean over classes of TP / (TP + FN);
            * ``mean_f1``: mean over classes of 2 TP / (2 TP + FP + FN);
            * ``boundary_f1``: mean over classes of the harmonic mean of boundary precision and recall within
              ``boundary_tolerance`` pixels (after Csurka et al. 2013, "What is a good evaluation measure for semantic
              segmentation?", but with the boundary pixels of the whole set in one pot, so that scores can be merged);
              a class whose ground truth has no boundary is left out; ``nan`` when no class has one, or when the
              score was left out;
            * ``boundary_tolerance``: the tolerance, as given;
            * ``iou``: for each class by name; ``nan`` for a class without ground truth;
            * ``pixels``: number of pixels scored.

        Raises:
            InputError: no pixel with ground truth has been counted.
        """
        counts = self.confusion.astype(np.float64)
        true = counts.sum(axis=1)
        correct = np.diagonal(counts)
        predicted = counts[:, :-1].sum(axis=0)
        pixels = int(true.sum())
        if pixels == 0:
            raise InputError("There is nothing to score: no pixel with ground truth has been given to update().")
        present = true > 0
        iou = np.full(len(self.classes), math.nan)
        np.divide(correct, true + predicted - correct, out=iou, where=present)
        unseen = np.array([name in self.unseen for name in self.classes])
        return {
            "miou": float(iou[present].mean()),
            "miou_seen": _mean(iou[present & ~unseen]),
            "miou_unseen": _mean(iou[present & unseen]),
            "pixel_accuracy": float(correct.sum() / pixels),
            "mean_accuracy": float((correct[present] / true[present]).mean()),
            "mean_f1": float((2 * correct[present] / (true + predicted)[present]).mean()),
            "boundary_f1": self._boundary_f1(),
            "boundary_tolerance": self.boundary_tolerance,
            "iou": {name: float(value) for name, value in zip(self.classes, iou, strict=True)},
            "pixels": pixels,
        }

    def _boundary_f1(self) -> float:
        predicted, predicted_near, true, true_near = self._boundary[self._boundary[:, 2] > 0].T.astype(np.float64)
        precision = np.divide(predicted_near, predicted, out=np.zeros_like(predicted), where=predicted > 0)
        recall = true_near / true
        total = precision + recall
        return _mean(np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0))

    def _checked(self, labels: Labels, what: str) -> torch.Tensor:
        if isinstance(labels, torch.Tensor):
            tensor = labels.detach()
        else:
            array = np.asarray(labels)
            if array.dtype.kind not in "bui":
                raise InputError(f"The {what} has the type {array.dtype}; label maps hold whole numbers.")
            # Some unsigned types have no torch twin, and torch wants neither read-only nor negative-stride memory.
            tensor = torch.from_numpy(array.astype(np.int64))
        if tensor.is_floating_point() or tensor.is_complex():
            raise InputError(f"The {what} has the type {tensor.dtype}; label maps hold whole numbers.")
        tensor = tensor.to(torch.int64)
        if tensor.ndim not in (2, 3) or tensor.numel() == 0:
            raise InputError(f"The {what} is {_shape(tensor)}; give (H, W), or (B, H, W) for a batch, not empty.")
        wrong = ((tensor < 0) | (tensor >= len(self.classes))) & (tensor != self.ignore_index)
        if wrong.any():
            raise InputError(
                f"The {what} holds the label {int(tensor[wrong][0])}, which is neither one of the {len(self.classes)} "
                f"classes (0..{len(self.classes) - 1}) nor ignore_index={self.ignore_index}."
            )
        return tensor


def _mean(values: np.ndarray) -> float:
    """The mean, or nan (without NumPy's warning) of nothing."""
    return float(values.mean()) if values.size else math.nan


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a single number"


def _boundary_counts(
    predicted: np.ndarray, true: np.ndarray, classes: int, ignore_index: int, tolerance: int
) -> np.ndarray:
    """What the boundary score counts in one image.

    Args:
        predicted: (H, W) labels.
        true: (H, W) labels.
        classes: K.
        ignore_index: label of pixels without ground truth; what lies there, and the edge of the image, bounds nothing.
        tolerance: radius in pixels.

    Returns:
        (K, 4) int64: predicted boundary pixels, those near a true one, true ones, those near a predicted one.
    """
    scored = true != ignore_index
    predicted_edges = _touches_another(predicted, scored)
    true_edges = _touches_another(true, scored)
    reach = disk(tolerance)
    counts = np.zeros((classes, 4), dtype=np.int64)
    for label in np.union1d(predicted[predicted_edges], true[true_edges]):
        if label == ignore_index:  # "no answer" is no class
            continue
        of_predicted = predicted_edges & (predicted == label)
        of_true = true_edges & (true == label)
        counts[label] = (
            of_predicted.sum(),
            (of_predicted & ndimage.binary_dilation(of_true, reach)).sum(),
            of_true.sum(),
            (of_true & ndimage.binary_dilation(of_predicted, reach)).sum(),
        )
    return counts


def _touches_another(labels: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Where a scored pixel has one of its four neighbours scored and of another label; (H, W) bool."""
    edges = np.zeros(labels.shape, dtype=bool)
    for here, there in (((slice(1, None),), (slice(None, -1),)), ((..., slice(1, None)), (..., slice(None, -1)))):
        differ = (labels[here] != labels[there]) & scored[here] & scored[there]
        edges[here] |= differ
        edges[there] |= differ
    return edges
