"""Finished pieces of a long run, kept on disk so that a killed run goes on where it was.

A piece is a few arrays under a name. It is written beside and renamed, and read back only if its digest is right and
it was made by the very run that asks: whatever else lies in the folder (a piece cut short by a power failure, one of
other settings) is no piece. A store is a folder ``<key>`` inside ``<out>.partial``, so that runs with different
settings never meet, and only one process at a time works in ``<out>.partial``.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import rsovlib
from rsovlib.errors import OutputError
from rsovlib.files import only_one

Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")

_EMPTY = 64
"""Bytes that a piece without arrays takes at most."""

_DIGEST = 16
"""Bytes of the BLAKE2b digest at the head of every piece."""


def run_key(facts: Mapping[str, Any]) -> str:
    """A name for everything that a run depends on: equal facts, equal key.

    Args:
        facts: plain values; whatever JSON does not know is taken by its ``str``.

    Returns:
        32 hexadecimal digits.
    """
    text = json.dumps(facts, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@functools.cache
def code_digest() -> str:
    """A hash of this package's sources: tiles of another version of the code are not gone on with."""
    package = Path(rsovlib.__file__).resolve().parent
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def file_facts(files: Iterable[str]) -> list[list[Any]]:
    """What tells a file from a later version of it: name, size, and time of the last change."""
    facts: list[list[Any]] = []
    for name in files:
        with contextlib.suppress(OSError):  # a part of an archive, or a place on the web
            found = Path(name).stat()
            facts.append([Path(name).name, found.st_size, found.st_mtime_ns])
    return facts


class TileStore:
    """Pieces of one run. Made by :func:`open_store`.

    Attributes:
        folder: where they lie.
        written: number of pieces that this process wrote.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.written = 0
        self._key = key.encode()

    def put(self, name: str, arrays: Arrays, *, compress: bool = False) -> None:
        """Keep a piece; from the moment that this returns it survives the process.

        Args:
            name: a file name.
            arrays: what to keep.
            compress: with zlib's fastest level, for values that repeat.

        Raises:
            OutputError: the disk is full, or the folder is gone.
        """
        head, parts = [], []
        for label, array in arrays.items():
            values = np.ascontiguousarray(array)
            data: Any = zlib.compress(values.data, 1) if compress else values.data.cast("B") if values.size else b""
            parts.append(data)
            head.append([label, values.dtype.str, list(values.shape), len(data), compress])
        blocks = [json.dumps([name, head]).encode() + b"\n", *parts]
        digest = hashlib.blake2b(digest_size=_DIGEST, key=self._key)
        for block in blocks:
            digest.update(block)

        def write() -> None:
            handle, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=self.folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(digest.digest())
                    for block in blocks:
                        file.write(block)
                os.replace(temporary, self._path(name))
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise

        _or_output_error(write, self.folder)
        self.written += 1

    def get(self, name: str) -> Arrays | None:
        """A piece, or None if it isn't there or isn't what was written."""
        try:
            content = self._path(name).read_bytes()
        except OSError:
            return None
        if hashlib.blake2b(content[_DIGEST:], digest_size=_DIGEST, key=self._key).digest() != content[:_DIGEST]:
            return None
        end = content.index(b"\n", _DIGEST) + 1  # the digest was right, so there is a head
        title, head = json.loads(content[_DIGEST:end])
        if title != name:
            return None
        arrays: Arrays = {}
        for label, dtype, shape, size, compressed in head:
            data = content[end : end + size]
            arrays[label] = np.frombuffer(zlib.decompress(data) if compressed else data, dtype).reshape(shape)
            end += size
        return arrays

    def drop(self, name: str) -> None:
        """Forget a piece that is no longer needed."""
        self._path(name).unlink(missing_ok=True)

    def is_worth_keeping(self) -> bool:
        """Whether there is any piece that holds something: that a tile has no data is soon found out again."""
        return any(path.stat().st_size > _EMPTY for path in self.folder.iterdir() if not path.name.startswith("."))

    def names(self) -> set[str]:
        """The pieces that lie here, unverified."""
        return {path.name for path in self.folder.iterdir() if not path.name.startswith(".")}

    def _path(self, name: str) -> Path:
        return self.folder / name


@contextlib.contextmanager
def open_store(out: Path, key: str | None, *, resume: bool = True) -> Iterator[TileStore]:
    """The store of a run; it is removed when the block ends well, and otherwise kept for the next try.

    Args:
        out: the result that the run makes; the store is ``<out>.partial`` beside it.
        key: see :func:`run_key`. None for a run that nobody could tell from another: its pieces are removed
            in any case.
        resume: go on with what an earlier run of the same key left; otherwise it is removed first.

    Raises:
        OutputError: the folder can't be written to, or another process works on the same result.
    """
    made = [folder for folder in out.parents if not folder.exists()]
    if key is None:
        _or_output_error(lambda: out.parent.mkdir(parents=True, exist_ok=True), out)
        top = Path(
            _or_output_error(lambda: tempfile.mkdtemp(prefix=f".{out.stem}.", suffix=".part", dir=out.parent), out)
        )
    else:
        top = partial_folder(out)
        _or_output_error(lambda: top.mkdir(parents=True, exist_ok=True), out)
    with contextlib.ExitStack() as stack:
        if key is not None:
            message = f"Another process is making {out} at this moment; wait for it, or choose another output."
            stack.enter_context(only_one(top / ".lock", message))
            if not resume:
                _remove(top, keep_lock=True)
        store = TileStore(top / (key or "tiles"), key or "none")
        _or_output_error(lambda: store.folder.mkdir(exist_ok=True), out)
        for rest in store.folder.glob(".*.part"):  # of a process that was killed while it wrote
            rest.unlink(missing_ok=True)
        finished = False
        try:
            yield store
            finished = True
        finally:
            if finished or key is None or not store.is_worth_keeping():
                _remove(store.folder)
            if finished or not any(path.is_dir() for path in top.iterdir()):
                _remove(top)
                for folder in made:
                    with contextlib.suppress(OSError):  # holds the result by now
                        folder.rmdir()


def partial_folder(out: Path) -> Path:
    """Where the pieces of an unfinished result lie."""
    return out.with_name(out.name + ".partial")


def _remove(folder: Path, *, keep_lock: bool = False) -> None:
    if not keep_lock:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def _or_output_error(write: Callable[[], T], place: Path) -> T:
    """Do it, and say in the package's own words what went wrong."""
    try:
        return write()
    except OSError as error:
        raise OutputError(
            f"Finished tiles can't be kept beside the output in {place.parent} ({error.strerror or error}); make room "
            "there or choose another place, and run again: what was kept is not computed again."
        ) from error
