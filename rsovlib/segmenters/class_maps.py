"""From diffused scores to the convex step's inputs: class maps (D25) and what counts as their probabilities (D26).

The paper goes straight from equation 15 to 16; what lies between was taken from the released program, as the
project's register of differences says.
"""

from __future__ import annotations

import torch

from rsovlib.segmenters.images import enlarge
from rsovlib.segmenters.scenewide import BranchConstants
from rsovlib.segmenters.sdci_config import SDCIConfig


def class_maps(
    diffused: torch.Tensor,
    presence: torch.Tensor,
    sides: tuple[int, ...],
    config: SDCIConfig,
    scene: BranchConstants | None = None,
) -> torch.Tensor:
    """D25: enlarge, rescale to the class's maximum before diffusion, drop absent classes, stretch to [0, 1].

    Args:
        diffused: (K, h, w).
        presence: (K,), each class's largest score before diffusion.
        sides: H and W of the maps.
        config: ``rescale``, ``min_max``, ``presence_threshold``.
        scene: maxima and minima of the scene that the image is a tile of; None takes the image's own.

    Returns:
        (K, H, W).
    """
    maps = enlarge(diffused, (sides[0], sides[1]))
    if scene is not None:
        presence = presence.new_tensor(scene.presence)
    if scene is None:
        low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    else:
        low, high = (maps.new_tensor(value)[:, None, None] for value in (scene.low, scene.high))
    if config.rescale:
        divisor, factor = high + 1e-5, presence[:, None, None]
        maps, low, high = (values / divisor * factor for values in (maps, low, high))
    if config.min_max:
        # A map without relief (a single patch) stays as it is: stretching would show rounding errors as a map.
        flat = high - low <= 1e-6 * high.abs()
        maps = torch.where(flat, maps, (maps - low) / (high - low).masked_fill(flat, 1.0))
        if scene is not None:  # pixels without data may lie outside the range of those with data
            maps = torch.where(flat, maps, maps.clamp(0.0, 1.0))
    return maps * (presence > config.presence_threshold)[:, None, None]


def probabilities(maps: torch.Tensor, config: SDCIConfig, scene: BranchConstants | None = None) -> torch.Tensor:
    """D26: class maps as probabilities, clamped; the solver divides by their sum.

    Args:
        maps: (K, H, W).
        config: ``to_probability``, ``softmax_above``, ``floor``.
        scene: what ``to_probability="auto"`` decided for the scene; None decides by the image alone.

    Returns:
        (K, H, W), within [floor, 1].
    """
    mode = config.to_probability
    if mode == "sum":
        # Scores may exceed 1 (attention's rows sum to more), so they are divided before they are clamped.
        positive = maps.clamp_min(0)
        maps = positive / positive.sum(dim=0).clamp_min(config.floor)
    elif mode == "softmax" or (_wants_softmax(maps, config) if scene is None else scene.softmax):
        maps = maps.softmax(dim=0)
    return maps.clamp(config.floor, 1.0)


def _wants_softmax(maps: torch.Tensor, config: SDCIConfig) -> bool:
    """What ``to_probability="auto"`` decides for one image."""
    return bool((maps < 0).any()) or float(maps.sum(dim=0).mean()) > config.softmax_above
