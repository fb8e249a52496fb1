"""Rasters of one place on one grid: what is warped, what is not, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.warp import Resampling, calculate_default_transform, reproject, transform
from rasterio.windows import Window

from rsovlib.data.geotiff import open_raster
from rsovlib.data.grid import Grid
from rsovlib.data.pair import open_stack
from rsovlib.data.raster import open_pair
from rsovlib.data.sar import refined_lee
from rsovlib.data.sarscene import open_sar
from rsovlib.errors import InputError, RasterError

UTM = rasterio.CRS.from_epsg(32632)
TRANSFORM = rasterio.Affine(10, 0, 500_000, 0, -10, 5_600_000)
SHAPE = (90, 80)
"""Of the reference scene, on TRANSFORM."""


def pixel_centres(to_map, shape, crs=UTM):
    """Columns and rows on TRANSFORM, in pixels, of the centres of the pixels of any grid."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    x = to_map.a * columns + to_map.b * rows + to_map.c
    y = to_map.d * columns + to_map.e * rows + to_map.f
    if crs != UTM:
        x, y = (np.reshape(axis, shape) for axis in transform(crs, UTM, x.ravel(), y.ravel()))
    return (x - TRANSFORM.c) / 10, (TRANSFORM.f - y) / 10


@pytest.fixture
def optical(geotiff):
    return geotiff("optical.tif", np.full((3, *SHAPE), 120, "uint8"))


@pytest.fixture
def radar(geotiff, ground):
    """A function that writes a radar scene of two polarisations in dB, as any grid would see the ground."""

    def write(name, to_map, shape, crs=UTM, **options):
        field = ground(*pixel_centres(to_map, shape, crs))
        values = np.stack([-5 - 10 * field, -12 - 8 * field]).astype("float32")
        return geotiff(name, values, transform=to_map, crs=crs, descriptions=["VV", "VH"], **options)

    return write


def expected(ground):
    field = ground(*pixel_centres(TRANSFORM, SHAPE))
    return np.stack([-5 - 10 * field, -12 - 8 * field])


# --- On one grid -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 1e-9, 0.3])
def test_rounding_of_a_transform_is_no_reason_to_resample(radar, optical, offset):
    """Elevation and radar files that were cut for an image differ from it by 1e-9 m, or by rounded corners."""
    almost = rasterio.Affine(10 + offset / 90, 0, 500_000 + offset / 3, 0, -10, 5_600_000 - offset / 3)
    path = radar("radar.tif", almost, SHAPE)
    with open_pair(optical, path) as pair, open_raster(path) as source:
        assert pair.relation.startswith("same grid")
        np.testing.assert_array_equal(pair.sar.read_db(), source.read())
        assert pair.grid == Grid.of(source) or offset
        assert pair.sar.grid.displacement(pair.grid) <= 0.05


def test_half_a_pixel_is_a_reason_to_resample(radar, optical, ground):
    path = radar("radar.tif", rasterio.Affine(10, 0, 500_005, 0, -10, 5_600_000), SHAPE)
    with open_pair(optical, path) as pair:
        assert pair.relation == "warped from another grid by bilinear resampling"
        np.testing.assert_allclose(pair.sar.read_db()[:, :, 1:], expected(ground)[:, :, 1:], atol=0.05)
    with open_pair(optical, path, tolerance=0.6) as pair:
        assert pair.relation == "same grid, corners 0.5 pixels apart"


def test_values_that_are_moved_by_whole_pixels_stay_as_they_are(geotiff, optical):
    values = np.random.default_rng(0).normal(-10, 3, (2, 60, 50)).astype("float32")
    path = geotiff("radar.tif", values, transform=rasterio.Affine(10, 0, 500_070, 0, -10, 5_600_000 - 50))
    with open_pair(optical, path) as pair:
        found = pair.sar.read_db()
    np.testing.assert_allclose(found[:, 5:65, 7:57], values, atol=1e-4)
    assert np.isnan(found).sum() == 2 * (90 * 80 - 60 * 50)


# --- On other grids ----------------------------------------------------------------------------------------------

