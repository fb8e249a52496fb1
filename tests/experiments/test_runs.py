"""One run: whole or not there, whatever happens to it."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import dask
import distributed  # noqa: F401  its defaults are part of dask's configuration
import nbformat
import psutil
import pytest
from jupyter_client.provisioning import LocalProvisioner

from rsovlib.cli import main
from rsovlib.errors import InputError
from rsovlib.experiments import identity, reproduce, runs
from rsovlib.experiments import tables as tables_module
from rsovlib.experiments.matrix import plan_units
from rsovlib.experiments.runs import clean_working, finished_run, finished_runs, run_unit
from rsovlib.experiments.tables import load_tables

CONTENT = ["notebook.html", "notebook.ipynb", "part_0.txt", "rows.json", "run.json"]


def states(summary):
    return {tuple(unit.point.values()): summary.outcomes[unit.key].state for unit in summary.units}


@pytest.fixture
def go(tables, tmp_path):
    """Run everything in this process."""

    def run(**options):
        return reproduce(folder=tables.folder, out=tmp_path / "runs", workers=0, progress=False, **options)

    return run


@pytest.fixture
def unit(tables):
    tables.add_work([4])
    return plan_units(load_tables(tables.folder))[0]


def test_a_run_leaves_everything_that_traces_it(unit, tmp_path):
    outcome = run_unit(unit, tmp_path, threads=3)
    assert outcome.state == "finished"
    folder = tmp_path / "finished" / unit.name
    assert sorted(path.name for path in folder.iterdir()) == CONTENT
    record = finished_run(tmp_path, unit.name, unit.key)
    assert record["identity"]["parameters"] == {"seed": 4}
    assert set(record["identity"]) == {"notebook", "parameters", "code", "data", "weights", "needs", "inputs"}
    assert record["threads"] == 3
    assert record["environment"]["torch"]
    assert set(record["files"]) == set(CONTENT) - {"run.json"}
    (row,) = json.loads((folder / "rows.json").read_text())["rows"]
    assert (row["value"], row["run"], row["table"], row["seed"]) == (40.5, unit.name, "work", 4)
    executed = (folder / "notebook.ipynb").read_text()
    assert str(tmp_path / "working") not in executed, "no path of this machine is published"
    nbformat.validate(nbformat.reads(executed, as_version=4))
    assert not list((tmp_path / "working").iterdir())


def test_the_kernel_gets_its_threads_and_its_folder(tables, tmp_path):
    cell = """
import os, json
from pathlib import Path
names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
Path("seen.json").write_text(json.dumps([os.getcwd(), *(os.environ[name] for name in names)]))
"""
    tables.add("threads", "x: int = 1", cell)
    (unit,) = plan_units(load_tables(tables.folder))
    here = Path.cwd()
    assert run_unit(unit, tmp_path, threads=3).state == "finished"
    folder, *threads = json.loads((tmp_path / "finished" / unit.name / "seen.json").read_text())
    assert folder.startswith(str(tmp_path / "working"))
    assert threads == ["3"] * 4
    assert Path.cwd() == here


@pytest.mark.parametrize(("of_the_worker", "seen"), [("65536", None), ("1048576", "1048576")])
def test_the_kernel_keeps_freed_memory_whatever_dask_sets_for_its_workers(
    tables, tmp_path, monkeypatch, of_the_worker, seen
):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", of_the_worker)
    cell = """
