"""Matrices of pixels that change their class, side by side on one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rsovlib.plots.legend import display_name
from rsovlib.plots.picture import Picture


def plot_moves(
    shares: Mapping[str, np.ndarray], classes: Sequence[str], *, across: str, down: str, title: str = ""
) -> Picture:
    """Heat maps of moves from class to class.

    Args:
        shares: title -> (K, K), percent of all pixels that move from the class of the row to that of the column.
        classes: the K names.
        across: what the columns are.
        down: what the rows are.
        title: above all.
    """
    names = [display_name(name) for name in classes]
    side = 0.55 * len(names) + 1.4
    figure = Picture(figsize=(side * len(shares) + 1.6, side + 1.0), layout="constrained")
    grid = figure.subplots(1, len(shares), squeeze=False, sharey=True)[0]
    largest = max(1e-9, *(float(one.max()) for one in shares.values()))
    for axes, (name, share) in zip(grid, shares.items(), strict=True):
        image = axes.imshow(share, cmap="cividis", vmin=0, vmax=largest)
        axes.set_title(f"{name}: {share.sum():.1f} %", fontsize=10)
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_xlabel(across, fontsize=9)
        for (row, column), value in np.ndenumerate(share):
            if value >= 0.05:
                axes.text(
                    column,
                    row,
                    f"{value:.1f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="black" if value > largest / 2 else "white",
                )
    grid[0].set_ylabel(down, fontsize=9)
    figure.colorbar(image, ax=list(grid), label="percent of the scored pixels", shrink=0.85)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure
