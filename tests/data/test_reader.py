"""Reading rasters as they are: bands, types, and which pixels are valid."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from rsovlib.data.geotiff import open_raster
from rsovlib.data.raster import open_bands, open_scene, read_raster
from rsovlib.errors import InputError

TYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_any_number_of_bands_of_any_real_type(geotiff, dtype, count):
    values = np.random.default_rng(0).integers(0, 120, (count, 37, 31)).astype(dtype)
    if dtype not in ("uint8", "uint16", "uint32"):
        values = (values - 60).astype(dtype)
    path = geotiff("a.tif", values, photometric="minisblack")
    with open_bands(path) as source:
        assert (source.bands, source.dtype) == (tuple(range(1, count + 1)), np.dtype(dtype))
        found = source.read()
        part = source.read(Window(5, 11, 13, 7))
    assert found.values.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found.values, values)
    np.testing.assert_array_equal(part.values, values[:, 11:18, 5:18])
    assert found.valid.shape == (37, 31)
    assert found.valid.all()
    assert found.names[0] == "band 1"


def test_bands_by_number_and_by_name(geotiff):
    values = np.repeat(np.arange(1, 6, dtype="int16"), 20).reshape(5, 4, 5)
    path = geotiff("a.tif", values, descriptions=["B02", "B03", "same", "same", ""])
    for bands, expected in (("b03,1", (2, 1)), ([5, "B02", 5], (5, 1, 5)), (None, (1, 2, 3, 4, 5))):
        found = read_raster(path, bands)
        np.testing.assert_array_equal(found.values[:, 0, 0], expected)
    assert found.names == ("B02", "B03", "band 3", "band 4", "band 5")  # two of one name name nothing
    with pytest.raises(InputError, match="has no band 'same'; it has bands 1 to 5, described as B02"):
        read_raster(path, "same")
    with pytest.raises(InputError, match="No bands were chosen"):
        read_raster(path, [])


def test_every_way_to_say_that_there_is_no_data(geotiff):
    values = np.random.default_rng(0).integers(1, 200, (4, 37, 31))
    holes = np.zeros((37, 31), bool)
    holes[3:6, 4:9] = True
    floats = values.astype("float32")
    floats[2, holes] = np.nan
    tagged = np.where(holes & (np.arange(4) == 1)[:, None, None], -999, values).astype("int16")
    dark = np.where(holes, 0, values).astype("uint8")
    dark[1, 20, 20] = 0  # one band of a dark pixel, not nodata
    full = values.astype("uint16")
    opaque = np.where(np.arange(4)[:, None, None] == 3, 65535 * ~holes, full).astype("uint16")
    paths = {
        "NaN without a tag": geotiff("nan.tif", floats),
        "NaN with a tag": geotiff("nantag.tif", floats, nodata=np.nan),
        "NaN and a tag": geotiff("both.tif", np.where(holes & (np.arange(31) < 6), -1, floats), nodata=-1),
        "infinity": geotiff("inf.tif", np.where(np.isnan(floats), np.inf, floats)),
        "tag in one band": geotiff("tag.tif", tagged, nodata=-999),
        "zero in all bands": geotiff("zero.tif", dark, nodata=0),
        "mask band": geotiff("mask.tif", full, mask=~holes),
        "alpha": geotiff("alpha.tif", opaque, photometric="rgb", alpha="yes"),
    }
    for way, path in paths.items():
        with open_bands(path) as source:
            np.testing.assert_array_equal(source.valid(), ~holes, err_msg=way)
            np.testing.assert_array_equal(source.valid(Window(2, 1, 11, 9)), ~holes[1:10, 2:13], err_msg=way)
            found = source.read()
        assert found.masked().mask.shape == found.values.shape
        np.testing.assert_array_equal(found.masked().mask[0], holes)
        filled = found.filled()
        assert filled.dtype == np.float32
        np.testing.assert_array_equal(np.isnan(filled).all(axis=0), holes)
        np.testing.assert_array_equal(filled[:, ~holes], found.values[:, ~holes])


def test_alpha_is_no_band_to_read(geotiff):
    path = geotiff("alpha.tif", np.full((2, 4, 5), 9, "uint8"), alpha="yes", photometric="minisblack")
    with open_bands(path) as source:
        assert source.bands == (1,)
    with open_bands(path, "2") as source:
        assert source.bands == (2,)


def test_a_sparse_file_holds_no_data_where_nothing_was_written(tmp_path, geotiff):
    profile = {"driver": "GTiff", "height": 64, "width": 64, "count": 1, "dtype": "int16", "nodata": -1}
    blocks = {"tiled": True, "blockxsize": 32, "blockysize": 32, "sparse_ok": True}
    with open_raster(tmp_path / "a.tif", "w", **profile, **blocks) as target:
        target.write(np.full((1, 32, 32), 7, "int16"), window=Window(32, 0, 32, 32))
    found = read_raster(tmp_path / "a.tif")
    np.testing.assert_array_equal(found.valid, np.pad(np.ones((32, 32), bool), ((0, 32), (32, 0))))


def test_palettes_are_read_as_numbers_and_as_colours(geotiff):
    values = np.random.default_rng(0).integers(0, 3, (1, 9, 7)).astype("uint8")
    values[0, 0, 0] = 255
    colours = {0: (10, 20, 30, 255), 1: (40, 50, 60, 255), 2: (70, 80, 90, 255)}
    found = read_raster(geotiff("a.tif", values, colormap=colours, nodata=255))
    np.testing.assert_array_equal(found.values, values)
    expected = np.array([colours[k][:3] for k in range(3)])[np.minimum(values[0], 2)]
    expected[0, 0] = 0
    np.testing.assert_array_equal(found.colours(), expected)
    with pytest.raises(InputError, match="hold no palette"):
        read_raster(geotiff("b.tif", values)).colours()


def test_bands_of_several_types(tmp_path, geotiff):
    """A virtual raster may mix types; a TIFF can't."""
    geotiff("a.tif", np.full((1, 6, 5), -7, "int16"))
    geotiff("b.tif", np.full((1, 6, 5), 0.5, "float32"))
    source = '<SourceFilename relativeToVRT="1">{}</SourceFilename><SourceBand>1</SourceBand>'
    band = '<VRTRasterBand dataType="{}" band="{}"><SimpleSource>{}</SimpleSource></VRTRasterBand>'
    text = band.format("Int16", 1, source.format("a.tif")) + band.format("Float32", 2, source.format("b.tif"))
    (tmp_path / "c.vrt").write_text(f'<VRTDataset rasterXSize="5" rasterYSize="6">{text}</VRTDataset>')
    found = read_raster(tmp_path / "c.vrt")
    assert found.values.dtype == np.float32
    np.testing.assert_array_equal(found.values[:, 0, 0], [-7, 0.5])


