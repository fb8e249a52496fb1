"""SDCI's ablation over labelled tiles: each rung of the ladder under several wordings, with intervals and gains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from rsovlib.errors import unknown_name
from rsovlib.experiments.labelled import LabelledTiles
from rsovlib.experiments.papers import PaperTable
from rsovlib.experiments.results import record
from rsovlib.experiments.sdci.ladder import (
    DINO_BRANCH,
    IGNORED,
    LATE_FUSION,
    PLAIN,
    RUNGS,
    VALUE_PATH,
    ladder_labels_by_wording,
)
from rsovlib.experiments.sdci.ladder_why import MoveCounter
from rsovlib.experiments.sdci.verdicts import WORDINGS, word_of_interval
from rsovlib.metrics import SegmentationMetrics, compare, confidence_interval
from rsovlib.metrics.uncertainty import Interval
from rsovlib.segmenters import SDCI

Scores = dict[str, dict[str, SegmentationMetrics]]

# Between a rung's mean IoU and its gain.
_GAIN = "  "


def ladder_scores(
    sdci: SDCI,
    tiles: LabelledTiles,
    wordings: Mapping[str, str],
    *,
    controls: bool = False,
    moves: MoveCounter | None = None,
    progress: bool = True,
) -> Scores:
    """Score every rung of the ladder on every tile, under several wordings.

    Args:
        sdci: the whole method.
        tiles: what to score on.
        wordings: name of a column -> prompt set of the manifest whose words it uses.
        controls: late fusion, DINO's branch alone, and the rungs with the plain decision, as well; see ``ladder``.
        moves: counts which labels each step changes, if given.
        progress: show a bar.

    Returns:
        Column -> rung -> scores, with the counts of single tiles.
    """
    extra = {"late_fusion": True, "plain": True, "dino_branch": True} if controls else {}
    prompts = {column: tiles.prompts(words) for column, words in wordings.items()}
    scores: Scores = {column: {} for column in wordings}
    for name, image, labels in tqdm(tiles, desc="ladder", unit="tile", disable=not progress):
        for column, rungs in ladder_labels_by_wording(sdci, image, prompts, **extra).items():
            if moves is not None:
                moves.update(column, rungs, labels)
            for rung, predicted in rungs.items():
                scores[column].setdefault(rung, tile_meter(tiles.classes)).update(predicted, labels, image=name)
    return scores


def record_ladder(
    scores: Scores, tiles: LabelledTiles, rows: Mapping[str, str], reference: str = "baseline", **fields: Any
) -> pd.DataFrame:
    """Hand the ladder over as result rows: each rung's mean IoU, its paired gain above the reference and its step.

    The step is the gain above the rung before (of :data:`RUNGS`; the first of them and late fusion have none). A rung
    with the plain decision is handed over under the rung's own row, as ``"miou, plain decision"`` and
    ``"step, plain decision"``.

    Args:
        scores: of :func:`ladder_scores`.
        tiles: that they were scored on.
        rows: rung -> what the table calls it; rungs that it doesn't name are left out.
        reference: the rung that gains are measured from.
        **fields: further fields of the rows.

    Returns:
        The same for people: a row a rung, percent; :func:`ladder_frame` parts mean IoU and gain.
    """
    about = {"unit": "percent", "n": len(tiles), "dataset": tiles.dataset, "dataset_version": tiles.version, **fields}
    notes = about.pop("notes", {})
    shown: dict[str, dict[str, str]] = {}
    for column, rungs in scores.items():
        for rung, row in rows.items():
            if rung not in rungs:
                continue
            own = about | ({"note": notes[rung]} if rung in notes else {})
            value = percent(confidence_interval(rungs[rung]))
            record(row, column, "miou", value.value, interval=value, **own)
            text = f"{value.value:.1f} [{value.low:.1f}, {value.high:.1f}]"
            for metric, other in (("gain", reference), ("step", _before(rung))):
                if other and other != rung and other in rungs:
                    gain = percent(compare(rungs[rung], rungs[other]).difference)
                    record(row, column, metric, gain.value, interval=gain, **own)
                    if metric == "gain":
                        text += f"{_GAIN}{gain.value:+.1f} [{gain.low:.1f}, {gain.high:.1f}]"
            shown.setdefault(row, {})[column] = text
            _record_plain(rungs, rung, row, column, own)
    return pd.DataFrame(shown).T.rename_axis("measured here")


def ladder_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """What :func:`record_ladder` gives, with the mean IoU and the gain of every wording in columns of their own."""
    shown: dict[tuple[str, str], list[str]] = {}
    for column in frame.columns:
        parts = [str(cell).partition(_GAIN) for cell in frame[column]]
        shown[WORDINGS.get(column, column), "mIoU"] = [part[0] for part in parts]
        shown[WORDINGS.get(column, column), "above the baseline"] = [part[2] for part in parts]
    return pd.DataFrame(shown, index=frame.index)


def beside_paper(scores: Scores, rows: Mapping[str, str], table: PaperTable) -> pd.DataFrame:
    """Mean IoU of every rung, measured and printed side by side, percent.

    Rows of the paper that this run doesn't measure stand at the end, without a measured number.
    """
    order = [*dict.fromkeys([*(row for rung, row in rows.items() if row in table.rows), *table.rows])]
    rung_of = {row: rung for rung, row in rows.items()}
    cells: dict[str, dict[tuple[str, str], float | None]] = {row: {} for row in order}
    for column, rungs in scores.items():
        for row in order:
            meter = rungs.get(rung_of.get(row, ""))
            words = WORDINGS.get(column, column)
            cells[row][words, "here"] = None if meter is None else 100 * float(meter.compute()["miou"])
            cells[row][words, "paper"] = table.value(row, column)
    frame = pd.DataFrame(cells).T.rename_axis("mIoU (percent)")
    return frame[[(WORDINGS.get(column, column), place) for column in scores for place in ("here", "paper")]]


def plain_table(scores: Scores, rows: Mapping[str, str]) -> pd.DataFrame:
    """Mean IoU of the rungs, percent, by how they decide: with stretched class maps, and by the largest score."""
    shown: dict[str, dict[tuple[str, str], float]] = {}
    for column, rungs in scores.items():
        for rung, plain in PLAIN.items():
            if plain in rungs and rung in rows:
                pair = {"stretched": rungs[rung], "plain": rungs[plain]}
                cells = {
                    (WORDINGS.get(column, column), rule): 100 * meter.compute()["miou"] for rule, meter in pair.items()
                }
                shown.setdefault(rows[rung], {}).update(cells)
    return pd.DataFrame(shown).T.round(1).rename_axis("mIoU (percent)")


def steps_frame(scores: Scores, rows: Mapping[str, str]) -> pd.DataFrame:
    """Each rung against the one before it, in points of mean IoU, with what this run alone says of it.

    The words are those of :mod:`rsovlib.experiments.sdci.verdicts`, which judges over all seeds.
    """
    shown: dict[str, dict[str, str]] = {}
    for column, rungs in scores.items():
        for rung, row in rows.items():
            before = _before(rung)
            if rung in rungs and before in rungs:
                step = percent(compare(rungs[rung], rungs[before]).difference)
                word = word_of_interval(step.low, step.high)
                text = f"{step.value:+.1f} [{step.low:.1f}, {step.high:.1f}] {word}"
                shown.setdefault(row, {})[WORDINGS.get(column, column)] = text
    return pd.DataFrame(shown).T.rename_axis("step from the rung before")


def ladder_rows(branch: str, profile: str) -> dict[str, str]:
    """Rung -> row of the paper's Table 2, for a run with one structural branch.

    Args:
        branch: ``"v1"`` or ``"v2"``: DINO or DINOv2. The paper doesn't say with which its rows between were made;
            here they are the run's with v2, and those with v1 stand beside them.
        profile: in ``"embedded"`` one small DINO stands in for both, and late fusion has the paper's row.

    Raises:
        InputError: no such branch.
    """
    if branch not in ("v1", "v2"):
        raise unknown_name("structural branch", branch, ("v1", "v2"))
    of_v1 = {
        LATE_FUSION: "baseline + DINO-v1 late fusion",
        "+ CAF": "baseline + CAF (DINO-v1)",
        "+ BCDR": "+ BCDR (DINO-v1)",
        "+ CSCP": "+ CSCP (DINO-v1)",
        DINO_BRANCH: "DINO-v1's branch (control)",
    }
    if branch == "v1":
        return of_v1
    late = of_v1[LATE_FUSION] if profile == "embedded" else "baseline + DINO-v2 late fusion"
    return {
        "baseline": "baseline",
        LATE_FUSION: late,
        "+ CAF": "baseline + CAF",
        "+ BCDR": "+ BCDR",
        "+ CSCP": "+ CSCP (DINO-v2)",
        VALUE_PATH: "value path (control)",
        DINO_BRANCH: "DINO's branch (control)",
    }


def ladder_notes(profile: str) -> dict[str, str]:
    """Rung -> what a reader of its row must know."""
    notes = {LATE_FUSION: "the paper doesn't give the weights: here the mean of both branches' probabilities"}
    if profile == "embedded":
        notes[LATE_FUSION] += "; the embedded DINO stands in for DINO v1"
        notes |= dict.fromkeys(("+ CAF", "+ BCDR", "+ CSCP"), "the embedded DINO stands in for DINOv2")
    return notes


def record_missing(rows: Mapping[str, str], columns: Iterable[str], tiles: LabelledTiles) -> None:
    """Rows of the table that this run doesn't measure, each with the reason."""
    for column in columns:
        for row, why in rows.items():
            record(row, column, "miou", None, unit="percent", dataset=tiles.dataset, note=why)


