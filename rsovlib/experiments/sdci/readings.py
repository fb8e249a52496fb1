"""What each difference between SDCI's paper and its released program does to the answer, measured.

From either side, the program's reading and the paper's, one entry of the register at a time is switched to the other
side. Two numbers a switch: how the mean IoU changes, paired over the tiles, and how many pixels get another label. The
second tells apart what "no effect on the mean IoU" can mean: nothing happened, or changes for better and for worse.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import fields as fields_of
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm.auto import tqdm

from rsovlib.experiments.labelled import LabelledTiles
from rsovlib.experiments.results import ResultRow, record
from rsovlib.experiments.sdci.ladder import IGNORED
from rsovlib.experiments.sdci.register import KINDS, REGISTER, Entry, paper_base
from rsovlib.experiments.sdci.staged import labels_under
from rsovlib.metrics import Interval, SegmentationMetrics, bootstrap, compare, confidence_interval
from rsovlib.plots.intervals import plot_intervals
from rsovlib.plots.picture import Picture
from rsovlib.segmenters import SDCI, SDCIConfig

#: What a base is compared with when all entries are switched at once.
ALL = "all"
SIDES = ("official", "paper")


@dataclass(frozen=True)
class Effect:
    """What one switch does.

    Attributes:
        side: the reading that everything else has: ``"official"`` or ``"paper"``.
        entry: id of the entry, or :data:`ALL`.
        to: the reading that it was switched to.
        setting: what that changes in the configuration, in words.
        miou: with the switch, a fraction.
        difference: of the mean IoU, with the switch minus without, a fraction; paired over the tiles.
        p: two-sided, of exchanging both in random tiles.
        changed: share of all pixels that get another label.
    """

    side: str
    entry: str
    to: str
    setting: str
    miou: float
    difference: Interval
    p: float
    changed: Interval


@dataclass
class Readings:
    """Labels under all readings, counted.

    Attributes:
        configs: (side, entry) -> configuration; the entry is "" for the base itself.
        to: (side, entry) -> the reading that was switched to.
        meters: (side, entry) -> scores, with the counts of single tiles.
        changed: (side, entry) -> rows of changed pixels and all pixels, one a tile.
        seconds: that the computation took, scoring included.
    """

    configs: dict[tuple[str, str], SDCIConfig]
    to: dict[tuple[str, str], str]
    meters: dict[tuple[str, str], SegmentationMetrics]
    changed: dict[tuple[str, str], list[tuple[int, int]]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def tiles(self) -> int:
        """How many tiles were counted."""
        return len(self.changed["official", ""])

    @property
    def seconds_per_setting(self) -> float:
        """Mean time of one setting on one tile."""
        return self.seconds / (len(self.configs) * self.tiles)

    def base(self, side: str) -> Interval:
        """The mean IoU of one side, a fraction, with its interval."""
        return confidence_interval(self.meters[side, ""])

    def effects(self) -> list[Effect]:
        """What every switch does, in the order of the register, the official side first."""
        found = []
        for (side, name), meter in self.meters.items():
            if name:
                tested = compare(meter, self.meters[side, ""])
                counts = np.array(self.changed[side, name])
                share = bootstrap(counts, lambda totals: totals[:, 0] / totals[:, 1])
                value = meter.compute()["miou"]
                setting = changed_settings(self.configs[side, ""], self.configs[side, name])
                found.append(
                    Effect(side, name, self.to[side, name], setting, value, tested.difference, tested.p_exchange, share)
                )
        return found


def measure_readings(
    sdci: SDCI,
    tiles: LabelledTiles,
    words: str,
    entries: Sequence[Entry],
    *,
    progress: bool = True,
) -> Readings:
    """Switch every entry, from either side, on every tile.

    Args:
        sdci: the whole method; its configuration is the official side.
        tiles: what to score on.
        words: prompt set of the manifest.
        entries: those to switch.
        progress: show a bar.
    """
    configs: dict[tuple[str, str], SDCIConfig] = {}
    to: dict[tuple[str, str], str] = {}
    bases = {"official": sdci.config, "paper": paper_base(sdci.config)}
    for side, config in bases.items():
        configs[side, ""] = config
        for one in entries:
            to[side, one.id], configs[side, one.id] = one.other(config)
    configs["official", ALL], to["official", ALL] = bases["paper"], "paper"
    meters = {key: _meter(tiles) for key in configs}
    readings = Readings(configs, to, meters, {key: [] for key in configs})
    prompts = tiles.prompts(words)
    by_name = {" ".join(key): config for key, config in configs.items()}
    started = time.perf_counter()
    for name, image, truth in tqdm(tiles, desc="readings", unit="tile", disable=not progress):
        labels = labels_under(sdci, by_name, image, prompts)
        for key, meter in meters.items():
            own = labels[" ".join(key)]
            meter.update(own, truth, image=name)
            readings.changed[key].append((int((own != labels[f"{key[0]} "]).sum()), own.size))
    readings.seconds = time.perf_counter() - started
    return readings


def _meter(tiles: LabelledTiles) -> SegmentationMetrics:
    return SegmentationMetrics(
        tiles.classes, ignore_index=IGNORED, boundary_tolerance=None, boundary_width=None, keep_images=True
    )


def register_table(entries: Sequence[Entry] = REGISTER) -> pd.DataFrame:
    """The register for people: what paper and program do, and how to switch or why not."""
    rows = {
        one.id: {
            "item": one.what,
            "paper": one.paper,
            "program": one.official,
            "kind": _SHORT[one.kind],
            "switch to the paper's": ", ".join(f"{name}={value!r}" for name, value in one.to_paper.items()),
            "to know": one.reason,
        }
        for one in entries
    }
    return pd.DataFrame(rows).T.rename_axis("entry")


_SHORT = {"differ": "they differ", "silent": "paper silent", "agree": "no two readings", "elsewhere": "no setting"}


def changed_settings(before: SDCIConfig, after: SDCIConfig) -> str:
    """The fields of a configuration that differ from another one's, as ``"tau = 7.0"``; more than three are counted."""
    changed = [one.name for one in fields_of(SDCIConfig) if getattr(before, one.name) != getattr(after, one.name)]
    if len(changed) > 3:
        return f"{len(changed)} settings"
    return ", ".join(f"{name} = {getattr(after, name)}" for name in changed)


