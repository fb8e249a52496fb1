"""Errors are one sentence that names the nearest right thing, and can be caught as Python's own kinds."""

from __future__ import annotations

import pytest

from rsovlib import errors


def test_unknown_name_lists_the_choices_and_hints_at_the_nearest():
    error = errors.unknown_name("method", "sdic", ["valuepath", "sdci"])
    assert isinstance(error, errors.InputError)
    assert str(error) == "There is no method 'sdic'; choose one of sdci, valuepath. Did you mean 'sdci'?"


def test_unknown_name_hints_at_nothing_when_nothing_is_near():
    assert "mean" not in str(errors.unknown_name("profile", "zzz", ["embedded", "full"]))


@pytest.mark.parametrize(
    ("ours", "pythons"),
    [
        (errors.InputError, ValueError),
        (errors.RasterError, OSError),
        (errors.OutputError, OSError),
        (errors.ResourceError, MemoryError),
    ],
)
def test_errors_are_also_of_pythons_kinds(ours: type[Exception], pythons: type[Exception]):
    assert issubclass(ours, errors.RsovError)
    assert issubclass(ours, pythons)


def test_the_sentence_survives_as_it_is():
    # OSError with two arguments would turn the sentence into "[Errno ...]".
    for kind in errors.RsovError.__subclasses__():
        assert str(kind("One sentence.")) == "One sentence."
