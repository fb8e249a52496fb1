"""The settings of the embedded models' training, in one place: what the model cards and results quote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Scene seeds are split once and for all: nothing is chosen on test scenes, nothing is trained on the others.
TRAIN_SEEDS = 0
VALIDATION_SEEDS = 1_000_000
TEST_SEEDS = 2_000_000
"""First scene seed of the three sets."""

WIDTH = 128
PATCH = 8
SIDE = 64
"""Width of both models and of their joint space, patch size, and side of the usual training image in pixels."""


def clip_config(vocabulary: int) -> dict[str, Any]:
    """The small CLIP's architecture, for a tokenizer of ``vocabulary`` entries."""
    return {
        "embed_dim": WIDTH,
        "vision_cfg": {"image_size": SIDE, "layers": 5, "width": WIDTH, "head_width": 64, "patch_size": PATCH},
        "text_cfg": {"context_length": 24, "vocab_size": vocabulary, "width": WIDTH, "heads": 2, "layers": 2},
    }


def dino_config() -> dict[str, Any]:
    """The small DINO's architecture."""
    return {"img_size": SIDE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": 5, "num_heads": 2}


@dataclass(frozen=True)
class ClipRecipe:
    """Steps and weights of the CLIP training.

    Attributes:
        value_steps: steps with the region loss on the value path (identity attention in the last block).
        fused_steps: steps after that through the fused attention that SDCI uses.
        batch: images of 64 x 64 a step; a quarter as many where a step takes images of 128 x 128.
        captions: how many of them enter the caption contrast.
        value_rate, fused_rate: highest learning rate of the two phases, each with warm-up and cosine.
        large_value, large_fused: share of the steps with images of 128 x 128.
        real: share of the steps on real imagery, where there is some.
        second: weight of the region loss with the coarser word list.
        contrast, tags, thesaurus, attributes, deep, identity: weights of the losses beside the region loss.
        regrouped: chance that a class of the coarser word list is left out and called "other".
    """

    value_steps: int = 1000
    fused_steps: int = 650
    batch: int = 44
    captions: int = 16
    value_rate: float = 1.5e-3
    fused_rate: float = 9e-4
    large_value: float = 0.1
    large_fused: float = 0.25
    real: float = 0.3
    second: float = 0.5
    contrast: float = 0.3
    tags: float = 0.5
    thesaurus: float = 0.3
    attributes: float = 0.4
    deep: float = 0.5
    identity: float = 0.3
    regrouped: float = 0.25


@dataclass(frozen=True)
class DinoRecipe:
    """Steps and weights of the DINO training.

    Attributes:
        steps: steps in all; the attention pretext sets in after ``plain`` of them.
        plain: share of the steps with self-distillation alone.
        batch: images of 64 x 64 a step.
        rate: highest learning rate.
        prototypes: size of the self-distillation's code book.
        class_token: weight of the class token's distillation beside the patches'.
        affinity: weight of the pretext (last attention predicts which patches look alike).
        real: share of the steps on real imagery, where there is some.
    """

    steps: int = 1000
    plain: float = 0.5
    batch: int = 48
    rate: float = 1e-3
    prototypes: int = 256
    class_token: float = 0.2
    affinity: float = 0.5
    real: float = 0.3


@dataclass(frozen=True)
class DataRecipe:
    """How much is generated.

    Attributes:
        scenes: number of training scenes.
        side: their side in pixels.
        workers: processes that make them.
    """

    scenes: int = 4000
    side: int = 160
    workers: int = 2


QUICK: Mapping[str, int] = {"scenes": 24, "value_steps": 2, "fused_steps": 2, "steps": 2}
"""Numbers for a run that only shows that everything works."""
