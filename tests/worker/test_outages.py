"""Leases that run out, and stores that fail before, while or after they do what they were asked."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError

from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.signals import (
    message_dead,
    message_failed,
    worker_error,
)
from django_sked.states import Status
from django_sked.testing import TickedWorker
from django_sked.worker import Worker
from tests.worker.conftest import PATIENCE, Calls, Gate, Store, eventually, run

# Leases


def test_a_worker_whose_lease_ran_out_starts_nothing(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker], gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(gate, name="r")
    store.schedule_many(5)
    worker = start(store.alias, concurrency=1)
    assert gate.begun.wait(PATIENCE)
    assert eventually(lambda: worker.in_flight > 1)

    monkeypatch.setattr(worker._leases, "may_start", lambda: False)
    gate.opened.set()

    assert eventually(lambda: worker.in_flight == 0)
    assert len(gate.messages) == 1
    assert store.count(status="delivered") == 1
    assert store.count(status="scheduled") == 4


def test_what_a_dead_worker_held_is_rescued_and_delivered_and_its_late_result_refused(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker], caplog: pytest.LogCaptureFixture
) -> None:
    calls = receive(Calls(), name="r")
    message = store.schedule()
    paused = TickedWorker(store.alias, lease=1)
    long_ago = store.backend.now() - timedelta(hours=1)
    store.backend.register(paused.process, now=long_ago)
    (held,) = paused.claim()

    worker = start(store.alias)
    worker._leases._unbroken_since = float("-inf")

    assert calls.wait_for(1)
    with caplog.at_level(logging.WARNING, "django_sked.worker"):
        paused.settle([paused.dispatch(held)], [held])
    assert "lease_lost" in caplog.text
    assert eventually(lambda: store.find(message).status == Status.DELIVERED)
    assert store.find(message).token == held.token + 2


def test_claims_whose_reply_was_lost_are_released_and_delivered(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = receive(Calls(), name="r")
    claim = store.backend.claim
    lost: list[Any] = []

    def lose_the_reply(*args: Any, **kwargs: Any) -> Any:
        messages = claim(*args, **kwargs)
        if messages and not lost:
            lost.extend(messages)
            raise OperationalError("the connection is gone")
        return messages

    monkeypatch.setattr(store.backend, "claim", lose_the_reply)
    store.schedule_many(5)
    worker = start(store.alias)
    assert eventually(lambda: len(lost) == 5)
    assert calls.messages == []

    worker._rescuer.release_unknown()

    assert calls.wait_for(5)
    assert {message.attempt for message in calls.messages} == {1}


# Stores that fail


@pytest.mark.parametrize("does_the_work", [False, True], ids=["before", "after the commit"])
def test_a_settle_that_fails_is_tried_again_and_nothing_is_lost(
    store: Store,
    receive: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    listen: Callable[..., Any],
    does_the_work: bool,
) -> None:
    receive(Calls(), name="r")
    errors = listen(worker_error)
    settle, failures = store.backend.settle, iter(range(3))

    def fail(outcomes: Any, **kwargs: Any) -> Any:
        failing = next(failures, None) is not None
        settled = settle(outcomes, **kwargs) if does_the_work or not failing else None
        if failing:
            raise OperationalError("the server closed the connection")
        return settled

    monkeypatch.setattr(store.backend, "settle", fail)
    store.schedule_many(20)

    assert run(store, burst=True) == 0

    assert store.count(status="delivered") == 20
    # The tests of the memory backend have no database, where recurrences would be: each worker says so once.
    others = [told for told in errors if told["step"] != "promote" or store.backend.database is not None]
    assert [(told["step"], told["error"].__class__) for told in others] == [("settle", OperationalError)]


def test_one_outcome_that_cannot_be_written_does_not_hold_up_the_others(
    memory: Store, receive: Callable[..., Any], start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(Calls(), name="r")
    settle, bad = memory.backend.settle, memory.schedule(payload="bad")

    def refuse(outcomes: Any, **kwargs: Any) -> Any:
        if any(outcome.id == bad.pk for outcome in outcomes):
            raise ValueError("a value that no column takes")
        return settle(outcomes, **kwargs)

    monkeypatch.setattr(memory.backend, "settle", refuse)
    memory.schedule_many(50)
    worker = start("memory")

    assert eventually(lambda: memory.count(status="delivered") == 50)
    assert memory.find(bad).status == Status.CLAIMED
    monkeypatch.undo()
    assert eventually(lambda: memory.find(bad).status == Status.DELIVERED)
    assert eventually(lambda: worker.in_flight == 0)


def test_a_queue_that_cannot_be_read_does_not_hold_up_the_others(
    memory: Store, receive: Callable[..., Any], start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = receive(Calls(), name="r")
    claim = memory.backend.claim

    def refuse(worker: Any, queue: str, *args: Any, **kwargs: Any) -> Any:
        if queue == "a":
            raise ValueError("an unreadable row")
        return claim(worker, queue, *args, **kwargs)

    monkeypatch.setattr(memory.backend, "claim", refuse)
    memory.schedule(queue="a")
    memory.schedule(queue="b")
    start("memory")

    assert calls.wait_for(1)
    assert calls.messages[0].queue == "b"


@pytest.mark.parametrize("does_the_work", [False, True], ids=["before", "after the commit"])
def test_a_store_that_is_away_at_the_start_is_waited_for(
    store: Store,
    receive: Callable[..., Any],
    start: Callable[..., Worker],
    monkeypatch: pytest.MonkeyPatch,
    does_the_work: bool,
) -> None:
    calls = receive(Calls(), name="r")
    register, failures = store.backend.register, iter(range(1))
    monkeypatch.setattr(store.backend, "is_expected", lambda error: isinstance(error, OperationalError))

    def fail(*args: Any, **kwargs: Any) -> None:
        failing = next(failures, None) is not None
        if does_the_work or not failing:
            register(*args, **kwargs)
        if failing:
            raise OperationalError("the server is starting up")

    monkeypatch.setattr(store.backend, "register", fail)
    store.schedule()
    start(store.alias)

    assert calls.wait_for(1)


def test_a_worker_that_waits_for_its_store_can_be_stopped(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = threading.Event()

    def fail(*args: Any, **kwargs: Any) -> None:
        tried.set()
        raise OperationalError("no route to host")

    monkeypatch.setattr(memory.backend, "register", fail)
    monkeypatch.setattr(memory.backend, "beat", fail)
    monkeypatch.setattr(memory.backend, "is_expected", lambda error: True)
    worker = Worker("memory")
    starting = threading.Thread(target=worker.start)
    starting.start()
    assert tried.wait(PATIENCE)

    assert worker.stop(PATIENCE)

    starting.join(PATIENCE)
    assert worker.exit_code == 0


def test_a_dispatch_does_not_need_the_store(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    def fail_later(message: ScheduledMessage, **kwargs: Any) -> None:
        gate(message)
        raise ValueError("while the store was away")

    def away(*args: Any, **kwargs: Any) -> Any:
        raise OperationalError("the store is away")

    receive(fail_later, name="r")
    message = store.schedule(retry=Fixed(3600))
    worker = start(store.alias)
    assert gate.begun.wait(PATIENCE)

    monkeypatch.setattr(store.backend, "now", away)
    gate.opened.set()
    assert eventually(lambda: not worker._claimer.pools["default"].running())
    monkeypatch.undo()

    assert eventually(lambda: store.find(message).status == Status.SCHEDULED)
    assert store.find(message).errors[0]["text"] == "while the store was away"


def test_an_outage_of_everything_but_the_receivers_is_survived(
    memory: Store,
    receive: Callable[..., Any],
    start: Callable[..., Worker],
    monkeypatch: pytest.MonkeyPatch,
    gate: Gate,
) -> None:
    receive(gate, name="r")
    refused = threading.Event()

    def away(*args: Any, **kwargs: Any) -> Any:
        refused.set()
        raise OperationalError("the store is away")

    message = memory.schedule()
    start("memory")
    assert gate.begun.wait(PATIENCE)
    for name in ("claim", "settle", "beat", "rescue", "expire", "queues", "next_due_at", "held_by", "prune"):
        monkeypatch.setattr(memory.backend, name, away)
    gate.opened.set()
    assert refused.wait(PATIENCE)
    monkeypatch.undo()

    assert eventually(lambda: memory.find(message).status == Status.DELIVERED)
    memory.schedule(payload="afterwards")
    assert eventually(lambda: memory.count(status="delivered") == 2)


def test_a_failing_message_is_told_once_for_each_attempt(
    store: Store, receive: Callable[..., Any], listen: Callable[..., Any]
) -> None:
    def receiver(**kwargs: Any) -> None:
        raise ValueError("no")

    receive(receiver, name="r")
    failed, dead = listen(message_failed), listen(message_dead)
    message = store.schedule(max_attempts=3, retry=Fixed(0.001))
    when_dead = threading.Event()
    message_dead.connect(lambda **kwargs: when_dead.set(), weak=False, dispatch_uid="when_dead")

    worker = Worker(store.alias, poll_interval=0.05).start()
    assert when_dead.wait(PATIENCE)
    worker.stop(PATIENCE)
    message_dead.disconnect(dispatch_uid="when_dead")

    assert [told["messages"][0].pk for told in failed] == [message.pk] * 3
    assert len(dead) == 1


def test_the_worker_id_is_kept_with_the_errors(store: Store, receive: Callable[..., Any]) -> None:
    def receiver(**kwargs: Any) -> None:
        raise ValueError("no")

    receive(receiver, name="r")
    message = store.schedule(max_attempts=1)

    run(store, burst=True)

    assert uuid.UUID(store.find(message).errors[0]["worker"])


def test_a_message_whose_dispatch_broke_down_is_released_and_delivered(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = receive(Calls(), name="r")
    worker = start(store.alias)
    broken = threading.Event()

    def break_down(message: ScheduledMessage) -> Any:
        monkeypatch.undo()
        broken.set()
        raise MemoryError

    monkeypatch.setattr(worker._dispatcher, "dispatch", break_down)
    store.schedule()
    assert broken.wait(PATIENCE)
    assert eventually(lambda: worker.in_flight == 0)

    worker._rescuer.release_unknown()

    assert calls.wait_for(1)


def test_a_burst_waits_for_what_a_dead_worker_holds(store: Store, receive: Callable[..., Any]) -> None:
    calls = receive(Calls(), name="r")
    message = store.schedule()
    dead = TickedWorker(store.alias, lease=1)
    dead.backend.register(dead.process, now=store.backend.now() - timedelta(hours=1))
    dead.claim()

    code = Worker(store.alias, burst=True, lease=0.5).run()

    assert code == 0
    assert store.find(message).status == Status.DELIVERED
    assert len(calls.messages) == 1


def test_a_burst_delivers_what_is_rescued_just_after_it_looked_for_queues(
    memory: Store, receive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(Calls(), name="r")
    message = memory.schedule()
    dead = TickedWorker(memory.alias, lease=1)
    dead.backend.register(dead.process, now=memory.backend.now() - timedelta(hours=1))
    dead.claim()
    queues, rescue = memory.backend.queues, memory.backend.rescue
    rescued: list[UUID] = []

    def look_and_rescue(**kwargs: Any) -> Any:
        found = queues(**kwargs)
        rescued.extend(rescue())
        return found

    monkeypatch.setattr(memory.backend, "queues", look_and_rescue)
    monkeypatch.setattr(memory.backend, "rescue", lambda **kwargs: [])

    assert Worker(memory.alias, burst=True).run() == 0

    assert rescued == [message.id]
    assert memory.find(message).status == Status.DELIVERED


@pytest.mark.parametrize("fact", [worker_error, message_failed])
def test_a_listener_that_exits_ends_no_thread_of_the_worker(
    memory: Store, receive: Callable[..., Any], start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch, fact: Any
) -> None:
    def leave(**kwargs: Any) -> None:
        raise SystemExit(1)

    failures = iter([OperationalError("away"), OperationalError("away")])
    settle = memory.backend.settle

    def sometimes(*args: Any, **kwargs: Any) -> Any:
        if (error := next(failures, None)) is not None:
            raise error
        return settle(*args, **kwargs)

    def fail(**kwargs: Any) -> None:
        raise ValueError("no")

    receive(fail, name="r")
    monkeypatch.setattr(memory.backend, "settle", sometimes)
    fact.connect(leave)
    try:
        message = memory.schedule(max_attempts=1)
        worker = start(memory.alias)
        assert eventually(lambda: memory.find(message).status == Status.DEAD)
        assert worker._settler.is_alive()
    finally:
        fact.disconnect(leave)
