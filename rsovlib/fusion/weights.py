"""Saving and loading trained fusion networks: only what was trained, and the names of what it stands on.

A file is safetensors; its metadata hold one JSON text: the kind of network, its configuration, the backbones by name
and SHA-256, and the training record. A backbone that came from a file is named; one without a file of its own, such as
a SAR encoder that was distilled here, is stored with the rest. A distilled encoder alone has a file of its own kind
(:func:`save_encoder`). Published checkpoints of MM-OVSeg are not read: the names of their tensors are not part of what
this package was written from.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
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
from rsovlib.fusion.cmu import COPIED, Backbone, copied
from rsovlib.fusion.config import FusionConfig, Provenance
from rsovlib.fusion.embedded import embedded_fusions, fusion_path
from rsovlib.fusion.named import load_named_clip, load_named_dino, split_name
from rsovlib.fusion.network import CostAggregationNetwork

if TYPE_CHECKING:
    from typing import TypeAlias

    from rsovlib.fusion.ebseg import EBSegNetwork

    Trained: TypeAlias = CostAggregationNetwork | EBSegNetwork

_KEY = "rsovlib_fusion"
_ENCODER_KEY = "rsovlib_encoder"
_FORMAT = 1
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
    text = _as_json(content)
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
    parts: dict[str, Any] = {}
    for part in _MODELS:  # the radar's DINO may be the optical one once more
        parts[part] = _backbone(part, content, given[part], file, parts.get("optical_dino"))
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


def save_encoder(
    path: str | os.PathLike[str],
    encoder: ClipBackbone | DinoBackbone,
    teacher: ClipBackbone | DinoBackbone,
    named: str,
    record: Mapping[str, Any] | None = None,
) -> str:
    """Write a SAR encoder that CMU has distilled; of a CLIP only its image tower.

    Args:
        path: of the safetensors file.
        encoder: the student.
        teacher: whose architecture, and for CLIP whose text tower, goes with it.
        named: the teacher's name, as :mod:`rsovlib.fusion.named` reads it.
        record: of the distillation, as plain values for JSON.

    Returns:
        The file's SHA-256.

    Raises:
        OutputError: the file can't be written.
        InputError: the record holds more than plain values.
    """
    content = {
        "format": _FORMAT,
        "kind": "dino" if isinstance(encoder, DinoBackbone) else "clip",
        "teacher": {"name": named, "sha256": teacher.sha256},
        "record": dict(record or {}),
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in _encoder_state(encoder).items()}
    with write_beside(path) as temporary:
        save_file(tensors, temporary, metadata={_ENCODER_KEY: _as_json(content)})
    return sha256_of(path)


def load_encoder(path: str | os.PathLike[str], teacher: Backbone) -> Backbone:
    """A SAR encoder on the CPU, frozen.

    Args:
        path: of a file that :func:`save_encoder` wrote.
        teacher: the network that it was distilled from.

    Raises:
        WeightsError: the file is missing or of another kind, or the teacher is another one.
    """
    file = Path(path)
    if not file.is_file():
        raise WeightsError(f"There is no weights file {file}; check the path.")
    content, tensors = _read(file, key=_ENCODER_KEY)
    entry = content["teacher"]
    if teacher.sha256 != entry["sha256"]:
        raise WeightsError(
            f"{file} was distilled from {entry['name']} with SHA-256 {entry['sha256'][:12]}..., and here is "
            f"{teacher.name} with {teacher.sha256[:12] or 'none'}...; give the teacher of the distillation."
        )
    encoder = copied(teacher)
    wanted = _encoder_state(encoder)
    if tensors.keys() != wanted.keys() or any(tensors[key].shape != value.shape for key, value in wanted.items()):
        raise WeightsError(f"{file} does not fit {entry['name']}, from which it says that it was distilled.")
    with torch.no_grad():
        for key, value in wanted.items():
            value.copy_(tensors[key])
    encoder.model.requires_grad_(False).eval()
    return encoder


def encoder_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a file of :func:`save_encoder` says of itself: ``kind``, ``teacher`` and ``record``.

    Raises:
        WeightsError: the file is missing or of another kind.
    """
    if not Path(path).is_file():
        raise WeightsError(f"There is no weights file {path}; check the path.")
    return _read(Path(path), tensors=False, key=_ENCODER_KEY)[0]


