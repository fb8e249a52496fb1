"""Polygons as files, written as they come: no table of a whole map is ever held."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsovlib.errors import OutputError

if TYPE_CHECKING:
    import geopandas
    import pyarrow

VECTOR_SUFFIXES = (".gpkg", ".geojson", ".parquet", ".fgb")
"""Formats of :func:`write_polygons`: GeoPackage, GeoJSON, GeoParquet, FlatGeobuf. All keep to a single file."""

_DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".fgb": "FlatGeobuf"}
_GEOMETRY = "geometry"


def write_polygons(path: Path, tables: geopandas.GeoDataFrame | Iterable[geopandas.GeoDataFrame]) -> None:
    """Write one table of polygons, or several of the same columns one after another; the suffix chooses the format.

    GeoJSON is in longitude and latitude by its standard (RFC 7946), and so a table with a CRS is converted for it.

    Args:
        path: file with one of :data:`VECTOR_SUFFIXES`; replaced if it exists. Use ``write_beside`` around this.
        tables: as :func:`rsovlib.data.vector.polygonize` gives them; at least one, which may be empty.

    Raises:
        OutputError: the file can't be written.
    """
    import geopandas
    import pyarrow
    import pyogrio.errors

    suffix = path.suffix.lower()
    path.unlink(missing_ok=True)  # GDAL would open an empty temporary file to add a layer to it
    parts = iter([tables] if isinstance(tables, geopandas.GeoDataFrame) else tables)
    first = next(parts)
    crs = first.crs
    if suffix == ".geojson" and crs is not None:
        crs = "EPSG:4326"

    def batches() -> Iterator[pyarrow.RecordBatch]:
        for table in _chained(first, parts):
            yield from _arrow(table if crs is first.crs else table.to_crs(crs)).to_batches()

    schema = _arrow(first.iloc[:0]).schema
    try:
        if suffix == ".parquet":
            _write_parquet(path, schema, batches(), crs)
        else:
            reader = pyarrow.RecordBatchReader.from_batches(schema, batches())
            text = None if crs is None else crs if isinstance(crs, str) else crs.to_wkt()
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "'crs' was not provided")  # an image without one has polygons without
                pyogrio.write_arrow(
                    reader,
                    path,
                    layer="classes",
                    driver=_DRIVERS[suffix],
                    geometry_name=_GEOMETRY,
                    geometry_type="Polygon",
                    crs=text,
                )
    except (OSError, pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise OutputError(f"The polygons can't be written to {path.parent} ({error}); is the disk full?") from error


def _chained(first: Any, rest: Iterable[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _arrow(table: geopandas.GeoDataFrame) -> pyarrow.Table:
    """A table with its geometries as well-known binary; without their CRS, which stands once in each file."""
    import pyarrow

    geometry = pyarrow.array(table.geometry.to_wkb().to_numpy(), type=pyarrow.binary())
    plain = pyarrow.Table.from_pandas(
        table.drop(columns=_GEOMETRY),
        schema=pyarrow.schema(
            [
                ("class_index", pyarrow.int64()),
                ("class_name", pyarrow.string()),
                ("pixels", pyarrow.int64()),
                ("area_m2", pyarrow.float64()),
                ("mean_confidence", pyarrow.float64()),
            ]
        ),
        preserve_index=False,
    ).replace_schema_metadata(None)
    # GDAL knows the column by the name of this extension.
    field = pyarrow.field(_GEOMETRY, pyarrow.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"})
    return plain.append_column(field, geometry)


def _write_parquet(path: Path, schema: pyarrow.Schema, batches: Iterable[pyarrow.RecordBatch], crs: Any) -> None:
    """A GeoParquet file (specification 1.0.0)."""
    import pyarrow
    import pyarrow.parquet

    column = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "crs": None if crs is None else crs.to_json_dict(),
    }
    facts = {"version": "1.0.0", "primary_column": _GEOMETRY, "columns": {_GEOMETRY: column}}
    fields = [field.remove_metadata() for field in schema]
    described = pyarrow.schema(fields, metadata={"geo": json.dumps(facts)})
    with pyarrow.parquet.ParquetWriter(path, described) as writer:
        for batch in batches:
            writer.write_batch(pyarrow.RecordBatch.from_arrays(batch.columns, schema=described))
