"""Comparing a local copy of a dataset with its manifest, file by file."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tqdm.auto import tqdm

from rsovlib.data._pool import run_all
from rsovlib.data.arrays import ArrayFile, Header, open_array
from rsovlib.data.layout import CLOUD_MASK, LABELS, LocalCopy, Sample, find_samples
from rsovlib.data.manifest import Files, Labels, Manifest, load_manifest
from rsovlib.data.reading import Plan, image_faults, label_faults
from rsovlib.data.usage import needs_cloud_mask, needs_labels
from rsovlib.errors import RasterError

if TYPE_CHECKING:
    import pandas

Kind = Literal[
    "missing",
    "extra",
    "double",
    "unpaired",
    "unreadable",
    "wrong format",
    "wrong size",
    "wrong bands",
    "wrong type",
    "palette",
    "label values",
    "no georeference",
    "checksum",
    "count",
]

_STRIPE = 1024
"""Rows that are read at once."""

_CHUNK = 2**20


@dataclass(frozen=True)
class Finding:
    """One difference between a local copy and the manifest.

    Attributes:
        path: the file, relative to the root; for a count, what was counted.
        kind: what sort of difference.
        message: what is different, in words that go after the path.
    """

    path: str
    kind: Kind
    message: str


@dataclass(frozen=True)
class CheckReport:
    """What :func:`check_copy` found.

    Attributes:
        name: the dataset.
        layout: the folder tree that it was read as.
        root: the folder.
        samples: number of samples.
        files: for each modality, and "labels", the number of its files.
        splits: for each split the number of its samples.
        read: number of files that were opened.
        all_pixels: whether all pixels were read, or headers only.
        findings: all differences, by path.
    """

    name: str
    layout: str
    root: str
    samples: int
    files: dict[str, int]
    splits: dict[str, int]
    read: int
    all_pixels: bool
    findings: tuple[Finding, ...] = field(default_factory=tuple)

    @property
    def is_complete(self) -> bool:
        """Whether the copy is as the manifest says."""
        return not self.findings

    @property
    def counts(self) -> dict[str, int]:
        """For each kind of difference how often it occurs."""
        return dict(Counter(finding.kind for finding in self.findings).most_common())

    def table(self) -> pandas.DataFrame:
        """The differences, one row each: kind, path, message."""
        import pandas

        rows = [(finding.kind, finding.path, finding.message) for finding in self.findings]
        return pandas.DataFrame(rows, columns=["kind", "path", "message"])

    def summary(self) -> str:
        """The whole in a few lines."""
        depth = "all pixels" if self.all_pixels else "headers only"
        lines = [
            f"{self.name} in {self.root}, layout {self.layout}: {self.samples} samples",
            "files: " + ", ".join(f"{part} {count}" for part, count in self.files.items()) + f"; {depth} read",
        ]
        if self.splits:
            lines.append("splits: " + ", ".join(f"{name} {count}" for name, count in self.splits.items()))
        if self.is_complete:
            lines.append("The copy is as the manifest says.")
        else:
            kinds = ", ".join(f"{kind} {count}" for kind, count in self.counts.items())
            noun = "difference" if len(self.findings) == 1 else "differences"
            lines.append(f"{len(self.findings)} {noun}: {kinds}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return {**asdict(self), "is_complete": self.is_complete, "counts": self.counts}


def check_copy(
    dataset: str | os.PathLike[str] | Manifest,
    root: str | os.PathLike[str] | None = None,
    *,
    layout: str | None = None,
    partial: bool = False,
    all_pixels: bool = True,
    workers: int = 1,
    progress: bool = True,
) -> CheckReport:
    """Compare a local copy of a dataset with its manifest.

    Args:
        dataset: its name, the path of a manifest, or a manifest.
        root: its folder; ``$RSOV_DATA/<name>`` by default.
        layout: one of the manifest's folder trees; by default the one that the files fit best.
        partial: the copy is knowingly a part of the dataset: samples that a list names and of which there is no file
            at all, lists that are not there, and numbers of files are no differences.
        all_pixels: read every pixel, which finds damage within files and strange label values; otherwise only
            headers are read.
        workers: number of processes.
        progress: whether to show a progress bar.

    Returns:
        The differences, and counts.

    Raises:
        InputError: there is no such dataset, layout or folder, or nothing of the dataset in it.
    """
    manifest = dataset if isinstance(dataset, Manifest) else load_manifest(dataset)
    copy = find_samples(manifest, root, layout)
    findings = [*_missing(copy, partial=partial), *_misplaced(copy)]
    if not partial:
        findings += _counts(copy)
    jobs = list(_jobs(copy))
    job_context = _Context(copy, all_pixels)
    findings += _table_findings(job_context)
    results = run_all(_look_at, job_context, jobs, workers)
    for found in tqdm(results, total=len(jobs), desc=f"check {manifest.name}", unit="file", disable=not progress):
        findings += found
    return CheckReport(
        name=manifest.name,
        layout=copy.layout_name,
        root=str(copy.root),
        samples=len(copy.samples),
        files=_file_counts(copy),
        splits=copy.split_sizes,
        read=len(jobs),
        all_pixels=all_pixels,
        findings=tuple(sorted(findings, key=lambda finding: (finding.path, finding.kind, finding.message))),
    )


# --- which files there are ----------------------------------------------------------------------------------


def _missing(copy: LocalCopy, *, partial: bool) -> Iterator[Finding]:
    """Files that belong to a complete copy and are not there."""
    layout = copy.layout
    required = [name for name, files in layout.files.items() if not files.optional]
    shared = [*layout.extra_files]
    if layout.labels.polygons is not None:
        shared += [str(layout.labels.path), layout.labels.polygons.extent_path]
    for name in dict.fromkeys([*copy.absent_lists, *shared]):
        if not (copy.root / name).is_file() and not partial:
            yield Finding(name, "missing", "is missing: it belongs to the dataset as a whole")
    if not partial:
        for group, split in copy.absent_groups.items():
            yield Finding(f"({group})", "missing", f"has no sample here, and is in the split {split}")
        for sample_id, splits in copy.absent.items():
            for part in _distinct_paths(copy, required):
                path = copy.expected_path(sample_id, part)
                yield Finding(path, "missing", f"is missing: {part} of {sample_id!r}, which is in {', '.join(splits)}")
    for sample in copy.samples:
        partner = _partner(copy, sample)
        for part in _distinct_paths(copy, required):
            if part not in sample.files:
                path = copy.expected_path(sample.id, part, sample.fields)
                yield Finding(path, "unpaired", f"is missing: {part} of {sample.id!r}, though {partner} is there")
        if sample.label_file is None and needs_labels(copy, sample) and layout.labels.encoding != "polygons":
            path = copy.expected_path(sample.id, LABELS, sample.fields)
            yield Finding(path, "unpaired", f"is missing: labels of {sample.id!r}, though {partner} is there")
        if sample.cloud_file is None and needs_cloud_mask(copy):
            path = copy.expected_path(sample.id, CLOUD_MASK, sample.fields)
            yield Finding(path, "unpaired", f"is missing: cloud mask of {sample.id!r}, though {partner} is there")


def _distinct_paths(copy: LocalCopy, modalities: Iterable[str]) -> list[str]:
    """One modality for each file: several may be bands of the same one."""
    return list({copy.layout.files[name].path: name for name in reversed(list(modalities))}.values())[::-1]


def _partner(copy: LocalCopy, sample: Sample) -> str:
    """A file of the sample that is there."""
    return next(iter(sample.all_files.values())).relative_to(copy.root).as_posix()


def _misplaced(copy: LocalCopy) -> Iterator[Finding]:
    for path in copy.strangers:
        yield Finding(path, "extra", "belongs to nothing in the manifest")
    for first, second in copy.doubles:
        yield Finding(second, "double", f"is the same part of the same sample as {first}")
    for sentence in copy.torn:
        path, _, rest = sentence.partition(" has ")
        yield Finding(path, "unpaired", f"has {rest}")


def _file_counts(copy: LocalCopy) -> dict[str, int]:
    counts = {name: sum(name in sample.files for sample in copy.samples) for name in copy.layout.files}
    if copy.layout.labels.path is not None:
        counts[LABELS] = len({sample.label_file for sample in copy.samples if sample.label_file is not None})
    if copy.layout.cloud_mask is not None:
        counts[CLOUD_MASK] = sum(sample.cloud_file is not None for sample in copy.samples)
    return counts


def _counts(copy: LocalCopy) -> Iterator[Finding]:
    """Numbers of files and samples that are not the published ones."""
    found = _file_counts(copy)
    wanted: dict[str, tuple[int | None, bool]] = {
        name: (files.count, files.optional) for name, files in copy.layout.files.items()
    }
    wanted[LABELS] = (copy.layout.labels.count, copy.layout.labels.optional)
    if copy.layout.cloud_mask is not None:
        wanted[CLOUD_MASK] = (copy.layout.cloud_mask.count, copy.layout.cloud_mask.optional)
    for name, (count, optional) in wanted.items():
        if count is not None and found.get(name, 0) != count and not (optional and not found.get(name)):
            yield Finding(f"({name})", "count", f"are {found.get(name, 0)} files here, and {count} were published")
    for name, split in copy.layout.splits.items():
        if (
            split.count is not None
            and copy.split_sizes[name] != split.count
            and split.list_file not in copy.absent_lists
        ):
            yield Finding(
                f"(split {name})",
                "count",
                f"has {copy.split_sizes[name]} samples here, and {split.count} were published",
            )


# --- what is in them ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Context:
    """What all files are compared with."""

    copy: LocalCopy
    all_pixels: bool

    @cached_property
    def plan(self) -> Plan:
        """How labels are read; it keeps look-up tables that are built once in a process."""
        return Plan(self.copy.manifest, self.copy.layout_name, self.copy.root, (), "")

    def __getstate__(self) -> dict[str, Any]:
        # Processes need the manifest, not the list of all samples.
        copy = LocalCopy(self.copy.manifest, self.copy.layout_name, self.copy.root, ())
        return {"copy": copy, "all_pixels": self.all_pixels}


@dataclass(frozen=True)
class _Job:
    """One file: the modalities in it, or the labels; or neither, where only its checksum is published."""

    path: str
    parts: tuple[str, ...]


def _jobs(copy: LocalCopy) -> Iterator[_Job]:
    """Every file once."""
    parts: dict[str, list[str]] = {}
    for sample in copy.samples:
        for part, path in sample.all_files.items():
            if part != LABELS or copy.layout.labels.encoding != "polygons":
                parts.setdefault(path.relative_to(copy.root).as_posix(), []).append(part)
    for name in copy.layout.checksums:
        if (copy.root / name).is_file():
            parts.setdefault(name, [])
    return (_Job(path, tuple(names)) for path, names in sorted(parts.items()))


def _look_at(context: _Context, job: _Job) -> list[Finding]:
    """Everything that is different about one file."""
    copy = context.copy
    found = list(_checksum(copy, job.path))
    for number, part in enumerate(job.parts):
        is_label = part == LABELS
        variable = copy.layout.labels.variable if is_label else _files_of(copy, part).variable
        try:
            with open_array(copy.root / job.path, variable) as file:
                faults = list(_label_faults(context, file) if is_label else _image_faults(context, file, part))
                # Several modalities in one file: its pixels are read once.
                if context.all_pixels and not is_label and number == 0:
                    for _ in _stripes(file, range(1, file.header.count + 1)):
                        pass
        except RasterError as error:
            faults = [("unreadable", _without_subject(str(error), str(copy.root / job.path)))]
        found += [Finding(job.path, kind, message) for kind, message in faults]
    return list(dict.fromkeys(found))


def _files_of(copy: LocalCopy, part: str) -> Files:
    """What the manifest says of the files of a modality, or of the cloud masks."""
    clouds = copy.layout.cloud_mask
    return clouds if part == CLOUD_MASK and clouds is not None else copy.layout.files[part]


def _without_subject(sentence: str, name: str) -> str:
    """An error's sentence without the name of the file before it, and without the full stop."""
    return sentence.removeprefix(name).strip().rstrip(".")