import os, json
from pathlib import Path
Path("seen.json").write_text(json.dumps(os.environ.get("MALLOC_TRIM_THRESHOLD_")))
"""
    tables.add("memory", "x: int = 1", cell)
    (unit,) = plan_units(load_tables(tables.folder))
    assert run_unit(unit, tmp_path, threads=1).state == "finished"
    assert json.loads((tmp_path / "finished" / unit.name / "seen.json").read_text()) == seen


def test_what_dask_sets_for_its_workers_is_what_kernels_are_kept_from():
    assert dask.config.get("distributed.nanny.pre-spawn-environ")["MALLOC_TRIM_THRESHOLD_"] == 65536


def test_finished_runs_are_kept_and_force_makes_them_again(tables, go):
    tables.add_work([0, 1])
    first = go()
    assert states(first) == {(0,): "finished", (1,): "finished"}
    ids = {record["name"]: record["id"] for _, record in finished_runs(first.out)}
    assert states(go()) == {(0,): "kept", (1,): "kept"}
    assert states(go(texts={"seed": "1"})) == {(1,): "kept"}
    assert tables.executions() == {0: 1, 1: 1}
    assert states(go(force=True, seeds=[1])) == {(1,): "finished"}
    again = {record["name"]: record["id"] for _, record in finished_runs(first.out)}
    assert tables.executions() == {0: 1, 1: 2}
    assert sum(ids[name] != again[name] for name in ids) == 1
    assert len(first.results) == 2


def test_a_failing_notebook_fails_alone(tables, go):
    tables.add("bad", "x: int = 1", "y = 1", "# comment\ny = x / 0", "z = 1")
    tables.add_work([0])
    tables.add_work([5], name="after", needs=["bad"])
    summary = go()
    assert {unit.table: summary.outcomes[unit.key].state for unit in summary.units} == {
        "bad": "failed",
        "work": "finished",
        "after": "not run",
    }
    ((unit, outcome),) = summary.failures()
    assert outcome.reason == "ZeroDivisionError: division by zero"
    assert outcome.cell == "In [3]: # comment"
    assert not summary.is_good
    assert finished_run(summary.out, unit.name) is None
    kept = nbformat.read(summary.out / "failed" / unit.name / "notebook.ipynb", as_version=4)
    assert any("ZeroDivisionError" in str(cell.get("outputs")) for cell in kept.cells)
    ((_, left_out),) = summary.not_run()
    assert unit.name in left_out.reason


@pytest.mark.parametrize(
    ("death", "said"),
    [
        ("os._exit(3)", "exit code 3"),
        ("os.kill(os.getpid(), 9)", "SIGKILL, mostly for want of memory"),
        ("os.kill(os.getpid(), 11)", "SIGSEGV"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_dead_kernel_is_a_failure(tables, go, death, said):
    """papermill leaves a notebook behind in which every cell is "completed"."""
    tables.add("dies", "x: int = 1", "import os", death, "print('never')")
    summary = go()
    ((unit, outcome),) = summary.failures()
    assert "kernel died" in outcome.reason
    assert said in outcome.reason
    assert outcome.cell == f"In [3]: {death}"
    assert finished_run(summary.out, unit.name) is None
    assert not list((summary.out / "working").iterdir())


def test_what_failed_is_done_again_and_its_failure_forgotten(tables, go):
    tables.add("moody", "x: int = 1", f"assert __import__('pathlib').Path({str(tables.folder / 'ok')!r}).exists()")
    first = go()
    assert first.count("failed") == 1
    (tables.folder / "ok").touch()
    assert go().count("finished") == 1
    assert not list((first.out / "failed").iterdir())


@pytest.mark.parametrize("damage", ["no record", "half a record", "other key", "short file", "file gone"])
def test_what_is_not_whole_is_never_read_as_done(unit, tmp_path, damage):
    run_unit(unit, tmp_path)
    folder = tmp_path / "finished" / unit.name
    path = folder / "run.json"
    text = path.read_text()
    if damage == "no record":
        path.unlink()
    elif damage == "half a record":
        path.write_text(text[: len(text) // 2])
    elif damage == "other key":
        path.write_text(text.replace(unit.key, "0" * 64))
    elif damage == "short file":
        (folder / "part_0.txt").write_text("x")
    else:
        (folder / "rows.json").unlink()
    assert finished_run(tmp_path, unit.name, unit.key) is None
    assert run_unit(unit, tmp_path).state == "finished"
    assert finished_run(tmp_path, unit.name, unit.key) is not None
    assert sorted(file.name for file in folder.iterdir()) == CONTENT


@pytest.mark.parametrize("where", ["_to_disk", "_strip_paths", "write_rows"])
def test_a_full_disk_is_a_failure_and_leaves_nothing(tables, tmp_path, monkeypatch, where):
    tables.add("plain", "x: int = 1", "y = 1")
    (unit,) = plan_units(load_tables(tables.folder))

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runs, where, full)
    outcome = run_unit(unit, tmp_path)
    assert (outcome.state, outcome.is_done) == ("failed", False)
    assert "No space left" in outcome.reason
    assert not list((tmp_path / "working").iterdir())
    assert not (tmp_path / "finished").exists()
    monkeypatch.undo()
    monkeypatch.setattr(runs, "code_version", lambda: unit.identity["code"])
    assert run_unit(unit, tmp_path).state == "finished"


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits")
def test_a_kernel_that_may_not_write_fails(tables, go):
    """The system refuses a large file, as a full disk does."""
    cell = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
open("large.bin", "wb").write(bytes(100_000))
"""
    tables.add("large", "x: int = 1", cell)
    ((_, outcome),) = go().failures()
    assert "OSError" in outcome.reason


