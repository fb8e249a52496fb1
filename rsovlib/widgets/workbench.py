"""What both workbenches have: a picture, classes, a method with its parameters, views, a legend, and ways out.

Two kinds of change are told apart. What only concerns the view is drawn at once from the answer that is there. All
else is a wish to the one background thread, where the latest wins; its steps go through the cache.
"""

from __future__ import annotations

import dataclasses
import functools
import html
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import numpy.typing as npt

from rsovlib.data.classes import parse_classes
from rsovlib.errors import InputError, RsovError, unknown_name
from rsovlib.segmenters.base import Segmentation
from rsovlib.segmenters.registry import METHODS, Method
from rsovlib.segmenters.sdci import SDCI
from rsovlib.widgets import saving, tables
from rsovlib.widgets.classrows import ClassRows
from rsovlib.widgets.controls import OptionControls
from rsovlib.widgets.drawing import Drawing, draw
from rsovlib.widgets.encode import jpeg, png
from rsovlib.widgets.looks import ViewControls
from rsovlib.widgets.picture import ARRANGEMENTS, PictureView
from rsovlib.widgets.pipeline import Answer, Live, answers_of
from rsovlib.widgets.sources import Ground
from rsovlib.widgets.stages import StageCache
from rsovlib.widgets.state import View, Wish, papermill_call, python_call
from rsovlib.widgets.worker import LatestWins, Superseded, Ticket, one_sentence

_log = logging.getLogger(__name__)

#: Seconds that the first map waits for a page to show it.
_PATIENCE = 2.0


@functools.lru_cache(maxsize=4)
def _with_defaults(method: Method, profile: str, device: str) -> Any:
    """A method with its models; all panels share them."""
    return method.make(profile=profile, device=device)


def with_options(method: Method, profile: str, device: str, options: Mapping[str, Any], live: Live) -> Any:
    """A method with its options; SDCI keeps the models that are loaded, and only its configuration changes.

    Raises:
        InputError: an option that can't be.
        WeightsError: weights that aren't there.
    """
    live.say(f"loading {method.name}")
    base = _with_defaults(method, profile, device)
    if not options:
        return base
    if isinstance(base, SDCI) and set(options) <= {entry.name for entry in dataclasses.fields(base.config)}:
        return dataclasses.replace(base, config=dataclasses.replace(base.config, **options))
    return method.make(profile=profile, device=device, **options)


