"""What a workbench shows, as files: the map with its place on Earth, a picture with its legend, a table."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from rsovlib.data.classmap import write_class_map
from rsovlib.files import write_beside
from rsovlib.segmenters.base import Segmentation
from rsovlib.widgets.sources import Ground

_FONT_SIZE = 15
_LINE = 22


def save_geotiff(path: Path, answer: Segmentation, ground: Ground, colours: npt.NDArray[np.uint8]) -> None:
    """The class map in the colours of the panel.

    Raises:
        OutputError: it can't be written there.
    """
    where = ground.georeference
    write_class_map(
        path,
        answer.labels,
        answer.classes,
        colours,
        transform=where.transform if where else None,
        crs=where.crs if where else None,
        valid=ground.valid,
        tags=dict(answer.settings),
    )


def save_picture(
    path: Path,
    picture: npt.NDArray[np.uint8],
    title: str,
    rows: Sequence[Mapping[str, Any]],
    colours: npt.NDArray[np.uint8],
    metres: float,
) -> None:
    """The picture as it is shown, pixel by pixel, with a title, a scale bar and the legend beside it.

    Raises:
        OutputError: it can't be written there.
    """
    height, width = picture.shape[:2]
    font = ImageFont.load_default(_FONT_SIZE)
    names = [f"{row['class']}  {100 * row['share']:.1f} %" for row in rows]
    beside = 50 + max((int(font.getlength(name)) for name in names), default=0)
    page = Image.new("RGB", (width + beside + 10, max(height, _LINE * len(rows) + 10) + _LINE + 6), "white")
    page.paste(Image.fromarray(picture), (0, _LINE + 6))
    draw = ImageDraw.Draw(page)
    draw.text((4, 4), title, fill="black", font=font)
    for number, (name, colour) in enumerate(zip(names, colours.tolist(), strict=False)):
        top = _LINE * (number + 1) + 10
        draw.rectangle((width + 12, top, width + 28, top + 16), fill=tuple(colour), outline="black")
        draw.text((width + 36, top - 1), name, fill="black", font=font)
    _scale_bar(draw, width, height + _LINE + 6, metres, font)
    with write_beside(path) as temporary:
        page.save(temporary, format="PNG")


def save_table(path: Path, rows: Sequence[Mapping[str, Any]], iou: Mapping[str, float] | None) -> None:
    """Class, pixels, share, hectares and IoU as CSV.

    Raises:
        OutputError: it can't be written there.
    """
    names = [*rows[0], *(["iou"] if iou is not None else [])] if rows else ["class"]
    with write_beside(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for row in rows:
            more = {} if iou is None else {"iou": iou.get(row["class"], float("nan"))}
            writer.writerow({**row, **more})


def _scale_bar(draw: Any, width: int, bottom: int, metres: float, font: Any) -> None:
    unit = metres if metres > 0 else 1.0
    limit = 0.3 * width * unit
    power = 10.0 ** np.floor(np.log10(limit))
    length = next(step * power for step in (5, 2, 1) if step * power <= limit)
    text = f"{length:g} m" if metres > 0 else f"{length:g} pixels"
    pixels = length / unit
    draw.rectangle((6, bottom - 30, 14 + max(pixels, font.getlength(text)), bottom - 4), fill="black")
    draw.text((10, bottom - 29), text, fill="white", font=font)
    draw.rectangle((10, bottom - 10, 10 + pixels, bottom - 8), fill="white")
