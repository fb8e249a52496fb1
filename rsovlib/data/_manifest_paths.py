"""Path templates: one line of a manifest that both finds the files of a dataset and names them.

``"2_Ortho_RGB/top_potsdam_{row:d}_{column:d}_RGB.tif"`` matches ``top_potsdam_2_10_RGB.tif`` and gives
``{"row": 2, "column": 10}``; ``"1_DSM/dsm_potsdam_{row:02d}_{column:02d}.tif"`` filled with those fields gives
``dsm_potsdam_02_10.tif``. That is how the files of one sample find each other though their names differ.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property

_FIELD = re.compile(r"\{([a-z][a-z0-9_]*)(?::(0?\d*)d)?\}")

Fields = dict[str, str | int]
"""The values of a template's placeholders: whole numbers where the template says ``:d``, otherwise text."""


class PathTemplate:
    """A path, relative to the dataset's root, with ``{name}``, ``{name:d}`` or ``{name:02d}`` in it.

    ``{name}`` stands for text without a slash, ``{name:d}`` for a whole number written without leading zeros,
    ``{name:02d}`` for one filled with zeros to two digits. A placeholder may occur several times and has
    the same value everywhere. Slashes are forward ones on every system; case and white space count.

    Args:
        text: the template.
        patterns: a regular expression for the values of a text placeholder, where ``[^/]+`` would take too much.

    Raises:
        ValueError: a brace is open or a placeholder is not of one of the three forms.
    """

    def __init__(self, text: str, patterns: Mapping[str, str] | None = None) -> None:
        if re.search(r"[{}]", _FIELD.sub("", text)):
            raise ValueError(f"{text!r} is no path template; placeholders are {{name}}, {{name:d}} or {{name:02d}}")
        if text.startswith("/") or "\\" in text or ".." in text.split("/"):
            raise ValueError(f"{text!r} must be relative to the dataset's root, with forward slashes")
        self.text = text
        self.patterns = dict(patterns or {})

    def __repr__(self) -> str:
        return f"PathTemplate({self.text!r})"

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The names of the placeholders, each once, in the order of their first occurrence."""
        return tuple(dict.fromkeys(found[1] for found in _FIELD.finditer(self.text)))

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The regular expression that whole paths of this form match."""
        parts: list[str] = []
        end = 0
        known: set[str] = set()
        for number, found in enumerate(_FIELD.finditer(self.text)):
            name, width = found[1], found[2]
            parts.append(re.escape(self.text[end : found.start()]))
            # A number may be padded differently in its second place, so numbers are compared as numbers in match().
            digits = rf"(?P<{name}__{number}>{_digits(width)})" if width is not None else ""
            if digits:
                parts.append(digits)
            elif name in known:
                parts.append(f"(?P={name})")
            else:
                parts.append(f"(?P<{name}>{self.patterns.get(name, '[^/]+')})")
                known.add(name)
            end = found.end()
        parts.append(re.escape(self.text[end:]))
        return re.compile("".join(parts))

    def match(self, path: str) -> Fields | None:
        """The placeholders' values in a path relative to the root, or None if the path is not of this form."""
        found = self.regex.fullmatch(path)
        if found is None:
            return None
        fields: Fields = {}
        for group, text in found.groupdict().items():
            name, is_number, _ = group.partition("__")
            value = int(text) if is_number else text
            if fields.setdefault(name, value) != value:
                return None
        return fields

    def fill(self, fields: Mapping[str, str | int]) -> str:
        """The path of the sample with these values.

        Raises:
            ValueError: a value is missing, or is text where a number belongs.
        """
        try:
            return self.text.format_map(fields)
        except KeyError as error:
            raise ValueError(f"{self.text!r} needs a value for {error.args[0]!r}") from error

    @cached_property
    def glob(self) -> str:
        """A pattern for ``Path.glob`` that finds all files of this form, and perhaps some more."""
        parts = _FIELD.split(self.text)[::3]
        return "*".join(re.sub(r"([*?\[])", r"[\1]", part) for part in parts)


def _digits(width: str) -> str:
    """The regular expression of a number written with the format ``{width}d``."""
    if width.startswith("0") and len(width) > 1:
        count = int(width)
        return rf"[0-9]{{{count}}}|[1-9][0-9]{{{count},}}"
    return "0|[1-9][0-9]*"
