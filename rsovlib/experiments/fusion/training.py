"""Trainings, step by step: pairs, SAR encoders, networks; a seed of the embedded experiment, or a real training set.

The training notebook calls :func:`training_job`, which settles what is trained in which profile, and then the same
functions in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rsovlib.backbones import ClipBackbone, DinoBackbone
from rsovlib.backbones.checkpoints import sha256_of
from rsovlib.errors import InputError, unknown_name
from rsovlib.experiments.fusion.recipe import (
    ARCHITECTURES,
    METHODS,
    WITH_CMU,
    WITH_SAR_CLIP,
    ExperimentRecipe,
    named_readings,
    network_config,
)
from rsovlib.experiments.fusion.settings import TRAIN_SUITES, training_sets
from rsovlib.experiments.fusion.sources import open_pool, parse_sources
from rsovlib.experiments.identity import digest
from rsovlib.fusion.cmu import Distilled, copied, distil, plain
from rsovlib.fusion.config import FusionConfig
from rsovlib.fusion.fabric_loop import lasting
from rsovlib.fusion.named import load_named_clip, load_named_dino
from rsovlib.fusion.network import CostAggregationNetwork
from rsovlib.fusion.pairs import PairPool, TrainLabels, suite_pool
from rsovlib.fusion.stage2 import fit, start_aligned
from rsovlib.fusion.weights import encoder_record, load_encoder

if TYPE_CHECKING:
    from rsovlib.fusion.ebseg import EBSegNetwork

_HELD_OUT = 32
SUITE_SCENES = (300, 160)
"""Simulated scenes of a suite, and their side in pixels, for full-size networks where no real set is at hand."""
PROFILES = ("embedded", "full")
SAR_DINO, SAR_CLIP = "sar-dino.safetensors", "sar-clip.safetensors"
"""Files of distilled encoders, in the folder of their run."""


@dataclass
class Encoders:
    """A seed's frozen backbones, and what CMU made of them.

    Attributes:
        clip, dino: of the optical image.
        sar_dino: the distilled one with its history and retrieval; None where no method asked for it.
        sar_clip: likewise.
    """

    clip: ClipBackbone
    dino: DinoBackbone
    sar_dino: Distilled[DinoBackbone] | None = None
    sar_clip: Distilled[ClipBackbone] | None = None

    def distilled(self) -> dict[str, Distilled[Any]]:
        """What was distilled in this very run, by the name of its kind."""
        both: dict[str, Distilled[Any] | None] = {"DINO": self.sar_dino, "CLIP": self.sar_clip}
        return {name: one for name, one in both.items() if one is not None and one.history}


@dataclass
class TrainedMethod:
    """A network and its history.

    Attributes:
        method: its name.
        network: trained, in evaluation mode.
        history: see :func:`rsovlib.fusion.fabric_loop.train`.
    """

    method: str
    network: CostAggregationNetwork | EBSegNetwork
    history: list[dict[str, float]]


@dataclass
class TrainedSeed:
    """Everything of one seed.

    Attributes:
        seed: of backbones, weights and samples.
        recipe: with the seed.
        encoders: the frozen networks.
        methods: by name.
        job: what was asked for; None for the embedded experiment.
    """

    seed: int
    recipe: ExperimentRecipe
    encoders: Encoders
    methods: dict[str, TrainedMethod] = field(default_factory=dict)
    job: TrainingJob | None = None


# ---- what is trained -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingJob:
    """One run of the training notebook.

    Attributes:
        profile: "embedded": all methods of a seed on the suites; "full": methods on one real training set.
        recipe: how.
        pools: training pairs.
        methods: of :data:`rsovlib.experiments.fusion.recipe.METHODS`.
        seed: of weights and samples; in the embedded profile of the backbones, too.
        train: the training set by its name; "" for the embedded experiment's own suites.
        readings: of :data:`rsovlib.experiments.fusion.recipe.READINGS`.
        cmu: folders of distilled encoders; none where they are distilled here.
    """

    profile: str
    recipe: ExperimentRecipe
    pools: tuple[PairPool, ...]
    methods: tuple[str, ...]
    seed: int
    train: str = ""
    readings: str = "corrected"
    cmu: tuple[Path, ...] = ()

    def story(self) -> str:
        """What is trained, on what, and for how long, in words."""
        lines = [f"{pool.name}: {len(pool.pairs)} pairs, {'; '.join(pool.classes)}" for pool in self.pools]
        for method in self.methods:
            stage2, loop = self.recipe.of_method(method)
            lines.append(
                f"{method}: {loop.steps:,} steps of {stage2.batch} samples of {stage2.samples.side} pixels, highest "
                f"rate {loop.rate:g}"
            )
        return "\n".join([*lines, f"backbones: {', '.join(self.recipe.backbones_of(self.seed))}"])

    def run(self, folder: Path, *, progress: bool = True) -> TrainedSeed:
        """Trains everything; a stopped run goes on where it was.

        Args:
            folder: where checkpoints go.
            progress: show bars.
        """
        if not self.train:
            return train_seed(self.seed, self.methods, self.recipe, folder, pools=self.pools, progress=progress)
        if self.recipe.threads is not None:
            torch.set_num_threads(self.recipe.threads)
        encoders = self._encoders()
        found = TrainedSeed(self.seed, self.recipe.with_seed(self.seed), encoders, job=self)
        for method in self.methods:
            config = None
            if method != "ebseg":
                config = network_config(method, self.recipe.architecture, self.readings)
            found.methods[method] = train_method(
                method,
                self.pools,
                encoders,
                self.recipe,
                self.seed,
                folder,
                config=config,
                label=self.checkpoint_of(method),
                progress=progress,
            )
        return found

    def checkpoint_of(self, method: str) -> str:
        """Name of a method's checkpoint, which tells it from those of other runs in the same folder."""
        stage2, loop = self.recipe.of_method(method)
        facts = {
            "train": [self.train, [len(pool.pairs) for pool in self.pools]],
            "network": [self.recipe.architecture, self.recipe.backbones, self.readings],
            "recipe": [plain(stage2), lasting(loop)],
            "cmu": [sha256_of(path) for path in self._files()],
        }
        return f"{method}-{digest(facts)[:12]}"

    def forget_checkpoints(self, folder: Path) -> None:
        """Removes the checkpoints of a real training set's networks; for when they themselves are written."""
        if self.train:
            for method in self.methods:
                _checkpoint_file(folder, self.checkpoint_of(method), self.seed).unlink(missing_ok=True)

    def cmu_record(self, kind: str) -> dict[str, Any] | None:
        """What a given encoder's file says of its distillation; None where none is given."""
        for path in self._files():
            content = encoder_record(path)
            if content["kind"] == kind:
                return dict(content["record"])
        return None

    def _files(self) -> list[Path]:
        return [folder / name for folder in self.cmu for name in (SAR_DINO, SAR_CLIP) if (folder / name).is_file()]

    def _encoders(self) -> Encoders:
        """The frozen networks, with the SAR encoders of the given folders."""
        _check_methods(self.methods)
        clip_name, dino_name = self.recipe.backbones_of(self.seed)
        found = Encoders(load_named_clip(clip_name, "cpu"), load_named_dino(dino_name, "cpu"))
        for path in self._files():
            if path.name == SAR_DINO:
                found.sar_dino = Distilled(load_encoder(path, found.dino), [], [], [], [], [])
            else:
                found.sar_clip = Distilled(load_encoder(path, found.clip), [], [], [], [], [])
        for methods, given, kind in ((WITH_CMU, found.sar_dino, "dino"), (WITH_SAR_CLIP, found.sar_clip, "clip")):
            asking = [method for method in self.methods if method in methods]
            if asking and given is None:
                raise InputError(
                    f"{', '.join(asking)} needs a SAR encoder that CMU has distilled; give cmu= the folder of a run of "
                    f"mm-ovseg-cmu with encoder={kind!r}."
                )
        return found


