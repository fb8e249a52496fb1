"""Polygons of a class map: exact cover, true areas, single files that read back."""

from __future__ import annotations

import math

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.features

from rsovlib.data.areas import pixel_areas
from rsovlib.data.vector import polygonize
from rsovlib.data.vector_files import VECTOR_SUFFIXES, write_polygons
from rsovlib.errors import InputError

UTM = rasterio.CRS.from_epsg(32632)
CLASSES = ["water, river", "forest", "roads"]


def north_up(x, y, size):
    return rasterio.Affine(size, 0, x, 0, -size, y)


def test_polygons_cover_the_valid_pixels_exactly(labels):
    labels = labels.copy()
    labels[3:6, 3:6] = 1  # a hole in one polygon that another one fills
    labels[10, 20], labels[11, 21] = 2, 2  # touch at a corner only: two polygons
    valid = np.ones(labels.shape, bool)
    valid[:4, -5:] = False
    transform = north_up(500_000, 5_600_000, 10)
    table = polygonize(labels, CLASSES, transform, UTM, valid)
    assert table.crs.to_epsg() == 32632
    drawn = rasterio.features.rasterize(
        zip(table.geometry, table.class_index + 1, strict=True), labels.shape, transform=transform, dtype="uint8"
    )
    np.testing.assert_array_equal(drawn, np.where(valid, labels + 1, 0))
    assert table.geometry.is_valid.all()
    np.testing.assert_allclose(table.geometry.area, table.pixels * 100)  # in map units
    assert len(table[table.class_index == 2]) == 3
    assert list(table.class_name.unique()) == ["water", "forest", "roads"]


def test_confidence_is_the_mean_over_the_polygon():
    labels = np.array([[0, 0, 1], [0, 2, 1]])
    confidence = np.array([[0.9, 0.6, 1.0], [0.3, 0.5, 0.8]])
    table = polygonize(labels, CLASSES, confidence=confidence)
    np.testing.assert_allclose(table.mean_confidence, [0.6, 0.9, 0.5])
    assert table.pixels.tolist() == [3, 2, 1]
    assert table.area_m2.isna().all()
    assert table.crs is None


def test_a_projected_metre_is_not_a_metre():
    """World Mercator stretches lengths by about 1 / cos(latitude)."""
    mercator = rasterio.CRS.from_epsg(3395)
    (x,), (y,) = rasterio.warp.transform("EPSG:4326", mercator, [-118.2], [34.0])
    table = polygonize(np.zeros((20, 30), int), ["land"], north_up(x, y, 10), mercator)
    assert table.area_m2[0] / (600 * 100) == pytest.approx(math.cos(math.radians(34)) ** 2, rel=0.01)


def test_area_of_a_degree_cell_equals_the_ellipsoid_formula():
    """Authalic area between two parallels of WGS 84, in closed form."""
    a, e = 6378137.0, math.sqrt(0.0066943799901413165)

    def q(latitude):
        s = math.sin(math.radians(latitude))
        return (1 - e**2) * (s / (1 - (e * s) ** 2) + math.atanh(e * s) / e)

    expected = 0.5 * a**2 * (q(50) - q(49)) * math.radians(2)  # 49 to 50 north, 2 degrees wide
    areas = pixel_areas(rasterio.CRS.from_epsg(4326), north_up(8, 50, 0.01), 100, 200)
    assert areas.of_rows(0, 100).shape == (100, 200)
    assert areas.of_rows(0, 100).sum() == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(areas.of_rows(37, 5), areas.of_rows(0, 100)[37:42])


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 1)])
def test_areas_of_tiny_and_rotated_scenes(shape):
    transform = rasterio.Affine(8, 3, 500_000, 3, -8, 5_600_000)
    areas = pixel_areas(UTM, transform, *shape)
    assert areas.of_rows(0, shape[0]).shape == shape
    # At the central meridian of UTM lengths are reduced by 0.9996.
    np.testing.assert_allclose(areas.of_rows(0, shape[0]), (8 * 8 + 3 * 3) / 0.9996**2, rtol=1e-5)


def test_no_area_without_a_place_on_earth():
    assert pixel_areas(None, rasterio.Affine.identity(), 4, 5) is None
    assert pixel_areas(rasterio.CRS.from_epsg(4326), north_up(500_000, 5_600_000, 10), 4, 5) is None


@pytest.mark.parametrize("suffix", VECTOR_SUFFIXES)
def test_every_format_is_one_file_that_reads_back(tmp_path, labels, suffix):
    path = tmp_path / f"map{suffix}"
    path.touch()  # as write_beside leaves it
    table = polygonize(labels, CLASSES, north_up(500_000, 5_600_000, 10), UTM, confidence=np.full((37, 31), 0.5))
    write_polygons(path, table)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    back = geopandas.read_parquet(path) if suffix == ".parquet" else geopandas.read_file(path)
    # FlatGeobuf sorts features by place, for its spatial index.
    back = back.sort_values(["class_index", "pixels"], ascending=[True, False], ignore_index=True)
    assert back.class_name.tolist() == table.class_name.tolist()
    np.testing.assert_allclose(back.area_m2, table.area_m2)
    assert back.crs.to_epsg() == (4326 if suffix == ".geojson" else 32632)


@pytest.mark.parametrize(
    ("labels", "extra", "message"),
    [
        (np.zeros((4, 5)), {}, "whole numbers"),
        (np.zeros((1, 4, 5), int), {}, "whole numbers"),
        (np.full((4, 5), 3), {}, "label 3 is not one of the 3 classes"),
        (np.full((4, 5), -1), {}, "label -1"),
        (np.zeros((4, 5), int), {"valid": np.ones((5, 4), bool)}, "valid mask has the shape"),
        (np.zeros((4, 5), int), {"confidence": np.ones((5, 4))}, "confidence has the shape"),
    ],
)
def test_what_is_refused(labels, extra, message):
    with pytest.raises(InputError, match=message):
        polygonize(labels, CLASSES, **extra)


def test_no_valid_pixel_gives_an_empty_table():
    assert len(polygonize(np.full((3, 4), 255), CLASSES, valid=np.zeros((3, 4), bool))) == 0
