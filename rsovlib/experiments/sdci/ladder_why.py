"""Why a rung of SDCI's ladder adds something or doesn't: the labels that it moves, and what its step leans on.

A step can leave the mean IoU as it was in two ways: it changes nothing, or it makes as many labels wrong as right. The
counts of :class:`Moves` tell the two apart. And each of the last two steps leans on something that can be wrong by
itself: diffusion on the graph's arrows (:func:`graph_purity`), the convex step on DINO's branch (the control
``DINO_BRANCH`` of the ladder).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from rsovlib.experiments.comparison import combine
from rsovlib.experiments.labelled import LabelledTiles
from rsovlib.experiments.results import ResultRow, record
from rsovlib.experiments.sdci.ladder import IGNORED, RUNGS
from rsovlib.experiments.sdci.verdicts import WORDINGS
from rsovlib.kernels import knn_transition
from rsovlib.segmenters import SDCI

Labels = npt.NDArray[np.integer[Any]]

#: Below this share of the labels (percent) a step has done nothing that could be seen.
FEW = 2.0
#: How many times as many labels must become right as wrong (or the reverse) to say that one outweighs the other.
OUTWEIGHS = 1.25
#: Metrics of the result rows.
MOVED, RIGHT, WRONG = "labels that move", "labels that become right", "labels that become wrong"
SAME_CLASS, CHANCE = "arrows within a class", "arrows within a class, by chance"


@dataclass(frozen=True)
class Moves:
    """Labels that a step changes, in percent of the scored pixels.

    Attributes:
        moved: that get another label.
        right: of them, that become right.
        wrong: of them, that become wrong; the rest was wrong and stays so.
    """

    moved: float
    right: float
    wrong: float

    @property
    def says(self) -> str:
        """What the numbers say of the step, in words."""
        if self.moved < FEW:
            return "too few labels move to matter"
        if self.right > OUTWEIGHS * self.wrong:
            return "more labels become right than wrong"
        if self.wrong > OUTWEIGHS * self.right:
            return "more labels become wrong than right"
        return "about as many labels become wrong as right"


class MoveCounter:
    """Counts what each step of the ladder does to the labels, over tiles and wordings."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], npt.NDArray[np.int64]] = {}

    def update(self, column: str, rungs: Mapping[str, Labels], truth: Labels) -> None:
        """Count one tile.

        Args:
            column: of the table.
            rungs: rung -> (H, W) labels.
            truth: (H, W), 255 where nothing is scored.
        """
        scored = truth != IGNORED
        true = truth[scored]
        order = list(RUNGS)
        for before, after in itertools.pairwise(order):
            first, second = rungs[before][scored], rungs[after][scored]
            moved = first != second
            counts = [scored.sum(), moved.sum(), (moved & (second == true)).sum(), (moved & (first == true)).sum()]
            self._counts[column, after] = self._counts.get((column, after), np.zeros(4, np.int64)) + np.array(counts)

    def moves(self) -> dict[tuple[str, str], Moves]:
        """(column, rung) -> what the step to that rung did."""
        return {
            key: Moves(*(100 * float(count) / max(int(counts[0]), 1) for count in counts[1:]))
            for key, counts in self._counts.items()
        }


def record_moves(counter: MoveCounter, tiles: LabelledTiles, rows: Mapping[str, str], **fields: Any) -> None:
    """Hand the counts over as result rows, under the rows that the rungs have in the table."""
    about = {"unit": "percent", "n": len(tiles), "dataset": tiles.dataset, "dataset_version": tiles.version, **fields}
    for (column, rung), moves in counter.moves().items():
        for metric, value in ((MOVED, moves.moved), (RIGHT, moves.right), (WRONG, moves.wrong)):
            record(rows[rung], column, metric, value, **about)


def moves_frame(counter: MoveCounter, rows: Mapping[str, str]) -> pd.DataFrame:
    """A row a step and wording, in percent of the scored pixels, and what the numbers say."""
    shown = {
        (rows[rung], WORDINGS.get(column, column)): {
            "labels that move (%)": moves.moved,
            "become right (%)": moves.right,
            "become wrong (%)": moves.wrong,
            "what that says": moves.says,
        }
        for (column, rung), moves in sorted(counter.moves().items(), key=lambda item: list(RUNGS).index(item[0][1]))
    }
    return pd.DataFrame.from_dict(shown, orient="index").rename_axis(["step", "words"])


