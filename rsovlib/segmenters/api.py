"""One call from an image and words to a map: :func:`segment`, and :func:`make_segmenter` for its methods."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

from rsovlib.errors import InputError
from rsovlib.segmenters.base import GeoReference, SarSegmenter, Segmentation, Segmenter
from rsovlib.segmenters.images import as_rgb, as_sar
from rsovlib.segmenters.registry import find_method, without_radar


def make_segmenter(
    method: str = "sdci", *, profile: str = "embedded", device: str = "auto", **options: Any
) -> Segmenter:
    """A segmenter by name, with its models loaded.

    Args:
        method: ``"sdci"`` (official reading), ``"sdci-paper"``, or ``"valuepath"`` (CLIP alone, the control);
            ``"sdci-v1"``, ``"sdci-v2"``, ``"sdci-v3"``: SDCI with DINO, DINOv2 or DINOv3, in the full profile; or
            another of ``segmenters.METHODS``, which :func:`rsovlib.segmenters.registry.register` adds to.
        profile: ``"embedded"`` (models that ship with the package) or ``"full"`` (the papers' weights).
        device: where to compute.
        **options: the method's own parameters, for example ``beta=0.3``. Training-free methods also take ``clip``,
            ``clip_weights``, ``dino`` and ``dino_weights``: other backbones than the profile's, see
            :func:`rsovlib.segmenters.factories.make_training_free`.

    Raises:
        InputError: unknown method, profile or option.
        WeightsError: weights that aren't there.
    """
    return find_method(method).make(profile=profile, device=device, **options)


def segment(
    image: Any,
    classes: str | Sequence[str],
    *,
    method: str = "sdci",
    sar: Any = None,
    sar_valid: Any = None,
    profile: str = "embedded",
    device: str = "auto",
    **options: Any,
) -> Segmentation:
    """Segment an image into classes named in words.

    Args:
        image: a path to a raster or picture; numpy (H, W, 3) uint8; or torch (3, H, W), uint8 or in [0, 1].
        classes: K classes, each ``"name, synonym, synonym"``; a list, or one string parted by semicolons.
        method: see :func:`make_segmenter`.
        sar: a radar image of the same place, for methods that use one. Beside the path of a raster: a path, which may
            differ in grid, resolution and coordinate system, and need not reach everywhere (see
            :func:`rsovlib.data.pair.open_pair`); beside any image: numpy (H, W) or (H, W, 1 to 3), uint8, on its grid.
        sar_valid: beside a radar array: (H, W) bool, False where it holds no data; everywhere data if None.
        profile: ``"embedded"`` or ``"full"``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ...
        **options: see :func:`make_segmenter`.

    Returns:
        Labels (H, W), probabilities (K, H, W), and the stages of the method. From a georeferenced raster the result
        carries its coordinate system; pixels without data are False in ``valid``.

    Raises:
        InputError: bad image, classes, method, profile or option; or a radar image for a method that uses none.
        RasterError: a file can't be read, or the two show different places.
        WeightsError: weights that aren't there.

    Example:
        >>> import rsovlib
        >>> scene = rsovlib.data.scenes.make_scene(128, seed=1)
        >>> result = rsovlib.segment(scene.optical, ["water, river", "forest, trees", "buildings, rooftops"])
        >>> result.labels.shape
        (128, 128)
    """
    if sar is not None and not find_method(method).uses_sar:
        raise without_radar(method)
    if sar_valid is not None and (sar is None or _is_path(sar)):
        raise InputError("sar_valid belongs to a radar array; a radar file says itself where it holds data.")
    if _is_path(sar) and not _is_path(image):
        raise InputError("A radar file needs the image as a file too, or nothing tells how the two fit together.")
    segmenter = make_segmenter(method, profile=profile, device=device, **options)
    if not _is_path(image):
        return _with_radar(segmenter, image, classes, sar, sar_valid)
    from rsovlib.data.raster import open_pair, open_scene

    radar_facts: dict[str, Any] = {}
    with ExitStack() as stack:
        if _is_path(sar):
            pair = stack.enter_context(open_pair(image, sar))
            scene, radar_facts = pair.optical, {"sar": pair.settings()}
            sar, sar_valid = pair.sar.read()
        else:
            scene = stack.enter_context(open_scene(Path(image)))
        scene.require_data()
        rgb, valid = scene.read()
        # GDAL shows a missing transform as the identity.
        placed = scene.crs is not None or not scene.transform.is_identity
        where = GeoReference(scene.transform, scene.crs) if placed else None
    result = _with_radar(segmenter, rgb, classes, sar, sar_valid)
    result.valid = None if valid.all() else valid
    result.georeference = where
    result.settings = {**result.settings, **radar_facts}
    return result


def _with_radar(segmenter: Segmenter, image: Any, classes: str | Sequence[str], sar: Any, valid: Any) -> Segmentation:
    """Call a segmenter, with a radar image if there is one."""
    if sar is None:
        return segmenter(image, classes)
    rgb = as_rgb(image)
    radar, there = as_sar(sar, valid, (rgb.shape[0], rgb.shape[1]))
    return cast(SarSegmenter, segmenter)(rgb, classes, sar=radar, sar_valid=there)


def _is_path(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike))
