"""Test scenes of a suite or of a real dataset, shown under conditions: clouds, misplaced radar, speckle, none at all.

>>> scenes_of("mm-ovseg-ddhr-sk").total  # simulated
>>> scenes_of("datasets/ddhr-sk/mm-ovseg").classes  # real, under RSOV_DATA
>>> shown_scenes("datasets/pie-rgb-sar/mm-ovseg-cloud", Condition(cover=0.6), 100)[0].optical
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import shift as shifted

from rsovlib.data.clouds import CLOUD_VERSION, add_clouds
from rsovlib.data.scenes import SCENE_VERSION, make_scene
from rsovlib.data.suites import Suite
from rsovlib.errors import InputError, unknown_name
from rsovlib.experiments.fusion.sources import parse_source, spread
from rsovlib.fusion.augment import released_sar
from rsovlib.fusion.pairs import (
    OPTICAL_WAVELENGTHS,
    class_prompts,
    on_grid,
    pair_sensors,
    picture_of,
    sar_picture,
    sized_suite,
)

if TYPE_CHECKING:
    from rsovlib.data.dataset import DataSample, ManifestDataset

SIDE = 128
"""Side of the simulated test scenes in pixels; a network sees a scene at once and at its own scale."""
SCENES = 60
"""Test scenes of a suite; 0 takes all."""
_PAPER_SIDE = 384
"""Of the papers' input, to which the release pads or cuts the radar as it lies in its file."""
_RADAR = ("given", "missing", "half", "other", "released")


@dataclass(frozen=True)
class Condition:
    """How the test scenes are shown.

    Attributes:
        cover: share of cloud over every scene, 0 to 1; None for the source's own clouds.
        kind: of those clouds.
        shift: pixels by which the radar lies too far right and down, half each way for odd directions; 0 is aligned.
        looks: of the radar; None for the source's.
        sar: "given", "missing" (the network does without), "half" (the right half has none), "other": that of the next
            scene, which says nothing of this one, or "released": the radar as the release hands it over; of simulated
            scenes their upper left quarter in place of the scene's.
        split: "test"; "validation" for choices.
    """

    cover: float | None = None
    kind: str = "varied"
    shift: int = 0
    looks: float | None = None
    sar: str = "given"
    split: str = "test"

    def __post_init__(self) -> None:
        if self.sar not in _RADAR:
            raise InputError(f"sar={self.sar!r}: the radar is given, missing, half, other or released.")


PLAIN = Condition()
"""As the source has them."""


@dataclass(frozen=True)
class ShownScene:
    """One scene to be scored.

    Attributes:
        name: for pairing.
        optical: (H, W, 3) uint8, perhaps cloudy.
        sar: (H, W, 3) uint8.
        sar_valid: (H, W) bool.
        labels: (H, W) uint8 over all classes, 255 ignored.
        opacity: (H, W) float32 of the clouds, zeros without; 1 where there is cloud and no more is known.
    """

    name: str
    optical: NDArray[np.uint8]
    sar: NDArray[np.uint8] | None
    sar_valid: NDArray[np.bool_] | None
    labels: NDArray[np.uint8]
    opacity: NDArray[np.float32]


class Scenes(Protocol):
    """A source of test scenes.

    Attributes:
        source: its name.
        dataset: what result rows call it.
        version: that everything made from it depends on.
        classes: names of the label values, in order.
        unseen: those that training never names.
        gsd: metres a pixel, where that is known.
        has_opacity: whether it is known where the scenes' own clouds are.
        can_be_cloudless: whether there are images without clouds, over which others can be laid.
    """

    source: str
    dataset: str
    version: str
    classes: list[str]
    unseen: list[str]
    gsd: float | None
    has_opacity: bool

    @property
    def can_be_cloudless(self) -> bool: ...  # noqa: D102

    def prompts(self, *, plain: bool = True) -> list[str]:
        """The words of each class; see :func:`rsovlib.fusion.pairs.class_prompts`."""

    def count(self, split: str) -> int:
        """How many scenes a split has."""

    def places(self, count: int, split: str) -> list[int]:
        """Which scenes are shown where ``count`` are wanted; 0 for all."""

    def scene(self, index: int, condition: Condition) -> ShownScene:
        """One scene under a condition."""


