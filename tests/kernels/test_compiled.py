"""What surrounds the iterations, compiled: held against the same formulas in NumPy and float64."""

from __future__ import annotations

from dataclasses import replace

import numba as nb
import numpy as np
import pytest

from rsovlib.errors import InputError
from rsovlib.kernels import DualField, edge_weights, solve_cscp
from rsovlib.kernels._arrays import all_finite
from rsovlib.kernels._compiled import answer
from rsovlib.kernels._curvature import curvature, logit_shift
from rsovlib.kernels._elementary_numba import exp, exp_short, log
from rsovlib.kernels._engines import NumbaEngine
from rsovlib.kernels._problem import adjoint_rows, certificate, make_problem

SHAPES = [(4, 37, 31), (6, 23, 66), (1, 5, 4), (3, 1, 9), (2, 7, 1), (1, 1, 1), (64, 3, 2)]
KINDS = [np.float32, np.float64]


@pytest.fixture(scope="module")
def in_rows():
    """Functions of one number as functions of an array, compiled."""

    def looped(function):
        @nb.njit(error_model="numpy")
        def rows(values):
            out = np.empty_like(values)
            for x in range(values.size):
                out[x] = function(values[x])
            return out

        return rows

    return {function.__name__: looped(function) for function in (log, exp, exp_short)}


@pytest.mark.parametrize(("kind", "bound"), [(np.float32, 2e-7), (np.float64, 1e-15)])
def test_logarithms_and_exponentials_are_the_library_s(in_rows, kind, bound):
    limits = np.finfo(kind)
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [np.exp(rng.uniform(np.log(limits.tiny), 80, 5000)), rng.uniform(0.7, 1.45, 5000), [limits.tiny, 1.0, 0.5]]
    ).astype(kind)
    truth = np.log(x.astype(np.longdouble))
    assert np.abs((in_rows["log"](x) - truth) / np.maximum(1, np.abs(truth))).max() <= bound
    x = np.concatenate([rng.uniform(0.99 * np.log(limits.tiny), 80, 5000), rng.normal(0, 1, 5000), [0.0]]).astype(kind)
    assert np.abs(in_rows["exp"](x) / np.exp(x.astype(np.longdouble)) - 1).max() <= bound
    x = rng.uniform(-1, 1, 5000).astype(kind)
    assert np.abs(in_rows["exp_short"](x) / np.exp(x.astype(np.longdouble)) - 1).max() <= 2 * bound


@pytest.mark.parametrize("kind", KINDS)
def test_exponentials_end_at_zero_and_keep_nan(in_rows, kind):
    x = np.array([-1e4, -800, -np.inf, np.nan], kind)
    np.testing.assert_array_equal(in_rows["exp"](x), np.array([0, 0, 0, np.nan], kind))
    assert in_rows["exp"](np.zeros(1, kind)) == 1
    assert in_rows["log"](np.ones(1, kind)) == 0


def make_instance(make_case, shape, kind, beta=0.1, sharpness=2.0, pulled=False):
    """A problem with edges of weight 0 among the others, and a dual field that fills its box."""
    case = make_case(*shape, sharpness=sharpness, kind=kind)
    rng = np.random.default_rng(5)
    wx, wy = (w * rng.choice([0, 1], w.shape, p=[0.2, 0.8]).astype(kind) for w in (case.wx, case.wy))
    problem = make_problem(case.p_clip, case.p_dino, wx, wy, 1.0, 0.2, beta)
    if pulled:
        problem = replace(problem, pull=rng.normal(0, 0.3, shape).astype(kind))
    bounds = problem.bound_x[None], problem.bound_y[None]
    field = DualField(*(np.clip(rng.normal(0, beta, (shape[0], *b.shape[1:])), -b, b).astype(kind) for b in bounds))
    return problem, field


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=0))
    return weights / weights.sum(axis=0)


def channel_first(rows, problem):
    """(K, H, W) of the sweep's (H, K W)."""
    classes, height, width = problem.shape
    return rows.reshape(height, classes, width).transpose(1, 0, 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("beta", "pulled"), [(0.1, False), (300.0, False), (0.2, True)])
