"""Lesson 03, graphs and random walks: patches as nodes, alike patches joined, and scores that walk (SDCI's BCDR)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import torch.nn.functional as F

from rsovlib.data.classes import parse_classes
from rsovlib.experiments.lessons.exercises import ArrayExercise, Exercise, Feedback, NumberExercise, Prediction
from rsovlib.experiments.sdci.ladder import IGNORED
from rsovlib.experiments.subject import Subject
from rsovlib.kernels import diffuse, diffuse_limit, knn_transition
from rsovlib.metrics import SegmentationMetrics
from rsovlib.plots import Chart, Panel, Picture, plot_charts, plot_panels
from rsovlib.segmenters import SDCI
from rsovlib.segmenters.images import RGB, enlarge

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class PatchGraph:
    """DINO's patches of one image, and CLIP's scores on them.

    Attributes:
        subject: the image.
        grid: rows and columns of patches, N in all.
        features: (N, D) of DINO's last layer, unit norm.
        scores: (N, K), CLIP's scores carried to this grid, each row summing to 1.
    """

    subject: Subject
    grid: tuple[int, int]
    features: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]

    def transition(self, neighbours: int = 30, tau: float = 0.07) -> Any:
        """P (N, N), sparse: row i holds where a walker at i goes next."""
        return knn_transition(self.features, neighbours, tau)

    def node(self, point: tuple[int, int]) -> int:
        """The patch that a pixel (row, column) lies in."""
        (height, width), (rows, columns) = self.subject.image.shape[:2], self.grid
        return (point[0] * rows // height) * columns + point[1] * columns // width

    def centre(self, node: int) -> tuple[float, float]:
        """The middle of a patch in pixels."""
        (height, width), (rows, columns) = self.subject.image.shape[:2], self.grid
        return (node // columns + 0.5) * height / rows - 0.5, (node % columns + 0.5) * width / columns - 0.5

    def labels(self, scores: Floats) -> npt.NDArray[np.int64]:
        """(N, K) scores as a class map (H, W): enlarged bilinearly, and the largest taken."""
        height, width = self.subject.image.shape[:2]
        maps = torch.from_numpy(np.ascontiguousarray(scores.T, dtype=np.float32)).unflatten(1, self.grid)
        return enlarge(maps, (height, width)).argmax(dim=0).numpy()

    def truth(self) -> npt.NDArray[np.uint8]:
        """(N,) true class at each patch's middle; 255 everywhere where the truth isn't known."""
        if self.subject.labels is None:
            return np.full(len(self.features), IGNORED, np.uint8)
        middles = np.array([self.centre(node) for node in range(len(self.features))]).round().astype(int)
        return self.subject.labels[middles[:, 0], middles[:, 1]]


def patch_graph(sdci: SDCI, subject: Subject) -> PatchGraph:
    """The nodes of an image and their first scores: CLIP's branch before any graph, on DINO's grid."""
    with torch.inference_mode():
        whole = replace(sdci, config=replace(sdci.config, window=None))
        features = whole.encode_image(subject.image)
        prompts = parse_classes(subject.classes)
        scores, _ = whole.score(features, whole.encode_text(prompts), len(prompts))
        carried = enlarge(scores.T.unflatten(1, features.clip_grid), features.dino_grid).flatten(1).T
        shares = carried / carried.sum(dim=1, keepdim=True).clamp_min(1e-12)
        unit = F.normalize(features.dino_layers[-1], dim=-1)
    return PatchGraph(subject, features.dino_grid, unit.cpu().numpy(), shares.float().cpu().numpy())


def point_of(subject: Subject, name: str, fallback: tuple[int, int]) -> tuple[int, int]:
    """The pixel deepest inside a class of the truth; ``fallback`` where there is none."""
    from scipy.ndimage import distance_transform_edt

    names = [prompt.name for prompt in parse_classes(subject.classes)]
    if subject.labels is None or name not in names or not (subject.labels == names.index(name)).any():
        return fallback
    depth = distance_transform_edt(np.pad(subject.labels == names.index(name), 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(row), int(column)


def plot_neighbours(graph: PatchGraph, points: Sequence[tuple[int, int]], neighbours: int, tau: float) -> Picture:
    """The image with lines from each point's patch to its neighbours, and the cosine of each point with all patches."""
    transition = graph.transition(neighbours, tau)
    lines = []
    panels = []
    for point in points:
        node = graph.node(point)
        start, stop = transition.indptr[node : node + 2]
        lines += [(graph.centre(node), graph.centre(int(other))) for other in transition.indices[start:stop]]
        cosines = (graph.features @ graph.features[node]).reshape(graph.grid)
        panels.append(Panel("cosine with the patch at +", cosines, "cosine", (0.0, 1.0), marks=(point,)))
    first = Panel(f"{neighbours} neighbours of each +", graph.subject.image, marks=points, lines=lines)
    return plot_panels([first, *panels], gsd=graph.subject.gsd, columns=3, cell=3.4)


