"""One image to make a figure of: the user's raster, a labelled tile, or a simulated scene."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from rsovlib.data.classes import parse_classes
from rsovlib.data.reader import open_scene
from rsovlib.data.scenes import make_scene
from rsovlib.errors import InputError
from rsovlib.experiments.labelled import labelled_tiles
from rsovlib.experiments.quickstart import SIMULATED_CLASSES, simulated_labels


@dataclass(frozen=True)
class Subject:
    """What a figure shows.

    Attributes:
        image: (H, W, 3) uint8.
        classes: prompts, one string a class.
        labels: (H, W) uint8, indices into ``classes`` and 255 where none applies; None where the truth isn't known.
        gsd: metres a pixel; None where it isn't known.
        story: one sentence about it.
    """

    image: npt.NDArray[np.uint8]
    classes: list[str]
    labels: npt.NDArray[np.uint8] | None
    gsd: float | None
    story: str


def take_subject(
    image: str, classes: str = "", *, size: int = 256, seed: int = 2_000_008, words: str = "generalized"
) -> Subject:
    """The image, its classes and, where it is known, its truth.

    Args:
        image: path of a raster, of which the middle is taken; ``"suites/NAME/3"`` or ``"datasets/NAME/3"``, a test tile
            of a suite or dataset; ``""``, a simulated scene.
        classes: ``"water, river; forest"``. ``""`` takes the tile's own, or those of simulated scenes; with classes of
            one's own a tile or scene has no truth any more.
        size: longest side in pixels; larger images are cut. A simulated scene has just this size.
        seed: of the simulated scene.
        words: prompt set of a tile's own classes.

    Raises:
        InputError: no such tile, a raster without ``classes``, or bad classes.
        RasterError: the raster can't be read.
    """
    if image.startswith(("suites/", "datasets/")):
        return _tile(image, classes, size, words)
    if image:
        return _raster(Path(image), classes, size)
    scene = make_scene(size, seed, modalities=())
    prompts = _prompts(classes or list(SIMULATED_CLASSES))
    labels = None if classes else simulated_labels(scene)
    story = f"Simulated scene {seed}, {scene.gsd:.2f} m a pixel: {scene.caption}"
    return Subject(scene.optical, prompts, labels, scene.gsd, story)


def _tile(image: str, classes: str, size: int, words: str) -> Subject:
    source, _, number = image.rpartition("/")
    if not number.isdigit():
        raise InputError(f"{image!r} names no tile; write its number behind the source, as in 'suites/sdci-gid/0'.")
    # Any protocol will do: it decides about scoring, not about images.
    tiles = labelled_tiles(source, protocol="sdci")
    if int(number) >= len(tiles):
        raise InputError(f"{source} has {len(tiles)} tiles, counted from 0; there is no {number}.")
    name, picture, labels = tiles[int(number)]
    cut = _middle(picture.shape[0], picture.shape[1], size)
    prompts = _prompts(classes or tiles.prompts(words))
    truth = None if classes else labels[cut]
    return Subject(np.ascontiguousarray(picture[cut]), prompts, truth, None, f"Tile {name} of {tiles.dataset}.")


def _raster(path: Path, classes: str, size: int) -> Subject:
    if not classes:
        raise InputError("An image of your own needs classes, for example classes='water, river; forest; buildings'.")
    with open_scene(path) as scene:
        scene.require_data()
        rows, columns = _middle(scene.grid.height, scene.grid.width, size)
        rgb = scene.read_rgb(Window(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start))
        metres = scene.crs is not None and scene.crs.is_projected
        gsd = float(scene.pixel_size[0]) if metres else None
    part = (
        ""
        if rgb.shape[:2] == (scene.grid.height, scene.grid.width)
        else f", its middle {rgb.shape[0]} x {rgb.shape[1]} pixels"
    )
    return Subject(rgb, _prompts(classes), None, gsd, f"{path.name}{part}.")


def _prompts(classes: str | list[str]) -> list[str]:
    return [str(prompt) for prompt in parse_classes(classes)]


def _middle(height: int, width: int, size: int) -> tuple[slice, slice]:
    """Rows and columns of the middle, no side longer than ``size``."""
    starts = [max(0, (side - size) // 2) for side in (height, width)]
    rows, columns = (slice(start, start + min(size, side)) for start, side in zip(starts, (height, width), strict=True))
    return rows, columns
