"""GFLOPs of the compared methods at full size, without weights and without computing anything.

The networks are built on torch's ``meta`` device, where tensors have shapes and no content, and this package's own
methods run on them while ``torch.utils.flop_counter`` counts: two FLOPs for a multiplication with an addition, in
matrix products, convolutions and attention. Words are encoded once and kept and aren't counted; neither is anything
elementwise, nor superpixels, PAMR and the convex step.

A number depends on how a method is run, so two settings are counted (see :mod:`rsovlib.experiments.sdci.flop_recipes`):

* ``"native"``: as its authors released it, and as this package runs it in the profile ``full``;
* ``"table1"``: the setting that explains best what SDCI's Table 1 prints, with everything that the authors' programs
  compute beyond this package's, part by part. What no setting explains is said to be unexplained.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import torch

from rsovlib.backbones.clip import ClipBackbone
from rsovlib.backbones.dino import DinoBackbone
from rsovlib.errors import InputError, unknown_name
from rsovlib.experiments.papers import paper_table
from rsovlib.experiments.results import ResultRow, record

if TYPE_CHECKING:
    import pandas as pd

Setting = Literal["native", "table1"]
SETTINGS: tuple[Setting, ...] = ("native", "table1")
#: What was counted, in words.
SAID: dict[Setting, str] = {
    "native": "counted as its authors run it",
    "table1": "counted in the setting that comes nearest to the printed number",
}

#: Row of SDCI's Table 1 -> method of this package.
TABLE1_METHODS = {
    "MaskCLIP": "maskclip",
    "ClearCLIP": "clearclip",
    "SCLIP": "sclip",
    "CorrCLIP": "corrclip",
    "CLIPer": "cliper",
    "NACLIP": "naclip",
    "ResCLIP": "resclip",
    "CASS": "cass",
    "SegEarth-OV": "segearth-ov",
    "SDCI-v1": "sdci-v1",
    "SDCI-v2": "sdci-v2",
}

_CLIPS = {"B/16": "ViT-B-16-quickgelu", "L/14": "ViT-L-14-quickgelu", "L/14 at 336": "ViT-L-14-336-quickgelu"}
_DINOS = {
    "DINO B/8": ("vit_base_patch8_224", "bicubic_offset"),
    "DINOv2 B/14": ("vit_base_patch14_reg4_dinov2", "bicubic_antialias"),
    "DINOv3 L/16": ("vit_large_patch16_dinov3", "bicubic_antialias"),
}


@dataclass(frozen=True)
class Part:
    """A part of a count.

    Attributes:
        name: what is computed.
        gflops: in 10^9.
        why: why it is there, where this package doesn't compute it itself.
    """

    name: str
    gflops: float
    why: str = ""


@dataclass(frozen=True)
class FlopCount:
    """What one image costs.

    Attributes:
        method: of this package.
        setting: ``"native"`` or ``"table1"``.
        configuration: networks, input and windows in words.
        parts: what was counted.
        missing: what belongs to the method and could not be counted, in words; "" for nothing.
        seconds: how long counting took.
    """

    method: str
    setting: Setting
    configuration: str
    parts: tuple[Part, ...]
    missing: str
    seconds: float

    @property
    def gflops(self) -> float:
        """The sum of the parts, in 10^9."""
        return sum(part.gflops for part in self.parts)


@dataclass(frozen=True)
class Explained:
    """A number of the paper beside the count that explains it best.

    Attributes:
        row: of the paper's table.
        printed: the paper's GFLOPs.
        count: ours.
        where: ``"Table 1"`` or ``"text"``.
    """

    row: str
    printed: float
    count: FlopCount
    where: str = "Table 1"

    @property
    def deviation(self) -> float:
        """(ours - printed) / printed."""
        return self.count.gflops / self.printed - 1

    @property
    def verdict(self) -> str:
        """By the deviation alone: within 1 %, within 5 %, or not identified; partial counts can't be complete."""
        if self.count.missing and self.deviation < 0:
            return "partly explained"
        if abs(self.deviation) <= 0.01:
            return "reproduced within 1 %"
        return "within 5 %" if abs(self.deviation) <= 0.05 else "not identified"

    @property
    def sentence(self) -> str:
        """Which setting explains the printed number, and how well."""
        counted = f"{self.count.configuration}: {self.count.gflops:.1f} GFLOP ({100 * self.deviation:+.1f} %)"
        if self.count.missing and self.deviation < 0:
            return f"the printed {self.printed:g} is partly explained by {counted}, without {self.count.missing}"
        if self.verdict == "not identified":
            return f"no setting that was tried explains the printed {self.printed:g}; the nearest is {counted}"
        return f"the printed {self.printed:g} is explained by {counted}"


def flops_of(method: str, *, setting: Setting = "native", size: int = 512, classes: int = 5) -> FlopCount:
    """Count the FLOPs of one image at full size.

    Args:
        method: of this package, see :data:`TABLE1_METHODS`; ``"proxyclip"`` in the native setting as well.
        setting: ``"native"`` or ``"table1"``.
        size: side of the square image in pixels.
        classes: K, each with one name.

    Returns:
        The count with its parts; it takes a second or two and no memory to speak of.

    Raises:
        InputError: unknown method or setting.
    """
    return _count(method, setting, size, classes)


@cache
def _count(method: str, setting: Setting, size: int, classes: int) -> FlopCount:
    from rsovlib.experiments.sdci.flop_recipes import RECIPES

    if setting not in SETTINGS:
        raise unknown_name("setting", setting, SETTINGS)
    if method not in RECIPES:
        raise unknown_name("method with a count", method, RECIPES)
    if size < 16 or classes < 1:
        raise InputError(f"size must be at least 16 and classes at least 1, got {size} and {classes}.")
    started = time.perf_counter()
    recipe = RECIPES[method](setting, size, classes)
    return FlopCount(
        method, setting, recipe.configuration, tuple(recipe.parts), recipe.missing, time.perf_counter() - started
    )


