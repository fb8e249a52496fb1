"""The benchmark of a small window's re-solving says what it should."""

from __future__ import annotations

from benchmarks import kernels


def test_a_window_s_row_has_the_whole_call_and_its_fixed_part():
    (row,) = kernels._window("sharp", 48, 1, classes=3, turns=5)
    assert row["what"] == "small window, warm"
    assert row["iterations"] > 0
    assert 0 < row["fixed_ms"] <= row["fixed_ms_median"]
    assert 0 < row["ours_ms"] <= row["ours_ms_high"]


def test_the_window_of_interactive_use_is_among_the_tables():
    assert [part.name for part in kernels.TABLES["window"](False)] == ["sharp-256-1"]
    assert "sharp-256-1" in {part.name for part in kernels.TABLES["window"](True)}
