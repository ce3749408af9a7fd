"""What receivers may raise, do to their message, and be. No threads: every step by hand."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from django_sked.exceptions import Bury, Reschedule, Retry
from django_sked.models import ScheduledMessage
from django_sked.retry import Exponential
from django_sked.signals import (
    current_message,
    message_due,
)
from django_sked.states import Status
from django_sked.testing import TickedWorker
from tests.testapp.models import Note
from tests.worker.conftest import Calls, Store
from tests.worker.raising import T0, after, raising


def test_two_failures_then_a_success_with_backoff(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    receiver = receive(raising(ValueError(), ValueError()), name="r")
    message = some_store.schedule(at=T0, retry=Exponential(base=10, factor=3, jitter="none"))
    waits: list[datetime] = []

    for now in (T0, after(10), after(40)):
        ticked.tick(now)
        waits.append(some_store.find(message).next_at)

    assert waits[:2] == [after(10), after(40)]
    assert receiver.calls == [1, 2, 3]
    assert some_store.find(message).status == Status.DELIVERED


@pytest.mark.parametrize(
    "error",
    [
        lambda: Retry(at=datetime(2031, 1, 1)),
        lambda: Retry(delay=-1),
        lambda: Retry(delay="soon"),  # type: ignore[arg-type]
        lambda: Retry(delay=1e11),
        lambda: Reschedule(delay=-1),
        lambda: Reschedule(at=1),  # type: ignore[arg-type]
        lambda: Reschedule(delay=1e11),
        lambda: Bury(3),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_argument_in_what_a_receiver_raises_is_a_failure_of_it(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any], error: Callable[[], Exception]
) -> None:
    def receiver(**kwargs: Any) -> None:
        raise error()

    receive(receiver, name="r")
    message = some_store.schedule(at=T0)

    ticked.tick(T0)

    stored = some_store.find(message)
    assert (stored.status, stored.attempt, len(stored.errors)) == (Status.SCHEDULED, 1, 1)
    assert any(words in stored.errors[0]["text"] for words in (" must ", " leads out "))
    assert stored.next_at > T0


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        GeneratorExit(),
        asyncio.CancelledError(),
        StopIteration(),
        RecursionError(),
        Unspeakable(),
        ValueError("nul \x00 and surrogate \ud800"),
        ValueError("x" * 10_000_000),
        ExceptionGroup("many", [ValueError("one"), KeyError("two")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_is_raised_is_one_failed_attempt(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any], error: BaseException
) -> None:
    receive(raising(error), name="r")
    message = some_store.schedule(at=T0)

    ticked.tick(T0)

    stored = some_store.find(message)
    assert (stored.status, stored.attempt) == (Status.SCHEDULED, 1)
    assert stored.errors[0]["type"] == type(error).__name__
    assert len(stored.errors[0]["text"]) <= 2_000
    assert len(stored.errors[0]["traceback"]) <= 8_000
    assert "\x00" not in stored.errors[0]["text"]


def test_the_traceback_of_a_huge_text_still_shows_where(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    receive(raising(ValueError("x" * 100_000)), name="r")
    message = some_store.schedule(at=T0)

    ticked.tick(T0)

    assert "in receiver" in some_store.find(message).errors[0]["traceback"]


def test_ctrl_c_in_the_main_thread_is_meant_for_the_program(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    receive(raising(KeyboardInterrupt()), name="r")
    some_store.schedule(at=T0)

    with pytest.raises(KeyboardInterrupt):
        ticked.tick(T0)

    assert current_message() is None


def test_a_receiver_that_changes_its_message_changes_neither_the_next_nor_the_store(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    def vandal(message: ScheduledMessage, **kwargs: Any) -> None:
        message.payload["order"] = "gone"
        message.delivered_to["second"] = "delivered"
        message.errors.append({"text": "made up"})
        message.token, message.attempt, message.max_attempts, message.pk = -1, 99, 0, None
        message.status = Status.DEAD

    second = Calls()
    receive(vandal, name="first")
    receive(second, name="second")
    message = some_store.schedule(payload={"order": 7}, at=T0)

    ticked.tick(T0)

    stored = some_store.find(message)
    assert second.payloads == [{"order": 7}]
    assert second.messages[0].attempt == 1
    assert (stored.status, stored.payload, stored.attempt, stored.errors) == (Status.DELIVERED, {"order": 7}, 1, [])


def test_a_receiver_that_is_gone_leaves_its_message_unroutable(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    def short_lived(**kwargs: Any) -> None: ...

    message_due.connect(short_lived, event="order.paid", dispatch_uid="short")
    message = some_store.schedule(at=T0)
    del short_lived
    gc.collect()

    ticked.tick(T0)

    assert some_store.find(message).unroutable == 1


def test_a_receiver_that_goes_between_the_look_and_the_call_has_failed(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    def short_lived(**kwargs: Any) -> None: ...

    message_due.connect(short_lived, event="order.paid", dispatch_uid="short")
    kept = message_due.receivers_of("order.paid")
    del short_lived
    gc.collect()
    message_due._by_event["order.paid"] = kept
    message = some_store.schedule(at=T0)

    ticked.tick(T0)

    assert "garbage-collected" in some_store.find(message).errors[0]["text"]


def test_an_asynchronous_receiver_knows_its_message_and_may_use_the_orm(
    database: Store, receive: Callable[..., Any]
) -> None:
    async def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        current = current_message()
        assert current is not None
        await Note.objects.acreate(text=f"{current.pk} {message.attempt}")

    receive(receiver, name="r")
    message = database.schedule(at=T0)

    TickedWorker().tick(T0)

    assert Note.objects.get().text == f"{message.pk} 1"
    assert database.find(message).status == Status.DELIVERED


@pytest.mark.parametrize("error", [ValueError(), SystemExit(), asyncio.CancelledError(), Retry(delay=9)], ids=repr)
def test_an_asynchronous_receiver_may_raise_anything(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any], error: BaseException
) -> None:
    async def receiver(**kwargs: Any) -> None:
        raise error

    receive(receiver, name="r")
    message = some_store.schedule(at=T0)

    ticked.tick(T0)

    assert (some_store.find(message).status, some_store.find(message).attempt) == (Status.SCHEDULED, 1)


def test_code_below_a_receiver_can_ask_for_the_current_message(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    seen: list[Any] = []
    receive(lambda **kwargs: seen.append(current_message()), name="r")
    message = some_store.schedule(at=T0)

    ticked.tick(T0)

    assert [each.pk for each in seen] == [message.pk]
    assert current_message() is None
