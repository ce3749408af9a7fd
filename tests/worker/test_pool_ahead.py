"""A pool and what was claimed ahead of its time."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta
from typing import Any

import pytest

from django_sked import clock
from django_sked.models import ScheduledMessage
from django_sked.worker import pool as pool_module
from django_sked.worker.pool import Pool
from tests.worker.conftest import PATIENCE, Calls, Clock, Store, eventually


def _message(memory: Store) -> ScheduledMessage:
    return memory.schedule()


def _due(memory: Store, payload: Any, *, seconds: float = 0.0, priority: int = 0) -> ScheduledMessage:
    at = memory.backend.now() + timedelta(seconds=seconds)
    return memory.schedule(payload=payload, at=at, priority=priority)


def _held_up(memory: Store, size: int = 1) -> tuple[Pool, Calls, threading.Event]:
    """A pool whose threads are busy until the event is set; what it dispatches after that is in the calls."""
    begun, go_on, calls = threading.Semaphore(0), threading.Event(), Calls()

    def dispatch(message: ScheduledMessage) -> None:
        if message.payload == "first":
            begun.release()
            assert go_on.wait(PATIENCE)
        else:
            calls(message)

    pool = Pool("default", size, memory.backend, dispatch, lambda: None)
    pool.put([_due(memory, "first", seconds=-100) for _ in range(size)])
    for _ in range(size):
        assert begun.acquire(timeout=PATIENCE)
    return pool, calls, go_on


def test_what_was_claimed_ahead_starts_at_its_instant_and_not_before(memory: Store, time: Clock) -> None:
    pool, calls, go_on = _held_up(memory)
    pool.put([], [(time() + 5, _due(memory, "early", seconds=5))])

    go_on.set()
    assert eventually(lambda: pool._has_timer)
    time.pass_(4.999)
    with pool._condition:
        pool._condition.notify_all()
    assert eventually(lambda: pool._has_timer)
    assert calls.payloads == []

    time.pass_(0.001)
    with pool._condition:
        pool._condition.notify_all()
    assert calls.wait_for(1)
    pool.stop()


def test_among_what_is_due_the_higher_priority_starts_first_also_of_what_was_claimed_ahead(
    memory: Store, time: Clock
) -> None:
    pool, calls, go_on = _held_up(memory)
    early = [("low", 1, 0), ("high", 2, 5), ("middle", 3, 2)]
    pool.put(
        [_due(memory, "due", priority=1)],
        [(time() + s, _due(memory, name, seconds=s, priority=p)) for name, s, p in early],
    )
    time.pass_(10)

    go_on.set()

    assert calls.wait_for(4)
    assert calls.payloads == ["high", "middle", "due", "low"]
    pool.stop()


def test_within_a_priority_the_earlier_due_starts_first_also_of_what_was_claimed_ahead(
    memory: Store, time: Clock
) -> None:
    pool, calls, go_on = _held_up(memory)
    pool.put([], [(time() + 5, _due(memory, "later", seconds=5))])
    pool.put([_due(memory, "before")])
    time.pass_(10)
    pool.put([_due(memory, "after", seconds=6)])

    go_on.set()

    assert calls.wait_for(3)
    assert calls.payloads == ["before", "later", "after"]
    pool.stop()


def test_a_higher_priority_does_not_wait_behind_what_is_in_hand(memory: Store) -> None:
    pool, calls, go_on = _held_up(memory)
    pool.put([_due(memory, number) for number in range(3)])

    pool.put([_due(memory, "urgent", priority=9)])
    go_on.set()

    assert calls.wait_for(4)
    assert calls.payloads == ["urgent", 0, 1, 2]
    pool.stop()


def test_a_message_is_started_although_its_wake_up_came_as_the_wait_ran_out(
    memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "LET_GO", 0.02)
    calls = Calls()
    pool = Pool("default", 1, memory.backend, calls, lambda: None)
    pool.put([_message(memory)])
    assert calls.wait_for(1)
    wait, waits = pool._condition.wait, threading.Event()

    def too_late(timeout: float | None = None) -> bool:
        waits.set()
        wait(timeout)
        return False

    monkeypatch.setattr(pool._condition, "wait", too_late)
    assert waits.wait(PATIENCE)
    with pool._condition:
        assert pool._idle == 1

    pool.put([_message(memory)])

    assert calls.wait_for(2)
    pool.stop()


def test_a_pool_that_only_waits_for_its_time_keeps_one_thread_and_lets_go_of_the_others(
    memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "LET_GO", 0.01)
    waiting, _, go_on = _held_up(memory, size=3)
    waiting._budget = budget = pool_module.ThreadBudget(0)
    calls = Calls()
    other = Pool("other", 1, memory.backend, calls, lambda: None, budget)
    waiting.put([], [(clock.monotonic() + 3600, _message(memory))])
    assert other.room(500).limit == 0

    go_on.set()

    assert eventually(lambda: other.room(500).limit > 0)
    other.put([_message(memory)])
    assert calls.wait_for(1)
    assert waiting._has_timer
    waiting.stop()
    other.stop()


def test_a_thread_that_ends_leaves_another_one_to_wait_for_what_was_claimed_ahead(
    memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "LET_GO", 3600.0)
    calls = Calls()
    pool = Pool("default", 1, memory.backend, calls, lambda: None)
    pool.put([_message(memory)])
    assert calls.wait_for(1)
    assert eventually(lambda: pool._idle == 1)
    with pool._condition:
        # The second thread of a pool that has just been made smaller; it was the one that waited.
        pool._threads = 2
        pool._early.append((clock.monotonic(), 1, _message(memory)))

    assert pool._next(threading.get_ident()) is None

    assert calls.wait_for(2)
    pool.stop()


def test_what_no_thread_can_be_had_for_is_given_back(memory: Store) -> None:
    budget = pool_module.ThreadBudget(1)
    pool = Pool("default", 1, memory.backend, lambda message: None, lambda: None, budget)
    assert pool.room(500).limit > 0
    assert budget.take()  # by another queue, just now

    pool.put([_message(memory)], [(clock.monotonic(), _message(memory))])

    assert len(pool.stale()) == 2
    assert pool.in_flight == 0


def test_a_system_without_threads_costs_no_message_and_no_thread(
    memory: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = Calls()
    pool = Pool("default", 2, memory.backend, calls, lambda: None)
    start_thread = threading.Thread.start

    def start_one(thread: threading.Thread) -> None:
        if pool._threads:
            raise RuntimeError("can't start new thread")
        start_thread(thread)

    with caplog.at_level(logging.CRITICAL):
        monkeypatch.setattr(threading.Thread, "start", start_one)
        pool.put([_message(memory)], [(clock.monotonic() + 0.01, _message(memory))])

        assert calls.wait_for(2)
    assert eventually(lambda: not pool.running())
    assert pool._budget._left == pool_module.MOST_THREADS - 1
    pool.stop()


def test_stopping_gives_back_what_was_claimed_ahead(memory: Store) -> None:
    pool = Pool("default", 2, memory.backend, lambda message: None, lambda: None)
    early = [_message(memory) for _ in range(3)]
    pool.put([], [(clock.monotonic() + 3600, message) for message in early])
    assert eventually(lambda: pool._has_timer)

    assert sorted(message.pk for message in pool.stop()) == sorted(message.pk for message in early)

    assert eventually(lambda: pool.is_unused)