def test_the_constants_of_the_iterations_are_numpy_s(make_case, shape, kind, beta, pulled):
    problem, _ = make_instance(make_case, shape, kind, beta, pulled=pulled)
    engine = NumbaEngine(problem, kind, "diagonal", 1, None)
    logits = problem.linear(0, shape[1]) / problem.a
    base = softmax(logits)
    # Rounded logits near 14 in size are uncertain by some 1e-6, and so are all quotients made of their exponentials.
    tolerance = 1e-5 if kind == np.float32 else 1e-13
    np.testing.assert_allclose(channel_first(engine.base, problem), base, rtol=tolerance)
    peak = logits.max(axis=0)
    expected = float((np.log(np.exp(logits - peak).sum(axis=0)) + peak).sum())
    assert engine.log_base == pytest.approx(expected, rel=tolerance, abs=tolerance * shape[1] * shape[2])
    reach = problem.a / (8 * curvature(base, logit_shift(problem)))
    np.testing.assert_allclose(channel_first(engine.reach, problem), reach, rtol=10 * tolerance)
    engine.safe_step(0.5)
    np.testing.assert_allclose(channel_first(engine.reach, problem), reach / 2, rtol=10 * tolerance)
    assert engine.short == (kind == np.float32 and bool((logit_shift(problem) <= 1).all()))


@pytest.mark.parametrize("kind", KINDS)
def test_the_sharpened_step_is_numpy_s(make_case, kind):
    problem, field = make_instance(make_case, (4, 11, 13), kind)
    engine = NumbaEngine(problem, kind, "diagonal", 1, field)
    engine.evaluate(sharpen=True)
    q = softmax((problem.linear(0, 11) - adjoint_rows(field, 0, 11)) / problem.a)
    expected = 1.3 * problem.a / (8 * curvature(q, 0.03))
    np.testing.assert_allclose(
        channel_first(engine.reach, problem), expected, rtol=1e-4 if kind == np.float32 else 1e-12
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("beta", "pulled"), [(0.1, False), (300.0, False), (0.2, True)])
def test_the_certificate_is_numpy_s(make_case, shape, kind, beta, pulled):
    problem, field = make_instance(make_case, shape, kind, beta, pulled=pulled)
    q = np.full(shape, np.nan, kind)
    energies = answer(problem, field, q, 1)
    expected = softmax((problem.linear(0, shape[1]) - adjoint_rows(field, 0, shape[1])) / problem.a)
    np.testing.assert_allclose(q, expected, rtol=2e-7 if kind == np.float32 else 1e-11, atol=1e-37)
    # A sum of terms of both signs that are nearly 0 has no relative accuracy: hence the second bound.
    for found, reference in zip(energies, certificate(problem, q, field), strict=True):
        assert found == pytest.approx(reference, rel=1e-12, abs=1e-13 * shape[1] * shape[2])


@pytest.mark.parametrize("chunks", [2, 3, 7])
def test_any_number_of_threads_gives_the_same_constants_and_certificate(make_case, chunks):
    problem, field = make_instance(make_case, (3, 29, 19), np.float32)
    alone, among = (NumbaEngine(problem, np.float32, "diagonal", n, field) for n in (1, chunks))
    assert among.chunks == chunks
    assert among.log_base == alone.log_base
    np.testing.assert_array_equal(among.base, alone.base)
    np.testing.assert_array_equal(among.reach, alone.reach)
    maps = [np.empty(problem.shape, np.float32) for _ in range(2)]
    assert answer(problem, field, maps[0], 1) == answer(problem, field, maps[1], chunks)
    np.testing.assert_array_equal(*maps)


LAYOUTS = {
    "channels last": lambda p: np.ascontiguousarray(p.transpose(1, 2, 0)).transpose(2, 0, 1),
    "a crop": lambda p: np.pad(p, 2)[2:-2, 2:-2, 2:-2],
    "read only": lambda p: np.frombuffer(p.tobytes(), p.dtype).reshape(p.shape),
    "swapped bytes": lambda p: p.astype(p.dtype.newbyteorder()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_how_maps_lie_in_memory_changes_no_bit(make_case, layout, monkeypatch):
    monkeypatch.setattr("rsovlib.kernels._problem._BAND_VALUES", 5 * 4 * 31)  # bands of five rows
    case = make_case(kind=np.float32)
    plain = solve_cscp(*case.arrays, max_iterations=20, threads=2)
    other = solve_cscp(
        *(LAYOUTS[layout](p) for p in case.arrays[:2]),
        *case.arrays[2:],
        max_iterations=20,
        threads=2,
        warm_start=tuple(LAYOUTS[layout](np.zeros_like(part)) for part in plain.dual),
    )
    np.testing.assert_array_equal(other.q, plain.q)
    np.testing.assert_array_equal(other.dual.y, plain.dual.y)
    assert other.energy == pytest.approx(plain.energy, rel=1e-13)


@pytest.mark.parametrize(
    ("first", "second"), [(np.float16, np.float32), (np.float32, np.float64), (np.uint8, np.uint8)]
)
def test_other_types_of_numbers_are_certified_too(make_case, energies, first, second):
    case = make_case(height=9, width=7)
    maps = [
        np.round(p).astype(kind) if kind == np.uint8 else p.astype(kind)
        for p, kind in zip(case.arrays, (first, second), strict=False)
    ]
    result = solve_cscp(*maps, case.wx, case.wy, tolerance=1e-3)
    assert result.converged
    assert result.q.dtype == np.float32
    values = [p.astype(np.float64) for p in maps]
    # 1e-6 itself, where maps are clamped, is rounded in the types of the maps.
    tolerance = 1e-3 if first == np.float16 else 1e-6
    assert result.energy == pytest.approx(energies[0](result.q, *values, case.wx, case.wy), rel=tolerance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3, 7, 5), (2, 1, 6), (2, 6, 1)])
