"""Lesson 01, data: a deliberately simple classifier of pixels, what clouds cost it, and what a radar gives back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import uniform_filter
from scipy.stats import multivariate_normal

from rsovlib.data.clouds import CLOUD_OPACITY, add_clouds
from rsovlib.data.scenes import make_scene
from rsovlib.experiments.lessons.exercises import Exercise, Feedback, NumberExercise, Prediction
from rsovlib.metrics import SegmentationMetrics, compare, confidence_interval
from rsovlib.plots import OKABE_ITO, Picture
from rsovlib.plots.page import LABEL, PAGE_WIDTH, TITLE

Floats = npt.NDArray[np.floating[Any]]

#: Classes that the classifier learns; pixels of others don't count.
TAUGHT = ("water", "forest", "grass", "bare soil", "road")
#: What a version of the classifier looks at -> how its curve is drawn.
VERSIONS = {"colours": "o-", "radar": "s--", "both": "^:", "both, told of clouds": "D-"}


@dataclass(frozen=True)
class Coast:
    """A cloud-free coast through both sensors.

    Attributes:
        colours: (H, W, 4) uint8, red, green, blue, near infrared.
        radar: (H, W, 2) in dB, VV and VH, smoothed over 5 x 5 pixels against speckle.
        labels: (H, W), indices into :data:`TAUGHT`, 255 for other classes.
    """

    colours: npt.NDArray[np.uint8]
    radar: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


def coast(size: int, seed: int) -> Coast:
    """A simulated coast of 2 m a pixel."""
    scene = make_scene(size, seed, region="temperate", layout="coast", gsd=2.0, modalities=("nir", "sar"))
    as_taught = np.array([TAUGHT.index(name) if name in TAUGHT else 255 for name in scene.classes])
    # Powers are averaged, not decibels.
    radar = 10 * np.log10(uniform_filter(10 ** (np.asarray(scene.sar) / 10), (0, 5, 5)))
    return Coast(np.dstack([scene.optical, np.asarray(scene.nir)]), np.moveaxis(radar, 0, -1), as_taught[scene.labels])


class NormalClassifier:
    """A normal distribution for each class, pixel by pixel."""

    def __init__(self, features: Iterable[npt.NDArray[Any]], labels: Iterable[npt.NDArray[Any]]) -> None:
        """Learn mean and covariance of every class.

        Args:
            features: (H, W, D) of each image.
            labels: (H, W), indices into :data:`TAUGHT`.
        """
        pixels = np.concatenate([image.reshape(-1, image.shape[-1]) for image in features]).astype(float)
        kinds = np.concatenate([image.ravel() for image in labels])
        self._normals = []
        for k in range(len(TAUGHT)):
            own = pixels[kinds == k]
            # One grey level (or dB) squared is added, so that a class of one colour has a distribution, too.
            self._normals.append(multivariate_normal(own.mean(axis=0), np.cov(own.T) + np.eye(own.shape[1])))

    def evidence(self, features: npt.NDArray[Any]) -> Floats:
        """Logarithm of each class's likelihood: (H, W, D) -> (H, W, K)."""
        return np.stack([normal.logpdf(features) for normal in self._normals], axis=-1)


@dataclass(frozen=True)
class CloudStudy:
    """Counts of every version at every cover.

    Attributes:
        covers: shares of the image under clouds.
        counted: cover -> version -> counts, with the strata "clear" and "cloudy".
        cloudless: cover -> counts of the colours on the same scenes without any cloud, with the strata of that cover.
        scenes: how many.
        size: their side.
    """

    covers: tuple[float, ...]
    counted: dict[float, dict[str, SegmentationMetrics]]
    cloudless: dict[float, SegmentationMetrics]
    scenes: int
    size: int

    def miou(self, cover: float, version: str) -> float:
        """Of all pixels, 0 to 1."""
        return float(self.counted[cover][version].compute()["miou"])

    def plot(self) -> Picture:
        """mIoU over the cover, with 95 % bootstrap intervals."""
        figure = Picture(figsize=(PAGE_WIDTH, 4.0), layout="constrained")
        axes = figure.subplots()
        x = 100 * np.array(self.covers)
        for colour, (version, style) in zip(
            OKABE_ITO[4:6] + OKABE_ITO[2:3] + OKABE_ITO[6:7], VERSIONS.items(), strict=True
        ):
            found = [confidence_interval(self.counted[c][version], "miou", resamples=500) for c in self.covers]
            axes.plot(x, [100 * interval.value for interval in found], style, color=colour, label=version)
            low, high = ([100 * getattr(interval, end) for interval in found] for end in ("low", "high"))
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set(xlabel="cover of thick clouds (%)", ylabel="mIoU (%)", ylim=(0, None))
        axes.set_title(
            f"{self.scenes} coasts of {self.size} x {self.size} pixels; bands: 95 % bootstrap intervals over them",
            fontsize=TITLE,
        )
        figure.legend(title="evidence", loc="outside right upper", frameon=False, fontsize=LABEL)
        return figure

    def under_and_between(self, cover: float = 0.5) -> pd.DataFrame:
        """mIoU in percent at one cover, apart for the pixels under clouds and under clear sky; a row a version."""
        return pd.DataFrame(
            {
                version: {
                    f"{part} pixels: mIoU (%)": 100 * found["miou"]
                    for part, found in counts.compute()["strata"].items()
                }
                for version, counts in self.counted[cover].items()
            }
        ).T.rename_axis("evidence")

    def worth_of_being_told(self, cover: float = 0.5) -> str:
        """What knowing the clouds is worth, and whether it could be an accident of these scenes, as a sentence."""
        counted = self.counted[cover]
        tested = compare(counted["both, told of clouds"], counted["both"], "miou", resamples=500)
        gain = tested.difference
        return (
            f"Told of the clouds minus not told, all pixels: {100 * gain.value:+.1f} points of mIoU "
            f"[{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]; p = {tested.p_exchange:.2g} of exchanging both in "
            f"some of the {tested.images} scenes (below {2.0 ** (1 - tested.images):.2g} it can't be with so few)."
        )

    def cost_outcome(self, guess: str | None = None) -> Feedback:
        """What came true of :data:`COST`."""
        covered = {version: self.miou(1.0, version) for version in VERSIONS}
        scores = "; ".join(f"{version} {100 * value:.1f} %" for version, value in covered.items())
        return COST.outcome(worst_version(covered), f"mIoU when all is cloudy: {scores}.", guess)

    def shadows_outcome(self, guess: str | None = None, cover: float = 0.5) -> Feedback:
        """What came true of :data:`SHADOWS`."""
        with_clouds, without = (
            100 * counts.compute()["strata"]["clear"]["miou"]
            for counts in (self.counted[cover]["colours"], self.cloudless[cover])
        )
        return SHADOWS.outcome(
            "a" if without - with_clouds < 1 else "b",
            f"The same pixels under clear sky: {without:.1f} % without a cloud anywhere, {with_clouds:.1f} % with "
            "clouds over the others.",
            guess,
        )


