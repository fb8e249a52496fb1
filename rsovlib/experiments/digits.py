"""How numbers are written for people: as many digits as say something, and intervals no further than a score can go.

Only what is shown is rounded and cut; stored rows and verdicts keep every digit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rsovlib.experiments.comparison import Measured

CUT_RULE = (
    "The interval of a score (IoU, accuracy, F1, a share of pixels) is shown as far as a score can go, 0 and 100 "
    "percent: Student's interval of three seeds may be wider. Verdicts, and the stored rows, have it whole."
)

_NAMES = {
    "miou": "mIoU",
    "miou_seen": "seen mIoU",
    "miou_unseen": "unseen mIoU",
    "iou": "IoU",
    "flops": "FLOPs",
}
"""As people write them."""
_SCORES = {"miou", "iou", "accuracy", "f1", "precision", "recall", "pixels"}
_GAINS = {"gain", "step", "change", "difference"}
"""First words of metrics that are differences of two scores; "gain" says so at any place ("miou gain over GSNet")."""


def metric_name(metric: str) -> str:
    """``"miou, cloudy"`` as ``"mIoU, cloudy"``."""
    return re.sub(r"^\w+", lambda found: _NAMES.get(found.group(), found.group()), metric)


def unit_name(metric: str, unit: str) -> str:
    """The unit as people say it: a difference of percents has points."""
    return "points" if unit == "percent" and _is_difference(metric) else unit


def number(value: float | None, unit: str = "") -> str:
    """A measured number.

    One decimal for percent, one for GFLOP from 10 on, whole numbers as they are, three significant digits for all else.
    Thousands have commas. None is "".
    """
    if value is None:
        return ""
    if unit in ("percent", "points") or (unit == "GFLOP" and abs(value) >= 10):
        return f"{value:,.1f}"
    if value == int(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    return significant(value)


def significant(value: float, digits: int = 3) -> str:
    """So many significant digits, no fewer than stand before the point: ``"0.0270"``, ``"1.26"``, ``"2,944"``."""
    after = digits - 1 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{digits - 1}e}" if after > 6 else f"{value:,.{max(0, after)}f}"


def signed(value: float | None, unit: str = "", like: float | None = None) -> str:
    """A difference, with its sign.

    Args:
        value: the difference.
        unit: of it.
        like: a number whose decimals it gets; its own if None.
    """
    if value is None:
        return ""
    text = number(abs(value), unit)
    if like is not None:
        text = f"{abs(value):,.{len(number(like, unit).partition('.')[2])}f}"
    if not any(digit in text for digit in "123456789"):
        return text
    return f"{'-' if value < 0 else '+'}{text}"


def interval(measured: Measured, metric: str) -> str:
    """The interval of a number, or its standard deviation; "" where it has neither."""
    if measured.low is None or measured.high is None:
        return f"± {number(measured.std, measured.unit)}" if measured.std is not None else ""
    low, high = measured.low, measured.high
    least, most = _range(metric, measured.unit)
    if least <= measured.value <= most:
        low, high = max(low, least), min(high, most)
    return f"[{number(low, measured.unit)}, {number(high, measured.unit)}]"


def _range(metric: str, unit: str) -> tuple[float, float]:
    """Between which ends a metric can lie."""
    if _is_difference(metric) or not set(_words(metric)) & _SCORES or unit not in ("percent", ""):
        return -math.inf, math.inf
    return 0.0, 100.0 if unit == "percent" else 1.0


def _is_difference(metric: str) -> bool:
    words = _words(metric)
    return bool(words) and (words[0] in _GAINS or "gain" in words)


def _words(metric: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", metric.lower())


def decimals(values: Iterable[float]) -> int:
    """With how many decimals the numbers of a paper were printed: those of the one that has the most."""
    return max((len(f"{value:.10g}".partition(".")[2]) for value in values), default=0)


def printed(value: float | None, places: int) -> str:
    """A paper's number, as it stands there."""
    return "" if value is None else f"{value:,.{places}f}"


def sample(measured: Measured) -> str:
    """What stands behind a number: ``"3 seeds, n = 6 each"``, ``"n = 6"``, ``"3 seeds"`` or ""."""
    seeds = len(measured.seeds)
    many = f"{seeds} seeds" if seeds > 1 else ""
    images = f"n = {measured.n:,}{' each' if many else ''}" if measured.n else ""
    return ", ".join(part for part in (many, images) if part)


def duration(seconds: float | None) -> str:
    """For people: ``"9.1 s"``, ``"42 s"``, ``"3 min"``, ``"2 h 10 min"``; "" for None."""
    if seconds is None:
        return ""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def counted(count: int, noun: str) -> str:
    """``"1 run"``, ``"2 runs"``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def memory(size: int | None) -> str:
    """Bytes, for people."""
    return "" if size is None else f"{size / 2**20:,.0f} MiB"
