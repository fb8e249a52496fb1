"""Asking before the work whether its result can be written, rather than after it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from rsovlib.errors import OutputError


def check_output(
    path: str | os.PathLike[str], suffixes: Iterable[str], others: Iterable[str | os.PathLike[str]] = ()
) -> Path:
    """The path as a Path, if a file can be written there.

    Args:
        path: where a result shall go.
        suffixes: those that its format may have, in lower case with the dot.
        others: files that it must not replace: the input and the other outputs.

    Returns:
        The same path.

    Raises:
        OutputError: the suffix is not one of the format's, the path is a folder, is one of the others (links and
            relative paths are followed), is write-protected, or stands in a folder that can't be written to.
    """
    target, allowed = Path(path), tuple(suffixes)
    if target.is_dir():
        raise OutputError(f"{target} is a folder; give the name of a file to write.")
    if target.suffix.lower() not in allowed:
        got = f"ends in {target.suffix!r}" if target.suffix else "has no suffix"
        raise OutputError(f"{target} {got}, and must end in {' or '.join(allowed)}.")
    for other in others:
        if _same_file(target, Path(other)):
            raise OutputError(f"{target} is also the input or another output; choose another name for it.")
    if target.exists() and not (os.access(target, os.W_OK) and target.stat().st_mode & _ANYONE_MAY_WRITE):
        raise OutputError(f"{target} exists and is write-protected; choose another name for the output.")
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise OutputError(f"{target} can't be written, because {folder} is a file and not a folder.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{target} can't be written: permission denied in {folder}; choose another folder.")
    return target


# os.access alone says yes to an administrator even where nobody was meant to write.
_ANYONE_MAY_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


def _same_file(one: Path, other: Path) -> bool:
    if one.exists() and other.exists():
        return one.samefile(other)
    return one.resolve() == other.resolve()
