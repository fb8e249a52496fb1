"""Convex fusion of two probability maps under a total-variation prior tied to superpixels (CSCP).

The problem, over pixels p, classes k and 4-neighbour edges e = (p, q):

    min over q_p in the simplex   P(q) = sum_p [ lambda_clip KL(q_p || p_clip_p) + lambda_dino KL(q_p || p_dino_p) ]
                                         + beta sum_e w_e |q_q - q_p|_1

Its dual, with a = lambda_clip + lambda_dino, b = lambda_clip log p_clip + lambda_dino log p_dino, (D q)_e = q_q - q_p:

    max over |y_{e,k}| <= beta w_e   d(y) = -a sum_p logsumexp((b_p - (D^T y)_p) / a),     grad d(y) = D q(y)
    q(y)_p = softmax((b_p - (D^T y)_p) / a)          exact and always feasible

The dual is smooth and its constraint is a box, so accelerated projected ascent needs no inner solver; and for y in
the box the duality gap is a sum of terms that are never negative,

    P(q(y)) - d(y) = sum_{e,k} [ beta w_e |(D q)_{e,k}| - y_{e,k} (D q)_{e,k} ]
                   >= P(q(y)) - P*  >=  a sum_p KL(q_p || q*_p),

which certifies every answer.  Source of the problem: Bidirectional Cross-Perception for Open-Vocabulary Semantic
Segmentation in Remote Sensing Imagery, equations 16 to 18 (there solved by 100 primal-dual iterations).  Accelerated
ascent: Beck and Teboulle 2009, doi:10.1137/080716542 and doi:10.1109/TIP.2009.2028250.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rsovlib.errors import unknown_name
from rsovlib.kernels._arrays import is_torch, like, require, to_numpy
from rsovlib.kernels._ascent import Check, Stopping, ascend
from rsovlib.kernels._engines import NumbaEngine, NumpyEngine
from rsovlib.kernels._problem import FLOOR, DualField, Problem, energy, make_problem, relative

__all__ = ["Check", "CscpResult", "DualField", "cscp_energy", "edge_weights", "solve_cscp"]

METHODS = ("dual", "official", "pdhg", "pdhg-entropic")
STEPS = ("diagonal", "scalar")
BACKENDS = ("auto", "numba", "numpy", "torch")


@dataclass(frozen=True)
class CscpResult:
    """An answer of :func:`solve_cscp` with its certificate.

    Attributes:
        q: (K, H, W) or (B, K, H, W), sums to 1 over the classes; of the inputs' kind.
        relative_gap: (P(q) - d(y)) / P(q), computed in float64 from the arrays returned here; P(q) exceeds the
            optimum by no more than this share.  The worst of a batch.
        iterations: iterations done; the most of a batch.
        dual: y, to warm-start a related problem.
        gap_per_pixel: (P(q) - d(y)) / (H W), in nats.  sum_p KL(q_p || q*_p) <= gap / a.  The worst of a batch.
        energy: P(q), in nats, summed over the image (and the batch).
        dual_energy: d(y), in nats, likewise.
        converged: whether a tolerance was met, for every item of a batch.
        cancelled: whether ``should_stop`` ended it.
        method: the method that ran.
        backend: the back end that ran.
        history: one :class:`Check` for each check (of the last item of a batch).
    """

    q: Any
    relative_gap: float
    iterations: int
    dual: DualField
    gap_per_pixel: float
    energy: float
    dual_energy: float
    converged: bool
    cancelled: bool = False
    method: str = "dual"
    backend: str = "numba"
    history: tuple[Check, ...] = field(default=(), repr=False)

    @property
    def labels(self) -> Any:
        """(H, W) or (B, H, W): the class of largest q; the first of equal ones."""
        return self.q.argmax(-3)


def edge_weights(superpixels: Any, w_in: float = 1.0, w_cross: float = 0.1) -> tuple[Any, Any]:
    """Weight of every 4-neighbour edge: ``w_in`` inside a superpixel, ``w_cross`` between two.

    Args:
        superpixels: (H, W) integer labels; torch or NumPy.
        w_in: weight where both ends have one label, >= 0.
        w_cross: weight where they differ, >= 0.

    Returns:
        wx (H, W-1), edges to the right, and wy (H-1, W), edges down; float32, of the kind of ``superpixels``.

    Raises:
        InputError: ``superpixels`` isn't two-dimensional, or a weight is negative or not finite.
    """
    labels = superpixels if is_torch(superpixels) else np.asarray(superpixels)
    require(labels.ndim == 2, f"superpixels must have the shape (H, W), got {tuple(labels.shape)}.")
    require(
        0 <= w_in < np.inf and 0 <= w_cross < np.inf,
        f"w_in and w_cross must be finite and not negative, got {w_in} and {w_cross}.",
    )
    same_x, same_y = labels[:, 1:] == labels[:, :-1], labels[1:] == labels[:-1]
    if is_torch(labels):
        return tuple(same.float() * (w_in - w_cross) + w_cross for same in (same_x, same_y))
    weights = np.array([w_cross, w_in], np.float32)
    return weights.take(same_x), weights.take(same_y)  # several times as fast as np.where


def cscp_energy(
    q: Any,
    p_clip: Any,
    p_dino: Any,
    wx: Any,
    wy: Any,
    lambda_clip: float = 1.0,
    lambda_dino: float = 0.2,
    beta: float = 0.1,
    *,
    floor: float = FLOOR,
) -> float:
    """The energy P(q) that :func:`solve_cscp` minimises, in nats, summed over pixels, computed in float64.

    P(q) = lambda_clip KL(q || p_clip) + lambda_dino KL(q || p_dino) + beta sum_e w_e |q_q - q_p|_1, in full: as both
    maps are clamped at ``floor`` and renormalised first, it equals sum(a q log q - b q) + TV with no constant left
    out, and it is never negative for q in the simplex.

    Args:
        q: (K, H, W), in the simplex over K.
        p_clip: (K, H, W) probabilities.
        p_dino: (K, H, W) probabilities.
        wx: (H, W-1) edge weights.
        wy: (H-1, W) edge weights.
        lambda_clip: weight of the first divergence.
        lambda_dino: weight of the second divergence.
        beta: weight of the total variation.
        floor: clamp of both maps.

    Returns:
        The energy.

    Raises:
        InputError: shapes don't match or values aren't finite.
    """
    problem = make_problem(p_clip, p_dino, wx, wy, lambda_clip, lambda_dino, beta, floor)
    values = to_numpy(q)
    require(values.shape == problem.shape, f"q {values.shape} must have the shape of p_clip {problem.shape}.")
    return energy(problem, values)


def solve_cscp(
    p_clip: Any,
    p_dino: Any,
    wx: Any,
    wy: Any,
    lambda_clip: float = 1.0,
    lambda_dino: float = 0.2,
    beta: float = 0.1,
    tolerance: float = 1e-4,
    max_iterations: int | None = None,
    warm_start: CscpResult | DualField | tuple[Any, Any] | None = None,
    *,
    gap_per_pixel: float | None = None,
    method: str = "dual",
    backend: str = "auto",
    step: str = "diagonal",
    check_every: int | None = None,
    callback: Callable[[Check], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
    threads: int | None = None,
    floor: float = FLOOR,
) -> CscpResult:
    """Fuse two probability maps: the minimiser of the module's problem, with a certified duality gap.

    Args:
        p_clip: (K, H, W) probabilities over K >= 1 classes, any H, W >= 1, or a batch (B, K, H, W); torch or
            NumPy.  Clamped at ``floor`` and renormalised.  float64 is solved in float64, all else in float32.
        p_dino: likewise.
        wx: (H, W-1) weights of the edges to the right, >= 0 (for a batch also (B, H, W-1)).
        wy: (H-1, W) weights of the edges down, likewise.
        lambda_clip: weight of KL(q || p_clip), >= 0.
        lambda_dino: weight of KL(q || p_dino), >= 0; not both 0.
        beta: weight of the total variation, >= 0.
        tolerance: stop at this relative gap.
        max_iterations: stop after so many iterations; default 5000 (``official``: 100, as published).
        warm_start: an earlier result or its dual field, clipped to the new box: for a slider over beta or lambda.
        gap_per_pixel: stop also at this gap in nats a pixel.  3e-5 serves for labels; the relative gap is
            misleading where the two maps agree almost everywhere and P is close to 0.  Default: float rounding.
        method: ``"dual"`` (recommended); ``"official"``, the published code's 100 inexact iterations, for parity of
            labels; ``"pdhg"``, Chambolle and Pock's iterations with an exact proximal step; ``"pdhg-entropic"``.
        backend: ``"numba"`` (CPU), ``"torch"`` (any device, batched, differentiable), ``"numpy"`` (slow reference,
            float64), or ``"auto"``: numba on a CPU, torch on other devices or where an input needs gradients.
        step: ``"diagonal"``, one step for each edge and class from local curvature, or ``"scalar"``, a / 4.
        check_every: iterations between checks of the gap; None: ten, and up to forty while the gap is far from small
            enough.
        callback: called with a :class:`Check` at every check, for plots.
        should_stop: asked at every check; True ends the solve with ``cancelled`` set.
        threads: threads of the numba back end; default: all that numba may use, at most one for each 64 rows.  The
            result does not depend on it, bit for bit.
        floor: least probability, in (0, 1/K].

    Returns:
        A :class:`CscpResult`, with q of the inputs' kind.

    Raises:
        InputError: shapes, values, weights or names that don't fit.

    An iteration takes O(K H W); the count doesn't grow with the image's size.  Memory beyond the inputs: numba 6K + 4
    floats a pixel, in which q and y lie at the end, and 3K once it returns.
    """
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    if backend not in BACKENDS:
        raise unknown_name("backend", backend, BACKENDS)
    if step not in STEPS:
        raise unknown_name("step", step, STEPS)
    require(tolerance >= 0, f"tolerance must not be negative, got {tolerance}.")
    require(check_every is None or check_every >= 1, f"check_every must be at least 1, got {check_every}.")
    require(threads is None or threads >= 1, f"threads must be at least 1, got {threads}.")
    if max_iterations is not None:
        require(max_iterations >= 0, f"max_iterations must not be negative, got {max_iterations}.")
    shape = tuple(p_clip.shape) if hasattr(p_clip, "shape") else np.shape(p_clip)
    require(len(shape) in (3, 4), f"p_clip must have the shape (K, H, W) or (B, K, H, W), got {shape}.")
    chosen = _backend(backend, method, p_clip, p_dino, wx, wy)
    wide = _is_double(p_clip) or chosen == "numpy"
    if gap_per_pixel is None:
        gap_per_pixel = 1e-15 if wide else 1e-9  # what float64 and float32 can resolve
    if max_iterations is None:
        max_iterations = 100 if method == "official" else 5000
    stopping = Stopping(tolerance, gap_per_pixel, max_iterations, check_every, callback, should_stop)
    settings = _Settings(lambda_clip, lambda_dino, beta, floor, method, step, threads, stopping)
    if chosen == "torch":
        from rsovlib.kernels._solve_torch import solve

        return solve(p_clip, p_dino, wx, wy, settings, _pair(warm_start))
    if len(shape) == 3:
        return _solve_one(p_clip, p_dino, wx, wy, settings, _pair(warm_start), chosen)
    return _solve_batch(p_clip, p_dino, wx, wy, settings, _pair(warm_start), chosen)


@dataclass(frozen=True)
class _Settings:
    """The arguments of :func:`solve_cscp` that are no arrays, checked."""

    lambda_clip: float
    lambda_dino: float
    beta: float
    floor: float
    method: str
    step: str
    threads: int | None
    stopping: Stopping


def _backend(backend: str, method: str, *arrays: Any) -> str:
    """The back end that will run: numba for what lies on a CPU and needs no gradients."""
    if method != "dual":
        require(backend in ("auto", "torch"), f"method {method!r} runs on the torch back end only, got {backend!r}.")
        return "torch"
    tensors = [array for array in arrays if is_torch(array)]
    elsewhere = any(tensor.device.type != "cpu" or tensor.requires_grad for tensor in tensors)
    if backend == "auto":
        return "torch" if elsewhere else "numba"
    require(
        backend == "torch" or not elsewhere,
        f"The {backend} back end works on a CPU and gives no gradients; use backend='torch' for these tensors.",
    )
    return backend


def _is_double(array: Any) -> bool:
    return str(getattr(array, "dtype", "")).endswith("float64")


def _solve_one(
    p_clip: Any, p_dino: Any, wx: Any, wy: Any, settings: _Settings, start: tuple[Any, Any] | None, backend: str
) -> CscpResult:
    """One image on the CPU."""
    problem = make_problem(
        p_clip, p_dino, wx, wy, settings.lambda_clip, settings.lambda_dino, settings.beta, settings.floor
    )
    _, height, width = problem.shape
    field = None if start is None else _start_field(start, problem)
    if backend == "numpy":
        engine: NumbaEngine | NumpyEngine = NumpyEngine(problem, settings.step, field)
    else:
        threads = thread_count(settings.threads, height)
        engine = NumbaEngine(problem, problem.bound_x.dtype, settings.step, threads, field)
    outcome = ascend(engine, height * width, settings.stopping)
    q, dual, value, bound = engine.result()
    return CscpResult(
        like(q, p_clip),
        relative(value - bound, value, height * width),
        outcome.iterations,
        DualField(like(dual.x, p_clip), like(dual.y, p_clip)),
        max(value - bound, 0.0) / (height * width),
        value,
        bound,
        outcome.converged,
        outcome.cancelled,
        settings.method,
        backend,
        outcome.history,
    )


def _solve_batch(
    p_clip: Any, p_dino: Any, wx: Any, wy: Any, settings: _Settings, start: tuple[Any, Any] | None, backend: str
) -> CscpResult:
    """A batch on the CPU, image by image: each is large enough to keep the cores busy."""
    count = len(p_clip)
    require(count >= 1, "p_clip is an empty batch.")
    require(len(p_dino) == count, f"p_clip holds {count} images, p_dino {len(p_dino)}.")

    def item(array: Any, i: int) -> Any:
        return array[i] if array.ndim == 3 else array

    results = [
        _solve_one(
            p_clip[i],
            p_dino[i],
            item(wx, i),
            item(wy, i),
            settings,
            None if start is None else (start[0][i], start[1][i]),
            backend,
        )
        for i in range(count)
    ]

    def stack(parts: list[Any]) -> Any:
        return like(np.stack([to_numpy(part) for part in parts]), p_clip)

    return CscpResult(
        stack([r.q for r in results]),
        max(r.relative_gap for r in results),
        max(r.iterations for r in results),
        DualField(stack([r.dual.x for r in results]), stack([r.dual.y for r in results])),
        max(r.gap_per_pixel for r in results),
        sum(r.energy for r in results),
        sum(r.dual_energy for r in results),
        all(r.converged for r in results),
        any(r.cancelled for r in results),
        settings.method,
        backend,
        results[-1].history,
    )


def _pair(warm_start: Any) -> tuple[Any, Any] | None:
    """The dual field to start from, whatever it came in."""
    if warm_start is None:
        return None
    x, y = warm_start.dual if isinstance(warm_start, CscpResult) else warm_start
    return x, y


def _start_field(start: tuple[Any, Any], problem: Problem) -> DualField:
    field = DualField(to_numpy(start[0]), to_numpy(start[1]))
    classes, height, width = problem.shape
    wanted = (classes, height, width - 1), (classes, height - 1, width)
    require(
        (field.x.shape, field.y.shape) == wanted,
        f"warm_start has the shapes {field.x.shape} and {field.y.shape}; "
        f"this problem needs {wanted[0]} and {wanted[1]}.",
    )
    return field


def thread_count(threads: int | None, height: int) -> int:
    """Threads to use: more than one only where each gets 64 rows, below which handing out the work costs more."""
    import numba

    if threads is not None:
        return min(threads, numba.config.NUMBA_NUM_THREADS, height)
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(numba.get_num_threads(), available, height // 64))