def cloud_study(
    size: int, train: Sequence[int], test: Sequence[int], covers: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0)
) -> CloudStudy:
    """Learn from cloud-free coasts, then classify others under more and more thick clouds.

    Args:
        size: side of the scenes in pixels.
        train: seeds of the cloud-free ones.
        test: seeds of the others.
        covers: shares of the image under clouds.
    """
    learnt = [coast(size, seed) for seed in train]
    labels = [view.labels for view in learnt]
    by_colour = NormalClassifier((view.colours for view in learnt), labels)
    by_radar = NormalClassifier((view.radar for view in learnt), labels)
    counted = {
        cover: {
            version: SegmentationMetrics(list(TAUGHT), strata=("clear", "cloudy"), keep_images=True)
            for version in VERSIONS
        }
        for cover in covers
    }
    cloudless = {cover: SegmentationMetrics(list(TAUGHT), strata=("clear", "cloudy")) for cover in covers}
    for seed in test:
        view = coast(size, seed)
        echoes = by_radar.evidence(view.radar)
        undisturbed = by_colour.evidence(view.colours).argmax(axis=-1)
        for cover in covers:
            pictured, opacity = add_clouds(view.colours, cover, "thick", seed)
            cloudy = opacity > CLOUD_OPACITY
            cloudless[cover].update(undisturbed, view.labels, strata=cloudy.astype(int))
            seen = by_colour.evidence(pictured)
            told = np.where(cloudy[..., None], 0, seen)
            for version, evidence in zip(VERSIONS, (seen, echoes, seen + echoes, told + echoes), strict=True):
                counted[cover][version].update(
                    evidence.argmax(axis=-1), view.labels, image=str(seed), strata=cloudy.astype(int)
                )
    return CloudStudy(tuple(covers), counted, cloudless, len(test), size)


# ---- what the lesson asks ----------------------------------------------------------------------------------------

COST = Prediction(
    "Thick clouds cover everything. Four versions of a classifier see colours, radar, both with their evidence added, "
    "or both with the colours left out under clouds. Which is the worst?",
    {
        "a": "the radar alone",
        "b": "the colours alone",
        "c": "both, added",
        "d": "the colours alone, and both added just as much",
    },
)
SHADOWS = Prediction(
    "Half of each image is cloudy; over the other half the sky is clear. Does the classifier of colours do as well in "
    "that other half as if there were no cloud at all?",
    {"a": "yes, to within a point of mIoU: no cloud hangs there", "b": "no, it loses more"},
)


def worst_version(miou: Mapping[str, float], alike: float = 0.005) -> str:
    """Which choice of :data:`COST` came true; scores that differ by no more than ``alike`` are called equal."""
    if abs(miou["colours"] - miou["both"]) <= alike and miou["colours"] < miou["radar"]:
        return "d"
    return min({"a": miou["radar"], "b": miou["colours"], "c": miou["both"]}.items(), key=lambda item: item[1])[0]


def light_exercise(opacity: Floats) -> Exercise:
    """How much of the ground's light comes through."""
    return NumberExercise(
        "How much of the ground's light arrives, on average over the image, through a thin cloud that covers "
        "everything? A share from 0 to 1; guess first, then compute it from the opacity.",
        lambda: float((1 - opacity).mean()),
        tolerance=0.05,
        hint="What the cloud keeps back and what arrives make 1, pixel by pixel: opacity is the former.",
        explanation="So a thin cloud is a matter of contrast more than of loss; the thick one is a matter of loss.",
    )


def iou_exercise() -> Exercise:
    """What one wrong pixel more does to an IoU."""
    return NumberExercise(
        "In the small map of three classes, one more pixel of the water is called forest. What is the IoU of water "
        "then? (The counts stand in the matrix of confusion.)",
        lambda: 4 / (4 + 0 + 2),
        tolerance=0.005,
        hint="It leaves TP and joins FN.",
        explanation="For a small class one pixel is many points.",
    )
