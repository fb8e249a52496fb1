"""SDCI's Table 1: methods by datasets by wordings, with paired intervals, a mean column, and the paper's beside it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from rsovlib.errors import InputError, WeightsError
from rsovlib.experiments.labelled import LabelledTiles, labelled_tiles
from rsovlib.experiments.papers import PaperTable, paper_table
from rsovlib.experiments.results import record
from rsovlib.experiments.sdci.ablation import percent, tile_meter
from rsovlib.experiments.sdci.flop_recipes import RECIPES
from rsovlib.experiments.sdci.flops import explain_table1, flops_of, record_flops
from rsovlib.experiments.sdci.methods import OWN, ROWS, VANILLA, TableMethod, not_run, row_parameters, table_method
from rsovlib.experiments.sdci.networks import share_networks
from rsovlib.experiments.sdci.wordings import labels_by_wording
from rsovlib.metrics import SegmentationMetrics, compare, confidence_interval
from rsovlib.metrics.uncertainty import Interval

#: Dataset -> how the paper's column begins.
TITLES = {"gid": "GID", "potsdam": "Potsdam", "vaihingen": "Vaihingen", "loveda": "LoveDA", "isaid": "iSAID"}
#: How the column ends -> prompt set of the manifest.
WORDINGS = {"ori": "original", "gen": "generalized"}
AVERAGE = "average"
#: All columns of the mean; iSAID has no generalised words.
COLUMNS = tuple(
    f"{title} {wording}"
    for name, title in TITLES.items()
    for wording in WORDINGS
    if (name, wording) != ("isaid", "gen")
)
RESAMPLES = 1000

#: What the best compared method of a column is, and why that is a hard opponent.
BEST_RULE = (
    "The best compared method of a column is the one with the largest mIoU of this run, SDCI and the reference left "
    "out. It is chosen on the images that it is then compared on, which favours it a little."
)


@dataclass
class MethodScores:
    """What a run has scored.

    Attributes:
        meters: method -> column -> counts.
        tiles: column -> what it was scored on.
        methods: those that were run, in the table's order.
        parameters: (method, column) -> every setting.
        seconds: method -> of all its tiles.
        missing: method -> why it was not run.
    """

    meters: dict[str, dict[str, SegmentationMetrics]] = field(default_factory=dict)
    tiles: dict[str, LabelledTiles] = field(default_factory=dict)
    methods: dict[str, TableMethod] = field(default_factory=dict)
    parameters: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """The scored columns."""
        return list(self.tiles)

    def best_compared(self, column: str) -> str:
        """The compared method with the largest mean IoU in a column; "" if none was run. See :data:`BEST_RULE`."""
        found = {
            name: meters[column].compute()["miou"]
            for name, meters in self.meters.items()
            if name not in (VANILLA, *OWN)
        }
        return max(found, key=lambda name: found[name]) if found else ""


def run_methods(
    names: Sequence[str],
    datasets: Sequence[LabelledTiles],
    *,
    profile: str,
    clip: str = "",
    dino: str = "",
    device: str = "auto",
    progress: bool = True,
) -> MethodScores:
    """Run methods over datasets, under the two wordings of Table 1.

    The embedded models are so small that all methods stay in memory and share what the networks say of an image; in
    the full profile there is one method at a time.

    Args:
        names: of methods, as in ``methods.ROWS``; those that the profile can't run, or whose weights aren't there, are
            left out, and ``missing`` says why.
        datasets: tiles to score on.
        profile: ``"embedded"`` or ``"full"``.
        clip: a CLIP for all methods; "" takes each method's own.
        dino: likewise.
        device: where to compute.
        progress: show a bar.
    """
    unable = not_run(profile)
    scores = MethodScores(missing={name: unable[name] for name in names if name in unable})
    able = [name for name in names if name not in unable]
    groups = [able] if profile == "embedded" else [[name] for name in able]
    for group in groups:
        made = []
        for name in group:
            try:
                made.append(table_method(name, profile=profile, clip=clip, dino=dino, device=device))
            except WeightsError as error:  # one network that isn't there leaves the other rows
                scores.missing[name] = str(error)
        share_networks(method.segmenter for method in made)
        for tiles in datasets:
            score_tiles(scores, made, tiles, progress=progress)
        scores.methods.update({method.name: method for method in made})
    return scores


def open_sources(sources: str, *, tiles: int = 0, size: int = 0) -> list[LabelledTiles]:
    """The test tiles of several sources.

    Args:
        sources: ``"suites/NAME, datasets/NAME"``.
        tiles: only so many of each, spread evenly; 0 takes all.
        size: side in pixels of simulated scenes; 0 takes the suites' own.

    Raises:
        InputError: no such source, or it isn't on this machine.
    """
    names = [name.strip() for name in sources.split(",") if name.strip()]
    return [labelled_tiles(name, protocol="sdci", limit=tiles, size=size) for name in names]


def record_gflops(names: Sequence[str]) -> pd.DataFrame:
    """Hand over the table's last column, counted on the authors' full-size networks (whatever this run measured with).

    The counts are of the methods as their authors run them. The paper's numbers are of other settings, most of them,
    which it doesn't name; each row's note says which setting explains the printed number, and how well.

    Returns:
        A row a method: the count, what was counted, the paper's number, and what explains it.
    """
    rows_of = {name: ROWS[name] for name in names if name in RECIPES}
    printed = paper_table("sdci", "table1").column("GFLOPs")
    explained = {
        one.row: one
        for one in explain_table1([row for row in rows_of.values() if row in printed])
        if one.where == "Table 1"
    }
    rows = {}
    for name, row in rows_of.items():
        count = flops_of(name)
        record_flops(row, count, explained=explained.get(row))
        rows[row] = {
            "counted (GFLOP)": round(count.gflops, 1),
            "what was counted": count.configuration,
            "paper (GFLOP)": printed.get(row),
            "what the paper's number is": explained[row].sentence if row in explained else "not in the paper",
        }
    return pd.DataFrame(rows).T.rename_axis("method")


def score_tiles(
    scores: MethodScores, methods: Sequence[TableMethod], tiles: LabelledTiles, *, progress: bool = True
) -> None:
    """Score several methods on the same tiles, image by image, and add that to the scores."""
    dataset = dataset_of(tiles)
    prompts = prompts_by_column(tiles)
    segmenters = {method.name: method.for_dataset(dataset) for method in methods}
    for column in prompts:
        scores.tiles[column] = tiles
        for name, segmenter in segmenters.items():
            scores.meters.setdefault(name, {})[column] = tile_meter(tiles.classes)
            scores.parameters[name, column] = row_parameters(segmenter)
    bar = tqdm(tiles, desc=tiles.dataset, unit="tile", disable=not progress)
    for tile, image, labels in bar:
        for name, segmenter in segmenters.items():
            started = time.perf_counter()
            for column, predicted in labels_by_wording(segmenter, image, prompts).items():
                scores.meters[name][column].update(predicted, labels, image=tile)
            scores.seconds[name] = scores.seconds.get(name, 0.0) + time.perf_counter() - started


def dataset_of(tiles: LabelledTiles) -> str:
    """The paper's dataset that tiles are of, or stand for: ``"gid"`` of ``"sdci-gid"`` or ``"gid (part)"``."""
    return tiles.dataset.removeprefix("sdci-").removesuffix(" (part)")


