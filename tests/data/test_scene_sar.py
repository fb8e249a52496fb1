"""Whole scenes with radar beside them: another grid, partly overlapping, several workers, stopped and continued."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import rasterio
from stand_ins import Logged, Radar, Together, digest, make_radar

import rsovlib
from rsovlib.cli import main
from rsovlib.data import raster
from rsovlib.data.classes import parse_classes
from rsovlib.data.raster import open_pair, segment_scene
from rsovlib.data.tilestore import partial_folder
from rsovlib.data.tiling import tile_grid
from rsovlib.errors import InputError, OutputError, RasterError
from rsovlib.segmenters import Segmentation
from rsovlib.segmenters.registry import register, unregister

CLASSES = "water, river; forest, trees; bare soil"
TRANSFORM = rasterio.Affine(10, 0, 500_000, 0, -10, 5_600_000)


@pytest.fixture
def scene(geotiff):
    """90 x 75 pixels that repeat nowhere, with a corner without data."""
    rng = np.random.default_rng(2)
    values = rng.integers(1, 256, (3, 90, 75))
    y, x = np.mgrid[0:90, 0:75]
    values[:, y + x < 55] = 0
    return geotiff("scene.tif", values.astype("uint8"), nodata=0)


@pytest.fixture
def radar(geotiff):
    """Decibels at 17 m a pixel, on a grid turned by 5 degrees, over the scene's right half only, with a hole in it."""
    rng = np.random.default_rng(3)
    values = rng.normal([[[-12]], [[-18]]], 3, (2, 60, 40)).astype("float32")
    values[:, 20:26, 10:16] = np.nan
    place = (
        rasterio.Affine.translation(500_380, 5_600_050) @ rasterio.Affine.rotation(-5) @ rasterio.Affine.scale(17, -17)
    )
    return geotiff("s1.tif", values, transform=place, descriptions=["VV", "VH"])


@pytest.fixture
def registered():
    register("with-radar", make_radar, uses_sar=True, doc="a stand-in")
    yield "with-radar"
    unregister("with-radar")


def run(scene, radar, out, segmenter, **options):
    options = {"segmenter": segmenter, "progress": False, "probabilities": out.with_suffix(".p.tif"), **options}
    return segment_scene(scene, CLASSES, out, sar=radar, **options)


def files(out):
    return {path.name.removeprefix(out.stem): path.read_bytes() for path in out.parent.glob(f"{out.stem}.*")}


def test_each_tile_sees_its_radar_and_where_there_is_any(tmp_path, scene, radar):
    report = run(scene, radar, tmp_path / "a.tif", Radar(tmp_path / "log"))
    expected = set()
    with open_pair(scene, radar) as pair:
        whole = pair.read()
        coverage = pair.coverage
    assert 0.3 < coverage["sar"] < 0.7
    for tile in tile_grid(90, 75, *Radar.tiling):
        if whole.optical_valid[tile.slices].any():
            there = whole.sar_valid[tile.slices]
            seen = f"{digest(whole.sar[tile.slices])}:{there.sum()}" if there.any() else "none"
            expected.add(f"segment {seen} {digest(whole.optical[tile.slices])}")
    lines = (tmp_path / "log").read_text().splitlines()
    assert set(lines) == expected
    assert sum(" none " in line for line in lines) > 2
    assert sum(" none " not in line for line in lines) > 2
    kept = report.settings["sar"]
    assert (kept["source"], kept["unit"], kept["bands"]) == ("s1.tif", "db", [1, 2])
    assert "warped" in kept["grid"]
    assert kept["coverage"] == {name: round(share, 4) for name, share in coverage.items()}
    with rasterio.open(report.out) as file:
        assert json.loads(file.tags()["RSOVLIB_SETTINGS"])["sar"] == kept


