"""One geometric transform for the optical image, the radar and the labels of a sample; colour jitter for optical alone.

The release of MM-OVSeg scales, crops and mirrors the optical image and its labels, and hands the radar over as it lies
in the file: cut or padded at its right and lower edge to the network's size.  ``sar_geometry="released"`` imitates
that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from rsovlib.errors import InputError, unknown_name
from rsovlib.fusion.pairs import IGNORE, OPTICAL_WAVELENGTHS, Pair, PairPool

SarGeometry = Literal["shared", "released"]
_PADDING = 128
"""Grey of the release's padding."""


@dataclass(frozen=True)
class Geometry:
    """What happens to every layer of a sample: a square is cut out, resized and perhaps mirrored.

    Attributes:
        top, left: of the square, in pixels.
        crop: its side.
        side: of the result.
        flip: mirrored left to right.
    """

    top: int
    left: int
    crop: int
    side: int
    flip: bool = False

    def picture(self, values: NDArray[np.uint8]) -> torch.Tensor:
        """(H, W, C) uint8 -> (C, side, side) in [0, 1], bilinear."""
        cut = torch.from_numpy(np.ascontiguousarray(self._cut(values))).movedim(-1, 0).float() / 255
        if self.crop == self.side:
            return cut
        size = (self.side, self.side)
        return F.interpolate(cut[None], size, mode="bilinear", align_corners=False, antialias=True)[0]

    def labels(self, values: NDArray[np.uint8]) -> torch.Tensor:
        """(H, W) uint8 -> (side, side) int64, nearest."""
        cut = torch.from_numpy(np.ascontiguousarray(self._cut(values))).long()
        if self.crop == self.side:
            return cut
        at = ((torch.arange(self.side) + 0.5) * self.crop / self.side).long()
        return cut[at][:, at]

    def _cut(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        square = values[self.top : self.top + self.crop, self.left : self.left + self.crop]
        return square[:, ::-1] if self.flip else square


def draw_geometry(
    rng: np.random.Generator, shape: tuple[int, int], side: int, crops: Sequence[int], *, flips: bool = True
) -> Geometry:
    """A random square of an image.

    Args:
        rng: source of the draw.
        shape: (H, W) of the image.
        side: of the result.
        crops: sides to choose from; larger ones than the image become the image's shorter side.
        flips: mirror half of them.
    """
    crop = min(int(rng.choice(np.asarray(crops))), *shape)
    top, left = (int(rng.integers(length - crop + 1)) for length in shape)
    return Geometry(top, left, crop, side, flips and bool(rng.random() < 0.5))


def released_sar(values: NDArray[np.uint8], side: int) -> torch.Tensor:
    """The radar as the release feeds it: the upper left corner, or the image with grey to its right and below.

    Args:
        values: (H, W, C) uint8.
        side: of the result.

    Returns:
        (C, side, side) in [0, 1].
    """
    canvas = np.full((side, side, values.shape[2]), _PADDING, np.uint8)
    corner = values[:side, :side]
    canvas[: corner.shape[0], : corner.shape[1]] = corner
    return torch.from_numpy(canvas).movedim(-1, 0).float() / 255


def colour_jitter(rng: np.random.Generator, image: torch.Tensor) -> torch.Tensor:
    """SSD's photometric distortion (Liu et al. 2016, arXiv 1512.02325): each step with a chance of one half.

    Brightness by up to 32 / 255, contrast and saturation by 0.5 to 1.5, hue by up to 18 degrees; contrast comes before
    or after saturation and hue.

    Args:
        rng: source of the draws.
        image: (3, H, W) in [0, 1].

    Returns:
        The same shape and range.
    """
    from torchvision.transforms import functional as photo  # type: ignore[import-untyped]

    steps: list[tuple[str, float]] = []
    for name, low, high in (
        ("contrast", 0.5, 1.5),
        ("saturation", 0.5, 1.5),
        ("hue", -0.05, 0.05),
        ("brightness", -32 / 255, 32 / 255),
    ):
        strength, used = float(rng.uniform(low, high)), rng.random() < 0.5
        if used:
            steps.append((name, strength))
    if rng.random() < 0.5:
        steps.sort(key=lambda step: step[0] == "contrast")
    steps.sort(key=lambda step: step[0] != "brightness")
    for name, strength in steps:
        if name == "brightness":
            image = image + strength
        elif name == "contrast":
            image = image * strength  # SSD's contrast is a gain, without a mean
        elif name == "saturation":
            image = photo.adjust_saturation(image, strength)
        else:
            image = photo.adjust_hue(image, strength)
        image = image.clamp(0, 1)
    return image


@dataclass(frozen=True)
class SampleRule:
    """How samples are drawn from a pool.

    Attributes:
        side: of the network's images.
        crops: sides of the squares that are cut out.
        flips: mirror half of the samples.
        jitter: colour jitter of the optical image.
        cover: range of the share of cloud that is drawn for each sample, 0 to 1; None leaves clouds out, and so does
            a pool that names no kind of clouds.
        clear: share of the samples without clouds.
        without_sar: share of the samples whose radar is marked missing, so that the network can do without it.
        sar_geometry: "shared" (radar goes through the optical image's geometry) or "released" (it doesn't).
    """

    side: int = 128
    crops: tuple[int, ...] = (128,)
    flips: bool = True
    jitter: bool = True
    cover: tuple[float, float] | None = (0.0, 1.0)
    clear: float = 0.0
    without_sar: float = 0.0
    sar_geometry: SarGeometry = "shared"

    def __post_init__(self) -> None:
        if self.sar_geometry not in get_args(SarGeometry):
            raise unknown_name("geometry of the radar", self.sar_geometry, get_args(SarGeometry))
        if self.side < 8 or not self.crops or min(self.crops) < 8:
            raise InputError(f"Samples need a side and crops of at least 8 pixels, not {self.side} and {self.crops}.")


@dataclass
class FusionBatch:
    """One step's samples.

    Attributes:
        optical: (B, 3, S, S) in [0, 1], perhaps cloudy.
        sar: (B, 3, S, S) in [0, 1].
        sar_valid: (B, 1, S, S) 1 where there is radar.
        labels: (B, S, S) int64, 255 where there is none; empty (B, 0, 0) for unlabelled pairs.
        classes: prompts of the labels.
    """

    optical: torch.Tensor
    sar: torch.Tensor
    sar_valid: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]

    def to(self, *args: Any, **kwargs: Any) -> FusionBatch:
        """The batch on another device."""
        return FusionBatch(
            self.optical.to(*args, **kwargs),
            self.sar.to(*args, **kwargs),
            self.sar_valid.to(*args, **kwargs),
            self.labels.to(*args, **kwargs),
            self.classes,
        )


