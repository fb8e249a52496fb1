"""What the numbers or colours of a published label file mean: to contiguous class indices, and back.

Published labels come as small numbers (which may begin at 1, go in tens, or leave gaps), as colours, or as palette
images.  Everywhere else in rsovlib a label is a class index 0..K-1, or 255 where a pixel counts for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rsovlib.data.manifest import IGNORE
from rsovlib.errors import InputError, RasterError

Colour = tuple[int, int, int]

_UNKNOWN = 254
"""In a look-up table: a value that the manifest doesn't name. Classes end at 253, so that it can't be one."""

_LARGEST_VALUE = 2**16 - 1
_NAMED_AT_MOST = 5
"""So many strange values are listed in a message."""


@dataclass(frozen=True)
class LabelCode:
    """How one dataset writes its classes.

    Exactly one of ``values`` and ``colours`` is given.

    Attributes:
        values: number in the file -> class index, or 255 for "ignore".
        colours: (red, green, blue) in the file -> class index, or 255 for "ignore".
    """

    values: Mapping[int, int] | None = None
    colours: Mapping[Colour, int] | None = None

    def __post_init__(self) -> None:
        if (self.values is None) == (self.colours is None):
            raise InputError("A label code has either values or colours; give one of the two.")
        indices = (self.values or self.colours or {}).values()
        if any(not (0 <= index < _UNKNOWN or index == IGNORE) for index in indices):
            raise InputError(f"Class indices are 0 to {_UNKNOWN - 1}, or {IGNORE} for ignored pixels.")
        if any(not 0 <= value <= _LARGEST_VALUE for value in self.values or ()):
            raise InputError(f"Label values are 0 to {_LARGEST_VALUE}.")

    @property
    def in_colour(self) -> bool:
        """Whether a label file holds three bands of colour rather than one of numbers."""
        return self.colours is not None

    def decode(self, raw: NDArray[np.generic], name: str) -> NDArray[np.int64]:
        """Class indices of what a label file holds.

        Args:
            raw: (H, W) whole numbers or (3, H, W) colours of 0..255.
            name: the file, for the message.

        Returns:
            (H, W) class indices, 255 where ignored.

        Raises:
            RasterError: there is a value or a colour that the manifest doesn't name, or the array isn't of the
                right form.
        """
        coded = self._coded(raw, name)
        labels = self._table[coded]
        if (labels == _UNKNOWN).any():
            raise RasterError(f"{name} holds {self._describe(coded[labels == _UNKNOWN])}; is it of another dataset?")
        return labels.astype(np.int64)

    def strange(self, raw: NDArray[np.generic], name: str) -> str:
        """In words, the values of a label file that the manifest doesn't name; empty if there are none.

        Raises:
            RasterError: the array isn't of the right form.
        """
        coded = self._coded(raw, name)
        unknown = coded[self._table[coded] == _UNKNOWN]
        return self._describe(unknown) if unknown.size else ""

    def encode(self, labels: NDArray[np.integer]) -> NDArray[np.generic]:
        """The reverse of :meth:`decode`: where several values stand for one index, the first of them.

        Returns:
            (H, W) uint8 or uint16 numbers, or (3, H, W) uint8 colours.

        Raises:
            InputError: an index has no value or colour.
        """
        first: dict[int, int | Colour] = {}
        for value, index in (self.values or self.colours or {}).items():
            first.setdefault(index, value)
        missing = sorted({int(index) for index in np.unique(labels)} - set(first))
        if missing:
            raise InputError(f"The class indices {missing} have no value in this label code.")
        table = np.zeros((IGNORE + 1, 3 if self.in_colour else 1), dtype=np.uint16)
        for index, value in first.items():
            table[index] = value
        raw = np.moveaxis(table[labels], -1, 0)
        if self.values is not None and max(self.values) > IGNORE:
            return raw[0]
        return raw.astype(np.uint8) if self.in_colour else raw[0].astype(np.uint8)

    def _coded(self, raw: NDArray[np.generic], name: str) -> NDArray[np.int64]:
        """One number a pixel: the value, or the three bytes of the colour."""
        if self.in_colour:
            if raw.ndim != 3 or raw.shape[0] != 3:
                raise RasterError(
                    f"{name} holds an array of shape {raw.shape}, and a label of three colours is needed."
                )
            if raw.dtype != np.uint8:
                raise RasterError(f"{name} holds colours as {raw.dtype}, and uint8 is needed.")
            red, green, blue = raw.astype(np.int64)
            return (red << 16) | (green << 8) | blue
        if raw.ndim != 2:
            raise RasterError(f"{name} holds an array of shape {raw.shape}, and a label of one band is needed.")
        coded = raw.astype(np.int64)
        if raw.dtype.kind == "f" and not np.array_equal(coded, raw):
            raise RasterError(f"{name} holds labels that are not whole numbers.")
        # Outside the table everything is equally strange; the ends of the table stand for it.
        if coded.size and (coded.min() < 0 or coded.max() > _LARGEST_VALUE):
            strange = coded[(coded < 0) | (coded > _LARGEST_VALUE)]
            raise RasterError(f"{name} holds {self._describe(strange)}; is it of another dataset?")
        return coded

    @cached_property
    def _table(self) -> NDArray[np.uint8]:
        """Class index of every number that a pixel can have: one look-up a pixel, whatever the number of classes."""
        table = np.full(2**24 if self.in_colour else _LARGEST_VALUE + 1, _UNKNOWN, dtype=np.uint8)
        for (red, green, blue), index in (self.colours or {}).items():
            table[(red << 16) | (green << 8) | blue] = index
        for value, index in (self.values or {}).items():
            table[value] = index
        return table

    def _describe(self, coded: NDArray[np.int64]) -> str:
        """Strange values in words, the most frequent first: ``7 (12 pixels), 9 (1 pixel)``."""
        values, counts = np.unique(coded, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        named = [
            f"{self._write(int(values[at]))} ({counts[at]} {'pixel' if counts[at] == 1 else 'pixels'})"
            for at in order[:_NAMED_AT_MOST]
        ]
        more = f" and {len(values) - _NAMED_AT_MOST} more" if len(values) > _NAMED_AT_MOST else ""
        noun = ("colour" if self.in_colour else "label value") + ("" if len(values) == 1 else "s")
        return f"the {noun} {', '.join(named)}{more}, which the manifest doesn't name"

    def _write(self, coded: int) -> str:
        return f"({coded >> 16}, {coded >> 8 & 255}, {coded & 255})" if self.in_colour else str(coded)
