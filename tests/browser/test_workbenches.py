"""The workbenches as a person meets them: a page in a browser, a keyboard and a mouse.

Every view leaves a picture in runs/browser, small and of a small scene. RSOVLIB_SCREENSHOTS=folder puts them there
instead, of the scene as a person has it (512 x 512): for looking at, and for the README.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.panels import REPOSITORY, Panel

pytestmark = pytest.mark.browser

CLASSES = "building, rooftop; road, street; water, river, lake; bare soil, sand; forest, trees; farmland, field"
FOLDER = Path(os.environ.get("RSOVLIB_SCREENSHOTS") or REPOSITORY / "runs" / "browser")
SIZE = 512 if os.environ.get("RSOVLIB_SCREENSHOTS") else 128
VIEWS = {
    "probability": "probability of building",
    "errors": "errors",
    "labels": "labels",
    "superpixels": r"\d+ (to \d+ )?superpixels( a window)?",
    "attention of a pixel": "fused attention of the pixel",
    "graph neighbours": r"\d+ neighbours of the pixel in DINO's graph",
    "diffusion over time": "DINO score of building after 40 steps",
    "energy and gap": "class map|frame: the chart's window",
}


def keep(panel: Panel, name: str, *, screen: bool = False) -> None:
    """A picture of the panel, or of what of the page is on the screen."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = str(FOLDER / f"{name}.png")
    if screen:
        panel.page.screenshot(path=path)
        return
    panel.page.set_viewport_size({"width": 1366, "height": 1100})  # Voila scrolls in a box of its own
    panel.page.locator(".rsov-workbench").screenshot(path=path)
    panel.page.set_viewport_size({"width": 1366, "height": 768})


