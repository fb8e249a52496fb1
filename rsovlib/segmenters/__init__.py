"""Segmenters: an image and class names in, a :class:`Segmentation` out.

Names are imported when they are first used: the list of methods is there without PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rsovlib.segmenters.api import make_segmenter, segment
    from rsovlib.segmenters.base import GeoReference, SarSegmenter, Segmentation, Segmenter
    from rsovlib.segmenters.cass import CASS, CASSConfig
    from rsovlib.segmenters.clearclip import ClearCLIP
    from rsovlib.segmenters.cliper import CLIPer, CLIPerConfig
    from rsovlib.segmenters.compared import COMPARED
    from rsovlib.segmenters.corrclip import CorrCLIP, CorrCLIPConfig
    from rsovlib.segmenters.dense import DenseClip, DenseConfig
    from rsovlib.segmenters.factories import PROFILES
    from rsovlib.segmenters.maskclip import MaskCLIP, MaskCLIPConfig
    from rsovlib.segmenters.naclip import NACLIP, NACLIPConfig
    from rsovlib.segmenters.proxyclip import ProxyCLIP, ProxyCLIPConfig
    from rsovlib.segmenters.registry import METHODS, register
    from rsovlib.segmenters.resclip import ResCLIP, ResCLIPConfig
    from rsovlib.segmenters.sclip import SCLIP, SCLIPConfig
    from rsovlib.segmenters.sdci import SDCI, SDCIConfig
    from rsovlib.segmenters.segearth import SegEarthConfig, SegEarthOV
    from rsovlib.segmenters.valuepath import ValuePath
    from rsovlib.segmenters.vanilla import VanillaCLIP

__all__ = [
    "CASS",
    "COMPARED",
    "METHODS",
    "NACLIP",
    "PROFILES",
    "SCLIP",
    "SDCI",
    "CASSConfig",
    "CLIPer",
    "CLIPerConfig",
    "ClearCLIP",
    "CorrCLIP",
    "CorrCLIPConfig",
    "DenseClip",
    "DenseConfig",
    "GeoReference",
    "MaskCLIP",
    "MaskCLIPConfig",
    "NACLIPConfig",
    "ProxyCLIP",
    "ProxyCLIPConfig",
    "ResCLIP",
    "ResCLIPConfig",
    "SCLIPConfig",
    "SDCIConfig",
    "SarSegmenter",
    "SegEarthConfig",
    "SegEarthOV",
    "Segmentation",
    "Segmenter",
    "ValuePath",
    "VanillaCLIP",
    "make_segmenter",
    "register",
    "segment",
]

# Module -> the public names that it defines.
_MODULES = {
    "api": (
        "make_segmenter",
        "segment",
    ),
    "base": (
        "GeoReference",
        "SarSegmenter",
        "Segmentation",
        "Segmenter",
    ),
    "cass": (
        "CASS",
        "CASSConfig",
    ),
    "clearclip": ("ClearCLIP",),
    "cliper": (
        "CLIPer",
        "CLIPerConfig",
    ),
    "compared": ("COMPARED",),
    "corrclip": (
        "CorrCLIP",
        "CorrCLIPConfig",
    ),
    "dense": (
        "DenseClip",
        "DenseConfig",
    ),
    "factories": ("PROFILES",),
    "maskclip": (
        "MaskCLIP",
        "MaskCLIPConfig",
    ),
    "naclip": (
        "NACLIP",
        "NACLIPConfig",
    ),
    "proxyclip": (
        "ProxyCLIP",
        "ProxyCLIPConfig",
    ),
    "registry": (
        "METHODS",
        "register",
    ),
    "resclip": (
        "ResCLIP",
        "ResCLIPConfig",
    ),
    "sclip": (
        "SCLIP",
        "SCLIPConfig",
    ),
    "sdci": (
        "SDCI",
        "SDCIConfig",
    ),
    "segearth": (
        "SegEarthConfig",
        "SegEarthOV",
    ),
    "valuepath": ("ValuePath",),
    "vanilla": ("VanillaCLIP",),
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    for module, names in _MODULES.items():
        if name in names:
            value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
            globals()[name] = value  # the next look-up doesn't come here
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """What Tab shows: the public names, imported or not."""
    return sorted({*globals(), *__all__})