WGS84 = rasterio.CRS.from_epsg(4326)
MERCATOR = rasterio.CRS.from_epsg(3395)


def around(crs, pixel):
    """A grid of another CRS that covers the reference scene with some room."""
    left, bottom, right, top = 499_900, 5_600_000 - 1000, 500_900, 5_600_100
    x, y = transform(UTM, crs, [left, right, left, right], [bottom, bottom, top, top])
    to_map = rasterio.Affine(pixel, 0, min(x), 0, -pixel, max(y))
    return to_map, (int((max(y) - min(y)) / pixel) + 1, int((max(x) - min(x)) / pixel) + 1), crs


@pytest.mark.parametrize(
    ("to_map", "shape", "crs"),
    [
        (rasterio.Affine(7, 0, 499_930, 0, -7, 5_600_030), (150, 140), UTM),
        (rasterio.Affine(20, 0, 499_900, 0, -20, 5_600_100), (60, 55), UTM),
        (rasterio.Affine(8, 3, 499_600, 3, -8, 5_600_000), (170, 160), UTM),  # rotated
        around(WGS84, 1e-4),
        around(MERCATOR, 13),
    ],
    ids=["finer", "coarser", "rotated", "degrees", "Mercator"],
)
def test_the_ground_is_found_from_any_grid(radar, optical, ground, to_map, shape, crs):
    path = radar("radar.tif", to_map, shape, crs)
    with open_pair(optical, path, resampling="cubic") as pair:
        found = pair.sar.read_db()
        available = pair.available()["sar"]
    assert available[5:-5, 5:-5].all()
    error = np.abs(found - expected(ground))[:, available]
    assert error.max() < 0.25  # of 10 dB; shifted by one pixel, it would be 0.5
    assert error.mean() < 0.04


def test_a_rotated_scene_can_be_the_reference(geotiff, radar, ground):
    rotated = rasterio.Affine(8, 3, 500_100, 3, -8, 5_599_600)
    optical = geotiff("optical.tif", np.full((3, 40, 35), 90, "uint8"), transform=rotated)
    with open_pair(optical, radar("radar.tif", TRANSFORM, SHAPE), resampling="cubic") as pair:
        found = pair.sar.read_db()
        assert pair.grid.transform == rotated
    field = ground(*pixel_centres(rotated, (40, 35)))
    np.testing.assert_allclose(found[0], -5 - 10 * field, atol=0.1)


def test_coarser_pixels_are_means(geotiff):
    """From 1 m to 10 m, each pixel is the mean of a hundred, not one of them."""
    optical = geotiff("optical.tif", np.full((3, 8, 6), 120, "uint8"))
    fine = np.random.default_rng(0).normal(-10, 3, (1, 80, 60)).astype("float32")
    path = geotiff("radar.tif", fine, transform=rasterio.Affine(1, 0, 500_000, 0, -1, 5_600_000))
    with open_pair(optical, path, resampling="average") as pair:
        found = pair.sar.read_db()[0]
    np.testing.assert_allclose(found, fine[0].reshape(8, 10, 6, 10).mean(axis=(1, 3)), atol=1e-4)


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average"])
def test_any_window_gives_the_same_values(radar, optical, resampling):
    path = radar("radar.tif", *around(WGS84, 1.3e-4))
    with open_pair(optical, path, resampling=resampling) as pair:
        whole = pair.sar.read_db()
        picture, valid = pair.sar.read()
        for window in (Window(0, 0, 80, 90), Window(13, 50, 21, 17), Window(79, 89, 1, 1)):
            rows, columns = window.toslices()
            np.testing.assert_array_equal(pair.sar.read_db(window), whole[:, rows, columns])
            part = pair.read(window)
            np.testing.assert_array_equal(part.sar, picture[rows, columns])
            np.testing.assert_array_equal(part.sar_valid, valid[rows, columns])
            assert part.optical.shape == (*part.sar_valid.shape, 3)


