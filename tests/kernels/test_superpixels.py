"""Superpixels: scikit-image's own labels, and what holds for any partition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from skimage.io import imread
from skimage.segmentation import felzenszwalb
from skimage.util import img_as_float64

from rsovlib.errors import InputError
from rsovlib.kernels import compute_superpixels, felzenszwalb_superpixels, opencv_superpixels, slic_superpixels
from rsovlib.kernels import superpixels as module

# scikit-image warns of what is meant here: more than three bands.
pytestmark = pytest.mark.filterwarnings("ignore:Got image with third dimension")


def textured(height: int, width: int, bands: int, kind: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = 2 * gaussian_filter(rng.standard_normal((height, width, bands)), (2, 2, 0))
    values += 0.2 * rng.standard_normal(values.shape)
    if kind == "uint8":
        return np.clip(60 * values + 128, 0, 255).astype(np.uint8)
    if kind == "uint16":
        return np.clip(9000 * values + 30_000, 0, 65_535).astype(np.uint16)
    return values.astype(kind)


@pytest.fixture(params=[256, 16])
def tile(request, monkeypatch) -> int:
    """The real size of tiles, in which a test's image fits whole, and a small one, which cuts it into many."""
    monkeypatch.setattr(module, "_TILE", request.param)
    return request.param


@pytest.mark.usefixtures("tile")
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("bands", [1, 3, 8, 20])
@pytest.mark.parametrize("shape", [(37, 31), (1, 40), (40, 1), (120, 97), (1, 1)])
def test_labels_are_scikit_image_s(shape, bands, kind):
    image = textured(*shape, bands, kind)
    for scale, sigma, min_size in ((40, 0.8, 20), (300, 2.0, 5), (1, 0.4, 0)):
        ours = felzenszwalb_superpixels(image, scale=scale, sigma=sigma, min_size=min_size)
        assert ours.dtype == np.int32
        np.testing.assert_array_equal(ours, felzenszwalb(image, scale=scale, sigma=sigma, min_size=min_size))


def test_the_released_code_s_superpixels(shared, expected):
    image = imread(shared / "parity" / "sdci_case_a" / "case.png")
    np.testing.assert_array_equal(felzenszwalb_superpixels(image), expected["superpixels"])


def reference(image: np.ndarray, scale: float, min_size: int) -> np.ndarray:
    """The method without smoothing, edge by edge in Python, ties in the order of a stable sort."""
    bands = np.atleast_3d(img_as_float64(image))
    height, width = bands.shape[:2]
    steps = [((0, 0), (0, 1)), ((0, 0), (1, 0)), ((0, 0), (1, 1)), ((1, 0), (0, 1))]
    edges = []
    for (dy0, dx0), (dy1, dx1) in steps:
        for y in range(height):
            for x in range(width):
                u, v = (y + dy0, x + dx0), (y + dy1, x + dx1)
                if max(u[0], v[0]) < height and max(u[1], v[1]) < width:
                    cost = np.sqrt(((bands[v] - bands[u]) ** 2).sum())
                    edges.append((cost, u[0] * width + u[1], v[0] * width + v[1]))
    edges.sort(key=lambda edge: edge[0])
    member = {p: {p} for p in range(height * width)}
    inner = dict.fromkeys(member, 0.0)
    root = list(range(height * width))

    def join(a: int, b: int) -> int:
        member[a] |= member.pop(b)
        for p in member[a]:
            root[p] = a
        return a

    for cost, u, v in edges:
        a, b = root[u], root[v]
        if a == b:
            continue
        if cost < min(inner[s] + scale / 255.0 / len(member[s]) for s in (a, b)):
            inner[join(a, b)] = cost
    for _, u, v in edges:
        a, b = root[u], root[v]
        if a != b and min(len(member[a]), len(member[b])) < min_size:
            join(a, b)
    return np.unique([min(member[r]) for r in root], return_inverse=True)[1].reshape(height, width)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**31), st.sampled_from([0, 1, 5, 30]))
