"""What one worker does with one tile: read it, hand it to the segmenter, and give back something small.

A worker is this process, another one of this machine, or one of a Dask cluster; all of them do exactly the same here.
Probabilities travel and are kept as 16-bit fixed-point numbers: half the bytes of float32, and an error of at most
1 / 131070 everywhere. (IEEE half precision has the same size, and errors up to thirty times that where it matters,
between 0.5 and 1.)
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from rsovlib.data.reader import SceneRaster, open_scene
from rsovlib.data.stretch import Stretch
from rsovlib.data.tilestore import Arrays
from rsovlib.data.tiling import Tile
from rsovlib.errors import InputError, ResourceError, RsovError

FULL_SCALE = 65535
"""The fixed-point number of probability 1."""

Step = Literal["segment", "examine", "decide"]

_TOLERANCE = 1e-3
"""By how much a probability may leave 0 to 1 and still be a rounding error."""


class HasProbabilities(Protocol):
    """What a segmenter gives: ``probabilities`` (K, H, W), an array or a tensor."""

    @property
    def probabilities(self) -> Any:
        """(K, H, W), 0 to 1."""
        ...


class Segmenter(Protocol):
    """What a scene needs: (image uint8 (H, W, 3), classes) -> something with .probabilities (K, H, W).

    More is used where a segmenter has it: ``memory_needed(height, width, classes) -> int`` (bytes that one call takes
    at most), ``device`` (a ``torch.device``: where it takes them), ``tiling`` (the tile and overlap that suit it),
    ``settings() -> dict`` (plain values, kept in the map's tags; without them nobody could tell whose tiles an
    interrupted run left, and they are not kept), ``text_features(classes)`` with ``use_text_features(features)``
    (texts are encoded once for all workers), and ``scene_gatherer()`` with ``examine``, ``tile_statistics`` and
    ``decide`` (two passes with numbers of the whole scene, see :class:`rsovlib.segmenters.SDCI`).
    """

    def __call__(self, image: NDArray[np.uint8], classes: list[str], /) -> HasProbabilities:
        """Segment one image."""
        ...


@dataclass(frozen=True)
class Job:
    """All that a worker has to know about a scene; travels to it once.

    Attributes:
        name: tells one job from another.
        path: the scene, as the workers find it.
        bands: the three band numbers.
        stretch: found once, on the whole scene.
        classes: prompts of the K classes.
        make: makes the segmenter.
        texts: the classes' text features, if the segmenter can be given them.
        threads: of a worker; None leaves them as they are.
    """

    name: str
    path: str
    bands: tuple[int, ...]
    stretch: Stretch
    classes: tuple[str, ...]
    make: Callable[[], Segmenter]
    texts: Any = None
    threads: int | None = None


@dataclass(frozen=True)
class Task:
    """One step of one tile.

    Attributes:
        step: ``"segment"``; or ``"examine"`` and, once the scene's constants are known, ``"decide"``.
        tile: which tile.
        examined: for ``"decide"``: what ``"examine"`` gave.
        constants: for ``"decide"``: those of the scene.
        offsets: for ``"decide"``: those of the tile, if there are any.
    """

    step: Step
    tile: Tile
    examined: Arrays | None = None
    constants: Mapping[str, Any] | None = None
    offsets: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Piece:
    """What became of a task.

    Attributes:
        arrays: to be kept. Of ``"examine"``: ``examined/...`` and ``statistics``. Of the others: ``probabilities``
            (K, h, w) uint16 and ``valid``, packed bits. Empty for a tile without data.
        seconds: wall time inside the segmenter.
        cpu_seconds: processor time of the whole task, all threads of the worker.
    """

    arrays: Arrays
    seconds: float = 0.0
    cpu_seconds: float = 0.0


@dataclass
class Worker:
    """A segmenter and an open scene; does one task at a time."""

    job: Job
    segmenter: Segmenter
    scene: SceneRaster
    _turn: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, job: Job, segmenter: Segmenter | None = None) -> Worker:
        """A worker for a job; makes the segmenter if it is not given.

        Raises:
            RsovError: the scene or the weights are not there.
        """
        segmenter = job.make() if segmenter is None else segmenter
        if job.threads is not None and "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(job.threads)
        if job.texts is not None:
            segmenter.use_text_features(job.texts)  # type: ignore[attr-defined]
        return cls(job, segmenter, open_scene(job.path, job.bands, stretch=job.stretch))

    def close(self) -> None:
        """Close the scene."""
        self.scene.close()

    def do(self, task: Task) -> Piece:
        """Read the tile and take the step.

        Raises:
            RasterError: the tile can't be read.
            ResourceError: memory ran out.
            RsovError: the segmenter gave what are no probabilities.
        """
        with self._turn:  # Dask gives a worker with several threads several tiles at once
            return self._do(task)

    def _do(self, task: Task) -> Piece:
        busy = time.process_time()
        tile = task.tile
        image, valid = self.scene.read(Window(tile.column, tile.row, tile.width, tile.height))
        if not valid.any():
            return Piece({}, 0.0, time.process_time() - busy)
        started = time.perf_counter()
        try:
            arrays = self._step(task, image, valid)
        except (MemoryError, RuntimeError) as error:  # PyTorch raises RuntimeError where there is no memory left
            if isinstance(error, RsovError) or not _ran_out_of_memory(error):
                raise
            raise ResourceError(
                f"Memory ran out in a tile of {tile.height} x {tile.width} pixels; choose a smaller tile."
            ) from error
        return Piece(arrays, time.perf_counter() - started, time.process_time() - busy)

    def _step(self, task: Task, image: NDArray[np.uint8], valid: NDArray[np.bool_]) -> Arrays:
        segmenter: Any = self.segmenter
        classes = list(self.job.classes)
        if task.step == "examine":
            examined = segmenter.examine(image, classes)
            arrays = {f"examined/{name}": values for name, values in examined.items()}
            return {**arrays, "statistics": segmenter.tile_statistics(examined, valid)}
        if task.step == "decide":
            examined = examined_of(task.examined or {})
            offsets = None if task.offsets is None else task.offsets.copy()
            result = segmenter.decide(image, classes, examined, task.constants, offsets).probabilities
        else:
            result = segmenter(image, classes).probabilities
        if hasattr(result, "cpu"):  # a tensor, perhaps on another device
            result = result.detach().cpu().numpy()
        fixed = to_fixed(np.asarray(result, dtype=np.float32), len(classes), task.tile)
        return {"probabilities": fixed, "valid": np.packbits(valid)}


def examined_of(arrays: Arrays) -> Arrays:
    """The segmenter's own arrays of a kept examination."""
    # Writable copies: what comes from a file is read-only, which PyTorch warns of.
    return {
        name.removeprefix("examined/"): values.copy() for name, values in arrays.items() if name.startswith("examined/")
    }


