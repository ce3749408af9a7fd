"""Receivers in the threads of a worker: none of them may harm another, or the worker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from django_sked.exceptions import Bury, Reschedule
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.signals import (
    current_message,
    message_cancelled,
    message_delivered,
    message_started,
)
from django_sked.states import Status
from django_sked.worker import Worker
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
