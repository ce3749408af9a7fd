"""What ends a message but its receivers: expiry, nobody to receive it, a cancel. Every step by hand."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from django_sked import clock
from django_sked.exceptions import Reschedule, Retry
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.retry import Fixed, Never
from django_sked.signals import (
    message_cancelled,
    message_dead,
    message_delivered,
    message_expired,
    message_failed,
    message_started,
)
from django_sked.states import Answer, Status
from django_sked.testing import TickedWorker, deliver_due
from tests.worker.conftest import Store
from tests.worker.raising import T0, after, raising


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
