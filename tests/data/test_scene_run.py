"""Whole scenes by one worker and by several, killed and continued: always the same files, nothing computed twice."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from stand_ins import Logged, TwoPass, digest

from rsovlib.data import tile_crews
from rsovlib.data.raster import open_scene, read_class_map, segment_scene
from rsovlib.data.scene_run import disk_needed
from rsovlib.data.tile_work import from_fixed, to_fixed
from rsovlib.data.tilestore import partial_folder
from rsovlib.data.tiling import Tile, tile_grid
from rsovlib.errors import InputError, OutputError, RasterError, ResourceError, RsovError

CLASSES = "water, river; forest, trees; bare soil"


@pytest.fixture
def scene(geotiff, image):
    """90 x 75 pixels that repeat nowhere, with a corner without data."""
    rng = np.random.default_rng(1)
    values = np.tile(image.transpose(2, 0, 1), (1, 3, 3))[:, :90, :75] + rng.integers(1, 9, (3, 90, 75))
    y, x = np.mgrid[0:90, 0:75]
    values[:, y + x < 55] = 0
    return geotiff("scene.tif", values.astype("uint8"), nodata=0)


@pytest.fixture(params=[Logged, TwoPass], ids=["one pass", "two passes"])
def kind(request):
    return request.param


def run(scene, out, segmenter, **options):
    options = {"segmenter": segmenter, "progress": False, "probabilities": out.with_suffix(".p.tif"), **options}
    return segment_scene(scene, CLASSES, out, **options)


def files(out):
    """All that a run wrote, byte by byte."""
    return {path.name.removeprefix(out.stem): path.read_bytes() for path in out.parent.glob(f"{out.stem}.*")}


def calls(log):
    return log.read_text().splitlines() if log.exists() else []


def tile_digests(path, tiling=Logged.tiling):
    """Each tile with data by the name that the stand-in has for it."""
    with open_scene(path) as opened:
        rgb, valid = opened.read()
    grid = tile_grid(*valid.shape, *tiling)
    return {digest(rgb[tile.slices]): tile for tile in grid if valid[tile.slices].any()}


# --- The same files, whoever computes ----------------------------------------------------------------------------


def test_workers_threads_and_order_change_nothing(tmp_path, scene, kind):
    expected = run(scene, tmp_path / "a.tif", kind())
    assert expected.empty_tiles > 0
    one = files(expected.out)
    assert set(one) == {".tif", ".tif.aux.xml", ".p.tif"}
    for number, options in enumerate(
        [{"workers": 2}, {"tile_order": "reversed"}, {"workers": 3, "tile_order": "shuffled", "threads": 1}]
    ):
        report = run(scene, tmp_path / f"b{number}.tif", kind(), **options)
        assert files(report.out) == one
        assert (report.tiles, report.pixels, report.resumed) == (expected.tiles, expected.pixels, 0)
        assert not partial_folder(report.out).exists()


def test_a_dask_cluster_gives_the_same_files(tmp_path, scene, kind):
    from distributed import LocalCluster

    expected = files(run(scene, tmp_path / "a.tif", kind()).out)
    with LocalCluster(
        n_workers=2, threads_per_worker=2, processes=False, protocol="tcp", dashboard_address=":0"
    ) as cluster:
        report = run(scene, tmp_path / "b.tif", kind(), scheduler=cluster.scheduler_address)
        assert files(report.out) == expected
        with pytest.raises(RasterError, match="finds no"):
            tile_crews._check_workers(_Workers({"tcp://x": (tile_crews.rsovlib.__version__, None)}), _Job(str(scene)))
        with pytest.raises(InputError, match=r"has rsovlib 0\.0\.1"):
            tile_crews._check_workers(_Workers({"tcp://x": ("0.0.1", 1)}), _Job(str(scene)))


class _Workers:
    """A client whose workers answer what they are told to."""

    def __init__(self, answers):
        self.answers = answers

    def run(self, function, *arguments):
        return self.answers


class _Job:
    radar = None

    def __init__(self, path):
        self.path = path


def test_labels_agree_with_the_probabilities_that_are_written(tmp_path, scene, kind):
    report = run(scene, tmp_path / "a.tif", kind())
    found = read_class_map(report.out)
    with rasterio.open(report.files["probabilities"]) as source:
        probabilities = source.read()
    np.testing.assert_array_equal(found.valid, np.isfinite(probabilities[0]))
    np.testing.assert_array_equal(found.labels[found.valid], probabilities.argmax(axis=0)[found.valid])
    rule = found.settings["statistics"]
    assert rule["rule"] == ("scene" if kind is TwoPass else "tile")
    assert ("largest" in rule) == (kind is TwoPass)
    tile = run(scene, tmp_path / "b.tif", kind(), statistics="tile")
    assert tile.settings["statistics"] == {"rule": "tile"}
    assert (files(tile.out)[".p.tif"] == files(report.out)[".p.tif"]) == (kind is Logged)


def test_areas_are_written_as_a_table(tmp_path, scene):
    import pandas as pd

    report = run(scene, tmp_path / "a.tif", Logged(), areas=tmp_path / "a.csv")
    table = pd.read_csv(tmp_path / "a.csv")
    pd.testing.assert_frame_equal(table, report.table())
    assert table["hectares"].sum() == pytest.approx(sum(report.pixels.values()) / 100, rel=1e-3)  # pixels of 10 x 10 m


# --- Interrupted and continued -----------------------------------------------------------------------------------


class Interrupted(Logged):
    """Stops after some calls, as Ctrl-C does."""

    __name__ = "Logged"  # it is, as far as the map is concerned

    def __init__(self, log, after, **options):
        super().__init__(log, **options)
        self.left = after

    def __call__(self, image, classes):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().__call__(image, classes)


def interrupted(scene, out, log, after, **options):
    with pytest.raises(KeyboardInterrupt):
        run(scene, out, Interrupted(log, after, **options))
    assert not out.exists()
    assert partial_folder(out).is_dir() == (after > 0)


def test_a_run_goes_on_where_it_was(tmp_path, scene):
    log, out = tmp_path / "log", tmp_path / "m.tif"
    expected = files(run(scene, tmp_path / "a.tif", Logged()).out)
    total = len(tile_digests(scene))
    for after in (0, 3, 9, 4):
        interrupted(scene, out, log, after)
    report = run(scene, out, Logged(log))
    assert files(out) == expected
    assert (report.resumed > 15, report.tiles) == (True, total)
    assert len(calls(log)) == len(set(calls(log))) == total  # each tile once, over all runs together
    assert not partial_folder(out).exists()


@pytest.mark.parametrize("change", ["segmenter", "tile", "classes", "scene", "output", "forget"])
def test_what_was_made_otherwise_is_not_used(tmp_path, scene, change):
    log, out = tmp_path / "log", tmp_path / "m.tif"
    interrupted(scene, out, log, 9)
    before = len(calls(log))
    options = {
        "tile": {"tile": 23, "overlap": 8},
        "output": {"probabilities": None},
        "forget": {"resume": False},
    }.get(change, {})
    segmenter = Logged(log, setting=0.25 if change == "segmenter" else 0.0)
    if change == "scene":
        os.utime(scene, ns=(1, 1))
    names = "water; forest; bare soil" if change == "classes" else CLASSES
    report = segment_scene(
        scene,
        names,
        out,
        **{"segmenter": segmenter, "progress": False, "probabilities": tmp_path / "m.p.tif", **options},
    )
    assert report.resumed == 0
    assert len(calls(log)) - before == report.tiles
    assert not partial_folder(out).exists()


def test_a_damaged_tile_is_computed_again(tmp_path, scene):
    log, out = tmp_path / "log", tmp_path / "m.tif"
    expected = files(run(scene, tmp_path / "a.tif", Logged()).out)
    interrupted(scene, out, log, 9)
    kept = sorted(partial_folder(out).glob("*/t-*"))
    largest = max(kept, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    run(scene, out, Logged(log))
    assert files(out) == expected
    assert len(calls(log)) == len(set(calls(log))) + 1


def test_a_worker_that_is_killed_is_told_and_the_rest_is_kept(tmp_path, scene):
    log, out = tmp_path / "log", tmp_path / "m.tif"
    expected = files(run(scene, tmp_path / "a.tif", Logged()).out)
    victim = list(tile_digests(scene))[-4]
    with pytest.raises(ResourceError, match="ended before its work"):
        run(scene, out, Logged(log, die_at=victim), workers=2)
    assert not out.exists()
    done = len(calls(log))
    assert done > 3
    kept = len([path for path in partial_folder(out).glob("*/t-*") if path.stat().st_size > 100])
    bands = len(list(partial_folder(out).glob("*/b-*")))
    report = run(scene, out, Logged(log), workers=2)
    assert files(out) == expected
    assert report.resumed >= kept
    assert bands > 0
    # Only what was under way in the pool, two tasks a worker, may be computed again.
    assert len(calls(log)) - len(set(calls(log))) <= 4


def test_a_full_disk_keeps_what_was_finished_and_writes_nothing(tmp_path, scene, monkeypatch):
    log, out = tmp_path / "log", tmp_path / "m.tif"
    expected = files(run(scene, tmp_path / "a.tif", Logged()).out)
    real, room = os.replace, iter(range(1000))

    def full(source, target):
        if next(room) >= 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left on device"):
        run(scene, out, Logged(log))
    monkeypatch.setattr(os, "replace", real)
    assert sorted(path.name for path in tmp_path.glob("m*")) == ["m.tif.partial"]
    assert not list(partial_folder(out).rglob("*.part"))
    run(scene, out, Logged(log))
    assert files(out) == expected
    assert len(calls(log)) <= len(set(calls(log))) + 1


def test_a_disk_that_is_foreseen_to_be_too_small_is_refused_before_the_work(tmp_path, scene, monkeypatch):
    from rsovlib.data import scene_memory

    grid = tile_grid(90, 75, *Logged.tiling)
    small = disk_needed(grid, 3, two_pass=False, probabilities=False) - 1
    monkeypatch.setattr(scene_memory.shutil, "disk_usage", lambda path: type("Usage", (), {"free": small}))
    with pytest.raises(OutputError, match="make room, or choose another place"):
        run(scene, tmp_path / "m.tif", Logged(tmp_path / "log"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.tif"]


def test_foreseen_disk_space_is_enough(tmp_path, scene, kind, monkeypatch):
    from rsovlib.data.tilestore import TileStore

    most = []
    real = TileStore.put

    def watched(self, *arguments, **options):
        real(self, *arguments, **options)
        most.append(sum(path.stat().st_size for path in self.folder.iterdir()))

    monkeypatch.setattr(TileStore, "put", watched)
    run(scene, tmp_path / "m.tif", kind())
    grid = tile_grid(90, 75, *Logged.tiling)
    heads = 300 * 60  # names and shapes of the pieces, which matter for tiles of 24 pixels only
    assert max(most) < disk_needed(grid, 3, two_pass=kind is TwoPass, probabilities=True) + heads


PROGRAM = """
    import sys
    import stand_ins
    from rsovlib.data import raster
    from rsovlib.data.raster import segment_scene
    raster.code_digest = lambda: "the code"  # somebody may edit the package while the tests run
    if __name__ == "__main__":
        kind, scene, out, log, workers = sys.argv[1:]
        print("started", flush=True)
        segment_scene(
            scene, {classes!r}, out, segmenter=getattr(stand_ins, kind)(log, delay=0.01), progress=False,
            probabilities=out[:-4] + ".p.tif", workers=int(workers),
        )
