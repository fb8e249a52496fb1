from __future__ import annotations

import numpy as np
import pytest

from rsovlib.experiments.ladder import RUNGS, VALUE_PATH, ladder_labels, ladder_table, plot_ladder
from rsovlib.experiments.quickstart import SIMULATED_CLASSES, labelled_scenes
from rsovlib.segmenters import SDCI, SDCIConfig, ValuePath, make_segmenter

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
