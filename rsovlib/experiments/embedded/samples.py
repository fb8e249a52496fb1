"""Training crops: from simulated scenes, and from real images where there are some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tqdm.auto import tqdm

from rsovlib.data.lexicon import BUILDING, CLASSES, CROP_COLOURS, FARMLAND, ROOF_COLOURS
from rsovlib.errors import InputError
from rsovlib.experiments.embedded.making import make_all
from rsovlib.experiments.embedded.recipe import PATCH

VEGETATION = len(CLASSES)
"""Label of real imagery for plants of any kind, beside the classes of the scenes."""
LABELS = len(CLASSES) + 1
IGNORE = 255

_NO_ATTRIBUTE = 255
_SCENE_CROPS = (40, 48, 64, 64, 80, 96, 128)
_REAL_CROPS = (40, 48, 64, 64, 96, 128, 160)
_DINO_CROPS = (32, 32, 40, 48, 64, 96)
_LARGE_CROPS = (96, 128, 128, 160)


@dataclass(frozen=True)
class Pool:
    """Images to cut crops from.

    Attributes:
        images: uint8 arrays (H, W, 3).
        labels: uint8 arrays (H, W): classes of the scenes, :data:`VEGETATION`, or :data:`IGNORE`.
        attributes: uint8 arrays (H, W): index of the roof or crop colour.
        water: kind of water of each image ("river", "lake", "sea", "").
        weights: chance of each image to be drawn, summing to 1.
        crops: sides of the crops, before they are resized to the training size.
        real: whether these are pictures of the world.
    """

    images: Sequence[NDArray[np.uint8]]
    labels: Sequence[NDArray[np.uint8]]
    attributes: Sequence[NDArray[np.uint8]]
    water: Sequence[str]
    weights: NDArray[np.float64]
    crops: tuple[int, ...]
    real: bool = False


@dataclass(frozen=True)
class Batch:
    """One step's images with the shares of classes in each patch.

    Attributes:
        images: (B, 3, S, S) float32 in [0, 1], with photometric variety.
        shares: (B, N, LABELS) share of each label in each patch; ignored pixels count for none.
        roofs: (B, N, roof colours) share of each roof colour in each patch.
        crops: (B, N, crop colours) likewise for fields.
        water: kind of water of each image.
        real: whether these are pictures of the world.
    """

    images: torch.Tensor
    shares: torch.Tensor
    roofs: torch.Tensor
    crops: torch.Tensor
    water: list[str]
    real: bool


def scene_pool(count: int, side: int, first_seed: int, workers: int = 1) -> Pool:
    """Simulated scenes with consecutive seeds.

    Args:
        count: how many.
        side: side in pixels.
        first_seed: seed of the first.
        workers: processes to make them with; the result doesn't depend on it.

    Returns:
        The pool.

    Raises:
        InputError: the scenes are too small to cut the training crops from.
    """
    if count < 1 or side < max(_LARGE_CROPS):
        raise InputError(f"Training needs at least one scene of {max(_LARGE_CROPS)} pixels, not {count} of {side}.")
    seeds = range(first_seed, first_seed + count)
    made = list(tqdm(make_all(side, seeds, workers), total=count, desc="scenes", unit="scene"))
    images, labels, attributes, water = zip(*made, strict=True)
    return Pool(images, labels, attributes, water, np.full(count, 1 / count), _SCENE_CROPS)


def real_pool(images: Sequence[NDArray[np.uint8]], labels: Sequence[NDArray[np.uint8]] | None = None) -> Pool:
    """Real images, drawn in proportion to the square root of their area so that large tiles don't drown small ones."""
    area = np.sqrt([image.shape[0] * image.shape[1] for image in images])
    blank = [np.full(image.shape[:2], IGNORE, np.uint8) for image in images]
    return Pool(
        images,
        blank if labels is None else labels,
        [np.full(image.shape[:2], _NO_ATTRIBUTE, np.uint8) for image in images],
        [""] * len(images),
        area / area.sum(),
        _REAL_CROPS,
        real=True,
    )


def draw_batch(rng: np.random.Generator, pool: Pool, count: int, side: int, *, fine: bool = False) -> Batch:
    """Cuts, turns, flips, resizes and recolours crops.

    Args:
        rng: source of randomness.
        pool: where they come from.
        count: how many.
        side: side of the images wanted.
        fine: enlarge more than usual, as for DINO, which sees images enlarged twice.

    Returns:
        The batch.
    """
    sizes = _LARGE_CROPS if side > 64 else (_DINO_CROPS if fine else pool.crops)
    crop = int(rng.choice(sizes))
    chosen = rng.choice(len(pool.images), count, p=pool.weights)
    thinned = np.linspace(0, crop - 1, min(crop, side)).round().astype(int)  # labels need no more than the images
    images = np.empty((count, crop, crop, 3), np.uint8)
    labels = np.empty((count, len(thinned), len(thinned)), np.uint8)
    attributes = np.empty_like(labels)
    for index, number in enumerate(chosen):
        height, width = pool.labels[number].shape
        top, left = rng.integers(height - crop + 1), rng.integers(width - crop + 1)
        window = np.s_[top : top + crop, left : left + crop]
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        images[index] = _turned(pool.images[number][window], turns, flip)
        labels[index] = _turned(pool.labels[number][window][np.ix_(thinned, thinned)], turns, flip)
        attributes[index] = _turned(pool.attributes[number][window][np.ix_(thinned, thinned)], turns, flip)
    pictures = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    if crop != side:
        pictures = F.interpolate(pictures, (side, side), mode="bilinear", antialias=True, align_corners=False)
    grid = side // PATCH
    return Batch(
        images=_recolour(rng, pictures),
        shares=_shares(labels, LABELS, grid),
        roofs=_shares(np.where(labels == BUILDING, attributes, IGNORE), len(ROOF_COLOURS), grid),
        crops=_shares(np.where(labels == FARMLAND, attributes, IGNORE), len(CROP_COLOURS), grid),
        water=[pool.water[number] for number in chosen],
        real=pool.real,
    )


def _turned(array: NDArray[np.uint8], turns: int, flip: bool) -> NDArray[np.uint8]:
    turned = np.rot90(array, turns)
    return turned[:, ::-1] if flip else turned


def _shares(labels: NDArray[np.uint8], classes: int, grid: int) -> torch.Tensor:
    """Share of each class in each cell of a grid, (B, grid * grid, classes)."""
    values = torch.from_numpy(labels)
    hot = torch.stack([values == label for label in range(classes)], dim=1).float()
    return F.adaptive_avg_pool2d(hot, grid).flatten(2).transpose(1, 2)


def _recolour(rng: np.random.Generator, images: torch.Tensor) -> torch.Tensor:
    """Random gain, colour cast, saturation, contrast, brightness and blur of each image."""
    count = len(images)

    def normal(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal((count, *shape, 1, 1), dtype=np.float32))

    images = images * (1 + 0.12 * normal(1)) * (1 + 0.06 * normal(3))
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (1 + 0.25 * normal(1)).clamp(0.3, 1.5) * (images - grey)
    middle = images.mean(dim=(2, 3), keepdim=True)
    images = (images - middle) * (1 + 0.25 * normal(1)).clamp(0.5, 1.7) + middle + 0.04 * normal(1)
    if rng.random() < 0.25:
        images = F.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    return images.clamp(0, 1)
