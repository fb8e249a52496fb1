"""Weights by name: where they are published, what their licence is, and the copy on this machine.

Weights are kept where the Hugging Face hub's client keeps them (``~/.cache/huggingface/hub``, or under
``HF_HOME``), so that nothing is fetched twice; ``RSOV_CACHE`` names another folder.  With ``RSOV_OFFLINE=1``
or ``HF_HUB_OFFLINE=1`` nothing is fetched at all.  A named file's SHA-256 is checked against the published
one where there is one, and against the hub's own content address otherwise.
"""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from rsovlib.backbones.checkpoints import sha256_of
from rsovlib.backbones.embedded import EMBEDDED, embedded_path
from rsovlib.errors import InputError, WeightsError, unknown_name

DEFAULT_CLIP = "rsov-tiny-clip"
DEFAULT_DINO = "rsov-tiny-dino"
#: File names under which open_clip models lie on the hub, the safe one first.
HUB_WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
#: For so long after a failure the hub counts as out of reach.
_AWAY_SECONDS = 60
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class NamedWeights:
    """An entry of ``weights.yaml`` or an embedded model.

    Attributes:
        name: what ``load_clip`` or ``load_dino`` is called with.
        kind: ``"clip"`` or ``"dino"``.
        architecture: the open_clip or timm name.
        tag: the open_clip or timm tag, or "".
        repository, file: where on the hub, or "" for models that come by their tag or ship with the package.
        sha256: published hash, or "" where none was published.
        licence: as published.
        page: where it is described.
        use: what it is used for here.
    """

    name: str
    kind: str
    architecture: str
    licence: str
    use: str
    page: str = ""
    tag: str = ""
    repository: str = ""
    file: str = ""
    sha256: str = ""

    @property
    def embedded(self) -> bool:
        """Whether it ships with the package."""
        return self.name in EMBEDDED


@cache
def _entries() -> dict[str, NamedWeights]:
    shipped = {
        name: NamedWeights(
            name=name,
            kind=spec.kind,
            architecture=name,
            licence="Apache-2.0",
            use="ships with the package; the embedded profile",
            sha256=spec.sha256,
        )
        for name, spec in EMBEDDED.items()
    }
    text = resources.files("rsovlib.backbones").joinpath("weights.yaml").read_text(encoding="utf-8")
    published = {entry["name"]: NamedWeights(**entry) for entry in yaml.safe_load(text)}
    return shipped | published


def list_weights() -> list[NamedWeights]:
    """Every set of weights with a name, the embedded ones first."""
    return list(_entries().values())


def names(kind: str) -> list[str]:
    """The names of one kind, ``"clip"`` or ``"dino"``."""
    return [entry.name for entry in list_weights() if entry.kind == kind]


def find(name: str) -> NamedWeights | None:
    """The entry of that name, or None."""
    return _entries().get(name)


def get(name: str) -> NamedWeights:
    """The entry of that name.

    Raises:
        InputError: there is none; the sentence names the nearest.
    """
    entry = find(name)
    if entry is None:
        raise unknown_name("named set of weights", name, _entries())
    return entry


def cache_folder() -> Path:
    """Where fetched weights are kept."""
    if os.environ.get("RSOV_CACHE"):
        return Path(os.environ["RSOV_CACHE"]).expanduser()
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def offline() -> bool:
    """Whether fetching is switched off by ``RSOV_OFFLINE`` or ``HF_HUB_OFFLINE``."""
    return any(
        os.environ.get(flag, "").lower() in {"1", "true", "yes", "on"} for flag in ("RSOV_OFFLINE", "HF_HUB_OFFLINE")
    )


def fetch(entry: NamedWeights) -> Path:
    """The local copy of a named file, fetched from the hub when it isn't here yet."""
    if entry.embedded:
        return embedded_path(entry.name)
    if entry.file:
        return fetch_hub_file(entry.repository, (entry.file,))
    if entry.kind == "clip":
        return fetch_open_clip(entry.architecture, entry.tag)
    return fetch_timm(f"{entry.architecture}.{entry.tag}")


def fetch_open_clip(architecture: str, tag: str) -> Path:
    """The local copy of the weights that open_clip knows under (architecture, tag)."""
    import open_clip

    config = open_clip.get_pretrained_cfg(architecture, tag)
    hub: str = config.get("hf_hub", "")
    if not hub:
        raise WeightsError(
            f"The weights {architecture} / {tag} are not published on the hub; fetch {config.get('url', 'them')} "
            "yourself and give weights= the file."
        )
    repository, file = hub.rsplit("/", 1)
    return fetch_hub_file(repository, (file,) if file else HUB_WEIGHT_FILES)


