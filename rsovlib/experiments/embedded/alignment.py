"""From DINO's features to CLIP's joint space: one closed-form ridge regression a layer, without labels.

SDCI compares DINO's features with text directly.  For the papers' models that rests on equal widths alone; the small
models get linear maps, fitted on unlabelled crops so that DINO's tokens predict CLIP's fused tokens at the same place.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from rsovlib.backbones.clip import ClipBackbone
from rsovlib.backbones.dino import DinoBackbone
from rsovlib.experiments.embedded.clip_training import dense_tokens

_RIDGE = 1e-3
_BATCH = 8
GRID_SCALE = 2
"""DINO sees images enlarged this many times: on CLIP's own grid its graph hurts (feasibility study)."""


def fit_alignment(
    clip: ClipBackbone, dino: DinoBackbone, images: torch.Tensor, ridge: float = _RIDGE
) -> tuple[torch.Tensor, torch.Tensor, list[float]]:
    """Fits the maps.

    Args:
        clip: gives the features to predict: its last layer's, through the fused attention, of unit norm.
        dino: gives the features to predict from: every layer's, normalised by the model.
        images: (B, 3, S, S) in [0, 1], any pictures.
        ridge: penalty, relative to the number of tokens.

    Returns:
        weight (L, E, D) and bias (L, E), float32: layer l's tokens x become ``x @ weight[l].T + bias[l]``; and the
        share of variance that each layer's map explains.
    """
    wanted, given = [], []
    with torch.inference_mode():
        for part in images.split(_BATCH):
            target = F.normalize(dense_tokens(clip, part, 0, fused=True).paths["fused"].float(), dim=-1)
            side = round(target.shape[1] ** 0.5)
            sides = [GRID_SCALE * length for length in part.shape[-2:]]
            pixels = F.interpolate(dino.normalise(part), size=sides, mode="bicubic", align_corners=False)
            features = dino.features(pixels)
            on_grid = target.transpose(1, 2).unflatten(2, (side, side))
            on_grid = F.interpolate(on_grid, size=features.grid, mode="bilinear", align_corners=False)
            wanted.append(on_grid.flatten(2).transpose(1, 2).flatten(0, 1))
            given.append(torch.stack([layer.flatten(0, 1) for layer in features.layers]))
    target, layers = torch.cat(wanted).double(), torch.cat(given, dim=1).double()
    middle = target.mean(dim=0)
    weights, biases, explained = [], [], []
    for tokens in layers:
        mean = tokens.mean(dim=0)
        centred = tokens - mean
        gram = centred.T @ centred + ridge * len(centred) * torch.eye(centred.shape[1], dtype=torch.float64)
        solution = torch.linalg.solve(gram, centred.T @ (target - middle))
        weights.append(solution.T)
        biases.append(middle - mean @ solution)
        rest = (centred @ solution + middle - target).square().sum() / (target - middle).square().sum()
        explained.append(1 - float(rest))
    return torch.stack(weights).float(), torch.stack(biases).float(), explained
