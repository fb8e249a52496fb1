"""Plots of the kernels' benchmarks, from the parts that lie in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from rsovlib.files import write_beside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]
OURS, OTHERS = "#0b6e4f", "#b5521b"


def read_table(folder: Path, name: str) -> list[Row]:
    """All rows of a table's parts, curves included."""
    return [row for path in sorted(folder.glob(f"{name}-*.json")) for row in json.loads(path.read_text("utf-8"))]


def superpixels(rows: list[Row]) -> Figure:
    """Time against size, both ways."""
    figure, axes = _figure(1)
    table = pd.DataFrame(rows).sort_values("size")
    for column, name, colour in (("theirs_ms", "scikit-image", OTHERS), ("ours_ms", "rsovlib", OURS)):
        axes[0].loglog(table["size"], table[column], "o-", color=colour, label=name, base=2)
    for size, ours, ratio in zip(table["size"], table["ours_ms"], table["ratio"], strict=True):
        axes[0].annotate(f"{ratio:.1f} x", (size, ours), (4, -12), textcoords="offset points", fontsize=8)
    axes[0].set(xlabel="image side, pixels", ylabel="ms", title="Felzenszwalb superpixels, one thread")
    axes[0].legend()
    return figure


def convex(rows: list[Row]) -> Figure:
    """Relative gap against time, one panel a regime, with both methods and thread counts."""
    curves = pd.DataFrame([row for row in rows if "curve" in row and row["classes"] == 6])
    regimes = list(dict.fromkeys(curves["regime"]))
    figure, axes = _figure(len(regimes))
    for ax, regime in zip(axes, regimes, strict=True):
        for row in curves[curves["regime"] == regime].to_dict("records"):
            points = [(i * row["step"] * 1e3, gap) for i, gap, _ in row["curve"] if i > 0 and gap > 0]
            ax.loglog(
                *zip(*points, strict=True),
                color=OURS if row["method"] == "ours" else OTHERS,
                linestyle="-" if row["threads"] == 1 else "--",
                label=f"{row['method']}, {row['threads']} thread{'s' * (row['threads'] > 1)}",
            )
        ax.set(xlabel="ms", title=regime)
    axes[0].set_ylabel("relative duality gap")
    axes[0].legend(fontsize=7)
    return figure


def bandwidth(rows: list[Row]) -> Figure:
    """Bandwidth of a sweep as a share of the triad's, against size."""
    figure, axes = _figure(1)
    table = pd.DataFrame(rows)
    for (classes, threads), part in table.sort_values("size").groupby(["classes", "threads"]):
        axes[0].plot(
            part["size"], part["share"], "o-" if threads == 1 else "s--", label=f"K = {classes}, {threads} thr."
        )
    axes[0].axhline(0.8, color="0.6", linewidth=1)
    axes[0].set_xscale("log", base=2)
    axes[0].set(xlabel="image side, pixels", ylabel="share of the triad's bandwidth", title="One sweep of the solver")
    axes[0].legend(fontsize=7)
    return figure


def diffusion(rows: list[Row]) -> Figure:
    """Time against the number of nodes, of the graph and of 40 steps."""
    table = pd.DataFrame(rows)
    table = table[(table["classes"] == 6) & (table["threads"] == table["threads"].max())].sort_values("nodes")
    figure, axes = _figure(2)
    for ax, what in zip(axes, ("graph", "40 steps"), strict=True):
        part = table[table["what"] == what]
        for column, name, colour in (("theirs_ms", "dense", OTHERS), ("ours_ms", "rsovlib", OURS)):
            if column in part:
                ax.loglog(part["nodes"], part[column], "o-", color=colour, label=name)
        ax.set(xlabel="nodes", ylabel="ms", title=what)
    axes[0].legend()
    return figure


def memory(rows: list[Row]) -> Figure:
    """Peak bytes a pixel."""
    table = pd.DataFrame([row for row in rows if row["what"] != "graph"])
    names = [f"{row.what}{f', K = {row.classes}' if row.classes else ''}" for row in table.itertuples()]
    figure, axes = _figure(1)
    colours = [OTHERS if name.startswith(("published", "scikit")) else OURS for name in names]
    axes[0].barh(names, table["bytes_a_pixel"], color=colours)
    axes[0].set(xlabel="bytes a pixel above the inputs", title="Peak memory")
    return figure


PLOTS: dict[str, Callable[[list[Row]], Figure]] = {
    "superpixels": superpixels,
    "convex": convex,
    "bandwidth": bandwidth,
    "diffusion": diffusion,
    "memory": memory,
}


def _figure(panels: int) -> tuple[Figure, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(5.5, 3.6 * panels), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, panels, sharey=panels > 2, squeeze=False)[0])


def draw(folder: Path) -> list[Path]:
    """A PNG for each table of which there are parts in ``folder``; their paths."""
    drawn: list[Path] = []
    for name, plot in PLOTS.items():
        rows = read_table(folder, name)
        if not rows:
            continue
        path = folder / f"kernels-{name}.png"
        with write_beside(path) as temporary:
            plot(rows).savefig(temporary, dpi=130)
        drawn.append(path)
    return drawn
