"""Text features, computed once for all workers of a scene.

They are computed with one thread: the text tower is the one part of the embedded models whose last bits depend on the
number of threads, and a map must not depend on how many workers, with how many threads each, made it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy.typing as npt
import torch

from rsovlib.backbones.clip import ClipBackbone

Texts = dict[tuple[Any, ...], npt.NDArray[Any]]


def text_features(clip: ClipBackbone, encode: Callable[[], object]) -> Texts | None:
    """What ``encode`` makes the model remember, to be carried to another process; None if it remembers nothing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            encode()
    finally:
        torch.set_num_threads(threads)
    remembered = clip.remembered_words()
    return None if remembered is None else {key: row.cpu().numpy() for key, row in remembered.items()}


def use_text_features(clip: ClipBackbone, texts: Texts) -> None:
    """Let a model remember what another process has encoded."""
    remembered = clip.remembered_words()
    if remembered is not None:
        remembered.update({key: torch.tensor(row, device=clip.device) for key, row in texts.items()})
