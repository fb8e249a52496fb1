"""Every control of workbench 2, without a browser."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import rasterio

from rsovlib.data.scenes import make_scene
from rsovlib.errors import InputError
from rsovlib.experiments.quickstart import write_scene
from rsovlib.widgets import CloudsAndRadar
from rsovlib.widgets.sky import clouded, middle, moved
from rsovlib.widgets.weather import COVERS, curve_chart

CLASSES = "building, rooftop; water, river, lake; bare soil, sand"
SIZE = 64
SETTINGS = {"size": SIZE, "seed": 3}


@pytest.fixture
def bench(stand_ins, tmp_path: Path) -> CloudsAndRadar:
    return CloudsAndRadar(CLASSES, "radar-stand-in", threaded=False, out=tmp_path, **SETTINGS)


def own(bench: CloudsAndRadar, name: str, value: object) -> None:
    bench.controls[name].value = value


def test_clouds_are_drawn_over_the_scene_and_the_truth_stays(bench: CloudsAndRadar) -> None:
    clear = make_scene(SIZE, 3, modalities=()).optical
    expected, _ = clouded(clear, 0.4, "thick", 3)
    np.testing.assert_array_equal(bench.ground.image, expected)
    assert "mIoU" in bench.legend.value


@pytest.mark.parametrize(
    ("name", "value"),
    [("cover", 0.8), ("kind", "thin"), ("strength", 0.5), ("shadow", 0.0), ("haze", 0.4), ("cloud_seed", 9)],
)
def test_each_control_of_the_clouds_changes_the_image(bench: CloudsAndRadar, name: str, value: object) -> None:
    before, runs = bench.ground.image, Counter(bench.cache.runs)
    own(bench, name, value)
    assert (bench.ground.image != before).any()
    assert bench.cache.runs - runs == {"clouds": 1, "method": 1}
    bench.reset()
    assert bench.cache.runs - runs == {"clouds": 1, "method": 1}, "the first clouds are remembered"
    np.testing.assert_array_equal(bench.ground.image, before)


@pytest.mark.parametrize(("name", "value"), [("looks", 1.0), ("move_right", 7), ("move_down", -7), ("radar", False)])
def test_each_control_of_the_radar_reaches_the_method(bench: CloudsAndRadar, name: str, value: object) -> None:
    before = bench.answer.segmentation.probabilities
    own(bench, name, value)
    assert "ready" in bench.status.value
    assert (bench.answer.segmentation.probabilities != before).any()


def test_what_the_method_may_use(bench: CloudsAndRadar, stand_ins) -> None:
    both = bench.answer.segmentation.probabilities
    own(bench, "modalities", "optical only")
    optical = bench.answer.segmentation.probabilities
    own(bench, "modalities", "radar only")
    radar = bench.answer.segmentation.probabilities
    assert (both != optical).any()
    assert (both != radar).any()
    bench.base.value = "radar"
    np.testing.assert_array_equal(bench.ground.image, bench.base_image)
    own(bench, "radar", False)
    assert "switch it on" in bench.status.value


def test_methods_without_radar_get_none(bench: CloudsAndRadar, stand_ins) -> None:
    bench.method.value = "stand-in"
    before = bench.answer.segmentation.probabilities
    own(bench, "move_right", 5)
    np.testing.assert_array_equal(bench.answer.segmentation.probabilities, before)
    assert "sar=" not in bench.python()


def test_a_cloud_cover_of_sdci_shows_a_preview_first(tmp_path: Path) -> None:
    bench = CloudsAndRadar(
        CLASSES, options={"window": 64, "overlap": 32}, threaded=False, out=tmp_path, size=96, seed=3
    )
    notes = []
    bench.legend.observe(lambda change: notes.append("preview" in change["new"]), names="value")
    own(bench, "cover", 0.7)
    assert notes[0], "the reduced image's answer comes first"
    assert not notes[-1], "and the settled one last"


def test_pictures_beneath(bench: CloudsAndRadar) -> None:
    seen = {}
    for name in ("image", "clear image", "radar", "cloud opacity"):
        bench.base.value = name
        seen[name] = bench.base_image
        assert bench.base_image.shape == (SIZE, SIZE, 3)
    np.testing.assert_array_equal(seen["clear image"], make_scene(SIZE, 3, modalities=()).optical)
    assert len({picture.tobytes() for picture in seen.values()}) == 4


def test_the_curve_is_drawn_point_by_point(bench: CloudsAndRadar, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.curve_methods.value = ("stand-in", "radar-stand-in")
    charts = []
    bench.chart.observe(lambda change: charts.append(change["new"]), names="value")
    bench.draw_button.click()
    assert len(charts) == 2 * len(COVERS)
    assert [len(values) for values in bench.curve.values()] == [len(COVERS)] * 2
    for text in ("cloud cover (%)", "mIoU (%)", "stand-in", "thick clouds"):
        assert text in bench.chart.value
    assert bench.results.selected_index == 1


def test_a_method_that_fails_leaves_the_curve_of_the_others(bench: CloudsAndRadar) -> None:
    bench.curve_methods.value = ("sdci-v1", "stand-in")  # SDCI with DINO needs the full profile
    bench.draw_button.click()
    assert len(bench.curve["stand-in"]) == len(COVERS)
    assert bench.curve["sdci-v1"] == []
    assert "sdci-v1" in bench.curve_note.value


def test_a_curve_without_methods_is_one_sentence(bench: CloudsAndRadar) -> None:
    bench.curve_methods.value = ()
    bench.draw_button.click()
    assert "No method is chosen" in bench.status.value


def test_the_copied_calls_make_the_same(bench: CloudsAndRadar, tmp_path: Path, stand_ins) -> None:
    own(bench, "strength", 0.7)
    own(bench, "move_down", 4)
    names: dict[str, object] = {}
    exec(compile(bench.python(), "copied", "exec"), names)
    np.testing.assert_array_equal(names["image"], bench.ground.image)
    np.testing.assert_array_equal(names["result"].labels, bench.answer.segmentation.labels)
    words = shlex.split(bench.papermill())
    parameters = json.loads(words[words.index("-y") + 1])
    other = CloudsAndRadar(**parameters, threaded=False, out=tmp_path)
    assert other.wish == bench.wish
    np.testing.assert_array_equal(other.answer.segmentation.labels, bench.answer.segmentation.labels)


def test_a_pair_of_rasters(bench: CloudsAndRadar, tmp_path: Path) -> None:
    scene = make_scene(SIZE, 5, modalities=("sar",))
    write_scene(tmp_path / "optical.tif", scene)
    with rasterio.open(tmp_path / "optical.tif") as file:
        profile = file.profile
    profile = {key: profile[key] for key in ("driver", "height", "width", "crs", "transform")}
    with rasterio.open(tmp_path / "radar.tif", "w", count=2, dtype="float32", **profile) as file:
        file.write(scene.sar)
    own(bench, "optical", str(tmp_path / "optical.tif"))
    assert "both paths" in bench.status.value
    own(bench, "sar", str(tmp_path / "radar.tif"))
    assert "ready" in bench.status.value
    own(bench, "cover", 0.0)
    np.testing.assert_array_equal(bench.ground.image, scene.optical)
    assert "No labels" in bench.confusion.value
    names: dict[str, object] = {}
    exec(compile(bench.python(), "copied", "exec"), names)
    np.testing.assert_array_equal(names["image"], bench.ground.image)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(InputError, match="clover"):
        CloudsAndRadar(threaded=False, clover=0.5)


def test_clouds_of_half_strength_lie_in_between() -> None:
    image = make_scene((37, 31), 2, modalities=()).optical
    full, opacity = clouded(image, 0.6, "thick", 1)
    half, thinner = clouded(image, 0.6, "thick", 1, strength=0.5)
    np.testing.assert_allclose(half, (full.astype(float) + image) / 2, atol=1)
    np.testing.assert_allclose(thinner, opacity / 2, atol=1e-6)
    np.testing.assert_array_equal(clouded(image, 0.6, "thick", 1, strength=0.0)[0], image)
    with pytest.raises(InputError, match="strength"):
        clouded(image, 0.6, strength=1.5)


@pytest.mark.parametrize(("right", "down"), [(0, 0), (3, 0), (-3, 0), (0, 4), (2, -5), (40, 0)])
def test_a_moved_radar_lies_where_it_was_moved(right: int, down: int) -> None:
    radar = np.random.default_rng(0).integers(1, 255, (37, 31, 1), dtype=np.uint8)
    image, known = moved(radar, None, right, down)
    for row in range(37):
        for column in range(31):
            inside = 0 <= row - down < 37 and 0 <= column - right < 31
            assert known[row, column] == inside
            assert image[row, column, 0] == (radar[row - down, column - right, 0] if inside else 0)


def test_the_middle_of_an_image() -> None:
    image = np.arange(9 * 7).reshape(9, 7)
    np.testing.assert_array_equal(middle(image, 3), image[3:6, 2:5])
    np.testing.assert_array_equal(middle(image, 20), image)


def test_a_chart_without_points_still_has_its_axes() -> None:
    assert "mIoU (%)" in curve_chart({"sdci": []}, "nothing yet")
