"""Stage 1 of MM-OVSeg, cross-modal unification: a SAR encoder distilled from a frozen optical one, without labels.

The teacher sees the cloud-free optical image, the student the radar of the same place through the same geometric
transform; the student starts as the teacher's copy, and InfoNCE pulls its tokens at several depths to the teacher's
tokens of the same place.  The paper's training code isn't released; this is the reconstruction that its text allows
(loss, multi-scale tokens, frozen teacher), with the open choices in :class:`CMURecipe`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import nn

from rsovlib.backbones.clip import ClipBackbone
from rsovlib.backbones.dino import DinoBackbone
from rsovlib.backbones.pixels import normalise
from rsovlib.errors import InputError
from rsovlib.fusion.augment import FusionBatch, SampleRule, draw_batch, draw_from
from rsovlib.fusion.fabric_loop import LoopSettings, ParameterGroup, train
from rsovlib.fusion.infonce import (
    ContrastRule,
    Retrieval,
    multiscale_infonce,
    retrieval,
    sample_positions,
    take_positions,
)
from rsovlib.fusion.pairs import PairPool

Backbone = TypeVar("Backbone", DinoBackbone, ClipBackbone)
COPIED = " (SAR)"
"""What a distilled encoder's name ends with."""
Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True)
class CMURecipe:
    """How the SAR encoder is distilled.

    Attributes:
        blocks: blocks (from 0) whose tokens are compared; the fusion network reads the same. Those of the paper are
            3, 7 and 11 of twelve; (B, N, D) each, after the final normalisation for DINO, raw for CLIP.
        positions: places of each image that are compared.
        contrast: temperature, negatives, direction, tokens or means.
        projection: put a linear map (the identity at first) behind the student's tokens of each depth while training.
            The fusion network reads tokens without it, so none is the default.
        batch: pairs a step, shared out over the devices; negatives are those of a device's own pairs.
        samples: how pairs are cut; without clouds and colour jitter.
    """

    blocks: tuple[int, ...]
    positions: int = 256
    contrast: ContrastRule = field(default_factory=ContrastRule)
    projection: bool = False
    batch: int = 64
    samples: SampleRule = field(default_factory=lambda: SampleRule(cover=None, jitter=False))


