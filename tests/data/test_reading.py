"""A box of one image on the grids of the others: copied where grids agree, resampled where they don't."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from rsovlib.data.arrays import Header
from rsovlib.data.cutting import Box
from rsovlib.data.layout import Sample
from rsovlib.data.manifest import Manifest
from rsovlib.data.reading import Plan, open_sample
from rsovlib.errors import RasterError


@pytest.fixture
def reader(tmp_path):
    """A function: two rasters that were written, and labels, as an open sample of a made-up dataset."""
    band = {"name": "grey"}
    content = {
        "name": "own",
        "title": "Own",
        "version": "1",
        "pages": ["https://example.org"],
        "licence": {"name": "none"},
        "modalities": {
            "a": {"kind": "optical", "sensor": "x", "bands": [band]},
            "b": {"kind": "elevation", "sensor": "y", "bands": [{**band, "nodata": -99.0}]},
        },
        "classes": [{"name": "land", "values": [1]}, {"name": "sea", "values": [2]}],
        "layouts": {
            "x": {
                "source": "me",
                "files": {
                    "a": {"path": "a/{id}.tif", "format": "tif"},
                    "b": {"path": "b/{id}.tif", "format": "tif"},
                },
                "labels": {"path": "l/{id}.tif", "encoding": "index", "format": "tif", "ignore_values": [0]},
            }
        },
    }
    plan = Plan(Manifest.model_validate(content), "x", tmp_path, ("a", "b"), "a")

    def make(a, b, labels=None):
        return open_sample(plan, Sample("one", {"id": "one"}, {"a": a, "b": b}, labels))

    return make


def test_same_grid_is_copied(geotiff, reader):
    a = np.arange(48, dtype=np.uint8).reshape(1, 6, 8)
    b = a.astype(np.float32) * 0.1
    b[0, 2, 3] = -99
    # A corner that was rounded by somebody is the same corner.
    rounded = rasterio.Affine(10, 0, 500_000 + 1e-4, 0, -10, 5_600_000)
    with reader(geotiff("a.tif", a), geotiff("b.tif", b, transform=rounded)) as sample:
        box = Box(2, 1, 3, 4)
        assert np.array_equal(sample.image("a", box).values, a[:, 2:5, 1:5])
        found = sample.image("b", box)
        assert np.array_equal(found.values, b[:, 2:5, 1:5])
        assert found.valid.tolist() == [[True, True, False, True]] + [[True] * 4] * 2
        assert sample.place(box)[1] == rasterio.Affine(10, 0, 500_010, 0, -10, 5_599_980)


def test_beyond_the_edge_is_nothing(geotiff, reader):
    a = np.full((1, 4, 4), 7, np.uint8)
    labels = np.full((1, 4, 4), 2, np.uint8)
    with reader(geotiff("a.tif", a), geotiff("b.tif", a), geotiff("l.tif", labels)) as sample:
        found = sample.image("a", Box(2, 3, 4, 3))
        expected = np.zeros((4, 3))
        expected[:2, 0] = 7
        assert np.array_equal(found.values[0], expected)
        assert np.array_equal(found.valid, expected > 0)
        assert np.array_equal(sample.labels(Box(2, 3, 4, 3)), np.where(expected > 0, 1, 255))


def test_coarser_pixels_follow_by_size_where_nothing_is_placed(geotiff, reader):
    nowhere = {"crs": None, "transform": rasterio.Affine.identity()}
    a = np.zeros((1, 12, 8), np.uint8)
    b = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
    labels = 1 + (b.astype(np.uint8) % 2)
    files = geotiff("a.tif", a, **nowhere), geotiff("b.tif", b, **nowhere), geotiff("l.tif", labels, **nowhere)
    with reader(*files) as sample:
        assert sample.image("b", Box(4, 0, 8, 4)).values.tolist() == [[[2], [4]]]
        assert sample.labels(Box(4, 0, 8, 8)).tolist() == [[0, 1], [0, 1]]
        assert np.array_equal(sample.image("b").values, b)


def test_coarser_pixels_follow_by_ground_where_both_are_placed(geotiff, reader):
    """The second image begins 20 m east and 40 m south of the first and has pixels of 20 m."""
    a = np.zeros((1, 12, 12), np.uint8)
    b = np.arange(25, dtype=np.float32).reshape(1, 5, 5)
    other = rasterio.Affine(20, 0, 500_020, 0, -20, 5_599_960)
    with reader(geotiff("a.tif", a), geotiff("b.tif", b, transform=other)) as sample:
        found = sample.image("b", Box(0, 0, 8, 8))
        assert found.values[0].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 2], [0, 5, 6, 7]]
        assert found.valid.tolist() == [[False] * 4] * 2 + [[False, True, True, True]] * 2


def test_half_pixels_are_interpolated(geotiff, reader):
    """Half a pixel to the right: the mean of two neighbours; validity needs both."""
    a = np.zeros((1, 2, 4), np.uint8)
    b = np.array([[[0, 10, 20, -99, 40], [0, 10, 20, 30, 40]]], dtype=np.float32)
    other = rasterio.Affine(10, 0, 500_000 - 5, 0, -10, 5_600_000)
    with reader(geotiff("a.tif", a), geotiff("b.tif", b, transform=other, nodata=-99)) as sample:
        found = sample.image("b", Box(0, 0, 2, 4))
        assert found.valid.tolist() == [[True, True, False, False], [True] * 4]
        assert found.values[0, 1].tolist() == [5, 15, 25, 35]
        assert found.values[0, 0, :2].tolist() == [5, 15]


def test_uneven_ratios_reproduce_a_ramp(geotiff, reader):
    """A linear ramp must stay itself under bilinear interpolation, away from the edges."""
    nowhere = {"crs": None, "transform": rasterio.Affine.identity()}
    a = np.zeros((1, 30, 45), np.uint8)
    columns = (np.arange(18) + 0.5) / 18
    b = np.broadcast_to(columns, (1, 7, 18)).astype(np.float32)
    with reader(geotiff("a.tif", a, **nowhere), geotiff("b.tif", b, **nowhere)) as sample:
        found = sample.image("b", Box(7, 11, 16, 17)).values[0]
        assert found.shape == (round(16 * 7 / 30), round(17 * 18 / 45))
        count = found.shape[1]
        expected = (11 + (np.arange(count) + 0.5) * 17 / count) / 45
        np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=1e-6)


def test_different_places_are_an_error(geotiff, reader):
    a = np.zeros((1, 4, 4), np.uint8)
    far = rasterio.Affine(10, 0, 700_000, 0, -10, 5_600_000)
    turned = rasterio.Affine(9.848, 1.736, 500_000, 1.736, -9.848, 5_600_000)
    with (
        reader(geotiff("a.tif", a), geotiff("b.tif", a, transform=far)) as sample,
        pytest.raises(RasterError, match=r"b\.tif and .*a\.tif do not overlap"),
    ):
        sample.image("b", Box(0, 0, 2, 2))
    with (
        reader(geotiff("a.tif", a), geotiff("c.tif", a, transform=turned)) as sample,
        pytest.raises(RasterError, match=r"c\.tif is rotated against"),
    ):
        sample.image("b", Box(0, 0, 2, 2))


def test_files_of_other_bands_are_an_error(geotiff, reader):
    a, b = np.zeros((1, 4, 4), np.uint8), np.zeros((2, 4, 4), np.uint8)
    with reader(geotiff("a.tif", a), geotiff("b.tif", b), geotiff("l.tif", b)) as sample:
        with pytest.raises(RasterError, match=r"b\.tif has 2 bands, and 1 were expected"):
            sample.image("b")
        with pytest.raises(RasterError, match=r"l\.tif has 2 bands, and one band of class numbers"):
            sample.labels()


def test_headers_are_plain_values():
    header = Header("tif", 1, 2, 3, "uint8")
    assert (header.crs, header.transform, header.nodata) == (None, None, None)
