"""What a workbench looks at: a simulated scene, a part of a raster, a file handed over by the browser, an array.

No imagery ships with the package, so the samples are simulated scenes of chosen places; what they show is made on the
spot and perfectly labelled.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from rsovlib.data.areas import pixel_areas
from rsovlib.data.classes import ClassPrompt, parse_classes
from rsovlib.data.lexicon import CAR, CLASSES, LEXICON, ROAD
from rsovlib.data.reader import open_scene
from rsovlib.data.scenes import Scene, make_scene
from rsovlib.errors import InputError
from rsovlib.segmenters.base import GeoReference

IGNORED = 255
"""The label of pixels that belong to none of the classes asked for."""

SAMPLES: dict[str, dict[str, Any]] = {
    "something of everything": {"seed": 1_000_104},
    "suburb on a river": {"seed": 1_000_002},
    "fields, a river, two roads": {"seed": 1_000_007},
    "coast with a road": {"seed": 1_000_001},
    "town in the green": {"seed": 1_000_014},
    "fields and orchards": {"seed": 1_000_017},
}
"""Simulated scenes by what is to be seen in them."""


@dataclass(frozen=True)
class Ground:
    """A piece of ground, with whatever is known of it.

    Attributes:
        image: (H, W, 3) uint8.
        story: one sentence on what it is.
        code: Python that makes ``image`` anew.
        valid: (H, W) bool, None where all pixels are data.
        truth: (H, W) uint8, indices into ``truth_words``; None without labels.
        truth_words: for each label value all words that mean it.
        georeference: where it lies; None for plain images.
        metres: metres a pixel; 0 where unknown.
        scene: the simulated scene behind it.
    """

    image: npt.NDArray[np.uint8]
    story: str
    code: str
    valid: npt.NDArray[np.bool_] | None = None
    truth: npt.NDArray[np.uint8] | None = None
    truth_words: tuple[frozenset[str], ...] = ()
    georeference: GeoReference | None = None
    metres: float = 0.0
    scene: Scene | None = None

    @property
    def pixel_hectares(self) -> npt.NDArray[np.float64] | None:
        """(H, W) hectares of each pixel; None where nobody knows."""
        height, width = self.image.shape[:2]
        if self.georeference is not None:
            areas = pixel_areas(self.georeference.crs, self.georeference.transform, height, width)
            if areas is not None:
                return areas.of_rows(0, height) / 1e4
        return np.full((height, width), self.metres**2 / 1e4) if self.metres > 0 else None

    def truth_for(self, classes: str | Sequence[str]) -> npt.NDArray[np.uint8] | None:
        """The labels as indices into ``classes``, :data:`IGNORED` for what none of them names; None without labels.

        A class stands for every label value that one of its words means.
        """
        prompts = parse_classes(classes)
        if self.truth is None:
            return None
        lookup = np.full(256, IGNORED, np.uint8)
        for number, prompt in reversed(list(enumerate(prompts))):
            for value, words in enumerate(self.truth_words):
                if _means(prompt, words):
                    lookup[value] = number
        return None if (lookup == IGNORED).all() else lookup[self.truth]


def _means(prompt: ClassPrompt, words: frozenset[str]) -> bool:
    return any(word.casefold() in words for word in prompt.words)


@lru_cache(maxsize=1)
def simulated_words() -> tuple[frozenset[str], ...]:
    """For each label of a simulated scene the words that mean it; cars stand on roads, and count as such."""
    words = []
    for value, name in enumerate(CLASSES):
        known = LEXICON.get(value)
        kinds = () if known is None else (*known.trained, *known.thesaurus, *known.combined, *known.unseen)
        words.append({name, *kinds})
    words[CAR] |= words[ROAD]
    return tuple(frozenset(word.casefold() for word in each) for each in words)


@lru_cache(maxsize=4)
def simulated(seed: int, size: int = 512, looks: float = 4.0) -> Ground:
    """A simulated scene, radar included."""
    scene = make_scene(size, seed, modalities=("sar",), sar_looks=looks)
    return Ground(
        image=scene.optical,
        story=f"A simulated scene (seed {seed}): {scene.caption}.",
        code=(
            f"from rsovlib.data.scenes import make_scene\n\nimage = make_scene({size}, {seed}, modalities=()).optical"
        ),
        truth=scene.labels,
        truth_words=simulated_words(),
        metres=scene.gsd,
        scene=scene,
    )


def from_file(path: str | Path, *, row: int = 0, column: int = 0, side: int = 512) -> Ground:
    """A part of a raster: ``side`` pixels from (row, column) on, or what there is of them.

    Raises:
        RasterError: the file is missing, damaged or no picture.
        InputError: the part lies outside.
    """
    with open_scene(path) as scene:
        height, width = scene.grid.height, scene.grid.width
        if not (0 <= row < height and 0 <= column < width):
            raise InputError(
                f"Row {row}, column {column} lies outside of {Path(path).name}, which has {height} rows and {width} "
                "columns; choose a corner inside."
            )
        window = Window(column, row, min(side, width - column), min(side, height - row))
        image, valid = scene.read(window)
        transform = window_transform(window, scene.transform)
        placed = scene.crs is not None or not scene.transform.is_identity
        crs = scene.crs
        metres = 0.0
        if crs is not None:
            areas = pixel_areas(crs, transform, *image.shape[:2])
            metres = 0.0 if areas is None else float(np.sqrt(areas.of_rows(image.shape[0] // 2, 1).mean()))
    if not valid.any():
        raise InputError(f"There are no data in this part of {Path(path).name}; choose another corner.")
    whole = "" if (row, column) == (0, 0) and image.shape[:2] == (height, width) else " (a part of it)"
    window_code = f"Window({column}, {row}, {image.shape[1]}, {image.shape[0]})"
    return Ground(
        image=np.ascontiguousarray(image),
        story=f"{Path(path).name}, {height} x {width} pixels{whole}.",
        code=(
            "from rasterio.windows import Window\n\nfrom rsovlib.data.raster import open_scene\n\n"
            f"with open_scene({str(path)!r}) as scene:\n    image = scene.read_rgb({window_code})"
        ),
        valid=None if valid.all() else valid,
        georeference=GeoReference(transform, crs) if placed else None,
        metres=metres,
    )


def from_upload(name: str, content: bytes, *, side: int = 512) -> Ground:
    """A file handed over by the browser; it is kept in a temporary folder as long as the kernel lives."""
    path = Path(tempfile.mkdtemp(prefix="rsovlib-upload-")) / Path(name).name
    path.write_bytes(bytes(content))
    return from_file(path, side=side)


def from_array(image: npt.NDArray[np.uint8]) -> Ground:
    """An image that a notebook already holds."""
    return Ground(image=np.ascontiguousarray(image), story="An image of this notebook.", code="# image: your own array")


def with_image(ground: Ground, image: npt.NDArray[np.uint8], code: str) -> Ground:
    """The same ground seen another way, such as under clouds."""
    return replace(ground, image=image, code=code)
