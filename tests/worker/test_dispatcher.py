"""What receivers are given, and how attempts are counted. No threads: every step by hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from django_sked.exceptions import Bury, Reschedule, Retry
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed, Never
from django_sked.signals import (
    message_due,
)
from django_sked.states import Status
from django_sked.testing import TickedWorker
from tests.worker.conftest import Store
from tests.worker.raising import T0, after, raising


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