def test_of_two_that_finish_the_same_run_the_first_wins(unit, tmp_path, monkeypatch):
    """Another command finishes the same run while this one is at work."""
    real = runs._run_in
    done = []

    def with_a_rival(*arguments):
        real(*arguments)
        if not done:
            done.append(True)
            assert run_unit(unit, tmp_path).state == "finished"
            done.append(finished_run(tmp_path, unit.name)["id"])

    monkeypatch.setattr(runs, "_run_in", with_a_rival)
    assert run_unit(unit, tmp_path).state == "finished"
    assert finished_run(tmp_path, unit.name, unit.key)["id"] == done[1]
    assert not list((tmp_path / "working").iterdir())


@pytest.mark.parametrize(("taken", "state"), [(1, "finished"), (2, "finished"), (3, "failed")])
def test_a_kernel_whose_port_was_taken_is_started_again(unit, tmp_path, monkeypatch, taken, state):
    """Its ports are chosen before it is started; another kernel may bind one of them in between."""
    real, starts, sockets = LocalProvisioner.launch_kernel, [], []

    async def launch(self, cmd, **options):
        starts.append(self.kernel_id)
        if len(starts) <= taken:
            sockets.append(socket.create_server(("127.0.0.1", self.connection_info["shell_port"])))
        return await real(self, cmd, **options)

    monkeypatch.setattr(LocalProvisioner, "launch_kernel", launch)
    try:
        outcome = run_unit(unit, tmp_path)
    finally:
        for one in sockets:
            one.close()
    assert outcome.state == state, outcome.reason
    assert len(starts) == min(taken + 1, 3)
    if state == "failed":
        assert "the kernel could not be started" in outcome.reason
        assert "Address already in use" in (tmp_path / "failed" / unit.name / "kernel.log").read_text()


COUNTS = """
from pathlib import Path
place = Path(kept) / "step.txt"
while (step := int(place.read_text()) if place.exists() else 0) < 4:
    place.write_text(str(step + 1))
    with open(log, "a") as file:
        file.write(f"{step} ")
    if step == 1 and not Path(on).exists():
        end()
"""


@pytest.fixture
def counting(tables, tmp_path):
    """A run in four steps that ends in the second one in some way, as long as a file isn't there."""

    def make(ending, keeps="kept", steps=COUNTS):
        parameters = f"kept: str = '.'\nlog: str = {str(tmp_path / 'log.txt')!r}\non: str = {str(tmp_path / 'on')!r}"
        tables.add("counting", parameters, f"def end():\n    {ending}", steps, profiles={"embedded": {"keeps": keeps}})
        return plan_units(load_tables(tables.folder))[0]

    return make


@pytest.mark.parametrize("ending", ["raise ValueError('odd')", "import os; os._exit(3)", "raise KeyboardInterrupt"])
def test_a_run_that_keeps_its_steps_goes_on_where_it_was(counting, tmp_path, ending):
    unit = counting(ending)
    assert run_unit(unit, tmp_path).state == ("stopped" if "Interrupt" in ending else "failed")
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [unit.key]
    (tmp_path / "on").touch()
    assert run_unit(unit, tmp_path).state == "finished"
    assert (tmp_path / "log.txt").read_text().split() == ["0", "1", "2", "3"], "no step twice"
    assert not list((tmp_path / "checkpoints").iterdir())
    executed = (tmp_path / "finished" / unit.name / "notebook.ipynb").read_text(encoding="utf-8")
    assert f"../../checkpoints/{unit.key}" in executed


