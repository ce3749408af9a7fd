"""P12: a message that may have killed its worker is tried again alone, and neither it nor the others wait for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from django_sked import clock
from django_sked.models import ScheduledMessage, WorkerProcess
from django_sked.outcomes import MOST_CRASHES
from django_sked.states import Status
from django_sked.testing import TickedWorker
from django_sked.worker import Worker
from django_sked.worker import quarantine as quarantine_module
from django_sked.worker.claimer import Claimer
from django_sked.worker.quarantine import ALONE, PATIENCE, TURN, Quarantine
from tests.worker.conftest import PATIENCE as LONG
from tests.worker.conftest import Calls, Gate, Store, eventually, run

# One worker's decisions, on a clock that the test moves


class Bench:
    """A worker as its quarantine sees it: how many suspects are due, and what it holds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = 1000.0
        monkeypatch.setattr(clock, "monotonic", lambda: self.time)
        self.suspects = 0
        self.crashes = 0
        self.holding: list[str] = []
        self.claimed_at: list[float] = []
        self.quarantine = Quarantine(cast(Claimer, self), self.holding)

    def has_suspects(self) -> bool:
        return self.suspects > 0

    def claim_suspect(self) -> SimpleNamespace | None:
        if not self.suspects:
            return None
        assert not self.holding, "it was not to be alone"
        self.suspects -= 1
        self.holding.append("suspect")
        self.claimed_at.append(self.time)
        return SimpleNamespace(crashes=self.crashes)

    def look(self, *, suspects: int) -> None:
        self.suspects = suspects
        self.quarantine.look()

    def ask(self, *, after: float = 0.0) -> float:
        self.time += after
        return self.quarantine.seconds_to_wait()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_without_suspects_nobody_waits(bench: Bench) -> None:
    bench.look(suspects=0)
    assert bench.ask() == 0

    bench.holding.append("other")
    assert bench.ask(after=100) == 0


def test_a_worker_that_holds_nothing_takes_a_suspect_and_nothing_beside_it(bench: Bench) -> None:
    bench.look(suspects=2)

    assert bench.ask() == ALONE
    assert bench.claimed_at == [1000.0]
    assert bench.ask(after=ALONE / 2) == ALONE / 2
    assert bench.ask(after=ALONE / 4) == ALONE / 4
    assert bench.suspects == 1


def test_one_that_has_not_killed_its_worker_for_a_while_is_given_company(bench: Bench) -> None:
    bench.look(suspects=1)
    bench.ask()
    bench.look(suspects=0)

    assert bench.ask(after=ALONE) == 0


@pytest.mark.parametrize("crashes", [1, 2])
def test_one_that_a_worker_was_lost_with_as_a_suspect_is_alone_to_its_end(bench: Bench, crashes: int) -> None:
    bench.crashes = crashes
    bench.look(suspects=1)
    assert bench.ask() == ALONE
    bench.look(suspects=0)

    for _ in range(3):
        assert bench.ask(after=100 * ALONE) == ALONE
        assert bench.quarantine.holds_up
    bench.holding.clear()

    assert bench.ask() == 0


def test_after_a_suspect_the_others_are_claimed_for_without_a_break(bench: Bench) -> None:
    """Those that were claimed next are not the suspect for which the worker was to be left alone."""
    bench.look(suspects=1)
    bench.ask()
    bench.look(suspects=0)
    bench.holding.clear()
    assert bench.ask(after=0.1) == 0

    bench.holding.append("other")

    assert bench.ask() == 0


def test_suspects_and_others_take_turns(bench: Bench) -> None:
    """Each suspect takes 50 ms, and so does each of the others: there are always more of both."""
    bench.look(suspects=10_000)
    shares = {"suspect": 0.0, "other": 0.0}
    for _ in range(400):
        bench.quarantine.look()
        if bench.ask() == 0:
            bench.holding.append("other")
        for held in bench.holding:
            shares[held] += 0.05
        bench.holding.clear()
        bench.time += 0.05

    assert shares["suspect"] == pytest.approx(10, abs=1)
    assert shares["other"] == pytest.approx(10, abs=1)


def test_suspects_need_no_turn_while_nothing_else_is_due(bench: Bench) -> None:
    bench.look(suspects=10_000)
    for _ in range(100):
        if bench.ask() == 0:
            bench.quarantine.nothing_else()
            assert bench.ask() == ALONE
        bench.holding.clear()
        bench.time += 0.05

    assert len(bench.claimed_at) == 100


def test_a_worker_with_nothing_at_all_to_do_asks_for_no_suspects(bench: Bench) -> None:
    bench.look(suspects=1)
    bench.suspects = 0

    assert bench.ask() == 0
    assert not bench.quarantine.nothing_else()


def test_a_busy_worker_takes_nothing_new_for_a_moment_to_become_free(bench: Bench) -> None:
    bench.holding.append("other")
    bench.look(suspects=1)

    assert bench.ask() == PATIENCE[0]
    assert bench.ask(after=PATIENCE[0] / 2) == PATIENCE[0] / 2
    assert bench.suspects == 1
    bench.holding.clear()

    assert bench.ask() == ALONE
    assert bench.suspects == 0


def test_one_that_does_not_become_free_goes_on_and_has_more_patience_the_next_time(bench: Bench) -> None:
    bench.holding.append("other")
    bench.look(suspects=1)
    drains: list[float] = []
    rests: list[float] = []
    for _ in range(10):
        drains.append(bench.ask())
        assert bench.ask(after=drains[-1]) == 0
        began = bench.time
        while bench.ask(after=0.25) == 0:
            pass
        rests.append(bench.time - began)

    assert drains == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert rests == drains


def test_a_suspect_is_taken_although_the_others_always_hold_the_worker(bench: Bench) -> None:
    """Four threads whose receivers take 20 s each, one after the other, and a queue that is never empty."""
    free_at = [1005.0, 1010.0, 1015.0, 1020.0]
    busy = 0
    for _ in range(40_000):
        if bench.claimed_at:
            break
        bench.quarantine.look() if bench.suspects else bench.look(suspects=1)
        free_at = [at for at in free_at if at > bench.time]
        bench.holding[:] = ["other"] * len(free_at)
        if bench.ask() == 0:
            free_at += [bench.time + 20] * (4 - len(free_at))
        busy += len(free_at)
        bench.time += 0.1

    assert bench.claimed_at
    waited = bench.claimed_at[0] - 1000
    assert waited < 200
    assert busy * 0.1 > 0.4 * 4 * waited, "the others were starved"


def test_a_suspect_that_somebody_else_took_is_waited_for_no_more(bench: Bench) -> None:
    bench.look(suspects=1)
    bench.suspects = 0

    assert bench.ask() == 0
    assert not bench.quarantine.is_wanted


def test_patience_begins_anew_with_the_next_suspect(bench: Bench) -> None:
    bench.holding.append("other")
    bench.look(suspects=1)
    for _ in range(5):
        assert bench.ask(after=bench.ask()) == 0
        bench.time += 60
    bench.look(suspects=0)
    assert bench.ask() == 0

    bench.look(suspects=1)

    assert bench.ask() == PATIENCE[0]


def test_a_drain_that_was_broken_off_long_ago_is_not_taken_for_one_in_vain(bench: Bench) -> None:
    bench.holding.append("other")
    bench.look(suspects=1)
    bench.ask()
    bench.look(suspects=0)
    bench.ask(after=0.1)

    bench.look(suspects=1)

    assert bench.ask(after=3600) == PATIENCE[0]


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
