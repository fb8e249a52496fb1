"""Small rasters for the tests of this folder."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

from rsovlib.data.geotiff import open_raster

sys.path.insert(0, str(Path(__file__).parent))  # for fakes.py, which several tests import

UTM = rasterio.CRS.from_epsg(32632)
TRANSFORM = rasterio.Affine(10, 0, 500_000, 0, -10, 5_600_000)


@pytest.fixture
def geotiff(tmp_path):
    """A function that writes (bands, H, W) as a GeoTIFF of that name into the test's folder, and gives its path."""

    def write(name, values, *, crs=UTM, transform=TRANSFORM, descriptions=(), mask=None, colormap=None, **profile):
        count, height, width = values.shape
        shape = {"count": count, "height": height, "width": width, "dtype": values.dtype}
        path = tmp_path / name
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            open_raster(path, "w", driver="GTiff", crs=crs, transform=transform, **shape, **profile) as target,
        ):
            if colormap is not None:
                target.write_colormap(1, colormap)
            target.write(values)
            for band, text in enumerate(descriptions, start=1):
                target.set_band_description(band, text)
            if mask is not None:
                target.write_mask(mask)
        return path

    return write


@pytest.fixture
def ground():
    """A smooth field (90, 80) float64 of about 0 to 1, by map coordinates in pixels of TRANSFORM: sampled anywhere."""

    def sample(column, row):
        return 0.5 + 0.25 * np.sin(column / 7) + 0.25 * np.cos(row / 9 + column / 15)

    return sample


@pytest.fixture(scope="session")
def fake_of(tmp_path_factory):
    """A function that gives a tiny copy of a dataset in one of its layouts; read it, but do not change it."""
    import fakes

    made = {}

    def make(name, layout_name=None):
        if (name, layout_name) not in made:
            made[name, layout_name] = fakes.make_fake(tmp_path_factory.mktemp("fake"), name, layout_name)
        return made[name, layout_name]

    return make
