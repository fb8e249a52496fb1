"""SDCI: CLIP and DINO look at each other's attention, diffuse each other's scores, and are fused convexly.

Bidirectional Cross-Perception for Open-Vocabulary Semantic Segmentation in Remote Sensing Imagery (Wang and Ni,
arXiv 2601.21159). Three steps, none of which is trained:

* **CAF**, cross-model attention fusion: both networks' scores are smoothed by the sum of both networks' attention;
* **BCDR**, bidirectional cross-graph diffusion refinement: each branch's scores walk on the *other* branch's graph;
* **CSCP**, convex superpixel-constrained prediction: one convex problem over the whole image fuses both branches.

The paper's equations leave out steps without which they aren't defined (register D16, D18, D25, D26 of the project's
notes on the method), so ``SDCIConfig.official()``, the released program's reading, is the default;
``SDCIConfig.paper()`` follows the text wherever the text suffices.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from rsovlib.backbones.clip import ClipBackbone
from rsovlib.backbones.dino import DinoBackbone
from rsovlib.backbones.text import encode_classes
from rsovlib.data.classes import ClassPrompt, parse_classes
from rsovlib.errors import InputError, unknown_name
from rsovlib.kernels import (
    FusedAttention,
    diffuse,
    edge_weights,
    felzenszwalb_superpixels,
    knn_transition,
    solve_cscp,
)
from rsovlib.segmenters.base import Segmentation
from rsovlib.segmenters.carry import carried_product
from rsovlib.segmenters.images import (
    RGB,
    as_rgb,
    enlarge,
    patch_sides,
    resize_pil_bicubic,
    resize_tensor_bicubic,
    to_unit,
)
from rsovlib.segmenters.scenewide import (
    BranchConstants,
    Leveller,
    Place,
    SceneConstants,
    branch_constants,
    statistics_of,
)
from rsovlib.segmenters.texts import Texts, text_features, use_text_features
from rsovlib.segmenters.windows import segment_windows, window_grid

#: DINO's short side by patch size, released program: 48 x 48 tokens for v1, 38 x 38 for v2, 32 x 32 for v3.
_OFFICIAL_DINO_SIDE = {8: 384, 14: 532, 16: 512}

_CHOICES = {
    "position_embedding": ("bilinear", "bicubic", "bicubic_antialias", "bicubic_offset"),
    "layer_features": ("normed_inputs", "block_outputs"),
    "centre": ("column_mean", "global_mean"),
    "clip_attention": ("processed", "raw_mean"),
    "graph_features": ("last", "mean"),
    "diffusion_graph": ("other", "own"),
    "to_probability": ("auto", "softmax", "sum"),
    "solver": ("optimum", "official"),
    "precision": ("float32", "float16", "bfloat16"),
}


@dataclass(frozen=True)
class SDCIConfig:
    """Every choice that SDCI leaves, each with its entry in the register of differences (D01-D34).

    Attributes:
        clip_size: short side of CLIP's input in pixels before rounding to patches; None keeps the image's scale (D01).
        position_embedding: dialect in which CLIP's position embedding is resized (D02).
        precision: of the two networks; half precisions need a GPU (D03).
        dino_size: short side of DINO's input; None takes the released program's for the patch size (D04).
        dino_scale: instead of ``dino_size``: DINO's grid is this many times as fine as CLIP's.
        dino_like_clip: a DINO with CLIP's patch size gets CLIP's grid, as the paper says of v2; ``dino_size`` and
            ``dino_scale`` come first (D04).
        sinkhorn_rounds: normalisations of the fused attention before it is used, ``"cumulative"`` for one more at every
            layer's feature (D08).
        centre: what is subtracted from the symmetric map: a mean a key, or one of the whole map (D09).
        layer_features: what stands for a CLIP layer: its block's normed input, or its output (D11).
        clip_attention: CLIP's attention in CAF: the processed map, or the plain average (D12).
        align_renorm: keep row sums when attention is carried to the other grid (D15).
        logit_scale: lambda before the softmax over texts (D16).
        background: extra text that competes in the softmax but is never predicted; None for none (D17).
        mean_text: whether the mean of the class texts competes as well (D17).
        score_threshold: last-layer scores below this share of their class's maximum become 0 (D18).
        lambda_1: weight of the other branch's attention in CAF, equations 8 and 9 (D24).
        caf: whether the other branch's attention is used at all; False is the ablation's baseline.
        graph_features: features that the graph is built from (D20).
        neighbours, tau: K and tau of the graph, equations 11 and 12 (D21).
        bcdr: whether scores are diffused.
        diffusion_graph: on the other branch's graph (the method) or on one's own (D23).
        alpha, steps: alpha and T of the diffusion, equations 13 to 15.
        rescale: rescale diffused maps to their class's maximum before diffusion (D25b).
        presence_threshold: classes whose maximum before diffusion isn't above it are set to 0; the released settings
            are 0.5 for GID, LoveDA and iSAID, and 0 for Potsdam and Vaihingen (D25c).
        min_max: stretch every class map to [0, 1] (D25d).
        to_probability: how maps become probabilities (D26): ``"softmax"`` over the classes; ``"sum"``, negative values
            set to 0 and divided by the sum; ``"auto"``, the softmax when a value is negative or the mean class sum
            exceeds ``softmax_above``, else as they are.
        softmax_above: see there.
        floor: smallest probability (D26).
        cscp: whether the branches are fused convexly; without it the CLIP branch decides.
        superpixel_scale, superpixel_sigma, superpixel_min_size: of Felzenszwalb's superpixels (D27).
        w_in, w_cross: edge weights inside and across superpixels, equation 16.
        lambda_clip, lambda_dino, beta: weights of equation 17.
        solver: the certified optimum, or the released 100 inexact iterations (D29).
        tolerance: relative duality gap at which the solver stops.
        templates: of the class texts (D31).
        window, overlap: side and overlap in pixels of the sliding window for larger images; None for the whole image.
    """

    clip_size: int | None = 512
    position_embedding: str = "bilinear"
    precision: str = "float32"
    dino_size: int | None = None
    dino_scale: float | None = None
    dino_like_clip: bool = False
    sinkhorn_rounds: str | int = "cumulative"
    centre: str = "column_mean"
    layer_features: str = "normed_inputs"
    clip_attention: str = "processed"
    align_renorm: bool = False
    logit_scale: float = 50.0
    background: str | None = "other"
    mean_text: bool = True
    score_threshold: float = 0.2
    lambda_1: float = 1.0
    caf: bool = True
    graph_features: str = "last"
    neighbours: int = 30
    tau: float = 0.07
    bcdr: bool = True
    diffusion_graph: str = "other"
    alpha: float = 0.9
    steps: int = 40
    rescale: bool = True
    presence_threshold: float = 0.0
    min_max: bool = True
    to_probability: str = "auto"
    softmax_above: float = 1.5
    floor: float = 1e-6
    cscp: bool = True
    superpixel_scale: float = 40.0
    superpixel_sigma: float = 0.8
    superpixel_min_size: int = 20
    w_in: float = 1.0
    w_cross: float = 0.1
    lambda_clip: float = 1.0
    lambda_dino: float = 0.2
    beta: float = 0.1
    solver: str = "optimum"
    tolerance: float = 1e-5
    templates: str | tuple[str, ...] = "rs10"
    window: int | None = None
    overlap: int = 64

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise unknown_name(f"value of {name}", getattr(self, name), choices)
        ranges = {
            "clip_size": (1, None),
            "dino_size": (1, None),
            "logit_scale": (0, None),
            "score_threshold": (0, 1),
            "neighbours": (1, None),
            "alpha": (0, 1),
            "steps": (0, None),
            "beta": (0, None),
            "lambda_1": (0, None),
            "lambda_clip": (0, None),
            "lambda_dino": (0, None),
            "w_in": (0, None),
            "w_cross": (0, None),
            "window": (16, None),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            # Written so that "not a number" fails too.
            if value is not None and not low <= value <= (math.inf if high is None else high):
                limit = f"at least {low}" if high is None else f"between {low} and {high}"
                raise InputError(f"{name} must be {limit}, got {value}.")
        for name in ("tau", "dino_scale", "tolerance"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} must be above 0, got {value}.")
        rounds = self.sinkhorn_rounds
        if rounds != "cumulative" and not (isinstance(rounds, int) and rounds >= 0):
            raise InputError(f"sinkhorn_rounds must be 'cumulative' or a whole number from 0 up, got {rounds!r}.")
        if self.window is not None and not 0 <= self.overlap < self.window:
            raise InputError(f"overlap must be at least 0 and below the window of {self.window}, got {self.overlap}.")

    @classmethod
    def official(cls, **changes: Any) -> SDCIConfig:
        """The released program's reading (the default), solved to the optimum."""
        return cls()._changed(changes)

    @classmethod
    def paper(cls, **changes: Any) -> SDCIConfig:
        """The printed equations wherever they suffice; everything else as in :meth:`official`.

        DINOv2 gets 518 pixels, because the paper says that its grid equals CLIP's.
        """
        config = cls(
            dino_like_clip=True,
            sinkhorn_rounds=0,
            centre="global_mean",
            layer_features="block_outputs",
            clip_attention="raw_mean",
            score_threshold=0.0,
            graph_features="mean",
            rescale=False,
            min_max=False,
            to_probability="sum",
        )
        return config._changed(changes)

    @classmethod
    def embedded(cls, **changes: Any) -> SDCIConfig:
        """The official reading with the settings that suit the embedded models (chosen on validation scenes).

        CLIP sees the image at its own scale, DINO a grid twice as fine; larger images are windowed. Classes that
        little speaks for are absent (the released settings have 0.5 for GID, LoveDA and iSAID; these models' scores
        are higher).
        """
        sizes = cls(clip_size=None, dino_scale=2.0, window=256, overlap=64)
        return replace(sizes, presence_threshold=0.7, tolerance=1e-3)._changed(changes)

    def _changed(self, changes: dict[str, Any]) -> SDCIConfig:
        names = [entry.name for entry in fields(self)]
        for name in changes:
            if name not in names:
                raise unknown_name("option of SDCI", name, names)
        return replace(self, **changes)


