"""Labelled tiles to score a method on: a suite of simulated scenes or a real dataset, behind one interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rsovlib.errors import InputError

Tile = tuple[str, NDArray[np.uint8], NDArray[np.uint8]]


@dataclass(frozen=True)
class LabelledTiles:
    """Tiles of one set.

    Attributes:
        dataset: name of the suite or of the dataset.
        version: what a result row says of it.
        classes: names of the K label values, 0 to K - 1; 255 is ignored.
        count: how many tiles there are.
    """

    dataset: str
    version: str
    classes: list[str]
    count: int
    _prompts: Callable[[str], list[str]]
    _tile: Callable[[int], Tile]

    def prompts(self, words: str) -> list[str]:
        """The words of each class, ``"a, b"`` for synonyms, from a prompt set of the dataset's manifest.

        Raises:
            InputError: there is no such prompt set.
        """
        return self._prompts(words)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tile:
        """Name, image and labels of one tile."""
        return self._tile(index)

    def __iter__(self) -> Iterator[Tile]:
        """Name, image (H, W, 3) uint8 and labels (H, W) uint8 of each tile, read as it is asked for."""
        return (self._tile(index) for index in range(self.count))


def labelled_tiles(
    source: str, *, protocol: str, limit: int = 0, quick: bool = True, split: str = "test", size: int | None = None
) -> LabelledTiles:
    """The tiles of a split of a suite or a dataset.

    Args:
        source: ``"suites/NAME"`` (simulated) or ``"datasets/NAME"`` (real, under ``RSOV_DATA``).
        protocol: the paper's use of the dataset, as its manifest calls it; a suite knows its own.
        limit: take only so many, spread evenly over the set; 0 takes all.
        quick: of a suite: its few small scenes, or all of full size.
        split: ``"test"`` or ``"validation"``.
        size: side in pixels of a suite's scenes, in place of the suite's own; 0 or None keeps that.

    Raises:
        InputError: no such source, or it isn't on this machine.
    """
    kind, _, name = source.partition("/")
    if kind == "suites":
        found = _of_suite(name, quick, split, size)
    elif kind == "datasets":
        found = _of_dataset(name, protocol, split)
    else:
        raise InputError(f"{source!r} is no source of labelled tiles; use suites/NAME or datasets/NAME.")
    if not 0 < limit < found.count:
        return found
    chosen = np.linspace(0, found.count - 1, limit).round().astype(int).tolist()
    all_tiles = found._tile
    version = f"{found.version}, {limit} of {found.count} tiles"
    # A part of a published set is other data than the paper's, and is called by another name.
    dataset = found.dataset if kind == "suites" else f"{found.dataset} (part)"
    return LabelledTiles(dataset, version, found.classes, limit, found._prompts, lambda index: all_tiles(chosen[index]))


def _of_suite(name: str, quick: bool, split: str, size: int | None) -> LabelledTiles:
    from rsovlib.data.dataset import prompts_of
    from rsovlib.data.manifest import load_manifest
    from rsovlib.data.suites import Sides, load_suite
    from rsovlib.experiments.identity import data_version

    suite = load_suite(name)
    version = data_version([f"suites/{name}"])[f"suites/{name}"]
    if size:
        suite = suite.model_copy(update={"size": Sides(full=size, quick=size)})
        version = f"{version}, {size} x {size} pixels"
    if split != "test":
        version = f"{version}, {split}"
    manifest = load_manifest(suite.dataset)
    modality = next(iter(suite.modalities))

    def tile(index: int) -> Tile:
        sample = suite.sample(split, index, quick)
        image = np.ascontiguousarray(np.moveaxis(sample.images[modality][:3], 0, 2))
        return f"{name} {sample.scene.seed}", image, sample.labels

    return LabelledTiles(
        dataset=name,
        version=version,
        classes=suite.class_names,
        count=len(suite.seeds(split, quick)),
        _prompts=lambda words: prompts_of(manifest, suite.class_names, words),
        _tile=tile,
    )


def _of_dataset(name: str, protocol: str, split: str) -> LabelledTiles:
    from rsovlib.data.dataset import ManifestDataset, prompts_of
    from rsovlib.experiments.identity import data_version

    dataset = ManifestDataset(name, protocol=protocol, split=split)
    modality = next(iter(dataset.bands))

    def tile(index: int) -> Tile:
        sample = dataset[index]
        if sample.labels is None:
            raise InputError(
                f"The tile {sample.id} of {name} has no labels; complete the copy (`rsovlib data check {name}`)."
            )
        image = sample.images[modality][:3].numpy().astype(np.uint8)
        return sample.id, np.ascontiguousarray(np.moveaxis(image, 0, 2)), sample.labels.numpy().astype(np.uint8)

    return LabelledTiles(
        dataset=name,
        version=data_version([f"datasets/{name}"])[f"datasets/{name}"],
        classes=dataset.classes,
        count=len(dataset),
        _prompts=lambda words: prompts_of(dataset.manifest, dataset.classes, words),
        _tile=tile,
    )
