"""The neighbour graph and the diffusion on it, against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from rsovlib.errors import InputError
from rsovlib.kernels import (
    diffuse,
    diffuse_both,
    diffuse_limit,
    diffusion,
    knn_transition,
    nearest_neighbours,
    transition_of,
)


def dense_transition(features: np.ndarray, k: int, temperature: float) -> np.ndarray:
    """The same graph by full matrices and a stable sort."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    cosine = unit @ unit.T
    result = np.zeros_like(cosine)
    for i, row in enumerate(cosine):
        others = np.array([j for j in np.argsort(-row, kind="stable") if j != i][:k])
        weights = np.exp((row[others] - row[others].max()) / temperature)
        result[i, others] = weights / weights.sum()
    return result


def features(nodes: int = 97, size: int = 16, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((nodes, size)) + 2 * rng.standard_normal((1, size))


@pytest.mark.parametrize("k", [1, 7, 30, 96, 200])
def test_the_graph_is_the_dense_one(k):
    x = features()
    graph = knn_transition(x, k=k)
    assert isinstance(graph, csr_array)
    assert graph.dtype == np.float64
    assert graph.nnz == 97 * min(k, 96)
    assert graph.has_sorted_indices
    np.testing.assert_allclose(graph.toarray(), dense_transition(x, k, 0.07), atol=1e-12)
    np.testing.assert_allclose(graph.sum(axis=1), 1, atol=1e-12)
    assert (graph.diagonal() == 0).all()


def test_torch_gives_the_same_graph_as_numpy():
    x = features().astype(np.float32)
    graph = knn_transition(torch.from_numpy(x))
    assert graph.layout == torch.sparse_csr
    assert graph.dtype == torch.float32
    np.testing.assert_array_equal(graph.to_dense().numpy(), knn_transition(x).toarray())


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 80), st.integers(1, 40), st.integers(1, 6), st.integers(0, 2**31))
def test_ties_go_to_the_first_columns_on_every_path(nodes, k, levels, seed):
    rng = np.random.default_rng(seed)
    # One-hot features: cosines are 0 or 1 exactly, so nearly all neighbours are tied.
    x = torch.from_numpy(np.eye(levels, dtype=np.float32)[rng.integers(0, levels, nodes)])
    k = min(k, nodes - 1)
    columns, cosines = diffusion._nearest_on_cpu(x, k)
    other = diffusion._nearest(x, k)
    cosine = (x @ x.T).numpy()
    for i in range(nodes):
        expected = sorted([j for j in np.argsort(-cosine[i], kind="stable") if j != i][:k])
        assert columns[i].tolist() == expected
        assert cosines[i].tolist() == cosine[i, expected].tolist()
    assert torch.equal(columns, other[0])
    assert torch.equal(cosines, other[1])


def test_blocks_of_rows_change_nothing(monkeypatch):
    x = torch.from_numpy(features())
    whole = knn_transition(x, k=9).to_dense()
    monkeypatch.setattr(diffusion, "_BLOCK_VALUES", 13 * 97)
    assert diffusion._block_rows(97) == 13
    torch.testing.assert_close(knn_transition(x, k=9).to_dense(), whole)
    torch.testing.assert_close(
        diffusion._nearest(torch.nn.functional.normalize(x), 9)[1].sum(),
        whole.new_tensor(0) + (diffusion._nearest_on_cpu(torch.nn.functional.normalize(x), 9)[1].sum()),
    )


def test_no_dense_matrix_for_many_nodes():
    assert diffusion._block_rows(8193) < 8193
    for nodes in (8193, 65_536):
        assert diffusion._block_rows(nodes) * nodes * 4 <= 64 * 2**20


def test_a_zero_vector_is_equally_far_from_all():
    x = features(12)
    x[5] = 0
    row = knn_transition(x, k=4).toarray()[5]
    np.testing.assert_allclose(row[:4], 0.25)
    assert (row[4:] == 0).all()


