"""CAF, cross-model attention fusion: from words and features to the scores of both branches (equations 7 to 9).

    scores = softmax over the texts of lambda cos(feature, text), layer by layer
    branch = (A_own + lambda_1 A_other, carried to its grid) S_last + mean of the layers before

Bidirectional Cross-Perception for Open-Vocabulary Semantic Segmentation in Remote Sensing Imagery (arXiv 2601.21159);
D15 to D18 of the register are the steps that the equations leave open.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rsovlib.segmenters.carry import Grid, joint_products
from rsovlib.segmenters.sdci_config import SDCIConfig


@dataclass(frozen=True)
class Branch:
    """One network's side of the fusion.

    Attributes:
        scores: (L, N, K), of every layer, see :func:`word_scores`.
        attention: (N, N).
        grid: rows and columns, N cells in all.
    """

    scores: torch.Tensor
    attention: torch.Tensor
    grid: Grid


def word_scores(directions: torch.Tensor, text: torch.Tensor, classes: int, config: SDCIConfig) -> torch.Tensor:
    """D16: how much every patch of every layer speaks for every class.

    Args:
        directions: (L, N, E), features of unit norm.
        text: (M, E), unit norm; the first K rows are the classes, the others (background, mean) compete with them.
        classes: K.
        config: ``logit_scale`` and ``scores``.

    Returns:
        (L, N, K): the softmax over all M texts, or the logits themselves.
    """
    logits = config.logit_scale * (directions @ text.T)
    scores = logits.softmax(dim=-1) if config.scores == "probabilities" else logits
    return scores[..., :classes]


def fused_scores(clip: Branch, dino: Branch, config: SDCIConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Equations 8 and 9: both attentions times the last layer's scores (D18), plus the mean of the layers before.

    Args:
        clip: CLIP's branch.
        dino: DINO's branch.
        config: ``score_threshold``, ``caf``, ``lambda_1``, ``align_renorm``.

    Returns:
        Scores on the branches' own grids, (N_c, K) and (N_d, K).
    """
    last_clip, last_dino = (_without_low(branch.scores[-1], config.score_threshold) for branch in (clip, dino))
    if config.caf:
        grids = clip.grid, dino.grid
        # Each attention is large and is read once, for its own branch and for the other.
        own_clip, for_dino = joint_products(clip.attention, last_clip, last_dino, *grids, config.align_renorm)
        own_dino, for_clip = joint_products(dino.attention, last_dino, last_clip, *grids[::-1], config.align_renorm)
        smoothed = own_clip + config.lambda_1 * for_clip, own_dino + config.lambda_1 * for_dino
    else:
        smoothed = clip.attention @ last_clip, dino.attention @ last_dino
    return _with_layers_before(smoothed[0], clip.scores), _with_layers_before(smoothed[1], dino.scores)


def _without_low(scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Scores below a share of their class's highest are dropped."""
    return scores.masked_fill(scores < threshold * scores.amax(dim=0), 0.0)


def _with_layers_before(smoothed: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    return smoothed + scores[:-1].mean(dim=0) if len(scores) > 1 else smoothed
