"""Rivals that the small DINO has to beat: random weights, and raw colour."""

from __future__ import annotations

import torch

from rsovlib.backbones.dino import DinoBackbone, DinoFeatures
from rsovlib.backbones.embedded import build_embedded_dino
from rsovlib.experiments.embedded.recipe import PATCH, dino_config

_AFFINITY_TEMPERATURE = 0.004


def random_dino(seed: int = 0) -> DinoBackbone:
    """The small DINO with fresh random weights."""
    torch.manual_seed(seed)
    model = build_embedded_dino(dino_config()).eval().requires_grad_(False)
    return DinoBackbone(model, name="random DINO", weights=f"random {seed}")


class ColourBackbone(DinoBackbone):
    """What a DINO is to SDCI, from colours alone: mean, deviation and gradient of each patch, nothing learned.

    Its attention is the affinity of colours that the small DINO's pretext imitates.
    """

    def __init__(self) -> None:
        super().__init__(random_dino().model, name="raw colour", weights="none")

    def features(self, pixels: torch.Tensor) -> DinoFeatures:
        """Colour statistics as the only layer, and the softmax of colour distances as attention."""
        patches = pixels.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)  # (B, 3, h, w, PATCH, PATCH)
        grid = (int(patches.shape[2]), int(patches.shape[3]))
        flat = patches.flatten(4).flatten(2, 3)  # (B, 3, N, pixels)
        across = (patches[..., 1:] - patches[..., :-1]).abs().flatten(4).flatten(2, 3).mean(dim=3)
        down = (patches[..., 1:, :] - patches[..., :-1, :]).abs().flatten(4).flatten(2, 3).mean(dim=3)
        statistics = torch.cat([flat.mean(dim=3), flat.std(dim=3), across, down], dim=1).transpose(1, 2)
        # Columns of one size, as a final LayerNorm would leave them, and a constant so that no token is zero.
        centred = statistics - statistics.mean(dim=1, keepdim=True)
        scaled = centred / (statistics.std(dim=1, keepdim=True) + 1e-6)
        colours = torch.cat([statistics[..., :3] * pixels.new_tensor(self.std), statistics[..., 3:6] * 0.3], dim=-1)
        attention = (-torch.cdist(colours, colours).square() / _AFFINITY_TEMPERATURE).softmax(dim=-1)
        layers = [torch.cat([scaled, torch.ones_like(scaled[..., :1])], dim=-1)]
        text_layers = layers
        if self.alignment is not None:
            weight, bias = self.alignment
            text_layers = [layer @ weight[index].T + bias[index] for index, layer in enumerate(layers)]
        blank = scaled.new_zeros(len(scaled), 0, layers[0].shape[-1])
        return DinoFeatures(layers, text_layers, None, blank, attention, grid)
