"""Curves that are told apart by colour, mark and line: readable in grey and with any kind of eyes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from rsovlib.errors import InputError
from rsovlib.plots.colours import OKABE_ITO
from rsovlib.plots.page import LABEL, PAGE_WIDTH, TICK, TITLE, legend_columns
from rsovlib.plots.picture import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Yellow is lost on white, and is left out.
_COLOURS = [colour for colour in OKABE_ITO if colour != "#F0E442"]
_MARKS = "os^Dv<>"
_LINES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Chart:
    """One pair of axes of :func:`plot_charts`.

    Args:
        x_label, y_label: what is drawn, with its unit.
        curves: name -> (x, y).
        title: over it.
        levels: name -> y of a horizontal line to compare with.
        log_x, log_y: logarithmic axes.
        y_range: lowest and highest value that is shown; all of them if None.
        marks: whether each point has its mark.
    """

    x_label: str
    y_label: str
    curves: Mapping[str, tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]]
    title: str = ""
    levels: Mapping[str, float] = field(default_factory=dict)
    log_x: bool = False
    log_y: bool = False
    y_range: tuple[float, float] | None = None
    marks: bool = True


def _round_ticks(axes: Axes, width: float) -> None:
    """1, 2, 5, 10, 20, ... written out, in place of powers of ten that overlap with numbers between them.

    Args:
        axes: with a logarithmic axis.
        width: of the chart in inches; narrow charts have 1, 3, 10, 30, ..., or 1, 10, 100, ...
    """
    low, high = axes.get_xlim()
    decades = np.log10(high / low)
    room = width / (0.4 * max(decades, 1e-9))  # numbers that fit into a decade
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if room >= 4 else (1.0, 3.0) if room >= 2 else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def plot_charts(charts: Sequence[Chart], width: float = 4.8, height: float = 3.3) -> Picture:
    """Charts side by side; more than three go into two rows.

    Charts with the same curves share one legend below them, where it hides nothing; others have their own.

    Args:
        charts: what to draw.
        width: largest width of one chart in inches; all together are never wider than a page.
        height: of one chart in inches.

    Raises:
        InputError: there is nothing to draw.
    """
    if not charts or not all(chart.curves for chart in charts):
        raise InputError("A chart needs at least one curve.")
    rows = 1 if len(charts) <= 3 else 2
    columns = math.ceil(len(charts) / rows)
    figure = Picture(figsize=(min(width * columns, PAGE_WIDTH), height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(charts) :]:
        axes.set_axis_off()
    for axes, chart in zip(grid, charts, strict=False):
        for index, (name, (x, y)) in enumerate(chart.curves.items()):
            axes.plot(
                x,
                y,
                color=_COLOURS[index % len(_COLOURS)],
                linestyle=_LINES[index % len(_LINES)],
                marker=_MARKS[index % len(_MARKS)] if chart.marks else None,
                markersize=4,
                label=name,
            )
        for index, (name, level) in enumerate(chart.levels.items()):
            axes.axhline(level, color="0.45", linewidth=1, linestyle=_LINES[(index + 1) % len(_LINES)], label=name)
        axes.set_xlabel(chart.x_label, fontsize=LABEL)
        axes.set_ylabel(chart.y_label, fontsize=LABEL)
        axes.tick_params(labelsize=TICK)
        axes.set_title(chart.title, fontsize=TITLE)
        if chart.log_x:
            axes.set_xscale("log")
            _round_ticks(axes, figure.get_figwidth() / columns)
        if chart.log_y:
            axes.set_yscale("log")
        axes.spines[["top", "right"]].set_visible(False)
        if chart.y_range is not None:
            axes.set_ylim(*chart.y_range)
    _legends(figure, list(grid[: len(charts)]))
    return figure


def _legends(figure: Picture, drawn: Sequence[Axes]) -> None:
    """One legend for charts of the same curves, else one a chart; none for a single curve, which its axis names."""
    entries = [axes.get_legend_handles_labels() for axes in drawn]
    names = entries[0][1]
    if all(one[1] == names for one in entries):
        if len(names) > 1:
            columns = legend_columns(names, figure.get_figwidth())
            looks: dict[str, Any] = {"frameon": False, "fontsize": LABEL, "handlelength": 2.6}
            figure.legend(*entries[0], loc="outside lower center", ncols=columns, **looks)
        return
    for axes, (_, own) in zip(drawn, entries, strict=True):
        if len(own) > 1:
            axes.legend(fontsize=TICK, framealpha=0.85, edgecolor="none")
