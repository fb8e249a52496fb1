"""Which samples of a dataset lie under a folder, which files each of them has, and to which splits it belongs.

A manifest's path templates do all the work: every file below the root is matched with them, and files whose
placeholders give the same sample id belong together.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from rsovlib.data._splits import absent_groups, split_members
from rsovlib.data.manifest import Fields, Layout, Manifest, PathTemplate
from rsovlib.errors import InputError, unknown_name

LABELS = "labels"
"""Stands for the label file where modalities are named."""

CLOUD_MASK = "cloud_mask"
"""The same for the mask of real clouds."""

DATA_VARIABLE = "RSOV_DATA"

# What tools leave beside images, and what publishers put into every archive; never reported as a stranger.
_HARMLESS = re.compile(
    r"(^|/)(\.[^/]*|thumbs\.db|desktop\.ini|(readme|licen[cs]e|citation)[^/]*|[^/]*\.(aux\.xml|ovr|msk|tfw|pgw|jgw|prj"
    r"|zip|tar|gz|tgz|7z|rar|md5|sha256|md5sum))$|(^|/)\.[^/]+/",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Sample:
    """One scene of a dataset as it lies on disk.

    Attributes:
        id: its name, from the layout's ``sample_id``.
        fields: the values of all placeholders in the paths of its files.
        files: for each modality that is there its file.
        label_file: its labels, or the table that holds the labels of all samples; None where there is none.
        splits: the layout's splits that it belongs to.
        cloud_file: the mask of its clouds, where one is published.
    """

    id: str
    fields: Mapping[str, str | int]
    files: Mapping[str, Path]
    label_file: Path | None
    splits: tuple[str, ...] = ()
    cloud_file: Path | None = None

    @property
    def all_files(self) -> dict[str, Path]:
        """Every file of the sample: its images by modality, and its labels and cloud mask."""
        others = {LABELS: self.label_file, CLOUD_MASK: self.cloud_file}
        return {**self.files, **{part: path for part, path in others.items() if path is not None}}


@dataclass(frozen=True)
class LocalCopy:
    """What was found of one dataset in one layout under one root.

    Attributes:
        manifest: the dataset.
        layout_name: the folder tree that it was read as.
        root: the folder.
        samples: in the order of their ids.
        strangers: files, relative to the root, that belong to nothing.
        doubles: pairs of files that claim to be the same part of the same sample; the first is used.
        torn: samples whose files disagree about a placeholder that is not part of the id, in words.
        absent: for each sample that a split lists, and of which there is no file, the splits.
        absent_groups: for each area that a split lists, and of which there is no sample, the split.
        absent_lists: split lists that are not there.
    """

    manifest: Manifest
    layout_name: str
    root: Path
    samples: tuple[Sample, ...]
    strangers: tuple[str, ...] = ()
    doubles: tuple[tuple[str, str], ...] = ()
    torn: tuple[str, ...] = ()
    absent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    absent_groups: Mapping[str, str] = field(default_factory=dict)
    absent_lists: tuple[str, ...] = ()

    @property
    def layout(self) -> Layout:
        """The folder tree that it was read as."""
        return self.manifest.layout(self.layout_name)

    @cached_property
    def split_sizes(self) -> dict[str, int]:
        """How many samples each split has here."""
        return {name: sum(name in sample.splits for sample in self.samples) for name in self.layout.splits}

    def in_split(self, split: str) -> tuple[Sample, ...]:
        """The samples of a split.

        Raises:
            InputError: the layout has no such split, or the list that defines it is not there.
        """
        rule = self.layout.splits.get(split)
        if rule is None:
            raise unknown_name(
                f"{self.manifest.name} split in the layout {self.layout_name} called", split, self.layout.splits
            )
        if rule.list_file in self.absent_lists:
            raise InputError(f"{self.root / rule.list_file} is not there; it lists the samples of the split {split!r}.")
        return tuple(sample for sample in self.samples if split in sample.splits)

    def expected_path(self, sample_id: str, part: str, fields: Mapping[str, str | int] | None = None) -> str:
        """Where a file of a sample should lie, relative to the root.

        Args:
            sample_id: the sample.
            part: a modality, ``"labels"`` or ``"cloud_mask"``.
            fields: values of placeholders that are not part of the id, where they are known.

        Returns:
            A path; a placeholder whose value nobody knows stays in braces.
        """
        known = {**(self.layout.sample_fields(sample_id) or {}), **(fields or {})}
        template = _templates(self.layout).get(part) or self.layout.label_template()
        return template.text.format_map(_Keeping(known)) if template else ""


def dataset_root(manifest: Manifest, root: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a dataset: the one given, or ``$RSOV_DATA/<name>``.

    Raises:
        InputError: neither is given, or the folder is not there.
    """
    page = manifest.pages[0]
    if root is None:
        parent = os.environ.get(DATA_VARIABLE)
        if not parent:
            raise InputError(
                f"Say where {manifest.name} lies: give its root folder, or set {DATA_VARIABLE} to the folder "
                f"that holds {manifest.name!r}; it is published at {page}"
            )
        root = Path(parent) / manifest.name
    path = Path(root)
    if not path.exists():
        raise InputError(f"There is no folder {path}; {manifest.name} is published at {page}")
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; give the root folder of {manifest.name}, unpacked.")
    return path


