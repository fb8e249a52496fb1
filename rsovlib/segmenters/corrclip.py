"""CorrCLIP: patches attend within masks of regions only, by the correlation of DINO's features.

Zhang, Liu and Tang, "CorrCLIP: Reconstructing Patch Correlations in CLIP for Open-Vocabulary Semantic Segmentation",
ICCV 2025. Three streams add up: the last block's values, those of the mean of earlier blocks (spatial), and a copy of
the class token for every region (semantic). Finally each region gets its most frequent class (map correction).

The published masks come from SAM 2, which is not loaded here: any callable of the form :class:`Masks` may give them
(for SAM, paint its masks in the order of rising area). The stand-in is our own superpixels, which step 3 of the method
joins where DINO finds them alike; results are then called ``corrclip-superpixel``.

Released settings for other sets: 448 pixels for ADE and Cityscapes, there with windows of 224; ``prob_threshold`` 0.2
VOC21, 0.15 Context60, 0.25 COCO-Object. The authors use MetaCLIP's weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch

from rsovlib.backbones.clip import ClipBackbone
from rsovlib.backbones.dino import DinoBackbone
from rsovlib.errors import InputError
from rsovlib.kernels import felzenszwalb_superpixels
from rsovlib.segmenters import policies
from rsovlib.segmenters.dense import DenseClipDino, DenseConfig, Window, with_labels
from rsovlib.segmenters.images import RGB
from rsovlib.segmenters.proxyclip import ProxyCLIPConfig
from rsovlib.segmenters.queries import Queries

#: Depth -> how many blocks before the last two count as spatial; other depths take depth - 4.
_SPATIAL = {12: 5, 24: 12, 32: 28}


class Masks(Protocol):
    """Regions of an image, by whatever model: (H, W, 3) uint8 -> (H, W) integers, -1 where nothing was segmented."""

    def __call__(self, image: RGB) -> npt.NDArray[np.integer[Any]]:
        """The regions of one image."""
        ...


@dataclass(frozen=True)
class Superpixels:
    """The stand-in for SAM: large Felzenszwalb superpixels, which cover everything.

    Attributes:
        scale, sigma, min_size: of ``kernels.felzenszwalb_superpixels``.
    """

    scale: float = 200.0
    sigma: float = 0.8
    min_size: int = 200

    def __call__(self, image: RGB) -> npt.NDArray[np.integer[Any]]:
        """The superpixels of one image."""
        labels: npt.NDArray[np.int32] = felzenszwalb_superpixels(image, self.scale, self.sigma, self.min_size)
        return labels


@dataclass(frozen=True)
class CorrCLIPConfig(DenseConfig):
    """Options of CorrCLIP.

    Attributes:
        tau: temperature of the correlations, multiplied.
        reach: eps of the merging of regions, in cosines.
        spatial_weight, semantic_weight: of the two side streams.
        map_correction: whether each region gets its most frequent class.
        dino_scale: see ``ProxyCLIPConfig``.
        superpixel_scale, superpixel_sigma, superpixel_min_size: of the stand-in for masks.
    """

    size: int | None = 336
    window: int | None = 336
    stride: int = 112
    pad_to: int | None = 56
    logit_scale: float = 40.0
    tau: float = 4.0
    reach: float = 0.2
    spatial_weight: float = 1.0
    semantic_weight: float = 0.5
    map_correction: bool = True
    dino_scale: float | None = None
    superpixel_scale: float = 200.0
    superpixel_sigma: float = 0.8
    superpixel_min_size: int = 200

    EMBEDDED: ClassVar[dict[str, Any]] = ProxyCLIPConfig.EMBEDDED
    RANGES: ClassVar[dict[str, tuple[float, float]]] = {
        **DenseConfig.RANGES,
        "tau": (0, float("inf")),
        "reach": (0, 2),
        "dino_scale": (1e-3, float("inf")),
    }


class CorrCLIP(DenseClipDino[CorrCLIPConfig]):
    """CorrCLIP as a segmenter.

    Args:
        clip: image-text backbone.
        dino: structural backbone.
        config: options.
        masks: gives the regions; superpixels if not given.

    Raises:
        InputError: the masks don't have the image's shape.
    """

    name = "corrclip"
    config_type = CorrCLIPConfig

    def __init__(
        self,
        clip: ClipBackbone,
        dino: DinoBackbone,
        config: CorrCLIPConfig | None = None,
        masks: Masks | None = None,
    ) -> None:
        super().__init__(clip, dino, config)
        given = self.config
        stand_in = Superpixels(given.superpixel_scale, given.superpixel_sigma, given.superpixel_min_size)
        self.masks: Masks = stand_in if masks is None else masks
        if len(clip.blocks) < 2:
            raise InputError(f"CorrCLIP needs more than one block, and {clip.name} has one.")

    @property
    def label(self) -> str:
        """The method's name, with the stand-in."""
        return f"{self.name}-superpixel" if isinstance(self.masks, Superpixels) else self.name

    def settings(self) -> dict[str, Any]:
        """Method, weights and parameters as plain values."""
        stand_in = " (stand-in for SAM 2)" if isinstance(self.masks, Superpixels) else ""
        return {**super().settings(), "masks": f"{self.masks!r}{stand_in}"}

    def memory_needed(self, height: int, width: int, classes: int) -> int:
        """Foreseen peak in bytes above the models."""
        # Felzenszwalb keeps some 80 bytes a pixel.
        return super().memory_needed(height, width, classes) + 80 * height * width

    def prepare(self, image: RGB, pixels: torch.Tensor) -> torch.Tensor:
        """The regions at the size of the resized image, (h, w)."""
        regions = torch.from_numpy(self._regions(image)).to(pixels.device)
        return _nearest(regions, (pixels.shape[2], pixels.shape[3]))

    def scores(self, window: Window, queries: Queries) -> torch.Tensor:
        """Cosines on DINO's grid."""
        query, key, fine = self.dino.query_key(self.dino_pixels(window))
        structure = (query + key)[0].transpose(0, 1).flatten(1)  # (N, D), heads side by side
        # The zeros around a window are a region of their own, as released.
        regions = window.place.cut(window.context, value=int(window.context.max()) + 1)
        on_fine = policies.merge_regions(structure, _nearest(regions, fine).flatten(), self.config.reach)
        on_coarse = _nearest(on_fine.unflatten(0, fine), window.grid).flatten()
        names = torch.unique(on_fine)

        main, spatial, semantic = self._streams(window, on_coarse, names)
        weights = policies.scoped_correlation(structure, on_fine, self.config.tau)
        features = self._gathered(main, weights, window.grid, fine)
        features = features + self.config.spatial_weight * self._gathered(spatial, weights, window.grid, fine)
        features = features + self.config.semantic_weight * semantic[torch.searchsorted(names, on_fine)]
        return self.compare(features, queries, fine)

    def decide(self, image: RGB, logits: torch.Tensor, queries: Queries) -> torch.Tensor:
        """As usual, then map correction with the masks as they were given."""
        probabilities = super().decide(image, logits, queries)
        if not self.config.map_correction:
            return probabilities
        regions = torch.from_numpy(self._regions(image)).to(logits.device)
        labels = probabilities.argmax(dim=0)
        names, inverse = torch.unique(regions, return_inverse=True)
        votes = torch.bincount(
            (inverse * len(probabilities) + labels).flatten(), minlength=len(names) * len(probabilities)
        )
        winners = votes.view(len(names), -1).argmax(dim=1)[inverse]
        return with_labels(probabilities, torch.where(regions < 0, labels, winners))

    def _regions(self, image: RGB) -> npt.NDArray[np.int64]:
        regions = np.asarray(self.masks(image))
        if regions.shape != image.shape[:2]:
            raise InputError(f"The masks are {regions.shape}, the image {image.shape[:2]}; they must agree.")
        return regions.astype(np.int64)

    def _gathered(
        self, tokens: torch.Tensor, weights: torch.Tensor, grid: policies.Grid, fine: policies.Grid
    ) -> torch.Tensor:
        """The last block's values of these tokens, carried to DINO's grid and gathered there; projected, (N, E)."""
        block = self.clip.blocks[-1]
        value = self.carry_values(self.clip.value(block, block.ln_1(tokens))[:, :, 1:], grid, fine)
        return self.clip.project(self.clip.join_heads(block, weights @ value))[0]

    def _streams(
        self, window: Window, regions: torch.Tensor, names: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens before the last block, their mean over the spatial blocks, and each region's class token (R, E).

        A region's class token attends to the true one and to the region's patches; no other token sees it.
        """
        tokens = self.clip.embed(window.pixels, self.config.position_embedding)
        plain, depth = tokens.shape[1], len(self.clip.blocks)
        mask = torch.zeros(plain + len(names), plain + len(names), dtype=torch.bool, device=tokens.device)
        mask[:, 0] = True
        mask[:plain, :plain] = True
        mask[plain:, 1:plain] = names[:, None] == regions
        tokens = torch.cat([tokens, tokens[:, :1].expand(-1, len(names), -1)], dim=1)
        count = _SPATIAL.get(depth, max(1, depth - 4))
        first = depth - 1 - count
        main, spatial = tokens, torch.zeros_like(tokens[:, :plain])
        for step in self.clip.walk(tokens, mask=mask):
            main = step.input  # of the last block, in the end
            if first <= step.index < depth - 1:  # the input of block i is the output of i - 1
                spatial = spatial + step.input[:, :plain] / count
            tokens = step.output
        return main[:, :plain], spatial, self.clip.project(tokens[:, plain:])[0]


def _nearest(regions: torch.Tensor, sides: tuple[int, int]) -> torch.Tensor:
    """(h, w) integers at another size, each the value of the pixel at its centre."""
    rows, columns = (
        ((torch.arange(to, device=regions.device, dtype=torch.float64) + 0.5) * (size / to)).long().clamp(max=size - 1)
        for size, to in zip(regions.shape, sides, strict=True)
    )
    return regions[rows[:, None], columns]
