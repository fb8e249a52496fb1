"""Workbench 2, "Clouds and radar": draw clouds over a scene, add radar, and see which methods still find their way."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from rsovlib.data.clouds import KINDS
from rsovlib.data.pair import open_pair
from rsovlib.errors import InputError, RsovError, unknown_name
from rsovlib.fusion.pairs import sar_picture
from rsovlib.segmenters.registry import METHODS
from rsovlib.widgets import sky, sources, tables
from rsovlib.widgets.charts import Line, line_chart
from rsovlib.widgets.pipeline import Live
from rsovlib.widgets.sources import Ground
from rsovlib.widgets.stages import StageCache
from rsovlib.widgets.state import View, Wish, listed
from rsovlib.widgets.words import FIRST_CLASSES
from rsovlib.widgets.workbench import Workbench
from rsovlib.widgets.worker import one_sentence

MODALITIES = ("optical and radar", "optical only", "radar only")
#: Cloud covers of the curve.
COVERS = (0.0, 0.2, 0.4, 0.6, 0.8)
#: The curve is drawn over the middle of the scene, so that a point takes seconds at most.
CURVE_SIDE = 256

_STYLE = {"description_width": "92px"}
_WIDE = ipywidgets.Layout(width="300px")
#: Name of the notebook's parameter -> its value at first.
FIRST: dict[str, Any] = {
    "optical": "",
    "sar": "",
    "seed": 1_000_104,
    "size": 512,
    "cover": 0.4,
    "kind": "thick",
    "strength": 1.0,
    "shadow": 0.6,
    "haze": 0.0,
    "cloud_seed": 3,
    "radar": True,
    "looks": 4.0,
    "move_right": 0,
    "move_down": 0,
    "modalities": MODALITIES[0],
}


class CloudsAndRadar(Workbench):
    """A scene under clouds, with radar beside it.

    Args:
        classes, method, profile, device, options, colours, view, out, cache, threaded: as for ``SegmentByWords``.
        curve_methods: whose mIoU is drawn against the cloud cover when asked.
        **settings: see :data:`FIRST`: ``optical`` and ``sar``, paths of two rasters of one place ("" for a simulated
            scene with ``seed``, ``size`` and radar ``looks``); the clouds' ``cover``, ``kind``, ``strength``,
            ``shadow``, ``haze`` and ``cloud_seed``; ``radar`` on or off, and by how many pixels it lies beside its
            place (``move_right``, ``move_down``); the ``modalities`` that the method may use.

    Raises:
        InputError: an unknown setting or method.
    """

    notebook = "notebooks/explore/clouds_and_radar.ipynb"

    def __init__(
        self,
        classes: str | Sequence[str] = "",
        method: str = "sdci",
        *,
        profile: str = "embedded",
        device: str = "auto",
        options: Mapping[str, Any] | None = None,
        colours: Sequence[str] = (),
        view: Mapping[str, Any] | None = None,
        out: str | Path = "runs/explore",
        curve_methods: Sequence[str] = ("sdci",),
        cache: StageCache | None = None,
        threaded: bool = True,
        **settings: Any,
    ) -> None:
        for name in settings:
            if name not in FIRST:
                raise unknown_name("setting of the workbench", name, FIRST)
        for name in curve_methods:
            if name not in METHODS:
                raise unknown_name("method", name, METHODS)
        source = {**FIRST, **settings}
        self._clear: tuple[Any, Ground, npt.NDArray[np.uint8] | None, npt.NDArray[np.bool_] | None] | None = None
        self._seen: tuple[Any, Ground] | None = None
        self.curve: dict[str, list[float]]
        self._opacity: npt.NDArray[np.float32] | None = None
        self._make_own_controls(source, curve_methods)
        wish = Wish(
            source=source,
            classes=tuple(listed(classes) or FIRST_CLASSES),
            colours=tuple(colours),
            method=method,
            profile=profile,
            device=device,
            options=dict(options or {}),
            view=View(**dict(view or {})),
        )
        super().__init__(wish, cache=cache, threaded=threaded, out=out)

    # ---- image, clouds and radar -----------------------------------------------------------------------------

    def _look(self, live: Live) -> Ground:
        clear, _, _ = self._clear_ground(live)
        told = {name: self._value(name) for name in ("cover", "kind", "strength", "shadow", "haze", "cloud_seed")}
        only_radar = self._value("modalities") == "radar only"
        radar = self._radar_now(live) if only_radar else {}
        if only_radar and not radar:
            raise InputError("The method may only use radar, and there is none; switch it on, or allow optical images.")
        asked = (id(clear), *told.values(), only_radar, self._value("move_right"), self._value("move_down"))
        if self._seen is None or self._seen[0] != asked:
            live.say("drawing clouds")
            seed = int(told.pop("cloud_seed"))
            cover, kind = told.pop("cover"), told.pop("kind")
            node = self.cache.node(
                "clouds",
                [cover, kind, seed, *told.values()],
                [self.cache.source("clear", clear.image)],
                lambda: sky.clouded(clear.image, cover, kind, seed, **told),
            )
            cloudy, self._opacity = node.value
            image = radar["sar"] if only_radar else cloudy
            self._seen = (asked, sources.with_image(clear, image, self._code()))
            self.story.value = f"<div style='font-size:13px;line-height:1.4'>{html.escape(clear.story)}</div>"
        return self._seen[1]

    def _clear_ground(self, live: Live) -> tuple[Ground, npt.NDArray[np.uint8] | None, npt.NDArray[np.bool_] | None]:
        """The ground in clear weather, and its radar picture with where it has data."""
        names = ("optical", "sar", "seed", "size", "looks")
        asked = tuple(self._value(name) for name in names)
        if self._clear is None or self._clear[0] != asked:
            live.say("opening the images")
            optical, sar, seed, size, looks = asked
            if bool(optical) != bool(sar):
                raise InputError("Give both paths, the optical raster's and the radar's, or neither for a simulation.")
            if optical:
                self._clear = (asked, *_opened_pair(str(optical), str(sar), int(size)))
            else:
                ground = sources.simulated(int(seed), int(size), float(looks))
                assert ground.scene is not None  # simulated, with radar
                assert ground.scene.sar is not None
                self._clear = (asked, ground, sar_picture(ground.scene.sar[:1]), None)
        return self._clear[1:]

    def _radar(self) -> dict[str, Any]:
        return {} if self._value("modalities") == "optical only" else self._radar_now(Live())

    def _radar_now(self, live: Live) -> dict[str, Any]:
        """The radar picture as it lies now, or nothing."""
        _, picture, valid = self._clear_ground(live)
        if picture is None or not self._value("radar"):
            return {}
        right, down = int(self._value("move_right")), int(self._value("move_down"))
        image, known = sky.moved(picture, valid, right, down)
        return {"sar": image, "sar_valid": None if known.all() else known}

    def _bases(self) -> dict[str, Callable[[], npt.NDArray[np.uint8] | None]]:
        def grey_opacity() -> npt.NDArray[np.uint8] | None:
            return (
                None
                if self._opacity is None
                else np.round(self._opacity * 255).astype(np.uint8)[..., None].repeat(3, 2)
            )

        return {
            "clear image": lambda: None if self._clear is None else self._clear[1].image,
            "radar": lambda: self._radar_now(Live()).get("sar"),
            "cloud opacity": grey_opacity,
        }

    def _code(self) -> str:
        value = self._value
        clouds = (
            f"image, opacity = clouded(clear, {value('cover')!r}, {value('kind')!r}, {int(value('cloud_seed'))}, "
            f"strength={value('strength')!r}, shadow={value('shadow')!r}, haze={value('haze')!r})"
        )
        size = int(value("size"))
        if value("optical"):
            lines = [
                "from rasterio.windows import Window\n",
                "from rsovlib.data.raster import open_pair",
                "from rsovlib.widgets.sky import clouded, moved\n",
                f"with open_pair({value('optical')!r}, {value('sar')!r}) as pair:",
                f"    window = Window(0, 0, min({size}, pair.grid.width), min({size}, pair.grid.height))",
                "    both = pair.read(window)",
                "clear, radar, radar_valid = both.optical, both.sar, both.sar_valid",
            ]
        else:
            lines = [
                "from rsovlib.data.scenes import make_scene",
                "from rsovlib.fusion.pairs import sar_picture",
                "from rsovlib.widgets.sky import clouded, moved\n",
                f"scene = make_scene({size}, {int(value('seed'))}, modalities=('sar',), sar_looks={value('looks')!r})",
                "clear, radar, radar_valid = scene.optical, sar_picture(scene.sar[:1]), None",
            ]
        lines.append(clouds)
        if value("radar"):
            lines.append(f"sar, sar_valid = moved(radar, radar_valid, {value('move_right')}, {value('move_down')})")
        if value("modalities") == "radar only":
            lines.append("image = sar  # the method sees the radar's picture alone")
        return "\n".join(lines)

    # ---- the curve ---------------------------------------------------------------------------------------------

    def draw_curve(self) -> None:
        """Compute mIoU against cloud cover for the chosen methods, point by point, while nobody waits for a map."""
        self.results.selected_index = 1
        self.worker.when_idle(self._curve_points(list(self.curve_methods.value)))

    def stop_curve(self) -> None:
        """End that."""
        self.worker.when_idle(None)

    def _curve_points(self, methods: Sequence[str]) -> Iterator[None]:
        live = Live(say=self._say)
        if not methods:
            raise InputError("No method is chosen for the curve; choose one or more in the tab Curve.")
        clear, _, _ = self._clear_ground(live)
        classes = self.rows.classes
        truth = clear.truth_for(classes)
        if truth is None:
            raise InputError("A curve of mIoU needs labels for these classes; simulated scenes have some.")
        truth = sky.middle(truth, CURVE_SIDE)
        fixed = {name: self._value(name) for name in ("strength", "shadow", "haze")}
        kind, seed = self._value("kind"), int(self._value("cloud_seed"))
        radar = self._radar()
        cut = {name: None if part is None else sky.middle(part, CURVE_SIDE) for name, part in radar.items()}
        only_radar = self._value("modalities") == "radar only"
        own = {self.method.value: self.options.options}
        found: dict[str, list[float]] = {name: [] for name in methods}
        failed: list[str] = []
        title = f"{kind} clouds, seed {seed}, middle {len(truth)} x {truth.shape[1]} pixels"
        for cover in COVERS:
            cloudy, _ = sky.clouded(clear.image, cover, kind, seed, **fixed)
            image = cut["sar"] if only_radar and cut else sky.middle(cloudy, CURVE_SIDE)
            for name in methods:
                if name in failed:
                    continue
                self._say(f"curve: {name} at {cover:.0%} cover")
                try:
                    segmenter = self._segmenter(name, own.get(name, {}), live)
                    result = segmenter(image, classes, **(cut if getattr(segmenter, "uses_sar", False) else {}))
                except RsovError as error:
                    failed.append(name)
                    self.curve_note.value += (
                        f"<div style='font-size:13px'>{name}: {html.escape(one_sentence(error))}</div>"
                    )
                    continue
                found[name].append(100 * tables.scores(result.labels, truth, result.classes)[0]["miou"])
                self.curve = {name: list(values) for name, values in found.items()}
                self._curve_svg = curve_chart(self.curve, title)
                self.chart.value = self._curve_svg
                yield
        self._say("")

    def _idle_chart(self) -> str:
        return self._curve_svg or "<i>Tab “Curve”: mIoU against cloud cover, drawn point by point.</i>"

    # ---- controls ------------------------------------------------------------------------------------------------

    def _make_own_controls(self, source: Mapping[str, Any], curve_methods: Sequence[str]) -> None:
        def slider(label: str, low: float, high: float, step: float, tip: str) -> Any:
            kind = ipywidgets.IntSlider if isinstance(step, int) else ipywidgets.FloatSlider
            return kind(low, min=low, max=high, step=step, description=label, tooltip=tip, style=_STYLE, layout=_WIDE)

        def text(kind: Any, label: str, **more: Any) -> Any:
            return kind(description=label, style=_STYLE, layout=_WIDE, continuous_update=False, **more)

        self.controls: dict[str, Any] = {
            "optical": text(ipywidgets.Text, "optical path", placeholder="empty: simulated scene"),
            "sar": text(ipywidgets.Text, "radar path", placeholder="empty: simulated scene"),
            "seed": text(ipywidgets.IntText, "seed"),
            "size": ipywidgets.Dropdown(
                options=sorted({128, 256, 384, 512, 768, int(source["size"])}),
                description="size",
                style=_STYLE,
                layout=_WIDE,
            ),
            "cover": slider("cover", 0, 1, 0.05, "share of the pixels under cloud"),
            "kind": ipywidgets.Dropdown(options=KINDS, description="kind", style=_STYLE, layout=_WIDE),
            "strength": slider("opacity", 0, 1, 0.05, "1: clouds as they are; below: mixed with the clear image"),
            "shadow": slider("shadow", 0, 1, 0.05, "how much sunlight an opaque cloud takes from its shadow"),
            "haze": slider("haze", 0, 0.8, 0.05, "opacity of a broad haze over the whole image"),
            "cloud_seed": text(ipywidgets.IntText, "cloud seed"),
            "radar": ipywidgets.Checkbox(description="radar on", style=_STYLE, layout=_WIDE),
            "looks": slider("looks", 1, 32, 1.0, "more looks, less speckle (simulated radar only)"),
            "move_right": slider("moved right", -30, 30, 1, "misregistration in pixels; negative: to the left"),
            "move_down": slider("moved down", -30, 30, 1, "misregistration in pixels; negative: upwards"),
            "modalities": ipywidgets.Dropdown(options=MODALITIES, description="may use", style=_STYLE, layout=_WIDE),
        }
        self.story, self.curve_note = ipywidgets.HTML(), ipywidgets.HTML()
        self._set_own(source)
        for name, control in self.controls.items():
            control.add_class(f"rsov-{name.replace('_', '-')}")
            control.observe(lambda _change: self.refresh(), names="value")
        self.curve = {}
        self._curve_svg = ""
        self.curve_methods = ipywidgets.SelectMultiple(
            # All at sight, and those that have a use for radar first.
            options=sorted(METHODS, key=lambda name: not METHODS[name].uses_sar),
            value=tuple(curve_methods),
            rows=len(METHODS),
            layout=_WIDE,
        )
        self.curve_methods.add_class("rsov-curve-methods")
        self.draw_button = self._button("Draw the curve", "line-chart", "rsov-draw-curve", self.draw_curve)
        self.stop_button = self._button("Stop", "stop", "rsov-stop-curve", self.stop_curve)

    def _own_tabs(self) -> dict[str, Any]:
        own = self.controls
        scene = [own[name] for name in ("optical", "sar", "seed", "size")]
        clouds = [own[name] for name in ("cover", "kind", "strength", "shadow", "haze", "cloud_seed")]
        radar = [own[name] for name in ("modalities", "radar", "looks", "move_right", "move_down")]
        explained = ipywidgets.HTML(
            "<div style='font-size:13px;line-height:1.4'>Methods that know no radar get the optical image alone. "
            "“Radar only” shows the radar's picture to the method in the optical image's place.</div>"
        )
        curve = ipywidgets.VBox(
            [
                ipywidgets.HTML("<span style='font-size:13px'>mIoU against cloud cover, for these methods:</span>"),
                self.curve_methods,
                ipywidgets.HBox([self.draw_button, self.stop_button]),
                self.curve_note,
            ]
        )
        return {
            "Clouds": ipywidgets.VBox(clouds),
            "Radar": ipywidgets.VBox([*radar, explained]),
            "Scene": ipywidgets.VBox([*scene, self.story]),
            "Curve": curve,
        }

    def _value(self, name: str) -> Any:
        value = self.controls[name].value
        return value.strip() if isinstance(value, str) else round(value, 6) if isinstance(value, float) else value

    def _source(self) -> dict[str, Any]:
        return {name: self._value(name) for name in FIRST}

    def _set_source(self, source: Mapping[str, Any]) -> None:
        self._set_own(source)

    def _set_own(self, source: Mapping[str, Any]) -> None:
        for name, control in self.controls.items():
            control.value = source[name]


def curve_chart(points: Mapping[str, Sequence[float]], title: str) -> str:
    """mIoU against cloud cover, one line a method."""
    percent = [100 * cover for cover in COVERS]
    lines = [Line(name, percent[: len(values)], values) for name, values in points.items()]
    return line_chart(
        lines,
        x_label="cloud cover (%)",
        y_label="mIoU (%)",
        title=title,
        x_range=(0, percent[-1]),
        y_range=(0, max([60.0, *(value + 5 for values in points.values() for value in values)])),
    )


def _opened_pair(optical: str, sar: str, side: int) -> tuple[Ground, npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """The upper left part of two rasters of one place."""
    ground = sources.from_file(optical, side=side)
    height, width = ground.image.shape[:2]
    with open_pair(optical, sar) as pair:
        both = pair.read(Window(0, 0, width, height))
    return ground, both.sar, both.sar_valid
