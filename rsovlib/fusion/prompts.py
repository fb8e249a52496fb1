"""The words that stand for a class, in ours and in the release's reading."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from rsovlib.backbones.clip import ClipBackbone
from rsovlib.backbones.text import encode_words
from rsovlib.data.classes import ClassPrompt, parse_classes
from rsovlib.fusion.config import Readings

#: Plain name -> what the released class lists say in its place; "backbroad" stands for a seen class.
RELEASED_NAMES = {
    "background": "backbroad",
    "developed space": "developedspace",
    "agricultural land": "agricultureland",
}


def class_words(prompts: Sequence[ClassPrompt | str], readings: Readings) -> list[tuple[str, ...]]:
    """The words of every class that are encoded.

    Args:
        prompts: T classes; strings as :func:`rsovlib.data.classes.parse_classes` reads them.
        readings: says whether synonyms count, and whose names are used.
    """
    parsed = [p if isinstance(p, ClassPrompt) else parse_classes([p])[0] for p in prompts]
    words = [prompt.words if readings.all_synonyms else prompt.words[:1] for prompt in parsed]
    if readings.plain_class_names:
        return words
    return [tuple(RELEASED_NAMES.get(word.casefold(), word) for word in group) for group in words]


def encode_prompts(
    clip: ClipBackbone, prompts: Sequence[ClassPrompt | str], templates: tuple[str, ...], readings: Readings
) -> torch.Tensor:
    """Text embeddings of T classes in P templates, (T, P, D), unit norm; with gradients where CLIP has them.

    Frozen models remember words they have encoded; they are remembered by word, never by what was asked first.
    """
    words = class_words(prompts, readings)
    rows = encode_words(clip, [word for group in words for word in group], templates)
    means = [part.mean(dim=0) for part in torch.split(rows, [len(group) for group in words])]
    return F.normalize(torch.stack(means), dim=-1)
