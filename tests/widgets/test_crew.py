"""Windows side by side: every item once, in order, errors passed on, and torch's threads as they were."""

from __future__ import annotations

import threading

import pytest
import torch

from rsovlib.widgets.crew import side_by_side


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_every_item_in_order(two_threads):
    assert side_by_side(lambda item: item * item, range(9)) == [item * item for item in range(9)]
    assert side_by_side(str, []) == []


def test_two_items_are_worked_on_at_once_each_with_one_thread_of_torchs(two_threads):
    together = threading.Barrier(2, timeout=60)

    def work(_item: int) -> tuple[int, int]:
        together.wait()  # breaks unless two are under way
        return threading.get_ident(), torch.get_num_threads()

    found = side_by_side(work, range(2))
    assert {threads for _, threads in found} == {1}
    assert len({thread for thread, _ in found} | {threading.get_ident()}) == 3
    assert torch.get_num_threads() == 2


def test_threads_born_later_get_as_many_as_before(two_threads):
    side_by_side(lambda item: item, range(3))
    found: list[int] = []
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert found == [2]


def test_a_single_thread_works_in_its_own(two_threads):
    torch.set_num_threads(1)
    assert side_by_side(lambda _: threading.get_ident(), range(3)) == [threading.get_ident()] * 3


def test_the_first_error_ends_it(two_threads):
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 0:
            raise ValueError("item 0")
        threading.Event().wait(0.05)
        return item

    with pytest.raises(ValueError, match="item 0"):
        side_by_side(work, range(200))
    assert len(begun) < 200
    assert torch.get_num_threads() == 2
