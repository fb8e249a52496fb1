"""Class maps as polygons, for geographic information systems."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from numpy.typing import ArrayLike, NDArray

from rsovlib.data.areas import pixel_areas
from rsovlib.data.classes import parse_classes
from rsovlib.errors import InputError

if TYPE_CHECKING:
    import geopandas

    from rsovlib.data.regions import Regions


def polygonize(
    labels: ArrayLike,
    classes: Sequence[str],
    transform: rasterio.Affine | None = None,
    crs: rasterio.CRS | None = None,
    valid: ArrayLike | None = None,
    confidence: ArrayLike | None = None,
) -> geopandas.GeoDataFrame:
    """One polygon for each connected area (4-neighbourhood) of one class.

    The polygons follow the pixels' edges, do not overlap, and together cover the valid pixels exactly.

    Args:
        labels: (H, W) class indices from 0.
        classes: K class names, or prompts of which the first word is the name.
        transform: from (column, row) to map coordinates; pixel coordinates if None.
        crs: coordinate reference system of the map.
        valid: (H, W) False where there is no data; those pixels belong to no polygon.
        confidence: (H, W) probability of the chosen class, 0 to 1.

    Returns:
        A table with the columns class_index, class_name, pixels, area_m2 (measured in an equal-area projection; NaN
        without a CRS), mean_confidence (NaN without ``confidence``) and geometry, by class and then by size.

    Raises:
        InputError: the arrays do not have the same shape, or a label is not the index of a class.
    """
    from rsovlib.data.regions import Regions, RegionStream

    label_map = np.asarray(labels)
    names = [prompt.name for prompt in parse_classes(classes)]
    mask = np.ones(label_map.shape, dtype=bool) if valid is None else np.asarray(valid, dtype=bool)
    check_labels(label_map, len(names), mask)
    if confidence is not None and np.shape(confidence) != label_map.shape:
        raise InputError(f"The confidence has the shape {np.shape(confidence)}, and the labels {label_map.shape}.")
    place = transform if transform is not None else rasterio.Affine.identity()
    stream = RegionStream(pixel_areas(crs, place, *label_map.shape))
    strip = (label_map, mask, None if confidence is None else np.asarray(confidence))
    table = region_table(Regions.joined(stream.regions([strip])), names, place, crs)
    return table.sort_values(["class_index", "pixels"], ascending=[True, False], kind="stable", ignore_index=True)


def region_table(
    regions: Regions,
    names: Sequence[str],
    transform: rasterio.Affine,
    crs: rasterio.CRS | None,
    *,
    full_confidence: float = 1.0,
) -> geopandas.GeoDataFrame:
    """Regions as the table that :func:`polygonize` describes, in their own order.

    Args:
        regions: the regions.
        names: of the K classes.
        transform: from (column, row) to map coordinates.
        crs: coordinate reference system of the map.
        full_confidence: what stands for probability 1 in the regions' confidence.
    """
    import geopandas
    import shapely

    t = transform

    def to_map(points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = points[:, 0], points[:, 1]
        return np.stack([t.c + x * t.a + y * t.b, t.f + x * t.d + y * t.e], axis=1)

    return geopandas.GeoDataFrame(
        {
            "class_index": regions.class_index,
            "class_name": np.array([names[index] for index in regions.class_index], dtype=object),
            "pixels": regions.pixels,
            "area_m2": regions.area,
            "mean_confidence": regions.confidence / regions.pixels / full_confidence,
        },
        geometry=shapely.transform(regions.polygons, to_map),
        crs=crs.to_wkt() if crs is not None else None,
    )


def check_labels(labels: NDArray[np.generic], classes: int, valid: NDArray[np.bool_] | None = None) -> None:
    """Refuse labels that are no (H, W) map of class indices.

    Args:
        labels: what should be a label map.
        classes: K, the number of classes.
        valid: (H, W) False where a label does not count.

    Raises:
        InputError: wrong number of dimensions, no integers, masks of another shape, or an index outside 0..K-1.
    """
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise InputError(f"Labels are whole numbers of shape (H, W), not {labels.dtype} of shape {labels.shape}.")
    if valid is not None and valid.shape != labels.shape:
        raise InputError(f"The valid mask has the shape {valid.shape}, and the labels {labels.shape}.")
    counted = labels if valid is None else labels[valid]
    if counted.size and (counted.min() < 0 or counted.max() >= classes):
        wrong = int(counted.min()) if counted.min() < 0 else int(counted.max())
        raise InputError(f"The label {wrong} is not one of the {classes} classes, which count from 0 to {classes - 1}.")
