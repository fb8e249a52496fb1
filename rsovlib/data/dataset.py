"""One torch ``Dataset`` for every dataset that has a manifest.

>>> dataset = ManifestDataset("potsdam", protocol="sdci", split="test", prompt_set="generalized")  # doctest: +SKIP
>>> sample = dataset[0]  # doctest: +SKIP
>>> sample.images["rgb"].shape, sample.labels.shape, dataset.prompts[0]  # doctest: +SKIP
(torch.Size([3, 512, 512]), torch.Size([512, 512]), 'ground, road, streets')
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from rsovlib.data.arrays import Pixels, open_array
from rsovlib.data.cutting import Box
from rsovlib.data.manifest import Manifest, Tiles
from rsovlib.data.reading import ClassChoice, OpenSample, open_sample, stored_to_unit
from rsovlib.data.usage import Item, Variant, open_usage
from rsovlib.errors import InputError, unknown_name


@dataclass(frozen=True)
class DataSample:
    """One picture with everything that is known of it.

    Attributes:
        id: the sample, with the place of the tile behind it where it is one: ``"2_10@512,1024"`` (row, column).
        split: the layout's split or the part of a random split; empty where there is none.
        images: for each modality (C, H, W) in the bands' unit: uint8, int8, int16, int32 or int64 where values are
            stored as whole numbers (uint16 as int32, uint32 as int64), otherwise float32. All 0 where it is missing.
        available: for each modality whether it is there.
        valid: for each modality (H, W) bool, False where a pixel holds no data.
        labels: (H, W) int64 class indices, 255 where ignored; None where nobody has labelled the sample.
        bands: for each modality the C names of its bands.
        cloud_mask: (H, W) bool, True where there is cloud: as the publisher says, or as it was simulated; None where
            nobody knows.
        image_class: index of the class of the whole image, in datasets for classification.
        crs: coordinate reference system as text, None where there is none.
        transform: the six numbers a, b, c, d, e, f from (column, row) of the reference image to map coordinates:
            x = a column + b row + c, y = d column + e row + f; None where there are none.
        box: its pixels in the reference image, None where it is whole.
    """

    id: str
    split: str
    images: dict[str, torch.Tensor]
    available: dict[str, bool]
    valid: dict[str, torch.Tensor]
    labels: torch.Tensor | None
    bands: dict[str, tuple[str, ...]]
    cloud_mask: torch.Tensor | None = None
    image_class: int | None = None
    crs: str | None = None
    transform: tuple[float, ...] | None = None
    box: Box | None = None


Transform = Callable[[DataSample], Any]


class ManifestDataset(Dataset[Any]):
    """The samples of any dataset that has a manifest, read from a local copy.

    Args:
        dataset: its name, the path of a manifest, or a manifest.
        root: its folder; ``$RSOV_DATA/<name>`` by default.
        layout: one of the manifest's folder trees; by default the protocol's, or the one that the files fit.
        protocol: a paper's use of it: its modalities, classes, splits and tiles.
        split: a role of the protocol (``train``, ``val``, ``test``) or a split of the layout; by default
            all that the protocol uses, or all samples.
        modalities: which images; by default the protocol's, or all that a complete copy must have.
        variant: ``"clear"`` or ``"cloudy"`` to take, of each modality, its version without or with clouds.
        prompt_set: whose words :attr:`prompts` gives.
        classes_of: ``"seen"`` or ``"unseen"`` to keep only these classes, renumbered from 0 in the protocol's order
            (open-vocabulary training); pixels of the others are 255.
        allow_missing: whether images may be missing, as long as each sample has one; they are then zeros with
            ``available`` and ``valid`` False. Otherwise the first missing file is an error, at once.
        simulate_clouds: make cloudy images that are missing from clear ones, as the manifest says. The clouds are the
            same whenever they are made, and others for each tile.
        tiles: how images are cut: as the protocol says, in a way of one's own, or not at all (None).
        window: only these pixels of each image (or tile), (row, column, height, width).
        fold: of a protocol with a random split.
        transform: called with each :class:`DataSample`; what it returns is what the dataset gives.

    Raises:
        InputError: a name is unknown, or there is nothing of the dataset under the root.
        RasterError: a file is missing or damaged.
    """

    def __init__(
        self,
        dataset: str | os.PathLike[str] | Manifest,
        root: str | os.PathLike[str] | None = None,
        *,
        layout: str | None = None,
        protocol: str | None = None,
        split: str | None = None,
        modalities: Sequence[str] | None = None,
        variant: Variant | None = None,
        prompt_set: str | None = None,
        classes_of: ClassChoice = "all",
        allow_missing: bool = False,
        tiles: Tiles | Literal["protocol"] | None = "protocol",
        simulate_clouds: bool = False,
        window: tuple[int, int, int, int] | None = None,
        fold: int = 0,
        transform: Transform | None = None,
    ) -> None:
        self.usage = open_usage(
            dataset,
            root,
            layout=layout,
            protocol=protocol,
            modalities=modalities,
            variant=variant,
            classes_of=classes_of,
            tiles=tiles,
            simulate_clouds=simulate_clouds,
        )
        self.plan = self.usage.plan
        self.manifest = self.plan.manifest
        self.classes = list(self.plan.classes)
        self.prompts = prompts_of(self.manifest, self.classes, prompt_set) if prompt_set is not None else []
        self.window = _checked_window(window)
        self.transform = transform
        self._dtypes: dict[str, str] = {}
        self.items = self.usage.items(split, fold)
        self.usage.require_files(
            {item.sample.id: item.sample for item in self.items}.values(), allow_missing=allow_missing
        )

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        item = self.items[index]
        with open_sample(self.plan, item.sample) as opened:
            sample = self._read(opened, item)
        return sample if self.transform is None else self.transform(sample)

    @property
    def bands(self) -> dict[str, tuple[str, ...]]:
        """For each modality the names of its bands."""
        return {name: self.manifest.modalities[name].band_names for name in self.plan.modalities}

    def _read(self, opened: OpenSample, item: Item) -> DataSample:
        box = self._box(opened, item)
        pixels = {name: opened.image(name, box) for name in self.plan.modalities}
        shape = next((found.values.shape[1:] for found in pixels.values() if found is not None), None)
        images: dict[str, torch.Tensor] = {}
        valid: dict[str, torch.Tensor] = {}
        for name, found in pixels.items():
            files = self.plan.layout.files[name]
            if found is None:
                found = self._nothing(opened, name, box, shape)
            images[name] = to_tensor(stored_to_unit(found.values, files))
            valid[name] = torch.from_numpy(np.ascontiguousarray(found.valid))
        labels = opened.labels(box)
        clouds = opened.cloud_mask(box)
        crs, place = opened.place(box)
        is_classified = self.plan.layout.labels.encoding == "folder"
        return DataSample(
            id=item.sample.id if box is None else f"{item.sample.id}@{box.row},{box.column}",
            split=item.split,
            images=images,
            available={name: found is not None for name, found in pixels.items()},
            valid=valid,
            labels=None if labels is None else torch.from_numpy(labels),
            bands=self.bands,
            cloud_mask=None if clouds is None else torch.from_numpy(clouds),
            image_class=int(labels.flat[0]) if is_classified and labels is not None else None,
            crs=crs,
            transform=None if place is None else tuple(place)[:6],
            box=box,
        )

    def _box(self, opened: OpenSample, item: Item) -> Box | None:
        """The pixels to read: the tile, the window, or the window within the tile."""
        tile = None if item.tile is None else item.tile.box
        if self.window is None:
            return tile
        row, column, height, width = self.window
        whole = opened.reference if tile is None else tile
        if row + height > whole.height or column + width > whole.width:
            raise InputError(
                f"The window of {height} x {width} pixels from row {row} and column {column} on does not lie within "
                f"{item.sample.id!r} of {whole.height} x {whole.width} pixels."
            )
        return Box(row + (tile.row if tile else 0), column + (tile.column if tile else 0), height, width)

    def _nothing(self, opened: OpenSample, modality: str, box: Box | None, shape: tuple[int, ...] | None) -> Pixels:
        """Zeros in the place of an image that is missing, of the size that it would have."""
        files = self.plan.layout.files
        size, other = files[modality].size, files[opened.reference_modality].size
        if box is not None:
            shape = (box.height, box.width)
            if size is not None and other is not None:
                shape = (
                    max(1, round(box.height * size.height / other.height)),
                    max(1, round(box.width * size.width / other.width)),
                )
        elif size is not None:
            shape = (size.height, size.width)
        elif shape is None:
            shape = (opened.reference.height, opened.reference.width)
        count = len(self.manifest.modalities[modality].bands)
        return Pixels(np.zeros((count, *shape), dtype=self._dtype(modality)), np.zeros(shape, dtype=bool))

    def _dtype(self, modality: str) -> str:
        """The type of a modality's stored values: the manifest's, or that of the first file that is here."""
        if modality not in self._dtypes:
            files = self.plan.layout.files[modality]
            first = next(
                (sample.files[modality] for sample in self.usage.copy.samples if modality in sample.files), None
            )
            dtype: str | None = files.dtype
            if dtype is None and first is not None:
                with open_array(first, files.variable) as file:
                    dtype = file.header.dtype
            self._dtypes[modality] = dtype or "float32"
        return self._dtypes[modality]


def prompts_of(manifest: Manifest, classes: Sequence[str], prompt_set: str) -> list[str]:
    """The words of a prompt set for these classes, one string a class, as :func:`rsovlib.segment` takes them.

    Raises:
        InputError: there is no such set, or a class has no words in it.
    """
    if prompt_set not in manifest.prompt_sets:
        raise unknown_name(f"prompt set of {manifest.name}", prompt_set, manifest.prompt_sets)
    words: list[str] = []
    for name in classes:
        if name not in manifest.class_names:  # the "background" of a task "class or not"
            words.append(name)
            continue
        prompts = manifest.dataset_class(name).prompts
        if prompt_set not in prompts:
            raise unknown_name(f"prompt set for the class {name!r}", prompt_set, prompts)
        words.append(", ".join(prompts[prompt_set]))
    return words


def collate_samples(samples: Sequence[DataSample]) -> dict[str, Any]:
    """A batch of samples of one size, for ``torch.utils.data.DataLoader(..., collate_fn=collate_samples)``.

    Returns:
        ``ids`` and ``splits`` (lists of B); ``images`` (name -> (B, C, H, W)); ``available`` (name -> (B,) bool);
        ``valid`` (name -> (B, H, W) bool); ``labels`` (B, H, W) int64, or None where none has labels;
        ``image_class`` (B,) int64, or None.

    Raises:
        InputError: the samples differ in size, or only some of them have labels.
    """
    first = samples[0]
    shapes = {tuple(tuple(image.shape) for image in sample.images.values()) for sample in samples}
    if len(shapes) > 1:
        raise InputError(
            "The samples of a batch differ in size; cut tiles of one size, or give a window or a transform."
        )
    if len({sample.labels is None for sample in samples}) > 1:
        unlabelled = next(sample.id for sample in samples if sample.labels is None)
        raise InputError(f"{unlabelled!r} has no labels, and other samples of the batch have; choose a labelled split.")
    labels = [sample.labels for sample in samples if sample.labels is not None]
    classes = [sample.image_class for sample in samples if sample.image_class is not None]
    return {
        "ids": [sample.id for sample in samples],
        "splits": [sample.split for sample in samples],
        "images": {name: torch.stack([sample.images[name] for sample in samples]) for name in first.images},
        "available": {name: torch.tensor([sample.available[name] for sample in samples]) for name in first.images},
        "valid": {name: torch.stack([sample.valid[name] for sample in samples]) for name in first.images},
        "labels": torch.stack(labels) if labels else None,
        "image_class": torch.tensor(classes) if classes else None,
    }


def to_tensor(values: NDArray[Any]) -> torch.Tensor:
    """Stored values as a tensor of a type that torch computes with; see :class:`DataSample`."""
    wider = {"uint16": np.int32, "uint32": np.int64, "float64": np.float32}.get(values.dtype.name)
    if wider is not None:
        values = values.astype(wider)
    return torch.from_numpy(np.array(values, order="C"))


def _checked_window(window: tuple[int, int, int, int] | None) -> tuple[int, int, int, int] | None:
    if window is None:
        return None
    numbers = tuple(window)
    if len(numbers) != 4 or any(isinstance(n, bool) or not isinstance(n, int) for n in numbers):
        raise InputError(f"A window is four whole numbers (row, column, height, width), not {window!r}.")
    if min(numbers[:2]) < 0 or min(numbers[2:]) < 1:
        raise InputError(f"The window {numbers} must begin at 0 or later and have at least one pixel.")
    return numbers[0], numbers[1], numbers[2], numbers[3]
