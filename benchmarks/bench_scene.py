"""Whole scenes: megapixels a second, peak memory, the share of time outside the networks, one process against two.

* ``networks``: SDCI with the embedded models on a simulated scene, by 1 and by 2 processes of one thread each.
* ``radar``: MM-OVSeg with its embedded models on a simulated scene and a radar raster of half its resolution beside it
  (left out where the installation has no such models).
* ``machinery``: a stand-in that costs next to nothing, so that everything else shows: reading, keeping, blending,
  writing. With ``--full`` on 20,000 x 20,000 pixels and 6 classes; peak memory is that of this process and its
  workers above what they took before the first tile.
* ``moving a tile``: what it costs to hand one tile's probabilities from a worker to the writer, and to keep them.

Each run is a process of its own.
"""

from __future__ import annotations

import functools
import json
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

MIB = 2**20
CLASSES = "water, river; forest, trees; buildings, rooftops; roads; bare soil; farmland"
CHILD = "benchmarks.bench_scene"
RADAR_METHOD = "mm-ovseg"


def rows(*, full: bool = False) -> Iterator[dict[str, Any]]:
    """One row a run."""
    with tempfile.TemporaryDirectory() as folder:
        for workers in (1, 2):
            yield _in_child("networks", folder, 2048 if full else 640, workers)
        for workers in (1, 2) if _has_radar_method() else ():
            yield _in_child("radar", folder, 2048 if full else 640, workers)
        for workers in (1, 2):
            yield _in_child("machinery", folder, 20_000 if full else 4_000, workers)
        yield from _moving(Path(folder))


def _has_radar_method() -> bool:
    from rsovlib.errors import RsovError
    from rsovlib.segmenters import make_segmenter

    try:
        make_segmenter(RADAR_METHOD)
    except RsovError as error:
        print(f"radar: left out ({error})", file=sys.stderr)
        return False
    return True


def _in_child(table: str, folder: str, side: int, workers: int) -> dict[str, Any]:
    command = [sys.executable, "-m", CHILD, table, folder, str(side), str(workers)]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    found: dict[str, Any] = json.loads(next(line for line in lines if line.startswith("{")))
    return found


class StandIn:
    """Six classes from a fixed noise: hardly any time, and maps that don't compress to nothing."""

    tiling = (512, 128)

    def __init__(self) -> None:
        noise = np.random.default_rng(0).random((6, 64, 64), dtype=np.float32)
        values = np.exp(3 * np.kron(noise, np.ones((1, 8, 8), np.float32)))
        self._values = values / values.sum(axis=0)

    def settings(self) -> dict[str, Any]:
        return {"method": "stand-in"}

    def __call__(self, image: NDArray[np.uint8], classes: list[str]) -> SimpleNamespace:
        height, width = image.shape[:2]
        return SimpleNamespace(probabilities=self._values[: len(classes), :height, :width])


class Peak:
    """Resident memory of this process and all below it, the largest of many looks, in MiB."""

    def __init__(self) -> None:
        self.start = self.most = self._now()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(0.05):
            self.most = max(self.most, self._now())

    @staticmethod
    def _now() -> int:
        total = 0
        for process in (me := psutil.Process(), *me.children(recursive=True)):
            try:
                total += process.memory_info().rss
            except psutil.Error:
                continue
        return round(total / MIB)


def measure(table: str, folder: Path, side: int, workers: int) -> dict[str, Any]:
    """Segment one scene in this process."""
    from rsovlib.data.raster import segment_scene

    scene = folder / f"{table}-scene-{side}.tif"
    inside = 0.0
    options: dict[str, Any] = {"segmenter": StandIn()}
    if table == "networks":
        from rsovlib.segmenters import SDCI, make_segmenter

        if not scene.exists():
            _simulated(scene, side)
        options = {}
        if workers == 1:  # in other processes nobody watches
            options["segmenter"] = segmenter = make_segmenter("sdci")
            encode = SDCI.encode_images

            def watched(*arguments: Any) -> Any:
                nonlocal inside
                began = time.perf_counter()
                result = encode(*arguments)
                inside += time.perf_counter() - began
                return result

            vars(segmenter)["encode_images"] = functools.partial(watched, segmenter)
            # Once before, for what is compiled at the first call.
            segmenter(np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8), CLASSES)
    elif table == "radar":
        radar = folder / f"radar-{side}.tif"
        if not scene.exists():
            _simulated(scene, side, radar)
        options = {"method": RADAR_METHOD, "sar": radar}
    elif not scene.exists():
        _sparse(scene, side)
    inside = 0.0
    peak = Peak()
    busy, began = time.process_time(), time.perf_counter()
    report = segment_scene(scene, CLASSES, folder / "map.tif", workers=workers, threads=1, progress=False, **options)
    wall = time.perf_counter() - began
    peak.stop()
    megapixels = side * side / 1e6
    return {
        "table": table,
        "scene": f"{side} x {side}",
        "workers": workers,
        "tiles": report.tiles,
        "seconds": round(wall, 2),
        "megapixels_per_second": round(megapixels / wall, 3),
        # Of this process, and of the tiles in others; not of starting those.
        "cpu_seconds": round(time.process_time() - busy + (report.cpu_seconds if workers > 1 else 0), 2),
        "outside_networks_percent": round(100 * (1 - inside / wall), 1) if inside else None,
        "peak_mib": peak.most,
        "above_start_mib": peak.most - peak.start,
    }


