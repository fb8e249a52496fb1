"""A data frame as a page shows it: rounded numbers, whole sentences, intervals in one piece, no ``NaN``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from pandas.io.formats.style import Styler

#: What stands where there is no number.
MISSING = "–"
_INTERVAL = re.compile(r"^[-+−]?\d[\d.,]*\s+\[[^\]]*\]")
_BRACKETS = re.compile(r"\[[^\]]*\]")
_UNBROKEN = "\N{NO-BREAK SPACE}"
_SIGNED_ZERO = re.compile(r"[-+−](0(?:\.0+)?)(?![\d.])")


def page_table(
    frame: pd.DataFrame, decimals: int | Mapping[Any, int] = 1, *, caption: str = "", index: bool = True
) -> Styler:
    """A data frame for people.

    Numbers stand at the right with one number of decimals a column, whole numbers without any; text stands at the left
    and wraps between words; ``"1.2 [0.3, 2.1] holds"`` breaks before and after its brackets and nowhere else; True and
    False are yes and no; zeros have no sign.

    Args:
        frame: with one or two levels of rows and columns.
        decimals: of all numbers that aren't whole, or of each column; 1 where a column isn't named.
        caption: above the table.
        index: whether the names of the rows are shown.

    Returns:
        What JupyterLab shows as a table.
    """
    shown = frame.copy().astype(object)
    numbers: list[int] = []
    texts: list[int] = []
    intervals: list[int] = []
    for place, name in enumerate(frame.columns):
        values = [None if _missing(value) else value for value in frame.iloc[:, place]]
        there = [value for value in values if value is not None]
        if there and all(_is_number(value) for value in there):
            whole = all(float(value).is_integer() for value in there) and not _has_decimals(decimals, name)
            digits = 0 if whole else _decimals(decimals, name)
            shown.isetitem(place, [MISSING if value is None else _unsigned(f"{value:.{digits}f}") for value in values])
            numbers.append(place)
        else:
            cells = [_text(value) for value in values]
            shown.isetitem(place, cells)
            (intervals if any("\n" in cell for cell in cells) else texts).append(place)
    style = shown.style.format(escape="html").set_table_styles(_styles(numbers, texts, intervals), overwrite=False)
    if caption:
        style = style.set_caption(caption)
    return style if index else style.hide(axis="index")


def _styles(numbers: list[int], texts: list[int], intervals: list[int]) -> list[Any]:
    """Cells and heads of the columns alike; at 12 pixels, which can be read."""
    looks = [
        ("caption", "text-align: left; font-size: 12px; padding: 0.3em 0; white-space: nowrap"),
        ("th, td", "font-size: 12px; padding: 0.35em 0.45em; vertical-align: top"),
        ("th.row_heading, th.index_name", "text-align: left; max-width: 28em; white-space: normal"),
        ("th.col_heading", "vertical-align: bottom; white-space: normal"),
    ]
    looks += [(f".col{place}", "text-align: right") for place in numbers]
    looks += [(f".col{place}", "text-align: left; max-width: 34em; white-space: normal") for place in texts]
    looks += [(f".col{place}", "text-align: right; white-space: pre") for place in intervals]
    return [{"selector": selector, "props": props} for selector, props in looks]


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool | np.bool_)


def _has_decimals(decimals: int | Mapping[Any, int], name: Any) -> bool:
    return isinstance(decimals, Mapping) and name in decimals


def _decimals(decimals: int | Mapping[Any, int], name: Any) -> int:
    return decimals.get(name, 1) if isinstance(decimals, Mapping) else decimals


def _unsigned(text: str) -> str:
    return _SIGNED_ZERO.sub(r"\1", text)


def _text(value: Any) -> str:
    """A cell that is no number; intervals get line breaks, and spaces within brackets that hold.

    JupyterLab drops the styles of a notebook that it didn't run itself: there such spaces keep an interval in one line.
    """
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    text = _unsigned(str(value))
    if _INTERVAL.match(text):
        text = re.sub(r"\s+\[", "\n[", re.sub(r"\]\s+", "]\n", text))
        text = _BRACKETS.sub(lambda found: found.group().replace(" ", _UNBROKEN), text)
    return text
