"""Pictures: class colours, overlays with a legend, and the stages of a method side by side.

Nothing here uses pyplot: a :class:`Picture` is a matplotlib figure that belongs to nobody but its caller, so batch
jobs leak no figures and need no display, and JupyterLab shows it when it's the last value of a cell.
"""

from __future__ import annotations

import functools
import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from skimage.color import rgb2lab
from skimage.transform import resize

from rsovlib.errors import InputError
from rsovlib.files import write_beside

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito (2008), "Color Universal Design": distinct for people with any of the common colour deficiencies.
# Black, their eighth, comes last here: under an overlay it would look like shadow.
OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#000000")

# Colours that people expect for common kinds of land cover. Any of the words in a class name claims the colour.
LAND_COVER = {
    "#0072B2": "water river lake sea ocean pond reservoir canal stream",
    "#00704F": "forest tree woodland wood jungle",
    "#9AD15A": "grass grassland meadow lawn pasture rangeland vegetation shrub",
    "#F0E442": "farmland agriculture agricultural crop cropland field farm",
    "#D55E00": "building roof rooftop house built built-up city urban settlement",
    "#8A8A8A": "road street pavement paved asphalt highway impervious",
    "#E5CBA0": "bare barren soil sand desert ground land beach",
    "#A03070": "car vehicle truck",
    "#56B4E9": "swimming pool ship boat harbor harbour",
    "#D8F3FF": "snow ice glacier",
    "#2B2B2B": "background clutter other unlabelled unlabeled",
}

# Linear-light RGB as a person without the red (protanopia) or the green (deuteranopia) cones sees it:
# Viénot, Brettel and Mollon (1999), https://doi.org/10.1002/(SICI)1520-6378(199908)24:4<243::AID-COL5>3.0.CO;2-3
_PROTANOPIA = np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]])
_DEUTERANOPIA = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])

# Maps side by side in plot_stages.
_COLUMNS = 8

# Pixels on the longer side of a drawn map: more than a screen shows, little enough for a scene of any size.
_LONGEST_SIDE = 1600


class Picture(Figure):
    """A matplotlib figure that JupyterLab shows by itself, without pyplot and its inline back end."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight")
        return buffer.getvalue()


class Segmented(Protocol):
    """What :func:`plot_segmentation` needs; ``rsovlib.Segmentation`` has it."""

    @property
    def labels(self) -> np.ndarray:
        """Label of every pixel (H, W)."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the K classes."""


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


def class_colours(classes: Sequence[str]) -> np.ndarray:
    """A colour for each class: what people expect where there is such a thing, and distinct in any case.

    A class with a land-cover word in its name (water, forest, roads, ...) gets that kind's colour. The others get
    the Okabe-Ito colours that are left, and after these, colours chosen one by one to be as far as possible from
    all others, in CIELAB, as seen with full colour vision and with either common form of red-green blindness.

    Args:
        classes: the K names; synonyms after a comma count only when the first name says nothing.

    Returns:
        (K, 3) uint8, RGB, no two alike; the same names always give the same colours.
    """
    chosen: list[str | None] = [None] * len(classes)
    for position, name in enumerate(classes):
        colour = _expected_colour(name)
        if colour not in chosen:
            chosen[position] = colour
    taken = [_rgb(colour) for colour in chosen if colour is not None]
    # Okabe-Ito colours too close to a land-cover colour in use would be confused with it.
    spare = [_rgb(colour) for colour in OKABE_ITO[:-1]]
    colours = np.zeros((len(classes), 3), dtype=np.uint8)
    furthest: _Furthest | None = None
    for position, colour in enumerate(chosen):
        if colour is not None:
            colours[position] = _rgb(colour)
            continue
        spare = [candidate for candidate in spare if not taken or _distance(candidate[None], taken)[0] > 20]
        if spare:
            colours[position] = spare.pop(0)
        else:
            furthest = furthest or _Furthest(taken)
            colours[position] = furthest.next()
        taken.append(colours[position])
    return colours


