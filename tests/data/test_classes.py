"""What a user types for the classes."""

from __future__ import annotations

import pytest

from rsovlib.data.classes import ClassPrompt, parse_classes
from rsovlib.errors import InputError


def test_string_and_list_mean_the_same():
    expected = [ClassPrompt("water", ("river",)), ClassPrompt("bare soil"), ClassPrompt("forest", ("trees", "wood"))]
    assert parse_classes("water, river;bare   soil ;; forest,trees , wood;") == expected
    assert parse_classes("water, river\nbare soil\n\nforest,trees,wood\n") == expected
    assert parse_classes(["  water,river", "bare soil", "forest, trees, wood,"]) == expected


def test_text_of_a_prompt_reads_back():
    prompts = parse_classes("water, river; bare soil")
    assert parse_classes([str(prompt) for prompt in prompts]) == prompts
    assert prompts[0].words == ("water", "river")


def test_a_word_that_a_class_repeats_is_taken_once():
    assert parse_classes("Forest, trees, forest, Trees") == [ClassPrompt("Forest", ("trees",))]


def test_the_limit_is_254_classes():
    names = [f"class {k}" for k in range(255)]
    assert len(parse_classes(names[:254])) == 254
    with pytest.raises(InputError, match="255 classes were given"):
        parse_classes(names)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("", "list of classes is empty"),
        (" ; \n ;", "list of classes is empty"),
        ([], "list of classes is empty"),
        ("water; Forest; WATER", "Classes 1 and 3 have the same name"),
        (["bare  soil", "Bare soil , ground"], "Classes 1 and 2 have the same name"),
        ("water; ,,", "Class 2 .* has no word"),
        (["water", "  "], "Class 2 .* has no word"),
        (["water; forest"], "semicolon"),
        (["water", 3], "Class 2 is int"),
        (["wa\x00ter"], "can't be printed"),
    ],
)
def test_what_is_refused(classes, message):
    with pytest.raises(InputError, match=message):
        parse_classes(classes)
