"""All that a workbench is set to, as plain values, and as the calls that reproduce it elsewhere."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class View:
    """How the answer is looked at; nothing here is ever computed with.

    Attributes:
        show: what lies over the image.
        left: what lies left of the divider, and in the left picture.
        stage: which step's map is shown.
        of_class: name of the class whose probability is shown; "" for the first.
        arrangement: overlay, side by side, or swipe.
        opacity: 0..1.
        attention: CLIP, DINO or fused.
        network: whose graph, or whose scores, are shown.
        step: t of the diffusion over time.
        pixel: (column, row) that was clicked.
    """

    show: str = "class map"
    left: str = "image"
    stage: str = "answer"
    of_class: str = ""
    arrangement: str = "overlay"
    opacity: float = 0.55
    attention: str = "fused"
    network: str = "DINO"
    step: int = 40
    pixel: tuple[int, int] | None = None

    def changes(self) -> dict[str, Any]:
        """What differs from the beginning."""
        first = View()
        found = {name: value for name, value in vars(self).items() if value != getattr(first, name)}
        if self.pixel is not None:
            found["pixel"] = list(self.pixel)
        return found


@dataclass
class Wish:
    """What is to be segmented, into what, and how.

    Attributes:
        source: the parameters that say which image, as the notebook's parameters cell has them.
        classes: prompts, one a class.
        colours: #rrggbb, one a class; () for the usual ones.
        method, profile, device: as ``make_segmenter`` takes them.
        options: the method's settings that differ from its defaults.
        view: see :class:`View`.
    """

    source: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    method: str = "sdci"
    profile: str = "embedded"
    device: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)
    view: View = field(default_factory=View)

    def parameters(self) -> dict[str, Any]:
        """What the notebook's parameters cell must hold to show the same."""
        found: dict[str, Any] = {**self.source, "classes": "; ".join(self.classes), "method": self.method}
        for name, usual in (("profile", "embedded"), ("device", "auto")):
            if getattr(self, name) != usual:
                found[name] = getattr(self, name)
        if self.options:
            found["options"] = dict(self.options)
        if self.colours:
            found["colours"] = list(self.colours)
        if changes := self.view.changes():
            found["view"] = changes
        return found


def python_call(wish: Wish, image_code: str, radar: str = "") -> str:
    """Python that makes the same map without a panel.

    Args:
        wish: what is shown.
        image_code: Python that makes ``image`` (and ``sar`` and ``sar_valid``, for a method that takes them).
        radar: further arguments of the call, such as ``"sar=sar, sar_valid=sar_valid"``.
    """
    arguments = [f"method={wish.method!r}"]
    for name, usual in (("profile", "embedded"), ("device", "auto")):
        if getattr(wish, name) != usual:
            arguments.append(f"{name}={getattr(wish, name)!r}")
    if radar:
        arguments.append(radar)
    arguments += [f"{name}={value!r}" for name, value in wish.options.items()]
    classes = "[\n" + "".join(f"    {words!r},\n" for words in wish.classes) + "]"
    return (
        f"import rsovlib\n{image_code}\n\nclasses = {classes}\n"
        f"result = rsovlib.segment(image, classes, {', '.join(arguments)})\nresult.plot()\n"
    )


def papermill_call(notebook: str, parameters: Mapping[str, Any]) -> str:
    """The command that runs a notebook with these parameters."""
    told = json.dumps(dict(parameters), ensure_ascii=False)
    name = notebook.rsplit("/", 1)[-1]
    return f"papermill {notebook} out-{name} -y {shlex.quote(told)}"


def listed(classes: str | Sequence[str]) -> list[str]:
    """Prompts as a list, from a list or from one string parted by semicolons."""
    if isinstance(classes, str):
        return [part.strip() for line in classes.splitlines() for part in line.split(";") if part.strip()]
    return list(classes)
