"""Legends, scores and the confusion matrix as small HTML tables."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_hex

from rsovlib.metrics.counts import set_scores
from rsovlib.widgets.views import scale_palette

_TABLE = 'style="border-collapse:collapse;font-size:13px;line-height:1.5"'
_NUMBER = 'style="text-align:right;padding:0 5px"'


def scores(
    labels: npt.NDArray[np.integer], truth: npt.NDArray[np.uint8], classes: Sequence[str]
) -> tuple[dict[str, Any], npt.NDArray[np.int64]]:
    """The scores of a map against its labels, and the confusion counts (K, K), rows being the truth."""
    # Two labels make one number, counted in a millisecond: this is done for every picture that a slider brings.
    known = len(classes)
    counted = truth < known
    pairs = truth[counted].astype(np.int64) * known + labels[counted]
    counts = np.bincount(pairs, minlength=known * known).reshape(known, known)
    with_no_answer = np.pad(counts, ((0, 0), (0, 1)))
    found = set_scores(with_no_answer, np.zeros(known, bool), "truth")
    iou = dict(zip(classes, found["classes"]["iou"].tolist(), strict=True))
    return {"miou": float(found["miou"]), "pixel_accuracy": float(found["pixel_accuracy"]), "iou": iou}, counts


def area_rows(
    labels: npt.NDArray[np.integer],
    classes: Sequence[str],
    valid: npt.NDArray[np.bool_] | None,
    hectares: npt.NDArray[np.float64] | None,
) -> list[dict[str, Any]]:
    """Class, share of the valid pixels, pixels, and hectares where they are known."""
    flat = labels.ravel() if valid is None else labels[valid]
    pixels = np.bincount(flat, minlength=len(classes))[: len(classes)]
    rows: list[dict[str, Any]] = [
        {"class": name, "pixels": int(count), "share": float(count) / max(int(pixels.sum()), 1)}
        for name, count in zip(classes, pixels, strict=True)
    ]
    if hectares is not None:
        each = np.bincount(flat, (hectares.ravel() if valid is None else hectares[valid]), minlength=len(classes))
        for row, area in zip(rows, each, strict=False):
            row["hectares"] = float(area)
    return rows


def legend(
    rows: Sequence[Mapping[str, Any]], colours: npt.NDArray[np.uint8], iou: Mapping[str, float] | None = None
) -> str:
    """Each class's colour, name, share of the area, hectares and IoU."""
    in_hectares = bool(rows) and "hectares" in rows[0]
    head = "<th></th><th style='text-align:left'>class</th><th>area&nbsp;%</th>"
    head += "<th>ha</th>" if in_hectares else ""
    head += "<th>IoU&nbsp;%</th>" if iou is not None else ""
    lines = []
    for row, colour in zip(rows, colours, strict=True):
        cells = f"<td style='padding-right:6px'><span style='{_swatch(colour)}'></span></td>"
        cells += f"<td>{html.escape(row['class'])}</td>"
        cells += f"<td {_NUMBER}>{100 * row['share']:.1f}</td>"
        if in_hectares:
            cells += f"<td {_NUMBER}>{row['hectares']:.2f}</td>"
        if iou is not None:
            value = iou.get(row["class"], float("nan"))
            cells += f"<td {_NUMBER}>{'–' if np.isnan(value) else f'{100 * value:.1f}'}</td>"
        lines.append(f"<tr>{cells}</tr>")
    return f"<table {_TABLE}><tr>{head}</tr>{''.join(lines)}</table>"


def scale_legend(title: str, low: float, high: float, unit: str) -> str:
    """A bar of the colours of a quantity, with its ends and unit."""
    stops = ", ".join(to_hex(rgb / 255) for rgb in scale_palette()[:: len(scale_palette()) // 8])
    return (
        f"<div style='font-size:13px;margin-bottom:6px'>{html.escape(title)}"
        f"<div style='width:200px;height:14px;background:linear-gradient(90deg,{stops})'></div>"
        f"<div style='width:200px;display:flex;justify-content:space-between'><span>{low:.3g}</span>"
        f"<span>{html.escape(unit)}</span><span>{high:.3g}</span></div></div>"
    )


def confusion_table(counts: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    """The confusion matrix in percent of each true class's pixels, darker where more."""
    short = [name if len(name) <= 9 else name[:8] + "…" for name in classes]
    head = "".join(
        f"<th title='{html.escape(name, quote=True)}' style='font-weight:normal;padding:0 4px;height:72px;"
        f"vertical-align:bottom'><span style='writing-mode:vertical-rl;transform:rotate(180deg)'>"
        f"{html.escape(cut)}</span></th>"
        for name, cut in zip(classes, short, strict=True)
    )
    lines = []
    for name, row in zip(classes, counts, strict=True):
        total = int(row.sum())
        cells = ""
        for count in row:
            share = count / total if total else 0.0
            ink = "white" if share > 0.55 else "black"
            shade = f"background:rgba(0,80,140,{share:.2f});color:{ink}"
            cells += (
                f"<td style='text-align:right;padding:1px 4px;{shade}'>{f'{100 * share:.0f}' if total else '–'}</td>"
            )
        lines.append(f"<tr><td style='padding-right:6px'>{html.escape(name)}</td>{cells}</tr>")
    return (
        f"<div style='font-size:13px'>Of each true class (row), percent called … (column)"
        f"<table {_TABLE}><tr><th></th>{head}</tr>{''.join(lines)}</table></div>"
    )


def _swatch(colour: npt.NDArray[np.uint8]) -> str:
    r, g, b = (int(part) for part in colour)
    return f"display:inline-block;width:14px;height:14px;border:1px solid #555;background:rgb({r},{g},{b})"