def fetch_timm(name: str) -> Path:
    """The local copy of timm's weights of that full name, for example ``vit_base_patch8_224.dino``."""
    import timm

    try:
        config: Any = timm.get_pretrained_cfg(name)
    except RuntimeError:  # a tag that the architecture doesn't have
        config = None
    if config is None or not config.hf_hub_id:
        raise WeightsError(f"timm publishes no weights {name} on the hub; give weights= a file.")
    files = (config.hf_hub_filename,) if config.hf_hub_filename else ("model.safetensors", "pytorch_model.bin")
    return fetch_hub_file(config.hf_hub_id, files)


class _Hub:
    """Whether the hub could be reached a moment ago.

    Its client tries for some ten seconds a file before it gives up, and a plan of many runs asks for many files.
    """

    def __init__(self) -> None:
        self._until = -math.inf

    def is_away(self) -> None:
        """It couldn't be reached just now."""
        self._until = time.monotonic() + _AWAY_SECONDS

    def was_away(self) -> bool:
        """Whether asking again would be too soon."""
        return time.monotonic() < self._until


_hub = _Hub()


@contextmanager
def _without_retries_told() -> Iterator[None]:
    """The hub's client warns of every attempt that fails; what comes of them all is said once, in our words."""
    log = logging.getLogger("huggingface_hub")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def fetch_hub_file(repository: str, files: Iterable[str]) -> Path:
    """The local copy of the first of ``files`` that the hub's repository has.

    Raises:
        WeightsError: it is not on this machine and can't be fetched.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    files = tuple(files)
    reason = "the repository has none of these files"
    for file in files:
        only_here = offline() or _hub.was_away()
        try:
            with _without_retries_told():
                return Path(hf_hub_download(repository, file, cache_dir=cache_folder(), local_files_only=only_here))
        except LocalEntryNotFoundError:
            reason = "fetching is switched off" if offline() else "the hub can't be reached"
            if not only_here:
                _hub.is_away()
        except EntryNotFoundError:
            continue
        except HFValidationError as error:
            raise InputError(f"{repository!r} can't be a repository of the hub; write it as owner/name.") from error
        except (HfHubHTTPError, OSError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise WeightsError(
        f"The weights {repository} ({' or '.join(files)}) are not on this machine and can't be fetched ({reason}). "
        f"Where there is a network, fetch them once into {cache_folder()}, or give weights= a local file; "
        "profile='embedded' needs none."
    )


def verified_sha256(path: Path, expected: str = "") -> str:
    """The file's SHA-256, compared with the published one.

    Args:
        path: the weights' file.
        expected: the published hash; "" to compare with the hub cache's content address, where there is one.

    Raises:
        WeightsError: the content is not what was published.
    """
    digest = sha256_of(path) if path.is_file() else ""
    if not digest:
        raise WeightsError(f"There is no weights file {path}; check the path.")
    address = path.resolve().name  # the hub's cache names large files by their SHA-256
    wanted = expected or (address if _SHA256.fullmatch(address) else "")
    if wanted and digest != wanted:
        raise WeightsError(
            f"{path} was altered or fetched incompletely: its SHA-256 is {digest[:12]}..., published is "
            f"{wanted[:12]}...; delete it and fetch it again."
        )
    return digest


def embedded_or_local(name: str, weights: str | os.PathLike[str] | None) -> Path | None:
    """The file of an embedded model: the shipped one, a local one, or None for random weights."""
    if weights is None:
        return embedded_path(name)
    return None if weights == "random" else Path(weights)


def status(entry: NamedWeights) -> str:
    """``"ships with the package"``, ``"on this machine"`` or ``"to be fetched"``; nothing is fetched."""
    if entry.embedded:
        return "ships with the package"
    from huggingface_hub import try_to_load_from_cache

    if entry.file:
        candidates = [(entry.repository, entry.file)]
    elif entry.kind == "clip":
        import open_clip

        hub = open_clip.get_pretrained_cfg(entry.architecture, entry.tag).get("hf_hub", "").rsplit("/", 1)
        candidates = [(hub[0], file) for file in ([hub[1]] if hub[1:] and hub[1] else HUB_WEIGHT_FILES)]
    else:
        repository = f"timm/{entry.architecture}.{entry.tag}"
        candidates = [(repository, file) for file in ("model.safetensors", "pytorch_model.bin")]
    found = any(isinstance(try_to_load_from_cache(r, f, cache_dir=cache_folder()), str) for r, f in candidates)
    return "on this machine" if found else "to be fetched"
