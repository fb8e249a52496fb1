"""InfoNCE: closed forms, a slow reference, and retrieval."""

from __future__ import annotations

import math

import pytest
import torch

from rsovlib.errors import InputError
from rsovlib.fusion.infonce import (
    ContrastRule,
    multiscale_infonce,
    retrieval,
    sample_positions,
    take_positions,
    token_infonce,
)


def slow_infonce(queries: torch.Tensor, keys: torch.Tensor, tau: float, same_image: bool) -> float:
    """The formula of the module's docstring, term by term."""
    unit = lambda x: [float(value) / math.sqrt(sum(float(v) ** 2 for v in x)) for value in x]  # noqa: E731
    images, places = queries.shape[:2]
    q = {(b, p): unit(queries[b, p]) for b in range(images) for p in range(places)}
    k = {(b, p): unit(keys[b, p]) for b in range(images) for p in range(places)}
    dot = lambda a, b: sum(x * y for x, y in zip(a, b, strict=True))  # noqa: E731
    losses = []
    for at, query in q.items():
        positive = math.exp(dot(query, k[at]) / tau)
        others = [other for other in k if other != at and (not same_image or other[0] == at[0])]
        negative = sum(math.exp(dot(query, k[other]) / tau) for other in others)
        losses.append(-math.log(positive / (positive + negative)))
    return sum(losses) / len(losses)


@pytest.fixture
def tokens() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    keys = torch.randn(3, 5, 4, generator=generator)
    return keys + 0.3 * torch.randn(3, 5, 4, generator=generator), keys


@pytest.mark.parametrize("tau", [0.07, 0.5, 2.0])
@pytest.mark.parametrize("negatives", ["batch", "image"])
def test_equals_the_formula(tokens, tau: float, negatives) -> None:
    queries, keys = tokens
    found = token_infonce(queries, keys, ContrastRule(tau, negatives))
    assert float(found) == pytest.approx(slow_infonce(queries, keys, tau, negatives == "image"), rel=1e-5)


def test_tokens_that_cannot_be_told_apart_cost_the_logarithm_of_their_number() -> None:
    same = torch.ones(2, 6, 8)
    assert float(token_infonce(same, same)) == pytest.approx(math.log(12), rel=1e-6)
    assert float(token_infonce(same, same, ContrastRule(negatives="image"))) == pytest.approx(math.log(6), rel=1e-6)


def test_orthonormal_tokens_have_the_closed_form() -> None:
    tau, count = 0.5, 8
    basis = torch.eye(count).reshape(2, 4, count) * 3  # of any norm
    expected = -math.log(math.exp(1 / tau) / (math.exp(1 / tau) + count - 1))
    assert float(token_infonce(basis, basis, ContrastRule(tau))) == pytest.approx(expected, rel=1e-6)


def test_symmetric_is_the_mean_of_both_directions(tokens) -> None:
    queries, keys = tokens
    both = token_infonce(queries, keys, ContrastRule(symmetric=True))
    one, other = token_infonce(queries, keys), token_infonce(keys, queries)
    assert float(one) != pytest.approx(float(other), rel=1e-3)
    assert float(both) == pytest.approx(0.5 * float(one + other), rel=1e-6)


def test_pooled_compares_means_of_images(tokens) -> None:
    queries, keys = tokens
    pooled = token_infonce(queries, keys, ContrastRule(pooled=True))
    means = token_infonce(queries.mean(1, keepdim=True), keys.mean(1, keepdim=True))
    assert float(pooled) == pytest.approx(float(means), rel=1e-6)
    with pytest.raises(InputError, match="negatives='batch'"):
        ContrastRule(pooled=True, negatives="image")


def test_depths_are_averaged_at_the_chosen_places(tokens) -> None:
    queries, keys = tokens
    places = torch.tensor([[0, 2], [1, 4], [3, 0]])
    found = multiscale_infonce([queries, 2 * keys], [keys, keys], ContrastRule(0.3), places)
    picked = torch.stack([queries[b, places[b]] for b in range(3)])
    targets = torch.stack([keys[b, places[b]] for b in range(3)])
    expected = 0.5 * (
        token_infonce(picked, targets, ContrastRule(0.3)) + token_infonce(targets, targets, ContrastRule(0.3))
    )
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


def test_places_are_drawn_without_repetition() -> None:
    torch.manual_seed(0)
    places = sample_positions(5, 9, 6)
    assert places.shape == (5, 6)
    assert all(len(set(row.tolist())) == 6 and set(row.tolist()) <= set(range(9)) for row in places)
    assert sample_positions(2, 4, 10).shape == (2, 4)
    counts = torch.bincount(sample_positions(4000, 4, 1).ravel(), minlength=4)
    assert counts.min() > 900  # of 1000 each


def test_gradient_pulls_a_query_to_its_key() -> None:
    torch.manual_seed(1)
    keys = torch.randn(1, 6, 4)
    queries = torch.randn(1, 6, 4, requires_grad=True)
    before = token_infonce(queries, keys)
    (gradient,) = torch.autograd.grad(before, queries)
    assert token_infonce(queries - 0.05 * gradient, keys) < before


def test_retrieval_counts_hits_and_says_what_chance_is() -> None:
    keys = torch.eye(10).reshape(2, 5, 10)
    found = retrieval(keys, keys)
    assert (found.top1, found.chance, found.candidates, found.queries) == (1.0, 0.1, 10, 10)
    swapped = keys.flatten(0, 1)[[1, 0, *range(2, 10)]].reshape(2, 5, 10)
    assert retrieval(swapped, keys).top1 == pytest.approx(0.8)
    assert take_positions(keys, torch.tensor([[4], [0]]))[0, 0, 4] == 1


def test_retrieval_across_images_can_not_be_won_by_position() -> None:
    position = 5 * torch.eye(4)[None].expand(3, -1, -1)  # (images, places, 4): where, and nothing of what
    blind = torch.cat([position, torch.zeros(3, 4, 2)], dim=2)
    found = retrieval(blind, blind, across=True)
    assert (found.top1, found.chance, found.candidates, found.queries) == (pytest.approx(1 / 3), 1 / 3, 3, 12)
    content = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    assert retrieval(content, content, across=True).top1 == 1.0
    assert retrieval(content.roll(1, dims=0), content, across=True).top1 == 0.0


@pytest.mark.parametrize(
    ("queries", "keys"),
    [(torch.zeros(2, 3), torch.zeros(2, 3)), (torch.zeros(1, 2, 3), torch.zeros(1, 3, 3))],
)
def test_shapes_that_do_not_fit_are_refused(queries, keys) -> None:
    with pytest.raises(InputError, match=r"\(B, P, D\)"):
        token_infonce(queries, keys)


def test_senseless_rules_are_refused() -> None:
    with pytest.raises(InputError, match="temperature"):
        ContrastRule(0.0)
    with pytest.raises(InputError, match="Did you mean"):
        ContrastRule(negatives="images")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="depths"):
        multiscale_infonce([], [])
