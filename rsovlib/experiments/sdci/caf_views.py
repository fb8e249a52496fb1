"""SDCI's Figure 3 from any image: what each network's attention does to the other's scores (CAF, equations 8 and 9)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.stats import rankdata
from skimage.measure import label as connected_regions

from rsovlib.data.classes import parse_classes
from rsovlib.errors import InputError, unknown_name
from rsovlib.experiments.sdci.figures import record_table
from rsovlib.experiments.subject import Subject
from rsovlib.kernels import resample_attention
from rsovlib.plots import Panel, Picture, plot_panels
from rsovlib.segmenters import SDCI
from rsovlib.segmenters.images import enlarge

Map = npt.NDArray[np.float32]


@dataclass(frozen=True)
class BranchView:
    """One branch before and after the other's attention is added.

    Attributes:
        own: (h, w), the branch's own attention of the marked pixel, in multiples of a uniform one.
        other: (h, w), the other branch's attention of it, carried to this grid; likewise.
        alone: (K, h, w), class scores smoothed by the own attention.
        fused: (K, h, w), by both.
    """

    own: Map
    other: Map
    alone: Map
    fused: Map


@dataclass(frozen=True)
class CafViews:
    """Both branches of one image.

    Attributes:
        subject: the image.
        names: of the K classes.
        shown: index of the class that is drawn.
        point: (row, column) of the marked pixel.
        branches: ``"CLIP"`` and ``"DINO"``.
    """

    subject: Subject
    names: list[str]
    shown: int
    point: tuple[int, int]
    branches: dict[str, BranchView]

    def plot(self) -> Picture:
        """A row a branch: both attentions of the marked pixel, and the class's scores without and with the other's.

        The image and the truth stand below, with the same mark.
        """
        name = self.names[self.shown]
        truth = self.subject.labels
        panels: list[Panel] = []
        for letter, branch, other in (("a", "DINO", "CLIP"), ("b", "CLIP", "DINO")):
            view = self.branches[branch]
            panels += [
                *self._attention(
                    view, f"({letter}) {branch}'s own\nattention of +", f"({letter}) {other}'s,\ncarried here"
                ),
                *self._scores(
                    view,
                    f"({letter}) {branch}'s {name}:\nown attention only",
                    f"({letter}) {branch}'s {name}:\nwith {other}'s, too (CAF)",
                ),
            ]
        panels.append(Panel("image", self.subject.image, marks=(self.point,)))
        if truth is not None:
            panels.append(Panel("truth", truth, marks=(self.point,)))
        classes = self.subject.classes if self.subject.labels is not None else ()
        return plot_panels(panels, classes, sides=self.subject.image.shape[:2], gsd=self.subject.gsd, columns=4)

    def record(self) -> None:
        """Hand :meth:`separation` over as result rows."""
        record_table(self.separation())

    def _attention(self, view: BranchView, *titles: str) -> list[Panel]:
        """Both attentions of the marked pixel on one scale, which the pixel's own weight doesn't decide."""
        maps = (view.own, view.other)
        top = max(float(np.percentile(values, 99.5)) for values in maps)
        unit = "multiples of uniform"
        return [
            Panel(title, values, unit, (0.0, top), marks=(self.point,))
            for title, values in zip(titles, maps, strict=True)
        ]

    def _scores(self, view: BranchView, *titles: str) -> list[Panel]:
        """The class's scores, each on its own scale: CAF adds a second sum, and so raises them all."""
        maps = (view.alone[self.shown], view.fused[self.shown])
        return [Panel(title, values, "score", marks=(self.point,)) for title, values in zip(titles, maps, strict=True)]

    def says(self, least: float = 0.5) -> str:
        """For how many classes CAF raises and lowers :meth:`separation` in each branch, as a sentence.

        Args:
            least: points below which a change isn't counted.
        """
        table = self.separation()
        if table.empty:
            return "Without the truth nothing can be said of the classes."
        sentences = []
        for branch in self.branches:
            change = table[f"{branch} with CAF (%)"] - table[f"{branch} alone (%)"]
            up = [f"{name} ({value:+.1f})" for name, value in change.items() if value >= least]
            down = [f"{name} ({value:+.1f})" for name, value in change.items() if value <= -least]
            sentences.append(
                f"{branch}'s branch: CAF helps {', '.join(up) or 'no class'}, and harms {', '.join(down) or 'none'}"
            )
        return f"{'. '.join(sentences)}; changes of less than {least:g} points aren't counted."

    def separation(self) -> pd.DataFrame:
        """How well each branch's map of a class separates its pixels from all others, in percent; needs the truth.

        The area under the ROC curve: how often a pixel of the class scores above another one. 50 is chance.
        """
        if self.subject.labels is None:
            return pd.DataFrame()
        height, width = self.subject.labels.shape
        known = self.subject.labels < len(self.names)
        columns: dict[str, list[float]] = {}
        for branch, view in self.branches.items():
            for title, maps in ((f"{branch} alone (%)", view.alone), (f"{branch} with CAF (%)", view.fused)):
                large = enlarge(torch.from_numpy(maps), (height, width)).numpy()
                columns[title] = [
                    100 * roc_area(large[index][known], self.subject.labels[known] == index)
                    for index in range(len(self.names))
                ]
        table = pd.DataFrame(columns, index=pd.Index(self.names, name="area under the ROC curve"))
        return table.dropna(how="all")


