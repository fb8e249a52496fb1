"""The whole trip: a raster in, a georeferenced class map out; and what is written, and how."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace

import geopandas
import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from rsovlib import plots
from rsovlib.data import scene_memory
from rsovlib.data.geotiff import open_raster
from rsovlib.data.raster import (
    NODATA,
    open_bands,
    open_scene,
    read_class_map,
    read_raster,
    segment_scene,
    write_class_map,
    write_overlay_png,
    write_raster,
)
from rsovlib.errors import InputError, OutputError, RasterError, ResourceError, RsovError
from rsovlib.metrics import SegmentationMetrics

CLASSES = "water, river; forest, trees; bare soil"
COLOURS = np.array([[40, 80, 160], [60, 130, 50], [190, 170, 140]], dtype=float)
UTM = rasterio.CRS.from_epsg(32632)
TRANSFORM = rasterio.Affine(10, 0, 500_000, 0, -10, 5_600_000)


def by_colour(image, classes):
    """A pointwise model: the probability of a class falls with the distance to its colour."""
    assert image.dtype == np.uint8
    distance = ((image[None].astype(float) - COLOURS[:, None, None]) ** 2).sum(-1) / 2000
    values = np.exp(-distance + distance.min(axis=0))
    return SimpleNamespace(probabilities=(values / values.sum(axis=0)).astype(np.float32))


def make_raster(path, values, *, crs=UTM, transform=TRANSFORM, descriptions=(), mask=None, **profile):
    """Write (bands, H, W) as a GeoTIFF."""
    count, height, width = values.shape
    shape = {"count": count, "height": height, "width": width, "dtype": values.dtype}
    with open_raster(path, "w", driver="GTiff", crs=crs, transform=transform, **shape, **profile) as target:
        target.write(values)
        for band, text in enumerate(descriptions, start=1):
            target.set_band_description(band, text)
        if mask is not None:
            target.write_mask(mask)
    return path


@pytest.fixture
def scene(tmp_path, image):
    """The test image as a GeoTIFF, 37 x 31 pixels, repeated to 111 x 93."""
    return make_raster(tmp_path / "scene.tif", np.tile(image.transpose(2, 0, 1), (1, 3, 3)))


def segment(path, out, **options):
    return segment_scene(path, CLASSES, out, **{"segmenter": by_colour, "progress": False, **options})


def read(path):
    with rasterio.open(path) as source:
        return source.read()


# --- Reading -----------------------------------------------------------------------------------------------------


def test_eight_bit_images_stay_as_they_are(scene, image):
    with open_scene(scene) as opened:
        assert opened.bands == (1, 2, 3)
        np.testing.assert_array_equal(opened.read_rgb(), np.tile(image, (3, 3, 1)))
        np.testing.assert_array_equal(opened.read_rgb(Window(31, 37, 31, 37)), image)
        assert opened.valid().all()
        assert opened.valid(Window(5, 6, 7, 8)).shape == (8, 7)
        assert (opened.crs, opened.transform, opened.pixel_size) == (UTM, TRANSFORM, (10, 10))
        assert opened.profile["stretch"] == "uint8 values as they are"


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "float32", "float64"])
def test_other_types_are_stretched_by_percentiles_of_the_whole_scene(tmp_path, dtype):
    rng = np.random.default_rng(0)
    values = np.stack([rng.normal(mean, 200, (60, 50)) for mean in (1000, 3000, 8000)]).astype(dtype)
    values[:, :20] = -5 if dtype != "uint16" else 60_000  # nodata: must not count
    path = make_raster(tmp_path / "a.tif", values, nodata=float(values[0, 0, 0]))
    with open_scene(path) as opened:
        rgb, valid = opened.read_rgb(), opened.valid()
        part = opened.read_rgb(Window(10, 30, 13, 17))
    np.testing.assert_array_equal(valid, np.arange(60)[:, None] >= np.full(50, 20))
    low, high = np.percentile(values[:, 20:].reshape(3, -1).astype(float), (2, 98), axis=1)
    expected = np.rint(np.clip((values.transpose(1, 2, 0) - low) / (high - low), 0, 1) * 255)
    np.testing.assert_allclose(rgb[20:].astype(int), expected[20:], atol=1)
    assert (rgb[:20] == 0).all()
    np.testing.assert_array_equal(part, rgb[30:47, 10:23])  # the same brightness in any window


def test_percentiles_come_from_all_over_a_scene_larger_than_the_sample(tmp_path, monkeypatch):
    from rsovlib.data import source

    monkeypatch.setattr(source, "SAMPLE_SIDE", 40)
    values = np.broadcast_to(np.linspace(0, 10_000, 200), (3, 160, 200)).astype("uint16")
    with open_scene(make_raster(tmp_path / "a.tif", values)) as opened:
        assert opened.preview_shape(40) == (32, 40)
        np.testing.assert_allclose(opened.stretch.low, 200, atol=150)
        np.testing.assert_allclose(opened.stretch.high, 9800, atol=150)


def test_stretch_rules(tmp_path, image):
    dark = make_raster(tmp_path / "dark.tif", (image // 4).transpose(2, 0, 1))
    with open_scene(dark, stretch="percentile") as opened:
        assert opened.read_rgb().max() == 255
    deep = make_raster(tmp_path / "deep.tif", image.transpose(2, 0, 1).astype("float32"))
    with open_scene(deep, stretch="none") as opened:
        np.testing.assert_array_equal(opened.read_rgb(), image)
    flat = make_raster(tmp_path / "flat.tif", np.full((3, 9, 8), 700, "uint16"))
    with open_scene(flat) as opened:
        assert (opened.read_rgb() == 0).all()
    spike = np.full((3, 40, 40), 700, "uint16")
    spike[:, 0, 0] = 900  # under 2 %: both percentiles are 700
    with open_scene(make_raster(tmp_path / "spike.tif", spike)) as opened:
        assert opened.stretch.high == (900, 900, 900)
    for bad in ({"stretch": "auto2"}, {"percentiles": (98, 2)}):
        with pytest.raises(InputError), open_scene(deep, **bad) as opened:
            opened.read_rgb()


def test_nan_and_infinity_are_no_data(tmp_path, image):
    values = image.transpose(2, 0, 1).astype("float32")
    values[1, 2, 3], values[0, 4, 5] = np.nan, np.inf
    with open_scene(make_raster(tmp_path / "a.tif", values)) as opened:
        assert np.argwhere(~opened.valid()).tolist() == [[2, 3], [4, 5]]
        assert np.isfinite(opened.stretch.high).all()


def test_zero_as_nodata_needs_all_bands_but_another_value_only_one(tmp_path, image):
    values = np.maximum(image.transpose(2, 0, 1), 1)
    values[:, 0, 0], values[2, 5, 5] = 0, 0  # no data; dark in one band
    with open_scene(make_raster(tmp_path / "a.tif", values, nodata=0)) as opened:
        assert np.argwhere(~opened.valid()).tolist() == [[0, 0]]
    values = values.astype("int16")
    values[1, 7, 7] = -9999
    with open_scene(make_raster(tmp_path / "b.tif", values, nodata=-9999)) as opened:
        assert np.argwhere(~opened.valid()).tolist() == [[7, 7]]


def test_mask_band_and_alpha(tmp_path, image):
    values = image.transpose(2, 0, 1)
    holes = np.ones((37, 31), bool)
    holes[3:6, 4:9] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        masked = make_raster(tmp_path / "mask.tif", values, mask=holes)
    with_alpha = make_raster(tmp_path / "alpha.tif", np.concatenate([values, 255 * holes[None].astype("uint8")]))
    for path in (masked, with_alpha):
        with open_scene(path) as opened:
            assert opened.bands == (1, 2, 3)
            np.testing.assert_array_equal(opened.valid(), holes)
            assert (opened.read_rgb()[~holes] == 0).all()
            np.testing.assert_array_equal(opened.read_rgb()[holes], image[holes])


def test_islands_of_data_are_found(tmp_path, monkeypatch, image):
    from rsovlib.data import source

    monkeypatch.setattr(source, "SAMPLE_SIDE", 10)
    values = np.zeros((3, 200, 150), "uint16")
    values[:, 101:104, 77:80] = 500
    with open_scene(make_raster(tmp_path / "a.tif", values, nodata=0)) as opened:
        opened.require_data()
        assert opened.stretch.low == (500, 500, 500)


def test_which_bands(tmp_path, image):
    values = np.repeat(np.arange(1, 6, dtype="uint8")[:, None, None], 4, axis=1).repeat(6, axis=2)
    plain = make_raster(tmp_path / "plain.tif", values, photometric="minisblack")
    named = make_raster(tmp_path / "s2.tif", values, descriptions=["B01", "B02", "B03", "B04 (red)", "B8A"])
    words = make_raster(tmp_path / "words.tif", values, descriptions=["nir", "Red", "green", "Blue", "x"])
    turned = make_raster(tmp_path / "bgr.tif", values[:4], photometric="minisblack")
    with rasterio.open(turned, "r+") as target:
        target.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined]

    def chosen(path, bands=None):
        with open_scene(path, bands) as opened:
            assert opened.read_rgb()[0, 0].tolist() == list(opened.bands)
            return opened.bands

    assert chosen(plain) == (1, 2, 3)
    assert chosen(named) == (4, 3, 2)
    assert chosen(words) == (2, 3, 4)
    assert chosen(turned) == (3, 2, 1)
    assert chosen(plain, [5, 1, 1]) == chosen(plain, "5, 1,1") == (5, 1, 1)
    assert chosen(named, "b8a,B03,2") == (5, 3, 2)
    for bands, message in (([1, 2], "2 bands were chosen"), ("1,2,6", "no band '6'; it has bands 1 to 5")):
        with pytest.raises(InputError, match=message):
            open_scene(plain, bands)


def test_one_pixel_and_no_georeference(tmp_path):
    path = make_raster(tmp_path / "a.tif", np.full((3, 1, 1), 80, "uint8"), crs=None, transform=None)
    report = segment(path, tmp_path / "m.tif", png=tmp_path / "m.png", vector=tmp_path / "m.gpkg")
    assert report.hectares is None
    with open_raster(report.out) as target:
        assert target.crs is None
        assert target.transform.is_identity
        assert target.shape == (1, 1)


# --- Writing -----------------------------------------------------------------------------------------------------


def test_the_whole_trip(tmp_path, scene, image):
    report = segment(scene, tmp_path / "m.tif", tile=40, overlap=12)
    expected = np.tile(by_colour(image, None).probabilities.argmax(axis=0), (3, 3))
    with rasterio.open(report.out) as target:
        assert (target.driver, target.dtypes, target.count, target.nodata) == ("GTiff", ("uint8",), 1, NODATA)
        assert (target.crs, target.transform) == (UTM, TRANSFORM)
        np.testing.assert_array_equal(target.read(1), expected)
        assert target.profile["tiled"]
        assert target.compression.value == "DEFLATE"
        palette = target.colormap(1)
        tags, band_tags = target.tags(), target.tags(1)
    for k, colour in enumerate(plots.class_colours(CLASSES.split("; "))):
        assert palette[k] == (*colour.tolist(), 255)
    assert palette[NODATA][3] == 0
    assert json.loads(tags["RSOVLIB_CLASSES"]) == report.classes == ["water", "forest", "bare soil"]
    assert json.loads(tags["RSOVLIB_PROMPTS"])[0] == "water, river"
    settings = json.loads(tags["RSOVLIB_SETTINGS"])
    assert settings == json.loads(json.dumps(report.settings))
    assert settings["tile"] == 40
    assert settings["bands"] == [1, 2, 3]
    assert settings["source"] == "scene.tif"
    assert band_tags["CLASS_2"] == "bare soil"
    counts = np.bincount(expected.ravel(), minlength=3)
    assert list(report.pixels.values()) == counts.tolist()
    # Near the central meridian of UTM, 10 m on the map are 10 / 0.9996 m on the ground.
    np.testing.assert_allclose(list(report.hectares.values()), counts * 100 / 0.9996**2 / 1e4, rtol=1e-4)
    assert report.table()["share_percent"].sum() == pytest.approx(100)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.tif", "m.tif.aux.xml", "scene.tif"]


def test_gdal_finds_the_class_names(tmp_path, scene):
    import xml.etree.ElementTree as ET

    root = ET.parse(f"{segment(scene, tmp_path / 'm.tif').out}.aux.xml").getroot()
    assert [item.text for item in root.iter("Category")] == ["water", "forest", "bare soil"]
    rows = [[cell.text for cell in row] for row in root.iter("Row")]
    assert [row[:2] for row in rows] == [["0", "water"], ["1", "forest"], ["2", "bare soil"]]


@pytest.mark.parametrize(("tile", "overlap"), [(20, 0), (33, 7), (33, 30), (64, 16), (500, 100)])
def test_a_pointwise_model_gives_the_same_map_with_any_tiles(tmp_path, scene, tile, overlap):
    files = {"out": tmp_path / "m.tif", "probabilities": tmp_path / "p.tif"}
    report = segment(scene, tile=tile, overlap=overlap, **files)
    with open_scene(scene) as opened:
        expected = by_colour(opened.read_rgb(), None).probabilities
    np.testing.assert_array_equal(read(files["out"])[0], expected.argmax(axis=0))
    with rasterio.open(files["probabilities"]) as target:
        assert target.descriptions == ("water", "forest", "bare soil")
        np.testing.assert_allclose(target.read(), expected, atol=2 / 65535)  # kept in 16 bits, twice
        assert (target.crs, target.transform) == (UTM, TRANSFORM)
    assert report.files == {"probabilities": files["probabilities"]}


def test_blending_leaves_no_seam(tmp_path, scene):
    """A model that answers differently in every tile: the blend may step from pixel to pixel by its ramp, no more."""
    calls = iter(range(1000))

    def alternating(image, classes):
        values = np.zeros((3, *image.shape[:2]), np.float32)
        values[0] = share = next(calls) % 2
        values[1] = 1 - share
        return SimpleNamespace(probabilities=values)

    segment(scene, tmp_path / "m.tif", probabilities=tmp_path / "p.tif", segmenter=alternating, tile=40, overlap=20)
    blended = read(tmp_path / "p.tif")
    np.testing.assert_allclose(blended.sum(axis=0), 1, atol=3 / 65535)  # three classes, each kept in 16 bits
    steepest = np.pi / 2 / 20  # of a sin^2 ramp over 20 pixels
    assert np.abs(np.diff(blended, axis=1)).max() < steepest * 1.01
    assert np.abs(np.diff(blended, axis=2)).max() < steepest * 1.01
    assert blended[0].max() == 1
    assert blended[0].min() == 0


def test_nodata_stays_nodata_in_every_output(tmp_path, image):
    values = np.maximum(np.tile(image.transpose(2, 0, 1), (1, 3, 3)), 1)
    y, x = np.mgrid[0:111, 0:93]
    border = y + x < 70
    values[:, border] = 0
    path = make_raster(tmp_path / "scene.tif", values, nodata=0)
    report = segment(
        path,
        tmp_path / "m.tif",
        tile=24,
        overlap=8,
        probabilities=tmp_path / "p.tif",
        vector=tmp_path / "m.gpkg",
        png=tmp_path / "m.png",
    )
    labels = read(report.out)[0]
    np.testing.assert_array_equal(labels == NODATA, border)
    np.testing.assert_array_equal(np.isnan(read(tmp_path / "p.tif")), np.broadcast_to(border, (3, 111, 93)))
    assert report.nodata_pixels == border.sum()
    assert sum(report.pixels.values()) == (~border).sum()
    assert report.empty_tiles > 0
    table = geopandas.read_file(tmp_path / "m.gpkg")
    assert table.pixels.sum() == (~border).sum()
    assert table.area_m2.sum() / 1e4 == pytest.approx(sum(report.hectares.values()))
    assert table.mean_confidence.between(1 / 3, 1).all()
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")


def test_a_tile_without_data_is_not_segmented(tmp_path, image):
    values = np.zeros((3, 60, 20), "uint8")
    values[:, 40:] = 90
    path = make_raster(tmp_path / "scene.tif", values, nodata=0)
    seen = []

    def watched(tile, classes):
        seen.append(tile.shape)
        return by_colour(tile, classes)

    report = segment(path, tmp_path / "m.tif", tile=20, overlap=0, segmenter=watched)
    assert (seen, report.tiles, report.empty_tiles) == ([(20, 20, 3)], 1, 2)


def test_rotated_scenes_keep_their_transform(tmp_path, image):
    rotated = rasterio.Affine(8, 3, 500_000, 3, -8, 5_600_000)
    path = make_raster(tmp_path / "scene.tif", image.transpose(2, 0, 1), transform=rotated)
    with rasterio.open(segment(path, tmp_path / "m.tif").out) as target:
        assert target.transform == rotated
    with open_scene(path) as opened:
        assert opened.pixel_size == pytest.approx((np.hypot(8, 3), np.hypot(3, 8)))


def test_overviews_hold_the_most_frequent_class(tmp_path):
    labels = np.zeros((600, 300), int)
    labels[::2, ::2] = 1  # a quarter of the pixels, and all that taking every second pixel would see
    write_class_map(tmp_path / "m.tif", labels, ["water", "forest"], transform=TRANSFORM)
    with rasterio.open(tmp_path / "m.tif") as target:
        assert target.overviews(1) == [2, 4]
        assert (target.read(1, out_shape=(300, 150)) == 0).all()


def test_the_map_does_not_depend_on_which_classes_occur(tmp_path):
    classes = [f"class {k}" for k in range(254)]
    for name, labels in (("first", np.zeros((4, 5), int)), ("last", np.full((4, 5), 253))):
        write_class_map(tmp_path / f"{name}.tif", labels, classes, np.zeros((254, 3), int), TRANSFORM)
        with rasterio.open(tmp_path / f"{name}.tif") as target:
            assert target.dtypes == ("uint8",)
            np.testing.assert_array_equal(target.read(1), labels)


def test_class_map_from_memory(tmp_path, labels):
    valid = labels != 2
    colours = [[1, 2, 3], [40, 50, 60], [70, 80, 90]]
    path = write_class_map(
        tmp_path / "new" / "m.tif", labels, CLASSES.split(";"), colours, TRANSFORM, UTM, valid, {"beta": 0.1}
    )
    with rasterio.open(path) as target:
        np.testing.assert_array_equal(target.read(1), np.where(valid, labels, NODATA))
        assert target.colormap(1)[1] == (40, 50, 60, 255)
        assert (target.crs, target.transform) == (UTM, TRANSFORM)
        assert json.loads(target.tags()["RSOVLIB_SETTINGS"]) == {"beta": 0.1}
    with pytest.raises(InputError, match="label 2 is not one of the 2 classes"):
        write_class_map(tmp_path / "m.tif", labels, ["a", "b"])
    with pytest.raises(InputError, match="colours of 3 classes"):
        write_class_map(tmp_path / "m.tif", labels, CLASSES.split(";"), colours[:2])
    assert not (tmp_path / "m.tif").exists()


def assert_is_cog(path):
    """Tiled, with overviews, and laid out so that a reader on the web finds them first."""
    with open_raster(path) as target:
        assert target.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert target.block_shapes[0] == (256, 256)
        levels = len(target.overviews(1))
        assert levels == 0 or min(target.shape) / 2**levels <= 256

        def tag(name, level=None):
            return int(target.get_tag_item(name, "TIFF", bidx=1, **({} if level is None else {"ovr": level})))

        # All directories stand before all data, and coarse data before fine.
        directories = [tag("IFD_OFFSET"), *(tag("IFD_OFFSET", level) for level in range(levels))]
        data = [tag("BLOCK_OFFSET_0_0", level) for level in reversed(range(levels))] + [tag("BLOCK_OFFSET_0_0")]
        assert sorted(directories) == directories
        assert sorted(data) == data
        assert max(directories) < min(data)
    return levels


def test_cloud_optimised_maps(tmp_path, labels):
    large = np.tile(labels, (20, 22))  # 740 x 682
    options = {"transform": TRANSFORM, "crs": UTM, "valid": large < 2, "tags": {"beta": 0.1}}
    plain, cog = (
        write_class_map(tmp_path / f"{name}.tif", large, CLASSES.split(";"), **options, cog=name == "cog")
        for name in ("plain", "cog")
    )
    assert assert_is_cog(cog) >= 1
    with open_raster(plain) as one, open_raster(cog) as other:
        np.testing.assert_array_equal(one.read(), other.read())
        np.testing.assert_array_equal(
            one.read(out_shape=(1, 370, 341)), other.read(out_shape=(1, 370, 341))
        )  # the same overviews: the most frequent class
        for fact in ("colormap", "tags"):
            assert getattr(one, fact)(1) == getattr(other, fact)(1)
        for fact in ("crs", "transform", "nodata", "descriptions", "dtypes"):
            assert getattr(one, fact) == getattr(other, fact)
        names = [name for name in one.tags() if name.startswith(("RSOVLIB", "TIFFTAG"))]
        assert len(names) == 6
        assert all(one.tags()[name] == other.tags()[name] for name in names)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "cog.tif",
        "cog.tif.aux.xml",
        "plain.tif",
        "plain.tif.aux.xml",
    ]


def test_a_whole_trip_to_cloud_optimised_files(tmp_path, scene):
    out, probabilities = tmp_path / "m.tif", tmp_path / "p.tif"
    plain = segment(scene, tmp_path / "plain.tif", tile=40, overlap=12, probabilities=tmp_path / "plain_p.tif")
    report = segment(scene, out, tile=40, overlap=12, probabilities=probabilities, cog=True)
    for one, other in ((plain.out, out), (plain.files["probabilities"], probabilities)):
        assert_is_cog(other)
        np.testing.assert_array_equal(read(one), read(other))
    assert report.pixels == plain.pixels
    with open_raster(probabilities) as target:
        assert target.descriptions == ("water", "forest", "bare soil")
        assert json.loads(target.tags()["RSOVLIB_SETTINGS"]) == report.settings
    before = sorted(tmp_path.iterdir())

    def failing(image, classes):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment(scene, out, cog=True, segmenter=failing)
    assert sorted(tmp_path.iterdir()) == before


def test_control_points_go_from_the_scene_to_the_map(tmp_path, image):
    """A raw product has these in place of a transform; a map without them could not be placed any more."""
    points = [GroundControlPoint(r, c, 9 + c / 1e4 + r / 1e5, 50 - r / 1e4, 12.5) for r in (0, 37) for c in (0, 31)]
    wgs84 = rasterio.CRS.from_epsg(4326)
    path = make_raster(tmp_path / "scene.tif", image.transpose(2, 0, 1), crs=wgs84, transform=None, gcps=points)
    for cog in (False, True):
        report = segment(path, tmp_path / "m.tif", probabilities=tmp_path / "p.tif", cog=cog)
        assert report.hectares is None
        for file in (report.out, tmp_path / "p.tif"):
            with open_raster(file) as target:
                found, crs = target.gcps
                assert (target.crs, crs) == (None, wgs84)
                assert [(p.row, p.col, p.x, p.y, p.z) for p in found] == [(p.row, p.col, p.x, p.y, p.z) for p in points]
    with pytest.raises(RasterError, match=r"scene\.tif is placed by 4 ground control points, and polygons need"):
        segment(path, tmp_path / "m2.tif", vector=tmp_path / "m.gpkg")
    assert not (tmp_path / "m2.tif").exists()


def test_sensor_models_go_from_the_scene_to_the_map(tmp_path, image):
    one = [1.0] + [0.0] * 19
    rpcs = rasterio.rpc.RPC(0, 1, 50, 1, one, one, 18, 18, 9, 1, one, one, 15, 15)
    path = make_raster(tmp_path / "scene.tif", image.transpose(2, 0, 1), crs=None, transform=None, rpcs=rpcs)
    with open_raster(segment(path, tmp_path / "m.tif").out) as target:
        assert (target.rpcs.lat_off, target.rpcs.long_off, target.rpcs.line_num_coeff) == (50, 9, one)


def test_any_values_are_written_with_their_place_names_and_provenance(tmp_path):
    values = np.random.default_rng(0).normal(-10, 3, (2, 300, 290)).astype("float32")
    valid = values[0] > -15
    source = make_raster(tmp_path / "radar.tif", values)
    with open_bands(source) as opened:
        grid = opened.grid
    for cog in (False, True):
        path = write_raster(
            tmp_path / "out.tif", values, grid, names=("VV", "VH"), valid=valid, tags={"filter": "lee"}, cog=cog
        )
        found = read_raster(path)
        np.testing.assert_array_equal(found.values[:, valid], values[:, valid])
        np.testing.assert_array_equal(found.valid, valid)
        assert found.names == ("VV", "VH")
        with open_raster(path) as target:
            assert (target.crs, target.transform, target.profile["tiled"]) == (UTM, TRANSFORM, True)
            assert len(target.overviews(1)) == 1
            assert json.loads(target.tags()["RSOVLIB_SETTINGS"]) == {"filter": "lee"}
            assert target.tags()["RSOVLIB_VERSION"]
    assert_is_cog(path)
    whole = np.arange(24, dtype="uint16").reshape(1, 4, 6)
    write_raster(tmp_path / "whole.tif", whole, valid=whole[0] != 7, nodata=999)
    assert read_raster(tmp_path / "whole.tif").masked().sum() == whole.sum() - 7
    for message, options in {
        r"Values to write are \(C, H, W\)": {"values": whole[0]},
        "4 x 6 pixels and the grid 300 x 290": {"grid": grid},
        "1 bands and 2 names": {"names": ("a", "b")},
        "need a nodata value": {"valid": whole[0] > 3},
        r"mask of valid ones \(6, 4\)": {"valid": (whole[0] > 3).T, "nodata": 0},
        "have the value 9, which is to mean nodata": {"valid": whole[0] > 3, "nodata": 9},
    }.items():
        with pytest.raises(InputError, match=message):
            write_raster(tmp_path / "bad.tif", **{"values": whole, **options})
    assert not (tmp_path / "bad.tif").exists()


def test_nodata_is_never_counted_in_a_metric(tmp_path, image, labels):
    """From a scene with a hole to its scores: as if the hole had been cut out of the ground truth."""
    hole = np.zeros(labels.shape, bool)
    hole[5:25, 3:20] = True
    values = np.where(hole, 0, np.maximum(image.transpose(2, 0, 1), 1))
    path = make_raster(tmp_path / "scene.tif", values.astype("uint8"), nodata=0)
    segment(path, tmp_path / "m.tif", tile=20, overlap=6)
    found = read_class_map(tmp_path / "m.tif")
    np.testing.assert_array_equal(found.valid, ~hole)
    assert (found.labels[hole] == NODATA).all()
    assert found.classes == ["water", "forest", "bare soil"]
    assert found.settings["tile"] == 20
    assert (found.grid.crs, found.grid.transform) == (UTM, TRANSFORM)
    scores = SegmentationMetrics(found.classes, ignore_index=255)
    scores.update(found.labels, found.truth(labels))
    assert int(scores.confusion.sum()) == (~hole).sum()
    by_hand = (found.labels == labels)[~hole].mean()
    assert scores.compute()["pixel_accuracy"] == pytest.approx(by_hand)
    careless = SegmentationMetrics(found.classes, ignore_index=255)
    careless.update(found.labels, labels)  # what the truth is cut for: the hole counts as missed
    assert careless.compute()["pixel_accuracy"] < by_hand - 0.1
    with pytest.raises(InputError, match="ground truth has"):
        found.truth(labels.T)
    with pytest.raises(RasterError, match=r"scene\.tif is not a class map of rsovlib"):
        read_class_map(path)


def test_a_class_map_lies_where_its_image_does(tmp_path, labels, image):
    points = [GroundControlPoint(r, c, 9 + c / 1e4, 50 - r / 1e4) for r in (0, 37) for c in (0, 31)]
    wgs84 = rasterio.CRS.from_epsg(4326)
    path = make_raster(tmp_path / "scene.tif", image.transpose(2, 0, 1), crs=wgs84, transform=None, gcps=points)
    with open_scene(path) as opened:
        write_class_map(tmp_path / "m.tif", labels, CLASSES.split(";"), grid=opened.grid)
        with pytest.raises(InputError, match="the grid is"):
            write_class_map(tmp_path / "m.tif", labels[:5], CLASSES.split(";"), grid=opened.grid)
    assert len(read_class_map(tmp_path / "m.tif").grid.gcps) == 4


def test_a_legend_of_the_replaced_map_does_not_stay(tmp_path, labels):
    (tmp_path / "m.tif.aux.xml").write_text("<PAMDataset><Metadata>old statistics</Metadata></PAMDataset>")
    write_class_map(tmp_path / "m.tif", labels, CLASSES.split(";"))
    assert "old statistics" not in (tmp_path / "m.tif.aux.xml").read_text()


def test_overlay_png(tmp_path, image, labels):
    path = write_overlay_png(tmp_path / "o.png", image, labels, CLASSES.split(";"), labels < 2)
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(OutputError, match=r"must end in \.png"):
        write_overlay_png(tmp_path / "o.jpg", image, labels, CLASSES.split(";"))


# --- What must not happen ----------------------------------------------------------------------------------------


def test_memory_is_one_band_of_tiles_and_not_the_scene(tmp_path):
    height, width, classes = 3000, 480, 8
    path = make_raster(tmp_path / "tall.tif", np.full((3, height, width), 90, "uint8"))

    def constant(image, names):
        return SimpleNamespace(probabilities=np.full((classes, *image.shape[:2]), 1 / classes, np.float32))

    # Whatever is imported and cached on first use is not what is measured.
    make_raster(tmp_path / "small.tif", np.full((3, 80, 60), 90, "uint8"))
    names = [f"class {k}" for k in range(classes)]
    options = {"segmenter": constant, "tile": 64, "overlap": 16, "progress": False}
    segment_scene(tmp_path / "small.tif", names, tmp_path / "m.tif", **options)
    tracemalloc.start()
    segment_scene(path, names, tmp_path / "m.tif", **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    whole_scene = classes * height * width * 4
    assert peak < whole_scene / 4


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ValueError])
def test_an_error_in_mid_write_leaves_older_files_as_they_were(tmp_path, scene, error):
    names = {"out": "m.tif", "png": "m.png", "vector": "m.gpkg", "probabilities": "p.tif"}
    files = {kind: tmp_path / name for kind, name in names.items()}
    for path in [*files.values(), tmp_path / "m.tif.aux.xml"]:
        path.write_text("old")
    before = sorted(tmp_path.iterdir())
    calls = iter(range(100))

    def failing(image, classes):
        if next(calls) == 7:
            raise error
        return by_colour(image, classes)

    expected = ResourceError if error is MemoryError else error
    with pytest.raises(expected):
        segment(scene, tile=30, overlap=10, segmenter=failing, **files)
    assert sorted(tmp_path.iterdir()) == before
    assert {path.read_text() for path in [*files.values(), tmp_path / "m.tif.aux.xml"]} == {"old"}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_killed_process_leaves_the_older_file_as_it_was(tmp_path, scene):
    (tmp_path / "m.tif").write_text("old")
    program = """
        import sys, time
        import numpy as np
        from types import SimpleNamespace
        from rsovlib.data.raster import segment_scene
        calls = iter(range(100))
        def slow(image, classes):
            if next(calls) == 5:
                print("in the middle", flush=True)
                time.sleep(600)
            return SimpleNamespace(probabilities=np.full((2, *image.shape[:2]), 0.5, np.float32))
        segment_scene(sys.argv[1], "a; b", sys.argv[2], segmenter=slow, tile=30, overlap=10, progress=False)
    """
    source = "\n".join(line[8:] for line in program.splitlines())
    command = [sys.executable, "-c", source, str(scene), str(tmp_path / "m.tif")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "in the middle\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "m.tif").read_text() == "old"


def test_a_full_disk_is_noticed(tmp_path, scene, monkeypatch):
    """GDAL may lose the last blocks of a file without an error: what was written is read back."""
    from rsovlib.data import geotiff

    real = geotiff._checksums
    monkeypatch.setattr(geotiff, "_checksums", lambda path: [value ^ 1 for value in real(path)])
    with pytest.raises(OutputError, match="is the disk full"):
        segment(scene, tmp_path / "m.tif")
    assert [file.name for file in tmp_path.iterdir()] == ["scene.tif"]


def test_values_that_are_not_numbers_stop_the_run(tmp_path, scene):
    def broken(image, classes):
        result = by_colour(image, classes)
        result.probabilities[0, 0, 0] = np.nan
        return result

    with pytest.raises(RsovError, match="not numbers in the tile at row 0, column 0"):
        segment(scene, tmp_path / "m.tif", segmenter=broken)
    assert not (tmp_path / "m.tif").exists()


def test_results_of_another_shape_stop_the_run(tmp_path, scene):
    def two_classes(image, classes):
        return SimpleNamespace(probabilities=by_colour(image, classes).probabilities[:2])

    with pytest.raises(InputError, match="result has the shape"):
        segment(scene, tmp_path / "m.tif", segmenter=two_classes)


# --- What is asked before the work -------------------------------------------------------------------------------


def test_outputs_that_can_not_be_written(tmp_path, scene, monkeypatch):
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "locked.tif").write_text("old")
    (tmp_path / "locked.tif").chmod(0o444)
    (tmp_path / "link.tif").symlink_to(scene)
    (tmp_path / "shut").mkdir()
    before = sorted(tmp_path.rglob("*"))

    def refused(message, out, **more):
        def never(image, classes):
            raise AssertionError("the work began")

        with pytest.raises(OutputError, match=message):
            segment(scene, out, segmenter=never, **more)
        assert sorted(tmp_path.rglob("*")) == before

    refused("is a folder", tmp_path / "folder.tif")
    refused("write-protected", tmp_path / "locked.tif")
    refused("also the input", scene)
    refused("also the input", tmp_path / "link.tif")
    refused("also the input", tmp_path / "shut" / ".." / "scene.tif")
    refused("ends in '.png'", tmp_path / "m.png")
    refused("has no suffix", tmp_path / "m")
    refused("is a file and not a folder", scene / "m.tif")
    refused("also the input or another output", tmp_path / "m.tif", probabilities=tmp_path / "m.tif")
    refused(r"must end in \.gpkg or", tmp_path / "m.tif", vector=tmp_path / "m.shp")
    # An administrator may write anywhere, and tests may run as one: ask as an ordinary user would be answered.
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: real(path, mode) and not str(path).endswith("shut"))
    refused("permission denied", tmp_path / "shut" / "m.tif")
    refused("permission denied", tmp_path / "shut" / "new" / "m.tif")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 32, "overlap": 32}, "must be smaller than the tile"),
        ({"tile": 0}, "at least 1"),
        ({"bands": "1,2"}, "2 bands were chosen"),
        ({"beta": 1}, "beta would have no effect"),
        ({"segmenter": None, "method": "sdcl"}, "no method 'sdcl'"),
        ({"segmenter": None, "profile": "ful"}, "no profile 'ful'"),
    ],
)
def test_contradictions_are_refused(tmp_path, scene, options, message):
    with pytest.raises(InputError, match=message):
        segment(scene, tmp_path / "m.tif", **options)
    assert [file.name for file in tmp_path.iterdir()] == ["scene.tif"]


class Hungry:
    """A segmenter that foresees a kilobyte for each pixel."""

    def __call__(self, image, classes):
        return by_colour(image, classes)

    def memory_needed(self, height, width, classes):
        return height * width * 1024

    def settings(self):
        return {"appetite": "large"}


def test_a_tile_that_does_not_fit_is_foreseen(tmp_path, scene, monkeypatch):
    monkeypatch.setattr(scene_memory, "available_memory", lambda: 6 * 2**20)
    with pytest.raises(
        ResourceError, match=r"A tile of 111 pixels with 3 classes .* and 6 MiB are free; tile=(\d+)"
    ) as e:
        segment(scene, tmp_path / "m.tif", segmenter=Hungry(), tile=200, overlap=20)
    assert [file.name for file in tmp_path.iterdir()] == ["scene.tif"]
    # The advice holds.
    advised = int(str(e.value).split("tile=")[1].split()[0])
    report = segment(scene, tmp_path / "m.tif", segmenter=Hungry(), tile=advised, overlap=20)
    assert report.settings["segmenter"] == {"appetite": "large"}
    monkeypatch.setattr(scene_memory, "available_memory", lambda: 1000)
    with pytest.raises(ResourceError, match="even with the smallest tiles"):
        segment(scene, tmp_path / "m.tif", segmenter=Hungry())


def test_a_tile_that_does_not_fit_on_the_gpu_is_foreseen(tmp_path, scene, monkeypatch):
    monkeypatch.setattr(scene_memory, "_free_on_gpu", lambda device: 3 * 2**20 if device == "gpu" else None)
    segmenter = Hungry()
    segmenter.device = "gpu"
    with pytest.raises(ResourceError, match=r"on the GPU and 3 MiB are free; tile=32 and overlap=8 would fit"):
        segment(scene, tmp_path / "m.tif", segmenter=segmenter, tile=64, overlap=32)
    segment(scene, tmp_path / "m.tif", segmenter=segmenter, tile=32, overlap=8)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 3 GiB"), ResourceError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), ResourceError),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), RuntimeError),
    ],
)
def test_memory_that_runs_out_after_all_is_told_apart(tmp_path, scene, error, expected):
    def failing(image, classes):
        raise error

    with pytest.raises(expected):
        segment(scene, tmp_path / "m.tif", segmenter=failing)


# --- Real imagery ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "bands", "nodata_share"),
    [
        ("oem-koeln/oem_koeln_50.tif", None, 0),
        ("landsat-nodata/RGB.byte.tif", None, 0.325),
        ("terramesh-samples/S2L2A/433D_629L_3_1.tif", "4,3,2", 0),
        ("terramesh-samples/S1RTC/433D_629L_3_1.tif", "1,2,1", 0),
        ("port-rgb-quadpol-sar/sar_masked.tif", None, 0.392),
        ("sen12mscr-cloudy-sample/ROIs1868_summer_s2_cloudy_19_p30.tif", "4,3,2", 0),
    ],
)
def test_real_scenes(shared, tmp_path, name, bands, nodata_share):
    path = shared / "data" / name
    if not path.is_file():
        pytest.skip(f"no {path}")
    report = segment(path, tmp_path / "m.tif", bands=bands)
    with rasterio.open(path) as source, rasterio.open(report.out) as target:
        assert (target.shape, target.crs, target.transform) == (source.shape, source.crs, source.transform)
        share = (target.read(1) == NODATA).mean()
        if source.nodata is not None:
            np.testing.assert_array_equal(target.read(1) == NODATA, source.dataset_mask() == 0)
    assert share == pytest.approx(nodata_share, abs=0.001)