def test_the_radar_changes_the_map_only_where_tiles_see_it(tmp_path, scene, radar):
    with_radar = run(scene, radar, tmp_path / "a.tif", Radar())
    without = run(scene, None, tmp_path / "b.tif", Radar())
    assert "sar" not in without.settings
    with rasterio.open(with_radar.out) as one, rasterio.open(without.out) as other, open_pair(scene, radar) as pair:
        differs = one.read(1) != other.read(1)
        there = pair.sar.read()[1]
    assert differs[there].mean() > 0.1
    assert not differs[~there].any()


def test_workers_order_and_batches_change_nothing(tmp_path, scene, radar):
    one = files(run(scene, radar, tmp_path / "a.tif", Radar()).out)
    for number, (kind, options) in enumerate(
        [(Radar, {"workers": 2}), (Radar, {"tile_order": "shuffled"}), (Together, {"batch": 5, "workers": 2})]
    ):
        report = run(scene, radar, tmp_path / f"b{number}.tif", kind(), **options)
        assert files(report.out) == one


def test_batches_are_as_large_as_asked_and_seen_by_the_segmenter(tmp_path, scene, radar):
    run(scene, radar, tmp_path / "a.tif", Together(tmp_path / "log"), batch=4)
    sizes = [line.split()[2] for line in (tmp_path / "log").read_text().splitlines() if line.startswith("batch")]
    assert "4" in sizes
    assert set(sizes) <= {"2", "3", "4"}
    (tmp_path / "log").unlink()
    run(scene, radar, tmp_path / "b.tif", Together(tmp_path / "log"))
    assert "batch" not in (tmp_path / "log").read_text()


PROGRAM = """
    import sys
    import stand_ins
    from rsovlib.data import raster
    if __name__ == "__main__":
        scene, radar, out, log, die_at, digest = sys.argv[1:]
        raster.code_digest = lambda: digest  # somebody may edit the package while the tests run
        raster.segment_scene(
            scene, {classes!r}, out, sar=radar, segmenter=stand_ins.Radar(log, die_at=die_at), progress=False,
            probabilities=out[:-4] + ".p.tif",
        )
"""


