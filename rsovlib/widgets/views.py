"""What can be laid over the image, as colour indices: plain functions on arrays, quick enough for a slider.

Colours: classes in those of ``plots.class_colours`` (land-cover colours built on Okabe and Ito's palette, told apart
by people with red-green blindness), quantities in viridis, wrong pixels in their reddish purple,
which no usual kind of land has.
"""

from __future__ import annotations

from functools import lru_cache

import matplotlib
import numpy as np
import numpy.typing as npt
import torch

from rsovlib.data.tiling import Tile, TileGrid
from rsovlib.segmenters.carry import carried_product
from rsovlib.segmenters.sdci import SDCIFeatures
from rsovlib.widgets.encode import CLEAR, Layer

Array = npt.NDArray[np.floating]

#: Levels of a quantity that an indexed picture holds.
LEVELS = 250
WRONG = (204, 121, 167)
LINE = (240, 228, 66)


@lru_cache(maxsize=1)
def scale_palette() -> npt.NDArray[np.uint8]:
    """(LEVELS, 3), viridis."""
    return np.round(matplotlib.colormaps["viridis"](np.linspace(0, 1, LEVELS))[:, :3] * 255).astype(np.uint8)


def class_layer(
    labels: npt.NDArray[np.integer], colours: npt.NDArray[np.uint8], valid: npt.NDArray[np.bool_] | None = None
) -> Layer:
    """Every pixel in its class's colour; clear where there is no class or no data."""
    indices = labels.astype(np.uint8)
    indices[(labels < 0) | (labels >= len(colours))] = CLEAR
    if valid is not None:
        indices[~valid] = CLEAR
    return Layer(indices, colours)


def scale_layer(values: Array, low: float, high: float) -> Layer:
    """A quantity from ``low`` (dark) to ``high`` (light); clear where it is NaN."""
    spread = max(high - low, 1e-12)
    levels = np.clip((values - low) * ((LEVELS - 1) / spread), 0, LEVELS - 1)
    missing = np.isnan(levels)
    indices = np.where(missing, 0, levels).astype(np.uint8)
    indices[missing] = CLEAR
    return Layer(indices, scale_palette())


def wrong_layer(labels: npt.NDArray[np.integer], truth: npt.NDArray[np.uint8], ignored: int = 255) -> Layer:
    """The pixels that differ from the labels."""
    wrong = (labels != truth) & (truth != ignored)
    return Layer(np.where(wrong, 0, CLEAR).astype(np.uint8), np.array([WRONG], np.uint8))


def border_layer(regions: npt.NDArray[np.integer]) -> Layer:
    """The borders between regions."""
    edge = np.zeros(regions.shape, bool)
    edge[:, 1:] |= regions[:, 1:] != regions[:, :-1]
    edge[1:] |= regions[1:] != regions[:-1]
    return Layer(np.where(edge, 0, CLEAR).astype(np.uint8), np.array([LINE], np.uint8))


def join_layers(grid: TileGrid, parts: list[Layer], shape: tuple[int, int]) -> Layer:
    """The windows' own layers on one picture: each pixel from the window that counts most there."""
    whole = np.full(shape, CLEAR, np.uint8)
    best = np.zeros(shape, np.float32)
    for tile, part in zip(grid, parts, strict=True):
        weights = grid.weights(tile)
        mine = weights > best[tile.slices]
        whole[tile.slices][mine] = part.indices[mine]
        best[tile.slices][mine] = weights[mine]
    return Layer(whole, parts[0].palette)


# ---- what a pixel looks at -------------------------------------------------------------------------------------


def attention_row(features: SDCIFeatures, kind: str, row: float, column: float, lambda_1: float = 1.0) -> Array:
    """How much the patch at a place looks at every patch of its window, (h, w) on its network's grid.

    Args:
        features: of the window.
        kind: ``"CLIP"``, ``"DINO"``, or ``"fused"``: CLIP's and, lambda_1 times, DINO's carried to CLIP's grid.
        row: place in the window, 0..1 from its top.
        column: place in the window, 0..1 from its left.
        lambda_1: of CAF, equation 8.
    """
    own = features.dino_grid if kind == "DINO" else features.clip_grid
    here = cell_at(own, row, column)
    with torch.inference_mode():
        if kind == "DINO":
            values = features.dino_attention[here]
        else:
            values = features.clip_attention[here]
            if kind == "fused":
                # A row of U B U^T is the column of its transpose.
                one = torch.zeros(own[0] * own[1], 1, dtype=values.dtype, device=values.device)
                one[here] = 1.0
                carried = carried_product(features.dino_attention.T, one, features.dino_grid, own)[:, 0]
                values = values + lambda_1 * carried
        found: Array = values.reshape(own).float().cpu().numpy()
    return found


def neighbour_row(transition: torch.Tensor, grid: tuple[int, int], row: float, column: float) -> Array:
    """The weights of the edges that leave the node at a place, (h, w); NaN where there is no edge."""
    here = cell_at(grid, row, column)
    offsets, columns, weights = transition.crow_indices(), transition.col_indices(), transition.values()
    first, last = int(offsets[here]), int(offsets[here + 1])
    values = np.full(grid[0] * grid[1], np.nan, np.float32)
    values[columns[first:last].cpu().numpy()] = weights[first:last].float().cpu().numpy()
    return values.reshape(grid)


def widened(values: Array, pixels: int = 2) -> Array:
    """Single patches made a little larger, so that the eye finds them; NaN elsewhere as before."""
    height, width = values.shape
    padded = np.pad(values, pixels, constant_values=np.nan)
    wide = values.copy()
    for down in range(2 * pixels + 1):
        for right in range(2 * pixels + 1):
            wide = np.fmax(wide, padded[down : down + height, right : right + width])
    return wide


def cell_at(grid: tuple[int, int], row: float, column: float) -> int:
    """The number of the patch at a place, 0..1 from top and left."""
    return min(int(row * grid[0]), grid[0] - 1) * grid[1] + min(int(column * grid[1]), grid[1] - 1)


def on_picture(values: Array, tile: Tile, shape: tuple[int, int]) -> Array:
    """A window's patches as blocks of pixels on the whole picture; NaN around it."""
    rows = np.minimum((np.arange(tile.height) + 0.5) * values.shape[0] / tile.height, values.shape[0] - 1).astype(int)
    columns = np.minimum((np.arange(tile.width) + 0.5) * values.shape[1] / tile.width, values.shape[1] - 1).astype(int)
    whole = np.full(shape, np.nan, np.float32)
    whole[tile.slices] = values[rows][:, columns]
    return whole