@lru_cache(maxsize=16)
def scenes_of(source: str) -> Scenes:
    """The scenes of a source.

    Args:
        source: name of a suite, ``"suites/NAME"`` or ``"datasets/NAME/PROTOCOL"``.

    Raises:
        InputError: there is none, or it isn't on this machine.
    """
    parsed = parse_source(source)
    if parsed.kind == "suites":
        return SuiteScenes(parsed.name)
    return DatasetScenes(parsed.name, parsed.protocol)


def dataset_of(source: str, count: int = 0, split: str = "test") -> str:
    """What result rows call so many scenes of a source: a part of a published set is other data than the paper's."""
    scenes = scenes_of(source)
    whole = isinstance(scenes, SuiteScenes) or not 0 < count < scenes.count(split)
    return scenes.dataset if whole else f"{scenes.dataset} (part)"


def shown_scenes(source: str, condition: Condition = PLAIN, count: int = SCENES) -> Sequence[ShownScene]:
    """Scenes of a source's test split, shown under a condition; those of datasets are read when they are asked for.

    Args:
        source: see :func:`scenes_of`.
        condition: how they are shown.
        count: how many: the first of a suite, spread evenly over a dataset; 0 takes all.
    """
    scenes = scenes_of(source)
    shown = _Shown(scenes, condition, scenes.places(count, condition.split))
    return _made(source, condition, count) if isinstance(scenes, SuiteScenes) else shown


@lru_cache(maxsize=16)
def _made(source: str, condition: Condition, count: int) -> tuple[ShownScene, ...]:
    """Simulating a scene takes longer than keeping it."""
    scenes = scenes_of(source)
    return tuple(scenes.scene(index, condition) for index in scenes.places(count, condition.split))


class _Shown(Sequence[ShownScene]):
    """Scenes that are read when they are asked for."""

    def __init__(self, scenes: Scenes, condition: Condition, places: Sequence[int]) -> None:
        self.scenes, self.condition, self.places = scenes, condition, places

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> ShownScene: ...

    @overload
    def __getitem__(self, index: slice) -> list[ShownScene]: ...

    def __getitem__(self, index: int | slice) -> ShownScene | list[ShownScene]:
        if isinstance(index, slice):
            return [self.scenes.scene(place, self.condition) for place in self.places[index]]
        return self.scenes.scene(self.places[index], self.condition)


# ---- simulated -------------------------------------------------------------------------------------------------------