def find_samples(
    manifest: Manifest, root: str | os.PathLike[str] | None = None, layout: str | None = None
) -> LocalCopy:
    """Look for a dataset's samples under a folder.

    Args:
        manifest: the dataset.
        root: its folder; ``$RSOV_DATA/<name>`` by default.
        layout: one of the manifest's layouts; by default the one that most of the files fit, the publisher's own
            where several fit equally well.

    Returns:
        What there is. Nothing but the split lists has been opened.

    Raises:
        InputError: there is no such folder or layout, or no file in it is of the dataset.
    """
    folder = dataset_root(manifest, root)
    paths = sorted(_all_files(folder))
    if layout is None:
        fits = {name: _fitting(manifest.layout(name), paths) for name in manifest.layouts}
        layout = max(fits, key=lambda name: fits[name])
    chosen = manifest.layout(layout)
    groups, doubles, torn = _group(chosen, paths)
    if not any(groups.values()):
        raise InputError(
            f"No file under {folder} is of {manifest.name} in the layout {layout!r}; check the folder. "
            f"`rsovlib data show {manifest.name}` prints the folders that are expected."
        )
    ids = sorted(groups)
    members, absent, absent_lists = split_members(
        chosen, folder, _templates(chosen), {name: groups[name].fields for name in ids}
    )
    table = _table_file(chosen, folder)
    samples = tuple(
        Sample(
            id=name,
            fields=groups[name].fields,
            files={
                part: folder / path for part, path in groups[name].paths.items() if part not in (LABELS, CLOUD_MASK)
            },
            label_file=folder / groups[name].paths[LABELS] if LABELS in groups[name].paths else table,
            splits=tuple(split for split in chosen.splits if name in members[split]),
            cloud_file=folder / groups[name].paths[CLOUD_MASK] if CLOUD_MASK in groups[name].paths else None,
        )
        for name in ids
    )
    return LocalCopy(
        manifest=manifest,
        layout_name=layout,
        root=folder,
        samples=samples,
        strangers=tuple(_strangers(manifest, paths)),
        doubles=tuple(doubles),
        torn=tuple(torn),
        absent=absent,
        absent_groups=absent_groups(chosen, [groups[name].fields for name in ids]),
        absent_lists=tuple(absent_lists),
    )


class _Keeping(dict[str, "str | int"]):
    """Fills the placeholders of a template that it knows, and leaves the others standing."""

    def __missing__(self, key: str) -> _Standing:
        return _Standing(key)


class _Standing:
    """A placeholder without a value."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __format__(self, specification: str) -> str:
        return f"{{{self._name}}}"


@dataclass
class _Group:
    """The files of one sample, by modality, relative to the root."""

    fields: Fields = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)


def _all_files(root: Path) -> Iterable[str]:
    """Every file below a folder, relative to it, with forward slashes."""
    for folder, inner, names in os.walk(root, followlinks=True):
        here = Path(folder).resolve()
        # Links are followed, but one that leads to a folder above it would never end.
        inner[:] = [name for name in inner if not here.is_relative_to((Path(folder) / name).resolve())]
        inside = Path(folder).relative_to(root).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
        yield from (prefix + name for name in names)


def _templates(layout: Layout) -> dict[str, PathTemplate]:
    """The templates of the files that each sample has for itself, labels included."""
    templates = {modality: layout.template(modality) for modality in layout.files}
    labels = layout.label_template()
    if labels is not None and layout.labels.encoding != "polygons":
        templates[LABELS] = labels
    clouds = layout.cloud_mask_template()
    if clouds is not None:
        templates[CLOUD_MASK] = clouds
    return templates


def _shared_files(layout: Layout) -> set[str]:
    """Files of a layout that belong to no single sample."""
    shared = set(layout.extra_files) | {split.list_file for split in layout.splits.values() if split.list_file}
    if layout.labels.polygons is not None and layout.labels.path is not None:
        shared |= {layout.labels.path, layout.labels.polygons.extent_path}
    return shared


def _table_file(layout: Layout, root: Path) -> Path | None:
    """The one table with the labels of all samples, where there is one."""
    if layout.labels.encoding != "polygons" or layout.labels.path is None:
        return None
    table = root / layout.labels.path
    return table if table.is_file() else None


def _fitting(layout: Layout, paths: Sequence[str]) -> int:
    """How many files fit a layout."""
    regexes = [template.regex for template in _templates(layout).values()]
    shared = _shared_files(layout)
    return sum(path in shared or any(regex.fullmatch(path) for regex in regexes) for path in paths)


def _strangers(manifest: Manifest, paths: Sequence[str]) -> Iterable[str]:
    """Files that fit no layout of the dataset: a copy may well hold two variants side by side."""
    regexes = {template.regex for layout in manifest.layouts.values() for template in _templates(layout).values()}
    shared = set().union(*(_shared_files(layout) for layout in manifest.layouts.values()))
    for path in paths:
        if path not in shared and not _HARMLESS.search(path) and not any(regex.fullmatch(path) for regex in regexes):
            yield path


def _group(layout: Layout, paths: Sequence[str]) -> tuple[dict[str, _Group], list[tuple[str, str]], list[str]]:
    """Files by sample and modality; files that claim the same place; samples that are torn apart."""
    groups: dict[str, _Group] = {}
    doubles: list[tuple[str, str]] = []
    torn: list[str] = []
    templates = _templates(layout)
    for path in paths:
        for part, template in templates.items():
            fields = template.match(path)
            if fields is None:
                continue
            group = groups.setdefault(layout.sample_name(fields), _Group())
            if part in group.paths:
                doubles.append((group.paths[part], path))
                continue
            for name, value in fields.items():
                if group.fields.setdefault(name, value) != value:
                    other = next(iter(group.paths.values()))
                    torn.append(f"{path} has {name} = {value}, but {other} of the same sample has {group.fields[name]}")
            group.paths[part] = path
    return groups, doubles, torn
