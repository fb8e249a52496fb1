"""Where pairs come from, in one text: ``"suites/NAME"``, ``"datasets/NAME/PROTOCOL"``, or two folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from rsovlib.errors import InputError
from rsovlib.fusion.pairs import LazyPairs, Pair, PairPool, TrainLabels, dataset_pool, folder_pool, suite_pool


@dataclass(frozen=True)
class Source:
    """One source.

    Attributes:
        kind: simulated scenes, a dataset with a manifest, or two folders of one's own.
        name: of the suite or the dataset; the folders, with a comma between.
        protocol: the paper's use of the dataset; "" for the others.
    """

    kind: Literal["suites", "datasets", "folders"]
    name: str
    protocol: str = ""

    def __str__(self) -> str:
        return (
            self.name
            if self.kind == "folders"
            else f"{self.kind}/{self.name}{'/' * bool(self.protocol)}{self.protocol}"
        )


def parse_source(text: str) -> Source:
    """A suite or a dataset; a name alone is a suite's.

    Raises:
        InputError: neither of them.
    """
    kind, _, rest = text.partition("/")
    name, _, protocol = rest.partition("/")
    if kind == "datasets" and name and protocol:
        return Source("datasets", name, protocol)
    if kind == "suites" and name and not protocol:
        return Source("suites", name)
    if text and "/" not in text:
        return Source("suites", text)
    raise InputError(f"{text!r} is no source of scenes; write suites/NAME or datasets/NAME/PROTOCOL.")


def parse_sources(text: str) -> list[Source]:
    """Several sources with commas between; two absolute folders (optical, radar) are one source.

    Raises:
        InputError: none, one that is none, or another number of folders.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    folders = [part for part in parts if Path(part).is_absolute()]
    if folders and (len(parts) != 2 or len(folders) != 2):
        raise InputError(f"{text!r}: give two folders, of the optical and of the radar images, and nothing else.")
    if folders:
        return [Source("folders", ", ".join(folders))]
    if not parts:
        raise InputError("No source of pairs was given; write suites/NAME, datasets/NAME/PROTOCOL, or two folders.")
    return [parse_source(part) for part in parts]


def open_pool(
    source: Source,
    *,
    scenes: int = 0,
    side: int = 0,
    labelled: bool = True,
    plain_names: bool = True,
    train_labels: TrainLabels = "auto",
    limit: int = 0,
    progress: bool = True,
) -> PairPool:
    """The training pairs of a source.

    Args:
        source: which.
        scenes: how many of a suite.
        side: of a suite's scenes in pixels.
        labelled: with the seen classes' labels; otherwise without any, and without clouds, as CMU takes them.
        plain_names: see :func:`rsovlib.fusion.pairs.class_prompts`.
        train_labels: see :data:`rsovlib.fusion.pairs.TrainLabels`.
        limit: take only so many of a dataset or of folders, spread evenly; 0 takes all.
        progress: show a bar where pairs are made.

    Raises:
        InputError: it isn't there, or has no labels where those are wanted.
    """
    if source.kind == "suites":
        return suite_pool(source.name, scenes, side, progress=progress)
    if source.kind == "folders":
        if labelled:
            raise InputError(f"{source} are folders without labels; networks are trained on suites or datasets.")
        pool = folder_pool(*source.name.split(", "))
        return part_of(pool, spread(len(pool.pairs), limit)) if limit else pool
    if labelled:
        return dataset_pool(
            source.name, source.protocol, plain_names=plain_names, train_labels=train_labels, limit=limit
        )
    return dataset_pool(source.name, source.protocol, classes_of="none", clear=True, limit=limit)


class PartOfPairs(LazyPairs):
    """Some of the pairs of a pool, read when they are asked for.

    Args:
        pairs: all of them.
        places: which.
    """

    def __init__(self, pairs: Sequence[Pair], places: Sequence[int]) -> None:
        self.pairs, self.places = pairs, tuple(places)

    def __len__(self) -> int:
        return len(self.places)

    def read(self, index: int) -> Pair:
        """The pair of a place."""
        return self.pairs[self.places[index]]


def part_of(pool: PairPool, places: Sequence[int]) -> PairPool:
    """A pool of some of the pairs of another."""
    return replace(pool, pairs=PartOfPairs(pool.pairs, places))


def put_aside(pool: PairPool, count: int) -> tuple[PairPool, PairPool | None]:
    """A pool without ``count`` of its pairs, and those, spread evenly; a pool too small for that stays whole."""
    total = len(pool.pairs)
    if not 0 < count < total:
        return pool, None
    aside = spread(total, count)
    rest = sorted(set(range(total)) - set(aside))
    return part_of(pool, rest), part_of(pool, aside)


def spread(total: int, count: int) -> list[int]:
    """``count`` of ``total`` places, spread evenly; all if there are no more, or 0 are wanted."""
    if not 0 < count < total:
        return list(range(total))
    return np.linspace(0, total - 1, count).round().astype(int).tolist()
