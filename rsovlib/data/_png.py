"""Whether a PNG file is there to its end.

GDAL reads a PNG that was cut short as if nothing were missing when the whole image is asked for at once: the pixels
that aren't there are 0, and no error is raised.  So the file's chunks are walked before anything is read.
"""

from __future__ import annotations

import os
from pathlib import Path

from rsovlib.errors import RasterError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHECKSUM_LENGTH = 4


def require_whole_png(path: str | os.PathLike[str]) -> None:
    """Refuse a PNG file that ends before its last chunk; only the chunks' heads are read.

    Raises:
        RasterError: the file is cut short.
    """
    name = os.fspath(path)
    size = Path(name).stat().st_size
    with Path(name).open("rb") as file:
        if file.read(len(_SIGNATURE)) != _SIGNATURE:
            return  # not a plain PNG file: a part of an archive, or one that GDAL knows by other means
        while True:
            head = file.read(8)
            end = file.tell() + int.from_bytes(head[:4], "big") + _CHECKSUM_LENGTH
            if len(head) < 8 or end > size:
                raise RasterError(f"{name} is cut short: it ends after {size} bytes within its image; get it again.")
            if head[4:] == b"IEND":
                return
            file.seek(end)
