"""The paper's algorithm in its three forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import lambertw

from rsovlib.errors import InputError
from rsovlib.kernels import cscp_energy, edge_weights, solve_cscp
from rsovlib.kernels.primal_dual import _exact_chunk, _official_chunk, _wright_omega


@pytest.mark.parametrize("method", ["pdhg", "pdhg-entropic"])
def test_it_finds_the_dual_solver_s_optimum(make_case, method):
    case = make_case(height=13, width=11)
    reference = solve_cscp(*case.arrays, tolerance=1e-9)
    result = solve_cscp(*case.arrays, method=method, tolerance=1e-6)
    assert result.converged
    assert result.method == method
    assert result.backend == "torch"
    assert result.energy >= reference.dual_energy
    np.testing.assert_allclose(result.q, reference.q, atol=2e-3)
    np.testing.assert_allclose(result.q.sum(axis=0), 1, atol=1e-9)


def test_the_certificate_of_a_primal_dual_pair_is_honest(make_case, energies):
    case = make_case(height=9, width=7, kind=np.float32)
    result = solve_cscp(*case.arrays, method="pdhg", max_iterations=20, tolerance=0)
    primal = energies[0](result.q, *case.arrays)
    dual = energies[1](*result.dual, *case.arrays)
    assert result.relative_gap == pytest.approx((primal - dual) / primal, rel=1e-3)
    assert result.iterations == 20


@pytest.mark.parametrize("c", [0.05, 0.3, 3.0])
def test_the_proximal_step_satisfies_its_optimality_condition(c):
    rng = np.random.default_rng(0)
    v = torch.from_numpy(2 * rng.standard_normal((5, 200)))
    q = _exact_chunk(v, c)
    # c log q_k + q_k - v_k is the same for all classes, up to the constant c
    levels = c * q.log() + q - v
    assert float((levels - levels.mean(dim=0)).abs().max()) < 1e-10
    torch.testing.assert_close(q.sum(dim=0), torch.ones(200, dtype=torch.float64))


def test_wright_omega_is_lambert_of_the_exponential():
    s = torch.linspace(-30, 300, 500, dtype=torch.float64)
    expected = lambertw(np.exp(s.numpy())).real
    np.testing.assert_allclose(_wright_omega(s).numpy(), expected, rtol=1e-12)


def test_the_official_inner_solver_is_near_the_exact_one_but_not_equal():
    rng = np.random.default_rng(1)
    v = torch.from_numpy(rng.standard_normal((5, 300)).astype(np.float32))
    difference = (_official_chunk(v, 0.3) - _exact_chunk(v, 0.3)).abs().sum(dim=0)
    assert 1e-5 < float(difference.mean()) < 5e-3


@pytest.fixture(autouse=True)
def _one_thread():
    """Chunks of a few thousand pixels are too small to share; waiting for a busy core costs far more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _processed(expected) -> list[torch.Tensor]:
    """The official pipeline's way from the processed maps to probabilities: softmax, then the clamp."""
    maps = (torch.from_numpy(expected[f"prob_{name}_processed"].astype(np.float32)) for name in ("clip", "dino"))
    return [m.softmax(dim=0).clamp(1e-6, 1) for m in maps]


def test_official_labels_within_a_window(expected):
    """100 iterations carry nothing further than 100 pixels, so a window's middle needs only its surroundings."""
    window = slice(0, 116), slice(0, 124)
    maps = [m[:, *window] for m in _processed(expected)]
    weights = [torch.from_numpy(w) for w in edge_weights(expected["superpixels"][window])]
    result = solve_cscp(*maps, *weights, method="official", check_every=100)
    assert result.iterations == 100
    middle = slice(0, 16), slice(0, 24)
    assert (result.labels[middle].numpy() == expected["labels_official"][middle]).mean() >= 0.999


@pytest.mark.slow
def test_official_labels_of_the_whole_case(expected):
    maps = _processed(expected)
    weights = [torch.from_numpy(w) for w in edge_weights(expected["superpixels"])]
    official = solve_cscp(*maps, *weights, method="official", check_every=100)
    assert (official.labels.numpy() == expected["labels_official"]).mean() >= 0.999
    ours = solve_cscp(*maps, *weights)
    assert cscp_energy(ours.q, *maps, *weights) <= official.energy


def test_the_certified_optimum_of_the_whole_case(expected, optimum):
    maps = [m.numpy() for m in _processed(expected)]
    result = solve_cscp(*maps, *edge_weights(expected["superpixels"]), tolerance=1e-4)
    assert result.relative_gap <= 1.01e-4
    assert float(optimum["energy"]) * (1 - 1e-6) <= result.energy <= float(optimum["energy"]) * (1 + 1e-4)
    assert (result.labels == optimum["labels"]).mean() > 0.995


def test_it_runs_on_torch_alone_and_from_its_own_start(make_case):
    case = make_case(height=5, width=4)
    with pytest.raises(InputError, match="torch back end only"):
        solve_cscp(*case.arrays, method="pdhg", backend="numba")
    with pytest.raises(InputError, match="no warm start"):
        solve_cscp(*case.arrays, method="pdhg", warm_start=solve_cscp(*case.arrays))