def test_a_start_is_clipped_to_the_box(make_case, shape, kind):
    problem, _ = make_instance(make_case, shape, kind)
    rng = np.random.default_rng(1)
    classes, height, width = shape
    start = DualField(rng.normal(size=(classes, height, width - 1)), rng.normal(size=(classes, height - 1, width)))
    # In float64 the start is taken as it is, in float32 as a copy.
    field = NumbaEngine(problem, kind, "diagonal", 1, start).field()
    for found, given, bound in zip(field, start, (problem.bound_x, problem.bound_y), strict=True):
        np.testing.assert_array_equal(found, np.clip(given, -bound, bound).astype(kind))


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_value_that_is_not_finite_goes_unseen(make_case, backend, kind, bad):
    case = make_case(classes=2, height=5, width=6, kind=kind)
    for position in range(2):
        arrays = [part.copy() for part in case.arrays]
        arrays[position][1, 3, 2] = bad
        with pytest.raises(InputError, match=r"p_(clip|dino) holds NaN or infinite values"):
            solve_cscp(*arrays, backend=backend)
        arrays = [part.copy() for part in case.arrays]
        arrays[2 + position][1, 2] = bad
        with pytest.raises(InputError, match=r"w[xy] must hold finite weights"):
            solve_cscp(*arrays, backend=backend)
        start = [np.zeros((2, 5, 5), kind), np.zeros((2, 4, 6), kind)]
        start[position][1, 3, 2] = bad
        with pytest.raises(InputError, match="warm_start must hold finite values"):
            solve_cscp(*case.arrays, backend=backend, warm_start=tuple(start))
    assert not all_finite(np.array([[[1, bad]]], np.float16))
    assert all_finite(np.zeros((2, 5, 0), kind))


def test_a_dual_that_is_not_finite_shows_in_the_certificate(make_case):
    problem, field = make_instance(make_case, (2, 5, 6), np.float32)
    field.y[1, 3, 2] = np.nan
    assert np.isnan(answer(problem, field, np.empty((2, 5, 6), np.float32), 1)).all()


def test_results_keep_no_more_memory_than_they_need(make_case):
    case = make_case(kind=np.float32)
    first = solve_cscp(*case.arrays)
    kept = [part.copy() for part in (first.q, *first.dual)]
    again = solve_cscp(*case.arrays, beta=0.2, warm_start=first)
    for part, copy in zip((first.q, *first.dual), kept, strict=True):
        np.testing.assert_array_equal(part, copy)
        assert not any(np.shares_memory(part, other) for other in (again.q, *again.dual, *case.arrays))
        assert part.flags.c_contiguous
        assert part.flags.writeable
        assert part.base is None or part.base.nbytes <= first.q.nbytes
    assert not np.shares_memory(first.q, first.dual.x)


@pytest.mark.parametrize("floor", [1e-12, 1e-30, 1e-60])
def test_low_floors_are_solved(make_case, floor):
    case = make_case(classes=3, height=6, width=5)
    maps = [np.where(p < 0.2, 0, p) for p in case.arrays[:2]]
    exact = solve_cscp(*maps, *case.arrays[2:], floor=floor, tolerance=1e-8)
    assert exact.converged
    single = solve_cscp(*(p.astype(np.float32) for p in maps), *case.arrays[2:], floor=floor, tolerance=1e-4)
    assert single.converged
    assert np.isfinite(single.energy)
    np.testing.assert_allclose(single.q, exact.q, atol=2e-2)


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8, bool])
def test_edge_weights_of_any_integers(kind):
    labels = np.random.default_rng(0).integers(0, 2, (9, 14)).astype(kind)
    wx, wy = edge_weights(labels, w_in=0.7, w_cross=0.1)
    assert wx.dtype == wy.dtype == np.float32
    np.testing.assert_array_equal(wx, np.where(labels[:, 1:] == labels[:, :-1], np.float32(0.7), np.float32(0.1)))
    np.testing.assert_array_equal(wy, np.where(labels[1:] == labels[:-1], np.float32(0.7), np.float32(0.1)))
