"""Every kind of picture fits JupyterLab's column on a small laptop, with letters that can be read there."""

from __future__ import annotations

import io
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from rsovlib import plots
from rsovlib.plots import Chart, Panel, Picture, plot_charts, plot_panels
from rsovlib.plots.cost_accuracy import Mark, plot_cost_accuracy
from rsovlib.plots.heatmaps import HeatMap, plot_heat_maps
from rsovlib.plots.intervals import plot_intervals
from rsovlib.plots.moves import plot_moves
from rsovlib.plots.page import legend_columns
from rsovlib.plots.pairs import plot_pairs

# JupyterLab 4 at 1366 x 900 pixels with the file browser open, measured: an output is 934 pixels wide.
COLUMN = 934
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)
LABELS = RNG.integers(0, 7, (40, 50))
CLASSES = ["impervious surfaces", "low vegetation", "water", "bare soil", "forest", "farmland", "buildings, houses"]


def panels() -> Picture:
    maps = [
        Panel(f"method {k}\n(its long name)", RNG.random((5, 6)), "attention (multiples of uniform)") for k in range(5)
    ]
    classes = [Panel(f"mIoU of method {k}", LABELS) for k in range(6)]
    return plot_panels([Panel("image", IMAGE), *maps, *classes], CLASSES, gsd=0.5, columns=6, cell=4.0, title="A title")


def charts() -> Picture:
    curves = {f"a method with a name {k}": ([1, 2, 3], [k, k + 1, k]) for k in range(6)}
    return plot_charts([Chart("iteration", "energy (nats a pixel)", curves, "title")] * 3, width=6)


def stages() -> Picture:
    found = {
        "clip_diffused": RNG.random((7, 5, 6)),
        "probabilities": RNG.random((7, 20, 24)),
        "superpixels": LABELS * 9,
    }
    return plots.plot_stages(found, CLASSES, cell=4)


def segmentation() -> Picture:
    return plots.plot_segmentation(SimpleNamespace(labels=LABELS, classes=CLASSES, image=IMAGE), title="A title")


def layers() -> Picture:
    layer = RNG.random((40, 50)).astype(np.float32)
    scene = SimpleNamespace(
        **{"optical": IMAGE, "labels": LABELS, "classes": CLASSES, "nir": layer, "swir": layer, "dsm": layer},
        sar=np.stack([layer, layer]),
        gsd=1.0,
    )
    return plots.plot_scene_layers(scene)


def clouds() -> Picture:
    row = {f"{cover} % cover": (IMAGE, RNG.random((40, 50))) for cover in (10, 30, 60, 90, 100)}
    return plots.plot_clouds({"thin": row, "thick": row}, cell=5)


def heat_maps() -> Picture:
    value = RNG.normal(size=(4, 4))
    one = HeatMap("w_cross", "superpixel scale", list("1234"), list("1234"), value, value - 1, value + 1, (1, 1))
    return plot_heat_maps([one] * 6, label="mIoU minus the default's (points)", title="Diffusion")


def moves() -> Picture:
    share = RNG.random((6, 6))
    shown = {"became right": share, "became wrong": share, "wrong before and after": share}
    return plot_moves(shown, CLASSES[:6], across="class under Gen", down="class under Ori", title="GID")


def intervals() -> Picture:
    rows = {f"D{k:02d}": (k - 5.0, k - 7.0, k - 3.0) for k in range(12)}
    labels = {row: f"{row}  resize of CLIP's position embedding" for row in rows}
    return plot_intervals(
        {"official": rows, "paper": rows},
        order=list(rows),
        labels=labels,
        xlabel="change of mIoU by the switch (points), 95 % interval over the tiles",
        notes=dict.fromkeys(rows, "69.6 | 77.5"),
        notes_title="pixels changed (%):\nfrom official | from paper",
    )


def pairs() -> Picture:
    return plot_pairs({"drawn by the classes' shares": (1, 20)}, labels=("accuracy", "mIoU"), axis="score (percent)")


def costs() -> Picture:
    names = [f"SegEarth-OV {k}" for k in range(12)]
    marks = {name: Mark(k + 1.0, 20.0, 10.0, 30.0, k == 0, k == 1) for k, name in enumerate(names)}
    axes = ("latency (s an image)", "GFLOP an image, these models", "GFLOP for 512 x 512 pixels,\nfull-size networks")
    return plot_cost_accuracy(dict.fromkeys(axes, marks), order=names, title="160 x 160 pixels")


@pytest.mark.parametrize(
    "draw",
    [panels, charts, stages, segmentation, layers, clouds, heat_maps, moves, intervals, pairs, costs],
    ids=lambda draw: draw.__name__,
)
def test_a_picture_is_no_wider_than_the_page_and_its_letters_have_nine_points(draw: Callable[[], Picture]):
    figure = draw()
    width = Image.open(io.BytesIO(figure._repr_png_())).width
    assert width <= COLUMN
    letters = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    assert letters
    assert min(text.get_fontsize() for text in letters) >= 9, [text for text in letters if text.get_fontsize() < 9]


def test_like_maps_share_one_colour_bar_and_unlike_ones_have_their_own():
    def bars(*limits: tuple[float, float], columns: int = 2) -> int:
        maps = [Panel(f"{k}", RNG.random((3, 4)), "score", one) for k, one in enumerate(limits)]
        figure = plot_panels([Panel("image", IMAGE), *maps], columns=columns)
        return sum(axes.get_ylabel() == "score" for axes in figure.axes)

    assert bars((0.0, 1.0), (0.0, 1.0), (0.0, 1.0)) == 1
    assert bars((0.0, 1.0), (0.0, 1.0), columns=3) == 1
    assert bars((0.0, 1.0), (0.0, 2.0), (0.0, 3.0)) == 3


def test_the_legend_names_what_is_seen_and_takes_an_empty_place():
    seen = np.where(LABELS > 1, 1, LABELS)
    full = plot_panels([Panel("image", IMAGE), Panel("classes", seen)], CLASSES, columns=2)
    assert [text.get_text() for text in full.legends[0].get_texts()] == CLASSES[:2]
    empty = plot_panels([Panel("a", seen), Panel("b", seen), Panel("c", seen)], CLASSES, columns=2)
    assert not empty.legends
    assert len(empty.axes[3].get_legend().get_texts()) == 2


def test_every_column_has_its_ticks_where_the_last_row_is_not_full():
    figure = plot_panels([Panel(f"{k}", IMAGE) for k in range(3)], columns=2)
    figure.draw_without_rendering()
    labelled = [any(tick.get_visible() for tick in axes.get_xticklabels()) for axes in figure.axes[:3]]
    assert labelled == [False, True, True]
    assert [axes.get_xlabel() for axes in figure.axes[:3]] == ["", "pixels", "pixels"]


def test_legends_below_a_picture_are_as_wide_as_it_and_of_like_rows():
    assert legend_columns([]) == 1
    assert legend_columns(["water"] * 4, 9.2) == 4
    assert legend_columns(["water"] * 12, 9.2) == 6  # two rows of six, not eight and four
    assert legend_columns(["a class with quite a long name indeed" * 3], 2.0) == 1
