"""Notebooks as a reader meets them: opened in JupyterLab, Run All Cells, every cell green.

RSOVLIB_SCREENSHOT=path.png keeps a picture of the quickstart (for the README), RSOVLIB_SCREENSHOTS=folder pictures of
the workbenches on a laptop's screen.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

pytestmark = pytest.mark.browser

NOTEBOOK = "quickstart.ipynb"
RUN_SECONDS = 600


def kernel(lab: Any) -> dict[str, Any]:
    """The state of the one kernel; empty while it is starting."""
    try:
        kernels = lab.get("api/kernels")
    except OSError:  # the server may answer 500 while a kernel starts
        return {}
    return kernels[0] if kernels else {}


def wait_for(page: Any, what: str, condition: Any, seconds: float) -> None:
    """Poll until the condition holds."""
    for _ in range(int(seconds * 4)):
        if condition():
            return
        page.wait_for_timeout(250)
    raise AssertionError(f"{what}: not within {seconds} s")


def run_all(page: Any, lab: Any) -> None:
    """Run All Cells, and wait until the last one is done."""
    # The indicator in the page says "idle" before the kernel is connected, and Run All then does nothing.
    connected = lambda: kernel(lab).get("execution_state") == "idle" and kernel(lab)["connections"] > 0  # noqa: E731
    wait_for(page, "kernel connected", connected, 120)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    # A cell that waits or runs shows [*].
    wait_for(page, "a cell starts", lambda: prompts(page) != [""] * len(prompts(page)), 60)
    done = lambda: "*" not in "".join(prompts(page)) and kernel(lab).get("execution_state") == "idle"  # noqa: E731
    wait_for(page, "all cells done", done, RUN_SECONDS)


def prompts(page: Any) -> list[str]:
    """What stands between the brackets before each code cell: "", "*" or a number."""
    found = page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()
    return [text.strip().removeprefix("[").removesuffix("]:").strip() for text in found]


def keep_picture(page: Any, path: Path) -> None:
    """The whole notebook in one picture, without JupyterLab's side bar."""
    page.keyboard.press("Control+b")
    last = page.locator(".jp-Notebook .jp-Cell").last
    height = last.evaluate("cell => cell.offsetTop + cell.offsetHeight")
    page.set_viewport_size({"width": 1300, "height": min(int(height) + 160, 8000)})
    page.locator(".jp-Notebook .jp-Cell").first.scroll_into_view_if_needed()
    page.locator(".jp-Notebook .jp-Cell").first.click()
    page.wait_for_timeout(1000)  # the page lays itself out anew
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(path))


@pytest.fixture
def page(browser: Any, lab: Any, request: pytest.FixtureRequest) -> Any:
    notebook = getattr(request, "param", NOTEBOOK)
    if not (lab.folder / notebook).exists():
        pytest.skip(f"there is no notebooks/{notebook}")
    for running in lab.get("api/kernels"):  # an earlier page's kernel outlives it
        lab.end_kernel(running["id"])
    opened = browser.new_page(viewport={"width": 1300, "height": 1000})
    opened.goto(lab.page(notebook))
    opened.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=120_000)
    yield opened
    opened.close()


def no_complaints(page: Any) -> None:
    """Neither a warning nor a stack trace under any cell."""
    for kind in ("error", "stderr"):
        output = page.locator(f'.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.{kind}"]')
        assert output.count() == 0, output.first.inner_text()


@pytest.mark.parametrize("page", ["explore/segment_by_words.ipynb", "explore/clouds_and_radar.ipynb"], indirect=True)
def test_run_all_gives_a_working_workbench(page: Any, lab: Any):
    run_all(page, lab)
    picture = page.locator(".rsov-picture")
    picture.wait_for(timeout=120_000)
    ready = lambda: "ready" in page.locator(".rsov-status").inner_text()  # noqa: E731
    wait_for(page, "the map", ready, RUN_SECONDS)
    no_complaints(page)
    over = page.locator("img.rsov-over").first
    wait_for(page, "its picture", lambda: over.evaluate("image => image.naturalWidth === 512"), 60)
    picture.scroll_into_view_if_needed()
    if screenshots := os.environ.get("RSOVLIB_SCREENSHOTS"):
        page.set_viewport_size({"width": 1366, "height": 768})
        page.wait_for_timeout(1000)  # the page lays itself out anew
        page.locator(".rsov-status").scroll_into_view_if_needed()
        Path(screenshots).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(screenshots) / f"lab-{Path(unquote(urlsplit(page.url).path)).stem}.png"))
    before = over.get_attribute("src")
    page.get_by_role("tab", name="Method").click()
    page.locator(".rsov-beta .noUi-handle").press("ArrowRight")
    wait_for(page, "another map", lambda: over.get_attribute("src") != before, RUN_SECONDS)
    no_complaints(page)


def test_quickstart_runs_from_top_to_bottom(page: Any, lab: Any):
    run_all(page, lab)
    if screenshot := os.environ.get("RSOVLIB_SCREENSHOT"):
        keep_picture(page, Path(screenshot))
    numbers = prompts(page)
    assert [n for n in numbers if n] == [str(i + 1) for i in range(len([n for n in numbers if n]))], "cells in order"
    assert len([n for n in numbers if n]) >= 3
    no_complaints(page)
    pictures = page.locator(".jp-OutputArea-output img")
    assert pictures.count() >= 1, "a quickstart without a picture"
    for position in range(pictures.count()):
        assert pictures.nth(position).evaluate("image => image.complete && image.naturalWidth > 100")