def tile_meter(classes: Sequence[str]) -> SegmentationMetrics:
    """Scores over tiles that remember each tile, and leave boundaries out."""
    return SegmentationMetrics(
        classes, ignore_index=IGNORED, boundary_tolerance=None, boundary_width=None, keep_images=True
    )


def percent(interval: Interval) -> Interval:
    """An interval of a fraction, in percent."""
    return Interval(100 * interval.value, 100 * interval.low, 100 * interval.high, interval.level)


def _record_plain(
    rungs: Mapping[str, SegmentationMetrics], rung: str, row: str, column: str, about: Mapping[str, Any]
) -> None:
    """The same rung with the plain decision, if it was scored."""
    if PLAIN.get(rung) not in rungs:
        return
    meter = rungs[PLAIN[rung]]
    value = percent(confidence_interval(meter))
    record(row, column, "miou, plain decision", value.value, interval=value, **about)
    before = PLAIN.get(_before(rung), "")
    if before in rungs:
        step = percent(compare(meter, rungs[before]).difference)
        record(row, column, "step, plain decision", step.value, interval=step, **about)


def _before(rung: str) -> str:
    """The rung below; "" for the first, and for what is no rung."""
    order = list(RUNGS)
    return order[order.index(rung) - 1] if rung in order[1:] else ""