def overlay(image: np.ndarray, labels: np.ndarray, colours: np.ndarray, opacity: float = 0.5) -> np.ndarray:
    """The image with every class tinted in its colour.

    Args:
        image: (H, W, 3) uint8.
        labels: (H, W) integers; pixels outside 0..K-1 (nodata, no answer) stay as they are.
        colours: (K, 3) uint8, as :func:`class_colours` gives them.
        opacity: 0 shows only the image, 1 only the colours.

    Returns:
        (H, W, 3) uint8, a new array.

    Raises:
        InputError: sizes that don't fit together, or an opacity outside 0..1.
    """
    picture, classes = np.asarray(image), np.asarray(labels)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise InputError(f"The image to draw on is {picture.shape} {picture.dtype}; give (H, W, 3) uint8.")
    if classes.shape != picture.shape[:2]:
        raise InputError(f"The label map is {classes.shape} and the image {picture.shape[:2]}; they must be one size.")
    if not 0 <= opacity <= 1:
        raise InputError(f"opacity={opacity} is outside 0..1.")
    painted = np.array(picture)
    known = (classes >= 0) & (classes < len(colours))
    # Blending in whole numbers, 256 levels of opacity: half the memory and time of floats, exact at both ends.
    level = round(opacity * 256)
    tint = np.asarray(colours, dtype=np.uint16)[classes[known]]
    painted[known] = (painted[known].astype(np.uint16) * (256 - level) + tint * level + 128) >> 8
    return painted


def class_shares(labels: np.ndarray, classes: int, valid: np.ndarray | None = None) -> np.ndarray:
    """The share of each class among the valid pixels that have a class.

    Args:
        labels: (H, W) integers; what lies outside 0..classes-1 isn't counted.
        classes: K.
        valid: (H, W) bool, where there is data; everywhere by default.

    Returns:
        (K,) float64, adds up to 1, or all 0 when no pixel counts.
    """
    counted = (labels >= 0) & (labels < classes)
    if valid is not None:
        counted &= valid
    counts = np.bincount(np.asarray(labels)[counted].astype(np.int64), minlength=classes)
    return counts / max(counts.sum(), 1)


def save_overlay(
    path: str | os.PathLike[str],
    image: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    valid: np.ndarray | None = None,
    title: str | None = None,
    opacity: float = 0.45,
) -> None:
    """Save the overlay as a PNG with a legend: each class's colour, name and share of the area.

    Args:
        path: the file to write; it appears only when it is complete.
        image: (H, W, 3) uint8.
        labels: (H, W) integers.
        classes: names of the K classes.
        valid: (H, W) bool, where there is data; the rest is drawn white and not counted.
        title: a line above the picture.
        opacity: of the colours over the image.

    Raises:
        InputError: sizes that don't fit together.
        OutputError: the file can't be written.
    """
    colours = class_colours(classes)
    shares = class_shares(labels, len(classes), valid)
    painted = overlay(image, labels, colours, opacity)
    if valid is not None:
        painted[~valid] = 255
    painted = _drawable(painted)
    height, width = painted.shape[:2]
    # One pixel of the picture for one of the map where the map is large enough; small ones are enlarged.
    scale = max(1.0, 600 / max(height, width))
    inches = np.array([width, height]) * scale / 100
    figure = Picture(figsize=(inches[0] + 2.6, inches[1] + 0.5), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    _show_map(axes, painted)
    if title:
        axes.set_title(title, loc="left", fontsize=12)
    _legend(axes, classes, colours, shares)
    with write_beside(path) as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight", facecolor="white")


def plot_segmentation(
    segmentation: Segmented, image: np.ndarray | None = None, opacity: float = 0.45, title: str | None = None
) -> Picture:
    """The image, the class map and the overlay side by side, with a legend.

    Args:
        segmentation: what a segmenter returned.
        image: (H, W, 3) uint8; by default the one that the segmentation remembers, and where it remembers none,
            only the class map is drawn.
        opacity: of the colours in the overlay.
        title: a line above the pictures.

    Returns:
        A figure; JupyterLab shows it, ``.savefig(path)`` keeps it.
    """
    if image is None:
        image = getattr(segmentation, "image", None)
    labels = np.asarray(segmentation.labels)
    valid = getattr(segmentation, "valid", None)
    if valid is not None:
        labels = np.where(valid, labels, -1)  # no colour, no share
    classes = list(segmentation.classes)
    colours = class_colours(classes)
    panels = {"classes": overlay(np.full((*labels.shape, 3), 255, np.uint8), labels, colours, 1.0)}
    if image is not None:
        panels = {"image": np.asarray(image), **panels, "overlay": overlay(image, labels, colours, opacity)}
    height, width = labels.shape
    panel_width = min(4.2, 4.2 * width / height)
    figure = Picture(
        figsize=(panel_width * len(panels) + 2.2, panel_width * height / width + 0.6), layout="constrained"
    )
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, panel) in zip(all_axes, panels.items(), strict=True):
        _show_map(axes, _drawable(panel))
        axes.set_title(name, fontsize=11)
    if title:
        figure.suptitle(title)
    _legend(all_axes[-1], classes, colours, class_shares(labels, len(classes)))
    return figure


