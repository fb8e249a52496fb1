"""The part of a manifest that says how papers use a dataset: clouds, tiles, splits, seen and unseen classes."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from rsovlib.data._manifest_types import (
    Count,
    Flag,
    Identifier,
    Positive,
    Share,
    Strict,
    Text,
    no_repeats,
)
from rsovlib.errors import unknown_name


class Clouds(Strict):
    """How a cloudy version comes about.

    Attributes:
        origin: ``real`` (photographed), ``published`` (synthetic, and the cloudy images are published) or ``simulated``
            (made here with :mod:`rsovlib.data.clouds`).
        kind: of synthetic clouds.
        cover: least and largest share of the image that is covered.
        opacity: least and largest mean opacity under the clouds.
        clear: the modality that is clouded.
        cloudy: the modality that holds the clouded images, where they are published.
        method: how it is done, in words.
        reconstruction: true where the paper's program or parameters are not known and ours stand in.
    """

    origin: Literal["real", "published", "simulated"]
    kind: Literal["thin", "thick", "varied"] | None = None
    cover: tuple[Share, Share] | None = None
    opacity: tuple[Share, Share] | None = None
    clear: Text | None = None
    cloudy: Text | None = None
    method: Text
    reconstruction: Flag = False
    notes: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for key in ("cover", "opacity"):
            interval = getattr(self, key)
            if interval is not None and interval[0] > interval[1]:
                raise ValueError(f"{key} must be [smaller, larger], not {list(interval)}")
        if self.origin == "simulated" and (self.kind is None or self.cover is None or self.clear is None):
            raise ValueError("simulated clouds need kind, cover and clear")
        if self.origin != "simulated" and self.cloudy is None:
            raise ValueError(f"clouds of origin {self.origin!r} need cloudy, the modality that shows them")
        return self


class Tiles(Strict):
    """How large images are cut.

    Attributes:
        size: side in pixels of the square tiles.
        stride: step from tile to tile; the same as ``size`` for no overlap.
        edge: what happens to the last column and row: ``shift`` moves the tile inwards to full size, ``pad``
            fills up, ``drop`` leaves the rest out, ``clip`` keeps a smaller tile.
        of: the modality whose pixels are counted; other grids follow by the ground.
    """

    size: Positive
    stride: Positive
    edge: Literal["shift", "pad", "drop", "clip"]
    of: Text | None = None
    published: Flag = True
    notes: str = ""


class Resize(Strict):
    """How images are brought to the network's size.

    Attributes:
        rule: ``none``; ``shortest_edge`` to ``size``, ratio kept; ``square`` to ``size`` x ``size``.
        size: in pixels.
        pad_to: pad right and bottom to this side.
    """

    rule: Literal["none", "shortest_edge", "square"]
    size: Positive | None = None
    pad_to: Positive | None = None
    notes: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.rule == "none") != (self.size is None):
            raise ValueError("size belongs to every rule but 'none'")
        return self


class RandomSplit(Strict):
    """A random split of tiles, made after cutting.

    Attributes:
        fractions: share of each split.
        of: the layout's split whose tiles are divided; those of all samples if not given.
        folds: number of cross-validation folds, 1 for a single split.
        seed: ours, where the paper's permutation is not published.
    """

    fractions: dict[Identifier, Share] = Field(min_length=2)
    of: Identifier | None = None
    folds: Positive = 1
    seed: Count = 0
    published: Flag = False
    notes: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        total = math.fsum(self.fractions.values())
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the fractions add up to {total:g}, not to 1")
        return self


class Protocol(Strict):
    """One way in which a paper uses the dataset.

    Attributes:
        paper: short name of the paper.
        layout: the layout it starts from; the manifest's first one if not given.
        modalities: the inputs, in the paper's order.
        classes: the classes that count, in the paper's order; the index of a class in the labels is its place here.
        others: what pixels of all other classes are: ``ignore`` (255, not counted) or ``background`` (the task is
            "class or not": index 0 is everything else and the classes follow from 1).
        seen, unseen: for open-vocabulary training; both empty where a method is not trained.
        prompt_sets: the sets of words it is measured with.
        splits: for each role (train, val, test) the layout's split.
        random_split: a split of the tiles in place of ``splits``.
        tiles, resize: how the input is cut and scaled.
        clouds: which of the manifest's clouds.
        tile_counts: for each role or "all" how many tiles the paper or its lists have.
    """

    paper: Identifier
    layout: Identifier | None = None
    modalities: tuple[Identifier, ...] = Field(min_length=1)
    classes: tuple[Text, ...] = ()
    others: Literal["ignore", "background"] = "ignore"
    seen: tuple[Text, ...] = ()
    unseen: tuple[Text, ...] = ()
    prompt_sets: tuple[Identifier, ...] = ()
    splits: dict[Literal["train", "val", "test"], Identifier] = Field(default_factory=dict)
    random_split: RandomSplit | None = None
    tiles: Tiles | None = None
    resize: Resize | None = None
    clouds: Identifier | None = None
    tile_counts: dict[Identifier, Count] = Field(default_factory=dict)
    notes: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for key in ("modalities", "classes", "seen", "unseen", "prompt_sets"):
            no_repeats(f"item of {key}", getattr(self, key))
        for key in ("seen", "unseen"):
            for name in getattr(self, key):
                if name not in self.classes:
                    raise ValueError(f"{key}: {unknown_name('class', name, self.classes)}")
        both = set(self.seen) & set(self.unseen)
        if both:
            raise ValueError(f"class {sorted(both)[0]!r} is both seen and unseen")
        if (self.seen or self.unseen) and set(self.seen) | set(self.unseen) != set(self.classes):
            rest = [name for name in self.classes if name not in {*self.seen, *self.unseen}]
            raise ValueError(f"class {rest[0]!r} is neither seen nor unseen")
        if self.random_split and self.splits:
            raise ValueError("give either splits or random_split")
        return self
