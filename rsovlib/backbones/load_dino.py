"""From a name, a tag or a file to a :class:`~rsovlib.backbones.dino.DinoBackbone`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from rsovlib.backbones import registry
from rsovlib.backbones.checkpoints import HEADS, load_strictly, read_state_dict
from rsovlib.backbones.devices import resolve_device
from rsovlib.backbones.dino import DinoBackbone
from rsovlib.backbones.embedded import ALIGNMENT_BIAS, ALIGNMENT_WEIGHT, EMBEDDED, build_embedded_dino
from rsovlib.errors import InputError, WeightsError, unknown_name


def load_dino(
    name: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    device: str | torch.device = "auto",
    **architecture: Any,
) -> DinoBackbone:
    """Load a DINO vision transformer.

    Args:
        name: an embedded model (``"rsov-tiny-dino"``, the default), a timm architecture with or without its tag
            (``"vit_base_patch14_reg4_dinov2.lvd142m"``, ``"vit_base_patch8_224.dino"``), or a name of
            ``rsovlib weights list``.
        weights: a timm tag (``"dino"``), a local file (timm's or facebookresearch's state dict), ``"random"`` (for
            shapes and costs only), or None for the name's default.
        device: ``"auto"`` (a GPU when there is one), ``"cpu"``, ``"cuda"``, ...
        **architecture: overrides as ``timm.create_model`` takes them: ``embed_dim``, ``depth``, ``num_heads``, ...

    Returns:
        The model in float32, in evaluation mode, for any input size that its patch divides.

    Raises:
        WeightsError: weights missing, altered, unsafe, or of another architecture.
        InputError: unknown name or tag.
    """
    if name is None and weights is not None:
        raise InputError(
            "A DINO file can't be loaded without the name of its architecture; give load_dino a timm name."
        )
    name = name or registry.DEFAULT_DINO
    backbone = _embedded(name, weights, architecture) if name in EMBEDDED else _from_timm(name, weights, architecture)
    backbone.model.float().eval().requires_grad_(False)
    target = resolve_device(device)
    backbone.model.to(target)
    if backbone.alignment is not None:
        weight, bias = backbone.alignment
        backbone.alignment = (weight.float().to(target), bias.float().to(target))
    return backbone


def _embedded(name: str, weights: str | os.PathLike[str] | None, architecture: Mapping[str, Any]) -> DinoBackbone:
    entry = EMBEDDED[name]
    if entry.kind != "dino":
        raise InputError(f"{name} is a {entry.kind} model, not a DINO; load it with load_clip({name!r}).")
    model = build_embedded_dino({**entry.config, **architecture})
    source = registry.embedded_or_local(name, weights)
    if source is None:
        return DinoBackbone(model, name, "random")
    digest = registry.verified_sha256(source, entry.sha256 if weights is None else "")
    state = read_state_dict(source)
    alignment = _take_alignment(state, str(source))
    load_strictly(model, state, str(source))
    return DinoBackbone(model, name, source.name, digest, alignment=alignment)


def _from_timm(name: str, weights: str | os.PathLike[str] | None, architecture: Mapping[str, Any]) -> DinoBackbone:
    import timm

    named = registry.find(name)
    if named is not None and named.kind == "dino":
        asked, tag = named.architecture, named.tag
    else:
        asked, _, tag = name.partition(".")
    if not timm.is_model(asked):
        raise unknown_name("DINO model", name, [*timm.list_models("*dino*"), *registry.names("dino")])
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{asked}.*")]
    source: Path | None = None
    if weights is None or str(weights) in tags:
        tag = str(weights or tag or _dino_tag(tags))
        if tag not in tags:
            raise unknown_name(f"set of weights for {asked}", tag, [*tags, "random"])
        if architecture:
            raise InputError(
                f"{asked} with {sorted(architecture)} changed has no published weights; give weights= a file."
            )
        source = registry.fetch_timm(f"{asked}.{tag}")
    elif weights != "random":
        source = Path(weights)
        if not source.is_file() and not source.suffix and os.sep not in str(weights):
            raise unknown_name(f"set of weights for {asked}", weights, [*tags, "random"])
    digest = registry.verified_sha256(source) if source is not None else ""
    model = _build(asked, architecture)
    # A file of that architecture is taken for its self-supervised weights: others' image statistics differ.
    published = tag if tag in tags else _dino_tag(tags)
    statistics: Any = timm.get_pretrained_cfg(f"{asked}.{published}" if published else asked) or model.pretrained_cfg
    position = "bicubic_offset" if published == "dino" else "bicubic_antialias"
    alignment = None
    if source is not None:
        state = read_state_dict(source)
        alignment = _take_alignment(state, str(source))
        load_strictly(model, _as_timm(state, model, source), str(source))
    if weights is None or str(weights) in tags:
        label = tag
    else:
        label = source.name if source is not None else "random"
    backbone = DinoBackbone(model, name, label, digest, position, alignment)
    backbone.mean, backbone.std = tuple(statistics.mean), tuple(statistics.std)
    return backbone


def _build(architecture: str, overrides: Mapping[str, Any]) -> Any:
    """A timm model with fresh (random) parameters that takes images of any size."""
    import timm

    try:
        # Fixed-size models (DINO v1 was published for 224) take any size once told to; rotary ones do anyway.
        return timm.create_model(architecture, pretrained=False, num_classes=0, dynamic_img_size=True, **overrides)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:  # what timm raises, by the kind of mistake
        if "dynamic_img_size" in str(error):
            raise WeightsError(
                f"{architecture} is no vision transformer that takes images of any size; choose a ViT."
            ) from error
        raise InputError(f"{architecture} can't be built with {dict(overrides)}: {error}.") from error


def _as_timm(state: dict[str, torch.Tensor], model: Any, source: Path) -> dict[str, torch.Tensor]:
    """Names and layouts of timm for a state dict of timm or of facebookresearch, by timm's own converters."""
    import timm.models.eva
    import timm.models.vision_transformer

    own = model.state_dict()
    if "pos_embed" in own and "pos_embed" in state and state["pos_embed"].shape[-1] != own["pos_embed"].shape[-1]:
        raise WeightsError(
            f"{source} is of width {state['pos_embed'].shape[-1]}, the architecture of width "
            f"{own['pos_embed'].shape[-1]}; give the architecture's overrides (embed_dim, depth, num_heads)."
        )
    # Heads of classifiers and of self-distillation are no part of the backbone.
    state = {key: value for key, value in state.items() if not key.startswith(HEADS)}
    converter = timm.models.eva if isinstance(model, timm.models.eva.Eva) else timm.models.vision_transformer
    converted: dict[str, torch.Tensor]
    try:
        with redirect_stdout(StringIO()):  # timm prints a line for every bias that the architecture hasn't
            converted = converter.checkpoint_filter_fn(state, model)
    except (RuntimeError, ValueError, KeyError) as error:
        raise WeightsError(f"{source} does not fit this architecture: {str(error).splitlines()[0]}.") from error
    return converted


def _dino_tag(tags: list[str]) -> str:
    """The self-supervised tag of an architecture: ``dino``, ``lvd142m``, ..., else its first."""
    return next((tag for tag in tags if tag == "dino" or tag.startswith("lvd")), tags[0] if tags else "")


def _take_alignment(state: dict[str, torch.Tensor], source: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Remove the maps into the text space from a state dict, where it has them."""
    weight, bias = state.pop(ALIGNMENT_WEIGHT, None), state.pop(ALIGNMENT_BIAS, None)
    if weight is None and bias is None:
        return None
    if weight is None or bias is None:
        raise WeightsError(
            f"{source} holds one half of a text alignment; it needs {ALIGNMENT_WEIGHT} and {ALIGNMENT_BIAS}."
        )
    return weight, bias