def _encoder_state(encoder: ClipBackbone | DinoBackbone) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = encoder.model.state_dict()
    if isinstance(encoder, DinoBackbone):
        return state
    return {name: value for name, value in state.items() if name.startswith("visual.")}


def _find(source: str | os.PathLike[str]) -> tuple[Path, str, str]:
    """File, name and expected hash."""
    text = os.fspath(source)
    if text in embedded_fusions() or not (os.sep in text or Path(text).suffix or Path(text).exists()):
        return fusion_path(text), text, embedded_fusions()[text].sha256
    if not Path(text).is_file():
        raise WeightsError(f"There is no weights file {text}; check the path.")
    return Path(text), Path(text).name, ""


def _as_json(content: Mapping[str, Any]) -> str:
    try:
        return json.dumps(content, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise InputError(f"The training record must hold plain values for JSON only: {error}.") from error


def _read(file: Path, tensors: bool = True, key: str = _KEY) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    kind = "fusion network" if key == _KEY else "distilled encoder"
    try:
        with safe_open(file, framework="pt", device="cpu") as stream:
            text = (stream.metadata() or {}).get(key)
            values = {name: stream.get_tensor(name) for name in stream.keys()} if tensors else {}  # noqa: SIM118
        content = json.loads(text) if text is not None else None
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{file} is no readable safetensors file ({error}); train or fetch it again.") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{file} is no {kind} of rsovlib; train one, or name one that ships with it.")
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


def _backbone(part: str, content: Mapping[str, Any], given: Any, file: Path, optical: DinoBackbone | None) -> Any:
    """The backbone that a file names."""
    entry = content["backbones"].get(part)
    if entry is None:
        return None
    if given is None and optical is not None and entry["sha256"] and entry["sha256"] == optical.sha256:
        given = replace(optical, model=deepcopy(optical.model))
    if given is None:
        given = _loaded(part, entry, content["record"].get("backbones"), file)
    if entry["sha256"] and given.sha256 != entry["sha256"]:
        raise WeightsError(
            f"{file} was trained on {entry['name']} with SHA-256 {entry['sha256'][:12]}..., and here is {given.name} "
            f"with {given.sha256[:12] or 'none'}...; give {part}= the one of the training."
        )
    if not entry["sha256"]:
        given = replace(given, model=deepcopy(given.model))  # the file's weights go in there
    facts = {key: entry[key] for key in ("name", "weights", "sha256", "position") if key in entry}
    return replace(given, **facts)


def _loaded(part: str, entry: Mapping[str, Any], named: Sequence[str] | None, file: Path) -> Any:
    """A backbone by the name that the training's record has for it, or else by its own.

    One that is stored in the file itself is loaded with random weights.
    """
    is_clip = part in ("clip", "sar_clip")
    if named is not None and entry["sha256"]:
        text = named[0 if is_clip else 1]
        path = split_name(text)[1] or ""
        if Path(path).is_absolute() and not Path(path).is_file():
            option = "clip= and clip_weights=" if is_clip else "dino= and dino_weights="
            raise WeightsError(f"{file} was trained on {text}, and that file isn't here; say where it is by {option}.")
        return (load_named_clip if is_clip else load_named_dino)(text, "cpu")
    architecture = entry["name"].removesuffix(COPIED)
    weights = None if entry["weights"].endswith(".safetensors") else entry["weights"]
    return (load_clip if is_clip else load_dino)(architecture, weights if entry["sha256"] else "random", device="cpu")


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