def graph_purity(sdci: SDCI, tiles: LabelledTiles, *, progress: bool = True) -> dict[str, tuple[float, float]]:
    """How much of a graph's weight joins patches of one class, where both classes are known.

    A patch's class is the truth at its middle. Chance is what arrows to any patches of the tile would have.

    Returns:
        Branch (``"clip"``: CLIP's scores, which walk on DINO's graph; ``"dino"`` the reverse) -> percent of the weight
        within a class, and percent by chance.
    """
    weights: dict[str, npt.NDArray[np.float64]] = {}
    for _, image, truth in tqdm(tiles, desc="graphs", unit="tile", disable=not progress):
        with torch.inference_mode():
            features = sdci.encode_image(image)
            sources = sdci.graph_features(features)
        for branch, source in sources.items():
            grid = features.dino_grid if len(source) == np.prod(features.dino_grid) else features.clip_grid
            unit = F.normalize(source.float(), dim=-1).cpu().numpy()
            arrows = knn_transition(unit, sdci.config.neighbours, sdci.config.tau).tocoo()
            counted = within_class(arrows.row, arrows.col, arrows.data, patch_classes(truth, grid))
            weights[branch] = weights.get(branch, np.zeros(3)) + counted
    return {
        branch: (100 * float(inside / total), 100 * float(chance / total)) if total else (float("nan"), float("nan"))
        for branch, (total, inside, chance) in weights.items()
    }


def patch_classes(truth: Labels, grid: tuple[int, int]) -> npt.NDArray[np.int64]:
    """(N,) class at the middle of every patch of a grid over (H, W) labels."""
    (height, width), (rows, columns) = truth.shape, grid
    down = ((np.arange(rows) + 0.5) * height / rows).astype(int)
    across = ((np.arange(columns) + 0.5) * width / columns).astype(int)
    return truth[down[:, None], across].astype(np.int64).ravel()


def within_class(
    start: npt.NDArray[np.integer[Any]],
    end: npt.NDArray[np.integer[Any]],
    weight: npt.NDArray[np.floating[Any]],
    classes: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """Weight of the arrows between patches of known classes; of it, within a class; and within a class by chance.

    Args:
        start: (M,) patches.
        end: likewise.
        weight: (M,).
        classes: (N,) of the patches, 255 where unknown.
    """
    known = (classes[start] != IGNORED) & (classes[end] != IGNORED)
    inside = known & (classes[start] == classes[end])
    there = classes[classes != IGNORED]
    shares = np.bincount(there) / max(len(there), 1)
    total = float(weight[known].sum())
    return np.array([total, float(weight[inside].sum()), total * float((shares**2).sum())])


#: What a branch's graph is called.
_GRAPHS = {"clip": "DINO's graph (CLIP's scores walk on it)", "dino": "CLIP's graph (DINO's scores walk on it)"}


def record_purity(purity: Mapping[str, tuple[float, float]], tiles: LabelledTiles, **fields: Any) -> pd.DataFrame:
    """Hand :func:`graph_purity` over as result rows.

    Returns:
        The same for people.
    """
    about = {"unit": "percent", "n": len(tiles), "dataset": tiles.dataset, "dataset_version": tiles.version, **fields}
    shown = {}
    for branch, (inside, chance) in purity.items():
        name = _GRAPHS.get(branch, branch)
        record(name, "truth", SAME_CLASS, inside, **about)
        record(name, "truth", CHANCE, chance, **about)
        shown[name] = {"weight within a class (%)": inside, "by chance (%)": chance}
    return pd.DataFrame(shown).T.rename_axis("graph")


def why_frame(rows: Iterable[ResultRow], table: str, steps: Sequence[str]) -> pd.DataFrame:
    """Over all seeds: each step's effect on the mean IoU, the labels that it moves, and what that says.

    Args:
        rows: of the ladder's runs.
        table: their table.
        steps: rows of the table, from the first step to the last.
    """
    known = [one for one in rows if one.table == table]
    shown: dict[tuple[str, str], dict[str, Any]] = {}
    columns = dict.fromkeys(one.column for one in known if one.metric == MOVED)
    for step in steps:
        for column in columns:
            found = {
                metric: combine([one for one in known if (one.row, one.column, one.metric) == (step, column, metric)])
                for metric in ("step", MOVED, RIGHT, WRONG)
            }
            effect, moved, right, wrong = found.values()
            if moved is None or right is None or wrong is None:
                continue
            moves = Moves(moved.value, right.value, wrong.value)
            interval = "" if effect is None or effect.low is None else f" [{effect.low:.1f}, {effect.high:.1f}]"
            shown[step, WORDINGS.get(column, column)] = {
                "step (points)": "not measured" if effect is None else f"{effect.value:+.1f}{interval}",
                "labels that move (%)": moves.moved,
                "become right (%)": moves.right,
                "become wrong (%)": moves.wrong,
                "what that says": moves.says,
            }
    return pd.DataFrame.from_dict(shown, orient="index").rename_axis(["step", "words"]) if shown else pd.DataFrame()
