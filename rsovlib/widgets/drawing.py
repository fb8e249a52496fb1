"""Which layers a view consists of, with captions, legend and chart: from an answer and its steps to a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rsovlib.data.tiling import Tile
from rsovlib.errors import InputError
from rsovlib.segmenters.images import enlarge
from rsovlib.widgets import views
from rsovlib.widgets.charts import Line, line_chart
from rsovlib.widgets.encode import Layer
from rsovlib.widgets.pipeline import Answer, Live, StagedSDCI
from rsovlib.widgets.sources import Ground
from rsovlib.widgets.state import View
from rsovlib.widgets.tables import scale_legend

Array = npt.NDArray[np.floating]
OtherMethod = Callable[[str, Live], npt.NDArray[np.int64]]

SHOWN = (
    "class map",
    "probability",
    "errors",
    "labels",
    "superpixels",
    "attention of a pixel",
    "graph neighbours",
    "diffusion over time",
    "energy and gap",
)
STAGES = ("answer", "CAF: CLIP", "CAF: DINO", "BCDR: CLIP", "BCDR: DINO")
LEFT = ("image", "labels", *STAGES)
METHOD = "method: "
QUANTITIES = ("probability", "attention of a pixel", "graph neighbours", "diffusion over time")
"""Views whose colours are read off a scale."""


@dataclass(frozen=True)
class Drawing:
    """What is laid over the image.

    Attributes:
        right: the layer of the view.
        left: that of the left picture; None for the bare image.
        right_caption, left_caption: what they are.
        legend: HTML above the classes' legend.
        chart: SVG, or "".
        frame: [left, top, right, bottom] of the window that the view is about, or ().
        pixel: (column, row) of the pixel that the view is about: the clicked one, or the middle; None for the others.
        solid: the right layer hides the image, so that its colours are those of the scale in the legend.
    """

    right: Layer
    left: Layer | None = None
    right_caption: str = ""
    left_caption: str = "image"
    legend: str = ""
    chart: str = ""
    frame: tuple[int, ...] = ()
    pixel: tuple[int, int] | None = None
    solid: bool = False


def draw(
    answer: Answer,
    ground: Ground,
    view: View,
    colours: npt.NDArray[np.uint8],
    classes: Sequence[str],
    live: Live,
    other_method: OtherMethod,
) -> Drawing:
    """The layers of a view.

    Args:
        answer: the map, with its steps if it has any.
        ground: image, labels, place.
        view: what is wished for.
        colours: (K, 3) uint8.
        classes: the prompts.
        live: whom to ask and tell while steps are computed.
        other_method: gives the labels of another method, for the left picture.

    Raises:
        InputError: the view needs labels or steps that are not there.
    """
    work = _Work(answer, ground, view, colours, classes, live, other_method)
    if answer.steps is None and not answer.settled and view.show not in ("errors", "labels"):
        right = work.classes_of(answer.segmentation.labels)
        return Drawing(right, None, f"{view.show}: {answer.note}" if view.show != "class map" else answer.note)
    if answer.steps is not None:
        answer.steps.live = live
    made = replace(_VIEWS[view.show](work), solid=view.show in QUANTITIES)
    if view.arrangement == "overlay":
        return made
    left, caption = work.left()
    return replace(made, left=left, left_caption=caption)


@dataclass(frozen=True)
class _Work:
    """One drawing's inputs, and what all views ask for."""

    answer: Answer
    ground: Ground
    view: View
    colours: npt.NDArray[np.uint8]
    classes: Sequence[str]
    live: Live
    other_method: OtherMethod

    @property
    def names(self) -> list[str]:
        return self.answer.segmentation.classes

    @property
    def shape(self) -> tuple[int, int]:
        return self.ground.image.shape[:2]

    def steps(self, what: str) -> StagedSDCI:
        if self.answer.steps is None:
            raise InputError(f"The view {what!r} looks into SDCI's steps; choose the method sdci or sdci-paper for it.")
        return self.answer.steps

    def truth(self) -> npt.NDArray[np.uint8]:
        truth = self.ground.truth_for(self.classes)
        if truth is None:
            raise InputError("There are no labels for these classes here; simulated scenes have some.")
        return truth

    def classes_of(self, labels: npt.NDArray[np.integer]) -> Layer:
        return views.class_layer(labels, self.colours, self.ground.valid)

    def chosen_class(self) -> int:
        return self.names.index(self.view.of_class) if self.view.of_class in self.names else 0

    def pixel(self) -> tuple[int, int]:
        column, row = self.view.pixel or (self.shape[1] // 2, self.shape[0] // 2)
        return min(column, self.shape[1] - 1), min(row, self.shape[0] - 1)

    def place(self, steps: StagedSDCI) -> tuple[Tile, float, float, tuple[int, ...]]:
        """The clicked pixel's window, its place in it (0..1), and the window's frame."""
        column, row = self.pixel()
        tile = steps.window_at(column, row)
        frame = (tile.column, tile.row, tile.column + tile.width, tile.row + tile.height)
        inside = (row - tile.row + 0.5) / tile.height, (column - tile.column + 0.5) / tile.width
        return tile, *inside, frame if len(steps.grid) > 1 else ()

    def stage_maps(self, stage: str) -> Array:
        """The (K, H, W) maps of a step, blended over the windows."""
        if stage == "answer":
            return self.answer.segmentation.probabilities
        steps = self.steps(stage)
        kind, _, network = stage.partition(": ")
        branch = network.lower()
        number = ("clip", "dino").index(branch)
        parts, inputs = [], []
        for tile in steps.grid:
            if kind == "BCDR":
                node = steps.maps(tile)
                parts.append(node.value[f"{branch}_map"])
            else:
                node = steps.scores(tile)
                grid = getattr(steps.features(tile).value, f"{branch}_grid")
                with torch.inference_mode():
                    parts.append(enlarge(node.value[number].T.unflatten(1, grid), (tile.height, tile.width)))
            inputs.append(node)
        found: Array = steps.cache.node(f"map of {kind}", [branch], inputs, lambda: steps.blend(parts)).value
        return found

    def stage_labels(self, stage: str) -> npt.NDArray[np.int64]:
        if stage == "answer":
            return self.answer.segmentation.labels
        labels: npt.NDArray[np.int64] = self.stage_maps(stage).argmax(axis=0)
        return labels

    def left(self) -> tuple[Layer | None, str]:
        chosen = self.view.left
        if chosen == "image":
            return None, "image"
        if chosen == "labels":
            return self.classes_of(self.truth()), "labels"
        if chosen.startswith(METHOD):
            name = chosen.removeprefix(METHOD)
            return self.classes_of(self.other_method(name, self.live)), name
        return self.classes_of(self.stage_labels(chosen)), chosen


def _class_map(work: _Work) -> Drawing:
    caption = "class map" if work.view.stage == "answer" else f"class map of {work.view.stage}"
    note = f" ({work.answer.note})" if work.answer.note else ""
    return Drawing(work.classes_of(work.stage_labels(work.view.stage)), right_caption=caption + note)


def _probability(work: _Work) -> Drawing:
    number, stage = work.chosen_class(), work.view.stage
    values = work.stage_maps(stage)[number]
    is_answer = stage == "answer"
    low, high = (0.0, 1.0) if is_answer else (float(values.min()), float(values.max()))
    shown = np.where(work.ground.valid, values, np.nan) if work.ground.valid is not None else values
    title = f"{'probability' if is_answer else f'score, {stage}'} of {work.names[number]}"
    return Drawing(
        views.scale_layer(shown, low, high),
        right_caption=title,
        legend=scale_legend(title, low, high, "probability" if is_answer else "score"),
    )


def _errors(work: _Work) -> Drawing:
    layer = views.wrong_layer(work.answer.segmentation.labels, work.truth())
    r, g, b = views.WRONG
    legend = f"<div style='font-size:13px'><span style='color:rgb({r},{g},{b})'>■</span> differs from the labels</div>"
    return Drawing(layer, right_caption="errors", legend=legend)


def _labels(work: _Work) -> Drawing:
    return Drawing(work.classes_of(work.truth()), right_caption="labels")


def _superpixels(work: _Work) -> Drawing:
    steps = work.steps("superpixels")
    nodes = [steps.superpixels(tile) for tile in steps.grid]
    layer = views.join_layers(steps.grid, [views.border_layer(node.value) for node in nodes], work.shape)
    counts = [int(node.value.max()) + 1 for node in nodes]
    told = f"{counts[0]} superpixels" if len(counts) == 1 else f"{min(counts)} to {max(counts)} superpixels a window"
    r, g, b = views.LINE
    legend = f"<div style='font-size:13px'><b style='color:rgb({r},{g},{b});background:#333'>╱</b> border</div>"
    return Drawing(layer, right_caption=told, legend=legend)


def _attention(work: _Work) -> Drawing:
    steps = work.steps("attention of a pixel")
    tile, row, column, frame = work.place(steps)
    kind = work.view.attention
    features = steps.features(tile).value
    values = views.attention_row(features, kind, row, column, steps.config.lambda_1)
    # Single patches stand out by far: the scale ends where one in two hundred lies above.
    low, high = 0.0, float(np.quantile(values, 0.995))
    title = f"{kind} attention of the pixel"
    return Drawing(
        views.scale_layer(views.on_picture(values, tile, work.shape), low, high),
        right_caption=title,
        legend=scale_legend(title, low, high, "share of attention"),
        frame=frame,
        pixel=work.pixel(),
    )


def _neighbours(work: _Work) -> Drawing:
    steps = work.steps("graph neighbours")
    tile, row, column, frame = work.place(steps)
    network = work.view.network
    features, graphs = steps.features(tile).value, steps.graphs(tile).value
    own = steps.config.diffusion_graph != "other"
    branch = network.lower() if own else {"CLIP": "dino", "DINO": "clip"}[network]
    grid = features.clip_grid if network == "CLIP" else features.dino_grid
    if branch not in graphs:
        raise InputError("A window of a single patch has no graph; take a larger image.")
    values = views.neighbour_row(graphs[branch], grid, row, column)
    high = float(np.nanmax(values))
    title = f"{steps.config.neighbours} neighbours of the pixel in {network}'s graph"
    return Drawing(
        views.scale_layer(views.widened(views.on_picture(values, tile, work.shape)), 0.0, high),
        right_caption=title,
        legend=scale_legend(title, 0.0, high, "weight of the edge"),
        frame=frame,
        pixel=work.pixel(),
    )


def _over_time(work: _Work) -> Drawing:
    steps = work.steps("diffusion over time")
    branch = work.view.network.lower()
    number, t = work.chosen_class(), work.view.step
    walked = _walked(steps, branch, number, t)
    first = _walked(steps, branch, number, 0)
    low, high = float(first.min()), float(first.max())
    title = f"{branch.upper()} score of {work.names[number]} after {t} steps"
    return Drawing(
        views.scale_layer(walked, low, high), right_caption=title, legend=scale_legend(title, low, high, "score")
    )


def _walked(steps: StagedSDCI, branch: str, number: int, t: int) -> Array:
    parts = []
    for tile in steps.grid:
        values = steps.diffused(tile, t).value[f"{branch}_diffused"][number : number + 1]
        with torch.inference_mode():
            parts.append(enlarge(values, (tile.height, tile.width)))
    found: Array = steps.blend(parts)[0]
    return found


def _energy(work: _Work) -> Drawing:
    steps = work.steps("energy and gap")
    tile, _, _, frame = work.place(steps)
    history = solver_trace(steps, tile)
    made = _class_map(work)
    return Drawing(
        made.right,
        right_caption="frame: the chart's window" if frame else "class map",
        chart=trace_charts(history, steps.config.tolerance),
        frame=frame,
        pixel=work.pixel(),
    )


def solver_trace(steps: StagedSDCI, tile: Tile) -> list[tuple[int, float, float, float]]:
    """Iteration, energy, its lower bound, and relative gap of a window's solve from the beginning."""
    inputs = [steps.probabilities(tile), steps.superpixels(tile)]
    config = steps.config
    if not config.cscp:
        raise InputError("The convex step is switched off (cscp=False): there is nothing to watch.")

    def compute() -> list[tuple[int, float, float, float]]:
        steps.live.say("watching the convex step")
        clip, dino = (torch.from_numpy(one) if isinstance(one, np.ndarray) else one for one in inputs[0].value)
        live: dict[str, Any] = {"check_every": 2, "should_stop": steps.live.ticket.stopped}
        watched = steps.with_config(solver="optimum")
        result = watched.fuse(clip, dino, inputs[1].value, **live)
        if result.cancelled:
            steps.live.ticket.check()
        return [(c.iteration, c.energy, c.dual_energy, c.relative_gap) for c in result.history]

    told = [config.w_in, config.w_cross, config.lambda_clip, config.lambda_dino, config.beta, config.tolerance]
    found: list[tuple[int, float, float, float]] = steps.cache.node("trace", told, inputs, compute).value
    return found


def trace_charts(history: Sequence[tuple[int, float, float, float]], tolerance: float) -> str:
    """Energy with its bound, and the gap with the tolerance, over the iterations."""
    iterations = [float(entry[0]) for entry in history]
    energy = line_chart(
        [
            Line("energy P(q)", iterations, [entry[1] for entry in history]),
            Line("lower bound d(y)", iterations, [entry[2] for entry in history]),
        ],
        x_label="iteration",
        y_label="energy (nats)",
        title="Energy of the window, from a cold start",
    )
    gap = line_chart(
        [
            Line("relative gap", iterations, [entry[3] for entry in history]),
            Line(f"tolerance {tolerance:g}", [0, max(iterations, default=1)], [tolerance, tolerance]),
        ],
        x_label="iteration",
        y_label="gap / energy",
        title="Duality gap",
        log_y=True,
    )
    return f"<div>{energy}</div><div>{gap}</div>"


_VIEWS: dict[str, Callable[[_Work], Drawing]] = {
    "class map": _class_map,
    "probability": _probability,
    "errors": _errors,
    "labels": _labels,
    "superpixels": _superpixels,
    "attention of a pixel": _attention,
    "graph neighbours": _neighbours,
    "diffusion over time": _over_time,
    "energy and gap": _energy,
}
