"""Expected calibration error: of the pixels that a model is 80 % sure of, are 80 % right?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from rsovlib.errors import InputError
from rsovlib.metrics.inputs import (
    Core,
    Labels,
    check_range,
    check_same_shape,
    check_sums,
    checked_core,
    checked_labels,
    checked_probabilities,
)
from rsovlib.metrics.state import check_mergeable, from_fixed, read_state, to_fixed

_SETTINGS = ("classes", "bins", "ignore_index")


class CalibrationError:
    """Streaming calibration error of class probabilities.

    The confidence of a pixel is the largest of its K probabilities.  Pixels are sorted by it into M bins of equal
    width, [0, 1/M), [1/M, 2/M), ...; a confidence of exactly 1 has a bin of its own, as in torchmetrics, whose
    ``multiclass_calibration_error`` this equals.  With n_m pixels in bin m, their accuracy a_m and mean confidence c_m
    (Guo et al. 2017, "On calibration of modern neural networks", arXiv:1706.04599, equations 3 and 5):

        ECE = sum_m (n_m / n) |a_m - c_m|,     MCE = max_m |a_m - c_m|.

    Only three numbers a bin are kept; torchmetrics' own class keeps every pixel's confidence.

    Args:
        classes: K.
        bins: M.
        ignore_index: the label of pixels without ground truth; they are dropped, and may hold NaN.

    Raises:
        InputError: fewer than one class or bin, or an ``ignore_index`` that is a class.
    """

    def __init__(self, classes: int, bins: int = 15, ignore_index: int = 255) -> None:
        self.classes = classes
        self.bins = bins
        self.ignore_index = ignore_index
        if classes < 1 or bins < 1:
            raise InputError(f"classes={classes}, bins={bins}: there must be at least one of each.")
        if 0 <= ignore_index < classes:
            raise InputError(f"ignore_index={ignore_index} is a class; take a value outside 0..{classes - 1}.")
        self.reset()

    def reset(self) -> None:
        """Forget everything counted so far."""
        # Python's whole numbers: the sums of confidences in steps of 2^-32 outgrow 64 bits on large sets.
        self._pixels = [0] * (self.bins + 1)
        self._correct = [0] * (self.bins + 1)
        self._confidence = [0] * (self.bins + 1)

    @property
    def settings(self) -> dict[str, Any]:
        """What this was made with, as plain values."""
        return {name: getattr(self, name) for name in _SETTINGS}

    def update(
        self, probabilities: NDArray[np.floating[Any]] | torch.Tensor, target: Labels, *, core: Core | None = None
    ) -> None:
        """Count one image, a batch, or a window.

        Args:
            probabilities: (K, H, W) or (B, K, H, W), 0 to 1, which sum to 1 over the classes.
            target: (H, W) or (B, H, W), labels 0..K-1 or ``ignore_index``.
            core: (rows, columns) as slices: the part to count, where windows overlap.

        Raises:
            InputError: shapes differ, or NaN, or values that are no probabilities where there is ground truth.
        """
        values = checked_probabilities(probabilities, "probabilities", (3, 4))
        if values.shape[1] != self.classes:
            raise InputError(f"The probabilities are of {values.shape[1]} classes; they should be of {self.classes}.")
        true = checked_labels(target, "target", self.classes, self.ignore_index).to(values.device)
        check_same_shape(values[:, 0], "map of each class's probabilities", true)
        inside = (slice(None), *checked_core(core, *true.shape[1:]))
        known = true[inside] != self.ignore_index
        scored = values.movedim(1, -1)[inside][known]  # (N, K)
        check_range(scored, "probabilities")
        check_sums(scored, "probabilities")
        if not len(scored):
            return
        confidence, predicted = scored.max(dim=1)
        edges = torch.linspace(0, 1, self.bins + 1, dtype=confidence.dtype, device=confidence.device)
        place = torch.bucketize(confidence, edges, right=True) - 1
        correct = (predicted == true[inside][known]).to(torch.int64)
        for total, amount in (
            (self._pixels, torch.ones_like(correct)),
            (self._correct, correct),
            (self._confidence, to_fixed(confidence)),
        ):
            added = torch.zeros(self.bins + 1, dtype=torch.int64, device=place.device).index_add_(0, place, amount)
            total[:] = [old + new for old, new in zip(total, added.tolist(), strict=True)]

    def merge(self, other: CalibrationError) -> None:
        """Add the counts of another part of the set; the order doesn't matter, to the last digit.

        Raises:
            InputError: ``other`` was made with other settings.
        """
        check_mergeable(self.settings, other.settings, "Errors")
        for name in ("_pixels", "_correct", "_confidence"):
            setattr(self, name, [a + b for a, b in zip(getattr(self, name), getattr(other, name), strict=True)])

    def state_dict(self) -> dict[str, Any]:
        """Settings and sums as plain lists and numbers: for JSON, or to send between workers."""
        sums = {"pixels": list(self._pixels), "correct": list(self._correct), "confidence": list(self._confidence)}
        return {"kind": type(self).__name__, "settings": self.settings, **sums}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Self:
        """What :meth:`state_dict` gave, as an object again.

        Raises:
            InputError: not such a dictionary.
        """
        entries = ("pixels", "correct", "confidence")
        metrics = cls(**read_state(state, cls.__name__, _SETTINGS, entries))
        for name in entries:
            numbers = list(state[name])
            if len(numbers) != metrics.bins + 1 or not all(isinstance(n, int) and n >= 0 for n in numbers):
                raise InputError(f"The saved {name} doesn't hold {metrics.bins + 1} counts; it was cut or changed.")
            setattr(metrics, f"_{name}", numbers)
        return metrics

    def compute(self) -> dict[str, Any]:
        """The errors of everything counted so far, as fractions between 0 and 1.

        Returns:
            ``expected_calibration_error``, ``max_calibration_error``, ``accuracy``, ``mean_confidence``, ``pixels``;
            and ``reliability``, the bins for a reliability diagram: lists of M + 1 of ``confidence`` and ``accuracy``
            (``nan`` where a bin is empty) and ``pixels``.

        Raises:
            InputError: no pixel with ground truth has been counted.
        """
        pixels = np.array(self._pixels, dtype=np.float64)
        total = pixels.sum()
        if total == 0:
            raise InputError("There is nothing to score: no pixel with ground truth has been given to update().")
        hits = np.array(self._correct, dtype=np.float64)
        sums = np.array([from_fixed(value) for value in self._confidence])
        accuracy, confidence = (
            np.divide(part, pixels, out=np.full(pixels.shape, np.nan), where=pixels > 0) for part in (hits, sums)
        )
        return {
            "expected_calibration_error": float(np.abs(hits - sums).sum() / total),
            "max_calibration_error": float(np.nanmax(np.abs(accuracy - confidence))),
            "accuracy": float(hits.sum() / total),
            "mean_confidence": float(sums.sum() / total),
            "pixels": int(total),
            "reliability": {
                "confidence": confidence.tolist(),
                "accuracy": accuracy.tolist(),
                "pixels": list(self._pixels),
            },
        }

    def __repr__(self) -> str:
        return f"CalibrationError({self.classes} classes, {self.bins} bins, {sum(self._pixels)} pixels)"