def test_any_window_gives_the_same_values_of_strongly_curved_grids(geotiff):
    """GDAL interpolates coordinates along the rows of whatever it warps, by default with errors of 0.125 pixels."""
    place = {"transform": rasterio.Affine(900, 0, 100_000, 0, -900, 7_500_000)}
    optical = geotiff("optical.tif", np.full((3, 400, 700), 120, "uint8"), **place)
    values = np.random.default_rng(0).normal(-10, 3, (1, 300, 400)).astype("float32")
    path = geotiff("radar.tif", values, transform=rasterio.Affine(0.1, 0, -5, 0, -0.1, 75), crs=WGS84)
    with open_pair(optical, path) as pair:
        whole = pair.sar.read_db()
        assert np.isfinite(whole).mean() > 0.5
        for window in (Window(130, 50, 421, 40), Window(400, 100, 33, 3)):
            rows, columns = window.toslices()
            np.testing.assert_array_equal(pair.sar.read_db(window), whole[:, rows, columns])


def test_a_raster_of_the_whole_world_reaches_to_where_a_map_is_not_defined(geotiff, optical):
    """Its corners have no coordinates in a UTM zone; the scene has some in the world, though."""
    world = (np.arange(180)[:, None] + np.zeros(360)).astype("int16")[None]
    path = geotiff("world.tif", world, transform=rasterio.Affine(1, 0, -180, 0, -1, 90), crs=WGS84)
    with open_stack({"optical": optical, "elevation": path}, resampling="nearest") as stack:
        np.testing.assert_array_equal(stack.read()["elevation"].values, 39)  # 50.5 degrees north
    with open_stack({"elevation": path, "optical": optical}, resampling="nearest") as stack:
        assert np.argwhere(stack.available()["optical"]).tolist() == []  # 800 m hold no centre of a pixel of 1 degree
    south = rasterio.Affine(1, 0, -180, 0, -1, 0)
    path = geotiff("south.tif", world[:, 90:], transform=south, crs=WGS84)
    with pytest.raises(RasterError, match="do not overlap"):
        open_stack({"optical": optical, "elevation": path})


# --- Availability ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["NaN", "tag", "mask", "alpha"])
@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic"])
def test_missing_data_stays_missing_and_does_not_colour_its_neighbours(geotiff, optical, how, resampling):
    """A hole of -9999 that is interpolated would leave a dark rim around it."""
    to_map = rasterio.Affine(10, 0, 500_004, 0, -10, 5_600_004)
    values = np.full((2, 100, 50), -10, "float32")
    hole = np.zeros((100, 50), bool)
    hole[20:40, 10:30] = True
    values[:, hole] = {"NaN": np.nan, "tag": -9999, "mask": 500, "alpha": 500}[how]
    options = {"NaN": {}, "tag": {"nodata": -9999}, "mask": {"mask": ~hole}, "alpha": {"alpha": "yes"}}[how]
    if how == "alpha":
        values = np.concatenate([values[:1], np.where(hole, 0, 255)[None], values[1:]]).astype("float32")
    path = geotiff("radar.tif", values, transform=to_map, **options)
    with open_pair(optical, path, resampling=resampling) as pair:
        found, available = pair.sar.read_db(), pair.available()
        window = pair.read(Window(5, 15, 30, 30))
        coverage = pair.coverage
    np.testing.assert_array_equal(np.isfinite(found).all(axis=0), available["sar"])
    np.testing.assert_allclose(found[:, available["sar"]], -10, atol=1e-4)
    assert not available["sar"][22:38, 12:28].any()  # the hole
    assert not available["sar"][:, 52:].any()  # beyond the extent
    share = available["sar"].mean()
    # A pixel is there if the middle of it has data, or (in all ways alike) something beside it to interpolate from.
    assert share == pytest.approx((90 * 50 - 400) / 7200, abs=0.008)
    assert coverage == {"optical": 1.0, "sar": pytest.approx(share), "both": pytest.approx(share)}
    assert (window.sar[~window.sar_valid] == 0).all()
    assert window.optical_valid.all()


