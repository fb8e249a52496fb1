"""Which samples belong to a split: by id, by folder, by area, by a list that comes with the dataset, or by chance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path, PurePosixPath

import numpy as np

from rsovlib.data.manifest import Layout, PathTemplate, Split
from rsovlib.errors import InputError


def split_members(
    layout: Layout, root: Path, templates: Mapping[str, PathTemplate], fields: Mapping[str, Mapping[str, str | int]]
) -> tuple[dict[str, set[str]], dict[str, tuple[str, ...]], list[str]]:
    """For each split its samples; listed samples that are not there; lists that are not there."""
    members: dict[str, set[str]] = {}
    absent: dict[str, list[str]] = {}
    absent_lists: list[str] = []
    by_fraction = _by_fraction(layout, sorted(fields))
    for name, split in layout.splits.items():
        wanted: Iterable[str]
        if split.fraction is not None:
            wanted = by_fraction[name]
        elif split.all:
            wanted = fields
        elif split.where:
            wanted = [sample for sample, values in fields.items() if _is_where(split, values)]
        elif split.groups:
            wanted = [sample for sample, values in fields.items() if layout.group_name(values) in split.groups]
        elif split.ids:
            wanted = split.ids
        else:
            list_file = root / str(split.list_file)
            wanted = _listed(layout, list_file, templates, fields) if list_file.is_file() else []
            if not list_file.is_file():
                absent_lists.append(str(split.list_file))
        members[name] = {sample for sample in wanted if sample in fields}
        for sample in wanted:
            if sample not in fields:
                absent.setdefault(sample, []).append(name)
    return members, {sample: tuple(names) for sample, names in absent.items()}, absent_lists


def absent_groups(layout: Layout, fields: Iterable[Mapping[str, str | int]]) -> dict[str, str]:
    """The listed areas that no sample comes from."""
    here = {layout.group_name(values) for values in fields}
    return {group: name for name, split in layout.splits.items() for group in split.groups if group not in here}


def _is_where(split: Split, fields: Mapping[str, str | int]) -> bool:
    return all(str(fields.get(key)) in values for key, values in split.where.items())


def _by_fraction(layout: Layout, ids: Sequence[str]) -> dict[str, list[str]]:
    """Shares of the shuffled ids, for the splits that nobody publishes a list of."""
    rules = {name: split for name, split in layout.splits.items() if split.fraction is not None}
    if not rules:
        return {}
    order = np.random.default_rng(next(iter(rules.values())).seed).permutation(len(ids))
    ends = [round(share * len(ids)) for share in accumulate(float(split.fraction or 0) for split in rules.values())]
    starts = [0, *ends[:-1]]
    return {
        name: [ids[place] for place in order[start:end]] for name, start, end in zip(rules, starts, ends, strict=True)
    }


def _listed(
    layout: Layout, file: Path, templates: Mapping[str, PathTemplate], known: Mapping[str, object]
) -> list[str]:
    """The sample ids of a list: ids, or paths of files, one a line; a line may name several files of one sample."""
    ids: list[str] = []
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is no list of samples: it is not text (byte {error.start}); get it again.") from error
    for line in lines:
        text = line.strip()
        if text:
            ids.append(_id_of_line(layout, templates, text, known))
    return ids


def _id_of_line(layout: Layout, templates: Mapping[str, PathTemplate], text: str, known: Mapping[str, object]) -> str:
    """The sample that a line of a list means; the text itself where that is not one that is known."""
    # White space may be part of a name, so the whole line is tried before its first word.
    for candidate in dict.fromkeys((text, text.split()[0], text.split(",")[0].strip())):
        if candidate in known:
            return candidate
        for template in templates.values():
            fields = template.match(candidate)
            if fields is not None:
                return layout.sample_name(fields)
        stem = PurePosixPath(candidate).stem
        if stem in known:
            return stem
    return text