def explain_table1(rows: Iterable[str] | None = None, *, size: int = 512, classes: int = 5) -> list[Explained]:
    """Every GFLOPs number of the paper beside the count of the setting that explains it best.

    SDCI's two versions stand twice: the number of the running text, and that of the table, which is larger by the same
    amount for both.

    Args:
        rows: of Table 1; all if None.
        size: side of the image in pixels; the paper's is 512.
        classes: K, each with one name.
    """
    table, text = paper_table("sdci", "table1"), paper_table("sdci", "gflops-text")
    found = []
    for row in table.rows if rows is None else rows:
        count = flops_of(TABLE1_METHODS[row], setting="table1", size=size, classes=classes)
        for where, printed in (("text", text), ("Table 1", table)):
            value = printed.value(row, "GFLOPs") if row in printed.rows else None
            if value is not None:
                found.append(Explained(row, value, count, where))
    return found


def explanation_frame(explained: Iterable[Explained]) -> pd.DataFrame:
    """As a table: printed, counted, deviation, verdict, and how."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "method": one.row,
                "printed in": one.where,
                "printed (GFLOP)": one.printed,
                "counted (GFLOP)": one.count.gflops,
                "deviation (%)": 100 * one.deviation,
                "verdict": one.verdict,
                "setting that comes closest": one.count.configuration,
                "not counted": one.count.missing,
            }
            for one in explained
        ]
    ).set_index(["method", "printed in"])


def parts_frame(counts: Iterable[FlopCount]) -> pd.DataFrame:
    """The parts of several counts below each other."""
    import pandas as pd

    names = {method: row for row, method in TABLE1_METHODS.items()}
    rows = [
        {
            "method": names.get(count.method, count.method),
            "part": part.name,
            "GFLOP": round(part.gflops, 2),
            "why": part.why,
        }
        for count in counts
        for part in count.parts
    ]
    return pd.DataFrame(rows).set_index(["method", "part"])


def native_frame(counts: Mapping[str, FlopCount]) -> pd.DataFrame:
    """Row of the table -> count in the authors' setting, as a table."""
    import pandas as pd

    return pd.DataFrame(
        {
            row: {"GFLOP": count.gflops, "setting": count.configuration, "not counted": count.missing}
            for row, count in counts.items()
        }
    ).T.rename_axis("method")


def two_numbers(explained: Iterable[Explained]) -> pd.DataFrame:
    """The rows that have one number in the text and another one in the table, and by how much they differ."""
    import pandas as pd

    found: dict[str, dict[str, float]] = {}
    for one in explained:
        found.setdefault(one.row, {})[one.where] = one.printed
    rows = {row: numbers for row, numbers in found.items() if {"text", "Table 1"} <= set(numbers)}
    frame = pd.DataFrame(rows).T[["Table 1", "text"]].rename_axis("GFLOP")
    return frame.assign(difference=frame["Table 1"] - frame["text"])


def record_flops(
    row: str, count: FlopCount, column: str = "GFLOPs", *, size: int = 512, explained: Explained | None = None
) -> ResultRow:
    """Hand a count over as a result row.

    FLOPs of a network don't depend on its weights, so that this number is comparable with the paper's in any profile;
    it is recorded under the profile ``full``. A count in another setting than the paper's is no such number, and its
    dataset says so.

    Args:
        row: of the table.
        count: of :func:`flops_of`.
        column: of the table.
        size: of the image, as it was counted.
        explained: the paper's number beside the setting that explains it, for the note of a count in another setting.
    """
    note = f"{SAID[count.setting]}: {count.configuration}"
    if count.missing:
        note = f"{note}; without {count.missing}"
    if explained is not None:
        note = f"{note}; {explained.sentence}"
    image = f"image-{size}" if count.setting == "table1" else f"image-{size} in the authors' own setting"
    return record(row, column, "flops", count.gflops, unit="GFLOP", dataset=image, profile="full", device="", note=note)


# ---- networks and counting ---------------------------------------------------------------------------------------


@cache
def meta_clip(name: str) -> ClipBackbone:
    """A CLIP without content: ``"B/16"``, ``"L/14"`` or ``"L/14 at 336"``."""
    import open_clip
    from open_clip.model import CLIP

    if name not in _CLIPS:
        raise unknown_name("CLIP to count", name, _CLIPS)
    with torch.device("meta"):
        model = CLIP(**(open_clip.get_model_config(_CLIPS[name]) or {}))
    return ClipBackbone(model.eval().requires_grad_(False), _no_words, name, "none")


@cache
def meta_dino(name: str) -> DinoBackbone:
    """A DINO without content: ``"DINO B/8"``, ``"DINOv2 B/14"`` or ``"DINOv3 L/16"``."""
    import timm

    if name not in _DINOS:
        raise unknown_name("DINO to count", name, _DINOS)
    architecture, position = _DINOS[name]
    with torch.device("meta"):
        model = timm.create_model(architecture, pretrained=False, num_classes=0, dynamic_img_size=True)
    return DinoBackbone(model.eval().requires_grad_(False), name, "none", position=position)


def counted(compute: Callable[[], Any]) -> float:
    """GFLOPs of whatever a function computes with torch."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        compute()
    return int(counter.get_total_flops()) / 1e9


def _no_words(texts: Any) -> torch.Tensor:
    raise InputError("A network without content can't encode words.")
