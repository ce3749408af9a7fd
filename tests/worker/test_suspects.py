"""P12: a message that may have killed its worker is tried again alone, and neither it nor the others wait for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from django_sked.models import ScheduledMessage, WorkerProcess
from django_sked.outcomes import MOST_CRASHES
from django_sked.states import Status
from django_sked.testing import TickedWorker
from django_sked.worker import Worker
from django_sked.worker import quarantine as quarantine_module
from django_sked.worker.quarantine import TURN
from tests.worker.conftest import PATIENCE as LONG
from tests.worker.conftest import Calls, Gate, Store, eventually, run

# Through a real worker


def lose(store: Store, *messages: ScheduledMessage, now: datetime | None = None) -> WorkerProcess:
    """A worker that claimed these messages, alone or all of them, and was lost: its lease has lapsed."""
    lost = TickedWorker(store.alias, lease=10.0)
    now = now or store.backend.now()
    store.backend.register(lost.process, now=now - timedelta(seconds=11))
    held = lost.claim(now)
    assert {message.pk for message in held} >= {message.pk for message in messages}
    return lost.process


def suspects(store: Store, count: int, **arguments: Any) -> list[ScheduledMessage]:
    messages = store.schedule_many(count, **arguments)
    lose(store, *messages)
    assert len(store.backend.rescue()) == count
    return messages


def test_what_a_lost_worker_held_is_delivered_by_another_one(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    calls = receive(Calls(), name="r")
    messages = store.schedule_many(5)
    lose(store, *messages)

    start(store.alias, lease=0.5)

    assert calls.wait_for(5)
    assert eventually(lambda: store.count(status="delivered") == 5)
    found = [store.find(message) for message in messages]
    assert {(message.suspect, message.crashes, message.attempt) for message in found} == {(False, 0, 1)}


def test_a_suspect_runs_alone_and_the_others_after_it(
    some_store: Store,
    receive: Callable[..., Any],
    start: Callable[..., Worker],
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quarantine_module, "ALONE", 3600.0)
    calls = receive(Calls(), "other", "o")
    receive(gate, "suspect", "s")
    suspects(some_store, 1, event="suspect")
    worker = start(some_store.alias)
    assert gate.begun.wait(LONG)

    some_store.schedule_many(5, "other")
    for _ in range(3):
        worker._sweep()
        worker._waker.wake()
    assert worker.in_flight == 1
    assert calls.messages == []

    gate.opened.set()
    assert calls.wait_for(5)


def test_others_go_on_while_a_suspect_takes_long(
    some_store: Store,
    receive: Callable[..., Any],
    start: Callable[..., Worker],
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quarantine_module, "ALONE", 0.05)
    calls = receive(Calls(), "other", "o")
    receive(gate, "suspect", "s")
    suspects(some_store, 1, event="suspect")
    some_store.schedule_many(5, "other")
    start(some_store.alias)
    assert gate.begun.wait(LONG)

    assert calls.wait_for(5)


def test_a_suspect_that_cost_a_worker_never_dies_of_its_company(
    store: Store,
    receive: Callable[..., Any],
    start: Callable[..., Worker],
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It runs longer than the time for which a suspect is alone at first, and a worker that had given it company died
    of that: the next one has nothing else in hand until it ends, whatever is due."""
    monkeypatch.setattr(quarantine_module, "ALONE", 0.05)
    calls = receive(Calls(), "other", "o")
    receive(gate, "suspect", "s")
    (suspect,) = suspects(store, 1, event="suspect")
    lose(store, suspect)
    store.backend.rescue()
    assert store.find(suspect).crashes == 1
    worker = start(store.alias)
    assert gate.begun.wait(LONG)
    asked = threading.Semaphore(0)
    seconds_to_wait = worker._quarantine.seconds_to_wait

    def ask() -> float:
        asked.release()
        return seconds_to_wait()

    monkeypatch.setattr(worker._quarantine, "seconds_to_wait", ask)
    store.schedule_many(5, "other")

    for _ in range(10):
        worker._waker.wake()
        assert asked.acquire(timeout=LONG)
    assert (worker.in_flight, calls.messages) == (1, [])

    gate.opened.set()
    assert calls.wait_for(5)
    assert store.find(suspect).status == Status.DELIVERED


def test_after_a_suspect_a_worker_is_as_quick_as_before(
    some_store: Store, receive: Callable[..., Any], start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine_module, "ALONE", 3600.0)
    together, calls = threading.Barrier(2), Calls()
    receive(lambda **kwargs: None, "suspect", "s")

    def other(message: ScheduledMessage, **kwargs: Any) -> None:
        together.wait(LONG)
        calls(message)

    receive(other, "other", "o")
    (suspect,) = suspects(some_store, 1, event="suspect")
    start(some_store.alias, batch_size=1)
    assert eventually(lambda: some_store.find(suspect).status == Status.DELIVERED)

    some_store.schedule_many(4, "other")

    assert calls.wait_for(4)


