"""Heat maps of a difference over two parameters, with what is uncertain hatched and the default framed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import Patch, Rectangle

from rsovlib.plots.page import LABEL, PAGE_WIDTH, TICK, TITLE
from rsovlib.plots.picture import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

# Purple below 0 and orange above it: told apart with any of the common colour deficiencies.
_COLOURS = "PuOr_r"


@dataclass(frozen=True)
class HeatMap:
    """Differences over a grid of two parameters.

    Attributes:
        across, up: names of the parameters.
        x, y: their values, as texts.
        value, low, high: (len(y), len(x)), differences and the ends of their intervals.
        default: row and column of the default, where the difference is 0 by definition.
    """

    across: str
    up: str
    x: Sequence[str]
    y: Sequence[str]
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    default: tuple[int, int]

    @property
    def unsure(self) -> np.ndarray:
        """(len(y), len(x)) bool: the interval holds 0."""
        return (self.low <= 0) & (self.high >= 0)


def plot_heat_maps(maps: Sequence[HeatMap], *, label: str, title: str = "", columns: int = 3) -> Picture:
    """Heat maps side by side on one scale.

    Every cell has its difference and, below it, half the width of its interval.

    Args:
        maps: the heat maps.
        label: of the colour scale, with its unit.
        title: above all of them.
        columns: of the figure.
    """
    rows = -(-len(maps) // columns)
    figure = Picture(figsize=(PAGE_WIDTH, 2.7 * rows + 0.9), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    largest = max(1e-9, *(float(np.abs(one.value).max()) for one in maps))
    image: AxesImage | None = None
    for axes, one in zip(grid.flat, maps, strict=False):
        image = _draw(axes, one, largest)
    for axes in grid.flat[len(maps) :]:
        axes.set_axis_off()
    if image is not None:
        bar = figure.colorbar(image, ax=grid, shrink=0.8, fraction=0.05, pad=0.02)
        bar.set_label(label, fontsize=LABEL)
        bar.ax.tick_params(labelsize=TICK)
    legend = [
        Patch(facecolor="white", edgecolor="0.45", hatch="///", label="95 % interval holds 0"),
        Patch(facecolor="white", edgecolor="black", linewidth=2.5, label="default"),
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=2, frameon=False, fontsize=LABEL)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE)
    return figure


def _draw(axes: Axes, one: HeatMap, largest: float) -> AxesImage:
    """One heat map; its image."""
    image = axes.imshow(one.value, cmap=_COLOURS, vmin=-largest, vmax=largest, origin="lower", aspect="auto")
    axes.set_xticks(range(len(one.x)), one.x)
    axes.set_yticks(range(len(one.y)), one.y)
    axes.set_xlabel(one.across, fontsize=LABEL)
    axes.set_ylabel(one.up, fontsize=LABEL)
    axes.tick_params(labelsize=TICK)
    for (row, column), unsure in np.ndenumerate(one.unsure):
        corner = column - 0.5, row - 0.5
        default = (row, column) == one.default
        if unsure and not default:
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, hatch="///", edgecolor="0.45", linewidth=0))
        if default:
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="black", linewidth=2.5, zorder=4))
        value = one.value[row, column]
        half = (one.high[row, column] - one.low[row, column]) / 2
        axes.text(
            column,
            row,
            "0" if default else f"{value:+.1f}\n±{half:.1f}",
            ha="center",
            va="center",
            fontsize=TICK,
            zorder=5,
            color="black",
            # The hatching must not run through the digits.
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.0},
        )
    return image
