"""Paired timing: two ways of doing one thing take turns, so that a busy machine is unfair to both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

_clock: Callable[[], float] = time.perf_counter


@dataclass(frozen=True)
class Pair:
    """Seconds of both ways, turn by turn."""

    ours: list[float]
    theirs: list[float]

    def row(self) -> dict[str, object]:
        """Best times, and the ratio of the turns with its spread."""
        ratios = [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]
        return {
            "ours_ms": round(1e3 * min(self.ours), 2),
            "theirs_ms": round(1e3 * min(self.theirs), 2),
            "ratio": round(statistics.median(ratios), 2),
            "ratio_low": round(min(ratios), 2),
            "ratio_high": round(max(ratios), 2),
            "turns": len(ratios),
        }


def use_processor_time() -> None:
    """Count the processor's seconds, of all threads, from now on: what can still be compared on a crowded machine."""
    global _clock
    _clock = time.process_time


def seconds(work: Callable[[], object]) -> float:
    """Time of one call, by the wall clock unless :func:`use_processor_time` was called."""
    began = _clock()
    work()
    return _clock() - began


def paired(ours: Callable[[], object], theirs: Callable[[], object], turns: int) -> Pair:
    """Let both take ``turns`` turns, after one turn that isn't counted: it compiles and fills caches."""
    ours()
    theirs()
    times = [(seconds(ours), seconds(theirs)) for _ in range(turns)]
    return Pair([t[0] for t in times], [t[1] for t in times])


def best(work: Callable[[], object], turns: int) -> float:
    """Least time of several calls, after one that isn't counted."""
    work()
    return min(seconds(work) for _ in range(turns))
