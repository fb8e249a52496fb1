"""Optical images with the radar beside them, from simulated suites, from two folders, or from a dataset's manifest.

Radar becomes a grey (or, with two polarisations, coloured) 8-bit picture by the same stretch that ``rsovlib segment
--sar`` uses: percentiles in decibels of the whole scene.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from rsovlib.data.stretch import percentile_stretch
from rsovlib.data.suites import Sample, Sides, Suite, load_suite
from rsovlib.errors import InputError

IGNORE = 255
OPTICAL_WAVELENGTHS = (665.0, 560.0, 490.0)
"""Of the suites' red, green and blue, in nm: clouds are coloured by them."""

_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2")


@dataclass(frozen=True)
class Pair:
    """One place seen by both sensors, on one grid.

    Attributes:
        name: for messages.
        optical: (H, W, 3) uint8, without simulated clouds.
        sar: (H, W, 3) uint8.
        labels: (H, W) uint8, indices into the pool's classes, 255 where there is none; None for unlabelled pairs.
    """

    name: str
    optical: NDArray[np.uint8]
    sar: NDArray[np.uint8]
    labels: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class PairPool:
    """Pairs that share a list of classes.

    Attributes:
        name: of the set.
        pairs: the pairs.
        classes: prompts of the label values, in order; none for unlabelled pairs.
        clouds: kind of clouds to simulate over the optical images, or None.
    """

    name: str
    pairs: Sequence[Pair]
    classes: tuple[str, ...] = ()
    clouds: str | None = None

    def __post_init__(self) -> None:
        if not self.pairs:
            raise InputError(f"{self.name} has no pairs to train on.")


def sar_picture(decibels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """One polarisation (1, H, W) in decibels as a grey picture (H, W, 3) uint8, 2 to 98 % of its own values."""
    return percentile_stretch(decibels, np.isfinite(decibels[0]))(np.nan_to_num(decibels)).repeat(3, axis=2)


def sized_suite(name: str, side: int) -> Suite:
    """A suite whose full-size scenes have ``side`` pixels, so that its many seeds serve small networks too."""
    suite = load_suite(name)
    return suite.model_copy(update={"size": Sides(full=side, quick=min(side, suite.size.quick))})


def sample_pair(sample: Sample) -> Pair:
    """A sample of a suite with the modalities "rgb" and "sar": the clear image, the radar's picture, the labels."""
    optical = np.ascontiguousarray(np.moveaxis(sample.clear["rgb"][:3], 0, -1))
    sar = sar_picture(sample.images["sar"][:1])
    return Pair(f"{sample.suite} {sample.scene.seed}", optical, sar, sample.labels)


def suite_pool(name: str, count: int, side: int, split: str = "train", *, progress: bool = True) -> PairPool:
    """Simulated pairs of a suite.

    Args:
        name: of the suite; it has the modalities "rgb" and "sar".
        count: how many scenes, from the split's first seed on.
        side: of the scenes in pixels.
        split: "train" labels only the seen classes, and names only them.
        progress: show a bar.

    Returns:
        The pool; the labels of the split "train" are renumbered to the list of seen classes.

    Raises:
        InputError: the suite has other modalities, or fewer scenes.
    """
    suite = sized_suite(name, side)
    if not {"rgb", "sar"} <= suite.modalities.keys():
        raise InputError(f"The suite {name!r} has {', '.join(suite.modalities)}; fusion takes one with rgb and sar.")
    seen = [index for index, one in enumerate(suite.classes) if one.seen or split != "train"]
    table = np.full(256, IGNORE, np.uint8)
    table[seen] = np.arange(len(seen))
    pairs = []
    for sample in tqdm(
        suite.scenes(split, False, 0, count), total=count, desc=name, unit="scene", disable=not progress
    ):
        pair = sample_pair(sample)
        pairs.append(replace(pair, labels=table[sample.labels]))
    clouds = None if suite.clouds is None else suite.clouds.kind
    return PairPool(name, pairs, tuple(suite.prompts[index] for index in seen), clouds)


def folder_pool(optical: str | os.PathLike[str], sar: str | os.PathLike[str]) -> PairPool:
    """Unlabelled pairs from two folders with files of the same names (but for the suffix).

    The radar is read on the optical image's grid, whatever its own.

    Args:
        optical: folder of optical rasters.
        sar: folder of radar rasters.

    Raises:
        InputError: a folder is missing, or no name is in both.
        RasterError: a file can't be read, or a pair doesn't overlap.
    """
    from rsovlib.data.pair import open_pair

    files = [_rasters(Path(folder)) for folder in (optical, sar)]
    shared = sorted(files[0].keys() & files[1].keys())
    if not shared:
        raise InputError(f"No raster of {optical} has a namesake in {sar}; name the files of a pair alike.")
    pairs = []
    for stem in tqdm(shared, desc=Path(optical).name, unit="pair"):
        with open_pair(files[0][stem], files[1][stem]) as scene:
            window = scene.read()
        pairs.append(Pair(stem, window.optical, window.sar))
    return PairPool(f"{optical} and {sar}", pairs)


def dataset_pool(name: str, protocol: str, split: str = "train", limit: int = 0) -> PairPool:
    """Pairs of a dataset that a manifest describes.

    Args:
        name: of the manifest; the dataset lies under ``RSOV_DATA``.
        protocol: the paper's use of it; it has one optical and one radar modality, named "rgb" and "sar".
        split: of the protocol.
        limit: take only so many, spread evenly; 0 takes all.

    Raises:
        InputError: no such dataset, protocol or split, or other modalities.
    """
    from rsovlib.data.dataset import ManifestDataset

    dataset = ManifestDataset(name, protocol=protocol, split=split)
    radar = next((key for key in dataset.bands if key.startswith("sar")), None)
    colour = next((key for key in dataset.bands if key != radar), None)
    if radar is None or colour is None:
        raise InputError(
            f"The protocol {protocol!r} of {name} has {', '.join(dataset.bands)}, and no optical-SAR pair."
        )
    chosen = np.linspace(0, len(dataset) - 1, limit).round().astype(int) if limit else np.arange(len(dataset))
    pairs = []
    for index in tqdm(chosen.tolist(), desc=name, unit="pair"):
        sample = dataset[index]
        optical, sar = (sample.images[key].numpy() for key in (colour, radar))
        labels = None if sample.labels is None else sample.labels.numpy().astype(np.uint8)
        picture = np.moveaxis(optical[:3], 0, -1).astype(np.uint8)
        grey = np.moveaxis(sar[:1], 0, -1).repeat(3, axis=2) if sar.dtype == np.uint8 else sar_picture(sar[:1])
        pairs.append(Pair(sample.id, np.ascontiguousarray(picture), grey, labels))
    return PairPool(f"{name} ({protocol})", pairs, tuple(dataset.classes))


def _rasters(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; give the folder of one sensor's images.")
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in _SUFFIXES}
