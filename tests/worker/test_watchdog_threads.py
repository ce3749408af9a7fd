"""Threads that the watchdog guards, and time in which all stood still."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from django_sked import clock
from django_sked.worker import watchdog
from django_sked.worker.deadlines import Abandoned
from tests.worker.conftest import PATIENCE as ENOUGH
from tests.worker.wall import LEASE, Watching


class Guarded:
    """A thread that waits, under a guard, and then in its receiver, and then under the guard again."""

    def __init__(self, watching: Watching) -> None:
        self.watching = watching
        self.abandoned: list[int] = []
        self.gates = [threading.Event() for _ in range(3)]
        self.end: str | None = None
        watching.thread = threading.Thread(target=self.run, daemon=True)

    def run(self) -> None:
        guard = self.watching.dog.guard(self.abandoned.append)
        try:
            with guard.watch("atomic"):
                self.wait(0)
                with guard.pause("atomic"):
                    self.wait(1)
                self.wait(2)
            self.end = "returned"
        except Abandoned:
            self.end = "abandoned"

    def wait(self, number: int) -> None:
        self.watching.wall.entered.release()
        assert self.gates[number].wait(ENOUGH)

    def go_on(self, number: int) -> None:
        self.gates[number].set()
        assert self.watching.wall.entered.acquire(timeout=ENOUGH)

    def finish(self) -> None:
        for gate in self.gates:
            gate.set()
        self.watching.thread.join(ENOUGH)


@pytest.fixture
def guarded(watching: Watching) -> Iterator[Guarded]:
    guarded = Guarded(watching)
    yield guarded
    guarded.finish()


def test_a_receiver_is_not_watched_and_what_surrounds_it_has_a_lease_each_time(
    watching: Watching, guarded: Guarded
) -> None:
    watching.begin()
    assert watching.look(0.0, LEASE - 0.1) is None
    guarded.go_on(0)
    assert watching.look(0.0, 10 * LEASE, 10 * LEASE) is None
    guarded.go_on(1)
    assert watching.look(0.0, LEASE - 0.1) is None

    guarded.finish()

    assert (watching.wall.interrupted, guarded.abandoned, guarded.end) == ([], [], "returned")


@pytest.mark.parametrize("requests", [0, 1])
def test_a_guarded_thread_is_cut_after_a_lease_and_abandoned_once_after_another(
    watching: Watching, guarded: Guarded, requests: int
) -> None:
    """A worker that stops finishes what runs, so its patience with that is no shorter."""
    watching.requests = requests
    thread = watching.begin()

    assert watching.look(0.0, LEASE - 0.1) is None
    assert watching.wall.interrupted == []
    assert watching.look(0.1, LEASE - 0.1) is None
    assert (watching.wall.interrupted, guarded.abandoned) == ([thread], [])
    assert watching.look(0.1, LEASE, LEASE) is None
    guarded.finish()

    assert (watching.wall.interrupted, guarded.abandoned, guarded.end) == ([thread], [thread], "abandoned")
    assert watching.look(0.0, 10 * LEASE) is None


def test_a_guarded_thread_whose_cut_helps_is_not_abandoned(watching: Watching, guarded: Guarded) -> None:
    watching.begin()
    assert watching.look(0.0, LEASE, LEASE - 0.1) is None

    guarded.finish()

    assert watching.look(LEASE, LEASE) is None
    assert (guarded.abandoned, guarded.end) == ([], "returned")


def test_time_in_which_the_process_stood_still_does_not_count(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after SIGSTOP and SIGCONT: the answer may long be there."""
    passed: list[float] = []
    three = threading.Event()
    instants = iter([0.0, 0.001, 3600.0, 3600.001])
    others, monotonic = set(threading.enumerate()), clock.monotonic

    def instant() -> float:
        """For the new thread only: whoever is left of other tests asks for the time, too."""
        return monotonic() if threading.current_thread() in others else next(instants, 3600.001)

    def look(step: float) -> None:
        passed.append(step)
        if len(passed) == 3:
            three.set()

    monkeypatch.setattr(watching.dog, "look", look)
    monkeypatch.setattr(watchdog, "INTERVAL", 0.001)
    monkeypatch.setattr(clock, "monotonic", instant)
    with watching.dog:
        assert three.wait(ENOUGH)

    assert passed[:3] == [pytest.approx(0.001), pytest.approx(2 * 0.001), pytest.approx(0.001)]