ExaminedTile: TypeAlias = tuple[Any, Mapping[str, npt.NDArray[Any]], npt.NDArray[np.float64]]
"""A tile's place, what :meth:`SDCI.examine` gave for it, and its :meth:`SDCI.tile_statistics`."""

SceneNumbers: TypeAlias = tuple[dict[str, Any], list[npt.NDArray[np.float32]]]
"""A scene's constants, and the offsets (n, 2, K) of each of its tiles."""

Gatherer: TypeAlias = Callable[[Iterable[ExaminedTile]], SceneNumbers]


@dataclass
class SDCIFeatures:
    """All that the networks say about one image, before any word is known.

    Attributes:
        image: (H, W, 3) uint8.
        clip_grid, dino_grid: rows and columns of patches.
        clip_layers: (L, N_c, E), projected features of every layer, not of unit norm, patches only.
        clip_last: (1 + N_c, E), the last of them with its class token.
        clip_attention: (N_c, N_c), head mean of the fused map.
        dino_layers: (L', N_d, D), normalised features of every layer, for the graph.
        dino_text_layers: (L', N_d, E), the same in the text space.
        dino_attention: (N_d, N_d), head mean of the last block.
    """

    image: RGB
    clip_grid: tuple[int, int]
    dino_grid: tuple[int, int]
    clip_layers: torch.Tensor
    clip_last: torch.Tensor
    clip_attention: torch.Tensor
    dino_layers: torch.Tensor
    dino_text_layers: torch.Tensor
    dino_attention: torch.Tensor


