"""Several wordings of one image at once give what each gives alone, and the networks are asked once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rsovlib.errors import InputError
from rsovlib.experiments.costs import random_image
from rsovlib.experiments.sdci.networks import RememberingDino, share_networks
from rsovlib.experiments.sdci.wordings import labels_by_wording
from rsovlib.segmenters import COMPARED, make_segmenter

WORDINGS = {
    "ori": ["water", "forest", "building", "farmland"],
    "gen": ["river, lake", "bare soil", "road, streets", "grass"],
}


@pytest.mark.parametrize("method", [*COMPARED, "valuepath", "sdci"])
def test_wordings_together_give_what_each_gives_alone(method: str) -> None:
    windows = (
        {"window": 64, "overlap": 16} if method in ("sdci", "cliper", "valuepath") else {"window": 64, "stride": 40}
    )
    segmenter = make_segmenter(method, device="cpu", **windows)
    image = random_image(88)[:, :72]
    alone = {wording: segmenter(image, classes).labels for wording, classes in WORDINGS.items()}
    share_networks([segmenter])
    together = labels_by_wording(segmenter, image, WORDINGS)
    assert list(together) == list(WORDINGS)
    for wording, labels in alone.items():
        assert labels.shape == together[wording].shape == (88, 72)
        assert (labels == together[wording]).mean() > 0.999  # equal up to ties in the last bits
    assert (alone["ori"] != alone["gen"]).any(), "two wordings that give the same map would prove nothing"


def test_wordings_must_name_the_same_classes() -> None:
    segmenter = make_segmenter("vanilla", device="cpu")
    with pytest.raises(InputError, match="same classes"):
        labels_by_wording(segmenter, random_image(32), {"a": ["water", "forest"], "b": ["water"]})


def test_a_remembering_dino_looks_once_at_the_same_pixels() -> None:
    plain = make_segmenter("sdci", device="cpu").dino
    dino = RememberingDino.of(plain)
    looks = []
    plain.model.blocks[0].register_forward_hook(lambda *_: looks.append(1))
    pixels = torch.randn(1, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        first, again = dino.features(pixels), dino.features(pixels.clone())
        assert len(looks) == 1
        torch.testing.assert_close(again.attention, plain.features(pixels).attention, rtol=0, atol=0)
        for own, other in zip(dino.query_key(pixels), plain.query_key(pixels), strict=True):
            torch.testing.assert_close(own, other)
        assert len(looks) == 3, "the plain one was asked twice, the other answered from memory"
        # The same sums, other pixels.
        swapped = pixels.flip(2)
        assert not torch.equal(dino.features(swapped).attention, first.attention)
        for seed in range(6):
            dino.features(torch.full((1, 3, 16, 16), float(seed)))
        dino.features(pixels)
    assert len(looks) == 3 + 1 + 6 + 1, "what was asked long ago is forgotten"


def test_methods_share_the_networks_that_are_the_same() -> None:
    first, second = make_segmenter("proxyclip", device="cpu"), make_segmenter("cass", device="cpu")
    other = make_segmenter("sdci", device="cpu", clip="rsov-tiny-clip-s1", dino="rsov-tiny-dino-s1")
    assert first.dino is not second.dino
    share_networks([first, second, other])
    assert first.dino is second.dino
    assert first.clip is second.clip
    assert isinstance(first.dino, RememberingDino)
    assert other.dino is not first.dino
    assert other.dino.name == "rsov-tiny-dino-s1"
    changed = replace(other, config=replace(other.config, beta=0.2))
    assert changed.dino is other.dino
    labels = labels_by_wording(first, random_image(40), WORDINGS)
    assert set(np.unique(labels["ori"])) <= {0, 1, 2, 3}
