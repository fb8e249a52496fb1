"""Real images for the training mix: labelled tiles of Dubai, and unlabelled optical tiles.

The Dubai set ("Semantic segmentation of aerial imagery", Humans in the Loop, imagery of the Mohammed Bin Rashid Space
Centre; its publisher is cited as releasing it under CC0 1.0) comes as ``tile_T/images/*.jpg`` with
``tile_T/masks/*.png`` of the same size.  Its parts touch each other, so it is split by tile.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rsovlib.data.lexicon import BARE, BUILDING, ROAD, WATER
from rsovlib.errors import InputError
from rsovlib.experiments.embedded.samples import IGNORE, VEGETATION

DUBAI_CLASSES = ("building", "road", "water", "land", "vegetation")
"""The five class names, as they are typed for the test."""
DUBAI_LABELS = (BUILDING, ROAD, WATER, BARE, VEGETATION)
_DUBAI_COLOURS = ((60, 16, 152), (110, 193, 228), (226, 169, 41), (132, 41, 246), (254, 221, 58))

DUBAI_TRAIN, DUBAI_VALIDATION, DUBAI_TEST = (1, 2, 4, 8), (3,), (7,)
"""Tiles of the three sets."""

_LONGEST_SIDE = 1100
"""Larger parts are halved until they are at most this long, so that all tiles show houses at a like size."""


def dubai_parts(archive: Path, tiles: Iterable[int]) -> list[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]:
    """Parts of the Dubai set.

    Args:
        archive: its zip file.
        tiles: which tiles.

    Returns:
        For each part its name, the image (H, W, 3) uint8, and the labels (H, W) uint8: index into
        :data:`DUBAI_CLASSES`, or :data:`IGNORE` for pixels without a class.

    Raises:
        InputError: the file is no zip file, or has no part of these tiles.
    """
    wanted = {f"tile_{tile}" for tile in tiles}
    parts = []
    try:
        with zipfile.ZipFile(archive) as content:
            for name in sorted(content.namelist()):
                path = Path(name)
                if path.suffix != ".jpg" or path.parent.name != "images" or path.parent.parent.name not in wanted:
                    continue
                mask = str(path.parent.parent / "masks" / f"{path.stem}.png")
                image = Image.open(BytesIO(content.read(name))).convert("RGB")
                colours = Image.open(BytesIO(content.read(mask))).convert("RGB")
                while max(image.size) > _LONGEST_SIDE:
                    half = (image.width // 2, image.height // 2)
                    image, colours = (
                        image.resize(half, Image.Resampling.BOX),
                        colours.resize(half, Image.Resampling.NEAREST),
                    )
                parts.append((f"{path.parent.parent.name}/{path.stem}", np.asarray(image), _dubai_labels(colours)))
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{archive} can't be read as the Dubai tiles ({error}); give the path of their zip file."
        ) from error
    if not parts:
        raise InputError(f"{archive} has no part of {', '.join(sorted(wanted))}; give the zip file of the Dubai tiles.")
    return parts


def _dubai_labels(colours: Image.Image) -> NDArray[np.uint8]:
    pixels = np.asarray(colours)
    labels = np.full(pixels.shape[:2], IGNORE, np.uint8)
    for label, colour in enumerate(_DUBAI_COLOURS):
        labels[(pixels == colour).all(axis=2)] = label
    return labels


def training_labels(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Labels of :func:`dubai_parts` as labels of the training pool."""
    table = np.full(256, IGNORE, np.uint8)
    table[: len(DUBAI_LABELS)] = DUBAI_LABELS
    return table[labels]


def optical_tiles(folder: Path) -> list[NDArray[np.uint8]]:
    """Every three-band uint8 GeoTIFF of a folder, (H, W, 3), without labels.

    Raises:
        InputError: the folder has none.
    """
    import rasterio

    images = []
    for path in sorted(folder.glob("*.tif")):
        with rasterio.open(path) as raster:
            if raster.count == 3 and raster.dtypes[0] == "uint8":
                images.append(np.ascontiguousarray(np.moveaxis(raster.read(), 0, -1)))
    if not images:
        raise InputError(f"{folder} has no GeoTIFF of three uint8 bands; give a folder of optical tiles.")
    return images
