"""Window attention and class attention against slow references in double precision, written from their definitions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rsovlib.fusion.classwise import ClassAggregation
from rsovlib.fusion.guided import GuidedConv, GuidedLinear
from rsovlib.fusion.spatial import SpatialAggregation, WindowBlock, window_mask


def randomised(module: nn.Module, seed: int) -> nn.Module:
    """Double precision, and no parameter at zero, so that none can be forgotten unnoticed."""
    torch.manual_seed(seed)
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    return module


def window_of(cell: tuple[int, int], grid: tuple[int, int], window: int, shifted: bool) -> tuple[int, int]:
    """The window that a cell lies in; a side that one window covers is not shifted."""
    first, second = (
        (place - (window // 2 if shifted and side > window else 0)) // window
        for place, side in zip(cell, grid, strict=True)
    )
    return first, second


def slow_block(block: WindowBlock, x: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
    """One image and class, (h, w, C), cell by cell."""
    grid = (x.shape[0], x.shape[1])
    cells = [(r, c) for r in range(grid[0]) for c in range(grid[1])]
    normed = block.norm(x)
    size = x.shape[-1] // block.heads
    attended = torch.zeros_like(x)
    for cell in cells:
        here = window_of(cell, grid, block.window, block.shifted)
        peers = [other for other in cells if window_of(other, grid, block.window, block.shifted) == here]
        query = F.linear(torch.cat([normed[cell], guidance[cell]]), block.query.weight, block.query.bias)
        keys = [F.linear(torch.cat([normed[p], guidance[p]]), block.key.weight, block.key.bias) for p in peers]
        values = [block.value(normed[p]) for p in peers]
        heads = []
        for head in range(block.heads):
            part = slice(head * size, (head + 1) * size)
            scores = torch.stack([query[part] @ key[part] for key in keys]) / math.sqrt(size)
            heads.append(scores.softmax(0) @ torch.stack([value[part] for value in values]))
        attended[cell] = block.out(torch.cat(heads))
    x = x + attended
    return x + block.mlp(block.mlp_norm(x))


@pytest.mark.parametrize("grid", [(8, 8), (4, 4), (7, 9), (3, 10), (2, 3), (1, 1)])
def test_windows_agree_with_cell_by_cell(grid: tuple[int, int]) -> None:
    layer = randomised(SpatialAggregation(width=8, guidance=6, heads=2, window=4), 1)
    x, guidance = torch.randn(2, 3, *grid, 8).double(), torch.randn(2, *grid, 6).double()
    with torch.no_grad():
        got = layer(x, guidance)
        guide = layer.guidance_norm(guidance)
        for image in range(2):
            for number in range(3):
                slow = x[image, number]
                for block in layer.blocks:
                    slow = slow_block(block, slow, guide[image])
                torch.testing.assert_close(got[image, number], slow, rtol=1e-10, atol=1e-10)


def test_full_windows_without_shift_need_no_mask() -> None:
    assert window_mask((24, 24), 12, False) is None
    shifted = window_mask((24, 24), 12, True)
    assert shifted is not None
    assert shifted.shape == (4, 144, 144)
    # The first window touches no border; the last holds four corners of a quarter each.
    assert shifted[0].all()
    assert shifted[3].sum() == 4 * 36 * 36


def slow_classes(layer: ClassAggregation, x: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
    """One image (T, h, w, C), with the filling tokens written out and every sum a loop over tokens."""
    count, height, width, channels = x.shape
    rows, columns = math.ceil(height / 2), math.ceil(width / 2)
    size = channels // layer.heads
    small = torch.zeros(count, rows, columns, channels, dtype=x.dtype)
    for row in range(rows):
        for column in range(columns):
            patch = x[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            tokens = list(patch.mean(dim=(1, 2)))
            guides = list(guidance)
            while len(tokens) < layer.length:
                tokens.append(layer.filling)
                guides.append(layer.filling_guidance)
            stacked = torch.stack(tokens)
            normed = layer.norm(stacked)
            pairs = torch.cat([normed, torch.stack(guides)], dim=1)
            query = F.elu(F.linear(pairs, layer.query.weight, layer.query.bias)) + 1
            key = F.elu(F.linear(pairs, layer.key.weight, layer.key.bias)) + 1
            value = layer.value(normed)
            mixed = torch.zeros_like(stacked)
            for head in range(layer.heads):
                part = slice(head * size, (head + 1) * size)
                weights = query[:, part] @ key[:, part].T
                mixed[:, part] = (weights @ value[:, part]) / (weights.sum(dim=1, keepdim=True) + 1e-6)
            stacked = stacked + mixed
            stacked = stacked + layer.mlp(layer.mlp_norm(stacked))
            small[:, row, column] = stacked[:count]
    large = F.interpolate(small.permute(0, 3, 1, 2), size=(height, width), mode="bilinear", align_corners=True)
    return x + large.permute(0, 2, 3, 1)


@pytest.mark.parametrize("length", [0, 5, 17])
@pytest.mark.parametrize("grid", [(6, 4), (5, 3), (1, 1)])
def test_class_attention_agrees_with_written_out_padding(length: int, grid: tuple[int, int]) -> None:
    layer = randomised(ClassAggregation(width=8, guidance=6, heads=2, length=length), 2)
    x, guidance = torch.randn(2, 5, *grid, 8).double(), torch.randn(5, 6).double()
    with torch.no_grad():
        got = layer(x, guidance)
        for image in range(2):
            slow = slow_classes(layer, x[image], guidance)
            torch.testing.assert_close(got[image], slow, rtol=1e-10, atol=1e-10)


def test_padding_matters_until_the_list_is_full() -> None:
    short, full = ClassAggregation(8, 6, 2, length=5), ClassAggregation(8, 6, 2, length=50)
    randomised(full, 3)
    short.load_state_dict(full.state_dict())
    short.double()
    x, guidance = torch.randn(1, 5, 4, 4, 8).double(), torch.randn(5, 6).double()
    assert (short(x, guidance) - full(x, guidance)).abs().max() > 1e-3


def test_guided_layers_are_plain_ones_of_both_inputs() -> None:
    linear = randomised(GuidedLinear(5, 3, 7), 4)
    x, guidance = torch.randn(2, 4, 5).double(), torch.randn(4, 3).double()
    together = torch.cat([x, guidance.expand(2, 4, 3)], dim=-1)
    torch.testing.assert_close(linear(x, guidance), F.linear(together, linear.weight, linear.bias))

    conv = randomised(GuidedConv(5, 3, 7), 5)
    maps, skip = torch.randn(2, 4, 5, 6, 7).double(), torch.randn(2, 3, 6, 7).double()
    joined = torch.cat([maps, skip[:, None].expand(-1, 4, -1, -1, -1)], dim=2)
    plain = F.conv2d(joined.flatten(0, 1), conv.weight, padding=1).unflatten(0, (2, 4))
    torch.testing.assert_close(conv(maps, skip), plain)
