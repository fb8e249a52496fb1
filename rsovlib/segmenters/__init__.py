"""Training-free segmenters: an image and class names in, a :class:`Segmentation` out."""

from __future__ import annotations

from rsovlib.segmenters.api import METHODS, PROFILES, make_segmenter, segment
from rsovlib.segmenters.base import GeoReference, Segmentation, Segmenter
from rsovlib.segmenters.sdci import SDCI, SDCIConfig
from rsovlib.segmenters.valuepath import ValuePath

__all__ = [
    "METHODS",
    "PROFILES",
    "SDCI",
    "GeoReference",
    "SDCIConfig",
    "Segmentation",
    "Segmenter",
    "ValuePath",
    "make_segmenter",
    "segment",
]
