"""Two numbers of each of several things on one axis: printed and counted, before and after."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.lines import Line2D

from rsovlib.errors import InputError
from rsovlib.plots.colours import OKABE_ITO
from rsovlib.plots.picture import Picture

_FIRST, _SECOND = OKABE_ITO[4], OKABE_ITO[5]


def plot_pairs(
    pairs: Mapping[str, tuple[float | None, float | None]],
    *,
    labels: tuple[str, str],
    axis: str,
    logarithmic: bool = False,
    title: str = "",
    width: float = 8.0,
) -> Picture:
    """A row a name, with a full circle for the first number and an open diamond for the second, joined by a line.

    Args:
        pairs: name -> two numbers; None for one that doesn't exist.
        labels: what the two are, for the legend.
        axis: what both measure, with its unit.
        logarithmic: for numbers of very different size; all must be above 0 then.
        title: over the picture.
        width: of the picture in inches, no wider than a page.

    Raises:
        InputError: nothing to show, or a number that a logarithmic axis can't.
    """
    numbers = [number for pair in pairs.values() for number in pair if number is not None]
    if not numbers:
        raise InputError("There is no number to plot; give pairs with at least one.")
    if logarithmic and min(numbers) <= 0:
        raise InputError(f"A logarithmic axis can't show {min(numbers):g}; use logarithmic=False.")
    figure = Picture(figsize=(width, 0.9 + 0.36 * len(pairs)), layout="constrained")
    axes = figure.add_subplot()
    for place, (first, second) in enumerate(pairs.values()):
        if first is not None and second is not None:
            axes.plot([first, second], [place, place], color="#8A8A8A", linewidth=1.2, zorder=1)
        for number, marker, colour, filled in ((first, "o", _FIRST, True), (second, "D", _SECOND, False)):
            if number is not None:
                face = colour if filled else "white"
                axes.plot(number, place, marker, color=colour, markerfacecolor=face, markersize=7, markeredgewidth=1.6)
    axes.set_yticks(range(len(pairs)), list(pairs))
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    if logarithmic:
        axes.set_xscale("log")
    axes.set_xlabel(axis)
    axes.grid(axis="x", which="both", color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    handles = [
        Line2D([], [], linestyle="none", marker="o", color=_FIRST, markersize=7, label=labels[0]),
        Line2D(
            [], [], linestyle="none", marker="D", color=_SECOND, markerfacecolor="white", markersize=7, label=labels[1]
        ),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=2, frameon=False)
    if title:
        figure.suptitle(title)
    return figure
