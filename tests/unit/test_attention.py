"""Who of many workers looks at once for what all of them have heard of, and who a little later."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from django_sked.backends import attention
from django_sked.backends.attention import AGAIN, CALM, EAGER, FIRST, MOST, Attention
from django_sked.backends.database import waking
from django_sked.backends.hint import UNKNOWN, Hint

HINT = Hint(at=datetime(2030, 1, 1, tzinfo=UTC), queue="mail")
ELSEWHERE = Hint(at=datetime(2030, 1, 1, tzinfo=UTC), queue="print")
LONGEST = FIRST * 2 ** (MOST - EAGER)


class Worker:
    """Serves `mail`; its clock stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.looks: list[tuple[float, bool]] = []
        self.attention = Attention(self._look)

    def _look(self, hint: Hint, again: bool) -> bool:
        if hint.queue not in ("mail", None):
            return False
        self.looks.append((round(self.now - 1000.0, 6), again))
        return True

    def hear(self, hint: Hint = HINT) -> None:
        self.attention.hear(hint)
        self.attention.look()

    def pass_time(self, seconds: float) -> None:
        """Look whenever it is time, as the thread does."""
        end = self.now + seconds
        while (left := self.attention.seconds()) is not None and self.now + left <= end:
            self.now += left + 1e-9  # a sum of binary fractions may fall short
            self.attention.look()
        self.now = end

    def give_up(self) -> None:
        """Let it look in vain until it is as slow as it gets."""
        for _ in range(MOST + 1):
            self.hear()
            self.pass_time(CALM * 0.9)
        assert self.attention._fruitless == MOST
        self.looks.clear()


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    worker = Worker()
    monkeypatch.setattr(attention, "monotonic", lambda: worker.now)
    monkeypatch.setattr(random, "uniform", lambda least, most: most)
    yield worker


def test_a_hint_is_looked_for_at_once_and_again_after_the_senders_window(worker: Worker) -> None:
    worker.hear()
    assert worker.looks == [(0.0, False)]

    worker.pass_time(60)

    assert worker.looks == [(0.0, False), (AGAIN, True)]
    assert AGAIN > waking.WINDOW


def test_in_a_stream_of_hints_each_is_looked_for_at_once_and_all_of_them_again(worker: Worker) -> None:
    for _ in range(EAGER):
        worker.hear()
        worker.attention.found()
        worker.pass_time(0.005)
    worker.pass_time(60)

    assert [at for at, again in worker.looks if not again] == [0.0, 0.005, 0.010]
    assert worker.looks[-1] == (0.010 + AGAIN, True)


def test_a_worker_that_finds_something_each_time_stays_eager(worker: Worker) -> None:
    for number in range(50):
        worker.hear()
        assert worker.looks[-1] == (round(number * 0.1, 6), False)
        worker.attention.found()
        worker.pass_time(0.1)


def test_a_worker_that_finds_nothing_looks_later_and_later_and_at_last_twice_a_second(worker: Worker) -> None:
    for _ in range(2000):
        worker.hear()
        worker.pass_time(0.005)

    times = sorted({at for at, _ in worker.looks})
    assert times[:EAGER] == [0.0, 0.005, 0.010]
    gaps = [round(after - before, 2) for before, after in pairwise(times)]
    assert set(gaps[-10:]) == {round(LONGEST, 2)}
    assert gaps == sorted(gaps)


def test_nothing_that_was_heard_is_left_for_longer_than_half_a_second(worker: Worker) -> None:
    worker.give_up()
    began = worker.now - 1000.0

    worker.hear()
    worker.pass_time(CALM)

    assert LONGEST <= 0.52
    assert began < worker.looks[0][0] <= began + LONGEST + 1e-5


def test_while_it_waits_it_need_not_listen_and_when_eager_it_must(worker: Worker) -> None:
    assert not worker.attention.is_elsewhere
    worker.hear()
    assert not worker.attention.is_elsewhere

    worker.give_up()
    assert not worker.attention.is_elsewhere
    worker.hear()
    assert worker.attention.is_elsewhere


def test_a_worker_that_finds_something_again_and_again_becomes_eager_again(worker: Worker) -> None:
    worker.give_up()

    for _ in range(MOST - EAGER + 1):
        worker.attention.found()
    worker.hear()

    assert len(worker.looks) == 1


def test_after_a_calm_second_every_worker_is_eager(worker: Worker) -> None:
    worker.give_up()
    worker.pass_time(CALM + 0.1)

    worker.hear()

    assert len(worker.looks) == 1


def test_hints_of_queues_that_it_does_not_serve_do_not_tire_a_worker(worker: Worker) -> None:
    for _ in range(100):
        worker.hear(ELSEWHERE)
        worker.pass_time(0.005)

    worker.hear()

    assert len(worker.looks) == 1


def test_of_a_hint_that_is_not_known_every_worker_takes_notice(worker: Worker) -> None:
    worker.hear(UNKNOWN)

    assert worker.looks == [(0.0, False)]


def test_twenty_workers_do_not_all_look_for_every_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """One message each 10 ms, taken by the first that looks; a worker needs 1 ms for a look."""
    now = [1000.0]
    monkeypatch.setattr(attention, "monotonic", lambda: now[0])
    monkeypatch.setattr(random, "uniform", random.Random(7).uniform)
    left, looks = [0], [0]
    workers: list[Attention] = []

    def look(number: int) -> bool:
        looks[0] += 1
        if left[0]:
            left[0] = 0
            workers[number].found()
        return True

    workers += [Attention(lambda hint, again, number=number: look(number)) for number in range(20)]  # type: ignore[misc]
    for step in range(30_000):
        if step % 10 == 0:
            left[0] += 1
            for worker in workers:
                worker.hear(HINT)
        for worker in workers:
            worker.look()
        if step == 10_000:
            looks[0] = 0
        now[0] += 0.001

    per_message = looks[0] / 2000
    assert per_message < 6
