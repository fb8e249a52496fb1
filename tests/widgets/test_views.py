from __future__ import annotations

import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from PIL import Image

from rsovlib.data.scenes import make_scene
from rsovlib.data.tiling import tile_grid
from rsovlib.kernels import knn_transition, resample_attention
from rsovlib.metrics import SegmentationMetrics
from rsovlib.segmenters.sdci import SDCI
from rsovlib.widgets import views
from rsovlib.widgets.charts import Line, line_chart
from rsovlib.widgets.encode import CLEAR, Layer, jpeg, png
from rsovlib.widgets.sources import simulated
from rsovlib.widgets.tables import area_rows, confusion_table, legend, scores

COLOURS = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200]], np.uint8)


def test_a_layer_travels_without_loss(labels: np.ndarray) -> None:
    indices = labels.astype(np.uint8)
    indices[:5] = CLEAR
    decoded = np.asarray(Image.open(io.BytesIO(Layer(indices, COLOURS).png())).convert("RGBA"))
    np.testing.assert_array_equal(decoded[5:, :, :3], COLOURS[labels[5:]])
    assert (decoded[5:, :, 3] == 255).all()
    assert (decoded[:5, :, 3] == 0).all()


def test_layers_are_laid_over_images(image: np.ndarray, labels: np.ndarray) -> None:
    layer = views.class_layer(labels, COLOURS, valid=labels != 1)
    np.testing.assert_array_equal(layer.over(image, 1.0)[labels == 0], np.tile(COLOURS[0], ((labels == 0).sum(), 1)))
    np.testing.assert_array_equal(layer.over(image, 1.0)[labels == 1], image[labels == 1])
    np.testing.assert_array_equal(layer.over(image, 0.0), image)


def test_photographs(image: np.ndarray) -> None:
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(image)))), image)
    rough = np.asarray(Image.open(io.BytesIO(jpeg(image)))).astype(int)
    assert np.abs(rough - image).mean() < 8


def test_a_quantity_is_drawn_from_dark_to_light() -> None:
    values = np.array([[0.0, 0.5, 1.0, np.nan, 2.0]])
    layer = views.scale_layer(values, 0.0, 1.0)
    np.testing.assert_array_equal(layer.indices, [[0, 124, 249, CLEAR, 249]])
    light = layer.palette.astype(float).sum(axis=1)
    assert light[249] > light[124] > light[0]


def test_wrong_pixels_leave_out_what_has_no_label() -> None:
    layer = views.wrong_layer(np.array([[0, 1, 2]]), np.array([[0, 0, 255]], np.uint8))
    np.testing.assert_array_equal(layer.indices, [[CLEAR, 0, CLEAR]])


def test_borders_have_no_line_between_windows() -> None:
    regions = np.repeat([[0, 0, 1, 1]], 4, axis=0)
    layer = views.border_layer(regions)
    np.testing.assert_array_equal(layer.indices == 0, regions == np.array([9, 9, 1, 9]))
    grid = tile_grid(4, 6, 4, 2)
    joined = views.join_layers(grid, [layer, layer], (4, 6))
    columns = np.flatnonzero((joined.indices == 0).any(axis=0))
    assert set(columns) <= {2, 4}


def test_attention_of_a_pixel_is_a_row_of_the_fused_map(sdci: SDCI) -> None:
    image = make_scene((48, 64), 3, modalities=()).optical
    with torch.inference_mode():
        features = sdci.encode_image(image)
        whole = features.clip_attention + 0.5 * resample_attention(
            features.dino_attention, features.dino_grid, features.clip_grid
        )
    for row, column in ((0.0, 0.0), (0.4, 0.7), (0.999, 0.999)):
        here = views.cell_at(features.clip_grid, row, column)
        found = views.attention_row(features, "fused", row, column, lambda_1=0.5)
        np.testing.assert_allclose(found.ravel(), whole[here].numpy(), atol=1e-6)
        dino = views.attention_row(features, "DINO", row, column)
        there = views.cell_at(features.dino_grid, row, column)
        np.testing.assert_array_equal(dino.ravel(), features.dino_attention[there].numpy())


