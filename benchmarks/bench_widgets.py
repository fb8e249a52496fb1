"""How long a person waits: from a key press to a changed picture, in a real browser, for every kind of control.

Voila serves the workbenches' own notebooks, Chromium shows them, and the page itself takes the times: from the
``keydown`` event to the frame after the new picture was decoded; the harness's own round trips are no part of them.
Controls are moved by keyboard, one step at a time, each after the panel has settled; a value is never met twice, so
that nothing is only remembered. Columns:

* ``first_ms``: until anything in the picture has changed: with new clouds that is the clouded image;
* ``map_ms``: until the map has changed; what is shown may be a preview or the solver's first iterations;
* ``settled_ms``: until the picture changed for the last time, the answer itself;
* ``goal_ms``: what a person should wait at most on two cores, and whether the first and the settled map keep it.

Every control begins from the panel's own settings: Reset is pressed before it.

Medians and 90 % quantiles of the turns. With ``--full``, more turns. Needs what `benchmarks.panels` needs.
"""

from __future__ import annotations

import itertools
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.panels import SECONDS, Panel, chromium, find_chromium, voila

SIZE = 512
CLASSES = "building, rooftop; road, street; water, river, lake; bare soil, sand; forest, trees; farmland, field"
#: What a person should wait at most, in ms, on two cores.
GOALS = {"view": 60, "convex": 250, "diffusion": 400, "prompt": 500, "cloud": 1500}
WORDS = (
    *("meadow", "lawn", "maize", "orchard", "pasture", "swamp", "heath", "gravel", "beach", "snow", "desert", "mud"),
    *("vineyard", "harbour", "quarry", "garden"),
)
#: The settled picture is the last one before so many ms without another.
QUIET = 400

# A picture has changed when another one is shown, or the same with another opacity; the panel counts its frames.
TIMES = """() => {
  const root = document.querySelector('.rsov-picture');
  const shown = () => [...root.querySelectorAll('img')].map((image) => image.src + image.style.opacity).join(' ');
  const map = () => root.querySelector('img.rsov-over').src + root.querySelector('img.rsov-over').style.opacity;
  window.rsovTimes = {};
  document.addEventListener('keydown', (event) => {
    window.rsovTimes = {began: event.timeStamp, shown: shown(), before: map()};
  }, true);
  new MutationObserver(() => {
    const now = performance.now(), times = window.rsovTimes, seen = shown();
    if (times.began === undefined || times.shown === seen) return;
    Object.assign(times, {shown: seen, first: times.first ?? now, last: now});
    if (times.before !== map()) times.map ??= now;
  }).observe(root, {attributes: true, attributeFilter: ['data-version']});
}"""
_QUIET = """quiet => {
  const last = window.rsovTimes.last ?? (window.rsovTimes.same ??= performance.now());
  return performance.now() - last > quiet;
}"""
_ENDED = "said => window.rsovSaid.slice(said).some(text => text.includes('ready'))"

Press = Callable[[], Any]


def rows(*, full: bool = False, size: int = SIZE) -> Iterator[dict[str, Any]]:
    """One row a control."""
    if find_chromium() is None:
        print("widgets: left out (no Chromium; `sh tools/chromium.sh` installs it or says how to)", file=sys.stderr)
        return
    turns = 15 if full else 7
    with chromium() as browser, voila() as panels:
        panel = opened(browser, panels.page("segment_by_words", size=size, classes=CLASSES))
        show = panel.page.locator(".rsov-show select")
        there_and_back = alternating(lambda: show.press("ArrowDown"), lambda: show.press("ArrowUp"))
        opacity = panel.handle("rsov-opacity")
        stronger_and_back = alternating(lambda: opacity.press("ArrowRight"), lambda: opacity.press("ArrowLeft"))
        yield measured(panel, "opacity", "view", turns, stronger_and_back, size)
        yield measured(panel, "show: class map / probability", "view", turns, there_and_back, size)
        panel.tab("Method")
        for name in ("beta", "lambda_clip", "lambda_dino", "w_in", "w_cross"):
            yield measured(panel, name, "convex", turns, moved(panel, name), size)
        panel.page.get_by_text("Diffusion (BCDR)").click()
        panel.handle("rsov-alpha").wait_for()
        for name, label in (("alpha", "alpha"), ("neighbours", "K"), ("steps", "T")):
            if label == "T":  # many steps have converged, and one more changes nothing: from 0 on, five at a time
                yield measured(panel, label, "diffusion", turns, moved(panel, name, "PageUp", "Home"), size)
            else:
                yield measured(panel, label, "diffusion", turns, moved(panel, name), size)
        panel.tab("Classes")
        yield measured(panel, "a word", "prompt", turns, typed(panel), size)
        panel.page.close()
        panel = opened(browser, panels.page("clouds_and_radar", size=size, classes=CLASSES, cover=0.1))
        yield measured(panel, "cloud cover", "cloud", turns, moved(panel, "cover"), size)
        panel.page.close()


