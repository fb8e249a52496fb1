"""Score diffusion on a nearest-neighbour graph (BCDR): the graph, the diffusion, and the diffusion's limit.

The graph is directed: row i lists the K nodes most similar to node i, its own excepted, weighted by
exp(cosine / tau) and normalised.  Scores S then move along it,

    S_{t+1} = alpha P S_t + (1 - alpha) S_0,            S_infinity = (1 - alpha) (I - alpha P)^{-1} S_0.

P is stored as a sparse matrix with K entries a row.  An N x N matrix is never formed: similarities are taken
in blocks of rows.  Source: Bidirectional Cross-Perception for Open-Vocabulary Semantic Segmentation in Remote
Sensing Imagery, equations 11 to 15; the random walk with restart behind them is Zhou et al., "Learning with
Local and Global Consistency", NeurIPS 2003.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from rsovlib.errors import InputError
from rsovlib.kernels._arrays import is_torch, require, to_numpy

if TYPE_CHECKING:
    import torch

    from rsovlib.kernels._arrays import ArrayT

# Similarities held at once: 2**24 float32 values are 64 MiB.
_BLOCK_VALUES = 2**24
# Products below this take a thread less time than its start.
_WORTH_THREADS = 10**7
_Csr = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]  # row offsets, columns, values
_SYMMETRIC_ROWS = 240  # few enough to leave little double work at the diagonal, and enough for a fast product


def knn_transition(features: Any, k: int = 30, temperature: float = 0.07, *, row_eps: float = 0.0) -> Any:
    """Row-stochastic transition matrix of the exact k-nearest-neighbour graph under the cosine.

    P_ij = exp(c_ij / tau) / (row_eps + sum_l exp(c_il / tau)) for the K nodes j != i of largest cosine c_ij.
    Equal cosines are taken in the order of their column, so the same features give the same graph each time.
    A zero vector has cosine 0 with every node.

    Args:
        features: (N, D) real, finite; a torch tensor on any device or a NumPy array.  Lengths don't matter.
        k: neighbours a node, K >= 1; no more than N - 1 are used.
        temperature: tau > 0, in units of the cosine.
        row_eps: added to each row's sum before the division.  0 gives rows that sum to 1; the official SDCI
            code adds 1e-6, which changes nothing beyond float32 rounding at its temperature.

    Returns:
        (N, N) with min(K, N - 1) entries a row, columns ascending: ``torch.sparse_csr`` (int64 indices) for
        torch, ``scipy.sparse.csr_array`` for NumPy; of the features' float type (float32 for lesser ones).

    Raises:
        InputError: the shape isn't (N, D), N < 2, a value isn't finite, k < 1 or temperature <= 0.

    Time is O(N^2 D), memory O(N K) plus blocks of at most 64 MiB of similarities.
    """
    require(temperature > 0, f"temperature must be positive, got {temperature}.")
    require(row_eps >= 0, f"row_eps must not be negative, got {row_eps}.")
    transition = transition_of(nearest_neighbours(features, k), k, temperature, row_eps=row_eps)
    if is_torch(features):
        return transition
    from scipy.sparse import csr_array

    parts = (transition.values(), transition.col_indices(), transition.crow_indices())
    return csr_array(tuple(part.numpy() for part in parts), shape=tuple(transition.shape))


def _checked_features(features: Any, k: int) -> torch.Tensor:
    """Features as a float tensor."""
    import torch

    x: torch.Tensor = features if is_torch(features) else torch.from_numpy(np.ascontiguousarray(features))
    require(x.ndim == 2, f"features must have the shape (N, D), got {tuple(x.shape)}.")
    require(x.shape[0] >= 2, f"A neighbour graph needs at least 2 nodes, got features of shape {tuple(x.shape)}.")
    require(k >= 1, f"k must be at least 1, got {k}.")
    require(not x.is_complex(), "features must be real numbers, got complex ones.")
    if x.dtype not in (torch.float32, torch.float64):
        x = x.float()  # half precision would reorder near-equal neighbours
    # The sum is finite if all values are, unless they overflow; only then is it worth looking at each of them.
    if not bool(torch.isfinite(x.detach().sum())) and not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x).all(dim=1)).sum())
        raise InputError(f"features must be finite, but {bad} of {x.shape[0]} rows hold NaN or infinity.")
    return x


@dataclass(frozen=True)
class Neighbours:
    """The nearest neighbours of every node; :func:`transition_of` makes a graph of them or of the nearest among them.

    Attributes:
        columns: (N, k) int64, ascending in each row.
        cosines: (N, k), of the same pairs.
    """

    columns: torch.Tensor
    cosines: torch.Tensor


def nearest_neighbours(features: Any, k: int) -> Neighbours:
    """The k nodes of largest cosine to each node, itself excepted; equal cosines in the order of their column.

    Args:
        features: (N, D), see :func:`knn_transition`.
        k: neighbours a node, at least 1; no more than N - 1 are found.

    Raises:
        InputError: see :func:`knn_transition`.
    """
    import torch

    x = torch.nn.functional.normalize(_checked_features(features, k).detach(), dim=1)
    k = min(k, x.shape[0] - 1)
    return Neighbours(*(_nearest_on_cpu(x, k) if x.device.type == "cpu" else _nearest(x, k)))


def transition_of(found: Neighbours, k: int, temperature: float = 0.07, *, row_eps: float = 0.0) -> torch.Tensor:
    """The matrix of :func:`knn_transition` from neighbours found before, of which the nearest k are taken.

    So K and tau can be changed without comparing all pairs of nodes again.

    Args:
        found: at least k neighbours a node (or all others).
        k: neighbours a node, K >= 1.
        temperature: tau > 0.
        row_eps: see :func:`knn_transition`.

    Returns:
        (N, N) ``torch.sparse_csr``.

    Raises:
        InputError: fewer neighbours were found, k < 1 or temperature <= 0.
    """
    import torch

    columns, cosines = found.columns, found.cosines
    n, held = columns.shape
    require(k >= 1, f"k must be at least 1, got {k}.")
    require(temperature > 0, f"temperature must be positive, got {temperature}.")
    k = min(k, n - 1)
    require(k <= held, f"{held} neighbours of each node were found, too few for k={k}.")
    if k < held:
        nearest, cosines = _nearest_among(cosines, k)
        columns = columns.gather(1, nearest)
    top = cosines.amax(dim=1, keepdim=True)
    weights = torch.exp((cosines - top) / temperature)
    total = weights.sum(dim=1, keepdim=True)
    if row_eps:
        # The weights were divided by exp(top / tau) to keep them finite; so must row_eps be.
        total = total + row_eps * torch.exp(-top / temperature)
    values = (weights / total).reshape(-1)
    offsets = torch.arange(0, n * k + 1, k, dtype=torch.int64, device=columns.device)
    return _csr(offsets, columns.reshape(-1), values, n)


def _nearest_among(cosines: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Places (ascending) and values of each row's k largest; of equal ones the first, as the search itself decides."""
    import torch

    if cosines.device.type != "cpu":
        places = cosines.argsort(dim=1, descending=True, stable=True)[:, :k].sort(dim=1).values
        return places, cosines.gather(1, places)
    from rsovlib.kernels._graph_numba import select_largest

    places = torch.empty((len(cosines), k), dtype=torch.int64)
    values = torch.empty((len(cosines), k), dtype=cosines.dtype)
    select_largest(cosines.contiguous().numpy(), k, places.numpy(), values.numpy())
    return places, values


