"""Counts of boundary pixels, from which boundary F1 and boundary IoU follow.

The **contour** of a label map is drawn by the scored pixels that have one of their four neighbours scored and of
another label.  The edge of the image bounds nothing, and neither do pixels without ground truth: what lies there
isn't known.

A scene that is read in windows gives the same counts as in one piece, if every window reaches :func:`margin` pixels
beyond the core that is counted of it (or up to the scene's edge) and the cores don't overlap.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import disk

from rsovlib.metrics.counts import (
    Counts,
    Floats,
    MeanOver,
    counted_classes,
    harmonic_mean,
    mean_over_classes,
    ratio,
)
from rsovlib.metrics.inputs import Core

COLUMNS = 7
"""Contour pixels: predicted, those near a true one, true, those near a predicted one. Band: predicted, true, both."""


def margin(tolerance: int | None, width: int | None) -> int:
    """How many pixels around a core decide about what is counted in it."""
    return max(-1 if tolerance is None else tolerance, (width or 0) - 1) + 1


def boundary_counts(
    predicted: NDArray[np.int64],
    true: NDArray[np.int64],
    classes: int,
    ignore_index: int,
    tolerance: int | None,
    width: int | None,
    core: Core,
) -> Counts:
    """What is counted in one image, or in the core of one window.

    Args:
        predicted: (H, W) labels.
        true: (H, W) labels.
        classes: K.
        ignore_index: label of pixels without ground truth, and in the prediction of no answer.
        tolerance: how far apart two contour pixels of one class may lie to be the same, in pixels; None for none.
        width: of the band along the contour, in pixels; None for none.
        core: the part that is counted.

    Returns:
        (K, 7): :data:`COLUMNS`.
    """
    counts = np.zeros((classes, COLUMNS), dtype=np.int64)
    scored = true != ignore_index
    predicted_contour = _contour(predicted, scored)
    true_contour = _contour(true, scored)
    # "No answer" is no class: its own contour isn't counted.
    answered = predicted != ignore_index
    if tolerance is not None:
        pairs = ((predicted, predicted_contour & answered), (true, true_contour))
        for column, ((own, here), (other, there)) in enumerate((pairs, pairs[::-1])):
            found, near = _near_another(own, here, other, there, tolerance, core)
            counts[:, 2 * column] = np.bincount(found, minlength=classes)
            counts[:, 2 * column + 1] = np.bincount(found[near], minlength=classes)
    if width is not None:
        predicted_band = (_within(predicted_contour, width - 1) & scored & answered)[core]
        true_band = (_within(true_contour, width - 1) & scored)[core]
        both = predicted_band & true_band & (predicted == true)[core]
        for column, (labels, band) in enumerate(((predicted, predicted_band), (true, true_band), (true, both))):
            counts[:, 4 + column] = np.bincount(labels[core][band], minlength=classes)
    return counts


def boundary_scores(
    counts: NDArray[np.integer] | Floats, tolerance: int | None, width: int | None, mean_over: MeanOver
) -> dict[str, Floats]:
    """Mean boundary F1 and boundary IoU from the counts (..., K, 7) of whole sets, each (...)."""
    values = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    predicted, predicted_near, true, true_near, predicted_band, true_band, both = values
    nothing = np.full(counts.shape[:-2], np.nan)
    scores = {"boundary_f1": nothing, "boundary_iou": nothing}
    if tolerance is not None:
        counted = counted_classes(true, predicted, mean_over)
        per_class = harmonic_mean(ratio(predicted_near, predicted), ratio(true_near, true))
        scores["boundary_f1"] = mean_over_classes(np.where(counted, per_class, np.nan))
    if width is not None:
        counted = counted_classes(true_band, predicted_band, mean_over)
        scores["boundary_iou"] = mean_over_classes(ratio(both, predicted_band + true_band - both, counted))
    return scores


def _contour(labels: NDArray[np.int64], scored: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where a scored pixel has one of its four neighbours scored and of another label; (H, W)."""
    contour = np.zeros(labels.shape, dtype=bool)
    for here, there in (((slice(1, None),), (slice(None, -1),)), ((..., slice(1, None)), (..., slice(None, -1)))):
        differ = (labels[here] != labels[there]) & scored[here] & scored[there]
        contour[here] |= differ
        contour[there] |= differ
    return contour


def _near_another(
    labels: NDArray[np.int64],
    here: NDArray[np.bool_],
    others: NDArray[np.int64],
    there: NDArray[np.bool_],
    radius: int,
    core: Core,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The contour pixels in the core, and which have one of the other map with the same label within a radius.

    Contours are few pixels and the radius is small, so trying every offset for all classes together is faster than
    a distance transform or a dilation for each class.

    Returns:
        labels (n,) of the contour pixels, and (n,) bool.
    """
    inside = np.zeros_like(here)
    inside[core] = here[core]
    rows, columns = np.nonzero(inside)
    wanted = labels[rows, columns]
    padded = np.pad(np.where(there, others, -1), radius, constant_values=-1)
    near = np.zeros(wanted.shape, dtype=bool)
    for down, right in np.argwhere(disk(radius)):
        near |= padded[rows + down, columns + right] == wanted
    return wanted, near


def _within(contour: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """Pixels at most so far (Euclidean) from the contour; (H, W).

    One distance serves all classes: on the way to the nearest contour pixel of another class lies one of one's own.
    """
    if distance == 0 or not contour.any():
        return contour
    return ndimage.distance_transform_edt(~contour) <= distance
