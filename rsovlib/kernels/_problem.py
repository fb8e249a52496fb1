"""The convex fusion problem as data, and its energies in float64: the ground on which every solver is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rsovlib.errors import InputError
from rsovlib.kernels._arrays import all_finite, require, to_numpy

FLOOR = 1e-6  # the official code clamps probabilities here, lest log 0 decide everything
_BAND_VALUES = 3 * 2**14  # values handled at once where whole maps in float64 would be too large


class DualField(NamedTuple):
    """Dual variables, one for each edge and class; |x| <= beta wx and |y| <= beta wy.

    Attributes:
        x: (..., K, H, W-1), edges to the right-hand neighbour.
        y: (..., K, H-1, W), edges to the neighbour below.
    """

    x: Any
    y: Any


@dataclass(frozen=True)
class Problem:
    """One image's instance, channel first, in NumPy.

    Attributes:
        p_clip: (K, H, W), as given.
        p_dino: (K, H, W), as given.
        bound_x: (H, W-1), beta wx.
        bound_y: (H-1, W), beta wy.
        lambda_clip: weight of the first KL term.
        lambda_dino: weight of the second KL term.
        floor: probabilities are clamped here from below and then renormalised.
        pull: (K, H, W) subtracted from b, or None: what edges that are held fixed outside add to D^T y.
    """

    p_clip: np.ndarray[Any, Any]
    p_dino: np.ndarray[Any, Any]
    bound_x: np.ndarray[Any, Any]
    bound_y: np.ndarray[Any, Any]
    lambda_clip: float
    lambda_dino: float
    floor: float
    pull: np.ndarray[Any, Any] | None = None

    @property
    def a(self) -> float:
        """The weight of the entropy, lambda_clip + lambda_dino."""
        return self.lambda_clip + self.lambda_dino

    @property
    def shape(self) -> tuple[int, int, int]:
        """(K, H, W)."""
        classes, height, width = self.p_clip.shape
        return classes, height, width

    def bands(self) -> list[tuple[int, int]]:
        """Ranges of rows small enough for float64 work."""
        classes, height, width = self.shape
        rows = max(1, _BAND_VALUES // (classes * width))
        return [(top, min(top + rows, height)) for top in range(0, height, rows)]

    def linear(self, top: int, bottom: int, kind: Any = np.float64) -> np.ndarray[Any, Any]:
        """b = lambda_clip log p_clip + lambda_dino log p_dino of some rows, (K, rows, W)."""
        first = _log_probability(self.p_clip[:, top:bottom], self.floor, kind)
        first *= kind(self.lambda_clip)
        second = _log_probability(self.p_dino[:, top:bottom], self.floor, kind)
        second *= kind(self.lambda_dino)
        first += second
        if self.pull is not None:
            first -= self.pull[:, top:bottom]
        return first


def _log_probability(p: np.ndarray[Any, Any], floor: float, kind: Any) -> np.ndarray[Any, Any]:
    clamped = np.clip(p, floor, 1.0).astype(kind, copy=False)
    total = clamped.sum(axis=0)
    np.log(clamped, out=clamped)
    clamped -= np.log(total)
    return clamped


def make_problem(
    p_clip: Any,
    p_dino: Any,
    wx: Any,
    wy: Any,
    lambda_clip: float,
    lambda_dino: float,
    beta: float,
    floor: float = FLOOR,
) -> Problem:
    """Check everything that a caller can get wrong, and gather it.

    Raises:
        InputError: shapes don't match, there is no pixel or class, values are NaN or infinite or negative weights,
            or the parameters are out of range.
    """
    first, second = to_numpy(p_clip), to_numpy(p_dino)
    require(first.ndim == 3, f"p_clip must have the shape (K, H, W), got {first.shape}.")
    require(first.shape == second.shape, f"p_clip {first.shape} and p_dino {second.shape} must have one shape.")
    require(min(first.shape) >= 1, f"p_clip must hold at least one class and one pixel, got {first.shape}.")
    check_parameters(lambda_clip, lambda_dino, beta, floor, first.shape[0])
    _, height, width = first.shape
    weights_x, weights_y = to_numpy(wx), to_numpy(wy)
    _check_weights(weights_x, "wx", (height, width - 1))
    _check_weights(weights_y, "wy", (height - 1, width))
    for name, p in (("p_clip", first), ("p_dino", second)):
        if not all_finite(p):
            raise InputError(f"{name} holds NaN or infinite values; it must hold probabilities over its first axis.")
    kind = np.float64 if first.dtype == np.float64 else np.float32
    return Problem(
        first,
        second,
        np.multiply(weights_x, kind(beta), dtype=kind),
        np.multiply(weights_y, kind(beta), dtype=kind),
        float(lambda_clip),
        float(lambda_dino),
        max(float(floor), float(np.finfo(kind).tiny)),  # less has no accurate logarithm
    )


def check_parameters(lambda_clip: float, lambda_dino: float, beta: float, floor: float, classes: int) -> None:
    """Refuse weights for which the problem is not strictly convex."""
    require(
        lambda_clip >= 0 and lambda_dino >= 0 and lambda_clip + lambda_dino > 0,
        f"lambda_clip and lambda_dino must not be negative and not both 0, got {lambda_clip} and {lambda_dino}.",
    )
    require(np.isfinite(lambda_clip + lambda_dino), "lambda_clip and lambda_dino must be finite.")
    require(0 <= beta < np.inf, f"beta must be finite and not negative, got {beta}.")
    require(0 < floor * classes <= 1, f"floor must lie in (0, 1/K], got {floor}.")


def _check_weights(weights: np.ndarray[Any, Any], name: str, shape: tuple[int, int]) -> None:
    require(weights.shape == shape, f"{name} must have the shape {shape}, one weight an edge, got {weights.shape}.")
    # NaN would be both the least and the largest value, and neither comparison would hold.
    if weights.size and not (weights.min() >= 0 and weights.max() < np.inf):
        raise InputError(f"{name} must hold finite weights that aren't negative.")


def energy(problem: Problem, q: np.ndarray[Any, Any]) -> float:
    """P(q) in float64: both KL terms and the weighted total variation."""
    return sum(_band_energy(problem, q, problem.linear(*band), *band) for band in problem.bands())


def dual_energy(problem: Problem, field: DualField) -> float:
    """d(y) = -a sum_p logsumexp((b - D^T y) / a) in float64; a lower bound of P for every y in the box."""
    return sum(_band_dual_energy(problem, field, problem.linear(*band), *band) for band in problem.bands())


def certificate(problem: Problem, q: np.ndarray[Any, Any], field: DualField) -> tuple[float, float]:
    """P(q) and d(y), whose difference bounds how far either is from the optimum."""
    primal = dual = 0.0
    for band in problem.bands():
        linear = problem.linear(*band)  # the logarithms of both maps: most of the work, and in both energies
        primal += _band_energy(problem, q, linear, *band)
        dual += _band_dual_energy(problem, field, linear, *band)
    return primal, dual


def _band_energy(
    problem: Problem, q: np.ndarray[Any, Any], linear: np.ndarray[Any, Any], top: int, bottom: int
) -> float:
    part = q[:, top:bottom].astype(np.float64)
    logs = np.log(np.maximum(part, 1e-300))  # q log q is 0 where q is
    logs *= problem.a
    logs -= linear
    logs *= part
    return float(logs.sum()) + _variation(problem, q, top, bottom)


def _variation(problem: Problem, q: np.ndarray[Any, Any], top: int, bottom: int) -> float:
    part = q[:, top : bottom + 1].astype(np.float64)  # one row more: the edges that leave the band downwards
    across = np.abs(np.diff(part[:, : bottom - top], axis=2)).sum(axis=0)
    down = np.abs(np.diff(part, axis=1)).sum(axis=0)
    # No np.vdot: BLAS would start threads of its own for it, and add up in an order that depends on them.
    across *= problem.bound_x[top:bottom]
    down *= problem.bound_y[top : top + down.shape[0]]
    return float(across.sum() + down.sum())


def _band_dual_energy(problem: Problem, field: DualField, linear: np.ndarray[Any, Any], top: int, bottom: int) -> float:
    logits = linear - adjoint_rows(field, top, bottom)
    logits /= problem.a
    peak = logits.max(axis=0)
    logits -= peak
    np.exp(logits, out=logits)
    return -problem.a * float((np.log(logits.sum(axis=0)) + peak).sum())


def adjoint_rows(field: DualField, top: int, bottom: int) -> np.ndarray[Any, Any]:
    """(D^T y) of some rows, (K, rows, W): edges that end at a pixel minus edges that start there."""
    x = field.x[:, top:bottom].astype(np.float64)
    classes, rows, columns = x.shape
    result = np.zeros((classes, rows, columns + 1))
    result[:, :, 1:] += x
    result[:, :, :-1] -= x
    edges = field.y.shape[1]
    below = field.y[:, top : min(bottom, edges)]
    result[:, : below.shape[1]] -= below
    above = field.y[:, max(top - 1, 0) : bottom - 1]
    if above.shape[1]:
        result[:, rows - above.shape[1] :] += above
    return result


def relative(gap: float, energy_value: float, pixels: int) -> float:
    """gap / P.  P is a sum of divergences and may be 0, so it counts for at least 1e-12 nats a pixel."""
    return max(gap, 0.0) / max(energy_value, 1e-12 * pixels)