def _csr(offsets: torch.Tensor, columns: torch.Tensor, values: torch.Tensor, n: int) -> torch.Tensor:
    """A square torch CSR matrix, without torch's warning that the layout is in beta."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(offsets, columns, values, size=(n, n), check_invariants=False)


def _nearest_on_cpu(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns (ascending) and cosines of each row's k nearest others, both (N, k)."""
    import torch

    from rsovlib.kernels._graph_numba import select_largest

    n = x.shape[0]
    columns = torch.empty((n, k), dtype=torch.int64)
    cosines = torch.empty((n, k), dtype=x.dtype)
    # Picking runs in this one thread, between the products of torch's threads: threads of another kind would fight
    # with those for the cores, as both wait busily, and lose far more than they bring.
    for start, stop, block in _symmetric_blocks(x) if _block_rows(n) == n else _blocks(x):
        block.diagonal(offset=start).fill_(-torch.inf)
        select_largest(block.numpy(), k, columns[start:stop].numpy(), cosines[start:stop].numpy())
    return columns, cosines


def _blocks(x: torch.Tensor) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Rows of X X^T, in blocks: first row, row after the last, values."""
    rows = _block_rows(x.shape[0])
    for start in range(0, x.shape[0], rows):
        stop = min(start + rows, x.shape[0])
        yield start, stop, x[start:stop] @ x.T


def _symmetric_blocks(x: torch.Tensor) -> Iterator[tuple[int, int, torch.Tensor]]:
    """:func:`_blocks` by little more than half the work: what lies left of the diagonal is copied from its right."""
    import torch

    n = x.shape[0]
    whole = x.new_empty(n, n)
    values = whole.numpy()  # copies in this thread: one more team of threads to wait for would cost more
    for start in range(0, n, _SYMMETRIC_ROWS):
        stop = min(start + _SYMMETRIC_ROWS, n)
        torch.mm(x[start:stop], x[start:].T, out=whole[start:stop, start:])
        values[stop:, start:stop] = values[start:stop, stop:].T
        yield start, stop, whole[start:stop]


def _nearest(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`_nearest_on_cpu` with torch alone, for other devices."""
    import torch

    n = x.shape[0]
    columns = torch.empty((n, k), dtype=torch.int64, device=x.device)
    cosines = torch.empty((n, k), dtype=x.dtype, device=x.device)
    for start, stop, block in _blocks(x):
        block.diagonal(offset=start).fill_(-torch.inf)
        columns[start:stop], cosines[start:stop] = _largest(block, k)
    return columns, cosines


