"""What every segmenter gives back, and what every segmenter is."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import geopandas
    import rasterio
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class GeoReference:
    """Where an image lies on the Earth.

    Attributes:
        transform: from (column, row) of a pixel's upper left corner to map coordinates.
        crs: coordinate reference system, or None where only the transform is known.
    """

    transform: rasterio.Affine
    crs: rasterio.CRS | None


@dataclass
class Segmentation:
    """A class map with all that belongs to it.

    Attributes:
        labels: (H, W) int64, index into ``classes``; the class of the largest probability.
        probabilities: (K, H, W) float32, sums to 1 over K.
        classes: K display names, the first word of every class.
        stages: named intermediate results, for plots and lessons; which ones depends on the method.
        image: (H, W, 3) uint8, what was segmented.
        valid: (H, W) bool, False where the raster had no data; None where all pixels are data.
        georeference: where on the Earth the image lies; None for plain images.
        settings: method, weights and parameters as plain values, for tags and result rows.
    """

    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    classes: list[str]
    stages: dict[str, Any] = field(default_factory=dict, repr=False)
    image: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    valid: npt.NDArray[np.bool_] | None = field(default=None, repr=False)
    georeference: GeoReference | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_probabilities(
        cls, probabilities: npt.NDArray[np.float32], classes: Sequence[str], **rest: Any
    ) -> Segmentation:
        """The segmentation in which every pixel takes its most probable class (the first of equals)."""
        return cls(
            labels=probabilities.argmax(axis=0).astype(np.int64),
            probabilities=np.ascontiguousarray(probabilities, dtype=np.float32),
            classes=list(classes),
            **rest,
        )

    def plot(self) -> Figure:
        """Image, map and overlay side by side, with a legend."""
        from rsovlib.plots import plot_segmentation

        return plot_segmentation(self)

    def to_geotiff(self, path: str | os.PathLike[str]) -> None:
        """Write the class map as a tiled, compressed GeoTIFF with colours, class names and settings.

        Pixels without data become 255. Without a georeference the file has none either.

        Raises:
            OutputError: the file can't be written there.
        """
        from rsovlib.data.raster import write_class_map
        from rsovlib.plots import class_colours

        where = self.georeference
        write_class_map(
            path,
            self.labels,
            self.classes,
            class_colours(self.classes),
            transform=where.transform if where else None,
            crs=where.crs if where else None,
            valid=self.valid,
            tags=dict(self.settings),
        )

    def to_geodataframe(self) -> geopandas.GeoDataFrame:
        """The regions as polygons with class, area and mean confidence."""
        from rsovlib.data.vector import polygonize

        where = self.georeference
        return polygonize(
            self.labels,
            self.classes,
            where.transform if where else None,
            where.crs if where else None,
            self.valid,
            confidence=self.probabilities.max(axis=0),
        )


@runtime_checkable
class Segmenter(Protocol):
    """Whatever turns an image and class names into a :class:`Segmentation`."""

    def __call__(self, image: Any, classes: str | Sequence[str]) -> Segmentation:
        """Segment one image (see ``images.as_rgb``) into the classes (see ``data.classes.parse_classes``)."""
        ...

    def memory_needed(self, height: int, width: int, classes: int) -> int:
        """Foreseen peak memory in bytes above the models, for an image of that size."""
        ...

    def settings(self) -> dict[str, Any]:
        """Method, weights and parameters as plain values."""
        ...


@runtime_checkable
class SarSegmenter(Segmenter, Protocol):
    """A segmenter that can use a radar image beside the optical one.

    ``uses_sar`` is True. Without a radar image it must work too.
    """

    uses_sar: bool

    def __call__(
        self, image: Any, classes: str | Sequence[str], sar: Any = None, sar_valid: Any = None
    ) -> Segmentation:
        """Segment one image.

        Args:
            image: uint8 (H, W, 3).
            classes: see :class:`Segmenter`.
            sar: uint8 (H, W) or (H, W, 1 to 3) on the same grid: display values, stretched to 8 bits for the whole
                scene, as :class:`rsovlib.data.pair.PairWindow` and simulated scenes hold them (see ``images.as_sar``).
                None: there is no radar image at all.
            sar_valid: bool (H, W), True where radar data exist. None: everywhere, if ``sar`` is given.
        """
        ...
