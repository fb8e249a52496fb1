"""What changing the words does: each wording as a whole, and one class's words at a time, class by class.

SDCI's Table 3 lists three wordings of each dataset's classes: the official names (Ori), one chosen word or list (Gen),
and the whole set that it was chosen from (Set of Gen). Beside them, every class's words are exchanged alone: Ori but
for one class, which shows what a word does to its own class and to the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm.auto import tqdm

from rsovlib.experiments.labelled import LabelledTiles
from rsovlib.experiments.papers import paper_table
from rsovlib.experiments.results import record
from rsovlib.experiments.sdci.ablation import percent, tile_meter
from rsovlib.experiments.sdci.ladder import IGNORED
from rsovlib.experiments.sdci.method_table import RESAMPLES, TITLES, dataset_of
from rsovlib.experiments.sdci.methods import row_parameters
from rsovlib.experiments.sdci.wordings import Labels, labels_by_wording
from rsovlib.metrics import SegmentationMetrics, compare, confidence_interval
from rsovlib.metrics.uncertainty import Interval
from rsovlib.plots import Panel, Picture, plot_panels
from rsovlib.plots.moves import plot_moves
from rsovlib.segmenters import Segmenter

REFERENCE = "Ori"
#: Wording -> prompt set of the manifests.
PROMPT_SETS = {REFERENCE: "original", "Gen": "generalized", "Set of Gen": "candidates"}


@dataclass
class WordingScores:
    """What the wordings of one dataset score.

    Attributes:
        tiles: scored on.
        prompts: wording -> the words of each class.
        meters: wording -> counts.
        moves: wording -> (K, K, 3) pixels that have class i under Ori and class j under the wording: those that become
            right, that become wrong, and that are wrong before and after.
    """

    tiles: LabelledTiles
    prompts: dict[str, list[str]]
    meters: dict[str, SegmentationMetrics] = field(default_factory=dict)
    moves: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The dataset's name in the paper."""
        return TITLES.get(dataset_of(self.tiles), self.tiles.dataset)


def one_word_wordings(before: Sequence[str], after: Sequence[str], classes: Sequence[str]) -> dict[str, list[str]]:
    """Wordings that differ from ``before`` in one class only: ``"forest: mountain forest"`` -> the K classes."""
    return {
        f"{name}: {new}": [*before[:place], new, *before[place + 1 :]]
        for place, (name, old, new) in enumerate(zip(classes, before, after, strict=True))
        if new != old
    }


def wording_scores(
    segmenter: Segmenter, tiles: LabelledTiles, *, single: bool = True, progress: bool = True
) -> WordingScores:
    """Score a method under the three wordings, and with one class's words exchanged at a time.

    Args:
        segmenter: any method.
        tiles: of a dataset that has the three prompt sets.
        single: whether single classes' words are exchanged as well, Ori for Gen.
        progress: show a bar.
    """
    prompts = {wording: tiles.prompts(words) for wording, words in PROMPT_SETS.items()}
    if single:
        prompts |= one_word_wordings(prompts[REFERENCE], prompts["Gen"], tiles.classes)
    count = len(tiles.classes)
    found = WordingScores(tiles, prompts)
    for wording in prompts:
        found.meters[wording] = tile_meter(tiles.classes)
        found.moves[wording] = np.zeros((count, count, 3), np.int64)
    for name, image, labels in tqdm(tiles, desc=tiles.dataset, unit="tile", disable=not progress):
        predicted = labels_by_wording(segmenter, image, prompts)
        for wording, after in predicted.items():
            found.meters[wording].update(after, labels, image=name)
            found.moves[wording] += count_moves(predicted[REFERENCE], after, labels, count)
    return found


def count_moves(before: Labels, after: Labels, truth: npt.NDArray[np.integer], classes: int) -> npt.NDArray[np.int64]:
    """Which pixels change from which class to which, and whether that was right.

    Args:
        before: (H, W) classes.
        after: likewise.
        truth: likewise, 255 where nothing is scored.
        classes: K.

    Returns:
        (K, K, 3): pixels of class i before and j after, that are right only after, right only before, or neither. The
        diagonal is 0: these didn't move.
    """
    moved = (truth != IGNORED) & (before != after)
    first, last, true = before[moved], after[moved], truth[moved].astype(np.int64)
    kind = np.where(last == true, 0, np.where(first == true, 1, 2))
    places = (first * classes + last) * 3 + kind
    return np.bincount(places, minlength=classes * classes * 3).reshape(classes, classes, 3)


