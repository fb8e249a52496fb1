"""The part of a manifest that says how a dataset lies on disk: files, labels, splits and their folder tree."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import combinations
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from rsovlib.data._manifest_paths import Fields, PathTemplate
from rsovlib.data._manifest_types import (
    Checksum,
    Colour,
    Count,
    Dtype,
    Flag,
    Float,
    Identifier,
    Int,
    Length,
    Positive,
    Share,
    Strict,
    Text,
    no_repeats,
)
from rsovlib.errors import unknown_name


class Size(Strict):
    """Height and width in pixels."""

    height: Positive
    width: Positive


class Placeholder(Strict):
    """What a text placeholder of the path templates may stand for.

    Attributes:
        pattern: a regular expression without named groups.
        values: all values there are; a shorter way to say ``pattern``.
    """

    pattern: str | None = None
    values: tuple[Text, ...] = ()
    notes: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.pattern is None) == (not self.values):
            raise ValueError("give either pattern or values")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ValueError(f"pattern {self.pattern!r} is no regular expression ({error})") from error
        return self

    @property
    def regex(self) -> str:
        """The regular expression of the values."""
        return self.pattern if self.pattern is not None else "|".join(re.escape(value) for value in self.values)


class Files(Strict):
    """The files of one modality in one layout.

    Attributes:
        path: template relative to the root; see :class:`rsovlib.data._manifest_paths.PathTemplate`.
        format: what the files are. ``mat`` and ``npy`` hold arrays, all others are rasters.
        dtype: of the stored values; None where it is not known.
        file_bands: how many bands a file has; the number of the modality's bands if not given.
        channels: 1-based numbers of the modality's bands within the file, in the modality's order; all if not given.
            Several modalities may name the same path with other channels.
        size: in pixels, where all files have the same.
        variable: the array's name in a ``mat`` file.
        scale, offset: stored value * scale + offset = value in the band's unit.
        georeferenced: whether the files carry a CRS and a geotransform.
        optional: true if a complete copy may lack these files (shown as a missing modality, not as damage).
        count: how many there are in a complete copy, where published.
    """

    path: Text
    format: Literal["tif", "png", "jpg", "mat", "npy"]
    dtype: Dtype | None = None
    file_bands: Positive | None = None
    channels: tuple[Positive, ...] = ()
    size: Size | None = None
    variable: Text | None = None
    scale: Float = 1.0
    offset: Float = 0.0
    georeferenced: Flag | None = None
    optional: Flag = False
    count: Count | None = None
    notes: str = ""

    @field_validator("path")
    @classmethod
    def _is_template(cls, path: str) -> str:
        PathTemplate(path)
        return path

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.format == "mat") != (self.variable is not None):
            raise ValueError("variable belongs to format 'mat', and 'mat' needs it")
        no_repeats("channel", self.channels)
        if self.file_bands is not None and self.channels and max(self.channels) > self.file_bands:
            raise ValueError(f"channel {max(self.channels)} of a file with {self.file_bands} bands")
        return self


class Polygons(Strict):
    """Labels as polygons in a table: one row for each image and class.

    Attributes:
        image_column, class_column, geometry_column: the names of the columns; the geometry is WKT.
        extent_path: a table with the extent of each image in the polygons' coordinates.
        extent_image_column, x_column, y_column: its columns ("" for a column whose head is empty). In a raster of H
            rows and W columns, x lies in column x / x_max * W * W / (W + 1) and y in row y / y_min * H * H / (H + 1).
    """

    image_column: Text
    class_column: Text
    geometry_column: Text
    extent_path: Text
    extent_image_column: str
    x_column: Text
    y_column: Text
    notes: str = ""


class Labels(Strict):
    """The label files of a layout.

    Attributes:
        path: template relative to the root; without placeholders where one table holds all (``polygons``).
        encoding: ``index``: the number in the file is the class. ``palette``: the same in a palette PNG, whose numbers
            count and whose palette is for show. ``colour``: the RGB colour is the class. ``mat``: an array of numbers
            in a ``.mat`` file. ``polygons``: WKT in a table. ``folder``: the class of a whole image is the placeholder
            ``{class}`` of the modalities' paths. ``none``: the dataset has no labels.
        format, dtype, size, count, optional, georeferenced: as for :class:`Files`.
        band: 1-based number of the band that holds the numbers.
        variable: the array's name in a ``mat`` file.
        offset: number in the file = number of the class + offset, for copies whose labels are shifted.
        values: for each class its numbers in these files, where they are quite others than in ``classes``.
        ignore_values: numbers that mean "no label", beside those of ignored classes.
        ignore_colours: the same for colours.
        gsd_m: of the label grid, where it differs from the images'.
        covers: the modality whose grid the labels share; the first one if not given.
    """

    path: Text | None = None
    encoding: Literal["index", "palette", "colour", "mat", "polygons", "folder", "none"]
    format: Literal["tif", "png", "jpg", "mat", "csv"] | None = None
    dtype: Dtype | None = None
    band: Positive = 1
    size: Size | None = None
    variable: Text | None = None
    offset: Int = 0
    values: dict[Text, tuple[Int, ...]] = Field(default_factory=dict)
    ignore_values: tuple[Int, ...] = ()
    ignore_colours: tuple[Colour, ...] = ()
    polygons: Polygons | None = None
    gsd_m: Length | None = None
    covers: Text | None = None
    georeferenced: Flag | None = None
    optional: Flag = False
    count: Count | None = None
    notes: str = ""

    @field_validator("path")
    @classmethod
    def _is_template(cls, path: str | None) -> str | None:
        if path is not None:
            PathTemplate(path)
        return path

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        without_file = self.encoding in ("none", "folder")
        if without_file != (self.path is None):
            raise ValueError(f"encoding {self.encoding!r} {'has no' if without_file else 'needs a'} path")
        if without_file != (self.format is None):
            raise ValueError(f"encoding {self.encoding!r} {'has no' if without_file else 'needs a'} format")
        if (self.encoding == "polygons") != (self.polygons is not None):
            raise ValueError("polygons belongs to encoding 'polygons', and that encoding needs it")
        if (self.encoding == "mat") != (self.variable is not None):
            raise ValueError("variable belongs to encoding 'mat', and 'mat' needs it")
        if self.encoding in ("index", "palette", "colour") and self.format == "jpg":
            raise ValueError("labels in JPEG files are not exact; use a format without loss")
        return self


class Split(Strict):
    """Which samples of a layout belong to a split: exactly one rule.

    Attributes:
        ids: the samples, by their id.
        where: for each placeholder the values that belong to the split (``{"part": ["Train"]}``).
        groups: the areas whose samples belong to the split, each written as the layout's ``group`` says.
        list_file: a file that comes with the dataset, relative to its root, with one sample a line.
        all: every sample of the layout.
        fraction: share of the samples where nobody publishes a list: samples are put in the order of their ids,
            shuffled with numpy.random.default_rng(``seed``), and the splits that have a fraction take their shares
            in the order in which they stand in the manifest.
        count: how many samples it has, where published.
        labelled: false where the publisher keeps the labels.
        published: whether the rule or list is the publisher's or the paper's own; false for a stand-in of ours.
    """

    ids: tuple[Text, ...] = ()
    where: dict[Identifier, tuple[Text, ...]] = Field(default_factory=dict)
    groups: tuple[Text, ...] = ()
    list_file: Text | None = None
    all: Flag = False
    fraction: Share | None = None
    seed: Count = 0
    count: Count | None = None
    labelled: Flag = True
    published: Flag = True
    notes: str = ""

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        rules = [
            bool(self.ids),
            bool(self.where),
            bool(self.groups),
            self.list_file is not None,
            self.all,
            self.fraction is not None,
        ]
        if sum(rules) != 1:
            raise ValueError("give exactly one of ids, where, groups, list_file, all or fraction")
        no_repeats("id", self.ids)
        no_repeats("group", self.groups)
        if self.ids and self.count not in (None, len(self.ids)):
            raise ValueError(f"count is {self.count}, but {len(self.ids)} ids are listed")
        return self


class Layout(Strict):
    """One folder tree of the dataset.

    Attributes:
        source: who lays it out so: the publisher, a library's converter, a paper.
        tree: the expected folders, for people.
        sample_id: template of a sample's name, made of the placeholders that all its files share. Two files belong to
            one sample when they have the same id.
        group: template of the area that a sample comes from, where splits go by areas; samples of one area are
            neighbours and must not be parted between training and test.
        placeholders: what text placeholders may stand for, where ``[^/]+`` would take too much.
        files: for each modality its files.
        labels: the label files.
        cloud_mask: per-sample masks of real clouds (true or 1 where there is cloud), where they are published.
        splits: by name, in the order of publication.
        extra_files: further files that a complete copy has, relative to the root (lists, tables).
        checksums: of files relative to the root, only where published.
    """

    source: Text
    tree: str = ""
    sample_id: Text = "{id}"
    group: Text | None = None
    placeholders: dict[Identifier, Placeholder] = Field(default_factory=dict)
    files: dict[Identifier, Files] = Field(min_length=1)
    labels: Labels
    cloud_mask: Files | None = None
    splits: dict[Identifier, Split] = Field(default_factory=dict)
    extra_files: tuple[Text, ...] = ()
    checksums: dict[Text, Checksum] = Field(default_factory=dict)
    notes: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        wanted = set(PathTemplate(self.sample_id).fields)
        if not wanted:
            raise ValueError(f"sample_id {self.sample_id!r} has no placeholder")
        known: set[str] = set()
        for key, path in self._sample_paths().items():
            fields = set(PathTemplate(path).fields)
            if wanted - fields:
                raise ValueError(
                    f"{key} {path!r} lacks the placeholder {sorted(wanted - fields)[0]!r}, "
                    f"which sample_id {self.sample_id!r} needs"
                )
            known |= fields
        for name in PathTemplate(self.group).fields if self.group else ():
            if name not in wanted:
                raise ValueError(f"group: {unknown_name('placeholder of sample_id', name, wanted)}")
        if self.labels.encoding == "folder" and any("class" not in self.template(name).fields for name in self.files):
            raise ValueError("labels.encoding 'folder' needs the placeholder 'class' in the path of every modality")
        for name in self.placeholders:
            if name not in known:
                raise ValueError(f"placeholders.{name}: {unknown_name('placeholder of the paths', name, known)}")
        for name, split in self.splits.items():
            for key, values in split.where.items():
                if key not in known:
                    raise ValueError(f"splits.{name}.where: {unknown_name('placeholder of the paths', key, known)}")
                allowed = self.placeholders[key].values if key in self.placeholders else ()
                for value in values:
                    if allowed and value not in allowed:
                        raise ValueError(f"splits.{name}.where.{key}: {unknown_name('value', value, allowed)}")
            for group in split.groups:
                if self.group is None or PathTemplate(self.group, self.patterns).match(group) is None:
                    raise ValueError(f"splits.{name}.groups: {group!r} is not of the form {self.group!r} (key group)")
            for sample in split.ids:
                if PathTemplate(self.sample_id, self.patterns).match(sample) is None:
                    raise ValueError(f"splits.{name}.ids: {sample!r} is not of the form {self.sample_id!r}")
        for (one, first), (other, second) in combinations(self.splits.items(), 2):
            both = sorted(set(first.ids) & set(second.ids)) or sorted(set(first.groups) & set(second.groups))
            if both:
                raise ValueError(f"splits.{one} and splits.{other} both list {both[0]!r}")
        if math.fsum(split.fraction or 0.0 for split in self.splits.values()) > 1 + 1e-9:
            raise ValueError("the fractions of the splits add up to more than 1")
        if self.labels.covers is not None and self.labels.covers not in self.files:
            raise ValueError(f"labels.covers: {unknown_name('modality', self.labels.covers, self.files)}")
        return self

    def _sample_paths(self) -> dict[str, str]:
        """The templates of all files that each sample has of its own, by their keys in the manifest."""
        paths = {f"files.{modality}.path": files.path for modality, files in self.files.items()}
        if self.labels.path is not None and self.labels.encoding != "polygons":
            paths["labels.path"] = self.labels.path
        if self.cloud_mask is not None:
            paths["cloud_mask.path"] = self.cloud_mask.path
        return paths

    @property
    def patterns(self) -> dict[str, str]:
        """The regular expression of each described placeholder."""
        return {name: placeholder.regex for name, placeholder in self.placeholders.items()}

    def template(self, modality: str) -> PathTemplate:
        """The path template of a modality's files."""
        if modality not in self.files:
            raise unknown_name("modality", modality, self.files)
        return PathTemplate(self.files[modality].path, self.patterns)

    def label_template(self) -> PathTemplate | None:
        """The path template of the label files, None where there are no such files."""
        return PathTemplate(self.labels.path, self.patterns) if self.labels.path is not None else None

    def sample_name(self, fields: Mapping[str, str | int]) -> str:
        """The id of the sample whose files have these placeholders' values."""
        return PathTemplate(self.sample_id, self.patterns).fill(fields)

    def cloud_mask_template(self) -> PathTemplate | None:
        """The path template of the cloud masks, None where there are none."""
        return PathTemplate(self.cloud_mask.path, self.patterns) if self.cloud_mask is not None else None

    def group_name(self, fields: Mapping[str, str | int]) -> str | None:
        """The area of the sample whose files have these placeholders' values, None where the layout knows no areas."""
        return PathTemplate(self.group, self.patterns).fill(fields) if self.group is not None else None

    def sample_fields(self, sample: str) -> Fields | None:
        """The placeholders' values that a sample's id speaks of, None if it is no id of this layout."""
        return PathTemplate(self.sample_id, self.patterns).match(sample)
