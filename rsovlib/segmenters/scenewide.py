"""The numbers that SDCI's reshaping needs, of a whole scene instead of each of its tiles.

Before its convex step the released program stretches every class map to [0, 1], drops classes that little speaks for,
and decides between two ways of making probabilities (register D25 and D26) - from the smallest, largest and mean
values of the *tile*. On the papers' benchmarks a tile is an image of its own, and that is how the method is defined.
Side by side in a large scene, however, a tile without water stretches its noise to the same [0, 1] as its neighbour
its lake; and because attention spreads over the whole tile, a class's scores are higher or lower in a tile as a whole.
Both make squares.

For a scene, each tile is therefore *examined* first, which is all that the networks do, and gives small maps. Then
tiles are *levelled*: every tile and class gets one number to add, such that neighbours say the same, on average, of
the pixels that they share (as photographs are balanced before they are stitched). Then the constants are gathered
from all tiles; and then every tile is *decided* with the same constants. No network runs twice, and a scene of one
tile gets exactly the tile's own numbers. None of this is the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

Floats = npt.NDArray[np.float64]

LEVELLING = 0.5
"""Weight of an offset's square against that of the difference that a pair of tiles is left with (a pair that shares
all its pixels). Little weight lets tiles drift together and drowns what distinguishes them; on a Sentinel-2 scene all
from 0.25 to 1.5 serve alike."""


@dataclass(frozen=True)
class BranchConstants:
    """What one branch's maps are reshaped with.

    Attributes:
        low: (K,) value of each class's map that becomes 0.
        high: (K,) value that becomes 1.
        presence: (K,) largest value before diffusion, m_k.
        softmax: whether the maps go through a softmax.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    presence: tuple[float, ...]
    softmax: bool


