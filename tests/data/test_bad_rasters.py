"""Everything that can be wrong with a raster: one clear error of ours with the file's name, by any door."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio

from rsovlib.data.pair import open_stack
from rsovlib.data.raster import open_pair, open_scene, read_raster, segment_scene, write_class_map
from rsovlib.data.sarscene import open_sar
from rsovlib.errors import RasterError

UTM = rasterio.CRS.from_epsg(32632)
TRANSFORM = rasterio.Affine(10, 0, 500_000, 0, -10, 5_600_000)
ROTATED = rasterio.Affine(8, 3, 500_000, 3, -8, 5_600_000)
BLOCKS = {"tiled": True, "blockxsize": 16, "blockysize": 16}


def half(image, classes):
    return SimpleNamespace(probabilities=np.full((2, *image.shape[:2]), 0.5, np.float32))


@pytest.fixture
def damaged(tmp_path, geotiff, image):
    """A function that makes a raster with the given fault."""
    values = image.transpose(2, 0, 1)

    def make(kind):
        path = tmp_path / f"{kind}.tif"
        if kind == "folder":
            path.mkdir()
        elif kind == "empty":
            path.touch()
        elif kind == "text":
            path.write_text("this is no raster")
        elif kind == "header":
            path.write_bytes(b"II*\0\x08\0\0\0")
        elif kind == "one":
            geotiff(path.name, values[:1])
        elif kind == "two":
            geotiff(path.name, values[:2])
        elif kind == "palette":
            write_class_map(path, np.zeros((5, 6), int), ["a"], transform=TRANSFORM)
        elif kind == "complex":
            geotiff(path.name, values.astype("complex64"))
        elif kind == "nodata":
            geotiff(path.name, np.zeros((3, 37, 31), "uint16"), nodata=0)
        elif kind == "nan":
            geotiff(path.name, np.full((3, 37, 31), np.nan, "float32"))
        elif kind == "masked":
            geotiff(path.name, values, mask=np.zeros((37, 31), bool))
        elif kind.startswith("cut"):
            geotiff(path.name, values, **BLOCKS, compress=kind.removeprefix("cut-"))
            os.truncate(path, path.stat().st_size * 7 // 10)
        elif kind == "scrambled":
            geotiff(path.name, values, **BLOCKS, compress="deflate")
            content = bytearray(path.read_bytes())
            content[-3000:-1000] = bytes(2000)
            path.write_bytes(content)
        return path

    return make


NO_FILE = [
    ("missing", "does not exist"),
    ("folder", "is a folder"),
    ("empty", r"is empty \(0 bytes\)"),
    ("text", "can't be opened as a raster"),
    ("header", "can't be opened as a raster"),
    ("complex", r"complex numbers \(complex64\)"),
    ("cut-deflate", "is cut short"),
    ("cut-lzw", "is cut short"),
    ("cut-none", "is cut short"),
]
"""Faults that are found by opening the file."""

NO_DATA = [("nodata", "holds no data"), ("nan", "holds no data"), ("masked", "holds no data")]
NO_COLOURS = [
    ("one", "has 1 band, and three are needed"),
    ("two", "has 2 bands, and three are needed"),
    ("palette", "holds a palette, not colours"),
]
UNREADABLE = [("scrambled", "is damaged: reading ")]


def refused(message, path, call):
    with pytest.raises(RasterError, match=message) as caught:
        call()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "message"), NO_FILE + NO_DATA + NO_COLOURS + UNREADABLE)
def test_a_scene_to_segment(tmp_path, damaged, kind, message):
    path = damaged(kind)
    before = sorted(tmp_path.iterdir())
    refused(
        message,
        path,
        lambda: segment_scene(path, "a; b", tmp_path / "m.tif", segmenter=half, tile=16, overlap=4, progress=False),
    )
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(("kind", "message"), NO_FILE + NO_COLOURS)
def test_a_scene_to_open(damaged, kind, message):
    path = damaged(kind)
    refused(message, path, lambda: open_scene(path))


@pytest.mark.parametrize(("kind", "message"), NO_FILE + UNREADABLE)
def test_a_raster_to_read(damaged, kind, message):
    path = damaged(kind)
    refused(message, path, lambda: read_raster(path))


@pytest.mark.parametrize(("kind", "message"), NO_FILE + NO_DATA + UNREADABLE)
def test_a_radar_scene(damaged, kind, message):
    path = damaged(kind)

    def show():
        with open_sar(path) as scene:
            scene.require_data()
            scene.read_rgb()

    refused(message, path, show)


@pytest.mark.parametrize(("kind", "message"), NO_FILE + NO_DATA + UNREADABLE)
@pytest.mark.parametrize("place", [TRANSFORM, ROTATED], ids=["same grid", "warped"])
def test_a_radar_scene_beside_an_optical_one(geotiff, damaged, kind, message, place):
    path = damaged(kind)
    optical = geotiff("optical.tif", np.full((3, 37, 31), 90, "uint8"), transform=place)

    def show():
        with open_pair(optical, path) as pair:
            pair.read()

    refused(message, path, show)


@pytest.mark.parametrize(("kind", "message"), NO_FILE + NO_COLOURS)
def test_an_optical_scene_beside_a_radar_one(geotiff, damaged, kind, message):
    path = damaged(kind)
    radar = geotiff("radar.tif", np.full((1, 37, 31), -9, "float32"))
    refused(message, path, lambda: open_pair(path, radar))
    if (kind, message) in NO_FILE:
        refused(message, path, lambda: open_stack({"optical": radar, "radar": path}))


def test_files_are_closed_when_one_of_a_pair_is_bad(geotiff, damaged):
    """An open file could not be replaced on Windows, and a long session would run out of them."""
    psutil = pytest.importorskip("psutil")
    optical = geotiff("optical.tif", np.full((3, 37, 31), 90, "uint8"))
    elsewhere = geotiff("far.tif", np.full((1, 37, 31), -9, "float32"), transform=TRANSFORM.translation(9e4, 0))
    for path in (damaged("nan"), damaged("cut-none"), elsewhere):
        with pytest.raises(RasterError):
            open_pair(optical, path)
    opened = [file.path for file in psutil.Process().open_files()]
    assert not [path for path in opened if path.startswith(str(optical.parent))]


def test_a_place_that_is_needed_and_missing(tmp_path, geotiff, image):
    """Segmenting needs no place on Earth; bringing two files together does."""
    nowhere = geotiff("nowhere.tif", image.transpose(2, 0, 1), crs=None, transform=None)
    report = segment_scene(nowhere, "a; b", tmp_path / "m.tif", segmenter=half, progress=False)
    assert report.hectares is None
    radar = geotiff("radar.tif", np.full((1, 37, 31), -9, "float32"))
    refused("has no coordinate reference system", nowhere, lambda: open_pair(nowhere, radar))
    refused("has no coordinate reference system", nowhere, lambda: open_stack({"sar": radar, "optical": nowhere}))


def test_a_rotated_scene_works(tmp_path, geotiff, image):
    path = geotiff("rotated.tif", image.transpose(2, 0, 1), transform=ROTATED)
    segment_scene(path, "a; b", tmp_path / "m.tif", segmenter=half, progress=False, vector=tmp_path / "m.gpkg")
    with rasterio.open(tmp_path / "m.tif") as target:
        assert target.transform == ROTATED


def test_a_single_pixel_works(tmp_path, geotiff):
    path = geotiff("one.tif", np.full((3, 1, 1), 700, "uint16"))
    radar = geotiff("radar.tif", np.full((2, 1, 1), -9, "float32"))
    assert segment_scene(path, "a; b", tmp_path / "m.tif", segmenter=half, progress=False).pixels == {"a": 1, "b": 0}
    with open_pair(path, radar, despeckle="refined_lee") as pair:
        assert pair.read().sar.shape == (1, 1, 3)


def test_some_nan_is_nodata_and_no_error(tmp_path, geotiff, image):
    values = image.transpose(2, 0, 1).astype("float32")
    values[1, :9] = np.nan
    report = segment_scene(
        geotiff("nan.tif", values), "a; b", tmp_path / "m.tif", segmenter=half, progress=False, tile=16, overlap=4
    )
    assert report.nodata_pixels == 9 * 31