def test_the_row_epsilon_is_the_official_one():
    x = features().astype(np.float32)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    graph = knn_transition(x, k=5, temperature=1.0, row_eps=0.5).toarray()
    weights = np.where(graph > 0, np.exp(unit @ unit.T), 0)
    np.testing.assert_allclose(graph, weights / (weights.sum(axis=1, keepdims=True) + 0.5), rtol=1e-5)
    assert np.isfinite(knn_transition(-x, temperature=1e-3, row_eps=1e-6).data).all()


@pytest.mark.parametrize(
    ("x", "options", "words"),
    [
        (np.ones((1, 4)), {}, "at least 2 nodes"),
        (np.ones(4), {}, r"shape \(N, D\)"),
        (np.array([[1.0, np.nan], [1, 2]]), {}, "1 of 2 rows hold NaN"),
        (np.ones((3, 2)), {"k": 0}, "k must be"),
        (np.ones((3, 2)), {"temperature": 0}, "temperature"),
        (np.ones((3, 2)), {"row_eps": -1}, "row_eps"),
        (np.ones((3, 2), complex), {}, "real numbers"),
    ],
)
def test_graphs_that_cannot_be(x, options, words):
    with pytest.raises(InputError, match=words):
        knn_transition(x, **options)


@pytest.mark.parametrize("columns", [1, 6, 17])
def test_diffusion_is_the_dense_recursion(columns):
    x = features()
    scores = np.random.default_rng(1).random((97, columns))
    graph = dense_transition(x, 30, 0.07)
    expected = scores
    for _ in range(40):
        expected = 0.9 * graph @ expected + 0.1 * scores
    np.testing.assert_allclose(diffuse(knn_transition(x), scores), expected, rtol=1e-12)
    np.testing.assert_allclose(diffuse(graph, scores), expected, rtol=1e-12)
    single = diffuse(knn_transition(torch.from_numpy(x).float()), torch.from_numpy(scores).float())
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), expected, rtol=1e-5)


def test_no_steps_or_no_neighbours_share_give_the_scores_back():
    graph, scores = knn_transition(features()), np.random.default_rng(1).random((97, 3))
    np.testing.assert_array_equal(diffuse(graph, scores, steps=0), scores)
    np.testing.assert_allclose(diffuse(graph, scores, alpha=0.0), scores)


def test_the_limit_is_a_fixed_point_and_where_the_steps_lead():
    graph, scores = knn_transition(features()), np.random.default_rng(1).random((97, 3))
    limit = diffuse_limit(graph, scores)
    np.testing.assert_allclose(0.9 * (graph @ limit) + 0.1 * scores, limit, atol=1e-12)
    np.testing.assert_allclose(diffuse(graph, scores, steps=400), limit, atol=1e-12)
    torch_graph = knn_transition(torch.from_numpy(features()))
    np.testing.assert_allclose(diffuse_limit(torch_graph, torch.from_numpy(scores)).numpy(), limit, atol=1e-12)
    np.testing.assert_allclose(diffuse_limit(graph.toarray(), scores), limit, atol=1e-12)


def test_early_stop_keeps_its_promise(monkeypatch):
    graph, scores = knn_transition(features()), np.random.default_rng(1).random((97, 3))
    limit = diffuse_limit(graph, scores)
    stopped = diffuse(graph, scores, steps=10_000, tolerance=1e-4)
    distance = np.abs(stopped - limit).max()
    assert 1e-9 < distance <= 1e-4 * 0.9 / 0.1


def test_both_graphs_at_once_are_each_alone():
    graphs = tuple(knn_transition(torch.from_numpy(features(n, seed=n)), k=5) for n in (20, 33))
    scores = tuple(torch.rand(n, 4, dtype=torch.float64) for n in (20, 33))
    together = diffuse_both(graphs, scores)
    stacked = diffuse(diffusion._block_diagonal(*graphs), torch.cat(scores))  # what runs on a GPU
    for graph, score, both, part in zip(graphs, scores, together, stacked.split([20, 33]), strict=True):
        torch.testing.assert_close(both, diffuse(graph, score))
        torch.testing.assert_close(part, both)


