"""CLIPer: all blocks' attention fused into one map, through which every layer's features pass.

Sun et al., "CLIPer: Hierarchically Improving Spatial Representation of CLIP for Open-Vocabulary Semantic Segmentation",
ICCV 2025. The fused map is the one that SDCI took over (see ``kernels.attention``). The mean score of the layers
corrects the last layer's score, which the fused map multiplies *from the right*: out_j = sum_i S_i A_ij.

The published method then refines the scores by a diffusion model's self-attention (Stable Diffusion 2.1). Any callable
of the form :class:`Affinity` may give that map (``policies.attention_chain`` makes it from a list of attention maps);
no such model is loaded here. Stand-ins: ``refinement="dino"`` (the authors' own ablation), or ``"none"``; results are
then called ``cliper-dino`` and ``cliper-unrefined``.

Names are not parted at commas, as released: "water, river" is one text. Released settings of other sets: lambda 70
VOC20, 100 Context59 and Cityscapes; ``attention_threshold`` 0.1 VOC21 and COCO, 0.35 Cityscapes, which has 448 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F

from rsovlib.backbones.clip import ClipBackbone
from rsovlib.backbones.dino import DinoBackbone
from rsovlib.data.classes import ClassPrompt
from rsovlib.errors import InputError
from rsovlib.kernels import FusedAttention
from rsovlib.segmenters import policies
from rsovlib.segmenters.base import Segmentation
from rsovlib.segmenters.dense import DenseClip, DenseConfig
from rsovlib.segmenters.images import RGB, enlarge, patch_sides, resize_pil_bicubic, resize_tensor_bicubic, to_unit
from rsovlib.segmenters.queries import Queries, encode_queries
from rsovlib.segmenters.windows import segment_windows


class Affinity(Protocol):
    """Which places of an image belong together, by whatever model.

    Called with (H, W, 3) uint8; gives (n, n) non-negative, rows summing to about 1, and its grid (n = rows * columns).
    """

    def __call__(self, image: RGB) -> tuple[torch.Tensor, policies.Grid]:
        """The affinity of one image."""
        ...


@dataclass(frozen=True)
class CLIPerConfig(DenseConfig):
    """Options of CLIPer; ``size`` is the short side before rounding to patches.

    Attributes:
        overlap: of windows, where ``window`` is set; their probabilities are blended.
        attention_threshold: last-layer scores below this share of their class's maximum become 0.
        select_layer: the layer whose scores are smoothed, counted from the end; -2 for some sets.
        background_words: further texts that compete in the softmax and are never predicted.
        mean_text: whether the mean of the classes competes as well.
        refinement: ``"dino"``, ``"none"``, or ``"given"`` (an :class:`Affinity` handed to the segmenter).
        score_threshold: classes whose score isn't above it are dropped.
        dino_scale: DINO's grid is this many times as fine as CLIP's; None gives DINO CLIP's input size.
    """

    size: int | None = 336
    window: int | None = None
    stride: int = 1
    overlap: int = 112
    position_embedding: str = "bilinear"
    templates: str | tuple[str, ...] = "photo15"
    merge: str = "joined"
    attention_threshold: float = 0.2
    select_layer: int = -1
    background_words: tuple[str, ...] = ()
    mean_text: bool = True
    refinement: str = "dino"
    score_threshold: float = 0.0
    dino_scale: float | None = None

    EMBEDDED: ClassVar[dict[str, Any]] = {
        "size": None,
        "window": 256,
        "overlap": 64,
        "templates": "rs10",
        "dino_scale": 2.0,
    }
    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {**DenseConfig.CHOICES, "refinement": ("dino", "none", "given")}
    RANGES: ClassVar[dict[str, tuple[float, float]]] = {
        **DenseConfig.RANGES,
        "overlap": (0, float("inf")),
        "attention_threshold": (0, 1),
        "select_layer": (-1000, -1),
        "score_threshold": (0, float("inf")),
        "dino_scale": (1e-3, float("inf")),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window is not None and self.overlap >= self.window:
            raise InputError(f"overlap must be below the window of {self.window}, got {self.overlap}.")
        for name in ("prob_threshold", "area_threshold", "pamr_steps"):
            if getattr(self, name):
                raise InputError(f"CLIPer has no {name}; leave it at 0.")


class CLIPer(DenseClip[CLIPerConfig]):
    """CLIPer as a segmenter.

    Args:
        clip: image-text backbone.
        dino: structural backbone, for ``refinement="dino"``.
        config: options.
        affinity: for ``refinement="given"``.

    Raises:
        InputError: the refinement has nothing to work with, or there is no such layer.
    """

    name = "cliper"
    config_type = CLIPerConfig

    def __init__(
        self,
        clip: ClipBackbone,
        dino: DinoBackbone | None = None,
        config: CLIPerConfig | None = None,
        affinity: Affinity | None = None,
    ) -> None:
        super().__init__(clip, config)
        self.dino = dino
        self.affinity = affinity
        if self.config.refinement == "dino" and dino is None:
            raise InputError("refinement='dino' needs a DINO; give one, or refinement='none'.")
        if self.config.refinement == "given" and affinity is None:
            raise InputError("refinement='given' needs affinity=, a callable from an image to its affinity.")
        if -self.config.select_layer > len(clip.blocks):
            raise InputError(f"select_layer is {self.config.select_layer}, and there are {len(clip.blocks)} layers.")

    @property
    def label(self) -> str:
        """The method's name, with the stand-in."""
        return {"dino": "cliper-dino", "none": "cliper-unrefined", "given": "cliper"}[self.config.refinement]

    def settings(self) -> dict[str, Any]:
        """Method, weights and parameters as plain values."""
        meant = {"dino": "dino (stand-in for Stable Diffusion)", "none": "none", "given": repr(self.affinity)}
        dino = self.dino if self.config.refinement == "dino" else None
        return {
            **super().settings(),
            "refinement": meant[self.config.refinement],
            "dino": f"{dino.name} / {dino.weights}" if dino else "",
            "dino_sha256": dino.sha256 if dino else "",
        }

    def memory_needed(self, height: int, width: int, classes: int) -> int:
        """Foreseen peak in bytes above the models."""
        full, side = height * width, self.config.window
        if side is not None:
            height, width = min(height, side), min(width, side)
        rows, columns = self._grid(height, width)
        tokens = rows * columns + 1
        attention = 5 * self.clip.heads * tokens**2
        if self.dino is not None and self.config.refinement == "dino":
            fine = self._dino_grid((rows, columns))
            attention = max(attention, 4 * self.dino.heads * (fine[0] * fine[1] + self.dino.prefix_tokens) ** 2)
        features = 3 * len(self.clip.blocks) * tokens * max(self.clip.embed_dim, self.clip.width)
        return 4 * (attention + features + 6 * classes * height * width + 4 * classes * full)

    def encode_text(self, prompts: Sequence[ClassPrompt]) -> Queries:
        """The classes, then the background's words, then the classes' mean; only the first K are ever predicted."""
        config = self.config
        classes = super().encode_text(prompts)
        rows = [classes.vectors]
        if config.background_words:
            words = [ClassPrompt(word) for word in config.background_words]
            rows.append(encode_queries(self.clip, words, config.templates, "joined").vectors)
        if config.mean_text:
            rows.append(F.normalize(classes.vectors.mean(dim=0, keepdim=True), dim=-1))
        return Queries(torch.cat(rows), classes.owner, classes.classes)

    def _segment(self, rgb: RGB, prompts: Sequence[ClassPrompt]) -> Segmentation:
        queries = self.encode_text(prompts)
        side = self.config.window
        if side is not None and max(rgb.shape[:2]) > side:
            return segment_windows(
                rgb, side, self.config.overlap, len(prompts), lambda tile: self._one(tile, prompts, queries)
            )
        return self._one(rgb, prompts, queries)

    def _one(self, rgb: RGB, prompts: Sequence[ClassPrompt], queries: Queries) -> Segmentation:
        layers, attention, grid = self._features(rgb)
        cosines = F.normalize(layers, dim=-1) @ queries.vectors.T  # (L, N, M)
        every = (self.config.logit_scale * cosines).softmax(dim=-1)[..., : len(queries.owner)]
        scores = queries.merged(every.permute(2, 0, 1)).permute(1, 2, 0)  # (L, N, K)
        chosen = scores[self.config.select_layer]
        # In place, as released: the mean below sees it too.
        chosen[chosen < self.config.attention_threshold * chosen.amax(dim=0)] = 0.0
        maps = (attention.T @ chosen + scores.mean(dim=0)).T.unflatten(1, grid)
        maps = self._refined(rgb, maps, grid, rgb.shape[:2])
        # Classes that nothing speaks for still get a trace, so that there is always a distribution.
        maps = maps.clamp(min=1e-8)
        return Segmentation.from_probabilities(
            (maps / maps.sum(dim=0)).cpu().numpy(),
            [prompt.name for prompt in prompts],
            stages={"class_scores": maps.cpu().numpy()},
            image=rgb,
        )

    def _features(self, rgb: RGB) -> tuple[torch.Tensor, torch.Tensor, policies.Grid]:
        """Projected features of all layers (L, N, E) and the head mean of the fused map (N, N), without class token."""
        grid = self._grid(*rgb.shape[:2])
        sides = (grid[0] * self.clip.patch_size, grid[1] * self.clip.patch_size)
        pixels = self.normalise(to_unit(resize_pil_bicubic(rgb, sides), self.clip.device))
        fused, normed = FusedAttention(rounds="cumulative"), []
        tokens = self.clip.embed(pixels, self.config.position_embedding)
        for step in self.clip.walk(tokens, attention=True, stop=len(self.clip.blocks) - 1):
            fused.add(step.maps)
            normed.append(step.normed)
            tokens = step.output
            del step
        if not normed:
            raise InputError(f"CLIPer needs more than one block, and {self.clip.name} has one.")
        block, layers = self.clip.blocks[-1], []
        for feature in [*normed, tokens]:
            attended, mean = fused.read(self.clip.value(block, block.ln_1(feature)))
            layers.append(self.clip.project(self.clip.join_heads(block, attended))[0, 1:])
        return torch.stack(layers), mean[0, 1:, 1:], grid

    def _refined(self, rgb: RGB, maps: torch.Tensor, grid: policies.Grid, sides: tuple[int, ...]) -> torch.Tensor:
        """Fine-grained compensation, and each class's maximum set to the mean of those before and after it."""
        before = maps.amax(dim=(1, 2))
        if self.config.refinement != "none":
            affinity, fine = self._affinity(rgb, grid)
            maps = (affinity @ enlarge(maps, fine).flatten(1).T).T.unflatten(1, fine)
        score = 0.5 * maps.amax(dim=(1, 2)) + 0.5 * before
        large = enlarge(maps, (sides[0], sides[1]))
        large = large * (score / large.amax(dim=(1, 2)).clamp(min=1e-12))[:, None, None]
        return large * (score > self.config.score_threshold)[:, None, None]

    def _affinity(self, rgb: RGB, grid: policies.Grid) -> tuple[torch.Tensor, policies.Grid]:
        if self.affinity is not None and self.config.refinement == "given":
            affinity, fine = self.affinity(rgb)
            if tuple(affinity.shape) != (fine[0] * fine[1],) * 2:
                raise InputError(
                    f"An affinity of {tuple(affinity.shape)} doesn't fit its grid of {fine[0]} x {fine[1]}."
                )
            return affinity.to(self.clip.device, torch.float32), fine
        if self.dino is None:
            raise InputError("refinement='dino' needs a DINO; give one, or refinement='none'.")
        rows, columns = self._dino_grid(grid)
        patch = self.dino.patch_size
        pixels = self.dino.normalise(to_unit(rgb, self.dino.device))
        features = self.dino.features(resize_tensor_bicubic(pixels, (rows * patch, columns * patch)))
        return policies.proxy(features.layers[-1])[0], features.grid

    def _grid(self, height: int, width: int) -> policies.Grid:
        patch = self.clip.patch_size
        sides = patch_sides(height, width, patch, self.config.size)
        return sides[0] // patch, sides[1] // patch

    def _dino_grid(self, grid: policies.Grid) -> policies.Grid:
        scale = self.config.dino_scale
        if scale is None and self.dino is not None:
            scale = self.clip.patch_size / self.dino.patch_size
        return max(1, round(grid[0] * (scale or 1))), max(1, round(grid[1] * (scale or 1)))
