"""Lesson 08, reading a results table: what a map that knows nothing scores, what is counted, and what chance does.

Predictions here are made from the truth of simulated tiles, not by a network: only the counting is the subject.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rsovlib.errors import InputError
from rsovlib.experiments.labelled import LabelledTiles
from rsovlib.experiments.lessons.exercises import Exercise, Feedback, NumberExercise, Prediction
from rsovlib.experiments.papers import paper_table
from rsovlib.experiments.sdci.findings import sdci_findings
from rsovlib.metrics import Comparison, Interval, SegmentationMetrics, as_in, compare, confidence_interval
from rsovlib.plots import Picture
from rsovlib.plots.pairs import plot_pairs

Labels = npt.NDArray[np.integer]
NamedLabels = Sequence[tuple[str, Labels]]
IGNORED = 255
NO_BOUNDARIES: dict[str, Any] = {"boundary_tolerance": None, "boundary_width": None}

FLOOR = Prediction(
    "Which map, made without looking at the image, has the largest mIoU?",
    {
        "a": "the most frequent class everywhere",
        "b": "a class drawn for every pixel, all alike likely",
        "c": "the true map of another tile",
    },
)
BACKGROUND = Prediction(
    "One map, scored with and without the background as a class: how far apart are its two mIoU?",
    {"a": "less than 5 points", "b": "5 to 20 points", "c": "more than 20 points"},
)
EMPTY = Prediction(
    "A map that never finds any water: what is the mean over the images of its IoU for water?",
    {"a": "0", "b": "above 0, but no more than 20 %", "c": "above 20 %"},
)
PAIRED = Prediction(
    "Two methods' intervals overlap. Can their paired difference still leave out 0?",
    {"a": "no, overlapping intervals mean that nobody knows", "b": "yes"},
)
RANKS = Prediction(
    "Table 1's average has one column, iSAID, with two protocols in it. How many of the eleven methods change their "
    "rank without that column?",
    {"a": "none or one", "b": "two to five", "c": "more than five"},
)


def truths(tiles: LabelledTiles) -> list[tuple[str, Labels]]:
    """Names and labels of all tiles, in memory."""
    return [(name, labels) for name, _, labels in tiles]


def shares(labels: NamedLabels, classes: int) -> npt.NDArray[np.float64]:
    """Share of each class among the labelled pixels, (K,)."""
    counts = np.zeros(classes)
    for _, truth in labels:
        counts += np.bincount(truth[truth != IGNORED], minlength=classes)[:classes]
    if not counts.any():
        raise InputError("No pixel of these tiles has a label; choose other tiles.")
    return counts / counts.sum()


# ---- floors --------------------------------------------------------------------------------------------------------


def floors(labels: NamedLabels, classes: Sequence[str], seed: int = 0) -> pd.DataFrame:
    """What maps score that were made without looking: accuracy and mIoU in percent.

    Args:
        labels: at least two tiles.
        classes: the K names.
        seed: of the draws.
    """
    rng, share = np.random.default_rng(seed), shares(labels, len(classes))
    largest = int(share.argmax())
    others = [truth for _, truth in labels[1:]] + [labels[0][1]]
    makers: dict[str, Callable[[int], Labels]] = {
        f"{classes[largest]} everywhere": lambda index: np.full(labels[index][1].shape, largest),
        "drawn, all classes alike": lambda index: rng.integers(len(classes), size=labels[index][1].shape),
        "drawn by the classes' shares": lambda index: rng.choice(len(classes), p=share, size=labels[index][1].shape),
        "another tile's truth": lambda index: _without_gaps(others[index], largest),
    }
    rows = {}
    for name, make in makers.items():
        scores: Any = as_in("sdci", classes, **NO_BOUNDARIES)
        for index, (tile, truth) in enumerate(labels):
            scores.update(make(index), truth, image=tile)
        found = scores.compute()
        rows[name] = {"pixel accuracy": 100 * found["pixel_accuracy"], "mIoU": 100 * found["miou"]}
    return pd.DataFrame(rows).T.rename_axis("map")


def most_drawn_miou(classes: int) -> float:
    """The largest value that :func:`drawn_miou` can have, with equal shares: 100 / (2 K - 1)."""
    return 100 / (2 * classes - 1)


def drawn_miou(share: npt.NDArray[np.float64]) -> float:
    """mIoU in percent, in expectation, of a map whose K classes are drawn alike: mean of p / (1 + (K - 1) p)."""
    number = len(share)
    return 100 * float(np.mean(share / (1 + (number - 1) * share)))


def plot_floors(table: pd.DataFrame) -> Picture:
    """Accuracy and mIoU of every map that knows nothing."""
    return plot_pairs(
        {str(name): (row["pixel accuracy"], row["mIoU"]) for name, row in table.iterrows()},
        labels=("pixel accuracy", "mIoU"),
        axis="score of a map that knows nothing (percent)",
    )


def floor_outcome(table: pd.DataFrame, guess: str | None = None) -> Feedback:
    """What came true of :data:`FLOOR`."""
    names = [str(name) for name in table.index]
    keys = {names[0]: "a", names[1]: "b", names[2]: "b", names[3]: "c"}
    best = names[int(table["mIoU"].to_numpy().argmax())]
    return FLOOR.outcome(keys[best], f"{best}: mIoU {table['mIoU'].max():.1f} %.", guess)


# ---- what is counted -----------------------------------------------------------------------------------------------


def with_and_without_background(
    labels: NamedLabels, classes: Sequence[str], drawn: float = 0.3, seed: int = 0
) -> pd.DataFrame:
    """The same maps scored over the objects alone, and with the background as one more class; mIoU in percent.

    Only classes that occur are asked for and scored, so that the two ways of counting differ in nothing else.

    Args:
        labels: whose unlabelled pixels are background.
        classes: the K names of the foreground.
        drawn: share of the object pixels whose class the maps draw.
        seed: of the draws.
    """
    rng, there = np.random.default_rng(seed), np.flatnonzero(shares(labels, len(classes)))
    number, to_new = len(there), np.full(IGNORED + 1, IGNORED)
    to_new[there] = np.arange(number)
    present = [classes[index] for index in there.tolist()]
    ways = {"foreground alone": ("sdci", present), "with background": ("with-background", ["background", *present])}
    rows: dict[str, dict[str, float]] = {}
    for name, knows in (("never answers background", False), ("knows the background", True)):
        scores: dict[str, Any] = {way: as_in(paper, names, **NO_BOUNDARIES) for way, (paper, names) in ways.items()}
        for tile, old in labels:
            truth = to_new[old]
            background = truth == IGNORED
            luck = rng.random(truth.shape) < drawn
            answer = np.where(background | luck, rng.integers(number, size=truth.shape), truth)
            scores["foreground alone"].update(answer, truth, image=tile)
            shifted = np.where(background & knows, 0, answer + 1)
            scores["with background"].update(shifted, np.where(background, 0, truth + 1), image=tile)
        rows[name] = {way: 100 * one.compute()["miou"] for way, one in scores.items()}
    return pd.DataFrame(rows).T.rename_axis("map")


def background_outcome(table: pd.DataFrame, guess: str | None = None) -> Feedback:
    """What came true of :data:`BACKGROUND`."""
    row = table.loc["never answers background"]
    apart = abs(row["foreground alone"] - row["with background"])
    happened = "a" if apart < 5 else "b" if apart <= 20 else "c"
    return BACKGROUND.outcome(
        happened,
        f"{row['foreground alone']:.1f} % over the objects alone, {row['with background']:.1f} % with the background.",
        guess,
    )


# ---- means over images ---------------------------------------------------------------------------------------------


def empty_map(labels: NamedLabels, wanted: int) -> npt.NDArray[np.float64]:
    """IoU of a map that is empty, image by image: 1 where there is nothing to find, else 0.

    That is how a mean over images counts an image without the class (scenario sampling's tables do).
    """
    return np.array([0.0 if (truth == wanted).any() else 1.0 for _, truth in labels])


def empty_outcome(scores: npt.NDArray[np.float64], guess: str | None = None) -> Feedback:
    """What came true of :data:`EMPTY`."""
    mean = float(scores.mean())
    happened = "a" if mean == 0 else "b" if mean <= 0.2 else "c"
    facts = f"{100 * mean:.1f} %: {int(scores.sum())} of {len(scores)} images have no water, and each counts 100 %."
    return EMPTY.outcome(happened, facts, guess)


def all_or_nothing(paper: str = "scenario-sampling", table: str = "table8") -> pd.DataFrame:
    """Printed means and deviations of IoU, beside the largest deviation that numbers of [0, 1] with that mean can have.

    Where the two agree nearly every image scored 0 or 1.
    """
    printed = paper_table(paper, table)
    rows = {}
    for row in printed.rows:
        mean, spread = printed.value(row, "none iou"), printed.value(row, "none iou std")
        if mean is not None and spread is not None:
            most = math.sqrt(mean * (1 - mean))
            rows[row] = {
                "mean": mean,
                "deviation": spread,
                "largest possible": most,
                "deviation as a share of it": spread / most,
            }
    return pd.DataFrame(rows).T.rename_axis("modalities")


# ---- chance --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Two:
    """Two methods on the same tiles.

    Attributes:
        first, second: mIoU of each with its own interval, as fractions.
        paired: the second minus the first, tile by tile.
    """

    first: Interval
    second: Interval
    paired: Comparison

    def frame(self) -> pd.DataFrame:
        """In percent."""
        rows = {"first": self.first, "second": self.second, "second - first, paired": self.paired.difference}
        return pd.DataFrame(
            {
                name: {"mIoU": 100 * one.value, "low": 100 * one.low, "high": 100 * one.high}
                for name, one in rows.items()
            }
        ).T.rename_axis("method")


def two_methods(labels: NamedLabels, classes: Sequence[str], better: float = 0.02, seed: int = 0) -> Two:
    """Two made-up methods: tiles are of very different difficulty, and the second is a little better on each.

    Args:
        labels: the tiles.
        classes: the K names.
        better: share of pixels that the second gets right more often.
        seed: of difficulties and errors.
    """
    rng, number = np.random.default_rng(seed), len(classes)
    scores = [SegmentationMetrics(classes, **NO_BOUNDARIES, keep_images=True) for _ in range(2)]
    for name, truth in labels:
        errors, luck = rng.uniform(0.1, 0.7), rng.random(truth.shape)
        drawn = rng.integers(number, size=truth.shape)
        for one, share in zip(scores, (errors, errors - better), strict=True):
            one.update(np.where((luck < share) | (truth == IGNORED), drawn, truth), truth, image=name)
    return Two(
        confidence_interval(scores[0], seed=seed),
        confidence_interval(scores[1], seed=seed),
        compare(scores[1], scores[0], seed=seed),
    )


def paired_outcome(two: Two, guess: str | None = None) -> Feedback:
    """What came true of :data:`PAIRED`."""
    overlap = two.first.high >= two.second.low
    known = two.paired.difference.low > 0
    facts = (
        f"The intervals {'overlap' if overlap else 'do not overlap'}; the paired difference is "
        f"{100 * two.paired.difference.value:.1f} [{100 * two.paired.difference.low:.1f}, "
        f"{100 * two.paired.difference.high:.1f}] points."
    )
    return PAIRED.outcome("b" if overlap and known else "a", facts, guess)


# ---- averages ------------------------------------------------------------------------------------------------------


def ranks() -> pd.DataFrame:
    """SDCI's Table 1: means and ranks with the iSAID column and without it."""
    return next(one for one in sdci_findings() if one.name == "average-without-isaid").frame()


def ranks_outcome(table: pd.DataFrame, guess: str | None = None) -> Feedback:
    """What came true of :data:`RANKS`."""
    moved = int((table["rank"] != table["rank without iSAID"]).sum())
    happened = "a" if moved <= 1 else "b" if moved <= 5 else "c"
    return RANKS.outcome(happened, f"{moved} of {len(table)} methods change their rank.", guess)


# ---- exercises -----------------------------------------------------------------------------------------------------


def average_exercise() -> Exercise:
    """A printed average that isn't one."""
    table = paper_table("sdci", "table1")
    return NumberExercise(
        "One row of Table 1 has an average that is not the mean of its nine numbers. What should it be (percent, two "
        "decimals)?",
        lambda: fmean(value for value in table.row("CASS")[:9] if value is not None),
        tolerance=0.01,
        hint='table = paper_table("sdci", "table1").frame(); compare table.iloc[:, :9].mean(axis=1) with "average".',
        explanation="The printed number is the row's iSAID cell: a slip of the hand, and it moves the row's rank.",
    )


def floor_exercise(classes: int = 5) -> Exercise:
    """The floor of mIoU, by thought."""
    return NumberExercise(
        f"{classes} classes take equal shares of a set, and a map shows one of them everywhere. What is its mIoU (per "
        "cent)?",
        lambda: 100 / classes**2,
        tolerance=0.01,
        hint="The shown class has an IoU of its share; what is the IoU of a class that is never shown?",
        explanation="The shown class has 1/K, the others 0, and the mean over K of them is 1/K^2.",
    )


def question_list() -> list[str]:
    """What to ask of a results table, in the order of this lesson."""
    return [
        "What does a map score that knows nothing?",
        "Which pixels and which classes are counted, and the same ones in every row?",
        "Is it the mean over a set, or over its images, and what does an image without the class count?",
        "How many images, how many seeds, which interval; is the difference paired?",
        "Are the words, the backbone, the input size and the training budget the same in every row?",
        "Do averages and gains follow from the numbers beside them?",
    ]


def _without_gaps(truth: Labels, fill: int) -> Labels:
    return np.where(truth == IGNORED, fill, truth)
