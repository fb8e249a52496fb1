"""What one worker does with a tile, or several: read them, hand them to the segmenter, give back something small.

A worker is this process, another one of this machine, or one of a Dask cluster; all of them do exactly the same here.
Probabilities travel and are kept as 16-bit fixed-point numbers: half the bytes of float32, and an error of at most
1 / 131070 everywhere. (IEEE half precision has the same size, and errors up to thirty times that where it matters,
between 0.5 and 1.)
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from rsovlib.data.pair import Radar
from rsovlib.data.reader import SceneRaster, open_scene
from rsovlib.data.sarscene import SarScene
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
    ``decide`` (two passes with numbers of the whole scene, see :class:`rsovlib.segmenters.SDCI`),
    ``segment_batch(images, classes)`` and ``examine_batch(images, classes)`` (several tiles of one size go through the
    networks together), and ``uses_sar`` (all of these then take ``sar=`` and ``sar_valid=``, of a batch as lists, see
    :class:`rsovlib.segmenters.base.SarSegmenter`; None for a tile that the radar does not reach).
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
        radar: the radar raster beside the scene, for segmenters that use one.
    """

    name: str
    path: str
    bands: tuple[int, ...]
    stretch: Stretch
    classes: tuple[str, ...]
    make: Callable[[], Segmenter]
    texts: Any = None
    threads: int | None = None
    radar: Radar | None = None


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


@dataclass(frozen=True)
class View:
    """What there is to see of a tile.

    Attributes:
        image: (H, W, 3) uint8.
        valid: (H, W) where the image holds data.
        radar: further arguments of the segmenter: ``sar`` and ``sar_valid``; empty without a radar raster.
    """

    image: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    radar: Mapping[str, NDArray[Any] | None] = field(default_factory=dict)


@dataclass
class Worker:
    """A segmenter and an open scene, with the radar beside it if there is one; does one batch of tasks at a time."""

    job: Job
    segmenter: Segmenter
    scene: SceneRaster
    radar: SarScene | None = None
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
        with ExitStack() as stack:
            scene = stack.enter_context(open_scene(job.path, job.bands, stretch=job.stretch))
            radar = None if job.radar is None else job.radar.beside(scene)[0]
            stack.pop_all()
        return cls(job, segmenter, scene, radar)

    def close(self) -> None:
        """Close the files."""
        self.scene.close()
        if self.radar is not None:
            self.radar.close()

    def do(self, tasks: Sequence[Task]) -> list[Piece]:
        """Read the tiles and take their steps, in one batch where the segmenter can.

        Raises:
            RasterError: a tile can't be read.
            ResourceError: memory ran out.
            RsovError: the segmenter gave what are no probabilities.
        """
        with self._turn:  # Dask gives a worker with several threads several batches at once
            return self._do(tasks)

    def _do(self, tasks: Sequence[Task]) -> list[Piece]:
        busy = time.process_time()
        views = [self._view(task.tile) for task in tasks]
        # A tile without data is not looked at.
        seen = [(task, view) for task, view in zip(tasks, views, strict=True) if view.valid.any()]
        started = time.perf_counter()
        try:
            found = iter(self._steps(seen))
        except (MemoryError, RuntimeError) as error:  # PyTorch raises RuntimeError where there is no memory left
            if isinstance(error, RsovError) or not _ran_out_of_memory(error):
                raise
            tile = tasks[0].tile
            several = f"{len(seen)} tiles" if len(seen) > 1 else "a tile"
            raise ResourceError(
                f"Memory ran out in {several} of {tile.height} x {tile.width} pixels; choose a smaller tile"
                f"{' or batch' if len(seen) > 1 else ''}."
            ) from error
        seconds = (time.perf_counter() - started) / max(1, len(seen))
        cpu_seconds = (time.process_time() - busy) / len(tasks)
        return [
            Piece(next(found), seconds, cpu_seconds) if view.valid.any() else Piece({}, 0.0, cpu_seconds)
            for view in views
        ]

    def _view(self, tile: Tile) -> View:
        window = Window(tile.column, tile.row, tile.width, tile.height)
        image, valid = self.scene.read(window)
        if self.radar is None or not valid.any():
            return View(image, valid)
        sar, sar_valid = self.radar.read(window)
        if not sar_valid.any():
            return View(image, valid, {"sar": None, "sar_valid": None})
        return View(image, valid, {"sar": sar, "sar_valid": sar_valid})

    def _steps(self, seen: Sequence[tuple[Task, View]]) -> list[Arrays]:
        """The arrays of each task; tasks of one step together, if the segmenter has something for that."""
        steps = {task.step for task, _ in seen}
        together = getattr(self.segmenter, f"{next(iter(steps))}_batch", None) if len(steps) == 1 else None
        if len(seen) < 2 or together is None:
            return [self._step(task, view) for task, view in seen]
        views = [view for _, view in seen]
        radar = {name: [view.radar[name] for view in views] for name in views[0].radar}
        results = together([view.image for view in views], list(self.job.classes), **radar)
        return [self._arrays(task, view, result) for (task, view), result in zip(seen, results, strict=True)]

    def _step(self, task: Task, view: View) -> Arrays:
        segmenter: Any = self.segmenter
        classes = list(self.job.classes)
        if task.step == "examine":
            result = segmenter.examine(view.image, classes, **view.radar)
        elif task.step == "decide":
            examined = examined_of(task.examined or {})
            offsets = None if task.offsets is None else task.offsets.copy()
            result = segmenter.decide(view.image, classes, examined, task.constants, offsets, **view.radar)
        else:
            result = segmenter(view.image, classes, **view.radar)
        return self._arrays(task, view, result)

    def _arrays(self, task: Task, view: View, result: Any) -> Arrays:
        """What is kept of a step's result."""
        if task.step == "examine":
            arrays = {f"examined/{name}": values for name, values in result.items()}
            segmenter: Any = self.segmenter
            return {**arrays, "statistics": segmenter.tile_statistics(result, view.valid)}
        values = result.probabilities
        if hasattr(values, "cpu"):  # a tensor, perhaps on another device
            values = values.detach().cpu().numpy()
        fixed = to_fixed(np.asarray(values, dtype=np.float32), len(self.job.classes), task.tile)
        return {"probabilities": fixed, "valid": np.packbits(view.valid)}


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
