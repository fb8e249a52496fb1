"""SDCI's ablation over labelled tiles: each rung of the ladder under several wordings, with intervals and gains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from rsovlib.experiments.labelled import LabelledTiles
from rsovlib.experiments.ladder import IGNORED, RUNGS, VALUE_PATH, ladder_labels_by_wording
from rsovlib.experiments.results import record
from rsovlib.metrics import SegmentationMetrics, compare, confidence_interval
from rsovlib.metrics.uncertainty import Interval
from rsovlib.segmenters import SDCI

Scores = dict[str, dict[str, SegmentationMetrics]]


def ladder_scores(sdci: SDCI, tiles: LabelledTiles, wordings: Mapping[str, str], *, progress: bool = True) -> Scores:
    """Score every rung of the ladder on every tile, under several wordings.

    Args:
        sdci: the whole method.
        tiles: what to score on.
        wordings: name of a column -> prompt set of the manifest whose words it uses.
        progress: show a bar.

    Returns:
        Column -> rung -> scores, with the counts of single tiles.
    """

    def meter() -> SegmentationMetrics:
        return SegmentationMetrics(
            tiles.classes, ignore_index=IGNORED, boundary_tolerance=None, boundary_width=None, keep_images=True
        )

    scores = {column: {rung: meter() for rung in (VALUE_PATH, *RUNGS)} for column in wordings}
    prompts = {column: tiles.prompts(words) for column, words in wordings.items()}
    for name, image, labels in tqdm(tiles, desc="ladder", unit="tile", disable=not progress):
        for column, rungs in ladder_labels_by_wording(sdci, image, prompts).items():
            for rung, predicted in rungs.items():
                scores[column][rung].update(predicted, labels, image=name)
    return scores


def record_ladder(
    scores: Scores, tiles: LabelledTiles, rows: Mapping[str, str], reference: str = "baseline", **fields: Any
) -> pd.DataFrame:
    """Hand the ladder over as result rows: the mean IoU of each rung, and its paired gain above the reference.

    Args:
        scores: of :func:`ladder_scores`.
        tiles: that they were scored on.
        rows: rung -> what the table calls it.
        reference: the rung that gains are measured from.
        **fields: further fields of the rows.

    Returns:
        The same for people: a row a rung, percent.
    """
    about = {"unit": "percent", "n": len(tiles), "dataset": tiles.dataset, "dataset_version": tiles.version, **fields}
    shown: dict[str, dict[str, str]] = {}
    for column, rungs in scores.items():
        for rung, meter in rungs.items():
            value = _percent(confidence_interval(meter))
            record(rows[rung], column, "miou", value.value, interval=value, **about)
            text = f"{value.value:.1f} [{value.low:.1f}, {value.high:.1f}]"
            if rung != reference:
                gain = _percent(compare(meter, rungs[reference]).difference)
                record(rows[rung], column, "gain", gain.value, interval=gain, **about)
                text += f"  {gain.value:+.1f} [{gain.low:+.1f}, {gain.high:+.1f}]"
            shown.setdefault(rows[rung], {})[column] = text
    return pd.DataFrame(shown).T.rename_axis("mIoU [95 %]  gain")


def _percent(interval: Interval) -> Interval:
    return Interval(100 * interval.value, 100 * interval.low, 100 * interval.high, interval.level)
