"""Tables A1, A2 and A4: parameters of the papers' networks, counted; and what networks cost here, measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch

from rsovlib.backbones.devices import resolve_device
from rsovlib.experiments.costs import Costs, measure_costs, record_costs
from rsovlib.experiments.fusion.bench import prepare
from rsovlib.experiments.fusion.evaluation import METHOD_TITLES, segmenter, use_networks, words_for
from rsovlib.experiments.fusion.recipe import BACKBONES, ExperimentRecipe
from rsovlib.experiments.fusion.released import full_size, sizes
from rsovlib.experiments.fusion.scenes import PLAIN, scenes_of, shown_scenes
from rsovlib.experiments.fusion.settings import TRAIN_SUITES
from rsovlib.experiments.fusion.sources import open_pool, parse_source
from rsovlib.experiments.fusion.training import Encoders, build_network
from rsovlib.experiments.papers import paper_table
from rsovlib.experiments.results import record
from rsovlib.fusion.augment import draw_batch
from rsovlib.fusion.cmu import CMUObjective, Tokens, copied
from rsovlib.fusion.named import load_named_clip, load_named_dino
from rsovlib.fusion.pairs import PairPool, suite_pool
from rsovlib.fusion.stage2 import Stage2Objective
from rsovlib.segmenters.base import Segmentation

COUNTED = {"CAT-Seg": "cat-seg", "GSNet": "gsnet", "MM-OVSeg": "mm-ovseg"}
NOT_COUNTED = {
    "EBSeg": "not counted: its mask head follows the paper's text here, and the paper's number includes SAM's adapter",
    "FGAseg": "not available: its code isn't published",
}


def parameter_table(size: str = "ViT-B") -> pd.DataFrame:
    """All and trained parameters of the full-size networks, counted on PyTorch's meta device; the rows are handed over.

    Args:
        size: "ViT-B" (Table A1) or "ViT-L" (Table A4's networks).
    """
    printed = paper_table("mm-ovseg", "tableA1")
    rows: dict[str, dict[str, Any]] = {}
    for title, method in COUNTED.items():
        total, trained = sizes(full_size(method, size))
        rows[title] = {"all": f"{total:,}", "trained": f"{trained:,}", "trained (million)": round(trained / 1e6, 2)}
        if size == "ViT-B":
            rows[title]["paper, Table A1 (million)"] = printed.value(title, "parameters")
        record(title, "parameters", "trained parameters", trained / 1e6, unit="million", dataset=size, device="cpu")
        record(title, "all parameters", "parameters", total / 1e6, unit="million", dataset=size, device="cpu")
    for title, reason in NOT_COUNTED.items():
        record(title, "parameters", "trained parameters", None, unit="million", dataset=size, note=reason)
    return pd.DataFrame(rows).T


def shape_table(size: str = "ViT-L", side: int = 384, classes: int = 6) -> pd.DataFrame:
    """Shapes through MM-OVSeg at full size, computed on the meta device: without weights, and without memory for them.

    Args:
        size: "ViT-B" or "ViT-L".
        side: of the input, pixels.
        classes: that are asked for.
    """
    network = full_size("mm-ovseg", size)
    steps: dict[str, tuple[int, ...]] = {}
    hooks = [
        step.register_forward_hook(
            lambda _module, _inputs, output, name=name: steps.update({name: tuple(output.shape)})
        )
        for name, step in (("decoder, step 1", network.decoder.step1), ("decoder, step 2", network.decoder.step2))
    ]
    try:
        image = torch.zeros(1, 3, side, side, device="meta")
        text = torch.zeros(classes, len(network.config.templates), network.clip.embed_dim, device="meta")
        out = network.run(image, text, image, image[:, :1])
    finally:
        for hook in hooks:
            hook.remove()
    shapes = {
        "optical image, and radar": ("batch, channels, rows, columns", tuple(image.shape)),
        "text": ("classes, prompts, features", tuple(text.shape)),
        "cost of CLIP": ("batch, prompts, classes, rows, columns", tuple(out.cost_clip.shape)),
        "cost of the DINOs": ("batch, prompts, classes, rows, columns", _shape(out.cost_dino)),
        "cost volume, embedded": ("batch, classes, features, rows, columns", tuple(out.fused.shape)),
        "cost volume, aggregated": ("batch, classes, features, rows, columns", tuple(out.refined.shape)),
        **{name: ("batch, classes, features, rows, columns", shape) for name, shape in steps.items()},
        "logits": ("batch, classes, rows, columns", tuple(out.logits.shape)),
    }
    rows = {name: {"axes": axes, "shape": " x ".join(map(str, shape))} for name, (axes, shape) in shapes.items()}
    return pd.DataFrame(rows).T


def _shape(tensor: torch.Tensor | None) -> tuple[int, ...]:
    return () if tensor is None else tuple(tensor.shape)


A4_MISSING = (
    "not run: needs the data sets (PIE-RGB-SAR, DDHR, OpenEarthMap-SAR) and ViT-L networks trained on them, neither "
    "of which comes with rsovlib; the embedded networks have one size only. `rsovlib reproduce mm-ovseg-table-a4 "
    "--profile full` trains and scores them where the data are"
)


def record_a4_not_run() -> pd.DataFrame:
    """Table A4's cells as *not run*, with what is missing; the rows are handed over."""
    printed = paper_table("mm-ovseg", "tableA4")
    for row in printed.rows:
        for column in printed.columns:
            record(row, column, "miou", None, unit="percent", note=A4_MISSING)
    return pd.DataFrame({row: dict.fromkeys(printed.columns, "not run") for row in printed.rows}).T


def cost_rows(
    methods: tuple[str, ...] = ("gsnet", "mm-ovseg"),
    repeats: int = 5,
    country: str = "",
    *,
    networks: Sequence[str] = (),
    train: str = "",
    test: str = "",
    batch: int = 0,
    device: str = "cpu",
) -> pd.DataFrame:
    """Table A2: training and inference time, CO2 and parameters, on this machine; the rows are handed over.

    Args:
        methods: whole networks; CMU's module is measured besides.
        repeats: of every measurement.
        country: ISO code of three letters for the CO2 of its electricity; "" leaves CO2 out.
        networks: folders of trainings in the full profile; none measures the embedded networks.
        train: what they were trained on.
        test: of whose test scenes one is measured; a suite for the embedded networks, DDHR-SK's if not given.
        batch: samples and pairs of a step, where the recipe's don't fit into memory; 0 takes those.
        device: where it is measured.
    """
    case = _case(networks, train, test, batch, device)
    scene = shown_scenes(case.source, PLAIN, 1)[0]
    image = f"{case.name}, {scene.optical.shape[0]} x {scene.optical.shape[1]}"
    rows: dict[str, dict[str, Any]] = {"CMU module": _cmu_row(case, repeats)}
    for method in case.methods(methods):
        made = segmenter(method, case.seed, case.source)
        prompts = words_for(made, case.source) if networks else ["forest", "city", "farmland", "road", "water"]
        costs = measure_costs(_WithRadar(made, scene), scene.optical, prompts, repeats=repeats, country=country)
        title, side = METHOD_TITLES[method], case.recipe.of_method(method)[0].samples.side
        record_costs(costs, title, "inference", dataset=image)
        rows[title] = _row(costs, _training_time(method, case, repeats))
        record(
            title,
            "training time",
            "training time",
            1000 * rows[title]["training (s a step)"],
            unit="ms",
            dataset=f"{case.name}, {side} x {side}",
            device=costs.device,
        )
    return pd.DataFrame(rows).T


@dataclass(frozen=True)
class _Case:
    """What is measured: the embedded networks on simulated pairs, or trained ones on real ones."""

    name: str
    recipe: ExperimentRecipe
    encoders: Encoders
    pool: PairPool
    source: str
    device: torch.device
    seed: int = 0
    given: tuple[str, ...] = ()

    def methods(self, wanted: Sequence[str]) -> list[str]:
        return [method for method in wanted if not self.given or method in self.given]


def _case(networks: Sequence[str], train: str, test: str, batch: int, device: str) -> _Case:
    where = resolve_device(device)
    if not networks:
        recipe, source = ExperimentRecipe().sized(batch=batch), test or TRAIN_SUITES[1]
        pool = suite_pool(TRAIN_SUITES[1], 8, recipe.scene_side, progress=False)
        use_networks((), where.type)
        return _Case("embedded", recipe, _encoders(BACKBONES[0]), pool, source, where)
    bench = prepare(networks, train=train, test=test, device=device)
    first = bench.networks[0]
    recipe = ExperimentRecipe.full(first.architecture, batch=batch, side=first.record["recipe"]["samples"]["side"])
    pool = open_pool(parse_source(first.train), limit=8)
    name = scenes_of(bench.source).dataset
    given = tuple(bench.methods)
    return _Case(name, recipe, _encoders(first.backbones), pool, bench.source, where, bench.seeds[0], given)


class _WithRadar:
    """A segmenter that gets the same radar with every image: costs are measured of calls without it."""

    def __init__(self, made: Any, scene: Any) -> None:
        self.made, self.sar, self.valid = made, scene.sar, scene.sar_valid
        self.clip = SimpleNamespace(model=made.network)  # whose parameters are counted

    def __call__(self, image: Any, classes: str | Sequence[str]) -> Segmentation:
        found: Segmentation
        if self.made.uses_sar:
            found = self.made(image, classes, self.sar, self.valid)
        else:
            found = self.made(image, classes)
        return found

    def memory_needed(self, height: int, width: int, classes: int) -> int:
        return int(self.made.memory_needed(height, width, classes))

    def settings(self) -> dict[str, Any]:
        return dict(self.made.settings())


def _row(costs: Costs, training: float) -> dict[str, Any]:
    return {
        "parameters (million)": round(costs.parameters / 1e6, 3),
        "training (s a step)": round(training, 4),
        "inference (s an image)": round(costs.latency, 4),
        "GFLOP an image": round(costs.flops / 1e9, 3),
        "energy (Wh an image)": costs.energy.watt_hours,
        "CO2 (g an image)": costs.energy.grams_co2,
        "energy, how": costs.energy.assumptions,
    }


def _encoders(names: tuple[str, str]) -> Encoders:
    return Encoders(load_named_clip(names[0], "cpu"), load_named_dino(names[1], "cpu"))


def _training_time(method: str, case: _Case, repeats: int) -> float:
    """Median seconds of a step of stage 2, without the drawing of its samples."""
    stage2, _ = case.recipe.of_method(method)
    own = "mm-ovseg-no-cmu" if method == "mm-ovseg" else method
    architecture, size = case.recipe.architecture, stage2.samples.side
    network = build_network(own, case.encoders, 0, architecture=architecture, size=size)
    objective = Stage2Objective(network).train().to(case.device)
    optimiser = torch.optim.AdamW([p for _, p in network.trained_parameters()], lr=1e-6)
    batch = draw_batch(np.random.default_rng(0), case.pool, stage2.batch, stage2.samples).to(case.device)
    try:
        return _timed(lambda: _step(objective, optimiser, batch), repeats)
    finally:
        objective.cpu()  # the DINOs are shared with the next method


def _cmu_row(case: _Case, repeats: int) -> dict[str, Any]:
    recipe = case.recipe.cmu
    teacher, student = (Tokens(one, recipe.blocks) for one in (case.encoders.dino, copied(case.encoders.dino)))
    objective = CMUObjective(teacher, student, recipe).train().to(case.device)
    optimiser = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=1e-6)
    batch = draw_batch(np.random.default_rng(0), case.pool, recipe.batch, recipe.samples).to(case.device)
    try:
        step = _timed(lambda: _step(objective, optimiser, batch), repeats)
        with torch.inference_mode():
            image = _timed(lambda: student(batch.sar[:1]), repeats)
    finally:
        objective.cpu()
    parameters = sum(parameter.numel() for parameter in student.net.parameters())
    return {
        "parameters (million)": round(parameters / 1e6, 3),
        "training (s a step)": round(step, 4),
        "inference (s an image)": round(image, 4),
    }


def _step(objective: torch.nn.Module, optimiser: torch.optim.Optimizer, batch: Any) -> None:
    optimiser.zero_grad()
    objective(batch)["loss"].backward()
    optimiser.step()


def _timed(job: Any, repeats: int) -> float:
    job()
    times = []
    for _ in range(repeats):
        _wait()
        began = time.perf_counter()
        job()
        _wait()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def _wait() -> None:
    """A GPU is told what to do, and time goes on."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
