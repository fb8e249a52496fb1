"""From the tiles of a scene to its finished rows, in bounded memory and disk, resumable at every tile.

Tiles may be computed in any order and by anybody (:mod:`rsovlib.data.tile_crews`). What counts is done here, by one
process, in the order of the grid: each finished tile is kept (:mod:`rsovlib.data.tilestore`); as soon as a row of the
grid is complete, its tiles are blended, the rows of the map that no later tile touches are kept as a *band*, and
tiles that no band needs any more are dropped. Because sums of floating-point numbers depend on their order, and this
order is fixed, the map does not depend on who computed what when, nor on how often the run was killed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rsovlib.data.classmap import NODATA
from rsovlib.data.tile_crews import Crew
from rsovlib.data.tile_work import FULL_SCALE, Piece, Task, examined_of, from_fixed
from rsovlib.data.tilestore import Arrays, TileStore
from rsovlib.data.tiling import BandAccumulator, Tile, TileGrid
from rsovlib.errors import OutputError, unknown_name

TileOrder = Literal["rows", "reversed", "shuffled"]

_CONSTANTS = "constants"

_ROWS_AT_ONCE = 64
"""Rows of a band that are turned into labels at a time: temporary arrays stay small."""


Examined: TypeAlias = tuple[Tile, Arrays, NDArray[np.float64]]
"""A tile, what its examination gave, and its statistics."""

Gather: TypeAlias = Callable[[Iterable[Examined]], tuple[dict[str, Any], list[NDArray[np.float32]]]]
"""Makes the scene's constants, and the offsets of each tile, of all tiles with data in the order of the grid."""


@dataclass(frozen=True)
class Band:
    """Finished rows of a map.

    Attributes:
        first: the first of the rows.
        labels: (n, W) uint8; 255 where there is no data.
        confidence: (n, W) uint8, the probability of the chosen class x 255.
        probabilities: (K, n, W) uint16 fixed-point, if they were asked for.
    """

    first: int
    labels: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    probabilities: NDArray[np.uint16] | None

    def float_probabilities(self) -> NDArray[np.float32]:
        """(K, n, W) with NaN where there is no data."""
        if self.probabilities is None:
            raise OutputError("The probabilities of this run were not kept.")
        values = from_fixed(self.probabilities)
        values[:, self.labels == NODATA] = np.nan
        return values


