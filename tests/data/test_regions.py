"""Regions of strips are those of the whole map: geometry, size, area and confidence, however it is cut."""

from __future__ import annotations

import itertools

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import Logged

from rsovlib.data.areas import pixel_areas
from rsovlib.data.classes import parse_classes
from rsovlib.data.raster import segment_scene
from rsovlib.data.regions import Regions, RegionStream
from rsovlib.data.vector import polygonize

PLACE = rasterio.Affine(0.001, 0, 10, 0, -0.001, 50)
CRS = rasterio.CRS.from_epsg(4326)


def facts(regions: Regions) -> dict[bytes, tuple[float, ...]]:
    """Each region's numbers by its polygon, whose rings and their first points may come in any order."""
    numbers = zip(regions.class_index, regions.pixels, regions.area, regions.confidence, strict=True)
    found = dict(zip(shapely.to_wkb(shapely.normalize(regions.polygons)), numbers, strict=True))
    assert len(found) == len(regions.pixels)
    return found


def of_strips(labels, valid, confidence, heights, at_once=10**9) -> Regions:
    cuts = np.cumsum([0, *heights])
    assert cuts[-1] == len(labels)
    strips = [(labels[a:b], valid[a:b], confidence[a:b]) for a, b in itertools.pairwise(cuts)]
    stream = RegionStream(pixel_areas(CRS, PLACE, *labels.shape))
    return Regions.joined(stream.regions(strips, at_once))


def assert_same(one: Regions, other: Regions) -> None:
    first, second = facts(one), facts(other)
    assert set(first) == set(second)
    for name, numbers in first.items():
        np.testing.assert_allclose(second[name], numbers, rtol=1e-12)


def random_map(seed, shape, classes, hole_share=0.1):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, shape).astype(np.uint8)
    return labels, rng.random(shape) > hole_share, rng.integers(0, 256, shape).astype(np.uint8)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    heights=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    width=st.integers(1, 9),
    classes=st.integers(1, 3),
)
def test_any_strips_give_the_regions_of_the_whole_map(seed, heights, width, classes):
    data = random_map(seed, (sum(heights), width), classes)
    assert_same(of_strips(*data, [sum(heights)]), of_strips(*data, heights))


def smooth_map(seed, shape, classes):
    """Large winding regions with many holes in them."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    scores = [gaussian_filter(rng.normal(size=shape), 3) + 0.04 * rng.normal(size=shape) for _ in range(classes)]
    return np.argmax(scores, axis=0).astype(np.uint8), np.ones(shape, bool), random_map(seed, shape, 2)[2]


@pytest.mark.parametrize("at_once", [97, 97 * 2, 97 * 64])
def test_large_regions_with_holes(at_once):
    data = smooth_map(3, (211, 97), 3)
    whole = of_strips(*data, [211])
    assert shapely.get_num_interior_rings(whole.polygons).max() > 20
    assert_same(whole, of_strips(*data, [211], at_once))
    parts = of_strips(*data, [211], at_once)
    assert shapely.is_valid(parts.polygons).all()
    np.testing.assert_array_equal(shapely.area(parts.polygons), parts.pixels)


def test_parts_that_only_meet_far_below_are_one_region():
    comb = np.zeros((40, 21), np.uint8)
    comb[:-1, 1::2] = 1
    data = comb, np.ones(comb.shape, bool), np.full(comb.shape, 10, np.uint8)
    found = of_strips(*data, [1] * 40)
    assert sorted(found.pixels.tolist()) == [39] * 10 + [40 * 21 - 390]
    assert_same(of_strips(*data, [40]), found)


def test_the_table_is_that_of_the_stream():
    labels, valid, confidence = smooth_map(5, (60, 50), 3)
    names = ["water", "forest", "bare soil"]
    table = polygonize(labels, names, PLACE, CRS, valid, confidence / 255)
    parts = of_strips(labels, valid, confidence, [7] * 8 + [4])
    assert [prompt.name for prompt in parse_classes(names)] == names
    assert len(table) == len(parts.pixels)
    np.testing.assert_allclose(np.sort(table.area_m2), np.sort(parts.area), rtol=1e-12)
    np.testing.assert_allclose(
        np.sort(table.mean_confidence), np.sort(parts.confidence / parts.pixels / 255), rtol=1e-12
    )


def test_no_more_than_a_strip_and_what_is_open_is_held():
    labels, valid, confidence = smooth_map(7, (400, 50), 3)
    labels[::8] = 3  # nothing reaches over eight rows
    stream = RegionStream(None)
    most = 0
    for _ in stream.regions((labels[r : r + 10], valid[r : r + 10], confidence[r : r + 10]) for r in range(0, 400, 10)):
        most = max(most, sum(len(region.fragments) for region in stream._open))
    assert 0 < most < 100


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet"])
def test_the_polygons_of_a_scene_are_those_of_its_map(tmp_path, geotiff, suffix):
    rng = np.random.default_rng(4)
    values = np.kron(rng.integers(1, 256, (3, 30, 25)), np.ones((3, 3)))
    values[:, :20, :30] = 0
    scene = geotiff("scene.tif", values.astype("uint8"), nodata=0)
    vector, maps = tmp_path / f"map{suffix}", tmp_path / "map.tif"
    options = {"vector": vector, "probabilities": tmp_path / "p.tif", "progress": False}
    report = segment_scene(scene, "water; forest; soil", maps, segmenter=Logged(), **options)
    with rasterio.open(maps) as file, rasterio.open(tmp_path / "p.tif") as probabilities:
        labels = file.read(1)
        confidence = np.rint(np.nan_to_num(probabilities.read()).max(axis=0) * 255) / 255
        whole = polygonize(labels, report.classes, file.transform, file.crs, labels != 255, confidence)
    found = geopandas.read_parquet(vector) if suffix == ".parquet" else geopandas.read_file(vector)
    assert found.crs == whole.crs
    assert list(found.columns) == list(whole.columns)
    assert len(found) == len(whole) > 20

    def by_polygon(table):
        named = table.assign(key=shapely.to_wkt(shapely.normalize(table.geometry.to_numpy())))
        return named.sort_values("key", ignore_index=True).drop(columns="geometry")

    one, other = by_polygon(found), by_polygon(whole)
    for column in ("key", "class_index", "class_name", "pixels"):
        assert one[column].tolist() == other[column].tolist()
    np.testing.assert_allclose(one.area_m2, other.area_m2, rtol=1e-9)
    np.testing.assert_allclose(one.mean_confidence, other.mean_confidence, atol=1e-6)
    assert report.pixels == {name: int(whole.pixels[whole.class_name == name].sum()) for name in report.classes}
