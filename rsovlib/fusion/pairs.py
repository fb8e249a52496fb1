"""Optical images with the radar beside them, from simulated suites, from two folders, or from a dataset's manifest.

Radar becomes a grey (or, with two polarisations, coloured) 8-bit picture by the same stretch that ``rsovlib segment
--sar`` uses: percentiles in decibels of the whole scene. Simulated pairs are made once and kept; those of folders and
datasets are read when they are asked for, by whichever process asks, for thirty gigabytes don't fit into memory.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from rsovlib.data.stretch import percentile_stretch
from rsovlib.data.suites import Sample, Sides, Suite, load_suite
from rsovlib.errors import InputError, unknown_name

if TYPE_CHECKING:
    from rsovlib.data.dataset import DataSample, ManifestDataset
    from rsovlib.data.manifest import Manifest

IGNORE = 255
OPTICAL_WAVELENGTHS = (665.0, 560.0, 490.0)
"""Of the suites' red, green and blue, in nm: clouds are coloured by them."""

TrainLabels = Literal["auto", "manifest", "seen"]
"""How the numbers in a training split's label files are read: as the manifest says, or as places in the list of seen
classes; ``"auto"`` takes the latter for the folder tree that is said to hold such files."""

_RENUMBERED_LAYOUT = "mm-ovseg"
"""MM-OVSeg's redistribution: "in train only the seen classes are said to be labelled, renumbered" (the manifests)."""
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


class LazyPairs(Sequence[Pair]):
    """Pairs that are read when they are asked for; sent to another process, they take their files' names along."""

    @abstractmethod
    def read(self, index: int) -> Pair:
        """The pair of a place, 0 to ``len - 1``."""

    @overload
    def __getitem__(self, index: int) -> Pair: ...

    @overload
    def __getitem__(self, index: slice) -> list[Pair]: ...

    def __getitem__(self, index: int | slice) -> Pair | list[Pair]:
        places = range(len(self))[index]
        return self.read(places) if isinstance(places, int) else [self.read(place) for place in places]


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
        if not len(self.pairs):
            raise InputError(f"{self.name} has no pairs to train on.")


# ---- simulated suites ------------------------------------------------------------------------------------------------


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


# ---- two folders -----------------------------------------------------------------------------------------------------


class FolderPairs(LazyPairs):
    """Pairs of rasters with the same names.

    Args:
        files: name -> optical and radar file.
    """

    def __init__(self, files: Sequence[tuple[str, Path, Path]]) -> None:
        self.files = tuple(files)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> Pair:
        """Both rasters on the optical one's grid."""
        from rsovlib.data.pair import open_pair

        name, optical, sar = self.files[index]
        with open_pair(optical, sar) as scene:
            window = scene.read()
        return Pair(name, window.optical, window.sar)


def folder_pool(optical: str | os.PathLike[str], sar: str | os.PathLike[str]) -> PairPool:
    """Unlabelled pairs from two folders with files of the same names (but for the suffix), read when needed.

    The radar is read on the optical image's grid, whatever its own.

    Args:
        optical: folder of optical rasters.
        sar: folder of radar rasters.

    Raises:
        InputError: a folder is missing, or no name is in both.
    """
    files = [_rasters(Path(folder)) for folder in (optical, sar)]
    shared = sorted(files[0].keys() & files[1].keys())
    if not shared:
        raise InputError(f"No raster of {optical} has a namesake in {sar}; name the files of a pair alike.")
    pairs = FolderPairs([(stem, files[0][stem], files[1][stem]) for stem in shared])
    return PairPool(f"{optical} and {sar}", pairs)


def _rasters(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; give the folder of one sensor's images.")
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in _SUFFIXES}


# ---- datasets with a manifest ----------------------------------------------------------------------------------------


class DatasetPairs(LazyPairs):
    """Samples of a dataset as pairs.

    Args:
        dataset: whose samples; it has the two modalities.
        sensors: names of the optical and of the radar modality.
        chosen: which samples, by their places in the dataset.
        seen: names of the seen classes where the label files hold places in that list; none where the dataset's
            numbers are right.
        labelled: read labels, and refuse samples without; otherwise the pairs have none.
    """

    def __init__(
        self,
        dataset: ManifestDataset,
        sensors: tuple[str, str],
        chosen: Sequence[int],
        seen: Sequence[str] = (),
        *,
        labelled: bool = False,
    ) -> None:
        self.dataset, self.sensors = dataset, sensors
        self.chosen, self.seen, self.labelled = tuple(chosen), tuple(seen), labelled

    def __len__(self) -> int:
        return len(self.chosen)

    def read(self, index: int) -> Pair:
        """Both images on the optical one's grid, and the labels."""
        sample = self.dataset[self.chosen[index]]
        optical, sar = (picture_of(sample.images[name].numpy(), sample.valid[name].numpy()) for name in self.sensors)
        shape = (optical.shape[0], optical.shape[1])
        labels = self._labels(sample, shape) if self.labelled else None
        return Pair(sample.id, optical, on_grid(sar, shape), labels)

    def _labels(self, sample: DataSample, shape: tuple[int, int]) -> NDArray[np.uint8]:
        name = self.dataset.manifest.name
        if sample.labels is None:
            raise InputError(f"The sample {sample.id} of {name} has no labels; see `rsovlib data check {name}`.")
        labels, where = sample.labels.numpy(), f"The labels of {sample.id} of {name}"
        if labels.shape != shape:
            raise InputError(f"{where} have {labels.shape} pixels and its image {shape}; they must lie on one grid.")
        if self.seen:
            largest = int(labels[labels != IGNORE].max(initial=0))
            if largest >= len(self.seen):
                raise InputError(
                    f"{where} hold the number {largest}, and only {len(self.seen)} classes are seen; if its training "
                    "files number all classes, say so with train_labels='manifest'."
                )
        return labels.astype(np.uint8)


