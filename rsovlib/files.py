"""Writing files so that nobody ever meets a half-written one: write beside, then rename; and one writer at a time."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rsovlib.errors import OutputError


@contextmanager
def write_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path in the folder of ``path``, renamed to ``path`` when the block ends well.

    The temporary name keeps the suffix of ``path``, because GDAL and others choose the format by it.
    On any error, KeyboardInterrupt included, the temporary file is removed, folders made for it too, and ``path`` is
    left as it was.

    Args:
        path: where the finished file shall stand; its folder is made when missing.

    Yields:
        The path to write to.

    Raises:
        OutputError: the folder can't be made or written to.
    """
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"{target} is a folder; give the name of a file to write.")
    made = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}.", suffix=f".part{target.suffix}", dir=target.parent)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{target} can't be written ({reason}); choose another place for the output.") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private (0600); give the result the permissions a plain open() would have given.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
        for folder in made:  # a failed job leaves no empty folders either
            with suppress(OSError):  # not empty, or already gone
                folder.rmdir()


def remove_unfinished(path: str | os.PathLike[str]) -> None:
    """Remove what :func:`write_beside` had begun for ``path`` in processes that were killed.

    Only for a caller that knows that nobody is writing ``path`` at this moment, because it holds the lock.
    """
    target = Path(path)
    # As mkstemp names it, and what GDAL puts beside a file that it is writing (".tif.aux.xml").
    name = re.compile(rf"\.{re.escape(target.stem)}\.[a-z0-9_]{{8}}\.part{re.escape(target.suffix)}.*")
    with suppress(OSError):  # no such folder: nothing to remove
        for found in target.parent.iterdir():
            if name.fullmatch(found.name):
                found.unlink(missing_ok=True)


@contextmanager
def only_one(lock: Path, message: str) -> Iterator[None]:
    """Hold a lock while the block runs; the system lets go of it when the process ends, however that happens.

    Args:
        lock: an empty file of this name is made, with its folder, and stays.
        message: what to say to the second one.

    Raises:
        OutputError: another process holds it, or the file can't be made.
    """
    try:
        import fcntl
    except ImportError:  # Windows: nothing stops two runs from doing the same work, and both do it right
        yield
        return
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("ab")
    except OSError as error:
        raise OutputError(f"{lock.parent} can't be written to ({error.strerror or error}); choose another.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutputError(message) from error
        yield
