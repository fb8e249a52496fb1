"""Pixels and words to features: open_clip and timm models, prompts, the registry of named weights."""

from __future__ import annotations

from rsovlib.backbones.clip import BlockStep, ClipBackbone
from rsovlib.backbones.dino import DinoBackbone, DinoFeatures
from rsovlib.backbones.load_clip import load_clip
from rsovlib.backbones.load_dino import load_dino
from rsovlib.backbones.text import encode_classes, encode_words, template_set
from rsovlib.data.lexicon import RS10

__all__ = [
    "RS10",
    "BlockStep",
    "ClipBackbone",
    "DinoBackbone",
    "DinoFeatures",
    "encode_classes",
    "encode_words",
    "load_clip",
    "load_dino",
    "template_set",
]
