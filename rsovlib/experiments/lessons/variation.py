"""Lesson 04, total variation: a made-up scene that two models see badly, and what the lesson asks about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import gaussian_filter
from scipy.special import softmax

from rsovlib.experiments.lessons.exercises import ArrayExercise, Exercise, Feedback, NumberExercise, Prediction
from rsovlib.kernels import CscpResult, edge_weights, solve_cscp
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
        """Label maps beside the truth, with the share of pixels that are right."""
        panels = [Panel("the truth", self.truth)]
        for title, labels in maps.items():
            panels.append(Panel(f"{title}\n{100 * self.right(labels):.1f} % right", labels))
        return plot_panels(panels, [f"class {k}" for k in range(len(self.p_clip))], columns=3)


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
            Chart("iteration", "energy (nats a pixel)", energies, "primal and dual", marks=False),
            Chart("iteration", "relative gap", gaps, "the gap between them", {"tolerance": tolerance}, log_y=True),
        ]
    )


def between_outcome(result: CscpResult, precise: CscpResult, pixels: int, guess: str | None = None) -> Feedback:
    """What came true of :data:`BETWEEN`.

    Args:
        result: whose checks are judged.
        precise: a much more exact solution of the same problem.
        pixels: of the scene.
        guess: the learner's.
    """
    between = all(
        check.dual_energy <= precise.energy and check.energy >= precise.dual_energy for check in result.history
    )
    return BETWEEN.outcome(
        "a" if between else "c",
        f"A solution a hundred times as exact puts the optimum between {precise.dual_energy / pixels:.7f} and "
        f"{precise.energy / pixels:.7f} nats a pixel; {'no' if between else 'some'} check had its primal below or its "
        "dual above that.",
        guess,
    )


def beta_sweep(scene: MadeUpScene, betas: Sequence[float], tolerance: float = 1e-3) -> dict[float, float]:
    """Share of the pixels that are right, in percent, for several weights of the total variation."""
    return {beta: 100 * scene.right(solve_cscp(**scene.problem(beta), tolerance=tolerance).labels) for beta in betas}


def plot_betas(found: Mapping[float, float], alone: Mapping[str, float]) -> Picture:
    """:func:`beta_sweep`, and what each map has alone."""
    curves = {"fused": (np.array(list(found)), np.array(list(found.values())))}
    chart = Chart("beta (nats)", "pixels that are right (percent)", curves, levels=dict(alone))
    return plot_charts([chart], width=7.0, height=3.4)


def beta_outcome(found: Mapping[float, float], guess: str | None = None) -> Feedback:
    """What came true of :data:`BETA`."""
    betas, values = list(found), list(found.values())
    place = int(np.argmax(values))
    return BETA.outcome(
        "a" if place == len(values) - 1 else "c" if place == 0 else "b",
        f"{values[0]:.1f} % at beta = {betas[0]:g}, {values[place]:.1f} % at beta = {betas[place]:g}, "
        f"{values[-1]:.1f} % at beta = {betas[-1]:g}.",
        guess,
    )


def plot_race(runs: Mapping[str, CscpResult], tolerance: float) -> Picture:
    """The relative gap of several solvers over their iterations, and over their time, which is this machine's."""
    gaps = {name: [check.relative_gap for check in run.history] for name, run in runs.items()}
    counted = {name: ([check.iteration for check in run.history], gaps[name]) for name, run in runs.items()}
    timed = {name: ([1e3 * check.seconds for check in run.history][1:], gaps[name][1:]) for name, run in runs.items()}
    level = {"tolerance": tolerance}
    return plot_charts(
        [
            Chart("iteration", "relative gap", counted, "by iterations", level, log_y=True, marks=False),
            Chart("time (ms)", "relative gap", timed, "by time", level, log_x=True, log_y=True, marks=False),
        ],
        height=3.6,
    )


def race_table(runs: Mapping[str, CscpResult]) -> pd.DataFrame:
    """A row a solver: iterations, time of each with its share of the checks, the gap that it left, and its energy."""
    return pd.DataFrame(
        {
            name: {
                "iterations": run.iterations,
                "ms an iteration": 1e3 * run.history[-1].seconds / run.iterations,
                "relative gap (1e-4)": 1e4 * run.relative_gap,
                "P (nats)": run.energy,
            }
            for name, run in runs.items()
        }
    ).T.rename_axis("solver")


def fastest_outcome(runs: Mapping[str, CscpResult], guess: str | None = None) -> Feedback:
    """What came true of :data:`FASTEST`; a solver that has not come to the tolerance is behind all that have."""
    order = sorted(runs, key=lambda name: (not runs[name].converged, runs[name].iterations, runs[name].relative_gap))
    counts = "; ".join(
        f"{name}: {run.iterations}{'' if run.converged else ', not there'}" for name, run in runs.items()
    )
    return FASTEST.outcome(dict(zip(runs, "abc", strict=True))[order[0]], f"{counts} iterations.", guess)


# ---- what the lesson asks ----------------------------------------------------------------------------------------

BETWEEN = Prediction(
    "While the solver runs, the primal energy P(q(y)) and the dual d(y) are both computed at its checks. Where does "
    "the optimum lie?",
    {
        "a": "between the two, at every check",
        "b": "above both: they rise towards it",
        "c": "nobody knows before the solver has ended",
    },
)
BETA = Prediction(
    "beta weighs the total variation. How does the share of right pixels change as beta grows from 0 to 3?",
    {"a": "it rises all the way: more smoothing, less noise", "b": "it is best in between", "c": "it falls"},
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
