"""What a result depends on, as hashes: the notebook, the code, the data and the weights.

The code's version is a hash of the sources of the installed package (every ``.py``, ``.yaml`` and ``.json`` file in
it) and of the versions of the libraries that compute with them (:data:`LIBRARIES`): a run that was made before an
upgrade isn't taken for one that was made after it. It is the same for a checkout, an editable installation and a wheel
of the same sources. The commit is kept beside it for people, and decides nothing: a checkout with a changed file is
another version than its commit. The versions of all else (Python, papermill, ...) stand in each run.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import rsovlib
from rsovlib.errors import InputError
from rsovlib.resources import resource

_PACKAGE = Path(rsovlib.__file__).resolve().parent
_SOURCES = {".py", ".yaml", ".json"}
# Notebooks and manifests lie inside the package in a wheel and beside it in a checkout; they have hashes of their own.
# The tables' entries change no number by themselves: what they ask for is among a run's parameters.
_APART = {"notebooks", "data_manifests", "tables", "__pycache__"}

LIBRARIES = ("numba", "numpy", "open_clip_torch", "scikit-image", "scipy", "timm", "torch")
"""What numbers are computed with, besides this package; another version of one of them may give other numbers."""


def digest(content: Any) -> str:
    """SHA-256 of plain values, the same for the same values in any order of keys."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def notebook_digest(notebook: Mapping[str, Any]) -> str:
    """Of what a notebook does: the sources, kinds and tags of its cells; outputs, counts and metadata don't count."""
    return digest(
        [
            [cell["cell_type"], "".join(cell["source"]), sorted(cell.get("metadata", {}).get("tags", ()))]
            for cell in notebook["cells"]
        ]
    )


def code_version(package: Path = _PACKAGE) -> str:
    """Hash of the package's sources, as they lie on the disk now, and of the libraries' versions."""
    files = (
        path
        for path in package.rglob("*")
        if path.suffix in _SOURCES and not _APART & set(path.relative_to(package).parts)
    )
    return digest([_digest_of_files(package, files), library_versions()])


@cache
def library_versions() -> dict[str, str]:
    """The version of each of :data:`LIBRARIES`.

    Without what follows a plus sign: it names the build (``+cpu``, ``+cu130``), and a laptop without a GPU may plan
    what a cluster with GPUs computes.
    """
    from importlib import metadata

    return {name: metadata.version(name).partition("+")[0] for name in LIBRARIES}


@cache
def commit() -> str:
    """The commit of the checkout, with ``+changes`` if files differ from it; "" outside of a checkout."""
    if not (_PACKAGE.parent / ".git").exists():
        return ""
    try:
        run = ["git", "-C", str(_PACKAGE.parent)]
        head = subprocess.run([*run, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*run, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+changes" if changed.strip() else "")


def data_version(names: Iterable[str]) -> dict[str, str]:
    """Name of each source of data -> its version.

    Args:
        names: ``"scenes"`` (simulated), ``"clouds"``, ``"suites/NAME"`` or ``"datasets/NAME"``. A dataset's version
            takes in the paths and sizes of its files, not their content: reading a hundred gigabytes to name a run
            would cost more than the run.

    Raises:
        InputError: an unknown name, or a dataset that isn't on this machine; the sentence says how to get it.
    """
    return {name: _data_version(name) for name in sorted(set(names))}


def _data_version(name: str) -> str:
    kind, _, item = name.partition("/")
    if name == "scenes":
        from rsovlib.data.scenes import SCENE_VERSION

        return str(SCENE_VERSION)
    if name == "clouds":
        from rsovlib.data.clouds import CLOUD_VERSION

        return str(CLOUD_VERSION)
    if kind == "suites":
        from rsovlib.data.suites import load_suite

        load_suite(item)  # a wrong name or file is a clear sentence
        made_of = f"scenes {_data_version('scenes')}, clouds {_data_version('clouds')}"
        return f"{made_of}, suite {_file_digest(resource(f'data_manifests/suites/{item}.yaml'))[:16]}"
    if kind == "datasets":
        from rsovlib.data.layout import dataset_root
        from rsovlib.data.manifest import load_manifest

        manifest = load_manifest(item)
        root = dataset_root(manifest)
        described = _file_digest(resource(f"data_manifests/{item}.yaml"))[:16]
        return f"{manifest.version}, manifest {described}, files {_listing_digest(root)[:16]}"
    raise InputError(f"{name!r} is no source of data; use scenes, clouds, suites/NAME or datasets/NAME.")


def weights_version(names: Iterable[str]) -> dict[str, str]:
    """Name of each set of weights -> SHA-256 of its file, fetched where that is allowed.

    Raises:
        InputError: an unknown name.
        WeightsError: they aren't on this machine and can't be fetched, or were altered.
    """
    from rsovlib.backbones import registry
    from rsovlib.fusion.embedded import embedded_fusions, fusion_path

    found = {}
    for name in sorted(set(names)):
        if name in embedded_fusions():
            path, expected = fusion_path(name), embedded_fusions()[name].sha256
        else:
            entry = registry.get(name)
            path, expected = registry.fetch(entry), entry.sha256
        found[name] = _weights_digest(path, expected, path.stat().st_mtime_ns if path.is_file() else 0)
    return found


@cache
def _weights_digest(path: Path, expected: str, modified: int) -> str:
    from rsovlib.backbones import registry

    return registry.verified_sha256(path, expected)


@cache
def environment() -> dict[str, str]:
    """Versions of Python and of the libraries that numbers come from."""
    import platform
    from importlib import metadata

    versions = {name: metadata.version(name) for name in (*LIBRARIES, "rasterio", "papermill")}
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "rsovlib": rsovlib.__version__,
        "commit": commit(),
        **versions,
    }


def _processor() -> str:
    """The processor's name, as far as the system tells it."""
    import platform

    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest_of_files(folder: Path, files: Iterable[Path]) -> str:
    return digest({path.relative_to(folder).as_posix(): _file_digest(path) for path in files})


def _listing_digest(folder: Path) -> str:
    """Of the relative paths and sizes of all files below a folder."""
    sizes = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.is_file():
                sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    return digest(sizes)
