from __future__ import annotations

import numpy as np
import pytest
import torch

from rsovlib.data.classes import parse_classes
from rsovlib.errors import InputError
from rsovlib.experiments.quickstart import SIMULATED_CLASSES, labelled_scenes
from rsovlib.experiments.sdci.ladder import (
    LATE_FUSION,
    PLAIN,
    RUNGS,
    VALUE_PATH,
    ladder_labels,
    ladder_labels_by_wording,
    ladder_table,
    plot_ladder,
)
from rsovlib.segmenters import SDCI, SDCIConfig, ValuePath, make_segmenter
from rsovlib.segmenters.images import enlarge

CLASSES = list(SIMULATED_CLASSES)


@pytest.fixture(scope="module")
def sdci() -> SDCI:
    segmenter = make_segmenter("sdci", device="cpu")
    assert isinstance(segmenter, SDCI)
    return segmenter


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray]:
    return labelled_scenes(1, 96, 2_000_031)[0]


def test_every_rung_is_what_its_own_segmenter_gives(sdci: SDCI, scene: tuple[np.ndarray, np.ndarray]) -> None:
    image, _ = scene
    rungs = ladder_labels(sdci, image, CLASSES)
    assert list(rungs) == [VALUE_PATH, *RUNGS]
    np.testing.assert_array_equal(rungs["+ CSCP"], sdci(image, CLASSES).labels)
    alone = SDCI(sdci.clip, sdci.dino, SDCIConfig.embedded(**RUNGS["+ CAF"]))
    np.testing.assert_array_equal(rungs["+ CAF"], alone(image, CLASSES).labels)
    value_path = ValuePath(sdci.clip, clip_size=None)
    np.testing.assert_array_equal(rungs[VALUE_PATH], value_path(image, CLASSES).labels)


def test_images_larger_than_the_window_are_blended(sdci: SDCI) -> None:
    (image, _) = labelled_scenes(1, 96, 2_000_031)[0]
    small = SDCI(sdci.clip, sdci.dino, SDCIConfig.embedded(window=64, overlap=16))
    rungs = ladder_labels(small, image, CLASSES)
    np.testing.assert_array_equal(rungs["+ CSCP"], small(image, CLASSES).labels)


def test_the_table_is_in_percent_and_its_gains_are_differences(
    sdci: SDCI, scene: tuple[np.ndarray, np.ndarray]
) -> None:
    table = ladder_table(sdci, [scene], CLASSES, progress=False)
    assert table["mIoU"].between(0, 100).all()
    assert table["mIoU"].max() > 1  # a fraction would not be
    np.testing.assert_allclose(table["gain"].iloc[1:], np.diff(table["mIoU"]))
    predicted = ladder_labels(sdci, scene[0], CLASSES)["+ CSCP"]
    scored = scene[1] != 255
    right = 100 * (predicted[scored] == scene[1][scored]).mean()
    assert table.loc["+ CSCP", "pixel accuracy"] == pytest.approx(right)
    figure = plot_ladder(table, "a title")
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == list(table.index)


def test_late_fusion_and_the_plain_decision(sdci: SDCI, scene: tuple[np.ndarray, np.ndarray]) -> None:
    image, _ = scene
    words = {"ori": CLASSES}
    rungs = ladder_labels_by_wording(sdci, image, words, late_fusion=True, plain=True)["ori"]
    assert list(rungs) == [VALUE_PATH, *RUNGS, LATE_FUSION, *PLAIN.values()]
    for name, labels in ladder_labels(sdci, image, CLASSES).items():
        np.testing.assert_array_equal(labels, rungs[name])
    # Slowly: both branches on their own, without CAF, BCDR and CSCP, each divided by its sum, and their mean.
    alone = SDCI(sdci.clip, sdci.dino, SDCIConfig.embedded(**RUNGS["baseline"]))
    with torch.inference_mode():
        prompts = parse_classes(CLASSES)
        text = alone.encode_text(prompts)
        features = alone.encode_image(image)
        stages = alone.refine(features, *alone.score(features, text, len(prompts)))
        branches = [alone.solve(image, stages[f"{one}_map"], stages[f"{one}_map"])[0] for one in ("clip", "dino")]
        np.testing.assert_array_equal(rungs[LATE_FUSION], torch.stack(branches).mean(dim=0).argmax(dim=0).numpy())
        plain = enlarge(stages["clip_diffused"], image.shape[:2]).argmax(dim=0).numpy()
    np.testing.assert_array_equal(rungs[PLAIN["baseline"]], plain)
    assert (rungs[PLAIN["baseline"]] != rungs["baseline"]).any(), "two rules that agree everywhere would prove nothing"
    with pytest.raises(InputError, match="same classes"):
        ladder_labels_by_wording(sdci, image, {"a": CLASSES, "b": CLASSES[1:]})
