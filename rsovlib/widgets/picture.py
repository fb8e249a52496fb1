"""The picture of a workbench: image and layers in the browser, clicks and keys back to Python.

The browser lays the layers over the image itself, so opacity, arrangement and the divider of a swipe need no answer of
the kernel. It is an anywidget: its script travels with it, and nothing is fetched from anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

ARRANGEMENTS = {"overlay": "overlay", "side by side": "side", "swipe": "swipe"}
"""What a person reads -> what the browser is told."""


class PictureView(anywidget.AnyWidget):
    """An image, a layer over it, and for "side" and "swipe" another layer for the left.

    Attributes:
        base, base_type: the image's bytes and their type.
        over: indexed PNG over the image (right of a swipe).
        under: indexed PNG for the left; empty for the bare image.
        opacity: of the layers, 0..1.
        solid: the layer "over" hides the image whatever the opacity, so that its colours match a legend.
        arrangement: one of :data:`ARRANGEMENTS`' values.
        split: place of the divider, 0 left .. 1 right.
        shape: (rows, columns) of the image in pixels.
        display_width: in CSS pixels.
        metres: metres a pixel for the scale bar; 0 where unknown, and the bar counts pixels.
        marker: [column, row] of the picked pixel, or [].
        frame: [left, top, right, bottom] of a window to show, or [].
        captions: what lies left and right.
        description: for people who hear the page.
        picked: [column, row, count], set by a click, or by arrow keys (eight pixels, with Shift one) and Enter.
        clipboard: text that the browser puts on its clipboard, where it may.
    """

    _esm = Path(__file__).with_name("picture.js")

    base = traitlets.Bytes(b"").tag(sync=True)
    base_type = traitlets.Unicode("image/png").tag(sync=True)
    over = traitlets.Bytes(b"").tag(sync=True)
    under = traitlets.Bytes(b"").tag(sync=True)
    opacity = traitlets.Float(0.5).tag(sync=True)
    solid = traitlets.Bool(False).tag(sync=True)
    arrangement = traitlets.Unicode("overlay").tag(sync=True)
    split = traitlets.Float(0.5).tag(sync=True)
    shape = traitlets.List([1, 1]).tag(sync=True)
    display_width = traitlets.Int(524).tag(sync=True)
    metres = traitlets.Float(0.0).tag(sync=True)
    marker: Any = traitlets.List([]).tag(sync=True)
    frame: Any = traitlets.List([]).tag(sync=True)
    captions = traitlets.List(["", ""]).tag(sync=True)
    description = traitlets.Unicode("").tag(sync=True)
    clipboard = traitlets.Unicode("").tag(sync=True)
    picked: Any = traitlets.List([]).tag(sync=True)

    def on_hello(self, action: Callable[[], Any]) -> None:
        """Do something when a page begins to show the picture; it may have missed what was said before."""
        self.on_msg(lambda _widget, content, _buffers: action() if content.get("kind") == "hello" else None)

    def update(self, **changes: Any) -> None:
        """Change several things with one message."""
        with self.hold_sync():
            for name, value in changes.items():
                setattr(self, name, value)
