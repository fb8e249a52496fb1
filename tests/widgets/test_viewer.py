from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from rsovlib.plots import class_colours
from rsovlib.segmenters import Segmentation
from rsovlib.widgets import MapViewer

CLASSES = ["water", "forest", "<b>tricky</b>"]


@pytest.fixture
def segmentation(image: np.ndarray, labels: np.ndarray) -> Segmentation:
    probabilities = np.full((3, *labels.shape), 0.1, np.float32)
    np.put_along_axis(probabilities, labels[None], 0.8, axis=0)
    return Segmentation.from_probabilities(probabilities, CLASSES, image=image)


def shown(viewer: MapViewer) -> np.ndarray:
    """What the browser gets: the decoded bytes of the image widget."""
    return np.asarray(Image.open(io.BytesIO(viewer.children[1].children[0].value)))


def test_opacity_goes_from_the_image_to_the_colours(segmentation: Segmentation) -> None:
    viewer = MapViewer(segmentation)
    viewer.opacity.value = 0
    np.testing.assert_array_equal(shown(viewer), segmentation.image)
    viewer.opacity.value = 1
    np.testing.assert_array_equal(shown(viewer), class_colours(CLASSES)[segmentation.labels])


def test_a_class_shows_its_probability(segmentation: Segmentation) -> None:
    viewer = MapViewer(segmentation)
    viewer.opacity.value = 1
    viewer.view.value = "forest"
    picture = shown(viewer)
    inside = segmentation.labels == 1
    assert len(np.unique(picture[inside], axis=0)) == 1
    assert (picture[inside][0] != picture[~inside][0]).any()
    assert "forest" in viewer.children[1].children[1].value


def test_names_are_text_and_not_markup(segmentation: Segmentation) -> None:
    assert "<b>tricky" not in MapViewer(segmentation).children[1].children[1].value


def test_pixels_without_data_keep_the_image(segmentation: Segmentation) -> None:
    segmentation.valid = segmentation.labels != 0
    viewer = MapViewer(segmentation)
    viewer.opacity.value = 1
    hole = ~segmentation.valid
    assert segmentation.image is not None
    np.testing.assert_array_equal(shown(viewer)[hole], segmentation.image[hole])


def test_large_pictures_are_shown_reduced(segmentation: Segmentation) -> None:
    assert shown(MapViewer(segmentation, longest_side=20)).shape == (19, 16, 3)