@pytest.mark.parametrize("columns", [0, 1, 8, 9, 30])
@pytest.mark.parametrize("indices", [np.int32, np.int64])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_compiled_steps_are_torch_s(columns, indices, kind, monkeypatch):
    monkeypatch.setattr(diffusion, "_WORTH_THREADS", 0 if columns == 30 else 10**7)
    rng = np.random.default_rng(columns)
    graph = knn_transition(features(40).astype(kind), k=5)
    graph.indices, graph.indptr = graph.indices.astype(indices), graph.indptr.astype(indices)
    scores = rng.standard_normal((40, columns)).astype(kind)
    for steps in (1, 7):
        ours = diffuse(graph, scores, steps=steps)
        assert ours.dtype == kind
        np.testing.assert_allclose(ours, diffuse(graph.toarray(), scores, steps=steps), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(ours[:, :1], diffuse(graph, scores[:, :1], steps=steps))  # columns are alone


def test_early_stop_is_the_same_on_both_paths():
    graph = knn_transition(torch.from_numpy(features()))
    scores = torch.rand(97, 11, dtype=torch.float64)
    by_torch = diffuse(graph, scores.clone().requires_grad_(), steps=1000, tolerance=1e-5).detach()
    torch.testing.assert_close(diffuse(graph, scores, steps=1000, tolerance=1e-5), by_torch, rtol=0, atol=1e-12)


@pytest.mark.parametrize("column", [-1, 3])
def test_a_matrix_with_columns_outside_it_is_refused(column):
    graph = csr_array((np.ones(3), np.array([0, 1, 2]), np.arange(4)), shape=(3, 3))
    graph.indices[1] = column
    with pytest.raises(InputError, match="no valid CSR"):
        diffuse(graph, np.ones((3, 2)))


def test_gradients_reach_the_scores():
    graph = knn_transition(torch.from_numpy(features(9)), k=3)
    scores = torch.rand(9, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: diffuse(graph, s, steps=4), scores)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"alpha": 1.0}, "alpha"),
        ({"alpha": -0.1}, "alpha"),
        ({"steps": -1}, "steps"),
        ({"scores": np.ones(97)}, "scores must have"),
        ({"scores": np.ones((96, 2))}, "transition must be"),
    ],
)
def test_diffusions_that_cannot_be(change, words):
    arguments = {"transition": knn_transition(features()), "scores": np.ones((97, 2))} | change
    with pytest.raises(InputError, match=words):
        diffuse(**arguments)


def test_official_diffusion(expected):
    """DINO's scores, carried to CLIP's grid, move on the graph of CLIP's features."""
    graph = knn_transition(expected["clip_features_last"][1:], row_eps=1e-6)
    result = diffuse(graph, expected["dino_seg_matched"])
    np.testing.assert_allclose(result, expected["diffused_dino"].reshape(5, -1).T, atol=2e-5)


@pytest.mark.parametrize("k", [1, 3, 7, 40])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_a_graph_of_neighbours_found_before_is_the_graph_itself(k: int, temperature: float) -> None:
    features = torch.randn(23, 5, generator=torch.Generator().manual_seed(1))
    features[4] = features[9]  # equal cosines: the first column wins, here as there
    found = nearest_neighbours(features, 30)
    graph = transition_of(found, k, temperature, row_eps=1e-6)
    expected = knn_transition(features, k, temperature, row_eps=1e-6)
    assert torch.equal(graph.to_dense(), expected.to_dense())


def test_too_few_neighbours_are_refused() -> None:
    found = nearest_neighbours(torch.randn(23, 5), 4)
    with pytest.raises(InputError, match="too few for k=5"):
        transition_of(found, 5)
