"""What a dataset's manifest may say: the models behind ``data_manifests/*.yaml``.

A manifest parts what was measured from how it lies on disk. ``modalities`` are sensors and their bands, ``classes``
are names, colours and words, ``layouts`` are folder trees (the publisher's and those of converted copies), and
``protocols`` are the ways in which papers use the dataset: which classes, which are unseen, tiles, splits, clouds.
One reader follows any of them. The parts stand in modules of their own; this one holds them together.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from rsovlib.data._manifest_content import (
    Band,
    DatasetClass,
    Download,
    Licence,
    Modality,
    PromptSet,
)
from rsovlib.data._manifest_disk import Files, Labels, Layout, Placeholder, Polygons, Size, Split
from rsovlib.data._manifest_types import (
    Colour,
    Flag,
    Identifier,
    Length,
    Positive,
    Share,
    Strict,
    Text,
    Url,
    no_repeats,
)
from rsovlib.data._manifest_use import Clouds, Protocol, RandomSplit, Resize, Tiles
from rsovlib.errors import unknown_name

__all__ = [
    "IGNORE",
    "Band",
    "Clouds",
    "DatasetClass",
    "Download",
    "Files",
    "Flag",
    "Identifier",
    "Labels",
    "Layout",
    "Length",
    "Licence",
    "Manifest",
    "Modality",
    "Placeholder",
    "Polygons",
    "Positive",
    "PromptSet",
    "Protocol",
    "RandomSplit",
    "Resize",
    "Share",
    "Size",
    "Split",
    "Strict",
    "Text",
    "Tiles",
]

IGNORE = 255
"""The index of pixels that no metric counts."""


class Manifest(Strict):
    """Everything that is known of one dataset.

    Attributes:
        name: the dataset's short name and the stem of its file.
        title: as published.
        version: of the dataset, where it has one; otherwise the year of publication.
        papers: short names of the papers reproduced here that use it.
        pages: where it is published, the publisher's first.
        citation: how to cite it.
        downloads: the published archives.
        modalities, classes, prompt_sets, layouts, clouds, protocols: see their classes; the first layout is the
            publisher's own.
        notes: what is not known, among other things.
    """

    name: Identifier
    title: Text
    version: Text
    papers: tuple[Literal["sdci", "mm-ovseg", "scenario-sampling", "edc"], ...] = ()
    pages: tuple[Url, ...] = Field(min_length=1)
    citation: str = ""
    licence: Licence
    downloads: tuple[Download, ...] = ()
    modalities: dict[Identifier, Modality] = Field(min_length=1)
    classes: tuple[DatasetClass, ...] = ()
    prompt_sets: dict[Identifier, PromptSet] = Field(default_factory=dict)
    layouts: dict[Identifier, Layout] = Field(min_length=1)
    clouds: dict[Identifier, Clouds] = Field(default_factory=dict)
    protocols: dict[Identifier, Protocol] = Field(default_factory=dict)
    notes: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._check_classes()
        for name, layout in self.layouts.items():
            self._check_layout(name, layout)
        for name, clouds in self.clouds.items():
            for key in (clouds.clear, clouds.cloudy):
                if key is not None and key not in self.modalities:
                    raise ValueError(f"clouds.{name}: {unknown_name('modality', key, self.modalities)}")
        for name, modality in self.modalities.items():
            if modality.clear_twin is not None and modality.clear_twin not in self.modalities:
                raise ValueError(
                    f"modalities.{name}.clear_twin: {unknown_name('modality', modality.clear_twin, self.modalities)}"
                )
        for name, protocol in self.protocols.items():
            self._check_protocol(name, protocol)
        used = {protocol.paper for protocol in self.protocols.values()}
        for paper in self.papers:
            if paper not in used:
                raise ValueError(f"papers names {paper!r}, but no protocol has it as its paper")
        return self

    def _check_classes(self) -> None:
        names = [item.name for item in self.classes]
        no_repeats("class", names)
        no_repeats("class value", [value for item in self.classes for value in item.values])
        no_repeats("class colour", [colour for item in self.classes for colour in item.colours])
        for item in self.classes:
            for key in item.prompts:
                if key not in self.prompt_sets:
                    raise ValueError(
                        f"prompts of class {item.name!r}: {unknown_name('prompt set', key, self.prompt_sets)}"
                    )
        for key in self.prompt_sets:
            if not any(key in item.prompts for item in self.classes):
                raise ValueError(f"prompt_sets.{key}: no class has words in this set")

    def _check_layout(self, name: str, layout: Layout) -> None:
        for key, files in layout.files.items():
            if key not in self.modalities:
                raise ValueError(f"layouts.{name}.files: {unknown_name('modality', key, self.modalities)}")
            bands = len(self.modalities[key].bands)
            if files.channels and len(files.channels) != bands:
                raise ValueError(
                    f"layouts.{name}.files.{key}.channels has {len(files.channels)} items, the modality {bands} bands"
                )
            if not files.channels and files.file_bands not in (None, bands):
                raise ValueError(
                    f"layouts.{name}.files.{key}.file_bands is {files.file_bands} and the modality has {bands} bands; "
                    "say with channels which of the file's bands they are"
                )
        for key in layout.labels.values:
            if key not in self.class_names:
                raise ValueError(f"layouts.{name}.labels.values: {unknown_name('class', key, self.class_names)}")
        if layout.labels.encoding == "folder":
            folders = layout.placeholders.get("class")
            if folders is None or set(folders.values) != set(self.class_names):
                raise ValueError(f"layouts.{name}.placeholders.class.values must be the names of the classes")
        elif layout.labels.encoding == "colour":
            if not all(item.colours for item in self.classes if not item.ignored):
                raise ValueError(f"layouts.{name}: colour-coded labels need the colours of every class")
        elif layout.labels.encoding != "none":
            try:
                self.label_values(name)
            except ValueError as error:
                raise ValueError(f"layouts.{name}.labels: {error}") from error

    def _check_protocol(self, name: str, protocol: Protocol) -> None:
        layout_name = protocol.layout or next(iter(self.layouts))
        if layout_name not in self.layouts:
            raise ValueError(f"protocols.{name}.layout: {unknown_name('layout', layout_name, self.layouts)}")
        layout = self.layouts[layout_name]
        for key in protocol.modalities:
            if key not in layout.files:
                raise ValueError(f"protocols.{name}.modalities: {unknown_name('modality', key, layout.files)}")
        for key in protocol.classes:
            if key not in self.class_names:
                raise ValueError(f"protocols.{name}.classes: {unknown_name('class', key, self.class_names)}")
        for key in protocol.splits.values():
            if key not in layout.splits:
                raise ValueError(f"protocols.{name}.splits: {unknown_name('split', key, layout.splits)}")
        if protocol.random_split and protocol.random_split.of not in (None, *layout.splits):
            split = unknown_name("split", protocol.random_split.of, layout.splits)
            raise ValueError(f"protocols.{name}.random_split.of: {split}")
        if protocol.tiles and protocol.tiles.of not in (None, *layout.files):
            modality = unknown_name("modality", protocol.tiles.of, layout.files)
            raise ValueError(f"protocols.{name}.tiles.of: {modality}")
        if protocol.clouds is not None and protocol.clouds not in self.clouds:
            raise ValueError(f"protocols.{name}.clouds: {unknown_name('clouds', protocol.clouds, self.clouds)}")
        for key in protocol.prompt_sets:
            if key not in self.prompt_sets:
                raise ValueError(f"protocols.{name}.prompt_sets: {unknown_name('prompt set', key, self.prompt_sets)}")
            for item in protocol.classes:
                if key not in self.dataset_class(item).prompts:
                    raise ValueError(f"protocols.{name}: class {item!r} has no words in the prompt set {key!r}")

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of all classes, ignored ones too, in order."""
        return tuple(item.name for item in self.classes)

    @property
    def default_layout(self) -> str:
        """The name of the publisher's own layout."""
        return next(iter(self.layouts))

    def layout(self, name: str | None = None) -> Layout:
        """A layout by name, the publisher's own without one."""
        if name is None:
            name = self.default_layout
        if name not in self.layouts:
            raise unknown_name(f"layout of {self.name}", name, self.layouts)
        return self.layouts[name]

    def protocol(self, name: str) -> Protocol:
        """A protocol by name."""
        if name not in self.protocols:
            raise unknown_name(f"protocol of {self.name}", name, self.protocols)
        return self.protocols[name]

    def dataset_class(self, name: str) -> DatasetClass:
        """A class by name."""
        for item in self.classes:
            if item.name == name:
                return item
        raise unknown_name(f"class of {self.name}", name, self.class_names)

    def counted_classes(self, protocol: str | None = None) -> tuple[str, ...]:
        """The classes that count, in the order of their indices: a protocol's, or all that are not ignored."""
        if protocol is not None:
            return self.protocol(protocol).classes
        return tuple(item.name for item in self.classes if not item.ignored)

    def prompts(self, set_name: str = "original", protocol: str | None = None) -> list[str]:
        """The words of a prompt set, one string a class, as :func:`rsovlib.segment` takes them.

        Args:
            set_name: for example ``original``, ``generalized`` or ``candidates``.
            protocol: take this protocol's classes in its order; without it, all classes that have words in the set.

        Returns:
            One string for each class, ``"ground, road, streets"`` where it has synonyms.

        Raises:
            InputError: there is no such set or protocol, or a class of the protocol has no words in the set.
        """
        if set_name not in self.prompt_sets:
            raise unknown_name(f"prompt set of {self.name}", set_name, self.prompt_sets)
        if protocol is None:
            items = [item for item in self.classes if set_name in item.prompts]
        else:
            items = [self.dataset_class(name) for name in self.protocol(protocol).classes]
            for item in items:
                if set_name not in item.prompts:
                    sets = [key for key in self.prompt_sets if all(key in other.prompts for other in items)]
                    raise unknown_name(f"prompt set for all classes of protocol {protocol!r}", set_name, sets)
        return [", ".join(item.prompts[set_name]) for item in items]

    def label_values(self, layout: str | None = None) -> dict[str, tuple[int, ...]]:
        """For each class the numbers that mean it in a layout's index-coded label files.

        Returns:
            Class name to numbers; a class that does not occur in the files has an empty tuple.

        Raises:
            ValueError: two classes would share a number, or a class that counts has none.
        """
        labels = self.layout(layout).labels
        table: dict[str, tuple[int, ...]] = {}
        for item in self.classes:
            if labels.values:
                table[item.name] = labels.values.get(item.name, ())
            else:
                table[item.name] = tuple(value + labels.offset for value in item.values)
            if not table[item.name] and not item.ignored:
                raise ValueError(f"class {item.name!r} has no value")
        no_repeats("label value", [*(value for values in table.values() for value in values), *labels.ignore_values])
        return table

    def index_table(self, layout: str | None = None, protocol: str | None = None) -> dict[int, int]:
        """For each number in a layout's label files the index of its class, 255 for what is not counted.

        Numbers that the table lacks are not allowed in the files.
        """
        indices = self._indices(protocol)
        labels = self.layout(layout).labels
        table = {value: indices[name] for name, values in self.label_values(layout).items() for value in values}
        if labels.encoding == "polygons":  # 0 is what no polygon covers
            table.setdefault(0, self._other(protocol))
        return table | dict.fromkeys(labels.ignore_values, IGNORE)

    def colour_table(self, layout: str | None = None, protocol: str | None = None) -> dict[Colour, int]:
        """For each colour in a layout's colour-coded label files the index of its class, 255 if not counted."""
        indices = self._indices(protocol)
        table = {colour: indices[item.name] for item in self.classes for colour in item.colours}
        return table | dict.fromkeys(self.layout(layout).labels.ignore_colours, IGNORE)

    def _indices(self, protocol: str | None) -> dict[str, int]:
        """The index of every class, the others' too."""
        other = self._other(protocol)
        first = int(other == 0)  # the task "class or not": 0 is everything else
        counted = {name: place for place, name in enumerate(self.counted_classes(protocol), start=first)}
        return dict.fromkeys(self.class_names, other) | counted

    def _other(self, protocol: str | None) -> int:
        """The index of labelled pixels whose class doesn't count; no data is 255 in any case."""
        return 0 if protocol is not None and self.protocol(protocol).others == "background" else IGNORE