def test_zero_is_nodata_of_detected_products(geotiff, optical):
    values = np.full((2, 60, 70), 300, "uint16")
    values[:, :30] = 0
    values[1, 45, 40] = 0  # no backscatter in one polarisation
    path = geotiff("radar.tif", values, nodata=0, transform=rasterio.Affine(12, 0, 500_000, 0, -12, 5_600_000))
    with open_pair(optical, path, resampling="nearest") as pair:
        assert pair.sar.unit == "amplitude"
        available = pair.available()["sar"]
        np.testing.assert_allclose(pair.sar.read_db()[:, available], 20 * np.log10(300), rtol=1e-5)
        np.testing.assert_array_equal(pair.read().sar_valid, available)
    assert not available[:35].any()
    assert available[37:60, :80].mean() > 0.99


@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
def test_nodata_of_whole_numbers_stays_missing_too(geotiff, optical, resampling):
    """By the same rules as without warping: one band suffices, but for 0 and the like of unsigned types."""
    place = {"transform": rasterio.Affine(10, 0, 500_000 - 40, 0, -10, 5_600_000 + 40), "crs": UTM}
    elevation = np.full((1, 100, 90), 300, "int16")
    elevation[:, 20:40, 10:30] = -9999
    colours = np.full((3, 100, 90), 300, "uint16")
    colours[:, 20:40, 10:30] = 0
    colours[1, 60:70, 60:70] = 0  # dark in one band
    paths = {
        "optical": optical,
        "elevation": geotiff("dem.tif", elevation, nodata=-9999, **place),
        "colours": geotiff("colours.tif", colours, nodata=0, photometric="minisblack", **place),
    }
    hole = np.zeros(SHAPE, bool)
    hole[16:36, 6:26] = True
    with open_stack(paths, resampling=resampling) as stack:
        found = stack.read()
    for name in ("elevation", "colours"):
        np.testing.assert_array_equal(found[name].valid, ~hole, err_msg=name)
    assert (found["elevation"].values[0, ~hole] == 300).all()
    assert (found["colours"].values[1, 57:65, 57:65] == 0).all()


# --- What is refused ---------------------------------------------------------------------------------------------


def refused(message, optical, other, **options):
    with pytest.raises(RasterError, match=message) as caught:
        open_pair(optical, other, **options)
    assert str(optical) in str(caught.value)
    assert str(other) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_different_places_are_refused_by_both_names(radar, optical):
    for name, to_map in {
        "far": rasterio.Affine(10, 0, 700_000, 0, -10, 5_600_000),
        "touching": rasterio.Affine(10, 0, 500_800, 0, -10, 5_600_000),
        "antarctic": rasterio.Affine(10, 0, 500_000, 0, -10, -1_000_000),
    }.items():
        refused("do not overlap: they show different places", optical, radar(f"{name}.tif", to_map, SHAPE))
    refused("do not overlap", optical, radar("other.tif", rasterio.Affine(1e-4, 0, 9, 0, -1e-4, 48), SHAPE, WGS84))


def test_a_common_place_without_data_is_refused_by_both_names(geotiff, optical):
    values = np.full((1, 200, 80), -10, "float32")
    values[:, :120] = np.nan  # the optical scene covers the first 90 rows
    refused("holds no data where", optical, geotiff("radar.tif", values))
    refused("holds no data where", optical, geotiff("same.tif", values[:, :90]))


def test_a_missing_coordinate_reference_system(geotiff, optical, radar):
    nowhere = geotiff("nowhere.tif", np.full((1, *SHAPE), -10, "float32"), crs=None, transform=None)
    refused(r"nowhere\.tif has no coordinate reference system", optical, nowhere)
    plain = geotiff("plain.tif", np.full((3, *SHAPE), 9, "uint8"), crs=None, transform=None)
    refused(r"plain\.tif has no coordinate reference system", plain, radar("radar.tif", TRANSFORM, SHAPE))
    with open_pair(plain, nowhere) as pair:
        assert pair.relation == "same size, both without a coordinate reference system"
        assert pair.read().sar_valid.all()
    smaller = geotiff("smaller.tif", np.full((1, 90, 79), -10, "float32"), crs=None, transform=None)
    refused("have no coordinate reference system and different grids", plain, smaller)
    moved = geotiff("moved.tif", np.full((1, *SHAPE), -10, "float32"), crs=None)
    twice = rasterio.Affine(20, 0, 500_000, 0, -20, 5_600_000)
    other = geotiff("doubled.tif", np.full((3, *SHAPE), 9, "uint8"), crs=None, transform=twice)
    refused("different grids", other, moved)
    no_transform = geotiff("crs.tif", np.full((1, *SHAPE), -10, "float32"), transform=None)
    refused(r"crs\.tif has no geotransform", optical, no_transform)


