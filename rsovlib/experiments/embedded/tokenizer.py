"""Cutting CLIP's byte-pair merges down to the words of the lexicon."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Iterable
from pathlib import Path

import regex
from open_clip.tokenizer import SimpleTokenizer

from rsovlib.files import write_beside


def needed_merges(texts: Iterable[str]) -> list[tuple[str, str]]:
    """The merges that CLIP's full tokenizer applies to some texts, in its own order.

    Keeping every merge that occurs on the way, in the original order, makes the small tokenizer cut these texts
    exactly as the full one does; other words fall into pieces.
    """
    full = SimpleTokenizer()
    used: set[tuple[str, str]] = set()
    words = {word for text in texts for word in regex.findall(r"\p{L}+", text.lower())}
    for word in sorted(words):
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            pairs = list(itertools.pairwise(parts))
            best = min(pairs, key=lambda pair: full.bpe_ranks.get(pair, len(full.bpe_ranks)))
            if best not in full.bpe_ranks:
                break
            used.add(best)
            parts = _merged(parts, best)
    return sorted(used, key=full.bpe_ranks.__getitem__)


def _merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    index = 0
    while index < len(parts):
        if index + 1 < len(parts) and (parts[index], parts[index + 1]) == pair:
            merged.append("".join(pair))
            index += 2
        else:
            merged.append(parts[index])
            index += 1
    return merged


def write_merges(path: Path, texts: Iterable[str]) -> int:
    """Writes a merges file in CLIP's format and returns the size of the vocabulary.

    No newline ends the file: open_clip would take it for one more, empty, merge.
    """
    merges = needed_merges(texts)
    content = "\n".join(["#version: cut down to the lexicon", *(" ".join(pair) for pair in merges)])
    with write_beside(path) as temporary:
        temporary.write_bytes(gzip.compress(content.encode("utf-8"), mtime=0))
    return 2 * 256 + len(merges) + 2
