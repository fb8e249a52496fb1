"""Trained networks through the package's front doors: arrays, files, whole scenes with radar over a part of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin

from rsovlib.backbones import load_clip, load_dino
from rsovlib.data.raster import segment_scene
from rsovlib.fusion.config import FusionConfig
from rsovlib.fusion.network import CostAggregationNetwork
from rsovlib.fusion.weights import save_fusion
from rsovlib.segmenters import segment

CLASSES = ["water, river", "forest", "farmland"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of the embedded size that was trained for no step at all."""
    torch.manual_seed(71)
    clip, dino = load_clip(device="cpu"), load_dino(device="cpu")
    network = CostAggregationNetwork(FusionConfig.embedded(size=48), clip, dino, dino)
    with torch.no_grad():
        network.decoder.head.weight.mul_(20)
    file = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    save_fusion(file, network, half=True)
    return file


def written(path: Path, values: np.ndarray, left: float) -> Path:
    """A raster of 10 m pixels whose left edge lies ``left`` metres from the zone's middle."""
    profile = {"driver": "GTiff", "dtype": values.dtype, "count": len(values), "crs": "EPSG:32633"}
    height, width = values.shape[1:]
    with rasterio.open(
        path,
        "w",
        height=height,
        width=width,
        transform=from_origin(500_000 + left, 5_000_000, 10, 10),
        nodata=0,
        **profile,
    ) as out:
        out.write(values)
    return path


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, Path]:
    """Optical (90, 130), and radar over its left half."""
    rng = np.random.default_rng(72)
    optical = rng.integers(1, 256, (3, 90, 130), dtype=np.uint8)
    radar = rng.integers(1, 256, (1, 90, 65), dtype=np.uint8)
    return written(tmp_path / "optical.tif", optical, 0), written(tmp_path / "sar.tif", radar, 0)


def test_a_scene_with_radar_over_a_part_of_it(weights: Path, scene: tuple[Path, Path], tmp_path: Path) -> None:
    optical, sar = scene
    options = {"method": "mm-ovseg", "weights": str(weights), "device": "cpu", "progress": False, "overlap": 12}
    maps = {}
    for name, radar in (("with", sar), ("without", None)):
        out = tmp_path / f"{name}.tif"
        segment_scene(optical, CLASSES, out, sar=radar, tile=64, **options)
        with rasterio.open(out) as result:
            maps[name] = result.read(1)
    assert maps["with"].shape == (90, 130)
    assert set(np.unique(maps["with"])) <= {0, 1, 2}
    # Beyond the radar (and a window's width) nothing differs; below it, something does.
    np.testing.assert_array_equal(maps["with"][:, 120:], maps["without"][:, 120:])
    assert (maps["with"][:, :60] != maps["without"][:, :60]).any()


def test_files_and_arrays(weights: Path, scene: tuple[Path, Path]) -> None:
    optical, sar = scene
    from_files = segment(optical, CLASSES, method="mm-ovseg", sar=sar, weights=str(weights), device="cpu")
    assert from_files.georeference is not None
    image = np.random.default_rng(73).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    from_arrays = segment(image, CLASSES, method="mm-ovseg", sar=image[:, :, 0], weights=str(weights), device="cpu")
    assert from_arrays.labels.shape == (50, 70)
    assert from_arrays.settings["weights"] == "untrained.safetensors"
