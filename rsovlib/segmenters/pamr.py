"""PAMR: class maps that follow the picture's edges, by a few steps of local averaging among alike pixels.

Araslanov and Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def pamr(image: torch.Tensor, maps: torch.Tensor, steps: int = 10, dilations: Sequence[int] = (8, 16)) -> torch.Tensor:
    """Refine maps by the picture.

    The neighbours of a pixel p are the 8 around it at every dilation, the border repeated. Per channel,
    a_pq = -|I_p - I_q| / (1e-8 + 0.1 std_p), with the unbiased deviation over the 9 pixels of all dilations together;
    the mean over the channels, softmaxed over the neighbours q, weighs S_p <- sum_q a_pq S_q.

    Args:
        image: (C, H, W), normalised.
        maps: S, (M, h, w); other sizes than the image's are resized first, align_corners True.
        steps: how often.
        dilations: distances of the neighbours, in pixels.

    Returns:
        (M, H, W).
    """
    if tuple(maps.shape[-2:]) != tuple(image.shape[-2:]):
        maps = F.interpolate(maps[None], size=image.shape[-2:], mode="bilinear", align_corners=True)[0]
    if steps == 0:
        return maps
    centre = len(dilations)
    around = torch.stack([shifted for d in dilations for shifted in _neighbours(image, d)])  # (8 n, C, H, W)
    every = torch.cat([around, image.expand(centre, *image.shape)])
    spread = every.std(dim=0)
    weights = (-(around - image).abs() / (1e-8 + 0.1 * spread)).mean(dim=1).softmax(dim=0)  # (8 n, H, W)
    del every, around
    for _ in range(steps):
        refined = torch.zeros_like(maps)
        neighbours = (shifted for d in dilations for shifted in _neighbours(maps, d))
        for weight, shifted in zip(weights, neighbours, strict=True):
            refined += weight * shifted
        maps = refined
    return maps


def _neighbours(values: torch.Tensor, dilation: int) -> list[torch.Tensor]:
    """(C, H, W), shifted to each of the 8 directions; what lies outside repeats the border."""
    height, width = values.shape[-2:]
    padded = F.pad(values[None], (dilation,) * 4, mode="replicate")[0]
    offsets = (0, dilation, 2 * dilation)
    return [
        padded[:, row : row + height, column : column + width]
        for row in offsets
        for column in offsets
        if (row, column) != (dilation, dilation)
    ]
