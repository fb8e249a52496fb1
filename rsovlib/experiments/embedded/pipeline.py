"""The steps of making one pair of embedded models, in their order; the training notebook calls these."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsovlib.backbones.clip import ClipBackbone
from rsovlib.backbones.dino import DinoBackbone
from rsovlib.data.scenes import SCENE_VERSION
from rsovlib.experiments.embedded.alignment import fit_alignment
from rsovlib.experiments.embedded.clip_training import train_clip
from rsovlib.experiments.embedded.dino_training import train_dino
from rsovlib.experiments.embedded.imagery import DUBAI_TRAIN, dubai_parts, optical_tiles, training_labels
from rsovlib.experiments.embedded.recipe import (
    SIDE,
    TRAIN_SEEDS,
    ClipRecipe,
    DataRecipe,
    DinoRecipe,
)
from rsovlib.experiments.embedded.samples import Pool, draw_batch, real_pool, scene_pool

_ALIGNMENT_SCENES = 60
_ALIGNMENT_REAL = 36


@dataclass(frozen=True)
class TrainingData:
    """What a training sees.

    Attributes:
        scenes: simulated scenes, labelled.
        labelled: labelled real images, or None.
        unlabelled: real images for the parts that need no labels, the labelled ones among them, or None.
        note: one sentence that says what there is.
    """

    scenes: Pool
    labelled: Pool | None
    unlabelled: Pool | None
    note: str


@dataclass
class TrainedPair:
    """A CLIP and a DINO that go together.

    Attributes:
        clip, dino: the models; the DINO holds its alignment with CLIP's space.
        seed: of both trainings.
        log: loss curves, and what was spent.
    """

    clip: ClipBackbone
    dino: DinoBackbone
    seed: int
    log: dict[str, Any] = field(default_factory=dict)


def gather_data(recipe: DataRecipe, real_imagery: str = "", unlabelled_imagery: str = "") -> TrainingData:
    """Makes the scenes and reads the real images.

    Args:
        recipe: how many scenes.
        real_imagery: path of the Dubai zip file, or "" to train on simulated scenes alone.
        unlabelled_imagery: folder of optical GeoTIFFs for the DINO, or "".

    Returns:
        The data.
    """
    scenes = scene_pool(recipe.scenes, recipe.side, TRAIN_SEEDS, recipe.workers)
    note = f"{recipe.scenes} simulated scenes (version {SCENE_VERSION})"
    labelled, images = None, []
    if real_imagery:
        parts = dubai_parts(Path(real_imagery), DUBAI_TRAIN)
        images = [image for _, image, _ in parts]
        labelled = real_pool(images, [training_labels(labels) for _, _, labels in parts])
        note += f", {len(parts)} labelled parts of Dubai tiles {', '.join(map(str, DUBAI_TRAIN))}"
    if unlabelled_imagery:
        tiles = optical_tiles(Path(unlabelled_imagery))
        images = images + tiles
        note += f", {len(tiles)} unlabelled optical tiles for the DINO"
    return TrainingData(scenes, labelled, real_pool(images) if images else None, note + ".")


def train_pair(
    data: TrainingData, clip_recipe: ClipRecipe, dino_recipe: DinoRecipe, seed: int, folder: Path | None = None
) -> TrainedPair:
    """Trains both models and aligns them.

    Args:
        data: from :func:`gather_data`.
        clip_recipe: how the CLIP is trained.
        dino_recipe: how the DINO is trained.
        seed: of both.
        folder: where progress is kept, so that a stopped run goes on; None keeps none.

    Returns:
        The pair.
    """
    torch.set_num_threads(1)  # two contending threads are slower than one
    clip, clip_log = train_clip(data.scenes, data.labelled, clip_recipe, seed, _checkpoint(folder, "clip", seed))
    dino, dino_log = train_dino(data.scenes, data.unlabelled, dino_recipe, seed, _checkpoint(folder, "dino", seed))
    pair = TrainedPair(clip, dino, seed, {"data": data.note, "clip": clip_log, "dino": dino_log})
    align_pair(pair, data)
    return pair


def align_pair(pair: TrainedPair, data: TrainingData) -> list[float]:
    """Gives the pair's DINO its maps into CLIP's space, fitted on unlabelled crops of the training images.

    Returns:
        The share of variance that each layer's map explains.
    """
    began = time.process_time()
    weight, bias, explained = fit_alignment(pair.clip, pair.dino, alignment_images(data, pair.seed))
    pair.dino.alignment = (weight, bias)
    pair.log["alignment"] = {"explained": explained, "cpu_seconds": time.process_time() - began}
    return explained


def alignment_images(data: TrainingData, seed: int) -> torch.Tensor:
    """Crops for the alignment, (B, 3, 128, 128) in [0, 1]: scenes, and real images where there are some."""
    rng = np.random.default_rng([seed, 3])
    parts = [draw_batch(rng, data.scenes, count, 2 * SIDE).images for count in _thirds(_ALIGNMENT_SCENES)]
    if data.unlabelled is not None:
        parts += [draw_batch(rng, data.unlabelled, count, 2 * SIDE).images for count in _thirds(_ALIGNMENT_REAL)]
    return torch.cat(parts)


def _thirds(count: int) -> Sequence[int]:
    """Three draws in place of one, since all crops of a draw share their scale."""
    return [count // 3] * 3


def _checkpoint(folder: Path | None, kind: str, seed: int) -> Path | None:
    return None if folder is None else folder / f"{kind}-{seed}.ckpt"
