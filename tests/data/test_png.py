"""A PNG that was cut short is refused before GDAL makes black rows of what is missing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from rsovlib.data._png import require_whole_png
from rsovlib.data.reader import open_scene
from rsovlib.data.source import read_raster
from rsovlib.errors import RasterError


@pytest.fixture
def png(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 31, 3), dtype=np.uint8)).save(path)
    return path


def test_whole_files_pass(png):
    require_whole_png(png)
    content = png.read_bytes()
    png.write_bytes(content + b"something after the end")
    require_whole_png(png)
    assert read_raster(png).values.shape == (3, 37, 31)


def test_every_cut_is_found(png):
    content = png.read_bytes()
    for length in (8, 20, 40, 60, len(content) // 2, len(content) - 12, len(content) - 1):
        png.write_bytes(content[:length])
        with pytest.raises(RasterError, match="is cut short"):
            require_whole_png(png)


def test_readers_refuse_it(png):
    png.write_bytes(png.read_bytes()[:-600])
    with pytest.raises(RasterError, match=r"a\.png is cut short"):
        read_raster(png)
    with pytest.raises(RasterError, match=r"a\.png is cut short"), open_scene(png):
        pass


def test_other_content_is_left_to_gdal(tmp_path):
    (tmp_path / "b.png").write_text("no PNG")
    require_whole_png(tmp_path / "b.png")
