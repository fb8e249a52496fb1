"""Lesson 07, aligning SAR with optical: InfoNCE by hand, what its temperature does, and a small encoder trained so."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from rsovlib.backbones.dino import DinoBackbone
from rsovlib.data.scenes import make_scene
from rsovlib.experiments.lessons.exercises import Exercise, Feedback, NumberExercise, Prediction
from rsovlib.fusion.infonce import ContrastRule, retrieval, sample_positions, take_positions, token_infonce
from rsovlib.plots import Chart, Panel, Picture, plot_charts, plot_panels
from rsovlib.segmenters.images import to_unit

#: Cells of a patch that the small encoder sees, along each side, and rings of means around it.
_CELLS = 4
_RINGS = (3, 5)


@dataclass(frozen=True)
class Pairs:
    """Patches of simulated scenes, seen by both sensors.

    Attributes:
        optical: (B, N, D) tokens of a frozen DINO, unit norm.
        radar: (B, N, F), what the radar measured in and around each patch, standardised.
        classes: (B, N), the true class at each patch's middle.
        images: (B, H, W, 3) uint8.
        backscatter: (B, H, W), VV in dB.
        grid: rows and columns of patches.
    """

    optical: torch.Tensor
    radar: torch.Tensor
    classes: torch.Tensor
    images: npt.NDArray[np.uint8]
    backscatter: npt.NDArray[np.float32]
    grid: tuple[int, int]


def pairs_of_scenes(
    dino: DinoBackbone,
    seeds: Sequence[int],
    size: int,
    statistics: tuple[torch.Tensor, torch.Tensor] | None = None,
    *,
    looks: float = 16.0,
) -> tuple[Pairs, tuple[torch.Tensor, torch.Tensor]]:
    """Both sensors' patches of simulated scenes.

    Args:
        dino: frozen; the teacher.
        seeds: which scenes.
        size: their side in pixels, a multiple of DINO's patch.
        statistics: mean and deviation (F,) to standardise radar with; those of these scenes if None.
        looks: of the radar; more looks, less speckle.

    Returns:
        The pairs and the statistics, for other scenes.
    """
    optical, radar, classes, images, backscatter = [], [], [], [], []
    patch = dino.patch_size
    side = size // patch
    for seed in tqdm(list(seeds), desc="scenes", unit="scene", leave=False):
        scene = make_scene(size, seed, modalities=("sar",), sar_looks=looks)
        if scene.sar is None:
            continue
        with torch.inference_mode(), one_thread():
            features = dino.features(dino.normalise(to_unit(scene.optical, dino.device)))
        optical.append(F.normalize(features.layers[-1][0].float(), dim=-1).cpu().clone())
        radar.append(_radar_features(torch.from_numpy(scene.sar), side))
        middles = torch.from_numpy(scene.labels[patch // 2 :: patch, patch // 2 :: patch].astype(np.int64))
        classes.append(middles[:side, :side].reshape(-1))
        images.append(scene.optical)
        backscatter.append(scene.sar[0])
    raw = torch.stack(radar)
    if statistics is None:
        flat = raw.flatten(0, 1)
        statistics = flat.mean(dim=0), flat.std(dim=0).clamp_min(1e-6)
    mean, deviation = statistics
    pairs = Pairs(
        torch.stack(optical),
        (raw - mean) / deviation,
        torch.stack(classes),
        np.stack(images),
        np.stack(backscatter),
        (side, side),
    )
    return pairs, statistics


def _radar_features(decibels: torch.Tensor, side: int) -> torch.Tensor:
    """(2, H, W) in dB -> (side * side, F): a few cells inside each patch, and the means of larger squares."""
    inside = F.adaptive_avg_pool2d(decibels[None], side * _CELLS)  # (1, 2, side * cells, side * cells)
    cells = F.unfold(inside, kernel_size=_CELLS, stride=_CELLS)[0].T
    means = F.adaptive_avg_pool2d(decibels[None], side)
    rings = [
        F.avg_pool2d(F.pad(means, [ring // 2] * 4, mode="replicate"), ring, stride=1)[0].flatten(1).T for ring in _RINGS
    ]
    return torch.cat([cells, *rings], dim=1)


def plot_pair(pairs: Pairs, index: int = 0) -> Picture:
    """One scene through both sensors."""
    backscatter = pairs.backscatter[index]
    low, high = np.percentile(backscatter, (1, 99))
    return plot_panels(
        [
            Panel("optical", pairs.images[index]),
            Panel("radar, VV", backscatter, "backscatter (dB)", (float(low), float(high)), colour_map="gray"),
        ],
        cell=3.6,
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: for matrices as small as here a second one costs more than it saves.

    On a machine that is busy otherwise the threads wait for each other, which was twenty times as slow.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class SmallEncoder(nn.Module):
    """Radar features of a patch to the space of the optical tokens: two layers, trained in seconds."""

    def __init__(self, inputs: int, outputs: int, width: int = 96) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, outputs))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, N, F) -> (B, N, D)."""
        tokens: torch.Tensor = self.layers(features)
        return tokens