class Workbench(ipywidgets.VBox):
    """The part that all workbenches share. Subclasses give the image and what stands in their first tabs.

    Args:
        wish: what to begin with, and what Reset goes back to.
        cache: remembered steps; two workbenches may share one.
        threaded: False computes in the caller's thread, for tests and scripts.
        out: folder for what is saved.

    Attributes:
        answer: the map that is shown.
        drawing: what is laid over the image now.
        status, picture, legend, rows, ...: the controls and displays, public so that notebooks and tests can set them.
    """

    notebook = ""

    def __init__(
        self, wish: Wish, *, cache: StageCache | None = None, threaded: bool = True, out: str | Path = "runs/explore"
    ) -> None:
        if wish.method not in METHODS:
            raise unknown_name("method", wish.method, METHODS)
        self.cache = StageCache() if cache is None else cache
        self.out = Path(out)
        self.answer: Answer | None = None
        self.drawing: Drawing | None = None
        self.ground: Ground | None = None
        self._first = wish
        self._profile, self._device = wish.profile, wish.device
        self._segmenters: dict[str, Any] = {}
        self._pixel = wish.view.pixel
        self._quiet = 0
        self._open_before_chart: int | None = None
        self._chart_is_view = False
        self._shown_base: tuple[int, bool] | None = None
        self._drawn = threading.RLock()
        self._greeted = threading.Event()
        self.rows: ClassRows
        self._told: tuple[Segmentation, int, tuple[str, ...], str] | None = None
        self._rows: list[dict[str, Any]]
        self._iou: Mapping[str, float] | None
        self.worker = LatestWins(threaded, self._report_error, self._report_busy)
        self._make_controls(wish)
        super().__init__(self._arranged())
        self.picture.on_hello(self._send_everything)
        self.add_class("rsov-workbench")
        self.refresh()

    # ---- what a subclass gives -----------------------------------------------------------------------------

    def _look(self, live: Live) -> Ground:
        """The image as the method will see it, with what is known of it."""
        raise NotImplementedError

    def _radar(self) -> dict[str, Any]:
        """``sar`` and ``sar_valid`` for methods that use them."""
        return {}

    def _own_tabs(self) -> dict[str, Any]:
        """Tabs of the subclass: title -> widget, before those for classes and method."""
        return {}

    def _source(self) -> dict[str, Any]:
        """The notebook parameters that name the image."""
        return {}

    def _set_source(self, source: Mapping[str, Any]) -> None:
        """Set the subclass's own controls."""

    def _bases(self) -> dict[str, Callable[[], npt.NDArray[np.uint8] | None]]:
        """Pictures that may lie beneath: name -> what makes it."""
        return {}

    # ---- what a person, a notebook or a test does -----------------------------------------------------------

    @property
    def wish(self) -> Wish:
        """All settings as they are now."""
        usual = ClassRows.usual_colours(self.rows.classes)
        return Wish(
            source=self._source(),
            classes=tuple(self.rows.classes),
            colours=() if self.rows.colours == usual else tuple(self.rows.colours),
            method=self.method.value,
            profile=self._profile,
            device=self._device,
            options=self.options.options,
            view=self.view,
        )

    @property
    def view(self) -> View:
        """How the answer is looked at now."""
        return self.looks.view(self._pixel)

    def refresh(self) -> None:
        """Bring everything up to date: the latest wish wins."""
        self.hide_code()
        if not self._quiet:
            self._say("waiting")
            self.worker.submit(self._bring_up_to_date)

    def reset(self) -> None:
        """Back to the beginning."""
        self.set(self._first)

    def set(self, wish: Wish) -> None:
        """Set all controls, and begin."""
        self._quiet += 1
        try:
            self._set_source(wish.source)
            self.rows.set(list(wish.classes), list(wish.colours) or None)
            self.method.value = wish.method
            self.options.set(wish.options)
            self._set_view(wish.view)
        finally:
            self._quiet -= 1
        self.refresh()

    def redraw(self) -> None:
        """Draw the view anew; at once where the answer is enough for it, else when its steps are there."""
        self.hide_code()
        if self._quiet or self.answer is None:
            return
        if self.looks.needs_only_the_answer:
            self._guarded(lambda: self._draw(Live()))
        else:
            self.refresh()

    def hide_code(self) -> None:
        """Put away what "Copy as ..." has shown: after a change it would be code for something else."""
        self.code_box.layout.display = "none"
        self.code.value = self.picture.clipboard = ""

    def save(self, kind: str) -> Path | None:
        """Write what is shown as "tif", "png" or "csv" into the folder; None and a sentence if that fails."""
        written: list[Path] = []
        self._guarded(lambda: written.append(self._save(kind)))
        return written[0] if written else None

    def python(self) -> str:
        """Python that makes the map that is shown."""
        ground = self.ground
        radar = self._radar()
        call = "sar=sar, sar_valid=sar_valid" if radar and METHODS[self.method.value].uses_sar else ""
        return python_call(self.wish, ground.code if ground else "", call)

    def papermill(self) -> str:
        """The command that opens the notebook with the same settings."""
        return papermill_call(self.notebook, self.wish.parameters())

    def close(self) -> None:
        """End the background thread."""
        if "worker" in vars(self):  # ipywidgets also closes what was never finished, when it is forgotten
            self.worker.close()
        super().close()

    # ---- computing, in the background thread ----------------------------------------------------------------

    def _bring_up_to_date(self, ticket: Ticket) -> None:
        live = Live(ticket, self._say)
        if self.worker.threaded and not self._greeted.is_set():
            # A page that is being put together asks for every widget's state, and gives up if the kernel is too busy
            # to answer within seconds: let it come first. Without a page the work begins all the same.
            self._greeted.wait(_PATIENCE)
            self._greeted.set()
        ground = self._look(live)
        ticket.check()
        classes = self.rows.classes
        if not classes:
            raise InputError("There is no class; write at least one name.")
        changed = self.ground is not ground
        self.ground = ground
        if changed:
            self._show_base(ground, settled=False)
        for answer in self._answers(ground, classes, live):
            ticket.check()
            self.answer = answer
            self._draw(live)
        self._show_base(ground, settled=True)
        self._say("")

    def _answers(self, ground: Ground, classes: Sequence[str], live: Live) -> Iterator[Answer]:
        name, options = self.method.value, self.options.options
        segmenter = self._segmenter(name, options, live)
        told = f"{name} {self._profile} {sorted(options.items())}"
        yield from answers_of(segmenter, told, ground.image, classes, self.cache, live, **self._radar())

    def _segmenter(self, name: str, options: Mapping[str, Any], live: Live) -> Any:
        """The method with its options; its models are loaded once."""
        key = f"{name} {sorted(options.items())}"
        if key not in self._segmenters:
            while len(self._segmenters) > 20:
                self._segmenters.pop(next(iter(self._segmenters)))
            self._segmenters[key] = with_options(METHODS[name], self._profile, self._device, options, live)
        return self._segmenters[key]

    def _other_method(self, name: str, live: Live) -> npt.NDArray[np.int64]:
        """The map of another method, with its defaults."""
        assert self.ground is not None  # drawn only after the image is there
        classes = self.rows.classes
        segmenter = self._segmenter(name, {}, live)
        told = f"{name} {self._profile} []"
        *_, answer = answers_of(segmenter, told, self.ground.image, classes, self.cache, live, **self._radar())
        return answer.segmentation.labels

    # ---- drawing ----------------------------------------------------------------------------------------------

    def _draw(self, live: Live) -> None:
        """Lay the view over the image; quick enough for every message."""
        answer, ground = self.answer, self.ground
        if answer is None or ground is None:
            return
        with self._drawn:
            view = self.view
            drawing = draw(answer, ground, view, self.rows.rgb, self.rows.classes, live, self._other_method)
            self.drawing = drawing
            self.picture.update(
                over=drawing.right.png(),
                under=b"" if drawing.left is None else drawing.left.png(),
                shape=list(ground.image.shape[:2]),
                metres=ground.metres,
                marker=list(drawing.pixel or ()),
                solid=drawing.solid,
                frame=list(drawing.frame),
                captions=[drawing.left_caption, drawing.right_caption],
                description=f"{ground.story} {drawing.right_caption}",
            )
            self._tell_results(answer, ground, drawing)

    def _tell_results(self, answer: Answer, ground: Ground, drawing: Drawing) -> None:
        text = self._counted(answer.segmentation, ground)
        iou = self._iou
        note = f"<div style='color:#b04a00'>{html.escape(answer.note)}</div>" if answer.note else ""
        self.legend.value = (
            f"{drawing.legend}{tables.legend(self._rows, self.rows.rgb, iou)}"
            f"<div style='font-size:13px;margin-top:4px'>{text}{note}</div>"
        )
        self.chart.value = drawing.chart or self._idle_chart()

    def _counted(self, result: Segmentation, ground: Ground) -> str:
        """Areas and scores, counted once for an answer: a mere change of view doesn't wait for them."""
        classes = tuple(self.rows.classes)
        if self._told is not None and self._told[0] is result and self._told[1:3] == (id(ground), classes):
            return self._told[3]
        truth = ground.truth_for(classes) if len(result.classes) == len(classes) else None
        text, self._iou = "", None
        if truth is not None:
            found, counts = tables.scores(result.labels, truth, result.classes)
            self._iou = found["iou"]
            text = f"<b>mIoU {100 * found['miou']:.1f} %</b>, accuracy {100 * found['pixel_accuracy']:.1f} %"
            self.confusion.value = tables.confusion_table(counts, result.classes)
        else:
            self.confusion.value = "<i>No labels: nothing to compare the map with.</i>"
        self._rows = tables.area_rows(result.labels, result.classes, ground.valid, ground.pixel_hectares)
        self._told = (result, id(ground), classes, text)
        return text

    def _idle_chart(self) -> str:
        return "<i>Choose the view “energy and gap” to watch the convex step converge.</i>"

    def _show_base(self, ground: Ground, settled: bool) -> None:
        """The image itself: as JPEG while things change, and as it is when they have settled."""
        base = ground.image
        if (chosen := self.base.value) in (bases := self._bases()):
            made = bases[chosen]()
            base = ground.image if made is None else made
        shown = (id(base), settled)
        if self._shown_base in (shown, (id(base), True)):
            return
        self._shown_base = shown
        self._kept_base = base  # so that its id stays its own
        with self._drawn:
            self.picture.update(
                base_type="image/png" if settled else "image/jpeg",
                base=png(base) if settled else jpeg(base),
                shape=list(base.shape[:2]),
                metres=ground.metres,
            )

    @property
    def base_image(self) -> npt.NDArray[np.uint8]:
        """The image that lies beneath, (H, W, 3)."""
        return self._kept_base

    def _picture_as_shown(self) -> npt.NDArray[np.uint8]:
        assert self.drawing is not None  # there is an answer
        base, opacity = self.base_image, self.opacity.value
        right = self.drawing.right.over(base, 1.0 if self.drawing.solid else opacity)
        left = base if self.drawing.left is None else self.drawing.left.over(base, opacity)
        kind = self.arrangement.value
        if kind == "side by side":
            return np.concatenate([left, np.full((len(left), 6, 3), 255, np.uint8), right], axis=1)
        if kind == "swipe":
            column = round(self.picture.split * left.shape[1])
            return np.concatenate([left[:, :column], right[:, column:]], axis=1)
        return right

    # ---- telling ------------------------------------------------------------------------------------------------

    def _say(self, doing: str) -> None:
        text, dot = (f"{doing} …", "#E69F00") if doing else ("ready", "#009E73")
        line = (
            f"<span style='font-size:13px'><span style='color:{dot}' aria-hidden='true'>●</span> "
            f"<span role='status' data-wish='{self.worker.submitted}'>{html.escape(text)}</span></span>"
        )
        if self.status.value != line:
            self.status.value = line

    def _report_error(self, sentence: str) -> None:
        self.status.value = (
            "<span style='font-size:13px;color:#b00020' role='alert'><b>✕</b> " + html.escape(sentence) + "</span>"
        )

    def _report_busy(self, busy: bool) -> None:
        """The status line says it in words."""

    def _send_everything(self) -> None:
        """To a page that was put together while results were already coming."""
        self._greeted.set()
        with self._drawn:
            waiting: list[Any] = [self]
            while waiting:
                widget = waiting.pop()
                widget.send_state()
                waiting += getattr(widget, "children", ())

    def _guarded(self, what: Callable[[], Any]) -> None:
        try:
            what()
        except Superseded:
            pass
        except (RsovError, OSError) as error:
            self._report_error(one_sentence(error))

    def _save(self, kind: str) -> Path:
        answer, ground = self.answer, self.ground
        if answer is None or ground is None:
            raise InputError("There is no map yet; wait until it is ready.")
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / f"map-{self.method.value}.{kind}"
        if kind == "tif":
            saving.save_geotiff(path, answer.segmentation, ground, self.rows.rgb)
        elif kind == "png":
            title = f"{self.method.value}: {self.show.value}"
            saving.save_picture(path, self._picture_as_shown(), title, self._rows, self.rows.rgb, ground.metres)
        else:
            saving.save_table(path, self._rows, self._iou)
        self.written.value = f"<span style='font-size:13px'>written: <code>{html.escape(str(path))}</code></span>"
        return path

    # ---- controls -------------------------------------------------------------------------------------------------

    def _make_controls(self, wish: Wish) -> None:
        self._rows = []
        self._iou = None
        self.status = ipywidgets.HTML()
        self.status.add_class("rsov-status")
        self.reset_button = self._button("Reset", "undo", "rsov-reset", self.reset)
        self.rows = ClassRows(wish.classes, self._classes_changed, self.redraw)
        if wish.colours:
            self.rows.set(wish.classes, wish.colours)
        self.method = ipywidgets.Dropdown(
            options=[(f"{name} – {method.doc}", name) for name, method in METHODS.items()],
            value=wish.method,
            layout=ipywidgets.Layout(width="auto"),
        )
        self.method.add_class("rsov-method")
        self.method.observe(self._method_changed, names="value")
        self._method_box = ipywidgets.VBox()
        self._show_options(wish.options)
        self._make_view_controls(wish.view)
        self._make_outputs()

    def _make_view_controls(self, view: View) -> None:
        """The controls of :class:`ViewControls`, under their names here as well."""
        self.looks = ViewControls(
            view,
            self._class_names(),
            list(METHODS),
            list(self._bases()),
            on_view=self._view_changed,
            on_base=self._base_changed,
            on_opacity=self.hide_code,
        )
        self.show, self.stage, self.of_class, self.left = (
            self.looks.show,
            self.looks.stage,
            self.looks.of_class,
            self.looks.left,
        )
        self.attention, self.network, self.step = self.looks.attention, self.looks.network, self.looks.step
        self.base, self.arrangement, self.opacity = self.looks.base, self.looks.arrangement, self.looks.opacity
        # In the browser, without a question to the kernel; the kernel hears of it as well.
        self.picture = PictureView(arrangement=ARRANGEMENTS[view.arrangement], opacity=self.opacity.value)
        self._link = ipywidgets.jslink((self.opacity, "value"), (self.picture, "opacity"))
        self.picture.observe(self._picked, names="picked")

    def _make_outputs(self) -> None:
        self.legend, self.confusion, self.chart, self.written = (ipywidgets.HTML() for _ in range(4))
        for name in ("legend", "confusion", "chart", "written"):
            getattr(self, name).add_class(f"rsov-{name}")
        self.copy_python = self._button("Copy as Python", "copy", "rsov-python", lambda: self._show_code(self.python()))
        self.copy_papermill = self._button(
            "Copy as papermill", "copy", "rsov-papermill", lambda: self._show_code(self.papermill())
        )
        self.save_buttons = [
            self._button(f"Save {label}", "save", f"rsov-save-{kind}", functools.partial(self.save, kind))
            for kind, label in (("tif", "GeoTIFF"), ("png", "PNG"), ("csv", "CSV"))
        ]
        self.code = ipywidgets.Textarea(layout=ipywidgets.Layout(width="99%", height="170px"))
        self.code.add_class("rsov-code")
        self.close_code = self._button("Close", "times", "rsov-close-code", self.hide_code)
        self.code_box = ipywidgets.VBox([self.close_code, self.code], layout=ipywidgets.Layout(display="none"))

    def _arranged(self) -> list[Any]:
        tabs = {
            **self._own_tabs(),
            "Classes": self.rows.panel,
            "Method": ipywidgets.VBox([self.method, self._method_box]),
        }
        left = ipywidgets.Tab(
            children=list(tabs.values()), titles=list(tabs), layout=ipywidgets.Layout(width="340px", min_width="340px")
        )
        self.tabs = left
        results = ipywidgets.Accordion(
            children=[self.confusion, self.chart], titles=("Confusion matrix", "Chart"), selected_index=0
        )
        self.results = results
        self._open_chart(self.show.value == "energy and gap")
        middle = ipywidgets.VBox(
            [self.looks, self.picture],
            layout=ipywidgets.Layout(width="532px", min_width="532px"),
        )
        right = ipywidgets.VBox([self.legend, results], layout=ipywidgets.Layout(min_width="250px", flex="1 1 250px"))
        top = ipywidgets.HBox([self.reset_button, self.status], layout=ipywidgets.Layout(align_items="center"))
        outputs = ipywidgets.HBox(
            [self.copy_python, self.copy_papermill, *self.save_buttons, self.written],
            layout=ipywidgets.Layout(flex_flow="row wrap"),
        )
        body = ipywidgets.HBox([left, middle, right], layout=ipywidgets.Layout(flex_flow="row wrap", grid_gap="8px"))
        return [top, body, outputs, self.code_box]

    def _open_chart(self, is_view: bool) -> None:
        """Open the chart while it is the view; afterwards open again what was open before."""
        if is_view and not self._chart_is_view:
            self._open_before_chart, self.results.selected_index = self.results.selected_index, 1
        elif self._chart_is_view and not is_view and self.results.selected_index == 1:
            self.results.selected_index = self._open_before_chart
        self._chart_is_view = is_view

    def _set_view(self, view: View) -> None:
        self.looks.set(view, self._class_names())
        self._pixel = None if view.pixel is None else (int(view.pixel[0]), int(view.pixel[1]))
        self.picture.arrangement = ARRANGEMENTS[view.arrangement]
        self._open_chart(view.show == "energy and gap")

    def _class_names(self) -> list[str]:
        return [prompt.name for prompt in parse_classes(self.rows.classes)]

    def _button(self, text: str, icon: str, css: str, action: Callable[[], Any]) -> Any:
        made = ipywidgets.Button(description=text, icon=icon, layout=ipywidgets.Layout(width="auto"))
        made.add_class(css)
        made.on_click(lambda _button: action())
        return made

    # ---- what happens when a control moves ----------------------------------------------------------------------

    def _method_changed(self, _change: Any) -> None:
        self._show_options({})
        self.refresh()

    def _show_options(self, values: Mapping[str, Any]) -> None:
        config = None
        try:
            config = getattr(self._segmenter(self.method.value, {}, Live()), "config", None)
        except RsovError as error:  # weights that aren't there: the wish itself will say so
            _log.debug("%s", error)
        self.options = OptionControls(config, values, self.refresh)
        self._method_box.children = [self.options.panel]

    def _classes_changed(self) -> None:
        try:
            names = self._class_names()
        except InputError as error:
            self._report_error(one_sentence(error))
            return
        self._quiet += 1
        self.looks.name_classes(names)
        self._quiet -= 1
        self.refresh()

    def _view_changed(self) -> None:
        if self._quiet:
            return
        self.picture.arrangement = ARRANGEMENTS[self.arrangement.value]
        self.looks.show_useful()
        self._open_chart(self.show.value == "energy and gap")
        self.redraw()

    def _base_changed(self) -> None:
        self.hide_code()
        if not self._quiet and self.ground is not None:
            self._shown_base = None
            self._guarded(lambda: self._show_base(self.ground, settled=True))  # type: ignore[arg-type]

    def _picked(self, change: Any) -> None:
        column, row, *_ = change["new"]
        self._pixel = (int(column), int(row))
        self.redraw() if self.drawing is None or self.drawing.pixel is None else self.refresh()

    def _show_code(self, text: str) -> None:
        self.picture.clipboard = text
        self.code.value = text
        self.code_box.layout.display = ""
