"""Matrices of pixels that change their class, side by side on one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rsovlib.plots.legend import display_name
from rsovlib.plots.page import LABEL, PAGE_WIDTH, TICK, TITLE
from rsovlib.plots.picture import Picture


def plot_moves(
    shares: Mapping[str, np.ndarray], classes: Sequence[str], *, across: str, down: str, title: str = ""
) -> Picture:
    """Heat maps of moves from class to class, side by side where there are few classes, else one under the other.

    Args:
        shares: title -> (K, K), percent of all pixels that move from the class of the row to that of the column.
        classes: the K names.
        across: what the columns are.
        down: what the rows are.
        title: above all.
    """
    names = [display_name(name) for name in classes]
    columns = len(shares) if len(names) <= 6 else 1
    rows = -(-len(shares) // columns)
    side = min(0.5 * len(names) + 0.3, (PAGE_WIDTH - 2.4) / columns)
    figure = Picture(figsize=(side * columns + 2.4, rows * (side + 1.4) + 0.3), layout="compressed")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    largest = max(1e-9, *(float(one.max()) for one in shares.values()))
    for axes, (name, share) in zip(grid, shares.items(), strict=True):
        image = axes.imshow(share, cmap="cividis", vmin=0, vmax=largest)
        axes.set_title(f"{name}: {share.sum():.1f} %", fontsize=TITLE)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=TICK)
        axes.set_yticks(range(len(names)), names, fontsize=TICK)
        axes.set_xlabel(across, fontsize=LABEL)
        for (row, column), value in np.ndenumerate(share):
            if value >= 0.05:
                axes.text(
                    column,
                    row,
                    f"{value:.1f}",
                    ha="center",
                    va="center",
                    fontsize=TICK,
                    color="black" if value > largest / 2 else "white",
                )
    for axes in grid[::columns]:
        axes.set_ylabel(down, fontsize=LABEL)
    bar = figure.colorbar(image, ax=list(grid), shrink=0.85, fraction=0.046, pad=0.02)
    bar.set_label("percent of the scored pixels", fontsize=LABEL)
    bar.ax.tick_params(labelsize=TICK)
    if title:
        figure.suptitle(title, fontsize=TITLE)
    return figure
