"""Rows: what they hold, how a notebook hands them over, and how they are gathered."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from rsovlib.errors import InputError
from rsovlib.experiments import record, results
from rsovlib.experiments.gather import gather_results, read_results
from rsovlib.experiments.results import ResultRow, make_row, peak_memory, read_rows, write_rows
from rsovlib.metrics import Interval

# The schema, field by field. A field that is renamed or changes its type or meaning is a new SCHEMA_VERSION.
SCHEMA_1 = {
    "paper": "str",
    "table": "str",
    "row": "str",
    "column": "str",
    "metric": "str",
    "value": "float | None",
    "unit": "str",
    "low": "float | None",
    "high": "float | None",
    "level": "float | None",
    "std": "float | None",
    "n": "int | None",
    "seed": "int | None",
    "profile": "str",
    "dataset": "str",
    "dataset_version": "str",
    "weights": "dict[str, str]",
    "parameters": "dict[str, typing.Any]",
    "device": "str",
    "seconds": "float | None",
    "peak_memory": "int | None",
    "peak_device_memory": "int | None",
    "run": "str",
    "code": "str",
    "note": "str",
}

ROW = {"paper": "p", "table": "t", "row": "r", "column": "c", "metric": "m", "value": 1.5, "profile": "full"}


@pytest.fixture
def in_a_run(tmp_path, monkeypatch):
    """As if the run engine drove this process."""
    defaults = {"paper": "sdci", "table": "t2", "profile": "embedded", "weights": {"clip": "ab"}, "seed": 3}
    path = tmp_path / "context.json"
    path.write_text(json.dumps({"defaults": defaults, "started": 0.0}))
    monkeypatch.setenv(results.CONTEXT_VARIABLE, str(path))
    results.run_context.cache_clear()
    yield tmp_path
    results.run_context.cache_clear()


def test_the_schema_is_this_one():
    def name(annotation):
        return (
            annotation.__name__ if isinstance(annotation, type) and annotation in (str, int, float) else str(annotation)
        )

    assert results.SCHEMA_VERSION == 1
    assert {key: name(field.annotation) for key, field in ResultRow.model_fields.items()} == SCHEMA_1


def test_a_row_outside_of_a_run_is_shown_and_stored_nowhere(tmp_path, monkeypatch):
    monkeypatch.delenv(results.CONTEXT_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    results.run_context.cache_clear()
    assert record("r", "c", "miou", 41.2, dataset="d").value == 41.2
    assert not list(tmp_path.iterdir())


def test_a_row_in_a_run_is_stored_with_what_the_run_knows(in_a_run):
    record("r", "c", "miou", np.float32(41.25), n=12, dataset="d", interval=Interval(41.25, 40.0, 43.0))
    (row,) = read_rows(in_a_run / results.ROWS_FILE)
    assert (row.value, row.low, row.high, row.level) == (41.25, 40.0, 43.0, 0.95)
    assert (row.paper, row.table, row.profile, row.seed) == ("sdci", "t2", "embedded", 3)
    assert row.weights == {"clip": "ab"}
    assert row.seconds > 0
    assert row.peak_memory > 10_000_000


def test_a_kernel_with_another_rsovlib_is_refused(in_a_run):
    path = in_a_run / "context.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"package": "/elsewhere/rsovlib"}))
    with pytest.raises(InputError, match="planned with /elsewhere/rsovlib"):
        record("r", "c", "miou", 1.0, dataset="d")


def test_a_cell_that_runs_twice_records_once(in_a_run):
    record("r", "c", "miou", 1.0, dataset="d")
    record("r", "c", "gain", 5.0, dataset="d")
    record("r", "c", "miou", 2.0, dataset="d")
    rows = read_rows(in_a_run / results.ROWS_FILE)
    assert [(row.metric, row.value) for row in rows] == [("gain", 5.0), ("miou", 2.0)]


def test_not_a_number_is_nothing_and_needs_a_reason(in_a_run):
    assert record("r", "c", "miou", float("nan"), dataset="d", note="no such class in these scenes").value is None
    with pytest.raises(InputError, match="note that says why"):
        record("r", "c", "miou", None, dataset="d")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"valeu": 1}, "Did you mean 'value'"),
        ({"value": "high"}, "value"),
        ({"value": float("inf")}, "value"),
        ({"low": 1.0}, "both ends"),
        ({"low": 2.0, "high": 1.0}, "upside down"),
        ({"n": -1}, "n:"),
        ({"level": 95}, "level"),
        ({"std": -1.0}, "std"),
        ({"row": ""}, "row"),
    ],
)
def test_wrong_rows_are_refused(changes, said):
    with pytest.raises(InputError, match=said):
        make_row(ROW | {"dataset": "d"} | changes)


def test_rows_survive_the_file(tmp_path):
    rows = [make_row(ROW | {"dataset": "d", "note": "ä|\n", "parameters": {"bands": [4, 3], "x": None}})]
    write_rows(tmp_path / "rows.json", rows)
    assert read_rows(tmp_path / "rows.json") == rows


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 1}', '{"schema": 1, "rows": [{"row": "r"}]}'])
def test_a_damaged_file_is_refused(tmp_path, text):
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(InputError, match=r"rows\.json"):
        read_rows(tmp_path / "rows.json")


def test_rows_of_another_schema_are_refused(tmp_path):
    (tmp_path / "rows.json").write_text('{"schema": 2, "rows": []}')
    with pytest.raises(InputError, match="schema 2, this rsovlib reads schema 1"):
        read_rows(tmp_path / "rows.json")


@pytest.mark.skipif(sys.platform != "linux", reason="where a program takes over the peak of the one that started it")
def test_peak_memory_is_this_process_own():
    code = "from rsovlib.experiments.results import peak_memory; print(peak_memory())"
    large = np.ones(60_000_000)  # 480 MB here must not show there
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert int(done.stdout) < 300e6 < peak_memory()
    assert large[0] == 1


def _finished(out, name, rows):
    folder = out / "finished" / name
    folder.mkdir(parents=True)
    write_rows(folder / "rows.json", rows)
    size = (folder / "rows.json").stat().st_size
    record_of_run = {"version": 1, "state": "finished", "key": name, "files": {"rows.json": size}, "started": "2026"}
    (folder / "run.json").write_text(json.dumps(record_of_run))
    return folder


def test_all_rows_are_gathered_as_parquet_and_csv(tmp_path):
    _finished(tmp_path, "a", [make_row(ROW | {"dataset": "d", "n": 3, "weights": {"w": "ab"}})])
    _finished(tmp_path, "b", [make_row(ROW | {"dataset": "d", "value": None, "note": "x"})])
    damaged = _finished(tmp_path, "c", [make_row(ROW | {"dataset": "d"})])
    (damaged / "rows.json").write_text("{}")  # another size than its record says
    frame = gather_results(tmp_path)
    assert list(frame.columns) == ["schema", *SCHEMA_1, "started"]
    assert frame["value"].tolist() == [1.5, pd.NA]
    assert frame["weights"].tolist() == ['{"w": "ab"}', "{}"]
    read = pd.read_parquet(tmp_path / "results.parquet")
    pd.testing.assert_frame_equal(read, frame)
    text = pd.read_csv(tmp_path / "results.csv")
    assert text["value"].dropna().tolist() == [1.5]
    assert text["n"].dropna().tolist() == [3]


def test_nothing_gathers_to_an_empty_table_of_the_same_types(tmp_path):
    empty = gather_results(tmp_path)
    assert len(read_results(tmp_path)) == 0
    _finished(tmp_path, "a", [make_row(ROW | {"dataset": "d"})])
    assert empty.dtypes.to_dict() == gather_results(tmp_path).dtypes.to_dict()