def test_other_formats(tmp_path, image):
    for driver, suffix in (("PNG", "png"), ("JP2OpenJPEG", "jp2"), ("BMP", "bmp")):
        if driver not in rasterio.drivers.raster_driver_extensions().values():
            continue
        path = tmp_path / f"a.{suffix}"
        options = {"QUALITY": 100, "REVERSIBLE": "YES"} if suffix == "jp2" else {}
        shape = {"driver": driver, "height": 37, "width": 31, "count": 3, "dtype": "uint8"}
        with open_raster(path, "w", **shape, **options) as target:
            target.write(image.transpose(2, 0, 1))
        np.testing.assert_array_equal(read_raster(path).values, image.transpose(2, 0, 1), err_msg=driver)
        with open_scene(path) as scene:
            np.testing.assert_array_equal(scene.read_rgb(), image)


def test_windows_stay_inside(geotiff):
    path = geotiff("a.tif", np.ones((1, 9, 7), "uint8"))
    for window in (Window(0, 5, 7, 5), Window(-1, 0, 3, 3), Window(0, 0, 0, 3), Window(6, 0, 2, 2)):
        with pytest.raises(InputError, match=r"lies outside .*a\.tif, which has 9 x 7 pixels"):
            read_raster(path, window=window)


def test_what_is_known_without_reading(geotiff):
    path = geotiff("a.tif", np.ones((2, 9, 7), "int16"), nodata=-5, descriptions=["VV", "VH"])
    with open_bands(path) as source:
        facts = source.profile
    assert (facts["dtype"], facts["nodata"], facts["band_names"]) == ("int16", -5, ["VV", "VH"])
    assert (facts["crs"], facts["control_points"], facts["resampling"]) == ("EPSG:32632", 0, None)


@pytest.mark.parametrize(
    ("name", "count", "dtype", "valid"),
    [
        ("terramesh-samples/S2L1C/433D_629L_3_1.tif", 13, "int16", 1),
        ("terramesh-samples/DEM/433D_629L_3_1.tif", 1, "int16", 1),
        ("terramesh-samples/S1RTC/433D_629L_3_1.tif", 2, "float64", 1),
        ("port-rgb-quadpol-sar/sar_masked.tif", 4, "float32", 0.6085),
        ("landsat-nodata/RGB.byte.tif", 3, "uint8", 0.6746),
        ("mmseg-tiles/loveda/ann_dir/0.png", 1, "uint8", 1),
    ],
)
def test_real_rasters(shared, name, count, dtype, valid):
    path = shared / "data" / name
    if not path.is_file():
        pytest.skip(f"no {path}")
    found = read_raster(path)
    assert (len(found.values), found.values.dtype) == (count, np.dtype(dtype))
    assert found.valid.mean() == pytest.approx(valid, abs=1e-3)
    with open_raster(path) as source:
        assert ColorInterp.alpha not in source.colorinterp
        np.testing.assert_array_equal(found.values, source.read())