def draw_batch(rng: np.random.Generator, pool: PairPool, count: int, rule: SampleRule) -> FusionBatch:
    """Draws samples of one pool; all randomness comes from ``rng``.

    Args:
        rng: source of every draw.
        pool: where from; its pairs may differ in size.
        count: B.
        rule: how.
    """
    chosen = rng.integers(len(pool.pairs), size=count)
    samples = [draw_sample(rng, pool.pairs[index], rule, pool.clouds) for index in chosen.tolist()]
    optical, sar, valid, labels = (torch.stack(layer) for layer in zip(*samples, strict=True))
    return FusionBatch(optical, sar, valid, labels, pool.classes)


def draw_from(pools: Sequence[PairPool], count: int, rule: SampleRule) -> Callable[[np.random.Generator], FusionBatch]:
    """A function that draws the batch of a step from one of several pools, each as likely; as the loop wants it."""

    def draw(rng: np.random.Generator) -> FusionBatch:
        return draw_batch(rng, pools[int(rng.integers(len(pools)))], count, rule)

    return draw


def draw_sample(
    rng: np.random.Generator, pair: Pair, rule: SampleRule, clouds: str | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """One sample: optical (3, S, S), radar (3, S, S), its availability (1, S, S), labels (S, S) or (0, 0)."""
    height, width = pair.optical.shape[:2]
    geometry = draw_geometry(rng, (height, width), rule.side, rule.crops, flips=rule.flips)
    optical = _clouded(rng, geometry.picture(pair.optical), rule, clouds)
    if rule.jitter:
        optical = colour_jitter(rng, optical)
    sar = geometry.picture(pair.sar) if rule.sar_geometry == "shared" else released_sar(pair.sar, rule.side)
    missing = rng.random() < rule.without_sar
    valid = torch.full((1, rule.side, rule.side), float(not missing))
    labels = torch.full((0, 0), IGNORE) if pair.labels is None else geometry.labels(pair.labels)
    return optical, sar * valid, valid, labels


def _clouded(rng: np.random.Generator, optical: torch.Tensor, rule: SampleRule, clouds: str | None) -> torch.Tensor:
    """Clouds over the cut square; the same number of draws whether there are any or not."""
    seed, clear = int(rng.integers(2**31)), rng.random() < rule.clear
    cover = float(rng.uniform(*rule.cover)) if rule.cover is not None else 0.0
    if clouds is None or rule.cover is None or clear or cover == 0:
        return optical
    from rsovlib.data.clouds import add_clouds

    pixels = (optical * 255).round().to(torch.uint8)
    return add_clouds(pixels, cover, kind=clouds, seed=seed, wavelengths=OPTICAL_WAVELENGTHS)[0].float() / 255