class SuiteScenes:
    """Scenes of a suite.

    Args:
        name: of the suite.
    """

    def __init__(self, name: str) -> None:
        self.suite = sized_suite(name, SIDE)
        self.source = self.dataset = name
        self.version = f"scenes {SCENE_VERSION}, clouds {CLOUD_VERSION}, {SIDE}"
        self.classes, self.unseen = self.suite.class_names, self.suite.unseen
        self.gsd: float | None = self.suite.gsd
        self.has_opacity = True

    @property
    def can_be_cloudless(self) -> bool:
        """Simulated scenes are made without clouds first."""
        return True

    def prompts(self, *, plain: bool = True) -> list[str]:
        """The suite's words; a network's reading spells them as the release does."""
        return self.suite.prompts

    def count(self, split: str) -> int:
        """How many scenes a split has at full size."""
        return len(self.suite.seeds(split, quick=False))

    def places(self, count: int, split: str) -> list[int]:
        """The first ones."""
        return list(range(count or self.count(split)))

    def scene(self, index: int, condition: Condition) -> ShownScene:
        """A simulated scene; the same at any cover, under growing clouds."""
        suite = self.suite
        sample = suite.sample(condition.split, index, quick=False)
        optical = np.ascontiguousarray(np.moveaxis(sample.images["rgb"][:3], 0, -1))
        opacity = sample.opacity if sample.opacity is not None else np.zeros(sample.labels.shape, np.float32)
        seed = sample.scene.seed
        if condition.cover is not None:
            clear = np.ascontiguousarray(np.moveaxis(sample.clear["rgb"][:3], 0, -1))
            optical, opacity = add_clouds(
                clear, condition.cover, kind=condition.kind, seed=seed, wavelengths=OPTICAL_WAVELENGTHS
            )
        decibels = sample.images["sar"][:1]
        if condition.looks is not None:
            decibels = _other_looks(suite, sample.scene, condition.looks)
        if condition.sar == "other":
            decibels = suite.sample(condition.split, index + 1, quick=False).images["sar"][:1]
        sar = sar_picture(decibels)
        valid = np.ones(sample.labels.shape, bool)
        sar = _moved(sar, condition.shift)
        if condition.sar == "released":
            height, width = sample.labels.shape
            sar = np.ascontiguousarray(sar[: height // 2, : width // 2].repeat(2, axis=0).repeat(2, axis=1))
        name = f"{suite.name} {seed}"
        return _shown(name, optical, sar, valid, sample.labels, np.asarray(opacity), condition)


def _other_looks(suite: Suite, scene: Any, looks: float) -> NDArray[np.float32]:
    """The scene's radar image with another number of looks: the same ground, other speckle."""
    again = make_scene(
        SIDE,
        scene.seed,
        region=scene.region,
        layout=scene.layout,
        gsd=suite.gsd,
        modalities=suite.sensors,
        sar_looks=looks,
        incidence=suite.radar.incidence,
        look=suite.radar.look,
    )
    return np.asarray(again.sar)[:1]


# ---- real ------------------------------------------------------------------------------------------------------------


class DatasetScenes:
    """Samples of a dataset, as a paper's protocol uses it, on their own grids.

    Args:
        name: of the dataset, which lies under ``RSOV_DATA``.
        protocol: the paper's use of it.

    Raises:
        InputError: it isn't there, or has no optical-SAR pair.
    """

    def __init__(self, name: str, protocol: str) -> None:
        from rsovlib.data.layout import dataset_root
        from rsovlib.data.manifest import load_manifest
        from rsovlib.experiments.identity import data_version

        self.manifest = load_manifest(name)
        use = self.manifest.protocol(protocol)
        self.sensors = pair_sensors(self.manifest, protocol)
        dataset_root(self.manifest)  # an error with the way to get it
        self.source, self.dataset, self.protocol = f"datasets/{name}/{protocol}", name, protocol
        self.version = data_version([f"datasets/{name}"])[f"datasets/{name}"]
        self.classes, self.unseen = list(use.classes), list(use.unseen)
        self.gsd = self.manifest.modalities[self.sensors[0]].gsd_m
        origin = None if use.clouds is None else self.manifest.clouds[use.clouds].origin
        self.has_opacity = origin != "published"
        self._open: dict[tuple[str, bool], ManifestDataset] = {}

    @cached_property
    def can_be_cloudless(self) -> bool:
        """Whether this copy has images without clouds."""
        try:
            self._samples("test", clear=True)
        except InputError:
            return False
        return True

    def prompts(self, *, plain: bool = True) -> list[str]:
        """The manifest's words, in one of their spellings."""
        return class_prompts(self.manifest, self.classes, plain=plain)

    def count(self, split: str) -> int:
        """How many samples a split has."""
        return len(self._samples(split))

    def places(self, count: int, split: str) -> list[int]:
        """Spread evenly over the split."""
        return spread(self.count(split), count)

    def scene(self, index: int, condition: Condition) -> ShownScene:
        """A sample; under other clouds than its own where its clear image is there.

        Raises:
            InputError: the condition can't be made of real images.
            RasterError: a file can't be read.
        """
        if condition.looks is not None:
            raise InputError(f"The speckle of {self.dataset}'s radar can't be changed; leave looks out.")
        clear = condition.cover is not None
        sample = self._samples(condition.split, clear=clear)[index]
        optical = self._picture(sample, 0, clear=clear)
        shape = (optical.shape[0], optical.shape[1])
        opacity = np.zeros(shape, np.float32)
        if condition.cover is not None:
            seed = int.from_bytes(hashlib.sha256(f"{self.dataset}/{sample.id}".encode()).digest()[:7], "big")
            cloudy, opacity = add_clouds(
                optical, condition.cover, kind=condition.kind, seed=seed, wavelengths=OPTICAL_WAVELENGTHS
            )
            optical = np.asarray(cloudy)
        elif sample.cloud_mask is not None:
            opacity = sample.cloud_mask.numpy().astype(np.float32)
        radar = sample
        if condition.sar == "other":
            samples = self._samples(condition.split, clear=clear)
            radar = samples[(index + 1) % len(samples)]
        sar = _moved(on_grid(self._picture(radar, 1), shape), condition.shift)
        valid = radar.valid[self.sensors[1]].numpy() if radar is sample else np.ones(shape, bool)
        valid = valid if valid.shape == shape else np.ones(shape, bool)
        if condition.sar == "released":
            canvas = (released_sar(sar, _PAPER_SIDE).movedim(0, -1) * 255).round().byte().numpy()
            sar, valid = on_grid(np.ascontiguousarray(canvas), shape), np.ones(shape, bool)
        if sample.labels is None:
            raise InputError(
                f"The sample {sample.id} of {self.dataset} has no labels; see `rsovlib data check {self.dataset}`."
            )
        labels = sample.labels.numpy().astype(np.uint8)
        return _shown(sample.id, optical, sar, valid, labels, np.asarray(opacity), condition)

    def _samples(self, split: str, *, clear: bool = False) -> ManifestDataset:
        from rsovlib.data.dataset import ManifestDataset

        if split != "test":
            raise unknown_name(f"split of {self.dataset} that isn't trained on", split, ("test",))
        if (split, clear) not in self._open:
            self._open[split, clear] = ManifestDataset(
                self.manifest,
                protocol=self.protocol,
                split=split,
                modalities=self._sensors(clear=clear),
                simulate_clouds=True,
            )
        return self._open[split, clear]

    def _sensors(self, *, clear: bool) -> tuple[str, str]:
        return pair_sensors(self.manifest, self.protocol, clear=True) if clear else self.sensors

    def _picture(self, sample: DataSample, place: int, *, clear: bool = False) -> NDArray[np.uint8]:
        name = self._sensors(clear=clear)[place] if place == 0 else self.sensors[1]
        return picture_of(sample.images[name].numpy(), sample.valid[name].numpy())


# ---- what both do ----------------------------------------------------------------------------------------------------


def _moved(sar: NDArray[np.uint8], shift: int) -> NDArray[np.uint8]:
    """The radar beside its place; what comes in at the border is mirrored, so that only the place is wrong."""
    if not shift:
        return sar
    moved: NDArray[np.uint8] = shifted(sar, (shift, shift, 0), order=0, mode="mirror")
    return moved


def _shown(
    name: str,
    optical: NDArray[np.uint8],
    sar: NDArray[np.uint8],
    valid: NDArray[np.bool_],
    labels: NDArray[np.uint8],
    opacity: NDArray[np.float32],
    condition: Condition,
) -> ShownScene:
    if condition.sar == "half":
        valid = valid.copy()
        valid[:, valid.shape[1] // 2 :] = False
    if condition.sar == "missing":
        return ShownScene(name, optical, None, None, labels, opacity)
    return ShownScene(name, optical, sar, valid, labels, opacity)