def test_control_points_are_no_grid(geotiff, radar, optical):
    """Raw radar products have control points in degrees and no transform."""
    points = [GroundControlPoint(r, c, 9 + c / 1e4, 50 - r / 1e4) for r in (0, 90) for c in (0, 80)]
    place = {"crs": WGS84, "transform": None, "gcps": points}
    placed = geotiff("points.tif", np.full((3, *SHAPE), 9, "uint8"), **place)
    refused("points.tif is placed by ground control points.*gdalwarp", placed, radar("radar.tif", TRANSFORM, SHAPE))
    same = geotiff("radar2.tif", np.full((1, *SHAPE), -9, "float32"), **place)
    refused("radar2.tif is placed by ground control points", optical, same)
    with open_pair(placed, same) as pair:
        assert pair.relation == "same control points"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resampling": "linear"}, "no resampling 'linear'.*Did you mean 'bilinear'"),
        ({"unit": "dB"}, "no unit of radar values 'dB'"),
        ({"despeckle": "leee"}, "no speckle filter 'leee'.*Did you mean 'lee'"),
        ({"despeckle": "lee", "looks": 0}, "number of looks is 0"),
        ({"sar_bands": "HH"}, "has no band 'HH'.*described as VV, VH"),
    ],
)
def test_unknown_options(radar, optical, options, message):
    path = radar("radar.tif", rasterio.Affine(20, 0, 500_000, 0, -20, 5_600_000), (45, 40))
    with pytest.raises(InputError, match=message):
        open_pair(optical, path, **options)


# --- Radar as pictures -------------------------------------------------------------------------------------------


def test_units_tell_the_same_decibels(geotiff):
    power = np.random.default_rng(0).gamma(3, 0.02, (2, 30, 20)).astype("float32") + 1e-4
    files = {
        "linear": geotiff("linear.tif", power),
        "db": geotiff("db.tif", 10 * np.log10(power)),
        "amplitude": geotiff("amplitude.tif", np.rint(1000 * np.sqrt(power)).astype("uint16")),
    }
    pictures = {}
    for unit, path in files.items():
        with open_sar(path) as scene:
            assert scene.unit == unit
            shift = 60 if unit == "amplitude" else 0
            np.testing.assert_allclose(scene.read_db() - shift, 10 * np.log10(power), atol=0.5)
            pictures[unit] = scene.read_rgb().astype(int)
            assert scene.settings()["unit"] == unit
    np.testing.assert_array_equal(pictures["linear"], pictures["db"])
    assert np.abs(pictures["amplitude"] - pictures["db"]).mean() < 1


def test_channels_by_polarisation(geotiff):
    def channels(count, descriptions, bands=None):
        levels = (-8 - 3 * np.arange(count))[:, None, None] + np.zeros((count, 5, 4))
        with open_sar(geotiff("a.tif", levels.astype("float32"), descriptions=descriptions), bands) as scene:
            return scene.bands, scene.channels

    assert channels(2, ["Gamma0_VH", "Gamma0_VV"]) == ((2, 1), ("Gamma0_VV", "Gamma0_VH", "Gamma0_VV / Gamma0_VH"))
    assert channels(3, ["VV", "VH", "angle"])[0] == (1, 2)
    assert channels(4, ["VV", "VH", "HH", "HV"]) == ((3, 4, 1, 2), ("HH", "HV", "VV"))
    assert channels(2, ["", ""])[1] == ("band 1", "band 2", "band 1 / band 2")
    assert channels(1, ["VH"])[1] == ("VH", "VH", "VH")
    assert channels(5, [])[0] == (1, 2, 3, 4)
    assert channels(2, ["VV", "VH"], "VH")[1] == ("VH", "VH", "VH")
    with pytest.raises(InputError, match="a radar has four at most"):
        channels(5, [], [1, 2, 3, 4, 5])