@dataclass
class SceneRun:
    """All tiles of one scene, and what is known of them.

    Args:
        grid: the tiles.
        classes: K.
        store: where finished pieces are kept.
        keep_probabilities: whether bands hold the probabilities of all classes.
        gather: for a run in two passes. None for one pass.
        order: in which tiles are handed out; the result does not depend on it.
        batch: tiles that a worker gets at once.

    Attributes:
        constants: those of the scene, once they are known.
        computed: tasks done by this run.
        kept: tasks that an earlier run had done.
        tiles: tiles with data, once :meth:`bands` was gone through.
        segmenter_seconds: wall time inside the segmenter, all workers together, this run only.
        cpu_seconds: processor time of the tasks, all workers together, this run only.
    """

    grid: TileGrid
    classes: int
    store: TileStore
    keep_probabilities: bool = False
    gather: Gather | None = None
    order: TileOrder = "rows"
    batch: int = 1
    constants: dict[str, Any] | None = None
    computed: int = 0
    kept: int = 0
    tiles: int = 0
    segmenter_seconds: float = 0.0
    cpu_seconds: float = 0.0
    _offsets: dict[Tile, NDArray[np.float32]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.order not in ("rows", "reversed", "shuffled"):
            raise unknown_name("order of tiles", self.order, ("rows", "reversed", "shuffled"))

    def compute(self, crew: Crew, *, progress: bool = False) -> None:
        """Compute what is missing, until all bands are kept.

        Args:
            crew: who computes.
            progress: show a bar.

        Raises:
            RsovError: a tile failed, or can't be kept; everything finished stays kept.
        """
        from tqdm.auto import tqdm

        passes = 1 if self.gather is None else 2
        with tqdm(total=passes * len(self.grid), unit="tile", disable=not progress, leave=False) as bar:
            first_band = self._finished_bands()
            wanted = [tile for tile in self.grid if tile.row_index >= self._first_row(first_band)]
            finished = {tile for tile in wanted if self.store.get(_name("t", tile)) is not None}
            missing = self._ordered(tile for tile in wanted if tile not in finished)
            done_before = len(self.grid) - len(missing)
            if self.gather is not None:
                self._examine(crew, missing, bar)
            self.kept += done_before
            bar.update(done_before)
            self._decide(crew, missing, finished, first_band, bar)

    def bands(self) -> Iterator[Band]:
        """The finished map, from top to bottom.

        Raises:
            OutputError: what was kept does not read back.
        """
        tiles = 0
        for row in range(len(self.grid.rows.starts)):
            kept = self._read(_band(row))
            probabilities = self._read(_band(row, "p"))["probabilities"] if self.keep_probabilities else None
            tiles += int(kept["tiles"][0])
            yield Band(self.grid.rows.finished(row)[0], kept["labels"], kept["confidence"], probabilities)
        self.tiles = tiles

    # ---- first pass ------------------------------------------------------------------------------------------

    def _examine(self, crew: Crew, missing: Sequence[Tile], bar: Any) -> None:
        """Examine tiles until the constants are known and every missing tile's examination is kept."""
        known = self.store.get(_CONSTANTS)
        if known is not None:
            self._remember(known)
        # With the constants known, only tiles that are still to be decided need their examinations.
        relevant = list(self.grid) if known is None else list(missing)
        todo = [tile for tile in relevant if self.store.get(_name("e", tile)) is None]
        before = len(self.grid) - len(todo)
        self.kept += before
        bar.update(before)
        for task, piece in crew.run((Task("examine", tile) for tile in self._ordered(todo)), self.batch):
            self._count(piece)
            self.store.put(_name("e", task.tile), piece.arrays)
            bar.update()
        if known is None and self.gather is not None:
            # In the order of the grid: sums depend on their order.
            constants, offsets = self.gather(self._examinations())
            kept = {"json": np.frombuffer(json.dumps(constants).encode(), np.uint8)}
            if offsets:
                kept["offsets"] = np.stack(offsets)
            kept["tiles"] = np.array([(tile.row_index, tile.column_index) for tile, *_ in self._examinations()])
            self.store.put(_CONSTANTS, kept)
            self._remember(kept)

    def _examinations(self) -> Iterator[Examined]:
        for tile in self.grid:
            kept = self._read(_name("e", tile))
            if kept:
                yield tile, examined_of(kept), kept["statistics"]

    def _remember(self, kept: Arrays) -> None:
        self.constants = json.loads(kept["json"].tobytes())
        places = {(tile.row_index, tile.column_index): tile for tile in self.grid}
        for (row, column), offsets in zip(kept["tiles"].tolist(), kept.get("offsets", ()), strict=False):
            self._offsets[places[row, column]] = offsets

    # ---- second pass -----------------------------------------------------------------------------------------

    def _decide(self, crew: Crew, missing: Sequence[Tile], finished: set[Tile], first_band: int, bar: Any) -> None:
        """Compute the missing tiles, and make bands of all."""
        if first_band == len(self.grid.rows.starts):
            return
        row = self._first_row(first_band)
        accumulator = BandAccumulator(self.grid, self.classes + 1)

        def advance(row: int) -> int:
            while row < len(self.grid.rows.starts) and all(tile in finished for tile in self.grid.row_of_tiles(row)):
                self._blend(accumulator, row, keep=row >= first_band)
                row += 1
            return row

        row = advance(row)
        for task, piece in crew.run(self._tasks(missing), self.batch):
            self._count(piece)
            self.store.put(_name("t", task.tile), piece.arrays)
            finished.add(task.tile)
            bar.update()
            row = advance(row)

    def _tasks(self, tiles: Iterable[Tile]) -> Iterator[Task]:
        for tile in tiles:
            if self.gather is None:
                yield Task("segment", tile)
                continue
            examined = self._read(_name("e", tile))
            if examined:
                yield Task("decide", tile, examined, self.constants, self._offsets.get(tile))
            else:
                yield Task("segment", tile)  # nothing there: the worker sees it by itself

    def _blend(self, accumulator: BandAccumulator, row: int, *, keep: bool) -> None:
        """Add one row of the grid, keep the band that it finishes, and drop the tiles that nobody needs any more."""
        filled = 0
        for tile in self.grid.row_of_tiles(row):
            piece = self._read(_name("t", tile))
            if not piece:
                continue
            filled += 1
            # One more channel carries where data is: its blended value is 1 there, and 0 elsewhere.
            values = np.empty((self.classes + 1, tile.height, tile.width), np.float32)
            values[:-1] = from_fixed(piece["probabilities"])
            values[-1] = np.unpackbits(piece["valid"], count=tile.height * tile.width).reshape(tile.height, tile.width)
            accumulator.add(tile, values)
        rows = accumulator.flush(row)[1]
        if not keep:
            return
        self._keep_band(row, rows, filled)
        for earlier in range(self._first_row(row), self._first_row(row + 1)):
            for tile in self.grid.row_of_tiles(earlier):
                self.store.drop(_name("t", tile))
                self.store.drop(_name("e", tile))

    def _keep_band(self, row: int, rows: NDArray[np.float32], filled: int) -> None:
        """Labels, confidence and probabilities of blended rows (K + 1, n, W)."""
        shape = rows.shape[1:]
        labels, confidence = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
        fixed = np.empty((self.classes, *shape), np.uint16) if self.keep_probabilities else None
        for start in range(0, shape[0], _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            # Labels are chosen on the numbers that are written, so that both files always agree.
            values = np.rint(np.clip(rows[:-1, part], 0, 1) * np.float32(FULL_SCALE)).astype(np.uint16)
            labels[part] = np.where(rows[-1, part] > 0.5, values.argmax(axis=0), NODATA)
            confidence[part] = np.rint(values.max(axis=0) * (255 / FULL_SCALE))
            if fixed is not None:
                fixed[:, part] = values
        if fixed is not None:
            self.store.put(_band(row, "p"), {"probabilities": fixed})
        # Last: the band is finished when this one is there.
        arrays = {"labels": labels, "confidence": confidence, "tiles": np.array([filled])}
        self.store.put(_band(row), arrays, compress=True)

    # ---- what there is ---------------------------------------------------------------------------------------

    def _finished_bands(self) -> int:
        """How many bands, counted from the top, are kept and whole."""
        for row in range(len(self.grid.rows.starts)):
            if self.store.get(_band(row)) is None:
                return row
            if self.keep_probabilities and self.store.get(_band(row, "p")) is None:
                return row
        return len(self.grid.rows.starts)

    def _first_row(self, band: int) -> int:
        """The first row of tiles that reaches into a band."""
        starts, tile = self.grid.rows.starts, self.grid.rows.tile
        if band >= len(starts):
            return len(starts)
        return next(row for row, start in enumerate(starts) if start + tile > starts[band])

    def _ordered(self, tiles: Iterable[Tile]) -> list[Tile]:
        listed = list(tiles)
        if self.order == "reversed":
            listed.reverse()
        elif self.order == "shuffled":
            random.Random(0).shuffle(listed)
        return listed

    def _read(self, name: str) -> Arrays:
        arrays = self.store.get(name)
        if arrays is None:
            raise OutputError(
                f"A finished tile in {self.store.folder} does not read back as it was written; is the disk full or "
                "failing? Run again: everything that is whole is not computed again."
            )
        return arrays

    def _count(self, piece: Piece) -> None:
        self.computed += 1
        self.segmenter_seconds += piece.seconds
        self.cpu_seconds += piece.cpu_seconds


def disk_needed(grid: TileGrid, classes: int, *, two_pass: bool, probabilities: bool) -> int:
    """Bytes that the pieces of a run take on disk at most, if tiles are computed row by row."""
    height, width, pixels = grid.rows.tile, grid.columns.tile, grid.rows.size * grid.columns.size
    rows = 1 + sum(start < height for start in grid.rows.starts)  # those that wait for a band, and one under way
    tiles = min(rows, len(grid.rows.starts)) * len(grid.columns.starts) * (2 * classes + 1) * height * width
    examinations = len(grid) * 32768 * classes if two_pass else 0
    return tiles + examinations + pixels * (2 + (2 * classes if probabilities else 0))


def _name(kind: str, tile: Tile) -> str:
    return f"{kind}-{tile.row_index}-{tile.column_index}"


def _band(row: int, kind: str = "b") -> str:
    return f"{kind}-{row}"
