"""Lesson 05, superpixels and boundaries: what a partition knows of contours, and what the convex step makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from matplotlib.colors import ListedColormap

from rsovlib.data.classes import parse_classes
from rsovlib.experiments.lessons.exercises import ArrayExercise, Exercise, Feedback, NumberExercise, Prediction
from rsovlib.experiments.sdci.ladder import IGNORED
from rsovlib.experiments.subject import Subject
from rsovlib.kernels import edge_weights, felzenszwalb_superpixels, slic_superpixels
from rsovlib.metrics import SegmentationMetrics
from rsovlib.metrics.regions import majority, region_scores
from rsovlib.plots import OKABE_ITO, Chart, Panel, Picture, outlined, plot_charts, plot_panels
from rsovlib.plots.page import TITLE
from rsovlib.segmenters import SDCI
from rsovlib.segmenters.images import RGB

Regions = npt.NDArray[np.int32]
Labelled = Iterable[tuple[RGB, npt.NDArray[np.uint8]]]


def square_regions(height: int, width: int, count: int) -> Regions:
    """A partition that knows nothing: near-square cells, about ``count`` of them, (height, width)."""
    rows = max(1, round(np.sqrt(count * height / width)))
    columns = max(1, round(count / rows))
    down, across = (np.arange(side) * cells // side for side, cells in ((height, rows), (width, columns)))
    return (down[:, None] * columns + across).astype(np.int32)


def partitions_of_one_count(image: RGB, scale: float, sigma: float, min_size: int) -> dict[str, Regions]:
    """Felzenszwalb's superpixels, and as many of SLIC and of squares."""
    found = felzenszwalb_superpixels(image, scale=scale, sigma=sigma, min_size=min_size)
    count = int(found.max()) + 1
    return {
        "Felzenszwalb": found,
        "SLIC": slic_superpixels(image, segments=count),
        "squares": square_regions(image.shape[0], image.shape[1], count),
    }


def plot_partitions(subject: Subject, partitions: dict[str, Regions]) -> Picture:
    """The image, every partition outlined on it, and the truth where it is known."""
    panels = [Panel("image", subject.image)]
    for name, regions in partitions.items():
        panels.append(Panel(f"{name}: {len(np.unique(regions))} regions", outlined(subject.image, regions)))
    if subject.labels is not None:
        panels.append(Panel("truth", subject.labels))
    return plot_panels(panels, subject.classes, gsd=subject.gsd, columns=3)


def partition_scores(
    scenes: Labelled, scales: Sequence[float], sigma: float, min_size: int, tolerance: float = 2.0
) -> pd.DataFrame:
    """Scores of the three partitions at several scales, means over the scenes.

    Returns:
        A row for each partition and scale: regions, "boundary found (%)", "pixels at a border (%)" and
        "best possible accuracy (%)", see :class:`rsovlib.metrics.regions.RegionScores`.
    """
    rows = []
    for image, labels in scenes:
        for scale in scales:
            for name, regions in partitions_of_one_count(image, scale, sigma, min_size).items():
                found = region_scores(regions, labels, tolerance=tolerance, ignore_index=IGNORED)
                rows.append(
                    {
                        "partition": name,
                        "scale": scale,
                        "regions": found.regions,
                        "boundary found (%)": 100 * found.boundary_recall,
                        "pixels at a border (%)": 100 * found.boundary_pixels,
                        "best possible accuracy (%)": 100 * found.achievable,
                    }
                )
    return pd.DataFrame(rows).groupby(["partition", "scale"], sort=False).mean()


def plot_partition_scores(table: pd.DataFrame) -> Picture:
    """What each partition finds, against the number of regions and of border pixels that it takes."""
    names = list(table.index.get_level_values("partition").unique())

    def curves(cost: str, column: str) -> dict[str, tuple[Any, Any]]:
        return {name: (table.loc[name, cost].to_numpy(), table.loc[name, column].to_numpy()) for name in names}

    found, border, possible = "boundary found (%)", "pixels at a border (%)", "best possible accuracy (%)"
    return plot_charts(
        [
            Chart("regions in the image", found, curves("regions", found), log_x=True),
            Chart(border, found, curves(border, found)),
            Chart("regions in the image", possible, curves("regions", possible), log_x=True),
        ]
    )


