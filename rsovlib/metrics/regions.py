"""How well a partition into regions (superpixels) fits the true classes.

Neither score needs predictions: they say what a method that labels whole regions, or lets classes change at their
borders only, could reach at best.  Both rise with the number of regions, so compare partitions of equal count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rsovlib.errors import InputError
from rsovlib.metrics.boundary import _contour


@dataclass(frozen=True)
class RegionScores:
    """Scores of one partition.

    Attributes:
        regions: how many there are.
        boundary_recall: share of the true classes' boundary pixels that lie near a border of regions; NaN where the
            truth has no boundary.
        boundary_pixels: share of all scored pixels that lie at a border of regions: what the recall was paid with.
        achievable: largest pixel accuracy of any labelling with one class a region (Liu et al., CVPR 2011,
            doi:10.1109/CVPR.2011.5995323); NaN where nothing is scored.
    """

    regions: int
    boundary_recall: float
    boundary_pixels: float
    achievable: float


def region_scores(
    regions: NDArray[np.integer], labels: NDArray[np.integer], *, tolerance: float = 2.0, ignore_index: int = 255
) -> RegionScores:
    """Scores of a partition against the truth.

    Args:
        regions: (H, W), any whole numbers.
        labels: (H, W) true classes.
        tolerance: how far from a true boundary pixel the region's border may lie, in pixels (Euclidean).
        ignore_index: label of pixels that don't count.

    Raises:
        InputError: the two differ in size.
    """
    if regions.shape != labels.shape or regions.ndim != 2:
        raise InputError(f"The regions are {regions.shape} and the labels {labels.shape}; they must be (H, W) alike.")
    scored = labels != ignore_index
    borders = _contour(regions.astype(np.int64), np.ones(regions.shape, bool))
    true = _contour(labels.astype(np.int64), scored)
    recall = np.nan
    if true.any():
        # Without any border every distance would be measured to nothing.
        near = ndimage.distance_transform_edt(~borders) <= tolerance if borders.any() else np.zeros_like(true)
        recall = float(near[true].mean())
    names, inside = np.unique(regions, return_inverse=True)
    kinds, classes = np.unique(labels[scored], return_inverse=True)
    pairs = inside.reshape(regions.shape)[scored] * max(len(kinds), 1) + classes
    counts = np.bincount(pairs, minlength=len(names) * max(len(kinds), 1)).reshape(len(names), -1)
    total = int(scored.sum())
    return RegionScores(
        regions=len(names),
        boundary_recall=recall,
        boundary_pixels=float(borders[scored].mean()) if total else np.nan,
        achievable=float(counts.max(axis=1).sum() / total) if total else np.nan,
    )


def majority(
    regions: NDArray[np.integer], labels: NDArray[np.integer], *, ignore_index: int = 255
) -> NDArray[np.int64]:
    """Every region in its most frequent class.

    Args:
        regions: (H, W), any whole numbers.
        labels: (H, W) classes; ``ignore_index`` has no vote.
        ignore_index: see there.

    Returns:
        (H, W) labels; ``ignore_index`` in regions without a vote. Of equally frequent classes the first is taken.

    Raises:
        InputError: the two differ in size.
    """
    if regions.shape != labels.shape:
        raise InputError(f"The regions are {regions.shape} and the labels {labels.shape}; they must be (H, W) alike.")
    inside = np.unique(regions, return_inverse=True)[1].reshape(regions.shape)
    voting = labels != ignore_index
    kinds, classes = np.unique(labels[voting], return_inverse=True)
    if not len(kinds):
        return np.full(regions.shape, ignore_index, dtype=np.int64)
    counts = np.bincount(inside[voting] * len(kinds) + classes, minlength=(inside.max() + 1) * len(kinds))
    table = counts.reshape(-1, len(kinds))
    chosen = np.where(table.any(axis=1), kinds[table.argmax(axis=1)], ignore_index)
    return chosen[inside].astype(np.int64)