def opened(browser: Any, address: str) -> Panel:
    """A panel that takes times."""
    panel = Panel.open(browser, address)
    panel.page.evaluate(TIMES)
    return panel


def measured(panel: Panel, control: str, kind: str, turns: int, press: Press, size: int) -> dict[str, Any]:
    """Press, wait until the picture has settled, and read the page's times."""
    panel.settle(lambda: panel.page.locator(".rsov-reset").click())
    found: dict[str, list[float]] = {"first": [], "map": [], "settled": []}
    for turn in range(turns + 1):
        said = panel.page.evaluate("() => { window.rsovTimes = {}; return window.rsovSaid.length; }")
        press()
        # What concerns the view alone is drawn without a word; all else ends with one.
        ended = "window.rsovTimes.first" if kind == "view" else f"({_ENDED})({said})"
        panel.page.wait_for_function(ended, timeout=1000 * SECONDS, polling=50)
        panel.page.wait_for_function(_QUIET, arg=QUIET, timeout=1000 * SECONDS, polling=50)
        times = panel.page.evaluate("window.rsovTimes")
        if turn and "map" in times:  # the first one warms up; an answer may also be the same picture again
            for name, event in (("first", "first"), ("map", "map"), ("settled", "last")):
                found[name].append(times[event] - times["began"])
    changed = len(found["map"])
    if not changed:
        print(f"widgets: no step of {control} changed the map", file=sys.stderr)
        found = {name: [math.nan] for name in found}
    goal = GOALS[kind]
    row: dict[str, Any] = {
        "table": "widgets",
        "control": control,
        "size": size,
        "classes": CLASSES.count(";") + 1,
        "turns": changed,
        "goal_ms": goal,
    }
    for name, values in found.items():
        row[f"{name}_ms"] = round(statistics.median(values), 1)
        row[f"{name}_p90_ms"] = round(nine_tenths(values), 1)
        if name != "first":
            row[f"{name}_in_goal"] = statistics.median(values) <= goal
    return row


def nine_tenths(values: list[float]) -> float:
    """The value that nine tenths lie at or below."""
    return statistics.quantiles(values, n=10, method="inclusive")[-1] if len(values) > 1 else values[0]


def moved(panel: Panel, name: str, key: str | None = None, first: str | None = None) -> Press:
    """A slider, always in the same direction: by ``key``, or to where there is more room; ``first`` is pressed once."""
    handle = panel.handle(f"rsov-{name.replace('_', '-')}")
    low, now, high = (float(handle.get_attribute(f"aria-value{end}")) for end in ("min", "now", "max"))
    chosen = key or ("ArrowRight" if now - low <= high - now else "ArrowLeft")
    keys = itertools.chain([first] if first else [], itertools.repeat(chosen))
    return lambda: handle.press(next(keys))


def alternating(*presses: Press) -> Press:
    """One after the other, and again from the beginning."""
    turn = iter(range(10**6))
    return lambda: presses[next(turn) % len(presses)]()


def typed(panel: Panel) -> Press:
    """Another word in the last row; the time begins with Enter."""
    field = panel.page.locator(".rsov-words input").last
    words = iter(WORDS)

    def press() -> None:
        field.fill(next(words))
        field.press("Enter")

    return press
