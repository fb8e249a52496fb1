"""Benchmarks of the kernels: `python -m benchmarks.kernels [--full] [--resume] [TABLE ...]`.

Every figure is measured in this run.  A ratio is the median over turns that two ways of doing one thing took in
alternation, with the lowest and highest beside it; so load on the machine is unfair to both alike.  Without ``--full``
the sizes are small enough for a minute or two; with it they are those of the project's goals, up to 4096 x 4096, and
take some 20 minutes on two idle cores.

The work is cut into parts.  Each part's rows are written to ``runs/bench/`` when it ends, so that ``--resume`` goes on
after an interruption where the last run stopped; plots are drawn from what lies there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pandas as pd
import torch
from skimage.segmentation import felzenszwalb

from benchmarks._timing import best, paired, seconds, spread, use_processor_time
from benchmarks.kernels_inputs import REGIMES, SYNTHETIC, Inputs, land_cover, make_inputs, texture
from benchmarks.kernels_triad import Triad
from rsovlib.files import write_beside
from rsovlib.kernels import diffuse, felzenszwalb_superpixels, knn_transition, solve_cscp
from rsovlib.kernels._ascent import Check
from rsovlib.kernels._engines import NumbaEngine
from rsovlib.kernels._problem import make_problem

Row = dict[str, Any]
FOLDER = Path("runs") / "bench"
GAPS = (1e-2, 1e-3, 1e-4)
LABELS = "99.9 % labels"
TURNS = 3
# The published iterations take some 0.2 s each at 512 x 512, so they run once for each regime, with a look at every
# tenth, and no longer than they need for the last goal that the study saw them reach (flat inputs: for none).
PUBLISHED = {"sharp": 350, "flat": 150, "thresholded": 400, "embedded": 300}


@dataclass(frozen=True)
class Part:
    """One piece of a table: a name that is unique in it, and the work, which gives rows.

    Rows with the key ``curve`` are kept for the plots and don't belong to the table.
    """

    name: str
    work: Callable[[], list[Row]]


def thread_counts() -> list[int]:
    return [1, 2] if numba.config.NUMBA_NUM_THREADS > 1 and (os.cpu_count() or 1) > 1 else [1]


# ---- superpixels ---------------------------------------------------------------------------------------------------


def superpixels(full: bool) -> Iterator[Part]:
    """Compiled Felzenszwalb against scikit-image's, one thread each."""
    for size in (256, 512, 1024, 2048, 4096) if full else (256, 512):
        yield Part(f"{size}", partial(_superpixels, size))


def _superpixels(size: int) -> list[Row]:
    image = texture(land_cover(min(size, 2048), 6, 0), 1)
    if size > 2048:  # the fields behind the land cover take long to make
        image = np.pad(image, ((0, size - 2048), (0, size - 2048), (0, 0)), mode="symmetric")
        # Mirrored edges have equal costs, which scikit-image's unstable sort orders at will: no two alike.
        image ^= np.random.default_rng(2).integers(0, 2, image.shape, dtype=np.uint8)
    felzenszwalb_superpixels(image[:300, :300])
    results: list[np.ndarray] = [np.empty(0), np.empty(0)]

    def ours() -> None:
        results[0] = felzenszwalb_superpixels(image)

    def theirs() -> None:
        results[1] = felzenszwalb(image, scale=40, sigma=0.8, min_size=20)

    pair = paired(ours, theirs, {4096: 1, 2048: 3}.get(size, 5), warm=size < 1024)
    same = bool((results[0] == results[1]).all())
    return [{"size": size, "against": "scikit-image", **pair.row(), "same_labels": same}]


# ---- diffusion -----------------------------------------------------------------------------------------------------