def train_encoder(
    pairs: Pairs, temperature: float, *, steps: int = 150, count: int = 64, images: int = 4, seed: int = 0
) -> tuple[SmallEncoder, list[float]]:
    """Train the small encoder with InfoNCE.

    Args:
        pairs: of training scenes.
        temperature: tau.
        steps: of Adam.
        count: patches of an image in a step.
        images: in a step.
        seed: of the start and of the draws; the generator of the process isn't touched.

    Returns:
        The encoder, and the loss at each step as a share of log(candidates), which guessing has.
    """
    rule = ContrastRule(temperature=temperature)
    losses = []
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(seed)
        encoder = SmallEncoder(pairs.radar.shape[-1], pairs.optical.shape[-1])
        optimiser = torch.optim.Adam(encoder.parameters(), lr=3e-3)
        for _ in range(steps):
            chosen = torch.randperm(len(pairs.radar))[:images]
            positions = sample_positions(len(chosen), pairs.radar.shape[1], count)
            keys = take_positions(pairs.optical[chosen], positions)
            loss = token_infonce(encoder(take_positions(pairs.radar[chosen], positions)), keys, rule)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()) / math.log(keys.shape[0] * keys.shape[1]))
    return encoder.eval(), losses


@dataclass(frozen=True)
class TemperatureStudy:
    """Encoders trained at several temperatures, judged on scenes that none of them has seen.

    Attributes:
        runs: seed of the training -> a row a temperature, see :func:`temperature_study`.
        losses: temperature -> loss at every step as a share of what guessing has, mean over the seeds.
        chance: of finding the very patch, in percent.
        chance_class: of finding a patch of the same class, in percent.
    """

    runs: dict[int, pd.DataFrame]
    losses: dict[float, npt.NDArray[np.float64]]
    chance: float
    chance_class: float

    @property
    def table(self) -> pd.DataFrame:
        """Mean over the seeds."""
        frames = list(self.runs.values())
        return sum(frames[1:], frames[0]) / len(frames)

    @property
    def best(self) -> float:
        """The temperature at which the right patch outranks most of the others, on average over the seeds."""
        return _best(self.table)

    def plot(self, window: int = 20) -> Picture:
        """The losses, averaged over some steps, and what the encoders find, over the temperature."""
        window = max(1, min(window, min(map(len, self.losses.values()))))
        smooth = np.ones(window) / window
        losses = {
            f"tau = {tau:g}": (np.arange(window, len(values) + 1), np.convolve(values, smooth, "valid"))
            for tau, values in self.losses.items()
        }
        taus = self.table.index.to_numpy()
        ranks = {f"training {seed}": (taus, run["outranked (%)"].to_numpy()) for seed, run in sorted(self.runs.items())}
        found = {name: (taus, self.table[f"{name} (%)"].to_numpy()) for name in ("same place", "same class")}
        levels = {"chance, place": self.chance, "chance, class": self.chance_class}
        loss = f"loss / log(candidates), mean of {window} steps" if window > 1 else "loss / log(candidates)"
        tau = "temperature tau"
        lowest = min(values.min() for _, values in losses.values())
        highest = max(values.max() for _, values in losses.values())
        shown = (min(lowest, 1.0) - 0.02, max(1.05, min(highest, 1.3)))  # the first steps of a cold loss are far above
        return plot_charts(
            [
                Chart("step", loss, losses, "training", {"guessing": 1.0}, y_range=shown, marks=False),
                Chart(tau, "outranked patches (%)", ranks, "ranking, new scenes", {"chance": 50.0}, log_x=True),
                Chart(tau, "first finds (%)", found, "first finds, new scenes", levels, log_x=True),
            ],
            height=3.6,
        )

    def temperature_outcome(self, guess: str | None = None) -> Feedback:
        """What came true of :data:`TEMPERATURE`, and how the single trainings stand to it."""
        ranks = self.table["outranked (%)"]
        place = list(ranks).index(ranks.max())
        spread = max(run["outranked (%)"][self.best] for run in self.runs.values()) - min(
            run["outranked (%)"][self.best] for run in self.runs.values()
        )
        agree = sum(_best(run) == self.best for run in self.runs.values())
        return TEMPERATURE.outcome(
            "a" if place == 0 else "c" if place == len(ranks) - 1 else "b",
            f"Best at tau = {self.best:g}: the right patch outranks {ranks.max():.1f} % of the others; "
            f"{ranks.iloc[0]:.1f} % at tau = {ranks.index[0]:g}, {ranks.iloc[-1]:.1f} % at tau = {ranks.index[-1]:g}. "
            f"It is the best in {agree} of {len(self.runs)} trainings; they differ by up to {spread:.1f} points there.",
            guess,
        )

    def found_outcome(self, guess: str | None = None) -> Feedback:
        """What came true of :data:`FOUND`, at the temperature that ranks best."""
        best = self.table.loc[self.best]
        happened = "a" if best["same place (%)"] > 50 else "b" if best["same class (%)"] > 50 else "c"
        return FOUND.outcome(
            happened,
            f"At tau = {self.best:g} {best['same place (%)']:.1f} % find the very place (chance {self.chance:.2f} %), "
            f"{best['same class (%)']:.0f} % a patch of the same class (chance {self.chance_class:.0f} %).",
            guess,
        )