class Tokens(nn.Module):
    """Patch tokens of a backbone at some of its blocks, as a module that Fabric can wrap.

    Args:
        backbone: a DINO or a CLIP.
        blocks: which, from 0.
        statistics: mean and standard deviation of RGB in [0, 1]; the backbone's own if not given.

    Raises:
        InputError: a block that the backbone doesn't have.
    """

    def __init__(
        self, backbone: DinoBackbone | ClipBackbone, blocks: Sequence[int], statistics: Statistics | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.blocks = tuple(blocks)
        self.mean, self.std = statistics or (backbone.mean, backbone.std)
        # A CLIP's text tower takes no part.
        self.net: nn.Module = backbone.model if isinstance(backbone, DinoBackbone) else _visual(backbone)
        depth = backbone.depth if isinstance(backbone, DinoBackbone) else len(backbone.blocks)
        if not self.blocks or not all(0 <= block < depth for block in self.blocks):
            raise InputError(f"{backbone.name} has blocks 0 to {depth - 1}, not {list(self.blocks)}.")

    def forward(self, rgb: torch.Tensor) -> list[torch.Tensor]:
        """Images (B, 3, H, W) in [0, 1] -> (B, N, D) a block."""
        pixels = normalise(rgb, self.mean, self.std)
        if isinstance(self.backbone, DinoBackbone):
            layers, _ = self.backbone.layers(pixels)
        else:
            layers = [step.output[:, 1:] for step in self.backbone.walk(self.backbone.embed(pixels))]
        return [layers[block] for block in self.blocks]


class CMUObjective(nn.Module):
    """The loss of a batch of pairs.

    Args:
        teacher: tokens of the optical image; never trained.
        student: tokens of the radar image.
        recipe: how they are compared.
    """

    def __init__(self, teacher: Tokens, student: Tokens, recipe: CMURecipe) -> None:
        super().__init__()
        self.teacher = teacher.requires_grad_(False)
        self.student = student.requires_grad_(True)
        self.recipe = recipe
        heads = (
            [nn.Linear(student.backbone.width, student.backbone.width) for _ in recipe.blocks]
            if recipe.projection
            else []
        )
        for head in heads:
            nn.init.eye_(head.weight)
            nn.init.zeros_(head.bias)
        self.heads = nn.ModuleList(heads)

    def train(self, mode: bool = True) -> CMUObjective:
        """Everything but the teacher, which always stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, batch: FusionBatch) -> dict[str, torch.Tensor]:
        """The loss of the batch's ``optical`` and ``sar``."""
        with torch.no_grad():
            keys = self.teacher(batch.optical)
        queries = self.student(batch.sar)
        if self.heads:
            queries = [head(tokens) for head, tokens in zip(self.heads, queries, strict=True)]
        images, tokens = keys[0].shape[:2]
        places = sample_positions(images, tokens, self.recipe.positions, keys[0].device)
        return {"loss": multiscale_infonce(queries, keys, self.recipe.contrast, places)}


@dataclass
class Distilled(Generic[Backbone]):
    """A SAR encoder and how it came about.

    Attributes:
        encoder: the student, frozen, in evaluation mode.
        history: of the loss; see :func:`rsovlib.fusion.fabric_loop.train`.
        before, after: retrieval on held-out pairs, an entry a block: of the teacher's copy, and of the student.
        across_before, across_after: the same among the tokens at one position of all images.
    """

    encoder: Backbone
    history: list[dict[str, float]]
    before: list[Retrieval]
    after: list[Retrieval]
    across_before: list[Retrieval]
    across_after: list[Retrieval]


def distil(
    teacher: Backbone,
    pools: Sequence[PairPool],
    recipe: CMURecipe,
    loop: LoopSettings,
    *,
    held_out: PairPool | None = None,
    statistics: Statistics | None = None,
    checkpoint: Path | None = None,
    progress: bool = True,
) -> Distilled[Backbone]:
    """Distils a SAR encoder.

    Args:
        teacher: the optical DINO (or, for Table A5, CLIP); it isn't changed.
        pools: pairs to train on, each as likely.
        recipe: what is compared with what.
        loop: optimiser steps and the rest.
        held_out: pairs to report retrieval on; none are reported without.
        statistics: image mean and deviation for both; the teacher's own if not given.
        checkpoint: where progress is kept.
        progress: show a bar.

    Returns:
        The student with its history and retrieval.
    """
    student = copied(teacher)
    optical, radar = (Tokens(backbone, recipe.blocks, statistics) for backbone in (teacher, student))
    before, across_before = report_retrieval(optical, radar, held_out, recipe) if held_out else ([], [])
    objective = CMUObjective(optical, radar, recipe)
    trained = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    history = train(
        objective,
        [ParameterGroup("student", trained)],
        draw_from(pools, loop.share_of(recipe.batch), recipe.samples),
        loop,
        checkpoint=checkpoint,
        label="CMU",
        identity={"recipe": plain(recipe), "teacher": teacher.sha256 or teacher.weights},
        progress=progress,
    )
    student.model.requires_grad_(False).eval()
    after, across_after = report_retrieval(optical, radar, held_out, recipe) if held_out else ([], [])
    return Distilled(student, history, before, after, across_before, across_after)


def copied(backbone: Backbone) -> Backbone:
    """A backbone with weights of its own, equal at first."""
    model = copy.deepcopy(backbone.model)
    return replace(backbone, model=model, name=f"{backbone.name}{COPIED}", weights="CMU", sha256="")


def report_retrieval(
    teacher: Tokens, student: Tokens, pool: PairPool, recipe: CMURecipe, *, images: int = 32, seed: int = 0
) -> tuple[list[Retrieval], list[Retrieval]]:
    """How often a SAR token finds the optical token of its place, block by block: among all, and across images.

    Args:
        teacher: of the optical image.
        student: of the radar.
        pool: pairs, best such that neither has been trained on.
        recipe: how pairs are cut, and how many places of each are asked.
        images: pairs to draw.
        seed: of the draw.
    """
    batch = draw_batch(np.random.default_rng(seed), pool, images, recipe.samples)
    device = next(teacher.parameters()).device
    with torch.inference_mode():
        keys, queries = teacher(batch.optical.to(device)), student(batch.sar.to(device))
    places = torch.arange(0, keys[0].shape[1], max(1, keys[0].shape[1] // recipe.positions), device=device)
    places = places.expand(len(keys[0]), -1)
    pairs = [
        (take_positions(query, places), take_positions(key, places)) for query, key in zip(queries, keys, strict=True)
    ]
    return [retrieval(*pair) for pair in pairs], [retrieval(*pair, across=True) for pair in pairs]


def plain(recipe: Any) -> dict[str, Any]:
    """A recipe as plain values, tuples as lists: what a checkpoint and a training record hold."""

    def simple(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: simple(one) for key, one in value.items()}
        return [simple(one) for one in value] if isinstance(value, (list, tuple)) else value

    found: dict[str, Any] = simple(asdict(recipe))
    return found


def _visual(clip: ClipBackbone) -> nn.Module:
    model: Any = clip.model
    visual: nn.Module = model.visual
    return visual
