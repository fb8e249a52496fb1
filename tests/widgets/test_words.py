"""Every control of workbench 1, without a browser: what it changes, and which steps ran for it."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from rsovlib.data.geotiff import open_raster
from rsovlib.data.scenes import make_scene
from rsovlib.experiments.quickstart import write_scene
from rsovlib.widgets import SegmentByWords
from rsovlib.widgets.classrows import presets
from rsovlib.widgets.encode import CLEAR

CLASSES = "building, rooftop; water, river, lake; forest, trees"
SIZE = 64


@pytest.fixture(scope="module")
def shared_bench(tmp_path_factory: pytest.TempPathFactory) -> SegmentByWords:
    return SegmentByWords(classes=CLASSES, size=SIZE, seed=3, threaded=False, out=tmp_path_factory.mktemp("out"))


@pytest.fixture
def bench(shared_bench: SegmentByWords) -> SegmentByWords:
    shared_bench.reset()
    assert "ready" in shared_bench.status.value
    return shared_bench


def ran(bench: SegmentByWords, action) -> Counter:
    before = Counter(bench.cache.runs)
    action()
    return bench.cache.runs - before


def shown(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


def test_it_begins_with_a_map(bench: SegmentByWords) -> None:
    assert bench.answer is not None
    assert bench.answer.settled
    over = shown(bench.picture.over)
    assert over.shape == (SIZE, SIZE, 4)
    labels = bench.answer.segmentation.labels
    np.testing.assert_array_equal(over[..., :3], bench.rows.rgb[labels])
    base = shown(bench.picture.base)
    np.testing.assert_array_equal(base[..., :3], bench.ground.image)  # as it is, once it has settled
    assert bench.picture.metres == pytest.approx(bench.ground.metres)
    assert "mIoU" in bench.legend.value
    assert "ha" in bench.legend.value
    assert "percent called" in bench.confusion.value


@pytest.mark.parametrize(
    ("name", "value", "steps"),
    [
        ("beta", 0.4, {"fused", "fused, rough", "blended"}),
        ("lambda_clip", 0.5, {"fused", "fused, rough", "blended"}),
        ("alpha", 0.2, {"diffused", "probabilities", "fused", "fused, rough", "blended"}),
        ("neighbours", 5, {"graph", "diffused", "probabilities", "fused", "fused, rough", "blended"}),
        ("steps", 3, {"diffused", "probabilities", "fused", "fused, rough", "blended"}),
        ("lambda_1", 0.1, {"scores", "diffused", "probabilities", "fused", "fused, rough", "blended"}),
    ],
)
def test_a_slider_runs_only_what_follows(bench: SegmentByWords, name: str, value: float, steps: set[str]) -> None:
    counted = ran(bench, lambda: setattr(bench.options.controls[name], "value", value))
    assert set(counted) <= steps
    assert bench.wish.options == {name: value}
    assert not ran(bench, bench.reset), "everything was remembered"
    assert bench.wish.options == {}


@pytest.mark.parametrize("opacity", [0.0, 1.0])
def test_opacity_costs_nothing(bench: SegmentByWords, opacity: float) -> None:
    over = bench.picture.over
    assert not ran(bench, lambda: setattr(bench.opacity, "value", opacity))
    assert bench.picture.over is over
    saved = np.asarray(bench._picture_as_shown())
    expected = bench.ground.image if opacity == 0 else bench.rows.rgb[bench.answer.segmentation.labels]
    np.testing.assert_array_equal(saved, expected)


@pytest.mark.parametrize("show", ["probability", "errors", "labels", "class map"])
def test_views_of_the_answer_compute_nothing(bench: SegmentByWords, show: str) -> None:
    assert not ran(bench, lambda: setattr(bench.show, "value", show))
    assert "ready" in bench.status.value


def test_arrangements_are_the_browsers_business(bench: SegmentByWords) -> None:
    for label, told in (("side by side", "side"), ("swipe", "swipe"), ("overlay", "overlay")):
        assert not ran(bench, lambda label=label: setattr(bench.arrangement, "value", label))
        assert bench.picture.arrangement == told
    assert bench.picture.under == b""


@pytest.mark.parametrize("stage", ["CAF: CLIP", "CAF: DINO", "BCDR: CLIP", "BCDR: DINO"])
def test_a_step_can_be_swiped_against_the_answer(bench: SegmentByWords, stage: str) -> None:
    bench.arrangement.value = "swipe"
    counted = ran(bench, lambda: setattr(bench.left, "value", stage))
    step = stage.partition(":")[0]
    assert set(counted) <= {f"map of {step}", *(["maps"] if step == "BCDR" else [])}  # which only a view keeps
    assert shown(bench.picture.under).shape == (SIZE, SIZE, 4)
    assert bench.picture.captions[0] == stage


def test_another_method_can_be_swiped_against_the_answer(stand_ins, tmp_path: Path) -> None:
    bench = SegmentByWords(classes=CLASSES, size=SIZE, seed=3, threaded=False, out=tmp_path)
    bench.arrangement.value = "side by side"
    bench.left.value = "method: stand-in"
    assert stand_ins["stand-in"].calls == 1
    assert bench.picture.captions == ["stand-in", "class map"]


def test_the_pixel_views_follow_clicks(bench: SegmentByWords) -> None:
    bench.show.value = "attention of a pixel"
    pictures = set()
    for kind in ("fused", "CLIP", "DINO"):
        bench.attention.value = kind
        for number, (column, row) in enumerate([(5, 5), (50, 40)]):
            counted = ran(bench, lambda p=[column, row, number]: setattr(bench.picture, "picked", p))
            assert not counted
            assert bench.picture.marker == [column, row]
            pictures.add(bench.picture.over)
    assert len(pictures) == 6
    assert "share of attention" in bench.legend.value
    bench.show.value = "graph neighbours"
    for network in ("CLIP", "DINO"):
        bench.network.value = network
        assert f"30 neighbours of the pixel in {network}'s graph" in bench.legend.value.replace("&#x27;", "'")


def test_superpixels_and_diffusion_over_time(bench: SegmentByWords) -> None:
    bench.show.value = "superpixels"
    assert re.fullmatch(r"\d+ superpixels", bench.picture.captions[1])
    bench.show.value = "diffusion over time"
    seen = set()
    for t in (0, 1, 40):
        counted = ran(bench, lambda t=t: setattr(bench.step, "value", t))
        assert set(counted) <= {"diffused"}
        seen.add(bench.picture.over)
    assert len(seen) == 3
    assert "after 40 steps" in bench.picture.captions[1]


def test_energy_and_gap_are_drawn_with_units(bench: SegmentByWords) -> None:
    counted = ran(bench, lambda: setattr(bench.show, "value", "energy and gap"))
    assert counted == {"trace": 1}
    for text in ("energy (nats)", "iteration", "lower bound", "tolerance"):
        assert text in bench.chart.value
    assert bench.results.selected_index == 1


@pytest.mark.parametrize("opened", [0, None])
def test_what_was_open_before_the_chart_is_open_again_after_it(bench: SegmentByWords, opened: int | None) -> None:
    bench.results.selected_index = opened
    bench.show.value = "energy and gap"
    bench.picture.picked = [7, 8, 1]
    assert bench.results.selected_index == 1
    bench.reset()
    assert bench.results.selected_index == opened
    bench.results.selected_index = 0


@pytest.mark.parametrize("show", ["attention of a pixel", "graph neighbours", "energy and gap"])
def test_before_the_first_click_the_marker_is_in_the_middle(bench: SegmentByWords, show: str) -> None:
    assert bench.picture.marker == []
    bench.show.value = show
    assert bench.picture.marker == [SIZE // 2, SIZE // 2]
    before = bench.picture.over
    bench.picture.picked = [SIZE // 2, SIZE // 2, -1]
    assert bench.picture.over == before, "it was the pixel that was drawn"
    bench.show.value = "class map"
    assert bench.picture.marker == []


@pytest.mark.parametrize(
    ("show", "solid"),
    [("probability", True), ("attention of a pixel", True), ("diffusion over time", True), ("errors", False)],
)
def test_quantities_have_the_colours_of_their_legend(bench: SegmentByWords, show: str, solid: bool) -> None:
    bench.show.value = show
    assert bench.picture.solid is solid
    layer = bench.drawing.right
    drawn = layer.indices != CLEAR
    as_in_legend = (bench._picture_as_shown()[drawn] == layer.palette[layer.indices[drawn]]).all()
    assert as_in_legend == solid


def test_probability_of_a_class(bench: SegmentByWords) -> None:
    bench.show.value = "probability"
    bench.of_class.value = "water"
    water = bench.answer.segmentation.probabilities[1]
    levels = bench.drawing.right.indices.astype(float)
    assert np.corrcoef(levels.ravel(), water.ravel())[0, 1] > 0.999
    assert "probability of water" in bench.legend.value


def test_class_rows_are_added_moved_removed_and_coloured(bench: SegmentByWords) -> None:
    counted = ran(bench, lambda: bench.rows.move(0, +1))
    assert bench.rows.classes[:2] == ["water, river, lake", "building, rooftop"]
    assert counted["features"] == 0
    bench.rows.remove(2)
    assert len(bench.answer.segmentation.classes) == 2
    bench.rows.add.click()
    assert len(bench.answer.segmentation.classes) == 2, "an empty row asks for nothing"
    counted = ran(bench, lambda: setattr(bench.rows.rows[-1][0], "value", "meadow, grass"))
    assert counted["text"] == 1
    assert bench.answer.segmentation.classes == ["water", "building", "meadow"]
    assert list(bench.of_class.options) == ["water", "building", "meadow"]
    assert not ran(bench, lambda: setattr(bench.rows.rows[0][1], "value", "#123456"))
    assert "rgb(18,52,86)" in bench.legend.value
    assert bench.wish.colours[0] == "#123456"


def test_every_prompt_set_of_every_manifest_is_a_preset(bench: SegmentByWords) -> None:
    names = presets()
    for dataset in ("potsdam", "vaihingen"):
        for kind in ("Original", "Generalized"):
            assert any(name.startswith(f"{dataset}: {kind}") for name in names), (dataset, kind)
    assert any("Candidate set" in name for name in names)
    chosen = next(name for name in names if name.startswith("potsdam: Generalized"))
    bench.rows.preset.value = chosen
    assert bench.rows.classes == names[chosen]
    assert len(bench.answer.segmentation.classes) == len(names[chosen])


def test_methods_join_by_being_registered(stand_ins, tmp_path: Path) -> None:
    bench = SegmentByWords(classes=CLASSES, size=SIZE, seed=3, threaded=False, out=tmp_path)
    assert "stand-in" in [value for _, value in bench.method.options]
    bench.method.value = "stand-in"
    assert stand_ins["stand-in"].calls == 1
    bench.show.value = "superpixels"
    assert "choose the method sdci" in bench.status.value
    bench.show.value = "class map"
    bench.method.value = "maskclip"
    assert bench.answer.segmentation.settings["method"] == "maskclip"
    assert "stride" in bench.options.controls


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda bench: setattr(bench.rows.rows[0][0], "value", "water"), "same name"),
        (lambda bench: setattr(bench.seed, "value", -1), "seed"),
        (
            lambda bench: (setattr(bench.kind, "value", "file"), setattr(bench.path, "value", "/no/such.tif")),
            "/no/such.tif",
        ),
    ],
)
def test_mistakes_are_one_sentence_in_the_panel(bench: SegmentByWords, act, sentence: str) -> None:
    labels = bench.answer.segmentation.labels
    act(bench)
    assert "role='alert'" in bench.status.value
    assert sentence in bench.status.value
    assert "Traceback" not in bench.status.value
    np.testing.assert_array_equal(bench.answer.segmentation.labels, labels)


def test_the_copied_python_makes_the_same_map(bench: SegmentByWords) -> None:
    bench.options.controls["beta"].value = 0.3
    bench.options.controls["neighbours"].value = 12
    bench.copy_python.click()
    code = bench.code.value
    assert bench.picture.clipboard == code
    names: dict[str, object] = {}
    exec(compile(code, "copied", "exec"), names)
    assert (names["result"].labels == bench.answer.segmentation.labels).mean() > 0.99


@pytest.mark.parametrize(
    "change",
    [
        lambda bench: setattr(bench.options.controls["beta"], "value", 0.3),
        lambda bench: setattr(bench.show, "value", "probability"),
        lambda bench: setattr(bench.opacity, "value", 0.9),
        lambda bench: setattr(bench.rows.rows[0][1], "value", "#123456"),
        lambda bench: bench.reset(),
        lambda bench: bench.close_code.click(),
    ],
    ids=["parameter", "view", "opacity", "colour", "reset", "close"],
)
def test_the_copied_text_goes_when_it_no_longer_holds(bench: SegmentByWords, change) -> None:
    bench.copy_papermill.click()
    assert bench.code_box.layout.display == ""
    assert bench.code.value
    change(bench)
    assert bench.code_box.layout.display == "none"
    assert bench.code.value == ""


def test_the_copied_papermill_call_makes_the_same_panel(bench: SegmentByWords, tmp_path: Path) -> None:
    bench.options.controls["alpha"].value = 0.5
    bench.show.value = "probability"
    bench.of_class.value = "water"
    bench.opacity.value = 0.8
    words = shlex.split(bench.papermill())
    assert words[:2] == ["papermill", "notebooks/explore/segment_by_words.ipynb"]
    other = SegmentByWords(**json.loads(words[words.index("-y") + 1]), cache=bench.cache, threaded=False, out=tmp_path)
    assert other.wish == bench.wish
    assert other.picture.over == bench.picture.over


def test_saved_files_hold_what_is_shown(bench: SegmentByWords) -> None:
    bench.opacity.value = 1.0
    written = {kind: bench.save(kind) for kind in ("tif", "png", "csv")}
    with open_raster(written["tif"]) as file:
        np.testing.assert_array_equal(file.read(1), bench.answer.segmentation.labels)
        assert file.colormap(1)[0][:3] == tuple(bench.rows.rgb[0].tolist())
    page = np.asarray(Image.open(written["png"]))
    np.testing.assert_array_equal(page[28 : 28 + 30, :SIZE], bench.drawing.right.over(bench.ground.image)[:30])
    lines = written["csv"].read_text().splitlines()
    assert lines[0] == "class,pixels,share,hectares,iou"
    assert len(lines) == 4
    assert sum(int(line.split(",")[1]) for line in lines[1:]) == SIZE * SIZE


def test_saving_where_one_may_not_is_one_sentence(bench: SegmentByWords, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out, bench.out = bench.out, tmp_path / "file" / "below"
    try:
        assert bench.save("csv") is None
        assert "role='alert'" in bench.status.value
    finally:
        bench.out = out


def test_a_part_of_a_geotiff_keeps_its_place(bench: SegmentByWords, tmp_path: Path) -> None:
    scene = make_scene((90, 80), 5, modalities=())
    write_scene(tmp_path / "scene.tif", scene)
    bench.kind.value = "file"
    bench.row.value, bench.column.value = 20, 10
    bench.path.value = str(tmp_path / "scene.tif")
    np.testing.assert_array_equal(bench.ground.image, scene.optical[20 : 20 + SIZE, 10 : 10 + SIZE])
    assert bench.picture.metres == pytest.approx(scene.gsd, rel=0.01)
    path = bench.save("tif")
    with rasterio.open(path) as file:
        assert file.crs.to_epsg() == 32631
        assert file.transform.c == pytest.approx(500_000 + 10 * scene.gsd)
        assert file.transform.f == pytest.approx(-20 * scene.gsd)
    assert "No labels" in bench.confusion.value
    names: dict[str, object] = {}
    exec(compile(bench.python(), "copied", "exec"), names)
    np.testing.assert_array_equal(names["image"], bench.ground.image)


def test_an_upload_and_an_array(bench: SegmentByWords, tmp_path: Path) -> None:
    picture = make_scene((48, 40), 6, modalities=()).optical
    Image.fromarray(picture).save(tmp_path / "mine.png")
    bench.kind.value = "upload"
    content = memoryview((tmp_path / "mine.png").read_bytes())
    when = datetime.now(tz=UTC)
    file = {"name": "mine.png", "type": "image/png", "size": len(content), "content": content, "last_modified": when}
    bench.upload.value = (file,)
    np.testing.assert_array_equal(bench.ground.image, picture)
    own = SegmentByWords(picture, CLASSES, threaded=False, cache=bench.cache)
    np.testing.assert_array_equal(own.ground.image, picture)
    assert "ha</th>" not in own.legend.value


def test_pixels_without_data_have_no_class(bench: SegmentByWords, tmp_path: Path) -> None:
    scene = make_scene(SIZE, 5, modalities=())
    write_scene(tmp_path / "scene.tif", scene)
    with rasterio.open(tmp_path / "scene.tif") as file:
        profile, values = file.profile, file.read()
    values[:, :10] = 0
    profile.update(nodata=0)
    with rasterio.open(tmp_path / "holes.tif", "w", **profile) as file:
        file.write(values)
    bench.kind.value = "file"
    bench.path.value = str(tmp_path / "holes.tif")
    assert (bench.drawing.right.indices[:10] == CLEAR).all()
    assert shown(bench.picture.over)[:10, :, 3].max() == 0


def test_a_burst_of_slider_events_ends_at_the_last(tmp_path: Path) -> None:
    bench = SegmentByWords(classes=CLASSES, size=SIZE, seed=3, out=tmp_path)
    try:
        assert bench.worker.wait(120)
        for step in range(1, 30):
            bench.options.controls["beta"].value = step / 30
        assert bench.worker.wait(120)
        assert bench.worker.submitted == 30
        assert bench.worker.dropped > 0
        assert bench.answer.settled
        assert bench.answer.segmentation.settings["beta"] == round(29 / 30, 6)
    finally:
        bench.close()


def test_a_page_that_comes_late_is_told_everything(bench: SegmentByWords) -> None:
    sent = []
    bench.picture.send_state = lambda *_args, **_more: sent.append("picture")
    bench.legend.send_state = lambda *_args, **_more: sent.append("legend")
    bench.picture._handle_custom_msg({"kind": "hello"}, [])
    assert set(sent) == {"picture", "legend"}


def test_a_slider_loads_no_model(bench: SegmentByWords, monkeypatch: pytest.MonkeyPatch) -> None:
    import rsovlib.segmenters.factories as factories

    monkeypatch.setattr(factories, "load_clip", lambda *_args, **_more: pytest.fail("CLIP is loaded again"))
    monkeypatch.setattr(factories, "load_dino", lambda *_args, **_more: pytest.fail("DINO is loaded again"))
    bench.options.controls["beta"].value = 0.77
    assert "ready" in bench.status.value
    assert bench.answer.segmentation.settings["beta"] == 0.77
