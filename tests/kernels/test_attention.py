"""Attention fusion against slow loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rsovlib.errors import InputError
from rsovlib.kernels import (
    FusedAttention,
    accumulate,
    fuse_values,
    normalise_round_,
    processed_map,
    resample_attention,
)


def layer(seed: int, shape: tuple[int, ...] = (2, 3, 7, 7), kind: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(shape, generator=generator, dtype=torch.float64)).softmax(dim=-1).to(kind)


def slow_processed(matrix: np.ndarray, subtract: str) -> np.ndarray:
    n = len(matrix)
    result = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            column = np.mean([(matrix[m, j] + matrix[j, m]) / 2 for m in range(n)])
            mean = column if subtract == "column_mean" else matrix.mean()
            result[i, j] = max((matrix[i, j] + matrix[j, i]) / 2 - mean, 0)
        result[i] /= result[i].sum() or 1
    return result


@pytest.mark.parametrize("subtract", ["column_mean", "global_mean"])
def test_the_reading_is_the_slow_one(subtract):
    maps = layer(0)
    before = maps.clone()
    result = processed_map(maps, subtract)
    assert torch.equal(maps, before)
    for b in range(2):
        for h in range(3):
            np.testing.assert_allclose(result[b, h], slow_processed(maps[b, h].numpy(), subtract), atol=1e-14)
    sums = result.sum(dim=-1)
    assert bool(((sums - 1).abs().minimum(sums.abs()) < 1e-12).all())  # 1, or 0 where the clipping left nothing
    assert float(sums.mean()) > 0.9


def test_a_uniform_map_leaves_nothing_and_no_nan():
    result = processed_map(torch.full((4, 4), 0.25))
    assert torch.equal(result, torch.zeros(4, 4))


def test_the_sum_is_taken_in_place_and_in_float32():
    first = layer(0, kind=torch.float16)
    total = accumulate(None, first)
    assert total.dtype == torch.float32
    assert total.data_ptr() != first.data_ptr()
    again = accumulate(total, layer(1, kind=torch.float32))
    assert again.data_ptr() == total.data_ptr()
    torch.testing.assert_close(again, first.float() + layer(1, kind=torch.float32))


def test_rounds_are_in_place_and_end_doubly_stochastic():
    maps = layer(0)
    expected = maps.clone()
    expected = expected / expected.sum(dim=-2, keepdim=True)
    expected = expected / expected.sum(dim=-1, keepdim=True)
    result = normalise_round_(maps)
    assert result.data_ptr() == maps.data_ptr()
    torch.testing.assert_close(result, expected)
    for _ in range(200):
        normalise_round_(maps)
    for axis in (-1, -2):
        torch.testing.assert_close(maps.sum(dim=axis), torch.ones(2, 3, 7, dtype=torch.float64), atol=1e-8, rtol=0)


def test_cumulative_reading_does_one_more_round_each_time():
    fused = FusedAttention()
    layers = [layer(seed) for seed in range(3)]
    for each in layers:
        fused.add(each)
    torch.testing.assert_close(fused.average(), sum(layers) / 3)
    maps = sum(layers)
    values = torch.randn(2, 3, 7, 5, dtype=torch.float64)
    for _ in range(4):
        maps = normalise_round_(maps.clone())
        weights = processed_map(maps)
        attended, mean = fused.read(values)
        torch.testing.assert_close(attended, weights @ values)
        torch.testing.assert_close(mean, weights.mean(dim=1))
    with pytest.raises(InputError, match="read already"):
        fused.add(layers[0])
    with pytest.raises(InputError, match="normalised in place"):
        fused.average()


@pytest.mark.parametrize("rounds", [0, 2])
def test_a_number_of_rounds_is_done_once(rounds):
    fused = FusedAttention(rounds=rounds, subtract="global_mean")
    fused.add(layer(0))
    maps = layer(0)
    for _ in range(rounds):
        maps = normalise_round_(maps)
    for _ in range(2):
        torch.testing.assert_close(fused.map(), processed_map(maps, "global_mean"))


def test_gradients_flow():
    maps = layer(0, (1, 2, 4, 4)).requires_grad_()
    values = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)

    def reading(m, v):
        return fuse_values(normalise_round_(m), v)

    assert torch.autograd.gradcheck(reading, (maps, values))
    assert torch.autograd.gradcheck(lambda m: accumulate(accumulate(None, m), 2 * m), maps)


def slow_weights(source: int, target: int) -> np.ndarray:
    """Bilinear weights (target, source) with half-pixel centres and clamped ends."""
    result = np.zeros((target, source))
    for t in range(target):
        position = min(max((t + 0.5) * source / target - 0.5, 0), source - 1)
        low = int(np.floor(position))
        high = min(low + 1, source - 1)
        result[t, low] += 1 - (position - low)
        result[t, high] += position - low
    return result


@pytest.mark.parametrize(("source", "target"), [((3, 4), (5, 7)), ((5, 7), (3, 4)), ((6, 1), (2, 3)), ((1, 1), (2, 2))])
def test_resampling_is_the_product_with_bilinear_weights(source, target):
    n = source[0] * source[1]
    attention = layer(0, (2, n, n))
    both = np.kron(slow_weights(source[0], target[0]), slow_weights(source[1], target[1]))
    expected = both @ attention.numpy() @ both.T
    np.testing.assert_allclose(resample_attention(attention, source, target), expected, atol=1e-14)
    as_numpy = resample_attention(attention.numpy()[0], source, target)
    assert isinstance(as_numpy, np.ndarray)
    np.testing.assert_allclose(as_numpy, expected[0], atol=1e-14)


def test_row_sums_grow_with_the_grid_unless_they_are_kept():
    attention = layer(0, (48, 48), torch.float32)
    plain = resample_attention(attention, (6, 8), (12, 16))
    assert float(plain.sum(dim=1).mean()) == pytest.approx(4, rel=0.01)
    kept = resample_attention(attention, (6, 8), (12, 16), align_renorm=True)
    torch.testing.assert_close(kept.sum(dim=1), torch.ones(192))
    torch.testing.assert_close(kept / plain, (kept / plain)[:, :1].expand(-1, 192), rtol=1e-4, atol=1e-5)


def test_the_same_grid_is_returned_as_it_is():
    attention = layer(0, (12, 12))
    assert torch.equal(resample_attention(attention, (3, 4), (3, 4)), attention)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: processed_map(torch.ones(3, 4)), "square"),
        (lambda: processed_map(torch.ones(3, 3), "colum_mean"), "Did you mean 'column_mean'"),
        (lambda: accumulate(torch.ones(3, 3), torch.ones(4, 4)), "one shape"),
        (lambda: fuse_values(torch.ones(1, 2, 3, 3), torch.ones(1, 3, 3, 2)), "don't match"),
        (lambda: resample_attention(torch.ones(12, 12), (3, 5), (2, 2)), "doesn't fit the grid"),
        (lambda: resample_attention(torch.ones(12, 12), (3, 4), (0, 2)), "at least one cell"),
        (lambda: FusedAttention(rounds="all"), "rounds"),
        (lambda: FusedAttention(rounds=-1), "rounds"),
        (lambda: FusedAttention(subtract="mean"), "mean to subtract"),
        (lambda: FusedAttention().map(), "No attention map"),
    ],
)
def test_what_can_be_wrong_is_said(call, words):
    with pytest.raises(InputError, match=words):
        call()
