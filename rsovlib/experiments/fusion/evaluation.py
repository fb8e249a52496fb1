"""Scores of trained networks: six settings, and what clouds, misplaced radar and speckle do to them.

>>> score("mm-ovseg", 0, "mm-ovseg-ddhr-sk").miou          # an interval over test scenes, in percent
>>> score("gsnet", 0, "mm-ovseg-ddhr-sk", Condition(cover=0.8)).miou
>>> paired("mm-ovseg", "gsnet", "mm-ovseg-ddhr-sk")        # difference on the same scenes, all seeds

The networks are the embedded ones that ship, or, after :func:`use_networks`, those of the full profile's trainings; the
scenes are a suite's or a dataset's (:mod:`rsovlib.experiments.fusion.scenes`).

Every score is computed once in a process.  After :func:`keep_scores` it is also stored, under a name that says which
weights, scenes and versions it came from, so that the notebooks of one reproduction needn't compute it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rsovlib
from rsovlib.errors import InputError, RsovError
from rsovlib.experiments.fusion.networks import TrainedNetwork, find_networks
from rsovlib.experiments.fusion.recipe import ARCHITECTURES, BACKBONES
from rsovlib.experiments.fusion.scenes import (
    PLAIN,
    SCENES,
    Condition,
    ShownScene,
    dataset_of,
    scenes_of,
    shown_scenes,
)
from rsovlib.experiments.fusion.settings import SETTINGS
from rsovlib.files import write_beside
from rsovlib.fusion.embedded import NAMES, embedded_fusions
from rsovlib.fusion.named import split_name
from rsovlib.metrics import (
    CalibrationError,
    Comparison,
    Interval,
    SegmentationMetrics,
    compare,
    confidence_interval,
)

SEEDS = (0, 1, 2)
_BATCH = 8
"""Scenes that go to a segmenter together."""

METHOD_TITLES = {
    "cat-seg": "CAT-Seg",
    "ebseg": "EBSeg",
    "gsnet": "GSNet",
    "segearth-ov": "SegEarth-OV",
    "mm-ovseg-no-cmu": "MM-OVSeg without CMU",
    "mm-ovseg": "MM-OVSeg",
}
TRAINING_FREE = ("segearth-ov",)
NOT_AVAILABLE = {
    "FGAseg": "not available: its code isn't published, and its abstract and tables do not determine the network"
}


@dataclass
class Score:
    """Counts of one method on one set of scenes.

    Attributes:
        method, seed, suite, condition: what was scored; ``suite`` is the source of the scenes.
        counts: per image, for intervals and paired tests; pixels under clouds (opacity above one half) are a stratum
            of their own.
        calibration: bins of confidence.
        weights: name and hash of the weights.
        dataset: what result rows call the scenes.
        device: where it was computed.
        note: what stands in for something of the paper's.
    """

    method: str
    seed: int
    suite: str
    condition: Condition
    counts: SegmentationMetrics
    calibration: CalibrationError
    weights: dict[str, str] = field(default_factory=dict)
    dataset: str = ""
    device: str = "cpu"
    note: str = ""

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


# ---- methods ---------------------------------------------------------------------------------------------------------


@dataclass
class _Bench:
    """What is scored, and where scores are kept: set by a notebook's first cell, asked by everything after it."""

    folder: Path | None = None
    networks: list[TrainedNetwork] = field(default_factory=list)
    device: str = "cpu"


_BENCH = _Bench()


def keep_scores(folder: str) -> None:
    """Store scores in ``folder/scores`` from now on, and take those that are there; "" stores nothing."""
    _BENCH.folder = Path(folder).resolve() / "scores" if folder else None


def use_networks(folders: Iterable[str | Path] = (), device: str = "cpu") -> list[TrainedNetwork]:
    """Score the networks of these trainings from now on; without any, those that ship.

    Args:
        folders: that the training notebook wrote to in the full profile.
        device: where they compute.

    Returns:
        The networks.

    Raises:
        WeightsError: a folder isn't there or holds no such network.
        InputError: two of them are of one method, seed and training set.
    """
    found = find_networks(folders)
    known: dict[tuple[str, str, int], Path] = {}
    for one in found:
        key = (one.train, one.method, one.seed)
        if key in known:
            raise InputError(
                f"{one.path} and {known[key]} are both {one.method}, seed {one.seed}, trained on {one.train}."
            )
        known[key] = one.path
    _BENCH.networks, _BENCH.device = found, device
    _loaded.cache_clear()
    _remembered.cache_clear()
    return found


def weights_name(method: str, seed: int) -> str:
    """Name of a method's shipped weights of a seed."""
    return NAMES[method] + (f"-s{seed}" if seed else "")