def _best(run: pd.DataFrame) -> float:
    """The temperature that ranks best."""
    return float(list(run.index)[int(run["outranked (%)"].to_numpy().argmax())])


def temperature_study(
    train: Pairs, test: Pairs, temperatures: Sequence[float], *, steps: int = 150, seeds: Sequence[int] = (0,)
) -> TemperatureStudy:
    """Train at every temperature, then let every radar token of the test scenes look for its optical token.

    The columns of each run: ``outranked (%)``, how many of all other patches are less similar than the right one (50 is
    chance); ``same place (%)`` of the most similar ones, ``same class (%)`` of them; ``positive cosine``, the mean
    cosine of a pair, and ``other cosine``, that of all other pairs.

    Args:
        train: of the training scenes.
        test: of other scenes.
        temperatures: tried.
        steps: of each training.
        seeds: of the trainings.
    """
    losses: dict[float, list[list[float]]] = {}
    runs: dict[int, dict[float, dict[str, float]]] = {seed: {} for seed in seeds}
    chance = 0.0
    flat = test.classes.flatten()
    every = [(seed, tau) for seed in seeds for tau in temperatures]
    for seed, tau in tqdm(every, desc="trainings", leave=False):
        encoder, of_run = train_encoder(train, tau, steps=steps, seed=seed)
        losses.setdefault(float(tau), []).append(of_run)
        with torch.inference_mode():
            tokens = encoder(test.radar)
        hits = retrieval(tokens, test.optical)
        chance = hits.chance
        first, second = (F.normalize(x, dim=-1).flatten(0, 1) for x in (tokens, test.optical))
        cosines = first @ second.T
        positive = cosines.diagonal()
        runs[seed][float(tau)] = {
            "outranked (%)": 100 * float((cosines < positive[:, None]).float().sum(dim=1).mean() / (len(positive) - 1)),
            "same place (%)": 100 * hits.top1,
            "same class (%)": 100 * float((flat[cosines.argmax(dim=1)] == flat).float().mean()),
            "positive cosine": float(positive.mean()),
            "other cosine": float((cosines.sum() - positive.sum()) / (cosines.numel() - len(positive))),
        }
    shares = torch.bincount(flat).double() / len(flat)
    return TemperatureStudy(
        {seed: pd.DataFrame.from_dict(rows, orient="index").rename_axis("temperature") for seed, rows in runs.items()},
        {tau: np.mean(found, axis=0) for tau, found in losses.items()},
        100 * chance,
        100 * float((shares**2).sum()),
    )