def _checksum(copy: LocalCopy, path: str) -> Iterator[Finding]:
    published = copy.layout.checksums.get(path)
    if published is None:
        return
    algorithm, _, wanted = published.partition(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with Path(copy.root / path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != wanted:
        yield Finding(path, "checksum", f"has the {algorithm.upper()} {digest.hexdigest()}, and {wanted} was published")


Fault = tuple[Any, str]


def _image_faults(context: _Context, file: ArrayFile, modality: str) -> Iterator[Fault]:
    files = _files_of(context.copy, modality)
    bands = 1 if modality == CLOUD_MASK else len(context.copy.manifest.modalities[modality].bands)
    yield from image_faults(file.header, files, bands)
    yield from _header_faults(file.header, files)


def _label_faults(context: _Context, file: ArrayFile) -> Iterator[Fault]:
    labels = context.copy.layout.labels
    faults = list(label_faults(file.header, labels))
    yield from faults
    yield from _header_faults(file.header, labels)
    if faults or not context.all_pixels:
        return
    code = context.plan.code()
    channels = (1, 2, 3) if labels.encoding == "colour" else (labels.band,)
    strange: list[str] = []
    for values in _stripes(file, channels):
        sentence = code.strange(values if labels.encoding == "colour" else values[0], file.name)
        if sentence:
            strange.append(sentence)
    if strange:
        more = f"; and more in {len(strange) - 1} further stripes of rows" if len(strange) > 1 else ""
        yield "label values", f"holds {strange[0]}{more}"


def _header_faults(header: Header, files: Files | Labels) -> Iterator[Fault]:
    if files.format is not None and header.format != files.format:
        yield "wrong format", f"is of the format {header.format}, and {files.format} was expected"
    if files.size is not None and (header.height, header.width) != (files.size.height, files.size.width):
        yield (
            "wrong size",
            f"has {header.height} x {header.width} pixels, and {files.size.height} x {files.size.width} were expected",
        )
    if files.dtype is not None and header.dtype != files.dtype:
        yield "wrong type", f"holds {header.dtype}, and {files.dtype} was expected"
    if files.georeferenced and (header.crs is None or header.transform is None):
        lacking = "CRS" if header.crs is None else "geotransform"
        yield "no georeference", f"has no {lacking}, and the dataset's files have one"


def _stripes(file: ArrayFile, channels: Iterable[int]) -> Iterator[Any]:
    """All values, some rows at a time."""
    header, numbers = file.header, tuple(channels)
    for row in range(0, header.height, _STRIPE):
        yield file.read(numbers, slice(row, min(header.height, row + _STRIPE)), slice(0, header.width)).values


def _table_findings(context: _Context) -> Iterator[Finding]:
    """What is different about a table of label polygons."""
    copy = context.copy
    labels = copy.layout.labels
    if labels.polygons is None or labels.path is None or not (copy.root / labels.path).is_file():
        return
    try:
        table = context.plan.table()
        known = {number for numbers in copy.manifest.label_values(copy.layout_name).values() for number in numbers}
        strange = sorted(table.class_numbers - known)
        if strange:
            yield Finding(labels.path, "label values", f"has the classes {strange}, which the manifest doesn't name")
        for sample in copy.samples:
            if sample.id in table.images:
                for number in sorted(known & table.class_numbers):
                    table.burn(sample.id, (1, 1), [number])  # every geometry can be read
            elif needs_labels(copy, sample):
                yield Finding(labels.path, "unpaired", f"has no polygons of {sample.id!r}, though its images are there")
    except RasterError as error:
        yield Finding(labels.path, "unreadable", str(error))