def walker(transition: Any, node: int, steps: int, alpha: float = 1.0) -> npt.NDArray[np.float64]:
    """Where a walker that started at a node is after some steps: (N,), sums to 1.

    At every step it goes on with probability alpha, and else starts again at its node. The same numbers say which
    scores make up the node's own after as many steps of diffusion.

    Args:
        transition: P, (N, N).
        node: where it starts.
        steps: T.
        alpha: 0 to 1; 1 never starts again.
    """
    at = np.zeros(transition.shape[0])
    at[node] = 1.0
    first = at.copy()
    backwards = transition.T.tocsr()
    for _ in range(steps):
        at = alpha * (backwards @ at) + (1 - alpha) * first
    return at


def plot_walk(
    graph: PatchGraph, transition: Any, point: tuple[int, int], steps: Sequence[int], alpha: float
) -> Picture:
    """The walker's whereabouts after several numbers of steps, as multiples of an even spread, in powers of ten."""
    node = graph.node(point)
    panels = [Panel("start", graph.subject.image, marks=(point,))]
    for count in steps:
        share = walker(transition, node, count, alpha) * len(graph.features)
        shown = np.log10(np.maximum(share, 1e-2)).reshape(graph.grid)
        title = f"after {count} step{'s' if count != 1 else ''}"
        panels.append(Panel(title, shown, "log10 of multiples of even", (-2.0, 2.0), marks=(point,)))
    return plot_panels(panels, sides=graph.subject.image.shape[:2], gsd=graph.subject.gsd, columns=3, cell=3.1)


def plot_restarts(
    graph: PatchGraph, transition: Any, point: tuple[int, int], alphas: Sequence[float], steps: int = 40
) -> Picture:
    """The walker's whereabouts for several alphas; the titles say how many are at the start, and one step from it."""
    node = graph.node(point)
    near = transition[[node]].indices
    panels = []
    for alpha in alphas:
        at = walker(transition, node, steps, alpha)
        shown = np.log10(np.maximum(at * len(graph.features), 1e-2)).reshape(graph.grid)
        title = (
            f"alpha = {alpha:g}: {100 * at[node]:.1f} % at the start,\n{100 * at[near].sum():.0f} % one step from it"
        )
        panels.append(Panel(title, shown, "log10 of multiples of even", (-2.0, 2.0), marks=(point,)))
    return plot_panels(panels, sides=graph.subject.image.shape[:2], gsd=graph.subject.gsd, columns=3)


def share_at_home(graph: PatchGraph, transition: Any, node: int, steps: int, alpha: float = 1.0) -> float:
    """The share of walkers that stand on the kind of land that they started from; NaN without truth."""
    truth = graph.truth()
    if truth[node] == IGNORED:
        return float("nan")
    return float(walker(transition, node, steps, alpha)[truth == truth[node]].sum())


