"""What must hold for any maps and weights, tried on many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsovlib.kernels import cscp_energy, solve_cscp


@st.composite
def problems(draw):
    """Maps and weights of small random shapes, sharpness and seed; weights include zeros."""
    classes, height, width = draw(st.integers(1, 5)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    sharpness = draw(st.sampled_from([0.1, 1.0, 6.0]))
    maps = np.exp(sharpness * rng.standard_normal((2, classes, height, width)))
    maps /= maps.sum(axis=1, keepdims=True)
    wx = rng.choice([0.0, 0.1, 1.0], (height, width - 1))
    wy = rng.choice([0.0, 0.1, 1.0], (height - 1, width))
    return maps[0], maps[1], wx, wy


few = settings(max_examples=25, deadline=None)


def solve(arrays, **options):
    return solve_cscp(*arrays, **({"tolerance": 1e-9, "gap_per_pixel": 1e-13, "max_iterations": 3000} | options))


def geometric_mean(arrays, lambda_clip=1.0, lambda_dino=0.2):
    logs = lambda_clip * np.log(np.clip(arrays[0], 1e-6, 1)) + lambda_dino * np.log(np.clip(arrays[1], 1e-6, 1))
    q = np.exp((logs - logs.max(axis=0)) / (lambda_clip + lambda_dino))
    return q / q.sum(axis=0)


@few
@given(problems(), st.sampled_from([0.02, 0.1, 1.0]))
def test_simplex_box_and_certificate(arrays, beta):
    result = solve(arrays, beta=beta, tolerance=1e-3)
    assert (result.q >= 0).all()
    np.testing.assert_allclose(result.q.sum(axis=0), 1, atol=1e-12)
    assert (np.abs(result.dual.x) <= beta * arrays[2] + 1e-15).all()
    assert (np.abs(result.dual.y) <= beta * arrays[3] + 1e-15).all()
    assert result.dual_energy <= result.energy + 1e-9
    # No other point of the simplex may lie below the bound: try the inputs themselves.
    for other in (arrays[0], geometric_mean(arrays)):
        assert cscp_energy(other, *arrays, beta=beta) >= result.dual_energy - 1e-9


@few
@given(problems())
def test_the_dual_rises_without_momentum(arrays):
    result = solve(arrays, check_every=1, max_iterations=2, step="scalar", tolerance=0, gap_per_pixel=0.0)
    duals = [check.dual_energy for check in result.history][:2]  # the first step has no momentum
    assert duals[-1] >= duals[0] - 1e-12 * max(1, abs(duals[0]))


@few
@given(problems(), st.randoms(use_true_random=False))
def test_classes_may_be_renamed(arrays, random):
    order = list(range(len(arrays[0])))
    random.shuffle(order)
    plain = solve(arrays)
    renamed = solve((arrays[0][order], arrays[1][order], *arrays[2:]))
    np.testing.assert_allclose(renamed.q, plain.q[order], atol=1e-4)


@few
@given(problems())
def test_the_image_may_be_transposed(arrays):
    turned = solve((arrays[0].swapaxes(1, 2), arrays[1].swapaxes(1, 2), arrays[3].T, arrays[2].T))
    np.testing.assert_allclose(turned.q.swapaxes(1, 2), solve(arrays).q, atol=1e-4)


@few
@given(problems(), st.floats(0.2, 1.0))
def test_a_common_factor_of_a_pixel_changes_nothing(arrays, factor):
    # Shifting all log-probabilities of a pixel: undone by the renormalisation while nothing reaches the clamps.
    away = np.clip(arrays[0], 1e-4, 1)
    away = away / away.sum(axis=0) * 0.9
    plain = solve((away, *arrays[1:]))
    np.testing.assert_allclose(solve((factor * away, *arrays[1:])).q, plain.q, atol=1e-4)


@few
@given(problems())
def test_without_variation_it_is_the_geometric_mean(arrays):
    result = solve(arrays, beta=0.0)
    assert result.iterations == 0
    np.testing.assert_allclose(result.q, geometric_mean(arrays), atol=1e-12)


@few
@given(problems(), st.floats(0.3, 3.0))
def test_all_weights_scale_together(arrays, factor):
    scaled = solve(arrays, lambda_clip=factor, lambda_dino=0.2 * factor, beta=0.1 * factor)
    np.testing.assert_allclose(scaled.q, solve(arrays).q, atol=1e-4)


@few
@given(problems(), st.floats(0.0, 1.0))
def test_equal_inputs_need_no_balance(arrays, share):
    same = (arrays[0], arrays[0], *arrays[2:])
    balanced = solve(same, lambda_clip=1.2 * share, lambda_dino=1.2 * (1 - share))
    np.testing.assert_allclose(balanced.q, solve(same).q, atol=1e-4)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_great_beta_gives_one_map_per_connected_component(make_case, kind):
    case = make_case(classes=3, height=6, width=8, kind=kind)
    wx = case.wx.copy()
    wx[:, 3] = 0  # two halves without an edge between them
    arrays = (case.p_clip, case.p_dino, wx, case.wy)
    result = solve_cscp(*arrays, beta=50.0, tolerance=1e-5, max_iterations=20_000)
    logs = np.log(geometric_mean(arrays))
    for half in (slice(0, 4), slice(4, 8)):
        q = result.q[:, :, half].reshape(3, -1)
        mean = np.exp(logs[:, :, half].reshape(3, -1).mean(axis=1))
        np.testing.assert_allclose(q, np.repeat((mean / mean.sum())[:, None], 24, axis=1), atol=2e-3)
        assert len(np.unique(result.labels[:, half])) == 1
