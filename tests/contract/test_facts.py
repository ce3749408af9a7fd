"""P33: facts are told after the commit, one send per batch."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction

from django_sked.exceptions import KeyInUse
from django_sked.models import ScheduledMessage
from django_sked.signals import message_cancelled, message_rescheduled, message_scheduled
from django_sked.states import Status
from tests.contract.store import T0, Store, after


def test_a_scheduled_message_is_told_once(store: Store, hear: Any) -> None:
    heard = hear(message_scheduled)

    message = store.schedule()

    assert heard.batches == [[message.pk]]


def test_a_batch_is_told_in_one_send(store: Store, hear: Any) -> None:
    heard = hear(message_scheduled)

    messages = store.schedule_many([{"event": "e"}] * 5)

    assert heard.batches == [[message.pk for message in messages]]


def test_an_empty_batch_is_not_told(store: Store, hear: Any) -> None:
    heard = hear(message_scheduled)

    store.schedule_many([])

    assert heard.batches == []


def test_an_ignored_message_is_not_told(store: Store, hear: Any) -> None:
    store.schedule(key="k")
    heard = hear(message_scheduled)

    store.schedule(key="k", on_conflict="ignore")
    first, _ = store.schedule_many([{"event": "a", "key": "x"}, {"event": "b", "key": "x"}], on_conflict="ignore")

    assert heard.batches == [[first.pk]]


def test_a_refused_message_is_not_told(store: Store, hear: Any) -> None:
    store.schedule(key="k")
    heard = hear(message_scheduled)

    with pytest.raises(KeyInUse):
        store.schedule(key="k")

    assert heard.batches == []


@pytest.mark.needs("joins_transactions")
def test_nothing_is_told_before_the_commit(store: Store, hear: Any) -> None:
    heard = hear(message_scheduled)

    with transaction.atomic(using=store.database):
        message = store.schedule()
        assert heard.batches == []

    assert heard.batches == [[message.pk]]


@pytest.mark.needs("joins_transactions")
def test_nothing_is_told_after_a_rollback(store: Store, hear: Any) -> None:
    pending = store.schedule()
    every = [hear(signal) for signal in (message_scheduled, message_cancelled, message_rescheduled)]

    with transaction.atomic(using=store.database):
        store.schedule()
        pending.reschedule(at=after(days=1))
        pending.cancel()
        transaction.set_rollback(True, using=store.database)

    assert [heard.batches for heard in every] == [[], [], []]


def test_a_cancelled_and_a_rescheduled_message_are_told(store: Store, hear: Any) -> None:
    message = store.schedule()
    cancelled, rescheduled = hear(message_cancelled), hear(message_rescheduled)

    message.reschedule(at=after(days=1))
    message.cancel()
    message.cancel()

    assert rescheduled.batches == [[message.pk]]
    assert cancelled.batches == [[message.pk]]


def test_a_refused_verb_is_not_told(store: Store, hear: Any) -> None:
    every = [store.in_status(status) for status in Status if status not in {Status.SCHEDULED, Status.BLOCKED}]
    cancelled, rescheduled = hear(message_cancelled), hear(message_rescheduled)

    for message in every:
        message.cancel()
        message.reschedule(at=after(days=1))
    assert store.search().cancel() == store.search().reschedule(delay=1) == 0

    assert cancelled.batches == rescheduled.batches == []


def test_a_bulk_verb_tells_in_one_send_exactly_those_it_changed(store: Store, hear: Any) -> None:
    every = {status: store.in_status(status) for status in Status}
    changed = {every[Status.BLOCKED].pk, every[Status.SCHEDULED].pk}
    cancelled, rescheduled = hear(message_cancelled), hear(message_rescheduled)

    store.search().reschedule(at=after(days=1))
    store.search().cancel()

    assert [set(batch) for batch in rescheduled.batches] == [changed]
    assert [set(batch) for batch in cancelled.batches] == [changed]


def test_a_replaced_message_is_told_as_cancelled(store: Store, hear: Any) -> None:
    store.in_status(Status.CANCELLED, key="k")
    holder = store.schedule(key="k")
    cancelled = hear(message_cancelled)

    store.schedule(key="k", on_conflict="replace")
    store.in_status(Status.CLAIMED, key="other")
    store.schedule(key="other", on_conflict="replace")

    assert cancelled.batches == [[holder.pk]]


def test_a_fact_carries_messages_and_the_alias(store: Store) -> None:
    told: list[dict[str, Any]] = []

    def listener(sender: Any, **kwargs: Any) -> None:
        told.append({"sender": sender, **kwargs})

    message_cancelled.connect(listener)
    message = store.schedule()
    message.cancel()
    message_cancelled.disconnect(listener)

    (fact,) = told
    assert fact["sender"] is ScheduledMessage
    assert fact["backend"] == store.alias
    assert fact["messages"][0].status == Status.CANCELLED


def test_a_failing_listener_harms_nobody(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    def listener(**kwargs: Any) -> None:
        raise ValueError("listener is broken")

    message_scheduled.connect(listener)
    message = store.schedule()
    message_scheduled.disconnect(listener)

    assert store.status(message) == Status.SCHEDULED
    assert "listener is broken" in caplog.text


def test_a_listener_may_use_the_store(store: Store) -> None:
    def listener(messages: list[ScheduledMessage], **kwargs: Any) -> None:
        for message in messages:
            message.hold()

    message_scheduled.connect(listener)
    message = store.schedule(at=T0)
    message_scheduled.disconnect(listener)

    assert store.status(message) == Status.BLOCKED
