"""Class maps as polygons, for geographic information systems."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from numpy.typing import ArrayLike, NDArray

from rsovlib.data.areas import pixel_areas
from rsovlib.data.classes import parse_classes
from rsovlib.errors import InputError, OutputError

if TYPE_CHECKING:
    import geopandas

VECTOR_SUFFIXES = (".gpkg", ".geojson", ".parquet", ".fgb")
"""Formats of :func:`write_polygons`: GeoPackage, GeoJSON, GeoParquet, FlatGeobuf. All keep to a single file."""


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
    import geopandas
    import rasterio.features
    import shapely.geometry
    import skimage.measure

    label_map = np.asarray(labels)
    names = [prompt.name for prompt in parse_classes(classes)]
    mask = np.ones(label_map.shape, dtype=bool) if valid is None else np.asarray(valid, dtype=bool)
    check_labels(label_map, len(names), mask)
    if confidence is not None and np.shape(confidence) != label_map.shape:
        raise InputError(f"The confidence has the shape {np.shape(confidence)}, and the labels {label_map.shape}.")

    # Background 0 is left out by label(), so classes count from 1 here.
    components = skimage.measure.label(
        np.where(mask, label_map.astype(np.int32) + 1, 0), background=0, connectivity=1
    ).astype(np.int32)
    count = int(components.max(initial=0))
    pixels = _sums(components, count)
    index_of = np.zeros(count + 1, dtype=np.int64)
    index_of[components[mask]] = label_map[mask]

    place = transform if transform is not None else rasterio.Affine.identity()
    polygons = [None] * (count + 1)
    for geometry, value in rasterio.features.shapes(components, mask=mask, connectivity=4, transform=place):
        polygons[int(value)] = shapely.geometry.shape(geometry)
    table = geopandas.GeoDataFrame(
        {
            "class_index": index_of[1:],
            "class_name": [names[index] for index in index_of[1:]],
            "pixels": pixels[1:].astype(np.int64),
            "area_m2": _component_areas(components, count, place, crs)[1:],
            "mean_confidence": (
                np.full(count, np.nan)
                if confidence is None
                else _sums(components, count, np.asarray(confidence, dtype=np.float64))[1:] / pixels[1:]
            ),
        },
        geometry=polygons[1:],
        crs=crs.to_wkt() if crs is not None else None,
    )
    return table.sort_values(["class_index", "pixels"], ascending=[True, False], kind="stable", ignore_index=True)


def write_polygons(path: Path, table: geopandas.GeoDataFrame) -> None:
    """Write a table of :func:`polygonize`; the suffix chooses the format.

    GeoJSON is in longitude and latitude by its standard (RFC 7946), and so a table with a CRS is converted for it.

    Args:
        path: file with one of :data:`VECTOR_SUFFIXES`; replaced if it exists. Use ``write_beside`` around this.
        table: the polygons.

    Raises:
        OutputError: the file can't be written.
    """
    import pyogrio.errors

    suffix = path.suffix.lower()
    path.unlink(missing_ok=True)  # GDAL would open an empty temporary file to add a layer to it
    try:
        if suffix == ".parquet":
            table.to_parquet(path)
            return
        if suffix == ".geojson" and table.crs is not None:
            table = table.to_crs("EPSG:4326")
        driver = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".fgb": "FlatGeobuf"}[suffix]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided")  # an image without one has polygons without
            table.to_file(path, driver=driver, layer="classes")
    except (OSError, pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise OutputError(f"The polygons can't be written to {path.parent} ({error}); is the disk full?") from error


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


def _sums(components: NDArray[np.int32], count: int, values: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Sum of values (or number of pixels) in each component; entry 0 is what belongs to none."""
    weights = None if values is None else values.ravel()
    return np.bincount(components.ravel(), weights=weights, minlength=count + 1).astype(np.float64)


def _component_areas(
    components: NDArray[np.int32], count: int, transform: rasterio.Affine, crs: rasterio.CRS | None
) -> NDArray[np.float64]:
    """Area of each component in square metres, NaN where the map has no place on Earth."""
    areas = pixel_areas(crs, transform, *components.shape)
    if areas is None:
        return np.full(count + 1, np.nan)
    total = np.zeros(count + 1)
    rows = 256  # a few rows at a time: areas in float64 need more room than the labels
    for first in range(0, components.shape[0], rows):
        part = components[first : first + rows]
        total += _sums(part, count, areas.of_rows(first, len(part)))
    return total