def test_ties_follow_the_order_of_the_edges(height, width, levels, seed, min_size):
    # Few levels: most costs are equal, where only a stable order makes the result defined.
    image = np.random.default_rng(seed).integers(0, levels, (height, width)).astype(np.uint8) * 9
    expected = reference(image, 30, min_size)
    for size in (256, 5, 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_TILE", size)
            ours = felzenszwalb_superpixels(image, scale=30, sigma=0, min_size=min_size)
        np.testing.assert_array_equal(ours, expected)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(20, 70),
    st.integers(20, 70),
    st.integers(0, 2**31),
    st.sampled_from([0.0, 1.0, 40.0, 400.0, 3000.0]),
    st.integers(3, 30),
    st.booleans(),
)
def test_tiles_change_nothing(height, width, seed, scale, size, nodata):
    image = textured(height, width, 3, "float32", seed)
    if nodata:  # a large region of cost 0 that crosses tiles
        image[: height // 2, width // 3 :] = 0
    expected = felzenszwalb_superpixels(image, scale=scale, min_size=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_TILE", size)
        np.testing.assert_array_equal(felzenszwalb_superpixels(image, scale=scale, min_size=7), expected)


def test_real_tiles_of_a_larger_image():
    image = textured(530, 271, 3, "uint8")
    image[100:300, 60:150] = 255
    ours = felzenszwalb_superpixels(image)
    np.testing.assert_array_equal(ours, felzenszwalb(image, scale=40, sigma=0.8, min_size=20))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 25), st.integers(1, 25), st.integers(0, 2**31), st.sampled_from([1.0, 40.0, 400.0]))
def test_any_partition(height, width, seed, scale):
    image = textured(height, width, 3, "float32", seed)
    labels = felzenszwalb_superpixels(image, scale=scale, min_size=7)
    values, first, counts = np.unique(labels, return_index=True, return_counts=True)
    assert values.tolist() == list(range(labels.max() + 1))
    assert (np.diff(first) > 0).all()  # numbered in the order of first pixels
    assert counts.min() >= min(7, labels.size)


@pytest.mark.usefixtures("tile")
def test_costs_that_float32_cannot_tell_apart_are_still_sorted():
    # A ramp whose steps differ by less than float32 resolves, longer than the short sort's limit.
    steps = 0.1 + 1e-10 * np.random.default_rng(0).permutation(200)
    image = np.cumsum(steps)[None, :]
    for scale in (20.0, 30.0):
        ours = felzenszwalb_superpixels(image, scale=scale, sigma=0, min_size=0)
        np.testing.assert_array_equal(ours, felzenszwalb(image, scale=scale, sigma=0, min_size=0))


def test_torch_in_torch_out(image):
    labels = felzenszwalb_superpixels(torch.from_numpy(image))
    assert labels.dtype == torch.int32
    np.testing.assert_array_equal(labels.numpy(), felzenszwalb_superpixels(image))


@pytest.mark.parametrize("method", ["felzenszwalb", "slic", "opencv-graph", "opencv-slico"])
def test_every_method_gives_a_partition(image, method):
    if method.startswith("opencv"):
        cv2 = pytest.importorskip("cv2", reason="OpenCV is optional")
        if not hasattr(cv2, "ximgproc"):
            pytest.skip("this OpenCV has no contributed modules")
    labels = compute_superpixels(image, method)
    assert labels.shape == (37, 31)
    assert labels.dtype == np.int32
    assert sorted(np.unique(labels)) == list(range(labels.max() + 1))
    assert labels.max() >= 1


def test_options_reach_the_method(image):
    few = slic_superpixels(image, segments=4)
    assert few.max() < slic_superpixels(image, segments=60).max()
    np.testing.assert_array_equal(compute_superpixels(image, "slic", segments=4), few)


def test_a_missing_opencv_is_said(image, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(InputError, match="opencv-contrib-python-headless"):
        opencv_superpixels(image)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": np.zeros((0, 4, 3))}, "image must be"),
        ({"image": np.zeros(4)}, "image must be"),
        ({"image": np.full((4, 4), np.nan)}, "NaN"),
        ({"image": np.array([["a"]])}, "numbers"),
        ({"scale": -1}, "scale"),
        ({"sigma": np.inf}, "sigma"),
        ({"min_size": -1}, "min_size"),
    ],
)
def test_images_that_cannot_be(change, words):
    with pytest.raises(InputError, match=words):
        felzenszwalb_superpixels(**({"image": np.zeros((4, 4, 3))} | change))


def test_unknown_methods_are_refused(image):
    with pytest.raises(InputError, match="Did you mean 'slic'"):
        compute_superpixels(image, "slick")
    with pytest.raises(InputError, match="OpenCV superpixel method"):
        opencv_superpixels(image, "mesh")
    with pytest.raises(InputError, match="uint8"):
        opencv_superpixels(image.astype(float))
