"""Sliders and boxes for a method's parameters, made from what the method says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import ipywidgets


@dataclass(frozen=True)
class Slider:
    """How a number is set.

    Attributes:
        label: short, with the paper's symbol.
        low, high, step: of the slider; ``step`` counts powers of ten where ``log`` is set.
        tip: what it does.
        log: whether the slider moves through powers of ten.
    """

    label: str
    low: float
    high: float
    step: float
    tip: str
    log: bool = False


#: SDCI's parameters in the order of its steps: group -> setting -> slider.
SDCI_SLIDERS: dict[str, dict[str, Slider]] = {
    "Attention fusion (CAF)": {
        "lambda_1": Slider("λ₁", 0, 2, 0.05, "weight of the other network's attention (equations 8 and 9)"),
        "score_threshold": Slider("threshold", 0, 1, 0.05, "scores below this share of their class's best become 0"),
    },
    "Diffusion (BCDR)": {
        "neighbours": Slider("K", 1, 64, 1, "neighbours of each node in the graph (equation 11)"),
        "tau": Slider("τ", -2, 0, 0.05, "temperature of the graph's weights (equation 12)", log=True),
        "alpha": Slider("α", 0, 0.99, 0.01, "share of the neighbours' scores in each step (equation 13)"),
        "steps": Slider("T", 0, 100, 1, "steps of the diffusion (equation 13)"),
        "presence_threshold": Slider("presence", 0, 1.5, 0.05, "classes whose best score isn't above it are left out"),
    },
    "Convex step (CSCP)": {
        "lambda_clip": Slider("λ_C", 0, 3, 0.05, "trust in the CLIP branch (equation 17)"),
        "lambda_dino": Slider("λ_D", 0, 3, 0.05, "trust in the DINO branch (equation 17)"),
        "beta": Slider("β", 0, 1, 0.01, "weight of the borders' length (equation 17)"),
        "w_in": Slider("w_in", 0, 3, 0.05, "cost of a border inside a superpixel (equation 16)"),
        "w_cross": Slider("w_cross", 0, 1, 0.02, "cost of a border between superpixels (equation 16)"),
        "superpixel_scale": Slider("scale", 1, 300, 1, "larger: larger superpixels"),
        "superpixel_sigma": Slider("σ", 0, 3, 0.1, "smoothing before the superpixels are made, in pixels"),
        "superpixel_min_size": Slider("min size", 0, 200, 5, "smaller ones, in pixels, are joined to a neighbour"),
    },
}

_LABEL_WIDTH = "72px"


class OptionControls:
    """The controls of one method's parameters.

    Args:
        config: a dataclass of settings with the method's defaults; None for methods without one.
        values: settings that differ from the defaults.
        changed: called when the person has moved something.

    Attributes:
        panel: what is shown.
        controls: the control of each setting by its name.
    """

    def __init__(self, config: Any, values: Mapping[str, Any], changed: Callable[[], None]) -> None:
        self._defaults = _plain_settings(config)
        self._changed = changed
        self._silent = False
        self.controls: dict[str, Any] = {}
        self._others: dict[str, Any] = {}
        groups = _groups(self._defaults)
        boxes = []
        for sliders in groups.values():
            for name, slider in sliders.items():
                self.controls[name] = _make(slider, values.get(name, self._defaults[name]))
                self.controls[name].add_class(f"rsov-{name.replace('_', '-')}")
                self.controls[name].observe(self._moved, names="value")
            boxes.append(ipywidgets.VBox([self.controls[name] for name in sliders]))
        if not boxes:
            boxes = [ipywidgets.HTML("<i>This method has no numbers to set.</i>")]
        self._keep_others(values)
        titles = tuple(groups) or ("Parameters",)
        self.panel = ipywidgets.Accordion(children=boxes, titles=titles, selected_index=len(boxes) - 1)

    @property
    def options(self) -> dict[str, Any]:
        """The settings that differ from the method's defaults, also those without a control."""
        found = dict(self._others)
        for name, control in self.controls.items():
            default = self._defaults[name]
            value = int(control.value) if isinstance(default, int) else round(float(control.value), 6)
            if abs(value - default) > 1e-9:
                found[name] = value
        return found

    def set(self, values: Mapping[str, Any]) -> None:
        """Settings that differ from the defaults; all others go back to them. Tells nobody."""
        self._keep_others(values)
        self._silent = True
        try:
            for name, control in self.controls.items():
                control.value = values.get(name, self._defaults[name])
        finally:
            self._silent = False

    def _keep_others(self, values: Mapping[str, Any]) -> None:
        self._others = {name: value for name, value in values.items() if name not in self.controls}

    def _moved(self, _change: Any) -> None:
        if not self._silent:
            self._changed()


def _plain_settings(config: Any) -> dict[str, float]:
    if config is None or not is_dataclass(config):
        return {}
    found = {}
    for entry in fields(config):
        value = getattr(config, entry.name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            found[entry.name] = value
    return found


def _groups(defaults: Mapping[str, float]) -> dict[str, dict[str, Slider]]:
    """SDCI's own groups where the method has its settings; a plain box for each number of any other method."""
    if "lambda_1" in defaults and "beta" in defaults and "lambda_dino" in defaults:
        return SDCI_SLIDERS
    if not defaults:
        return {}
    return {
        "Parameters": {
            name: Slider(name.replace("_", " "), float("-inf"), float("inf"), 0, f"{name} of the method")
            for name in defaults
        }
    }


def _make(slider: Slider, value: float) -> Any:
    style = {"description_width": _LABEL_WIDTH}
    layout = ipywidgets.Layout(width="auto")
    common: dict[str, Any] = {"description": slider.label, "tooltip": slider.tip, "style": style, "layout": layout}
    if slider.step == 0:
        kind = ipywidgets.IntText if isinstance(value, int) else ipywidgets.FloatText
        return kind(value, **{**common, "style": {"description_width": "140px"}}, continuous_update=False)
    if slider.log:
        return ipywidgets.FloatLogSlider(
            value, base=10, min=slider.low, max=slider.high, step=slider.step, readout_format=".3f", **common
        )
    if isinstance(slider.step, int):
        return ipywidgets.IntSlider(int(value), min=int(slider.low), max=int(slider.high), step=slider.step, **common)
    return ipywidgets.FloatSlider(value, min=slider.low, max=slider.high, step=slider.step, **common)