def test_what_other_code_has_kept_is_not_gone_on_with(counting, tmp_path):
    """Here the notebook has changed; rsovlib's own code is part of a run's key as well."""
    first = counting("raise ValueError('odd')")
    assert run_unit(first, tmp_path).state == "failed"
    (tmp_path / "on").touch()
    second = counting("raise ValueError('odd')", steps=COUNTS + "\nmore = 1")
    assert second.key != first.key
    assert run_unit(second, tmp_path).state == "finished"
    assert (tmp_path / "log.txt").read_text().split() == ["0", "1", "0", "1", "2", "3"]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [first.key]


def test_a_folder_that_the_user_gives_is_left_to_the_user(counting, tables, tmp_path):
    counting("pass")
    mine = tmp_path / "mine"
    mine.mkdir()
    (unit,) = plan_units(load_tables(tables.folder), texts={"kept": str(mine)})
    assert run_unit(unit, tmp_path).state == "finished"
    assert [path.name for path in mine.iterdir()] == ["step.txt"]
    assert not (tmp_path / "checkpoints").exists()


def test_what_keeps_has_to_be_a_parameter(counting):
    with pytest.raises(InputError, match=r"'keep'.*'kept'"):
        counting("pass", keeps="keep")


def test_other_code_than_planned_is_refused(unit, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "code_version", lambda: "0ther")
    outcome = run_unit(unit, tmp_path)
    assert outcome.state == "failed"
    assert "install the same sources and libraries (numba, numpy, " in outcome.reason
    assert not (tmp_path / "finished").exists()


def test_an_upgraded_library_makes_another_version(monkeypatch, tmp_path):
    """A build of the same version, for another device, doesn't."""
    real = metadata.version
    known = {name: real(name) for name in identity.LIBRARIES}
    assert identity.library_versions() == {name: version.partition("+")[0] for name, version in known.items()}
    before = identity.code_version(tmp_path)

    def version_with(**changed):
        monkeypatch.setattr(metadata, "version", lambda name: {**known, **changed}[name])
        identity.library_versions.cache_clear()
        return identity.code_version(tmp_path)

    try:
        assert version_with() == before
        assert version_with(torch=f"{known['torch'].partition('+')[0]}+cu999") == before
        assert len({before, *(version_with(**{name: "999.0"}) for name in known)}) == 1 + len(known)
    finally:
        monkeypatch.undo()
        identity.library_versions.cache_clear()


def test_an_input_is_the_folder_of_the_run_before(tables, go):
    tables.add("train", "seed: int = 0", "open('model.txt', 'w').write(f'model {seed}')", matrix={"seed": [3, 4]})
    cell = "from pathlib import Path\nassert (Path(models) / 'model.txt').read_text() == f'model {seed}'"
    tables.add(
        "score",
        "seed: int = 0\nmodels: str = ''",
        cell,
        matrix={"seed": [3, 4]},
        needs=["train"],
        inputs={"models": "train"},
    )
    assert go().count("finished") == 4


@pytest.fixture
def zombie():
    """A process that has ended, and that nobody has asked for its exit code."""
    with subprocess.Popen([sys.executable, "-c", ""]) as started:
        process = psutil.Process(started.pid)
        while process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        yield process


