"""Benchmarks of the kernels: `python -m benchmarks.kernels [--full] [NAME ...]`.

Every figure is measured in this run.  A ratio is the median over turns that two ways of doing one thing took in
alternation, with the lowest and highest beside it; so load on the machine is unfair to both alike.  Without ``--full``
the sizes are small enough for a minute or two; with it they are those of the project's goals, up to 4096 x 4096.
"""

from __future__ import annotations

import argparse
import os
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial

import numba
import numpy as np
import pandas as pd
import torch
from skimage.segmentation import felzenszwalb

from benchmarks._timing import best, paired, seconds, use_processor_time
from benchmarks.kernels_inputs import REGIMES, Inputs, land_cover, make_inputs, texture
from rsovlib.kernels import diffuse, felzenszwalb_superpixels, knn_transition, solve_cscp
from rsovlib.kernels._ascent import momentum
from rsovlib.kernels._engines import NumbaEngine
from rsovlib.kernels._problem import make_problem

Row = dict[str, object]
GAPS = (1e-2, 1e-3, 1e-4)


def superpixels(full: bool) -> Iterator[Row]:
    """Compiled Felzenszwalb against scikit-image's, one thread each."""
    for size in (256, 512, 1024, 2048, 4096) if full else (256, 512):
        image = texture(land_cover(size, 6, 0), 1)
        pair = paired(
            lambda: felzenszwalb_superpixels(image),  # noqa: B023
            lambda: felzenszwalb(image, scale=40, sigma=0.8, min_size=20),  # noqa: B023
            3 if size < 2048 else 1,
        )
        same = bool((felzenszwalb_superpixels(image) == felzenszwalb(image, scale=40, sigma=0.8, min_size=20)).all())
        yield {"size": size, "against": "scikit-image", **pair.row(), "same_labels": same}


def diffusion(full: bool) -> Iterator[Row]:
    """40 sparse steps against 40 dense ones, and the graph's construction against a dense one."""
    for nodes, classes in [(1444, 6), (1444, 15), *([(4096, 6), (16_384, 6)] if full else [])]:
        features = torch.randn(nodes, 768, generator=torch.Generator().manual_seed(0))
        scores = torch.rand(nodes, classes)
        graph = knn_transition(features)
        if nodes <= 4096:
            dense = graph.to_dense()
            pair = paired(partial(diffuse, graph, scores), partial(diffuse, dense, scores), 7)
            yield {"what": "40 steps", "nodes": nodes, "classes": classes, "against": "dense", **pair.row()}
            pair = paired(partial(knn_transition, features), partial(dense_graph, features), 5)
            yield {"what": "graph", "nodes": nodes, "classes": "", "against": "dense torch.topk", **pair.row()}
        else:
            steps = best(partial(diffuse, graph, scores), 3)
            yield {"what": "40 steps", "nodes": nodes, "classes": classes, "ours_ms": round(1e3 * steps, 2)}


def dense_graph(features: torch.Tensor, k: int = 30, temperature: float = 0.07) -> torch.Tensor:
    """The transition matrix as the formulas read: an N x N matrix with its k largest entries kept."""
    unit = torch.nn.functional.normalize(features, dim=1)
    cosine = (unit @ unit.T).fill_diagonal_(-1e9)
    values, columns = cosine.topk(k, dim=1)
    result = torch.zeros_like(cosine).scatter_(1, columns, torch.exp(values / temperature))
    return result / result.sum(dim=1, keepdim=True)


