"""Whether tiles should go through the networks together, and whether in half precision.

On simulated scenes (of the validation seeds) with the embedded models:

* ``batches``: seconds a tile by the number of tiles in a batch, and by how much labels and probabilities differ from
  those of tiles by themselves.
* ``precision``: seconds a tile in float32 and bfloat16 (on a GPU float16, too), and the share of pixels whose label
  changes: half precision is worth a default only where that share is 0.

With ``--full``, more scenes and larger batches. A GPU is used where there is one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASSES = ["water, river", "forest, trees", "buildings, rooftops", "roads, streets", "farmland, fields", "bare soil"]
SEED = 1_000_000
SIDE = 256

Images = Sequence[NDArray[np.uint8]]


def rows(*, full: bool = False) -> Iterator[dict[str, Any]]:
    """One row a method and batch size, then one a method and precision."""
    from rsovlib.data.scenes import make_scene

    scenes = [make_scene(SIDE, seed=SEED + number).optical for number in range(32 if full else 8)]
    for method in ("sdci", "valuepath"):
        yield from batches(method, scenes, (1, 2, 4, 8, 16, 32) if full else (1, 2, 4, 8))
    for method in ("sdci", "valuepath"):
        yield from precisions(method, scenes)


def batches(method: str, images: Images, sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Time and differences by batch size."""
    from rsovlib.segmenters import make_segmenter

    segmenter: Any = make_segmenter(method)
    segmenter(images[0], CLASSES)  # what is compiled or encoded once
    alone = [segmenter(image, CLASSES) for image in images]
    for size in sizes:
        began, results = _now(), []
        for first in range(0, len(images), size):
            results += segmenter.segment_batch(images[first : first + size], CLASSES)
        seconds = _now() - began
        row = {"table": "batches", "method": method, "device": segmenter.device.type, "tile": SIDE, "batch": size}
        yield {**row, **_compared(alone, results, seconds)}


def precisions(method: str, images: Images) -> Iterator[dict[str, Any]]:
    """Time and differences by precision of the networks."""
    from rsovlib.backbones.devices import resolve_device
    from rsovlib.segmenters import make_segmenter

    exact: list[Any] = []
    device = resolve_device().type
    for precision in ("float32", "bfloat16", *(["float16"] if device != "cpu" else [])):
        segmenter: Any = make_segmenter(method, precision=precision)
        segmenter(images[0], CLASSES)
        began = _now()
        results = [segmenter(image, CLASSES) for image in images]
        seconds = _now() - began
        exact = exact or results
        row = {"table": "precision", "method": method, "device": device, "tile": SIDE}
        yield {**row, "precision": precision, **_compared(exact, results, seconds)}


def _now() -> NDArray[np.float64]:
    """Seconds on the wall, and of the processor, which others' work on the machine changes less."""
    return np.array([time.perf_counter(), time.process_time()])


def _compared(expected: Sequence[Any], found: Sequence[Any], seconds: NDArray[np.float64]) -> dict[str, Any]:
    """Changed labels (percent of the pixels), the largest difference of a probability, and the time of a tile."""
    pairs = list(zip(expected, found, strict=True))
    return {
        "tiles": len(pairs),
        "seconds_per_tile": round(float(seconds[0]) / len(pairs), 4),
        "cpu_seconds_per_tile": round(float(seconds[1]) / len(pairs), 4),
        "changed_labels_percent": round(100 * float(np.mean([(a.labels != b.labels).mean() for a, b in pairs])), 4),
        "largest_difference": float(max(np.abs(a.probabilities - b.probabilities).max() for a, b in pairs)),
    }
