"""The watched attention gives what torch gives, and leaves the mean of the heads' maps behind, however it is cut."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from timm.layers import Attention
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from rsovlib.backbones import watching
from rsovlib.backbones.watching import WatchedAttention

PREFIX = 2


@pytest.fixture
def attention() -> Attention:
    torch.manual_seed(0)
    return Attention(12, num_heads=3, qkv_bias=True).eval()


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randn(2, 11, 12, generator=torch.Generator().manual_seed(1))


def mean_by_hand(attention: Attention, tokens: torch.Tensor) -> torch.Tensor:
    query, key, _ = attention.qkv(tokens).view(2, 11, 3, 3, 4).permute(2, 0, 3, 1, 4).double()
    return (query @ key.transpose(-1, -2) / 2).softmax(dim=-1).mean(dim=1)[:, PREFIX:, PREFIX:].float()


@pytest.mark.parametrize("at_once", [1, 70, 200, 10_000])
def test_any_cut_gives_the_same(attention, tokens, monkeypatch, at_once):
    monkeypatch.setitem(watching._AT_ONCE, "cpu", at_once)
    with torch.inference_mode():
        expected = attention(tokens)
        with WatchedAttention(0, PREFIX) as watched:
            assert_close(attention(tokens), expected)
        assert_close(watched.head_mean, mean_by_hand(attention, tokens))
    assert watched.head_mean.is_contiguous()


def test_gradients_pass(attention, tokens):
    plain, through = (tokens.clone().requires_grad_() for _ in range(2))
    attention(plain).square().sum().backward()
    with WatchedAttention(0, PREFIX) as watched:
        (attention(through).square().sum() + 0 * watched.head_mean.sum()).backward()
    assert_close(through.grad, plain.grad)


def test_only_the_watched_call_is_answered_here():
    query = torch.randn(1, 3, 5, 4)
    with torch.inference_mode(), WatchedAttention(1, 0) as watched:
        causal = scaled_dot_product_attention(query, query, query, is_causal=True)
        assert watched.head_mean.numel() == 0
        scaled_dot_product_attention(query, query, query)
        mean = watched.head_mean
        scaled_dot_product_attention(query + 1, query, query)
    assert watched.head_mean is mean
    assert watched.calls == 3
    assert_close(causal, scaled_dot_product_attention(query, query, query, is_causal=True))


def test_threads_do_not_meet(attention, tokens):
    """One module, used by several threads at once: each watches its own."""

    def mean(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        own = torch.randn(2, 11, 12, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode(), WatchedAttention(0, PREFIX) as watched:
            barrier.wait()
            attention(own)
            barrier.wait()
        return watched.head_mean, mean_by_hand(attention, own).detach()

    barrier = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        for got, expected in pool.map(mean, range(4)):
            assert_close(got, expected)


def test_a_masked_attention_is_refused(attention, tokens):
    mask = torch.zeros(11, 11)
    with pytest.raises(NotImplementedError, match="masked"), WatchedAttention(0, PREFIX):
        attention(tokens, attn_mask=mask)
