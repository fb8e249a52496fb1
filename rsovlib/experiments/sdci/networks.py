"""Networks that several methods share: loaded once, and asked once for the same pixels.

Five of the compared methods look at the same window through the same DINO, each under several wordings. What a network
says of pixels depends on nothing else, so it may be kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from rsovlib.backbones.clip import ClipBackbone
from rsovlib.backbones.dino import DinoBackbone, DinoFeatures

#: Answers that are kept: those of one image's windows for a method that has a few, and for one that has others.
_KEPT = 4


@dataclass(frozen=True)
class _Answer:
    """What one pass gave, and what the last block's attention got in it."""

    pixels: torch.Tensor
    features: DinoFeatures
    before_last: torch.Tensor


@dataclass
class RememberingDino(DinoBackbone):
    """A DINO that gives again what it gave for the very same pixels, as long as they were among the last few.

    Its answers belong to everybody who asked: they are to be read, not written to. Features, and queries with keys,
    come from one and the same pass.
    """

    _kept: OrderedDict[tuple[Any, ...], _Answer] = field(default_factory=OrderedDict, init=False, repr=False)

    @classmethod
    def of(cls, dino: DinoBackbone) -> RememberingDino:
        """The same network, remembering."""
        return cls(**{one.name: getattr(dino, one.name) for one in fields(DinoBackbone) if one.init})

    def features(self, pixels: torch.Tensor) -> DinoFeatures:
        """See :meth:`DinoBackbone.features`."""
        return self._answer(pixels).features

    def query_key(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int]]:
        """See :meth:`DinoBackbone.query_key`."""
        answer = self._answer(pixels)
        return (*self.split_last(answer.before_last), answer.features.grid)

    def _answer(self, pixels: torch.Tensor) -> _Answer:
        # The sums find the entry, the comparison makes sure of it.
        key = (tuple(pixels.shape), float(pixels.sum()), float(pixels[..., ::3].sum()))
        found = self._kept.get(key)
        if found is not None and torch.equal(found.pixels, pixels):
            self._kept.move_to_end(key)
            return found
        caught: list[torch.Tensor] = []
        last = self._model.blocks[-1].attn
        hook = last.register_forward_pre_hook(lambda _module, inputs: caught.append(inputs[0]))
        try:
            features = super().features(pixels)
        finally:
            hook.remove()
        answer = _Answer(pixels.clone(), features, caught[0])
        self._kept[key] = answer
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return answer


def share_networks(segmenters: Iterable[Any]) -> None:
    """Let segmenters with the same networks use the same ones, and let each DINO remember.

    Args:
        segmenters: whose attributes ``clip`` and ``dino``, where they have them, are replaced.
    """
    known: dict[tuple[str, ...], ClipBackbone | DinoBackbone] = {}
    for segmenter in segmenters:
        for name in ("clip", "dino"):
            network = getattr(segmenter, name, None)
            if network is None:
                continue
            key = (name, network.name, network.weights, network.sha256, str(network.device))
            if key not in known:
                known[key] = RememberingDino.of(network) if name == "dino" else network
            setattr(segmenter, name, known[key])
