"""A figure that shows itself, and pictures no larger than can be seen."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from skimage.transform import resize

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Pixels on the longer side of a drawn map: more than a screen shows, little enough for a scene of any size.
LONGEST_SIDE = 1600


class Picture(Figure):
    """A matplotlib figure that JupyterLab shows by itself, without pyplot and its inline back end."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight")
        return buffer.getvalue()


def show_map(axes: Axes, picture: np.ndarray) -> None:
    """A picture without ticks."""
    axes.imshow(picture, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])


def drawable(picture: np.ndarray) -> np.ndarray:
    """A uint8 picture no larger than can be seen; averaged, so that thin roads don't break up."""
    longest = max(picture.shape[:2])
    if longest <= LONGEST_SIDE:
        return picture
    height, width = (max(1, round(side * LONGEST_SIDE / longest)) for side in picture.shape[:2])
    small = resize(picture, (height, width, picture.shape[2]), order=1, anti_aliasing=True, preserve_range=True)
    return np.clip(np.rint(small), 0, 255).astype(np.uint8)


def shrunk(values: np.ndarray) -> np.ndarray:
    """Every n-th value of a map too large for a small panel: values stay values."""
    step = max(1, max(values.shape) // 512)
    return values[::step, ::step]
