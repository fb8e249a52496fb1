"""A paper's use of a dataset, applied to a local copy: which samples, in which split, cut into which tiles."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rsovlib.data.cutting import CutTile, cut_tiles, random_parts
from rsovlib.data.layout import LABELS, LocalCopy, Sample, find_samples
from rsovlib.data.manifest import Clouds, Manifest, Protocol, Tiles, load_manifest
from rsovlib.data.reading import ClassChoice, Plan, open_sample, require_modalities
from rsovlib.errors import InputError, RasterError, unknown_name

Variant = Literal["clear", "cloudy"]


@dataclass(frozen=True)
class Item:
    """One picture of a dataset: a sample, or a tile of one.

    Attributes:
        sample: where it comes from.
        split: the layout's split, or the part of a random split; empty where it belongs to none.
        tile: its place in the sample; None for the whole sample on its own grids.
    """

    sample: Sample
    split: str
    tile: CutTile | None = None


@dataclass(frozen=True)
class Usage:
    """What is read of a local copy, and how it is cut.

    Attributes:
        copy: what was found.
        plan: what is read of each sample.
        tiles: how images are cut, None where they are not.
    """

    copy: LocalCopy
    plan: Plan
    tiles: Tiles | None

    @property
    def protocol(self) -> Protocol | None:
        """The paper's use, if there is one."""
        return None if self.plan.protocol is None else self.plan.manifest.protocol(self.plan.protocol)

    def split_of(self, role: str) -> str:
        """The layout's split, or the part of the random split, that plays a role: ``test`` may be ``val``.

        Raises:
            InputError: neither the protocol nor the layout has it.
        """
        roles: dict[str, str] = {}
        if self.protocol is not None:
            roles = {str(key): value for key, value in self.protocol.splits.items()}
            if self.protocol.random_split is not None:
                roles = {name: name for name in self.protocol.random_split.fractions}
        is_random = self.protocol is not None and self.protocol.random_split is not None
        known = roles if is_random else {**{name: name for name in self.copy.layout.splits}, **roles}
        if role not in known:
            raise unknown_name(f"split of {self.plan.manifest.name}", role, known)
        return known[role]

    def items(self, split: str | None = None, fold: int = 0) -> list[Item]:
        """All pictures, in the order of the sample ids and from the upper left to the lower right.

        Args:
            split: only these: a role of the protocol (``train``, ``val``, ``test``) or a split of the layout.
            fold: of a random split.

        Raises:
            InputError: there is no such split, or its list is not there.
            RasterError: an image can't be opened to see how large it is.
        """
        random = None if self.protocol is None else self.protocol.random_split
        if random is not None:
            samples = self.copy.samples if random.of is None else self.copy.in_split(random.of)
            items = [item for sample in samples for item in self._cut(sample, "")]
            parts = random_parts(len(items), random, fold)
            items = [Item(item.sample, part, item.tile) for item, part in zip(items, parts, strict=True)]
            wanted = None if split is None else self.split_of(split)
            return [item for item in items if wanted in (None, item.split)]
        if split is not None:
            name = self.split_of(split)
            return [item for sample in self.copy.in_split(name) for item in self._cut(sample, name)]
        return [item for sample, name in self._all() for item in self._cut(sample, name)]

    def _all(self) -> Iterable[tuple[Sample, str]]:
        """The samples of all of the protocol's splits, or of the whole copy where it names none."""
        wanted = list(self.protocol.splits.values()) if self.protocol is not None else []
        for name in wanted:
            self.copy.in_split(name)  # an error where the list is not there
        for sample in self.copy.samples:
            mine = [name for name in sample.splits if name in wanted] if wanted else list(sample.splits)
            if mine or not wanted:
                yield sample, mine[0] if mine else ""

    def _cut(self, sample: Sample, split: str) -> Iterable[Item]:
        if self.tiles is None:
            return [Item(sample, split)]
        with open_sample(self.plan, sample) as opened:
            header = opened.reference
        return [Item(sample, split, tile) for tile in cut_tiles(header.height, header.width, self.tiles)]

    def require_files(self, samples: Iterable[Sample], *, allow_missing: bool = False) -> None:
        """Refuse to begin where files are missing, and name the first of them.

        Args:
            samples: those that will be read.
            allow_missing: images may be missing, as long as each sample has one; labels may not.

        Raises:
            RasterError: a file is missing.
        """
        for sample in samples:
            here = [modality for modality in self.plan.modalities if self._is_here(sample, modality)]
            for modality in self.plan.modalities:
                if modality not in here and not (allow_missing and here):
                    path = self.copy.root / self.copy.expected_path(sample.id, modality, sample.fields)
                    hint = "" if allow_missing else "; get it, or allow missing modalities"
                    if modality in simulated_clouds(self.plan.manifest):
                        hint += ", or let its clouds be simulated"
                    raise RasterError(f"{path} is missing: {modality} of the sample {sample.id!r}{hint}.")
            if sample.label_file is None and needs_labels(self.copy, sample):
                path = self.copy.root / self.copy.expected_path(sample.id, LABELS, sample.fields)
                raise RasterError(f"{path} is missing: the labels of the sample {sample.id!r}; get it.")

    def _is_here(self, sample: Sample, modality: str) -> bool:
        """Whether a sample has an image, or the clear one that it can be made from."""
        clouds = self.plan.simulated.get(modality)
        return modality in sample.files or (clouds is not None and clouds.clear in sample.files)


