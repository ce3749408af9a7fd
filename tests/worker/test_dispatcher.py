"""What receivers are given, and what becomes of a message after what they do. No threads: every step by hand."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from django_sked import clock
from django_sked.exceptions import Bury, Reschedule, Retry
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.retry import Exponential, Fixed, Never
from django_sked.signals import (
    current_message,
    message_cancelled,
    message_dead,
    message_delivered,
    message_due,
    message_expired,
    message_failed,
    message_started,
)
from django_sked.states import Answer, Status
from django_sked.testing import TickedWorker, deliver_due
from tests.testapp.models import Note
from tests.worker.conftest import Calls, Store

T0 = datetime(2030, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def raising(*errors: BaseException | None) -> Callable[..., None]:
    """A receiver that raises these one call after the other, and then nothing."""
    left = list(errors)
    calls: list[int] = []

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        calls.append(message.attempt)
        error = left.pop(0) if left else None
        if error is not None:
            raise error

    receiver.calls = calls  # type: ignore[attr-defined]
    return receiver


def test_a_receiver_is_called_as_a_signal_receiver_is(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    seen: list[dict[str, Any]] = []
    receive(lambda **kwargs: seen.append(kwargs), "order.paid", "r")
    message = some_store.schedule(payload={"order": 7}, at=T0)

    ticked.tick(T0)

    (kwargs,) = seen
    assert set(kwargs) == {"signal", "sender", "message"}
    assert kwargs["signal"] is message_due
    assert kwargs["sender"] is ScheduledMessage
    assert (kwargs["message"].pk, kwargs["message"].payload) == (message.pk, {"order": 7})


def test_the_attempt_a_receiver_sees_is_the_one_it_is_in(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    receiver = receive(raising(ValueError(), None), name="r")
    message = some_store.schedule(at=T0, retry=Fixed(10))

    ticked.tick(T0)
    stored = some_store.find(message)
    ticked.tick(after(10))

    assert receiver.calls == [1, 2]
    assert stored.attempt == 1
    assert some_store.find(message).attempt == 2


def test_only_the_receiver_that_failed_is_called_again(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    good = receive(raising(), name="good")
    bad = receive(raising(ValueError()), name="bad")
    message = some_store.schedule(at=T0, retry=Fixed(10))

    ticked.tick(T0)
    between = some_store.find(message)
    ticked.tick(after(10))

    assert (good.calls, bad.calls) == ([1], [1, 2])
    assert (between.status, between.delivered_to) == (Status.SCHEDULED, {"good": "delivered"})
    assert some_store.find(message).status == Status.DELIVERED


def test_one_that_buried_is_not_called_again_and_the_end_is_dead(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    burier = receive(raising(Bury("no such order")), name="burier")
    failing = receive(raising(ValueError()), name="failing")
    message = some_store.schedule(at=T0, retry=Fixed(10))

    ticked.tick(T0)
    between = some_store.find(message)
    ticked.tick(after(10))

    dead = some_store.find(message)
    assert (burier.calls, failing.calls) == ([1], [1, 2])
    assert between.status == Status.SCHEDULED
    assert (dead.status, dead.delivered_to) == (Status.DEAD, {"failing": "delivered"})
    assert "no such order" in [error["text"] for error in dead.errors]


def test_redrive_calls_those_that_had_not_succeeded_and_no_others(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    good = receive(raising(), name="good")
    burier = receive(raising(Bury("not yet")), name="burier")
    failing = receive(raising(ValueError(), ValueError()), name="failing")
    message = some_store.schedule(at=T0, retry=Fixed(10), max_attempts=2)
    ticked.tick(T0)
    ticked.tick(after(10))
    assert some_store.find(message).status == Status.DEAD

    some_store.find(message).redrive(at=after(20))
    ticked.tick(after(20))

    assert (good.calls, burier.calls, failing.calls) == ([1], [1, 1], [1, 2, 1])
    assert some_store.find(message).status == Status.DELIVERED


def test_a_redrive_when_nobody_had_succeeded_calls_all_of_them(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    burier = receive(raising(Bury("not yet")), name="burier")
    failing = receive(raising(ValueError(), ValueError()), name="failing")
    message = some_store.schedule(at=T0, retry=Fixed(10), max_attempts=2)
    ticked.tick(T0)
    ticked.tick(after(10))
    assert some_store.find(message).status == Status.DEAD

    some_store.find(message).redrive(at=after(20))
    ticked.tick(after(20))

    assert (burier.calls, failing.calls) == ([1, 1], [1, 2, 1])
    assert some_store.find(message).status == Status.DELIVERED


def test_one_postponed_and_one_delivered_leaves_the_attempts_as_they_were(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    good = receive(raising(), name="good")
    later = receive(raising(Reschedule(delay=60)), name="later")
    message = some_store.schedule(at=T0)

    ticked.tick(T0)
    between = some_store.find(message)
    ticked.tick(after(60))

    assert (between.attempt, between.next_at, between.due_at) == (0, after(60), T0)
    assert (good.calls, later.calls) == ([1], [1, 1])
    assert (some_store.find(message).status, some_store.find(message).attempt) == (Status.DELIVERED, 1)


def test_of_several_times_asked_the_earliest_counts(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    receive(raising(Retry(delay=300)), name="a")
    receive(raising(Retry(at=after(20))), name="b")
    receive(raising(Reschedule(delay=60)), name="c")
    message = some_store.schedule(at=T0)

    ticked.tick(T0)

    stored = some_store.find(message)
    assert (stored.status, stored.next_at, stored.attempt) == (Status.SCHEDULED, after(20), 1)


def test_retry_names_the_time_and_counts_as_an_attempt(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    receive(raising(Retry(at=after(77))), name="r")
    message = some_store.schedule(at=T0)

    ticked.tick(T0)

    stored = some_store.find(message)
    assert (stored.next_at, stored.attempt, stored.errors[0]["type"]) == (after(77), 1, "Retry")


def test_retry_is_heard_although_the_policy_says_never(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    receive(raising(Retry(delay=timedelta(seconds=5))), name="r")
    message = some_store.schedule(at=T0, retry=Never())

    ticked.tick(T0)

    assert some_store.find(message).next_at == after(5)


def test_a_message_that_is_postponed_for_ever_never_spins(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    receive(raising(Reschedule(delay=0)), name="r")
    message = some_store.schedule(at=T0)

    ticked.tick(T0)

    assert some_store.find(message).next_at == after(0.1)


@pytest.mark.parametrize(
    "retry", [Retry(delay=0), Retry(at=after(-5))], ids=["without delay", "at a time that is gone"]
)
def test_a_message_that_is_to_be_retried_at_once_does_not_use_up_its_attempts_in_no_time(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any], retry: Retry
) -> None:
    receive(raising(retry, retry), name="r")
    message = some_store.schedule(at=T0, max_attempts=3)

    ticked.tick(T0)

    stored = some_store.find(message)
    assert (stored.status, stored.attempt, stored.next_at) == (Status.SCHEDULED, 1, after(0.1))


def test_attempts_are_exactly_as_many_as_asked_for(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    receiver = receive(raising(*[ValueError("no")] * 9), name="r")
    message = some_store.schedule(at=T0, max_attempts=3, retry=Fixed(10))

    for seconds in range(0, 100, 10):
        ticked.tick(after(seconds))

    assert receiver.calls == [1, 2, 3]
    assert (some_store.find(message).status, some_store.find(message).attempt) == (Status.DEAD, 3)


def test_never_ends_with_the_first_failure(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    receive(raising(ValueError("no")), name="r")
    message = some_store.schedule(at=T0, retry=Never())

    ticked.tick(T0)

    assert some_store.find(message).status == Status.DEAD


def test_a_dead_message_keeps_its_payload_errors_and_origin(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    receive(raising(ValueError("first"), KeyError("second")), name="r")
    message = some_store.schedule(payload={"order": 7}, at=T0, max_attempts=2, retry=Fixed(1), metadata={"tenant": "a"})

    ticked.tick(T0)
    ticked.tick(after(1))

    dead = some_store.find(message)
    assert (dead.status, dead.payload, dead.metadata, dead.due_at) == (Status.DEAD, {"order": 7}, {"tenant": "a"}, T0)
    assert [(e["attempt"], e["type"], e["receiver"]) for e in dead.errors] == [
        (1, "ValueError", "r"),
        (2, "KeyError", "r"),
    ]
    assert dead.errors[0]["at"] == T0.isoformat(timespec="microseconds")
    assert "ValueError: first" in dead.errors[0]["traceback"]
    assert dead.reason == "'second'"


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


def test_a_message_that_expired_before_its_start_is_not_started(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any], listen: Callable[..., Any]
) -> None:
    receiver = receive(raising(), name="r")
    started, expired = listen(message_started), listen(message_expired)
    message = some_store.schedule(at=T0, expires_in=10)
    claimed = ticked.claim(after(9))

    ticked.settle([ticked.dispatch(claimed[0], after(10))], claimed, after(10))

    stored = some_store.find(message)
    assert receiver.calls == []
    assert started == []
    assert (stored.status, stored.attempt) == (Status.EXPIRED, 0)
    assert [told["messages"][0].pk for told in expired] == [message.pk]


def test_after_the_expiry_the_next_receiver_does_not_start_either(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    def slow(**kwargs: Any) -> None:
        clock._pretended.set(after(10))  # until the end of this dispatch

    receive(slow, name="first")
    second = receive(raising(), name="second")
    message = some_store.schedule(at=T0, expires_in=10)
    claimed = ticked.claim(T0)

    ticked.settle([ticked.dispatch(claimed[0], after(1))], claimed, after(10))

    stored = some_store.find(message)
    assert second.calls == []
    assert (stored.status, stored.delivered_to, stored.attempt) == (Status.EXPIRED, {"first": "delivered"}, 1)


def test_a_retry_that_would_come_after_the_expiry_ends_expired(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    receive(raising(Retry(delay=60)), name="r")
    message = some_store.schedule(at=T0, expires_in=30)

    ticked.tick(T0)

    stored = some_store.find(message)
    assert (stored.status, len(stored.errors)) == (Status.EXPIRED, 1)


def test_a_message_nobody_receives_comes_back_later_and_later_on_a_counter_of_its_own(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    message = some_store.schedule("order.lost", at=T0)
    now, waits = T0, []

    for _ in range(9):
        ticked.tick(now)
        stored = some_store.find(message)
        waits.append((stored.next_at - now).total_seconds())
        now = stored.next_at

    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert (stored.status, stored.attempt, stored.unroutable, stored.errors) == (Status.SCHEDULED, 0, 9, [])


def test_once_somebody_receives_it_the_counter_begins_again(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    message = some_store.schedule(at=T0, retry=Fixed(60))
    ticked.tick(T0)
    receive(raising(ValueError()), name="r")

    ticked.tick(after(5))

    assert (some_store.find(message).unroutable, some_store.find(message).attempt) == (0, 1)


def test_an_unroutable_event_is_said_once_with_the_nearest_name(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    receive(raising(), "order.paid", "r")
    for event in ("order.payed", "order.payed", "zzz"):
        some_store.schedule(event, at=T0)

    with caplog.at_level(logging.WARNING, "django_sked.worker"):
        ticked.tick(T0)

    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert any("event=order.payed" in line and line.endswith("nearest=order.paid") for line in lines)
    assert any("event=zzz" in line and "nearest" not in line for line in lines)


def test_a_cancel_during_the_run_is_not_undone_by_a_retry(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any], listen: Callable[..., Any]
) -> None:
    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        ScheduledMessage.objects.cancel(id=message.pk, backend=some_store.alias)
        raise ValueError

    receive(receiver, name="r")
    cancelled = listen(message_cancelled)
    message = some_store.schedule(at=T0)

    ticked.tick(T0)
    again = ticked.tick(after(10_000))

    assert some_store.find(message).status == Status.CANCELLED
    assert again == []
    assert len(cancelled) == 1


def test_a_cancel_that_came_too_late_is_kept_though_the_message_expires_before_its_start(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any], listen: Callable[..., Any]
) -> None:
    calls: list[ScheduledMessage] = []
    receive(lambda message, **kwargs: calls.append(message), name="r")
    cancelled, expired = listen(message_cancelled), listen(message_expired)
    message = some_store.schedule(at=T0, expires_at=after(60))
    (claimed,) = ticked.claim(T0)
    assert some_store.find(message).cancel() is Answer.TOO_LATE

    ticked.settle([ticked.dispatch(claimed, after(61))], [claimed], after(61))

    assert (calls, some_store.find(message).status) == ([], Status.CANCELLED)
    assert (len(cancelled), expired) == (1, [])


def test_a_cancel_that_came_too_late_is_kept_though_the_last_attempt_cannot_be_dispatched(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    receive(raising(), name="r")
    message = some_store.schedule(at=T0, max_attempts=1)
    (claimed,) = ticked.claim(T0)
    assert some_store.find(message).cancel() is Answer.TOO_LATE
    claimed.delivered_to = 5

    with caplog.at_level(logging.CRITICAL):
        outcome = ticked.dispatch(claimed, T0)
    ticked.settle([outcome], [claimed], T0)

    assert some_store.find(message).status == Status.CANCELLED


def test_a_cancel_during_the_run_does_not_undo_a_success(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    receive(lambda message, **kwargs: message.cancel(), name="r")
    message = some_store.schedule(at=T0)

    ticked.tick(T0)

    assert some_store.find(message).status == Status.DELIVERED


@pytest.mark.parametrize("policy", [{"kind": "of another release"}, {"kind": "fixed", "delay": "often"}, "weekly"])
def test_a_policy_this_worker_cannot_read_does_not_end_a_message(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any], policy: Any
) -> None:
    receive(raising(ValueError("no")), name="r")
    message = some_store.schedule(at=T0)
    (claimed,) = ticked.claim(T0)
    claimed.retry_policy = policy

    ticked.settle([ticked.dispatch(claimed, T0)], [claimed], T0)

    stored = some_store.find(message)
    assert (stored.status, stored.attempt) == (Status.SCHEDULED, 1)
    assert stored.errors[0]["text"].startswith("no [")


def test_a_message_that_cannot_be_dispatched_is_set_aside(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    receive(raising(), name="r")
    message = some_store.schedule(at=T0)
    (claimed,) = ticked.claim(T0)
    claimed.delivered_to = 5

    with caplog.at_level(logging.CRITICAL):
        outcome = ticked.dispatch(claimed, T0)
    ticked.settle([outcome], [claimed], T0)

    stored = some_store.find(message)
    assert (stored.status, stored.attempt, stored.next_at) == (Status.SCHEDULED, 1, after(60))


def test_what_receivers_said_before_a_message_was_set_aside_is_kept(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    receive(raising(), name="succeeds")
    receive(raising(ValueError("no")), name="fails")
    message = some_store.schedule(at=T0, max_attempts=1)
    (claimed,) = ticked.claim(T0)
    claimed.errors = 5

    with caplog.at_level(logging.CRITICAL):
        outcome = ticked.dispatch(claimed, T0)
    ticked.settle([outcome], [claimed], T0)

    stored = some_store.find(message)
    assert (stored.status, stored.delivered_to) == (Status.DEAD, {"succeeds": "delivered"})
    assert [error["receiver"] for error in stored.errors] == ["fails", ""]


def test_facts_name_what_happened(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any], listen: Callable[..., Any]
) -> None:
    receive(raising(ValueError()), "a", "a")
    receive(raising(), "b", "b")
    receive(raising(Reschedule(delay=5)), "c", "c")
    messages = {event: some_store.schedule(event, at=T0, retry=Never()) for event in "abc"}
    told = {fact: listen(fact) for fact in (message_delivered, message_failed, message_dead)}

    ticked.tick(T0)

    ids = {fact: [message.pk for sent in batches for message in sent["messages"]] for fact, batches in told.items()}
    assert ids == {
        message_delivered: [messages["b"].pk],
        message_failed: [messages["a"].pk],
        message_dead: [messages["a"].pk],
    }
    assert told[message_delivered][0]["backend"] == some_store.alias
    assert told[message_delivered][0]["messages"][0].attempt == 1
    assert told[message_dead][0]["messages"][0].status == Status.DEAD


def test_a_settle_under_an_old_token_changes_nothing_and_says_so(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    receive(raising(), name="r")
    message = some_store.schedule(at=T0)
    (claimed,) = ticked.claim(T0)
    late = Outcome(id=claimed.pk, token=claimed.token - 1, step="bury", reason="late")

    with caplog.at_level(logging.WARNING, "django_sked.worker"):
        ticked.settle([late], [claimed], T0)

    assert some_store.find(message).status == Status.CLAIMED
    assert "lease_lost" in caplog.text


def test_deliver_due_also_delivers_what_receivers_schedule_meanwhile(
    some_store: Store, receive: Callable[..., Any]
) -> None:
    def chain(message: ScheduledMessage, **kwargs: Any) -> None:
        if message.payload:
            some_store.schedule(payload=message.payload - 1)

    receive(chain, name="r")
    some_store.schedule(payload=3)

    delivered = deliver_due(backend=some_store.alias)

    assert [message.payload for message in delivered] == [3, 2, 1, 0]
    assert {message.status for message in delivered} == {Status.DELIVERED}


def test_a_retry_raised_from_an_error_tells_of_both(
    some_store: Store, ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    def unreachable(**kwargs: Any) -> None:
        try:
            raise ConnectionError("mail gateway is down")
        except ConnectionError as error:
            raise Retry(delay=5) from error

    receive(unreachable)
    message = some_store.schedule(at=T0)

    ticked.tick(T0)

    assert some_store.find(message).errors[0]["text"] == "in 5 (ConnectionError: mail gateway is down)"
