"""One image under several wordings of its classes: what doesn't depend on the words is computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rsovlib.data.classes import ClassPrompt, parse_classes
from rsovlib.errors import InputError
from rsovlib.segmenters import SDCI, Segmentation, Segmenter
from rsovlib.segmenters.cass import CASS
from rsovlib.segmenters.cliper import CLIPer
from rsovlib.segmenters.dense import DenseClip
from rsovlib.segmenters.images import RGB, as_rgb
from rsovlib.segmenters.policies import Grid
from rsovlib.segmenters.queries import Queries
from rsovlib.segmenters.resclip import ResCLIP
from rsovlib.segmenters.windows import segment_windows

Labels = npt.NDArray[np.int64]

#: Methods in which the score of a word depends on the other words, before the softmax over all of them.
_WORDS_MEET_EARLY = (ResCLIP, CASS, CLIPer)


def labels_by_wording(
    segmenter: Segmenter, image: Any, wordings: Mapping[str, str | Sequence[str]]
) -> dict[str, Labels]:
    """The class maps of one image under several wordings of the same K classes.

    Args:
        segmenter: any method.
        image: numpy (H, W, 3) uint8, or torch (3, H, W).
        wordings: name -> K classes; K is the same for all.

    Returns:
        Name -> (H, W) labels: what the segmenter gives for that wording alone, up to the last bits of its scores.

    Raises:
        InputError: bad image or classes, or wordings with different numbers of classes.
    """
    rgb = as_rgb(image)
    prompts = parse_wordings(wordings)
    if isinstance(segmenter, SDCI):
        return _by_sdci(segmenter, rgb, prompts)
    if isinstance(segmenter, DenseClip) and not isinstance(segmenter, _WORDS_MEET_EARLY):
        return _by_dense_clip(segmenter, rgb, prompts)
    if isinstance(segmenter, CLIPer):
        segmenter = _RememberingCliper.of(segmenter)
    return {wording: segmenter(rgb, [str(prompt) for prompt in own]).labels for wording, own in prompts.items()}


def parse_wordings(wordings: Mapping[str, str | Sequence[str]]) -> dict[str, list[ClassPrompt]]:
    """The classes of every wording.

    Raises:
        InputError: bad classes, or wordings with different numbers of them.
    """
    prompts = {wording: parse_classes(classes) for wording, classes in wordings.items()}
    counts = {len(own) for own in prompts.values()}
    if len(counts) != 1:
        raise InputError(f"The wordings are to name the same classes, and have {sorted(counts)} of them.")
    return prompts


def labels_of_windows(
    rgb: RGB, window: int | None, overlap: int, classes: int, maps_of: Callable[[RGB], Mapping[str, torch.Tensor]]
) -> dict[str, Labels]:
    """Several class maps of one image at once, each blended over the windows.

    Args:
        rgb: (H, W, 3) uint8.
        window: side of a window in pixels; None for the whole image.
        overlap: of windows, in pixels.
        classes: K.
        maps_of: one window -> name to scores (K, h, w), of which the largest decides; the same names for every window.

    Returns:
        Name -> (H, W) labels.
    """

    def one(tile: RGB) -> Segmentation:
        maps = {name: scores.float().cpu().numpy() for name, scores in maps_of(tile).items()}
        names = [str(number) for number in range(classes)]
        return Segmentation.from_probabilities(next(iter(maps.values())), names, stages=maps, image=tile)

    with torch.inference_mode():
        side = window or max(rgb.shape[:2])
        stages = segment_windows(rgb, side, overlap if window else 0, classes, one).stages
    return {name: scores.argmax(axis=0) for name, scores in stages.items()}


class _RememberingCliper(CLIPer):
    """CLIPer on one image: what its windows' pixels say is computed for the first wording and kept for the others."""

    _kept: dict[tuple[str, bytes], Any]

    @classmethod
    def of(cls, cliper: CLIPer) -> _RememberingCliper:
        """The same method, remembering."""
        made = cls(cliper.clip, cliper.dino, cliper.config, cliper.affinity)
        made._kept = {}
        return made

    def _features(self, rgb: RGB) -> tuple[torch.Tensor, torch.Tensor, Grid]:
        key = "features", rgb.tobytes()
        if key not in self._kept:
            self._kept[key] = super()._features(rgb)
        found: tuple[torch.Tensor, torch.Tensor, Grid] = self._kept[key]
        return found

    def _affinity(self, rgb: RGB, grid: Grid) -> tuple[torch.Tensor, Grid]:
        key = "affinity", rgb.tobytes()
        if key not in self._kept:
            self._kept[key] = super()._affinity(rgb, grid)
        found: tuple[torch.Tensor, Grid] = self._kept[key]
        return found


def _by_sdci(sdci: SDCI, rgb: RGB, prompts: Mapping[str, list[ClassPrompt]]) -> dict[str, Labels]:
    """Both networks once, then scores, diffusion and the convex step for every wording."""
    count = len(next(iter(prompts.values())))
    with torch.inference_mode():
        texts = {wording: sdci.encode_text(own) for wording, own in prompts.items()}

    def maps(tile: RGB) -> dict[str, torch.Tensor]:
        features = sdci.encode_image(tile)
        found = {}
        for wording, text in texts.items():
            stages = sdci.refine(features, *sdci.score(features, text, count))
            found[wording] = sdci.solve(tile, stages["clip_map"], stages["dino_map"])[0]
        return found

    return labels_of_windows(rgb, sdci.config.window, sdci.config.overlap, count, maps)


def _by_dense_clip(segmenter: DenseClip[Any], rgb: RGB, prompts: Mapping[str, list[ClassPrompt]]) -> dict[str, Labels]:
    """All words are compared with the image at once, then each wording decides among its own."""
    with torch.inference_mode():
        queries = {wording: segmenter.encode_text(own) for wording, own in prompts.items()}
        vectors = torch.cat([own.vectors for own in queries.values()])
        everything = Queries(vectors, torch.arange(len(vectors), device=vectors.device), len(vectors))
        logits = torch.split(segmenter.logits(rgb, everything), [len(own.vectors) for own in queries.values()])
        return {
            wording: segmenter.decide(rgb, scores, own).argmax(dim=0).cpu().numpy()
            for (wording, own), scores in zip(queries.items(), logits, strict=True)
        }
