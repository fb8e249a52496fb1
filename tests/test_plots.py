"""Colours that can be told apart, overlays that are exact, and pictures that hold what they say."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from rsovlib import plots
from rsovlib.errors import InputError, OutputError
from rsovlib.plots.colours import _as_seen, _distance, _rgb
from rsovlib.plots.legend import percent

CLASSES = ["water, river", "forest, trees", "buildings, rooftops"]


def test_the_words_of_land_cover_get_their_colours():
    colours = plots.class_colours(["river", "trees", "Rooftops", "roads", "bare soil", "low vegetation", "agriculture"])
    expected = ["#0072B2", "#00704F", "#D55E00", "#8A8A8A", "#E5CBA0", "#9AD15A", "#F0E442"]
    assert [f"#{r:02X}{g:02X}{b:02X}" for r, g, b in colours] == expected


def test_the_noun_decides_and_then_the_synonyms():
    assert (plots.class_colours(["forest road"]) == plots.class_colours(["road"])).all()
    assert (plots.class_colours(["thing, lake"]) == plots.class_colours(["water"])).all()


def test_other_names_get_okabe_ito_in_order():
    assert [tuple(c) for c in plots.class_colours(["one", "two"])] == [(0xE6, 0x9F, 0x00), (0x56, 0xB4, 0xE9)]


def test_land_cover_colours_differ_for_all_eyes():
    for one, other in itertools.combinations(plots.LAND_COVER, 2):
        rgb = np.stack([_rgb(one), _rgb(other)])
        assert _distance(rgb[:1], [rgb[1]])[0] > 12, (one, other)


@pytest.mark.parametrize("classes", [["lake", "river", "sea", "pond"], [f"kind {i}" for i in range(40)], ["x"], []])
def test_no_two_classes_share_a_colour(classes: list[str]):
    colours = plots.class_colours(classes)
    assert colours.shape == (len(classes), 3)
    assert colours.dtype == np.uint8
    assert len({tuple(c) for c in colours}) == len(classes)
    assert (colours == plots.class_colours(classes)).all()


def test_sixteen_arbitrary_classes_stay_apart_under_red_green_blindness():
    colours = plots.class_colours([f"kind {i}" for i in range(16)])
    nearest = [_distance(c[None], [o for j, o in enumerate(colours) if j != i])[0] for i, c in enumerate(colours)]
    assert min(nearest) > 12  # a just noticeable difference is about 2


def test_simulated_blindness_keeps_greys_and_confuses_red_with_green():
    greys = np.array([[0, 0, 0], [128, 128, 128], [255, 255, 255]], dtype=np.uint8)
    full, protan, deutan = _as_seen(greys)
    np.testing.assert_allclose(protan, full, atol=0.2)
    np.testing.assert_allclose(deutan, full, atol=0.2)
    # Two colours on a line of confusion: far apart for most people, nearly one for deuteranopes.
    full, _, deutan = _as_seen(np.array([[160, 90, 60], [90, 117, 62]], dtype=np.uint8))
    assert np.linalg.norm(full[0] - full[1]) > 40
    assert np.linalg.norm(deutan[0] - deutan[1]) < 10


def test_overlay_blends_and_leaves_unlabelled_pixels_alone(image: np.ndarray, labels: np.ndarray):
    before = image.copy()
    labels[:3] = 255
    labels[3:5] = -1
    colours = plots.class_colours(CLASSES)
    half = plots.overlay(image, labels, colours, 0.5)
    known = (labels >= 0) & (labels < 3)
    expected = image[known] * 0.5 + colours[labels[known]] * 0.5
    assert np.abs(half[known] - expected).max() <= 0.5 + 1e-9
    assert (half[~known] == image[~known]).all()
    assert (plots.overlay(image, labels, colours, 0) == image).all()
    assert (plots.overlay(image, labels, colours, 1)[known] == colours[labels[known]]).all()
    assert (image == before).all()


@pytest.mark.parametrize(
    ("image", "labels", "opacity", "sentence"),
    [
        (np.zeros((4, 5, 3)), np.zeros((4, 5), int), 0.5, "float64"),
        (np.zeros((4, 5), np.uint8), np.zeros((4, 5), int), 0.5, r"\(H, W, 3\)"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), int), 0.5, "one size"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), int), 1.5, "outside 0..1"),
    ],
)
def test_overlay_refuses_what_does_not_fit(image: np.ndarray, labels: np.ndarray, opacity: float, sentence: str):
    with pytest.raises(InputError, match=sentence):
        plots.overlay(image, labels, plots.class_colours(["a"]), opacity)


def test_shares_count_valid_pixels_with_a_class():
    labels = np.array([[0, 0, 1, 255], [1, 2, -1, 2]])
    np.testing.assert_allclose(plots.class_shares(labels, 3), [2 / 6, 2 / 6, 2 / 6])
    valid = np.array([[1, 1, 1, 1], [0, 0, 1, 0]], dtype=bool)
    np.testing.assert_allclose(plots.class_shares(labels, 3, valid), [2 / 3, 1 / 3, 0])
    assert plots.class_shares(np.full((2, 2), 255), 3).tolist() == [0, 0, 0]


def test_small_shares_are_not_printed_as_nothing():
    assert [percent(x) for x in (0, 0.0004, 0.0014, 0.5)] == ["0.0 %", "< 0.1 %", "0.1 %", "50.0 %"]


def texts_of(figure: plots.Picture) -> list[str]:
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    return [text.get_text() for legend in legends if legend for text in legend.get_texts()]


def test_saved_overlay_holds_the_map_and_hides_nodata(tmp_path: Path, image: np.ndarray, labels: np.ndarray):
    valid = np.ones(labels.shape, dtype=bool)
    valid[:, 20:] = False
    path = tmp_path / "map.png"
    plots.save_overlay(path, image, labels, CLASSES, valid, title="A title", opacity=1.0)
    assert [p.name for p in tmp_path.iterdir()] == ["map.png"]
    picture = np.asarray(Image.open(path).convert("RGB"))
    found = {tuple(c) for c in picture.reshape(-1, 3)}
    assert all(tuple(c) in found for c in plots.class_colours(CLASSES))
    # 20 of 31 columns are drawn, the rest of the map is white: less than half as much forest as without the mask.
    green = tuple(plots.class_colours(CLASSES)[1])
    masked = (picture == green).all(-1).sum()
    plots.save_overlay(path, image, labels, CLASSES, title="A title", opacity=1.0)
    assert masked < 0.55 * (np.asarray(Image.open(path).convert("RGB")) == green).all(-1).sum()


def test_saving_where_nothing_can_be_written(tmp_path: Path, image: np.ndarray, labels: np.ndarray):
    with pytest.raises(OutputError, match="is a folder"):
        plots.save_overlay(tmp_path, image, labels, CLASSES)
    assert not list(tmp_path.iterdir())


def test_segmentation_plot_has_three_panels_and_counts_valid_pixels(image: np.ndarray, labels: np.ndarray):
    valid = labels != 2
    result = SimpleNamespace(labels=labels, classes=CLASSES, image=image, valid=valid)
    figure = plots.plot_segmentation(result, title="A title")
    assert [axes.get_title() for axes in figure.axes] == ["image", "classes", "overlay"]
    share = (labels == 0).sum() / valid.sum()
    assert texts_of(figure) == [
        f"water  {share:.1%}".replace("%", " %"),
        f"forest  {1 - share:.1%}".replace("%", " %"),
        "buildings  0.0 %",
    ]
    only_map = plots.plot_segmentation(SimpleNamespace(labels=labels, classes=CLASSES))
    assert [axes.get_title() for axes in only_map.axes] == ["classes"]


def test_jupyter_gets_a_png(image: np.ndarray, labels: np.ndarray):
    figure = plots.plot_segmentation(SimpleNamespace(labels=labels, classes=CLASSES), image)
    assert figure._repr_png_().startswith(b"\x89PNG")


def titles_of(figure: plots.Picture) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


def test_stages_of_every_kind_are_drawn(labels: np.ndarray):
    rng = np.random.default_rng(0)
    stages = {
        "scores": torch.rand(49, 3),
        "clip_diffused": rng.random((3, 7, 9)),
        "superpixels": np.arange(37 * 31).reshape(37, 31) // 200,
        "labels": labels,
        "confidence": rng.random((37, 31)).astype(np.float32),
        "settings": {"beta": 0.1},
        "vector": np.arange(4.0),
    }
    figure = plots.plot_stages(stages, CLASSES)
    assert titles_of(figure) == [
        *("water", "forest", "buildings"),
        *("water", "forest", "buildings"),
        *("superpixels: 6 regions", "labels", "confidence"),
    ]
    assert [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()] == ["scores", "clip diffused"]
    np.testing.assert_allclose(figure.axes[1].images[0].get_array(), stages["scores"].numpy()[:, 1].reshape(7, 7))
    # The maps of one stage share their scale, over all classes.
    limits = {axes.images[0].get_clim() for axes in figure.axes[:3]}
    assert limits == {(float(stages["scores"].min()), float(stages["scores"].max()))}
    assert titles_of(plots.plot_stages(stages, CLASSES, names=["labels"])) == ["labels"]
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_many_classes_wrap_and_odd_values_do_not_stop_the_picture():
    maps = np.random.default_rng(1).random((19, 5, 4))
    maps[0, 0] = [np.nan, np.inf, -np.inf, 0.5]
    figure = plots.plot_stages({"maps": maps, "empty": np.full((2, 3, 3), np.nan)}, [f"c{i}" for i in range(19)])
    assert len([t for t in titles_of(figure) if t]) == 21
    figure._repr_png_()


def test_stages_that_cannot_be_drawn():
    with pytest.raises(InputError, match="no stage 'clip'; there are dino"):
        plots.plot_stages({"dino": np.zeros((3, 3))}, names=["clip"])
    with pytest.raises(InputError, match="None of the stages is a map"):
        plots.plot_stages({"settings": {}, "vector": np.zeros(3)})


def layered(**changes: object) -> SimpleNamespace:
    rng = np.random.default_rng(0)
    layers = {
        "optical": rng.integers(0, 256, (31, 37, 3), dtype=np.uint8),
        "labels": np.repeat(np.arange(3, dtype=np.uint8), [10, 10, 11])[:, None].repeat(37, axis=1),
        "classes": CLASSES,
        "nir": rng.integers(0, 256, (31, 37), dtype=np.uint8),
        "swir": None,
        "sar": rng.normal(-12, 3, (2, 31, 37)).astype(np.float32),
        "dsm": np.linspace(200, 300, 31 * 37, dtype=np.float32).reshape(31, 37),
        "gsd": 2.0,
    }
    return SimpleNamespace(**(layers | changes))


def titles(figure: plots.Picture) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def test_the_layers_of_a_scene_are_drawn_with_units_metres_and_a_legend():
    scene = layered()
    figure = plots.plot_scene_layers(scene)
    maps = {axes.get_title(): axes.images[0] for axes in figure.axes if axes.get_title()}
    drawn = ["optical: red, green, blue", "near infrared", "radar, VV", "radar, VH", "elevation of the surface"]
    assert titles(figure) == [*drawn, "classes"], "what there is, and no more"
    assert (maps["radar, VH"].get_array() == scene.sar[1]).all()
    assert (maps["elevation of the surface"].get_array() == scene.dsm).all()
    assert maps["near infrared"].get_extent() == [0, 74, 62, 0]
    units = [axes.get_ylabel() for axes in figure.axes]
    assert units.count("backscatter (dB)") == 2
    assert units.count("height (m)") == 1
    assert texts_of(figure) == ["water", "forest", "buildings"]
    assert tuple(maps["classes"].get_array()[0, 0]) == tuple(plots.class_colours(CLASSES)[0])
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_a_scene_of_one_sensor_is_drawn_too():
    figure = plots.plot_scene_layers(layered(nir=None, sar=None, dsm=None))
    assert titles(figure) == ["optical: red, green, blue", "classes"]


@pytest.mark.parametrize("opacity", [True, False])
def test_the_table_of_clouds(opacity: bool):
    image = np.full((31, 37, 3), 90, np.uint8)
    table = {
        kind: {f"{cover:.0%}": (image + row, np.full((31, 37), cover, np.float32)) for cover in (0.2, 0.6)}
        for row, kind in enumerate(("thin", "thick"))
    }
    figure = plots.plot_clouds(table, opacity=opacity)
    assert titles(figure) == ["20%", "60%"]
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == (8 if opacity else 4)
    rows = [axes.get_ylabel() for axes in shown if axes.get_ylabel()]
    assert rows == (["thin", "thin: opacity", "thick", "thick: opacity"] if opacity else ["thin", "thick"])
    assert (shown[-1 if not opacity else 5].images[0].get_array() == 91).all()
    if opacity:
        assert np.allclose(shown[3].images[0].get_array(), 0.6)
        assert shown[3].images[0].get_clim() == (0, 1)
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_a_table_of_clouds_has_the_same_columns_in_every_row():
    cell = (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.float32))
    for table in ({}, {"thin": {}}, {"thin": {"20%": cell}, "thick": {"60%": cell}}):
        with pytest.raises(InputError, match="columns"):
            plots.plot_clouds(table)
