"""Another grid's attention applied to scores, without ever forming it on this grid.

CAF adds the other branch's attention B, carried bilinearly to this branch's grid on both axes: A + U B U^T, where U
(N, N') enlarges an image on the other grid to this one. ``kernels.resample_attention`` forms U B U^T, N x N numbers;
but all that is ever asked of it is its product with the scores, and products may be taken from the right:
U (B (U^T S)). U is separable, so both its products cost next to nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

Grid = tuple[int, int]


def carried_product(
    attention: torch.Tensor, scores: torch.Tensor, source: Grid, target: Grid, *, align_renorm: bool = False
) -> torch.Tensor:
    """``resample_attention(attention, source, target, align_renorm=...) @ scores``.

    Args:
        attention: B, (N', N') on the source grid.
        scores: S, (N, K) on the target grid.
        source: rows and columns of the grid that the attention lies on.
        target: rows and columns of the grid that the scores lie on.
        align_renorm: every row of the carried map gets the (interpolated) sum of the row that it was made from (D15).

    Returns:
        (N, K).
    """
    none = scores.new_empty(len(attention), 0)
    return joint_products(attention, none, scores, source, target, align_renorm)[1]


def joint_products(
    attention: torch.Tensor,
    own: torch.Tensor,
    other: torch.Tensor,
    grid: Grid,
    other_grid: Grid,
    align_renorm: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """An attention times the scores of its own grid, and, carried to another grid, times the scores there.

    Both products are taken in one: reading the attention, N x N numbers for a few columns, is all the work.

    Args:
        attention: B, (N, N) on ``grid``.
        own: (N, K).
        other: (N', K') on ``other_grid``.
        grid: rows and columns.
        other_grid: rows and columns.
        align_renorm: see :func:`carried_product`.

    Returns:
        ``B @ own`` (N, K), and ``resample_attention(B, grid, other_grid) @ other`` (N', K').
    """
    split = [own.shape[1], other.shape[1]]
    if grid == other_grid:
        mine, carried = (attention @ torch.cat([own, other], dim=1)).split(split, dim=1)
        return mine, carried
    columns = [own, _gathered(other, grid, other_grid)]
    if align_renorm:
        columns.append(_gathered(torch.ones_like(other[:, :1]), grid, other_grid))
        split.append(1)
    mine, product, *sums = (attention @ torch.cat(columns, dim=1)).split(split, dim=1)
    carried = _enlarged(product, grid, other_grid)
    if align_renorm:
        wanted = _enlarged(attention.sum(dim=1, keepdim=True), grid, other_grid)
        found = _enlarged(sums[0], grid, other_grid)
        carried = carried * (wanted / found.masked_fill(found == 0, 1.0))
    return mine, carried


def _weights(source: int, target: int, like: torch.Tensor) -> torch.Tensor:
    """(target, source): what every cell of the target takes from the source's, bilinear, align_corners False."""
    cells = torch.eye(source, dtype=like.dtype, device=like.device)
    return F.interpolate(cells[None], size=target, mode="linear", align_corners=False)[0].T


def _enlarged(values: torch.Tensor, source: Grid, target: Grid) -> torch.Tensor:
    """U values: (N', K) on the source grid -> (N, K) on the target grid."""
    rows, columns = (_weights(s, t, values) for s, t in zip(source, target, strict=True))
    # One axis after the other: all three factors at once would first make the product of both axes' weights.
    down = torch.tensordot(rows, values.unflatten(0, source), dims=1)  # (rows of the target, columns of the source, K)
    return torch.einsum("bw,awk->abk", columns, down).flatten(0, 1)


def _gathered(values: torch.Tensor, source: Grid, target: Grid) -> torch.Tensor:
    """U^T values: (N, K) on the target grid -> (N', K) on the source grid."""
    rows, columns = (_weights(s, t, values) for s, t in zip(source, target, strict=True))
    down = torch.tensordot(rows.T, values.unflatten(0, target), dims=1)
    return torch.einsum("bw,hbk->hwk", columns, down).flatten(0, 1)