def test_killed_and_continued(tmp_path, scene, radar, monkeypatch):
    expected = files(run(scene, radar, tmp_path / "a.tif", Radar()).out)
    monkeypatch.setattr(raster, "code_digest", lambda: "the code")
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM.format(classes=CLASSES)))
    log, out = tmp_path / "log", tmp_path / "b.tif"
    with open_pair(scene, radar) as pair:
        tiles = list(tile_grid(90, 75, *Radar.tiling))
        whole = pair.optical.read()[0]
    for die_at in (tiles[9], tiles[17]):
        name = digest(whole[die_at.slices])
        arguments = [tmp_path / "program.py", scene, radar, out, log, name, "the code"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
        done = subprocess.run([sys.executable, *map(str, arguments)], env=environment, check=False)
        assert done.returncode == -signal.SIGKILL
        assert not out.exists()
    report = run(scene, radar, out, Radar(log))
    assert report.resumed > 10
    lines = log.read_text().splitlines()
    assert len(lines) == len(set(lines))  # dying comes before the line
    assert files(out) == expected


def test_stopped_and_continued(tmp_path, scene, radar):
    expected = files(run(scene, radar, tmp_path / "a.tif", Radar()).out)
    log = tmp_path / "log"
    with pytest.raises(KeyboardInterrupt):
        run(scene, radar, tmp_path / "b.tif", _Stopping(log, after=7))
    assert partial_folder(tmp_path / "b.tif").exists()
    report = run(scene, radar, tmp_path / "b.tif", _Stopping(log, after=10**6))
    assert report.resumed > 0
    lines = log.read_text().splitlines()
    assert len(lines) == len(set(lines)) + 1  # the tile during which it was stopped
    assert files(report.out) == expected


class _Stopping(Radar):
    def __init__(self, log, after):
        super().__init__(log)
        self.after = after

    def _note(self, step, image):
        super()._note(step, image)
        self.after -= 1
        if self.after < 0:
            raise KeyboardInterrupt


def test_another_radar_file_is_another_run(tmp_path, scene, radar):
    with pytest.raises(KeyboardInterrupt):
        run(scene, radar, tmp_path / "b.tif", _Stopping(tmp_path / "log", after=7))
    with rasterio.open(radar, "r+") as file:
        file.write(file.read() + 1)
    assert run(scene, radar, tmp_path / "b.tif", _Stopping(tmp_path / "log", after=10**6)).resumed == 0


def test_the_command_line(tmp_path, scene, radar, registered, capsys):
    arguments = ["segment", str(scene), "--classes", CLASSES, "--sar", str(radar), "--method", registered]
    assert main([*arguments, "--out", str(tmp_path / "a.tif"), "--workers", "2"]) == 0
    text = capsys.readouterr().out
    assert "radar: s1.tif, warped" in text
    expected = run(scene, radar, tmp_path / "b.tif", None, method=registered)
    assert (tmp_path / "a.tif").read_bytes() == expected.out.read_bytes()


def test_one_call_with_two_files_is_one_call_with_what_they_hold_on_one_grid(scene, radar):
    register("with-radar", lambda method, **_: _AsSegmentation(), uses_sar=True)
    try:
        found = rsovlib.segment(scene, CLASSES, method="with-radar", sar=radar)
        with open_pair(scene, radar) as pair:
            whole, kept = pair.read(), pair.settings()
        there = {"sar": whole.sar, "sar_valid": whole.sar_valid}
        expected = rsovlib.segment(whole.optical, CLASSES, method="with-radar", **there)
        without = rsovlib.segment(scene, CLASSES, method="with-radar")
    finally:
        unregister("with-radar")
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    np.testing.assert_array_equal(found.valid, whole.optical_valid)
    assert found.settings["sar"] == kept
    assert found.georeference is not None
    assert "sar" not in without.settings
    assert (without.labels != found.labels).any()


class _AsSegmentation(Radar):
    def __call__(self, image, classes, sar=None, sar_valid=None):
        prompts = [prompt.name for prompt in parse_classes(classes)]
        return Segmentation.from_probabilities(super().__call__(image, classes, sar, sar_valid).probabilities, prompts)


def test_a_method_without_radar_refuses_it_before_any_work(tmp_path, scene, radar, registered, capsys):
    arguments = ["segment", str(scene), "--classes", CLASSES, "--out", str(tmp_path / "a.tif"), "--sar", str(radar)]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "'sdci' can't use a radar image" in error
    assert registered in error
    with pytest.raises(InputError, match="'Logged' can't use a radar image"):
        run(scene, radar, tmp_path / "a.tif", Logged())
    assert not (tmp_path / "a.tif").exists()


def test_contradictions_are_refused(tmp_path, scene, radar, geotiff):
    with pytest.raises(InputError, match="belong to a radar raster"):
        run(scene, None, tmp_path / "a.tif", Radar(), sar_unit="db")
    with pytest.raises(OutputError, match="also the input"):
        run(scene, radar, radar, Radar(), probabilities=None)
    away = geotiff("away.tif", np.ones((1, 9, 9), "float32"), transform=rasterio.Affine(10, 0, 0, 0, -10, 100))
    with pytest.raises(RasterError, match="do not overlap"):
        run(scene, away, tmp_path / "a.tif", Radar())


def test_after_an_interruption_the_command_says_what_is_kept(tmp_path, scene, radar, registered, capsys, monkeypatch):
    monkeypatch.setattr(raster, "_make_segmenter", lambda *_, **__: _Stopping(tmp_path / "log", after=7))
    command = ["segment", str(scene), "--classes", CLASSES, "--sar", str(radar), "--method", registered, "--quiet"]
    assert main([*command, "--out", str(tmp_path / "a.tif")]) == 130
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "a.tif.partial, and the same command goes on" in error
    assert partial_folder(tmp_path / "a.tif").is_dir()
