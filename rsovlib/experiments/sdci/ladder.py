"""SDCI's ladder: what each of its steps adds, from the value path to the whole method.

The rungs are those of the paper's Table 2 with CLIP's value path below them as a control. All rungs share one run of
the two networks, and every rung decides by the official reading's class maps: each class stretched to its own range,
then the largest. (Without that stretch the rows below CSCP would be compared by another rule than the last one.)

Neither the paper nor its program says how the rows below CSCP decide, nor how "late fusion" weighs the two branches.
So both can be asked for as well: :data:`PLAIN`, the same rungs deciding by the largest score without any stretch, and
:data:`LATE_FUSION`, the mean of both branches' probabilities, without CAF, BCDR and CSCP.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from tqdm.auto import tqdm

from rsovlib.data.classes import ClassPrompt, parse_classes
from rsovlib.experiments.sdci.wordings import labels_of_windows, parse_wordings
from rsovlib.metrics import SegmentationMetrics
from rsovlib.plots import Picture
from rsovlib.plots.page import TITLE
from rsovlib.segmenters import SDCI, ValuePath
from rsovlib.segmenters.images import RGB, as_rgb, enlarge
from rsovlib.segmenters.sdci import SDCIFeatures

#: Rung -> the switches of SDCIConfig that make it. The value path is a segmenter of its own.
RUNGS: dict[str, dict[str, Any]] = {
    "baseline": {"caf": False, "bcdr": False, "cscp": False},
    "+ CAF": {"bcdr": False, "cscp": False},
    "+ BCDR": {"cscp": False},
    "+ CSCP": {},
}
VALUE_PATH = "value path"
LATE_FUSION = "late fusion"
#: DINO's branch alone after BCDR: what the convex step mixes into CLIP's.
DINO_BRANCH = "DINO's branch"
#: Rung -> what its map is called when the largest score of CLIP's branch decides, without stretch or presence test.
PLAIN = {rung: f"{rung}, plain" for rung in RUNGS if rung != "+ CSCP"}
#: Value of label pixels that no class stands for.
IGNORED = 255

Maps: TypeAlias = dict[str, torch.Tensor]


def ladder_labels(sdci: SDCI, image: Any, classes: str | Sequence[str]) -> dict[str, npt.NDArray[np.int64]]:
    """The class map of every rung.

    Args:
        sdci: the whole method; its configuration is the last rung's.
        image: numpy (H, W, 3) uint8, or torch (3, H, W).
        classes: K classes.

    Returns:
        Rung name to (H, W) labels, the value path first.
    """
    return ladder_labels_by_wording(sdci, image, {"": classes})[""]


def ladder_labels_by_wording(
    sdci: SDCI,
    image: Any,
    wordings: Mapping[str, str | Sequence[str]],
    *,
    late_fusion: bool = False,
    plain: bool = False,
    dino_branch: bool = False,
) -> dict[str, dict[str, npt.NDArray[np.int64]]]:
    """The class maps of every rung under several wordings of the same K classes; the networks see the image once.

    Args:
        sdci: the whole method.
        image: numpy (H, W, 3) uint8, or torch (3, H, W).
        wordings: name -> K classes; K is the same for all.
        late_fusion: the mean of both branches as well, as :data:`LATE_FUSION`.
        plain: the rungs of :data:`PLAIN` as well.
        dino_branch: :data:`DINO_BRANCH` as well.

    Returns:
        Name of the wording to rung name to (H, W) labels: the value path, :data:`RUNGS`, then what else was asked for.

    Raises:
        InputError: bad image or classes, or wordings with different numbers of classes.
    """
    rgb = as_rgb(image)
    prompts = parse_wordings(wordings)
    count = len(next(iter(prompts.values())))
    config = sdci.config
    value_path = ValuePath(
        sdci.clip, config.clip_size, config.position_embedding, config.logit_scale, config.templates, None
    )
    rungs = {name: replace(sdci, config=replace(config, **changes)) for name, changes in RUNGS.items()}
    with torch.inference_mode():
        texts = {wording: sdci.encode_text(own) for wording, own in prompts.items()}

    def of_wording(tile: RGB, features: SDCIFeatures, own: Sequence[ClassPrompt], text: torch.Tensor) -> Maps:
        maps = {VALUE_PATH: torch.from_numpy(value_path(tile, [str(prompt) for prompt in own]).probabilities)}
        for name, rung in rungs.items():
            stages = rung.refine(features, *rung.score(features, text, count))
            clip, dino = stages["clip_map"], stages["dino_map"]
            maps[name] = rung.solve(tile, clip, dino)[0]
            if late_fusion and name == "baseline":
                # Without CSCP the first branch given is the one that decides: here each in turn.
                maps[LATE_FUSION] = (maps[name] + rung.solve(tile, dino, clip)[0]) / 2
            if dino_branch and name == "+ BCDR":
                maps[DINO_BRANCH] = rung.solve(tile, dino, clip)[0]
            if plain and name in PLAIN:
                maps[PLAIN[name]] = enlarge(stages["clip_diffused"], (tile.shape[0], tile.shape[1]))
        return maps

    def all_maps(tile: RGB) -> Maps:
        features = sdci.encode_image(tile)
        return {
            _stage(wording, name): scores
            for wording, own in prompts.items()
            for name, scores in of_wording(tile, features, own, texts[wording]).items()
        }

    labels = labels_of_windows(rgb, config.window, config.overlap, count, all_maps)
    extra = ([LATE_FUSION] if late_fusion else []) + ([DINO_BRANCH] if dino_branch else [])
    names = [VALUE_PATH, *RUNGS, *extra, *(PLAIN.values() if plain else [])]
    return {wording: {name: labels[_stage(wording, name)] for name in names} for wording in wordings}


def _stage(wording: str, rung: str) -> str:
    return f"{wording}: {rung}"


def ladder_table(
    sdci: SDCI,
    scenes: Iterable[tuple[Any, npt.NDArray[np.integer[Any]]]],
    classes: str | Sequence[str],
    *,
    progress: bool = True,
) -> pd.DataFrame:
    """Scores of every rung over labelled scenes.

    Args:
        sdci: the whole method.
        scenes: pairs of an image and its labels (H, W), indices into ``classes``, 255 where no class stands.
        classes: K classes.
        progress: show a bar.

    Returns:
        A row a rung: ``mIoU`` (percent, over all pixels of all scenes; classes without ground truth are left out),
        ``pixel accuracy`` (percent), ``gain`` (points of mIoU above the row before).
    """
    names = [prompt.name for prompt in parse_classes(classes)]
    meters = {name: SegmentationMetrics(names, ignore_index=IGNORED) for name in (VALUE_PATH, *RUNGS)}
    for image, labels in tqdm(list(scenes), desc="ladder", unit="scene", disable=not progress):
        for name, predicted in ladder_labels(sdci, image, classes).items():
            meters[name].update(predicted, np.asarray(labels))
    scores = {name: meter.compute() for name, meter in meters.items()}
    table = pd.DataFrame(
        {
            "mIoU": {name: 100 * score["miou"] for name, score in scores.items()},
            "pixel accuracy": {name: 100 * score["pixel_accuracy"] for name, score in scores.items()},
        }
    )
    table.insert(1, "gain", table["mIoU"].diff())
    table.index.name = "rung"
    return table


def plot_ladder(table: pd.DataFrame, title: str = "") -> Picture:
    """A bar a rung of :func:`ladder_table`, in percent of mIoU, each with its number."""
    figure = Picture(figsize=(7.5, 0.42 * len(table) + 1.1), layout="constrained")
    axes = figure.subplots()
    positions = np.arange(len(table))[::-1]  # the first rung on top
    bars = axes.barh(positions, table["mIoU"], color="#0072B2")
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.set_yticks(positions, list(table.index))
    axes.set_xlim(0, max(100.0, float(table["mIoU"].max())))
    axes.set_xlabel("mIoU (percent)")
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, loc="left", fontsize=TITLE)
    return figure
