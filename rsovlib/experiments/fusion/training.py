"""One seed's trainings, step by step: pairs, SAR encoders, networks.  The training notebook calls these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rsovlib.backbones import ClipBackbone, DinoBackbone, load_clip, load_dino
from rsovlib.errors import unknown_name
from rsovlib.experiments.fusion.recipe import (
    BACKBONES,
    METHODS,
    TRAIN_SUITES,
    WITH_CMU,
    WITH_SAR_CLIP,
    ExperimentRecipe,
    network_config,
)
from rsovlib.fusion.cmu import CMURecipe, Distilled, copied, distil
from rsovlib.fusion.config import FusionConfig
from rsovlib.fusion.network import CostAggregationNetwork
from rsovlib.fusion.pairs import PairPool, suite_pool
from rsovlib.fusion.stage2 import fit, start_aligned

if TYPE_CHECKING:
    from rsovlib.fusion.ebseg import EBSegNetwork

_HELD_OUT = 32


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
    """

    seed: int
    recipe: ExperimentRecipe
    encoders: Encoders
    methods: dict[str, TrainedMethod] = field(default_factory=dict)


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
    for method in methods:
        if method not in METHODS:
            raise unknown_name("method of the experiment", method, METHODS)
    recipe = recipe.with_seed(seed)
    clip_name, dino_name = BACKBONES[seed]
    found = Encoders(load_clip(clip_name, device="cpu"), load_dino(dino_name, device="cpu"))
    options: dict[str, Any] = {"held_out": held_out, "progress": progress}
    if set(methods) & set(WITH_CMU):
        path = _checkpoint(folder, "cmu-dino", seed)
        found.sar_dino = distil(found.dino, pools, recipe.cmu, recipe.cmu_loop, checkpoint=path, **options)
    if set(methods) & set(WITH_SAR_CLIP):
        path = _checkpoint(folder, "cmu-clip", seed)
        on_clip: CMURecipe = recipe.cmu
        found.sar_clip = distil(found.clip, pools, on_clip, recipe.cmu_loop, checkpoint=path, **options)
    return found


def build_network(
    method: str, encoders: Encoders, seed: int, config: FusionConfig | None = None
) -> CostAggregationNetwork | EBSegNetwork:
    """An untrained network of a method.

    Args:
        method: of :data:`METHODS`.
        encoders: the frozen networks.
        seed: of the new layers' first weights.
        config: another one than the method's own, for other readings.
    """
    torch.manual_seed(seed)
    if method == "ebseg":
        from rsovlib.fusion.ebseg import EBSegConfig, EBSegNetwork

        return EBSegNetwork(EBSegConfig.embedded(), encoders.clip, encoders.dino)
    config = config or network_config(method)
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
    network = build_network(method, encoders, seed, config)
    path = _checkpoint(folder, label or method, seed)
    history = fit(network, pools, recipe.stage2, recipe.loop, checkpoint=path, progress=progress)
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
    torch.set_num_threads(1)  # two contending threads are slower than one
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
    for name, one in (("CMU on DINO", trained.encoders.sar_dino), ("CMU on CLIP", trained.encoders.sar_clip)):
        if one is not None:
            spent[name] = one.history[-1]["cpu_seconds"]
    return spent


def _checkpoint(folder: Path | None, name: str, seed: int) -> Path | None:
    return None if folder is None else folder / f"{name}-{seed}.ckpt"
