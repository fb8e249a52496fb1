"""How long clouds over one image take, and over a batch: by kind, bands and type, in NumPy and torch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from benchmarks._timing import best
from rsovlib.data.clouds import CLOUD_VERSION, KINDS, add_clouds

TURNS = 20
SENTINEL_2 = [443, 490, 560, 665, 705, 740, 783, 842, 865, 945, 1375, 1610, 2190]


def rows() -> Iterator[dict[str, object]]:
    rng = np.random.default_rng(0)
    for size in (256, 1024):
        display = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        for kind in KINDS:
            yield row("numpy (H, W, C)", display, kind)
    display = rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)
    yield row("numpy (H, W, C), haze", display, "varied", haze=0.2)
    reflectance = rng.integers(0, 4000, (256, 256, 13), dtype=np.uint16)
    yield row("numpy (H, W, C), wavelengths", reflectance, "varied", wavelengths=SENTINEL_2)
    batch = torch.from_numpy(rng.random((8, 3, 256, 256), dtype=np.float32))
    yield row("torch (B, C, H, W)", batch, "varied")
    if torch.cuda.is_available():
        yield row("torch on CUDA (B, C, H, W)", batch.cuda(), "varied")


def row(form: str, image: np.ndarray | torch.Tensor, kind: str, **options: object) -> dict[str, object]:
    seconds = best(partial(add_clouds, image, 0.5, kind, 0, **options), TURNS)
    return {
        "form": form,
        "shape": " x ".join(map(str, image.shape)),
        "dtype": str(image.dtype).removeprefix("torch."),
        "kind": kind,
        "ms": round(1e3 * seconds, 2),
        "threads": torch.get_num_threads(),
        "cloud_version": CLOUD_VERSION,
    }
