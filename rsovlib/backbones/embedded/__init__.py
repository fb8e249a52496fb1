"""The small CLIP and DINO models that ship with rsovlib: what they are, where they lie, how they are built.

They are ordinary :class:`open_clip.CLIP` and :class:`timm.models.VisionTransformer` objects with small
configurations, so that everything written for the papers' weights runs on them unchanged.  They are *small
demonstration models trained on simulated scenes; open over their lexicon and its combinations, not open-vocabulary
in general*: the model cards beside the weights say what they were trained on and what they score.

This module is light: torch, open_clip and timm are imported only when a model is built.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsovlib.errors import WeightsError, unknown_name

if TYPE_CHECKING:
    import open_clip
    import torch
    from timm.models.vision_transformer import VisionTransformer

ALIGNMENT_WEIGHT = "alignment.weight"
"""Key of a DINO checkpoint's layer-wise linear maps into CLIP's joint space, (L, D, D)."""
ALIGNMENT_BIAS = "alignment.bias"
"""Key of the offsets that go with them, (L, D).  Layer l's normalised tokens become ``x @ weight[l].T + bias[l]``."""

MERGES_FILE = "merges.txt.gz"
MANIFEST_FILE = "models.json"


@dataclass(frozen=True)
class EmbeddedModel:
    """One model that ships with the package.

    Attributes:
        name: what ``load_clip`` or ``load_dino`` is called with.
        kind: ``"clip"`` or ``"dino"``.
        file: name of the safetensors file in this package.
        sha256: checksum of that file, in hexadecimal.
        config: the architecture, as :func:`build_embedded_clip` or :func:`build_embedded_dino` takes it.
        card: name of the model card (Markdown) in this package.
    """

    name: str
    kind: str
    file: str
    sha256: str
    config: Mapping[str, Any]
    card: str


def _folder() -> Path:
    return Path(str(files(__name__)))


def _read_manifest() -> dict[str, EmbeddedModel]:
    """The models named in ``models.json``, which the training notebook writes together with the weights."""
    rows = json.loads((_folder() / MANIFEST_FILE).read_text(encoding="utf-8"))
    return {name: EmbeddedModel(name=name, **row) for name, row in rows.items()}


EMBEDDED: dict[str, EmbeddedModel] = _read_manifest()
"""Every embedded model by name."""


def embedded_model(name: str) -> EmbeddedModel:
    """The entry of an embedded model.

    Raises:
        InputError: there is no embedded model of that name.
    """
    if name not in EMBEDDED:
        raise unknown_name("embedded model", name, EMBEDDED)
    return EMBEDDED[name]


def embedded_path(name: str) -> Path:
    """Where the weights of an embedded model lie.

    Raises:
        InputError: there is no embedded model of that name.
        WeightsError: the package was installed without its weights.
    """
    path = _folder() / embedded_model(name).file
    if not path.is_file():
        raise WeightsError(f"The weights of {name!r} should be at {path} and are not; install rsovlib again.")
    return path


def embedded_card(name: str) -> str:
    """The model card of an embedded model, as Markdown."""
    return (_folder() / embedded_model(name).card).read_text(encoding="utf-8")


def build_embedded_clip(config: Mapping[str, Any]) -> open_clip.CLIP:
    """An untrained CLIP of the given small architecture.

    Args:
        config: ``embed_dim``, ``vision_cfg`` and ``text_cfg`` as :class:`open_clip.CLIP` takes them.

    Returns:
        The model, in float32, with fresh random weights.
    """
    import open_clip

    return open_clip.CLIP(
        embed_dim=config["embed_dim"], vision_cfg=dict(config["vision_cfg"]), text_cfg=dict(config["text_cfg"])
    )


def build_embedded_dino(config: Mapping[str, Any]) -> VisionTransformer:
    """An untrained DINO backbone of the given small architecture.

    Args:
        config: keyword arguments of :class:`timm.models.vision_transformer.VisionTransformer`.

    Returns:
        The model, in float32, with fresh random weights; it takes images of any size that is a multiple of its patch.
    """
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(**{"num_classes": 0, "dynamic_img_size": True, **config})


@lru_cache(maxsize=1)
def embedded_tokenizer() -> Callable[..., torch.Tensor]:
    """CLIP's byte-pair tokenizer with its merges cut down to the lexicon of the embedded models.

    Any English word still tokenizes, into smaller pieces; what the model makes of such a word is another matter.

    Returns:
        A callable: list of strings -> (number of strings, context length) token ids, int64.
    """
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(bpe_path=str(_folder() / MERGES_FILE), context_length=24)
