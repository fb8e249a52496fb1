"""The controls of how an answer is looked at: which view, of what, over which image, laid out how.

Only those controls are shown that the chosen view has a use for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets

from rsovlib.widgets.drawing import LEFT, METHOD, QUANTITIES, SHOWN, STAGES
from rsovlib.widgets.picture import ARRANGEMENTS
from rsovlib.widgets.state import View

_ROW = {"flex_flow": "row wrap"}
_CHANGES_VIEW = ("show", "stage", "of_class", "attention", "network", "step", "left", "arrangement")


class ViewControls(ipywidgets.VBox):
    """Two rows of controls.

    Args:
        view: what they are set to.
        classes: names of the classes.
        methods: whose maps may stand on the left.
        bases: pictures that may lie beneath, besides the image.
        on_view: called when another view is chosen.
        on_base: called when another picture is chosen to lie beneath.
        on_opacity: called when the opacity changes, of which the browser takes care by itself.

    Attributes:
        show, stage, of_class, attention, network, step, left, base, arrangement, opacity: the controls.
    """

    def __init__(
        self,
        view: View,
        classes: Sequence[str],
        methods: Sequence[str],
        bases: Sequence[str],
        *,
        on_view: Callable[[], Any],
        on_base: Callable[[], Any],
        on_opacity: Callable[[], Any],
    ) -> None:
        style = {"description_width": "68px"}

        def menu(label: str, options: Sequence[str] = ()) -> Any:
            own = ipywidgets.Layout(width="230px")  # not shared, for each is hidden by itself
            return ipywidgets.Dropdown(options=options, description=label, layout=own, style=style)

        self.show, self.stage, self.of_class = menu("show", SHOWN), menu("of", STAGES), menu("class")
        self.attention, self.network = menu("attention", ("fused", "CLIP", "DINO")), menu("network", ("CLIP", "DINO"))
        self.left = menu("left", [*LEFT, *(METHOD + name for name in methods)])
        self.base = menu("beneath", ["image", *bases])
        self.step = ipywidgets.IntSlider(
            40, min=0, max=100, description="step t", layout=ipywidgets.Layout(width="260px"), style=style
        )
        self.arrangement = ipywidgets.ToggleButtons(
            options=list(ARRANGEMENTS), style={"button_width": "106px"}, layout=ipywidgets.Layout(width="auto")
        )
        self.opacity = ipywidgets.FloatSlider(
            0.55,
            min=0,
            max=1,
            step=0.05,
            description="opacity",
            layout=ipywidgets.Layout(width="186px"),
            style={"description_width": "52px"},
        )
        for name in (*_CHANGES_VIEW, "base", "opacity"):
            getattr(self, name).add_class(f"rsov-{name.replace('_', '-')}")
        first = [self.show, self.stage, self.of_class, self.attention, self.network, self.step]
        second = [self.arrangement, self.opacity, self.left, self.base]
        super().__init__([ipywidgets.HBox(row, layout=ipywidgets.Layout(**_ROW)) for row in (first, second)])
        self.set(view, classes)
        for name in _CHANGES_VIEW:
            getattr(self, name).observe(lambda _change: on_view(), names="value")
        self.base.observe(lambda _change: on_base(), names="value")
        self.opacity.observe(lambda _change: on_opacity(), names="value")

    def view(self, pixel: tuple[int, int] | None) -> View:
        """What is chosen now.

        Args:
            pixel: the clicked one, which is no control's.
        """
        first_class = self.of_class.index in (None, 0)
        return View(
            show=self.show.value,
            left=self.left.value,
            stage=self.stage.value,
            of_class="" if first_class else self.of_class.value,
            arrangement=self.arrangement.value,
            opacity=round(self.opacity.value, 3),
            attention=self.attention.value,
            network=self.network.value,
            step=self.step.value,
            pixel=pixel,
        )

    def set(self, view: View, classes: Sequence[str]) -> None:
        """Set all controls."""
        self.name_classes(classes, view.of_class)
        for name in ("show", "stage", "left", "attention", "network", "step", "arrangement", "opacity"):
            getattr(self, name).value = getattr(view, name)
        self.show_useful()

    def name_classes(self, classes: Sequence[str], chosen: str | None = None) -> None:
        """Offer these classes; the chosen one, or else the one that was chosen, stays chosen if it is among them."""
        wanted = self.of_class.value if chosen is None else chosen
        self.of_class.options = list(classes)
        self.of_class.value = wanted if wanted in classes else classes[0]

    def show_useful(self) -> None:
        """Show what the chosen view has a use for."""
        show, overlaid = self.show.value, self.arrangement.value == "overlay"
        uses = {
            self.stage: show in ("class map", "probability"),
            self.of_class: show in ("probability", "diffusion over time"),
            self.attention: show == "attention of a pixel",
            self.network: show in ("graph neighbours", "diffusion over time"),
            self.step: show == "diffusion over time",
            self.opacity: show not in QUANTITIES or not overlaid,
            self.left: not overlaid,
            self.base: len(self.base.options) > 1,
        }
        for control, used in uses.items():
            control.layout.display = None if used else "none"

    @property
    def needs_only_the_answer(self) -> bool:
        """Whether the view can be drawn from the answer that is there, without any further step."""
        of_answer = self.show.value in ("class map", "probability", "labels", "errors") and self.stage.value == "answer"
        return of_answer and (self.left.value in ("image", "labels") or self.arrangement.value == "overlay")
