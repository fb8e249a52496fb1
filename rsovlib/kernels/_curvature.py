"""How strongly the dual curves, and hence how long a step may be.

The Hessian of a logsumexp(u / a) is M(q) / a with M = diag(q) - q q^T.  Two diagonal bounds M <= diag(A) hold, each for
a whole pixel: A_k = 2 q_k (1 - q_k), as M is a graph Laplacian with weights q_k q_j and (x - y)^2 <= 2 x^2 + 2 y^2; and
A_k = q_k, as q q^T >= 0.  Mixing them entry by entry is no bound.  As every pixel has four edges,

    T_e,k = min(r_p,k, r_q,k),   r = a / (8 A)

is a safe ascent step for the edge e = (p, q).

Within the dual's box the logits of a pixel can move by at most rho, so A taken over that range is safe everywhere; this
is where the ascent starts.  But the iterates settle far inside the box, where A at the current q is up to twice
smaller.  So the step is *sharpened* now and then: A at the current q, with logits free to move by LOCAL_SHIFT, and the
step lengthened by LOCAL_GAIN.  On a quadratic, constant momentum theta stays stable up to a step of
2 (1 + theta) / (1 + 2 theta) > 4/3 times 1 / L, so a gain of 1.3 is within that bound; should the dual energy fall
nevertheless, the safe step returns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rsovlib.kernels._problem import Problem

LEAST_CURVATURE = 1e-4
LOCAL_SHIFT = 0.03
LOCAL_GAIN = 1.3


def curvature(base: np.ndarray[Any, Any], shift: np.ndarray[Any, Any] | float) -> np.ndarray[Any, Any]:
    """A with diag(q) - q q^T <= diag(A) for every q whose logits differ from those of ``base`` by at most ``shift``.

    Args:
        base: (K, ...), in the simplex along axis 0.
        shift: rho >= 0, (...).

    Returns:
        (K, ...), not below 1e-4.
    """
    # exp overflows at large beta; the quotients below have the right limits 0 and 1 all the same.
    spread = np.asarray(np.exp(np.minimum(2 * np.asarray(shift), 80)), dtype=base.dtype)
    rest = 1 - base
    high = base / (base + rest / spread)
    low = base / (base + rest * spread)
    laplacian = np.maximum(2 * low * (1 - low), 2 * high * (1 - high))
    laplacian[(low <= 0.5) & (high >= 0.5)] = 0.5
    use_laplacian = laplacian.max(axis=0) <= high.max(axis=0)
    return np.maximum(np.where(use_laplacian, laplacian, high), base.dtype.type(LEAST_CURVATURE))


def logit_shift(problem: Problem) -> np.ndarray[Any, Any]:
    """rho, (H, W): by how much y can move a pixel's logits, sum of beta w over its edges / a."""
    _, height, width = problem.shape
    total = np.zeros((height, width), dtype=np.float64)
    total[:, 1:] += problem.bound_x
    total[:, :-1] += problem.bound_x
    total[1:] += problem.bound_y
    total[:-1] += problem.bound_y
    return total / problem.a
