"""The small trained fusion networks that ship with rsovlib: their names, files and model cards.

``models.json`` is written by the training notebook together with the weights. They stand on the embedded CLIP and DINO
(:mod:`rsovlib.backbones.embedded`) and share what is said there: small demonstration models trained on simulated
scenes. This module is light: no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from rsovlib.errors import WeightsError, unknown_name
from rsovlib.files import write_beside

MANIFEST_FILE = "models.json"

#: Method -> the name of its first embedded model; further ones are called ``<name>-s1``, ``<name>-s2``.
NAMES = {
    "mm-ovseg": "rsov-tiny-mmovseg",
    "mm-ovseg-no-cmu": "rsov-tiny-mmovseg-no-cmu",
    "gsnet": "rsov-tiny-gsnet",
    "cat-seg": "rsov-tiny-catseg",
    "ebseg": "rsov-tiny-ebseg",
}


@dataclass(frozen=True)
class EmbeddedFusion:
    """One trained network that ships with the package.

    Attributes:
        name: what ``load_fusion`` is called with.
        method: the segmenter that it belongs to.
        file: name of the safetensors file in this package.
        sha256: of that file, in hexadecimal.
        card: name of the model card (Markdown) in this package.
    """

    name: str
    method: str
    file: str
    sha256: str
    card: str


def folder() -> Path:
    """Where the files lie."""
    return Path(str(files(__name__)))


@cache
def embedded_fusions() -> Mapping[str, EmbeddedFusion]:
    """Every embedded fusion network by name."""
    file = folder() / MANIFEST_FILE
    rows = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return MappingProxyType({name: EmbeddedFusion(name=name, **row) for name, row in rows.items()})


def fusion_path(name: str) -> Path:
    """Where the weights of an embedded network lie.

    Raises:
        InputError: there is no network of that name.
        WeightsError: the package was installed without its weights.
    """
    if name not in embedded_fusions():
        raise unknown_name("embedded fusion network", name, embedded_fusions())
    path = folder() / embedded_fusions()[name].file
    if not path.is_file():
        raise WeightsError(f"The weights of {name!r} should be at {path} and are not; install rsovlib again.")
    return path


def write_manifest(target: Path, models: Mapping[str, EmbeddedFusion]) -> None:
    """Write ``models.json`` into a folder."""
    rows = {name: {k: v for k, v in asdict(model).items() if k != "name"} for name, model in sorted(models.items())}
    with write_beside(target / MANIFEST_FILE) as temporary:
        temporary.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    embedded_fusions.cache_clear()