def test_while_nothing_else_is_due_one_suspect_follows_the_other_at_once(
    some_store: Store, receive: Callable[..., Any], start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that stands still while no receiver runs: whoever waited for the end of a turn would wait for ever."""
    hand = SimpleNamespace(time=1000.0)
    hand.monotonic = lambda: hand.time
    monkeypatch.setattr(quarantine_module, "clock", hand)
    calls = Calls()

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        hand.time += 0.3 * TURN
        calls(message)

    receive(receiver, name="r")
    suspects(some_store, 20)
    start(some_store.alias, poll_interval=3600.0)

    assert calls.wait_for(20)


def test_a_busy_worker_becomes_free_for_a_suspect_of_another_queue(
    some_store: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    calls = Calls()

    def goes_on(message: ScheduledMessage, **kwargs: Any) -> None:
        if not calls.messages:
            some_store.schedule("busy", queue="a")

    receive(goes_on, "busy", "b")
    receive(calls, "suspect", "s")
    suspects(some_store, 1, event="suspect", queue="b")
    for _ in range(3):
        some_store.schedule("busy", queue="a")

    start(some_store.alias, queues={"a": 2, "b": 2})

    assert calls.wait_for(1)


def test_a_burst_waits_for_suspects(store: Store, receive: Callable[..., Any]) -> None:
    calls = receive(Calls(), name="r")
    suspects(store, 3)
    store.schedule_many(3)

    run(store, burst=True)

    assert len(calls.messages) == 6
    assert store.count(status="delivered") == 6


def test_suspects_count_among_the_most_messages(store: Store, receive: Callable[..., Any]) -> None:
    calls = receive(Calls(), name="r")
    suspects(store, 5)

    run(store, max_messages=2)

    assert len(calls.messages) == 2
    assert store.count(status="scheduled") == 3


def test_a_suspect_in_a_queue_that_is_not_served_is_left_alone(some_store: Store, receive: Callable[..., Any]) -> None:
    calls = receive(Calls(), name="r")
    suspects(some_store, 1, queue="other")
    some_store.schedule(queue="mine")

    run(some_store, burst=True, queues=["mine"])

    assert [message.queue for message in calls.messages] == ["mine"]


def test_a_suspect_that_was_not_started_stays_suspect(
    some_store: Store, receive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(Calls(), name="r")
    (message,) = suspects(some_store, 1)
    worker = Worker(some_store.alias)
    claim_suspect = some_store.backend.claim_suspect

    def and_stop(*args: Any, **kwargs: Any) -> Any:
        worker.request_stop()
        return claim_suspect(*args, **kwargs)

    monkeypatch.setattr(some_store.backend, "claim_suspect", and_stop)
    worker.start()
    assert worker.wait(LONG)

    found = some_store.find(message)
    assert (found.status, found.suspect, found.attempt) == (Status.SCHEDULED, True, 0)


# Poison: who dies is simulated by store calls


class Killer:
    """Workers in a row: whoever has the poison in its hands dies of it, with all that it holds."""

    def __init__(self, store: Store, poison: ScheduledMessage) -> None:
        self.store = store
        self.poison = poison
        self.deaths = 0
        self.now = store.backend.now()

    def live(self) -> None:
        """A new worker claims until it has nothing more, or is dead; each message that it delivers is settled."""
        worker = TickedWorker(self.store.alias, lease=10.0)
        self.store.backend.register(worker.process, now=self.now)
        while held := worker.claim(self.now, limit=50):
            if self.poison.pk in {message.pk for message in held}:
                self.deaths += 1
                self.now += timedelta(seconds=11)
                self.store.backend.rescue(now=self.now)
                return
            for message in held:
                outcome = worker.dispatch(message, self.now)
                assert outcome is not None
                worker.settle([outcome], [message], self.now)


def test_poison_costs_at_most_four_workers_and_no_neighbour(store: Store, receive: Callable[..., Any]) -> None:
    calls = receive(Calls(), name="r")
    neighbours = store.schedule_many(10)
    poison = store.schedule(payload="poison")
    neighbours += store.schedule_many(10)
    killer = Killer(store, poison)

    for _ in range(10):
        killer.live()

    assert killer.deaths == MOST_CRASHES + 1
    dead = store.find(poison)
    assert (dead.status, dead.crashes, dead.attempt) == (Status.DEAD, MOST_CRASHES, 0)
    assert dead.errors[-1]["type"] == "WorkerLost"
    assert "poison" not in calls.payloads
    assert {store.find(message).status for message in neighbours} == {Status.DELIVERED}
    assert len(calls.messages) == 20
    assert {store.find(message).crashes for message in neighbours} == {0}


def test_poison_that_gave_its_worker_company_takes_it_along_and_it_is_delivered_all_the_same(
    store: Store, receive: Callable[..., Any]
) -> None:
    """It killed only after the time for which it is left alone."""
    calls = receive(Calls(), name="r")
    (poison,) = suspects(store, 1)
    company = store.schedule_many(5)
    now = store.backend.now()
    lost = TickedWorker(store.alias, lease=10.0)
    store.backend.register(lost.process, now=now)
    assert store.backend.claim_suspect(lost.id, ["default"], now=now) == poison
    assert len(lost.claim(now)) == 5
    store.backend.rescue(now=now + timedelta(seconds=11))

    killer = Killer(store, poison)
    killer.now = now + timedelta(seconds=11)
    for _ in range(5):
        killer.live()

    assert killer.deaths == MOST_CRASHES - 1
    assert store.find(poison).status == Status.DEAD
    assert {store.find(message).status for message in company} == {Status.DELIVERED}
    assert len(calls.messages) == 5


def test_a_message_that_once_survived_its_worker_is_suspect_no_more(store: Store, receive: Callable[..., Any]) -> None:
    def fail(**kwargs: Any) -> None:
        raise ValueError

    receive(fail, name="r")
    (message,) = suspects(store, 1)

    run(store, burst=True)

    found = store.find(message)
    assert (found.status, found.suspect, found.attempt) == (Status.SCHEDULED, False, 1)


def test_two_workers_never_hold_one_suspect(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    calls = receive(Calls(), name="r")
    suspects(store, 20)

    for _ in range(2):
        start(store.alias)

    assert calls.wait_for(20)
    assert eventually(lambda: store.count(status="delivered") == 20)
    assert sorted(calls.payloads) == list(range(20))