def plot_diffusion(graph: PatchGraph, transition: Any, shown: str, alpha: float, steps: Sequence[int]) -> Picture:
    """One class's scores after several numbers of steps, and the class maps below them."""
    names = [prompt.name for prompt in parse_classes(graph.subject.classes)]
    column = names.index(shown)
    after = [diffuse(transition, graph.scores, alpha, count) for count in steps]
    top = max(float(scores[:, column].max()) for scores in after)
    maps = [
        Panel(f"score of {shown}, T = {count}", scores[:, column].reshape(graph.grid), "score", (0.0, top))
        for count, scores in zip(steps, after, strict=True)
    ]
    classes = [Panel(f"classes, T = {count}", graph.labels(scores)) for count, scores in zip(steps, after, strict=True)]
    return plot_panels(
        [*maps, *classes],
        graph.subject.classes,
        sides=graph.subject.image.shape[:2],
        gsd=graph.subject.gsd,
        columns=len(steps),
    )


def convergence(transition: Any, scores: Floats, alphas: Sequence[float], steps: int) -> dict[float, Floats]:
    """How far the scores are from their limit after 0 to ``steps`` steps, for each alpha; 1 at the start.

    The largest difference of any node and class, over that at the start. It is at most alpha^t, since no row of P
    sums to more than 1.
    """
    found = {}
    for alpha in alphas:
        limit = diffuse_limit(transition, scores.astype(np.float64), alpha)
        current = scores.astype(np.float64)
        first = float(np.abs(current - limit).max())
        distances = [1.0]
        for _ in range(steps):
            current = alpha * (transition @ current) + (1 - alpha) * scores
            distances.append(float(np.abs(current - limit).max()) / max(first, 1e-300))
        found[alpha] = np.array(distances)
    return found


def steps_left_below(distances: Floats, share: float = 0.01) -> int:
    """The smallest number of steps after which less than a share of the way to the limit is left; -1 for never."""
    below = np.flatnonzero(distances < share)
    return int(below[0]) if len(below) else -1


def bound_outcome(found: dict[float, Floats], alpha: float, guess: str | None = None) -> Feedback:
    """What came true of :data:`BOUND`, for one alpha of :func:`convergence`."""
    promised = steps_of_bound(alpha)
    needed = steps_left_below(found[alpha])
    return BOUND.outcome(
        "c" if not 0 <= needed <= promised else "b" if needed <= promised / 2 else "a",
        f"alpha = {alpha:g}: less than 1 % is left after {needed} steps; the bound promises it after {promised}.",
        guess,
    )


def steps_of_bound(alpha: float, left: float = 0.01) -> int:
    """The smallest T with alpha^T below a share."""
    return next(t for t in range(100_000) if alpha**t < left)


def plot_convergence(found: dict[float, Floats]) -> Picture:
    """:func:`convergence` beside its bound alpha^t."""
    curves: dict[str, tuple[Any, Any]] = {}
    for alpha, distances in found.items():
        t = np.arange(len(distances))
        curves[f"measured, alpha = {alpha:g}"] = (t, distances)
        curves[f"bound alpha^t, alpha = {alpha:g}"] = (t, alpha**t)
    chart = Chart(
        "steps t",
        "distance to the limit (share of the first)",
        curves,
        levels={"1 %": 0.01},
        log_y=True,
        marks=False,
    )
    return plot_charts([chart], width=7.5, height=3.8)


def sweep(
    graphs: Iterable[PatchGraph],
    alphas: Sequence[float],
    neighbours: Sequence[int],
    *,
    tau: float = 0.07,
    steps: int = 40,
) -> pd.DataFrame:
    """mIoU in percent over all images together, for every K (row) and alpha (column); the largest score decides."""
    found = list(graphs)
    names = [prompt.name for prompt in parse_classes(found[0].subject.classes)]
    meters = {(k, alpha): SegmentationMetrics(names, ignore_index=IGNORED) for k in neighbours for alpha in alphas}
    for graph in found:
        for k in neighbours:
            transition = graph.transition(k, tau)
            for alpha in alphas:
                labels = graph.labels(diffuse(transition, graph.scores, alpha, steps))
                meters[k, alpha].update(labels, _truth_of(graph))
    table = pd.DataFrame(index=pd.Index(neighbours, name="K"), columns=pd.Index(alphas, name="alpha"), dtype=float)
    for (k, alpha), meter in meters.items():
        table.loc[k, alpha] = 100 * float(meter.compute()["miou"])
    return table