def test_the_picture_is_stretched_in_decibels_over_the_whole_scene(geotiff):
    vv = np.linspace(-20, 0, 3000).reshape(60, 50)
    vh = vv - 7 - np.linspace(0, 3, 50)
    path = geotiff("a.tif", np.stack([vv, vh]).astype("float32"), descriptions=["VV", "VH"])
    with open_sar(path) as scene:
        rgb = scene.read_rgb()
        part = scene.read_rgb(Window(10, 20, 9, 8))
    low, high = np.percentile(np.stack([vv, vh, vv - vh]).reshape(3, -1), (2, 98), axis=1)
    channels = np.stack([vv, vh, vv - vh], axis=-1)
    np.testing.assert_allclose(rgb, np.clip((channels - low) / (high - low), 0, 1) * 255, atol=0.6)
    np.testing.assert_array_equal(part, rgb[20:28, 10:19])


def test_eight_bit_pictures_are_shown_as_they_are(geotiff):
    values = np.random.default_rng(0).integers(0, 256, (1, 9, 7)).astype("uint8")
    path = geotiff("a.tif", values)
    with open_sar(path) as scene:
        np.testing.assert_array_equal(scene.read_rgb(), np.repeat(values[0][..., None], 3, axis=-1))
        with pytest.raises(InputError, match="display values and no backscatter"):
            scene.read_db()
    with pytest.raises(InputError, match=r"a\.tif holds display values"):
        open_sar(path, despeckle="lee")
    with open_sar(path, unit="amplitude", despeckle="lee") as scene:
        assert scene.read_rgb().shape == (9, 7, 3)


def test_filters_do_not_depend_on_windows(geotiff):
    power = 0.05 * np.random.default_rng(0).gamma(4, 1 / 4, (1, 60, 50)).astype("float32")
    power[0, 20:30, 10:15] = np.nan
    path = geotiff("a.tif", power)
    with open_sar(path, despeckle="refined_lee", looks=4) as scene:
        whole = scene.read_db()
        for window in (Window(0, 0, 11, 13), Window(8, 17, 20, 20), Window(47, 55, 3, 5)):
            rows, columns = window.toslices()
            np.testing.assert_array_equal(scene.read_db(window), whole[:, rows, columns])
            np.testing.assert_array_equal(scene.read(window)[1], np.isfinite(whole[0, rows, columns]))
        assert scene.settings()["looks"] == 4
    np.testing.assert_allclose(10 ** (whole[0] / 10), refined_lee(power[0].astype("float64"), 4), rtol=1e-4)


# --- Stacks ------------------------------------------------------------------------------------------------------


def test_a_stack_reads_all_modalities_on_one_grid(geotiff, radar, optical):
    classes = np.random.default_rng(0).integers(0, 5, (1, 45, 40)).astype("uint8")
    cover = geotiff("cover.tif", classes, transform=rasterio.Affine(20, 0, 500_000, 0, -20, 5_600_000))
    shifted = rasterio.Affine(10, 0, 500_000 + 1e-9, 0, -10, 5_600_000)
    dem = geotiff("dem.tif", np.full((1, *SHAPE), 320, "int16"), transform=shifted)
    paths = {"optical": optical, "sar": radar("r.tif", *around(WGS84, 1e-4)), "elevation": dem, "cover": cover}
    with open_stack(paths, bands={"sar": "VH"}, resampling={"cover": "nearest"}) as stack:
        found, available = stack.read(), stack.available()
        part = stack.read(Window(3, 4, 10, 6))
        relations = stack.relations
    assert relations["optical"] == "the reference grid"
    assert relations["elevation"].startswith("same grid")
    assert relations["sar"] == "warped from another coordinate reference system by bilinear resampling"
    assert found["elevation"].values.dtype == np.int16
    np.testing.assert_array_equal(found["cover"].values[0], classes[0].repeat(2, axis=0).repeat(2, axis=1))
    assert found["sar"].names == ("VH",)
    for name, bands in found.items():
        np.testing.assert_array_equal(bands.valid, available[name])
        np.testing.assert_array_equal(part[name].values, bands.values[:, 4:10, 3:13])
    with open_stack(paths, reference="cover") as stack:
        assert (stack.grid.height, stack.grid.width) == (45, 40)
    for bad in ({"reference": "dem"}, {"bands": {"dem": 1}}, {"resampling": {"dem": "nearest"}}):
        with pytest.raises(InputError, match="no modality 'dem'"):
            open_stack(paths, **bad)
    with pytest.raises(InputError, match="at least one file"):
        open_stack({})


