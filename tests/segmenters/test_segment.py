"""`rsovlib.segment`: every kind of image, georeference and nodata, files out; and what it refuses."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

import rsovlib
from rsovlib.data.scenes import make_scene
from rsovlib.errors import InputError, OutputError, RasterError, WeightsError
from rsovlib.segmenters import SDCI, SDCIConfig, Segmenter, ValuePath, make_segmenter

CLASSES = ["water, river", "forest, trees", "buildings, rooftops"]
PIXEL = 0.5
PLACE = rasterio.Affine(PIXEL, 0, 356000, 0, -PIXEL, 5645000)


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    """A simulated scene of (56, 40) pixels."""
    return np.ascontiguousarray(make_scene(64, seed=3).optical[:56, :40])


@pytest.fixture(scope="module")
def geotiff(picture: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a place on the Earth; its first 6 rows are nodata."""
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    pixels = np.maximum(picture, 1).transpose(2, 0, 1)
    pixels[:, :6] = 0
    profile = {"driver": "GTiff", "width": 40, "height": 56, "count": 3, "dtype": "uint8", "nodata": 0}
    with rasterio.open(path, "w", crs="EPSG:32632", transform=PLACE, **profile) as file:
        file.write(pixels)
    return path


def test_numpy_and_torch_and_a_png_agree(picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / "scene.png")
    plain = rsovlib.segment(picture, CLASSES)
    tensor = rsovlib.segment(torch.from_numpy(picture).permute(2, 0, 1), CLASSES)
    from_file = rsovlib.segment(tmp_path / "scene.png", "; ".join(CLASSES))
    for other in (tensor, from_file):
        np.testing.assert_array_equal(plain.probabilities, other.probabilities)
        assert other.classes == ["water", "forest", "buildings"]
        assert other.georeference is None
        assert other.valid is None
    assert plain.labels.shape == (56, 40)
    np.testing.assert_allclose(plain.probabilities.sum(axis=0), 1, atol=1e-5)
    assert plain.settings["method"] == "sdci"
    assert plain.settings["clip"].startswith("rsov-tiny-clip")


