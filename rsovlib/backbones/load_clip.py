"""From a name, a tag or a file to a :class:`~rsovlib.backbones.clip.ClipBackbone`.

Four kinds of source, one result: models that ship with the package; open_clip names with their tags and
``hf-hub:`` ids; a local checkpoint of a named architecture (RemoteCLIP and GeoRSCLIP are published so);
and a local OpenAI-format state dict, from which the architecture is inferred.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from rsovlib.backbones import registry
from rsovlib.backbones.checkpoints import load_strictly, read_state_dict, sha256_of
from rsovlib.backbones.clip import OPENAI_MEAN, OPENAI_STD, ClipBackbone
from rsovlib.backbones.devices import resolve_device
from rsovlib.backbones.embedded import EMBEDDED, build_embedded_clip, embedded_tokenizer
from rsovlib.errors import InputError, WeightsError, unknown_name

#: Entries of OpenAI's archives that are numbers about the model, not parameters of it.
_OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")


def load_clip(
    name: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    device: str | torch.device = "auto",
    **architecture: Any,
) -> ClipBackbone:
    """Load a CLIP model with a ViT image tower.

    Args:
        name: an embedded model (``"rsov-tiny-clip"``, the default when no weights are given), an open_clip
            architecture (``"ViT-L-14-quickgelu"``), ``"hf-hub:owner/repository"``, or a name of
            ``rsovlib weights list`` (``"RemoteCLIP-ViT-L-14"``).
        weights: an open_clip tag (``"openai"``), a local file, ``"random"`` (for shapes and costs only), or None
            for the name's default. A local file holding an OpenAI-format state dict loads without a name.
        device: ``"auto"`` (a GPU when there is one), ``"cpu"``, ``"cuda"``, ...
        **architecture: overrides of open_clip's model configuration: ``embed_dim``, ``quick_gelu``,
            ``vision_cfg={...}``, ``text_cfg={...}``.

    Returns:
        The model in float32, in evaluation mode.

    Raises:
        WeightsError: weights missing, altered, unsafe, or of another architecture.
        InputError: unknown name or tag.
    """
    if name is None and weights is None:
        name = registry.DEFAULT_CLIP
    if name is None:
        backbone = _from_openai_file(Path(str(weights)), architecture)
    elif name in EMBEDDED:
        backbone = _embedded(name, weights, architecture)
    elif name.startswith("hf-hub:"):
        backbone = _from_hub(name, weights, architecture)
    else:
        backbone = _from_open_clip(name, weights, architecture)
    backbone.model.float().eval().requires_grad_(False)
    backbone.model.to(resolve_device(device))
    return backbone


def _embedded(name: str, weights: str | os.PathLike[str] | None, architecture: Mapping[str, Any]) -> ClipBackbone:
    entry = EMBEDDED[name]
    if entry.kind != "clip":
        raise InputError(f"{name} is a {entry.kind} model, not a CLIP; load it with load_dino({name!r}).")
    source = registry.embedded_or_local(name, weights)
    digest = _checked(source, entry.sha256 if weights is None else "")
    model = build_embedded_clip(_merged(entry.config, architecture))
    return _loaded(model, embedded_tokenizer(), name, source, digest)


def _from_openai_file(file: Path, architecture: Mapping[str, Any]) -> ClipBackbone:
    """An OpenAI-format state dict: widths, depths and patch are read off the tensors' shapes (OpenAI's rules)."""
    state = read_state_dict(file)
    needed = ("visual.proj", "visual.conv1.weight", "visual.positional_embedding", "text_projection", "ln_final.weight")
    absent = [key for key in needed if key not in state]
    if absent:
        raise WeightsError(
            f"{file} is no OpenAI-format CLIP with a ViT ({absent[0]} is missing); give the architecture's name too."
        )
    patch = state["visual.conv1.weight"].shape[-1]
    side = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
    text_width = len(state["ln_final.weight"])
    config: dict[str, Any] = {
        "embed_dim": state["text_projection"].shape[1],
        "quick_gelu": True,  # OpenAI's own models were trained with it
        "vision_cfg": {
            "layers": _count_blocks(state, "visual.transformer.resblocks."),
            "width": state["visual.conv1.weight"].shape[0],
            "patch_size": patch,
            "image_size": patch * side,
        },
        "text_cfg": {
            "context_length": len(state["positional_embedding"]),
            "vocab_size": len(state["token_embedding.weight"]),
            "width": text_width,
            "heads": max(1, text_width // 64),
            "layers": _count_blocks(state, "transformer.resblocks."),
        },
    }
    config = _merged(config, architecture)
    for tower, head in (("vision_cfg", config["vision_cfg"].get("head_width", 64)), ("text_cfg", 64)):
        if tower not in architecture and config[tower]["width"] % head:
            raise WeightsError(
                f"{file} has a {tower.removesuffix('_cfg')} tower of width {config[tower]['width']}, and OpenAI's "
                "format has 64 a head; give the architecture's name, or its number of heads as an override."
            )
    model = _build(config)
    for key in _OPENAI_EXTRAS:
        state.pop(key, None)
    load_strictly(model, state, str(file))
    return ClipBackbone(model, _simple_tokenizer(config["text_cfg"]), file.stem, file.name, sha256_of(file))


def _from_open_clip(name: str, weights: str | os.PathLike[str] | None, architecture: Mapping[str, Any]) -> ClipBackbone:
    import open_clip

    named = registry.find(name)
    asked = named.architecture if named is not None and named.kind == "clip" else name
    config = open_clip.get_model_config(asked)
    if config is None:
        raise unknown_name("CLIP model", name, [*open_clip.list_models(), *registry.names("clip")])
    if weights is None and named is not None:
        weights = "file" if named.file else named.tag
    elif weights is None:
        weights = _default_tag(asked)
    tag_config: Mapping[str, Any] = {}
    expected = ""
    source: Path | None
    if weights == "random":
        source = None
    elif weights == "file" and named is not None:
        source, expected = registry.fetch(named), named.sha256
    elif _looks_like_file(weights):
        source = Path(weights)
    else:
        tags = open_clip.list_pretrained_tags_by_model(asked)
        if str(weights) not in tags:
            raise unknown_name(f"set of weights for {asked}", weights, [*tags, "random"])
        tag_config = open_clip.get_pretrained_cfg(asked, str(weights))
        source = registry.fetch_open_clip(asked, str(weights))
    if tag_config.get("quick_gelu"):
        # These weights were trained with QuickGELU; under the plain name open_clip would silently use GELU.
        config["quick_gelu"] = True
    digest = _checked(source, expected)
    model = _build(_merged(config, architecture))
    backbone = _loaded(model, _tokenizer_for(asked, config), name, source, digest)
    backbone.weights = str(weights) if source is None or not _looks_like_file(weights) else source.name
    backbone.mean = tuple(tag_config.get("mean") or OPENAI_MEAN)
    backbone.std = tuple(tag_config.get("std") or OPENAI_STD)
    return backbone


def _from_hub(name: str, weights: str | os.PathLike[str] | None, architecture: Mapping[str, Any]) -> ClipBackbone:
    repository = name.removeprefix("hf-hub:")
    config_file = registry.fetch_hub_file(repository, ("open_clip_config.json",))
    try:
        content = json.loads(config_file.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not even text
        raise WeightsError(f"{config_file} is no readable configuration ({error}); fetch it again.") from error
    config = content.get("model_cfg", content)
    if not {"embed_dim", "vision_cfg", "text_cfg"} <= set(config):
        raise WeightsError(f"{repository} is no CLIP of open_clip: its configuration has no image and text towers.")
    statistics = content.get("preprocess_cfg", {})
    if weights is None:
        source: Path | None = registry.fetch_hub_file(repository, registry.HUB_WEIGHT_FILES)
    else:
        source = None if weights == "random" else Path(weights)
    digest = _checked(source)
    backbone = _loaded(_build(_merged(config, architecture)), _tokenizer_for(name, config), name, source, digest)
    backbone.mean = tuple(statistics.get("mean") or OPENAI_MEAN)
    backbone.std = tuple(statistics.get("std") or OPENAI_STD)
    return backbone


def _build(config: dict[str, Any]) -> torch.nn.Module:
    """An open_clip model of a configuration, with fresh (random) parameters and nothing fetched."""
    from open_clip.model import CLIP, CustomTextCLIP

    config = deepcopy(config)
    if "multimodal_cfg" in config:
        raise WeightsError("CoCa models have no plain CLIP image tower; choose a CLIP model.")
    custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    if "timm_model_name" in config["vision_cfg"]:
        raise WeightsError("Image towers from timm have no plain CLIP value path; choose a ViT of open_clip's own.")
    if "hf_model_name" in config["text_cfg"]:
        config["text_cfg"]["hf_model_pretrained"] = False
    try:
        return CustomTextCLIP(**config) if custom else CLIP(**config)
    except (TypeError, ValueError, AssertionError, RuntimeError, OSError) as error:  # by the kind of mistake
        raise InputError(f"open_clip can't build a CLIP of these settings: {error}.") from error


def _checked(source: Path | None, expected: str = "") -> str:
    """The hash of the weights' file, before a large model is built for a file that isn't there or was altered."""
    return "" if source is None else registry.verified_sha256(source, expected)


def _loaded(model: torch.nn.Module, tokenizer: Any, name: str, source: Path | None, digest: str) -> ClipBackbone:
    if source is None:
        return ClipBackbone(model, tokenizer, name, "random")
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed

    state = {key: value for key, value in read_state_dict(source).items() if key not in _OPENAI_EXTRAS}
    state = convert_state_dict(model, state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    own = model.state_dict()
    if "logit_scale" in state and "logit_scale" in own:
        state["logit_scale"] = state["logit_scale"].reshape(own["logit_scale"].shape)
    state.pop("text.transformer.embeddings.position_ids", None)  # dropped by transformers 4.31
    resize_pos_embed(state, model)
    resize_text_pos_embed(state, model)
    load_strictly(model, state, str(source))
    return ClipBackbone(model, tokenizer, name, source.name, digest)


def _tokenizer_for(name: str, config: Mapping[str, Any]) -> Any:
    import open_clip

    text = config["text_cfg"]
    if "hf_tokenizer_name" in text or "siglip" in name.lower():
        return open_clip.get_tokenizer(name)
    return _simple_tokenizer(text)


def _simple_tokenizer(text_config: Mapping[str, Any]) -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(
        context_length=text_config.get("context_length", 77), **text_config.get("tokenizer_kwargs", {})
    )


def _default_tag(architecture: str) -> str:
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not tags:
        raise WeightsError(f"No published weights are known for {architecture}; give weights= a file or 'random'.")
    return "openai" if "openai" in tags else tags[0]


def _merged(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` with ``overrides``; nested dictionaries are merged key by key."""
    merged = deepcopy(dict(config))
    for key, value in overrides.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = {**merged[key], **value}
        else:
            merged[key] = value
    return merged


def _count_blocks(state: Mapping[str, torch.Tensor], prefix: str) -> int:
    return len({key.removeprefix(prefix).split(".")[0] for key in state if key.startswith(prefix)})


def _looks_like_file(weights: str | os.PathLike[str]) -> bool:
    text = os.fspath(weights)
    return (
        os.sep in text or Path(text).suffix in {".safetensors", ".pt", ".pth", ".bin", ".ckpt"} or Path(text).is_file()
    )
