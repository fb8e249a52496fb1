"""What a fusion network is made of: three switches, sizes, and the readings where paper and release differ.

One network gives three published methods (Table 3 of MM-OVSeg is exactly this ladder):

======== ============ ======== =====================================================
method   optical DINO SAR DINO source
======== ============ ======== =====================================================
cat-seg  no           no       CAT-Seg (Cho et al., CVPR 2024)
gsnet    yes          no       GSNet (Ye et al., AAAI 2025)
mm-ovseg yes          yes      MM-OVSeg (CVPR 2026, arXiv 2603.17528)
======== ============ ======== =====================================================

This module is light: no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

from rsovlib.errors import InputError, unknown_name

#: How CLIP's last block is read for every patch, see :mod:`rsovlib.fusion.dense_clip`.
DENSE_READINGS = {
    "class_residual": "values of the last block plus the class token, then the feed-forward (CAT-Seg and its heirs)",
    "own_residual": "values of the last block plus the token itself, then the feed-forward",
    "value_path": "values of the last block alone (MaskCLIP; what the embedded CLIP was trained through)",
}


@dataclass(frozen=True)
class Readings:
    """Where paper, release and good sense differ: one switch a difference, True for ours.

    Differences that only make the release fail (a sliding window without SAR input, prompts cached under the wrong
    classes, a position table resized for 384 pixels only) are not imitated.

    Attributes:
        sar_follows_optical: SAR goes through the optical image's resize, crop and flip. The release pads or crops SAR
            to the input size and flips only the optical image. (Data: used by the augmentation.)
        unseen_left_out: pixels without a label (which include every unseen class) take no part in the loss. The
            release trains them as negatives of all seen classes, as CAT-Seg does, and finds unseen classes better for
            it where the seen ones are labelled everywhere (``mm-ovseg-variants``). (Used by the loss.)
        sar_from_its_file: SAR comes from the SAR file. In the release's OEM-thin validation the optical image is
            loaded in its place, because a folder name lacks a level. (Data: used by the evaluation.)
        plain_class_names: classes are called "background", "developed space", "agricultural land". The release asks
            for "backbroad", "developedspace", "agricultureland".
        all_synonyms: a class's synonyms are averaged in the space of embeddings. The release takes the first word.
        own_statistics: every network sees pixels normalised with the statistics it was pretrained with. The release
            uses CLIP's for both DINOs and for SAR.
        masks_missing_sar: SAR features are multiplied by the share of pixels with data. The release adds them
            whatever the pixels are.
        shows_logits_resized: logits are resized to the image, as the loss does. The release resizes their sigmoids.
        pads_classes: the class attention sees learned padding tokens up to a fixed number of classes; so in paper's
            baseline and release, and kept here. False: only the classes that were asked for.
        shallow_skip_first: the decoder's first step is guided by the shallower block, its second, finer one by the
            deeper; so in the release, and kept here. False: the other way round.
        trains_position: CLIP's position tables are trained. False in the release, whose rule for them looks in the
            wrong place; the published parameter counts agree with False, so it is kept here.
    """

    sar_follows_optical: bool = True
    unseen_left_out: bool = True
    sar_from_its_file: bool = True
    plain_class_names: bool = True
    all_synonyms: bool = True
    own_statistics: bool = True
    masks_missing_sar: bool = True
    shows_logits_resized: bool = True
    pads_classes: bool = True
    shallow_skip_first: bool = True
    trains_position: bool = False

    @classmethod
    def released(cls, **changes: bool) -> Self:
        """What the released program does, with changes."""
        ours = dict.fromkeys(RELEASE_DIFFERS, False)
        return cls(**{**ours, **changes})

    @property
    def ignored_as_negative(self) -> bool:
        """Whether pixels without a label are negatives of every class, the loss's name for ``not unseen_left_out``."""
        return not self.unseen_left_out


#: The readings in which the release differs from ours.
RELEASE_DIFFERS = (
    "sar_follows_optical",
    "unseen_left_out",
    "sar_from_its_file",
    "plain_class_names",
    "all_synonyms",
    "own_statistics",
    "masks_missing_sar",
    "shows_logits_resized",
)


