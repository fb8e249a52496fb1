"""What the training notebooks show: samples, loss curves, retrieval, validation scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rsovlib.backbones.checkpoints import sha256_of
from rsovlib.experiments.fusion.cmu_run import CMUJob
from rsovlib.experiments.fusion.evaluation import METHOD_TITLES, score_network
from rsovlib.experiments.fusion.recipe import ExperimentRecipe
from rsovlib.experiments.fusion.scenes import Condition
from rsovlib.experiments.fusion.settings import TRAIN_SUITES
from rsovlib.experiments.fusion.sources import parse_sources
from rsovlib.experiments.fusion.training import TrainedSeed, cpu_seconds
from rsovlib.experiments.results import record
from rsovlib.fusion.augment import SampleRule, draw_batch
from rsovlib.fusion.cmu import Distilled
from rsovlib.fusion.pairs import PairPool
from rsovlib.fusion.segmenter import FusionOptions, FusionSegmenter
from rsovlib.metrics import confidence_interval
from rsovlib.plots import Chart, Panel, Picture, plot_charts, plot_panels

VALIDATION = Condition(split="validation")


def plot_samples(pools: Sequence[PairPool], rule: SampleRule, count: int = 5, seed: int = 0) -> Picture:
    """Samples of the first pool: optical images, perhaps under clouds, the radar beside them, and labels if there are.

    Args:
        pools: of the training.
        rule: how samples are drawn.
        count: columns.
        seed: of the draw.
    """
    pool = pools[0]
    batch = draw_batch(np.random.default_rng(seed), pool, count, rule)
    optical, sar = ((layer * 255).byte().permute(0, 2, 3, 1).numpy() for layer in (batch.optical, batch.sar))
    panels = [Panel("optical", image) for image in optical]
    panels += [Panel("radar" if image.any() else "radar marked missing", image) for image in sar]
    if pool.classes:
        panels += [Panel("labels (seen classes)", labels) for labels in batch.labels.numpy()]
    return plot_panels(panels, [prompt.split(",")[0] for prompt in pool.classes], columns=count, cell=2.0)


def plot_histories(trained: TrainedSeed) -> Picture:
    """Loss curves of CMU and of every network, and the share of seen pixels that is right."""
    rows = {
        METHOD_TITLES.get(name, name): pd.DataFrame(one.history).set_index("step").rolling(5, min_periods=1).mean()
        for name, one in trained.methods.items()
    }
    charts = []
    cmu = trained.encoders.distilled()
    if cmu:
        charts.append(_cmu_chart(cmu, trained.recipe))
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


def plot_distillation(job: CMUJob, found: Distilled[Any]) -> Picture:
    """The loss curve of CMU."""
    return plot_charts([_cmu_chart({_TITLES[job.encoder]: found}, job.recipe)])


def _cmu_chart(found: Mapping[str, Distilled[Any]], recipe: ExperimentRecipe) -> Chart:
    frames = {f"CMU on {name}": pd.DataFrame(one.history) for name, one in found.items()}
    curves = {name: (frame["step"].to_numpy(), frame["loss"].to_numpy()) for name, frame in frames.items()}
    blind = float(np.log(recipe.cmu.batch * recipe.cmu.positions / recipe.cmu_loop.devices))
    return Chart("step", "InfoNCE loss (nats)", curves, "CMU", {"nothing told apart": blind}, marks=False)


_TITLES = {"dino": "DINO", "clip": "CLIP"}


def retrieval_table(found: Mapping[str, Distilled[Any]], blocks: Sequence[int]) -> pd.DataFrame:
    """Top-1 of the matching optical token from a SAR token, before and after CMU, and chance; percent.

    Args:
        found: what was distilled, by the name of its kind.
        blocks: from 0, at which tokens were compared.
    """
    rows = {}
    for name, one in found.items():
        for how, befores, afters in (
            ("among all tokens", one.before, one.after),
            ("across images", one.across_before, one.across_after),
        ):
            for block, before, after in zip(blocks, befores, afters, strict=False):
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


def record_training(trained: TrainedSeed, folder: Path | None = None) -> None:
    """Hands over what the training cost and reached.

    Args:
        trained: of a training notebook.
        folder: where the networks were written, whose hashes the rows of the full profile carry.
    """
    job = trained.job
    place = "scenes" if job is None else _short(job.train)
    for name, seconds in cpu_seconds(trained).items():
        title = METHOD_TITLES.get(name, name)
        record(title, place_of(job), "CPU time", seconds, unit="s", seed=trained.seed, dataset=place, device="cpu")
    for name, one in trained.methods.items():
        fields: dict[str, Any] = {"device": "cpu"}
        if job is not None and folder is not None:
            path = folder / f"{name}.safetensors"
            fields = {"weights": {path.name: sha256_of(path)}, "note": f"{job.readings} reading, {job.train}"}
        title, last = METHOD_TITLES.get(name, name), one.history[-1]
        record(title, place_of(job), "loss", last["loss"], seed=trained.seed, dataset=place, **fields)
    for name, encoder in trained.encoders.distilled().items():
        record_retrieval(name, encoder, trained.recipe.cmu.blocks, trained.seed, TRAIN_SUITES[0])


def place_of(job: Any) -> str:
    """The column of a training's rows: its training set, where it has one."""
    return "training" if job is None else _short(job.train)


def _short(sources: str) -> str:
    return ", ".join(f"{one.name}{' ' * bool(one.protocol)}{one.protocol}" for one in parse_sources(sources))


def record_distillation(job: CMUJob, found: Distilled[Any], path: Path) -> None:
    """Hands over what CMU cost and reached.

    Args:
        job: what was distilled.
        found: the result.
        path: of its file.
    """
    name, dataset, weights = _TITLES[job.encoder], _short(job.pairs), job.weights(path)
    last = found.history[-1]
    about: dict[str, Any] = {"seed": job.seed, "dataset": dataset, "weights": weights, "n": job.count}
    record(f"CMU on {name}", "training", "CPU time", last["cpu_seconds"], unit="s", **about)
    record(f"CMU on {name}", "training", "loss", last["loss"], **about)
    record_retrieval(name, found, job.recipe.cmu.blocks, job.seed, dataset, weights=weights)


def record_retrieval(
    name: str, encoder: Distilled[Any], blocks: Sequence[int], seed: int, dataset: str, **fields: Any
) -> None:
    """Hands the retrieval of one encoder over, block by block."""
    for metric, entries in (
        ("retrieval top-1", encoder.after),
        ("retrieval top-1 across images", encoder.across_after),
        ("retrieval top-1 before CMU", encoder.before),
        ("retrieval top-1 across images before CMU", encoder.across_before),
    ):
        for block, entry in zip(blocks, entries, strict=False):
            record(
                f"CMU on {name}",
                f"block {block + 1}",
                metric,
                100 * entry.top1,
                unit="percent",
                n=entry.queries,
                seed=seed,
                dataset=dataset,
                device="cpu",
                note=f"chance {100 * entry.chance:.3g} %, {entry.candidates} candidates",
                **fields,
            )
