"""From the grid on which a network saw an image to the grid on which it is used: learned projections."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from rsovlib.errors import InputError


class Levels(NamedTuple):
    """Three feature maps of one image, on a grid of cells and on two finer ones.

    Attributes:
        last: (B, D, h, w).
        middle: (B, S1, 2 h, 2 w).
        fine: (B, S2, 4 h, 4 w).
    """

    last: torch.Tensor
    middle: torch.Tensor
    fine: torch.Tensor


def projection(inputs: int, outputs: int, ratio: Fraction) -> nn.Module:
    """A convolution whose output grid is ``ratio`` times as fine as its input's, kernels side by side.

    Args:
        inputs: channels.
        outputs: channels.
        ratio: a whole number (transposed convolution), 1 (per token) or 1 / a whole number (strided convolution).
    """
    if ratio > 1 and ratio.denominator == 1:
        return nn.ConvTranspose2d(inputs, outputs, kernel_size=int(ratio), stride=int(ratio))
    if ratio.numerator == 1:
        side = ratio.denominator
        return nn.Conv2d(inputs, outputs, kernel_size=side, stride=side)
    raise InputError(f"A grid can't be made {ratio} times as fine; the finer one must be a multiple of the other.")


class DinoLevels(nn.Module):
    """One sensor's DINO features, projected to the three levels: the paper's DEF has one of these a sensor.

    Args:
        inputs: width of DINO.
        joint: D, the joint space of CLIP.
        widths: S1 and S2.
        finer: DINO's patches along a cell's side.
    """

    def __init__(self, inputs: int, joint: int, widths: tuple[int, int], finer: int) -> None:
        super().__init__()
        self.last = projection(inputs, joint, Fraction(1, finer))
        self.middle = projection(inputs, widths[0], Fraction(2, finer))
        self.fine = projection(inputs, widths[1], Fraction(4, finer))

    def forward(self, middle: torch.Tensor, fine: torch.Tensor, last: torch.Tensor) -> Levels:
        """Three blocks' tokens (B, width, rows, columns), named for what they become."""
        return Levels(self.last(last), self.middle(middle), self.fine(fine))


class ClipLevels(nn.Module):
    """A second CLIP's features for adding to the first one's: nothing at first, so that texts keep their meaning.

    Args:
        inputs: width of CLIP.
        joint: D, its joint space.
        widths: S1 and S2.
    """

    def __init__(self, inputs: int, joint: int, widths: tuple[int, int]) -> None:
        super().__init__()
        self.last = nn.Conv2d(joint, joint, 1)
        self.middle = projection(inputs, widths[0], Fraction(2))
        self.fine = projection(inputs, widths[1], Fraction(4))
        with torch.no_grad():
            for parameter in self.last.parameters():
                parameter.zero_()

    def forward(self, middle: torch.Tensor, fine: torch.Tensor, last: torch.Tensor) -> Levels:
        """Two blocks' tokens (B, width, h, w) and dense features (B, D, h, w)."""
        return Levels(self.last(last), self.middle(middle), self.fine(fine))


def add_levels(optical: Levels, sar: Levels, available: torch.Tensor | None) -> Levels:
    """Optical features plus those of SAR, weighted by where there is SAR.

    A projection has a bias, so that empty pixels would still add something; the weight makes them add nothing, and a
    cell half filled half as much.

    Args:
        optical: the levels of the optical image.
        sar: those of the SAR image.
        available: (B, 1, H, W), 1 where SAR holds data, 0 elsewhere; None for everywhere.
    """
    if available is None:
        return Levels(*(a + b for a, b in zip(optical, sar, strict=True)))
    shares = [F.adaptive_avg_pool2d(available.to(level.dtype), (level.shape[-2], level.shape[-1])) for level in sar]
    return Levels(*(a + share * b for a, b, share in zip(optical, sar, shares, strict=True)))