def plot_stages(
    stages: Mapping[str, Any],
    classes: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    cell: float = 2.0,
) -> Picture:
    """The intermediate results of a method as small maps: a row for each stage, a column for each class.

    Args:
        stages: name -> array or tensor. (K, h, w) gives a row of K maps on one colour scale with one colour bar,
            eight to a row; (H, W) floats give one map with its bar; (H, W) integers give regions, or classes
            when their values fit ``classes``; (N, K) with N a square number is taken as a (K, n, n) patch grid.
            What has another shape, or isn't an array, is left out.
        classes: names of the classes, over the maps.
        names: which stages, in this order (those with one map come last, side by side); by default all.
        cell: width of one map in inches.

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
    tallest = [max(panel.values.shape[0] / panel.values.shape[1] for panel in strip) for strip in strips]
    heights = [min(ratio, 3.0) * cell + 0.45 for ratio in tallest]
    figure = Picture(figsize=(cell * columns + 0.8, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(strips), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, strip in zip(parts, strips, strict=True):
        row = part.subplots(1, columns, squeeze=False)[0]
        for axes in row[len(strip) :]:
            axes.set_axis_off()
        for position, panel in enumerate(strip):
            _show_panel(row[position], panel, classes)
            if panel.bar:
                alike = [axes for axes, other in zip(row, strip, strict=False) if other.stage == panel.stage]
                bar = part.colorbar(row[position].images[0], ax=alike, fraction=0.05, pad=0.02, aspect=25)
                bar.ax.tick_params(labelsize=7)
    return figure


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
    _legend(place, classes, colours, class_shares(scene.labels, len(classes)))
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
            _show_map(axes, _drawable(image))
            if line == 0:
                axes.set_title(name, fontsize=10)
            if opacity:
                below = table[line * lines + 1, column]
                _show_map(below, _shrunk(veil))
                below.images[0].set(cmap="magma", clim=(0, 1))
        table[line * lines, 0].set_ylabel(kind, fontsize=10)
        if opacity:
            table[line * lines + 1, 0].set_ylabel(f"{kind}: opacity", fontsize=10)
    if opacity:
        bar = figure.colorbar(table[1, 0].images[0], ax=table, shrink=0.5, pad=0.02)
        bar.set_label("opacity: share of the ground's light kept back at 550 nm")
    return figure


@dataclass(frozen=True)
class _Panel:
    """One small map of :func:`plot_stages`; the maps of one stage share their limits and one colour bar."""

    stage: str
    title: str
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
        title = stage.replace("_", " ")
        if classes is not None and of_classes:
            name = _display_name(classes[position])
            title = f"{title}: {name}" if position == 0 else name
        last_of_row = position == len(maps) - 1 or position % _COLUMNS == _COLUMNS - 1
        panels.append(_Panel(stage, title, values, limits, bar=limits is not None and last_of_row))
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
    axes.set_title(panel.title, fontsize=9, loc="left")
    if panel.limits is None:
        _show_regions(axes, panel.values.astype(np.int64), classes)
        return
    low, high = panel.limits
    axes.imshow(_shrunk(panel.values), vmin=low, vmax=high, cmap="cividis", interpolation="nearest")


def _show_regions(axes: Axes, labels: np.ndarray, classes: Sequence[str] | None) -> None:
    """Integers as classes where they fit the class list, otherwise as regions in shuffled colours."""
    if classes is not None and labels.max() < len(classes):
        _show_map(
            axes, _drawable(overlay(np.full((*labels.shape, 3), 255, np.uint8), labels, class_colours(classes), 1))
        )
        return
    count = int(labels.max()) + 1
    colours = np.random.default_rng(0).uniform(0.15, 0.95, (max(count, 1), 3))
    axes.imshow(_shrunk(labels), cmap=ListedColormap(colours), vmin=-0.5, vmax=count - 0.5, interpolation="nearest")
    axes.set_title(f"{axes.get_title(loc='left')}: {len(np.unique(labels))} regions", fontsize=9, loc="left")


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


def _show_map(axes: Axes, picture: np.ndarray) -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])


def _legend(axes: Axes, classes: Sequence[str], colours: np.ndarray, shares: np.ndarray) -> None:
    handles = [
        Patch(facecolor=colour / 255, edgecolor="0.4", linewidth=0.5, label=f"{_display_name(name)}  {_percent(share)}")
        for name, colour, share in zip(classes, colours, shares, strict=True)
    ]
    axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        borderaxespad=0,
        frameon=False,
        fontsize=10,
        ncols=math.ceil(len(handles) / 24),
    )


def _percent(share: float) -> str:
    """A share for people: never "0 %" for something that is there."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %"


