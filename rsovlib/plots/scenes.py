"""All layers of a simulated scene, and clouds over it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from rsovlib.errors import InputError
from rsovlib.plots.colours import class_colours
from rsovlib.plots.legend import legend
from rsovlib.plots.painting import class_shares, overlay
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


def plot_scene_layers(scene: Layered, columns: int = 4, cell: float = 3.0) -> Picture:
    """All layers of a scene, each with its unit and a scale in metres.

    Args:
        scene: what :func:`rsovlib.data.scenes.make_scene` gives, or anything with the same layers.
        columns: maps in a row.
        cell: width of one map in inches.

    Returns:
        A figure; JupyterLab shows it, ``.savefig(path)`` keeps it.
    """
    classes = list(scene.classes)
    colours = class_colours(classes)
    vv, vh = (None, None) if scene.sar is None else scene.sar
    layers: list[tuple[str, np.ndarray | None, str | None, str]] = [
        ("optical: red, green, blue", scene.optical, None, ""),
        ("near infrared", scene.nir, "gray", "grey value"),
        ("short-wave infrared", scene.swir, "gray", "grey value"),
        ("radar, VV", vv, "gray", "backscatter (dB)"),
        ("radar, VH", vh, "gray", "backscatter (dB)"),
        ("elevation of the surface", scene.dsm, "viridis", "metres"),
        ("classes", overlay(np.full_like(scene.optical, 255), scene.labels, colours, 1.0), None, ""),
    ]
    there = [(title, values, colour_map, unit) for title, values, colour_map, unit in layers if values is not None]
    height, width = scene.labels.shape
    columns = min(columns, len(there) + 1)  # one more place, for the legend
    rows = math.ceil((len(there) + 1) / columns)
    figure = Picture(figsize=(cell * columns, rows * (cell * 0.8 * height / width + 0.4)), layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in all_axes[len(there) :]:
        axes.set_axis_off()
    extent = (0, width * scene.gsd, height * scene.gsd, 0)
    for axes, (title, values, colour_map, unit) in zip(all_axes, there, strict=False):
        # Single bright pixels, such as a corner of a roof in radar, would leave all others dark.
        low, high = (None, None) if colour_map is None else np.percentile(values, (1, 99))
        shown = axes.imshow(values, cmap=colour_map, vmin=low, vmax=high, extent=extent, interpolation="nearest")
        axes.set_title(title, fontsize=10)
        axes.tick_params(labelsize=7)
        axes.set_xlabel("metres", fontsize=8)
        if unit:
            bar = figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.03)
            bar.set_label(unit, fontsize=8)
            bar.ax.tick_params(labelsize=7)
    place = all_axes[len(there)]
    legend(place, classes, colours, class_shares(scene.labels, len(classes)))
    place.get_legend().set_bbox_to_anchor((0, 1), transform=place.transAxes)
    return figure


def plot_clouds(
    clouds: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], opacity: bool = True, cell: float = 2.4
) -> Picture:
    """Cloudy images in a table, a row for each kind of cloud and a column for each amount.

    Args:
        clouds: name of the row -> name of the column -> (image (H, W, 3) uint8, opacity (H, W) in 0..1), as
            :func:`rsovlib.data.clouds.add_clouds` gives them.
        opacity: whether to draw the opacities, too, in a row of their own below each row of images.
        cell: width of one image in inches.

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
    figure = Picture(
        figsize=(cell * len(columns) + 1.0, rows * (cell * height / width + 0.1) + 0.4), layout="constrained"
    )
    table = figure.subplots(rows, len(columns), squeeze=False)
    for line, (kind, row) in enumerate(clouds.items()):
        for column, (name, (image, veil)) in enumerate(row.items()):
            axes = table[line * lines, column]
            show_map(axes, drawable(image))
            if line == 0:
                axes.set_title(name, fontsize=10)
            if opacity:
                below = table[line * lines + 1, column]
                show_map(below, shrunk(veil))
                below.images[0].set(cmap="magma", clim=(0, 1))
        table[line * lines, 0].set_ylabel(kind, fontsize=10)
        if opacity:
            table[line * lines + 1, 0].set_ylabel(f"{kind}: opacity", fontsize=10)
    if opacity:
        bar = figure.colorbar(table[1, 0].images[0], ax=table, shrink=0.5, pad=0.02)
        bar.set_label("opacity: share of the ground's light kept back at 550 nm")
    return figure