def holm(p: Sequence[float]) -> npt.NDArray[np.float64]:
    """p-values corrected for their number (Holm 1979, doi:10.2307/4615733); not-a-number stays."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values)
    many = np.isfinite(values).sum()
    scaled = values[order] * np.maximum(many - np.arange(values.size), 1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return corrected


def effects_table(effects: Sequence[Effect]) -> pd.DataFrame:
    """The effects for people: points of mean IoU with their interval, and pixels that change, by side."""
    corrected = holm([effect.p for effect in effects])
    rows = {}
    for effect, p in zip(effects, corrected, strict=True):
        low, value, high = (100 * x for x in (effect.difference.low, effect.difference.value, effect.difference.high))
        rows[f"from {effect.side}", effect.entry] = {
            "switched to": effect.setting,
            "mIoU (%)": 100 * effect.miou,
            "difference (points)": f"{value:+.2f} [{low:.2f}, {high:.2f}]",
            "p": effect.p,
            "p (Holm)": float(p),
            "pixels changed (%)": 100 * effect.changed.value,
        }
    # Both bases before the one that switches all at once.
    order = sorted(rows, key=lambda key: (SIDES.index(key[0].removeprefix("from ")), key[1] == ALL))
    return pd.DataFrame.from_dict({key: rows[key] for key in order}, orient="index").rename_axis(["side", "entry"])


def plot_readings(effects: Sequence[Effect], names: Mapping[str, str] | None = None) -> Picture:
    """Every effect with its interval, both sides beside each other; at the right the pixels that change."""
    names = names if names is not None else {one.id: one.what for one in REGISTER}
    kept = [effect for effect in effects if effect.entry != ALL]
    order = list(dict.fromkeys(effect.entry for effect in kept))
    series: dict[str, dict[str, tuple[float, float, float]]] = {f"from the {side} reading": {} for side in SIDES}
    notes: dict[str, list[str]] = {name: [] for name in order}
    for effect in kept:
        difference = effect.difference
        series[f"from the {effect.side} reading"][effect.entry] = (
            100 * difference.value,
            100 * difference.low,
            100 * difference.high,
        )
        notes[effect.entry].append(f"{100 * effect.changed.value:.1f}")
    return plot_intervals(
        series,
        order=order,
        labels={name: f"{name}  {names.get(name, '')}".rstrip() for name in order},
        xlabel="change of mIoU by the switch (points), 95 % interval over the tiles",
        notes={name: " | ".join(values) for name, values in notes.items()},
        notes_title="pixels changed (%):\nfrom official | from paper",
    )


def record_readings(
    readings: Readings, effects: Sequence[Effect], tiles: LabelledTiles, **fields: Any
) -> list[ResultRow]:
    """Hand the effects over as result rows, and say why the other entries have none."""
    rows = []
    about = {"unit": "percent", "n": len(tiles), "dataset": tiles.dataset, "dataset_version": tiles.version, **fields}
    for side in SIDES:
        base = _percent(readings.base(side))
        rows.append(record("no switch", f"from {side}", "miou", base.value, interval=base, **about))
    for effect in effects:
        note = f"switched to the {effect.to} reading"
        for metric, interval in (("difference", effect.difference), ("changed pixels", effect.changed)):
            shown = _percent(interval)
            column = f"from {effect.side}"
            rows.append(record(effect.entry, column, metric, shown.value, interval=shown, note=note, **about))
    done = {effect.entry for effect in effects}
    for one in REGISTER:
        if one.id not in done:
            why = one.reason or KINDS[one.kind]
            rows.append(record(one.id, "from official", "difference", None, note=why, **about))
    return rows


def _percent(interval: Interval) -> Interval:
    return Interval(100 * interval.value, 100 * interval.low, 100 * interval.high, interval.level)
