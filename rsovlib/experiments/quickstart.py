"""What the quickstart notebook works on: the user's raster, or a simulated scene with labels, as a GeoTIFF."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio

from rsovlib.data.classes import parse_classes
from rsovlib.data.lexicon import BARE, BUILDING, CAR, FARMLAND, FOREST, GRASS, ROAD, WATER
from rsovlib.data.scenes import Scene, make_scene
from rsovlib.experiments.sdci.ladder import IGNORED
from rsovlib.files import write_beside

#: What the quickstart asks for where the user names no classes: prompt, and the labels of a simulated scene behind it.
#: Pools and orchards belong to none of them and are left out of the scores.
SIMULATED_CLASSES: dict[str, tuple[int, ...]] = {
    "building, rooftop": (BUILDING,),
    "road, street": (ROAD, CAR),
    "water, river, lake": (WATER,),
    "bare soil, sand": (BARE,),
    "forest, trees": (FOREST,),
    "farmland, field": (FARMLAND,),
    "grass, meadow": (GRASS,),
}


@dataclass(frozen=True)
class Task:
    """What is to be segmented.

    Attributes:
        path: the raster.
        classes: prompts, one string a class.
        labels: (H, W) uint8, indices into ``classes`` and 255 elsewhere; None for the user's own raster.
        story: one sentence about the raster.
    """

    path: Path
    classes: list[str]
    labels: npt.NDArray[np.uint8] | None
    story: str


def prepare_task(image: str, classes: str, *, size: int, seed: int, folder: str | os.PathLike[str]) -> Task:
    """The user's raster and classes, or a simulated scene written into ``folder`` as a GeoTIFF.

    Args:
        image: path of a raster; "" makes a scene.
        classes: ``"water, river; forest"``; "" takes :data:`SIMULATED_CLASSES`.
        size: side of the simulated scene in pixels.
        seed: of the simulated scene.
        folder: where the simulated scene is written.

    Raises:
        InputError: the classes can't be read.
    """
    prompts = [str(prompt) for prompt in parse_classes(classes or list(SIMULATED_CLASSES))]
    if image:
        return Task(Path(image), prompts, None, f"Your own raster, {Path(image).name}.")
    scene = make_scene(size, seed, modalities=())
    path = Path(folder) / f"scene_{seed}.tif"
    write_scene(path, scene)
    labels = None if classes else simulated_labels(scene)
    story = f"A simulated scene (seed {seed}, {scene.gsd:.2f} m a pixel), placed where no such land is: {scene.caption}"
    return Task(path, prompts, labels, story)


def simulated_labels(scene: Scene) -> npt.NDArray[np.uint8]:
    """The scene's labels as indices into :data:`SIMULATED_CLASSES`, 255 for what none of them names."""
    lookup = np.full(256, IGNORED, np.uint8)
    for index, members in enumerate(SIMULATED_CLASSES.values()):
        lookup[list(members)] = index
    return lookup[scene.labels]


def labelled_scenes(
    count: int, size: int, first_seed: int
) -> list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
    """Images and labels of ``count`` simulated scenes with consecutive seeds."""
    scenes = (make_scene(size, first_seed + index, modalities=()) for index in range(count))
    return [(scene.optical, simulated_labels(scene)) for scene in scenes]


def write_scene(path: Path, scene: Scene) -> None:
    """Write a simulated scene as a georeferenced RGB GeoTIFF.

    It needs some place: its corner is put on the equator at 3 degrees east (UTM zone 31), which is open sea.
    """
    height, width = scene.labels.shape
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": 3,
        "dtype": "uint8",
        "crs": "EPSG:32631",
        "transform": rasterio.Affine(scene.gsd, 0, 500_000, 0, -scene.gsd, 0),
        "photometric": "RGB",
        "compress": "deflate",
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
    }
    with write_beside(path) as temporary, rasterio.open(temporary, "w", **profile) as target:
        target.write(np.moveaxis(scene.optical, 2, 0))
        target.update_tags(SIMULATED="yes", SEED=scene.seed, SCENE_VERSION=scene.version, CAPTION=scene.caption)
