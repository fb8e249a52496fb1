"""Putting trained models where the package finds them: fp16 weights, the manifest, the scores and the cards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from rsovlib.backbones.checkpoints import sha256_of
from rsovlib.backbones.clip import ClipBackbone
from rsovlib.backbones.dino import DinoBackbone
from rsovlib.backbones.embedded import ALIGNMENT_BIAS, ALIGNMENT_WEIGHT, MANIFEST_FILE
from rsovlib.errors import OutputError
from rsovlib.experiments.embedded.recipe import clip_config, dino_config
from rsovlib.files import write_beside

SCORES_FILE = "scores.json"
MIX_FILE = "real_imagery.json"
"""Scores of seed 0 with and without real imagery in the training mix."""


def model_names(seed: int) -> tuple[str, str]:
    """Names of the pair of a seed; seed 0's are the plain ones."""
    suffix = f"-s{seed}" if seed else ""
    return f"rsov-tiny-clip{suffix}", f"rsov-tiny-dino{suffix}"


def write_pair(folder: Path, clip: ClipBackbone, dino: DinoBackbone, seed: int) -> tuple[str, str]:
    """Writes both models' weights in half precision and enters them in the folder's manifest.

    Args:
        folder: where to; the package's own folder is ``rsovlib/backbones/embedded``.
        clip: the trained CLIP.
        dino: the trained DINO, with its alignment.
        seed: which pair it is.

    Returns:
        The names under which ``load_clip`` and ``load_dino`` find them once the folder is the package's.

    Raises:
        OutputError: the DINO has no alignment, or the folder can't be written to.
    """
    if dino.alignment is None:
        raise OutputError("The DINO has no alignment with CLIP's space yet; fit it before the pair is written.")
    clip_name, dino_name = model_names(seed)
    vocabulary = clip.model.get_parameter("token_embedding.weight").shape[0]
    weight, bias = dino.alignment
    states = {
        clip_name: ("clip", clip.model.state_dict(), clip_config(int(vocabulary))),
        dino_name: (
            "dino",
            {**dino.model.state_dict(), ALIGNMENT_WEIGHT: weight, ALIGNMENT_BIAS: bias},
            dino_config(),
        ),
    }
    for name, (kind, state, config) in states.items():
        file = folder / f"{name}.safetensors"
        halves = {key: value.detach().to(torch.float16).contiguous() for key, value in state.items()}
        with write_beside(file) as temporary:
            save_file(halves, temporary, metadata={"format": "pt"})
        row = {
            "kind": kind,
            "file": file.name,
            "sha256": sha256_of(file),
            "config": config,
            "card": f"{model_names(0)[0 if kind == 'clip' else 1]}.md",
        }
        _enter(folder / MANIFEST_FILE, name, row)
    return clip_name, dino_name


def write_scores(folder: Path, seed: int, scores: Mapping[str, Any]) -> None:
    """Enters the scores of a seed's pair in the folder's table of scores."""
    _enter(folder / SCORES_FILE, f"seed {seed}", scores)


def write_mix(folder: Path, table: Mapping[str, Any]) -> None:
    """Writes the comparison of :func:`~rsovlib.experiments.embedded.report.compare_clips` beside the scores."""
    for name, row in table.items():
        _enter(folder / MIX_FILE, name, row)


def _enter(path: Path, key: str, value: Any) -> None:
    rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    rows[key] = value
    with write_beside(path) as temporary:
        temporary.write_text(json.dumps(dict(sorted(rows.items())), indent=1) + "\n", encoding="utf-8")
