"""A class map beside its image, in a notebook or as a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from rsovlib.files import write_beside
from rsovlib.plots.colours import class_colours
from rsovlib.plots.legend import class_patches, legend
from rsovlib.plots.page import LABEL, PAGE_WIDTH, TITLE, legend_columns
from rsovlib.plots.painting import class_shares, overlay
from rsovlib.plots.picture import Picture, drawable, show_map


class Segmented(Protocol):
    """What :func:`plot_segmentation` needs; ``rsovlib.Segmentation`` has it."""

    @property
    def labels(self) -> np.ndarray:
        """Label of every pixel (H, W)."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the K classes."""


def save_overlay(
    path: str | os.PathLike[str],
    image: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    valid: np.ndarray | None = None,
    title: str | None = None,
    opacity: float = 0.45,
) -> None:
    """Save the overlay as a PNG with a legend: each class's colour, name and share of the area.

    Args:
        path: the file to write; it appears only when it is complete.
        image: (H, W, 3) uint8.
        labels: (H, W) integers.
        classes: names of the K classes.
        valid: (H, W) bool, where there is data; the rest is drawn white and not counted.
        title: a line above the picture.
        opacity: of the colours over the image.

    Raises:
        InputError: sizes that don't fit together.
        OutputError: the file can't be written.
    """
    colours = class_colours(classes)
    shares = class_shares(labels, len(classes), valid)
    painted = overlay(image, labels, colours, opacity)
    if valid is not None:
        painted[~valid] = 255
    painted = drawable(painted)
    height, width = painted.shape[:2]
    # One pixel of the picture for one of the map where the map is large enough; small ones are enlarged.
    scale = max(1.0, 600 / max(height, width))
    inches = np.array([width, height]) * scale / 100
    figure = Picture(figsize=(inches[0] + 2.6, inches[1] + 0.5), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    show_map(axes, painted)
    if title:
        axes.set_title(title, loc="left", fontsize=12)
    legend(axes, classes, colours, shares)
    with write_beside(path) as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight", facecolor="white")


def plot_segmentation(
    segmentation: Segmented, image: np.ndarray | None = None, opacity: float = 0.45, title: str | None = None
) -> Picture:
    """The image, the class map and the overlay side by side, with a legend.

    Args:
        segmentation: what a segmenter returned.
        image: (H, W, 3) uint8; by default the one that the segmentation remembers, and where it remembers none,
            only the class map is drawn.
        opacity: of the colours in the overlay.
        title: a line above the pictures.

    Returns:
        A figure; JupyterLab shows it, ``.savefig(path)`` keeps it.
    """
    if image is None:
        image = getattr(segmentation, "image", None)
    labels = np.asarray(segmentation.labels)
    valid = getattr(segmentation, "valid", None)
    if valid is not None:
        labels = np.where(valid, labels, -1)  # no colour, no share
    classes = list(segmentation.classes)
    colours = class_colours(classes)
    panels = {"classes": overlay(np.full((*labels.shape, 3), 255, np.uint8), labels, colours, 1.0)}
    if image is not None:
        panels = {"image": np.asarray(image), **panels, "overlay": overlay(image, labels, colours, opacity)}
    height, width = labels.shape
    panel_width = min(4.2, 4.2 * width / height, (PAGE_WIDTH - 0.2) / len(panels))
    handles = class_patches(classes, colours, class_shares(labels, len(classes)))
    columns = legend_columns([str(handle.get_label()) for handle in handles], panel_width * len(panels))
    legend_height = 0.25 * -(-len(handles) // columns)
    figure = Picture(
        figsize=(
            panel_width * len(panels) + 0.2,
            panel_width * height / width + 0.4 + 0.3 * bool(title) + legend_height,
        ),
        layout="compressed",
    )
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, panel) in zip(all_axes, panels.items(), strict=True):
        show_map(axes, drawable(panel))
        axes.set_title(name, fontsize=TITLE)
    if title:
        figure.suptitle(title)
    figure.legend(handles=handles, loc="outside lower center", frameon=False, fontsize=LABEL, ncols=columns)
    return figure
