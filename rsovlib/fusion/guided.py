"""Layers over [x, guidance] side by side, where the guidance is the same for many x.

A linear layer of two inputs side by side is the sum of two linear layers. The guidance's share is therefore computed
once an image (or class) instead of once for every class of it, which is most of the work; the result, and the
parameters, are those of the plain layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class GuidedLinear(nn.Linear):
    """``linear([x, guidance])``.

    Args:
        width: channels of x.
        guidance: channels of the guidance.
        outputs: channels given back.
    """

    def __init__(self, width: int, guidance: int, outputs: int) -> None:
        super().__init__(width + guidance, outputs)
        self.width = width

    def forward(self, x: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """(..., width) and (..., guidance), broadcast against each other."""
        share = F.linear(guidance, self.weight[:, self.width :], self.bias)
        return F.linear(x, self.weight[:, : self.width]) + share


class GuidedConv(nn.Conv2d):
    """A 3 x 3 convolution of ``[x, guidance]`` without bias.

    Args:
        width: channels of x.
        guidance: channels of the guidance.
        outputs: channels given back.
    """

    def __init__(self, width: int, guidance: int, outputs: int) -> None:
        super().__init__(width + guidance, outputs, 3, padding=1, bias=False)
        self.width = width

    def forward(self, x: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """(B, T, width, h, w) and (B, guidance, h, w) to (B, T, outputs, h, w)."""
        own = F.conv2d(x.flatten(0, 1), self.weight[:, : self.width], padding=1)
        share = F.conv2d(guidance, self.weight[:, self.width :], padding=1)
        return own.unflatten(0, x.shape[:2]) + share[:, None]
