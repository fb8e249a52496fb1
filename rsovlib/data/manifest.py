"""Datasets as files that say everything: load, check and look up ``data_manifests/*.yaml``.

>>> manifest = load_manifest("potsdam")
>>> manifest.prompts("generalized")[0]
'ground, road, streets'
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from rsovlib.data._manifest_paths import Fields, PathTemplate
from rsovlib.data._manifest_schema import (
    IGNORE,
    Band,
    Clouds,
    DatasetClass,
    Download,
    Files,
    Labels,
    Layout,
    Licence,
    Manifest,
    Modality,
    Placeholder,
    Polygons,
    PromptSet,
    Protocol,
    RandomSplit,
    Resize,
    Size,
    Split,
    Tiles,
)
from rsovlib.data.yamlfile import read_yaml, sentence
from rsovlib.errors import InputError, unknown_name
from rsovlib.resources import resource

__all__ = [
    "IGNORE",
    "Band",
    "Clouds",
    "DatasetClass",
    "Download",
    "Fields",
    "Files",
    "Labels",
    "Layout",
    "Licence",
    "Manifest",
    "Modality",
    "PathTemplate",
    "Placeholder",
    "Polygons",
    "PromptSet",
    "Protocol",
    "RandomSplit",
    "Resize",
    "Size",
    "Split",
    "Tiles",
    "load_manifest",
    "manifest_names",
]


def manifest_names() -> list[str]:
    """The names of all datasets that rsovlib describes, in alphabetical order."""
    return sorted(path.stem for path in resource("data_manifests").glob("*.yaml"))


def load_manifest(name_or_path: str | os.PathLike[str]) -> Manifest:
    """Read and check a dataset's manifest.

    Args:
        name_or_path: a name of :func:`manifest_names`, or the path of a YAML file of one's own.

    Returns:
        The manifest; nothing in it can be changed.

    Raises:
        InputError: there is no such dataset or file, the file is not YAML, or it says something that a manifest
            can't say. The sentence names the file, the key and, for a wrong key, the nearest right one.
    """
    text = os.fspath(name_or_path)
    if not text.endswith((".yaml", ".yml")) and os.sep not in text:
        if text not in manifest_names():
            raise unknown_name("dataset", text, manifest_names())
        path = resource("data_manifests") / f"{text}.yaml"
    else:
        path = Path(text)
    content = read_yaml(path)
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        raise InputError(sentence(path, error)) from error
    if manifest.name != path.stem:
        raise InputError(f"{path}: name is {manifest.name!r}, but the file is called {path.name}; make them the same.")
    return manifest
