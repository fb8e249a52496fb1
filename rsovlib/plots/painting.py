"""Class maps as pictures: colours over an image, and how much of it each class takes."""

from __future__ import annotations

import numpy as np

from rsovlib.errors import InputError


def overlay(image: np.ndarray, labels: np.ndarray, colours: np.ndarray, opacity: float = 0.5) -> np.ndarray:
    """The image with every class tinted in its colour.

    Args:
        image: (H, W, 3) uint8.
        labels: (H, W) integers; pixels outside 0..K-1 (nodata, no answer) stay as they are.
        colours: (K, 3) uint8, as :func:`class_colours` gives them.
        opacity: 0 shows only the image, 1 only the colours.

    Returns:
        (H, W, 3) uint8, a new array.

    Raises:
        InputError: sizes that don't fit together, or an opacity outside 0..1.
    """
    picture, classes = np.asarray(image), np.asarray(labels)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise InputError(f"The image to draw on is {picture.shape} {picture.dtype}; give (H, W, 3) uint8.")
    if classes.shape != picture.shape[:2]:
        raise InputError(f"The label map is {classes.shape} and the image {picture.shape[:2]}; they must be one size.")
    if not 0 <= opacity <= 1:
        raise InputError(f"opacity={opacity} is outside 0..1.")
    painted = np.array(picture)
    known = (classes >= 0) & (classes < len(colours))
    # Blending in whole numbers, 256 levels of opacity: half the memory and time of floats, exact at both ends.
    level = round(opacity * 256)
    tint = np.asarray(colours, dtype=np.uint16)[classes[known]]
    painted[known] = (painted[known].astype(np.uint16) * (256 - level) + tint * level + 128) >> 8
    return painted


def class_shares(labels: np.ndarray, classes: int, valid: np.ndarray | None = None) -> np.ndarray:
    """The share of each class among the valid pixels that have a class.

    Args:
        labels: (H, W) integers; what lies outside 0..classes-1 isn't counted.
        classes: K.
        valid: (H, W) bool, where there is data; everywhere by default.

    Returns:
        (K,) float64, adds up to 1, or all 0 when no pixel counts.
    """
    counted = (labels >= 0) & (labels < classes)
    if valid is not None:
        counted &= valid
    counts = np.bincount(np.asarray(labels)[counted].astype(np.int64), minlength=classes)
    return counts / max(counts.sum(), 1)
