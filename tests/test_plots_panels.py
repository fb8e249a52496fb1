"""Panels share a place and a scale; charts and outlines hold what they are given."""

from __future__ import annotations

import numpy as np
import pytest

from rsovlib.errors import InputError
from rsovlib.plots import Chart, Panel, Picture, mean_colours, outlined, plot_charts, plot_panels

IMAGE = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
LABELS = np.repeat([0, 1, 255], 10)[None].repeat(20, axis=0)


def test_all_panels_have_one_extent_in_metres_units_and_a_legend():
    panels = [
        Panel("image", IMAGE, marks=((4, 9),), lines=(((0, 0), (19, 29)),)),
        Panel("classes", LABELS),
        Panel("map", np.linspace(0, 1, 6).reshape(2, 3), "score", (0.0, 2.0)),
    ]
    figure = plot_panels(panels, ["water, river", "forest"], gsd=0.5, columns=3)
    maps = [axes for axes in figure.axes if axes.images and axes.get_title()]
    assert [axes.get_title() for axes in maps] == ["image", "classes", "map"]
    assert all(tuple(axes.images[0].get_extent()) == (0, 15, 10, 0) for axes in maps)
    assert maps[0].get_xlabel() == maps[0].get_ylabel() == "metres"
    bars = [axes.get_ylabel() for axes in figure.axes if not axes.get_title()]
    assert bars == ["score"]
    assert maps[2].images[0].get_clim() == (0.0, 2.0)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["water", "forest", "none of these"]
    mark = maps[0].lines[-1]
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == ((9 + 0.5) * 0.5, (4 + 0.5) * 0.5)
    assert maps[0].lines[0].get_xdata().tolist() == [0.25, 14.75]


def test_without_metres_the_axes_are_in_pixels_and_spare_places_stay_empty():
    figure = plot_panels([Panel("a", IMAGE), Panel("b", IMAGE), Panel("c", IMAGE)], columns=2)
    assert tuple(figure.axes[0].images[0].get_extent()) == (0, 30, 20, 0)
    assert figure.axes[2].get_xlabel() == "pixels"
    assert not figure.axes[3].axison
    assert not figure.legends


def test_bad_panels_and_charts_are_refused():
    with pytest.raises(InputError, match="no panel"):
        plot_panels([])
    with pytest.raises(InputError, match="'odd'"):
        plot_panels([Panel("odd", np.zeros((3, 4, 2)))])
    with pytest.raises(InputError):
        plot_charts([Chart("x", "y", {})])


def test_outlines_lie_where_regions_meet_and_nowhere_else():
    regions = np.zeros((5, 6), int)
    regions[:, 3:] = 1
    drawn = outlined(np.zeros((5, 6, 3), np.uint8), regions, (9, 8, 7))
    assert (drawn[:, 3] == (9, 8, 7)).all()
    assert not drawn[:, [0, 1, 2, 4, 5]].any()


def test_mean_colours_are_means():
    rng = np.random.default_rng(0)
    image, regions = rng.integers(0, 256, (7, 9, 3)).astype(np.uint8), rng.integers(0, 4, (7, 9))
    found = mean_colours(image, regions)
    for region in range(4):
        inside = regions == region
        assert (found[inside] == np.rint(image[inside].mean(axis=0))).all()


def test_a_chart_holds_its_curves_and_levels():
    figure = plot_charts(
        [Chart("steps", "loss (nats)", {"a": ([1, 2], [3, 4]), "b": ([1, 9], [1, 1])}, levels={"c": 2.0})]
    )
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("steps", "loss (nats)")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "c"]
    assert axes.lines[1].get_xdata().tolist() == [1, 9]
    colours = {line.get_color() for line in axes.lines}
    styles = {line.get_linestyle() for line in axes.lines[:2]}
    assert len(colours) == 3
    assert len(styles) == 2
    logarithmic = plot_charts([Chart("K", "percent", {"a": ([3, 300], [0, 1])}, log_x=True)]).axes[0]
    logarithmic.figure.canvas.draw()
    labels = [tick.get_text() for tick in logarithmic.get_xticklabels()]
    assert {"5", "10", "20", "100"} <= set(labels)


def test_charts_of_the_same_curves_share_a_legend_and_single_curves_need_none():
    def chart(*names: str) -> Chart:
        return Chart("x", "y", {name: ([1, 2], [1, 2]) for name in names})

    def of_axes(figure: Picture) -> list[int]:
        return [len(axes.get_legend().get_texts()) if axes.get_legend() else 0 for axes in figure.axes]

    shared = plot_charts([chart("a", "b"), chart("a", "b")])
    assert (len(shared.legends), of_axes(shared)) == (1, [0, 0])
    own = plot_charts([chart("a", "b"), chart("a", "c"), chart("a")])
    assert (len(own.legends), of_axes(own)) == (0, [2, 2, 0])
    single = plot_charts([chart("a")])
    assert (len(single.legends), of_axes(single)) == (0, [0])
