"""Label files: numbers and colours to class indices and back, and every strange value named."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsovlib.data.labels import LabelCode
from rsovlib.data.manifest import IGNORE
from rsovlib.errors import InputError, RasterError

OFFSET = LabelCode(values={0: 255, 1: 0, 2: 1, 7: 2, 8: 2})
WIDE = LabelCode(values={0: 255, 10: 0, 400: 1})
COLOURS = LabelCode(colours={(255, 0, 0): 0, (0, 0, 254): 1, (0, 0, 0): 255})


def test_numbers_by_hand():
    raw = np.array([[0, 1, 2], [7, 8, 1]], dtype=np.uint8)
    labels = OFFSET.decode(raw, "a.png")
    assert labels.dtype == np.int64
    assert labels.tolist() == [[255, 0, 1], [2, 2, 0]]
    # Several numbers stand for class 2; the first of them is written.
    assert OFFSET.encode(labels).tolist() == [[0, 1, 2], [7, 7, 1]]


def test_numbers_of_other_types():
    for dtype in (np.uint8, np.int16, np.uint16, np.int32, np.float32):
        assert OFFSET.decode(np.array([[1, 7]], dtype=dtype), "a").tolist() == [[0, 2]]
    assert WIDE.decode(np.array([[400, 10, 0]], dtype=np.uint16), "a").tolist() == [[1, 0, 255]]
    assert WIDE.encode(np.array([[1, 255]])).dtype == np.uint16


def test_colours_by_hand():
    raw = np.array([[[255, 0, 0]], [[0, 0, 0]], [[0, 254, 0]]], dtype=np.uint8)
    labels = COLOURS.decode(raw, "a.tif")
    assert labels.tolist() == [[0, 1, 255]]
    assert np.array_equal(COLOURS.encode(labels), raw)


@given(st.data())
def test_encode_and_decode_are_inverse(data):
    count = data.draw(st.integers(1, 20))
    numbers = data.draw(st.lists(st.integers(0, 65535), min_size=count, max_size=count, unique=True))
    code = LabelCode(values={number: index for index, number in enumerate(numbers)} | {70000 % 65536: 255})
    indices = sorted(set(code.values.values()))
    labels = np.array(data.draw(st.lists(st.sampled_from(indices), min_size=6, max_size=6))).reshape(2, 3)
    assert np.array_equal(code.decode(code.encode(labels), "x"), labels)


@pytest.mark.parametrize(
    ("code", "raw", "sentence"),
    [
        (OFFSET, np.array([[9, 9, 3]], np.uint8), "x.png holds the label values 9 (2 pixels), 3 (1 pixel)"),
        (OFFSET, np.array([[1, 200]], np.uint8), "x.png holds the label value 200 (1 pixel), which the manifest"),
        (OFFSET, np.array([[-1]], np.int16), "the label value -1 (1 pixel)"),
        (OFFSET, np.array([[70000]], np.int32), "the label value 70000 (1 pixel)"),
        (OFFSET, np.array([[1.5]], np.float32), "not whole numbers"),
        (OFFSET, np.zeros((3, 2, 2), np.uint8), "a label of one band is needed"),
        (COLOURS, np.ones((3, 1, 2), np.uint8), "the colour (1, 1, 1) (2 pixels)"),
        (COLOURS, np.zeros((2, 2), np.uint8), "a label of three colours is needed"),
        (COLOURS, np.zeros((3, 2, 2), np.uint16), "colours as uint16"),
    ],
)
def test_what_the_manifest_does_not_name_is_an_error(code, raw, sentence):
    with pytest.raises(RasterError) as error:
        code.decode(raw, "x.png")
    assert sentence in str(error.value)
    assert str(error.value).startswith("x.png")


def test_strange_tells_without_raising():
    assert OFFSET.strange(np.array([[0, 1]], np.uint8), "x") == ""
    assert OFFSET.strange(np.array([[0, 5]], np.uint8), "x").startswith("the label value 5")
    many = OFFSET.strange(np.arange(20, 40, dtype=np.uint8)[None], "x")
    assert "and 15 more" in many


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "either values or colours"),
        ({"values": {0: 0}, "colours": {(0, 0, 0): 0}}, "either values or colours"),
        ({"values": {0: 254}}, "Class indices are 0 to 253"),
        ({"values": {-1: 0}}, "Label values are 0 to 65535"),
    ],
)
def test_codes_that_make_no_sense(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        LabelCode(**arguments)


def test_an_index_without_a_value_can_not_be_written():
    with pytest.raises(InputError, match=r"\[5\]"):
        OFFSET.encode(np.array([[5, IGNORE]]))
