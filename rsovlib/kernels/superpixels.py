"""Superpixels: Felzenszwalb's graph segmentation, and two others through the libraries that do them well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rsovlib.errors import InputError, unknown_name
from rsovlib.kernels._arrays import like, require, to_numpy

_TILE = 256  # pixels a side: a tile's data stay in the caches, and few of its edges must wait for other tiles


def felzenszwalb_superpixels(image: Any, scale: float = 40, sigma: float = 0.8, min_size: int = 20) -> Any:
    """Partition of an image by Felzenszwalb and Huttenlocher's graph method (doi:10.1023/B:VISI.0000022288.19776.77).

    Pixels are nodes, the distances between the bands of 8-neighbours are costs.  Edges are taken by rising cost; one
    joins two segments if its cost lies below c + scale / size of both, where c is a segment's costliest edge so far.
    Segments that are still too small are then joined to a neighbour, cheapest edge first.

    The labels are those of :func:`skimage.segmentation.felzenszwalb` with the same arguments, several times faster.
    Edges of exactly equal cost may go in another order: there scikit-image uses an unstable sort, whose result depends
    on the processor; here the order is fixed (right, down, down-right, up-right edges, each in raster order).  Such
    ties are common only in unsmoothed single-band images of few values.

    Args:
        image: (H, W, C) or (H, W), torch or NumPy; integers and booleans are scaled by their type's range, floats
            taken as they are.  Any number of bands; all count alike.
        scale: larger values favour larger segments; divided by 255, as scikit-image does.
        sigma: standard deviation of the Gaussian smoothing before the segmentation, in pixels; 0 leaves it out.
        min_size: segments with fewer pixels are joined to a neighbour.

    Returns:
        (H, W) int32, labels 0..M-1 in the order of each segment's first pixel, of the kind of ``image``.

    Raises:
        InputError: another shape, no pixel, 2^30 pixels or more, values that aren't finite, or parameters out of range.

    O(n) in the pixels but for the edges between tiles, which are sorted; some 80 bytes a pixel for three bands,
    and several times that for unsmoothed noise.
    """
    pixels = _checked_image(image, scale, sigma, min_size)
    require(pixels.shape[0] * pixels.shape[1] < 2**30, f"image has too many pixels for one call: {pixels.shape}.")
    weights = _half_gaussian(sigma) if sigma > 1e-15 else np.ones(1)
    return like(_felzenszwalb(pixels, weights, float(scale) / 255.0, int(min_size)), image)


def _felzenszwalb(
    pixels: np.ndarray[Any, Any], weights: np.ndarray[Any, Any], scale: float, min_size: int
) -> np.ndarray[Any, Any]:
    """The labels, from strips of rows that are smoothed and segmented in turn, and what is left between their tiles."""
    from skimage.util import img_as_float64

    from rsovlib.kernels import _felzenszwalb_numba as compiled

    height, width = pixels.shape[:2]
    radius = weights.size - 1
    rows = _TILE * -(-max(_TILE, 4 * radius) // _TILE)  # rows beyond the strip are smoothed twice: keep them few
    labels = np.empty((height, width), np.int32)
    size, limit, nodes = np.empty(labels.size, np.int32), np.empty(labels.size), 0
    scratch = np.empty((3, 4 * min(rows, height) * width), compiled.RECORD)
    edges: tuple[list[np.ndarray[Any, Any]], ...] = ([], [], [])
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        top = max(start - 1, 0)
        taken = compiled.mirrored_rows(top - radius, min(stop + 1, height) + radius, height)
        bands = np.ascontiguousarray(img_as_float64(pixels[taken]).transpose(2, 0, 1))
        if radius:
            bands = compiled.smooth(bands, weights)
        nodes, *counts = compiled.merge_strip(
            bands, top, start, stop, labels, scale, min_size, _TILE, size, limit, nodes, scratch
        )
        for kept, noted, count in zip(edges, scratch, counts, strict=True):
            kept.append(noted[:count].copy())
    compiled.finish(labels, size[:nodes], limit[:nodes], *map(np.concatenate, edges), scale, min_size)
    return labels


def _half_gaussian(sigma: float) -> np.ndarray[Any, Any]:
    """Weights 0..radius of the normalised Gaussian, cut at four standard deviations."""
    radius = int(4.0 * sigma + 0.5)
    weights = np.exp(-0.5 / (sigma * sigma) * np.arange(-radius, radius + 1) ** 2)
    return (weights / weights.sum())[radius:]


def _checked_image(image: Any, scale: float, sigma: float, min_size: int) -> np.ndarray[Any, Any]:
    pixels = to_numpy(image)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    require(pixels.ndim == 3 and pixels.size > 0, f"image must be (H, W, C) or (H, W), got {np.shape(image)}.")
    require(0 <= scale < np.inf, f"scale must be finite and not negative, got {scale}.")
    require(0 <= sigma < np.inf, f"sigma must be finite and not negative, got {sigma}.")
    require(min_size >= 0, f"min_size must not be negative, got {min_size}.")
    require(pixels.dtype.kind in "buif", f"image must hold numbers, got {pixels.dtype}.")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise InputError("image holds NaN or infinite values; fill the missing pixels before segmenting it.")
    return pixels


def slic_superpixels(image: Any, segments: int = 1500, compactness: float = 10.0, sigma: float = 0.0) -> Any:
    """SLIC superpixels through scikit-image (Achanta et al. 2012, doi:10.1109/TPAMI.2012.120).

    Compact cells of similar size: another partition than Felzenszwalb's, with other results downstream.

    Args:
        image: (H, W, C) or (H, W); three bands are compared in CIELAB.
        segments: how many segments to aim at.
        compactness: weight of distance in space against distance in colour.
        sigma: smoothing before the segmentation, in pixels.

    Returns:
        (H, W) int32, labels 0..M-1, of the kind of ``image``.

    Raises:
        InputError: as :func:`felzenszwalb_superpixels`.
    """
    from skimage.segmentation import slic

    pixels = _checked_image(image, 0, sigma, 0)
    require(segments >= 1, f"segments must be at least 1, got {segments}.")
    labels = slic(pixels, n_segments=segments, compactness=compactness, sigma=sigma, start_label=0, channel_axis=-1)
    return like(_contiguous(labels), image)


def opencv_superpixels(image: Any, method: str = "graph", **options: Any) -> Any:
    """Superpixels through OpenCV's contributed modules, where they are installed.

    Args:
        image: (H, W, 3) or (H, W), uint8.
        method: ``"graph"`` (Felzenszwalb's method; another partition than scikit-image's) or ``"slico"``.
        **options: for ``graph``: scale, sigma, min_size; for ``slico``: region_size.

    Returns:
        (H, W) int32, labels 0..M-1, of the kind of ``image``.

    Raises:
        InputError: OpenCV's contributed modules are missing, the method is unknown, or the image doesn't fit.
    """
    pixels = to_numpy(image)
    require(
        pixels.dtype == np.uint8 and pixels.ndim in (2, 3) and pixels.size > 0 and pixels.shape[2:] in ((), (3,)),
        f"OpenCV's superpixels take uint8 images (H, W, 3) or (H, W), got {pixels.dtype} {pixels.shape}.",
    )
    choices: dict[str, Callable[..., np.ndarray[Any, Any]]] = {
        "graph": _opencv_graph,
        "slico": _opencv_slico,
    }
    if method not in choices:
        raise unknown_name("OpenCV superpixel method", method, choices)
    cv2 = _opencv()
    labels: np.ndarray[Any, Any] = choices[method](cv2, np.ascontiguousarray(pixels), **options)
    return like(_contiguous(labels), image)


def _opencv() -> Any:
    """OpenCV with its contributed modules; both are optional, and most installations lack the second."""
    try:
        import cv2
    except ImportError as error:
        raise InputError("OpenCV isn't installed; install the package opencv-contrib-python-headless.") from error
    if not hasattr(cv2, "ximgproc"):
        raise InputError(
            "This OpenCV lacks its contributed modules; install opencv-contrib-python-headless in place of "
            "opencv-python or opencv-python-headless."
        )
    return cv2


def _opencv_graph(
    cv2: Any, pixels: np.ndarray[Any, Any], *, scale: float = 40, sigma: float = 0.8, min_size: int = 20
) -> np.ndarray[Any, Any]:
    segmenter = cv2.ximgproc.segmentation.createGraphSegmentation(sigma=sigma, k=scale, min_size=min_size)
    return segmenter.processImage(pixels)


def _opencv_slico(cv2: Any, pixels: np.ndarray[Any, Any], *, region_size: int = 13) -> np.ndarray[Any, Any]:
    slic = cv2.ximgproc.createSuperpixelSLIC(pixels, cv2.ximgproc.SLICO, region_size)
    slic.iterate(10)
    return slic.getLabels()


def compute_superpixels(image: Any, method: str = "felzenszwalb", **options: Any) -> Any:
    """Superpixels by the name of a method: ``felzenszwalb`` (default), ``slic``, ``opencv-graph`` or ``opencv-slico``.

    Args:
        image: (H, W, C) or (H, W).
        method: the name.
        **options: passed on to the method's own function.

    Returns:
        (H, W) int32, labels 0..M-1, of the kind of ``image``.

    Raises:
        InputError: no such method, or the method's own complaint.
    """
    if method == "felzenszwalb":
        return felzenszwalb_superpixels(image, **options)
    if method == "slic":
        return slic_superpixels(image, **options)
    if method in ("opencv-graph", "opencv-slico"):
        return opencv_superpixels(image, method.removeprefix("opencv-"), **options)
    raise unknown_name("superpixel method", method, _METHODS)


_METHODS = ("felzenszwalb", "slic", "opencv-graph", "opencv-slico")


def _contiguous(labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same partition with the labels 0..M-1, in the order of the labels given."""
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)
