"""Numbers with their intervals, one under the other: which differ from 0, and by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.lines import Line2D

from rsovlib.plots.page import PAGE_WIDTH
from rsovlib.plots.picture import Picture

# Blue and vermilion of Okabe and Ito, and a marker each, so that nothing hangs on the colour.
_LOOKS = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "D"), ("#CC79A7", "^"))

Triple = tuple[float, float, float]


def plot_intervals(
    series: Mapping[str, Mapping[str, Triple]],
    *,
    order: Sequence[str],
    labels: Mapping[str, str],
    xlabel: str,
    notes: Mapping[str, str] | None = None,
    notes_title: str = "",
    linear: bool = False,
) -> Picture:
    """A forest plot, linear between -1 and 1 and logarithmic beyond.

    Args:
        series: name in the legend -> row -> value, low and high end. An interval that holds 0 is drawn hollow.
        order: the rows from top to bottom.
        labels: of the rows.
        xlabel: what is shown, with its unit.
        notes: a text for each row at the right.
        notes_title: above them.
        linear: everywhere, where effects are of one size.
    """
    figure = Picture(figsize=(PAGE_WIDTH, 0.17 * max(2, len(series)) * len(order) + 1.5), layout="constrained")
    axes = figure.subplots()
    positions = {row: float(-index) for index, row in enumerate(order)}
    shifts = np.linspace(0.17, -0.17, len(series)) if len(series) > 1 else np.zeros(1)
    for rows, shift, (colour, marker) in zip(series.values(), shifts, _LOOKS, strict=False):
        for row, (value, low, high) in rows.items():
            alone = sum(row in other for other in series.values()) == 1
            y = positions[row] + (0 if alone else shift)
            sure = low > 0 or high < 0
            axes.plot([low, high], [y, y], color=colour, linewidth=1.4)
            axes.plot(
                value,
                y,
                marker,
                color=colour,
                markerfacecolor=colour if sure else "white",
                markersize=5,
            )
    if not linear:  # small effects can be told apart beside one large one
        axes.set_xscale("symlog", linthresh=1, linscale=1.5)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(list(positions.values()), [labels.get(row, row) for row in order])
    axes.set_ylim(-len(order) + 0.5, 0.5)
    axes.set_xlabel(f"{xlabel}; hollow: the interval holds 0")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if notes:
        right = axes.secondary_yaxis("right")
        right.set_yticks(list(positions.values()), [notes.get(row, "") for row in order])
        right.set_ylabel(notes_title)
        right.tick_params(length=0)
        right.spines["right"].set_visible(False)
    looks = [
        Line2D([], [], color=colour, marker=marker, markersize=5)
        for _, (colour, marker) in zip(series, _LOOKS, strict=False)
    ]
    figure.legend(looks, list(series), loc="outside upper center", ncols=len(series), frameon=False)
    return figure
