"""The stages of a method side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import ListedColormap

from rsovlib.errors import InputError
from rsovlib.plots.colours import class_colours
from rsovlib.plots.legend import display_name
from rsovlib.plots.page import LABEL, PAGE_WIDTH, TICK, TITLE
from rsovlib.plots.painting import overlay
from rsovlib.plots.picture import Picture, drawable, show_map, shrunk

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Maps side by side in plot_stages, and letters that fit over one of them.
_COLUMNS, _LETTERS = 8, 14


def plot_stages(
    stages: Mapping[str, Any],
    classes: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    cell: float = 2.0,
) -> Picture:
    """The intermediate results of a method as small maps: a row for each stage, a column for each class.

    A stage's name stands at the left of its row, and the classes' names over the maps.

    Args:
        stages: name -> array or tensor. (K, h, w) gives a row of K maps on one colour scale with one colour bar,
            eight to a row; (H, W) floats give one map with its bar; (H, W) integers give regions, or classes
            when their values fit ``classes``; (N, K) with N a square number is taken as a (K, n, n) patch grid.
            What has another shape, or isn't an array, is left out.
        classes: names of the classes, over the maps.
        names: which stages, in this order (those with one map come last, side by side); by default all.
        cell: largest width of one map in inches; all together are never wider than a page.

    Returns:
        A figure; JupyterLab shows it, ``.savefig(path)`` keeps it.

    Raises:
        InputError: none of the stages can be drawn, or one of ``names`` isn't there.
    """
    wanted = list(stages) if names is None else list(names)
    missing = [name for name in wanted if name not in stages]
    if missing:
        raise InputError(f"There is no stage {missing[0]!r}; there are {', '.join(stages) or 'none'}.")
    found = [(name, maps) for name in wanted if (maps := _as_maps(stages[name])) is not None]
    if not found:
        raise InputError("None of the stages is a map: give arrays (K, h, w) or (H, W).")
    strips = _strips([_panels(name, maps, classes) for name, maps in found])
    columns = max(len(strip) for strip in strips)
    cell = min(cell, (PAGE_WIDTH - 1.0) / columns)
    tallest = [max(panel.values.shape[0] / panel.values.shape[1] for panel in strip) for strip in strips]
    heights = [min(ratio, 3.0) * cell + 0.35 for ratio in tallest]
    figure = Picture(figsize=(cell * columns + 1.0, sum(heights) + 0.2), layout="compressed")
    grid = figure.subplots(len(strips), columns, squeeze=False, height_ratios=heights)
    for row, strip in zip(grid, strips, strict=True):
        for axes in row[len(strip) :]:
            axes.set_axis_off()
        for position, panel in enumerate(strip):
            _show_panel(row[position], panel, classes)
            if panel.bar:
                alike = [axes for axes, other in zip(row, strip, strict=False) if other.stage == panel.stage]
                # A stage with a row to itself has its bar at the row's end, where those of all other rows are.
                beside = list(row) if len(alike) == len(strip) > 1 else alike
                bar = figure.colorbar(row[position].images[0], ax=beside, fraction=0.046, pad=0.02, aspect=20)
                bar.ax.tick_params(labelsize=TICK)
                bar.ax.locator_params(nbins=4)
    return figure


@dataclass(frozen=True)
class _Panel:
    """One small map of :func:`plot_stages`; the maps of one stage share their limits and one colour bar."""

    stage: str
    title: str
    label: str  # at the left, for the first map of a row
    values: np.ndarray  # (h, w)
    limits: tuple[float, float] | None  # None: integers, drawn as classes or regions
    bar: bool  # whether the stage's colour bar stands behind this map


def _panels(stage: str, maps: np.ndarray, classes: Sequence[str] | None) -> list[_Panel]:
    limits = None
    if maps.dtype.kind == "f":
        finite = maps[np.isfinite(maps)]
        limits = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    of_classes = classes is not None and len(classes) == len(maps) > 1
    panels = []
    for position, values in enumerate(maps):
        title, label = stage.replace("_", " "), ""
        if classes is not None and of_classes:
            label = title if position % _COLUMNS == 0 else ""
            title = fill(display_name(classes[position]), _LETTERS)
        last_of_row = position == len(maps) - 1 or position % _COLUMNS == _COLUMNS - 1
        panels.append(_Panel(stage, title, label, values, limits, bar=limits is not None and last_of_row))
    return panels


def _strips(stages: list[list[_Panel]]) -> list[list[_Panel]]:
    """Rows of the picture: a stage with many maps has its own rows, stages with one map share them."""
    rows: list[list[_Panel]] = []
    singles: list[_Panel] = []
    for panels in stages:
        if len(panels) == 1:
            singles += panels
        else:
            rows += [panels[start : start + _COLUMNS] for start in range(0, len(panels), _COLUMNS)]
    width = max([len(row) for row in rows], default=4)
    return rows + [singles[start : start + width] for start in range(0, len(singles), width)]


def _show_panel(axes: Axes, panel: _Panel, classes: Sequence[str] | None) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(panel.title, fontsize=TITLE, loc="left")
    axes.set_ylabel(panel.label, fontsize=LABEL)
    if panel.limits is None:
        _show_regions(axes, panel.values.astype(np.int64), classes)
        return
    low, high = panel.limits
    axes.imshow(shrunk(panel.values), vmin=low, vmax=high, cmap="cividis", interpolation="nearest")


def _show_regions(axes: Axes, labels: np.ndarray, classes: Sequence[str] | None) -> None:
    """Integers as classes where they fit the class list, otherwise as regions in shuffled colours."""
    if classes is not None and labels.max() < len(classes):
        show_map(axes, drawable(overlay(np.full((*labels.shape, 3), 255, np.uint8), labels, class_colours(classes), 1)))
        return
    count = int(labels.max()) + 1
    colours = np.random.default_rng(0).uniform(0.15, 0.95, (max(count, 1), 3))
    axes.imshow(shrunk(labels), cmap=ListedColormap(colours), vmin=-0.5, vmax=count - 0.5, interpolation="nearest")
    axes.set_title(f"{axes.get_title(loc='left')}: {len(np.unique(labels))} regions", fontsize=TITLE, loc="left")


def _as_maps(stage: Any) -> np.ndarray | None:
    """A stage as (K, h, w), or None when it is no map."""
    if hasattr(stage, "detach"):
        stage = stage.detach().float().cpu() if stage.is_floating_point() else stage.detach().cpu()
    if not hasattr(stage, "__array__"):
        return None
    array = np.asarray(stage)
    if array.size == 0 or array.dtype.kind not in "biuf":
        return None
    if array.ndim == 3:
        return array
    if array.ndim != 2:
        return None
    side = math.isqrt(array.shape[0])
    if array.dtype.kind == "f" and side * side == array.shape[0] and array.shape[1] < side:
        return array.T.reshape(-1, side, side)
    return array[None]