def training_job(
    profile: str = "embedded",
    *,
    seed: int = 0,
    methods: str | Sequence[str] = "",
    share: float = 1.0,
    train: str = "",
    readings: str = "corrected",
    train_labels: TrainLabels = "auto",
    limit: int = 0,
    cmu: Sequence[str | Path] = (),
    progress: bool = True,
    **recipe: Any,
) -> TrainingJob:
    """Settles what a run trains; nothing is trained yet.

    Args:
        profile: "embedded" or "full".
        seed: 0, 1 or 2 in the embedded profile.
        methods: "cat-seg, gsnet"; all without CMU's further targets if not given.
        share: of the embedded recipe's steps and scenes.
        train: real training set, ``"datasets/NAME/PROTOCOL"``; in the full profile the paper's second setting if not
            given, in the embedded one always the suites.
        readings: of :data:`rsovlib.experiments.fusion.recipe.READINGS`.
        train_labels: see :data:`rsovlib.fusion.pairs.TrainLabels`.
        limit: take only so many pairs, spread evenly; 0 takes all.
        cmu: folders with distilled encoders.
        progress: show a bar where pairs are made.
        **recipe: of the full profile, see :meth:`rsovlib.experiments.fusion.recipe.ExperimentRecipe.full`.

    Raises:
        InputError: an unknown profile, method, reading or training set, or one that isn't on this machine.
    """
    if profile not in PROFILES:
        raise unknown_name("profile", profile, PROFILES)
    chosen = [name.strip() for name in methods.split(",") if name.strip()] if isinstance(methods, str) else [*methods]
    chosen = chosen or ["cat-seg", "gsnet", "ebseg", "mm-ovseg-no-cmu", "mm-ovseg"]
    _check_methods(chosen)
    if profile == "embedded":
        small = ExperimentRecipe() if share == 1 else ExperimentRecipe().shorter(share)
        pools = training_pools(small, progress=progress)
        return TrainingJob(profile, small, tuple(pools), tuple(chosen), seed)
    if "ebseg" in chosen and readings != "corrected":
        raise InputError("EBSeg isn't MM-OVSeg's, and has no readings; train it with readings='corrected'.")
    made = ExperimentRecipe.full(**recipe)
    name, plain_names = train or training_sets()[1], named_readings(readings).plain_class_names
    options: dict[str, Any] = {"plain_names": plain_names, "train_labels": train_labels, "limit": limit}
    sources = parse_sources(name)
    pools = [
        open_pool(one, scenes=SUITE_SCENES[0], side=SUITE_SCENES[1], progress=progress, **options) for one in sources
    ]
    if any(one.kind == "suites" for one in sources):  # whose images are clear until clouds are drawn
        samples = replace(made.stage2.samples, cover=(0.0, 1.0))
        made = replace(made, stage2=replace(made.stage2, samples=samples))
    return TrainingJob(profile, made, tuple(pools), tuple(chosen), seed, name, readings, tuple(map(Path, cmu)))


