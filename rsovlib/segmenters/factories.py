"""What makes the training-free methods: which backbones, which options, which class."""

from __future__ import annotations

import os
from typing import Any

from rsovlib.backbones import load_clip, load_dino
from rsovlib.backbones.embedded import EMBEDDED
from rsovlib.errors import InputError, unknown_name
from rsovlib.segmenters.base import Segmenter
from rsovlib.segmenters.compared import COMPARED
from rsovlib.segmenters.sdci import SDCI, SDCIConfig
from rsovlib.segmenters.valuepath import ValuePath

#: Profile -> the backbones that it means. Everything else is the same code.
PROFILES: dict[str, dict[str, tuple[str, str | None]]] = {
    "embedded": {"clip": ("rsov-tiny-clip", None), "dino": ("rsov-tiny-dino", None)},
    "full": {
        "clip": ("ViT-L-14-quickgelu", "openai"),
        "dino": ("vit_base_patch14_reg4_dinov2", "lvd142m"),
    },
}
#: SDCI's structural branches: the two of the paper, and DINOv3, for which the released program only has an adapter.
BRANCHES = {
    "sdci-v1": ("vit_base_patch8_224", "dino"),
    "sdci-v2": ("vit_base_patch14_reg4_dinov2", "lvd142m"),
    "sdci-v3": ("vit_base_patch16_dinov3", "lvd1689m"),
}


def make_training_free(
    method: str = "sdci",
    *,
    profile: str = "embedded",
    device: str = "auto",
    clip: str | None = None,
    clip_weights: str | os.PathLike[str] | None = None,
    dino: str | None = None,
    dino_weights: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Segmenter:
    """A training-free segmenter by name, with its models loaded.

    Args:
        method: ``"sdci"`` (official reading), ``"sdci-paper"``, or ``"valuepath"`` (CLIP alone, the control);
            ``"sdci-v1"``, ``"sdci-v2"``, ``"sdci-v3"``: SDCI with DINO, DINOv2 or DINOv3, in the full profile; or one
            of the compared methods, see ``segmenters.COMPARED``.
        profile: ``"embedded"`` or ``"full"``, see :data:`PROFILES`.
        device: where to compute.
        clip: another CLIP than the profile's, as ``load_clip`` takes it.
        clip_weights: its weights.
        dino: another DINO than the profile's, as ``load_dino`` takes it.
        dino_weights: its weights.
        **options: the method's own parameters, for example ``beta=0.3``; see :class:`SDCIConfig`.

    Raises:
        InputError: unknown profile or option.
        WeightsError: weights that aren't there.
    """
    if profile not in PROFILES:
        raise unknown_name("profile", profile, PROFILES)
    if method in COMPARED:
        return _compared_segmenter(method, profile, device, (clip, clip_weights), (dino, dino_weights), options)
    clip_name, clip_tag = (clip, None) if clip or clip_weights else PROFILES[profile]["clip"]
    small = clip_name in EMBEDDED  # however it was asked for: its settings go with the model
    defaults = SDCIConfig.embedded() if small else SDCIConfig.official()
    backbone = load_clip(clip_name, clip_weights or clip_tag, device=device)
    if method == "valuepath":
        shared = ("clip_size", "position_embedding", "logit_scale", "templates", "window", "overlap", "precision")
        for name in options:
            if name not in shared:
                raise unknown_name("option of valuepath", name, shared)
        return ValuePath(backbone, **{**{name: getattr(defaults, name) for name in shared}, **options})
    config = _sdci_config(method, small, options)
    if method in BRANCHES and profile == "embedded" and not dino:
        raise InputError(f"{method} means a DINO of the full profile; use method='sdci', or name one with dino=.")
    dino_name, dino_tag = (dino, None) if dino else BRANCHES.get(method, PROFILES[profile]["dino"])
    return SDCI(backbone, load_dino(dino_name, dino_weights or dino_tag, device=device), config)


def _compared_segmenter(
    method: str,
    profile: str,
    device: str,
    clip: tuple[str | None, str | os.PathLike[str] | None],
    dino: tuple[str | None, str | os.PathLike[str] | None],
    options: dict[str, Any],
) -> Segmenter:
    """A compared method with the networks of its authors, or those asked for."""
    entry = COMPARED[method]
    own = PROFILES[profile] if profile == "embedded" else {"clip": entry.clip, "dino": entry.dino}
    name, tag = (clip[0], None) if any(clip) else own["clip"] or (None, None)
    small = name in EMBEDDED
    config = entry.config.embedded(**options) if small else entry.config.official(**options)
    backbone = load_clip(name, clip[1] or tag, device=device)
    structure = None
    if entry.needs_dino(config):
        name, tag = (dino[0], None) if dino[0] else own["dino"] or (None, None)
        structure = load_dino(name, dino[1] or tag, device=device)
    made: Segmenter = entry.make(backbone, structure, config)
    return made


def _sdci_config(method: str, small: bool, options: dict[str, Any]) -> SDCIConfig:
    """The method's reading, with the embedded models' settings when they are the ones in use."""
    if method != "sdci-paper":
        return SDCIConfig.embedded(**options) if small else SDCIConfig.official(**options)
    if small:  # the paper knows no presence test, so only the sizes are taken over
        settings = SDCIConfig.embedded()
        sizes = {
            name: getattr(settings, name) for name in ("clip_size", "dino_scale", "window", "overlap", "tolerance")
        }
        options = {**sizes, **options}
    return SDCIConfig.paper(**options)