def prompts_by_column(tiles: LabelledTiles) -> dict[str, list[str]]:
    """Column of the table -> the words of each class, for those wordings that the dataset has."""
    dataset = dataset_of(tiles)
    title = TITLES.get(dataset, dataset)
    found = {}
    for short, words in WORDINGS.items():
        try:
            found[f"{title} {short}"] = tiles.prompts(words)
        except InputError:
            if short == "ori":  # every dataset has its own names
                raise
    return found


def record_methods(scores: MethodScores) -> None:
    """Hand the table over: each method's mean IoU a column, its paired gains, and the mean of the columns.

    Rows that couldn't be measured are handed over with the reason.

    Metrics: ``"miou"``; ``"gain over vanilla"``; ``"gain over best compared"``, see :data:`BEST_RULE`.
    """
    for name, method in scores.methods.items():
        values = {}
        for column in scores.columns:
            meter, tiles = scores.meters[name][column], scores.tiles[column]
            about = {
                "unit": "percent",
                "n": len(tiles),
                "dataset": tiles.dataset,
                "dataset_version": tiles.version,
                "parameters": scores.parameters[name, column],
                "device": _device(method),
            }
            values[column] = percent(confidence_interval(meter))
            interval = values[column]
            record(method.row, column, "miou", interval.value, interval=interval, note=method.stand_in, **about)
            for metric, other in (
                ("gain over vanilla", VANILLA),
                ("gain over best compared", scores.best_compared(column)),
            ):
                gain = paired_gain(scores, name, other, column)
                if gain is not None:
                    note = "; ".join(part for part in (f"against {ROWS[other]}", method.stand_in) if part)
                    record(method.row, column, metric, gain.value, interval=gain, note=note, **about)
        mean, note = mean_of_columns(values)
        datasets = list(dict.fromkeys(tiles.dataset for tiles in scores.tiles.values()))
        whole = "the nine columns"
        record(
            method.row,
            AVERAGE,
            "miou",
            None if mean is None else mean.value,
            unit="percent",
            dataset=whole if datasets == list(TITLES) else f"{whole}, of {', '.join(datasets)}",
            device=_device(method),
            note="; ".join(part for part in (note, method.stand_in) if part),
            **({} if mean is None else {"interval": mean}),
        )
    for name, why in scores.missing.items():
        for column in (*scores.columns, AVERAGE):
            record(ROWS[name], column, "miou", None, unit="percent", note=why)


def paired_gain(scores: MethodScores, name: str, other: str, column: str) -> Interval | None:
    """The paired gain of a method above another one in a column, percent; None if there is nothing to compare."""
    if not other or other == name or other not in scores.meters:
        return None
    pair = scores.meters[name][column], scores.meters[other][column]
    return percent(compare(*pair, resamples=RESAMPLES).difference)


