"""Mixing clouds into pixels: the same arithmetic for NumPy arrays and torch tensors, of any numeric type."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rsovlib.data._cloud_field import CloudLayers
from rsovlib.data._cloud_optics import BandOptics
from rsovlib.errors import InputError

Array: TypeAlias = Any
"""A NumPy array or a torch tensor."""


@dataclass(frozen=True)
class BandLook:
    """How one band is mixed, in values of the image.

    Attributes:
        optics: what the band sees of cloud, haze and sky.
        top: value of a fully lit cloud, above ``black``.
        haze: value of dense haze, above ``black``.
        black: value of a dark surface.
        shadow: share of the light that an opaque cloud takes from its shadow.
    """

    optics: BandOptics
    top: float
    haze: float
    black: float
    shadow: float


def is_tensor(image: object) -> bool:
    """Whether this is a torch tensor; asked without importing torch, which only its users need."""
    return type(image).__module__.partition(".")[0] == "torch" and hasattr(image, "detach")


def bands_first(image: Array) -> Array:
    """A view of the image as (..., C, H, W).

    Raises:
        InputError: it isn't an image.
    """
    if is_tensor(image):
        if image.ndim in (3, 4):
            view = image
        elif image.ndim == 2:
            view = image[None]
        else:
            raise InputError(
                "A torch image is (C, H, W), a batch (B, C, H, W), one band (H, W); "
                f"this one has shape {tuple(image.shape)}."
            )
    elif isinstance(image, np.ndarray):
        if image.ndim == 3:
            view = np.moveaxis(image, -1, 0)
        elif image.ndim == 2:
            view = image[None]
        else:
            raise InputError(
                f"A NumPy image is (H, W, C), one band (H, W); this one has shape {image.shape}. "
                "Batches are torch tensors."
            )
    else:
        raise InputError(f"Clouds go over a NumPy array or a torch tensor, not over a {type(image).__name__}.")
    if 0 in view.shape:
        raise InputError(f"This image of shape {tuple(image.shape)} has no pixels.")
    return view


def number_type(image: Array) -> np.dtype[Any]:
    """The NumPy type of the image's values; half precision counts as float32.

    Raises:
        InputError: not a type of images.
    """
    name = str(image.dtype).removeprefix("torch.")
    name = "float32" if name in {"float16", "bfloat16"} else name
    if name not in {"uint8", "uint16", "int16", "float32", "float64"}:
        raise InputError(
            f"Clouds know images of uint8, uint16, int16 and floating point, not of {name}; convert the image first."
        )
    return np.dtype(name)


def as_floats(bands: Array, dtype: np.dtype[Any]) -> Array:
    """The bands to calculate with: float32, or float64 where the image is."""
    wide = dtype == np.float64
    if is_tensor(bands):
        import torch

        return bands.detach().to(torch.float64 if wide else torch.float32)
    return bands.astype(np.float64 if wide else np.float32)


def missing_data(values: Array, nodata: float | None, dtype: np.dtype[Any]) -> Array | None:
    """Where a band has no data, (..., C, H, W) bool; None if it has data everywhere."""
    missing = None
    if dtype.kind == "f":
        missing = ~(abs(values) < np.inf)
    if nodata is not None:
        missing = values == nodata if missing is None else missing | (values == nodata)
    return missing if missing is not None and bool(missing.any()) else None


def valid_pixels(missing: Array | None) -> NDArray[np.bool_] | None:
    """Where any band has data, (..., H, W) on the processor; None if that is everywhere."""
    if missing is None:
        return None
    somewhere = ~missing.all(-3)
    return somewhere.cpu().numpy() if is_tensor(missing) else somewhere


def stack_layers(layers: Sequence[CloudLayers], like: Array) -> CloudLayers:
    """The layers of the images as (H, W), or (B, H, W) for a batch, of the image's kind and on its device."""
    if not is_tensor(like):
        return layers[0]
    import torch

    def stacked(name: str) -> Array:
        planes = np.stack([getattr(one, name) for one in layers])
        return torch.from_numpy(planes if like.ndim == 4 else planes[0]).to(like.device)

    return CloudLayers(*map(stacked, ("opacity", "shade", "light", "haze")))


def blend_into(
    out: Array,
    bands: Array,
    values: Array,
    layers: CloudLayers,
    looks: Sequence[BandLook],
    dtype: np.dtype[Any],
    nodata: float | None,
    missing: Array | None,
) -> None:
    """Writes the cloudy bands.

    Args:
        out: (..., C, H, W), to be written.
        bands: the clear image in its own type, (..., C, H, W).
        values: the same as floats.
        layers: the clouds, (..., H, W), of the same kind and on the same device.
        looks: one for each band.
        dtype: the image's type.
        nodata: a value that no pixel with data may get.
        missing: (..., C, H, W), pixels that stay as they are.
    """
    xp: Any = importlib.import_module("torch") if is_tensor(bands) else np  # the two have the functions used here
    opacity, shade, light, haze = (
        plane[..., None, :, :] for plane in (layers.opacity, layers.shade, layers.light, layers.haze)
    )
    log_through = xp.log1p(-opacity)
    log_through_haze = xp.log1p(-haze) if bool((haze > 0).any()) else None
    # Bands that look alike are mixed together.
    groups = [slice(None)] if len(set(looks)) == 1 else [slice(band, band + 1) for band in range(len(looks))]
    for group in groups:
        look = looks[group.start or 0]
        optics = look.optics
        # y = x * kept + added; where there is neither cloud, shadow nor haze that is exactly x.
        through = xp.exp(optics.cloud * log_through)
        kept = through * (1 - look.shadow * (1 - optics.skylight) * shade)
        added = (1 - through) * light * look.top
        if log_through_haze is not None:
            through_haze = xp.exp(optics.haze * log_through_haze)
            kept = kept * through_haze
            added = added + through * (1 - through_haze) * look.haze
        if look.black:
            added = added + look.black * (1 - kept)
        mixed = values[..., group, :, :] * kept + added
        if dtype.kind != "f":
            limits = np.iinfo(dtype)
            mixed = xp.clip(xp.round(mixed), limits.min, limits.max)
        if nodata is not None:
            mixed = xp.where(mixed == nodata, _beside(nodata, dtype), mixed)
        if is_tensor(out):
            mixed = mixed.to(out.dtype)
        if missing is not None:
            mixed = xp.where(missing[..., group, :, :], bands[..., group, :, :], mixed)
        out[..., group, :, :] = mixed


def _beside(nodata: float, dtype: np.dtype[Any]) -> float:
    """The value next to the one that means "no data"."""
    if dtype.kind == "f":
        return float(np.nextafter(dtype.type(nodata), dtype.type(np.inf)))
    return nodata - 1 if nodata >= np.iinfo(dtype).max else nodata + 1
