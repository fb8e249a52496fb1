"""The list of classes: a row for each, with its words, its colour, and its place in the list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import ipywidgets
import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_hex, to_rgb

from rsovlib.data.manifest import load_manifest, manifest_names
from rsovlib.errors import InputError
from rsovlib.plots import class_colours

PRESET_NAMES = {"original": "Original", "generalized": "Generalized", "candidates": "Candidate set"}


@lru_cache(maxsize=1)
def presets() -> dict[str, list[str]]:
    """Every prompt set of every dataset manifest, by a readable name."""
    found = {}
    for name in manifest_names():
        manifest = load_manifest(name)
        for key in manifest.prompt_sets:
            try:
                words = manifest.prompts(key)
            except InputError:  # a set that is only complete within one of the dataset's protocols
                continue
            title = PRESET_NAMES.get(key, key.replace("-", " ").replace("_", " "))
            found[f"{manifest.name}: {title} ({len(words)})"] = words
    return found


class ClassRows:
    """Rows of words and colours.

    Args:
        classes: the prompts to begin with.
        changed: called when words or their order have changed: the map has to be made anew.
        recoloured: called when only a colour has changed.

    Attributes:
        panel: what is shown.
        rows: (words, colour, up, down, remove) of every row.
    """

    def __init__(self, classes: Sequence[str], changed: Callable[[], None], recoloured: Callable[[], None]) -> None:
        self._changed, self._recoloured = changed, recoloured
        self._silent = False
        self.rows: list[tuple[Any, Any, Any, Any, Any]] = []
        self._list = ipywidgets.VBox()
        self._list.add_class("rsov-classes")
        self.add = ipywidgets.Button(description="Add a class", icon="plus", layout=ipywidgets.Layout(width="120px"))
        self.add.add_class("rsov-add")
        self.add.on_click(lambda _button: self._append())
        self.preset = ipywidgets.Dropdown(
            options=["choose a preset …", *presets()], layout=ipywidgets.Layout(width="300px")
        )
        self.preset.add_class("rsov-preset")
        self.preset.observe(self._take_preset, names="value")
        hint = ipywidgets.HTML(
            '<div style="font-size:12px;line-height:1.35">One class a row: its name, then synonyms after commas. '
            "Press Enter to see the map change.</div>"
        )
        self.panel = ipywidgets.VBox([self.preset, hint, self._list, self.add])
        self.set(classes)

    @property
    def classes(self) -> list[str]:
        """The prompts of all rows that hold a word."""
        return [words.value.strip() for words, *_ in self.rows if words.value.strip(" ,")]

    @property
    def colours(self) -> list[str]:
        """Their colours, as #rrggbb."""
        return [to_hex(row[1].value) for row in self.rows if row[0].value.strip(" ,")]

    @staticmethod
    def usual_colours(classes: Sequence[str]) -> list[str]:
        """The colours that classes get by themselves, as #rrggbb."""
        return [to_hex(rgb / 255) for rgb in class_colours(list(classes))]

    @property
    def rgb(self) -> npt.NDArray[np.uint8]:
        """(K, 3) uint8."""
        return np.array([[round(255 * part) for part in to_rgb(colour)] for colour in self.colours], np.uint8).reshape(
            -1, 3
        )

    def set(self, classes: Sequence[str], colours: Sequence[str] | None = None) -> None:
        """Other rows; tells nobody."""
        self._silent = True
        try:
            chosen = colours or self.usual_colours(classes)
            self.rows = [self._row(words, colour) for words, colour in zip(classes, chosen, strict=True)]
            self._show()
        finally:
            self._silent = False

    def move(self, number: int, by: int) -> None:
        """Move a row up (-1) or down (+1)."""
        other = number + by
        if 0 <= other < len(self.rows):
            self.rows[number], self.rows[other] = self.rows[other], self.rows[number]
            self._show()
            self._tell(self._changed)

    def remove(self, number: int) -> None:
        """Remove a row; the last one stays."""
        if len(self.rows) > 1:
            del self.rows[number]
            self._show()
            self._tell(self._changed)

    def _append(self) -> None:
        used = [words.value or "class" for words, *_ in self.rows]
        colour = to_hex(class_colours([*used, f"new class {len(used)}"])[-1] / 255)
        self.rows.append(self._row("", colour))
        self._show()

    def _row(self, text: str, colour: str) -> tuple[Any, Any, Any, Any, Any]:
        words = ipywidgets.Text(
            text, placeholder="name, synonym, …", continuous_update=False, layout=ipywidgets.Layout(width="164px")
        )
        words.add_class("rsov-words")
        words.observe(lambda _change: self._tell(self._changed), names="value")
        picker = ipywidgets.ColorPicker(concise=True, value=colour, layout=ipywidgets.Layout(width="32px"))
        picker.observe(lambda _change: self._tell(self._recoloured), names="value")
        buttons = []
        for icon, tip in (("arrow-up", "move up"), ("arrow-down", "move down"), ("times", "remove")):
            button = ipywidgets.Button(icon=icon, tooltip=tip, layout=ipywidgets.Layout(width="30px", padding="0"))
            button.add_class(f"rsov-{icon}")
            buttons.append(button)
        row = (words, picker, *buttons)
        up, down, remove = buttons
        up.on_click(lambda _button: self.move(self._number(words), -1))
        down.on_click(lambda _button: self.move(self._number(words), +1))
        remove.on_click(lambda _button: self.remove(self._number(words)))
        return row

    def _number(self, words: Any) -> int:
        return next(number for number, row in enumerate(self.rows) if row[0] is words)

    def _show(self) -> None:
        tight = ipywidgets.Layout(grid_gap="2px", overflow="hidden")
        self._list.children = [ipywidgets.HBox([row[1], row[0], *row[2:]], layout=tight) for row in self.rows]

    def _take_preset(self, change: Any) -> None:
        words = presets().get(change["new"])
        if words:
            self.set(words)
            self._tell(self._changed)

    def _tell(self, whom: Callable[[], None]) -> None:
        if not self._silent:
            whom()
