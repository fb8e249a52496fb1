"""Scores of label maps against ground truth, accumulated over a whole set of images.

Everything follows from counts: a confusion matrix by torchmetrics, and boundary pixels.  Counts add up over windows,
images and workers, so the score of a set doesn't depend on how it was cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from rsovlib.errors import InputError, unknown_name
from rsovlib.metrics.boundary import COLUMNS, boundary_counts, boundary_scores, margin
from rsovlib.metrics.counts import Counts, MeanOver, check_mean_over, count_pixels, plain_number, set_scores
from rsovlib.metrics.inputs import Core, Labels, check_same_shape, checked_core, checked_labels, image_names
from rsovlib.metrics.state import check_mergeable, read_state, read_table

_SETTINGS = (
    "classes",
    "ignore_index",
    "unseen",
    "boundary_tolerance",
    "boundary_width",
    "mean_over",
    "strata",
    "keep_images",
)
_PER_CLASS = ("iou", "f1", "accuracy", "precision")


class SegmentationMetrics:
    """Streaming scores of predicted label maps over a set of images.

    Feed it image by image, or window by window, with :meth:`update`, join the counts of several processes with
    :meth:`merge`, and read the scores with :meth:`compute`.  Only counts are kept, so the memory doesn't grow with
    the set (with ``keep_images``: by the non-zero counts of each image).

    How the numbers are averaged, since that decides them by tens of points:

    * All images of the set are counted in one pot; the papers score a set, not the mean of its images.
    * Every mean over classes is by default over the classes that have ground truth somewhere in the set.  One of these
      that is never predicted counts as 0; a class without ground truth is left out of the means, its own entry is
      ``nan``, but predicting it is still an error that lowers the scores of the classes it was predicted in place of.
      ``mean_over`` chooses otherwise; :func:`rsovlib.metrics.as_in` sets what each paper does.
    * Pixels whose ground truth is ``ignore_index`` are dropped.  A *prediction* of ``ignore_index`` where there is
      ground truth means "no answer": it counts as a miss of the true class.

    Args:
        classes: names of the K classes; label value = position in this list.
        ignore_index: the label of pixels without ground truth, and of pixels without an answer.
        unseen: names of the classes that were not trained on, for ``miou_unseen`` against ``miou_seen``.
        boundary_tolerance: how far apart, in pixels (Euclidean), a predicted and a true boundary pixel may lie to
            count as the same, in ``boundary_f1``; 0 asks for the very pixel, ``None`` leaves this score out.
        boundary_width: d of Cheng et al., the width in pixels (Euclidean) of the band along the boundary that
            ``boundary_iou`` compares; 1 takes the boundary pixels alone, ``None`` leaves this score out.  The
            authors take 2 % of the image's diagonal: 7 pixels for 256 x 256 (the default), 14 for 512 x 512.
        mean_over: which classes the means run over: ``"truth"``, ``"union"`` (also those predicted without ground
            truth, as 0; torchmetrics' and mmsegmentation's rule), or ``"all"`` (absent ones as 0).
        strata: names of kinds of pixels that are scored separately as well, such as ``("clear", "cloudy")``.
        keep_images: keep the counts of every image too, for confidence intervals and paired tests.

    Raises:
        InputError: no classes, a name twice, an unknown unseen class or rule, a negative distance, or an
            ``ignore_index`` that is a class.
    """

    def __init__(
        self,
        classes: Sequence[str],
        ignore_index: int = 255,
        unseen: Iterable[str] = (),
        boundary_tolerance: int | None = 2,
        boundary_width: int | None = 7,
        mean_over: MeanOver = "truth",
        strata: Sequence[str] = (),
        keep_images: bool = False,
    ) -> None:
        for what, names in (("classes", classes), ("unseen", unseen), ("strata", strata)):
            if isinstance(names, str):  # a list of its letters, if nobody stops it
                raise InputError(f"{what}={names!r} is one text; give a list of names, such as [{names!r}].")
        self.classes = list(classes)
        self.ignore_index = ignore_index
        self.unseen = frozenset(unseen)
        self.boundary_tolerance = boundary_tolerance
        self.boundary_width = boundary_width
        self.mean_over: MeanOver = mean_over
        self.strata = list(strata)
        self.keep_images = keep_images
        self._check_settings()
        self.reset()

    def _check_settings(self) -> None:
        if not self.classes:
            raise InputError("The list of classes is empty; name at least one class to score.")
        for names, kind in ((self.classes, "class"), (self.strata, "stratum")):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise InputError(f"The {kind} {twice[0]!r} is in the list twice; every {kind} needs a name of its own.")
        for name in sorted(self.unseen):
            if name not in self.classes:
                raise unknown_name("class (given as unseen)", name, self.classes)
        check_mean_over(self.mean_over)
        for what, names in (("class", self.classes), ("stratum", self.strata)):
            if 0 <= self.ignore_index < len(names):
                raise InputError(
                    f"ignore_index={self.ignore_index} is the label of the {what} {names[self.ignore_index]!r}; "
                    f"take a value outside 0..{len(names) - 1}, such as 255 or -1."
                )
        if self.boundary_tolerance is not None and self.boundary_tolerance < 0:
            raise InputError(f"boundary_tolerance={self.boundary_tolerance} is negative; give a distance in pixels.")
        if self.boundary_width is not None and self.boundary_width < 1:
            raise InputError(f"boundary_width={self.boundary_width}: the band is at least 1 pixel wide.")

    def reset(self) -> None:
        """Forget everything counted so far."""
        count = len(self.classes)
        # Stratum 0 holds the pixels of no named stratum. One column more than classes: no answer.
        self._shape = (len(self.strata) + 1, count, count + 1)
        self._confusion: Counts = np.zeros(self._shape, dtype=np.int64)
        self._boundary: Counts = np.zeros((count, COLUMNS), dtype=np.int64)
        # Image -> its non-zero counts: positions in the flattened (confusion, boundary), and the values.
        self._images: dict[str, tuple[Counts, Counts]] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """What this was made with, as plain values."""
        return {name: getattr(self, name) for name in _SETTINGS} | {"unseen": sorted(self.unseen)}

    @property
    def confusion(self) -> Counts:
        """Pixel counts (K, K + 1) int64: row = true class, column = predicted class, last column = no answer."""
        return self._confusion.sum(axis=0)

    @property
    def images(self) -> list[str]:
        """Names of the images whose counts are kept, sorted."""
        return sorted(self._images)

    @property
    def window_margin(self) -> int:
        """How many pixels a window must reach beyond its core for the boundary scores to be those of one piece."""
        return margin(self.boundary_tolerance, self.boundary_width)

    # ---- counting ----------------------------------------------------------------------------------------------------

    def update(
        self,
        prediction: Labels,
        target: Labels,
        *,
        image: str | Sequence[str] | None = None,
        core: Core | None = None,
        strata: Labels | None = None,
    ) -> None:
        """Count one label map, or a batch of them, or a window of a scene.

        A scene that is too large comes in windows.  Nothing is counted twice if their cores don't overlap, whatever
        the windows themselves do; and all scores, those of boundaries too, equal those of the scene in one piece if
        every window reaches :attr:`window_margin` pixels beyond its core, or up to the scene's edge.

        Args:
            prediction: (H, W) or (B, H, W) integer labels 0..K-1, or ``ignore_index`` for no answer.
            target: the ground truth, same shape, labels 0..K-1 or ``ignore_index``.
            image: name of the image, a list for a batch; needed with ``keep_images``, without meaning otherwise.
                Counts under one name add up: windows of a scene carry the scene's name.
            core: (rows, columns) as slices, the part to count; what lies around it is only looked at to see whether
                there is a boundary.  Everything by default.
            strata: same shape as the target, 0..S-1 for the named strata (or bool for two of them), or
                ``ignore_index`` for pixels that belong to none.  Needed when there are strata.

        Raises:
            InputError: the shapes differ or aren't (H, W) or (B, H, W), the type isn't integer, there is a label
                that is neither a class nor ``ignore_index``, or names, core or strata don't fit.  Nothing is counted.
        """
        predicted = checked_labels(prediction, "prediction", len(self.classes), self.ignore_index)
        true = checked_labels(target, "target", len(self.classes), self.ignore_index)
        check_same_shape(predicted, "prediction", true)
        part = checked_core(core, *true.shape[1:])
        kinds = self._checked_strata(strata, true)
        names = image_names(image, len(true)) if self.keep_images else []

        inside = (slice(None), *part)
        chunks = [slice(i, i + 1) for i in range(len(true))] if self.keep_images else [slice(None)]
        confusions = [
            self._count_strata(
                predicted[inside][chunk], true[inside][chunk], None if kinds is None else kinds[inside][chunk]
            )
            for chunk in chunks
        ]
        boundaries = self._count_boundaries(predicted, true, part)
        self._confusion += np.sum(confusions, axis=0)
        self._boundary += np.sum(boundaries, axis=0)
        for name, confusion, boundary in zip(names, confusions, boundaries, strict=False):
            self._add_image(name, np.concatenate([confusion.ravel(), boundary.ravel()]))

    def _checked_strata(self, strata: Labels | None, true: torch.Tensor) -> torch.Tensor | None:
        if (strata is not None) != bool(self.strata):
            raise InputError(
                f"update(..., strata=...) needs the map of the strata {', '.join(self.strata)}."
                if self.strata
                else "A map of strata was given, but none are named; make SegmentationMetrics(..., strata=[...])."
            )
        if strata is None:
            return None
        kinds = checked_labels(strata, "map of strata", len(self.strata), self.ignore_index).to(true.device)
        check_same_shape(kinds, "map of strata", true)
        return kinds

    def _count_strata(self, predicted: torch.Tensor, true: torch.Tensor, kinds: torch.Tensor | None) -> Counts:
        counts = np.zeros(self._shape, dtype=np.int64)
        if kinds is None:
            counts[0] = count_pixels(predicted, true, len(self.classes), self.ignore_index)
            return counts
        for row, kind in enumerate([self.ignore_index, *range(len(self.strata))]):
            there = torch.where(kinds == kind, true, self.ignore_index)
            counts[row] = count_pixels(predicted, there, len(self.classes), self.ignore_index)
        return counts

    def _count_boundaries(self, predicted: torch.Tensor, true: torch.Tensor, core: Core) -> list[Counts]:
        if self.boundary_tolerance is None and self.boundary_width is None:
            return [np.zeros_like(self._boundary)] * len(true)
        settings = (len(self.classes), self.ignore_index, self.boundary_tolerance, self.boundary_width, core)
        pairs = zip(predicted.cpu().numpy(), true.cpu().numpy(), strict=True)
        return [boundary_counts(one, other, *settings) for one, other in pairs]

    def _add_image(self, name: str, vector: Counts) -> None:
        if name in self._images:
            positions, values = self._images[name]
            vector[positions] += values
        positions = np.flatnonzero(vector)
        self._images[name] = (positions, vector[positions])

    # ---- joining -----------------------------------------------------------------------------------------------------

    def merge(self, other: SegmentationMetrics) -> None:
        """Add the counts of another part of the set, for example from another process.

        Whole numbers are added, image by image where these are kept: the result doesn't depend on the order.

        Raises:
            InputError: ``other`` was made with other classes or settings.
        """
        check_mergeable(self.settings, other.settings, "Scores")
        self._confusion += other._confusion
        self._boundary += other._boundary
        for name, (positions, values) in other._images.items():
            vector = np.zeros(self._confusion.size + self._boundary.size, dtype=np.int64)
            vector[positions] = values
            self._add_image(name, vector)

    def state_dict(self) -> dict[str, Any]:
        """Settings and counts as plain lists, numbers and text: for JSON, or to send between workers."""
        return {
            "kind": type(self).__name__,
            "settings": self.settings,
            "confusion": self._confusion.tolist(),
            "boundary": self._boundary.tolist(),
            "images": {name: [at.tolist(), values.tolist()] for name, (at, values) in sorted(self._images.items())},
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Self:
        """What :meth:`state_dict` gave, as an object again.

        Raises:
            InputError: not such a dictionary, or counts that don't fit its settings.
        """
        settings = read_state(state, cls.__name__, _SETTINGS, ("confusion", "boundary", "images"))
        metrics = cls(**settings)
        metrics._confusion = read_table(state["confusion"], "confusion", metrics._confusion.shape)
        metrics._boundary = read_table(state["boundary"], "boundary", metrics._boundary.shape)
        size = metrics._confusion.size + metrics._boundary.size
        for name, entry in state["images"].items():
            at, values = read_table(entry, f"images[{name!r}]", (2, None))
            if at.size and (at.min() < 0 or at.max() >= size):
                raise InputError(f"The saved counts of the image {name!r} don't fit the saved classes.")
            metrics._images[name] = (at, values)
        return metrics

    # ---- scores ------------------------------------------------------------------------------------------------------

    def compute(self) -> dict[str, Any]:
        """The scores of everything counted so far, as fractions between 0 and 1.

        Returns:
            A dictionary with

            * ``miou``: mean over classes of TP / (TP + FP + FN);
            * ``miou_seen``, ``miou_unseen``: the same over a part of the classes; ``nan`` when it is empty;
            * ``miou_harmonic``: their harmonic mean 2 s u / (s + u), 0 when both are 0;
            * ``pixel_accuracy``: correct pixels / pixels with ground truth;
            * ``mean_accuracy``, ``mean_precision``: mean over classes of TP / (TP + FN), of TP / (TP + FP);
            * ``mean_f1``: mean over classes of 2 TP / (2 TP + FP + FN);
            * ``boundary_f1``: mean over classes of the harmonic mean of boundary precision and recall within
              ``boundary_tolerance`` pixels (after Csurka et al. 2013, "What is a good evaluation measure for semantic
              segmentation?", but with the boundary pixels of the whole set in one pot, so that scores can be merged);
              a class whose ground truth has no boundary is left out; ``nan`` when no class has one, or when the
              score was left out;
            * ``boundary_iou``: mean over classes of the IoU of the two bands of ``boundary_width`` pixels inside the
              predicted and the true regions along their boundaries (Cheng et al. 2021, "Boundary IoU",
              arXiv:2103.16562), again with all images in one pot; the authors' program measures the
              distance by a square and counts the image's edge as a boundary, here it is Euclidean as in their text and
              the edge is none; ``nan`` as before;
            * ``boundary_tolerance``, ``boundary_width``: as given;
            * ``iou``, ``f1``, ``accuracy``, ``precision``: for each class by name; ``nan`` for a class that isn't
              counted;
            * ``pixels``: number of pixels scored;
            * ``strata``: for each stratum by name the same scores of its pixels alone, without those of boundaries.

        Raises:
            InputError: no pixel with ground truth has been counted.
        """
        pixels = int(self._confusion.sum())
        if pixels == 0:
            raise InputError("There is nothing to score: no pixel with ground truth has been given to update().")
        boundary = boundary_scores(self._boundary, self.boundary_tolerance, self.boundary_width, self.mean_over)
        return {
            **self._plain(self.confusion),
            **{name: plain_number(value) for name, value in boundary.items()},
            "boundary_tolerance": self.boundary_tolerance,
            "boundary_width": self.boundary_width,
            "strata": {name: self._plain(self._confusion[row]) for row, name in enumerate(self.strata, start=1)},
        }

    def _plain(self, confusion: Counts) -> dict[str, Any]:
        scores = set_scores(confusion, self._unseen, self.mean_over)
        classes = scores.pop("classes")
        plain: dict[str, Any] = {name: plain_number(value) for name, value in scores.items()}
        for name in _PER_CLASS:
            plain[name] = {label: plain_number(value) for label, value in zip(self.classes, classes[name], strict=True)}
        return plain | {"pixels": int(confusion.sum())}

    @property
    def _unseen(self) -> NDArray[np.bool_]:
        return np.array([name in self.unseen for name in self.classes])

    # ---- what intervals and tests ask for ----------------------------------------------------------------------------

    def table(self) -> sparse.csr_array:
        """Counts of the kept images in the order of :attr:`images`, (n, F): what a resampled set adds up.

        Raises:
            InputError: the counts of single images weren't kept.
        """
        if not self.keep_images:
            raise InputError(
                "Only the counts of the whole set were kept; make SegmentationMetrics(..., keep_images=True) for "
                "intervals and tests over its images."
            )
        rows = [self._images[name] for name in self.images]
        starts = np.cumsum([0, *(len(at) for at, _ in rows)])
        at, values = (np.concatenate([row[i] for row in rows] or [np.empty(0, np.int64)]) for i in (0, 1))
        return sparse.csr_array((values, at, starts), shape=(len(rows), self._confusion.size + self._boundary.size))

    def scores_of(self, totals: NDArray[np.integer] | NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """All scores of several sets at once.

        Args:
            totals: (n, F), each row a sum of rows of :meth:`table`.

        Returns:
            Name -> (n,): the means by their names in :meth:`compute`, the classes as ``iou/water``, strata as
            ``cloudy/miou`` and ``cloudy/iou/water``.
        """
        cut = self._confusion.size
        confusion = totals[:, :cut].reshape(-1, *self._shape)
        boundary = totals[:, cut:].reshape(-1, *self._boundary.shape)
        found = boundary_scores(boundary, self.boundary_tolerance, self.boundary_width, self.mean_over)
        parts = {"": confusion.sum(axis=1)}
        parts |= {f"{name}/": confusion[:, row] for row, name in enumerate(self.strata, start=1)}
        for prefix, part in parts.items():
            scores = set_scores(part, self._unseen, self.mean_over)
            for kind, values in scores.pop("classes").items():
                found |= {f"{prefix}{kind}/{name}": values[:, i] for i, name in enumerate(self.classes)}
            found |= {prefix + name: values for name, values in scores.items()}
        return found

    def __repr__(self) -> str:
        counted = f"{int(self._confusion.sum())} pixels" + (
            f" of {len(self._images)} images" if self.keep_images else ""
        )
        return f"SegmentationMetrics({len(self.classes)} classes, {counted})"
