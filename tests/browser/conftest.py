"""JupyterLab, Voila and a browser for the tests in this folder."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.panels import Panels, chromium, find_chromium, voila

REPOSITORY = Path(__file__).resolve().parents[2]
TOKEN = "test"


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: its address and the folder it serves."""

    address: str
    folder: Path

    def get(self, path: str) -> Any:
        """The JSON answer of the server's REST interface."""
        with urllib.request.urlopen(f"{self.address}/{path}?token={TOKEN}", timeout=5) as answer:
            return json.load(answer)

    def end_kernel(self, name: str) -> None:
        """Shut a kernel down."""
        address = f"{self.address}/api/kernels/{name}?token={TOKEN}"
        urllib.request.urlopen(urllib.request.Request(address, method="DELETE"), timeout=30).close()

    def page(self, notebook: str) -> str:
        """The address of a notebook in a clean workspace."""
        return f"{self.address}/lab/tree/{notebook}?token={TOKEN}&reset"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab on a copy of the notebooks, with settings of its own: nothing of the user's is read or changed."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(REPOSITORY / "notebooks", folder, dirs_exist_ok=True)
    own = tmp_path_factory.mktemp("jupyter")
    settings = own / "application" / "settings"
    settings.mkdir(parents=True)
    overrides = {
        # The prompt "Would you like to get notified about Jupyter news?" would lie over the notebook.
        "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
        # All cells in the page, not only those in view: otherwise the tests see no others.
        "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
    }
    (settings / "overrides.json").write_text(json.dumps(overrides), encoding="utf-8")
    environment = {
        **os.environ,
        **{f"JUPYTER_{kind}_DIR": str(own / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")},
        **{f"JUPYTERLAB_{kind}_DIR": str(own / kind.lower()) for kind in ("WORKSPACES", "SETTINGS")},
        "HF_HUB_OFFLINE": "1",
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={folder}",
        f"--IdentityProvider.token={TOKEN}",
        f"--LabApp.app_settings_dir={settings}",
        "--KernelManager.transport_encryption=auto",
    ]
    log = own / "log.txt"
    with log.open("wb") as sink:
        server = subprocess.Popen(command, env=environment, stdout=sink, stderr=subprocess.STDOUT)
    try:
        running = Lab(f"http://127.0.0.1:{port}", folder)
        for _ in range(300):
            if server.poll() is not None:
                raise RuntimeError(f"JupyterLab ended at once:\n{log.read_text()}")
            try:
                running.get("api/status")
                break
            except OSError:
                time.sleep(0.2)
        else:
            raise RuntimeError(f"JupyterLab did not come up:\n{log.read_text()}")
        yield running
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(60)


@pytest.fixture(scope="module")
def panels() -> Iterator[Panels]:
    """Voila: notebooks as pages, every cell run when a page is opened."""
    with voila() as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium, driven by playwright; no browser is downloaded."""
    if find_chromium() is None:
        pytest.skip("no Chromium on this machine; `make test-browser` installs it or says how to")
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with chromium() as running:
        yield running
