"""Workbench 1, "Segment by words": type what to look for, move a parameter, and see the map change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import numpy.typing as npt

from rsovlib.errors import InputError
from rsovlib.widgets import sources
from rsovlib.widgets.pipeline import Live
from rsovlib.widgets.sources import SAMPLES, Ground
from rsovlib.widgets.stages import StageCache
from rsovlib.widgets.state import View, Wish, listed
from rsovlib.widgets.workbench import Workbench

#: What is asked for at first: six kinds of land that simulated scenes are full of.
FIRST_CLASSES = (
    "building, rooftop",
    "road, street",
    "water, river, lake",
    "bare soil, sand",
    "forest, trees",
    "farmland, field",
)
_STYLE = {"description_width": "70px"}
_WIDE = ipywidgets.Layout(width="300px")
_KINDS = ("simulated scene", "sample", "file", "upload")


class SegmentByWords(Workbench):
    """Segment an image by words, with every step and parameter at hand.

    Args:
        image: path of a raster; "" takes a simulated scene. Or an array (H, W, 3) uint8.
        classes: prompts, a list or one string with ";" between classes; "" takes :data:`FIRST_CLASSES`.
        method: see ``make_segmenter``.
        seed: of the simulated scene.
        size: side of the scene, or of the part of a raster, in pixels.
        row, column: corner of the part of a raster.
        profile, device: see ``make_segmenter``.
        options: parameters of the method.
        colours: #rrggbb, one a class.
        view: how the answer is looked at, see ``state.View``.
        out: folder for what is saved.
        cache, threaded: see :class:`rsovlib.widgets.workbench.Workbench`.
    """

    notebook = "notebooks/explore/segment_by_words.ipynb"

    def __init__(
        self,
        image: str | Path | npt.NDArray[np.uint8] = "",
        classes: str | Sequence[str] = "",
        method: str = "sdci",
        *,
        seed: int = 1_000_104,
        size: int = 512,
        row: int = 0,
        column: int = 0,
        profile: str = "embedded",
        device: str = "auto",
        options: Mapping[str, Any] | None = None,
        colours: Sequence[str] = (),
        view: Mapping[str, Any] | None = None,
        out: str | Path = "runs/explore",
        cache: StageCache | None = None,
        threaded: bool = True,
    ) -> None:
        self._given = sources.from_array(image) if isinstance(image, np.ndarray) else None
        path = "" if self._given is not None else str(image)
        self._uploaded: tuple[str, bytes] | None = None
        self._seen: tuple[Any, Ground] | None = None
        start = {"image": path, "seed": seed, "size": size, "row": row, "column": column}
        wish = Wish(
            source=start,
            classes=tuple(listed(classes) or FIRST_CLASSES),
            colours=tuple(colours),
            method=method,
            profile=profile,
            device=device,
            options=dict(options or {}),
            view=View(**dict(view or {})),
        )
        self._make_image_controls(start)
        super().__init__(wish, cache=cache, threaded=threaded, out=out)

    def _make_image_controls(self, start: Mapping[str, Any]) -> None:
        kinds = ("array", *_KINDS) if self._given is not None else _KINDS
        self.kind = ipywidgets.Dropdown(options=kinds, description="image", style=_STYLE, layout=_WIDE)
        self.seed = ipywidgets.IntText(description="seed", style=_STYLE, layout=_WIDE, continuous_update=False)
        self.size = ipywidgets.Dropdown(
            options=sorted({128, 256, 384, 512, 768, 1024, int(start["size"])}),
            description="size",
            style=_STYLE,
            layout=_WIDE,
        )
        self.sample = ipywidgets.Dropdown(options=list(SAMPLES), description="sample", style=_STYLE, layout=_WIDE)
        self.path = ipywidgets.Text(
            placeholder="/path/to/image.tif", description="path", style=_STYLE, layout=_WIDE, continuous_update=False
        )
        self.row = ipywidgets.IntText(description="row", style=_STYLE, layout=_WIDE, continuous_update=False)
        self.column = ipywidgets.IntText(description="column", style=_STYLE, layout=_WIDE, continuous_update=False)
        self.upload = ipywidgets.FileUpload(accept=".tif,.tiff,.png,.jpg,.jpeg", multiple=False, layout=_WIDE)
        self.story = ipywidgets.HTML()
        self._image_box = ipywidgets.VBox()
        for name in ("kind", "seed", "size", "sample", "path", "row", "column", "upload"):
            getattr(self, name).add_class(f"rsov-{name}")
        self._set_source_controls(start)
        self.kind.observe(self._kind_changed, names="value")
        for control in (self.seed, self.size, self.sample, self.path, self.row, self.column):
            control.observe(lambda _change: self.refresh(), names="value")
        self.upload.observe(self._upload_came, names="value")
        self._show_image_controls()

    def _own_tabs(self) -> dict[str, Any]:
        return {"Image": self._image_box}

    def _source(self) -> dict[str, Any]:
        chosen: dict[str, Any] = {"image": "", "size": self.size.value}
        if self.kind.value == "file":
            chosen |= {"image": self.path.value.strip(), "row": self.row.value, "column": self.column.value}
        elif self.kind.value == "sample":
            chosen["seed"] = SAMPLES[self.sample.value]["seed"]
        else:
            chosen["seed"] = self.seed.value
        return chosen

    def _set_source(self, source: Mapping[str, Any]) -> None:
        self._set_source_controls(source)
        self._show_image_controls()

    def _set_source_controls(self, source: Mapping[str, Any]) -> None:
        first = "file" if source["image"] else "array" if self._given is not None else "simulated scene"
        self.kind.value = first
        for name in ("seed", "size", "row", "column"):
            if name in source:
                getattr(self, name).value = source[name]
        self.path.value = source["image"]

    def _show_image_controls(self) -> None:
        kind = self.kind.value
        own = {
            "simulated scene": [self.seed, self.size],
            "sample": [self.sample, self.size],
            "file": [self.path, self.row, self.column, self.size],
            "upload": [self.upload, self.size],
            "array": [],
        }[kind]
        self._image_box.children = [self.kind, *own, self.story]

    def _kind_changed(self, _change: Any) -> None:
        self._show_image_controls()
        if self.kind.value == "upload" and self._uploaded is None:
            return  # nothing to show yet
        if self.kind.value == "file" and not self.path.value.strip():
            return
        self.refresh()

    def _upload_came(self, change: Any) -> None:
        if change["new"]:
            file = change["new"][0]
            self._uploaded = (file["name"], bytes(file["content"]))
            self.refresh()

    def _look(self, live: Live) -> Ground:
        asked: tuple[Any, ...]
        make: Callable[[], Ground]
        kind, size = self.kind.value, int(self.size.value)
        if kind == "array":
            assert self._given is not None  # the kind is only offered then
            return self._given
        if kind == "upload":
            if self._uploaded is None:
                raise InputError("No file has been uploaded yet; press Upload and choose one.")
            name, content = self._uploaded
            asked, make = (kind, name, len(content), size), lambda: sources.from_upload(name, content, side=size)
        elif kind == "file":
            path, row, column = self.path.value.strip(), int(self.row.value), int(self.column.value)
            if not path:
                raise InputError("There is no path; type that of a GeoTIFF or another picture.")
            asked = (kind, path, row, column, size)
            make = lambda: sources.from_file(path, row=row, column=column, side=size)  # noqa: E731
        else:
            seed = int(self.seed.value) if kind == "simulated scene" else SAMPLES[self.sample.value]["seed"]
            asked, make = (kind, seed, size), lambda: sources.simulated(seed, size)
        if self._seen is None or self._seen[0] != asked:
            live.say("opening the image")
            self._seen = (asked, make())
            self.story.value = f"<div style='font-size:13px;line-height:1.4'>{self._seen[1].story}</div>"
        return self._seen[1]
