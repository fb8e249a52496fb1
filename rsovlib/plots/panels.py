"""Pictures, class maps and measured maps of one place side by side, all with a scale and a unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patches import Patch

from rsovlib.errors import InputError
from rsovlib.plots.colours import class_colours
from rsovlib.plots.legend import class_patches
from rsovlib.plots.painting import overlay
from rsovlib.plots.picture import Picture, drawable, shrunk

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Extent = tuple[float, float, float, float]

# Of points in a panel: seen on light, dark, cividis and any class.
_MARK = {"marker": "+", "color": "#D55E00", "markersize": 11, "markeredgewidth": 2.2, "linestyle": "none"}


@dataclass(frozen=True)
class Panel:
    """One picture of :func:`plot_panels`.

    Args:
        title: over it; a second line is fine.
        values: (H, W, 3) uint8, a picture; (H, W) integers, classes, of which those outside 0..K-1 stay white; or
            (h, w) floats on any grid over the same place, a map with a colour bar.
        unit: of a map, for its bar.
        limits: of a map's colours; its own smallest and largest value if None.
        marks: (row, column) of points, in pixels of the image, wanted in this panel.
        lines: pairs of such points, joined by thin lines.
        colour_map: of a map; a diverging one for differences.
    """

    title: str
    values: np.ndarray
    unit: str = ""
    limits: tuple[float, float] | None = None
    marks: Sequence[tuple[float, float]] = ()
    lines: Sequence[tuple[tuple[float, float], tuple[float, float]]] = ()
    colour_map: str = "cividis"


def plot_panels(
    panels: Sequence[Panel],
    classes: Sequence[str] = (),
    *,
    sides: tuple[int, int] | None = None,
    gsd: float | None = None,
    columns: int = 4,
    cell: float = 2.7,
    title: str = "",
) -> Picture:
    """Panels of one place, in rows, with a legend of the classes where there are class maps.

    Args:
        panels: what to draw, row by row.
        classes: names of the classes of all class maps.
        sides: height and width in pixels of the place; of the first panel's values by default.
        gsd: metres a pixel; without it the axes are in pixels.
        columns: panels in a row.
        cell: width of a panel in inches.
        title: over all.

    Returns:
        A figure; JupyterLab shows it, ``.savefig(path)`` keeps it.

    Raises:
        InputError: there is nothing to draw, or a panel is neither picture, class map nor map.
    """
    if not panels:
        raise InputError("There is no panel to draw.")
    height, width = sides or panels[0].values.shape[:2]
    unit_of_length = 1.0 if gsd is None else gsd
    extent: Extent = (0.0, width * unit_of_length, height * unit_of_length, 0.0)
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    with_legend = len(classes) > 0 and any(_is_class_map(panel.values) for panel in panels)
    with_bars = any(panel.values.ndim == 2 and not _is_class_map(panel.values) for panel in panels)
    tall = (0.7 if with_bars else 0.86) * cell * height / width
    figure = Picture(
        figsize=(cell * columns + 1.5 * with_legend, rows * (tall + 0.8) + 0.2 + 0.35 * bool(title)),
        layout="constrained",
    )
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.ravel()[len(panels) :]:
        axes.set_axis_off()
    colours = class_colours(list(classes))
    for axes, panel in zip(grid.ravel(), panels, strict=False):
        _draw(figure, axes, panel, colours, extent, unit_of_length)
    for row in range(rows):
        grid[row, 0].set_ylabel("pixels" if gsd is None else "metres", fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("pixels" if gsd is None else "metres", fontsize=8)
    if with_legend:
        handles = class_patches(classes, colours)
        if any(_is_class_map(panel.values) and _has_others(panel.values, len(classes)) for panel in panels):
            handles.append(Patch(facecolor="white", edgecolor="0.4", linewidth=0.5, label="none of these"))
        figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def outlined(image: np.ndarray, regions: np.ndarray, colour: Sequence[int] = (255, 225, 0)) -> np.ndarray:
    """The image with the borders of regions drawn one pixel wide, each on one side of it.

    Args:
        image: (H, W, 3) uint8.
        regions: (H, W) integers.
        colour: red, green, blue.

    Returns:
        (H, W, 3) uint8, a new array.
    """
    drawn = np.array(image)
    drawn[_begins_another(regions)] = colour
    return drawn


def mean_colours(image: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """The image with every region in its mean colour.

    Args:
        image: (H, W, 3) uint8.
        regions: (H, W) integers, 0 to M - 1.

    Returns:
        (H, W, 3) uint8.
    """
    flat = regions.ravel()
    counts = np.maximum(np.bincount(flat), 1)
    sums = [np.bincount(flat, weights=band.ravel().astype(float)) for band in np.moveaxis(image, 2, 0)]
    return np.rint(np.stack(sums, axis=1) / counts[:, None]).astype(np.uint8)[regions]


def _begins_another(regions: np.ndarray) -> np.ndarray:
    """Where a pixel's upper or left neighbour belongs to another region: one side of each border."""
    found = np.zeros(regions.shape, bool)
    found[1:] |= regions[1:] != regions[:-1]
    found[:, 1:] |= regions[:, 1:] != regions[:, :-1]
    return found


def _is_class_map(values: np.ndarray) -> bool:
    return values.ndim == 2 and values.dtype.kind in "iu"


def _has_others(labels: np.ndarray, classes: int) -> bool:
    return bool(((labels < 0) | (labels >= classes)).any())


def _draw(figure: Any, axes: Axes, panel: Panel, colours: np.ndarray, extent: Extent, scale: float) -> None:
    values = np.asarray(panel.values)
    axes.set_title(panel.title, fontsize=9)
    axes.tick_params(labelsize=7)
    if values.ndim == 3 and values.shape[2] == 3 and values.dtype == np.uint8:
        axes.imshow(drawable(values), extent=extent, interpolation="nearest")
    elif _is_class_map(values):
        painted = overlay(np.full((*values.shape, 3), 255, np.uint8), values.astype(np.int64), colours, 1.0)
        axes.imshow(drawable(painted), extent=extent, interpolation="nearest")
    elif values.ndim == 2 and values.dtype.kind in "fb":
        low, high = panel.limits or (None, None)
        shown = axes.imshow(
            shrunk(values).astype(float),
            extent=extent,
            cmap=panel.colour_map,
            vmin=low,
            vmax=high,
            interpolation="nearest",
        )
        bar = figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.03)
        bar.ax.tick_params(labelsize=7)
        bar.set_label(panel.unit, fontsize=8)
    else:
        raise InputError(
            f"The panel {panel.title!r} is {values.shape} {values.dtype}; give (H, W, 3) uint8, or (H, W) numbers."
        )
    for (top, left), (bottom, right) in panel.lines:
        axes.plot(
            [(left + 0.5) * scale, (right + 0.5) * scale],
            [(top + 0.5) * scale, (bottom + 0.5) * scale],
            color="#E69F00",
            linewidth=0.9,
        )
    for row, column in panel.marks:
        axes.plot((column + 0.5) * scale, (row + 0.5) * scale, **_MARK)  # type: ignore[arg-type]
    axes.set(xlim=extent[:2], ylim=extent[2:])
