"""What stands between a sensor and the ground, and what goes wrong between two sensors: for the second workbench.

Plain functions, so that the code that the workbench copies can call them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rsovlib.data.clouds import add_clouds
from rsovlib.errors import InputError

RGB = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def clouded(
    image: RGB,
    cover: float,
    kind: str = "thick",
    seed: int = 0,
    *,
    strength: float = 1.0,
    shadow: float = 0.6,
    haze: float = 0.0,
) -> tuple[RGB, npt.NDArray[np.float32]]:
    """The image under clouds, see :func:`rsovlib.data.clouds.add_clouds`, and their opacity (H, W).

    Args:
        image: (H, W, 3) uint8.
        cover: share of the pixels, 0..1.
        kind: thin, thick or varied.
        seed: which clouds.
        strength: 1 for the clouds as they are; below it they (and their shadows) are mixed with the clear image.
        shadow: how much of the sunlight an opaque cloud takes from its shadow, 0..1.
        haze: opacity of a broad haze, 0..1.

    Raises:
        InputError: an argument that can't be.
    """
    if not 0 <= strength <= 1:
        raise InputError(f"The strength of clouds lies between 0 and 1, not at {strength!r}.")
    cloudy, opacity = add_clouds(image, cover, kind, seed, shadow=shadow, haze=haze)
    if strength == 1:
        return cloudy, opacity
    mixed = image + strength * (cloudy.astype(np.float32) - image)
    return np.round(mixed).astype(np.uint8), (strength * opacity).astype(np.float32)


def moved(radar: RGB, valid: Mask | None, right: int, down: int) -> tuple[RGB, Mask]:
    """A radar image that lies ``right`` and ``down`` pixels beside its place; nothing is known where it doesn't reach.

    Args:
        radar: (H, W) or (H, W, C).
        valid: (H, W), where there are radar data; None for everywhere.
        right: pixels, negative for left.
        down: pixels, negative for up.
    """
    height, width = radar.shape[:2]
    there = np.ones((height, width), bool) if valid is None else valid
    image, known = np.zeros_like(radar), np.zeros_like(there)
    if abs(right) < width and abs(down) < height:
        to = slice(max(down, 0), height + min(down, 0)), slice(max(right, 0), width + min(right, 0))
        source = slice(max(-down, 0), height - max(down, 0)), slice(max(-right, 0), width - max(right, 0))
        image[to], known[to] = radar[source], there[source]
    image[~known] = 0
    return image, known


def middle(array: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    """The middle of an image, ``side`` pixels wide and high at most."""
    top, left = (max(0, (length - side) // 2) for length in array.shape[:2])
    return np.ascontiguousarray(array[top : top + side, left : left + side])