def _check_methods(methods: Sequence[str]) -> None:
    for method in methods:
        if method not in METHODS:
            raise unknown_name("method of the experiment", method, METHODS)


# ---- step by step ----------------------------------------------------------------------------------------------------


def training_pools(recipe: ExperimentRecipe, *, progress: bool = True) -> list[PairPool]:
    """The labelled pairs of the training suites: seen classes only."""
    return [suite_pool(name, recipe.scenes, recipe.scene_side, progress=progress) for name in TRAIN_SUITES]


def held_out_pool(recipe: ExperimentRecipe, *, progress: bool = True) -> PairPool:
    """Validation pairs on which retrieval is reported."""
    return suite_pool(TRAIN_SUITES[0], _HELD_OUT, recipe.scene_side, "validation", progress=progress)


def train_encoders(
    pools: Sequence[PairPool],
    held_out: PairPool,
    recipe: ExperimentRecipe,
    seed: int,
    methods: Sequence[str],
    folder: Path | None = None,
    *,
    progress: bool = True,
) -> Encoders:
    """Distils the SAR encoders that the methods need.

    Args:
        pools: pairs to distil on; their labels aren't looked at.
        held_out: pairs for the retrieval report.
        recipe: how.
        seed: which pair of backbones, and of the samples.
        methods: of :data:`METHODS`.
        folder: where checkpoints go; None keeps none.
        progress: show bars.
    """
    _check_methods(methods)
    recipe = recipe.with_seed(seed)
    clip_name, dino_name = recipe.backbones_of(seed)
    found = Encoders(load_named_clip(clip_name, "cpu"), load_named_dino(dino_name, "cpu"))
    options: dict[str, Any] = {"held_out": held_out, "progress": progress}
    if set(methods) & set(WITH_CMU):
        path = _checkpoint(folder, "cmu-dino", seed)
        found.sar_dino = distil(found.dino, pools, recipe.cmu, recipe.cmu_loop, checkpoint=path, **options)
    if set(methods) & set(WITH_SAR_CLIP):
        path = _checkpoint(folder, "cmu-clip", seed)
        found.sar_clip = distil(found.clip, pools, recipe.cmu, recipe.cmu_loop, checkpoint=path, **options)
    return found