def caf_views(sdci: SDCI, subject: Subject, shown: str = "", point: tuple[int, int] | None = None) -> CafViews:
    """What CAF does to both branches on one image, in one window.

    Args:
        sdci: the method; its window, if it has one, must hold the image.
        subject: the image.
        shown: which class is drawn; ``""`` takes the one that lies in most pieces (where the truth is known) or has
            the highest score.
        point: (row, column) of the pixel whose attention is drawn; None takes one of the class.

    Raises:
        InputError: no such class, a point outside, or an image that is larger than the window.
    """
    height, width = subject.image.shape[:2]
    side = sdci.config.window
    if side is not None and max(height, width) > side:
        raise InputError(
            f"Attention is looked at in one window, and the image of {height} x {width} is larger than {side}; "
            f"use size={side} or less."
        )
    prompts = parse_classes(subject.classes)
    names = [prompt.name for prompt in prompts]
    with torch.inference_mode():
        features = sdci.encode_image(subject.image)
        text = sdci.encode_text(prompts)
        alone = replace(sdci, config=replace(sdci.config, caf=False)).score(features, text, len(names))
        fused = replace(sdci, config=replace(sdci.config, caf=True)).score(features, text, len(names))
        chosen = _choose(subject, names, shown, fused[0])
        place = point or _point_of(subject, chosen, fused[0], features.clip_grid)
        if not (0 <= place[0] < height and 0 <= place[1] < width):
            raise InputError(f"The point {place} lies outside of the image of {height} x {width} pixels.")
        grids = {"CLIP": features.clip_grid, "DINO": features.dino_grid}
        attention = {"CLIP": features.clip_attention, "DINO": features.dino_attention}
        branches = {}
        for index, (branch, other) in enumerate((("CLIP", "DINO"), ("DINO", "CLIP"))):
            grid = grids[branch]
            token = (place[0] * grid[0] // height) * grid[1] + place[1] * grid[1] // width
            carried = resample_attention(attention[other], grids[other], grid)
            own_row, other_row = (_multiples(maps[token], grid) for maps in (attention[branch], carried))
            maps = (scores[index].T.unflatten(1, grid).cpu().float().numpy() for scores in (alone, fused))
            branches[branch] = BranchView(own_row, other_row, *maps)
    return CafViews(subject, names, chosen, place, branches)


def roc_area(scores: npt.NDArray[np.floating], positive: npt.NDArray[np.bool_]) -> float:
    """How often a positive scores above a negative, ties counted half (Mann and Whitney's U); NaN without either.

    Args:
        scores: (n,).
        positive: (n,).
    """
    count = int(positive.sum())
    others = len(positive) - count
    if count == 0 or others == 0:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))


def _multiples(row: torch.Tensor, grid: tuple[int, int]) -> Map:
    """A row of attention as a map whose mean is 1."""
    map_: Map = (row / row.mean().clamp_min(1e-12)).reshape(grid).cpu().float().numpy()
    return map_


def _choose(subject: Subject, names: list[str], shown: str, scores: torch.Tensor) -> int:
    if shown:
        if shown not in names:
            raise unknown_name("class to show", shown, names)
        return names.index(shown)
    if subject.labels is None:
        return int(scores.amax(dim=0).argmax())
    pieces = [int(connected_regions(subject.labels == index).max()) for index in range(len(names))]
    return int(np.argmax(pieces))


def _point_of(subject: Subject, shown: int, scores: torch.Tensor, grid: tuple[int, int]) -> tuple[int, int]:
    """A pixel of the class: inside its largest piece, or where its score is highest."""
    height, width = subject.image.shape[:2]
    if subject.labels is not None and (subject.labels == shown).any():
        from scipy.ndimage import distance_transform_edt

        inside = distance_transform_edt(np.pad(subject.labels == shown, 1))[1:-1, 1:-1]
        row, column = np.unravel_index(int(inside.argmax()), inside.shape)
        return int(row), int(column)
    token = int(scores[:, shown].argmax())
    return (
        int((token // grid[1] + 0.5) * height / grid[0]),
        int((token % grid[1] + 0.5) * width / grid[1]),
    )
