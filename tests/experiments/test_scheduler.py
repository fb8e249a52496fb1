"""Many runs in many processes: whatever is killed, nothing finished is lost or done again, nothing half-done counts."""

from __future__ import annotations

import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from rsovlib.errors import InputError, ResourceError
from rsovlib.experiments import reproduce
from rsovlib.experiments.matrix import plan_units
from rsovlib.experiments.runs import finished_runs
from rsovlib.experiments.scheduler import most_urgent_first
from rsovlib.experiments.tables import load_tables

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


def ids(out: Path) -> dict[str, str]:
    """Name of every finished run -> the id of the one execution that made it."""
    return {record["name"]: record["id"] for _, record in finished_runs(out)}


def start(command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as words:
        # Elsewhere than in the checkout, which `python -m` would import rsovlib from.
        return subprocess.Popen(
            command, env=environment, stdout=words, stderr=words, start_new_session=True, cwd=log.parent
        )


def wait_for(condition, seconds: float = 600.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.05)


def processes(root: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The command, its workers and their kernels."""
    try:
        main = psutil.Process(root.pid)
        return [main, *main.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def end(root: subprocess.Popen[bytes]) -> None:
    """Kill the whole tree of a command."""
    for process in processes(root):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    root.wait()


def test_two_workers_do_all_in_the_order_of_their_needs(tables, command, environment, tmp_path, rows_of):
    tables.add_work([0, 1, 2])
    tables.add_work([9], name="last", needs=["work"])
    tables.add("bad", "x: int = 1", "raise ValueError('luckless')")
    out = tmp_path / "runs"
    line = command("reproduce", "--workers", "2", "--out", str(out))
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "on 2 workers of this machine" in done.stdout
    assert "luckless" in done.stdout
    assert "4 finished now, 1 failed" in done.stdout
    assert len(re.findall(r"^\[\d/5\] finished +(work  seed \d|last) ", done.stdout, re.M)) == 4
    assert tables.log.read_text().split()[-1] == "9", "after all that it needs"
    assert {row["value"] for row in rows_of(out)} == {0.5, 10.5, 20.5, 90.5}
    assert tables.executions() == {0: 1, 1: 1, 2: 1, 9: 1}


def test_no_cluster_is_started_for_nothing(tables, tmp_path, monkeypatch):
    tables.add_work([0])
    options = {"folder": tables.folder, "out": tmp_path / "runs", "progress": False}
    reproduce(**options, workers=0)
    monkeypatch.setattr("rsovlib.experiments.reproduction.run_units", None)
    assert reproduce(**options, workers=2).count("kept") == 1


def test_long_runs_and_what_they_wait_for_are_begun_first(tables):
    def add(name, minutes, needs=()):
        tables.add(name, "x: int = 1", "y = 1", needs=list(needs), profiles={"embedded": {"minutes": minutes}})

    add("a-short", 0)
    add("b-first", 1)
    add("c-second", 5, ["b-first"])
    add("d-long", 5.5)
    units = plan_units(load_tables(tables.folder))
    name_of = {unit.key: unit.table for unit in units}
    found = [name_of[key] for key in most_urgent_first(units)]
    assert found == ["b-first", "d-long", "c-second", "a-short"]  # 1 + 5 minutes, 5.5, 5, 0


def alive(tree: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a zombie doesn't."""
    found = []
    for process in tree:
        with suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.fixture
def at_work(tables, command, environment, tmp_path):
    """Start a command, and wait until one run is finished and two are at work; gives its process and the whole tree."""
    tables.add_work([0], name="quick")
    endless = "open('begun', 'w')\nimport time\ntime.sleep(3600)"
    tables.add("slow", "seed: int = 0", endless, matrix={"seed": [1, 2]}, needs=["quick"])
    out = tmp_path / "runs"
    started = []

    def go(**popen):
        line = command("reproduce", "--workers", "2", "--out", str(out))
        process = subprocess.Popen(line, env=environment, start_new_session=True, cwd=tmp_path, **popen)
        started.append(process)
        wait_for(lambda: len(ids(out)) == 1 and len(list((out / "working").glob("slow-*/begun"))) == 2)
        return process, processes(process)

    yield go
    for process in started:
        end(process)


def stopped_well(process, tree, out: Path, code: int) -> None:
    """The command has ended with that code, so has all that it had started, and what was finished is kept."""
    assert process.wait(timeout=600) == code
    assert len(tree) >= 5, "the command, two workers, two kernels"
    wait_for(lambda: not alive(tree))
    assert len(ids(out)) == 1
    plan = json.loads((out / "plans" / "quick.embedded.json").read_text())
    assert plan["units"][0]["outcome"]["state"] == "finished"


def test_ctrl_c_stops_kernels_and_keeps_what_is_finished(at_work, tmp_path):
    log = tmp_path / "log.txt"
    with log.open("wb") as words:
        process, tree = at_work(stdout=words, stderr=words)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    stopped_well(process, tree, tmp_path / "runs", 130)
    assert list((tmp_path / "runs" / "working").iterdir()) == []
    assert log.read_text().splitlines()[-2:] == [
        "rsovlib: stopping; what is finished is kept. Once more to stop at once.",
        "Stopped: 1 of 3 runs are finished; the same command goes on.",
    ]


def test_sigterm_under_load(at_work, tmp_path):
    """As `timeout` sends it, on a machine that is busy with something else."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True) for _ in range(2)]
    try:
        with (tmp_path / "log.txt").open("wb") as words:
            process, tree = at_work(stdout=words, stderr=words)
        os.killpg(process.pid, signal.SIGTERM)
        stopped_well(process, tree, tmp_path / "runs", 143)
    finally:
        for one in busy:
            one.kill()
            one.wait()
    assert "Traceback" not in (tmp_path / "log.txt").read_text()


def test_a_closed_terminal(at_work, tmp_path):
    """The system tells all processes of the terminal by SIGHUP, and whatever is written to it is an error."""
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    said, over = [], threading.Event()

    def read() -> None:  # not blocking: the system doesn't close what is being read
        while not over.wait(0.05):
            if select.select([ours], [], [], 0)[0]:
                said.append(os.read(ours, 4096))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    process, tree = at_work(
        stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    )
    over.set()
    reader.join()
    os.close(theirs)
    text = b"".join(said).decode()
    assert "3 to do on 2 workers of this machine" in text
    assert "runs 1/3 |" in text
    os.close(ours)
    stopped_well(process, tree, tmp_path / "runs", 129)


STUCK = """
import subprocess, sys, time
from rsovlib.commands import reproduce_signals

reproduce_signals.GRACE = float(sys.argv[1])
with reproduce_signals.ending_promptly():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    try:
        print(child.pid, flush=True)
        time.sleep(3600)
    finally:
        print("unwinding", flush=True)
        time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def stuck(environment):
    """A program whose orderly end takes an hour, with a process of its own."""
    started = []

    def go(grace: float, before: str = "", orderly_end: float = 3600):
        line = [sys.executable, "-c", before + STUCK, str(grace), str(orderly_end)]
        process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        return process, psutil.Process(int(process.stdout.readline()))

    yield go
    for process in started:
        end(process)
        process.stdout.close()


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once(stuck, second):
    process, child = stuck(grace=3600)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "unwinding\n"
    process.send_signal(second)
    assert process.wait(timeout=600) == 143
    wait_for(lambda: not alive([child]))


def test_what_does_not_end_is_ended(stuck):
    process, child = stuck(grace=0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=600) == 130
    wait_for(lambda: not alive([child]))


def test_the_end_of_the_interpreter_is_watched_too(stuck):
    """Libraries have things to do at exit, and may wait for others."""
    before = "import atexit, time\natexit.register(time.sleep, 3600)\n"
    process, child = stuck(grace=0.2, before=before, orderly_end=0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=600) == 143
    wait_for(lambda: not alive([child]))


def test_nohup_is_heeded(stuck):
    """SIGHUP was ignored before, and still is."""
    process, child = stuck(grace=0.2, before="import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=600) == 143
    wait_for(lambda: not alive([child]))


def kill_again_and_again(kills: int, line: list[str], environment: dict[str, str], out: Path, seed: int, log: Path):
    """Kill a random process of the command at random moments; gives the runs that were finished at each kill."""
    rng = random.Random(seed)
    seen: list[dict[str, str]] = []
    victims: list[int] = []
    process = start(line, environment, log)
    try:
        while len(victims) < kills:
            # Not before it is at work: of its start every kill would hit the same moments.
            wait_for(lambda one=process: one.poll() is not None or len(processes(one)) > 4)
            time.sleep(rng.uniform(0.1, 3.0))
            tree = processes(process)
            if process.poll() is not None:
                process = start(line, environment, log)
            elif tree:
                with suppress(psutil.NoSuchProcess):
                    choice = rng.choice(tree)
                    choice.kill()
                    victims.append(choice.pid)
                    seen.append(ids(out))
    finally:
        end(process)
    seen.append(ids(out))
    return seen, victims


def check_kills(tables, command, environment, tmp_path, rows_of, kills: int, seeds: int, seed: int) -> None:
    tables.add_work(list(range(seeds)), wait=0.25, parts=3)
    out = tmp_path / "runs"
    line = command("reproduce", "--workers", "2", "--out", str(out), "--quiet")
    seen, victims = kill_again_and_again(kills, line, environment, out, seed, tmp_path / "log.txt")
    assert len(victims) == kills
    done = subprocess.run(line[:-1], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    last = ids(out)
    assert len(last) == seeds
    for before in seen:  # what was finished at a kill is the very same execution now
        assert before.items() <= last.items()
    assert f"{seeds - len(seen[-1])} finished now" in done.stdout or len(seen[-1]) == seeds
    assert {path.name for path in (out / "working").iterdir()} == set()
    assert sorted(row["value"] for row in rows_of(out)) == [10 * number + 0.5 for number in range(seeds)]
    for folder, _ in finished_runs(out):
        assert [(folder / f"part_{part}.txt").stat().st_size for part in range(3)] == [1000] * 3
    executions = sum(tables.executions().values())
    print(f"{kills} kills; finished at each: {[len(before) for before in seen]}; {executions} executions")


def test_four_kills(tables, command, environment, tmp_path, rows_of):
    check_kills(tables, command, environment, tmp_path, rows_of, kills=4, seeds=6, seed=11)


@pytest.mark.slow
def test_thirty_kills(tables, command, environment, tmp_path, rows_of):
    """The whole promise: 30 kills, then one plain run equals an undisturbed one."""
    check_kills(tables, command, environment, tmp_path, rows_of, kills=30, seeds=40, seed=5)
    disturbed = rows_of(tmp_path / "runs")
    line = command("reproduce", "--workers", "2", "--out", str(tmp_path / "calm"), "--quiet")
    subprocess.run(line, env=environment, check=True)
    assert rows_of(tmp_path / "calm") == disturbed


@pytest.fixture
def cluster(environment, tmp_path):
    """A scheduler and two workers, each started by its own command, as on a cluster."""
    tool = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    address_file = tmp_path / "scheduler.json"
    log = tmp_path / "cluster.txt"
    started = [
        start(
            [*tool, "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(address_file)],
            environment,
            log,
        )
    ]
    try:
        wait_for(address_file.exists)
        address = json.loads(address_file.read_text())["address"]
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
        started += [start(worker, environment, log) for _ in range(2)]
        wait_for(lambda: log.read_text().count("Registered to") >= 2)
        yield address, started
    finally:
        for process in started:
            end(process)


@pytest.mark.slow
def test_separately_started_scheduler_and_workers(tables, command, environment, tmp_path, cluster, rows_of):
    """From a laptop to a cluster: the same command with --scheduler; then a worker dies, then the scheduler."""
    address, started = cluster
    tables.add_work([0, 1, 2, 3], wait=1.0, parts=2)
    out = tmp_path / "runs"
    line = command("reproduce", "--scheduler", address, "--out", str(out), "--seeds", "0,1")
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "on 2 workers of 1 machine at" in done.stdout
    assert len(ids(out)) == 2

    line = command("reproduce", "--scheduler", address, "--out", str(out))
    process = start(line, environment, tmp_path / "log.txt")
    # On a busy machine one of the two may be done before the other begins: then nothing is left to be taken over.
    wait_for(lambda: len(list((out / "working").glob("*"))) == 2 or process.poll() is not None)
    end(started[1])  # a worker with its kernel: its run goes to the other one
    assert process.wait() == 0, (tmp_path / "log.txt").read_text()
    assert {row["value"] for row in rows_of(out)} == {0.5, 10.5, 20.5, 30.5}

    line = command("reproduce", "--scheduler", address, "--out", str(out), "--seeds", "7,8", "-p", "wait=60")
    left = set((out / "working").glob("*"))
    process = start(line, environment, tmp_path / "log.txt")
    wait_for(lambda: set((out / "working").glob("*")) - left)
    end(started[0])
    assert process.wait() == 2
    assert "doesn't answer any more" in (tmp_path / "log.txt").read_text()
    assert len(ids(out)) == 4


@pytest.mark.slow
def test_ctrl_c_stops_the_kernels_of_a_cluster_and_leaves_its_workers(tables, command, environment, tmp_path, cluster):
    address, started = cluster
    tables.add("slow", "seed: int = 0", "open('begun', 'w')\nimport time\ntime.sleep(3600)", matrix={"seed": [1, 2]})
    out = tmp_path / "runs"
    process = start(command("reproduce", "--scheduler", address, "--out", str(out)), environment, tmp_path / "log.txt")
    wait_for(lambda: len(list((out / "working").glob("slow-*/begun"))) == 2)
    tree = [one for worker in started[1:] for one in processes(worker)]
    kernels = [one for one in tree if "ipykernel_launcher" in one.cmdline()]
    assert len(kernels) == 2
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=600) == 130, (tmp_path / "log.txt").read_text()
    wait_for(lambda: not alive(kernels))
    wait_for(lambda: not list((out / "working").iterdir()))  # the workers tidy up
    assert all(one.poll() is None for one in started)
    assert ids(out) == {}


def test_no_scheduler_is_a_clear_sentence(tables, tmp_path, monkeypatch):
    monkeypatch.setattr("rsovlib.experiments.scheduler.CONNECT_SECONDS", 1)
    tables.add_work([0])
    with pytest.raises(ResourceError, match=r"no Dask scheduler at 'tcp://127\.0\.0\.1:9'"):
        reproduce(folder=tables.folder, out=tmp_path, scheduler="tcp://127.0.0.1:9", progress=False)
    with pytest.raises(InputError, match="not both"):
        reproduce(folder=tables.folder, out=tmp_path, scheduler="tcp://127.0.0.1:9", workers=2, progress=False)
