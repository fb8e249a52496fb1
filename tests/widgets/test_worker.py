from __future__ import annotations

import threading

import pytest

from rsovlib.errors import InputError
from rsovlib.widgets.worker import LatestWins, Superseded, Ticket


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def worker(said: list[str]):
    made = LatestWins(on_error=said.append)
    yield made
    made.close()


def test_only_the_first_and_the_last_of_a_burst_are_begun(worker: LatestWins) -> None:
    begun, gate, started = [], threading.Event(), threading.Event()

    def job(number: int):
        def run(ticket: Ticket) -> None:
            begun.append(number)
            started.set()
            gate.wait(10)
            ticket.check()

        return run

    worker.submit(job(0))
    assert started.wait(10)
    for number in range(1, 50):
        worker.submit(job(number))
    gate.set()
    assert worker.wait(10)
    assert begun == [0, 49]
    assert worker.finished == 1
    assert worker.dropped == 49


def test_a_running_job_is_told_to_stop(worker: LatestWins) -> None:
    started, stopped = threading.Event(), threading.Event()

    def long(ticket: Ticket) -> None:
        started.set()
        while not ticket.stopped():
            threading.Event().wait(0.001)
        stopped.set()
        raise Superseded

    worker.submit(long)
    assert started.wait(10)
    worker.submit(lambda ticket: None)
    assert stopped.wait(10)
    assert worker.wait(10)


def test_errors_become_one_sentence_and_the_thread_lives_on(worker: LatestWins, said: list[str]) -> None:
    def known(_ticket: Ticket) -> None:
        raise InputError("The image is\n   too small.")

    def unknown(_ticket: Ticket) -> None:
        raise RuntimeError("oh")

    for job in (known, unknown):
        worker.submit(job)
        assert worker.wait(10)
    assert said[0] == "The image is too small."
    assert "RuntimeError: oh" in said[1]
    done = threading.Event()
    worker.submit(lambda _ticket: done.set())
    assert done.wait(10)


def test_idle_work_yields_to_wishes_and_goes_on(worker: LatestWins) -> None:
    seen, gate = [], threading.Event()

    def steps():
        for number in range(5):
            seen.append(number)
            if number == 1:
                worker.submit(lambda _ticket: seen.append("wish"))
                gate.set()
            yield

    worker.when_idle(steps())
    assert gate.wait(10)
    assert worker.wait(10)
    assert seen.index("wish") == 2
    assert [entry for entry in seen if entry != "wish"] == list(range(5))


def test_idle_work_can_be_ended_and_its_error_is_told(worker: LatestWins, said: list[str]) -> None:
    def failing():
        yield
        raise InputError("No.")

    worker.when_idle(failing())
    assert worker.wait(10)
    assert said == ["No."]
    worker.when_idle(None)
    assert worker.wait(10)


def test_without_a_thread_everything_happens_at_once(said: list[str]) -> None:
    worker = LatestWins(threaded=False, on_error=said.append)
    seen = []
    worker.submit(lambda _ticket: seen.append(1))
    worker.when_idle(iter(range(3)))
    assert seen == [1]
    assert not said


def test_after_the_end_nothing_is_begun(worker: LatestWins) -> None:
    worker.close()
    worker.submit(lambda _ticket: pytest.fail("nobody is there"))
    assert worker.wait(1)