"""


def kill_and_continue(tmp_path, scene, kind, kills, *, workers=1, seed=0):
    """Kill a run at random moments, then let it finish; check the files, and count what was computed twice."""
    expected_out = tmp_path / "a.tif"
    run(scene, expected_out, kind(delay=0.01))
    expected = files(expected_out)
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM.format(classes=CLASSES)))
    out, log = tmp_path / "m.tif", tmp_path / "log"
    command = [sys.executable, str(program), kind.__name__, *map(str, (scene, out, log, workers))]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    tiles, rng = tile_digests(scene), random.Random(seed)
    finished: dict[str, set[Tile]] = {"examine": set(), "decide": set(), "segment": set()}
    killed = fruitful = 0
    while killed < kills:
        seen = len(calls(log))
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "started\n"
            # By the work that is done rather than by the clock, so that kills fall all over the run on any machine;
            # and at any moment of a tile, of its being kept, or of the writing at the end.
            target = seen + rng.uniform(0, 3 * len(tiles) / kills)
            while process.poll() is None and len(calls(log)) < target:
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.05))
            process.kill()
        killed += 1
        check_new_calls(calls(log)[seen:], finished, tiles)
        if out.exists():  # it was quicker than we: another scene, so to speak
            assert files(out) == expected
            for path in [*tmp_path.glob("m.*"), log]:
                if path.is_file():
                    path.unlink()
            shutil.rmtree(partial_folder(out), ignore_errors=True)  # killed while it tidied up
            finished = {step: set() for step in finished}
            continue
        remember_finished(partial_folder(out), finished, scene)
        fruitful += any(finished.values())
    seen = len(calls(log))
    subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    check_new_calls(calls(log)[seen:], finished, tiles)
    assert files(out) == expected
    assert not partial_folder(out).exists()
    assert not list(tmp_path.glob(".m.*.part*"))
    assert fruitful  # else nothing was tested


def check_new_calls(lines, finished, tiles):
    """No task whose piece was on the disk when a run began is computed by it."""
    for line in lines:
        step, name = line.split()
        assert tiles[name] not in finished[step], f"{step} of {tiles[name]} was computed again"


def remember_finished(folder, finished, scene):
    """What stands on the disk after a kill."""
    names = {path.name for path in folder.glob("*/*")}
    with open_scene(scene) as opened:
        grid = tile_grid(opened.height, opened.width, *Logged.tiling)
    for tile in grid:
        place = f"{tile.row_index}-{tile.column_index}"
        if f"t-{place}" in names or (f"b-{tile.row_index}" in names and f"p-{tile.row_index}" in names):
            finished["decide"].add(tile)
            finished["segment"].add(tile)
        if f"e-{place}" in names or "constants" in names:
            finished["examine"].add(tile)


needs_sigkill = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")


@needs_sigkill
def test_killed_and_continued(tmp_path, scene):
    kill_and_continue(tmp_path, scene, TwoPass, 4)


@needs_sigkill
@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_thirty_times_and_continued(tmp_path, scene, workers, kind):
    kill_and_continue(tmp_path, scene, kind, 30, workers=workers, seed=workers)


@needs_sigkill
def test_worker_processes_end_with_the_one_that_started_them(tmp_path, scene):
    import psutil

    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM.format(classes=CLASSES)).replace("0.01", "0.3"))
    log = tmp_path / "log"
    command = [sys.executable, str(program), "Logged", *map(str, (scene, tmp_path / "m.tif", log, 2))]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        while not calls(log):
            assert process.poll() is None
            time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2
        process.kill()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


# --- What is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "number of workers is 0"),
        ({"workers": True}, "number of workers is True"),
        ({"threads": -1}, "number of threads is -1"),
        ({"workers": 2, "scheduler": "tcp://x:1"}, "leave workers out"),
        ({"statistics": "tiles"}, "no rule for statistics 'tiles'.*Did you mean 'tile'"),
        ({"tile_order": "columns"}, "no order of tiles 'columns'"),
        ({"scheduler": "tcp://127.0.0.1:9"}, "No Dask scheduler answers at 'tcp://127.0.0.1:9'"),
        ({"scheduler": "nonsense"}, "No Dask scheduler answers at 'nonsense'"),
    ],
)
def test_contradictions_are_refused(tmp_path, scene, options, message, monkeypatch):
    monkeypatch.setattr(tile_crews, "_PATIENCE", 0.5)
    with pytest.raises(InputError, match=message):
        run(scene, tmp_path / "m.tif", Logged(), **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.tif"]


def test_a_segmenter_that_can_not_travel_needs_one_worker(tmp_path, scene):
    segmenter = Logged()
    segmenter.function = lambda: None
    with pytest.raises(InputError, match="can't be sent to other processes"):
        run(scene, tmp_path / "m.tif", segmenter, workers=2)
    run(scene, tmp_path / "m.tif", segmenter)


def test_an_error_in_a_worker_comes_back_as_it_was(tmp_path, scene):
    class_count = "water; forest"  # the stand-in has three
    with pytest.raises(InputError, match="result has the shape"):
        segment_scene(scene, class_count, tmp_path / "m.tif", segmenter=Logged(), workers=2, progress=False)
    with pytest.raises(RsovError, match="no method"):
        segment_scene(scene, class_count, tmp_path / "m.tif", method="sdcl", workers=2, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.tif"]


def test_fixed_point_probabilities():
    tile = Tile(0, 0, 4, 5, 2, 3)
    values = np.random.default_rng(0).random((3, 2, 3), dtype=np.float32)
    fixed = to_fixed(values, 3, tile)
    assert np.abs(from_fixed(fixed) - values).max() <= 0.5 / 65535 + 1e-7
    np.testing.assert_array_equal(to_fixed(from_fixed(fixed), 3, tile), fixed)
    assert to_fixed(values * 0 + np.float32(1.0001), 3, tile).max() == 65535
    for wrong, message in (
        (values[:2], "shape"),
        (values * np.nan, "not numbers"),
        (values * 5, "lie between 0 and 1"),
    ):
        with pytest.raises(RsovError, match=message):
            to_fixed(wrong, 3, tile)


def test_the_command_line_hands_everything_on(tmp_path, scene, monkeypatch, capsys):
    from rsovlib.cli import main
    from rsovlib.data import raster

    seen = {}

    def watched(path, classes, out, **options):
        seen.update(options)
        return run(path, Path(out), Logged())

    monkeypatch.setattr(raster, "segment_scene", watched)
    out = tmp_path / "m.tif"
    command = ["segment", str(scene), "--classes", CLASSES, "--out", str(out)]

    def asked(**wanted):
        seen.clear()
        flags = [part for name, value in wanted.items() for part in (f"--{name}", value) if part is not True]
        assert main([*command, *flags]) == 0
        return seen

    plain = asked()
    names = ("workers", "scheduler", "threads", "statistics", "resume", "cog", "areas")
    assert [plain[name] for name in names] == [1, None, None, "scene", True, False, None]
    given = asked(workers="2", threads="1", statistics="tile", cog=True, areas="a.csv", quiet=True)
    assert [given[name] for name in names] == [2, None, 1, "tile", True, True, "a.csv"]
    capsys.readouterr()
    assert asked(scheduler="tcp://x:1")["scheduler"] == "tcp://x:1"
    assert "29 tiles in" in capsys.readouterr().out
    assert asked(**{"no-resume": True})["resume"] is False
