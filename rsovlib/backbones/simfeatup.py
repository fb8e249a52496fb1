"""SimFeatUp: a learned upsampler that makes a ViT's features as fine as its input (SegEarth-OV, CVPR 2025).

Four steps of joint bilateral upsampling (x 2 each) share their weights: every fine pixel is a weighted sum of the
11 x 11 pixels around it in the bicubically enlarged features, with weights from the picture, from the distance, and
from a small network's correction. Written from the method's description; the published weights load by their own names.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from rsovlib.backbones.checkpoints import load_strictly, read_state_dict, sha256_of
from rsovlib.errors import WeightsError

_RADIUS = 5
_SIDE = 2 * _RADIUS + 1


class BilateralStep(nn.Module):
    """One step: features to the size of a picture that guides them.

    Args:
        key_dim: size of the picture's embedding whose inner products are the range kernel.
        guidance_dim: channels of the picture.
    """

    def __init__(self, key_dim: int = 32, guidance_dim: int = 3) -> None:
        super().__init__()
        self.range_temp = nn.Parameter(torch.tensor(0.0))
        self.range_proj = _two_layers(guidance_dim, key_dim, key_dim)
        self.fixup_proj = _two_layers(guidance_dim + _SIDE**2, _SIDE**2, _SIDE**2)
        self.sigma_spatial = nn.Parameter(torch.tensor(1.0))

    def forward(self, source: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) and (B, 3, H, W) -> (B, C, H, W)."""
        kernel = self.range_kernel(guidance) * self.spatial_kernel().view(1, -1, 1, 1)
        kernel = kernel / kernel.sum(dim=1, keepdim=True).clamp(min=1e-7)
        kernel = kernel + 0.1 * self.fixup_proj(torch.cat([kernel, guidance], dim=1))
        enlarged = F.interpolate(source, size=guidance.shape[-2:], mode="bicubic", align_corners=False)
        return weighted_neighbours(enlarged, kernel)

    def range_kernel(self, guidance: torch.Tensor) -> torch.Tensor:
        """(B, 121, H, W): softmax over the neighbours of exp(temp) <P(g)_q, P(g)_p>."""
        key = self.range_proj(guidance)
        alike = torch.stack([(key * shifted).sum(dim=1) for shifted in _shifts(key)], dim=1)
        return (self.range_temp.exp().clamp(1e-4, 1e4) * alike).softmax(dim=1)

    def spatial_kernel(self) -> torch.Tensor:
        """(121,): a Gaussian over the square [-1, 1]^2."""
        line = torch.linspace(-1, 1, _SIDE, device=self.sigma_spatial.device)
        return torch.exp(-(line[:, None] ** 2 + line**2) / (2 * self.sigma_spatial**2)).flatten()


class SimFeatUp(nn.Module):
    """Four steps with shared weights, 16 times as fine; then a small correction of every feature.

    Args:
        channels: of the features, 512 for CLIP's ViT-B.
        key_dim: see :class:`BilateralStep`.
    """

    def __init__(self, channels: int, key_dim: int = 32) -> None:
        super().__init__()
        self.up = BilateralStep(key_dim)
        self.fixup_proj = nn.Sequential(nn.Dropout2d(0.2), nn.Conv2d(channels, channels, 1))
        self.source = "random"
        self.sha256 = ""

    def forward(self, features: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        """Upsample.

        Args:
            features: (B, C, h, w).
            picture: (B, 3, H, W), normalised; averaged down to the size of each step.

        Returns:
            (B, C, 16 h, 16 w).
        """
        for _ in range(4):
            sides = (2 * features.shape[-2], 2 * features.shape[-1])
            features = self.up(features, F.adaptive_avg_pool2d(picture, sides))
        return features + 0.1 * self.fixup_proj(features)


def load_simfeatup(weights: str | os.PathLike[str], device: str | torch.device = "cpu") -> SimFeatUp:
    """Read an upsampler from a checkpoint; its sizes are taken from the tensors' shapes.

    Args:
        weights: a safetensors file or a PyTorch archive, names with or without the prefix ``upsampler.``; what else
            a training run kept in it is passed over.
        device: where to.

    Returns:
        The upsampler, in evaluation mode.

    Raises:
        WeightsError: the file is missing or damaged, or holds no such upsampler.
    """
    file = Path(weights)
    state = read_state_dict(file)
    if any(name.startswith("upsampler.") for name in state):
        state = {name.removeprefix("upsampler."): value for name, value in state.items() if "upsampler." in name}
    last, key = state.get("fixup_proj.1.weight"), state.get("up.range_proj.0.weight")
    if last is None or key is None or last.ndim != 4 or key.ndim != 4:
        raise WeightsError(
            f"{file} holds no SimFeatUp upsampler (up.range_proj.0.weight and fixup_proj.1.weight, four axes each); "
            "give the checkpoint of the kind 'jbu_one', or upsampler='bilinear'."
        )
    upsampler = SimFeatUp(len(last), len(key))
    load_strictly(upsampler, state, str(file))
    upsampler.source, upsampler.sha256 = file.name, sha256_of(file)
    return upsampler.float().eval().requires_grad_(False).to(device)


def guided_upsample(
    features: torch.Tensor, picture: torch.Tensor, sides: tuple[int, int], *, sigma_range: float = 0.3
) -> torch.Tensor:
    """The same without anything learned: one step, weights from distance and difference of colour alone.

    Args:
        features: (B, C, h, w).
        picture: (B, 3, H, W), normalised.
        sides: wanted height and width.
        sigma_range: of the Gaussian over the root mean square difference of the picture's channels.

    Returns:
        (B, C, *sides).
    """
    guidance = F.adaptive_avg_pool2d(picture, sides)
    differs = torch.stack([((guidance - shifted) ** 2).mean(dim=1) for shifted in _shifts(guidance)], dim=1)
    line = torch.linspace(-1, 1, _SIDE, device=features.device)
    near = torch.exp(-(line[:, None] ** 2 + line**2) / 2).flatten().view(1, -1, 1, 1)
    kernel = near * torch.exp(-differs / (2 * sigma_range**2))
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    return weighted_neighbours(F.interpolate(features, size=sides, mode="bilinear", align_corners=False), kernel)


def weighted_neighbours(values: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """The sum of every pixel's 11 x 11 neighbours with weights of its own; what lies outside is mirrored.

    Args:
        values: (B, C, H, W).
        kernel: (B, 121, H, W).

    Returns:
        (B, C, H, W).
    """
    total = torch.zeros_like(values)
    for index, shifted in enumerate(_shifts(values)):
        total = total.addcmul(kernel[:, index : index + 1], shifted)
    return total


def _shifts(values: torch.Tensor) -> list[torch.Tensor]:
    """The 121 views of (B, C, H, W), one a neighbour, row by row."""
    height, width = values.shape[-2:]
    # A mirror needs more pixels than it reaches; smaller maps repeat their border.
    mode = "reflect" if min(height, width) > _RADIUS else "replicate"
    padded = F.pad(values, (_RADIUS,) * 4, mode=mode)
    return [
        padded[:, :, row : row + height, column : column + width] for row in range(_SIDE) for column in range(_SIDE)
    ]


def _two_layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, hidden, 1), nn.GELU(), nn.Dropout2d(0.1), nn.Conv2d(hidden, outputs, 1))
