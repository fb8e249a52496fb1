"""Small line charts as SVG text: sharp at any zoom, and drawn in a fraction of a millisecond."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Okabe and Ito's colours, told apart by people with any common colour deficiency; lines differ in dash as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "1 2", "")


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: in the legend.
        x, y: its points; NaN leaves a gap.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]


def line_chart(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    title: str = "",
    log_y: bool = False,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    width: int = 430,
    height: int = 230,
) -> str:
    """Lines with axes, units in their labels, a grid and a legend.

    Args:
        lines: at least one; those without points only appear in the legend.
        x_label: with its unit.
        y_label: with its unit.
        title: above the chart.
        log_y: powers of ten along y; values from 0 down are left out.
        x_range: by default that of the points.
        y_range: likewise.
        width: in pixels.
        height: in pixels.
    """
    points = [
        [(x, math.log10(y) if log_y else y) for x, y in zip(line.x, line.y, strict=True) if _drawable(y, log_y)]
        for line in lines
    ]
    every = [point for line in points for point in line]
    if y_range is not None and log_y:
        y_range = (math.log10(y_range[0]), math.log10(y_range[1]))
    x_low, x_high = x_range or _range([x for x, _ in every])
    y_low, y_high = y_range or _range([y for _, y in every])
    x_ticks, y_ticks = _ticks(x_low, x_high), _ticks(y_low, y_high, whole=log_y)
    left, right, top, bottom = 62, 10, 24 if title else 8, 38
    legend_rows = math.ceil(len(lines) / 2)
    drawn = height - top - bottom

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + (x - x_low) / max(x_high - x_low, 1e-12) * (width - left - right),
            top + (1 - (y - y_low) / max(y_high - y_low, 1e-12)) * drawn,
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="rsov-chart" role="img" aria-label="{html.escape(title)}" '
        f'viewBox="0 0 {width} {height + 18 * legend_rows}" style="width:100%;max-width:{width}px;height:auto" '
        f'font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>'
    ]
    if title:
        parts.append(f'<text x="{left}" y="15" font-size="13">{html.escape(title)}</text>')
    for tick in x_ticks:
        x, y = place(tick, y_low)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{y + 14:.1f}" text-anchor="middle">{_number(tick)}</text>')
    for tick in y_ticks:
        x, y = place(x_low, tick)
        written = f"10<tspan dy='-4' font-size='9'>{round(tick)}</tspan>" if log_y else _number(tick)
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{written}</text>')
    middle = top + drawn / 2
    parts.append(
        f'<text x="{(left + width - right) / 2}" y="{height - 6}" text-anchor="middle">{html.escape(x_label)}</text>'
        f'<text transform="translate(13 {middle}) rotate(-90)" text-anchor="middle">{html.escape(y_label)}</text>'
    )
    for number, (line, its) in enumerate(zip(lines, points, strict=True)):
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
        if its:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in its))
            parts.append(
                f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
            )
            if len(its) <= 15:
                marks = (place(*point) for point in its)
                parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in marks]
        across, down = left + (number % 2) * (width - left) / 2, height + 12 + 18 * (number // 2)
        parts.append(
            f'<line x1="{across}" x2="{across + 24}" y1="{down - 4}" y2="{down - 4}" stroke="{colour}" '
            f'stroke-width="2" stroke-dasharray="{dash}"/>'
            f'<text x="{across + 30}" y="{down}">{html.escape(line.name)}</text>'
        )
    return "".join([*parts, "</svg>"])


def _drawable(y: float, log_y: bool) -> bool:
    return math.isfinite(y) and (y > 0 or not log_y)


def _range(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    if low == high:
        return low - 0.5, high + 0.5
    return low, high


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Four to seven round numbers from low to high."""
    span = max(high - low, 1e-12)
    power = 10 ** math.floor(math.log10(span / 4))
    step = next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= 6)
    if whole:
        step = max(1.0, round(step))
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ") if abs(value) >= 1000 else f"{value:.6g}"
