"""What every test file may use."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# Before NumPy, torch or numba are loaded. Under pytest-xdist every worker has a core of its own: threads of
# one worker would only stand in the way of the others.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")
os.environ["MPLBACKEND"] = "Agg"
# Tests never reach for the network: a missing weight must be an error here, not a download.
os.environ["HF_HUB_OFFLINE"] = "1"

# A background shell (`make test &`) starts everything with Ctrl-C ignored, and tests that send it would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# And so does nohup with the closing of a terminal.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's top folder."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """Parity data and sample imagery that may lie beside the checkout, and are too large for it."""
    path = REPOSITORY.parent / "shared"
    if not path.is_dir():
        pytest.skip(f"no {path}: the parity data and sample imagery are not beside this checkout")
    return path


@pytest.fixture
def image() -> np.ndarray:
    """A small image (37, 31, 3) uint8 with smooth regions and noise: odd and not square, so that swapped axes show."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:37, 0:31]
    regions = np.select([x < 12, y < 20], [0, 1], default=2)
    colours = np.array([[40, 80, 160], [60, 130, 50], [190, 170, 140]])
    return np.clip(colours[regions] + rng.normal(0, 6, (37, 31, 3)), 0, 255).astype(np.uint8)


@pytest.fixture
def labels() -> np.ndarray:
    """The three regions of ``image``, (37, 31) int64."""
    y, x = np.mgrid[0:37, 0:31]
    return np.select([x < 12, y < 20], [0, 1], default=2).astype(np.int64)
