"""The missing-modality paper's scores: IoU and F1 of one class from unthresholded probabilities, image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from rsovlib.errors import InputError
from rsovlib.metrics.counts import Counts, Floats, harmonic_mean, plain_number, ratio
from rsovlib.metrics.inputs import (
    Core,
    Labels,
    check_range,
    check_same_shape,
    checked_core,
    checked_labels,
    checked_probabilities,
    image_names,
)
from rsovlib.metrics.state import check_mergeable, from_fixed, read_state, read_table, to_fixed

_SETTINGS = ("target", "ignore_index", "threshold")
_EPSILON = 1e-8
# Per image: sum of p y, sum of p (1 - y), pixels with y = 1, with y = 0, and true and false positives by threshold.
_COLUMNS = 6


class PerImageSoftMetrics:
    """IoU and F1 of a binary task per image, averaged over the images, beside the usual thresholded ones.

    This is how "Latent-space-guided scenario sampling" (missing modalities) scores, after its released program.  For
    every image, with the probability p of the class in each pixel and the mask y:

        TP = sum p y,   FN = sum (1 - p) y,   FP = sum p (1 - y),   IoU = (TP + e) / (TP + FN + FP + e),   e = 1e-8,

    F1 is the harmonic mean of precision and recall of the same sums (with e in both, as in the IoU; where the authors
    put it in F1 is not known; it is worth 1e-8 of a pixel).  **If the mask of an image is empty, both y and
    p are inverted**: the background is scored.  The tables print the mean over the images and, after the +-, the
    *population* standard deviation over the images (not over folds or seeds).

    What this definition does, so that no one is surprised: a model that never finds anything scores the share of
    the empty images; and a constant p = 0.01 on an empty image scores an IoU of 0.99.  Hence the scores beside it:
    thresholded, of all images in one pot.

    Images may come in windows, under one name: whether a mask is empty is decided when all of them are there.

    Args:
        target: name of the class, for tables.
        ignore_index: the mask's value where there is no ground truth; those pixels are dropped, and an image without
            others isn't counted.
        threshold: a pixel is of the class, in the thresholded scores, where p is at least this.

    Raises:
        InputError: an ``ignore_index`` of 0 or 1, or a threshold outside (0, 1].
    """

    def __init__(self, target: str = "target", ignore_index: int = 255, threshold: float = 0.5) -> None:
        self.target = target
        self.ignore_index = ignore_index
        self.threshold = threshold
        if ignore_index in (0, 1):
            raise InputError(f"ignore_index={ignore_index} is a value of the mask; take another, such as 255.")
        if not 0 < threshold <= 1:
            raise InputError(f"threshold={threshold}: give a probability above 0 and at most 1.")
        self.reset()

    def reset(self) -> None:
        """Forget everything counted so far."""
        self._images: dict[str, Counts] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """What this was made with, as plain values."""
        return {name: getattr(self, name) for name in _SETTINGS}

    @property
    def images(self) -> list[str]:
        """Names of the images that have ground truth, sorted."""
        return sorted(name for name, sums in self._images.items() if sums[2] + sums[3] > 0)

    def update(
        self,
        probability: NDArray[np.floating[Any]] | torch.Tensor,
        mask: Labels,
        *,
        image: str | Sequence[str],
        core: Core | None = None,
    ) -> None:
        """Count one image, a batch, or a window of an image.

        Args:
            probability: (H, W) or (B, H, W), of the class in each pixel, 0 to 1, not thresholded.
            mask: same shape, 1 or True where the class is, 0 elsewhere, ``ignore_index`` where it isn't known.
            image: name of the image, or a list for a batch.  Windows of one image carry its name.
            core: (rows, columns) as slices: the part to count, where windows overlap.

        Raises:
            InputError: shapes differ, NaN or a value outside 0..1 where there is ground truth, a mask of other
                values, or names that don't fit.  Nothing is counted.
        """
        values = checked_probabilities(probability, "probabilities", (2, 3))
        true = checked_labels(mask, "mask", 2, self.ignore_index).to(values.device)
        check_same_shape(values, "map of probabilities", true, "mask")
        inside = (slice(None), *checked_core(core, *true.shape[1:]))
        names = image_names(image, len(true))
        counts = []
        for one, labels in zip(values[inside], true[inside], strict=True):
            known = labels != self.ignore_index
            p, y = one[known], labels[known].bool()
            check_range(p, "probabilities")
            fixed, found = to_fixed(p), p >= self.threshold
            sums = (fixed[y].sum(), fixed[~y].sum(), y.sum(), (~y).sum(), (found & y).sum(), (found & ~y).sum())
            counts.append(np.array([int(value) for value in sums], dtype=np.int64))
        for name, row in zip(names, counts, strict=True):
            self._images[name] = self._images.get(name, 0) + row

    def merge(self, other: PerImageSoftMetrics) -> None:
        """Add the images of another part of the set; the same name is the same image, and its windows add up.

        Raises:
            InputError: ``other`` was made with other settings.
        """
        check_mergeable(self.settings, other.settings, "Scores")
        for name, row in other._images.items():
            self._images[name] = self._images.get(name, 0) + row

    def state_dict(self) -> dict[str, Any]:
        """Settings and sums as plain lists, numbers and text: for JSON, or to send between workers."""
        return {
            "kind": type(self).__name__,
            "settings": self.settings,
            "images": {name: row.tolist() for name, row in sorted(self._images.items())},
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Self:
        """What :meth:`state_dict` gave, as an object again.

        Raises:
            InputError: not such a dictionary.
        """
        metrics = cls(**read_state(state, cls.__name__, _SETTINGS, ("images",)))
        for name, row in state["images"].items():
            metrics._images[name] = read_table(row, f"images[{name!r}]", (_COLUMNS,))
        return metrics

    def per_image(self) -> dict[str, Floats]:
        """Scores of every image in the order of :attr:`images`, each (n,).

        Returns:
            ``iou``, ``f1`` (soft, as the paper defines them), and ``empty`` (1 where the mask is empty, else 0).
        """
        rows = [self._images[name] for name in self.images]
        hits, alarms = (np.array([from_fixed(int(row[i])) for row in rows]) for i in (0, 1))
        inside, outside = (np.array([float(row[i]) for row in rows]) for i in (2, 3))
        empty = inside == 0
        # Inverting y and p swaps p y with (1 - p)(1 - y), and p (1 - y) with (1 - p) y.
        found = np.where(empty, outside - alarms, hits)
        false = np.where(empty, inside - hits, alarms)
        missed = np.where(empty, alarms, inside - hits)
        precision = (found + _EPSILON) / (found + false + _EPSILON)
        recall = (found + _EPSILON) / (found + missed + _EPSILON)
        return {
            "iou": (found + _EPSILON) / (found + missed + false + _EPSILON),
            "f1": 2 * precision * recall / (precision + recall),
            "empty": empty.astype(np.float64),
        }

    def compute(self) -> dict[str, Any]:
        """The scores of everything counted so far, as fractions between 0 and 1.

        Returns:
            A dictionary with

            * ``soft_iou_per_image``, ``soft_f1_per_image``: the paper's numbers, mean over the images;
            * ``soft_iou_std``, ``soft_f1_std``: the paper's +-, population standard deviation over the images;
            * ``soft_iou_nonempty``, ``soft_f1_nonempty``: the same mean over the images whose mask isn't empty;
            * ``iou_pooled``, ``f1_pooled``: thresholded, all images in one pot;
            * ``iou_pooled_nonempty``, ``f1_pooled_nonempty``: of the images whose mask isn't empty alone, so
              that false alarms on empty images don't count;
            * ``empty_share``: the share of images with an empty mask, which is what finding nothing scores;
            * ``images``: how many there are.

            What has no image or no pixel to go by is ``nan``.

        Raises:
            InputError: no image with ground truth has been counted.
        """
        if not self.images:
            raise InputError("There is nothing to score: no image with ground truth has been given to update().")
        scores = self.scores_of(self.table().sum(axis=0, keepdims=True))
        return {name: plain_number(value[0]) for name, value in scores.items()} | {"images": len(self.images)}

    def table(self) -> Floats:
        """What a resampled set adds up, of the images in the order of :attr:`images`; (n, F)."""
        scores = self.per_image()
        iou, f1, there = scores["iou"], scores["f1"], 1 - scores["empty"]
        counts = np.array([self._images[name] for name in self.images], dtype=np.float64).reshape(-1, _COLUMNS)
        pixels = np.stack([counts[:, 4], counts[:, 5], counts[:, 2]], axis=1)  # TP, FP, TP + FN
        soft = np.stack([np.ones_like(iou), iou, iou**2, f1, f1**2, there, there * iou, there * f1], axis=1)
        return np.concatenate([soft, pixels, there[:, None] * pixels], axis=1)

    def scores_of(self, totals: Floats) -> dict[str, Floats]:
        """All scores of several sets at once, each (n,), from sums (n, F) of rows of :meth:`table`."""
        count, iou, iou2, f1, f12, there, iou_there, f1_there = totals[:, :8].T
        some = count > 0
        mean_iou, mean_f1 = ratio(iou, count, some), ratio(f1, count, some)
        scores = {
            "soft_iou_per_image": mean_iou,
            "soft_f1_per_image": mean_f1,
            "soft_iou_std": np.sqrt(np.maximum(ratio(iou2, count, some) - mean_iou**2, 0)),
            "soft_f1_std": np.sqrt(np.maximum(ratio(f12, count, some) - mean_f1**2, 0)),
            "soft_iou_nonempty": ratio(iou_there, there, there > 0),
            "soft_f1_nonempty": ratio(f1_there, there, there > 0),
        }
        for suffix, (hits, alarms, inside) in (("", totals[:, 8:11].T), ("_nonempty", totals[:, 11:14].T)):
            union = inside + alarms
            scores[f"iou_pooled{suffix}"] = ratio(hits, union, union > 0)
            precision = ratio(hits, hits + alarms)
            scores[f"f1_pooled{suffix}"] = np.where(union > 0, harmonic_mean(precision, ratio(hits, inside)), np.nan)
        scores["empty_share"] = ratio(count - there, count, some)
        return scores

    def __repr__(self) -> str:
        return f"PerImageSoftMetrics({self.target!r}, {len(self.images)} images)"