def test_neighbours_of_a_pixel_are_a_row_of_the_graph() -> None:
    features = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    graph = knn_transition(features, k=3)
    found = views.neighbour_row(graph, (4, 5), 0.3, 0.5)
    expected = graph.to_dense()[views.cell_at((4, 5), 0.3, 0.5)].numpy()
    np.testing.assert_array_equal(np.nan_to_num(found).ravel(), expected)
    assert np.isfinite(found).sum() == 3


def test_a_window_lies_in_its_place_and_patches_are_widened() -> None:
    tile = list(tile_grid(8, 12, 8, 4))[1]
    whole = views.on_picture(np.array([[1.0, np.nan], [np.nan, 2.0]]), tile, (8, 12))
    assert np.isnan(whole[:, :4]).all()
    assert (whole[:4, 4:8] == 1).all()
    assert (whole[4:, 8:] == 2).all()
    wide = views.widened(whole, 1)
    assert (wide[:4, 3] == 1).all()
    assert wide[3, 7] == 2


def test_scores_and_areas_in_tables() -> None:
    truth = np.array([[0, 0, 1, 255]], np.uint8)
    found, counts = scores(np.array([[0, 1, 1, 0]]), truth, ["a", "b"])
    np.testing.assert_array_equal(counts, [[1, 1], [0, 1]])
    assert found["iou"]["a"] == pytest.approx(0.5)
    rows = area_rows(np.array([[0, 1, 1, 0]]), ["a", "b"], np.array([[True, True, True, False]]), np.full((1, 4), 0.5))
    assert [row["hectares"] for row in rows] == [0.5, 1.0]
    text = legend([{**row, "class": "<b>"} for row in rows], COLOURS[:2], {"<b>": 0.25})
    assert "&lt;b&gt;" in text
    assert "25.0" in text
    assert "<td style='padding-right:6px'>&lt;i&gt;</td>" in confusion_table(counts, ["<i>", "b"])


def test_labels_follow_the_words() -> None:
    ground = simulated(3, 64)
    names = ground.scene.classes
    truth = ground.truth_for(["rooftop", "lagoon, river", "nothing known"])
    assert (truth[ground.truth == names.index("building")] == 0).all()
    assert (truth[ground.truth == names.index("water")] == 1).all()
    assert (truth[ground.truth == names.index("forest")] == 255).all()
    assert ground.truth_for(["zebra"]) is None
    car = ground.truth_for(["road, street"])
    assert (car[ground.truth == names.index("car")] == 0).all(), "cars stand on roads"


def test_charts_are_well_formed_and_say_their_units() -> None:
    text = line_chart(
        [Line("a & b", [0, 1, 2], [1.0, 0.1, float("nan")]), Line("none", [], [])],
        x_label="iteration",
        y_label="gap <nats>",
        title="T",
        log_y=True,
    )
    root = ET.fromstring(text)
    words = " ".join(root.itertext())
    for word in ("iteration", "gap <nats>", "a & b", "T"):
        assert word in words
    (line,) = [element for element in root.iter() if element.tag.endswith("polyline")]
    assert len(line.get("points").split()) == 2


def test_scores_are_those_of_the_metrics(labels: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, labels.shape).astype(np.uint8)
    truth[:4] = 255
    metrics = SegmentationMetrics(["a", "b", "c"])
    metrics.update(labels, truth.astype(np.int64))
    expected = metrics.compute()
    found, counts = scores(labels, truth, ["a", "b", "c"])
    assert found["miou"] == pytest.approx(expected["miou"])
    assert found["pixel_accuracy"] == pytest.approx(expected["pixel_accuracy"])
    assert found["iou"] == pytest.approx(expected["iou"])
    np.testing.assert_array_equal(counts, metrics.confusion[:, :3])
