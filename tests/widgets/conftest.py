from __future__ import annotations

import numpy as np
import pytest

from rsovlib.segmenters import Segmentation, make_segmenter
from rsovlib.segmenters.registry import register, unregister
from rsovlib.segmenters.sdci import SDCI
from rsovlib.widgets.stages import StageCache

CLASSES = ["building, rooftop", "water, river, lake", "forest, trees"]


@pytest.fixture(scope="session")
def sdci() -> SDCI:
    """The embedded SDCI, its windows as small as its patches allow for a quick test: two for 64 x 96 pixels."""
    made = make_segmenter("sdci", window=64, overlap=32)
    assert isinstance(made, SDCI)
    return made


@pytest.fixture
def cache() -> StageCache:
    return StageCache(2**28)


class Brightness:
    """A method without steps: dark or bright, and with a radar image what is bright in either."""

    def __init__(self, uses_sar: bool) -> None:
        self.uses_sar = uses_sar
        self.calls = 0

    def __call__(self, image: np.ndarray, classes: list[str], sar=None, sar_valid=None) -> Segmentation:
        self.calls += 1
        light = image.mean(axis=2) / 255
        if sar is not None:
            seen = np.ones(light.shape, bool) if sar_valid is None else sar_valid
            light = np.where(
                seen, np.maximum(light, np.asarray(sar).reshape(*light.shape, -1).mean(axis=2) / 255), light
            )
        rest = np.full((len(classes) - 2, *light.shape), 0.01) if len(classes) > 2 else np.zeros((0, *light.shape))
        both = np.stack([light, 1 - light])[: len(classes)] + 1e-3
        probabilities = np.concatenate([both, rest]).astype(np.float32)
        return Segmentation.from_probabilities(probabilities / probabilities.sum(0), classes, image=image)

    def memory_needed(self, height: int, width: int, classes: int) -> int:
        return 0

    def settings(self) -> dict[str, str]:
        return {"method": "brightness"}


@pytest.fixture
def stand_ins():
    """Two methods that are known only because they are registered: without and with radar."""
    made = {"stand-in": Brightness(False), "radar-stand-in": Brightness(True)}
    for name, segmenter in made.items():
        register(
            name, lambda _name, segmenter=segmenter, **_options: segmenter, uses_sar=segmenter.uses_sar, doc="a test"
        )
    yield made
    for name in made:
        unregister(name)
