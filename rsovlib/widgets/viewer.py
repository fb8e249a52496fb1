"""A small panel to look at a segmentation: the map over the image, or how sure the method is of one class."""

from __future__ import annotations

import html
import io
from typing import Any

import ipywidgets
import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image

from rsovlib.plots import class_colours, overlay
from rsovlib.segmenters.base import Segmentation

ALL_CLASSES = "all classes"


class MapViewer(ipywidgets.VBox):
    """The map over the image, with an opacity, and each class's probability.

    Args:
        segmentation: what a segmenter returned; it must remember its image.
        longest_side: larger pictures are shown reduced to this many pixels.

    The controls are public (``view``, ``opacity``), so that a notebook or a test can set them; ``picture`` is what is
    shown, (H, W, 3) uint8.
    """

    def __init__(self, segmentation: Segmentation, longest_side: int = 640) -> None:
        self._segmentation = segmentation
        self._colours = class_colours(segmentation.classes)
        self._step = -(-max(segmentation.labels.shape) // longest_side)
        self.view = ipywidgets.Dropdown(options=[ALL_CLASSES, *segmentation.classes], description="show")
        self.opacity = ipywidgets.FloatSlider(0.5, min=0, max=1, step=0.05, description="opacity")
        self._image = ipywidgets.Image(format="png")
        self._image.add_class("rsov-map")
        self._legend = ipywidgets.HTML()
        for control in (self.view, self.opacity):
            control.observe(self._draw, names="value")
        self._draw()
        super().__init__([ipywidgets.HBox([self.view, self.opacity]), ipywidgets.HBox([self._image, self._legend])])

    @property
    def picture(self) -> npt.NDArray[np.uint8]:
        """What the panel shows now."""
        return self._render()

    def _render(self) -> npt.NDArray[np.uint8]:
        shown = self._segmentation
        step = self._step
        image = shown.image
        base = np.full((*shown.labels.shape, 3), 255, np.uint8) if image is None else image
        base = np.ascontiguousarray(base[::step, ::step])
        if self.view.value == ALL_CLASSES:
            labels = shown.labels if shown.valid is None else np.where(shown.valid, shown.labels, -1)
            return overlay(base, labels[::step, ::step], self._colours, self.opacity.value)
        probability = shown.probabilities[shown.classes.index(self.view.value)][::step, ::step]
        heat = np.asarray(matplotlib.colormaps["viridis"](probability))[..., :3] * 255
        mixed = (1 - self.opacity.value) * base + self.opacity.value * heat
        return np.round(mixed).astype(np.uint8)

    def _draw(self, _change: Any = None) -> None:
        buffer = io.BytesIO()
        Image.fromarray(self._render()).save(buffer, format="PNG", compress_level=1)
        self._image.value = buffer.getvalue()
        self._legend.value = self._legend_html()

    def _legend_html(self) -> str:
        if self.view.value != ALL_CLASSES:
            stops = ", ".join(
                matplotlib.colors.to_hex(matplotlib.colormaps["viridis"](level)) for level in np.linspace(1, 0, 8)
            )
            return (
                f'<div style="margin-left:1em">probability of <b>{html.escape(self.view.value)}</b><br>1'
                f'<div style="width:1.2em;height:12em;background:linear-gradient({stops})"></div>0</div>'
            )
        rows = (
            f'<div><span style="display:inline-block;width:1em;height:1em;background:rgb({r},{g},{b})"></span> '
            f"{html.escape(name)}</div>"
            for name, (r, g, b) in zip(self._segmentation.classes, self._colours.tolist(), strict=True)
        )
        return f'<div style="margin-left:1em">{"".join(rows)}</div>'
