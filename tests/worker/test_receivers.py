"""Receivers in the threads of a worker: none of them may harm another, or the worker."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import models

from django_sked.exceptions import AttemptTimedOut, Bury, Reschedule
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.signals import (
    current_message,
    message_cancelled,
    message_delivered,
    message_started,
)
from django_sked.states import Answer, Status
from django_sked.worker import Worker
from django_sked.worker import deadlines as deadlines_module
from django_sked.worker.deadlines import Deadlines
from tests.worker.conftest import PATIENCE, Calls, Gate, Store, eventually, run

# Receivers that misbehave


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
def test_what_would_end_a_program_ends_one_attempt(
    memory: Store, receive: Callable[..., Any], error: type[BaseException]
) -> None:
    calls = Calls()

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        calls(message)
        raise error

    receive(receiver, name="r")
    memory.schedule_many(5, max_attempts=1)

    run(memory, burst=True, concurrency=1)

    assert len(calls.messages) == 5
    assert memory.count(status="dead") == 5


def test_one_that_deletes_its_own_message_harms_nobody_else(
    sql: Store, receive: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        if message.payload == 1:
            delete(sql, message)

    receive(receiver, name="r")
    sql.schedule_many(3)

    with caplog.at_level(logging.WARNING, "django_sked.worker"):
        assert run(sql, burst=True) == 0

    assert sql.count(status="delivered") == sql.count() == 2
    assert "lease_lost" in caplog.text


def test_an_atomic_one_that_deletes_its_own_message_has_failed(sql: Store, atomic: Callable[..., Any]) -> None:
    """It is there again when its transaction was undone; it must not come back for ever."""
    atomic(lambda message, **kwargs: delete(sql, message))
    message = sql.schedule(max_attempts=2, retry=Fixed(0.01))

    assert run(sql, burst=True) == 0
    assert eventually(lambda: run(sql, burst=True) == 0 and sql.find(message).status == Status.DEAD)

    found = sql.find(message)
    assert (found.attempt, [error["type"] for error in found.errors]) == (2, ["SkedError"] * 2)


def delete(store: Store, message: ScheduledMessage) -> None:
    """Past the guards."""
    rows: Any = models.QuerySet(ScheduledMessage, using=store.alias)
    assert rows.filter(pk=message.pk)._raw_delete(store.alias)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, ValueError])
def test_an_asynchronous_receiver_cannot_end_the_loop_of_the_others(
    memory: Store, receive: Callable[..., Any], error: type[BaseException]
) -> None:
    async def bad(**kwargs: Any) -> None:
        raise error

    async def good(message: ScheduledMessage, **kwargs: Any) -> None:
        await asyncio.sleep(0)
        assert current_message() is message

    receive(bad, "bad", "bad")
    receive(good, "good", "good")
    memory.schedule("bad", max_attempts=1)
    memory.schedule_many(10, "good", priority=-1)

    run(memory, burst=True, concurrency=1)

    assert memory.count(status="dead") == 1
    assert memory.count(status="delivered") == 10


def test_a_stray_task_cannot_end_the_loop_of_the_others(
    memory: Store, receive: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def bad(**kwargs: Any) -> None:
        async def leave() -> None:
            raise SystemExit

        kept.append(asyncio.create_task(leave()))
        for _ in range(3):
            await asyncio.sleep(0)
        with pytest.raises(SystemExit):
            await kept[-1]

    kept: list[Any] = []
    receive(bad, name="r")
    memory.schedule_many(3)

    run(memory, burst=True, concurrency=1)

    assert memory.count(status="delivered") == 3


def test_synchronous_code_in_asynchronous_receivers_runs_side_by_side(
    memory: Store, receive: Callable[..., Any]
) -> None:
    together = threading.Barrier(2)

    async def receiver(**kwargs: Any) -> None:
        await sync_to_async(together.wait)(PATIENCE)

    receive(receiver, name="r")
    memory.schedule_many(2)

    run(memory, burst=True, concurrency=2)

    assert memory.count(status="delivered") == 2


def test_a_listener_that_wants_to_end_the_program_does_not_end_the_worker(
    memory: Store, receive: Callable[..., Any]
) -> None:
    def leave(**kwargs: Any) -> None:
        raise SystemExit

    receive(Calls(), name="r")
    message_delivered.connect(leave)
    message_started.connect(leave)
    memory.schedule_many(3, max_attempts=1)
    try:
        assert run(memory, burst=True) == 0
    finally:
        message_delivered.disconnect(leave)
        message_started.disconnect(leave)

    assert memory.count(status=["claimed", "scheduled"]) == 0


def test_every_outcome_of_a_mixed_batch_is_written(store: Store, receive: Callable[..., Any]) -> None:
    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        kind = message.payload % 4
        if kind == 1:
            raise Bury("no")
        if kind == 2:
            raise Reschedule(delay=3600)
        if kind == 3:
            raise ValueError("no")

    receive(receiver, name="r")
    store.schedule_many(100, retry=Fixed(3600))

    run(store, burst=True)

    assert {s: store.count(status=s) for s in ("delivered", "dead", "scheduled")} == {
        "delivered": 25,
        "dead": 25,
        "scheduled": 50,
    }


# Cancel


def test_a_cancel_of_a_message_in_hand_ends_it_unstarted(
    store: Store,
    receive: Callable[..., Any],
    start: Callable[..., Worker],
    listen: Callable[..., Any],
    gate: Gate,
) -> None:
    receive(gate, name="r")
    told = listen(message_cancelled)
    first, second = store.schedule(priority=1), store.schedule()
    worker = start(store.alias, concurrency=1)
    assert gate.begun.wait(PATIENCE)
    assert eventually(lambda: worker.in_flight == 2)

    store.find(second).cancel()
    worker._beat()
    gate.opened.set()

    assert eventually(lambda: store.find(second).status != Status.CLAIMED)
    assert store.find(second).status == Status.CANCELLED
    assert [message.pk for message in gate.messages] == [first.pk]
    assert eventually(lambda: len(told) == 1)


def test_a_cancel_that_was_requested_before_a_redrive_holds_up_nothing_after_it(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker], gate: Gate
) -> None:
    """All of it between two beats."""

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        gate(message)
        if len(gate.messages) == 1:
            raise Bury("no")

    receive(receiver, name="r")
    message = store.schedule()
    worker = start(store.alias, lease=60.0)
    assert gate.begun.wait(PATIENCE)
    assert store.find(message).cancel() is Answer.TOO_LATE
    worker._beat()
    gate.opened.set()
    assert eventually(lambda: store.find(message).status == Status.DEAD)
    buried = store.find(message)
    token = buried.token

    buried.redrive()

    assert eventually(lambda: store.find(message).status == Status.DELIVERED)
    assert store.find(message).token == token + 1, "it was claimed once"


def test_a_running_receiver_sees_that_its_message_shall_be_cancelled(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker], gate: Gate
) -> None:
    receive(gate, name="r")
    message = store.schedule()
    worker = start(store.alias)
    assert gate.begun.wait(PATIENCE)

    store.find(message).cancel()
    worker._beat()

    assert gate.messages[0].cancel_requested


# A late end


def test_the_late_end_of_an_abandoned_attempt_does_not_let_go_of_the_next_one(
    memory: Store,
    receive: Callable[..., Any],
    start: Callable[..., Worker],
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(deadlines_module, "GRACE", (0.01, 0.01))
    may_end = threading.Event()

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        if message.attempt == 2:
            return gate(message)
        while not may_end.is_set():
            with suppress(AttemptTimedOut):
                may_end.wait(0.01)
        return None

    receive(receiver, name="r")
    message = memory.schedule(timeout=0.05, retry=Fixed(0.01))
    monkeypatch.setattr(Deadlines, "run", _without_a_deadline(Deadlines.run))
    worker = start("memory", concurrency=2)
    assert gate.begun.wait(PATIENCE)

    with caplog.at_level(logging.WARNING, "django_sked.worker"):
        may_end.set()
        assert eventually(lambda: "lease_lost" in caplog.text)
    assert eventually(lambda: not worker._claimer.pools["default"].abandoned)

    assert worker._claimer.unknown() == {}
    gate.opened.set()
    assert eventually(lambda: memory.find(message).status == Status.DELIVERED)
    assert memory.find(message).attempt == 2


def _without_a_deadline(run: Callable[..., None]) -> Callable[..., None]:
    """For every call but the first."""
    calls: list[int] = []

    def first_only(self: Deadlines, receiver: Callable[[], None], *args: Any) -> None:
        calls.append(1)
        return run(self, receiver, *args) if len(calls) == 1 else receiver()

    return first_only
