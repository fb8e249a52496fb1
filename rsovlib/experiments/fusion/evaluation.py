"""Scores of the trained embedded networks: six settings, and what clouds, misplaced radar and speckle do to them.

>>> score("mm-ovseg", 0, "mm-ovseg-ddhr-sk").miou          # an interval over test scenes, in percent
>>> score("gsnet", 0, "mm-ovseg-ddhr-sk", Condition(cover=0.8)).miou
>>> paired("mm-ovseg", "gsnet", "mm-ovseg-ddhr-sk")        # difference on the same scenes, all seeds

Every score is computed once in a process.  After :func:`keep_scores` it is also stored, under a name that says which
weights, scenes and versions it came from, so that the notebooks of one reproduction needn't compute it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import shift as shifted

import rsovlib
from rsovlib.data.clouds import CLOUD_VERSION, add_clouds
from rsovlib.data.scenes import SCENE_VERSION, make_scene
from rsovlib.data.suites import Suite
from rsovlib.errors import InputError
from rsovlib.experiments.fusion.recipe import BACKBONES
from rsovlib.files import write_beside
from rsovlib.fusion.embedded import NAMES, embedded_fusions
from rsovlib.fusion.pairs import OPTICAL_WAVELENGTHS, sar_picture, sized_suite
from rsovlib.metrics import (
    CalibrationError,
    Comparison,
    Interval,
    SegmentationMetrics,
    compare,
    confidence_interval,
)

SIDE = 128
"""Side of the test scenes in pixels; a network sees a scene at once and at its own scale."""
SCENES = 60
SEEDS = (0, 1, 2)

SETTINGS: dict[str, tuple[str, str]] = {
    "s1": ("PIE-cloud", "mm-ovseg-pie-cloud"),
    "s2": ("DDHR-SK", "mm-ovseg-ddhr-sk"),
    "s3": ("OEM-thick", "mm-ovseg-oem-thick"),
    "s4": ("OEM-thin", "mm-ovseg-oem-thin"),
    "s5": ("PIE-clean", "mm-ovseg-pie-clean"),
    "s6": ("DDHR-SK to DDHR-CH", "mm-ovseg-ddhr-ch"),
}
"""The paper's six settings (Table 1): title and suite."""

METHOD_TITLES = {
    "cat-seg": "CAT-Seg",
    "ebseg": "EBSeg",
    "gsnet": "GSNet",
    "segearth-ov": "SegEarth-OV",
    "mm-ovseg-no-cmu": "MM-OVSeg without CMU",
    "mm-ovseg": "MM-OVSeg",
}
NOT_AVAILABLE = {
    "FGAseg": "not available: its code isn't published, and its abstract and tables do not determine the network"
}


@dataclass(frozen=True)
class Condition:
    """How the test scenes are shown.

    Attributes:
        cover: share of cloud over every scene, 0 to 1; None for the suite's own clouds.
        kind: of those clouds.
        shift: pixels by which the radar lies too far right and down, half each way for odd directions; 0 is aligned.
        looks: of the radar; None for the suite's.
        sar: "given", "missing" (the network does without), "half" (the right half has none), "other": that of the next
            scene, which says nothing of this one, or "released": the radar as the release hands it over, its upper left
            quarter in place of the scene's.
        split: "test"; "validation" for choices.
    """

    cover: float | None = None
    kind: str = "varied"
    shift: int = 0
    looks: float | None = None
    sar: str = "given"
    split: str = "test"

    def __post_init__(self) -> None:
        if self.sar not in ("given", "missing", "half", "other", "released"):
            raise InputError(f"sar={self.sar!r}: the radar is given, missing, half, other or released.")


@dataclass(frozen=True)
class ShownScene:
    """One scene to be scored.

    Attributes:
        name: for pairing.
        optical: (H, W, 3) uint8, perhaps cloudy.
        sar: (H, W, 3) uint8.
        sar_valid: (H, W) bool.
        labels: (H, W) uint8 over all classes of the suite, 255 ignored.
        opacity: (H, W) float32 of the clouds, zeros without.
    """

    name: str
    optical: NDArray[np.uint8]
    sar: NDArray[np.uint8] | None
    sar_valid: NDArray[np.bool_] | None
    labels: NDArray[np.uint8]
    opacity: NDArray[np.float32]


@dataclass
class Score:
    """Counts of one method on one set of scenes.

    Attributes:
        method, seed, suite, condition: what was scored.
        counts: per image, for intervals and paired tests; pixels under clouds (opacity above one half) are a stratum
            of their own.
        calibration: bins of confidence.
        weights: name and hash of the weights.
    """

    method: str
    seed: int
    suite: str
    condition: Condition
    counts: SegmentationMetrics
    calibration: CalibrationError
    weights: dict[str, str] = field(default_factory=dict)

    def interval(self, score: str = "miou") -> Interval:
        """A score in percent with its 95 % bootstrap interval over scenes."""
        found = confidence_interval(self.counts, score)
        return Interval(100 * found.value, 100 * found.low, 100 * found.high, found.level)

    @property
    def miou(self) -> Interval:
        """Over all classes."""
        return self.interval()

    @property
    def ece(self) -> float:
        """Expected calibration error in percent."""
        return 100 * float(self.calibration.compute()["expected_calibration_error"])

    @property
    def classes(self) -> dict[str, float]:
        """IoU of every class in percent."""
        return {name: 100 * value for name, value in self.counts.compute()["iou"].items()}


