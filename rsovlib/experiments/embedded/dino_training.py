"""Training the small DINO, without labels and without text.

Masked self-distillation in the manner of DINO and iBOT (Caron et al. 2021, doi:10.1109/ICCV48922.2021.00951; Zhou et
al. 2022, arXiv:2111.07832): a student that sees a recoloured image with patches masked out predicts what a slowly
moving average of itself, the teacher, assigns to the whole image; assignments are balanced with Sinkhorn's algorithm.

At this budget that alone leaves the last attention uniform.  Half-way a pretext sets in: the last attention predicts
which patches look alike in colour and in the teacher's features.  What it shows afterwards *imitates colour affinity*;
it isn't the emergent segmentation of large self-supervised models, and must not be described so.
"""

from __future__ import annotations

import copy
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm

from rsovlib.backbones.dino import IMAGENET_MEAN, IMAGENET_STD, DinoBackbone
from rsovlib.backbones.embedded import build_embedded_dino
from rsovlib.backbones.pixels import normalise
from rsovlib.experiments.embedded.progress import (
    SAVE_EVERY,
    adamw,
    learning_rate,
    load_progress,
    save_progress,
    set_learning_rate,
)
from rsovlib.experiments.embedded.recipe import PATCH, SIDE, WIDTH, DinoRecipe, dino_config
from rsovlib.experiments.embedded.samples import Pool, draw_batch

_STUDENT_TEMPERATURE = 0.1
_SINKHORN_TEMPERATURE = 0.06
_SINKHORN_ROUNDS = 3
_SPACE = 96
_COLOUR_SCALE = 0.004
_LOG_EVERY = 25


class Distiller(nn.Module):
    """A vision transformer with a projection head and a code book of prototypes.

    Args:
        prototypes: size of the code book.
    """

    def __init__(self, prototypes: int) -> None:
        super().__init__()
        self.vit = build_embedded_dino(dino_config())
        self.mask = nn.Parameter(torch.zeros(WIDTH))
        self.head = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, _SPACE))
        self.prototypes = nn.Linear(_SPACE, prototypes, bias=False)

    def forward(
        self, images: torch.Tensor, masked: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Scores of every token against the prototypes.

        Args:
            images: (B, 3, S, S), normalised.
            masked: (B, N) bool, patches to hide; None for the teacher, which hides none.

        Returns:
            Cosines with the prototypes (B, 1 + N, prototypes), class token first; final features (B, 1 + N, D); and
            the last attention among patches (B, N, N), mean over heads, empty for the teacher.
        """
        vit = self.vit
        tokens = vit.patch_embed(images)  # (B, h, w, D)
        if masked is not None:
            tokens = torch.where(masked.view(*tokens.shape[:3], 1), self.mask.to(tokens.dtype), tokens)
        tokens = vit.norm_pre(vit._pos_embed(tokens))
        for block in vit.blocks[:-1]:
            tokens = block(tokens)
        last = vit.blocks[-1]
        attention = _patch_attention(last, tokens) if masked is not None else tokens.new_empty(0)
        features = vit.norm(last(tokens))
        coded = F.normalize(self.head(features).float(), dim=-1)
        return coded @ F.normalize(self.prototypes.weight, dim=-1).T, features, attention


def _patch_attention(block: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Softmax over patches alone of a block's query-key products, mean over heads, (B, N, N)."""
    attention = block.attn
    heads = attention.num_heads  # type: ignore[union-attr]
    packed = attention.qkv(block.norm1(tokens)).unflatten(-1, (3, heads, -1))  # type: ignore[operator, union-attr]
    query, key = (packed[:, 1:, part].transpose(1, 2).float() for part in (0, 1))
    scores = query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)
    return scores.softmax(dim=-1).mean(dim=1)


@torch.no_grad()
def balanced_assignment(scores: torch.Tensor) -> torch.Tensor:
    """Soft assignment of rows to prototypes that uses every prototype equally often (Sinkhorn), (n, prototypes).

    Args:
        scores: (n, prototypes) cosines.

    Returns:
        (n, prototypes); rows sum to 1, columns to about n / prototypes.
    """
    plan = ((scores - scores.max()) / _SINKHORN_TEMPERATURE).exp().T
    prototypes, count = plan.shape
    for _ in range(_SINKHORN_ROUNDS):
        plan = plan / plan.sum(dim=1, keepdim=True) / prototypes
        plan = plan / plan.sum(dim=0, keepdim=True) / count
    return (plan * count).T


