"""Images as segmenters take them: 8-bit RGB arrays, and their resized, normalised versions for the networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image

from rsovlib.errors import InputError

RGB = npt.NDArray[np.uint8]


def as_rgb(image: Any) -> RGB:
    """An image as (H, W, 3) uint8.

    Args:
        image: numpy (H, W, 3) uint8; or torch (3, H, W), uint8, or floating point in [0, 1].

    Raises:
        InputError: another shape, type or range.
    """
    if isinstance(image, torch.Tensor):
        if image.ndim != 3 or image.shape[0] != 3:
            raise InputError(f"A torch image must be (3, H, W), got {tuple(image.shape)}.")
        array = image.detach().cpu().permute(1, 2, 0).numpy()
    else:
        array = np.asarray(image)
        if array.ndim != 3 or array.shape[2] != 3:
            raise InputError(f"A numpy image must be (H, W, 3) with red, green, blue, got {array.shape}.")
    if min(array.shape) < 1:
        raise InputError(f"The image has no pixels: {array.shape}.")
    return _as_bytes(array, "image")


def as_sar(sar: Any, valid: Any, shape: tuple[int, int]) -> tuple[RGB, npt.NDArray[np.bool_]]:
    """A radar image as three display channels, and where it holds data.

    Args:
        sar: (H, W) or (H, W, 1 to 3), uint8 or floating point in [0, 1]: one polarisation, two (VV, VH; the third
            channel repeats the first), or the three channels that :mod:`rsovlib.data.sarscene` shows.
        valid: (H, W) bool; None where all pixels are data.
        shape: (H, W) of the optical image, on whose grid it must lie.

    Returns:
        (H, W, 3) uint8, 0 where there is no data, and (H, W) bool.

    Raises:
        InputError: another shape, type or range.
    """
    array = np.asarray(sar)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3):
        raise InputError(f"A radar image must be (H, W) or (H, W, 1 to 3), got {np.shape(sar)}.")
    if array.shape[:2] != tuple(shape):
        raise InputError(
            f"The radar image has {array.shape[0]} x {array.shape[1]} pixels and the optical one {shape[0]} x "
            f"{shape[1]}; arrays must lie on one grid (rsovlib.data.raster.open_pair brings files to one)."
        )
    there = np.ones(shape, dtype=bool) if valid is None else np.asarray(valid)
    if there.dtype != bool or there.shape != tuple(shape):
        raise InputError(f"sar_valid must be bool of shape {tuple(shape)}, got {there.dtype} of shape {there.shape}.")
    known = np.where(there[:, :, None], array, array.dtype.type(0))  # whatever stands for nodata
    order = [[0, 0, 0], [0, 1, 0], [0, 1, 2]][array.shape[2] - 1]
    return np.ascontiguousarray(_as_bytes(known, "radar image")[:, :, order]), there


def _as_bytes(array: npt.NDArray[Any], kind: str) -> RGB:
    """8-bit values as they are, and floating-point ones in [0, 1] as 8-bit ones."""
    if array.dtype == np.uint8:
        return np.require(array, requirements=["C", "W"])  # torch wants writable memory, even to read it
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(
            f"The {kind} must be uint8, or floating point in [0, 1]; this one is {array.dtype}. "
            "Rasters of other types are stretched by rsovlib.data.raster.open_scene."
        )
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise InputError(f"The floating-point {kind} must hold numbers in [0, 1] only; scale or stretch it first.")
    return np.round(array * 255).astype(np.uint8)


def patch_sides(height: int, width: int, patch: int, short_side: int | None) -> tuple[int, int]:
    """The sides of a network's input: short side as asked, shape kept, each to the nearest multiple of the patch.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        patch: side of a patch in pixels.
        short_side: wanted short side; None keeps the image's scale.

    Returns:
        (height, width), at least one patch each.
    """
    scale = 1.0 if short_side is None else short_side / min(height, width)
    return (max(1, round(height * scale / patch)) * patch, max(1, round(width * scale / patch)) * patch)


def to_unit(image: RGB, device: torch.device) -> torch.Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(image).to(device).permute(2, 0, 1)[None].float() / 255


def resize_pil_bicubic(image: RGB, sides: tuple[int, int]) -> RGB:
    """Pillow's bicubic resize of 8-bit pixels (antialiased when it shrinks), as CLIP's own preprocessing does."""
    if image.shape[:2] == sides:
        return image
    return np.array(Image.fromarray(image).resize((sides[1], sides[0]), Image.Resampling.BICUBIC))


def resize_tensor_bicubic(pixels: torch.Tensor, sides: tuple[int, int]) -> torch.Tensor:
    """Bicubic resize by torch, without antialias, as SDCI feeds DINO: (B, C, H, W) -> (B, C, *sides)."""
    if tuple(pixels.shape[-2:]) == sides:
        return pixels
    return F.interpolate(pixels, size=sides, mode="bicubic", align_corners=False)


def enlarge(maps: torch.Tensor, sides: tuple[int, int]) -> torch.Tensor:
    """Bilinear resize of class maps (K, h, w) -> (K, *sides), align_corners False."""
    if tuple(maps.shape[-2:]) == sides:
        return maps
    return F.interpolate(maps[None], size=sides, mode="bilinear", align_corners=False)[0]