def class_change(scores: WordingScores, wording: str, name: str) -> Interval:
    """Change of one class's IoU against Ori, in points, paired over the tiles; ``nan`` without ground truth."""
    pair = scores.meters[wording], scores.meters[REFERENCE]
    return percent(compare(*pair, f"iou/{name}", resamples=RESAMPLES).difference)


def mean_change(scores: WordingScores, wording: str) -> Interval:
    """Change of the mean IoU against Ori, in points, paired over the tiles."""
    return percent(compare(scores.meters[wording], scores.meters[REFERENCE], resamples=RESAMPLES).difference)


def record_wordings(scores: WordingScores, segmenter: Segmenter, note: str = "") -> None:
    """Hand the study over.

    Rows are the dataset (``"GID"``), its classes (``"GID, forest"``), and single exchanges (``"GID, only forest:
    mountain forest"``, whose column is Gen). Metrics: ``"miou"``; ``"change"`` of mean IoU or of the class's IoU
    against Ori.
    """
    tiles = scores.tiles
    about = {
        "unit": "percent",
        "n": len(tiles),
        "dataset": tiles.dataset,
        "dataset_version": tiles.version,
        "parameters": row_parameters(segmenter),
        "device": str(getattr(getattr(segmenter, "device", ""), "type", "")),
        "note": note,
    }
    for wording in PROMPT_SETS:
        value = percent(confidence_interval(scores.meters[wording], resamples=RESAMPLES))
        record(scores.title, wording, "miou", value.value, interval=value, **about)
        if wording == REFERENCE:
            continue
        change = mean_change(scores, wording)
        record(scores.title, wording, "change", change.value, interval=change, **about)
        for name in tiles.classes:
            of_class = class_change(scores, wording, name)
            missing = np.isnan(of_class.value)
            record(
                f"{scores.title}, {name}",
                wording,
                "change",
                None if missing else of_class.value,
                **(about | {"note": "no ground truth of this class in these tiles"} if missing else about),
                **({} if missing or np.isnan(of_class.low) else {"interval": of_class}),
            )
    for wording in single_exchanges(scores):
        change = mean_change(scores, wording)
        record(f"{scores.title}, only {wording}", "Gen", "change", change.value, interval=change, **about)


def single_exchanges(scores: WordingScores) -> list[str]:
    """The wordings in which one class's words are exchanged."""
    return [wording for wording in scores.prompts if wording not in PROMPT_SETS]


def wordings_frame(studies: Sequence[WordingScores]) -> pd.DataFrame:
    """A row a dataset: mean IoU in percent and the paired change against Ori in points, and what the paper printed."""
    rows: dict[str, dict[tuple[str, str], str | float | None]] = {}
    for scores in studies:
        cells = rows.setdefault(scores.title, {})
        for wording in PROMPT_SETS:
            value = percent(confidence_interval(scores.meters[wording], resamples=RESAMPLES))
            cells[wording, "here"] = f"{value.value:.1f} [{value.low:.1f}, {value.high:.1f}]"
            if wording != REFERENCE:
                cells[wording, "against Ori"] = _signed(mean_change(scores, wording))
            cells[wording, "paper"] = printed_miou(scores.title, wording)
    return pd.DataFrame(rows).T


def printed_miou(title: str, wording: str) -> float | None:
    """SDCI-v2's mean IoU in the paper, percent: Table 1 for Ori and Gen, Table 2 for GID's Set of Gen."""
    if wording == "Set of Gen":
        return paper_table("sdci", "table2").value("+ CSCP (DINO-v2)", "set_of_gen") if title == "GID" else None
    table, column = paper_table("sdci", "table1"), f"{title} {wording.lower()}"
    return table.value("SDCI-v2", column) if column in table.columns else None


def words_frame(studies: Sequence[WordingScores]) -> pd.DataFrame:
    """The words themselves: a row a class, a column a wording."""
    rows = {
        (scores.title, name): {wording: scores.prompts[wording][place] for wording in PROMPT_SETS}
        for scores in studies
        for place, name in enumerate(scores.tiles.classes)
    }
    return pd.DataFrame(rows).T.rename_axis(["dataset", "class"])


