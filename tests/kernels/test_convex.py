"""The convex fusion: certificates, optimality, back ends, options and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rsovlib.errors import InputError
from rsovlib.kernels import CscpResult, DualField, cscp_energy, edge_weights, solve_cscp
from rsovlib.kernels._ascent import Stopping, ascend
from rsovlib.kernels._curvature import curvature
from rsovlib.kernels._problem import dual_energy, energy, make_problem

BACKENDS = ["numba", "numpy", "torch"]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_certificate_is_what_independent_code_finds(make_case, energies, backend, kind):
    case = make_case(kind=kind)
    result = solve_cscp(*case.arrays, backend=backend, tolerance=1e-3)
    primal = energies[0](result.q, *case.arrays)
    dual = energies[1](*result.dual, *case.arrays)
    assert result.converged
    assert 0 < result.relative_gap <= 1.01e-3
    assert (primal - dual) / primal == pytest.approx(result.relative_gap, rel=2e-2)
    assert result.energy == pytest.approx(primal, rel=1e-6)
    assert result.dual_energy == pytest.approx(dual, rel=1e-6)
    assert result.gap_per_pixel == pytest.approx((primal - dual) / (37 * 31), rel=2e-2)
    assert cscp_energy(result.q, *case.arrays) == pytest.approx(primal, rel=1e-7 if kind == np.float32 else 1e-12)


@pytest.mark.parametrize("sharpness", [0.2, 2.0])
def test_the_optimum_is_a_generic_solver_s(make_case, sharpness):
    cvxpy = pytest.importorskip("cvxpy", reason="cvxpy (development extra) confirms the optimum")
    case = make_case(classes=3, height=5, width=7, sharpness=sharpness)
    result = solve_cscp(*case.arrays, tolerance=1e-9, gap_per_pixel=0.0)
    q = cvxpy.Variable((3, 35))
    p = [np.clip(m.reshape(3, 35), 1e-6, 1) for m in case.arrays[:2]]
    p = [m / m.sum(axis=0) for m in p]
    grid = np.arange(35).reshape(5, 7)
    pairs = np.concatenate(
        [np.stack([grid[:, :-1].ravel(), grid[:, 1:].ravel()]), np.stack([grid[:-1].ravel(), grid[1:].ravel()])], axis=1
    )
    weights = np.concatenate([case.wx.ravel(), case.wy.ravel()])
    steps = q[:, pairs[1]] - q[:, pairs[0]]
    divergences = 1.0 * cvxpy.sum(cvxpy.rel_entr(q, p[0])) + 0.2 * cvxpy.sum(cvxpy.rel_entr(q, p[1]))
    variation = 0.1 * cvxpy.sum(cvxpy.multiply(np.tile(weights, (3, 1)), cvxpy.abs(steps)))
    problem = cvxpy.Problem(cvxpy.Minimize(divergences + variation), [cvxpy.sum(q, axis=0) == 1])
    problem.solve(solver=cvxpy.CLARABEL)
    assert result.energy == pytest.approx(problem.value, rel=1e-6, abs=1e-7)
    np.testing.assert_allclose(result.q.reshape(3, 35), q.value, atol=1e-4)


def test_two_pixels_meet_where_the_closed_form_says():
    # One edge, two classes: the edge's dual shifts the logits towards each other until they meet or the box ends.
    p = np.array([[[0.8, 0.3]], [[0.2, 0.7]]])
    weights = np.ones((1, 1)), np.ones((0, 2))
    apart = solve_cscp(p, p, *weights, beta=0.1, tolerance=1e-12, gap_per_pixel=0.0)
    shift = 2 * 0.1 / 1.2  # both classes' duals at their bound, over a
    logit = np.log(0.8 / 0.2) - shift
    assert apart.q[0, 0, 0] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-9)
    together = solve_cscp(p, p, *weights, beta=10.0, tolerance=1e-12, gap_per_pixel=0.0)
    mean = np.sqrt(0.8 * 0.3) / (np.sqrt(0.8 * 0.3) + np.sqrt(0.2 * 0.7))  # the geometric mean, normalised
    np.testing.assert_allclose(together.q[0, 0], mean, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 1), (2, 1, 9), (2, 7, 1), (1, 5, 4), (64, 3, 2)])
def test_any_size_from_one_pixel_and_one_class(make_case, backend, shape):
    case = make_case(*shape)
    result = solve_cscp(*case.arrays, backend=backend)
    assert result.q.shape == shape
    assert result.converged
    np.testing.assert_allclose(result.q.sum(axis=0), 1, atol=1e-6)
    assert result.dual.x.shape == (shape[0], shape[1], shape[2] - 1)
    assert result.dual.y.shape == (shape[0], shape[1] - 1, shape[2])


@pytest.mark.parametrize("beta", [0.1, 1.0, 300.0])  # the last needs the exponential that subtracts the maximum
def test_back_ends_take_the_same_path(make_case, beta):
    case = make_case(height=13, width=11)
    results = [
        solve_cscp(*case.arrays, beta=beta, backend=backend, max_iterations=60, tolerance=0) for backend in BACKENDS
    ]
    for other in results[1:]:
        np.testing.assert_allclose(other.q, results[0].q, atol=1e-9)
        np.testing.assert_allclose(other.dual.x, results[0].dual.x, atol=1e-8 * beta)
    assert [r.iterations for r in results] == [60] * 3
    single = solve_cscp(*make_case(height=13, width=11, kind=np.float32).arrays, beta=beta, max_iterations=60)
    assert single.q.dtype == np.float32
    np.testing.assert_allclose(single.q, results[0].q, atol=2e-3)


def test_the_number_of_threads_changes_no_bit(make_case):
    case = make_case(height=130, width=19, kind=np.float32)
    from rsovlib.kernels._engines import NumbaEngine

    problem = make_problem(*case.arrays, 1.0, 0.2, 0.1)
    thetas = np.linspace(0, 0.9, 12)
    states = []
    for chunks in (1, 2, 7, 16):
        engine = NumbaEngine(problem, np.float32, "diagonal", 1, None)
        # Chunks are what differs between thread counts; more of them than cores are run by fewer threads.
        engine.split(chunks)
        engine.iterate(thetas)
        engine.evaluate(sharpen=True)
        engine.iterate(thetas)
        states.append((engine.evaluate(), *engine.result()))
    for sums, q, field, *energies in states[1:]:
        assert sums == states[0][0]
        assert energies == list(states[0][3:])
        np.testing.assert_array_equal(q, states[0][1])
        np.testing.assert_array_equal(field.x, states[0][2].x)
        np.testing.assert_array_equal(field.y, states[0][2].y)


@pytest.mark.parametrize("height", [1, 2, 5, 40])
def test_how_many_iterations_go_over_memory_together_changes_no_bit(make_case, height):
    case = make_case(height=height, width=9, kind=np.float32)
    from rsovlib.kernels._engines import NumbaEngine

    problem = make_problem(*case.arrays, 1.0, 0.2, 0.1)
    states = []
    for depth, chunks in ((1, 1), (3, 1), (10, 1), (1, 5), (3, 5), (10, 5)):
        engine = NumbaEngine(problem, np.float32, "diagonal", 1, None)
        engine.depth = depth
        engine.split(min(chunks, height))
        engine.iterate(np.linspace(0, 0.9, 11))
        states.append((engine.yx, engine.yy, engine.zx, engine.zy))
    for state in states[1:]:
        for array, reference in zip(state, states[0], strict=True):
            np.testing.assert_array_equal(array, reference)


def test_a_batch_is_its_items(make_case):
    cases = [make_case(height=11, width=9, seed=seed, kind=np.float32) for seed in (0, 5)]
    stacked = [np.stack(parts) for parts in zip(*(case.arrays for case in cases), strict=True)]
    singles = [solve_cscp(*case.arrays) for case in cases]
    batch = solve_cscp(*stacked)
    for i, single in enumerate(singles):
        np.testing.assert_array_equal(batch.q[i], single.q)
    assert batch.relative_gap == max(single.relative_gap for single in singles)
    assert batch.energy == pytest.approx(sum(single.energy for single in singles))
    assert batch.labels.shape == (2, 11, 9)
    tensors = [torch.from_numpy(part) for part in stacked]
    other = solve_cscp(*tensors, backend="torch", tolerance=1e-6)
    reference = solve_cscp(*tensors, tolerance=1e-6)
    assert isinstance(reference.q, torch.Tensor)
    torch.testing.assert_close(other.q, reference.q, atol=1e-3, rtol=0)
    again = solve_cscp(*tensors, warm_start=reference, tolerance=1e-4)
    assert again.iterations == 0


def test_a_warm_start_saves_iterations_and_is_clipped_to_the_new_box(make_case, energies):
    case = make_case(kind=np.float32)
    first = solve_cscp(*case.arrays, beta=0.1)
    warm = solve_cscp(*case.arrays, beta=0.09, warm_start=first)
    cold = solve_cscp(*case.arrays, beta=0.09)
    assert warm.converged
    assert warm.iterations < cold.iterations
    assert np.isfinite(energies[1](*warm.dual, *case.arrays, beta=0.09))
    same = solve_cscp(*case.arrays, warm_start=tuple(first.dual))
    assert same.iterations == 0
    assert same.relative_gap == pytest.approx(first.relative_gap, rel=1e-3)


def test_callback_and_cancellation(make_case):
    case = make_case(kind=np.float32)
    seen = []
    result = solve_cscp(
        *case.arrays,
        tolerance=1e-6,
        check_every=7,
        callback=lambda check: seen.append((check, check.primal())),
    )
    assert [check.iteration for check, _ in seen] == list(range(0, result.iterations + 1, 7))
    assert [check.iteration for check in result.history] == [check.iteration for check, _ in seen]
    np.testing.assert_array_equal(seen[-1][1], result.q)
    assert cscp_energy(seen[2][1], *case.arrays) == pytest.approx(seen[2][0].energy, rel=1e-4)
    stopped = solve_cscp(*case.arrays, tolerance=0, should_stop=lambda: True)
    assert stopped.cancelled
    assert not stopped.converged
    assert stopped.iterations == 0
    assert stopped.relative_gap > 0


def test_stops_at_either_gap_or_at_the_limit(make_case):
    case = make_case(kind=np.float32)
    by_pixel = solve_cscp(*case.arrays, tolerance=0, gap_per_pixel=1e-3)
    assert by_pixel.converged
    assert 0 < by_pixel.gap_per_pixel <= 1.01e-3
    limited = solve_cscp(*case.arrays, tolerance=0, max_iterations=13)
    assert limited.iterations == 13
    assert not limited.converged


def test_the_scalar_step_reaches_the_same_optimum(make_case):
    case = make_case()
    diagonal = solve_cscp(*case.arrays, tolerance=1e-8)
    scalar = solve_cscp(*case.arrays, tolerance=1e-8, step="scalar")
    np.testing.assert_allclose(scalar.q, diagonal.q, atol=1e-4)
    assert scalar.iterations > diagonal.iterations


def test_the_curvature_bound_holds_over_its_range():
    rng = np.random.default_rng(3)
    for sharpness in (0.3, 2.0, 6.0):
        logits = sharpness * rng.standard_normal((5, 40))
        base = np.exp(logits) / np.exp(logits).sum(axis=0)
        for shift in (0.0, 0.3, 2.0):
            bound = curvature(base, np.full(40, shift))
            moved = np.exp(logits + rng.uniform(-shift, shift, logits.shape))
            q = moved / moved.sum(axis=0)
            for p in range(40):
                excess = np.diag(bound[:, p]) - np.diag(q[:, p]) + np.outer(q[:, p], q[:, p])
                assert np.linalg.eigvalsh(excess).min() > -1e-9


class _Falling:
    """An engine whose dual energy falls at the checks given: what the safety net is for."""

    def __init__(self, falls: set[int]) -> None:
        self.falls, self.checks, self.calls, self.thetas = falls, 0, [], []

    def iterate(self, thetas, following):
        self.thetas.append(thetas)

    def evaluate(self, sharpen):
        if sharpen:
            self.calls.append("sharpen")
        self.checks += 1
        dual = -1e6 if self.checks in self.falls else float(self.checks)
        return np.array([1e7]), np.array([dual - 1e6 * sum(f < self.checks for f in self.falls)])

    def safe_step(self, share):
        self.calls.append(share)

    def primal(self):
        raise NotImplementedError


def test_a_falling_dual_restarts_the_momentum_then_shortens_the_step():
    engine = _Falling({5, 6, 7})
    ascend(engine, 1, Stopping(0, 0, 100, 10, None, None))
    first = engine.calls.index(1.0)
    assert set(engine.calls[:first]) == {"sharpen"}
    assert engine.calls[first : first + 3] == [1.0, 0.5, 0.25]
    assert "sharpen" not in engine.calls[first:]
    assert engine.thetas[3][0] > 0.8
    assert engine.thetas[4][0] == 0


def test_gradients_flow_through_the_torch_path(make_case):
    case = make_case(classes=2, height=3, width=3)
    tensors = [torch.from_numpy(part).requires_grad_() for part in case.arrays]
    assert solve_cscp(*tensors).q.requires_grad

    def solve(*inputs):
        # The diagonal step follows detached curvature, so only its converged map is differentiable in it.
        options = {"tolerance": 0, "gap_per_pixel": 0.0, "max_iterations": 8, "step": "scalar", "backend": "torch"}
        return solve_cscp(*inputs, **options).q

    assert torch.autograd.gradcheck(solve, tensors, atol=1e-6, fast_mode=True)


def test_gradient_of_the_converged_map_is_its_finite_difference(make_case):
    case = make_case(classes=3, height=4, width=3, sharpness=1.0)
    p_clip = torch.from_numpy(case.p_clip).requires_grad_()
    options = {"tolerance": 0, "gap_per_pixel": 0.0, "max_iterations": 600, "check_every": 300}
    rest = [torch.from_numpy(part) for part in case.arrays[1:]]
    solve_cscp(p_clip, *rest, **options).q[0, 1, 1].backward()
    moved = case.p_clip.copy()
    moved[1, 2, 1] += 1e-5
    base = solve_cscp(*case.arrays, **options).q[0, 1, 1]
    shifted = solve_cscp(moved, *case.arrays[1:], **options).q[0, 1, 1]
    assert float(p_clip.grad[1, 2, 1]) == pytest.approx((shifted - base) / 1e-5, rel=1e-2, abs=1e-6)


def test_edge_weights_follow_the_superpixels():
    superpixels = np.array([[0, 0, 1], [2, 0, 1]])
    wx, wy = edge_weights(superpixels, w_in=1.0, w_cross=0.25)
    np.testing.assert_array_equal(wx, np.float32([[1, 0.25], [0.25, 0.25]]))
    np.testing.assert_array_equal(wy, np.float32([[0.25, 1, 1]]))
    for ours, theirs in zip(edge_weights(torch.from_numpy(superpixels), 1.0, 0.25), (wx, wy), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs)


def test_banded_energies_equal_the_whole(make_case, monkeypatch):
    case = make_case()
    result = solve_cscp(*case.arrays)
    problem = make_problem(*case.arrays, 1.0, 0.2, 0.1)
    whole = energy(problem, result.q), dual_energy(problem, result.dual)
    monkeypatch.setattr("rsovlib.kernels._problem._BAND_VALUES", 3 * 4 * 31)
    assert len(problem.bands()) == 13
    assert energy(problem, result.q) == pytest.approx(whole[0], rel=1e-12)
    assert dual_energy(problem, result.dual) == pytest.approx(whole[1], rel=1e-12)


def test_input_is_left_as_it_was(make_case):
    case = make_case(kind=np.float32)
    before = [part.copy() for part in case.arrays]
    result = solve_cscp(*case.arrays)
    for part, copy in zip(case.arrays, before, strict=True):
        np.testing.assert_array_equal(part, copy)
    assert isinstance(result, CscpResult)
    assert isinstance(result.dual, DualField)


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"p_dino": np.full((3, 4, 5), 0.2)}, "p_dino"),
        ({"wx": np.ones((4, 5))}, "wx must have the shape"),
        ({"wy": -np.ones((3, 5))}, "wy must hold finite weights"),
        ({"p_clip": np.full((2, 4, 5), np.nan)}, "p_clip holds NaN"),
        ({"beta": -1}, "beta"),
        ({"beta": np.inf}, "beta"),
        ({"lambda_clip": 0, "lambda_dino": 0}, "not both 0"),
        ({"lambda_clip": -1}, "lambda_clip"),
        ({"tolerance": -1}, "tolerance"),
        ({"check_every": 0}, "check_every"),
        ({"threads": 0}, "threads"),
        ({"max_iterations": -1}, "max_iterations"),
        ({"floor": 0.6}, "floor"),
        ({"warm_start": (np.zeros((2, 4, 3)), np.zeros((2, 3, 5)))}, "warm_start"),
        ({"method": "dua"}, "Did you mean 'dual'"),
        ({"step": "diag"}, "diagonal"),
    ],
)
def test_what_can_be_wrong_is_said(backend, change, words):
    arguments = {
        "p_clip": np.full((2, 4, 5), 0.5),
        "p_dino": np.full((2, 4, 5), 0.5),
        "wx": np.ones((4, 4)),
        "wy": np.ones((3, 5)),
        "backend": backend,
    }
    with pytest.raises(InputError, match=words):
        solve_cscp(**(arguments | change))


def test_flat_maps_and_unknown_back_ends_are_refused(make_case):
    with pytest.raises(InputError, match="p_clip must have the shape"):
        solve_cscp(np.ones((4, 5)), np.ones((4, 5)), np.ones((4, 4)), np.ones((3, 5)))
    with pytest.raises(InputError, match="There is no backend"):
        solve_cscp(*make_case().arrays, backend="cupy")
    with pytest.raises(InputError, match="gives no gradients"):
        solve_cscp(*(torch.from_numpy(part).requires_grad_() for part in make_case().arrays), backend="numba")
    with pytest.raises(InputError, match="superpixels must have the shape"):
        edge_weights(np.zeros(5))
