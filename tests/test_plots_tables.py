"""Tables for people: what their cells say, and how they stand."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

from rsovlib.plots import page_table


def cells(frame: pd.DataFrame, *args: Any, **kwargs: Any) -> list[list[str]]:
    """The text of every cell, row by row, all spaces alike."""
    html = page_table(frame, *args, **kwargs).to_html().replace("\N{NO-BREAK SPACE}", " ")
    return [re.findall(r"<td[^>]*>(.*?)</td>", row, re.S) for row in re.findall(r"<tr>(.*?)</tr>", html, re.S)][
        -len(frame) :
    ]


def test_numbers_have_one_number_of_decimals_a_column_and_whole_ones_none():
    frame = pd.DataFrame({"a": [1.25, 10.0], "n": [3.0, 4.0], "mixed": [None, 2.5]})
    assert cells(frame) == [["1.2", "3", "–"], ["10.0", "4", "2.5"]]
    assert cells(frame, 2) == [["1.25", "3", "–"], ["10.00", "4", "2.50"]]
    assert cells(frame, {"a": 3, "n": 1}) == [["1.250", "3.0", "–"], ["10.000", "4.0", "2.5"]]


def test_no_number_is_a_dash_and_zeros_have_no_sign():
    frame = pd.DataFrame({"a": [-0.01, np.nan], "t": ["-0.0 [-0.04, +0.00]", "+0.05 [-0.01, +0.10]"]})
    assert cells(frame) == [["0.0", "0.0\n[-0.04, 0.00]"], ["–", "+0.05\n[-0.01, +0.10]"]]


def test_intervals_break_at_their_brackets_and_sentences_where_they_must():
    frame = pd.DataFrame({"a": ["40.2 [31.2, 44.1] holds", "1.0 [0.1, 2.0]"], "t": ["see [1], page 3", "a <b> & c"]})
    assert cells(frame) == [
        ["40.2\n[31.2, 44.1]\nholds", "see [1], page 3"],
        ["1.0\n[0.1, 2.0]", "a &lt;b&gt; &amp; c"],
    ]
    html = page_table(frame).to_html()
    # Without the styles, which JupyterLab drops in a notebook that it didn't run, the spaces hold on their own.
    assert "[31.2,\N{NO-BREAK SPACE}44.1]" in html
    assert "see [1], page 3" in html
    assert re.search(r"\.col0 \{[^}]*white-space: pre;", html)
    assert re.search(r"\.col1 \{[^}]*white-space: normal;", html)


def test_truth_values_are_words_and_the_frame_stays_as_it_was():
    frame = pd.DataFrame({"ok": [True, False], "none": [None, "x"]}, index=["r", "s"])
    before = frame.copy()
    assert cells(frame) == [["yes", ""], ["no", "x"]]
    pd.testing.assert_frame_equal(frame, before)


def test_columns_of_two_levels_and_a_hidden_index():
    frame = pd.DataFrame([[1.0, 2.5]], columns=pd.MultiIndex.from_tuples([("GID", "here"), ("GID", "paper")]))
    assert cells(frame) == [["1", "2.5"]]
    assert "row_heading" not in page_table(frame, index=False).to_html().split("</style>")[1]
    assert "<caption>What is it</caption>" in page_table(frame, caption="What is it").to_html()
