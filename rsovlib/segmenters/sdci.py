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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from rsovlib.backbones.clip import ClipBackbone
from rsovlib.backbones.dino import DinoBackbone
from rsovlib.backbones.text import encode_classes, encode_words
from rsovlib.data.classes import ClassPrompt, parse_classes
from rsovlib.errors import InputError
from rsovlib.kernels import (
    CscpResult,
    FusedAttention,
    diffuse,
    edge_weights,
    felzenszwalb_superpixels,
    knn_transition,
    solve_cscp,
)
from rsovlib.segmenters.base import Segmentation
from rsovlib.segmenters.caf import Branch, fused_scores, word_scores
from rsovlib.segmenters.class_maps import class_maps, probabilities
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
    Leveller,
    Place,
    SceneConstants,
    branch_constants,
    statistics_of,
)
from rsovlib.segmenters.sdci_config import SDCIConfig
from rsovlib.segmenters.texts import Texts, text_features, use_text_features
from rsovlib.segmenters.windows import segment_windows, window_grid

__all__ = ["SDCI", "SDCIConfig", "SDCIFeatures", "scene_constants"]

#: DINO's short side by patch size, released program: 48 x 48 tokens for v1, 38 x 38 for v2, 32 x 32 for v3.
_OFFICIAL_DINO_SIDE = {8: 384, 14: 532, 16: 512}

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
        if self.config.precision == "float16" and self.clip.device.type == "cpu":
            raise InputError("precision='float16' needs a GPU; use 'float32' (or 'bfloat16') on the CPU.")

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
        """Segment several images; those of one size go through the networks together, unless windows are cut.

        The labels are those that each image gets by itself. Sums are rounded differently in a batch: probabilities were
        measured to differ by 1e-5 at most.
        """
        pictures, prompts = [as_rgb(image) for image in images], parse_classes(classes)
        side = self.config.window
        if len({picture.shape for picture in pictures}) != 1 or (side and max(pictures[0].shape[:2]) > side):
            return [self(picture, [str(prompt) for prompt in prompts]) for picture in pictures]
        with torch.inference_mode():
            text = self.encode_text(prompts)
            results = [self._decided(features, prompts, text) for features in self.encode_images(pictures)]
        for result in results:
            result.settings = self.settings()
        return results

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
        return self.examine_batch([image], classes)[0]

    def examine_batch(
        self, images: Sequence[Any], classes: str | Sequence[str]
    ) -> list[dict[str, npt.NDArray[np.float32]]]:
        """:meth:`examine` for several tiles of one size, which go through the networks together."""
        pictures, prompts = [as_rgb(image) for image in images], parse_classes(classes)
        found: list[dict[str, list[torch.Tensor]]] = [{} for _ in pictures]
        with torch.inference_mode():
            text = self.encode_text(prompts)
            height, width = pictures[0].shape[:2]
            for window in window_grid(height, width, self.config.window, self.config.overlap):
                cut = [np.ascontiguousarray(picture[window.slices]) for picture in pictures]
                for here, features in zip(found, self.encode_images(cut), strict=True):
                    for name, value in self.diffuse(features, *self.score(features, text, len(prompts))).items():
                        here.setdefault(name, []).append(value)
            return [
                {name: torch.stack(values).float().cpu().numpy() for name, values in here.items()} for here in found
            ]

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
                maps[f"{branch}_map"] = class_maps(
                    diffused, presence, window.shape[:2], self.config, None if scene is None else getattr(scene, branch)
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
        return self.encode_images([image])[0]

    def encode_images(self, images: Sequence[RGB]) -> list[SDCIFeatures]:
        """:meth:`encode_image` of several images of one size, in one pass through each network."""
        height, width = images[0].shape[:2]
        device = self.clip.device
        clip_grid = self._clip_grid(height, width)
        clip_sides = (clip_grid[0] * self.clip.patch_size, clip_grid[1] * self.clip.patch_size)
        for_clip = torch.cat([to_unit(resize_pil_bicubic(image, clip_sides), device) for image in images])
        dino_sides = self._dino_sides(height, width, clip_grid)
        by_pil = self.config.dino_resize == "pil"
        for_dino = torch.cat(
            [to_unit(resize_pil_bicubic(image, dino_sides) if by_pil else image, self.dino.device) for image in images]
        )
        dino_pixels = resize_tensor_bicubic(self.dino.normalise(for_dino), dino_sides)
        half = getattr(torch, self.config.precision)
        with torch.autocast(device.type, dtype=half, enabled=half is not torch.float32):
            layers, last, clip_attention = self._clip_features(self.clip.normalise(for_clip))
            dino = self.dino.features(dino_pixels)
        dino_layers = torch.stack(dino.layers).float()
        text_layers = torch.stack(dino.text_layers).float() if dino.text_layers is not dino.layers else dino_layers
        dino_attention = dino.attention.float()
        if self.config.dino_rows == "renormalised":
            dino_attention = dino_attention / dino_attention.sum(dim=-1, keepdim=True)
        return [
            SDCIFeatures(
                image=image,
                clip_grid=clip_grid,
                dino_grid=dino.grid,
                clip_layers=layers[:, index].float(),
                clip_last=last[index].float(),
                clip_attention=clip_attention[index].float(),
                dino_layers=dino_layers[:, index],
                dino_text_layers=text_layers[:, index],
                dino_attention=dino_attention[index],
            )
            for index, image in enumerate(images)
        ]

    def encode_text(self, prompts: Sequence[ClassPrompt]) -> torch.Tensor:
        """(M, E) unit-norm rows: the K classes, then the background, then the classes' mean (D17)."""
        rows = self._class_texts(prompts)
        extra = []
        if self.config.background is not None:
            extra.append(self._class_texts([ClassPrompt(self.config.background)]))
        if self.config.mean_text:
            extra.append(F.normalize(rows.mean(dim=0, keepdim=True), dim=-1))
        return torch.cat([rows, *extra])

    def directions(self, features: SDCIFeatures) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of every layer at unit length, (L, N_c, E) and (L', N_d, E): what :meth:`score` compares with words.

        They know of no word, so whoever asks for many words makes them once.
        """
        return F.normalize(features.clip_layers, dim=-1), F.normalize(features.dino_text_layers, dim=-1)

    def score(
        self,
        features: SDCIFeatures,
        text: torch.Tensor,
        classes: int,
        directions: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """CAF, equations 8 and 9: scores of both branches on their own grids, (N_c, K) and (N_d, K).

        ``directions`` are those of the features, where they are known already.
        """
        clip, dino = (word_scores(unit, text, classes, self.config) for unit in directions or self.directions(features))
        return fused_scores(
            Branch(clip, features.clip_attention, features.clip_grid),
            Branch(dino, features.dino_attention, features.dino_grid),
            self.config,
        )

    def refine(
        self, features: SDCIFeatures, clip_scores: torch.Tensor, dino_scores: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """BCDR, equations 10 to 15, and the reshaping of D25: the convex step's inputs and what led to them."""
        stages = self.diffuse(features, clip_scores, dino_scores)
        return stages | self.class_maps(stages, features.image.shape[:2])

    def class_maps(self, diffused: Mapping[str, torch.Tensor], sides: tuple[int, ...]) -> dict[str, torch.Tensor]:
        """D25: ``clip_map`` and ``dino_map`` (K, *sides) of what :meth:`diffuse` gave."""
        return {
            f"{branch}_map": class_maps(
                diffused[f"{branch}_diffused"], diffused[f"{branch}_presence"], sides, self.config
            )
            for branch in ("clip", "dino")
        }

    def graph_features(self, features: SDCIFeatures) -> dict[str, torch.Tensor]:
        """(N, D), what the graph that each branch's scores walk on is built from (D20, D23)."""
        layers = {"clip": features.dino_layers, "dino": features.clip_layers}
        if self.config.diffusion_graph != "other":
            layers = {"clip": features.clip_layers, "dino": features.dino_layers}
        last = self.config.graph_features == "last"
        return {branch: stack[-1] if last else stack.mean(dim=0) for branch, stack in layers.items()}

    def diffuse(
        self,
        features: SDCIFeatures,
        clip_scores: torch.Tensor,
        dino_scores: torch.Tensor,
        graphs: Mapping[str, torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """BCDR alone: ``clip_diffused`` and ``dino_diffused`` (K, h, w), and the presences (K,) before it.

        ``graphs`` are the transitions of both branches' walks where they are known already.
        """
        other = self.config.diffusion_graph == "other"
        stages: dict[str, torch.Tensor] = {}
        branches = {
            "clip": (clip_scores, features.clip_grid, features.dino_grid),
            "dino": (dino_scores, features.dino_grid, features.clip_grid),
        }
        sources = self.graph_features(features)
        for branch, (scores, own_grid, other_grid) in branches.items():
            grid = other_grid if other else own_grid
            carried = scores.T.unflatten(1, own_grid)  # (K, h, w)
            if self.config.bcdr and grid[0] * grid[1] > 1:  # a single token has no neighbours
                carried = enlarge(carried, grid)
                graph = self.graph(sources[branch]) if graphs is None else graphs[branch]
                walked = diffuse(graph, carried.flatten(1).T, self.config.alpha, self.config.steps)
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
        clip_probability, dino_probability = self.convex_inputs(clip_map, dino_map, scene)
        if not self.config.cscp:
            return clip_probability / clip_probability.sum(dim=0), {}
        superpixels = self.superpixels(image)
        result = self.fuse(clip_probability, dino_probability, superpixels)
        record = {"superpixels": superpixels, "relative_gap": result.relative_gap, "iterations": result.iterations}
        return result.q, record

    def convex_inputs(
        self, clip_map: torch.Tensor, dino_map: torch.Tensor, scene: SceneConstants | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """D26: both branches' class maps (K, H, W) as probabilities."""
        return (
            probabilities(clip_map, self.config, scene.clip if scene else None),
            probabilities(dino_map, self.config, scene.dino if scene else None),
        )

    def superpixels(self, image: RGB) -> npt.NDArray[np.int32]:
        """The (H, W) superpixels that the convex step's edges follow (D27)."""
        config = self.config
        labels: npt.NDArray[np.int32] = felzenszwalb_superpixels(
            image, scale=config.superpixel_scale, sigma=config.superpixel_sigma, min_size=config.superpixel_min_size
        )
        return labels

    def fuse(
        self,
        clip_probability: torch.Tensor,
        dino_probability: torch.Tensor,
        superpixels: npt.NDArray[np.int32],
        start: CscpResult | None = None,
        **live: Any,
    ) -> CscpResult:
        """Equations 16 to 18: the convex problem and its solution.

        Args:
            clip_probability: (K, H, W), of :meth:`convex_inputs`.
            dino_probability: likewise.
            superpixels: (H, W).
            start: the solution of a related problem, to start from; the released solver doesn't use it.
            **live: further arguments of ``solve_cscp`` for those who watch it: ``should_stop``, ``max_iterations``, ...
        """
        config = self.config
        wx, wy = edge_weights(superpixels, w_in=config.w_in, w_cross=config.w_cross)
        official = config.solver == "official"
        return solve_cscp(
            clip_probability,
            dino_probability,
            torch.as_tensor(wx, device=clip_probability.device),
            torch.as_tensor(wy, device=clip_probability.device),
            lambda_clip=config.lambda_clip,
            lambda_dino=config.lambda_dino,
            beta=config.beta,
            **({"method": "official"} if official else {"tolerance": config.tolerance, "warm_start": start}),
            **live,
        )

    # ---- details -------------------------------------------------------------------------------------------

    def _one(self, image: RGB, prompts: Sequence[ClassPrompt], text: torch.Tensor) -> Segmentation:
        return self._decided(self.encode_image(image), prompts, text)

    def _decided(self, features: SDCIFeatures, prompts: Sequence[ClassPrompt], text: torch.Tensor) -> Segmentation:
        image = features.image
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
        """Equations 1 to 6: projected features of all layers, of the last with its class token, and A_c.

        Shapes: (L, B, N, E), (B, 1 + N, E) and (B, N, N).
        """
        config = self.config
        first = 0 if config.class_token == "kept" else 1  # of the tokens that take part in the maps
        fused = FusedAttention(rounds=config.sinkhorn_rounds, subtract=config.centre)
        features = []
        tokens = self.clip.embed(pixels, config.position_embedding)
        for step in self.clip.walk(tokens, attention=True, stop=len(self.clip.blocks) - 1):
            fused.add(step.maps[..., first:, first:])
            features.append(step.normed if config.layer_features == "normed_inputs" else step.output)
            tokens = step.output
            del step  # or its map would be held while the next one is made
        raw = None
        if config.clip_attention == "raw_mean":
            raw = fused.average().mean(dim=1) * (len(features) if config.layer_maps == "sum" else 1)
        features.append(tokens)
        block = self.clip.blocks[-1]
        layers = tokens.new_empty(len(features), len(tokens), tokens.shape[1] - 1, self.clip.embed_dim)
        for index, feature in enumerate(features):
            values = self.clip.value(block, block.ln_1(feature))
            attended, head_mean = fused.read(values[:, :, first:])
            if first:  # a class token that nobody looks at sees itself
                attended = torch.cat([values[:, :, :1], attended], dim=2)
            joined = attended.transpose(1, 2).flatten(2)
            projected = self.clip.project(block.attn.out_proj(joined) if config.value_path == "out_proj" else joined)
            layers[index] = projected[:, 1:]
        attention = head_mean if raw is None else raw
        return layers, projected, attention[:, 1 - first :, 1 - first :]

    def _class_texts(self, prompts: Sequence[ClassPrompt]) -> torch.Tensor:
        """(K, E) unit-norm rows: one a class, its words merged as D32 says."""
        templates = self.config.templates
        if self.config.synonyms == "by_template":
            return encode_classes(self.clip, prompts, templates)
        words = encode_words(self.clip, [word for prompt in prompts for word in prompt.words], templates)
        each = F.normalize(words.mean(dim=1), dim=-1).split([len(prompt.words) for prompt in prompts])
        return F.normalize(torch.stack([rows.mean(dim=0) for rows in each]), dim=-1)

    def graph(self, features: torch.Tensor) -> torch.Tensor:
        """Equations 11 and 12: the sparse transition matrix (N, N) over features (N, D)."""
        return knn_transition(features, k=self.config.neighbours, temperature=self.config.tau, row_eps=1e-6)


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
