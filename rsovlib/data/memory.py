"""How much memory is free, the limit of a container included."""

from __future__ import annotations

from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Bytes that this process can still take without swapping.

    A container's limit is invisible to the usual counters, which show the whole machine; so the limit of the control
    group (version 2) is read where there is one.
    """
    free = psutil.virtual_memory().available
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        statistics = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return free
    if not limit.isdecimal():  # "max": no limit
        return free
    # Cached files are counted as used, and are given up when somebody needs the room.
    return min(free, max(0, int(limit) - used + int(statistics.get("inactive_file", 0))))


def in_words(size: float) -> str:
    """A number of bytes for people: ``"512 MiB"``, ``"3.2 GiB"``."""
    if size < 2**30:
        return f"{max(1, round(size / 2**20))} MiB"
    return f"{size / 2**30:.1f} GiB"
