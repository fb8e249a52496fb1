from __future__ import annotations

import numpy as np
import pytest
import torch

from rsovlib.widgets.stages import Node, StageCache, bytes_of, digest


def test_the_same_question_is_answered_once(cache: StageCache) -> None:
    image = cache.source("image", np.arange(6, dtype=np.uint8))
    for _ in range(3):
        node = cache.node("double", {"by": 2}, [image], lambda: image.value * 2)
    np.testing.assert_array_equal(node.value, [0, 2, 4, 6, 8, 10])
    assert cache.runs == {"double": 1}


def test_settings_inputs_and_names_make_other_keys(cache: StageCache) -> None:
    first, second = (cache.source("image", np.full(3, value)) for value in (1, 2))
    keys = {
        cache.node("a", {"by": 2}, [first], lambda: 0).key,
        cache.node("a", {"by": 3}, [first], lambda: 0).key,
        cache.node("b", {"by": 2}, [first], lambda: 0).key,
        cache.node("a", {"by": 2}, [second], lambda: 0).key,
        cache.node("a", {"by": 2}, [first, second], lambda: 0).key,
    }
    assert len(keys) == 5


def test_a_failed_step_is_not_remembered(cache: StageCache) -> None:
    def fail() -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.node("step", {}, [], fail)
    assert cache.node("step", {}, [], lambda: 7).value == 7
    assert cache.runs == {"step": 1}


def test_the_least_recently_used_is_forgotten() -> None:
    cache = StageCache(2500)
    made = [cache.node("step", [number], [], lambda: np.zeros(1000, np.uint8)) for number in range(2)]
    cache.node("step", [0], [], lambda: pytest.fail("it is remembered"))  # so that 1 is the older one
    third = cache.node("step", [2], [], lambda: np.zeros(1000, np.uint8))
    assert [cache.knows(node.key) for node in (*made, third)] == [True, False, True]
    assert cache.bytes_kept <= 2500


def test_digest_tells_shape_type_and_values_apart() -> None:
    base = np.arange(6, dtype=np.uint8)
    assert digest(base) == digest(base.copy()) == digest(np.arange(12, dtype=np.uint8)[::2] // 2)
    assert len({digest(base), digest(base.reshape(2, 3)), digest(base.astype(np.int8)), digest(base[::-1])}) == 4


def test_bytes_are_counted_once_through_containers() -> None:
    array, tensor = np.zeros(1000, np.uint8), torch.zeros(500, dtype=torch.int16)
    assert bytes_of({"a": [array, tensor], "b": array}) == 2000
    assert bytes_of(Node("key", array)) >= 1000


def test_a_start_serves_only_what_it_was_made_on(cache: StageCache) -> None:
    cache.keep_start((0, 0), "image 1", "dual")
    assert cache.start((0, 0), "image 1") == "dual"
    assert cache.start((0, 0), "image 2") is None
    assert cache.start((0, 64), "image 1") is None
    for number in range(200):
        cache.keep_start((number, 1), "image", "dual")
    assert cache.start((0, 0), "image 1") is None
