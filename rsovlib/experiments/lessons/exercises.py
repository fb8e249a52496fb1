"""What the lessons ask: a prediction before an experiment, and exercises whose answers are checked.

A lesson (``notebooks/lessons``) has this form, which ``tests/test_lessons.py`` checks:

* its first cell has the title, a paragraph, and the lines ``**Aim:**`` and ``**Time:**`` (20 to 40 minutes);
* before an experiment a cell ``question = Prediction("What will happen?", {"a": "this", "b": "that"})`` and a line
  ``guess = None  # "a" or "b"``; after it ``question.outcome(happened, because, guess)``, both computed by that run;
* at its end one or more of :class:`Exercise`, :class:`NumberExercise` and :class:`ArrayExercise`, tried as
  ``exercise.check(answer)``, with ``answer = None`` in the cell as it is stored;
* a last text cell that starts with ``## References``.

Nothing is stored anywhere, and an answer is never shown before it was given: a wrong one gets the hint. The right
answers are functions, called when somebody tries; they belong into the library, where a learner doesn't stumble over
them, and where a test sees to it that they are right.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rsovlib.errors import unknown_name

State = Literal["open", "right", "wrong", "told"]

# The colours of Okabe and Ito, each with a sign, so that nothing hangs on the colour.
_LOOKS: dict[State, tuple[str, str]] = {
    "open": ("?", "#0072B2"),
    "right": ("✓", "#009E73"),
    "wrong": ("→", "#D55E00"),
    "told": ("i", "#0072B2"),
}


@dataclass(frozen=True)
class Feedback:
    """What a learner is told; JupyterLab shows it as a box, a terminal as text.

    Attributes:
        state: ``"open"``: nothing was answered; ``"right"``; ``"wrong"``; ``"told"``: what happened, without a guess.
        text: sentences, line by line.
    """

    state: State
    text: str

    @property
    def right(self) -> bool:
        """Whether the answer was right."""
        return self.state == "right"

    def __repr__(self) -> str:
        return f"{_LOOKS[self.state][0]} {self.text}"

    def _repr_html_(self) -> str:
        sign, colour = _LOOKS[self.state]
        lines = "<br>".join(html.escape(line) for line in self.text.splitlines())
        style = f"border-left: 4px solid {colour}; padding: 0.4em 0.8em; margin: 0.2em 0; max-width: 60em"
        return f'<div style="{style}"><b style="color: {colour}">{sign}</b> {lines}</div>'


@dataclass(frozen=True)
class Prediction:
    """A question to think about before an experiment is run.

    Args:
        question: what will happen?
        choices: key -> what may happen, in words.
    """

    question: str
    choices: Mapping[str, str]

    def __repr__(self) -> str:
        return repr(self._asked())

    def _repr_html_(self) -> str:
        return self._asked()._repr_html_()

    def _asked(self) -> Feedback:
        lines = [f"{key}) {words}" for key, words in self.choices.items()]
        return Feedback("open", "\n".join([f"Predict: {self.question}", *lines]))

    def outcome(self, happened: str, because: str = "", guess: str | None = None) -> Feedback:
        """What happened, beside what was predicted.

        Args:
            happened: key of the choice that came true, computed from the experiment.
            because: the numbers that show it, as a sentence.
            guess: key of the learner's choice; None for none.

        Raises:
            InputError: one of the keys is none of the choices.
        """
        for key in (happened, *([] if guess is None else [guess])):
            if key not in self.choices:
                raise unknown_name("choice", key, self.choices)
        said = f"{happened}) {self.choices[happened]}"
        facts = f"\n{because}" if because else ""
        if guess is None:
            return Feedback("told", f"What happened: {said}{facts}")
        if guess == happened:
            return Feedback("right", f"As you predicted: {said}{facts}")
        return Feedback("wrong", f"You predicted {guess}), and this happened: {said}{facts}\nWhat did you overlook?")


@dataclass(frozen=True)
class Exercise:
    """A task with an answer that can be checked.

    Args:
        question: the task.
        accepts: takes the answer and says whether it is right, or, as a text, what is wrong with it. It must not
            give the answer away.
        hint: for whoever was wrong.
        explanation: for whoever was right.
    """

    question: str
    accepts: Callable[[Any], bool | str] = field(repr=False)
    hint: str = ""
    explanation: str = field(default="", repr=False)

    def __repr__(self) -> str:
        return repr(self._asked())

    def _repr_html_(self) -> str:
        return self._asked()._repr_html_()

    def _asked(self) -> Feedback:
        return Feedback("open", self.question)

    def check(self, answer: Any = None) -> Feedback:
        """Try an answer; None is no answer."""
        if answer is None:
            return Feedback("open", "No answer yet. Replace None by yours and run the cell again.")
        verdict = self.accepts(answer)
        if verdict is True:
            return Feedback("right", "Right." + (f" {self.explanation}" if self.explanation else ""))
        why = f" {verdict}" if isinstance(verdict, str) else ""
        return Feedback("wrong", f"Not yet.{why}" + (f"\nHint: {self.hint}" if self.hint else ""))


def NumberExercise(  # noqa: N802 - used like the class that it makes
    question: str,
    solution: Callable[[], float],
    *,
    tolerance: float,
    hint: str = "",
    explanation: str = "",
) -> Exercise:
    """An exercise whose answer is a number.

    Args:
        question: the task, with the unit of the answer.
        solution: gives the right number; called only when an answer is tried.
        tolerance: how far off an answer may be, in the unit of the answer.
        hint: see :class:`Exercise`.
        explanation: see :class:`Exercise`.
    """

    def accepts(answer: Any) -> bool | str:
        try:
            given = float(answer)
        except (TypeError, ValueError):
            return f"The answer is a number, and {type(answer).__name__} is none."
        off = given - float(solution())
        if not np.isfinite(off):
            return "The answer is a finite number."
        if abs(off) <= tolerance:
            return True
        return "Too large." if off > 0 else "Too small."

    return Exercise(question, accepts, hint, explanation)


def ArrayExercise(  # noqa: N802
    question: str,
    solution: Callable[[], npt.NDArray[Any]],
    *,
    tolerance: float = 0.0,
    hint: str = "",
    explanation: str = "",
) -> Exercise:
    """An exercise whose answer is an array: a map, a matrix.

    Args:
        question: the task, with the shape of the answer.
        solution: gives the right array; called only when an answer is tried.
        tolerance: how far off each value may be; 0 for labels.
        hint: see :class:`Exercise`.
        explanation: see :class:`Exercise`.
    """

    def accepts(answer: Any) -> bool | str:
        right = np.asarray(solution())
        try:
            given = np.asarray(answer.detach().cpu() if hasattr(answer, "detach") else answer, dtype=np.float64)
        except (TypeError, ValueError):
            return f"The answer is an array of numbers, and {type(answer).__name__} is none."
        if given.shape != right.shape:
            return f"The shape is {given.shape}, and should be {right.shape}."
        near = np.abs(given - right) <= tolerance
        return True if near.all() else f"{near.mean():.0%} of its values are right."

    return Exercise(question, accepts, hint, explanation)
