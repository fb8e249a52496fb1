"""Cost against accuracy: what each method of Table 1 costs for an image, beside its mean IoU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from tqdm.auto import tqdm

from rsovlib.experiments.comparison import combine
from rsovlib.experiments.costs import Costs, measure_costs, random_image, record_costs
from rsovlib.experiments.results import ResultRow
from rsovlib.experiments.sdci.flops import flops_of
from rsovlib.experiments.sdci.method_table import AVERAGE, COLUMNS, mean_of_columns
from rsovlib.experiments.sdci.methods import ROWS, not_run, table_method
from rsovlib.metrics.uncertainty import Interval
from rsovlib.plots import Picture
from rsovlib.plots.cost_accuracy import Mark, plot_cost_accuracy

TABLE = "sdci-table1"
#: What an image is segmented into while costs are measured: as many classes as GID has.
CLASSES = ("built-up", "farmland", "forest", "meadow", "water")
#: The networks of the reference cost what those of the value path cost but for one attention map.
_COUNTED_AS = {"vanilla": "maskclip"}


@dataclass(frozen=True)
class CostPoint:
    """One method.

    Attributes:
        row: of Table 1.
        costs: measured with the profile's models.
        full_gflops: of one image of 512 x 512 pixels with the authors' networks, counted; None where there is no count.
        miou: percent, over all seeds and columns; None where nothing was measured.
        stand_in: what isn't the authors' own part.
    """

    row: str
    costs: Costs
    full_gflops: float | None
    miou: Interval | None
    stand_in: str


def measure_methods(
    names: Sequence[str],
    rows: Iterable[ResultRow],
    *,
    profile: str,
    clip: str = "",
    dino: str = "",
    device: str = "auto",
    size: int = 160,
    repeats: int = 3,
    progress: bool = True,
) -> list[CostPoint]:
    """Measure what methods cost, one after the other, and put their accuracy beside it.

    Args:
        names: of methods; those that the profile can't run are left out.
        rows: of Table 1, of any number of seeds.
        profile: ``"embedded"`` or ``"full"``.
        clip: a CLIP for all methods; "" takes each method's own.
        dino: likewise.
        device: where to compute.
        size: side of the image in pixels.
        repeats: of the latency.
        progress: show a bar.
    """
    known = list(rows)
    points = []
    able = [name for name in names if name not in not_run(profile)]
    for name in tqdm(able, desc="costs", unit="method", disable=not progress):
        method = table_method(name, profile=profile, clip=clip, dino=dino, device=device)
        costs = measure_costs(method.segmenter, random_image(size), list(CLASSES), repeats=repeats)
        points.append(
            CostPoint(method.row, costs, full_size_gflops(name), accuracy(known, method.row), method.stand_in)
        )
    return points


def full_size_gflops(name: str) -> float | None:
    """GFLOPs of a method for 512 x 512 pixels as its authors run it; None where there is no such count."""
    from rsovlib.experiments.sdci.flop_recipes import RECIPES

    counted = _COUNTED_AS.get(name, name)
    return flops_of(counted).gflops if counted in RECIPES else None


def accuracy(rows: Iterable[ResultRow], row: str) -> Interval | None:
    """A method's mean over the nine columns of Table 1 and all seeds, percent; None where columns are missing.

    Runs that had all columns have recorded the mean; where each run had one dataset, it is made of the columns.
    """
    own = [one for one in rows if one.table == TABLE and one.row == row and one.metric == "miou"]
    whole = combine([one for one in own if one.column == AVERAGE])
    if whole is not None:
        return _interval(whole.value, whole.low, whole.high)
    columns = {}
    for column in COLUMNS:
        found = combine([one for one in own if one.column == column])
        if found is not None:
            columns[column] = _interval(found.value, found.low, found.high)
    return mean_of_columns(columns)[0]


def record_points(points: Iterable[CostPoint], size: int) -> None:
    """Hand the measured costs over, a row a method."""
    for point in points:
        record_costs(point.costs, point.row, f"{size} x {size}", dataset=f"image-{size}")


def points_frame(points: Sequence[CostPoint]) -> pd.DataFrame:
    """The same for people; methods on the front of latency and accuracy are marked."""
    best = front({point.row: (point.costs.latency, point.miou.value) for point in points if point.miou is not None})
    rows = {
        point.row: {
            "latency (s)": round(point.costs.latency, 3),
            "GFLOP, these models": round(point.costs.flops / 1e9, 2),
            "GFLOP, full size": None if point.full_gflops is None else round(point.full_gflops, 1),
            "mIoU (percent) [95 %]": "not measured yet"
            if point.miou is None
            else f"{point.miou.value:.1f} [{point.miou.low:.1f}, {point.miou.high:.1f}]",
            "on the front (latency)": "yes" if point.row in best else "",
            "stand-in": point.stand_in,
        }
        for point in points
    }
    return pd.DataFrame(rows).T.rename_axis("method")


def costs_frame(rows: Iterable[ResultRow]) -> pd.DataFrame:
    """One method's recorded costs for people: value, range and unit, and why one is missing."""
    shown = {
        row.metric: {
            "value": row.value,
            "from": row.low,
            "to": row.high,
            "unit": row.unit,
            "to know": "" if row.value is not None and row.low is not None else row.note,
        }
        for row in rows
    }
    return pd.DataFrame(shown).T.rename_axis(next(iter({row.row for row in rows}), ""))


def front(points: Mapping[str, tuple[float, float]]) -> set[str]:
    """Those that no other beats: none is at most as costly and at least as accurate, and better in one of the two.

    Args:
        points: name -> cost and accuracy.
    """
    return {
        name
        for name, (cost, value) in points.items()
        if not any(
            other_cost <= cost and other >= value and (other_cost, other) != (cost, value)
            for other_cost, other in points.values()
        )
    }


def draw_points(points: Sequence[CostPoint], title: str = "") -> Picture:
    """Accuracy over latency, over the FLOPs of these models, and over those of the full-size networks.

    Methods whose accuracy wasn't measured are left out.
    """
    scored = [point for point in points if point.miou is not None]
    costs = {
        "latency (s an image)": {point.row: point.costs.latency for point in scored},
        "GFLOP an image, these models": {point.row: point.costs.flops / 1e9 for point in scored},
        "GFLOP for 512 x 512 pixels,\nfull-size networks": {
            point.row: point.full_gflops for point in scored if point.full_gflops is not None
        },
    }
    panels = {}
    for label, axis in costs.items():
        values = {point.row: point.miou for point in scored if point.row in axis and point.miou is not None}
        best = front({row: (axis[row], value.value) for row, value in values.items()})
        stands = {point.row for point in scored if point.stand_in}
        panels[label] = {
            row: Mark(axis[row], value.value, value.low, value.high, row in best, row in stands)
            for row, value in values.items()
        }
    return plot_cost_accuracy(
        panels, order=[row for row in ROWS.values() if any(row == p.row for p in scored)], title=title
    )


def _interval(value: float, low: float | None, high: float | None) -> Interval:
    return Interval(value, value if low is None else low, value if high is None else high)
