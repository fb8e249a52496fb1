"""All layers of a simulated scene, and clouds over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from rsovlib.errors import InputError
from rsovlib.plots.page import LABEL, PAGE_WIDTH, TICK, TITLE
from rsovlib.plots.panels import Panel, plot_panels
from rsovlib.plots.picture import Picture, drawable, show_map, shrunk


class Layered(Protocol):
    """What :func:`plot_scene_layers` needs of a scene; the layers but the first two may be None."""

    @property
    def optical(self) -> np.ndarray:
        """(H, W, 3) uint8."""

    @property
    def labels(self) -> np.ndarray:
        """(H, W) class of each pixel."""

    @property
    def classes(self) -> Sequence[str]:
        """Class names."""

    @property
    def nir(self) -> np.ndarray | None:
        """(H, W) uint8 near infrared."""

    @property
    def swir(self) -> np.ndarray | None:
        """(H, W) uint8 short-wave infrared."""

    @property
    def sar(self) -> np.ndarray | None:
        """(2, H, W) backscatter, VV and VH, in dB."""

    @property
    def dsm(self) -> np.ndarray | None:
        """(H, W) elevation in metres."""

    @property
    def gsd(self) -> float:
        """Metres a pixel."""


def plot_scene_layers(scene: Layered, columns: int = 3, cell: float = 3.0) -> Picture:
    """All layers of a scene, each with its unit and a scale in metres.

    Args:
        scene: what :func:`rsovlib.data.scenes.make_scene` gives, or anything with the same layers.
        columns: maps in a row.
        cell: largest width of one map in inches; all together are never wider than a page.

    Returns:
        A figure; JupyterLab shows it, ``.savefig(path)`` keeps it.
    """
    vv, vh = (None, None) if scene.sar is None else scene.sar
    layers: list[tuple[str, np.ndarray | None, str, str]] = [
        ("near infrared", scene.nir, "gray", "grey value"),
        ("short-wave infrared", scene.swir, "gray", "grey value"),
        ("radar, VV", vv, "gray", "backscatter (dB)"),
        ("radar, VH", vh, "gray", "backscatter (dB)"),
        ("elevation of the surface", scene.dsm, "viridis", "height (m)"),
    ]
    panels = [Panel("optical: red, green, blue", scene.optical)]
    for title, values, colour_map, unit in layers:
        if values is not None:
            # Single bright pixels, such as a corner of a roof in radar, would leave all others dark.
            low, high = np.percentile(values, (1, 99))
            limits = (float(low), float(high))
            panels.append(Panel(title, np.asarray(values, np.float32), unit, limits, colour_map=colour_map))
    panels.append(Panel("classes", scene.labels.astype(np.int64)))
    return plot_panels(panels, list(scene.classes), gsd=scene.gsd, columns=columns, cell=cell)


def plot_clouds(
    clouds: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], opacity: bool = True, cell: float = 2.4
) -> Picture:
    """Cloudy images in a table, a row for each kind of cloud and a column for each amount.

    Args:
        clouds: name of the row -> name of the column -> (image (H, W, 3) uint8, opacity (H, W) in 0..1), as
            :func:`rsovlib.data.clouds.add_clouds` gives them.
        opacity: whether to draw the opacities, too, in a row of their own below each row of images.
        cell: largest width of one image in inches; all together are never wider than a page.

    Returns:
        A figure; JupyterLab shows it, ``.savefig(path)`` keeps it.

    Raises:
        InputError: there is nothing to draw, or the rows have different columns.
    """
    names = {tuple(row) for row in clouds.values()}
    if len(names) != 1 or not (columns := names.pop()):
        raise InputError("A table of clouds needs at least one image, and the same columns in every row.")
    lines = 2 if opacity else 1
    height, width = next(iter(next(iter(clouds.values())).values()))[1].shape
    rows = lines * len(clouds)
    cell = min(cell, (PAGE_WIDTH - 1.2) / len(columns))
    figure = Picture(
        figsize=(cell * len(columns) + 1.2, rows * (cell * height / width + 0.1) + 0.4), layout="compressed"
    )
    table = figure.subplots(rows, len(columns), squeeze=False)
    for line, (kind, row) in enumerate(clouds.items()):
        for column, (name, (image, veil)) in enumerate(row.items()):
            axes = table[line * lines, column]
            show_map(axes, drawable(image))
            if line == 0:
                axes.set_title(name, fontsize=TITLE)
            if opacity:
                below = table[line * lines + 1, column]
                show_map(below, shrunk(veil))
                below.images[0].set(cmap="magma", clim=(0, 1))
        table[line * lines, 0].set_ylabel(kind, fontsize=LABEL)
        if opacity:
            table[line * lines + 1, 0].set_ylabel(f"{kind}: opacity", fontsize=LABEL)
    if opacity:
        bar = figure.colorbar(table[1, 0].images[0], ax=table, shrink=0.5, pad=0.02)
        bar.set_label("opacity: share of the ground's light kept back at 550 nm", fontsize=LABEL)
        bar.ax.tick_params(labelsize=TICK)
    return figure
