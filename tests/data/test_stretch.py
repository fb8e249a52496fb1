"""The stretch to display values: stated, reproducible, and of the whole scene."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.windows import Window

from rsovlib.data import source
from rsovlib.data.geotiff import open_raster
from rsovlib.data.raster import open_scene
from rsovlib.data.stretch import Stretch, percentile_stretch
from rsovlib.errors import InputError


def test_a_stretch_is_linear_and_clipped():
    stretch = Stretch((0, -10), (10, 10), "by hand")
    values = np.array([[[-1, 0, 5, 10, 11, np.nan]], [[-20, -10, 0, 10, 20, 0]]])
    np.testing.assert_array_equal(stretch(values), [[[0, 0], [0, 0], [128, 128], [255, 255], [255, 255], [0, 128]]])


def test_percentiles_of_valid_values_only():
    values = np.stack([np.arange(101.0), np.arange(101.0) ** 2])
    values[:, -1] = 1e9
    found = percentile_stretch(values, np.arange(101) < 100, (10, 50), "the sample")
    np.testing.assert_allclose(found.low, np.percentile(values[:, :100], 10, axis=1))
    np.testing.assert_allclose(found.high, np.percentile(values[:, :100], 50, axis=1))
    assert found.rule == "10-50 % of the whole scene's valid pixels, band by band (the sample)"
    for percentiles in ((50, 50), (-1, 90), (2, 101)):
        with pytest.raises(InputError, match="must ascend"):
            percentile_stretch(values, np.ones(101, bool), percentiles)


@pytest.fixture
def wide(geotiff):
    """A scene (3, 240, 400) uint16 that grows brighter from west to east, larger than the sample of these tests."""
    values = np.linspace(0, 10_000, 400) + np.random.default_rng(0).normal(0, 50, (3, 240, 400))
    return geotiff("wide.tif", np.clip(values, 1, None).astype("uint16"), tiled=True, blockxsize=64, blockysize=64)


def test_each_window_is_shown_with_the_stretch_of_the_whole_scene(wide, monkeypatch):
    monkeypatch.setattr(source, "SAMPLE_SIDE", 100)
    with open_scene(wide) as scene:
        whole, stretch = scene.read_rgb(), scene.stretch
        assert stretch.rule.endswith("(60 x 100 of 240 x 400 pixels, evenly spread)")
        assert scene.profile["stretch"] == stretch.rule
    for window in (Window(0, 0, 50, 60), Window(333, 100, 50, 60)):
        with open_scene(wide) as scene:  # opened anew, and asked for nothing but this window
            np.testing.assert_array_equal(scene.read_rgb(window), whole[window.toslices()])
            assert scene.stretch == stretch


def test_overviews_serve_where_there_are_some(wide, monkeypatch):
    monkeypatch.setattr(source, "SAMPLE_SIDE", 100)
    with open_scene(wide) as scene:
        without = scene.stretch
    with open_raster(wide, "r+") as target:
        target.build_overviews([2, 4], Resampling.average)
    reads = []
    real = source.BandReader._values

    def watched(self, window, shape):
        reads.append((window, shape))
        return real(self, window, shape)

    monkeypatch.setattr(source.BandReader, "_values", watched)
    with open_scene(wide) as scene:
        with_overviews = scene.stretch
        assert with_overviews.rule.endswith("(60 x 100 of 240 x 400 pixels, of the overviews)")
    assert reads == [(None, (60, 100))]  # one decimated read, and nothing at full resolution
    np.testing.assert_allclose(with_overviews.low, without.low, atol=150)
    np.testing.assert_allclose(with_overviews.high, without.high, atol=150)
    with open_scene(wide) as scene:
        assert scene.stretch == with_overviews


def test_the_sample_of_a_large_scene_is_small(geotiff, monkeypatch):
    """No overviews, and still only the sample is held, besides GDAL's own cache of bounded size."""
    import tracemalloc

    path = geotiff("large.tif", np.broadcast_to(np.arange(3000, dtype="uint16"), (3, 2000, 3000)), tiled=True)
    monkeypatch.setattr(source, "SAMPLE_SIDE", 128)
    with rasterio.Env(GDAL_CACHEMAX=8), open_scene(path) as scene:
        tracemalloc.start()
        stretch = scene.stretch
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    np.testing.assert_allclose(stretch.low + stretch.high, [60] * 3 + [2940] * 3, atol=25)
    assert peak < 3 * 2000 * 3000 * 2 / 20