def _simulated(path: Path, side: int, radar: Path | None = None) -> None:
    """A simulated scene of 10 m; and its radar at 20 m, without the last eighth of its rows."""
    import rasterio

    from rsovlib.data.grid import Grid
    from rsovlib.data.raster import write_raster
    from rsovlib.data.scenes import make_scene

    scene = make_scene(side, seed=1, modalities=["sar"])
    place = rasterio.Affine(10, 0, 5e5, 0, -10, 5.6e6)
    crs = rasterio.CRS.from_epsg(32632)
    write_raster(path, np.ascontiguousarray(np.moveaxis(scene.optical, -1, 0)), Grid(side, side, place, crs))
    if radar is not None and scene.sar is not None:
        values = np.ascontiguousarray(scene.sar[:, : side * 7 // 8 : 2, ::2])
        grid = Grid(*values.shape[1:], place @ rasterio.Affine.scale(2), crs)
        write_raster(radar, values, grid, names=["VV", "VH"])


def _sparse(path: Path, side: int) -> None:
    """A tiled GeoTIFF of which one block in fifty holds noise, and the others are not even in the file."""
    import rasterio
    from rasterio.windows import Window

    rng = np.random.default_rng(0)
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5.6e6)}
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "SPARSE_OK": True}
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8", **layout, **place
    ) as f:
        for row in range(0, side - 256, 256):
            for column in range(0, side - 256, 256):
                if rng.random() < 0.02:
                    values = rng.integers(0, 255, (3, 256, 256), dtype=np.uint8)
                    f.write(values, window=Window(column, row, 256, 256))


def _moving(folder: Path) -> Iterator[dict[str, Any]]:
    """Milliseconds for a piece of 6 classes and 512 x 512 pixels."""
    from rsovlib.data.tilestore import open_store

    values = np.random.default_rng(0).integers(0, 65535, (6, 512, 512), dtype=np.uint16)
    piece: dict[str, NDArray[Any]] = {"probabilities": values, "valid": np.zeros(512 * 512 // 8, np.uint8)}

    def row(way: str, work: Any, turns: int = 20) -> dict[str, Any]:
        work()
        times = []
        for _ in range(turns):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
        return {
            "table": "moving a tile",
            "way": way,
            "mib": round(sum(array.nbytes for array in piece.values()) / MIB, 2),
            "median_ms": round(1e3 * float(np.median(times)), 2),
            "least_ms": round(1e3 * min(times), 2),
        }

    with open_store(folder / "x.tif", "key") as store:
        yield row("keep on disk", lambda: store.put("a", piece))
        yield row("read back and verify", lambda: store.get("a"))
    yield row("pickle and unpickle", lambda: pickle.loads(pickle.dumps(piece, protocol=5)))
    from distributed import Client, LocalCluster

    with (
        LocalCluster(1, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield row("from a Dask worker, TCP on this machine", lambda: client.submit(_noise_piece, pure=False).result())
        yield row("an empty task of a Dask worker", lambda: client.submit(int, pure=False).result())


_ready: dict[str, Any] = {}


def _noise_piece() -> dict[str, Any]:
    """A piece, made once in each worker."""
    if not _ready:
        _ready["probabilities"] = np.random.default_rng(0).integers(0, 65535, (6, 512, 512), dtype=np.uint16)
    return dict(_ready)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))), flush=True)