def changes_by_class(scores: WordingScores) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Wording -> class -> change of IoU against Ori with its interval, and the mean's, for ``plots.plot_intervals``."""
    series: dict[str, dict[str, tuple[float, float, float]]] = {}
    for wording in PROMPT_SETS:
        if wording == REFERENCE:
            continue
        rows = {"mean of the classes": mean_change(scores, wording)}
        rows |= {name: class_change(scores, wording, name) for name in scores.tiles.classes}
        series[wording] = {
            name: (one.value, one.low, one.high)
            for name, one in rows.items()
            if not np.isnan([one.value, one.low]).any()
        }
    return series


def exchanges_frame(scores: WordingScores) -> pd.DataFrame:
    """One class's words at a time: what it does to the class itself, to the others, and to the mean, in points."""
    rows = {}
    for wording in single_exchanges(scores):
        name = wording.partition(":")[0]
        own, mean = class_change(scores, wording, name), mean_change(scores, wording)
        others = {other: class_change(scores, wording, other).value for other in scores.tiles.classes if other != name}
        there = {other: value for other, value in others.items() if not np.isnan(value)}
        most = max(there, key=lambda other: abs(there[other])) if there else ""
        rows[wording] = {
            "its own IoU": _signed(own),
            "mean IoU": _signed(mean),
            "most changed other class": f"{most} {there[most]:+.1f}" if most else "",
            "pixels that move (%)": round(100 * moved_share(scores, wording), 1),
        }
    return pd.DataFrame(rows).T.rename_axis("class: its new words")


def moved_share(scores: WordingScores, wording: str) -> float:
    """Share of the scored pixels that change their class against Ori."""
    scored = int(scores.meters[REFERENCE].confusion.sum())
    return float(scores.moves[wording].sum()) / max(scored, 1)


def draw_moves(scores: WordingScores, wording: str = "Gen") -> Picture:
    """From which class to which pixels move against Ori, in percent of the scored pixels, by whether that was right."""
    share = 100 * scores.moves[wording] / max(int(scores.meters[REFERENCE].confusion.sum()), 1)
    return plot_moves(
        {"became right": share[..., 0], "became wrong": share[..., 1], "wrong before and after": share[..., 2]},
        scores.tiles.classes,
        across=f"class under {wording}",
        down=f"class under {REFERENCE}",
        title=f"{scores.title}: {share.sum():.1f} % of the scored pixels move",
    )


def draw_example(segmenter: Segmenter, scores: WordingScores, index: int = 0, wordings: Sequence[str] = ()) -> Picture:
    """One tile under several wordings: image, truth, maps, and where the maps differ from Ori's.

    Args:
        segmenter: as it was scored.
        scores: of its dataset.
        index: of the tile.
        wordings: shown; the three of the paper if none is given.
    """
    shown = list(wordings) or list(PROMPT_SETS)
    name, image, labels = scores.tiles[index]
    maps = labels_by_wording(segmenter, image, {wording: scores.prompts[wording] for wording in shown})
    panels = [Panel("image", image), Panel("truth", labels.astype(np.int64))]
    panels += [Panel(wording, predicted) for wording, predicted in maps.items()]
    before = maps[shown[0]]
    for wording in shown[1:]:
        differs = np.where(maps[wording] != before, maps[wording], IGNORED)
        panels.append(Panel(f"{wording}: where it differs\n(white: as under {shown[0]})", differs))
    return plot_panels(panels, scores.tiles.classes, title=f"{scores.title}, tile {name}")


def most_moved_tile(segmenter: Segmenter, scores: WordingScores, wording: str = "Gen", among: int = 4) -> int:
    """Of the first few tiles, the one in which most pixels move: where there is something to see."""
    best, most = 0, -1
    prompts: Mapping[str, list[str]] = {one: scores.prompts[one] for one in (REFERENCE, wording)}
    for index in range(min(among, len(scores.tiles))):
        _, image, labels = scores.tiles[index]
        maps = labels_by_wording(segmenter, image, prompts)
        moved = int(((maps[wording] != maps[REFERENCE]) & (labels != IGNORED)).sum())
        if moved > most:
            best, most = index, moved
    return best


def _signed(one: Interval) -> str:
    if np.isnan(one.value):
        return "no ground truth"
    return f"{one.value:+.1f} [{one.low:.1f}, {one.high:.1f}]"