def network_for(method: str, seed: int, source: str) -> TrainedNetwork | None:
    """The network of :func:`use_networks` that is tested on a source; None where those that ship are.

    Which training set belongs to a test set is the paper's choice (``settings.SETTINGS``); networks of one training set
    alone are tested on anything.

    Raises:
        InputError: there is none.
    """
    if not _BENCH.networks:
        return None
    sets = {one.train for one in _BENCH.networks}
    wanted = next((one.train for one in SETTINGS.values() if one.test == source and one.train in sets), "")
    wanted = wanted or (next(iter(sets)) if len(sets) == 1 else "")
    for one in _BENCH.networks:
        if (one.train, one.method, one.seed) == (wanted, method, seed):
            return one
    raise InputError(
        f"No network of {method}, seed {seed}, is given that {source} is tested with; train it, or choose among "
        f"{', '.join(sorted({f'{one.method} (seed {one.seed}, {one.train})' for one in _BENCH.networks}))}."
    )


def available_methods() -> list[str]:
    """The methods whose networks are given or ship, and the training-free one."""
    if _BENCH.networks:
        found = {one.method for one in _BENCH.networks}
    else:
        found = {name for name in METHOD_TITLES if name in NAMES and weights_name(name, 0) in embedded_fusions()}
    return [name for name in METHOD_TITLES if name in found or name in TRAINING_FREE]


def given_seeds(text: str = "") -> list[int]:
    """Seeds from a notebook's parameter, "0, 1, 2"; "" takes those that all given methods have, or those that ship."""
    if text.strip():
        return [int(part) for part in text.split(",")]
    by_method: dict[str, set[int]] = {}
    for one in _BENCH.networks:
        by_method.setdefault(one.method, set()).add(one.seed)
    if not by_method:
        return list(SEEDS)
    return sorted(set.intersection(*by_method.values()) or set.union(*by_method.values()))


def segmenter(method: str, seed: int, source: str = "") -> Any:
    """A method with the weights of a seed, as the networks see test scenes of a source.

    Training-free ones stand on the same backbones.

    Raises:
        InputError: there is no such network.
        WeightsError: its weights, or its backbones', aren't there.
    """
    return _loaded(method, seed, None if method in TRAINING_FREE else network_for(method, seed, source))


@lru_cache(maxsize=24)
def _loaded(method: str, seed: int, network: TrainedNetwork | None) -> Any:
    if network is not None:
        return trained_segmenter(network, _BENCH.device)
    if method in NAMES:
        from rsovlib.fusion.segmenter import make_fusion_segmenter

        name = weights_name(method, seed)
        return make_fusion_segmenter(
            method, device=_BENCH.device, weights=name, window=0, batch=_BATCH, keep_stages=False
        )
    from rsovlib.segmenters.api import make_segmenter

    profile, backbones = ("full", _BENCH.networks[0].backbones) if _BENCH.networks else ("embedded", BACKBONES[seed])
    (clip, clip_weights), (dino, dino_weights) = (split_name(name) for name in backbones)
    return make_segmenter(
        method,
        profile=profile,
        device=_BENCH.device,
        clip=clip,
        clip_weights=clip_weights,
        dino=dino,
        dino_weights=dino_weights,
    )


def trained_segmenter(network: TrainedNetwork, device: str = "cpu") -> Any:
    """A trained network as the papers evaluate it: the image resized to the training's short side, and seen whole."""
    from rsovlib.fusion.segmenter import FusionOptions, FusionSegmenter
    from rsovlib.fusion.weights import load_fusion

    loaded = load_fusion(network.path, device)
    side = network.record["recipe"]["samples"]["side"]
    return FusionSegmenter(
        loaded, network.method, FusionOptions(short_side=side, window=0, batch=_BATCH, keep_stages=False)
    )


def why_not(method: str, seed: int, source: str) -> str:
    """Why a method can't be scored on a source, one sentence; "" if it can."""
    try:
        segmenter(method, seed, source)
    except RsovError as error:
        return str(error)
    return ""


# ---- scores ----------------------------------------------------------------------------------------------------------


def score(method: str, seed: int, suite: str, condition: Condition = PLAIN, count: int = SCENES) -> Score:
    """Score a method on test scenes.

    Args:
        method: of :func:`available_methods`.
        seed: of its weights.
        suite: source of the scenes: name of a suite, or ``"datasets/NAME/PROTOCOL"``.
        condition: how its scenes are shown.
        count: number of scenes; 0 takes all.

    Returns:
        The counts, image by image.
    """
    return _remembered(method, seed, suite, condition, count)


