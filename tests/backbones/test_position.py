"""The dialects of resizing position embeddings, against references that sample one point at a time."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from rsovlib.backbones.position import POSITION_DIALECTS, resize_position
from rsovlib.errors import InputError


def cubic(x: float) -> float:
    """Keys' cubic convolution with a = -0.75, which torch and OpenCV use."""
    a, x = -0.75, abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def linear(x: float) -> float:
    return max(0.0, 1 - abs(x))


def weights(source: int, target: int, kernel, reach: int, step: float) -> torch.Tensor:
    """(target, source): how much of every source cell a target cell takes; cells beyond the border repeat it."""
    table = torch.zeros(target, source, dtype=torch.float64)
    for i in range(target):
        centre = (i + 0.5) * step - 0.5
        first = math.floor(centre) - reach + 1
        for j in range(first, first + 2 * reach):
            table[i, min(max(j, 0), source - 1)] += kernel(centre - j)
    return table


def slow(position: torch.Tensor, grid: tuple[int, int], dialect: str) -> torch.Tensor:
    side = math.isqrt(len(position))
    image = position.double().reshape(side, side, -1)
    tables = []
    for cells in grid:
        step = side / (cells + 0.1) if dialect == "bicubic_offset" else None
        step = side / cells if step is None else 1 / ((cells + 0.1) / side)
        kernel, reach = (linear, 1) if dialect == "bilinear" else (cubic, 2)
        tables.append(weights(side, cells, kernel, reach, step))
    return torch.einsum("ij,jkd,lk->ild", tables[0], image, tables[1]).reshape(grid[0] * grid[1], -1)


@pytest.mark.parametrize("grid", [(7, 4), (5, 5), (3, 9), (1, 2), (12, 12)])
@pytest.mark.parametrize("dialect", ["bilinear", "bicubic", "bicubic_offset"])
def test_against_a_slow_reference(grid, dialect):
    position = torch.randn(25, 3, generator=torch.Generator().manual_seed(3))
    # The square training grid is nobody's to touch.
    expected = position if grid == (5, 5) else slow(position, grid, dialect).float()
    torch.testing.assert_close(resize_position(position, grid, dialect), expected, rtol=1e-4, atol=1e-4)


def test_antialias_is_timms():
    """timm's own function is the reference for its dialect."""
    from timm.layers import resample_abs_pos_embed

    position = torch.randn(1, 36, 5)
    for grid in ((4, 9), (3, 3), (13, 7)):
        expected = resample_abs_pos_embed(position, list(grid), num_prefix_tokens=0)[0]
        torch.testing.assert_close(resize_position(position[0], grid, "bicubic_antialias"), expected)


def test_the_dialects_differ():
    position = torch.randn(36, 5)
    answers = [resize_position(position, (4, 9), dialect) for dialect in POSITION_DIALECTS]
    for i, one in enumerate(answers):
        assert one.shape == (36, 5)
        for other in answers[i + 1 :]:
            assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("dialect", POSITION_DIALECTS)
def test_a_constant_stays_constant(dialect):
    constant = torch.full((16, 2), 0.7)
    torch.testing.assert_close(resize_position(constant, (3, 11), dialect), torch.full((33, 2), 0.7))


def test_half_precision_is_resized_in_single():
    position = torch.randn(16, 4).half()
    resized = resize_position(position, (5, 3))
    assert resized.dtype == torch.float16
    image = position.float().reshape(1, 4, 4, 4).permute(0, 3, 1, 2)
    expected = F.interpolate(image, size=(5, 3), mode="bilinear", align_corners=False)[0].flatten(1).T
    torch.testing.assert_close(resized, expected.half())


def test_mistakes():
    with pytest.raises(InputError, match=r"bicubik.*Did you mean 'bicubic'"):
        resize_position(torch.zeros(16, 2), (2, 2), "bicubik")
    with pytest.raises(InputError, match="square"):
        resize_position(torch.zeros(15, 2), (2, 2))