def diffusion(full: bool) -> Iterator[Part]:
    """40 sparse steps against 40 dense ones, and the graph's construction against a dense one."""
    nodes = [(64, 6), (1444, 6), (1444, 15), (1444, 64), (4096, 6), (16_384, 6), (65_536, 6)]
    for count, classes in nodes if full else [(64, 6), (512, 6)]:
        for threads in thread_counts():
            yield Part(f"{count}-{classes}-{threads}", partial(_diffusion, count, classes, threads))


def _diffusion(nodes: int, classes: int, threads: int) -> list[Row]:
    common = {"nodes": nodes, "classes": classes, "threads": threads}
    features = torch.randn(nodes, 768, generator=torch.Generator().manual_seed(0))
    scores = torch.rand(nodes, classes)
    with TorchThreads(threads):
        if nodes > 4096:  # a dense matrix would take gigabytes
            turns = 3 if nodes < 20_000 else 1
            knn_transition(features[:100])
            built = [seconds(partial(knn_transition, features)) for _ in range(turns)]
            steps = best(partial(diffuse, knn_transition(features), scores), 3)
            return [
                {"what": "40 steps", **common, "ours_ms": round(1e3 * steps, 2)},
                {"what": "graph", **common, "ours_ms": round(1e3 * min(built), 2)},
            ]
        graph = knn_transition(features)
        dense = graph.to_dense()
        pair = paired(partial(diffuse, graph, scores), partial(diffuse, dense, scores), 15)
        rows = [{"what": "40 steps", **common, "against": "dense", **pair.row()}]
        pair = paired(partial(knn_transition, features), partial(dense_graph, features), 9)
        rows.append({"what": "graph", **common, "against": "dense torch.topk", **pair.row()})
    return rows


def dense_graph(features: torch.Tensor, k: int = 30, temperature: float = 0.07) -> torch.Tensor:
    """The transition matrix as the formulas read: an N x N matrix with its k largest entries kept."""
    unit = torch.nn.functional.normalize(features, dim=1)
    cosine = (unit @ unit.T).fill_diagonal_(-1e9)
    values, columns = cosine.topk(k, dim=1)
    result = torch.zeros_like(cosine).scatter_(1, columns, torch.exp(values / temperature))
    return result / result.sum(dim=1, keepdim=True)


class TorchThreads:
    """Torch's thread count for a while."""

    def __init__(self, count: int) -> None:
        self.count, self.before = count, torch.get_num_threads()

    def __enter__(self) -> None:
        torch.set_num_threads(self.count)

    def __exit__(self, *exception: object) -> None:
        torch.set_num_threads(self.before)


# ---- the convex solver ---------------------------------------------------------------------------------------------


def convex(full: bool) -> Iterator[Part]:
    """Iterations and time to each gap and to 99.9 % of the optimum's labels, against the published iterations.

    Our times are of whole solves, set-up and checks included; those of the published iterations are without.
    """
    size = 512 if full else 96
    for regime in REGIMES if full else SYNTHETIC:
        limit = PUBLISHED[regime] if full else 40
        yield Part(f"{regime}-6-{size}", partial(_convex, regime, 6, size, limit))
    if full:
        for classes, side in ((2, 512), (15, 512), (64, 256)):
            for regime in SYNTHETIC:
                yield Part(f"{regime}-{classes}-{side}", partial(_convex, regime, classes, side, 0))