def to_fixed(values: NDArray[np.float32], classes: int, tile: Tile) -> NDArray[np.uint16]:
    """Probabilities (K, h, w) of a tile as fixed-point numbers.

    Raises:
        InputError: the result has not the shape of the tile.
        RsovError: a value is no number or no probability. (A tile that failed in silence would become a confident
            patch of class 0.)
    """
    shape = (classes, tile.height, tile.width)
    where = f"the tile at row {tile.row}, column {tile.column}"
    if values.shape != shape:
        raise InputError(f"The segmenter's result has the shape {values.shape} in {where}, and {shape} was expected.")
    if not np.isfinite(values).all():
        raise RsovError(f"The segmenter gave probabilities that are not numbers in {where}; nothing was written.")
    if values.min() < -_TOLERANCE or values.max() > 1 + _TOLERANCE:
        raise RsovError(
            f"The segmenter gave values from {values.min():.3g} to {values.max():.3g} in {where}, and probabilities "
            "lie between 0 and 1; nothing was written."
        )
    return np.rint(np.clip(values, 0, 1) * np.float32(FULL_SCALE)).astype(np.uint16)


def from_fixed(values: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Fixed-point numbers as probabilities."""
    return values * np.float32(1 / FULL_SCALE)


def _ran_out_of_memory(error: Exception) -> bool:
    """Whether an error is one of the ways in which NumPy and PyTorch say that memory ran out."""
    words = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)
