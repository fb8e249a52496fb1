"""The workbenches in a real browser: Voila serves their notebooks, Chromium shows them, a `Panel` is used and watched.

The benchmark `widgets` and the tests in `tests/browser` both work with it. Needs Voila, playwright and Chromium, none
of which is downloaded (`make test-browser` installs Chromium where it may). Both programs end with the context that
started them, whatever happened in it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
SECONDS = 300
"""How long anything may take: loading torch on a busy machine is the longest."""

# Quiet, and without attempts to reach hosts outside, which only fail on a closed network.
CHROMIUM_ARGUMENTS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)

# What the panel says is written down from the moment of watching on: a status that is read now and then may be missed.
WATCH = """() => {
  window.rsovSaid = [];
  new MutationObserver((records) => {
    for (const record of records)
      for (const added of record.addedNodes)
        if (added.textContent.trim()) window.rsovSaid.push(added.textContent.trim());
  }).observe(document.querySelector('.rsov-status'), {childList: true, subtree: true});
}"""
_SETTLED = "heard => window.rsovSaid.slice(heard).some(text => text.includes('ready') || text.includes('✕'))"


def find_chromium() -> str | None:
    """The program of the system's Chromium or Chrome; None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser without a window, as playwright's ``Browser``."""
    from playwright.sync_api import sync_playwright

    program = find_chromium()
    if program is None:
        raise RuntimeError("There is no Chromium on this machine; `sh tools/chromium.sh` installs it or says how to.")
    # Chromium's sandbox refuses to work for root, as which containers run.
    arguments = [*CHROMIUM_ARGUMENTS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=arguments, timeout=1000 * SECONDS)
        try:
            yield running
        finally:
            running.close()


@dataclass(frozen=True)
class Panels:
    """A running Voila: its address and the folder it serves."""

    address: str
    folder: Path

    def page(self, notebook: str, **parameters: Any) -> str:
        """The address of a notebook of ``notebooks/explore`` with these parameters."""
        import papermill

        name = f"{notebook}-{len(list(self.folder.iterdir()))}.ipynb"
        papermill.execute_notebook(
            str(REPOSITORY / "notebooks" / "explore" / f"{notebook}.ipynb"),
            str(self.folder / name),
            parameters,
            prepare_only=True,
            progress_bar=False,
        )
        return f"{self.address}/voila/render/{name}"


@contextmanager
def voila() -> Iterator[Panels]:
    """Voila on a folder of its own, with settings of its own: nothing of the user's is read or changed."""
    with tempfile.TemporaryDirectory(prefix="rsovlib-panels-", ignore_cleanup_errors=True) as own:
        folder, log = Path(own) / "pages", Path(own) / "log.txt"
        folder.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        kinds = {f"JUPYTER_{kind}_DIR": f"{own}/{kind.lower()}" for kind in ("CONFIG", "DATA", "RUNTIME")}
        command = [sys.executable, "-m", "voila", str(folder), "--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1"]
        command += ["--show_tracebacks=True", "--MappingKernelManager.transport_encryption=auto"]
        with log.open("wb") as sink:
            # In its own folder: a file called voila.py in the working folder would be run in Voila's place.
            server = subprocess.Popen(
                command, env={**os.environ, **kinds, "HF_HUB_OFFLINE": "1"}, cwd=own, stdout=sink, stderr=sink
            )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(server, address, log)
            yield Panels(address, folder)
        finally:
            _end(server)


def _wait_for(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    begun = time.monotonic()
    while time.monotonic() < begun + SECONDS:
        if server.poll() is not None:
            raise RuntimeError(f"Voila ended at once:\n{log.read_text(errors='replace')}")
        try:
            urllib.request.urlopen(f"{address}/voila/tree/", timeout=5).close()
            return
        except urllib.error.HTTPError:  # whatever it answers, it is there
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"Voila did not come up within {SECONDS} s:\n{log.read_text(errors='replace')}")


def _end(server: subprocess.Popen[bytes]) -> None:
    """Ask it to end, which ends its kernels as well; if it doesn't, kill it, and the kernels notice by themselves."""
    server.terminate()
    try:
        server.wait(60)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait(60)


class Panel:
    """A workbench in a page: what a person can do with it, and see of it.

    Attributes:
        page: playwright's ``Page``.
        over: the layer over the (left) image.
        base: the image.
    """

    def __init__(self, page: Any) -> None:
        self.page = page
        page.set_default_timeout(1000 * SECONDS)
        self.over, self.base = page.locator("img.rsov-over").first, page.locator("img.rsov-base").first

    @classmethod
    def open(cls, browser: Any, address: str) -> Panel:
        """Open the page on a laptop's screen, and wait for the first map.

        Raises:
            RuntimeError: a cell failed, or printed a warning.
        """
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        panel = cls(page)
        try:
            page.goto(address, timeout=1000 * SECONDS)
            page.locator(".rsov-picture, .jp-OutputArea-output[data-mime-type$=error]").first.wait_for()
            if complaints := panel.complaints():
                raise RuntimeError("\n".join(complaints))
            page.wait_for_function("document.querySelector('.rsov-status').innerText.match(/ready|✕/)")
            page.wait_for_function("document.querySelector('img.rsov-over').naturalWidth > 0")
            page.evaluate(WATCH)
        except BaseException:
            page.close()
            raise
        return panel

    def complaints(self) -> list[str]:
        """Warnings and stack traces under the cells; there should be none."""
        kinds = (
            f'.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.{kind}"]' for kind in ("stderr", "error")
        )
        return list(self.page.locator(", ".join(kinds)).all_inner_texts())

    @property
    def status(self) -> str:
        """What the panel says it is doing."""
        return str(self.page.locator(".rsov-status").inner_text())

    def source(self) -> str:
        """Which picture lies over the image; every new one has another name."""
        return str(self.over.get_attribute("src"))

    def choose(self, css: str, beginning: str) -> None:
        """Choose from a list the entry that begins so."""
        box = self.page.locator(f".{css} select")
        labels = [label.replace("\N{NO-BREAK SPACE}", " ") for label in box.locator("option").all_inner_texts()]
        box.select_option(index=next(i for i, label in enumerate(labels) if label.startswith(beginning)))

    def tab(self, name: str) -> None:
        """Open a tab of the left side."""
        self.page.get_by_role("tab", name=name, exact=True).click()

    def handle(self, css: str) -> Any:
        """The handle of a slider, which arrow keys move."""
        return self.page.locator(f".{css} .noUi-handle")

    def wait_until(self, what: str, condition: Callable[[], bool]) -> None:
        """Poll until a condition holds."""
        for _ in range(SECONDS * 10):
            if condition():
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"{what}: not within {SECONDS} s; the panel says {self.status!r}")

    def said(self, act: Callable[[], Any]) -> str:
        """Do something that makes the panel work, wait until it has ended, and give back its last words."""
        heard = self.page.evaluate("window.rsovSaid.length")
        act()
        self.page.wait_for_function(_SETTLED, arg=heard, polling=20)
        return str(self.page.evaluate("window.rsovSaid.findLast(text => text.includes('ready') || text.includes('✕'))"))

    def settle(self, act: Callable[[], Any]) -> None:
        """The same, for what ends well."""
        words = self.said(act)
        if "ready" not in words:
            raise AssertionError(f"the panel says {words!r}")

    def changes_picture(self, act: Callable[[], Any]) -> None:
        """The same, for what must end in another picture."""
        before = self.source()
        self.settle(act)
        self.wait_until("another picture", lambda: self.source() != before)
