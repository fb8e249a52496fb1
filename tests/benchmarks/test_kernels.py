"""The kernels' benchmarks run at tiny sizes, and say what they should."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks import __main__ as main
from benchmarks import kernels, kernels_inputs, kernels_memory, kernels_plots
from benchmarks._timing import spread
from rsovlib.kernels import solve_cscp
from rsovlib.kernels._engines import NumbaEngine
from rsovlib.kernels._problem import make_problem


@pytest.mark.parametrize("regime", kernels_inputs.SYNTHETIC)
def test_inputs_are_probabilities_of_their_regime(regime):
    inputs = kernels_inputs.make_inputs(regime, 4, 40)
    for p in inputs.arrays[:2]:
        assert p.shape == (4, 40, 40)
        np.testing.assert_allclose(p.sum(axis=0), 1, atol=1e-5)
    top = inputs.p_clip.max(axis=0).mean()
    assert {"sharp": top > 0.6, "flat": top < 0.5, "thresholded": 0.4 < top < 0.9}[regime]


def test_larger_inputs_are_mirrored(monkeypatch):
    small = kernels_inputs.make_inputs("sharp", 2, 1024)
    wide = kernels_inputs.make_inputs("sharp", 2, 1030)
    assert wide.p_clip.shape == (2, 1030, 1030)
    np.testing.assert_array_equal(wide.p_clip[:, :1024, :1024], small.p_clip)
    assert wide.wx.shape == (1030, 1029)


def test_the_table_of_the_solver_has_every_goal():
    rows = kernels._convex("sharp", 3, 32, 5)
    table = [row for row in rows if "curve" not in row]
    goals = {row["goal"] for row in table if row["threads"] == 1}
    assert goals == {"gap 1e-02", "gap 1e-03", "gap 1e-04", "99.9 % labels"}
    for row in table:
        assert row["ours_ms"] > 0
        ratio = "ratio" if "ratio" in row else "ratio_at_least"
        assert row[f"{ratio}_low"] <= row[ratio] <= row[f"{ratio}_high"]
    counts = [row["iterations"] for row in table[:3]]
    assert counts == sorted(counts)
    gaps = [gap for _, gap, _ in next(row["curve"] for row in rows if row.get("method") == "ours")]
    assert gaps[-1] <= 1e-4 < gaps[0]


def test_a_goal_s_run_stops_at_the_goal():
    inputs = kernels_inputs.make_inputs("sharp", 3, 32)
    optimum = solve_cscp(*inputs.arrays, tolerance=1e-6, gap_per_pixel=0.0)
    found, _ = kernels.trace(inputs, optimum.labels, "dual", 4000, 5)
    reached = solve_cscp(*inputs.arrays, tolerance=1e-3, gap_per_pixel=0.0, check_every=5)
    assert reached.iterations == found["gap 1e-03"]


def test_bytes_are_counted_from_the_solver_s_own_arrays():
    problem = make_problem(*kernels_inputs.make_inputs("sharp", 3, 32).arrays, 1.0, 0.2, 0.1)
    single = kernels.bytes_per_iteration(NumbaEngine(problem, np.float32, "diagonal", 1, None))
    double = kernels.bytes_per_iteration(NumbaEngine(problem, np.float64, "diagonal", 1, None))
    assert double == 2 * single
    assert single >= 4 * 32 * 32 * 3  # at the very least one array is read


def test_every_table_works_on_tiny_sizes(tmp_path):
    assert kernels._superpixels(40)[0]["same_labels"]
    whats = [row["what"] for row in kernels._diffusion(50, 3, 1)]
    assert whats == ["40 steps", "graph"]
    row = kernels._bandwidth(48, 2, 2**12)[0]
    assert row["share_low"] <= row["share"] <= row["share_high"]
    assert row["in_cache"]
    row = kernels._memory("superpixels", 64, 0)[0]
    assert row["bytes_a_pixel"] >= 0


@pytest.mark.parametrize(("what", "classes"), [("ours", 2), ("published", 2), ("graph", 0), ("scikit-image", 0)])
def test_work_whose_memory_is_measured_can_be_done(what, classes):
    kernels_memory.make_work(what, 40, classes)()
    assert kernels_memory.resident_bytes(now=True) > 2**20


def test_finished_parts_are_kept_and_taken_up_again(tmp_path, monkeypatch):
    done = []

    def work(name):
        done.append(name)
        return [{"size": name}, {"curve": [1]}]

    monkeypatch.setitem(
        kernels.TABLES, "generic", lambda full: iter([kernels.Part(n, lambda n=n: work(n)) for n in "ab"])
    )
    assert [row["size"] for row in kernels.table_rows("generic", False, tmp_path, False)] == ["a", "b"]
    (tmp_path / "quick" / "generic-b.json").unlink()
    assert [row["size"] for row in kernels.table_rows("generic", False, tmp_path, True)] == ["a", "b"]
    assert done == ["a", "b", "b"]


def test_plots_are_drawn_from_the_parts(tmp_path):
    parts = {
        "superpixels-256": kernels._superpixels(40),
        "convex-sharp": kernels._convex("sharp", 6, 24, 5),
        "bandwidth-2": kernels._bandwidth(48, 2, 2**12),
        "diffusion-50": kernels._diffusion(50, 6, 1),
        "memory-ours": [{"what": "ours", "size": 4, "classes": 2, "peak_MiB": 1.0, "bytes_a_pixel": 9.0}],
    }
    for name, rows in parts.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    drawn = kernels_plots.draw(tmp_path)
    assert [path.name for path in drawn] == [f"kernels-{name}.png" for name in kernels_plots.PLOTS]
    assert all(path.stat().st_size > 5000 for path in drawn)
    assert kernels_plots.draw(tmp_path / "elsewhere") == []


def test_one_command_prints_tables_keeps_rows_and_draws(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(main, "FOLDER", tmp_path)
    part = kernels.Part("40", lambda: kernels._superpixels(40))
    monkeypatch.setattr(kernels, "TABLES", {"superpixels": lambda full: iter([part] * (1 + full))})
    for options, count in (([], 1), (["--full", "--resume"], 2)):
        monkeypatch.setattr("sys.argv", ["benchmarks", "kernels", *options])
        main.main()
        assert "kernels-superpixels.png" in capsys.readouterr().out
        table = pd.read_csv(tmp_path / "results" / "kernels.csv")
        assert len(table) == (1 if count == 1 else 3)
        assert {"table", "ratio", "ratio_low", "ratio_high", "cpu", "date"} <= set(table)


def test_a_spread_is_the_median_between_the_extremes():
    assert spread([3.0, 1.0, 9.0]) == {"ratio": 3.0, "ratio_low": 1.0, "ratio_high": 9.0}
