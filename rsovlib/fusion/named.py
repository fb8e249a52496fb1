"""Backbones by one text: a name of ``rsovlib weights list``, or an architecture with its weights behind an ``@``.

>>> load_named_clip("openai-ViT-B-16", "cpu")  # doctest: +SKIP
>>> load_named_clip("ViT-L-14-336-quickgelu@openai", "cpu")  # of open_clip, with one of its tags  # doctest: +SKIP
>>> load_named_dino("vit_base_patch8_224@/data/rsib.pth", "cpu")  # of timm, from a file  # doctest: +SKIP

So a notebook's parameter names a network wholly, and the run's identity takes in the hash of its file.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from rsovlib.backbones import ClipBackbone, DinoBackbone, load_clip, load_dino, registry
from rsovlib.errors import InputError

RANDOM = "random"
"""Weights for shapes and costs only."""
_FILES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def split_name(text: str) -> tuple[str, str | None]:
    """Name and weights, None for the name's own.

    Raises:
        InputError: one of both is missing.
    """
    name, at, weights = text.partition("@")
    if not name or (at and not weights):
        raise InputError(f"{text!r} names no network; write NAME, or ARCHITECTURE@TAG, or ARCHITECTURE@FILE.")
    return name, weights or None


def load_named_clip(text: str, device: str | torch.device = "auto") -> ClipBackbone:
    """A CLIP; see :func:`rsovlib.backbones.load_clip` for what is raised."""
    name, weights = split_name(text)
    return load_clip(name, weights, device)


def load_named_dino(text: str, device: str | torch.device = "auto") -> DinoBackbone:
    """A DINO; see :func:`rsovlib.backbones.load_dino` for what is raised."""
    name, weights = split_name(text)
    return load_dino(name, weights, device)


def weights_file(text: str) -> Path | None:
    """The file of the weights, fetched where that is allowed; None for random ones.

    Raises:
        InputError: an unknown name or tag.
        WeightsError: it isn't on this machine and can't be fetched.
    """
    import timm

    name, weights = split_name(text)
    if weights is None:
        return registry.fetch(registry.get(name))
    if weights == RANDOM:
        return None
    if os.sep in weights or Path(weights).suffix in _FILES:
        return Path(weights)
    return registry.fetch_timm(f"{name}.{weights}") if timm.is_model(name) else registry.fetch_open_clip(name, weights)
