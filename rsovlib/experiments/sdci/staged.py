"""SDCI under many configurations on one image: a step is repeated only where a setting that it depends on changed.

The networks cost a hundred times as much as a convex step on a small tile; a sweep over the convex step's weights
should pay for the networks once. Which field of :class:`SDCIConfig` belongs to which step stands in :data:`STEPS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from rsovlib.data.classes import ClassPrompt, parse_classes
from rsovlib.errors import InputError
from rsovlib.kernels import CscpResult
from rsovlib.segmenters import SDCI, SDCIConfig, Segmentation
from rsovlib.segmenters.images import RGB, as_rgb
from rsovlib.segmenters.windows import segment_windows

Found = TypeVar("Found")
Labels = npt.NDArray[np.int64]

#: Step -> the fields that it reads, beside what the steps before it give.
STEPS: dict[str, tuple[str, ...]] = {
    "networks": (
        *("clip_size", "position_embedding", "precision", "dino_size", "dino_scale", "dino_like_clip", "dino_resize"),
        *("layer_maps", "sinkhorn_rounds", "centre", "value_path", "layer_features", "clip_attention", "class_token"),
        "dino_rows",
    ),
    "texts": ("background", "mean_text", "templates", "synonyms"),
    "scores": ("align_renorm", "scores", "logit_scale", "score_threshold", "lambda_1", "caf"),
    "graphs": ("graph_features", "neighbours", "tau", "diffusion_graph"),
    "maps": ("bcdr", "alpha", "steps", "rescale", "presence_threshold", "min_max"),
    "probabilities": ("to_probability", "softmax_above", "floor"),
    "superpixels": ("superpixel_scale", "superpixel_sigma", "superpixel_min_size"),
    "fusion": ("cscp", "w_in", "w_cross", "lambda_clip", "lambda_dino", "beta", "solver", "tolerance"),
}
#: Fields that decide how an image is cut, and must be the same for all configurations.
WINDOWS = ("window", "overlap")


@dataclass
class StagedTile:
    """One window of an image, under any number of configurations.

    Each step keeps only what it gave last, so that memory doesn't grow; :func:`in_good_order` sees to it that this is
    what is needed next.

    Args:
        sdci: the networks.
        image: (H, W, 3) uint8.
        prompts: K classes.
        warm: the first solution of the convex step is where all later ones start, so that what they are doesn't
            depend on their order. Saves time, and leaves differences as small as the solver's tolerance.
    """

    sdci: SDCI
    image: RGB
    prompts: Sequence[ClassPrompt]
    warm: bool = False
    _kept: dict[str, tuple[tuple[Any, ...], Any]] = field(default_factory=dict, repr=False)
    _start: CscpResult | None = field(default=None, repr=False)

    def probabilities(self, config: SDCIConfig) -> torch.Tensor:
        """The fused probabilities (K, H, W) under one configuration."""
        method = replace(self.sdci, config=config)
        keys = step_keys(config)

        def once(step: str, make: Callable[[], Found], *before: str) -> Found:
            key = tuple(keys[name] for name in (*before, step))
            if step not in self._kept or self._kept[step][0] != key:
                self._kept.pop(step, None)  # freed before the next one is made
                self._kept[step] = key, make()
            kept: Found = self._kept[step][1]
            return kept

        features = once("networks", lambda: method.encode_image(self.image))
        text = once("texts", lambda: method.encode_text(self.prompts))
        before: tuple[str, ...] = ("networks", "texts")
        scores = once("scores", lambda: method.score(features, text, len(self.prompts)), *before)

        def graphs() -> dict[str, torch.Tensor] | None:
            sources = method.graph_features(features)
            if min(len(source) for source in sources.values()) < 2:  # a single token has no neighbours
                return None
            return {branch: method.graph(source) for branch, source in sources.items()}

        known = once("graphs", graphs, "networks") if config.bcdr else None

        def maps() -> tuple[torch.Tensor, torch.Tensor]:
            diffused = method.diffuse(features, *scores, known)
            both = method.class_maps(diffused, self.image.shape[:2])
            return both["clip_map"], both["dino_map"]

        before = (*before, "scores", "graphs")
        both = once("maps", maps, *before)
        before = (*before, "maps")
        clip, dino = once("probabilities", lambda: method.convex_inputs(*both), *before)
        if not config.cscp:
            return clip / clip.sum(dim=0)
        superpixels = once("superpixels", lambda: method.superpixels(self.image))

        def fused() -> torch.Tensor:
            solution = method.fuse(clip, dino, superpixels, self._start)
            if self.warm and self._start is None:
                self._start = solution
            answer: torch.Tensor = solution.q
            return answer

        return once("fusion", fused, *before, "probabilities", "superpixels")


def step_keys(config: SDCIConfig) -> dict[str, tuple[Any, ...]]:
    """Step -> the values of its fields."""
    return {step: tuple(getattr(config, name) for name in names) for step, names in STEPS.items()}


def in_good_order(configs: Mapping[str, SDCIConfig]) -> list[str]:
    """The names in an order in which configurations that share their first steps follow each other.

    The first one stays the first.
    """
    keys = {name: step_keys(config) for name, config in configs.items()}
    ranks = {step: list(dict.fromkeys(key[step] for key in keys.values())) for step in STEPS}
    return sorted(configs, key=lambda name: [ranks[step].index(keys[name][step]) for step in STEPS])


def labels_under(
    sdci: SDCI,
    configs: Mapping[str, SDCIConfig],
    image: Any,
    classes: str | Sequence[str],
    *,
    warm: bool = False,
) -> dict[str, Labels]:
    """The label maps of one image under several configurations.

    Args:
        sdci: the networks; its own configuration isn't used.
        configs: name -> configuration; they agree in how the image is cut into windows.
        image: numpy (H, W, 3) uint8, or torch (3, H, W).
        classes: K classes.
        warm: see :class:`StagedTile`; the first configuration is solved first.

    Returns:
        Name -> (H, W) labels.

    Raises:
        InputError: no configuration, or they disagree in the windows.
    """
    rgb, prompts = as_rgb(image), parse_classes(classes)
    cuts = {(config.window, config.overlap) for config in configs.values()}
    if len(cuts) != 1:
        raise InputError(f"All configurations must have the same window and overlap; there are {len(cuts)} kinds.")
    ((window, overlap),) = cuts

    def everything(tile: RGB) -> Segmentation:
        staged = StagedTile(sdci, tile, prompts, warm)
        maps = {name: staged.probabilities(configs[name]).float().cpu().numpy() for name in in_good_order(configs)}
        names = [prompt.name for prompt in prompts]
        return Segmentation.from_probabilities(next(iter(maps.values())), names, stages=dict(maps), image=tile)

    with torch.inference_mode():
        if window is None or max(rgb.shape[:2]) <= window:
            result = everything(rgb)
        else:
            result = segment_windows(rgb, window, overlap, len(prompts), everything)
    return {name: result.stages[name].argmax(axis=0) for name in configs}