def plot_edge_weights(subject: Subject, superpixels: Regions, w_in: float, w_cross: float) -> Picture:
    """What a jump of the class map costs at every pixel: the mean weight of the edges to its right and down."""
    wx, wy = edge_weights(superpixels, w_in, w_cross)
    sums, counts = np.zeros(superpixels.shape), np.zeros(superpixels.shape)
    sums[:, :-1] += wx
    counts[:, :-1] += 1
    sums[:-1] += wy
    counts[:-1] += 1
    weight = sums / np.maximum(counts, 1)
    panels = [
        Panel("image", subject.image),
        Panel("what a jump costs here", weight, "weight w", (0.0, max(w_in, w_cross))),
    ]
    if subject.labels is not None:
        panels.append(Panel("truth", subject.labels))
    return plot_panels(panels, subject.classes, gsd=subject.gsd, columns=3)


def convex_variants(sdci: SDCI, image: RGB, classes: Sequence[str], beta: float) -> dict[str, npt.NDArray[np.int64]]:
    """Class maps of one image with and without superpixels; the networks see it once.

    Args:
        sdci: the method.
        image: (H, W, 3) uint8.
        classes: K classes.
        beta: weight of the total variation.

    Returns:
        ``"no convex step"``; ``"TV, image ignored"``, all edges weigh the same; ``"TV with superpixels"``, SDCI;
        ``"vote in superpixels"``, the first map with a majority vote in every superpixel.
    """
    prompts = parse_classes(classes)
    whole = replace(sdci, config=replace(sdci.config, window=None, beta=beta))
    with torch.inference_mode():
        features = whole.encode_image(image)
        scores = whole.score(features, whole.encode_text(prompts), len(prompts))
        stages = whole.refine(features, *scores)
        maps = {}
        for name, changes in (
            ("no convex step", {"cscp": False}),
            ("TV, image ignored", {"w_cross": whole.config.w_in}),
            ("TV with superpixels", {}),
        ):
            variant = replace(whole, config=replace(whole.config, **changes))
            solved, _ = variant.solve(image, stages["clip_map"], stages["dino_map"])
            maps[name] = solved.argmax(dim=0).cpu().numpy()
    config = sdci.config
    superpixels = felzenszwalb_superpixels(
        image, config.superpixel_scale, config.superpixel_sigma, config.superpixel_min_size
    )
    maps["vote in superpixels"] = majority(superpixels, maps["no convex step"])
    return maps


def plot_maps(subject: Subject, maps: dict[str, npt.NDArray[np.int64]]) -> Picture:
    """Class maps beside the image and the truth."""
    panels = [Panel("image", subject.image), *(Panel(name, labels) for name, labels in maps.items())]
    if subject.labels is not None:
        panels.append(Panel("truth", subject.labels))
    return plot_panels(panels, subject.classes, gsd=subject.gsd, columns=3)


@dataclass(frozen=True)
class BoundaryStudy:
    """:func:`convex_variants` over labelled scenes.

    Attributes:
        table: a row a variant, over all scenes together: "mIoU (%)" and "boundary F1 (%)" (2 pixels).
        by_scene: a row a variant and a column a scene: boundary F1 in percent.
    """

    table: pd.DataFrame
    by_scene: pd.DataFrame

    def outcome(self, guess: str | None = None) -> Feedback:
        """What came true of :data:`WEIGHTS`, and in how many of the scenes."""
        scores = self.table["boundary F1 (%)"]
        with_them, without = scores["TV with superpixels"], scores["TV, image ignored"]
        first, second = (self.by_scene.loc[name].to_numpy() for name in ("TV with superpixels", "TV, image ignored"))
        better = int((first > second).sum())
        return WEIGHTS.outcome(
            "a" if with_them > without else "b",
            f"Boundary F1 {with_them:.1f} % with superpixels, {without:.1f} % with all edges alike, "
            f"{scores['no convex step']:.1f} % without the convex step; superpixels are ahead in {better} of "
            f"{self.by_scene.shape[1]} scenes.",
            guess,
        )