def convex(full: bool) -> Iterator[Row]:
    """Iterations and time to each gap and to 99.9 % of the optimum's labels, against the published iterations."""
    size = 512 if full else 192
    for regime in REGIMES:
        for classes in (2, 6, 15, 64) if full else (6,):
            inputs = make_inputs(regime, classes, size)
            optimum = solve_cscp(*inputs.arrays, tolerance=1e-6, gap_per_pixel=0.0, max_iterations=3000).labels
            published = reach(inputs, optimum, "official", 800 if full else 60, 1) if classes <= 15 else {}
            for threads in (1, 2):
                ours = reach(inputs, optimum, "dual", 2000, threads)
                for goal, (iterations, time) in ours.items():
                    theirs = published.get(goal)
                    yield {
                        "regime": regime,
                        "size": size,
                        "classes": classes,
                        "threads": threads,
                        "goal": goal,
                        "iterations": iterations,
                        "ours_ms": round(1e3 * time, 1),
                        "published_iterations": theirs[0] if theirs else "not reached",
                        "published_ms": round(1e3 * theirs[1]) if theirs else "",
                        "ratio": round(theirs[1] / time, 1) if theirs else "",
                    }


def reach(inputs: Inputs, optimum: np.ndarray, method: str, limit: int, threads: int) -> dict[str, tuple[int, float]]:
    """Iterations and seconds after which each goal was first met, checks left out.

    The goals are found in a first run, which looks at every fifth iteration; the times come from a second one
    without looking, so the cost of looking isn't counted.
    """
    found: dict[str, int] = {}

    def look(check) -> None:
        agreement = (np.asarray(check.primal()).reshape(inputs.p_clip.shape).argmax(0) == optimum).mean()
        for name, met in [
            *((f"gap {gap:.0e}", check.relative_gap <= gap) for gap in GAPS),
            ("99.9 % labels", agreement >= 0.999),
        ]:
            if met and name not in found:
                found[name] = check.iteration

    def stop() -> bool:
        return len(found) == len(GAPS) + 1

    options = {"method": method, "tolerance": 0.0, "gap_per_pixel": 0.0, "max_iterations": limit}
    solve_cscp(*inputs.arrays, **options, check_every=5, callback=look, should_stop=stop, threads=threads)
    result = {}
    for name, iterations in sorted(found.items(), key=lambda item: item[1]):
        run = partial(
            solve_cscp,
            *inputs.arrays,
            **(options | {"max_iterations": max(iterations, 1)}),
            check_every=10 if method == "dual" else 10_000,
            threads=threads,
        )
        result[name] = (iterations, best(run, 3) if method == "dual" else seconds(run))
    return result


def bandwidth(full: bool) -> Iterator[Row]:
    """Bytes that a sweep moves in a second, as a share of a triad a = b + s c measured beside it."""
    size, classes = (2048 if full else 1024), 5
    inputs = make_inputs("sharp", classes, size)
    problem = make_problem(*inputs.arrays, 1.0, 0.2, 0.1)
    length = 2**25
    arrays = [np.full(length, value, np.float32) for value in (0.0, 1.0, 2.0)]
    thetas = np.array([momentum(20.0, i)[0] for i in range(5)])
    for threads in (1, 2):
        if threads > numba.config.NUMBA_NUM_THREADS:
            continue
        engine = NumbaEngine(problem, np.float32, "diagonal", threads, None)
        pair = paired(partial(engine.iterate, thetas), partial(run_triad, *arrays, threads), 7)
        moved = 4 * (10 * classes + 2) * size * size * len(thetas) / min(pair.ours)
        copied = 4 * 3 * length / min(pair.theirs)
        yield {
            "size": size,
            "classes": classes,
            "threads": threads,
            "iteration_ms": round(1e3 * min(pair.ours) / len(thetas), 2),
            "sweep_GB_s": round(moved / 1e9, 1),
            "triad_GB_s": round(copied / 1e9, 1),
            "share": round(moved / copied, 2),
        }


