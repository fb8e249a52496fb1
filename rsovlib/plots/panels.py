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
from rsovlib.plots.page import LABEL, PAGE_WIDTH, TICK, TITLE, legend_columns
from rsovlib.plots.painting import overlay
from rsovlib.plots.picture import Picture, drawable, shrunk

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

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
    cell: float = 3.0,
    title: str = "",
) -> Picture:
    """Panels of one place, in rows, with a legend of the classes where there are class maps.

    Maps with the same unit, limits and colours share one colour bar where they fill a row, or are all that there is.
    The legend names the classes that are seen in a panel; it stands in an empty place of the grid or below it.

    Args:
        panels: what to draw, row by row.
        classes: names of the classes of all class maps.
        sides: height and width in pixels of the place; of the first panel's values by default.
        gsd: metres a pixel; without it the axes are in pixels.
        columns: panels in a row.
        cell: largest width of a panel in inches; the whole is never wider than a page.
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
    cell = min(cell, (PAGE_WIDTH - 0.8) / columns)
    colours = class_colours(list(classes))
    handles = _legend(panels, classes, colours)
    spare = rows * columns - len(panels)
    inside = spare > 0 and len(handles) * 0.22 <= cell * height / width  # the legend fits into an empty place
    below = -(-len(handles) // _columns_of(handles)) if handles and not inside else 0
    lines = max(panel.title.count("\n") for panel in panels) + 1
    figure = Picture(
        figsize=(
            cell * columns + 0.8,
            rows * (cell * height / width + 0.2 * lines + 0.15) + 0.5 + 0.25 * below + 0.3 * bool(title),
        ),
        layout="compressed",
    )
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.ravel()[len(panels) :]:
        axes.set_axis_off()
    shown = [
        _draw(axes, panel, colours, extent, unit_of_length) for axes, panel in zip(grid.ravel(), panels, strict=False)
    ]
    _draw_bars(figure, grid, panels, shown)
    for row in range(rows):
        grid[row, 0].set_ylabel("pixels" if gsd is None else "metres", fontsize=LABEL)
    for column in range(columns):  # the lowest panel of every column, also where the last row isn't full
        lowest = grid[rows - 1 if (rows - 1) * columns + column < len(panels) else rows - 2, column]
        lowest.set_xlabel("pixels" if gsd is None else "metres", fontsize=LABEL)
        lowest.tick_params(labelbottom=True)
    looks: dict[str, Any] = {"handles": handles, "frameon": False, "fontsize": LABEL}
    if handles and inside:
        grid.ravel()[len(panels)].legend(loc="center left", borderaxespad=0, **looks)
    elif handles:
        figure.legend(loc="outside lower center", ncols=_columns_of(handles), **looks)
    if title:
        figure.suptitle(title, fontsize=TITLE)
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


def _legend(panels: Sequence[Panel], classes: Sequence[str], colours: np.ndarray) -> list[Patch]:
    """An entry for every class that is seen, and one for what is none of them."""
    maps = [panel.values for panel in panels if _is_class_map(panel.values)]
    seen = {int(label) for labels in maps for label in np.unique(labels)}
    handles = [
        patch for label, patch in enumerate(class_patches(classes, colours)) if label in seen and len(classes) > 0
    ]
    if handles and any(not 0 <= label < len(classes) for label in seen):
        handles.append(Patch(facecolor="white", edgecolor="0.4", linewidth=0.5, label="none of these"))
    return handles


def _columns_of(handles: Sequence[Patch]) -> int:
    return legend_columns([str(handle.get_label()) for handle in handles])


def _draw_bars(figure: Any, grid: np.ndarray, panels: Sequence[Panel], shown: Sequence[AxesImage | None]) -> None:
    """Colour bars: one for a row of like maps, or for like maps that are all there are; else one a map."""
    keys = [
        (panel.unit, panel.limits, panel.colour_map) if image is not None else None
        for panel, image in zip(panels, shown, strict=True)
    ]
    columns = grid.shape[1]
    maps = [index for index, key in enumerate(keys) if key]
    rows_of_maps = {index // columns for index in maps}
    if len({keys[index] for index in maps}) == 1 and panels[maps[0]].limits and len(rows_of_maps) > 1:
        _bar(figure, shown[maps[0]], panels[maps[0]].unit, list(grid.ravel()))
        return
    for row in range(grid.shape[0]):
        places = range(row * columns, min((row + 1) * columns, len(panels)))
        found = [index for index in places if keys[index]]
        alike = len({keys[index] for index in found}) == 1 and panels[found[0]].limits is not None
        if alike and len(found) > 1:
            _bar(figure, shown[found[0]], panels[found[0]].unit, list(grid[row]))
            continue
        for index in found:
            _bar(figure, shown[index], panels[index].unit, [grid.ravel()[index]])


def _bar(figure: Any, image: AxesImage | None, unit: str, beside: Sequence[Axes]) -> None:
    bar = figure.colorbar(image, ax=list(beside), fraction=0.046, pad=0.02, aspect=25)
    bar.ax.tick_params(labelsize=TICK)
    bar.set_label(unit, fontsize=LABEL)


def _draw(axes: Axes, panel: Panel, colours: np.ndarray, extent: Extent, scale: float) -> AxesImage | None:
    """One panel; its image where it needs a colour bar."""
    values = np.asarray(panel.values)
    axes.set_title(panel.title, fontsize=TITLE)
    axes.tick_params(labelsize=TICK)
    axes.locator_params(nbins=4)
    with_bar: AxesImage | None = None
    if values.ndim == 3 and values.shape[2] == 3 and values.dtype == np.uint8:
        axes.imshow(drawable(values), extent=extent, interpolation="nearest")
    elif _is_class_map(values):
        painted = overlay(np.full((*values.shape, 3), 255, np.uint8), values.astype(np.int64), colours, 1.0)
        axes.imshow(drawable(painted), extent=extent, interpolation="nearest")
    elif values.ndim == 2 and values.dtype.kind in "fb":
        low, high = panel.limits or (None, None)
        with_bar = axes.imshow(
            shrunk(values).astype(float),
            extent=extent,
            cmap=panel.colour_map,
            vmin=low,
            vmax=high,
            interpolation="nearest",
        )
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
    return with_bar