@torch.no_grad()
def affinity_target(images: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Which patches look alike: close in mean colour and contrast, and in the teacher's features, (B, N, N).

    Args:
        images: (B, 3, S, S) in [0, 1].
        features: (B, N, D) of the teacher.

    Returns:
        Rows sum to 1.
    """
    patches = images.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).flatten(4).flatten(2, 3)  # (B, 3, N, pixels)
    colours = torch.cat([patches.mean(dim=3), 1.5 * patches.std(dim=3)], dim=1).transpose(1, 2)
    centred = F.normalize(features - features.mean(dim=(0, 1)), dim=-1)
    likeness = -torch.cdist(colours, colours).square() / _COLOUR_SCALE + 2 * (centred @ centred.transpose(1, 2) - 1)
    return likeness.softmax(dim=-1)


def _view(rng: np.random.Generator, images: torch.Tensor, strength: float) -> torch.Tensor:
    """A recoloured, noisy, normalised view."""
    count = len(images)

    def normal(*shape: int) -> torch.Tensor:
        return strength * torch.from_numpy(rng.standard_normal((count, *shape), dtype=np.float32))

    images = images * (1 + 0.12 * normal(1, 1, 1)) * (1 + 0.08 * normal(3, 1, 1))
    middle = images.mean(dim=(2, 3), keepdim=True)
    images = (images - middle) * (1 + 0.25 * normal(1, 1, 1)).clamp(0.5, 1.6) + middle + 0.04 * normal(1, 1, 1)
    return normalise((images + 0.015 * normal(3, *images.shape[2:])).clamp(0, 1), IMAGENET_MEAN, IMAGENET_STD)


def train_dino(
    scenes: Pool,
    real: Pool | None,
    recipe: DinoRecipe,
    seed: int,
    checkpoint: Path | None = None,
) -> tuple[DinoBackbone, list[dict[str, float]]]:
    """Trains the small DINO; labels in the pools aren't looked at.

    Args:
        scenes: simulated scenes.
        real: real images, or None.
        recipe: how.
        seed: of the initial weights and of every draw.
        checkpoint: where to keep the progress; a stopped run goes on from there.

    Returns:
        The teacher as a backbone in evaluation mode, and the log.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 2])
    student = Distiller(recipe.prototypes)
    teacher = copy.deepcopy(student).eval().requires_grad_(False)
    optimiser = adamw(student, recipe.rate, 0.04)
    parts = {"student": student, "teacher": teacher, "optimiser": optimiser}
    start, log = load_progress(checkpoint, rng, parts) if checkpoint else (0, [])
    used = log[-1]["cpu_seconds"] if log else 0.0
    began = time.process_time() - used
    first = round(recipe.plain * recipe.steps)
    for step in tqdm(range(start, recipe.steps), initial=start, total=recipe.steps, desc="DINO", unit="step"):
        set_learning_rate(optimiser, learning_rate(step, recipe.steps, recipe.rate))
        pool = real if real is not None and rng.random() < recipe.real else scenes
        images = draw_batch(rng, pool, recipe.batch, SIDE, fine=True).images
        losses = _dino_losses(rng, student, teacher, images, recipe, affinity=step >= first)
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        if step < 50:
            student.prototypes.weight.grad = None  # the code book settles before it is trained
        optimiser.step()
        keep = 1 - 0.005 * (math.cos(math.pi * step / recipe.steps) + 1)
        with torch.no_grad():
            for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
                slow.lerp_(fast, 1 - keep)
        if step % _LOG_EVERY == 0 or step == recipe.steps - 1:
            numbers = {name: float(loss.detach()) for name, loss in losses.items()}
            log.append({"step": step, **numbers, "cpu_seconds": time.process_time() - began})
        if checkpoint and ((step + 1) % SAVE_EVERY == 0 or step == recipe.steps - 1):
            save_progress(checkpoint, step + 1, rng, parts, log)
    return DinoBackbone(teacher.vit.eval(), name="embedded DINO in training", weights="random"), log


def _dino_losses(
    rng: np.random.Generator,
    student: Distiller,
    teacher: Distiller,
    images: torch.Tensor,
    recipe: DinoRecipe,
    *,
    affinity: bool,
) -> dict[str, torch.Tensor]:
    low, high = (0.0, 0.35) if affinity else (0.2, 0.7)  # the pretext compares patches, so most must be seen
    count, patches = len(images), (SIDE // PATCH) ** 2
    masked = torch.from_numpy(rng.random((count, patches)) < rng.uniform(low, high))
    with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            told, features, _ = teacher(_view(rng, images, 0.5))
        said, _, attention = student(_view(rng, images, 1.0), masked)
    said = (said / _STUDENT_TEMPERATURE).log_softmax(dim=-1)
    patch_targets = balanced_assignment(told[:, 1:].flatten(0, 1))
    losses = {
        "patches": -(patch_targets * said[:, 1:].flatten(0, 1)).sum(dim=-1).mean(),
        "class_token": -recipe.class_token * (balanced_assignment(told[:, 0]) * said[:, 0]).sum(dim=-1).mean(),
    }
    if affinity:
        target = affinity_target(images, features[:, 1:].float())
        losses["affinity"] = -recipe.affinity * (target * (attention + 1e-6).log()).sum(dim=-1).mean()
    return losses