@pytest.mark.skipif(sys.platform == "win32", reason="no zombies")
def test_leftovers_of_dead_processes_are_removed_and_others_are_not(tmp_path, zombie):
    def leave(name, **owner):
        folder = tmp_path / "working" / name
        folder.mkdir(parents=True)
        me = {"host": socket.gethostname(), "pid": os.getpid(), "born": psutil.Process().create_time()}
        (folder / "owner.json").write_text(json.dumps(me | owner))
        return folder

    gone = [
        leave("dead", pid=2**22 + 1),
        leave("dead and unburied", pid=zombie.pid, born=zombie.create_time()),
        leave("the number was given again", born=0.0),
        leave("old", host="another"),
    ]
    os.utime(gone[-1], (0, 0))
    kept = [leave("alive"), leave("elsewhere", host="another", pid=2**22 + 1), tmp_path / "working" / "just made"]
    kept[-1].mkdir()
    assert clean_working(tmp_path) == 4
    assert sorted((tmp_path / "working").iterdir()) == sorted(kept)


def test_the_command(tables, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tables_module, "FOLDER", tables.folder)
    tables.add_work([0, 1])
    tables.add("bad", "x: int = 1", "raise ValueError('first line\\nlast line')", by_name=True)
    out = str(tmp_path / "runs")
    common = ["--workers", "0", "--out", out]
    assert main(["reproduce", "--seeds", "1", "-p", "parts=2", *common]) == 0
    said = capsys.readouterr()
    assert re.fullmatch(
        rf"""1 run: 1 to do in this process, \d+ threads?
\[1/1\] finished  work +[\d.]+ s

1 run in [\d.]+ s: 1 finished now
  results  {re.escape(out)}/results.csv
  next     rsovlib report --out {re.escape(out)}
""",
        said.out,
    )
    assert said.err == "", "no bar in a file"
    assert main(["reproduce", "--seeds", "1", "-p", "parts=2", *common]) == 0
    assert capsys.readouterr().out.startswith("1 run: 1 finished earlier\n\n1 run in ")
    (tmp_path / "p.yaml").write_text("work: {parts: 2}\n")
    assert main(["reproduce", "--seeds", "1", "-f", str(tmp_path / "p.yaml"), *common, "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert tables.executions() == {1: 1}
    assert main(["reproduce", "work", "bad", "--seeds", "1", *common, "--quiet"]) == 1
    said = capsys.readouterr().out
    folder = next((tmp_path / "runs" / "failed").iterdir())
    assert (
        said
        == f"""
failed: bad (embedded)
  notebook  {tables.folder / "bad.ipynb"}
  cell      In [2]: raise ValueError('first line\\nlast line')
  error     last line
  executed  {folder / "notebook.ipynb"}
"""
    )
    assert main(["reproduce", "--list"]) == 0
    assert "bad" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["wrk"], "Did you mean 'work'"),
        (["-p", "sed=1"], "Did you mean 'seed'"),
        (["-p", "seed=one"], "must be of type int"),
        (["-p", "seed"], "NAME=VALUE"),
        (["-f", "none.yaml"], "none.yaml"),
        (["--profile", "embeded"], "Did you mean 'embedded'"),
        (["--workers", "-1"], "negative"),
        (["--workers", "1", "--scheduler", "tcp://127.0.0.1:1"], "not both"),
        (["--out", "/dev/null/runs"], "can't be made"),
    ],
)
def test_mistakes_are_one_sentence_and_code_2(tables, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.setattr(tables_module, "FOLDER", tables.folder)
    monkeypatch.chdir(tmp_path)
    tables.add_work([0])
    assert main(["reproduce", *arguments, "--quiet"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("rsovlib: ")
    assert len(error.strip().splitlines()) == 1
    assert tables.executions() == {}


def test_when_nothing_can_be_run_the_code_is_1(tables, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tables_module, "FOLDER", tables.folder)
    monkeypatch.delenv("RSOV_DATA", raising=False)
    tables.add("real", "x: int = 1", profiles={"full": {"data": ["datasets/gid"]}})
    assert main(["reproduce", "--profile", "full", "--out", str(tmp_path / "runs")]) == 1
    assert "RSOV_DATA" in capsys.readouterr().out


def test_seeds_that_are_no_numbers(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "--seeds", "a,b"])
    assert stop.value.code == 2
    assert "whole numbers" in capsys.readouterr().err


def test_an_unknown_folder_of_tables(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        reproduce(folder=tmp_path / "none", out=tmp_path)