@dataclass(frozen=True)
class SceneConstants:
    """The constants of both branches."""

    clip: BranchConstants
    dino: BranchConstants

    def plain(self) -> dict[str, Any]:
        """As plain values, for tags and for other processes."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Mapping[str, Any]]) -> SceneConstants:
        """Back from plain values."""
        branches = {}
        for name in ("clip", "dino"):
            values = plain[name]
            low, high, presence = (tuple(map(float, values[key])) for key in ("low", "high", "presence"))
            branches[name] = BranchConstants(low, high, presence, bool(values["softmax"]))
        return cls(**branches)


def statistics_of(
    maps: npt.NDArray[np.float32], presence: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]
) -> Floats:
    """What is kept of one tile and branch.

    Args:
        maps: (K, H, W) class maps at the tile's full size.
        presence: (K,) largest values before diffusion.
        valid: (H, W) pixels that hold data; the others say nothing about the scene.

    Returns:
        (5, K): smallest, largest and mean value, presence, and the number of valid pixels; zeros if there are none.
    """
    seen = maps[:, valid].astype(np.float64)
    if not seen.size:
        return np.zeros((5, len(maps)))
    count = np.full(len(maps), seen.shape[1], np.float64)
    return np.stack([seen.min(axis=1), seen.max(axis=1), seen.mean(axis=1), presence.astype(np.float64), count])


def branch_constants(
    table: Floats, *, threshold: float, rescaled: bool, stretched: bool, to_probability: str, softmax_above: float
) -> BranchConstants:
    """Gather one branch's tiles.

    Args:
        table: (tiles, 5, K), of :func:`statistics_of`, of tiles with data.
        threshold: presence at which a class counts as there (D25c).
        rescaled: whether maps are divided by their largest value and multiplied by the presence (D25b).
        stretched: whether maps are stretched to [0, 1] (D25d).
        to_probability: ``"auto"``, ``"softmax"`` or ``"sum"`` (D26).
        softmax_above: mean sum over the classes above which ``"auto"`` takes the softmax.

    Returns:
        The scene's smallest and largest value and presence; and the choice of D26 for the scene's mean.
    """
    low, high = table[:, 0].min(axis=0), table[:, 1].max(axis=0)
    presence = table[:, 3].max(axis=0)
    pixels = table[:, 4]
    mean = (table[:, 2] * pixels).sum(axis=0) / pixels.sum(axis=0)
    if stretched:
        mean = (mean - low) / np.where(high > low, high - low, 1.0)
    elif rescaled:
        mean = mean / (high + 1e-5) * presence
    total = float(mean[presence > threshold].sum())
    softmax = to_probability == "softmax" or (
        to_probability == "auto" and (total > softmax_above or (not stretched and bool((low < 0).any())))
    )
    return BranchConstants(tuple(low.tolist()), tuple(high.tolist()), tuple(presence.tolist()), softmax)


@dataclass(frozen=True)
class Place:
    """Where a tile lies in its scene, in pixels."""

    row: int
    column: int
    height: int
    width: int


class Leveller:
    """Finds the offsets of tiles that come one by one, from the top of the scene to its bottom.

    With m_st the mean difference of tiles s and t over the pixels that they share, a_st the share of a tile that
    these are, the offsets o of a class minimise

        sum_(s,t) a_st (m_st + o_s - o_t)^2  +  LEVELLING sum_t o_t^2.
    """

    def __init__(self) -> None:
        self._count = 0
        self._open: list[tuple[int, Place, Floats]] = []
        self._pairs: list[tuple[int, int]] = []
        self._differences: list[Floats] = []
        self._shares: list[float] = []

    def add(self, place: Place, maps: npt.NDArray[np.float32], top: int) -> None:
        """One tile: where it lies, and its maps (K, h, w), which :meth:`offsets` refers to in this order.

        No later tile may begin above the row ``top``.
        """
        values = maps.astype(np.float64)
        self._open = [entry for entry in self._open if entry[1].row + entry[1].height > top]
        for index, other, theirs in self._open:
            upper, lower = max(place.row, other.row), min(place.row + place.height, other.row + other.height)
            left, right = max(place.column, other.column), min(place.column + place.width, other.column + other.width)
            if lower > upper and right > left:
                self._pairs.append((index, self._count))
                region = (upper, lower, left, right)
                self._differences.append(_mean_over(theirs, other, region) - _mean_over(values, place, region))
                self._shares.append((lower - upper) * (right - left) / (place.height * place.width))
        self._open.append((self._count, place, values))
        self._count += 1

    def offsets(self) -> Floats:
        """(tiles, K), to be added to the tiles' maps."""
        import scipy.sparse
        import scipy.sparse.linalg

        if not self._pairs:
            classes = len(self._open[0][2]) if self._open else 0
            return np.zeros((self._count, classes))
        first, second = np.array(self._pairs).T
        pairs = np.arange(len(first))
        signs = scipy.sparse.csr_matrix(
            (np.repeat([1.0, -1.0], len(first)), (np.tile(pairs, 2), np.concatenate([first, second]))),
            shape=(len(first), self._count),
        )
        weighted = signs.T @ scipy.sparse.diags(np.array(self._shares))
        matrix = (weighted @ signs + LEVELLING * scipy.sparse.identity(self._count)).tocsc()
        solve = scipy.sparse.linalg.factorized(matrix)
        wanted = -(weighted @ np.stack(self._differences))
        return np.stack([solve(column) for column in wanted.T], axis=1)


def _mean_over(maps: Floats, place: Place, region: tuple[int, int, int, int]) -> Floats:
    """(K,) means over a region of the scene of maps (K, h, w), as if they had been enlarged to their tile."""
    top, bottom, left, right = region
    rows = _strip(maps.shape[1], place.height, top - place.row, bottom - place.row)
    columns = _strip(maps.shape[2], place.width, left - place.column, right - place.column)
    return np.asarray(rows @ maps @ columns)


@lru_cache(maxsize=256)
def _strip(cells: int, pixels: int, first: int, last: int) -> Floats:
    """(cells,) what the mean over pixels [first, last) takes of each cell, bilinear, align_corners False."""
    weights = F.interpolate(
        torch.eye(cells, dtype=torch.float64)[None], size=pixels, mode="linear", align_corners=False
    )
    return np.asarray(weights[0, :, first:last].mean(dim=1).numpy())
