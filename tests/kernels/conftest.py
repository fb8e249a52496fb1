"""Small problems, and energies computed a second time by code that shares nothing with the library's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest


@dataclass(frozen=True)
class Case:
    """Two probability maps (K, H, W) and the edge weights between their pixels."""

    p_clip: np.ndarray
    p_dino: np.ndarray
    wx: np.ndarray
    wy: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return self.p_clip, self.p_dino, self.wx, self.wy


def random_maps(classes: int, height: int, width: int, sharpness: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.standard_normal((classes, height, width))
    weights = np.exp(logits)
    return weights / weights.sum(axis=0)


@pytest.fixture
def make_case() -> Callable[..., Case]:
    """Cases by shape and sharpness (1: flat, 4: sharp); blocks of 8 x 7 pixels stand for superpixels."""

    def make(
        classes: int = 4, height: int = 37, width: int = 31, sharpness: float = 1.5, seed: int = 0, kind=np.float64
    ) -> Case:
        blocks = np.arange(height)[:, None] // 8 * 100 + np.arange(width) // 7
        wx = np.where(blocks[:, 1:] == blocks[:, :-1], 1.0, 0.1)
        wy = np.where(blocks[1:] == blocks[:-1], 1.0, 0.1)
        maps = [random_maps(classes, height, width, sharpness, seed + i).astype(kind) for i in (0, 1)]
        return Case(maps[0], maps[1], wx.astype(kind), wy.astype(kind))

    return make


def primal_energy(q, p_clip, p_dino, wx, wy, lambda_clip=1.0, lambda_dino=0.2, beta=0.1) -> float:
    """Pixel by pixel and edge by edge, as the problem is written."""
    q = np.asarray(q, dtype=np.float64)
    total = 0.0
    for weight, p in ((lambda_clip, p_clip), (lambda_dino, p_dino)):
        p = np.clip(np.asarray(p, dtype=np.float64), 1e-6, 1)
        p = p / p.sum(axis=0)
        positive = q > 0
        total += weight * float((q[positive] * np.log(q[positive] / p[positive])).sum())
    _, height, width = q.shape
    for i in range(height):
        for j in range(width):
            if j + 1 < width:
                total += beta * float(wx[i, j]) * float(np.abs(q[:, i, j + 1] - q[:, i, j]).sum())
            if i + 1 < height:
                total += beta * float(wy[i, j]) * float(np.abs(q[:, i + 1, j] - q[:, i, j]).sum())
    return total


def dual_value(x, y, p_clip, p_dino, wx, wy, lambda_clip=1.0, lambda_dino=0.2, beta=0.1) -> float:
    """-a sum logsumexp((b - D^T y) / a); -infinity outside the box."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    slack = 1e-6 * beta + 1e-12
    if (np.abs(x) > beta * wx + slack).any() or (np.abs(y) > beta * wy + slack).any():
        return -np.inf
    a = lambda_clip + lambda_dino
    b = np.zeros(np.shape(p_clip))
    for weight, p in ((lambda_clip, p_clip), (lambda_dino, p_dino)):
        p = np.clip(np.asarray(p, dtype=np.float64), 1e-6, 1)
        b += weight * np.log(p / p.sum(axis=0))
    _, height, width = b.shape
    for j in range(width - 1):  # an edge leaves its first pixel and ends at its second
        b[:, :, j] += x[:, :, j]
        b[:, :, j + 1] -= x[:, :, j]
    for i in range(height - 1):
        b[:, i] += y[:, i]
        b[:, i + 1] -= y[:, i]
    peak = b.max(axis=0)
    return -float((a * np.log(np.exp((b - peak) / a).sum(axis=0)) + peak).sum())


@pytest.fixture
def energies() -> tuple[Callable[..., float], Callable[..., float]]:
    """Independent primal and dual energies."""
    return primal_energy, dual_value


@pytest.fixture(scope="session")
def expected(shared: Path) -> dict[str, np.ndarray]:
    """What the official SDCI code gave on its case, in the order in which it arises."""
    with np.load(shared / "parity" / "sdci_case_a" / "expected.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def optimum(shared: Path) -> dict[str, np.ndarray]:
    """The certified optimum of that case's convex step."""
    with np.load(shared / "parity" / "sdci_case_a" / "optimum.npz") as arrays:
        return dict(arrays)