def dataset_pool(
    name: str,
    protocol: str,
    split: str = "train",
    *,
    classes_of: Literal["seen", "all", "none"] = "seen",
    plain_names: bool = True,
    train_labels: TrainLabels = "auto",
    clear: bool = False,
    limit: int = 0,
    root: str | os.PathLike[str] | None = None,
) -> PairPool:
    """Pairs of a dataset that a manifest describes, read when they are needed.

    Clouds are the dataset's own: read from the cloudy files where they are there, otherwise simulated as the manifest
    says, the same for an image whenever it is read.

    Args:
        name: of the manifest; the dataset lies under ``RSOV_DATA``.
        protocol: the paper's use of it; one of its modalities is radar, called "sar...", and one optical.
        split: of the protocol.
        classes_of: "seen" for training: only seen classes are named, and pixels of others have no label; "none" for
            pairs without labels.
        plain_names: which spelling of the class names, see :func:`class_prompts`.
        train_labels: see :data:`TrainLabels`.
        clear: take the optical images without clouds (what CMU's teacher sees).
        limit: take only so many, spread evenly; 0 takes all.
        root: the dataset's folder; ``$RSOV_DATA/<name>`` if not given.

    Raises:
        InputError: no such dataset, protocol or split, other modalities, or no clear images where those are wanted.
        RasterError: a file is missing.
    """
    from rsovlib.data.dataset import ManifestDataset
    from rsovlib.data.manifest import load_manifest

    if train_labels not in get_args(TrainLabels):
        raise unknown_name("reading of training labels", train_labels, get_args(TrainLabels))
    manifest = load_manifest(name)
    use = manifest.protocol(protocol)
    sensors = pair_sensors(manifest, protocol, clear=clear)
    options: dict[str, Any] = {"protocol": protocol, "split": split, "modalities": sensors, "simulate_clouds": True}
    only_seen = classes_of == "seen"
    dataset = ManifestDataset(name, root, classes_of="seen" if only_seen else "all", **options)
    seen: tuple[str, ...] = ()
    guessed = split == "train" and dataset.plan.layout_name == _RENUMBERED_LAYOUT
    if only_seen and (train_labels == "seen" or (train_labels == "auto" and guessed)):
        seen = use.seen
        dataset = ManifestDataset(name, root, classes_of="all", **options)
    few = 0 < limit < len(dataset)
    chosen = np.linspace(0, len(dataset) - 1, limit).round().astype(int) if few else np.arange(len(dataset))
    labelled = classes_of != "none"
    pairs = DatasetPairs(dataset, sensors, chosen.tolist(), seen, labelled=labelled)
    classes = use.seen if only_seen else dataset.classes
    prompts = tuple(class_prompts(manifest, classes, plain=plain_names)) if labelled else ()
    return PairPool(f"{name} ({protocol})", pairs, prompts)


def class_prompts(manifest: Manifest, classes: Sequence[str], *, plain: bool = True) -> list[str]:
    """The words that a dataset's classes are asked for with.

    Args:
        manifest: of the dataset.
        classes: names of its classes.
        plain: take the set "corrected" where the manifest has one; the release's own spelling otherwise ("backbroad").
    """
    from rsovlib.data.dataset import prompts_of

    return prompts_of(manifest, classes, "corrected" if plain and "corrected" in manifest.prompt_sets else "original")


def pair_sensors(manifest: Manifest, protocol: str, *, clear: bool = False) -> tuple[str, str]:
    """Names of the optical and of the radar modality of a protocol.

    Args:
        manifest: of the dataset.
        protocol: the paper's use of it.
        clear: the optical modality without clouds.

    Raises:
        InputError: it has no such pair, or only clouded images.
    """
    use = manifest.protocol(protocol)
    radar = next((key for key in use.modalities if manifest.modalities[key].kind == "sar"), None)
    colour = next((key for key in use.modalities if manifest.modalities[key].kind == "optical"), None)
    if radar is None or colour is None:
        raise InputError(
            f"The protocol {protocol!r} of {manifest.name} has {', '.join(use.modalities)}, and no optical-SAR pair."
        )
    if clear:
        twin = manifest.modalities[colour].clear_twin
        if twin is None and use.clouds is not None:
            raise InputError(
                f"{manifest.name} has no images without clouds (protocol {protocol!r}); choose a dataset that has some."
            )
        colour = twin or colour
    return colour, radar


def picture_of(values: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """One sensor's stored values (C, H, W) as a picture (H, W, 3) uint8.

    8-bit values stay as they are, others are stretched to the 2 to 98 % of the picture's own; fewer than three bands
    become a grey picture of the first.
    """
    bands = np.ascontiguousarray(values[:3] if len(values) >= 3 else values[:1])
    there = valid & np.isfinite(bands).all(axis=0)
    if bands.dtype == np.uint8:
        picture = np.moveaxis(bands, 0, -1)
    elif there.any():
        picture = percentile_stretch(bands, there)(bands)
    else:
        picture = np.zeros((*bands.shape[1:], len(bands)), np.uint8)
    return np.ascontiguousarray(picture if picture.shape[2] == 3 else picture.repeat(3, axis=2))


def on_grid(picture: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture (h, w, 3) at another size (H, W), bilinear; untouched where it has that size."""
    if picture.shape[:2] == shape:
        return picture
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
