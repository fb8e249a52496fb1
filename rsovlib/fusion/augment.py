"""One geometric transform for the optical image, the radar and the labels of a sample; colour jitter for optical alone.

There are two: a square is cut out and resized (the embedded networks), or the image is resized to a short side and a
square is cut out (:meth:`SampleRule.papers`).  The release of MM-OVSeg scales, crops and mirrors the optical image and
its labels, and hands the radar over as it lies in the file: cut or padded at its right and lower edge to the network's
size.  ``sar_geometry="released"`` imitates that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

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


@dataclass(frozen=True)
class ShortSideGeometry:
    """What happens to every layer of a sample under the papers' rule: resized, cut, and perhaps mirrored.

    Attributes:
        height, width: of the resized image, in pixels.
        top, left: of the square in it.
        side: of the square; where the resized image is smaller, the results are too, and are padded later.
        flip: mirrored left to right.
    """

    height: int
    width: int
    top: int
    left: int
    side: int
    flip: bool = False

    def picture(self, values: NDArray[np.uint8]) -> torch.Tensor:
        """(H, W, C) uint8 -> (C, h, w) in [0, 1], h and w at most the side; bilinear."""
        whole = torch.from_numpy(np.ascontiguousarray(values)).movedim(-1, 0).float() / 255
        if whole.shape[-2:] != (self.height, self.width):
            size = (self.height, self.width)
            whole = F.interpolate(whole[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
        return self._cut(whole).contiguous()

    def labels(self, values: NDArray[np.uint8]) -> torch.Tensor:
        """(H, W) uint8 -> (h, w) int64, nearest."""
        whole = torch.from_numpy(np.ascontiguousarray(values)).long()
        rows, columns = (
            ((torch.arange(new) + 0.5) * old / new).long()
            for new, old in zip((self.height, self.width), values.shape, strict=True)
        )
        return self._cut(whole[rows][:, columns]).contiguous()

    def _cut(self, layer: torch.Tensor) -> torch.Tensor:
        square = layer[..., self.top : self.top + self.side, self.left : self.left + self.side]
        return square.flip(-1) if self.flip else square


def draw_short_side(
    rng: np.random.Generator, shape: tuple[int, int], side: int, short_side: int, *, flips: bool = True
) -> ShortSideGeometry:
    """A random square of an image that is resized first, as detectron2 does in the papers' programs.

    Args:
        rng: source of the draw.
        shape: (H, W) of the image.
        side: of the square.
        short_side: the image's shorter side after resizing; the ratio is kept.
        flips: mirror half of them.
    """
    scale = short_side / min(shape)
    height, width = (int(length * scale + 0.5) for length in shape)
    top, left = (int(rng.integers(max(0, length - side) + 1)) for length in (height, width))
    return ShortSideGeometry(height, width, top, left, side, flips and bool(rng.random() < 0.5))


def padded(layer: torch.Tensor, side: int, value: float) -> torch.Tensor:
    """A layer (..., h, w) filled up to the right and below to (..., side, side)."""
    height, width = layer.shape[-2:]
    if (height, width) == (side, side):
        return layer
    return F.pad(layer, (0, side - width, 0, side - height), value=value)


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
        short_side: resize the image to this shorter side before the square of ``side`` pixels is cut out, and fill up
            with grey (and 255 for labels) where it is smaller; ``crops`` has then no meaning. None: cut, then resize.
    """

    side: int = 128
    crops: tuple[int, ...] = (128,)
    flips: bool = True
    jitter: bool = True
    cover: tuple[float, float] | None = (0.0, 1.0)
    clear: float = 0.0
    without_sar: float = 0.0
    sar_geometry: SarGeometry = "shared"
    short_side: int | None = None

    @classmethod
    def papers(cls, side: int = 384, **changes: Any) -> Self:
        """The rule of MM-OVSeg, GSNet and CAT-Seg: shortest side to 384, a random crop of 384, SSD's jitter, a flip.

        Clouds are the dataset's own, so none are drawn.

        Args:
            side: of the network's images.
            **changes: other attributes.
        """
        return cls(**{"side": side, "crops": (side,), "cover": None, "short_side": side, **changes})

    def draw(self, rng: np.random.Generator, shape: tuple[int, int]) -> Geometry | ShortSideGeometry:
        """What is done to an image of (H, W) pixels this time."""
        if self.short_side is None:
            return draw_geometry(rng, shape, self.side, self.crops, flips=self.flips)
        return draw_short_side(rng, shape, self.side, self.short_side, flips=self.flips)

    def __post_init__(self) -> None:
        if self.sar_geometry not in get_args(SarGeometry):
            raise unknown_name("geometry of the radar", self.sar_geometry, get_args(SarGeometry))
        if self.side < 8 or not self.crops or min(self.crops) < 8:
            raise InputError(f"Samples need a side and crops of at least 8 pixels, not {self.side} and {self.crops}.")
        if self.short_side is not None and self.short_side < 8:
            raise InputError(f"A short side must have at least 8 pixels, not {self.short_side}.")


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
    chosen = rng.integers(len(pool.pairs), size=count)  # the generator decides, so that any process may read
    samples = [draw_sample(rng, pool.pairs[index], rule, pool.clouds) for index in chosen.tolist()]
    optical, sar, valid, labels = (torch.stack(layer) for layer in zip(*samples, strict=True))
    return FusionBatch(optical, sar, valid, labels, pool.classes)


