"""Named sets of simulated scenes that mirror the settings of the reproduced papers.

>>> suite = load_suite("mm-ovseg-pie-cloud")
>>> suite.class_names, suite.unseen
(['background', 'city', 'road', 'water', 'forest', 'farmland'], ['road', 'water'])
>>> for sample in suite.scenes("test"):
...     sample.images["rgb"], sample.images["sar"], sample.labels

A suite is a YAML file in ``data_manifests/suites``: which seeds belong to which split, where in the world the scenes
lie, which sensors see them through which clouds, and what the simulated classes are called in the paper's class list.
A scene is made when it is asked for, and is the same in any order and in any number of processes.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from rsovlib.data._manifest_schema import Flag, Identifier, Length, Positive, Share, Strict, Text
from rsovlib.data._scene_light import REGIONS
from rsovlib.data._scene_plan import LAYOUTS
from rsovlib.data._scene_radar import LOOKS
from rsovlib.data.lexicon import CLASSES
from rsovlib.data.scenes import SCENE_VERSION, Scene, make_scene
from rsovlib.data.yamlfile import read_yaml, sentence
from rsovlib.errors import InputError, unknown_name
from rsovlib.resources import resource

IGNORE = 255
SPLITS = ("train", "validation", "test")
FIRST_SEEDS: Mapping[str, int] = {"train": 0, "validation": 1_000_000, "test": 2_000_000}
"""Where the seeds of each split start; a million to each, so that no split of any suite shares a scene with another."""
_SEEDS_OF_A_SPLIT = 1_000_000

RECIPES: Mapping[str, tuple[str, ...]] = {
    "rgb": ("red", "green", "blue"),
    "rgbn": ("red", "green", "blue", "nir"),
    "irrg": ("nir", "red", "green"),
    "msi": ("red", "green", "blue", "nir", "swir"),
    "nir": ("nir",),
    "swir": ("swir",),
    "sar": ("vv", "vh"),
    "sar-vv": ("vv",),
    "dsm": ("elevation",),
    "dem": ("elevation", "slope"),
}
"""The bands of each modality that a suite can have.  Optical bands are uint8, radar is float32 in dB, elevation is
float32 in metres and slope in degrees."""

_WAVELENGTHS: Mapping[str, float] = {"red": 665.0, "green": 560.0, "blue": 490.0, "nir": 842.0, "swir": 1610.0}
_SENSOR_OF: Mapping[str, str] = {
    "nir": "nir",
    "swir": "swir",
    "vv": "sar",
    "vh": "sar",
    "elevation": "dsm",
    "slope": "dsm",
}


def _each_known(kind: str, names: Iterable[str], choices: Collection[str]) -> None:
    for name in names:
        if name not in choices:
            raise ValueError(str(unknown_name(kind, name, choices)))


class SuiteClass(Strict):
    """One class of the paper's list.

    Attributes:
        name: as the paper calls it.
        prompt: words to ask for it with, "a, b, c" for synonyms; the name if not given.
        members: the simulated classes that it covers; none where the simulator has nothing of the kind.
        layouts: only in scenes of these layouts, for classes that differ by their surroundings (city, village).
        seen: whether an open-vocabulary method is trained on it; classes that aren't are 255 in the training labels.
    """

    name: Text
    prompt: Text | None = None
    members: tuple[Text, ...] = ()
    layouts: tuple[Text, ...] = ()
    seen: Flag = True

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _each_known("class of simulated scenes", self.members, CLASSES)
        _each_known("layout", self.layouts, LAYOUTS)
        return self


class SuiteSplit(Strict):
    """One split: consecutive seeds, and where its scenes lie.

    Attributes:
        full, quick: how many scenes it has, and how many of them are enough for a quick run.
        published: how many images the paper's split has, where it is known.
        regions, layouts: the scenes take turns; all that there are, by their usual shares, if none are given.
    """

    full: Positive
    quick: Positive
    published: Positive | None = None
    regions: tuple[Text, ...] = ()
    layouts: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.quick <= self.full <= _SEEDS_OF_A_SPLIT:
            raise ValueError(f"quick is {self.quick} and full {self.full}; full lies between quick and a million")
        _each_known("region", self.regions, REGIONS)
        _each_known("layout", self.layouts, LAYOUTS)
        return self


class SuiteClouds(Strict):
    """The clouds over a suite's optical images.

    Attributes:
        kind: as :func:`rsovlib.data.clouds.add_clouds` knows it.
        cover: least and largest share of a scene that is covered; each scene draws its own.
    """

    kind: Literal["thin", "thick", "varied"]
    cover: tuple[Share, Share]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.cover[0] > self.cover[1]:
            raise ValueError(f"cover must be [smaller, larger], not {list(self.cover)}")
        return self


class SuiteRadar(Strict):
    """How the radar looks: the arguments of :func:`rsovlib.data.scenes.make_scene`."""

    looks: Annotated[float, Field(ge=1, le=1000)] = 4.0
    incidence: Annotated[float, Field(ge=10, le=70)] = 35.0
    look: Text = "east"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _each_known("look direction", [self.look], LOOKS)
        return self


class Sides(Strict):
    """Sides of square scenes in pixels."""

    full: Annotated[int, Field(strict=True, ge=32, le=4096)]
    quick: Annotated[int, Field(strict=True, ge=32, le=4096)]


@dataclass(frozen=True)
class Sample:
    """One scene of a suite, in the suite's terms.

    Attributes:
        images: modalities by name, each (C, H, W), with the bands of :data:`RECIPES`.
        clear: the optical ones among them without clouds; the same arrays where there are no clouds.
        labels: (H, W) uint8, indices into the suite's labels; 255 where no class of the list stands.
        opacity: (H, W) float32 of the clouds, 0 to 1; None where the suite has none.
        scene: the scene itself, with its caption and the simulator's labels.
        suite, split, index: where it belongs.
        versions: of the scenes and the clouds, part of every result made with it.
    """

    images: dict[str, NDArray[Any]]
    clear: dict[str, NDArray[np.uint8]]
    labels: NDArray[np.uint8]
    opacity: NDArray[np.float32] | None
    scene: Scene
    suite: str
    split: str
    index: int
    versions: str


class Suite(Strict):
    """A named set of simulated scenes.

    Attributes:
        name: the stem of its file.
        title: for tables.
        paper: short name of the paper whose setting it mirrors.
        dataset, protocol: the dataset manifest and the protocol in it that describe the real thing.
        task: what the paper does with it.
        modalities: the paper's name of each modality, and its recipe, one of :data:`RECIPES`.
        gsd: ground sampling distance of the scenes, metres.
        published_gsd: of the real images, where known.
        sampling: metres a pixel of modalities that are coarser than the scenes; they are averaged and repeated.
        size: of the scenes.
        classes: the paper's list, in its order.
        others: what simulated classes outside the list become: "ignore" (255), or "background" (0, and the classes
            follow from 1).
        clouds, radar: how the sensors see it.
        splits: by name; training-free suites have no "train".
    """

    name: Identifier
    title: Text
    paper: Literal["sdci", "mm-ovseg", "scenario-sampling", "edc"]
    dataset: Identifier
    protocol: Identifier
    task: Literal["open-vocabulary", "training-free", "missing-modality", "cloudy"]
    modalities: dict[Identifier, str] = Field(min_length=1)
    gsd: Annotated[float, Field(ge=0.1, le=20)]
    published_gsd: Length | None = None
    sampling: dict[Identifier, Length] = Field(default_factory=dict)
    size: Sides
    classes: tuple[SuiteClass, ...] = Field(min_length=1)
    others: Literal["ignore", "background"] = "ignore"
    clouds: SuiteClouds | None = None
    radar: SuiteRadar = SuiteRadar()
    splits: dict[Literal["train", "validation", "test"], SuiteSplit]
    notes: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _each_known("recipe of a modality", self.modalities.values(), RECIPES)
        _each_known("modality", self.sampling, self.modalities)
        for key in ("validation", "test"):
            if key not in self.splits:
                raise ValueError(f"splits lacks {key!r}")
        names = [one.name for one in self.classes]
        if len(set(names)) < len(names):
            raise ValueError("two classes have the same name")
        for one, other in combinations(self.classes, 2):
            shared = sorted(set(one.members) & set(other.members))
            apart = one.layouts and other.layouts and not set(one.layouts) & set(other.layouts)
            if shared and not apart:
                raise ValueError(f"classes {one.name!r} and {other.name!r} both have the member {shared[0]!r}")
        if not any(one.members for one in self.classes):
            raise ValueError("no class has a member")
        return self

    @property
    def class_names(self) -> list[str]:
        """Names of the label values: the paper's list, after "background" where the suite has that."""
        return [*(["background"] if self.others == "background" else []), *(one.name for one in self.classes)]

    @property
    def prompts(self) -> list[str]:
        """Words for each class of the list, "a, b, c" for synonyms, in its order (without the added background)."""
        return [one.prompt or one.name for one in self.classes]

    @property
    def seen(self) -> list[str]:
        """The classes that training may use."""
        return [one.name for one in self.classes if one.seen]

    @property
    def unseen(self) -> list[str]:
        """The classes that training never names."""
        return [one.name for one in self.classes if not one.seen]

    @property
    def absent(self) -> list[str]:
        """Classes of the list that no simulated scene can show."""
        return [one.name for one in self.classes if not one.members]

    @cached_property
    def sensors(self) -> frozenset[str]:
        """What :func:`rsovlib.data.scenes.make_scene` has to make beside the optical image."""
        bands = {band for recipe in self.modalities.values() for band in RECIPES[recipe]}
        return frozenset(_SENSOR_OF[band] for band in bands if band in _SENSOR_OF)

    def seeds(self, split: str, quick: bool = True) -> range:
        """The seeds of a split's scenes; those of a quick run are the first of the full ones.

        Raises:
            InputError: the suite has no such split.
        """
        part, first = self._part(split), FIRST_SEEDS[split]
        return range(first, first + (part.quick if quick else part.full))

    def _part(self, split: str) -> SuiteSplit:
        for name, part in self.splits.items():
            if name == split:
                return part
        if split in SPLITS:
            raise InputError(f"The suite {self.name!r} has no {split} scenes: its method is not trained.")
        raise unknown_name("split", split, SPLITS)

    def scenes(self, split: str, quick: bool = True, start: int = 0, stop: int | None = None) -> Iterator[Sample]:
        """The samples of a split, made one by one as they are asked for.

        Args:
            split: "train", "validation" or "test".
            quick: the few small scenes of a quick run, or the full split.
            start: index of the first sample, to share a split out between workers.
            stop: index after the last one; the split's end if not given.

        Returns:
            An iterator over :class:`Sample`.

        Raises:
            InputError: the suite has no such split.
        """
        indices = range(len(self.seeds(split, quick)))[start:stop]
        return (self.sample(split, index, quick) for index in indices)

    def sample(self, split: str, index: int, quick: bool = True) -> Sample:
        """One sample of a split.

        Args:
            split: "train", "validation" or "test".
            index: which of the split's samples, from 0.
            quick: small, as in a quick run, or of full size.

        Returns:
            The sample; its labels are the suite's. Classes that are unseen are 255 in the split "train".

        Raises:
            InputError: the suite has no such split or sample.
        """
        seeds = self.seeds(split, quick)
        if not 0 <= index < len(seeds):
            raise InputError(f"The split {split!r} of {self.name!r} has samples 0 to {len(seeds) - 1}, not {index}.")
        seed, part = seeds[index], self._part(split)
        scene = make_scene(
            self.size.quick if quick else self.size.full,
            seed,
            region=part.regions[index % len(part.regions)] if part.regions else None,
            # Regions and layouts take turns at different paces, so that every pair of them comes up.
            layout=part.layouts[index // max(1, len(part.regions)) % len(part.layouts)] if part.layouts else None,
            gsd=self.gsd,
            modalities=self.sensors,
            sar_looks=self.radar.looks,
            incidence=self.radar.incidence,
            look=self.radar.look,
        )
        clear = self._measure(scene, _optical_bands(scene))
        cloudy, opacity, versions = clear, None, f"scenes {SCENE_VERSION}"
        if self.clouds is not None:
            bands, opacity, version = _clouded(scene, self.clouds)
            cloudy, versions = self._measure(scene, bands), f"{versions}, clouds {version}"
        return Sample(
            images=cloudy,
            clear={name: image for name, image in clear.items() if image.dtype == np.uint8},
            labels=self._table(scene.layout, only_seen=split == "train")[scene.labels],
            opacity=opacity,
            scene=scene,
            suite=self.name,
            split=split,
            index=index,
            versions=versions,
        )

    def _table(self, layout: str, *, only_seen: bool) -> NDArray[np.uint8]:
        """The suite's label of each simulated class, (number of simulated classes,)."""
        first = 1 if self.others == "background" else 0
        table = np.full(len(CLASSES), 0 if self.others == "background" else IGNORE, np.uint8)
        for index, one in enumerate(self.classes):
            if one.layouts and layout not in one.layouts:
                continue
            members = [CLASSES.index(member) for member in one.members]
            table[members] = IGNORE if only_seen and not one.seen else first + index
        return table

    def _measure(self, scene: Scene, optical: Mapping[str, NDArray[np.uint8]]) -> dict[str, NDArray[Any]]:
        """The suite's modalities of a scene, given its optical bands."""
        images = {}
        for name, recipe in self.modalities.items():
            factor = max(1, round(self.sampling.get(name, self.gsd) / self.gsd))
            wanted = RECIPES[recipe]
            if wanted[0] in ("vv", "vh"):
                radar = {"vv": scene.sar[0], "vh": scene.sar[1]} if scene.sar is not None else {}
                decibels = np.stack([radar[band] for band in wanted])
                image: NDArray[Any] = decibels
                if factor > 1:  # it is power that a coarser sensor averages
                    power = coarsen(np.power(10.0, decibels / 10, dtype=np.float64), factor)
                    image = (10 * np.log10(power)).astype(np.float32)
            elif wanted[0] == "elevation":
                elevation = np.asarray(scene.dsm)[None]
                image = coarsen(elevation, factor)
                if "slope" in wanted:
                    rise, run = np.gradient(image[0].astype(np.float64), self.gsd)
                    slope = np.degrees(np.arctan(np.hypot(rise, run))).astype(np.float32)
                    image = np.concatenate([image, coarsen(slope[None], factor)])
            else:
                image = coarsen(np.stack([optical[band] for band in wanted]), factor)
            images[name] = np.ascontiguousarray(image)
        return images


def suite_names() -> list[str]:
    """The names of all suites, in alphabetical order."""
    return sorted(path.stem for path in resource("data_manifests/suites").glob("*.yaml"))


def load_suite(name_or_path: str | os.PathLike[str]) -> Suite:
    """Reads and checks a suite.

    Args:
        name_or_path: a name of :func:`suite_names`, or the path of a YAML file of one's own.

    Returns:
        The suite; nothing in it can be changed.

    Raises:
        InputError: there is no such suite or file, the file is not YAML, or it says something that a suite can't say.
            The sentence names the file, the key and, for a wrong key, the nearest right one.
    """
    text = os.fspath(name_or_path)
    if not text.endswith((".yaml", ".yml")) and os.sep not in text:
        if text not in suite_names():
            raise unknown_name("suite", text, suite_names())
        path = resource("data_manifests/suites") / f"{text}.yaml"
    else:
        path = Path(text)
    content = read_yaml(path)
    try:
        suite = Suite.model_validate(content)
    except ValidationError as error:
        raise InputError(sentence(path, error)) from error
    if suite.name != path.stem:
        raise InputError(f"{path}: name is {suite.name!r}, but the file is called {path.name}; make them the same.")
    return suite


def coarsen(image: NDArray[Any], factor: int) -> NDArray[Any]:
    """What a coarser sensor delivers, on the finer grid.

    Args:
        image: (C, H, W).
        factor: how many pixels of the grid a pixel of the sensor is wide.

    Returns:
        (C, H, W) of the same type: means over squares of ``factor`` x ``factor`` pixels, each repeated.
    """
    if factor == 1:
        return image
    count, height, width = image.shape
    down, right = -height % factor, -width % factor
    padded = np.pad(image, ((0, 0), (0, down), (0, right)), mode="edge").astype(np.float64)
    rows, columns = padded.shape[1] // factor, padded.shape[2] // factor
    means = padded.reshape(count, rows, factor, columns, factor).mean(axis=(2, 4))
    if np.issubdtype(image.dtype, np.integer):
        means = np.rint(means)
    repeated = means.astype(image.dtype).repeat(factor, axis=1).repeat(factor, axis=2)
    return repeated[:, :height, :width]


def _optical_bands(scene: Scene) -> dict[str, NDArray[np.uint8]]:
    """The scene's optical bands by name, each (H, W)."""
    bands = {name: scene.optical[..., index] for index, name in enumerate(("red", "green", "blue"))}
    bands.update({name: band for name, band in (("nir", scene.nir), ("swir", scene.swir)) if band is not None})
    return bands


def _clouded(scene: Scene, clouds: SuiteClouds) -> tuple[dict[str, NDArray[np.uint8]], NDArray[np.float32], int]:
    """The optical bands under one sky, its opacity, and the version of the clouds."""
    from rsovlib.data.clouds import CLOUD_VERSION, add_clouds  # here, so that clear suites do without it

    bands = _optical_bands(scene)
    cover = float(np.random.default_rng([CLOUD_VERSION, scene.seed, 2]).uniform(*clouds.cover))
    shadow = scene.notes["shadow"]
    cloudy, opacity = add_clouds(
        np.stack(list(bands.values()), axis=-1),
        cover,
        kind=clouds.kind,
        seed=scene.seed,
        wavelengths=[_WAVELENGTHS[name] for name in bands],
        # Clouds throw their shadows where the buildings throw theirs.
        sun_azimuth=float(np.degrees(np.arctan2(-np.cos(shadow), np.sin(shadow))) % 360),
    )
    pixels = np.asarray(cloudy)
    return {name: pixels[..., index] for index, name in enumerate(bands)}, np.asarray(opacity), CLOUD_VERSION