def mean_of_columns(values: Mapping[str, Interval]) -> tuple[Interval | None, str]:
    """The mean of the paper's nine columns.

    Its interval takes the two wordings of a dataset as wholly dependent, since they are of the same images, and
    datasets as independent: half the width is sqrt(sum over datasets of (sum over wordings of half a width)^2) / 9.

    Returns:
        The mean, or None and the reason: a part of the columns has another mean.
    """
    missing = [column for column in COLUMNS if column not in values]
    if missing:
        return None, f"the mean is over nine columns, and {', '.join(missing)} were not in this run"
    mean = math.fsum(values[column].value for column in COLUMNS) / len(COLUMNS)
    halves: dict[str, float] = {}
    for column in COLUMNS:
        title = column.rpartition(" ")[0]
        halves[title] = halves.get(title, 0.0) + (values[column].high - values[column].low) / 2
    half = math.hypot(*halves.values()) / len(COLUMNS)
    return Interval(mean, mean - half, mean + half), ""


def methods_frame(scores: MethodScores) -> pd.DataFrame:
    """The measured table for people, mean IoU in percent with interval; rows with a stand-in have a star."""
    shown: dict[str, dict[str, str]] = {}
    for name, method in scores.methods.items():
        values = {
            column: percent(confidence_interval(scores.meters[name][column], resamples=RESAMPLES))
            for column in scores.columns
        }
        cells = {column: _with_interval(value) for column, value in values.items()}
        mean, _ = mean_of_columns(values)
        if mean is not None:
            cells[AVERAGE] = _with_interval(mean)
        shown[f"{method.row}{' *' if method.stand_in else ''}"] = cells
    return pd.DataFrame(shown).T.rename_axis("measured here")


def gains_frame(scores: MethodScores, other: str = VANILLA) -> pd.DataFrame:
    """Paired gains in points of mean IoU, a row a method: above one method, or above ``"best"`` of each column."""
    shown: dict[str, dict[str, str]] = {}
    for name, method in scores.methods.items():
        if name == other:  # there is nothing to compare
            continue
        cells = {}
        for column in scores.columns:
            opponent = scores.best_compared(column) if other == "best" else other
            gain = paired_gain(scores, name, opponent, column)
            cells[column] = "" if gain is None else f"{gain.value:+.1f} [{gain.low:.1f}, {gain.high:.1f}]"
        shown[method.row] = cells
    if other == "best":
        opponents = {column: ROWS.get(scores.best_compared(column), "") for column in scores.columns}
        shown = {"the best compared is": opponents, **shown}
        title = "gain over the best compared method"
    else:
        title = f"gain over {ROWS[other]}"
    return pd.DataFrame(shown).T.rename_axis(title)


def ahead(scores: MethodScores) -> str:
    """In which columns SDCI is ahead of all compared methods in this run, and who is elsewhere, as a sentence."""
    own = next((name for name in scores.methods if name in OWN), "")
    compared = [name for name in scores.methods if name not in (VANILLA, *OWN)]
    if not own or not compared:
        return "SDCI and at least one compared method must be run to say who is ahead."
    found: dict[str, list[str]] = {}
    for column in scores.columns:
        values = {name: scores.meters[name][column].compute()["miou"] for name in (*compared, own)}  # a tie is no lead
        best = max(values, key=lambda name: values[name])
        found.setdefault(ROWS[best] if values[best] > 0 else "nobody", []).append(column)
    others = "; ".join(
        f"{row} in {', '.join(columns)}" for row, columns in found.items() if row not in (ROWS[own], "nobody")
    )
    first = found.get(ROWS[own], [])
    text = f"{ROWS[own]} has the largest mean IoU in {len(first)} of {len(scores.columns)} columns of this run"
    text += f" ({', '.join(first)})" if first else ""
    text += f"; ahead of it: {others}" if others else ""
    text += f"; nothing was found by anybody in {', '.join(found['nobody'])}" if "nobody" in found else ""
    return f"{text}. The tables of gains say which of these leads an interval leaves."


def beside_paper(scores: MethodScores, table: PaperTable) -> pd.DataFrame:
    """Measured and printed side by side, percent: column -> ``here`` and ``paper``; empty where there is none."""
    cells: dict[str, dict[tuple[str, str], float]] = {}
    for name, method in scores.methods.items():
        own = {column: 100 * scores.meters[name][column].compute()["miou"] for column in scores.columns}
        printed = {column: table.value(method.row, column) for column in scores.columns if method.row in table.rows}
        cells[method.row] = {
            (column, place): round(value, 1) if value is not None else math.nan
            for column in scores.columns
            for place, value in (("here", own[column]), ("paper", printed.get(column)))
        }
    frame = pd.DataFrame(cells).T
    return frame[[(column, place) for column in scores.columns for place in ("here", "paper")]]


def _device(method: TableMethod) -> str:
    return str(getattr(getattr(method.segmenter, "device", ""), "type", ""))


def _with_interval(value: Interval) -> str:
    return f"{value.value:.1f} [{value.low:.1f}, {value.high:.1f}]"
