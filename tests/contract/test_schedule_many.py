"""What a batch of messages keeps, and that it is stored as a whole or not at all."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.test import override_settings

from django_sked.backends import message_backends
from django_sked.exceptions import IdInUse, InvalidMessage
from django_sked.models import ScheduledMessage
from tests.contract.store import EVENT, T0, Store, after, ids


@pytest.mark.parametrize("size", [0, 1, 5, 100, 1_000])
def test_a_batch_is_stored_and_returned_in_its_order(store: Store, size: int) -> None:
    messages = store.schedule_many({"event": EVENT, "payload": n, "at": after(seconds=n)} for n in range(size))

    assert [message.payload for message in messages] == list(range(size))
    assert all(message.was_created for message in messages)
    assert ids(list(store.search())) == ids(messages)


def test_a_batch_larger_than_one_statement_is_stored(store: Store) -> None:
    messages = store.schedule_many([{"event": EVENT, "key": f"k{n}"} for n in range(25)], batch_size=10)

    assert store.search().count() == len(messages) == 25


def test_a_batch_takes_dictionaries_and_unsaved_messages(store: Store) -> None:
    unsaved = ScheduledMessage(event="b", due_at=T0)

    first, second = store.schedule_many([{"event": "a", "at": T0}, unsaved])

    assert [store.find(first).event, store.find(second).event] == ["a", "b"]
    assert second.pk == unsaved.pk


def test_an_unsaved_message_has_the_defaults_of_the_options(store: Store) -> None:
    setting = settings.SKED[store.alias]
    options = setting.get("OPTIONS", {}) | {"max_attempts": 2, "timeout": 60}
    with override_settings(SKED=settings.SKED | {store.alias: setting | {"OPTIONS": options}}):
        store = Store(message_backends[store.alias])
        given = {"event": "a", "due_at": T0}

        messages = store.schedule_many(
            [ScheduledMessage(**given), ScheduledMessage(**given, max_attempts=5, timeout=None), {"event": "a"}]
        )

        found = [store.find(message) for message in messages]
    minute = timedelta(seconds=60)
    assert [(each.max_attempts, each.timeout) for each in found] == [(2, minute), (5, None), (2, minute)]


def test_a_batch_with_a_wrong_message_is_refused_as_a_whole_and_names_it(store: Store) -> None:
    with pytest.raises(InvalidMessage, match="Message 2: priority"):
        store.schedule_many([{"event": "a"}, {"event": "b"}, {"event": "c", "priority": 101}])

    assert store.search().count() == 0


def test_a_batch_with_a_taken_id_is_refused_as_a_whole(store: Store) -> None:
    holder = store.schedule()

    with pytest.raises(IdInUse, match=str(holder.pk)):
        store.schedule_many([{"event": "a"}, {"event": "b", "id": holder.pk}, {"event": "c"}])

    assert ids(list(store.search())) == [holder.pk]


def test_a_batch_that_names_one_id_twice_is_refused(store: Store) -> None:
    id = uuid4()

    with pytest.raises(InvalidMessage, match=str(id)):
        store.schedule_many([{"event": "a", "id": id}, {"event": "b", "id": id}])

    assert store.search().count() == 0


def test_many_of_one_kind_are_each_checked_and_share_nothing_that_can_be_changed(store: Store) -> None:
    kind: dict[str, Any] = {"event": EVENT, "queue": "mail", "priority": 1, "at": T0, "max_attempts": 3}
    messages = store.schedule_many({**kind, "payload": payload} for payload in ({"i": 1}, {"i": 1.5}, {"i": True}, [2]))

    for message in messages:
        message.metadata["changed"] = message.delivered_to["changed"] = str(message.pk)
        message.errors.append(str(message.pk))
    stored = [store.find(message.pk) for message in messages]
    assert [repr(message.payload) for message in stored] == ["{'i': 1}", "{'i': 1.5}", "{'i': True}", "[2]"]
    assert {(m.queue, m.priority, m.due_at, m.max_attempts) for m in stored} == {("mail", 1, T0, 3)}
    assert all(message.metadata == {} and message.errors == [] for message in stored)
    assert len({message.metadata["changed"] for message in messages}) == 4
    assert [len(message.errors) for message in messages] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"priority": True}, "Message 2: priority must be a whole number"),
        ({"payload": {"a": float("nan")}}, "Message 2: payload.a must be a finite number"),
        ({"at": T0.replace(tzinfo=None)}, "Message 2: at must be an aware datetime"),
        ({"nonsense": 1}, "Message 2: A message takes no argument"),
    ],
)
def test_many_of_one_kind_are_refused_for_the_one_that_is_wrong(store: Store, wrong: dict[str, Any], text: str) -> None:
    kind: dict[str, Any] = {"event": EVENT, "priority": 1, "at": T0, "payload": {"a": 1.0}}

    with pytest.raises(InvalidMessage, match=text):
        store.schedule_many([kind, kind, kind | wrong, kind])
    assert store.search().count() == 0