def _convex(regime: str, classes: int, size: int, published_limit: int) -> list[Row]:
    """One problem; ``published_limit`` 0 leaves the published iterations out."""
    inputs = make_inputs(regime, classes, size)
    optimum = solve_cscp(*inputs.arrays, tolerance=1e-5, gap_per_pixel=0.0, max_iterations=4000).labels
    found, curve = trace(inputs, optimum, "dual", 4000, 5)
    published, published_curve = (
        trace(inputs, optimum, "official", published_limit, 10) if published_limit else ({}, [])
    )
    rows: list[Row] = []
    common = {"regime": regime, "size": size, "classes": classes}
    for threads in thread_counts():
        with TorchThreads(threads):
            runs = {goal: partial(_to_goal, inputs, goal, found[goal], threads) for goal in found}
            best(runs[min(found, key=lambda goal: found[goal])], 1)  # compiles
            times: dict[str, list[float]] = {goal: [] for goal in found}
            an_iteration: list[float] = []
            for _ in range(TURNS):
                for goal, run in runs.items():
                    times[goal].append(seconds(run))
                if published_limit:
                    an_iteration.append(_published_iteration(inputs))
        for goal in (*map(_gap_name, GAPS), LABELS):
            row: Row = {**common, "threads": threads, "goal": goal}
            if goal in found:
                row |= {
                    "iterations": found[goal],
                    "ours_ms": round(1e3 * min(times[goal]), 1),
                    "ours_ms_high": round(1e3 * max(times[goal]), 1),
                }
            else:
                row["iterations"] = "not reached in 4000"
            if published_limit and goal in found:
                reached = goal in published
                count = published.get(goal, published_limit)
                ratios = [count * one / whole for one, whole in zip(an_iteration, times[goal], strict=True)]
                row |= {
                    "published_iterations": count if reached else f"not reached in {count}",
                    "published_ms": round(1e3 * count * min(an_iteration)),
                    **spread(ratios, "ratio" if reached else "ratio_at_least", 1),
                }
            rows.append(row)
        slowest = max(found, key=lambda goal: found[goal])
        ours = {"method": "ours", "curve": curve, "step": min(times[slowest]) / max(found[slowest], 1)}
        rows.append({**common, "threads": threads, **ours})
        if published_limit:
            theirs = {"method": "published", "curve": published_curve, "step": min(an_iteration)}
            rows.append({**common, "threads": threads, **theirs})
    return rows


def _gap_name(gap: float) -> str:
    return f"gap {gap:.0e}"


def trace(
    inputs: Inputs, optimum: np.ndarray, method: str, limit: int, every: int
) -> tuple[dict[str, int], list[tuple[int, float, float]]]:
    """Iterations after which each goal was first met, and (iteration, relative gap, share of labels) at each look."""
    found: dict[str, int] = {}
    curve: list[tuple[int, float, float]] = []

    def look(check: Check) -> None:
        primal = check.primal() if check.primal is not None else None
        agreement = float((np.asarray(primal).reshape(inputs.p_clip.shape).argmax(0) == optimum).mean())
        curve.append((check.iteration, check.relative_gap, agreement))
        for gap in GAPS:
            if check.relative_gap <= gap:
                found.setdefault(_gap_name(gap), check.iteration)
        if agreement >= 0.999:
            found.setdefault(LABELS, check.iteration)

    solve_cscp(
        *inputs.arrays,
        method=method,
        tolerance=0.0,
        gap_per_pixel=0.0,
        max_iterations=limit,
        check_every=every,
        callback=look,
        should_stop=lambda: len(found) == len(GAPS) + 1,
    )
    return found, curve


def _to_goal(inputs: Inputs, goal: str, iterations: int, threads: int) -> None:
    """A solve from the inputs to a goal: with its checks for a gap, by the number of iterations for the labels."""
    gaps = {_gap_name(gap): gap for gap in GAPS}
    limit = {"max_iterations": iterations} if goal == LABELS else {"max_iterations": 4000}
    solve_cscp(*inputs.arrays, tolerance=gaps.get(goal, 0.0), gap_per_pixel=0.0, threads=threads, **limit)


def _published_iteration(inputs: Inputs) -> float:
    """Seconds of one published iteration: of several less those of one, so that set-up and checks cancel."""
    pixels = inputs.p_clip.shape[1] * inputs.p_clip.shape[2]
    count = min(max(3, int(3 * 512**2 / pixels)), 30)  # half a second or more, unless the image is tiny
    runs = [
        partial(solve_cscp, *inputs.arrays, method="official", max_iterations=number, check_every=10_000)
        for number in (1, 1 + count)
    ]
    one, several = (seconds(run) for run in runs)
    return max(several - one, several / 2) / count  # the second only where noise exceeds the work


