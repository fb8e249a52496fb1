"""Tiles that go through the networks together get what they get by themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from rsovlib.data.raster import segment_scene
from rsovlib.data.scene_memory import batch_size
from rsovlib.data.scenes import make_scene
from rsovlib.errors import InputError
from rsovlib.segmenters import SDCI, SDCIConfig, ValuePath

CLASSES = ["water, river", "forest, trees", "buildings, rooftops"]
TOLERANCE = 1e-5
"""Of a probability: sums of a batch are rounded in another order."""


@pytest.fixture(scope="module")
def pictures() -> list[NDArray[np.uint8]]:
    """Three images of 48 x 40 pixels."""
    whole = make_scene(128, seed=4).optical
    return [np.ascontiguousarray(whole[row : row + 48, 30:70]) for row in (0, 40, 80)]


@pytest.fixture(params=["sdci", "valuepath", "renormalised", "raw mean"])
def segmenter(request, tiny_clip, tiny_dino):
    changes = {"renormalised": {"dino_rows": "renormalised"}, "raw mean": {"clip_attention": "raw_mean"}}
    if request.param == "valuepath":
        return ValuePath(tiny_clip, clip_size=48)
    return SDCI(tiny_clip, tiny_dino, SDCIConfig.official(clip_size=48, dino_size=56, **changes.get(request.param, {})))


def assert_alike(one, other):
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=TOLERANCE)
    assert (one.classes, one.settings) == (other.classes, other.settings)
    assert set(one.stages) == set(other.stages)
    assert {name: np.shape(stage) for name, stage in one.stages.items()} == {
        name: np.shape(stage) for name, stage in other.stages.items()
    }


def test_a_batch_gives_what_each_image_gives(segmenter, pictures):
    for one, other in zip(segmenter.segment_batch(pictures, CLASSES), map_of(segmenter, pictures), strict=True):
        assert_alike(one, other)


def map_of(segmenter, pictures):
    return [segmenter(picture, CLASSES) for picture in pictures]


def test_images_of_several_sizes_and_windows(tiny_clip, tiny_dino, pictures):
    mixed = [pictures[0], pictures[1][:40]]
    whole = SDCI(tiny_clip, tiny_dino, SDCIConfig.official(clip_size=48, dino_size=56))
    cut = replace(whole, config=replace(whole.config, window=32, overlap=8))
    for segmenter, images in ((whole, mixed), (cut, pictures[:2])):
        for one, other in zip(segmenter.segment_batch(images, CLASSES), map_of(segmenter, images), strict=True):
            assert_alike(one, other)
    for one, other in zip(
        cut.examine_batch(pictures, CLASSES), [cut.examine(p, CLASSES) for p in pictures], strict=True
    ):
        for name in one:
            np.testing.assert_allclose(one[name], other[name], atol=TOLERANCE, rtol=1e-4)


@pytest.mark.parametrize("statistics", ["scene", "tile"])
def test_a_scene_in_batches_is_the_same_scene(tmp_path, tiny_clip, tiny_dino, statistics):
    import rasterio

    path = tmp_path / "scene.tif"
    values = np.moveaxis(make_scene(128, seed=6).optical[:72, :80], -1, 0)
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5.6e6)}
    with rasterio.open(path, "w", driver="GTiff", width=80, height=72, count=3, dtype="uint8", **place) as file:
        file.write(values)
    segmenter = SDCI(tiny_clip, tiny_dino, SDCIConfig.official(clip_size=48, dino_size=56))
    found = []
    for batch in (1, 4):
        out = tmp_path / f"{batch}.tif"
        report = segment_scene(
            path, CLASSES, out, segmenter=segmenter, tile=40, overlap=16, batch=batch, statistics=statistics,
            progress=False, probabilities=tmp_path / f"{batch}.p.tif",
        )  # fmt: skip
        with rasterio.open(out) as labels, rasterio.open(tmp_path / f"{batch}.p.tif") as probabilities:
            found.append((labels.read(1), probabilities.read(), report.tiles))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_allclose(found[0][1], found[1][1], atol=2 * TOLERANCE)
    assert found[0][2] == found[1][2] > 4


class _Device:
    def __init__(self, kind):
        self.type = kind


class _Batched:
    def __init__(self, kind):
        self.device = _Device(kind)

    def segment_batch(self, images, classes): ...


@pytest.mark.parametrize(
    ("kind", "room", "tiles", "workers", "asked", "elsewhere", "expected"),
    [
        ("cpu", 100, 50, 1, None, False, 1),  # not worth it there
        ("cpu", 100, 50, 1, 8, False, 8),
        ("cpu", 9, 50, 1, 8, False, 4),  # half of what would fit
        ("cpu", 0.1, 50, 1, 8, False, 1),
        ("cuda", 100, 500, 1, None, False, 16),
        ("cuda", 10, 500, 1, None, False, 5),
        ("cuda", 100, 6, 2, None, False, 3),  # no worker without work
        ("cuda", 100, 500, 1, None, True, 1),  # nothing is known of other machines
        ("cuda", 2, 500, 1, 8, True, 8),
    ],
)
def test_how_many_tiles_go_together(kind, room, tiles, workers, asked, elsewhere, expected):
    assert batch_size(_Batched(kind), room, tiles, workers, asked=asked, elsewhere=elsewhere) == expected
    assert batch_size(object(), room, tiles, workers, asked=asked, elsewhere=elsewhere) == 1


def test_precision(tiny_clip, tiny_dino, pictures):
    exact = ValuePath(tiny_clip, clip_size=48)
    half = replace(exact, precision="bfloat16")
    assert half.settings()["precision"] == "bfloat16"
    one, other = exact(pictures[0], CLASSES).probabilities, half(pictures[0], CLASSES).probabilities
    assert 0 < np.abs(one - other).max() < 0.1
    rough = SDCI(tiny_clip, tiny_dino, SDCIConfig.official(clip_size=48, dino_size=56, precision="bfloat16"))
    assert rough(pictures[0], CLASSES).probabilities.dtype == np.float32
    with pytest.raises(InputError, match="precision on the cpu"):
        replace(exact, precision="float16")
