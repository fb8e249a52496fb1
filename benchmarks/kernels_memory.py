"""Peak memory of one kernel above its inputs, in this process: `python -m benchmarks.kernels_memory WHAT SIZE K`."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kernels_inputs import land_cover, make_inputs, texture


def make_work(what: str, size: int, classes: int) -> Callable[[], Any]:
    """The work whose memory is wanted; small problems have compiled and loaded everything before."""
    if what in ("ours", "published"):
        from rsovlib.kernels import solve_cscp

        options = {"method": "dual" if what == "ours" else "official", "max_iterations": 10 if what == "ours" else 3}
        # 256 rows: enough for the parallel version to be the one that is compiled.
        solve_cscp(*make_inputs("sharp", classes, 256 if what == "ours" else 32).arrays, **options)
        inputs = make_inputs("sharp", classes, size)
        return lambda: solve_cscp(*inputs.arrays, **options)
    if what == "graph":
        import torch

        from rsovlib.kernels import knn_transition

        features = torch.randn(size, 768)
        knn_transition(features[:300])
        return lambda: knn_transition(features)
    from skimage.segmentation import felzenszwalb

    from rsovlib.kernels import felzenszwalb_superpixels

    image = texture(land_cover(size, 6, 0), 1)
    segment = (
        felzenszwalb_superpixels
        if what == "superpixels"
        else lambda pixels: felzenszwalb(pixels, scale=40, sigma=0.8, min_size=20)
    )
    segment(np.ascontiguousarray(image[:64, :64]))
    return lambda: segment(image)


def resident_bytes(*, now: bool) -> int:
    """The process's resident memory at present, or its largest since the last reset (where Linux tells) or ever."""
    status = Path("/proc/self/status")
    if status.exists():
        wanted = "VmRSS:" if now else "VmHWM:"
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith(wanted))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def reset_peak() -> None:
    """Forget the peak so far; elsewhere than on Linux it can't be, and the figure is that above all before."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def main() -> None:
    what, size, classes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    work = make_work(what, size, classes)
    reset_peak()
    before = resident_bytes(now=True)
    kept = work()  # results count: they are part of what a caller needs
    print(json.dumps({"peak_bytes": resident_bytes(now=False) - before, "kept": type(kept).__name__}))


if __name__ == "__main__":
    main()
