"""What a worker asks its store for while it has nothing to do, or no room."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db.backends.utils import CursorWrapper

from django_sked import clock
from django_sked.worker import Worker
from django_sked.worker.waker import Waker
from tests.worker.conftest import PATIENCE, Calls, Gate, Store, eventually


def test_an_idle_worker_asks_its_store_three_short_questions_at_each_look(
    store: Store, start: Callable[..., Worker], receive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    statements: list[str] = []
    enough = threading.Event()
    next_due_at, execute = store.backend.next_due_at, CursorWrapper.execute

    def look(queue: str | None = None, **kwargs: Any) -> Any:
        looks.append(len(statements))
        if len(looks) == 12:
            enough.set()
        return next_due_at(queue, **kwargs)

    def counted(self: Any, sql: Any, params: Any = None) -> Any:
        if threading.current_thread().name == "sked-worker":
            statements.append(sql)
        return execute(self, sql, params)

    store.schedule(delay=3600)
    monkeypatch.setattr(store.backend, "next_due_at", look)
    monkeypatch.setattr(CursorWrapper, "execute", counted)
    start(store.alias, queues=["default"], poll_interval=0.01)
    assert enough.wait(PATIENCE)

    assert looks[11] - looks[1] <= 3 * 10


def test_a_worker_that_has_looked_only_just_now_looks_quickly_and_then_waits_no_longer_than_a_second(
    memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a quick look may overlook is found in time."""
    quick: list[bool] = []
    time = [1000.0]
    monkeypatch.setattr(memory.backend, "next_due_at", lambda queue, **kwargs: quick.append(kwargs["quick"]))
    monkeypatch.setattr(clock, "monotonic", lambda: time[0])
    claimer = Worker("memory", queues=["default"])._claimer

    waits = []
    for passed in (0.0, 0.9, 0.1, 0.0):
        time[0] += passed
        waits.append(claimer.seconds_until_next(30.0))

    assert quick == [False, True, False, True]
    assert waits == [30.0, 1.0, 30.0, 1.0]


def test_a_worker_whose_pool_is_full_waits_until_it_has_room(
    memory: Store,
    start: Callable[..., Worker],
    receive: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    gate: Gate,
) -> None:
    receive(gate, name="r")
    memory.schedule_many(100)
    waits: list[float] = []
    wait = Waker.wait

    def waited(self: Waker, seconds: float) -> bool:
        waits.append(seconds)
        return wait(self, seconds)

    monkeypatch.setattr(Waker, "wait", waited)
    worker = start("memory", concurrency=1, batch_size=1, poll_interval=3600)
    assert gate.begun.wait(PATIENCE)
    assert eventually(lambda: bool(waits))

    # What is in hand is given back after a while; then the one that runs is all there is.
    assert eventually(lambda: worker.in_flight == 1)
    assert set(waits) == {3600}
    assert len(waits) < 10


def test_what_is_due_but_locked_is_looked_at_less_and_less_often(
    memory: Store, start: Callable[..., Worker], receive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = receive(Calls(), name="r")
    waits: list[float] = []
    wait, claim, long_enough = Waker.wait, memory.backend.claim, threading.Event()

    def waited(self: Waker, seconds: float) -> bool:
        waits.append(seconds)
        if seconds >= 0.1:
            long_enough.set()
        return wait(self, seconds)

    monkeypatch.setattr(Waker, "wait", waited)
    monkeypatch.setattr(memory.backend, "claim", lambda *args, **kwargs: [])
    memory.schedule()
    start("memory", poll_interval=3600)
    assert long_enough.wait(PATIENCE)

    assert len(waits) < 12
    monkeypatch.setattr(memory.backend, "claim", claim)
    assert calls.wait_for(1)


def test_a_worker_shows_which_receiver_has_been_running_longest(
    some_store: Store, start: Callable[..., Worker], receive: Callable[..., Any], gate: Gate
) -> None:
    receive(gate, name="r")
    message = some_store.schedule("report.build")
    worker = start(some_store.alias, lease=0.6)
    assert gate.begun.wait(PATIENCE)

    assert eventually(lambda: worker._process.busy_with == message.pk)
    assert worker._process.busy_event == "report.build"
    assert worker._process.busy_since is not None

    gate.opened.set()
    assert eventually(lambda: worker._process.busy_with is None)
    assert worker._process.busy_since is None


def test_which_queues_a_worker_serves_is_told_as_soon_as_it_knows(
    memory: Store, start: Callable[..., Worker], receive: Callable[..., Any]
) -> None:
    """And not with its next beat, until when people would read that nobody serves them."""
    calls = receive(Calls(), name="r")
    worker = start("memory", lease=3000)

    memory.schedule(queue="mail")

    assert calls.wait_for(1)
    assert eventually(lambda: list(worker._process.queues) == ["mail"])
