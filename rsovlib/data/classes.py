"""What a user types for the classes: ``"water, river; forest, trees"`` to names and synonyms.

Semicolons or new lines part the classes, commas part the words for one class; the first word is the name that maps,
legends and tables show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rsovlib.errors import InputError

MAX_CLASSES = 254
"""A class map is uint8 and 255 is its nodata value; one more value is kept free for a later "unknown"."""


@dataclass(frozen=True)
class ClassPrompt:
    """One class of a legend.

    Attributes:
        name: the word to show.
        synonyms: further words for the same class, in the order given, without the name itself.
    """

    name: str
    synonyms: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """All words of the class, its name first."""
        return (self.name, *self.synonyms)

    def __str__(self) -> str:
        """The form that :func:`parse_classes` reads back: ``"water, river"``."""
        return ", ".join(self.words)


def parse_classes(classes: str | Sequence[str]) -> list[ClassPrompt]:
    """The classes of a prompt string or list.

    Args:
        classes: one string in which ";" or new lines part the classes, or a sequence with one string a class.
            In both, "," parts synonyms. White space around words and repeated blanks inside them do not count,
            and a word that a class repeats is taken once.

    Returns:
        1 to 254 classes in the order given.

    Raises:
        InputError: there is no class, a class has no word, two classes have the same name (upper and lower case
            and blanks do not count), a word can't be printed, or there are more than 254 classes.
    """
    prompts = [_one_class(text, number) for number, text in enumerate(_split_classes(classes), start=1)]
    if not prompts:
        raise InputError('The list of classes is empty; give at least one, for example "water; forest; buildings".')
    if len(prompts) > MAX_CLASSES:
        raise InputError(
            f"{len(prompts)} classes were given, and a class map holds at most {MAX_CLASSES}; merge some as synonyms."
        )
    seen: dict[str, int] = {}
    for number, prompt in enumerate(prompts, start=1):
        first = seen.setdefault(prompt.name.casefold(), number)
        if first != number:
            raise InputError(f"Classes {first} and {number} have the same name {prompt.name!r}; rename or merge them.")
    return prompts


def _split_classes(classes: str | Sequence[str]) -> list[str]:
    """One string a class; blank parts of a string (a closing ";", an empty line) are dropped."""
    if isinstance(classes, str):
        return [part for line in classes.splitlines() for part in line.split(";") if part.strip()]
    parts = list(classes)
    for number, part in enumerate(parts, start=1):
        if not isinstance(part, str):
            raise InputError(f"Class {number} is {type(part).__name__}, not a string; write its name as text.")
        # In a list ";" can only be a slip: one string that meant several classes.
        if ";" in part:
            raise InputError(f"Class {number} ({part!r}) holds a semicolon; give each class its own entry of the list.")
    return parts


def _one_class(text: str, number: int) -> ClassPrompt:
    """The words of one class; ``number`` (from 1) is for the error messages."""
    words: dict[str, str] = {}
    for word in (" ".join(part.split()) for part in text.split(",")):
        if not word.isprintable():
            raise InputError(f"Class {number} ({text!r}) holds characters that can't be printed; retype it.")
        if word:
            words.setdefault(word.casefold(), word)
    if not words:
        raise InputError(f"Class {number} ({text!r}) has no word in it; give every class a name.")
    name, *synonyms = words.values()
    return ClassPrompt(name, tuple(synonyms))
