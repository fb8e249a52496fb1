"""Lesson 04, total variation: a made-up scene that two models see badly, and what the lesson asks about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from scipy.special import softmax

from rsovlib.experiments.lessons.exercises import ArrayExercise, Exercise, NumberExercise, Prediction
from rsovlib.kernels import CscpResult, edge_weights
from rsovlib.plots import Chart, Panel, Picture, plot_charts, plot_panels

#: Weights of the two models in the energy, SDCI's.
LAMBDA_CLIP, LAMBDA_DINO = 1.0, 0.2


@dataclass(frozen=True)
class MadeUpScene:
    """Regions of a few classes, seen by two models.

    Attributes:
        truth: (H, W), the class of each pixel.
        p_clip: (K, H, W), noisy probabilities.
        p_dino: (K, H, W), blurred ones with less noise.
        superpixels: (H, W), squares that know nothing of the truth.
    """

    truth: npt.NDArray[np.int64]
    p_clip: npt.NDArray[np.float32]
    p_dino: npt.NDArray[np.float32]
    superpixels: npt.NDArray[np.int64]

    def problem(self, beta: float, w_in: float = 1.0, w_cross: float = 0.1) -> dict[str, Any]:
        """What ``solve_cscp`` takes."""
        wx, wy = edge_weights(self.superpixels, w_in=w_in, w_cross=w_cross)
        return {"p_clip": self.p_clip, "p_dino": self.p_dino, "wx": wx, "wy": wy, "beta": beta}

    def right(self, labels: npt.NDArray[Any]) -> float:
        """Share of the pixels that are right."""
        return float((labels == self.truth).mean())

    def plot(self, maps: Mapping[str, npt.NDArray[Any]]) -> Picture:
        """Label maps side by side, with the share of pixels that are right."""
        panels = [Panel(f"{title}\n{self.right(labels):.1%} right", labels) for title, labels in maps.items()]
        return plot_panels(panels, [f"class {k}" for k in range(len(self.p_clip))], columns=len(maps), cell=3.1)


def made_up_scene(size: int, classes: int, noise: float, seed: int) -> MadeUpScene:
    """Regions with smooth borders; "CLIP" sees them noisily, "DINO" blurred.

    Args:
        size: pixels a side.
        classes: K.
        noise: standard deviation of the maps' log-odds, nats.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    fields = gaussian_filter(rng.standard_normal((classes, size, size)), (0, 9, 9))
    truth = fields.argmax(axis=0)
    one_hot = np.eye(classes)[truth].transpose(2, 0, 1)
    noisy = 1.5 * one_hot + noise * rng.standard_normal(one_hot.shape)
    blurred = 1.5 * gaussian_filter(one_hot, (0, 4, 4)) + noise / 2 * rng.standard_normal(one_hot.shape)
    p_clip, p_dino = (softmax(logits, axis=0).astype(np.float32) for logits in (noisy, blurred))
    blocks = np.arange(size) // 12
    return MadeUpScene(truth, p_clip, p_dino, blocks[:, None] * 100 + blocks)


def plot_convergence(result: CscpResult, pixels: int, tolerance: float) -> Picture:
    """Primal and dual energy, and the gap between them, over the iterations of a solver's checks."""
    iterations = [check.iteration for check in result.history]
    energies = {
        "primal P(q(y))": (iterations, [check.energy / pixels for check in result.history]),
        "dual d(y)": (iterations, [check.dual_energy / pixels for check in result.history]),
    }
    gaps = {"gap / P": (iterations, [check.relative_gap for check in result.history])}
    return plot_charts(
        [
            Chart("iteration", "energy (nats a pixel)", energies, "the optimum is between them", marks=False),
            Chart("iteration", "relative gap", gaps, "the certificate", {"tolerance": tolerance}, log_y=True),
        ]
    )


def plot_race(runs: Mapping[str, CscpResult], tolerance: float) -> Picture:
    """The relative gap of several solvers over their iterations."""
    curves = {
        name: ([check.iteration for check in run.history], [check.relative_gap for check in run.history])
        for name, run in runs.items()
    }
    chart = Chart(
        "iteration",
        "relative gap",
        curves,
        "the same certificate for all",
        {"tolerance": tolerance},
        log_y=True,
        marks=False,
    )
    return plot_charts([chart], width=6.4, height=3.6)


# ---- what the lesson asks ----------------------------------------------------------------------------------------

BETWEEN = Prediction(
    "While the solver runs, the primal energy P(q(y)) and the dual d(y) are both computed at its checks. Where does "
    "the optimum lie?",
    {
        "a": "between the two, at every check",
        "b": "at the primal: the dual only helps to get there",
        "c": "nobody knows before the solver has ended",
    },
)
BETTER = Prediction(
    "The convex step mixes both maps and smooths them. Is the result better than the better of the two maps?",
    {"a": "yes", "b": "no: it lies between them"},
)
FASTEST = Prediction(
    "Three solvers, the same problem. Which needs the fewest iterations to the tolerance?",
    {"a": "primal-dual, Euclidean", "b": "primal-dual, entropic", "c": "dual ascent"},
)


def fusion_exercise(scene: MadeUpScene) -> Exercise:
    """The optimum without total variation: the weighted geometric mean."""

    def solution() -> npt.NDArray[Any]:
        total = LAMBDA_CLIP + LAMBDA_DINO
        logs = LAMBDA_CLIP * np.log(scene.p_clip) + LAMBDA_DINO * np.log(scene.p_dino)
        fused: npt.NDArray[Any] = softmax(logs / total, axis=0)
        return fused

    return ArrayExercise(
        "With β = 0 the pixels have nothing to do with each other. Which map q (K, H, W) minimises P then, for "
        f"λ_c = {LAMBDA_CLIP:g} and λ_d = {LAMBDA_DINO:g}? Write it down with scene.p_clip and scene.p_dino.",
        solution,
        tolerance=1e-4,
        hint="Look at the formula of q(y). The box has shrunk to a point.",
        explanation="The normalised geometric mean, in which the trusted map counts five times as much.",
    )


def edge_exercise(beta: float = 0.3, w_cross: float = 0.1) -> Exercise:
    """How large a dual variable may become at a border of superpixels."""
    return NumberExercise(
        f"β = {beta:g}. How large may |y| become on an edge between two superpixels (w = {w_cross:g})?",
        lambda: beta * w_cross,
        tolerance=1e-3,
        hint="It is the box of the dual problem.",
        explanation="The dual variable is the force that holds two pixels together; across a border it is weak.",
    )
