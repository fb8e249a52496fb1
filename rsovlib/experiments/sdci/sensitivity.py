"""How much SDCI's answer depends on its parameters: two at a time around the default, with their uncertainty.

Four parameters of the diffusion (BCDR: alpha, K, T, tau) and four of the convex step (CSCP: beta, lambda_D, w_cross,
scale of the superpixels) are varied in pairs, everything else at its default. Every setting is scored on the same
tiles, and compared with the default tile by tile. Nothing is chosen here: a default that isn't the best of a map stays.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from rsovlib.errors import InputError, unknown_name
from rsovlib.experiments.labelled import LabelledTiles
from rsovlib.experiments.results import ResultRow, record
from rsovlib.experiments.sdci.ladder import IGNORED
from rsovlib.experiments.sdci.staged import labels_under
from rsovlib.metrics import Interval, SegmentationMetrics, bootstrap
from rsovlib.plots.heatmaps import HeatMap, plot_heat_maps
from rsovlib.plots.picture import Picture
from rsovlib.segmenters import SDCI, SDCIConfig


@dataclass(frozen=True)
class Axis:
    """One parameter and the values that it takes.

    Attributes:
        name: of the field of :class:`SDCIConfig`.
        symbol: for axes of plots.
        values: rising; the default joins them if it isn't among them.
    """

    name: str
    symbol: str
    values: tuple[float, ...]

    def around(self, config: SDCIConfig) -> Axis:
        """The same with the configuration's value among the values."""
        return replace(self, values=tuple(sorted({*self.values, getattr(config, self.name)})))


GROUPS: Mapping[str, tuple[Axis, ...]] = {
    "BCDR": (
        Axis("alpha", "α", (0.5, 0.8, 0.9, 0.99)),
        Axis("neighbours", "K", (5, 15, 30, 60)),
        Axis("steps", "T (steps)", (5, 20, 40, 80)),
        Axis("tau", "τ", (0.03, 0.07, 0.3, 7.0)),
    ),
    "CSCP": (
        Axis("beta", "β", (0.03, 0.1, 0.3, 1.0)),
        Axis("lambda_dino", "λ_D", (0.0, 0.2, 0.5, 1.0)),
        Axis("w_cross", "w_cross", (0.01, 0.1, 0.3, 1.0)),
        Axis("superpixel_scale", "superpixel scale", (10.0, 40.0, 100.0, 300.0)),
    ),
}

Setting = tuple[float, ...]


@dataclass
class Sweep:
    """Scores of every setting of one group.

    Attributes:
        axes: the parameters, the default's values among theirs.
        default: the setting that the others are compared with.
        meters: setting -> scores, with the counts of single tiles.
        tiles: how many.
        seconds: that the computation took, scoring included.
    """

    axes: tuple[Axis, ...]
    default: Setting
    meters: dict[Setting, SegmentationMetrics]
    tiles: int = 0
    seconds: float = 0.0
    _compared: dict[Setting, Interval] = field(default_factory=dict, repr=False)

    @property
    def seconds_per_setting(self) -> float:
        """Mean time of one setting on one tile."""
        return self.seconds / (len(self.meters) * self.tiles)

    def with_values(self, **values: float) -> Setting:
        """The default setting with some values changed.

        Raises:
            InputError: a parameter that isn't varied here, or a setting that wasn't scored.
        """
        names = [axis.name for axis in self.axes]
        for name in values:
            if name not in names:
                raise unknown_name("parameter of the sweep", name, names)
        setting = tuple(values.get(axis.name, old) for axis, old in zip(self.axes, self.default, strict=True))
        if setting not in self.meters:
            raise InputError(f"This setting wasn't scored: {values}; at most two parameters are varied at a time.")
        return setting

    def miou(self, setting: Setting | None = None) -> float:
        """Mean IoU of a setting (the default), a fraction."""
        return float(self.meters[self.default if setting is None else setting].compute()["miou"])

    def difference(self, setting: Setting) -> Interval:
        """Mean IoU of a setting minus the default's, a fraction, with its interval, paired over the tiles."""
        if setting not in self._compared:
            meter, base = self.meters[setting], self.meters[self.default]
            self._compared[setting] = bootstrap(meter.table(), lambda t: meter.scores_of(t)["miou"], base.table())
        return self._compared[setting]

    def differs(self, setting: Setting) -> bool:
        """Whether the interval of the difference leaves out 0."""
        interval = self.difference(setting)
        return interval.low > 0 or interval.high < 0

    def pairs(self) -> list[tuple[Axis, Axis]]:
        """Every two of the parameters."""
        return list(itertools.combinations(self.axes, 2))

    def heat_map(self, across: Axis, up: Axis) -> HeatMap:
        """Differences from the default in points, for two parameters."""
        shape = len(up.values), len(across.values)
        value, low, high = (np.empty(shape) for _ in range(3))
        for (row, y), (column, x) in itertools.product(enumerate(up.values), enumerate(across.values)):
            interval = self.difference(self.with_values(**{across.name: x, up.name: y}))
            value[row, column], low[row, column], high[row, column] = (
                100 * number for number in (interval.value, interval.low, interval.high)
            )
        default = dict(zip((axis.name for axis in self.axes), self.default, strict=True))
        return HeatMap(
            across=across.symbol,
            up=up.symbol,
            x=[f"{x:g}" for x in across.values],
            y=[f"{y:g}" for y in up.values],
            value=value,
            low=low,
            high=high,
            default=(up.values.index(default[up.name]), across.values.index(default[across.name])),
        )

    def table(self) -> pd.DataFrame:
        """The parameters one at a time: difference from the default in points, with its interval."""
        rows = {}
        for axis, value in self.one_at_a_time():
            interval = self.difference(self.with_values(**{axis.name: value}))
            low, middle, high = (100 * number for number in (interval.low, interval.value, interval.high))
            rows[axis.symbol, f"{value:g}"] = {
                "difference (points)": f"{middle:+.2f} [{low:.2f}, {high:.2f}]",
                "differs": self.differs(self.with_values(**{axis.name: value})),
            }
        return pd.DataFrame(rows).T.rename_axis(["parameter", "value"])

    def one_at_a_time(self) -> list[tuple[Axis, float]]:
        """Every value of every parameter but the default's."""
        return [
            (axis, value)
            for axis, default in zip(self.axes, self.default, strict=True)
            for value in axis.values
            if value != default
        ]

    def summary(self) -> str:
        """How many settings differ, and the best and worst of all, in a sentence."""
        others = [setting for setting in self.meters if setting != self.default]
        worse = sum(self.difference(one).high < 0 for one in others)
        better = sum(self.difference(one).low > 0 for one in others)
        values = [100 * self.difference(one).value for one in others]
        return (
            f"{len(others)} settings beside the default ({100 * self.miou():.1f} % mIoU): {worse} with an interval "
            f"below 0, {better} above it; differences from {min(values):+.1f} to {max(values):+.1f} points."
        )


