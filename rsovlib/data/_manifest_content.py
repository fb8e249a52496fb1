"""The part of a manifest that says what was measured: sensors, bands, classes and words, and under which terms."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from rsovlib.data._manifest_types import (
    Checksum,
    Colour,
    Flag,
    Float,
    Identifier,
    Int,
    Length,
    Strict,
    Text,
    Url,
    no_repeats,
)
from rsovlib.errors import unknown_name


class Band(Strict):
    """One channel of a modality.

    Attributes:
        name: for example ``red``, ``B8A``, ``VV``, ``elevation``.
        wavelength_nm: centre wavelength in nanometres, for optical bands, where it is published.
        range_nm: lower and upper wavelength in nanometres, where published.
        polarisation: of a radar band.
        unit: of the stored values: ``digital number``, ``reflectance x 10000``, ``dB``, ``m`` ...
        valid_range: smallest and largest meaningful stored value.
        nodata: the stored value that means "not measured", None where there is none.
        mean, std: of the stored values over the training split, only where the dataset's publishers or a paper
            that uses it print them.
    """

    name: Text
    wavelength_nm: Length | None = None
    range_nm: tuple[Length, Length] | None = None
    polarisation: Literal["HH", "HV", "VH", "VV"] | None = None
    unit: Text = "digital number"
    valid_range: tuple[Float, Float] | None = None
    nodata: Float | None = None
    mean: Float | None = None
    std: Length | None = None
    notes: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for key in ("range_nm", "valid_range"):
            interval = getattr(self, key)
            if interval is not None and interval[0] >= interval[1]:
                raise ValueError(f"{key} must be [smaller, larger], not {list(interval)}")
        if self.range_nm and self.wavelength_nm and not self.range_nm[0] <= self.wavelength_nm <= self.range_nm[1]:
            raise ValueError(f"wavelength_nm {self.wavelength_nm:g} lies outside range_nm {list(self.range_nm)}")
        if self.polarisation and (self.wavelength_nm or self.range_nm):
            raise ValueError("a band has a wavelength (optical) or a polarisation (radar), not both")
        return self


class Modality(Strict):
    """One kind of measurement that a sample may have.

    Attributes:
        kind: what physics it is; decides how it is normalised and shown.
        sensor: instrument or camera.
        gsd_m: ground sampling distance in metres of the stored grid, None where it differs from image to image.
        bands: in the order in which the reader returns them.
        display: three band names to show as red, green, blue (false colour for IRRG), or one to show as grey.
        clear_twin: of a cloudy modality, the name of the modality with the same scene without clouds.
    """

    kind: Literal["optical", "sar", "elevation"]
    sensor: Text
    gsd_m: Length | None = None
    bands: tuple[Band, ...] = Field(min_length=1)
    display: tuple[Text, ...] = ()
    clear_twin: Text | None = None
    notes: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [band.name for band in self.bands]
        no_repeats("band", names)
        for name in self.display:
            if name not in names:
                raise ValueError(str(unknown_name("band", name, names)))
        if len(self.display) not in (0, 1, 3):
            raise ValueError(f"display must name one band or three, not {len(self.display)}")
        for band in self.bands:
            if self.kind == "optical" and band.polarisation:
                raise ValueError(f"band {band.name!r} of an optical modality has a polarisation")
            if self.kind != "optical" and (band.wavelength_nm or band.range_nm):
                raise ValueError(f"band {band.name!r} of a modality of kind {self.kind!r} has a wavelength")
        return self

    @property
    def band_names(self) -> tuple[str, ...]:
        """The names of the bands, in order."""
        return tuple(band.name for band in self.bands)


class DatasetClass(Strict):
    """One class of the labels.

    Attributes:
        name: as the publisher (or, for renamed sets, the paper) writes it.
        values: the numbers in index-coded label files that mean this class; a layout may override them.
        colours: the colours in colour-coded label files that mean this class.
        colour: red, green, blue to show it in; the first of ``colours`` if not given.
        ignored: true for "no data", boundaries, clutter that no protocol counts unless it names the class.
        prompts: for each prompt set the words for this class, the first of them shown; more than one are synonyms.
    """

    name: Text
    values: tuple[Int, ...] = ()
    colours: tuple[Colour, ...] = ()
    colour: Colour | None = None
    ignored: Flag = False
    prompts: dict[Identifier, tuple[Text, ...]] = Field(default_factory=dict)
    notes: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, words in self.prompts.items():
            if not words:
                raise ValueError(f"prompts.{name} is empty; leave the set out where the class has no words in it")
            no_repeats(f"word of prompts.{name}", words)
            for word in words:
                if "," in word or ";" in word:
                    raise ValueError(f"prompts.{name} has {word!r}: give each synonym as an item of its own")
        return self

    @property
    def display_colour(self) -> Colour | None:
        """What to draw the class in, if the dataset says."""
        return self.colour or (self.colours[0] if self.colours else None)


class PromptSet(Strict):
    """Where a set of prompts comes from."""

    source: Text
    notes: str = ""


class Licence(Strict):
    """Under which terms the data may be used.

    Attributes:
        name: as published, or "not stated".
        url: where it stands.
        redistribution: whether copies may be passed on; None where it is not known.
    """

    name: Text
    url: Url | None = None
    redistribution: Flag | None = None
    notes: str = ""


class Download(Strict):
    """One published archive."""

    file: Text
    url: Url | None = None
    checksum: Checksum | None = None
    notes: str = ""