@dataclass
class SDCI:
    """SDCI as a segmenter.

    The five steps are methods of their own (``encode_image``, ``encode_text``, ``score``, ``refine``, ``solve``), so
    that an interactive tool repeats only those that a change touches.

    Args:
        clip: image-text backbone.
        dino: structural backbone; its features must have the size of the text embeddings.
        config: see :class:`SDCIConfig`.

    Raises:
        InputError: the two backbones don't share a space.
    """

    clip: ClipBackbone
    dino: DinoBackbone
    config: SDCIConfig = field(default_factory=SDCIConfig.official)

    def __post_init__(self) -> None:
        if self.clip.embed_dim != self.dino.embed_dim:
            raise InputError(
                f"SDCI compares DINO's features with CLIP's texts, so their sizes must agree: {self.clip.name} has "
                f"{self.clip.embed_dim}, {self.dino.name} has {self.dino.embed_dim}; ViT-L/14 goes with a DINO ViT-B."
            )
        if self.config.precision != "float32" and self.clip.device.type == "cpu":
            raise InputError(f"precision={self.config.precision!r} needs a GPU; use 'float32' on the CPU.")

    @property
    def tiling(self) -> tuple[int, int]:
        """Tile and overlap in pixels that suit large scenes: the window's, or the paper's tiles of 512."""
        return (512, 128) if self.config.window is None else (self.config.window, self.config.overlap)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.clip.device

    # ---- the segmenter protocol ----------------------------------------------------------------------------

    def __call__(self, image: Any, classes: str | Sequence[str]) -> Segmentation:
        """Segment one image.

        Args:
            image: numpy (H, W, 3) uint8, or torch (3, H, W); any size from one patch up.
            classes: K classes, ``"a, b, c"`` being synonyms of one.

        Returns:
            The segmentation. Stages: ``clip_scores`` and ``dino_scores`` (N, K), after CAF; ``clip_diffused`` and
            ``dino_diffused`` (K, h, w), on the other branch's grid; ``clip_presence`` and ``dino_presence`` (K,), the
            maxima m_k; ``clip_map`` and ``dino_map`` (K, H, W), inputs of the convex step before they are made
            probabilities; ``superpixels`` (H, W); ``relative_gap`` and ``iterations`` of the solver; ``clip_features``
            (1 + N, E); ``clip_attention`` and ``dino_attention`` (N, N). A windowed image has only the maps.

        Raises:
            InputError: bad image or classes.
        """
        rgb = as_rgb(image)
        prompts = parse_classes(classes)
        side = self.config.window
        with torch.inference_mode():
            text = self.encode_text(prompts)
            if side is not None and max(rgb.shape[:2]) > side:
                result = segment_windows(
                    rgb, side, self.config.overlap, len(prompts), lambda tile: self._one(tile, prompts, text)
                )
            else:
                result = self._one(rgb, prompts, text)
        result.settings = self.settings()
        return result

    def segment_batch(self, images: Sequence[Any], classes: str | Sequence[str]) -> list[Segmentation]:
        """Segment several images, of one size or of many; the texts are encoded once."""
        prompts = parse_classes(classes)
        return [self(image, [str(prompt) for prompt in prompts]) for image in images]

    def settings(self) -> dict[str, Any]:
        """Method, weights and parameters as plain values."""
        return {
            "method": "sdci",
            "clip": f"{self.clip.name} / {self.clip.weights}",
            "clip_sha256": self.clip.sha256,
            "dino": f"{self.dino.name} / {self.dino.weights}",
            "dino_sha256": self.dino.sha256,
            **asdict(self.config),
        }

    def memory_needed(self, height: int, width: int, classes: int) -> int:
        """Foreseen peak in bytes above the models: attention maps of both networks, features, and the convex step."""
        side = self.config.window
        if side is not None:
            full, height, width = height * width, min(height, side), min(width, side)
        else:
            full = height * width
        clip_grid = self._clip_grid(height, width)
        dino_sides = self._dino_sides(height, width, clip_grid)
        n_clip = clip_grid[0] * clip_grid[1] + 1
        n_dino = dino_sides[0] * dino_sides[1] // self.dino.patch_size**2 + self.dino.prefix_tokens
        attention = max(
            # the running sum, the current map with its scores, and one processed head
            4 * self.clip.heads * n_clip**2,
            # DINO's caught map with its scores, beside CLIP's head mean
            3 * self.dino.heads * n_dino**2 + n_clip**2,
            # both head means, and the similarities of a neighbour graph
            2 * (n_clip**2 + n_dino**2),
        )
        features = 3 * len(self.clip.blocks) * n_clip * max(self.clip.embed_dim, self.clip.width)
        convex = 10 * classes * height * width
        return 4 * (attention + features + convex + 3 * classes * full)

    # ---- whole scenes, in two passes (see scenewide) -----------------------------------------------------------

    def text_features(self, classes: str | Sequence[str]) -> Texts | None:
        """The texts of these classes, for another process; see :func:`rsovlib.segmenters.texts.text_features`."""
        return text_features(self.clip, lambda: self.encode_text(parse_classes(classes)))

    def use_text_features(self, texts: Texts) -> None:
        """Take over what :meth:`text_features` gave elsewhere."""
        use_text_features(self.clip, texts)

    def scene_gatherer(self) -> Gatherer | None:
        """What makes a scene's constants (without holding the models); None if nothing differs from tile to tile."""
        config = self.config
        differs = config.min_max or config.rescale or config.presence_threshold > 0 or config.to_probability == "auto"
        return functools.partial(scene_constants, config) if differs else None

    def examine(self, image: Any, classes: str | Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
        """The first pass over a tile: all that the networks say, and nothing that depends on other tiles.

        Args:
            image: numpy (H, W, 3) uint8, or torch (3, H, W).
            classes: K classes.

        Returns:
            ``clip_diffused`` and ``dino_diffused`` (n, K, h, w), ``clip_presence`` and ``dino_presence`` (n, K), for
            the n windows of the tile (one, unless the tile is larger than the segmenter's window).
        """
        rgb = as_rgb(image)
        prompts = parse_classes(classes)
        found: dict[str, list[torch.Tensor]] = {}
        with torch.inference_mode():
            text = self.encode_text(prompts)
            for window in window_grid(rgb.shape[0], rgb.shape[1], self.config.window, self.config.overlap):
                features = self.encode_image(np.ascontiguousarray(rgb[window.slices]))
                for name, value in self.diffuse(features, *self.score(features, text, len(prompts))).items():
                    found.setdefault(name, []).append(value)
            return {name: torch.stack(values).float().cpu().numpy() for name, values in found.items()}

    def tile_statistics(
        self, examined: dict[str, npt.NDArray[np.float32]], valid: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float64]:
        """What the scene's constants need to know of an examined tile.

        Args:
            examined: what :meth:`examine` gave.
            valid: (H, W) pixels of the tile that hold data.

        Returns:
            (n, 2, 5, K), see :func:`rsovlib.segmenters.scenewide.statistics_of`; n windows, CLIP and DINO.
        """
        rows = []
        for index, window in enumerate(
            window_grid(valid.shape[0], valid.shape[1], self.config.window, self.config.overlap)
        ):
            row = []
            for branch in ("clip", "dino"):
                diffused = torch.from_numpy(examined[f"{branch}_diffused"][index])
                maps = enlarge(diffused, (window.height, window.width)).numpy()
                row.append(statistics_of(maps, examined[f"{branch}_presence"][index], valid[window.slices]))
            rows.append(row)
        return np.asarray(rows)

    def decide(
        self,
        image: Any,
        classes: str | Sequence[str],
        examined: Mapping[str, npt.NDArray[np.float32]],
        constants: Mapping[str, Any] | None = None,
        offsets: npt.NDArray[np.float32] | None = None,
    ) -> Segmentation:
        """The second pass over a tile: maps with the scene's constants, and the convex step.

        Args:
            image: the tile.
            classes: K classes.
            examined: what :meth:`examine` gave for the tile.
            constants: of :func:`scene_constants`; None takes each window's own numbers, as calling the segmenter does.
            offsets: (n, 2, K) of the tile, of :func:`scene_constants`.

        Returns:
            The tile's segmentation; stages: ``clip_map`` and ``dino_map`` (K, H, W).
        """
        rgb = as_rgb(image)
        prompts = parse_classes(classes)
        scene = None if constants is None else SceneConstants.of(constants)
        names = [prompt.name for prompt in prompts]
        index = iter(range(len(examined["clip_diffused"])))

        def one(window: RGB) -> Segmentation:
            here = next(index)
            maps = {}
            for number, branch in enumerate(("clip", "dino")):
                diffused, presence = (
                    torch.from_numpy(examined[f"{branch}_{kind}"][here]).to(self.device)
                    for kind in ("diffused", "presence")
                )
                if offsets is not None:
                    diffused = diffused + torch.from_numpy(offsets[here, number]).to(self.device)[:, None, None]
                maps[f"{branch}_map"] = self._class_maps(
                    diffused, presence, window.shape[:2], None if scene is None else getattr(scene, branch)
                )
            fused, _ = self.solve(window, maps["clip_map"], maps["dino_map"], scene)
            stages = {name: value.cpu().numpy() for name, value in maps.items()}
            return Segmentation.from_probabilities(fused.float().cpu().numpy(), names, stages=stages, image=window)

        with torch.inference_mode():
            side = self.config.window
            if side is not None and max(rgb.shape[:2]) > side:
                return segment_windows(rgb, side, self.config.overlap, len(prompts), one)
            return one(rgb)

    # ---- the five steps ------------------------------------------------------------------------------------

    def encode_image(self, image: RGB) -> SDCIFeatures:
        """Both networks' features and attention of (H, W, 3) uint8; what the words are doesn't matter here."""
        height, width = image.shape[:2]
        device = self.clip.device
        clip_grid = self._clip_grid(height, width)
        clip_sides = (clip_grid[0] * self.clip.patch_size, clip_grid[1] * self.clip.patch_size)
        clip_pixels = self.clip.normalise(to_unit(resize_pil_bicubic(image, clip_sides), device))
        dino_sides = self._dino_sides(height, width, clip_grid)
        dino_pixels = resize_tensor_bicubic(self.dino.normalise(to_unit(image, self.dino.device)), dino_sides)
        half = getattr(torch, self.config.precision)
        with torch.autocast(device.type, dtype=half, enabled=half is not torch.float32):
            layers, last, clip_attention = self._clip_features(clip_pixels)
            dino = self.dino.features(dino_pixels)
        dino_layers = torch.cat(dino.layers).float()
        aligned = dino.text_layers is not dino.layers
        return SDCIFeatures(
            image=image,
            clip_grid=clip_grid,
            dino_grid=dino.grid,
            clip_layers=layers.float(),
            clip_last=last.float(),
            clip_attention=clip_attention.float(),
            dino_layers=dino_layers,
            dino_text_layers=torch.cat(dino.text_layers).float() if aligned else dino_layers,
            dino_attention=dino.attention[0].float(),
        )

    def encode_text(self, prompts: Sequence[ClassPrompt]) -> torch.Tensor:
        """(M, E) unit-norm rows: the K classes, then the background, then the classes' mean (D17)."""
        rows = encode_classes(self.clip, prompts, self.config.templates)
        extra = []
        if self.config.background is not None:
            extra.append(encode_classes(self.clip, [ClassPrompt(self.config.background)], self.config.templates))
        if self.config.mean_text:
            extra.append(F.normalize(rows.mean(dim=0, keepdim=True), dim=-1))
        return torch.cat([rows, *extra])

    def score(self, features: SDCIFeatures, text: torch.Tensor, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
        """CAF, equations 8 and 9: scores of both branches on their own grids, (N_c, K) and (N_d, K)."""
        clip_scores = self._text_scores(features.clip_layers, text, classes)
        dino_scores = self._text_scores(features.dino_text_layers, text, classes)
        own = features.clip_attention, features.clip_grid
        other = features.dino_attention, features.dino_grid
        return self._smooth(clip_scores, *own, *other), self._smooth(dino_scores, *other, *own)

    def refine(
        self, features: SDCIFeatures, clip_scores: torch.Tensor, dino_scores: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """BCDR, equations 10 to 15, and the reshaping of D25: the convex step's inputs and what led to them."""
        stages = self.diffuse(features, clip_scores, dino_scores)
        for branch in ("clip", "dino"):
            diffused, presence = stages[f"{branch}_diffused"], stages[f"{branch}_presence"]
            stages[f"{branch}_map"] = self._class_maps(diffused, presence, features.image.shape[:2])
        return stages

    def diffuse(
        self, features: SDCIFeatures, clip_scores: torch.Tensor, dino_scores: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """BCDR alone: ``clip_diffused`` and ``dino_diffused`` (K, h, w), and the presences (K,) before it."""
        other = self.config.diffusion_graph == "other"
        stages: dict[str, torch.Tensor] = {}
        branches = {
            "clip": (clip_scores, features.clip_grid, features.dino_grid, features.dino_layers, features.clip_layers),
            "dino": (dino_scores, features.dino_grid, features.clip_grid, features.clip_layers, features.dino_layers),
        }
        for branch, (scores, own_grid, other_grid, other_layers, own_layers) in branches.items():
            grid, layers = (other_grid, other_layers) if other else (own_grid, own_layers)
            carried = scores.T.unflatten(1, own_grid)  # (K, h, w)
            if self.config.bcdr and grid[0] * grid[1] > 1:  # a single token has no neighbours
                carried = enlarge(carried, grid)
                walked = diffuse(self._graph(layers), carried.flatten(1).T, self.config.alpha, self.config.steps)
                diffused = walked.T.unflatten(1, grid)
            else:
                diffused = carried
            stages[f"{branch}_diffused"] = diffused
            stages[f"{branch}_presence"] = carried.flatten(1).amax(dim=1)
        return stages

    def solve(
        self, image: RGB, clip_map: torch.Tensor, dino_map: torch.Tensor, scene: SceneConstants | None = None
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """CSCP, equations 16 to 18: fused probabilities (K, H, W), and the solver's record."""
        config = self.config
        clip_probability = self._probabilities(clip_map, scene.clip if scene else None)
        dino_probability = self._probabilities(dino_map, scene.dino if scene else None)
        if not config.cscp:
            return clip_probability / clip_probability.sum(dim=0), {}
        superpixels = felzenszwalb_superpixels(
            image, scale=config.superpixel_scale, sigma=config.superpixel_sigma, min_size=config.superpixel_min_size
        )
        wx, wy = edge_weights(superpixels, w_in=config.w_in, w_cross=config.w_cross)
        result = solve_cscp(
            clip_probability,
            dino_probability,
            torch.as_tensor(wx, device=clip_map.device),
            torch.as_tensor(wy, device=clip_map.device),
            lambda_clip=config.lambda_clip,
            lambda_dino=config.lambda_dino,
            beta=config.beta,
            **({"method": "official"} if config.solver == "official" else {"tolerance": config.tolerance}),
        )
        record = {"superpixels": superpixels, "relative_gap": result.relative_gap, "iterations": result.iterations}
        return result.q, record

    # ---- details -------------------------------------------------------------------------------------------

    def _one(self, image: RGB, prompts: Sequence[ClassPrompt], text: torch.Tensor) -> Segmentation:
        features = self.encode_image(image)
        clip_scores, dino_scores = self.score(features, text, len(prompts))
        stages = self.refine(features, clip_scores, dino_scores)
        fused, record = self.solve(image, stages["clip_map"], stages["dino_map"])
        tensors = {
            "clip_features": features.clip_last,
            "clip_attention": features.clip_attention,
            "dino_attention": features.dino_attention,
            "clip_scores": clip_scores,
            "dino_scores": dino_scores,
            **stages,
        }
        arrays = {name: value.cpu().numpy() for name, value in tensors.items()}
        return Segmentation.from_probabilities(
            fused.float().cpu().numpy(), [prompt.name for prompt in prompts], stages={**arrays, **record}, image=image
        )

    def _clip_grid(self, height: int, width: int) -> tuple[int, int]:
        patch = self.clip.patch_size
        sides = patch_sides(height, width, patch, self.config.clip_size)
        return sides[0] // patch, sides[1] // patch

    def _dino_sides(self, height: int, width: int, clip_grid: tuple[int, int]) -> tuple[int, int]:
        patch = self.dino.patch_size
        if self.config.dino_scale is not None:
            rows, columns = (max(1, round(side * self.config.dino_scale)) for side in clip_grid)
            return rows * patch, columns * patch
        if self.config.dino_like_clip and self.config.dino_size is None and patch == self.clip.patch_size:
            return clip_grid[0] * patch, clip_grid[1] * patch
        return patch_sides(height, width, patch, self.config.dino_size or _OFFICIAL_DINO_SIDE.get(patch, 512))

    def _clip_features(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Equations 1 to 6: projected features of all layers (L, N, E), of the last with its class token, and A_c."""
        config = self.config
        fused = FusedAttention(rounds=config.sinkhorn_rounds, subtract=config.centre)
        features = []
        tokens = self.clip.embed(pixels, config.position_embedding)
        for step in self.clip.walk(tokens, attention=True, stop=len(self.clip.blocks) - 1):
            fused.add(step.maps)
            features.append(step.normed if config.layer_features == "normed_inputs" else step.output)
            tokens = step.output
            del step  # or its map would be held while the next one is made
        features.append(tokens)
        attention = fused.average().mean(dim=1) if config.clip_attention == "raw_mean" else None
        block = self.clip.blocks[-1]
        layers = tokens.new_empty(len(features), tokens.shape[1] - 1, self.clip.embed_dim)
        for index, feature in enumerate(features):
            attended, head_mean = fused.read(self.clip.value(block, block.ln_1(feature)))
            projected = self.clip.project(block.attn.out_proj(attended.transpose(1, 2).flatten(2)))
            layers[index] = projected[0, 1:]
        attention = head_mean if attention is None else attention
        return layers, projected[0], attention[0, 1:, 1:]

    def _text_scores(self, layers: torch.Tensor, text: torch.Tensor, classes: int) -> torch.Tensor:
        """D16: (L, N, E) against (M, E) -> softmax over all M texts, the K class columns kept: (L, N, K)."""
        cosines = F.normalize(layers, dim=-1) @ text.T
        return (self.config.logit_scale * cosines).softmax(dim=-1)[..., :classes]

    def _smooth(
        self,
        scores: torch.Tensor,
        attention: torch.Tensor,
        grid: tuple[int, int],
        other_attention: torch.Tensor,
        other_grid: tuple[int, int],
    ) -> torch.Tensor:
        """Equation 8: both attentions times the last layer's scores (D18), plus the mean of the layers before."""
        config = self.config
        last = scores[-1]
        last = last.masked_fill(last < config.score_threshold * last.amax(dim=0), 0.0)
        smoothed = attention @ last
        if config.caf:
            carried = carried_product(other_attention, last, other_grid, grid, align_renorm=config.align_renorm)
            smoothed = smoothed + config.lambda_1 * carried
        return smoothed + scores[:-1].mean(dim=0) if len(scores) > 1 else smoothed

    def _graph(self, layers: torch.Tensor) -> torch.Tensor:
        features = layers[-1] if self.config.graph_features == "last" else layers.mean(dim=0)
        return knn_transition(features, k=self.config.neighbours, temperature=self.config.tau, row_eps=1e-6)

    def _class_maps(
        self,
        diffused: torch.Tensor,
        presence: torch.Tensor,
        sides: tuple[int, ...],
        scene: BranchConstants | None = None,
    ) -> torch.Tensor:
        """D25: enlarge, rescale to the class's maximum before diffusion, drop absent classes, stretch to [0, 1].

        The maxima and minima are the image's own, or those of the scene that it is a tile of.
        """
        config = self.config
        maps = enlarge(diffused, (sides[0], sides[1]))
        if scene is not None:
            presence = presence.new_tensor(scene.presence)
        if scene is None:
            low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
        else:
            low, high = (maps.new_tensor(value)[:, None, None] for value in (scene.low, scene.high))
        if config.rescale:
            divisor, factor = high + 1e-5, presence[:, None, None]
            maps, low, high = (values / divisor * factor for values in (maps, low, high))
        if config.min_max:
            # A map without relief (a single patch) stays as it is: stretching would show rounding errors as a map.
            flat = high - low <= 1e-6 * high.abs()
            maps = torch.where(flat, maps, (maps - low) / (high - low).masked_fill(flat, 1.0))
            if scene is not None:  # pixels without data may lie outside the range of those with data
                maps = torch.where(flat, maps, maps.clamp(0.0, 1.0))
        return maps * (presence > config.presence_threshold)[:, None, None]

    def _probabilities(self, maps: torch.Tensor, scene: BranchConstants | None = None) -> torch.Tensor:
        """D26: class maps (K, H, W) as probabilities, clamped; the solver divides by their sum."""
        mode = self.config.to_probability
        if mode == "sum":
            # Scores may exceed 1 (attention's rows sum to more), so they are divided before they are clamped.
            positive = maps.clamp_min(0)
            maps = positive / positive.sum(dim=0).clamp_min(self.config.floor)
        elif mode == "softmax" or (self._wants_softmax(maps) if scene is None else scene.softmax):
            maps = maps.softmax(dim=0)
        return maps.clamp(self.config.floor, 1.0)

    def _wants_softmax(self, maps: torch.Tensor) -> bool:
        """What ``to_probability="auto"`` decides for one image."""
        return bool((maps < 0).any()) or float(maps.sum(dim=0).mean()) > self.config.softmax_above


def scene_constants(config: SDCIConfig, tiles: Iterable[ExaminedTile]) -> SceneNumbers:
    """What all tiles of a scene are decided with.

    Args:
        config: the segmenter's.
        tiles: each tile's place (``row``, ``column``, ``height``, ``width``), what :meth:`SDCI.examine` gave for it and
            its :meth:`tile_statistics`; from the top of the scene to its bottom.

    Returns:
        The constants, as plain values; and for each tile the offsets (n, 2, K) that level it.
    """
    levellers = Leveller(), Leveller()
    tables = []
    for tile, examined, statistics in tiles:
        tables.append(statistics)
        for index, window in enumerate(window_grid(tile.height, tile.width, config.window, config.overlap)):
            place = Place(tile.row + window.row, tile.column + window.column, window.height, window.width)
            for leveller, branch in zip(levellers, ("clip", "dino"), strict=True):
                leveller.add(place, examined[f"{branch}_diffused"][index], tile.row)
    offsets = np.stack([leveller.offsets() for leveller in levellers], axis=1)  # (windows, 2, K)
    table = np.concatenate(tables)  # (windows, 2, 5, K)
    table[:, :, :3] += offsets[:, :, None]  # smallest, largest and mean value
    rules: dict[str, Any] = {
        "threshold": config.presence_threshold,
        "rescaled": config.rescale,
        "stretched": config.min_max,
        "to_probability": config.to_probability,
        "softmax_above": config.softmax_above,
    }
    with_data = table[table[:, 0, 4, 0] > 0]
    constants = SceneConstants(*(branch_constants(with_data[:, branch], **rules) for branch in (0, 1)))
    each = offsets.astype(np.float32).reshape(len(tables), -1, *offsets.shape[1:])
    return constants.plain(), list(each)
