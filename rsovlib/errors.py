"""Every error that rsovlib raises on purpose: one sentence that says what is wrong, where, and what to do.

The command line prints that sentence and exits with code 2; Python callers can catch :class:`RsovError`
or the narrower classes.  Nothing here imports anything of the package, so that every layer can use it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RsovError(Exception):
    """Base of all errors that rsovlib raises on purpose."""


class InputError(RsovError, ValueError):
    """An argument or a piece of data is not of the form that was asked for."""


class RasterError(RsovError, OSError):
    """A raster file is missing, damaged, or not what the job needs."""


class OutputError(RsovError, OSError):
    """A result can't be written where it should go."""


class WeightsError(RsovError):
    """Weights are missing, altered, unsafe, or of another architecture."""


class ResourceError(RsovError, MemoryError):
    """The machine can't hold what the job would need."""


def unknown_name(kind: str, got: object, choices: Iterable[str]) -> InputError:
    """The error for a name that isn't in a list, with the nearest right one.

    Args:
        kind: what the name stands for, for example ``"method"``.
        got: the name that was given.
        choices: the names that exist.

    Returns:
        An :class:`InputError` to raise.
    """
    names = sorted(choices)
    near = difflib.get_close_matches(str(got), names, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return InputError(f"There is no {kind} {str(got)!r}; choose one of {', '.join(names)}.{hint}")