def _display_name(name: str) -> str:
    """The first of the synonyms "a, b, c"."""
    return name.split(",")[0].strip()


def _drawable(picture: np.ndarray) -> np.ndarray:
    """A uint8 picture no larger than can be seen; averaged, so that thin roads don't break up."""
    longest = max(picture.shape[:2])
    if longest <= _LONGEST_SIDE:
        return picture
    height, width = (max(1, round(side * _LONGEST_SIDE / longest)) for side in picture.shape[:2])
    small = resize(picture, (height, width, picture.shape[2]), order=1, anti_aliasing=True, preserve_range=True)
    return np.clip(np.rint(small), 0, 255).astype(np.uint8)


def _shrunk(values: np.ndarray) -> np.ndarray:
    """Every n-th value of a map too large for a small panel: values stay values."""
    step = max(1, max(values.shape) // 512)
    return values[::step, ::step]


def _expected_colour(name: str) -> str | None:
    """The land-cover colour that a class name asks for, by its first synonym that says something."""
    for synonym in name.lower().split(","):
        for word in reversed(re.findall(r"[a-z][a-z-]*", synonym)):  # the last word is the noun: "bare soil"
            for colour, kind in LAND_COVER.items():
                if {word, word.removesuffix("s"), word.removesuffix("es")} & set(kind.split()):
                    return colour
    return None


def _rgb(colour: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(colour[1:]), dtype=np.uint8)


def _as_seen(colours: np.ndarray) -> np.ndarray:
    """CIELAB of (M, 3) uint8 colours as three kinds of eyes see them: (3, M, 3)."""
    srgb = np.asarray(colours, dtype=np.float64) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    views = []
    for matrix in (np.eye(3), _PROTANOPIA, _DEUTERANOPIA):
        seen = np.clip(linear @ matrix.T, 0, 1)
        views.append(np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055))
    return rgb2lab(np.stack(views))


def _distance(candidates: np.ndarray, taken: Sequence[np.ndarray]) -> np.ndarray:
    """For each candidate, the CIELAB distance to the nearest taken colour, for the eyes that tell them apart least."""
    return _distance_seen(_as_seen(candidates), taken)


def _distance_seen(seen: np.ndarray, taken: Sequence[np.ndarray]) -> np.ndarray:
    """:func:`_distance` for candidates (3, M, 3) that went through :func:`_as_seen` already."""
    nearest = np.full(seen.shape[1], np.inf)
    for other in _as_seen(np.stack(taken)).swapaxes(0, 1):  # one at a time: all pairs of 254 colours would fill memory
        np.minimum(nearest, np.linalg.norm(seen - other[:, None], axis=-1).min(axis=0), out=nearest)
    return nearest


@functools.cache
def _candidates() -> tuple[np.ndarray, np.ndarray]:
    """A grid of colours, without the very dark and very light ones, which read as shadow or glare; and as seen."""
    steps = np.arange(0, 256, 17)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.uint8)
    lightness = rgb2lab(grid / 255)[:, 0]
    kept = grid[(lightness > 25) & (lightness < 92)]
    return kept, _as_seen(kept)


class _Furthest:
    """Hands out the colour that is furthest from all taken ones, again and again."""

    def __init__(self, taken: Sequence[np.ndarray]) -> None:
        self._colours, self._seen = _candidates()
        self._nearest = _distance_seen(self._seen, taken)

    def next(self) -> np.ndarray:
        colour = self._colours[self._nearest.argmax()]
        # Only the new colour can be nearer than what was nearest before.
        np.minimum(self._nearest, _distance_seen(self._seen, [colour]), out=self._nearest)
        return colour
