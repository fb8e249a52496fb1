"""The compared methods by name: what each is made of, and the networks that its authors used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rsovlib.backbones.clip import ClipBackbone
from rsovlib.backbones.dino import DinoBackbone
from rsovlib.segmenters.cass import CASS
from rsovlib.segmenters.clearclip import ClearCLIP
from rsovlib.segmenters.cliper import CLIPer
from rsovlib.segmenters.corrclip import CorrCLIP
from rsovlib.segmenters.dense import DenseConfig
from rsovlib.segmenters.maskclip import MaskCLIP
from rsovlib.segmenters.naclip import NACLIP
from rsovlib.segmenters.proxyclip import ProxyCLIP
from rsovlib.segmenters.resclip import ResCLIP
from rsovlib.segmenters.sclip import SCLIP
from rsovlib.segmenters.segearth import SegEarthOV
from rsovlib.segmenters.vanilla import VanillaCLIP

_BASE = ("ViT-B-16-quickgelu", "openai")
_DINO = ("vit_base_patch8_224", "dino")


@dataclass(frozen=True)
class ComparedMethod:
    """One method of SDCI's Table 1.

    Attributes:
        build: its class.
        clip: name and weights of the CLIP in the full profile, its authors' own.
        dino: the same of the second network; None where there is none.
    """

    build: Callable[..., Any]
    clip: tuple[str, str] = _BASE
    dino: tuple[str, str] | None = None

    @property
    def config(self) -> type[DenseConfig]:
        """The class of its options."""
        kind: type[DenseConfig] = self.build.config_type  # type: ignore[attr-defined]
        return kind

    def needs_dino(self, config: DenseConfig) -> bool:
        """Whether these options use the second network."""
        return self.dino is not None and getattr(config, "refinement", "dino") == "dino"

    def make(self, clip: ClipBackbone, dino: DinoBackbone | None, config: DenseConfig) -> Any:
        """The segmenter."""
        return self.build(clip, config=config) if dino is None else self.build(clip, dino, config=config)


COMPARED: dict[str, ComparedMethod] = {
    "vanilla": ComparedMethod(VanillaCLIP),
    "maskclip": ComparedMethod(MaskCLIP),
    "sclip": ComparedMethod(SCLIP),
    "clearclip": ComparedMethod(ClearCLIP),
    "naclip": ComparedMethod(NACLIP),
    "resclip": ComparedMethod(ResCLIP),
    "cliper": ComparedMethod(CLIPer, ("ViT-L-14-quickgelu", "openai"), _DINO),
    "proxyclip": ComparedMethod(ProxyCLIP, dino=_DINO),
    "corrclip": ComparedMethod(CorrCLIP, ("ViT-B-16-quickgelu", "metaclip_fullcc"), _DINO),
    "cass": ComparedMethod(CASS, dino=_DINO),
    "segearth-ov": ComparedMethod(SegEarthOV),
}