def plot_sweep(table: pd.DataFrame) -> Picture:
    """:func:`sweep`: a curve a K over alpha, and a curve an alpha over K."""
    alphas = [float(alpha) for alpha in table.columns]
    by_k = {f"K = {k}": (alphas, table.loc[k].to_numpy()) for k in table.index}
    by_alpha = {f"alpha = {alpha:g}": (list(table.index), table[alpha].to_numpy()) for alpha in table.columns}
    return plot_charts(
        [
            Chart("alpha (share of the neighbours)", "mIoU (percent)", by_k, "how far scores walk"),
            Chart("neighbours K", "mIoU (percent)", by_alpha, "how many they walk to", log_x=True),
        ],
        height=3.6,
    )


def labelled_graphs(
    sdci: SDCI, scenes: Iterable[tuple[RGB, npt.NDArray[np.uint8]]], classes: list[str]
) -> list[PatchGraph]:
    """The graph of each labelled scene; the networks see each of them once."""
    return [patch_graph(sdci, Subject(image, classes, labels, None, "")) for image, labels in scenes]


# ---- what the lesson asks ----------------------------------------------------------------------------------------

LEAVES = Prediction(
    "Walkers start at one patch and go 40 steps to alike patches, without ever starting again. Where are they then?",
    {"a": "more than half stand on the kind of land that they came from", "b": "most have left it"},
)
BOUND = Prediction(
    "After t steps at most alpha^t of the way to the limit is left. How many steps does it really take until less than "
    "1 % is left?",
    {
        "a": "about as many as that bound says",
        "b": "at most half as many",
        "c": "more: a bound is an optimist",
    },
)
ALPHA = Prediction(
    "CLIP's scores walk on DINO's graph. alpha is the share that comes from the neighbours. How does mIoU change as "
    "alpha goes from 0 (no walk) towards 1 (the first scores forgotten)?",
    {"a": "it rises all the way", "b": "it is best somewhere in between", "c": "the walk only does harm"},
)
NEIGHBOURS = Prediction(
    "A node may have few neighbours or many. Which number is best here, of those tried?",
    {"a": "the smallest", "b": "one in between", "c": "the largest"},
)


def best_place(values: Sequence[float] | Floats) -> str:
    """Where the largest value stands: "first", "between" or "last"."""
    place = int(np.argmax(values))
    return "first" if place == 0 else "last" if place == len(values) - 1 else "between"


def chain_exercise() -> Exercise:
    """One step of diffusion on a chain of three nodes."""
    transition = np.array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])
    return ArrayExercise(
        "Three nodes in a chain: the ends go to the middle, the middle to either end. The scores are [1, 0, 0] and "
        "alpha = 0.5. What are they after ONE step? Give a list of three numbers.",
        lambda: diffuse(transition, np.array([[1.0], [0.0], [0.0]]), 0.5, 1)[:, 0],
        tolerance=1e-3,
        hint="S1 = alpha P S0 + (1 - alpha) S0. A node takes the scores of those it points to.",
        explanation="Half of the first score stays, and a quarter of it has come to the middle.",
    )


def steps_exercise(alpha: float = 0.9, left: float = 0.01) -> Exercise:
    """The smallest T that leaves less than a share of the transient."""
    return NumberExercise(
        f"After T steps at most alpha^T of the way to the limit is left. With alpha = {alpha:g}, what is the smallest "
        f"T that leaves less than {100 * left:g} %?",
        lambda: float(steps_of_bound(alpha, left)),
        tolerance=0.25,
        hint="Take the logarithm of both sides, and round up.",
        explanation="SDCI takes 40 steps, which leaves a little more.",
    )


def _truth_of(graph: PatchGraph) -> npt.NDArray[np.uint8]:
    if graph.subject.labels is None:
        return np.full(graph.subject.image.shape[:2], IGNORED, np.uint8)
    return graph.subject.labels
