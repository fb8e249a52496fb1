"""What a scene will take of memory and disk, asked before the work rather than in its middle."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rsovlib.data.memory import available_memory, in_words
from rsovlib.data.reader import SceneRaster
from rsovlib.data.regions import region_memory
from rsovlib.data.scene_run import disk_needed
from rsovlib.data.tile_work import Segmenter
from rsovlib.data.tiling import BandAccumulator, TileGrid, tile_grid
from rsovlib.errors import OutputError, ResourceError

_ON_GPU = 16
"""Tiles in a batch on a GPU, if memory allows."""

_SHARE = 0.5
"""Of the free memory that batches may take: what a batch takes is foreseen, and others take memory too."""


def check_memory(
    segmenter: Segmenter,
    scene: SceneRaster,
    tile: int,
    overlap: int,
    classes: int,
    workers: int,
    *,
    with_polygons: bool,
) -> float:
    """Refuse a tile that is foreseen not to fit, and name one that would.

    Returns:
        How many times as much as one tile of each worker takes would fit.

    Raises:
        ResourceError: the run would need more memory than is free, in the machine or on its GPU.
    """
    host_free, gpu_free = available_memory(), _free_on_gpu(getattr(segmenter, "device", None))

    def shortage(side: int, shared: int) -> tuple[float, float, str] | None:
        """Bytes needed, bytes free and where, if these tiles do not fit."""
        grid = tile_grid(scene.height, scene.width, side, shared)
        on_host = _host_memory(scene, grid, classes, with_polygons)
        in_segmenter = workers * _segmenter_memory(segmenter, grid, classes)
        if gpu_free is None:
            on_host += in_segmenter
        elif in_segmenter > gpu_free:
            return in_segmenter, gpu_free, "on the GPU"
        return (on_host, host_free, "of memory") if on_host > host_free else None

    lacking = shortage(tile, overlap)
    if lacking is None:
        grid = tile_grid(scene.height, scene.width, tile, overlap)
        around = _host_memory(scene, grid, classes, with_polygons) if gpu_free is None else 0.0
        left = (host_free if gpu_free is None else gpu_free) - around
        return left / max(1.0, workers * _segmenter_memory(segmenter, grid, classes))
    side = min(tile, max(scene.height, scene.width))
    for smaller in range((side - 1) // 32 * 32, 31, -32):
        shared = overlap if overlap < smaller else smaller // 4
        if shortage(smaller, shared) is None:
            advice = f"tile={smaller}" if shared == overlap else f"tile={smaller} and overlap={shared}"
            raise ResourceError(
                f"A tile of {side} pixels with {classes} classes needs about {in_words(lacking[0])} {lacking[2]} and "
                f"{in_words(lacking[1])} are free; {advice} would fit."
            )
    needed, free, where = shortage(32, min(overlap, 8)) or lacking
    raise ResourceError(
        f"This scene with {classes} classes needs about {in_words(needed)} {where} even with the smallest tiles and "
        f"{in_words(free)} are free; use fewer classes, no polygons, a part of the scene, or another machine."
    )


def _segmenter_memory(segmenter: Segmenter, grid: TileGrid, classes: int) -> float:
    """Bytes that one tile takes inside the segmenter, above its models."""
    height, width = grid.rows.tile, grid.columns.tile
    foreseen = getattr(segmenter, "memory_needed", None)
    return float(foreseen(height, width, classes)) if foreseen is not None else 4.0 * classes * height * width


def _host_memory(scene: SceneRaster, grid: TileGrid, classes: int, with_polygons: bool) -> float:
    """Bytes that the run takes in the machine's memory around the segmenter."""
    # Blended values and where data is; per pixel of a band of rows: image and masks, areas in float64, probabilities
    # as they are kept and written, and their copies.
    band = BandAccumulator.memory_needed(grid, classes + 1) + (32.0 + 6.0 * classes) * grid.rows.tile * scene.width
    return max(band, region_memory(scene.height, scene.width)) if with_polygons else band


def _free_on_gpu(device: Any) -> int | None:
    """Bytes free on a CUDA device, or None where the segmenter computes in the machine's own memory."""
    if getattr(device, "type", None) != "cuda":
        return None
    import torch  # a segmenter with such a device has loaded it already

    free: int = torch.cuda.mem_get_info(device)[0]
    return free


def batch_size(
    segmenter: Segmenter, room: float, tiles: int, workers: int, *, asked: int | None, elsewhere: bool
) -> int:
    """How many tiles a worker is given at once.

    Args:
        segmenter: the segmenter.
        room: of :func:`check_memory`.
        tiles: of the scene.
        workers: who share them.
        asked: at most so many; None for what is known to be worth it.
        elsewhere: whether the workers are on other machines, of whose memory nothing is known.
    """
    if not any(hasattr(segmenter, name) for name in ("segment_batch", "examine_batch")):
        return 1
    if asked is None:
        asked = 1 if elsewhere or getattr(getattr(segmenter, "device", None), "type", "cpu") == "cpu" else _ON_GPU
    fits = asked if elsewhere else int(_SHARE * room)
    return max(1, min(asked, fits, -(-tiles // workers)))


def check_disk(folder: Path, grid: TileGrid, classes: int, *, two_pass: bool, probabilities: object) -> None:
    """Say before the work that there is no room for it, rather than in the middle.

    Raises:
        OutputError: the disk is foreseen to be too small.
    """
    needed = disk_needed(grid, classes, two_pass=two_pass, probabilities=probabilities is not None)
    try:
        taken = sum(path.stat().st_size for path in folder.iterdir())
        free = shutil.disk_usage(folder).free
    except OSError:
        return
    if needed - taken > free:
        raise OutputError(
            f"Finished tiles need up to {in_words(needed - taken)} beside the output while the scene is computed, and "
            f"{in_words(free)} are free in {folder.parent.parent}; make room, or choose another place for the output."
        )
