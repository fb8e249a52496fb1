"""Input sizes and sliding windows as the SCLIP family has them (rules of the mm-style evaluation programs)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from rsovlib.errors import unknown_name
from rsovlib.segmenters.images import RGB

#: Rule -> what it does with the wanted size S.
SIZE_RULES = {
    "short": "shape kept, short side S, long side at most 2048",
    "box": "shape kept, fits inside S x S",
}
_LONGEST = 2048


def input_sides(height: int, width: int, size: int | None, rule: str) -> tuple[int, int]:
    """The sides of the resized image, in pixels; None keeps them."""
    if rule not in SIZE_RULES:
        raise unknown_name("size rule", rule, SIZE_RULES)
    if size is None:
        return height, width
    short, long = min(height, width), max(height, width)
    scale = size / long if rule == "box" else min(size / short, max(size, _LONGEST) / long)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def resize_bilinear(image: RGB, sides: tuple[int, int]) -> RGB:
    """Bilinear resize of 8-bit pixels without antialias, rounded to 8 bits again."""
    if image.shape[:2] == sides:
        return image
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    resized = F.interpolate(pixels, size=sides, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    return np.ascontiguousarray(resized.round().clamp(0, 255).to(torch.uint8).numpy())


@dataclass(frozen=True)
class Place:
    """One window: its place in the resized image and the zeros around it, in pixels.

    Attributes:
        row, column, height, width: in the resized image.
        top, left: zeros before; those after follow from ``sides``.
        sides: with the zeros.
    """

    row: int
    column: int
    height: int
    width: int
    top: int
    left: int
    sides: tuple[int, int]

    def cut(self, image: torch.Tensor, value: float = 0.0) -> torch.Tensor:
        """The window of (..., H, W), with ``value`` around it."""
        inside = image[..., self.row : self.row + self.height, self.column : self.column + self.width]
        below, right = self.sides[0] - self.top - self.height, self.sides[1] - self.left - self.width
        return F.pad(inside, (self.left, right, self.top, below), value=value)

    def uncover(self, padded: torch.Tensor) -> torch.Tensor:
        """(..., *sides) without what stands for the zeros."""
        return padded[..., self.top : self.top + self.height, self.left : self.left + self.width]


def slide(height: int, width: int, window: int | None, stride: int, multiple: int) -> Iterator[Place]:
    """Windows over an image, row by row.

    Each starts at a multiple of the stride; the last of a row or column is shifted back so that it is full size. Sides
    that are no multiple of ``multiple`` get zeros, half before and half after.

    Args:
        height: of the image.
        width: of the image.
        window: side of a window; None for one window over everything.
        stride: from one window to the next.
        multiple: what the network's input must be a multiple of.
    """
    for row, tall in _spans(height, window, stride):
        for column, wide in _spans(width, window, stride):
            sides = (math.ceil(tall / multiple) * multiple, math.ceil(wide / multiple) * multiple)
            yield Place(row, column, tall, wide, (sides[0] - tall) // 2, (sides[1] - wide) // 2, sides)


def _spans(side: int, window: int | None, stride: int) -> list[tuple[int, int]]:
    """First pixel and length of the windows along one axis."""
    if window is None or side <= window:
        return [(0, side)]
    count = max(side - window + stride - 1, 0) // stride + 1
    return [(min(number * stride, side - window), window) for number in range(count)]
