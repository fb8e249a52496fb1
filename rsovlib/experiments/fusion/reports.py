"""What the training notebook shows: samples, loss curves, retrieval, validation scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from rsovlib.experiments.fusion.evaluation import METHOD_TITLES, Condition, score_network
from rsovlib.experiments.fusion.recipe import TRAIN_SUITES, ExperimentRecipe
from rsovlib.experiments.fusion.training import TrainedSeed, cpu_seconds
from rsovlib.experiments.results import record
from rsovlib.fusion.augment import draw_batch
from rsovlib.fusion.pairs import PairPool
from rsovlib.fusion.segmenter import FusionOptions, FusionSegmenter
from rsovlib.metrics import confidence_interval
from rsovlib.plots import Chart, Panel, Picture, plot_charts, plot_panels

VALIDATION = Condition(split="validation")


def plot_samples(pools: Sequence[PairPool], recipe: ExperimentRecipe, count: int = 5, seed: int = 0) -> Picture:
    """Training samples of the first pool: optical images under clouds, the radar beside them, and the labels.

    Args:
        pools: of the training.
        recipe: how samples are drawn.
        count: columns.
        seed: of the draw.
    """
    pool = pools[0]
    batch = draw_batch(np.random.default_rng(seed), pool, count, recipe.stage2.samples)
    optical, sar = ((layer * 255).byte().permute(0, 2, 3, 1).numpy() for layer in (batch.optical, batch.sar))
    panels = [Panel("optical", image) for image in optical]
    panels += [Panel("radar" if image.any() else "radar marked missing", image) for image in sar]
    panels += [Panel("labels (seen classes)", labels) for labels in batch.labels.numpy()]
    return plot_panels(panels, [prompt.split(",")[0] for prompt in pool.classes], columns=count, cell=2.0)


def plot_histories(trained: TrainedSeed) -> Picture:
    """Loss curves of CMU and of every network, and the share of seen pixels that is right."""
    rows = {
        METHOD_TITLES.get(name, name): pd.DataFrame(one.history).set_index("step").rolling(5, min_periods=1).mean()
        for name, one in trained.methods.items()
    }
    charts = []
    encoders = {"DINO": trained.encoders.sar_dino, "CLIP": trained.encoders.sar_clip}
    cmu = {f"CMU on {name}": pd.DataFrame(one.history) for name, one in encoders.items() if one is not None}
    if cmu:
        recipe = trained.recipe.cmu
        blind = float(np.log(recipe.batch * recipe.positions))
        curves = {name: (frame["step"].to_numpy(), frame["loss"].to_numpy()) for name, frame in cmu.items()}
        levels = {"nothing told apart": blind}
        charts.append(Chart("step", "InfoNCE loss (nats)", curves, "CMU", levels, marks=False))
    per_pixel = {name: frame for name, frame in rows.items() if name != METHOD_TITLES["ebseg"]}
    if per_pixel:
        charts.append(
            Chart(
                "step",
                "binary cross-entropy (nats)",
                {name: (frame.index.to_numpy(), frame["loss"].to_numpy()) for name, frame in per_pixel.items()},
                "Stage 2 (EBSeg has other losses)",
                marks=False,
            )
        )
    charts.append(
        Chart(
            "step",
            "labelled pixels that are right (%)",
            {name: (frame.index.to_numpy(), 100 * frame["accuracy"].to_numpy()) for name, frame in rows.items()},
            "Training samples, seen classes",
            marks=False,
        )
    )
    return plot_charts(charts)


def retrieval_table(trained: TrainedSeed) -> pd.DataFrame:
    """Top-1 of the matching optical token from a SAR token, before and after CMU, and chance; percent."""
    rows = {}
    for name, one in (("DINO", trained.encoders.sar_dino), ("CLIP", trained.encoders.sar_clip)):
        if one is None:
            continue
        for how, befores, afters in (
            ("among all tokens", one.before, one.after),
            ("across images", one.across_before, one.across_after),
        ):
            for block, before, after in zip(trained.recipe.cmu.blocks, befores, afters, strict=True):
                rows[f"{how}: {name}, block {block + 1}"] = {
                    "before (%)": 100 * before.top1,
                    "after (%)": 100 * after.top1,
                    "chance (%)": 100 * after.chance,
                    "candidates": after.candidates,
                }
    return pd.DataFrame(rows).T.round(2)


def validation_scores(trained: TrainedSeed, scenes: int) -> Mapping[str, Mapping[str, str]]:
    """mIoU in percent with its interval, of every trained method on validation scenes of the training suites."""
    found: dict[str, dict[str, str]] = {}
    for name, one in trained.methods.items():
        options = FusionOptions(window=0, keep_stages=False)
        made = FusionSegmenter(one.network, name, options)
        row = {}
        for suite in TRAIN_SUITES:
            counts, _ = score_network(made, suite, VALIDATION, scenes)
            interval = confidence_interval(counts, "miou")
            row[suite] = f"{100 * interval.value:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
        found[METHOD_TITLES.get(name, name)] = row
    return found


def validation_table(trained: TrainedSeed, scenes: int) -> pd.DataFrame:
    """:func:`validation_scores` as a table."""
    return pd.DataFrame(validation_scores(trained, scenes)).T


def record_training(trained: TrainedSeed) -> None:
    """Hands over what the training cost and reached."""
    for name, seconds in cpu_seconds(trained).items():
        title = METHOD_TITLES.get(name, name)
        record(title, "training", "CPU time", seconds, unit="s", seed=trained.seed, dataset="scenes", device="cpu")
    for name, one in trained.methods.items():
        title, last = METHOD_TITLES.get(name, name), one.history[-1]
        record(title, "training", "loss", last["loss"], seed=trained.seed, dataset="scenes", device="cpu")
    for name, encoder in (("DINO", trained.encoders.sar_dino), ("CLIP", trained.encoders.sar_clip)):
        if encoder is None:
            continue
        for metric, entries in (
            ("retrieval top-1", encoder.after),
            ("retrieval top-1 across images", encoder.across_after),
            ("retrieval top-1 before CMU", encoder.before),
            ("retrieval top-1 across images before CMU", encoder.across_before),
        ):
            for block, entry in zip(trained.recipe.cmu.blocks, entries, strict=True):
                record(
                    f"CMU on {name}",
                    f"block {block + 1}",
                    metric,
                    100 * entry.top1,
                    unit="percent",
                    n=entry.queries,
                    seed=trained.seed,
                    dataset=TRAIN_SUITES[0],
                    device="cpu",
                    note=f"chance {100 * entry.chance:.3g} %, {entry.candidates} candidates",
                )