def settings_of(axes: Sequence[Axis], default: Setting) -> list[Setting]:
    """The default first, then every setting that differs from it in one or two parameters."""
    found = {default: None}
    for first, second in itertools.combinations(range(len(axes)), 2):
        for a, b in itertools.product(axes[first].values, axes[second].values):
            setting = list(default)
            setting[first], setting[second] = a, b
            found[tuple(setting)] = None
    return list(found)


def sweep(
    sdci: SDCI,
    tiles: LabelledTiles,
    words: str,
    axes: Sequence[Axis],
    *,
    progress: bool = True,
) -> Sweep:
    """Score every pair of values around the default.

    Args:
        sdci: the whole method; its configuration is the default.
        tiles: what to score on.
        words: prompt set of the manifest.
        axes: the parameters, as in :data:`GROUPS`.
        progress: show a bar.
    """
    axes = tuple(axis.around(sdci.config) for axis in axes)
    default = tuple(getattr(sdci.config, axis.name) for axis in axes)
    names = [axis.name for axis in axes]
    configs = {}
    for setting in settings_of(axes, default):
        changes: dict[str, Any] = dict(zip(names, setting, strict=True))
        configs[setting] = replace(sdci.config, **changes)
    meters = {
        setting: SegmentationMetrics(
            tiles.classes, ignore_index=IGNORED, boundary_tolerance=None, boundary_width=None, keep_images=True
        )
        for setting in configs
    }
    by_name = {str(setting): config for setting, config in configs.items()}
    prompts = tiles.prompts(words)
    started = time.perf_counter()
    for name, image, truth in tqdm(tiles, desc="settings", unit="tile", disable=not progress):
        labels = labels_under(sdci, by_name, image, prompts, warm=True)
        for setting, meter in meters.items():
            meter.update(labels[str(setting)], truth, image=name)
    return Sweep(axes, default, meters, len(tiles), time.perf_counter() - started)


def plot_sweep(found: Sweep, title: str = "") -> Picture:
    """All pairs of parameters as heat maps on one scale."""
    maps = [found.heat_map(across, up) for across, up in found.pairs()]
    return plot_heat_maps(maps, label="mIoU minus the default's (points)", title=title)


def record_sweep(found: Sweep, group: str, tiles: LabelledTiles, **fields: Any) -> list[ResultRow]:
    """Hand the one-at-a-time differences over as result rows, and the default's score."""
    rows = []
    about = {"unit": "percent", "n": len(tiles), "dataset": tiles.dataset, "dataset_version": tiles.version, **fields}
    rows.append(record(f"{group}, default", "default", "miou", 100 * found.miou(), **about))
    for axis, value in found.one_at_a_time():
        interval = found.difference(found.with_values(**{axis.name: value}))
        shown = Interval(100 * interval.value, 100 * interval.low, 100 * interval.high, interval.level)
        row = f"{group}, {axis.name}"
        rows.append(record(row, f"{value:g}", "difference", shown.value, interval=shown, **about))
    return rows
