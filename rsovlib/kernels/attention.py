"""Attention fusion (CAF): one running map for all layers, its normalisations, and resampling between grids.

Self-attention maps of a transformer's blocks are added up in one accumulator R (..., n, n): rows are queries,
columns are keys, leading axes are batch and heads.  A *reading* of R is what multiplies the values:

    official code                                        paper (equations 4 and 5)
    R <- R / colsum(R);  R <- R / rowsum(R)   (in place)  (nothing)
    W = (R + R^T) / 2                                     W = (R + R^T) / 2
    W = relu(W - mean of W over the queries)              W = relu(W - mean of R)
    W = W / rowsum(W)                                     W = W / rowsum(W)

The official code repeats the normalisation in place for each of its k = 1..L features, so the k-th feature sees a
map that had k rounds (Sinkhorn and Knopp 1967, doi:10.2140/pjm.1967.21.343): after many rounds R is doubly
stochastic.  No layer's map is kept: memory is one R, and one head at a time where a reading is applied.
Source: Bidirectional Cross-Perception for Open-Vocabulary Semantic Segmentation in Remote Sensing Imagery.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rsovlib.errors import unknown_name
from rsovlib.kernels._arrays import is_torch, require

if TYPE_CHECKING:
    import torch

    from rsovlib.kernels._arrays import ArrayT

_SUBTRACT = ("column_mean", "global_mean")


def accumulate(maps: torch.Tensor | None, layer_map: torch.Tensor) -> torch.Tensor:
    """Add one layer's attention to the running sum, in place.

    Args:
        maps: the sum so far, (..., n, n), or None at the first layer.  Without gradients it is changed in place.
        layer_map: (..., n, n) softmax attention of one layer.

    Returns:
        The sum: ``maps`` itself, or a copy of ``layer_map`` in float32 (float64 stays) at the first layer.

    Raises:
        InputError: the shapes differ or aren't square.
    """
    _check_square(layer_map, "layer_map")
    if maps is None:
        import torch

        kind = torch.float64 if layer_map.dtype == torch.float64 else torch.float32
        return layer_map.to(kind, copy=True)
    require(
        maps.shape == layer_map.shape,
        f"All layers must have maps of one shape: the sum is {tuple(maps.shape)}, this one {tuple(layer_map.shape)}.",
    )
    return maps + layer_map if layer_map.requires_grad or maps.requires_grad else maps.add_(layer_map)


def normalise_round_(maps: torch.Tensor) -> torch.Tensor:
    """One Sinkhorn round in place: columns to sum 1, then rows to sum 1.

    Args:
        maps: R, (..., n, n), non-negative.  Overwritten, unless it needs gradients.

    Returns:
        The normalised R: ``maps`` itself, or a new tensor where gradients must flow.

    Raises:
        InputError: ``maps`` isn't square.
    """
    _check_square(maps, "maps")
    if maps.requires_grad:
        columns = maps / _nonzero(maps.sum(dim=-2, keepdim=True))
        return columns / _nonzero(columns.sum(dim=-1, keepdim=True))
    maps.div_(_nonzero(maps.sum(dim=-2, keepdim=True)))
    return maps.div_(_nonzero(maps.sum(dim=-1, keepdim=True)))


def processed_map(maps: torch.Tensor, subtract: str = "column_mean") -> torch.Tensor:
    """The reading of R that multiplies the values: symmetric part, mean removed, clipped, rows normalised.

    Args:
        maps: R, (..., n, n); untouched.
        subtract: ``"column_mean"``, the mean over the query axis, one value for each key (official code), or
            ``"global_mean"``, one value for each matrix (paper).

    Returns:
        W, (..., n, n), non-negative; rows sum to 1, or to 0 where the clipping left nothing.

    Raises:
        InputError: ``maps`` isn't square, or ``subtract`` is neither of the two.
    """
    _check_square(maps, "maps")
    if subtract not in _SUBTRACT:
        raise unknown_name("mean to subtract", subtract, _SUBTRACT)
    symmetric = maps + maps.transpose(-1, -2)
    axes = (-2,) if subtract == "column_mean" else (-2, -1)
    mean = symmetric.mean(dim=axes, keepdim=True)
    if maps.requires_grad:
        clipped = ((symmetric - mean) / 2).relu()
        return clipped / _nonzero(clipped.sum(dim=-1, keepdim=True))
    # Halving the symmetric sum would cancel in the last division, so it is left out; `symmetric` is ours to reuse.
    symmetric.sub_(mean).relu_()
    return symmetric.div_(_nonzero(symmetric.sum(dim=-1, keepdim=True)))


def fuse_values(
    maps: torch.Tensor, values: torch.Tensor, subtract: str = "column_mean"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply :func:`processed_map` to the values head by head, so that only one head's map exists at a time.

    Args:
        maps: R, (B, heads, n, n); untouched.
        values: V, (B, heads, n, d).
        subtract: see :func:`processed_map`.

    Returns:
        W V, (B, heads, n, d), and the mean of W over the heads, (B, n, n).

    Raises:
        InputError: shapes don't match.
    """
    _check_square(maps, "maps")
    require(
        maps.ndim == 4 and values.ndim == 4 and values.shape[:3] == maps.shape[:3],
        f"maps (B, heads, n, n) and values (B, heads, n, d) don't match: {tuple(maps.shape)}, {tuple(values.shape)}.",
    )
    import torch

    heads = maps.shape[1]
    fused = []
    mean: Any = 0
    for head in range(heads):
        weights = processed_map(maps[:, head], subtract)
        fused.append(weights.to(values.dtype) @ values[:, head])
        mean = mean + weights if maps.requires_grad or head == 0 else mean.add_(weights)
    return torch.stack(fused, dim=1), mean / heads


