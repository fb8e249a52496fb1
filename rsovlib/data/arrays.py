"""One file of a dataset as an array to read windows from: a raster, a MATLAB ``.mat`` file or a NumPy ``.npy`` file."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.windows import Window
from scipy.io import loadmat, whosmat
from scipy.io.matlab import MatReadError

from rsovlib.data.source import BandReader
from rsovlib.errors import RasterError


class Pixels(NamedTuple):
    """A piece of an image.

    Attributes:
        values: (C, H, W) as stored.
        valid: (H, W) False where there is no data.
    """

    values: NDArray[Any]
    valid: NDArray[np.bool_]


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        format: as manifests name it: ``tif``, ``png``, ``jpg``, ``mat``, ``npy``; or GDAL's name for any other.
        count: number of bands.
        height, width: in pixels.
        dtype: of the stored values, NumPy's name.
        has_palette: whether the only band holds numbers of colours in a palette.
        crs: coordinate reference system as text, None where there is none.
        transform: from (column, row) to map coordinates, None where there is none.
        nodata: the value that means "no data", None where the file names none.
    """

    format: str
    count: int
    height: int
    width: int
    dtype: str
    has_palette: bool = False
    crs: str | None = None
    transform: rasterio.Affine | None = None
    nodata: float | None = None


class ArrayFile(Protocol):
    """An open file. Made by :func:`open_array`."""

    name: str
    header: Header

    def read(self, channels: Sequence[int], rows: slice, columns: slice) -> Pixels:
        """The bands with these numbers (from 1) of a window that lies within the array."""

    def close(self) -> None:
        """Close the file."""


_FORMATS = {"GTiff": "tif", "PNG": "png", "JPEG": "jpg"}

_MAT_TROUBLE = (
    ValueError,
    TypeError,
    NotImplementedError,
    OSError,
    EOFError,
    IndexError,
    KeyError,
    MatReadError,
    zlib.error,
)
"""What SciPy raises on files that are cut short, of MATLAB 7.3, or no MATLAB files at all."""


@contextmanager
def open_array(path: str | os.PathLike[str], variable: str | None = None) -> Iterator[ArrayFile]:
    """Open one file; what it is, its suffix says.

    Args:
        path: a raster that GDAL reads, a ``.mat`` file or a ``.npy`` file. Arrays of ``.mat`` and ``.npy`` are
            (H, W), (H, W, C) or (C, H, W); of three axes the shortest is that of the bands.
        variable: the array's name in a ``.mat`` file.

    Yields:
        The open file.

    Raises:
        RasterError: the file is missing, empty, damaged, or not of its kind.
    """
    name = os.fspath(path)
    suffix = Path(name).suffix.lower()
    file: ArrayFile
    if suffix == ".mat":
        file = _Memory(name, "mat", _load_mat(name, variable))
    elif suffix == ".npy":
        file = _Memory(name, "npy", _load_npy(name))
    else:
        file = _Raster(name)
    try:
        yield file
    finally:
        file.close()


class _Raster:
    """A raster that GDAL reads."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.header: Header
        self._reader = BandReader(name, self._look)

    def _look(self, source: Any, name: str) -> tuple[int, ...]:
        """Note what the file says of itself, and choose all of its bands."""
        has_transform = source.transform != rasterio.Affine.identity()
        self.header = Header(
            format=_FORMATS.get(source.driver, source.driver),
            count=source.count,
            height=source.height,
            width=source.width,
            dtype=str(np.result_type(*source.dtypes)),
            has_palette=source.count == 1 and source.colorinterp[0] == ColorInterp.palette,
            crs=source.crs.to_string() if source.crs else None,
            transform=source.transform if has_transform else None,
            nodata=source.nodata,
        )
        return tuple(range(1, source.count + 1))

    def read(self, channels: Sequence[int], rows: slice, columns: slice) -> Pixels:
        self._reader.bands = tuple(channels)
        found = self._reader.read(Window.from_slices(rows, columns))
        return Pixels(found.values, found.valid)

    def close(self) -> None:
        self._reader.close()


class _Memory:
    """An array that is read as a whole."""

    def __init__(self, name: str, kind: str, array: NDArray[Any]) -> None:
        if array.ndim not in (2, 3) or array.size == 0 or array.dtype.kind not in "buif":
            raise RasterError(
                f"{name} holds an array of shape {array.shape} and type {array.dtype}, and an image of real numbers "
                "is needed."
            )
        self.name = name
        if array.ndim == 2:
            self._bands = array[None]
        else:
            self._bands = np.moveaxis(array, -1, 0) if array.shape[-1] <= array.shape[0] else array
        count, height, width = self._bands.shape
        # "<f4" and "float32" are the same type; its name says so.
        self.header = Header(kind, count, height, width, self._bands.dtype.newbyteorder("=").name)

    def read(self, channels: Sequence[int], rows: slice, columns: slice) -> Pixels:
        values = self._bands[[channel - 1 for channel in channels], rows, columns]
        values = values.astype(np.uint8 if values.dtype == bool else values.dtype.newbyteorder("="))
        return Pixels(values, np.isfinite(values).all(axis=0))

    def close(self) -> None:
        self._bands = self._bands[:0]


def _load_mat(name: str, variable: str | None) -> NDArray[Any]:
    """One array of a MATLAB file."""
    _require_content(name)
    try:
        held: Mapping[str, Any] = loadmat(name, variable_names=None if variable is None else [variable])
        names = [found[0] for found in whosmat(name)]
    except _MAT_TROUBLE as error:
        raise RasterError(
            f"{name} can't be read as a MATLAB file ({error}); is it damaged, or of MATLAB 7.3? "
            "Get it again, or save it in MATLAB with -v7."
        ) from error
    wanted = variable if variable is not None else next(iter(names), "")
    if wanted not in held:
        raise RasterError(f"{name} holds {', '.join(names) or 'no arrays'}, and the array {wanted!r} is needed.")
    array = held[wanted]
    if not isinstance(array, np.ndarray):
        raise RasterError(f"{name} holds something other than an array as {wanted!r}.")
    return array


def _load_npy(name: str) -> NDArray[Any]:
    """The array of a NumPy file; pickled objects, which could run code, are refused."""
    _require_content(name)
    try:
        array = np.load(name, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise RasterError(f"{name} can't be read as a NumPy array ({error}); get the file again.") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise RasterError(f"{name} is an archive of arrays, and a single array is needed.")
    return array


def _require_content(name: str) -> None:
    """The same sentences as for rasters."""
    file = Path(name)
    if not file.is_file():
        raise RasterError(f"{name} does not exist; check the path of the image.")
    if file.stat().st_size == 0:
        raise RasterError(f"{name} is empty (0 bytes); get the file again.")