def pushes(similarities: Sequence[float], temperature: float) -> npt.NDArray[np.float64]:
    """The softmax over one query's similarities: how hard each key is pulled or pushed.

    The gradient of the loss by the similarity of negative j is p_j / tau, and by that of the positive (p_+ - 1) / tau.

    Args:
        similarities: cosine with the positive first, then with the negatives.
        temperature: tau.

    Returns:
        Probabilities of the same length, summing to 1.
    """
    scaled = np.asarray(similarities, dtype=np.float64) / temperature
    weights = np.exp(scaled - scaled.max())
    shares: npt.NDArray[np.float64] = weights / weights.sum()
    return shares


def effective_negatives(negatives: Sequence[float], temperature: float) -> float:
    """Among how many negatives the push is shared: the exponential of its entropy; from 1 to their number."""
    shares = pushes(negatives, temperature)
    return float(np.exp(-(shares * np.log(np.maximum(shares, 1e-300))).sum()))


def plot_temperature(similarities: Sequence[float], temperatures: npt.NDArray[np.floating[Any]]) -> Picture:
    """One query: how the push is shared among its negatives, and among how many, for every temperature."""
    negatives = list(similarities[1:])
    shares = np.stack([pushes(negatives, tau) for tau in temperatures])
    curves = {f"cosine {value:g}": (temperatures, 100 * shares[:, index]) for index, value in enumerate(negatives)}
    number = np.array([effective_negatives(negatives, tau) for tau in temperatures])
    return plot_charts(
        [
            Chart(
                "temperature tau", "share of the push (percent)", curves, "who is pushed away", log_x=True, marks=False
            ),
            Chart(
                "temperature tau",
                "effective number of negatives",
                {"this query": (temperatures, number)},
                "among how many",
                {"all of them": float(len(negatives))},
                log_x=True,
                marks=False,
            ),
        ]
    )


# ---- what the lesson asks ----------------------------------------------------------------------------------------

PUSH = Prediction(
    "A query has three negatives, with cosines 0.8, 0.5 and 0. The temperature falls from 1 to 0.01. What happens to "
    "the push that they get?",
    {"a": "it is shared more and more evenly", "b": "the most similar one gets nearly all of it"},
)
TEMPERATURE = Prediction(
    "The small encoder is trained at several temperatures, a few times at each. At which of them does the right patch "
    "outrank most of the others, on new scenes and on average?",
    {"a": "at the lowest", "b": "at one in between", "c": "at the highest"},
)
FOUND = Prediction(
    "A radar token looks for its optical token among all patches of the new scenes, and takes the most similar. How "
    "often is it the very place, and how often a patch of the same class?",
    {
        "a": "mostly the very place",
        "b": "seldom the very place, but more often than not a patch of the same class",
        "c": "seldom either",
    },
)


def guessing_exercise(negatives: int = 255) -> Exercise:
    """The loss of somebody who can't tell the keys apart."""
    return NumberExercise(
        f"A query, its positive and {negatives} negatives, and all cosines are the same. What is the loss, in nats?",
        lambda: math.log(negatives + 1),
        tolerance=0.02,
        hint="All terms of the sum are equal, and the temperature cancels.",
        explanation="A loss above this is worse than guessing; this is why losses are shown as a share of it.",
    )


def loss_exercise() -> Exercise:
    """One loss by hand."""
    return NumberExercise(
        "The positive has cosine 1, two negatives have cosine 0, and tau = 0.5. What is the loss, in nats?",
        lambda: float(token_loss([1.0, 0.0, 0.0], 0.5)),
        tolerance=0.01,
        hint="exp(1 / 0.5) = 7.39; exp(0) = 1.",
        explanation="With tau = 0.07 it would be below 0.00001: nothing would be left to learn from these negatives.",
    )


def token_loss(similarities: Sequence[float], temperature: float) -> float:
    """InfoNCE of one query from its cosines, the positive's first."""
    return -math.log(float(pushes(similarities, temperature)[0]))
