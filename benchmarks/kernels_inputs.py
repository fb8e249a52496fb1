"""Inputs of the kernels' benchmarks: synthetic maps in the three regimes that behave differently, and real ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from rsovlib.kernels import edge_weights, felzenszwalb_superpixels

SYNTHETIC = ("sharp", "flat", "thresholded")
REGIMES = (*SYNTHETIC, "embedded")
CLASSES = ("water", "forest", "cropland", "buildings", "roads", "bare soil")  # of the real maps


@dataclass(frozen=True)
class Inputs:
    """Two probability maps (K, H, W) and edge weights, all float32."""

    p_clip: np.ndarray
    p_dino: np.ndarray
    wx: np.ndarray
    wy: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return self.p_clip, self.p_dino, self.wx, self.wy


def land_cover(size: int, classes: int, seed: int) -> np.ndarray:
    """(size, size) labels in smooth patches some 40 pixels across."""
    rng = np.random.default_rng(seed)
    fields = [gaussian_filter(rng.standard_normal((size, size)), 22, mode="wrap") for _ in range(classes)]
    return np.argmax([field / field.std() for field in fields], axis=0)


def texture(labels: np.ndarray, seed: int) -> np.ndarray:
    """(H, W, 3) uint8: a colour for each class, coarse and fine variation, noise."""
    rng = np.random.default_rng(seed)
    colours = rng.uniform(40, 215, (labels.max() + 1, 3))
    layers = [gaussian_filter(rng.standard_normal(labels.shape), width) for width in (1.2, 6.0)]
    variation = sum(9 * layer / layer.std() for layer in layers)
    noise = rng.normal(0, 4, (*labels.shape, 3))
    return np.clip(colours[labels] + variation[..., None] + noise, 0, 255).astype(np.uint8)


def maps(labels: np.ndarray, classes: int, regime: str, blur: float, seed: int) -> np.ndarray:
    """A probability map (K, H, W) as a model of coarse tokens would give it."""
    rng = np.random.default_rng(seed)
    size = labels.shape[0]
    tokens = max(2, size // 14)
    result = np.empty((classes, size, size), np.float32)
    for k in range(classes):
        base = gaussian_filter((labels == k).astype(float), blur)
        coarse = zoom(rng.standard_normal((tokens, tokens)), size / tokens, order=1)[:size, :size]
        fine = gaussian_filter(rng.standard_normal((size, size)), 1.0)
        fine /= fine.std()
        scale = {"sharp": (5.0, 1.2, 0.6), "flat": (0.7, 0.15, 0.03), "thresholded": (0.8, 0.12, 0.024)}[regime]
        result[k] = scale[0] * base + scale[1] * coarse + scale[2] * fine
    if regime == "thresholded":  # activations in [0, 1], small ones set to zero
        low, high = (edge(axis=(1, 2), keepdims=True) for edge in (result.min, result.max))
        result = (result - low) / (high - low)
        result[result < 0.3] = 0
        result = np.clip(result, 1e-6, 1)
    else:
        if regime == "flat":  # activations in [0, 1] put through a softmax
            result = (result - result.min()) / (result.max() - result.min())
        result = np.exp(result - result.max(axis=0))
    return result / result.sum(axis=0)


def make_inputs(regime: str, classes: int, size: int, seed: int = 0) -> Inputs:
    """A problem of a regime; larger than 1024 it is tiled by mirroring, which changes no iteration count."""
    if regime == "embedded":
        if classes != len(CLASSES):
            raise ValueError(f"The embedded pipeline's maps have {len(CLASSES)} classes here, not {classes}.")
        return embedded_inputs(size)
    if size > 1024:
        small = make_inputs(regime, classes, 1024, seed)
        pad = ((0, 0), (0, size - 1024), (0, size - 1024))
        wide = [np.pad(p, pad, mode="symmetric") for p in small.arrays[:2]]
        weights = [
            np.pad(small.wx, ((0, size - 1024), (0, size - 1024)), mode="symmetric"),
            np.pad(small.wy, ((0, size - 1024), (0, size - 1024)), mode="symmetric"),
        ]
        return Inputs(*wide, *weights)
    labels = land_cover(size, classes, seed)
    superpixels = felzenszwalb_superpixels(texture(labels, seed + 1))
    wx, wy = edge_weights(superpixels)
    return Inputs(maps(labels, classes, regime, 9, seed + 2), maps(labels, classes, regime, 6, seed + 3), wx, wy)


@cache
def embedded_inputs(size: int) -> Inputs:
    """What the solver is given by SDCI with the embedded models, for a simulated scene."""
    import torch

    from rsovlib.data.scenes import make_scene
    from rsovlib.segmenters import make_segmenter

    image = make_scene(size, seed=1).optical
    sdci = make_segmenter("sdci", profile="embedded", device="cpu")
    stages = sdci(image, list(CLASSES)).stages
    first, second = (
        sdci._probabilities(torch.from_numpy(stages[name])).numpy()  # type: ignore[attr-defined]
        for name in ("clip_map", "dino_map")
    )
    return Inputs(first, second, *edge_weights(felzenszwalb_superpixels(image)))