@lru_cache(maxsize=4096)
def _remembered(method: str, seed: int, suite: str, condition: Condition, count: int) -> Score:
    made = segmenter(method, seed, suite)
    weights = _weights(made)
    path = _kept(method, seed, suite, condition, count, weights)
    if path is not None and path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        counts = SegmentationMetrics.from_state_dict(content["counts"])
        calibration = CalibrationError.from_state_dict(content["calibration"])
    else:
        counts, calibration = score_network(made, suite, condition, count)
        if path is not None:
            content = {"counts": counts.state_dict(), "calibration": calibration.state_dict()}
            with write_beside(path) as temporary:
                temporary.write_text(json.dumps(content), encoding="utf-8")
    dataset, note = row_dataset(suite, count, (method,), seed), ""
    network = None if method in TRAINING_FREE else network_for(method, seed, suite)
    if network is not None:
        note = "; ".join(part for part in (network.unlike_paper, network.stand_ins) if part)
    device = str(getattr(getattr(made, "device", None), "type", "cpu"))
    return Score(method, seed, suite, condition, counts, calibration, weights, dataset, device, note)


def row_dataset(source: str, count: int = 0, methods: Sequence[str] = (), seed: int = 0) -> str:
    """What result rows call the scenes of a source, and the networks that are scored on them.

    A part of a published set, and networks of another recipe than the paper's, are not the paper's: their rows must not
    be compared with its numbers, and the name says so.
    """
    networks = [network_for(method, seed, source) for method in methods if method not in TRAINING_FREE]
    own = any(one is not None and one.unlike_paper for one in networks)
    if _BENCH.networks and set(methods) & set(TRAINING_FREE):
        own = own or _BENCH.networks[0].backbones[0] != ARCHITECTURES["vit-b"].clip
    return f"{dataset_of(source, count)}{' (own recipe)' if own else ''}"


def row_fields(source: str, count: int, methods: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Fields of a result row about scenes and networks: ``dataset``, ``n`` and ``device``."""
    n = len(scenes_of(source).places(count, "test"))
    return {"dataset": row_dataset(source, count, methods, seed), "n": n, "device": _BENCH.device.partition(":")[0]}


def score_network(
    made: Any, suite: str, condition: Condition = PLAIN, count: int = SCENES
) -> tuple[SegmentationMetrics, CalibrationError]:
    """The counts of any segmenter, of networks just trained too.

    Args:
        made: a segmenter; one with ``segment_batch`` takes several scenes at once.
        suite: source of the scenes.
        condition: how its scenes are shown.
        count: number of scenes; 0 takes all.
    """
    source = scenes_of(suite)
    counts = SegmentationMetrics(
        source.classes,
        unseen=source.unseen,
        boundary_tolerance=None,
        boundary_width=None,
        strata=("clear", "cloudy"),
        keep_images=True,
    )
    calibration = CalibrationError(len(source.classes))
    prompts = words_for(made, suite)
    scenes = shown_scenes(suite, condition, count)
    for start in range(0, len(scenes), _BATCH):
        part = scenes[start : start + _BATCH]
        for scene, result in zip(part, _segment(made, part, prompts), strict=True):
            strata = (scene.opacity > 0.5).astype(np.uint8)
            counts.update(result.labels, scene.labels, image=scene.name, strata=strata)
            calibration.update(result.probabilities, scene.labels)
    return counts, calibration


def words_for(made: Any, source: str) -> list[str]:
    """The words that a segmenter is asked with, in the spelling of its reading."""
    readings = getattr(getattr(getattr(made, "network", None), "config", None), "readings", None)
    return scenes_of(source).prompts(plain=readings is None or readings.plain_class_names)


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
    named = [name for name in ("weights", "clip", "dino", "radar_dino") if settings.get(name)]
    # A radar's encoder that CMU has distilled lies within the network's own file.
    return {str(settings[name]): str(settings.get(f"{name}_sha256", "")) for name in named}


def _kept(method: str, seed: int, suite: str, condition: Condition, count: int, weights: dict[str, str]) -> Path | None:
    if _BENCH.folder is None:
        return None
    facts = [method, seed, suite, asdict(condition), count, weights, scenes_of(suite).version]
    text = json.dumps([*facts, rsovlib.__version__], sort_keys=True)
    name = suite.replace("/", "_")
    return _BENCH.folder / f"{method}-{seed}-{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


# ---- over seeds ------------------------------------------------------------------------------------------------------


def pooled(
    method: str, suite: str, condition: Condition = PLAIN, count: int = SCENES, seeds: Sequence[int] = SEEDS
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
    condition: Condition = PLAIN,
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
    condition: Condition = PLAIN,
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
