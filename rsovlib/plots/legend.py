"""A legend of classes: colour, name and share of the area."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import Patch

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def class_patches(classes: Sequence[str], colours: np.ndarray, shares: np.ndarray | None = None) -> list[Patch]:
    """An entry of a legend for each class: its colour, its first name and, where it is known, its share.

    Args:
        classes: K names.
        colours: (K, 3) uint8.
        shares: (K,), of the area, 0 to 1.
    """
    areas = [""] * len(classes) if shares is None else [f"  {percent(share)}" for share in shares]
    return [
        Patch(facecolor=colour / 255, edgecolor="0.4", linewidth=0.5, label=f"{display_name(name)}{area}")
        for name, colour, area in zip(classes, colours, areas, strict=True)
    ]


def legend(axes: Axes, classes: Sequence[str], colours: np.ndarray, shares: np.ndarray) -> None:
    """The legend of :func:`class_patches` to the right of the axes."""
    handles = class_patches(classes, colours, shares)
    axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        borderaxespad=0,
        frameon=False,
        fontsize=10,
        ncols=math.ceil(len(handles) / 24),
    )


def percent(share: float) -> str:
    """A share for people: never "0 %" for something that is there."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %"


def display_name(name: str) -> str:
    """The first of the synonyms "a, b, c"."""
    return name.split(",")[0].strip()
