"""Accuracy over cost, a numbered mark a method, with the front of those that no other beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from rsovlib.plots.page import LABEL, PAGE_WIDTH, TICK, TITLE, legend_columns
from rsovlib.plots.picture import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FRONT, _OTHER = "#D55E00", "#0072B2"
# Where a mark's number may stand, in points from the mark; the first free place is taken.
_PLACES = [
    (x, y) for distance in (9, 17, 25) for x, y in ((distance, 0), (-distance, 0), (distance, 9), (-distance, 9),
    (distance, -9), (-distance, -9), (0, distance), (0, -distance))
]  # fmt: skip
_APART = 10.0


@dataclass(frozen=True)
class Mark:
    """One method.

    Attributes:
        cost: on the axis from left to right, above 0.
        value, low, high: mean IoU with its interval, percent.
        on_front: no other method is cheaper and better.
        stand_in: a part of it stands in for the authors' own.
    """

    cost: float
    value: float
    low: float
    high: float
    on_front: bool
    stand_in: bool


def plot_cost_accuracy(panels: Mapping[str, Mapping[str, Mark]], *, order: Sequence[str], title: str = "") -> Picture:
    """A panel a kind of cost, logarithmic.

    Args:
        panels: label of the axis, with its unit -> method -> its mark.
        order: the methods as they are numbered.
        title: above all.
    """
    numbers = {name: number for number, name in enumerate(order, start=1)}
    figure = Picture(figsize=(PAGE_WIDTH, 5.2), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (label, marks) in zip(grid, panels.items(), strict=True):
        _draw(axes, marks)
        axes.set_xlabel(label, fontsize=LABEL)
    grid[0].set_ylabel("mIoU (percent), bars: 95 %", fontsize=LABEL)
    handles = [Line2D([], [], linestyle="none", label=f"{number}  {name}") for name, number in numbers.items()]
    handles += [
        Line2D([], [], marker="o", color=_FRONT, linestyle=":", label="front: beaten by none"),
        Line2D([], [], marker="o", color=_OTHER, linestyle="none", label="behind it"),
        Line2D([], [], marker="s", color="0.4", linestyle="none", label="square: has a stand-in"),
    ]
    columns = legend_columns([str(handle.get_label()) for handle in handles])
    figure.legend(
        handles=handles, loc="outside lower center", frameon=False, fontsize=TICK, handlelength=1.6, ncols=columns
    )
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE)
    figure.draw_without_rendering()  # so that it is known where the marks will lie
    for axes, marks in zip(grid, panels.values(), strict=True):
        _number(axes, marks, numbers)
    return figure


def _draw(axes: Axes, marks: Mapping[str, Mark]) -> None:
    """One panel without numbers."""
    for mark in marks.values():
        colour = _FRONT if mark.on_front else _OTHER
        axes.plot([mark.cost] * 2, [mark.low, mark.high], color=colour, linewidth=1, alpha=0.45, zorder=1)
        axes.plot(mark.cost, mark.value, "s" if mark.stand_in else "o", color=colour, markersize=6, zorder=3)
    front = sorted((mark.cost, mark.value) for mark in marks.values() if mark.on_front)
    if front:
        costs, values = zip(*front, strict=True)
        axes.step(costs, values, where="post", color=_FRONT, linewidth=0.9, linestyle=":", zorder=2)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.tick_params(labelsize=TICK)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.12)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _number(axes: Axes, marks: Mapping[str, Mark], numbers: Mapping[str, int]) -> None:
    """A number beside every mark, where no mark and no other number stands."""
    points_a_pixel = 72 / axes.figure.dpi
    at = {name: axes.transData.transform((mark.cost, mark.value)) * points_a_pixel for name, mark in marks.items()}
    taken = list(at.values())
    for name, place in at.items():
        free = [one for one in _PLACES if min(np.hypot(*(place + one - other)) for other in taken) >= _APART]
        shift = (free or _PLACES)[0]
        taken.append(place + shift)
        axes.annotate(
            str(numbers[name]),
            (marks[name].cost, marks[name].value),
            shift,
            textcoords="offset points",
            ha="center",
            va="center_baseline",
            fontsize=TICK,
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "0.5", "shrinkA": 0, "shrinkB": 2}
            if np.hypot(*shift) > 12
            else None,
            bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.4},
            zorder=4,
        )
