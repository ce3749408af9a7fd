"""What holds for every way to the same verb: one message, a key, or a query; rows or not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core import serializers

from django_sked.exceptions import InvalidMessage, StoredMessage, UnknownArgument
from django_sked.models import ScheduledMessage
from django_sked.signals import message_cancelled
from django_sked.states import Status
from tests.contract.store import T0, Store, after


def test_due_keeps_an_earlier_bound(store: Store) -> None:
    old = store.schedule(at=datetime(2020, 1, 1, tzinfo=UTC))
    store.schedule(at=datetime(2021, 1, 1, tzinfo=UTC))

    found = store.search(due_until=datetime(2020, 12, 1, tzinfo=UTC)).due()

    assert [message.pk for message in found] == [old.pk]
    assert found.cancel() == 1


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda message, store: message.reschedule(eta=T0), "'at'"),
        (lambda message, store: message.redrive(countdown=5), "'delay'"),
        (lambda message, store: store.objects.reschedule(id=message.pk, run_after=T0, backend=store.alias), "'at'"),
        (lambda message, store: store.objects.redrive(id=message.pk, countdown=5, backend=store.alias), "'delay'"),
        (lambda message, store: store.search().reschedule(countdown=5), "'delay'"),
        (lambda message, store: store.search().redrive(eta=T0), "'at'"),
    ],
)
def test_a_wrong_argument_of_a_verb_names_the_right_one(
    store: Store, call: Callable[[ScheduledMessage, Store], object], hint: str
) -> None:
    message = store.schedule()

    with pytest.raises(UnknownArgument, match=hint):
        call(message, store)

    assert store.find(message).due_at == T0


@pytest.mark.parametrize("wrong", [5, "a b", object()])
def test_a_wrong_queue_is_refused_where_one_is_asked_for(store: Store, wrong: Any) -> None:
    for question in (store.objects.keys, store.objects.next_due_at):
        with pytest.raises(InvalidMessage, match="queue"):
            question(wrong, backend=store.alias)


def test_a_query_can_be_awaited(store: Store) -> None:
    store.schedule(at=T0)
    store.schedule(at=after(seconds=1))

    async def ask() -> Any:
        query = store.search()
        first = await query.afirst()
        return await query.acount(), await query.aexists(), first, [message async for message in query]

    count, exists, first, every = async_to_sync(ask)()

    assert (count, exists) == (2, True)
    assert first == every[0]
    assert len(every) == 2


def test_a_rescue_that_ends_a_cancelled_message_is_told(store: Store) -> None:
    told: list[Any] = []

    def note(messages: list[ScheduledMessage], **kwargs: Any) -> None:
        told.extend(message.pk for message in messages)

    message = store.schedule()
    store.claim()
    message.cancel()
    message_cancelled.connect(note)
    try:
        store.backend.rescue(now=after(hours=1))
    finally:
        message_cancelled.disconnect(note)

    assert store.find(message).status == Status.CANCELLED
    assert told == [message.pk]


@pytest.mark.needs("database")
def test_a_fixture_is_checked_like_any_new_message(store: Store) -> None:
    def load(**fields: Any) -> None:
        data = [{"model": "django_sked.scheduledmessage", "pk": fields.pop("pk"), "fields": fields}]
        for item in serializers.deserialize("python", data, using=store.database):
            item.save(using=store.database)

    pk = "01234567-89ab-7def-8123-456789abcdef"
    with pytest.raises(InvalidMessage, match="event"):
        load(pk=pk, event="bad event!", due_at=T0)
    load(pk=pk, event="good", due_at=T0, key="k")

    stored = store.objects.find(id=pk, backend=store.alias)
    assert (stored.event, stored.next_at, stored.live_key) == ("good", T0, "k")
    with pytest.raises(StoredMessage, match=pk):
        load(pk=pk, event="other", due_at=T0)


@pytest.mark.needs("database")
@pytest.mark.parametrize("field", ["status", "key", "next_at", "token"])
def test_update_does_not_make_a_state_that_no_verb_makes(store: Store, field: str) -> None:
    message = store.schedule(key="k")
    message.cancel()

    with pytest.raises(StoredMessage, match=field):
        store.rows.filter(pk=message.pk).update(**{field: None})


@pytest.mark.needs("database")
def test_bulk_create_checks_its_batch_size(store: Store) -> None:
    with pytest.raises(InvalidMessage, match="batch_size"):
        store.rows.bulk_create([ScheduledMessage(event="e", due_at=T0)], batch_size=-5)