# ---- scenes ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def shown_scenes(suite: str, condition: Condition = Condition(), count: int = SCENES) -> tuple[ShownScene, ...]:
    """The first scenes of a suite's test split, shown under a condition."""
    whole = sized_suite(suite, SIDE)
    return tuple(_scene(whole, index, condition) for index in range(count))


def _scene(suite: Suite, index: int, condition: Condition) -> ShownScene:
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
    if condition.shift:
        # What comes in at the border is mirrored, so that only the place is wrong.
        sar = shifted(sar, (condition.shift, condition.shift, 0), order=0, mode="mirror")
    if condition.sar == "released":
        height, width = sample.labels.shape
        sar = np.ascontiguousarray(sar[: height // 2, : width // 2].repeat(2, axis=0).repeat(2, axis=1))
    if condition.sar == "half":
        valid[:, SIDE // 2 :] = False
    missing = condition.sar == "missing"
    return ShownScene(
        f"{suite.name} {seed}",
        optical,
        None if missing else sar,
        None if missing else valid,
        sample.labels,
        np.asarray(opacity),
    )


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


_FOLDER: list[Path] = []


def keep_scores(folder: str) -> None:
    """Store scores in ``folder/scores`` from now on, and take those that are there; "" stores nothing."""
    _FOLDER[:] = [Path(folder).resolve() / "scores"] if folder else []


# ---- methods ---------------------------------------------------------------------------------------------------------


def weights_name(method: str, seed: int) -> str:
    """Name of a method's shipped weights of a seed."""
    return NAMES[method] + (f"-s{seed}" if seed else "")


def available_methods() -> list[str]:
    """The methods whose weights ship, and the training-free one."""
    shipped = [name for name in METHOD_TITLES if name in NAMES]
    found = [one for one in shipped if weights_name(one, 0) in embedded_fusions()]
    return [name for name in METHOD_TITLES if name in found or name == "segearth-ov"]


@lru_cache(maxsize=24)
def segmenter(method: str, seed: int) -> Any:
    """A method with the weights of a seed; training-free ones stand on the seed's backbones."""
    if method in NAMES:
        from rsovlib.fusion.segmenter import make_fusion_segmenter

        name = weights_name(method, seed)
        return make_fusion_segmenter(method, device="cpu", weights=name, window=0, batch=8, keep_stages=False)
    from rsovlib.segmenters.api import make_segmenter

    return make_segmenter(method, clip=BACKBONES[seed][0], dino=BACKBONES[seed][1], device="cpu")


def score(method: str, seed: int, suite: str, condition: Condition = Condition(), count: int = SCENES) -> Score:
    """Score a method on test scenes.

    Args:
        method: of :func:`available_methods`.
        seed: of its weights.
        suite: name of the suite.
        condition: how its scenes are shown.
        count: number of scenes.

    Returns:
        The counts, image by image.
    """
    return _remembered(method, seed, suite, condition, count)


@lru_cache(maxsize=4096)
def _remembered(method: str, seed: int, suite: str, condition: Condition, count: int) -> Score:
    made = segmenter(method, seed)
    weights = _weights(made)
    path = _kept(method, seed, suite, condition, count, weights)
    if path is not None and path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        counts = SegmentationMetrics.from_state_dict(content["counts"])
        calibration = CalibrationError.from_state_dict(content["calibration"])
        return Score(method, seed, suite, condition, counts, calibration, weights)
    counts, calibration = score_network(made, suite, condition, count)
    if path is not None:
        content = {"counts": counts.state_dict(), "calibration": calibration.state_dict()}
        with write_beside(path) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")
    return Score(method, seed, suite, condition, counts, calibration, weights)


def score_network(
    made: Any, suite: str, condition: Condition = Condition(), count: int = SCENES
) -> tuple[SegmentationMetrics, CalibrationError]:
    """The counts of any segmenter, of networks just trained too.

    Args:
        made: a segmenter; one with ``segment_batch`` takes several scenes at once.
        suite: name of the suite.
        condition: how its scenes are shown.
        count: number of scenes.
    """
    whole = sized_suite(suite, SIDE)
    counts = SegmentationMetrics(
        whole.class_names,
        unseen=whole.unseen,
        boundary_tolerance=None,
        boundary_width=None,
        strata=("clear", "cloudy"),
        keep_images=True,
    )
    calibration = CalibrationError(len(whole.class_names))
    scenes = shown_scenes(suite, condition, count)
    for start in range(0, count, 8):
        part = scenes[start : start + 8]
        for scene, result in zip(part, _segment(made, part, whole.prompts), strict=True):
            strata = (scene.opacity > 0.5).astype(np.uint8)
            counts.update(result.labels, scene.labels, image=scene.name, strata=strata)
            calibration.update(result.probabilities, scene.labels)
    return counts, calibration


def _segment(made: Any, scenes: Sequence[ShownScene], prompts: Sequence[str]) -> list[Any]:
    """Segmentations of several scenes, with their radar where the segmenter takes any."""
    images = [scene.optical for scene in scenes]
    if not hasattr(made, "segment_batch"):
        return [made(image, list(prompts)) for image in images]
    if not getattr(made, "uses_sar", False):
        found: list[Any] = made.segment_batch(images, list(prompts))
        return found
    radar, valid = [scene.sar for scene in scenes], [scene.sar_valid for scene in scenes]
    found = made.segment_batch(images, list(prompts), radar, valid)
    return found


def _weights(made: Any) -> dict[str, str]:
    settings = made.settings()
    pairs = {"weights": "weights_sha256", "clip": "clip_sha256", "dino": "dino_sha256", "sar_dino": "sar_dino_sha256"}
    return {str(settings[name]): str(settings.get(key, "")) for name, key in pairs.items() if settings.get(name)}


def _kept(method: str, seed: int, suite: str, condition: Condition, count: int, weights: dict[str, str]) -> Path | None:
    if not _FOLDER:
        return None
    facts = [method, seed, suite, asdict(condition), count, SIDE, weights, SCENE_VERSION, CLOUD_VERSION]
    text = json.dumps([*facts, rsovlib.__version__], sort_keys=True)
    return _FOLDER[0] / f"{method}-{seed}-{suite}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


# ---- over seeds ------------------------------------------------------------------------------------------------------


def pooled(
    method: str, suite: str, condition: Condition = Condition(), count: int = SCENES, seeds: Sequence[int] = SEEDS
) -> SegmentationMetrics:
    """The counts of all seeds in one pot, a scene's counts of all seeds under one name.

    Intervals over its scenes then hold for the mean network of these seeds; they don't tell how seeds differ.
    """
    return _join([score(method, seed, suite, condition, count).counts for seed in seeds])


def _join(parts: Sequence[SegmentationMetrics]) -> SegmentationMetrics:
    whole = SegmentationMetrics.from_state_dict(parts[0].state_dict())
    for part in parts[1:]:
        whole.merge(part)
    return whole


def paired(
    first: str,
    second: str,
    suite: str,
    condition: Condition = Condition(),
    metric: str = "miou",
    count: int = SCENES,
    seeds: Sequence[int] = SEEDS,
) -> Comparison:
    """The first method minus the second on the same scenes, all seeds together; fractions, not percent."""
    ours, theirs = (pooled(one, suite, condition, count, seeds) for one in (first, second))
    return compare(ours, theirs, metric)


@dataclass(frozen=True)
class OverSeeds:
    """A number over the seeds, in percent.

    Attributes:
        mean: of the seeds' values.
        std: their standard deviation, n - 1.
        low, high: 95 % bootstrap interval over scenes of the pooled counts.
        values: of each seed.
    """

    mean: float
    std: float
    low: float
    high: float
    values: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.mean:.1f} [{self.low:.1f}, {self.high:.1f}] (seeds ± {self.std:.1f})"


def over_seeds(
    method: str,
    suite: str,
    condition: Condition = Condition(),
    metric: str = "miou",
    count: int = SCENES,
    seeds: Sequence[int] = SEEDS,
) -> OverSeeds:
    """A score over the seeds: mean and spread of the seeds, interval over the scenes.

    Args:
        method: of :func:`available_methods`.
        suite: name of the suite.
        condition: how its scenes are shown.
        metric: "miou", "miou_seen", "miou_unseen", "cloudy/miou", "iou/water", ...
        count: number of scenes.
        seeds: of the weights.
    """
    parts = [score(method, seed, suite, condition, count).counts for seed in seeds]
    values = [100 * float(part.scores_of(_total(part))[metric][0]) for part in parts]
    interval = confidence_interval(_join(parts), metric)
    std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return OverSeeds(float(np.mean(values)), std, 100 * interval.low, 100 * interval.high, tuple(values))


def _total(counts: SegmentationMetrics) -> NDArray[np.float64]:
    return np.asarray(counts.table().sum(axis=0), dtype=np.float64)[None]


def curve(
    methods: Sequence[str],
    suite: str,
    conditions: Sequence[Condition],
    metric: str = "miou",
    count: int = SCENES,
    seeds: Sequence[int] = SEEDS,
) -> dict[str, list[OverSeeds]]:
    """:func:`over_seeds` of several methods under several conditions, for a plot of one against the other."""
    return {one: [over_seeds(one, suite, part, metric, count, seeds) for part in conditions] for one in methods}


def cover_conditions(covers: Sequence[float], **others: Any) -> list[Condition]:
    """A condition for each share of cloud."""
    return [replace(Condition(**others), cover=cover) for cover in covers]


def mean_ece(method: str, suite: str, condition: Condition, count: int = SCENES, seeds: Sequence[int] = SEEDS) -> float:
    """Expected calibration error in percent, mean over the seeds."""
    return float(np.mean([score(method, seed, suite, condition, count).ece for seed in seeds]))