@numba.njit(parallel=True)
def triad(a, b, c, s, chunks):
    for i in numba.prange(chunks):
        for x in range(i * a.size // chunks, (i + 1) * a.size // chunks):
            a[x] = b[x] + s * c[x]


def run_triad(a: np.ndarray, b: np.ndarray, c: np.ndarray, threads: int) -> None:
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    triad(a, b, c, np.float32(3), threads)
    numba.set_num_threads(before)


def memory(full: bool) -> Iterator[Row]:
    """Peak of what a solve allocates beyond its inputs, in floats a pixel."""
    size = 1024 if full else 512
    for classes in (2, 6, 15):
        inputs = make_inputs("sharp", classes, size)
        solve_cscp(*inputs.arrays, max_iterations=10)
        tracemalloc.start()
        solve_cscp(*inputs.arrays, max_iterations=10)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        floats = peak / 4 / size**2
        yield {
            "size": size,
            "classes": classes,
            "peak_MiB": round(peak / 2**20, 1),
            "floats_a_pixel": round(floats, 1),
            "floats_a_pixel_and_class": round(floats / classes, 2),
        }


def generic(full: bool) -> Iterator[Row]:
    """A solver that a user might pick: CVXPY with SCS (first order), on a size that it manages."""
    import cvxpy

    size, classes = (48 if full else 20), 4
    inputs = make_inputs("sharp", classes, 64)
    p_clip, p_dino = (p[:, :size, :size] for p in inputs.arrays[:2])
    wx, wy = inputs.wx[:size, : size - 1], inputs.wy[: size - 1, :size]
    pixels = size * size
    q = cvxpy.Variable((classes, pixels))
    grid = np.arange(pixels).reshape(size, size)
    ends = np.concatenate(
        [np.stack([grid[:, :-1].ravel(), grid[:, 1:].ravel()]), np.stack([grid[:-1].ravel(), grid[1:].ravel()])], 1
    )
    weights = np.tile(np.concatenate([wx.ravel(), wy.ravel()]), (classes, 1))
    flat = [np.clip(p.reshape(classes, pixels).astype(float), 1e-6, 1) for p in (p_clip, p_dino)]
    flat = [p / p.sum(axis=0) for p in flat]
    divergence = cvxpy.sum(cvxpy.rel_entr(q, flat[0])) + 0.2 * cvxpy.sum(cvxpy.rel_entr(q, flat[1]))
    variation = 0.1 * cvxpy.sum(cvxpy.multiply(weights, cvxpy.abs(q[:, ends[1]] - q[:, ends[0]])))
    problem = cvxpy.Problem(cvxpy.Minimize(divergence + variation), [cvxpy.sum(q, axis=0) == 1])
    ours = partial(solve_cscp, p_clip, p_dino, wx, wy, tolerance=1e-6, gap_per_pixel=0.0)
    pair = paired(ours, partial(problem.solve, solver=cvxpy.SCS, eps=1e-6, max_iters=20_000), 2)
    off = abs(ours().energy - problem.value) / problem.value
    yield {
        "size": size,
        "classes": classes,
        "against": "CVXPY, SCS",
        **pair.row(),
        "energies_differ": f"{off:.1e}",
    }


TABLES: dict[str, Callable[[bool], Iterator[Row]]] = {
    "superpixels": superpixels,
    "diffusion": diffusion,
    "convex": convex,
    "bandwidth": bandwidth,
    "memory": memory,
    "generic": generic,
}


def rows(full: bool = False) -> Iterator[Row]:
    """All tables' rows, each naming its table: what `python -m benchmarks kernels` keeps."""
    for name, table in TABLES.items():
        for row in table(full):
            yield {"table": name, **row}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TABLES)}; all of them by default")
    parser.add_argument("--full", action="store_true", help="the sizes of the project's goals; takes an hour")
    parser.add_argument("--cpu", action="store_true", help="processor time in place of wall time: for a busy machine")
    arguments = parser.parse_args()
    if arguments.cpu:
        use_processor_time()
        torch.set_num_threads(1)
    if unknown := sorted(set(arguments.names) - set(TABLES)):
        parser.error(f"there is no table {unknown[0]!r}; there are {', '.join(TABLES)}")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, numba threads {numba.config.NUMBA_NUM_THREADS}")
    for name in arguments.names or TABLES:
        print(f"\n--- {name}: {(TABLES[name].__doc__ or '').strip()}", flush=True)
        print(pd.DataFrame(TABLES[name](arguments.full)).fillna("").to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