# ---- a small window, warm ------------------------------------------------------------------------------------------


def window(full: bool) -> Iterator[Part]:
    """Calls that start from a related problem's solution, as a slider makes them, and their cost without iterations."""
    for regime in REGIMES if full else ("sharp",):
        for size, threads in ((256, 1), (512, 2)) if full and len(thread_counts()) > 1 else ((256, 1),):
            yield Part(f"{regime}-{size}-{threads}", partial(_window, regime, size, threads))


def _window(regime: str, size: int, threads: int, classes: int = 6, turns: int = 30) -> list[Row]:
    """The fixed part is a call of no iteration: checks of the input, set-up, one look at the gap, the certificate."""
    inputs = make_inputs(regime, classes, size)
    start = solve_cscp(*inputs.arrays, beta=0.1, tolerance=1e-3)
    again = partial(solve_cscp, *inputs.arrays, beta=0.12, tolerance=1e-3, warm_start=start, threads=threads)
    result = again()
    again(max_iterations=0)
    times = [(seconds(again), seconds(partial(again, max_iterations=0))) for _ in range(turns)]
    whole, fixed = (sorted(1e3 * one for one in part) for part in zip(*times, strict=True))
    return [
        {
            "what": "small window, warm",
            "regime": regime,
            "size": size,
            "classes": classes,
            "threads": threads,
            "iterations": result.iterations,
            "ours_ms": round(whole[0], 2),
            "ours_ms_high": round(whole[-1], 2),
            "fixed_ms": round(fixed[0], 2),
            "fixed_ms_median": round(fixed[turns // 2], 2),
            "turns": turns,
        }
    ]


# ---- bandwidth -----------------------------------------------------------------------------------------------------

# What a sweep reads and writes of an engine's arrays; where it reads what it writes, no write-allocate comes on top.
READ = ("base", "reach", "yx", "yy", "zx", "zy", "bound_x", "bound_y")
WRITTEN = ("yx", "yy", "zx", "zy")


def bytes_per_iteration(engine: NumbaEngine) -> int:
    """What one iteration alone has to move between memory and processor if the caches keep nothing."""
    return sum(getattr(engine, name).nbytes for name in (*READ, *WRITTEN))


def bandwidth(full: bool) -> Iterator[Part]:
    """Bytes that iterations, one by one, would move in a second, as a share of what the faster of two triads moves.

    Several iterations share a pass over memory where their rows fit the cache, so that the share may well exceed 1.
    """
    cases = [(256, 6), (512, 6), (1024, 6), (2048, 6), (4096, 6), (2048, 2), (2048, 15), (512, 64)]
    for size, classes in cases if full else [(256, 6)]:
        yield Part(f"{classes}-{size}", partial(_bandwidth, size, classes, 2**26 if full else 2**24))


def _bandwidth(size: int, classes: int, length: int) -> list[Row]:
    inputs = make_inputs("sharp", classes, size)
    problem = make_problem(*inputs.arrays, 1.0, 0.2, 0.1)
    triad = Triad(length)
    iterations = max(3, min(50, int(3e8 / (classes * size * size))))
    thetas = np.full(iterations, 0.9)
    rows: list[Row] = []
    for threads in thread_counts():
        created: list[NumbaEngine] = []
        setup = seconds(lambda: created.append(NumbaEngine(problem, np.float32, "diagonal", threads, None)))  # noqa: B023
        engine = created[0]
        engine.iterate(np.zeros(1), thetas[0])  # compiles
        triad.run(threads)
        times, shares, rates = [], [], []
        moved = bytes_per_iteration(engine) * iterations
        for _ in range(5):
            times.append(seconds(partial(engine.iterate, thetas, thetas[0])))
            rates.append(triad.bytes_per_second(threads))
            shares.append(moved / times[-1] / rates[-1])
        rows.append(
            {
                "size": size,
                "classes": classes,
                "threads": threads,
                "setup_ms": round(1e3 * setup, 1),
                "iteration_ms": round(1e3 * min(times) / iterations, 3),
                "iterations_a_pass": engine.depth,
                "bytes_a_pixel_and_class": round(moved / iterations / size**2 / classes, 1),
                "sweep_GB_s": round(moved / min(times) / 1e9, 1),
                "triad_GB_s": round(max(rates) / 1e9, 1),
                **spread(shares, "share"),
                "in_cache": bool(moved / iterations < 64e6),  # then the triad, from memory, is no limit
            }
        )
        del engine
        created.clear()
    return rows


# ---- memory --------------------------------------------------------------------------------------------------------


def memory(full: bool) -> Iterator[Part]:
    """Peak of resident memory above the inputs, each in a process of its own."""
    size = 1024 if full else 256
    for what, classes in [
        *(("ours", classes) for classes in (2, 6, 15)),
        ("superpixels", 0),
        ("scikit-image", 0),
    ]:
        yield Part(f"{what}-{classes}-{size}", partial(_memory, what, size, classes))
    yield Part("published", partial(_memory, "published", min(size, 256), 6))
    for nodes in (4096, 16_384) if full else (512,):
        yield Part(f"graph-{nodes}", partial(_memory, "graph", nodes, 0))


def _memory(what: str, size: int, classes: int) -> list[Row]:
    command = [sys.executable, "-m", "benchmarks.kernels_memory", what, str(size), str(classes)]
    # Without this, glibc keeps what the warm-up freed, and hands it out again unseen.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    peak = json.loads(child.stdout.splitlines()[-1])["peak_bytes"]
    row: Row = {"what": what, "size": size, "classes": classes or "", "peak_MiB": round(peak / 2**20, 1)}
    if what == "graph":
        return [row | {"bytes_a_node": round(peak / size)}]
    row["bytes_a_pixel"] = round(peak / size**2, 1)
    if classes:
        row["floats_a_pixel_and_class"] = round(peak / 4 / size**2 / classes, 2)
    return [row]


# ---- a generic solver ----------------------------------------------------------------------------------------------


def generic(full: bool) -> Iterator[Part]:
    """A solver that a user might pick: CVXPY with SCS (first order), on sizes that it manages."""
    for size in (16, 32) if full else (16,):
        yield Part(f"{size}", partial(_generic, size))


def _generic(size: int) -> list[Row]:
    import cvxpy

    classes = 4
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
    ours = partial(solve_cscp, p_clip, p_dino, wx, wy, tolerance=1e-4, gap_per_pixel=0.0)
    # The turn that isn't counted brings the problem into SCS's form; each solve begins at zero.
    theirs = partial(problem.solve, solver=cvxpy.SCS, eps=1e-4, max_iters=20_000, warm_start=False)
    pair = paired(ours, theirs, 2)
    off = abs(ours().energy - problem.value) / problem.value
    return [{"size": size, "classes": classes, "against": "CVXPY, SCS", **pair.row(), "energies_differ": f"{off:.1e}"}]


# ---- GPU -----------------------------------------------------------------------------------------------------------


def gpu(full: bool) -> Iterator[Part]:
    """The torch back end on a GPU against the compiled one on the CPU, both to relative gap 1e-3."""
    if torch.cuda.is_available():
        for size in (256, 512, 1024, 2048) if full else (256,):
            yield Part(f"{size}", partial(_gpu, size))


def _gpu(size: int) -> list[Row]:
    rows: list[Row] = []
    for regime in SYNTHETIC:
        inputs = make_inputs(regime, 6, size)
        moved = [torch.from_numpy(np.ascontiguousarray(array)).cuda() for array in inputs.arrays]

        def on_gpu() -> None:
            solve_cscp(*moved, tolerance=1e-3, gap_per_pixel=0.0)  # noqa: B023
            torch.cuda.synchronize()

        pair = paired(on_gpu, partial(solve_cscp, *inputs.arrays, tolerance=1e-3, gap_per_pixel=0.0), 5)
        rows.append({"regime": regime, "size": size, "classes": 6, "against": "CPU", **pair.row()})
    return rows


# ---- running -------------------------------------------------------------------------------------------------------

TABLES: dict[str, Callable[[bool], Iterator[Part]]] = {
    "superpixels": superpixels,
    "diffusion": diffusion,
    "convex": convex,
    "window": window,
    "bandwidth": bandwidth,
    "memory": memory,
    "generic": generic,
    "gpu": gpu,
}

SKIPPED = (
    ("convex, sizes above 512", "iteration counts don't depend on the size; `bandwidth` has the time per iteration"),
    ("convex, K = 64 at 512", "16 times the work of K = 6 at 256 for the same count of iterations: taken at 256"),
    ("convex, published iterations for K other than 6", "minutes for each problem; the cost is linear in K"),
    ("bandwidth, K = 64 above 512", "10 GB at 2048, and minutes to make the inputs"),
    ("diffusion, dense above 4096 nodes", "gigabytes for the matrix alone"),
    ("gpu", "without a GPU"),
)


def parts_folder(folder: Path, full: bool) -> Path:
    """Where the parts of a quick or a full run lie."""
    return folder / ("full" if full else "quick")


def table_rows(name: str, full: bool, folder: Path, resume: bool) -> Iterator[Row]:
    """A table's rows, part by part; each part is kept in ``folder``, and taken from there if ``resume``."""
    for part in TABLES[name](full):
        path = parts_folder(folder, full) / f"{name}-{part.name}.json"
        if resume and path.exists():
            rows = json.loads(path.read_text(encoding="utf-8"))
        else:
            rows = part.work()
            with write_beside(path) as temporary:
                temporary.write_text(json.dumps(rows), encoding="utf-8")
        yield from (row for row in rows if "curve" not in row)


def rows(full: bool = False, resume: bool = False, folder: Path = FOLDER) -> Iterator[Row]:
    """All tables' rows, each naming its table: what `python -m benchmarks kernels` keeps."""
    for name in TABLES:
        for row in table_rows(name, full, folder, resume):
            print(f"{name}: {row}", file=sys.stderr, flush=True)
            yield {"table": name, **row}


def main() -> None:
    from benchmarks.kernels_plots import draw

    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; all of them by default")
    parser.add_argument("--full", action="store_true", help="the sizes of the project's goals; some 20 minutes")
    parser.add_argument("--resume", action="store_true", help="keep the parts that an earlier run finished")
    parser.add_argument("--cpu", action="store_true", help="processor time in place of wall time: for a busy machine")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where parts and plots go (runs/bench)")
    arguments = parser.parse_args()
    if arguments.cpu:
        use_processor_time()
    if unknown := sorted(set(arguments.names) - set(TABLES)):
        parser.error(f"there is no table {unknown[0]!r}; there are {', '.join(TABLES)}")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, numba threads {numba.config.NUMBA_NUM_THREADS}")
    for name in arguments.names or TABLES:
        print(f"\n--- {name}: {(TABLES[name].__doc__ or '').strip().splitlines()[0]}", flush=True)
        table = pd.DataFrame(table_rows(name, arguments.full, arguments.out, arguments.resume))
        print(table.to_string(index=False, na_rep="") if len(table) else "(nothing to measure here)", flush=True)
    print("\nLeft out:", *(f"{what}: {why}" for what, why in SKIPPED), sep="\n  ")
    for path in draw(parts_folder(arguments.out, arguments.full)):
        print(path)


if __name__ == "__main__":
    main()