@dataclass(frozen=True)
class DrawFrom:
    """Draws the batch of a step from one of several pools, each as likely; as the loop wants it.

    A class and no closure, so that it can be sent to the processes of several devices.

    Attributes:
        pools: where from.
        count: B.
        rule: how.
    """

    pools: Sequence[PairPool]
    count: int
    rule: SampleRule

    def __call__(self, rng: np.random.Generator) -> FusionBatch:
        """The batch that a generator stands for."""
        return draw_batch(rng, self.pools[int(rng.integers(len(self.pools)))], self.count, self.rule)


def draw_from(pools: Sequence[PairPool], count: int, rule: SampleRule) -> DrawFrom:
    """See :class:`DrawFrom`."""
    return DrawFrom(tuple(pools), count, rule)


def draw_sample(
    rng: np.random.Generator, pair: Pair, rule: SampleRule, clouds: str | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """One sample: optical (3, S, S), radar (3, S, S), its availability (1, S, S), labels (S, S) or (0, 0)."""
    height, width = pair.optical.shape[:2]
    geometry = rule.draw(rng, (height, width))
    optical = _clouded(rng, geometry.picture(pair.optical), rule, clouds)
    if rule.jitter:
        optical = colour_jitter(rng, optical)
    sar = geometry.picture(pair.sar) if rule.sar_geometry == "shared" else released_sar(pair.sar, rule.side)
    missing = rng.random() < rule.without_sar
    valid = torch.full((1, rule.side, rule.side), float(not missing))
    labels = torch.full((0, 0), IGNORE)
    if pair.labels is not None:
        labels = padded(geometry.labels(pair.labels), rule.side, IGNORE)
    grey = _PADDING / 255
    return padded(optical, rule.side, grey), padded(sar, rule.side, grey) * valid, valid, labels


def _clouded(rng: np.random.Generator, optical: torch.Tensor, rule: SampleRule, clouds: str | None) -> torch.Tensor:
    """Clouds over the cut square; the same number of draws whether there are any or not."""
    seed, clear = int(rng.integers(2**31)), rng.random() < rule.clear
    cover = float(rng.uniform(*rule.cover)) if rule.cover is not None else 0.0
    if clouds is None or rule.cover is None or clear or cover == 0:
        return optical
    from rsovlib.data.clouds import add_clouds

    pixels = (optical * 255).round().to(torch.uint8)
    return add_clouds(pixels, cover, kind=clouds, seed=seed, wavelengths=OPTICAL_WAVELENGTHS)[0].float() / 255
