"""Training-free segmenters: an image and class names in, a :class:`Segmentation` out."""

from __future__ import annotations

from rsovlib.segmenters.api import METHODS, PROFILES, make_segmenter, segment
from rsovlib.segmenters.base import GeoReference, Segmentation, Segmenter
from rsovlib.segmenters.cass import CASS, CASSConfig
from rsovlib.segmenters.clearclip import ClearCLIP
from rsovlib.segmenters.cliper import CLIPer, CLIPerConfig
from rsovlib.segmenters.compared import COMPARED
from rsovlib.segmenters.corrclip import CorrCLIP, CorrCLIPConfig
from rsovlib.segmenters.dense import DenseClip, DenseConfig
from rsovlib.segmenters.maskclip import MaskCLIP, MaskCLIPConfig
from rsovlib.segmenters.naclip import NACLIP, NACLIPConfig
from rsovlib.segmenters.proxyclip import ProxyCLIP, ProxyCLIPConfig
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
    "SegEarthConfig",
    "SegEarthOV",
    "Segmentation",
    "Segmenter",
    "ValuePath",
    "VanillaCLIP",
    "make_segmenter",
    "segment",
]