def begin_anew(panel: Panel) -> Panel:
    """Reset; the rows of words are made anew then, and the old ones must be gone before a test types into them."""
    mark = "document.querySelectorAll('.rsov-words').forEach(row => row.dataset.old = 1)"
    panel.page.evaluate(mark)
    panel.settle(panel.page.locator(".rsov-reset").click)
    panel.page.wait_for_function("document.querySelectorAll('.rsov-words[data-old]').length === 0")
    panel.page.wait_for_function(f"document.querySelectorAll('.rsov-words').length === {CLASSES.count(';') + 1}")
    return panel


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Save writes."""
    return tmp_path_factory.mktemp("saved")


@pytest.fixture(scope="module")
def opened_words(browser: Any, panels: Any, out: Path) -> Iterator[Panel]:
    panel = Panel.open(browser, panels.page("segment_by_words", size=SIZE, classes=CLASSES, out=str(out)))
    yield panel
    panel.page.close()


@pytest.fixture(scope="module")
def opened_clouds(browser: Any, panels: Any) -> Iterator[Panel]:
    parameters = {"size": SIZE, "classes": CLASSES, "curve_methods": ["sdci", "mm-ovseg", "maskclip"]}
    panel = Panel.open(browser, panels.page("clouds_and_radar", **parameters))
    yield panel
    panel.page.close()


@pytest.fixture
def words(opened_words: Panel) -> Panel:
    return begin_anew(opened_words)


@pytest.fixture
def clouds(opened_clouds: Panel) -> Panel:
    return begin_anew(opened_clouds)


# ---- both -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["words", "clouds"])
def test_a_laptop_shows_the_whole_panel(name: str, request: pytest.FixtureRequest):
    panel: Panel = request.getfixturevalue(name)
    assert panel.complaints() == []
    keep(panel, f"{name}-screen", screen=True)
    assert panel.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "no scrolling sideways"
    cut = """() => [...document.querySelectorAll('.rsov-workbench .lm-TabBar-tabLabel, .rsov-workbench button')]
        .filter(part => part.scrollWidth > part.clientWidth + 1).map(part => part.textContent)"""
    assert panel.page.evaluate(cut) == [], "titles that are cut off"
    small = """() => [...document.querySelectorAll('.rsov-workbench *')].filter(part => part.offsetWidth
        && [...part.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())
        && parseFloat(getComputedStyle(part).fontSize) < 11).map(part => part.textContent)"""
    assert panel.page.evaluate(small) == [], "text that is too small to read"


@pytest.mark.parametrize("name", ["words", "clouds"])
def test_tab_reaches_every_kind_of_control(name: str, request: pytest.FixtureRequest):
    panel: Panel = request.getfixturevalue(name)
    panel.page.locator(".rsov-reset").focus()
    reached = set()
    for _ in range(60):
        found = panel.page.evaluate("document.activeElement?.closest('[class*=rsov-]:not(.rsov-workbench)')?.className")
        reached |= set(re.findall(r"rsov-[\w-]+", found or ""))
        panel.page.keyboard.press("Tab")
    wanted = {"rsov-reset", "rsov-show", "rsov-opacity", "rsov-pane", "rsov-python", "rsov-save-tif", "rsov-save-csv"}
    assert wanted <= reached


# ---- segment by words -------------------------------------------------------------------------------------------


def test_the_panel_shows_a_map_with_legend_scale_and_scores(words: Panel):
    assert words.over.evaluate("image => image.complete && image.naturalWidth") == SIZE
    assert words.base.evaluate("image => image.naturalWidth") == SIZE
    legend = words.page.locator(".rsov-legend").inner_text()
    for text in ("building", "water", "area", "ha", "IoU", "mIoU"):
        assert text in legend
    assert re.fullmatch(r"\d+ (m|km)", words.page.locator(".rsov-scale").first.inner_text().strip())
    assert "percent called" in words.page.locator(".rsov-confusion").inner_text()
    words.tab("Image")
    assert "simulated scene" in words.page.locator(".rsov-workbench").inner_text()
    keep(words, "words-class-map")


def test_opacity_is_changed_in_the_browser(words: Panel):
    before = words.source()
    for _ in range(3):
        words.handle("rsov-opacity").press("ArrowRight")
    opacity = lambda: float(words.over.evaluate("image => getComputedStyle(image).opacity"))  # noqa: E731
    words.wait_until("opacity", lambda: abs(opacity() - 0.7) < 1e-6)
    assert words.source() == before, "the same picture, only laid over it otherwise"


def test_a_word_changes_the_map(words: Panel):
    words.tab("Classes")
    field = words.page.locator(".rsov-words input").nth(4)
    field.fill("meadow, grass")
    words.changes_picture(lambda: field.press("Enter"))
    assert "meadow" in words.page.locator(".rsov-legend").inner_text()
    assert "forest" not in words.page.locator(".rsov-legend").inner_text()
    keep(words, "words-classes")


def test_rows_are_added_moved_and_removed(words: Panel):
    words.tab("Classes")
    read = "[...document.querySelectorAll('.rsov-words input')].map(field => field.value)"
    names = lambda: words.page.evaluate(read)  # noqa: E731
    words.settle(words.page.locator(".rsov-arrow-down").first.click)
    words.wait_until("moved", lambda: names()[:2] == ["road, street", "building, rooftop"])
    words.settle(words.page.locator(".rsov-times").first.click)
    words.wait_until("removed", lambda: names()[:2] == ["building, rooftop", "water, river, lake"])
    assert "road" not in words.page.locator(".rsov-legend").inner_text()
    words.page.locator(".rsov-add").click()
    words.wait_until("added", lambda: len(names()) == 6 and names()[-1] == "")


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_can_be_seen(words: Panel, view: str):
    words.choose("rsov-show", view)
    caption = words.page.locator(".rsov-caption:visible").last
    words.wait_until(
        view, lambda: bool(re.fullmatch(VIEWS[view], caption.inner_text().strip())) and "ready" in words.status
    )
    legend = words.page.locator(".rsov-legend").inner_text()
    if view in ("probability", "attention of a pixel", "graph neighbours", "diffusion over time"):
        assert re.search(r"probability|share of attention|weight of the edge|score", legend), "the scale's unit"
    if view == "energy and gap":
        words.wait_until("two charts", lambda: words.page.locator("svg.rsov-chart:visible").count() == 2)
        assert "energy (nats)" in words.page.locator(".rsov-chart").first.inner_text()
    keep(words, "words-" + view.replace(" ", "-"))


def test_diffusion_is_walked_step_by_step(words: Panel):
    words.settle(lambda: words.choose("rsov-show", "diffusion over time"))
    words.changes_picture(lambda: words.handle("rsov-step").press("ArrowRight"))
    assert "after 41 steps" in words.page.locator(".rsov-caption:visible").last.inner_text()


def test_a_pixel_is_picked_by_mouse_and_by_keyboard(words: Panel):
    words.settle(lambda: words.choose("rsov-show", "attention of a pixel"))
    pane, marker = words.page.locator(".rsov-pane").first, words.page.locator(".rsov-marker").first
    words.changes_picture(lambda: pane.click(position={"x": 400, "y": 100}))
    first = marker.bounding_box()
    pane.focus()
    for _ in range(5):
        pane.press("ArrowDown")
    words.changes_picture(lambda: pane.press("Enter"))
    second = marker.bounding_box()
    assert second["y"] > first["y"]
    assert second["x"] == pytest.approx(first["x"], abs=1)


def test_swipe_and_side_by_side(words: Panel):
    words.page.get_by_role("button", name="swipe").click()
    divider = words.page.locator(".rsov-swipe")
    divider.wait_for()
    words.settle(lambda: words.choose("rsov-left", "CAF: CLIP"))
    assert words.page.locator("img.rsov-under").first.is_visible()
    clip = lambda: str(words.over.evaluate("image => image.style.clipPath"))  # noqa: E731
    assert "50%" in clip()
    for _ in range(10):
        divider.press("ArrowRight")
    words.wait_until("divider", lambda: "60%" in clip())
    words.page.locator(".rsov-pane").first.scroll_into_view_if_needed()  # the divider's focus may have scrolled it away
    box = words.page.locator(".rsov-pane").first.bounding_box()
    words.page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 50)
    words.page.mouse.down()
    words.page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 50, steps=4)
    words.page.mouse.up()
    words.wait_until("dragged", lambda: re.search(r"\b(19|20)(\.\d+)?%", clip()) is not None)
    keep(words, "words-swipe")
    words.page.get_by_role("button", name="side by side").click()
    words.wait_until("two pictures", lambda: words.page.locator(".rsov-pane:visible").count() == 2)
    keep(words, "words-side-by-side")


def test_another_method_brings_its_own_numbers(words: Panel):
    words.tab("Method")
    words.changes_picture(lambda: words.choose("rsov-method", "maskclip – "))
    assert words.page.locator(".rsov-beta").count() == 0
    assert words.page.locator(".rsov-stride input").count() == 1
    keep(words, "words-other-method")
    assert "look" in words.said(lambda: words.choose("rsov-show", "superpixels")), "a view of SDCI's alone"
    assert "Traceback" not in words.page.locator("body").inner_text()


def test_a_slider_moves_by_keyboard_and_the_map_follows(words: Panel):
    words.tab("Method")
    before, beta = words.source(), words.handle("rsov-beta")
    for _ in range(25):  # a burst, of which the last counts
        beta.press("ArrowRight")
    words.wait_until("another picture", lambda: words.source() != before)
    assert words.page.locator(".rsov-beta .widget-readout").inner_text().strip() == "0.35"
    words.wait_until("ready", lambda: "ready" in words.status)
    keep(words, "words-method")
    code = words.page.locator(".rsov-code textarea")

    def copied() -> str:  # anew each time: a value that comes late puts the text away
        words.page.locator(".rsov-python").click()
        return code.input_value()

    words.wait_until("the last value has arrived", lambda: "beta=0.35" in copied())


def test_settings_are_copied(words: Panel):
    words.page.locator(".rsov-python").click()
    code = words.page.locator(".rsov-code textarea")
    words.wait_until("code", lambda: "rsovlib.segment(image, classes, method='sdci')" in code.input_value())
    compile(code.input_value(), "copied", "exec")
    words.page.locator(".rsov-papermill").click()
    words.wait_until("command", lambda: code.input_value().startswith("papermill notebooks/explore/segment_by_words"))
    keep(words, "words-copied")


def test_maps_pictures_and_tables_are_saved(words: Panel, out: Path):
    for kind in ("tif", "png", "csv"):
        words.page.locator(f".rsov-save-{kind}").click()
        told = words.page.locator(".rsov-written")
        words.wait_until("written", lambda kind=kind, told=told: f"map-sdci.{kind}" in told.inner_text())
    assert (out / "map-sdci.tif").read_bytes()[:2] in (b"II", b"MM")
    with Image.open(out / "map-sdci.png") as picture:
        assert min(picture.size) >= SIZE
    assert len((out / "map-sdci.csv").read_text(encoding="utf-8").splitlines()) == 7


def test_a_mistake_is_one_sentence_and_passes(words: Panel):
    words.tab("Classes")
    field = words.page.locator(".rsov-words input").first
    field.fill("water")
    sentence = words.said(lambda: field.press("Enter"))
    assert "same name" in sentence
    assert "\n" not in sentence
    keep(words, "words-mistake")
    field.fill("building")
    words.settle(lambda: field.press("Enter"))
    words.tab("Image")
    words.choose("rsov-kind", "file")
    path = words.page.locator(".rsov-path input")
    path.fill("/nowhere/image.tif")
    sentence = words.said(lambda: path.press("Enter"))
    assert "/nowhere/image.tif" in sentence or "image.tif" in sentence
    assert "Traceback" not in words.page.locator("body").inner_text()


# ---- clouds and radar -------------------------------------------------------------------------------------------


def test_more_clouds_come_at_a_key_press(clouds: Panel):
    before = str(clouds.base.get_attribute("src"))
    clouds.changes_picture(lambda: clouds.handle("rsov-cover").press("ArrowRight"))
    clouds.wait_until("another image", lambda: str(clouds.base.get_attribute("src")) != before)
    keep(clouds, "clouds-cover")


@pytest.mark.parametrize("beneath", ["clear image", "radar", "cloud opacity"])
def test_what_lies_beneath_can_be_seen(clouds: Panel, beneath: str):
    clouds.tab("Radar")
    before = str(clouds.base.get_attribute("src"))
    clouds.choose("rsov-base", beneath)
    clouds.wait_until(beneath, lambda: str(clouds.base.get_attribute("src")) != before)
    keep(clouds, "clouds-" + beneath.replace(" ", "-"))
    clouds.choose("rsov-base", "image")


def test_the_method_may_be_left_with_the_radar_alone(clouds: Panel):
    clouds.tab("Radar")
    clouds.changes_picture(functools.partial(clouds.choose, "rsov-modalities", "radar only"))
    keep(clouds, "clouds-radar-only")
    before = str(clouds.base.get_attribute("src"))
    clouds.settle(lambda: clouds.handle("rsov-move-right").press("ArrowRight"))
    clouds.wait_until("moved", lambda: str(clouds.base.get_attribute("src")) != before)
    sentence = clouds.said(clouds.page.locator(".rsov-radar input[type=checkbox]").click)
    assert "only use radar" in sentence


def test_a_curve_is_drawn_point_by_point(clouds: Panel):
    clouds.tab("Curve")
    clouds.page.locator(".rsov-draw-curve").click()
    points = clouds.page.locator("svg.rsov-chart circle")
    clouds.wait_until("five points a method", lambda: points.count() == 15)
    clouds.wait_until("ready", lambda: "ready" in clouds.status)
    chart = clouds.page.locator("svg.rsov-chart")
    for text in ("cloud cover (%)", "mIoU (%)", "sdci", "mm-ovseg", "maskclip"):
        assert text in chart.text_content()
    keep(clouds, "clouds-curve")


def test_clouds_and_radar_are_copied(clouds: Panel):
    clouds.page.locator(".rsov-python").click()
    code = clouds.page.locator(".rsov-code textarea")
    clouds.wait_until("code", lambda: "clouded(clear, 0.4, 'thick', 3" in code.input_value())
    compile(code.input_value(), "copied", "exec")
