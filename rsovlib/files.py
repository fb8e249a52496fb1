"""Writing files so that nobody ever meets a half-written one: write beside, then rename."""

from __future__ import annotations

import os
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
