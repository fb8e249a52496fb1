"""Trained optical-SAR segmentation: CAT-Seg, GSNet, MM-OVSeg and EBSeg, their training, their segmenters."""

from __future__ import annotations

from rsovlib.fusion.config import FusionConfig, Readings

#: Methods of the papers' tables that are not implemented here, and why.
NOT_AVAILABLE = {
    "fgaseg": (
        "FGAseg (arXiv 2501.00877) has no released program that could be found, and what is published of it names its "
        "parts (a pixel-text transformer, an alignment loss, global and local supplementation) without the sizes, "
        "schedule and loss weights that would make a network of that name more than a guess; its rows are the "
        "papers' numbers alone."
    ),
}

__all__ = ["NOT_AVAILABLE", "FusionConfig", "Readings"]
