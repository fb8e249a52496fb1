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
    if scene is None:
        low, high = maps.amin(dim=(1, 2)), maps.amax(dim=(1, 2))
    else:
        low, high, presence = (maps.new_tensor(value) for value in (scene.low, scene.high, scene.presence))
    # All of it is one affine map a class, (map - offset) / divisor, so the pixels are gone through once.
    factor = presence / (high + 1e-5) if config.rescale else torch.ones_like(high)
    offset, divisor = torch.zeros_like(low), 1 / factor
    # A map without relief (a single patch) isn't stretched: that would show rounding errors as a map.
    stretched = ((high - low) * factor > 1e-6 * (high * factor).abs()) & config.min_max
    offset, divisor = torch.where(stretched, low, offset), torch.where(stretched, high - low, divisor)
    divisor = divisor.masked_fill(presence <= config.presence_threshold, torch.inf)
    maps = (maps - offset[:, None, None]).div_(divisor[:, None, None])
    if scene is None:
        return maps
    # Pixels without data may lie outside the range of those with data.
    least, most = (
        torch.where(stretched, end, far)[:, None, None] for end, far in ((0.0, -torch.inf), (1.0, torch.inf))
    )
    return maps.clamp(least, most)


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