# --- Real imagery ------------------------------------------------------------------------------------------------


def real(shared, *names):
    paths = [shared / "data" / name for name in names]
    for path in paths:
        if not path.is_file():
            pytest.skip(f"no {path}")
    return paths


def test_elevation_and_radar_beside_a_real_scene_are_not_resampled(shared):
    layers = ("S2L2A", "S1RTC", "DEM", "LULC")
    paths = real(shared, *(f"terramesh-samples/{layer}/433D_629L_3_1.tif" for layer in layers))
    with open_stack(dict(zip(layers, paths, strict=True))) as stack:
        assert all(relation.startswith(("same grid", "the reference")) for relation in stack.relations.values())
        assert all(mask.all() for mask in stack.available().values())
    with open_pair(paths[0], paths[1], bands="4,3,2", despeckle="refined_lee") as pair:
        assert pair.sar.unit == "db"
        assert pair.read().sar.std() > 20


def test_the_missing_part_of_a_real_radar_scene(shared):
    optical, radar = real(shared, "port-rgb-quadpol-sar/rgb_unmasked.tif", "port-rgb-quadpol-sar/sar_masked.tif")
    with open_pair(optical, radar) as pair:
        assert pair.relation.startswith("same grid")  # their transforms differ by 0.05 m over the frame
        assert pair.coverage["sar"] == pytest.approx(0.608, abs=1e-3)
        assert pair.sar.bands == (1, 2, 3, 4)


@pytest.mark.filterwarnings("ignore:Use .* matmul instead of")  # inside rasterio
def test_a_real_scene_warped_there_and_back(shared, tmp_path):
    optical, radar = real(shared, "la-scene/la_s2_rgb.tif", "la-scene/la_s1_vh.tif")
    with open_raster(radar) as source:
        window = Window(800, 900, 700, 600)
        values, t = source.read(1, window=window).astype("float32"), source.transform
        left, top = t.c + 800 * t.a, t.f + 900 * t.e
        place, bounds = rasterio.Affine(t.a, 0, left, 0, t.e, top), (left, top + 600 * t.e, left + 700 * t.a, top)
        to_map, width, height = calculate_default_transform(source.crs, "EPSG:32611", 700, 600, *bounds)
        there = np.full((height, width), np.nan, "float32")
        options = {"src_transform": place, "src_crs": source.crs, "dst_transform": to_map, "dst_crs": "EPSG:32611"}
        reproject(values, there, resampling=Resampling.cubic, dst_nodata=np.nan, **options)
    path, shape = tmp_path / "utm.tif", {"height": height, "width": width, "count": 1, "dtype": "float32"}
    with open_raster(path, "w", driver="GTiff", crs="EPSG:32611", transform=to_map, **shape) as target:
        target.write(there, 1)
    with open_pair(optical, path, resampling="cubic", unit="amplitude") as pair:
        found = pair.read(window)
        back = 10 ** (pair.sar.read_db(window)[0] / 20)
        assert pair.sar.valid(Window(0, 0, 500, 500)).sum() == 0
    assert found.sar_valid[10:-10, 10:-10].mean() > 0.99
    inner = found.sar_valid.copy()
    inner[:10] = inner[-10:] = inner[:, :10] = inner[:, -10:] = False
    aligned = np.corrcoef(back[inner], values[inner])[0, 1]
    shifted = np.corrcoef(back[inner], np.roll(values, 1, axis=1)[inner])[0, 1]
    assert aligned > 0.98
    assert aligned > shifted + 0.1
    with pytest.raises(RasterError, match="do not overlap"):
        open_pair(optical, real(shared, "port-rgb-quadpol-sar/sar_masked.tif")[0])
