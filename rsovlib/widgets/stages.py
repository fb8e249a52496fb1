"""Steps whose results are remembered by what they were made of: change one thing, and only what follows runs again.

A result's key is a hash of its step's name, the settings that the step reads and the keys of what it takes in, down to
the bytes of the image. So the same question is never answered twice, whatever was asked in between, and a setting that
a step doesn't read can't make it run. :attr:`StageCache.runs` counts what really ran.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

#: Bytes that are kept: a share of the machine's free memory, within bounds. Memory that was never used before is slow
#: to come by, so more than some dozens of answers is not worth it.
_LEAST_BYTES, _MOST_BYTES = 2**30, 2**32
_SHARE_OF_FREE = 0.25
#: Places whose iterative steps' ends are kept.
_STARTS = 64


@dataclass(frozen=True)
class Node:
    """A result and the key of what it was made of."""

    key: str
    value: Any


class StageCache:
    """Remembered results, the least recently used forgotten first.

    Args:
        limit: bytes to keep at most; by default a quarter of the free memory, at least 1 GiB and at most 4 GiB.

    Attributes:
        runs: how often each step has run; a step whose result was remembered doesn't count.
        limit: see above.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = _default_limit() if limit is None else limit
        self.runs: Counter[str] = Counter()
        self._starts: OrderedDict[Any, tuple[str, Any]] = OrderedDict()
        self._kept: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def bytes_kept(self) -> int:
        """Bytes of all that is remembered."""
        return self._bytes

    def node(
        self,
        stage: str,
        settings: Mapping[str, Any] | Sequence[Any],
        inputs: Sequence[Node],
        compute: Callable[[], Any],
    ) -> Node:
        """The result of a step, remembered or computed now.

        Args:
            stage: the step's name.
            settings: plain values that the step reads.
            inputs: what it takes in.
            compute: does it; what it raises is passed on, and nothing is remembered.
        """
        key = self.key(stage, settings, inputs)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return Node(key, self._kept[key][0])
        value = compute()
        self.remember(stage, key, value)
        return Node(key, value)

    def key(self, stage: str, settings: Mapping[str, Any] | Sequence[Any], inputs: Sequence[Node]) -> str:
        """The key under which a step's result is remembered."""
        told = sorted(settings.items()) if isinstance(settings, Mapping) else list(settings)
        text = repr((stage, told, [node.key for node in inputs]))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def source(self, name: str, value: np.ndarray[Any, Any]) -> Node:
        """An array as a beginning: its key is the hash of its bytes."""
        return Node(f"{name}-{digest(value)}", value)

    def knows(self, key: str) -> bool:
        """Whether a result is remembered."""
        with self._lock:
            return key in self._kept

    def remember(self, stage: str, key: str, value: Any) -> None:
        """Keep a result, and forget others if there are too many."""
        size = bytes_of(value)
        with self._lock:
            self.runs[stage] += 1
            if key in self._kept:
                self._bytes -= self._kept.pop(key)[1]
            self._kept[key] = (value, size)
            self._bytes += size
            while self._bytes > self.limit and len(self._kept) > 1:
                _, (_, freed) = self._kept.popitem(last=False)
                self._bytes -= freed

    def start(self, place: Any, key: str) -> Any:
        """Where an iterative step left off at a place, if it saw the same thing there; else None."""
        with self._lock:
            seen, left_off = self._starts.get(place, ("", None))
        return left_off if seen == key else None

    def keep_start(self, place: Any, key: str, left_off: Any) -> None:
        """Remember where an iterative step left off; of a few dozen places."""
        with self._lock:
            self._starts[place] = (key, left_off)
            self._starts.move_to_end(place)
            while len(self._starts) > _STARTS:
                self._starts.popitem(last=False)

    def clear(self) -> None:
        """Forget everything; the counts stay."""
        with self._lock:
            self._kept.clear()
            self._starts.clear()
            self._bytes = 0


def digest(array: np.ndarray[Any, Any]) -> str:
    """A hash of an array's shape, type and values."""
    made = hashlib.blake2b(digest_size=16)
    made.update(repr((array.shape, array.dtype.str)).encode())
    made.update(np.ascontiguousarray(array).view(np.uint8).data)
    return made.hexdigest()


def bytes_of(value: Any) -> int:
    """Bytes of the arrays and tensors in a result, however it is put together; each counted once."""
    return _bytes_of(value, set())


def _bytes_of(value: Any, seen: set[int]) -> int:
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if hasattr(value, "nbytes") and hasattr(value, "dtype"):
        return _tensor_bytes(value)
    if isinstance(value, Mapping):
        return sum(_bytes_of(part, seen) for part in value.values())
    if isinstance(value, (list, tuple)):
        return sum(_bytes_of(part, seen) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        return sum(_bytes_of(getattr(value, entry.name), seen) for entry in fields(value))
    return 64


def _tensor_bytes(value: Any) -> int:
    if hasattr(value, "crow_indices") and str(getattr(value, "layout", "")) == "torch.sparse_csr":
        return int(value.values().nbytes + value.col_indices().nbytes + value.crow_indices().nbytes)
    return int(value.nbytes)


def _default_limit() -> int:
    import psutil

    return min(max(_LEAST_BYTES, int(psutil.virtual_memory().available * _SHARE_OF_FREE)), _MOST_BYTES)
