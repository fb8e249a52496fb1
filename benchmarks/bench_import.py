"""How long the imports take that a user waits for, each in a fresh interpreter; the median of several."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

REPEATS = 7


def seconds(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started


def rows() -> Iterator[dict[str, object]]:
    bare = statistics.median(seconds("pass") for _ in range(REPEATS))
    for what, code, repeats in [
        ("import rsovlib", "import rsovlib", REPEATS),
        ("import rsovlib.cli", "import rsovlib.cli", REPEATS),
        ("rsovlib.segment, with torch and the models' libraries", "import rsovlib; rsovlib.segment", 3),
    ]:
        times = [seconds(code) for _ in range(repeats)]
        yield {
            "what": what,
            "seconds": round(statistics.median(times) - bare, 3),  # above an interpreter that does nothing
            "fastest": round(min(times) - bare, 3),
            "slowest": round(max(times) - bare, 3),
            "repeats": repeats,
        }
