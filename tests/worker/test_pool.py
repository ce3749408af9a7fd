"""The threads of a queue: how many there are, what they hold, and what they survive."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from django_sked.models import ScheduledMessage
from django_sked.worker import pool as pool_module
from django_sked.worker.pool import Pool
from tests.worker.conftest import PATIENCE, Calls, Clock, Gate, Store, eventually


def _message(memory: Store) -> ScheduledMessage:
    return memory.schedule()


@pytest.mark.parametrize(("size", "to_be_had"), [(2, 100), (4, 2)])
def test_a_pool_of_slow_receivers_holds_no_more_than_it_runs(
    memory: Store, time: Clock, size: int, to_be_had: int
) -> None:
    begun, go_on = threading.Semaphore(0), threading.Event()

    def dispatch(message: ScheduledMessage) -> None:
        begun.release()
        assert go_on.wait(PATIENCE)

    pool = Pool("default", size, memory.backend, dispatch, lambda: None, pool_module.ThreadBudget(to_be_had))
    assert pool.room(500).limit > 2
    pool.put([_message(memory) for _ in range(4)])
    assert begun.acquire(timeout=PATIENCE)
    assert begun.acquire(timeout=PATIENCE)

    assert pool.stale() == []
    time.pass_(pool_module.STALE)

    assert len(pool.stale()) == 2
    assert pool.room(500).limit == 0
    assert len(pool.running()) == 2
    pool.stop()
    go_on.set()


def test_a_pool_for_which_the_system_has_no_more_threads_holds_no_more_than_it_runs(
    memory: Store, time: Clock, gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pool = Pool("default", 2, memory.backend, gate, lambda: None)
    pool.put([_message(memory)])
    assert gate.begun.wait(PATIENCE)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with caplog.at_level(logging.CRITICAL), monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        pool.put([_message(memory) for _ in range(3)])
        assert pool.stale() == []
        time.pass_(pool_module.STALE)

        assert len(pool.stale()) == 3
        assert pool.stale() == []
        assert pool.room(500).limit == 0

    assert pool.stale() == []
    assert pool.room(500).limit > 0
    assert pool.threads == 2
    pool.stop()


def test_a_pool_learns_how_slow_its_receivers_are(memory: Store, time: Clock) -> None:
    pool = Pool("default", 1, memory.backend, lambda message: time.pass_(20), lambda: None)
    assert pool.room(500).limit == 10

    pool.put([_message(memory)])

    assert eventually(lambda: pool.room(500).limit == pool_module.LEAST_EACH)
    pool.stop()


def test_a_pool_never_holds_more_than_two_batches(memory: Store) -> None:
    pool = Pool("default", 1000, memory.backend, lambda message: None, lambda: None)

    assert pool.room(5).limit == 5


def test_threads_that_have_no_work_end(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "IDLE", 0.01)
    dispatched = Calls()
    pool = Pool("idle-test", 4, memory.backend, lambda message: dispatched(message), lambda: None)
    pool.put([_message(memory) for _ in range(4)])
    assert dispatched.wait_for(4)

    for thread in threading.enumerate():
        if thread.name.startswith("sked-idle-test"):
            thread.join(PATIENCE)

    assert pool.is_unused
    pool.put([_message(memory)])
    assert dispatched.wait_for(5)
    pool.stop()


def test_a_pool_can_be_made_larger_and_smaller(memory: Store) -> None:
    counted, room = Calls(), threading.Event()
    gates = {"open": threading.Event()}

    def dispatch(message: ScheduledMessage) -> None:
        counted(message)
        assert gates["open"].wait(PATIENCE)

    pool = Pool("resize-test", 1, memory.backend, dispatch, room.set)
    pool.put([_message(memory) for _ in range(10)])
    assert counted.wait_for(1)
    assert len(pool.running()) == 1

    pool.resize(5)
    assert counted.wait_for(5)
    assert len(pool.running()) == 5

    pool.resize(2)
    gates["open"].set()
    assert counted.wait_for(10)
    pool.stop()


def test_a_thread_survives_a_dispatch_that_raises(memory: Store, caplog: pytest.LogCaptureFixture) -> None:
    calls = Calls()

    def dispatch(message: ScheduledMessage) -> None:
        calls(message)
        raise SystemExit

    with caplog.at_level(logging.CRITICAL):
        pool = Pool("default", 1, memory.backend, dispatch, lambda: None)
        pool.put([_message(memory) for _ in range(3)])

        assert calls.wait_for(3)
    pool.stop()


def test_a_thread_survives_a_dispatch_whose_failure_cannot_even_be_logged(
    memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = threading.Semaphore(0)

    def broken(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    def dispatch(message: ScheduledMessage) -> None:
        done.release()
        raise KeyboardInterrupt

    monkeypatch.setattr(pool_module.logger, "exception", broken)
    pool = Pool("default", 1, memory.backend, dispatch, lambda: None)

    pool.put([_message(memory) for _ in range(3)])

    assert all(done.acquire(timeout=PATIENCE) for _ in range(3))
    assert eventually(lambda: not pool.in_flight)
    pool.stop()


def test_pools_share_their_threads_and_let_go_of_idle_ones(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "LET_GO", 0.01)
    first_done, second_done = threading.Event(), threading.Event()
    budget = pool_module.ThreadBudget(1)
    first = Pool("first", 4, memory.backend, lambda message: first_done.set(), lambda: None, budget)
    second = Pool("second", 4, memory.backend, lambda message: second_done.set(), lambda: None, budget)

    first.put([_message(memory)])
    assert budget.is_spent
    assert second.room(500).limit == 0
    assert first_done.wait(PATIENCE)
    assert eventually(lambda: second.room(500).limit > 0)

    second.put([_message(memory)])
    assert second_done.wait(PATIENCE)
    first.stop()
    second.stop()
