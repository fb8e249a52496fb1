"""Saving and loading trained fusion networks: only what was trained, and the names of what it stands on.

A file is safetensors; its metadata hold one JSON text: the kind of network, its configuration, the backbones by name
and SHA-256, and the training record. A backbone that came from a file is named; one without a file of its own, such as
a SAR encoder that was distilled here, is stored with the rest. Published checkpoints of MM-OVSeg are not read: the
names of their tensors are not part of what this package was written from.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from rsovlib.backbones import ClipBackbone, DinoBackbone, load_clip, load_dino
from rsovlib.backbones.checkpoints import sha256_of
from rsovlib.backbones.devices import resolve_device
from rsovlib.backbones.registry import verified_sha256
from rsovlib.errors import InputError, WeightsError
from rsovlib.files import write_beside
from rsovlib.fusion.config import FusionConfig, Provenance
from rsovlib.fusion.embedded import embedded_fusions, fusion_path
from rsovlib.fusion.network import CostAggregationNetwork

if TYPE_CHECKING:
    from typing import TypeAlias

    from rsovlib.fusion.ebseg import EBSegNetwork

    Trained: TypeAlias = CostAggregationNetwork | EBSegNetwork

_KEY = "rsovlib_fusion"
_FORMAT = 1
#: What a distilled encoder's name ends with (:mod:`rsovlib.fusion.cmu`).
_COPIED = " (SAR)"
#: Part of a network -> where its model hangs.
_MODELS = {
    "clip": "clip_model",
    "optical_dino": "optical_model",
    "sar_dino": "sar_model",
    "sar_clip": "sar_clip_model",
}


def save_fusion(
    path: str | os.PathLike[str], network: Trained, record: Mapping[str, Any] | None = None, *, half: bool = False
) -> str:
    """Write a trained network.

    Args:
        path: of the safetensors file.
        network: the network.
        record: of the training, as plain values for JSON.
        half: store in 16 bits, half the size; loaded, it computes in 32 again.

    Returns:
        The file's SHA-256.

    Raises:
        OutputError: the file can't be written.
        InputError: the record holds more than plain values.
    """
    backbones = {name: _described(getattr(network, name)) for name in _MODELS}
    content = {
        "format": _FORMAT,
        "network": network.kind,
        "config": network.config.to_dict(),
        "backbones": backbones,
        "record": dict(record or {}),
    }
    try:
        text = json.dumps(content, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise InputError(f"The training record must hold plain values for JSON only: {error}.") from error
    tensors = {name: value.detach().cpu().contiguous() for name, value in _stored(network, backbones).items()}
    if half:
        tensors = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    with write_beside(path) as temporary:
        save_file(tensors, temporary, metadata={_KEY: text})
    return sha256_of(path)


def load_fusion(
    source: str | os.PathLike[str],
    device: str | torch.device = "auto",
    *,
    clip: ClipBackbone | None = None,
    optical_dino: DinoBackbone | None = None,
    sar_dino: DinoBackbone | None = None,
    sar_clip: ClipBackbone | None = None,
) -> Trained:
    """Load a trained network, in float32, frozen, in evaluation mode.

    Args:
        source: an embedded network's name (``"rsov-tiny-mmovseg"``) or a file of :func:`save_fusion`.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ...
        clip: the CLIP that it was trained with, instead of loading it by its name.
        optical_dino: likewise.
        sar_dino: likewise; where it is stored in the file, only its architecture counts.
        sar_clip: likewise.

    Raises:
        InputError: there is no embedded network of that name.
        WeightsError: the file is missing, altered or of another kind, or a backbone is not the one of the training.
    """
    file, name, expected = _find(source)
    digest = verified_sha256(file, expected)
    content, tensors = _read(file)
    given = {"clip": clip, "optical_dino": optical_dino, "sar_dino": sar_dino, "sar_clip": sar_clip}
    parts = {part: _backbone(part, content["backbones"].get(part), given[part], file) for part in _MODELS}
    network = _build(content, parts, file)
    wanted = _stored(network, content["backbones"])
    if tensors.keys() != wanted.keys() or any(tensors[key].shape != value.shape for key, value in wanted.items()):
        odd = sorted(tensors.keys() ^ wanted.keys()) or [k for k, v in wanted.items() if tensors[k].shape != v.shape]
        raise WeightsError(f"{file} does not fit the network that it describes: {len(odd)} differ, first {odd[0]}.")
    with torch.no_grad():
        for key, value in wanted.items():
            value.copy_(tensors[key])
    network.provenance = Provenance(name, digest, content["record"])
    return network.freeze().to(resolve_device(device))


def read_record(source: str | os.PathLike[str]) -> dict[str, Any]:
    """What a file says about itself: ``network``, ``config``, ``backbones`` and the training's ``record``.

    Raises:
        InputError: there is no embedded network of that name.
        WeightsError: the file is missing or of another kind.
    """
    return _read(_find(source)[0], tensors=False)[0]


def _find(source: str | os.PathLike[str]) -> tuple[Path, str, str]:
    """File, name and expected hash."""
    text = os.fspath(source)
    if text in embedded_fusions() or not (os.sep in text or Path(text).suffix or Path(text).exists()):
        return fusion_path(text), text, embedded_fusions()[text].sha256
    if not Path(text).is_file():
        raise WeightsError(f"There is no weights file {text}; check the path.")
    return Path(text), Path(text).name, ""


def _read(file: Path, tensors: bool = True) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        with safe_open(file, framework="pt", device="cpu") as stream:
            text = (stream.metadata() or {}).get(_KEY)
            values = {key: stream.get_tensor(key) for key in stream.keys()} if tensors else {}  # noqa: SIM118
        content = json.loads(text) if text is not None else None
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{file} is no readable safetensors file ({error}); train or fetch it again.") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{file} is no fusion network of rsovlib; train one, or name one that ships with it.")
    if content.get("format") != _FORMAT:
        raise WeightsError(f"{file} has format {content.get('format')}, this version reads {_FORMAT}; update rsovlib.")
    return content, values


def _described(backbone: ClipBackbone | DinoBackbone | None) -> dict[str, Any] | None:
    if backbone is None:
        return None
    described = {"name": backbone.name, "weights": backbone.weights, "sha256": backbone.sha256}
    return described | ({"position": backbone.position} if isinstance(backbone, DinoBackbone) else {})


def _stored(network: Trained, backbones: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """What a file holds: the trained parameters, and backbones that have no file of their own."""
    trained = {id(parameter) for _, parameter in network.trained_parameters()}
    whole = tuple(f"{_MODELS[part]}." for part, entry in backbones.items() if entry and not entry["sha256"])
    stored: dict[str, torch.Tensor] = {name: p for name, p in network.named_parameters() if id(p) in trained}
    stored |= {name: value for name, value in network.state_dict().items() if whole and name.startswith(whole)}
    return stored


def _backbone(part: str, entry: Mapping[str, Any] | None, given: Any, file: Path) -> Any:
    """The backbone that a file names."""
    if entry is None:
        return None
    if given is None:
        architecture = entry["name"].removesuffix(_COPIED)
        load = load_clip if part in ("clip", "sar_clip") else load_dino
        weights = None if entry["weights"].endswith(".safetensors") else entry["weights"]
        given = load(architecture, weights if entry["sha256"] else "random", device="cpu")
    if entry["sha256"] and given.sha256 != entry["sha256"]:
        raise WeightsError(
            f"{file} was trained on {entry['name']} with SHA-256 {entry['sha256'][:12]}..., and here is {given.name} "
            f"with {given.sha256[:12] or 'none'}...; give {part}= the one of the training."
        )
    if not entry["sha256"]:
        given = replace(given, model=deepcopy(given.model))  # the file's weights go in there
    facts = {key: entry[key] for key in ("name", "weights", "sha256", "position") if key in entry}
    return replace(given, **facts)


def _build(content: Mapping[str, Any], parts: Mapping[str, Any], file: Path) -> Trained:
    from rsovlib.fusion.ebseg import EBSegConfig, EBSegNetwork

    try:
        if content["network"] == CostAggregationNetwork.kind:
            return CostAggregationNetwork(FusionConfig.from_dict(content["config"]), *parts.values())
        if content["network"] == EBSegNetwork.kind:
            return EBSegNetwork(EBSegConfig.from_dict(content["config"]), parts["clip"], parts["optical_dino"])
    except InputError as error:
        raise WeightsError(f"{file} describes a network that this version can't build: {error}") from error
    raise WeightsError(f"{file} holds a network of kind {content['network']!r}, which this version doesn't know.")