def boundary_study(sdci: SDCI, scenes: Labelled, classes: Sequence[str], beta: float) -> BoundaryStudy:
    """Score :func:`convex_variants` on labelled scenes, all together and one by one."""
    names = [prompt.name for prompt in parse_classes(classes)]

    def meter() -> SegmentationMetrics:
        return SegmentationMetrics(names, ignore_index=IGNORED)

    whole: dict[str, SegmentationMetrics] = {}
    single: dict[str, list[float]] = {}
    for image, labels in scenes:
        for name, found in convex_variants(sdci, image, classes, beta).items():
            whole.setdefault(name, meter()).update(found, labels)
            own = meter()
            own.update(found, labels)
            single.setdefault(name, []).append(100 * float(own.compute()["boundary_f1"]))
    scores = {name: counted.compute() for name, counted in whole.items()}
    table = pd.DataFrame(
        {
            "mIoU (%)": {name: 100 * score["miou"] for name, score in scores.items()},
            "boundary F1 (%)": {name: 100 * score["boundary_f1"] for name, score in scores.items()},
        }
    )
    return BoundaryStudy(table, pd.DataFrame(single).T)


# ---- what the lesson asks ----------------------------------------------------------------------------------------

SHAPES = Prediction(
    "Three partitions with about as many regions: Felzenszwalb's superpixels, SLIC's, and squares. Which finds most "
    "of the true boundary?",
    {"a": "Felzenszwalb's", "b": "SLIC's", "c": "the squares"},
)
SCALE = Prediction(
    "Felzenszwalb's scale grows, so the regions become fewer. What happens to the best accuracy that a labelling of "
    "whole regions could reach?",
    {"a": "it falls", "b": "it hardly changes (less than one point)", "c": "it rises: fewer regions, fewer mistakes"},
)
WEIGHTS = Prediction(
    "The convex step is run once with superpixels, where jumps at their borders are cheap, and once with all edges "
    "alike. Which class maps have the better boundaries (boundary F1)?",
    {"a": "those with superpixels", "b": "those with all edges alike"},
)

_REGIONS = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 2, 2]])
_LABELS = np.array([[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]])


def exercise_map() -> Picture:
    """The small maps of :func:`achievable_exercise`, with a number in each pixel."""
    figure = Picture(figsize=(5.0, 2.2), layout="constrained")
    for axes, title, labels in zip(figure.subplots(1, 2), ("regions", "classes"), (_REGIONS, _LABELS), strict=True):
        axes.imshow(labels, cmap=ListedColormap([colour + "66" for colour in OKABE_ITO[:3]]), vmin=-0.5, vmax=2.5)
        for (row, column), label in np.ndenumerate(labels):
            axes.text(column, row, str(label), ha="center", va="center", fontsize=TITLE)
        axes.set_title(title, fontsize=TITLE)
        axes.set_xticks([])
        axes.set_yticks([])
    return figure


def achievable_exercise() -> Exercise:
    """The best possible accuracy of a partition of twelve pixels."""
    return NumberExercise(
        "Every region gets one class, the best one. How many percent of the twelve pixels are right then?",
        lambda: 100 * region_scores(_REGIONS, _LABELS).achievable,
        tolerance=0.5,
        hint="In each region the most frequent class is right; count its pixels.",
        explanation="No method that labels whole regions can do better, however good its network is.",
    )


def weights_exercise() -> Exercise:
    """The weights of the edges to the right in the same partition."""
    return ArrayExercise(
        "The same regions, w_in = 1 and w_cross = 0.1. What are the weights of the edges to the right, wx? A list of "
        "three rows with three numbers each.",
        lambda: edge_weights(_REGIONS, 1.0, 0.1)[0],
        tolerance=1e-6,
        hint="An edge joins a pixel to its right neighbour; it weighs w_in if both lie in one region. The last pixel "
        "of a row has no right neighbour.",
        explanation="One cheap edge a row, where the border is; the last row has none.",
    )