def simulated_clouds(manifest: Manifest) -> dict[str, Clouds]:
    """For each cloudy modality that is not published, how its clouds are simulated."""
    return {
        item.cloudy: item for item in manifest.clouds.values() if item.origin == "simulated" and item.cloudy is not None
    }


def needs_labels(copy: LocalCopy, sample: Sample) -> bool:
    """Whether a complete copy has labels for a sample."""
    labels = copy.layout.labels
    if labels.encoding in ("none", "folder") or labels.optional:
        return False
    return not sample.splits or any(copy.layout.splits[name].labelled for name in sample.splits)


def needs_cloud_mask(copy: LocalCopy) -> bool:
    """Whether a complete copy has a mask of the clouds for each sample."""
    return copy.layout.cloud_mask is not None and not copy.layout.cloud_mask.optional


def open_usage(
    dataset: str | os.PathLike[str] | Manifest,
    root: str | os.PathLike[str] | None = None,
    *,
    layout: str | None = None,
    protocol: str | None = None,
    modalities: Sequence[str] | None = None,
    variant: Variant | None = None,
    classes_of: ClassChoice = "all",
    tiles: Tiles | Literal["protocol"] | None = "protocol",
    simulate_clouds: bool = False,
) -> Usage:
    """Find a dataset and settle what is read of it; see :class:`rsovlib.data.dataset.ManifestDataset`.

    Raises:
        InputError: a name is unknown, or there is nothing of the dataset under the root.
    """
    manifest = dataset if isinstance(dataset, Manifest) else load_manifest(dataset)
    use = None if protocol is None else manifest.protocol(protocol)
    if layout is None and use is not None:
        layout = use.layout
    copy = find_samples(manifest, root, layout)
    names = _modalities(copy, use, modalities, variant)
    if tiles == "protocol":
        tiles = use.tiles if use is not None else None
    reference = _reference(copy, tiles, names)
    simulated = simulated_clouds(manifest) if simulate_clouds else {}
    plan = Plan(manifest, copy.layout_name, copy.root, names, reference, protocol, classes_of, simulated)
    _ = plan.classes  # an unknown choice of classes is refused here
    return Usage(copy, plan, tiles)


def _modalities(
    copy: LocalCopy, use: Protocol | None, wanted: Sequence[str] | None, variant: Variant | None
) -> tuple[str, ...]:
    """The images to read: those wanted, those of the protocol, or all that every complete copy has."""
    if isinstance(wanted, str):
        raise InputError(f"modalities is the text {wanted!r}; give a list of names.")
    files = copy.layout.files
    if wanted is not None:
        names = tuple(wanted)
    elif use is not None:
        names = use.modalities
    else:
        names = tuple(name for name in files if not files[name].optional) or tuple(files)
    if not names:
        raise InputError(f"No modality was chosen; {copy.manifest.name} has {', '.join(files)}.")
    if variant is not None:
        names = _variant(copy, names, variant)
    require_modalities(copy.manifest, copy.layout_name, names)
    return names


def _variant(copy: LocalCopy, names: tuple[str, ...], variant: Variant) -> tuple[str, ...]:
    """The same images with or without clouds."""
    if variant not in ("clear", "cloudy"):
        raise unknown_name("variant", variant, ("clear", "cloudy"))
    clear = {name: item.clear_twin for name, item in copy.manifest.modalities.items() if item.clear_twin}
    if variant == "clear":
        return tuple(dict.fromkeys(clear.get(name, name) for name in names))
    cloudy = {twin: name for name, twin in clear.items()}
    chosen = tuple(dict.fromkeys(cloudy.get(name, name) for name in names))
    if not any(name in clear for name in chosen):
        raise InputError(
            f"{copy.manifest.name} has no cloudy version of {', '.join(names)}; "
            "make clouds over the clear images with rsovlib.data.clouds."
        )
    return chosen


def _reference(copy: LocalCopy, tiles: Tiles | None, names: tuple[str, ...]) -> str:
    """The image whose pixels are counted: what the tiles are of, what the labels cover, or the first one."""
    for name in (tiles.of if tiles else None, copy.layout.labels.covers):
        if name is not None and name in copy.layout.files:
            return name
    return names[0]
