"""Paired timing: two ways of doing one thing take turns, so that a busy machine is unfair to both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
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
            **spread(ratios),
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


def paired(ours: Callable[[], object], theirs: Callable[[], object], turns: int, *, warm: bool = True) -> Pair:
    """Let both take ``turns`` turns, after one turn that isn't counted: it compiles and fills caches.

    Without ``warm`` all count, for work that takes long and was done on a small example before.
    """
    if warm:
        ours()
        theirs()
    times = [(seconds(ours), seconds(theirs)) for _ in range(turns)]
    return Pair([t[0] for t in times], [t[1] for t in times])


def spread(values: Sequence[float], name: str = "ratio", digits: int = 2) -> dict[str, float]:
    """Median of the turns with the lowest and highest beside it."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return {
        name: round(middle, digits),
        f"{name}_low": round(low, digits),
        f"{name}_high": round(high, digits),
    }


def best(work: Callable[[], object], turns: int) -> float:
    """Least time of several calls, after one that isn't counted."""
    work()
    return min(seconds(work) for _ in range(turns))