class FusedAttention:
    """The accumulator of CAF: add every layer's map, then read it once for each feature.

    Example:
        >>> fused = FusedAttention(rounds="cumulative")
        >>> for block in blocks:                       # doctest: +SKIP
        ...     fused.add(block_attention)             # (B, heads, n, n)
        >>> for values in per_layer_values:            # doctest: +SKIP
        ...     attended, head_mean = fused.read(values)

    Args:
        rounds: ``"cumulative"``: every read first does one more Sinkhorn round in place (official); a number: that
            many rounds once, before the first read (0 is the paper's reading).
        subtract: see :func:`processed_map`.
    """

    def __init__(self, rounds: str | int = "cumulative", subtract: str = "column_mean") -> None:
        require(
            rounds == "cumulative" or (isinstance(rounds, int) and rounds >= 0),
            f"rounds must be 'cumulative' or a number of rounds, got {rounds!r}.",
        )
        if subtract not in _SUBTRACT:
            raise unknown_name("mean to subtract", subtract, _SUBTRACT)
        self.rounds = rounds
        self.subtract = subtract
        self.layers = 0
        self.maps: torch.Tensor | None = None
        self._settled = False

    def add(self, layer_map: torch.Tensor) -> None:
        """Add one layer's attention (..., n, n) to the sum."""
        require(not self._settled, "This accumulator was read already; make a new one for the next image.")
        self.maps = accumulate(self.maps, layer_map)
        self.layers += 1

    def average(self) -> torch.Tensor:
        """The mean of the layers' maps, equation 4; only before the first read.

        Raises:
            InputError: no map was added, or the sum was normalised already.
        """
        require(not self._settled, "The sum was normalised in place already; take the average before reading.")
        return self._sum() / self.layers

    def map(self) -> torch.Tensor:
        """The next reading's map W (..., n, n); with cumulative rounds every call does one more round."""
        return processed_map(self._advance(), self.subtract)

    def read(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The next reading applied to values (B, heads, n, d): W V and the head mean of W; see :func:`fuse_values`."""
        return fuse_values(self._advance(), values, self.subtract)

    def _sum(self) -> torch.Tensor:
        require(self.maps is not None, "No attention map was added yet.")
        return self.maps  # type: ignore[return-value]

    def _advance(self) -> torch.Tensor:
        maps = self._sum()
        if self.rounds == "cumulative":
            todo = 1
        else:
            todo = 0 if self._settled else int(self.rounds)
        for _ in range(todo):
            maps = normalise_round_(maps)
        self.maps = maps
        self._settled = True
        return maps


def resample_attention(
    attention: ArrayT,
    source: tuple[int, int],
    target: tuple[int, int],
    *,
    align_renorm: bool = False,
) -> ArrayT:
    """Carry a patch-to-patch map from one token grid to another, bilinearly on both axes.

    Every row is an image on the source grid and is enlarged or reduced (align_corners False, no antialias): the key
    axis; then the same is done for every column: the query axis.  Sums of rows change by about
    n_target / n_source, since a row gets more (or fewer) entries of the same size.

    Args:
        attention: (..., n, n) with n = h w of the source grid, row-major; torch or NumPy.
        source: (h, w) of the grid it lies on.
        target: (h, w) of the grid wanted.
        align_renorm: scale every row to the sum that its (bilinearly interpolated) source row had.

    Returns:
        (..., m, m) with m = h w of the target grid; equal to the input where the grids agree.

    Raises:
        InputError: the map isn't square or doesn't fit the source grid, or a grid has no cell.
    """
    import torch

    values: torch.Tensor = attention if is_torch(attention) else torch.from_numpy(np.asarray(attention))  # type: ignore[assignment]
    _check_square(values, "attention")
    require(min(*source, *target) >= 1, f"Grids need at least one cell a side, got {source} and {target}.")
    require(
        values.shape[-1] == source[0] * source[1],
        f"A map of {values.shape[-1]} tokens doesn't fit the grid {source[0]} x {source[1]}.",
    )
    if tuple(source) != tuple(target):
        keys = _resize_last(values, source, target)
        resampled = _resize_last(keys.transpose(-1, -2), source, target).transpose(-1, -2)
        if align_renorm:
            wanted = _resize_last(values.sum(dim=-1).unsqueeze(-2), source, target).squeeze(-2).unsqueeze(-1)
            resampled = resampled * (wanted / _nonzero(resampled.sum(dim=-1, keepdim=True)))
        values = resampled.contiguous()
    return values if is_torch(attention) else values.numpy()  # type: ignore[return-value]


def _resize_last(values: torch.Tensor, source: tuple[int, int], target: tuple[int, int]) -> torch.Tensor:
    """(..., rows, h w) -> (..., rows, H W): the last axis is an image; the others are carried along."""
    from torch.nn.functional import interpolate

    lead = values.shape[:-1]
    images = values.reshape(-1, 1, *source)
    resized = interpolate(images, size=tuple(target), mode="bilinear", align_corners=False)
    return resized.reshape(*lead, target[0] * target[1])


def _nonzero(sums: torch.Tensor) -> torch.Tensor:
    """Sums to divide by: an empty row stays empty in place of turning into NaN."""
    return sums.masked_fill(sums == 0, 1.0)


def _check_square(maps: torch.Tensor, name: str) -> None:
    require(
        maps.ndim >= 2 and maps.shape[-1] == maps.shape[-2],
        f"{name} must be square in its last two axes, got {tuple(maps.shape)}.",
    )