def _block_rows(n: int) -> int:
    return max(1, min(n, _BLOCK_VALUES // n))


def _largest(block: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns (ascending) and values of each row's k largest entries; equal ones by ascending column."""
    least = block.topk(k, dim=1).values[:, -1:]
    above = block > least
    tied = block == least
    # torch.topk doesn't say which of several equal entries it takes, so ties are settled here.
    spare = k - above.sum(dim=1, keepdim=True)
    chosen = above | (tied & (tied.cumsum(dim=1) <= spare))
    columns = chosen.nonzero()[:, 1].view(-1, k)
    return columns, block.gather(1, columns)


def diffuse(
    transition: Any, scores: ArrayT, alpha: float = 0.9, steps: int = 40, *, tolerance: float | None = None
) -> ArrayT:
    """Run S <- alpha P S + (1 - alpha) S_0 for a number of steps, starting from S = S_0.

    Args:
        transition: P, (N, N) sparse CSR from :func:`knn_transition` (torch or SciPy), or a dense matrix.
        scores: S_0, (N, K), any finite values; a torch tensor (gradients flow through) or a NumPy array.
        alpha: share of the neighbours' scores, 0 <= alpha < 1.
        steps: T >= 0.  After T steps a share alpha^T of the transient is left (1.5 % at 0.9 and 40).
        tolerance: stop early once no score moved by more than this in one step.  For a row-stochastic P the
            distance to the limit is then at most ``tolerance * alpha / (1 - alpha)``.

    Returns:
        (N, K), of the kind and float type of ``scores``.

    Raises:
        InputError: shapes don't match, alpha lies outside [0, 1), or steps < 0.

    Time is O(T N k K) for k neighbours and K columns.
    """
    import torch

    require(steps >= 0, f"steps must not be negative, got {steps}.")
    start: torch.Tensor = scores if is_torch(scores) else torch.from_numpy(np.ascontiguousarray(scores))  # type: ignore[assignment]
    _check_diffusion(transition, start, alpha)
    parts = _csr_on_cpu(transition, start)
    if parts is None:
        result = _diffuse_by_torch(_as_torch_matrix(transition, start), start, alpha, steps, tolerance)
    else:
        moved = _diffuse_on_cpu(*parts, start.detach().numpy(), alpha, steps, tolerance)
        result = torch.from_numpy(moved)
    if start.is_floating_point():
        result = result.to(start.dtype)
    return result if is_torch(scores) else result.numpy()  # type: ignore[return-value]


def _diffuse_by_torch(
    matrix: torch.Tensor, start: torch.Tensor, alpha: float, steps: int, tolerance: float | None
) -> torch.Tensor:
    """The steps for dense matrices, other devices, and where gradients are wanted."""
    import torch

    seed = start.to(matrix.dtype)
    restart = (1 - alpha) * seed
    current = seed
    for _ in range(steps):
        following = torch.add(restart, matrix @ current, alpha=alpha)
        settled = tolerance is not None and float((following - current).detach().abs().amax()) <= tolerance
        current = following
        if settled:
            break
    return current


def _csr_on_cpu(transition: Any, start: torch.Tensor) -> _Csr | None:
    """Row offsets, columns and values of a sparse matrix that the compiled loop can take, else None."""
    import torch

    if start.device.type != "cpu" or (start.requires_grad and torch.is_grad_enabled()):
        return None
    if is_torch(transition):
        if transition.layout != torch.sparse_csr or transition.device.type != "cpu" or transition.requires_grad:
            return None
        tensors = transition.crow_indices(), transition.col_indices(), transition.values().detach()
        offsets, columns, values = (tensor.numpy() for tensor in tensors)
    elif hasattr(transition, "tocsr"):
        csr = transition.tocsr()
        offsets, columns, values = csr.indptr, csr.indices, csr.data
    else:
        return None
    if values.dtype not in (np.float32, np.float64):
        return None
    n = start.shape[0]
    require(
        len(offsets) == n + 1
        and offsets[0] == 0
        and offsets[-1] == len(columns)
        and bool((offsets[1:] >= offsets[:-1]).all())
        and (len(columns) == 0 or (columns.min() >= 0 and columns.max() < n)),
        "transition is no valid CSR matrix: its row offsets or columns lie outside it.",
    )
    return offsets, columns, values


def _diffuse_on_cpu(
    offsets: np.ndarray[Any, Any],
    columns: np.ndarray[Any, Any],
    values: np.ndarray[Any, Any],
    scores: np.ndarray[Any, Any],
    alpha: float,
    steps: int,
    tolerance: float | None,
) -> np.ndarray[Any, Any]:
    """The steps in compiled code, on blocks of LANES columns of the scores, each of which moves by itself."""
    import torch

    from rsovlib.kernels._graph_numba import LANES, walk

    n, wanted = scores.shape
    kind = values.dtype.type
    blocks = -(-wanted // LANES)
    states = np.zeros((2, blocks, n, LANES), kind)
    for b in range(blocks):
        part = scores[:, b * LANES : (b + 1) * LANES]
        states[0, b, :, : part.shape[1]] = part
    restart, weights = kind(1 - alpha) * states[0], kind(alpha) * values

    def move(b: int, count: int, now: int) -> None:
        walk(offsets, columns, weights, restart[b], states[now, b], states[1 - now, b], count)

    now = 0
    if tolerance is None:
        # Blocks are independent, so threads change nothing; a small one is done before a thread has started.
        large = blocks > 1 and len(columns) * steps * blocks > _WORTH_THREADS
        with ThreadPoolExecutor(min(blocks, torch.get_num_threads()) if large else 1) as pool:
            run = pool.map if large else map
            list(run(move, range(blocks), repeat(steps), repeat(0)))
        now = steps % 2
    else:
        for _ in range(steps):
            for b in range(blocks):
                move(b, 1, now)
            now = 1 - now
            if blocks == 0 or float(np.abs(states[0] - states[1]).max()) <= tolerance:
                break
    return np.ascontiguousarray(states[now].transpose(1, 0, 2).reshape(n, blocks * LANES)[:, :wanted])


def diffuse_both(
    transitions: tuple[Any, Any],
    scores: tuple[ArrayT, ArrayT],
    alpha: float = 0.9,
    steps: int = 40,
    *,
    tolerance: float | None = None,
) -> tuple[ArrayT, ArrayT]:
    """:func:`diffuse` on two graphs at once, each with its own nodes and scores.

    On a GPU the two graphs are stacked as one block-diagonal matrix, which halves the number of kernel launches;
    on a CPU that costs exactly the sum of the two, so they run one after the other.

    Args:
        transitions: two transition matrices, (N, N) and (M, M).
        scores: two score matrices, (N, K) and (M, K).
        alpha: see :func:`diffuse`.
        steps: see :func:`diffuse`.
        tolerance: see :func:`diffuse`.

    Returns:
        The two diffused score matrices.

    Raises:
        InputError: see :func:`diffuse`.
    """
    first, second = scores
    on_gpu = is_torch(first) and first.device.type != "cpu"  # type: ignore[union-attr]
    if not on_gpu or first.shape[1] != second.shape[1]:
        one = diffuse(transitions[0], first, alpha, steps, tolerance=tolerance)
        return one, diffuse(transitions[1], second, alpha, steps, tolerance=tolerance)
    import torch

    stacked: Any = torch.cat([first, second])  # type: ignore[list-item]
    both = diffuse(_block_diagonal(*transitions), stacked, alpha, steps, tolerance=tolerance)
    return both[: first.shape[0]], both[first.shape[0] :]


def _block_diagonal(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Two CSR matrices as one, the second below and to the right of the first."""
    import torch

    n, m = first.shape[0], second.shape[0]
    offsets = torch.cat([first.crow_indices(), second.crow_indices()[1:] + first.crow_indices()[-1]])
    columns = torch.cat([first.col_indices(), second.col_indices() + n])
    values = torch.cat([first.values(), second.values()])
    return _csr(offsets, columns, values, n + m)


def diffuse_limit(transition: Any, scores: ArrayT, alpha: float = 0.9) -> ArrayT:
    """What :func:`diffuse` tends to: (1 - alpha) (I - alpha P)^{-1} S_0, by a sparse direct solver.

    Args:
        transition: P, (N, N), sparse or dense.
        scores: S_0, (N, K).
        alpha: 0 <= alpha < 1, which makes I - alpha P invertible for any row-stochastic P.

    Returns:
        (N, K), of the kind and float type of ``scores``.  Solved in float64; not differentiable.

    Raises:
        InputError: shapes don't match, or alpha lies outside [0, 1).
    """
    from scipy.sparse import csc_array, csr_array, eye_array
    from scipy.sparse.linalg import splu

    from rsovlib.kernels._arrays import like

    if is_torch(transition) and transition.layout != _strided():
        csr = transition.detach().cpu().to_sparse_csr()
        parts = (csr.values().double().numpy(), csr.col_indices().numpy(), csr.crow_indices().numpy())
        matrix = csr_array(parts, shape=tuple(csr.shape))
    else:
        matrix = csr_array(to_numpy(transition) if is_torch(transition) else transition, dtype=np.float64)
    values = to_numpy(scores)
    _check_diffusion(matrix, values, alpha)
    system = csc_array(eye_array(matrix.shape[0]) - alpha * matrix)
    solved = splu(system).solve((1 - alpha) * values.astype(np.float64))
    kind = values.dtype if np.issubdtype(values.dtype, np.floating) else np.float64
    return like(solved.astype(kind), scores)


def _strided() -> Any:
    import torch

    return torch.strided


def _as_torch_matrix(transition: Any, scores: Any) -> torch.Tensor:
    """P as a torch matrix beside ``scores``; SciPy's CSR is wrapped without copying its values."""
    import torch

    device = scores.device if is_torch(scores) else torch.device("cpu")
    if is_torch(transition):
        return transition.to(device)
    if not hasattr(transition, "tocsr"):
        return torch.from_numpy(np.ascontiguousarray(transition)).to(device)
    csr = transition.tocsr()
    offsets, columns, values = (torch.from_numpy(np.asarray(part)) for part in (csr.indptr, csr.indices, csr.data))
    require(csr.shape[0] == csr.shape[1], f"transition must be square, got {csr.shape}.")
    return _csr(offsets, columns, values, csr.shape[0]).to(device)


def _check_diffusion(matrix: Any, scores: Any, alpha: float) -> None:
    require(scores.ndim == 2, f"scores must have the shape (N, K), got {tuple(scores.shape)}.")
    n = scores.shape[0]
    require(
        tuple(matrix.shape) == (n, n),
        f"transition must be ({n}, {n}) for scores of shape {tuple(scores.shape)}, got {tuple(matrix.shape)}.",
    )
    require(0 <= alpha < 1, f"alpha must lie in [0, 1), got {alpha}.")