def test_a_geotiff_keeps_its_place_and_its_holes(geotiff, tmp_path):
    result = rsovlib.segment(geotiff, CLASSES)
    assert result.labels.shape == (56, 40)
    assert result.georeference is not None
    assert result.georeference.crs.to_epsg() == 32632
    assert result.georeference.transform == PLACE
    assert result.valid is not None
    assert not result.valid[:6].any()
    assert result.valid[6:].all()

    result.to_geotiff(tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as file:
        assert (file.crs, file.transform) == (result.georeference.crs, result.georeference.transform)
        assert file.nodata == 255
        stored = file.read(1)
    assert (stored[:6] == 255).all()
    np.testing.assert_array_equal(stored[6:], result.labels[6:])

    regions = result.to_geodataframe()
    assert isinstance(regions, geopandas.GeoDataFrame)
    assert regions.crs.to_epsg() == 32632
    # The polygons of a class cover exactly its pixels.
    for number, name in enumerate(result.classes):
        area = regions.loc[regions["class_name"] == name].area.sum()
        assert area == pytest.approx((result.labels[6:] == number).sum() * PIXEL**2)
    assert regions.total_bounds.tolist() == [356000, 5645000 - 56 * PIXEL, 356000 + 40 * PIXEL, 5645000 - 6 * PIXEL]


def test_a_plain_image_goes_out_without_a_place(picture, tmp_path):
    result = rsovlib.segment(picture, CLASSES, method="valuepath")
    result.to_geotiff(tmp_path / "map.tif")
    with pytest.warns(NotGeoreferencedWarning):
        file = rasterio.open(tmp_path / "map.tif")
    with file:
        assert file.crs is None
        np.testing.assert_array_equal(file.read(1), result.labels)
    assert result.to_geodataframe().area.sum() == pytest.approx(56 * 40)


def test_the_picture_of_a_result(picture):
    from matplotlib import pyplot as plt

    figure = rsovlib.segment(picture, CLASSES, method="valuepath").plot()
    assert len(figure.axes) >= 3
    plt.close(figure)


@pytest.mark.parametrize(("method", "kind"), [("sdci", SDCI), ("sdci-paper", SDCI), ("valuepath", ValuePath)])
def test_methods(picture, method, kind):
    segmenter = make_segmenter(method)
    assert isinstance(segmenter, kind)
    assert isinstance(segmenter, Segmenter)
    result = segmenter(picture, CLASSES)
    assert result.settings == segmenter.settings()
    assert segmenter.memory_needed(512, 512, 3) > segmenter.memory_needed(64, 64, 3) > 0


def test_the_embedded_profile_runs_at_the_sizes_of_its_models():
    official, paper = make_segmenter("sdci"), make_segmenter("sdci-paper")
    assert official.config == SDCIConfig.embedded()
    assert paper.config.centre == "global_mean"
    assert paper.config.window == official.config.window


@pytest.mark.parametrize("profile", ["embedded", "full"])
def test_an_embedded_clip_brings_its_settings_however_it_is_asked_for(profile):
    named = make_segmenter(profile=profile, clip="rsov-tiny-clip-s1", dino="rsov-tiny-dino-s1", device="cpu")
    assert named.config == SDCIConfig.embedded()


def test_options_reach_the_method(picture):
    segmenter = make_segmenter("sdci", beta=0.3, w_cross=0.02, window=None)
    assert (segmenter.config.beta, segmenter.config.w_cross, segmenter.config.window) == (0.3, 0.02, None)
    assert segmenter.config.dino_scale == SDCIConfig.embedded().dino_scale
    assert make_segmenter("valuepath", logit_scale=20.0).logit_scale == 20.0
    free = rsovlib.segment(picture, CLASSES, cscp=False)
    assert "superpixels" not in free.stages


def test_other_networks_bring_the_official_sizes(parity_folder, cut_case, tmp_path):
    file = cut_case.inflate(parity_folder / "clip.npz", tmp_path / "clip.safetensors")
    segmenter = make_segmenter("valuepath", clip_weights=file, device="cpu")
    assert segmenter.clip_size == 512
    assert segmenter.clip.weights == "clip.safetensors"


def test_a_large_image_is_windowed():
    """The embedded models see windows of 256 pixels; the blended answer is one map without holes."""
    scene = make_scene(288, seed=5)
    result = rsovlib.segment(scene.optical[:270], CLASSES, method="valuepath")
    assert result.labels.shape == (270, 288)
    np.testing.assert_allclose(result.probabilities.sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"method": "sdcii"}, InputError, "method.*Did you mean 'sdci'"),
        ({"profile": "embeded"}, InputError, "profile.*Did you mean 'embedded'"),
        ({"betta": 0.1}, InputError, "betta.*Did you mean 'beta'"),
        ({"method": "valuepath", "beta": 0.1}, InputError, "option of valuepath"),
        ({"clip": "rsov-tiny-clap"}, InputError, "Did you mean 'rsov-tiny-clip'"),
        ({"dino": "vit_base_patch14_dinov"}, InputError, "DINO model"),
        ({"clip_weights": "nowhere.safetensors"}, WeightsError, "nowhere.safetensors"),
        ({"device": "gpu"}, InputError, "device 'gpu'"),
        ({"sar": np.zeros((8, 8))}, InputError, "radar"),
        ({"profile": "full"}, WeightsError, "ViT-L-14|vit_large|CLIP"),
    ],
)
def test_what_can_not_be_had(picture, options, kind, words, monkeypatch, tmp_path):
    monkeypatch.setenv("RSOV_CACHE", str(tmp_path))
    with pytest.raises(kind, match=words) as caught:
        rsovlib.segment(picture, CLASSES, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("classes", [[], "", ["water", "water"], [" , "]])
def test_classes_that_are_none(picture, classes):
    with pytest.raises(InputError):
        rsovlib.segment(picture, classes)


def test_files_that_are_no_images(tmp_path):
    (tmp_path / "words.tif").write_text("not a raster")
    for path in (tmp_path / "words.tif", tmp_path / "absent.tif"):
        with pytest.raises(RasterError, match=path.name):
            rsovlib.segment(path, CLASSES)


def test_a_map_that_can_not_be_written(picture, tmp_path):
    result = rsovlib.segment(picture, CLASSES, method="valuepath")
    (tmp_path / "words.txt").write_text("a file, not a folder")
    with pytest.raises(OutputError):
        result.to_geotiff(tmp_path / "words.txt" / "map.tif")
    assert [path.name for path in tmp_path.iterdir()] == ["words.txt"]
