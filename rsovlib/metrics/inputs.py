"""What every score asks of its arrays, checked once and told in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rsovlib.errors import InputError

Labels = np.ndarray | torch.Tensor
Core = tuple[slice, slice]

# Probabilities come from softmax in single or half precision; beyond this they are something else, such as logits.
_SUM_TOLERANCE = 5e-3


def checked_labels(labels: Labels, what: str, classes: int, ignore_index: int) -> torch.Tensor:
    """A label map as int64 (B, H, W).

    Raises:
        InputError: not (H, W) or (B, H, W), not whole numbers, or a label that is neither a class nor ignored.
    """
    if isinstance(labels, torch.Tensor):
        tensor = labels.detach()
    else:
        array = np.asarray(labels)
        if array.dtype.kind not in "bui":
            raise InputError(f"The {what} has the type {array.dtype}; label maps hold whole numbers.")
        # Some unsigned types have no torch twin, and torch wants neither read-only nor negative-stride memory.
        tensor = torch.from_numpy(array.astype(np.int64))
    if tensor.is_floating_point() or tensor.is_complex():
        raise InputError(f"The {what} has the type {tensor.dtype}; label maps hold whole numbers.")
    tensor = tensor.to(torch.int64)
    if tensor.ndim not in (2, 3) or tensor.numel() == 0:
        raise InputError(f"The {what} is {shown(tensor)}; give (H, W), or (B, H, W) for a batch, not empty.")
    wrong = ((tensor < 0) | (tensor >= classes)) & (tensor != ignore_index)
    if wrong.any():
        raise InputError(
            f"The {what} holds the label {int(tensor[wrong][0])}, which is neither one of the {classes} "
            f"classes (0..{classes - 1}) nor ignore_index={ignore_index}."
        )
    return tensor if tensor.ndim == 3 else tensor[None]


def checked_probabilities(values: Any, what: str, dimensions: tuple[int, int]) -> torch.Tensor:
    """Floating-point values as a tensor of at least single precision, with a batch axis in front.

    Args:
        values: numpy array or tensor.
        what: its name in error messages.
        dimensions: how many axes one image has, and how many a batch.

    Raises:
        InputError: not floating point, or of another number of axes, or empty.
    """
    tensor = values.detach() if isinstance(values, torch.Tensor) else None
    if tensor is None:
        array = np.asarray(values)
        if array.dtype.kind != "f":
            raise InputError(f"The {what} have the type {array.dtype}; give floating-point numbers from 0 to 1.")
        tensor = torch.from_numpy(np.array(array, dtype=np.float64 if array.dtype.itemsize > 4 else np.float32))
    if not tensor.is_floating_point():
        raise InputError(f"The {what} have the type {tensor.dtype}; give floating-point numbers from 0 to 1.")
    if tensor.ndim not in dimensions or tensor.numel() == 0:
        one = {2: "(H, W), or (B, H, W)", 3: "(K, H, W), or (B, K, H, W)"}[dimensions[0]]
        raise InputError(f"The {what} are {shown(tensor)}; give {one} for a batch, not empty.")
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    return tensor if tensor.ndim == dimensions[1] else tensor[None]


def check_range(values: torch.Tensor, what: str) -> None:
    """Refuse NaN and anything outside 0..1.

    Raises:
        InputError: with the first wrong value.
    """
    wrong = ~((values >= 0) & (values <= 1))  # NaN compares as false
    if wrong.any():
        raise InputError(
            f"The {what} hold {float(values[wrong][0]):g} where there is ground truth; give probabilities from 0 to 1 "
            "(softmax or sigmoid of logits), and ignore_index in the target where there is none."
        )


def check_sums(values: torch.Tensor, what: str) -> None:
    """Refuse (N, K) probabilities that don't sum to 1 over K.

    Raises:
        InputError: with the sum that is farthest off.
    """
    sums = values.sum(dim=1)
    if sums.numel() and float((sums - 1).abs().max()) > _SUM_TOLERANCE:
        worst = float(sums[(sums - 1).abs().argmax()])
        raise InputError(f"The {what} sum to {worst:g} over the classes in some pixel; they must sum to 1 in each.")


def check_same_shape(first: torch.Tensor, what: str, second: torch.Tensor, other: str = "target") -> None:
    """Refuse two batches whose images differ in number or size.

    Raises:
        InputError: with both shapes.
    """
    if first.shape != second.shape:
        # A single image was given a batch axis; the caller knows it without.
        one, two = (shown(t[0] if len(t) == 1 else t) for t in (first, second))
        raise InputError(f"The {what} is {one} and the {other} {two}; they must have the same shape.")


def checked_core(core: Core | None, height: int, width: int) -> Core:
    """The part of a window that is counted, as slices with numbers; the whole window for ``None``.

    Raises:
        InputError: not two slices, or none of the window's pixels, or a part outside of it.
    """
    if core is None:
        return slice(0, height), slice(0, width)
    if not (isinstance(core, tuple) and len(core) == 2 and all(isinstance(part, slice) for part in core)):
        raise InputError(f"core={core!r}: give two slices, (rows, columns), such as np.s_[8:-8, 8:-8].")
    found = []
    for part, size, axis in zip(core, (height, width), ("rows", "columns"), strict=True):
        start, stop, step = part.indices(size)
        beyond = max(part.start or 0, part.stop or 0) > size
        if step != 1 or stop <= start or beyond:
            raise InputError(
                f"core={core!r}: the {axis} {part.start}:{part.stop} are no part of the window's 0:{size}; "
                "name at least one of its pixels, in steps of 1."
            )
        found.append(slice(start, stop))
    return found[0], found[1]


def image_names(image: str | Sequence[str] | None, count: int) -> list[str]:
    """One name for each image of a batch.

    Raises:
        InputError: names are missing, or not as many as images.
    """
    if image is None:
        raise InputError(
            "Scores of single images are kept, so every image needs a name: update(..., image='tile 12'), "
            "or a list of names for a batch. Windows of one image take the same name."
        )
    names = [image] if isinstance(image, str) else list(image)
    if len(names) != count or not all(isinstance(name, str) for name in names):
        raise InputError(f"There are {count} images and {len(names)} names; give a text for each image.")
    return names


def shown(tensor: torch.Tensor) -> str:
    """A shape in words."""
    return " x ".join(map(str, tensor.shape)) or "a single number"