def build_network(
    method: str,
    encoders: Encoders,
    seed: int,
    config: FusionConfig | None = None,
    *,
    architecture: str = "tiny",
    size: int = 0,
) -> CostAggregationNetwork | EBSegNetwork:
    """An untrained network of a method.

    Args:
        method: of :data:`METHODS`.
        encoders: the frozen networks.
        seed: of the new layers' first weights.
        config: another one than the method's own, for other readings.
        architecture: of :data:`ARCHITECTURES`.
        size: side in pixels of the images that it is trained on; 0 takes the architecture's own.
    """
    torch.manual_seed(seed)
    if method == "ebseg":
        from rsovlib.fusion.ebseg import EBSegNetwork

        own = ARCHITECTURES[architecture].ebseg
        return EBSegNetwork(replace(own, size=size or own.size), encoders.clip, encoders.dino)
    config = config or network_config(method, architecture)
    config = replace(config, size=size or config.size)
    optical = encoders.dino if config.optical_dino else None
    radar = None
    if config.sar_dino:
        distilled = encoders.sar_dino if method in WITH_CMU else None
        # Without CMU the radar's encoder is the optical one, weights and name.
        radar = distilled.encoder if distilled else replace(encoders.dino, model=copied(encoders.dino).model)
        radar.model.requires_grad_(False)
    radar_clip = encoders.sar_clip.encoder if config.sar_clip and encoders.sar_clip else None
    network = CostAggregationNetwork(config, encoders.clip, optical, radar, radar_clip)
    start_aligned(network)
    return network


def train_method(
    method: str,
    pools: Sequence[PairPool],
    encoders: Encoders,
    recipe: ExperimentRecipe,
    seed: int,
    folder: Path | None = None,
    *,
    config: FusionConfig | None = None,
    label: str | None = None,
    progress: bool = True,
) -> TrainedMethod:
    """Trains one network.

    Args:
        method: of :data:`METHODS`.
        pools: labelled pairs.
        encoders: the frozen networks.
        recipe: how.
        seed: of weights and samples.
        folder: where the checkpoint goes; None keeps none.
        config: as for :func:`build_network`.
        label: name of the checkpoint; the method's if not given.
        progress: show a bar.
    """
    recipe = recipe.with_seed(seed)
    stage2, loop = recipe.of_method(method)
    size = stage2.samples.side
    network = build_network(method, encoders, seed, config, architecture=recipe.architecture, size=size)
    path = _checkpoint(folder, label or method, seed)
    history = fit(network, pools, stage2, loop, checkpoint=path, progress=progress)
    return TrainedMethod(method, network, history)


def train_seed(
    seed: int,
    methods: Sequence[str],
    recipe: ExperimentRecipe | None = None,
    folder: Path | None = None,
    *,
    pools: Sequence[PairPool] | None = None,
    progress: bool = True,
) -> TrainedSeed:
    """All trainings of one seed, on one thread; a stopped run goes on where it was.

    Args:
        seed: 0, 1 or 2.
        methods: of :data:`METHODS`.
        recipe: how; the experiment's own if not given.
        folder: where checkpoints go; None keeps none.
        pools: training pairs; made if not given.
        progress: show bars.
    """
    recipe = recipe or ExperimentRecipe()
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    pools = pools or training_pools(recipe, progress=progress)
    held_out = held_out_pool(recipe, progress=progress)
    encoders = train_encoders(pools, held_out, recipe, seed, methods, folder, progress=progress)
    found = TrainedSeed(seed, recipe.with_seed(seed), encoders)
    for method in methods:
        found.methods[method] = train_method(method, pools, encoders, recipe, seed, folder, progress=progress)
    return found


def cpu_seconds(trained: TrainedSeed) -> Mapping[str, float]:
    """CPU time of each training of a seed."""
    spent = {name: one.history[-1]["cpu_seconds"] for name, one in trained.methods.items()}
    for name, one in trained.encoders.distilled().items():
        spent[f"CMU on {name}"] = one.history[-1]["cpu_seconds"]
    return spent


def _checkpoint(folder: Path | None, name: str, seed: int) -> Path | None:
    return None if folder is None else _checkpoint_file(folder, name, seed)


def _checkpoint_file(folder: Path, name: str, seed: int) -> Path:
    return folder / f"{name}-{seed}.ckpt"
