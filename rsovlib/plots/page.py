"""What a reader sees at once: how wide a picture may be, and how small its letters."""

from __future__ import annotations

from collections.abc import Sequence

#: Inches of the widest picture. At 100 dots an inch it just fits JupyterLab's column on a screen of 1366 x 768 pixels
#: with the file browser open (934 pixels). A wider one would be shrunk there, and its letters with it.
PAGE_WIDTH = 9.2
#: Points of the letters: titles, labels of axes and legends, numbers at ticks. 9 points are 12 pixels on a screen.
TITLE, LABEL, TICK = 10.0, 9.5, 9.0


def legend_columns(labels: Sequence[str], width: float = PAGE_WIDTH) -> int:
    """Into how many columns a legend below a picture goes without being wider than the picture.

    Args:
        labels: its entries.
        width: of the picture, inches.
    """
    letter, key = 0.085, 0.6  # inches: a letter of LABEL points, and the coloured key with its gaps
    widest = max((len(label) for label in labels), default=0) * letter + key
    most = max(1, min(len(labels), int(width / widest)))
    rows = -(-len(labels) // most)
    return -(-len(labels) // rows) if labels else 1  # rows of like length