@dataclass(frozen=True)
class FusionConfig:
    """A fusion network's architecture; the defaults are those of the ViT-B/16 release.

    Attributes:
        optical_dino: whether a DINO sees the optical image.
        sar_dino: whether a second DINO sees the SAR image.
        sar_clip: whether a second, frozen CLIP image tower sees it too, its features projected and added likewise
            (Table A5 of MM-OVSeg, whose paper doesn't say how; not part of the published network).
        size: side in pixels of the images that it is trained on.
        cell: side in pixels of one cell of the cost volume, g = side / cell.
        clip_dense: see :data:`DENSE_READINGS`.
        clip_position: dialect in which CLIP's position table is resized, see ``backbones.position``.
        clip_skips: blocks of CLIP, from 1, that guide the decoder's two steps.
        dino_blocks: blocks of DINO, from 1: two that guide the decoder's steps, and the one compared with the text.
        dino_finer: DINO's patches along a cell's side.
        templates: P texts a class, ``{}`` for its name.
        width: C, channels of the cost volume.
        layers: of the aggregator.
        heads: of its attentions.
        window: side in cells of the spatial attention's windows; every second block is shifted by half.
        kernel: side of the convolutions that embed and fuse the costs.
        class_tokens: number of classes up to which the class attention is padded.
        skip_widths: channels of the skips at twice and four times the cells' resolution.
        guidance_widths: the same where they enter the decoder.
        decoder_widths: of the decoder's two steps.
        cost_skip: slope at first of the cosines themselves, which are then added to the logits (see
            :class:`rsovlib.fusion.cost.CostSkip`); 0, as in the papers, adds nothing. The embedded networks learn in a
            few hundred steps what the papers' learn in 80,000, and start from the cosines' own answer.
        readings: where paper and release differ.
    """

    optical_dino: bool = True
    sar_dino: bool = True
    sar_clip: bool = False
    size: int = 384
    cell: int = 16
    clip_dense: str = "class_residual"
    clip_position: str = "bicubic"
    clip_skips: tuple[int, int] = (4, 8)
    dino_blocks: tuple[int, int, int] = (4, 8, 12)
    dino_finer: int = 2
    templates: tuple[str, ...] = ("A photo of a {} in the scene",)
    width: int = 128
    layers: int = 2
    heads: int = 4
    window: int = 12
    kernel: int = 7
    class_tokens: int = 256
    skip_widths: tuple[int, int] = (256, 128)
    guidance_widths: tuple[int, int] = (32, 16)
    decoder_widths: tuple[int, int] = (64, 32)
    cost_skip: float = 0.0
    readings: Readings = field(default_factory=Readings)

    def __post_init__(self) -> None:
        if self.sar_dino and not self.optical_dino:
            raise InputError("A SAR DINO needs the optical one beside it; set optical_dino=True, or sar_dino=False.")
        if self.clip_dense not in DENSE_READINGS:
            raise unknown_name("dense reading of CLIP", self.clip_dense, DENSE_READINGS)
        for name in ("size", "cell", "dino_finer", "width", "heads", "window", "kernel"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.layers < 0 or self.width % self.heads:
            raise InputError(f"{self.heads} heads can't share {self.width} channels; choose a divisor of the width.")
        if self.kernel % 2 == 0:
            raise InputError(f"kernel must be odd, so that a cell lies in the middle; got {self.kernel}.")
        if not self.templates or any("{}" not in template for template in self.templates):
            raise InputError("Every template needs a {} where the class name goes, and there must be one template.")

    @property
    def uses_sar(self) -> bool:
        """Whether there is a branch for SAR."""
        return self.sar_dino or self.sar_clip

    @property
    def method(self) -> str:
        """The published method that the switches give."""
        if self.sar_dino:
            return "mm-ovseg"
        return "gsnet" if self.optical_dino else "cat-seg"

    @classmethod
    def vit_b(cls, **changes: Any) -> Self:
        """CLIP ViT-B/16 and DINO ViT-B/8 at 384 pixels."""
        return cls(**changes)

    @classmethod
    def vit_l(cls, **changes: Any) -> Self:
        """CLIP ViT-L/14 (336 pixels) and DINOv3 ViT-L/16 (384 pixels; the paper writes ViT-L/14)."""
        sizes = {"clip_skips": (8, 16), "dino_blocks": (8, 16, 24), "dino_finer": 1}
        return cls(**{**sizes, **changes})

    @classmethod
    def embedded(cls, **changes: Any) -> Self:
        """The size for rsov-tiny-clip and rsov-tiny-dino: patch 8, width 128, 5 blocks."""
        sizes = {
            "size": 96,
            "cell": 8,
            "clip_dense": "value_path",
            "clip_position": "bilinear",
            "clip_skips": (2, 4),
            "dino_blocks": (2, 4, 5),
            "dino_finer": 1,
            "width": 32,
            "layers": 1,
            "heads": 2,
            "window": 6,
            "kernel": 3,
            "class_tokens": 32,
            "skip_widths": (32, 16),
            "guidance_widths": (8, 4),
            "decoder_widths": (16, 8),
            "cost_skip": 30.0,
        }
        return cls(**{**sizes, **changes})

    @classmethod
    def for_method(cls, method: str, base: FusionConfig) -> Self:
        """A configuration with the switches of a method: ``"mm-ovseg"``, ``"gsnet"`` or ``"cat-seg"``.

        Raises:
            InputError: there is no such method.
        """
        if method not in SWITCHES:
            raise unknown_name("fusion method", method, SWITCHES)
        optical, sar = SWITCHES[method]
        return cls(**{**_shallow(base), "optical_dino": optical, "sar_dino": sar})

    def with_readings(self, **changes: bool) -> Self:
        """The same with other readings."""
        return replace(self, readings=replace(self.readings, **changes))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Back from :meth:`to_dict`, or from the JSON of it.

        Raises:
            InputError: an entry is unknown.
        """
        known = [entry.name for entry in fields(cls)]
        for name in values:
            if name not in known:
                raise unknown_name("entry of a fusion configuration", name, known)
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        readings = plain.get("readings", {})
        for name in readings:
            if name not in READINGS:
                raise unknown_name("reading", name, READINGS)
        return cls(**{**plain, "readings": Readings(**readings)})


@dataclass(frozen=True)
class Provenance:
    """Where a network's trained weights come from.

    Attributes:
        weights: name or file; "untrained" for fresh ones.
        sha256: of the file, or "".
        record: of the training, as plain values.
    """

    weights: str = "untrained"
    sha256: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)


#: Method -> (optical_dino, sar_dino).
SWITCHES = {"mm-ovseg": (True, True), "gsnet": (True, False), "cat-seg": (False, False)}
#: The names of all readings.
READINGS = tuple(entry.name for entry in fields(Readings))


def _shallow(config: FusionConfig) -> dict[str, Any]:
    return {entry.name: getattr(config, entry.name) for entry in fields(config)}
