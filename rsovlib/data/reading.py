"""Reading one sample of a dataset: all its images on the ground of one of them, and its labels as class indices."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray

from rsovlib.data.arrays import ArrayFile, Header, Pixels, open_array
from rsovlib.data.clouds import CLOUD_OPACITY, add_clouds
from rsovlib.data.cutting import Box
from rsovlib.data.labels import LabelCode
from rsovlib.data.layout import CLOUD_MASK, LABELS, Sample
from rsovlib.data.manifest import IGNORE, Clouds, Files, Labels, Layout, Manifest
from rsovlib.data.polygons import PolygonTable
from rsovlib.data.regrid import GridMapping, compose, grid_mapping, read_box
from rsovlib.errors import InputError, RasterError, unknown_name

_Clouded = tuple[Pixels, NDArray[np.float32]]
"""An image under simulated clouds, and their opacity (h, w)."""

ClassChoice = Literal["all", "seen", "unseen"]


@dataclass(frozen=True)
class Plan:
    """What is read of every sample of a dataset.

    Attributes:
        manifest: the dataset.
        layout_name: its folder tree.
        root: its folder.
        modalities: which images.
        reference: the modality whose pixels boxes are counted in.
        protocol: the paper's use of the dataset, which says which classes count; None for all classes.
        simulated: for each modality whose missing files are made from clear ones, how.
        classes_of: only the seen or only the unseen classes of the protocol, numbered from 0 in their own order;
            the others become 255.
    """

    manifest: Manifest
    layout_name: str
    root: Path
    modalities: tuple[str, ...]
    reference: str
    protocol: str | None = None
    classes_of: ClassChoice = "all"
    simulated: Mapping[str, Clouds] = field(default_factory=dict)
    _known: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        # Tables are read again in each process: they may be large, and most processes need them late or never.
        return {**self.__dict__, "_known": {}}

    @property
    def layout(self) -> Layout:
        """The folder tree."""
        return self.manifest.layout(self.layout_name)

    @property
    def all_classes(self) -> tuple[str, ...]:
        """The names of the indices before ``classes_of`` picks from them."""
        counted = self.manifest.counted_classes(self.protocol)
        others = self.protocol is not None and self.manifest.protocol(self.protocol).others == "background"
        return ("background", *counted) if others else counted

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the class indices 0, 1, ..., in order.

        Raises:
            InputError: the protocol knows no seen and unseen classes.
        """
        if self.classes_of == "all":
            return self.all_classes
        if self.classes_of not in ("seen", "unseen"):
            raise unknown_name("choice of classes", self.classes_of, ("all", "seen", "unseen"))
        use = None if self.protocol is None else self.manifest.protocol(self.protocol)
        chosen = () if use is None else (use.seen if self.classes_of == "seen" else use.unseen)
        if not chosen:
            with_them = [name for name, other in self.manifest.protocols.items() if other.seen]
            raise InputError(
                f"{self.manifest.name} has seen and unseen classes only under a protocol that names them: "
                f"{', '.join(with_them) or 'none does'}."
            )
        return chosen

    def code(self) -> LabelCode:
        """What the numbers or colours of the label files mean."""
        if "code" not in self._known:
            if self.layout.labels.encoding == "colour":
                code = LabelCode(colours=self.manifest.colour_table(self.layout_name, self.protocol))
            else:
                table = self.manifest.index_table(self.layout_name, self.protocol)
                # A copy whose labels are shifted down has no number for the class that was 0 (and is ignored).
                code = LabelCode(values={value: index for value, index in table.items() if value >= 0})
            self._known["code"] = code
        return self._known["code"]

    def table(self) -> PolygonTable:
        """The table of label polygons."""
        if "table" not in self._known:
            labels = self.layout.labels
            if labels.polygons is None or labels.path is None:
                raise InputError(f"{self.manifest.name} has no polygons in the layout {self.layout_name!r}.")
            self._known["table"] = PolygonTable(
                self.root / labels.path, self.root / labels.polygons.extent_path, labels.polygons
            )
        return self._known["table"]

    def renumber(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Class indices of all classes to those of the chosen ones."""
        if self.classes_of == "all":
            return labels
        new = np.full(IGNORE + 1, IGNORE, dtype=np.int64)
        for place, name in enumerate(self.classes):
            new[self.all_classes.index(name)] = place
        return new[labels]


@contextmanager
def open_sample(plan: Plan, sample: Sample) -> Iterator[OpenSample]:
    """Open the files of a sample when they are needed, and close them at the end."""
    opened = OpenSample(plan, sample)
    try:
        yield opened
    finally:
        opened.close()


class OpenSample:
    """The open files of one sample. Made by :func:`open_sample`."""

    def __init__(self, plan: Plan, sample: Sample) -> None:
        self.plan = plan
        self.sample = sample
        self._stack = ExitStack()
        self._open: dict[str, ArrayFile] = {}
        self._burnt: NDArray[np.uint8] | None = None
        self._made: tuple[tuple[str, Box | None], _Clouded] | None = None

    def __enter__(self) -> OpenSample:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all files."""
        self._stack.close()
        self._open.clear()

    def image_file(self, modality: str) -> ArrayFile:
        """The open file of a modality, with the number of bands that the manifest says.

        Raises:
            RasterError: the file can't be opened or has other bands.
        """
        if modality not in self._open:
            files = self.plan.layout.files[modality]
            file = self._stack.enter_context(open_array(self.sample.files[modality], files.variable))
            for _, fault in image_faults(file.header, files, len(self.plan.manifest.modalities[modality].bands)):
                raise RasterError(f"{file.name} {fault}.")
            self._open[modality] = file
        return self._open[modality]

    @property
    def reference(self) -> Header:
        """The header of the image that boxes are counted in: the reference, or the first that is there."""
        return self.image_file(self.reference_modality).header

    @property
    def reference_modality(self) -> str:
        """The modality whose pixels boxes are counted in, for this sample."""
        if self.plan.reference in self.sample.files:
            return self.plan.reference
        for modality in (*self.plan.modalities, *self.sample.files):
            if modality in self.sample.files:
                return modality
        raise RasterError(f"The sample {self.sample.id!r} of {self.plan.manifest.name} has no image.")

    def image(self, modality: str, box: Box | None = None) -> Pixels | None:
        """The stored values of a box, in the manifest's order of bands.

        Args:
            modality: which image.
            box: in pixels of the reference; the whole image on its own grid by default.

        Returns:
            (C, h, w) values and (h, w) validity, both on the image's own resolution; 0 and False outside of it.
            None where the file is missing.

        Raises:
            RasterError: the file can't be read, has other bands, or shows other ground than the reference.
        """
        if modality not in self.sample.files:
            made = self._clouded(modality, box)
            return None if made is None else made[0]
        file = self.image_file(modality)
        bands = self.plan.manifest.modalities[modality].bands
        channels = self.plan.layout.files[modality].channels or tuple(range(1, len(bands) + 1))
        if box is None:
            found = file.read(channels, slice(0, file.header.height), slice(0, file.header.width))
        else:
            found = read_box(file, channels, box, self._mapping(file), nearest=False)
        return Pixels(found.values, found.valid & holds_data(found.values, [band.nodata for band in bands]))

    def labels(self, box: Box | None = None) -> NDArray[np.int64] | None:
        """Class indices of a box, 255 where ignored or outside; None where the sample has no labels.

        Raises:
            RasterError: the label file can't be read or holds something that the manifest doesn't name.
        """
        labels = self.plan.layout.labels
        if labels.encoding == "folder":
            header = self.reference
            shape = (box.height, box.width) if box else (header.height, header.width)
            index = self.plan.all_classes.index(str(self.sample.fields["class"]))
            found = np.full(shape, index, dtype=np.int64)
        elif self.sample.label_file is None:
            return None
        elif labels.encoding == "polygons":
            if self.sample.id not in self.plan.table().images:
                return None
            found = self._from_polygons(box)
        else:
            found = self._from_file(labels, box)
        return self.plan.renumber(found)

    def cloud_mask(self, box: Box | None = None) -> NDArray[np.bool_] | None:
        """Where there is cloud, (h, w): as the publisher says, or as it was simulated; None where nobody knows.

        Raises:
            RasterError: the file can't be read.
        """
        files = self.plan.layout.cloud_mask
        for modality in self.plan.modalities:
            if modality not in self.sample.files and (made := self._clouded(modality, box)) is not None:
                return made[1] > CLOUD_OPACITY
        if files is None or self.sample.cloud_file is None:
            return None
        if CLOUD_MASK not in self._open:
            file = self._stack.enter_context(open_array(self.sample.cloud_file, files.variable))
            for _, fault in image_faults(file.header, files, 1):
                raise RasterError(f"{file.name} {fault}.")
            self._open[CLOUD_MASK] = file
        file = self._open[CLOUD_MASK]
        channels = files.channels or (1,)
        if box is None:
            found = file.read(channels, slice(0, file.header.height), slice(0, file.header.width))
        else:
            found = read_box(file, channels, box, self._mapping(file), nearest=True, ask_file=False)
        cloudy: NDArray[np.bool_] = found.values[0] != 0
        return cloudy

    def place(self, box: Box | None = None) -> tuple[str | None, rasterio.Affine | None]:
        """CRS and geotransform of a box of the reference; None for what its file does not have."""
        header = self.reference
        if header.transform is None or box is None:
            return header.crs, header.transform
        return header.crs, compose(header.transform, rasterio.Affine.translation(box.column, box.row))

    def _clouded(self, modality: str, box: Box | None) -> _Clouded | None:
        """A clear image under simulated clouds, and their opacity (h, w); None where that isn't wanted or can't be.

        The clouds hang on the dataset, the sample and the place of the box alone: the same whenever they are made.
        """
        if self._made is not None and self._made[0] == (modality, box):
            return self._made[1]
        clouds = self.plan.simulated.get(modality)
        if clouds is None or clouds.clear is None or clouds.kind is None or clouds.cover is None:
            return None
        clear = self.image(clouds.clear, box)
        if clear is None:
            return None
        place = "whole" if box is None else f"{box.row},{box.column},{box.height},{box.width}"
        text = f"{self.plan.manifest.name}/{self.sample.id}@{place}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
        cover = float(np.random.default_rng(seed).uniform(*clouds.cover))
        if not clear.valid.any():
            return clear, np.zeros(clear.valid.shape, dtype=np.float32)
        bands = self.plan.manifest.modalities[clouds.clear].bands
        wavelengths = [band.wavelength_nm for band in bands]
        image = np.ascontiguousarray(np.moveaxis(clear.values, 0, -1))
        cloudy, opacity = add_clouds(image, cover, clouds.kind, seed, wavelengths=wavelengths)
        values = np.where(clear.valid, np.moveaxis(cloudy, -1, 0), clear.values)
        result = Pixels(values, clear.valid), np.where(clear.valid, opacity, np.float32(0))
        self._made = (modality, box), result  # the mask is asked for right after the image
        return result

    def _from_file(self, labels: Labels, box: Box | None) -> NDArray[np.int64]:
        if LABELS not in self._open:
            file = self._stack.enter_context(open_array(str(self.sample.label_file), labels.variable))
            for _, fault in label_faults(file.header, labels):
                raise RasterError(f"{file.name} {fault}.")
            self._open[LABELS] = file
        file = self._open[LABELS]
        channels = (1, 2, 3) if labels.encoding == "colour" else (labels.band,)
        if box is None:
            found = file.read(channels, slice(0, file.header.height), slice(0, file.header.width))
            inside = np.ones(found.values.shape[1:], dtype=bool)
        else:
            # Of labels, "valid" is only whether a pixel lies in the image: which numbers count, the manifest says.
            found = read_box(file, channels, box, self._mapping(file), nearest=True, ask_file=False)
            inside = found.valid
        raw = found.values if labels.encoding == "colour" else found.values[0]
        decoded = np.full(inside.shape, IGNORE, dtype=np.int64)
        pieces = raw[..., inside]
        decoded[inside] = self.plan.code().decode(pieces[..., None], file.name)[..., 0]
        return decoded

    def _from_polygons(self, box: Box | None) -> NDArray[np.int64]:
        """Burn the whole image once: polygons know no windows, and tiles of one image follow each other."""
        plan = self.plan
        if self._burnt is None:
            values = plan.manifest.label_values(plan.layout_name)
            numbers = [number for name in plan.manifest.counted_classes(plan.protocol) for number in values[name]]
            header = self.reference
            self._burnt = plan.table().burn(self.sample.id, (header.height, header.width), numbers)
        raw = self._burnt
        found = plan.code().decode(raw, str(self.sample.label_file))
        if box is None:
            return found
        piece = np.full((box.height, box.width), IGNORE, dtype=np.int64)
        inside = found[box.row : box.row + box.height, box.column : box.column + box.width]
        piece[: inside.shape[0], : inside.shape[1]] = inside
        return piece

    def _mapping(self, file: ArrayFile) -> GridMapping:
        """From pixels of the reference to pixels of a file."""
        return grid_mapping(self.reference, file.header, self.image_file(self.reference_modality).name, file.name)


Fault = tuple[str, str]
"""Kind and sentence, without its subject: the file's name."""


def image_faults(header: Header, files: Files, bands: int) -> Iterator[Fault]:
    """What is wrong with the number of bands of an image whose modality has ``bands`` of them."""
    if files.channels and files.file_bands is None:
        # Nobody has said how many bands the file has, only which of them are meant.
        if header.count < max(files.channels):
            wanted = max(files.channels)
            yield "wrong bands", f"has {header.count} {_bands(header.count)}, and band {wanted} is needed"
        return
    yield from band_faults(header, files.file_bands or bands)


def band_faults(header: Header, wanted: int) -> Iterator[Fault]:
    """What is wrong with the number of bands of an image."""
    if header.has_palette and wanted >= 3:
        yield "palette", f"holds numbers of colours in a palette, and {wanted} bands were expected"
    elif header.count != wanted:
        yield "wrong bands", f"has {header.count} {_bands(header.count)}, and {wanted} were expected"


def label_faults(header: Header, labels: Labels) -> Iterator[Fault]:
    """What is wrong with the number of bands of a label file."""
    if labels.encoding == "colour":
        yield from band_faults(header, 3)
    elif header.count < labels.band:
        yield "wrong bands", f"has {header.count} {_bands(header.count)}, and the labels are in band {labels.band}"
    elif labels.band == 1 and header.count != 1:
        yield "wrong bands", f"has {header.count} bands, and one band of class numbers was expected"


def _bands(count: int) -> str:
    return "band" if count == 1 else "bands"


def stored_to_unit(values: NDArray[Any], files: Files) -> NDArray[Any]:
    """Stored values in the bands' unit: ``value * scale + offset`` as float32, or unchanged where that does nothing."""
    if files.scale == 1 and files.offset == 0:
        return values
    return (values.astype(np.float64) * files.scale + files.offset).astype(np.float32)


def holds_data(values: NDArray[Any], nodata: list[float | None]) -> NDArray[np.bool_]:
    """Where no band holds the nodata value that the manifest names.

    The ends of an unsigned type may be true values of a single dark or bright band, so they count only where all
    bands hold them (as in :mod:`rsovlib.data.source`).
    """
    if all(value is None for value in nodata):
        return np.ones(values.shape[1:], dtype=bool)
    missing = np.stack(
        [
            np.zeros(band.shape, dtype=bool) if value is None else band == value
            for band, value in zip(values, nodata, strict=True)
        ]
    )
    kind = values.dtype
    is_colour = kind.kind == "u" and all(value in (None, 0, np.iinfo(kind).max) for value in nodata)
    empty: NDArray[np.bool_] = np.all(missing, axis=0) if is_colour else np.any(missing, axis=0)
    return ~empty


def require_modalities(manifest: Manifest, layout_name: str, modalities: tuple[str, ...]) -> None:
    """Refuse modalities that a layout does not have.

    Raises:
        InputError: with the nearest right name.
    """
    known: Mapping[str, Files] = manifest.layout(layout_name).files
    for modality in modalities:
        if modality not in known:
            raise unknown_name(f"{manifest.name} modality in the layout {layout_name} called", modality, known)
