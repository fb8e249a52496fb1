"""Images that are larger than a network should see at once: overlapping windows, smoothly blended."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rsovlib.data.tiling import BandAccumulator, TileGrid, tile_grid
from rsovlib.segmenters.base import Segmentation
from rsovlib.segmenters.images import RGB


def window_grid(height: int, width: int, window: int | None, overlap: int) -> TileGrid:
    """The windows that :func:`segment_windows` cuts an image into; one if ``window`` is None or large enough."""
    side = max(height, width)
    if window is None or side <= window:
        return tile_grid(height, width, side, 0)
    return tile_grid(height, width, window, overlap)


def segment_windows(
    image: RGB, window: int, overlap: int, classes: int, segment: Callable[[RGB], Segmentation]
) -> Segmentation:
    """Segment window by window and blend the probabilities.

    Args:
        image: (H, W, 3) uint8.
        window: side of a window in pixels; sides of the image below it are taken whole.
        overlap: pixels that neighbouring windows share at least.
        classes: K.
        segment: segments one window.

    Returns:
        The whole image's segmentation. Stages: those that are maps (K, H, W) in every window, blended likewise.
    """
    height, width = image.shape[:2]
    grid = tile_grid(height, width, window, overlap)
    names: tuple[str, ...] = ()
    whole: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = {}
    bands: dict[str, BandAccumulator] = {}
    titles: list[str] = []
    for row in range(len(grid.rows.starts)):
        for tile in grid.row_of_tiles(row):
            result = segment(np.ascontiguousarray(image[tile.slices]))
            shape = result.probabilities.shape
            maps = {"probabilities": result.probabilities} | {
                name: stage for name, stage in result.stages.items() if getattr(stage, "shape", None) == shape
            }
            if not bands:
                names, titles = tuple(maps), result.classes
                bands = {name: BandAccumulator(grid, classes) for name in names}
                whole = {name: np.empty((classes, height, width), np.float32) for name in names}
            for name in names:
                bands[name].add(tile, maps[name].astype(np.float32, copy=False))
        for name in names:
            first, rows = bands[name].flush(row)
            whole[name][:, first : first + rows.shape[1]] = rows
    probabilities = whole.pop("probabilities")
    return Segmentation.from_probabilities(probabilities, titles, stages=dict(whole), image=image)
