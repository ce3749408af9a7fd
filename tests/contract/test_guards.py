"""What Django's own ways to write do to messages: saving schedules, and nothing overwrites what is live."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from model_bakery import baker

from django_sked.exceptions import IdInUse, InvalidMessage, InvalidPayload, KeyInUse, StoredMessage
from django_sked.models import ScheduledMessage
from django_sked.states import FINISHED, LIVE, Answer, Status
from tests.contract.store import T0, Store, after, elsewhere, ids

pytestmark = pytest.mark.needs("database")


def unsaved(**fields: Any) -> ScheduledMessage:
    return ScheduledMessage(**{"event": "e", "due_at": T0, **fields})


def test_saving_a_new_message_schedules_it(store: Store) -> None:
    message = unsaved(payload={"when": T0}, key="k")

    message.save(using=store.database)

    assert message.was_created
    stored = store.find(message)
    assert (stored.status, stored.next_at, stored.live_key) == (Status.SCHEDULED, T0, "k")
    assert stored.payload == {"when": T0.isoformat()}
    assert store.claim() == [message]


def test_creating_a_message_schedules_it(store: Store) -> None:
    message = store.rows.create(event="e", due_at=T0)

    assert store.claim() == [message]


def test_get_or_create_schedules_once(store: Store) -> None:
    first, created = store.rows.get_or_create(key="k", defaults={"event": "e", "due_at": T0})
    second, again = store.rows.get_or_create(key="k", defaults={"event": "e", "due_at": T0})

    assert (created, again) == (True, False)
    assert first == second


def test_bulk_create_schedules(store: Store) -> None:
    messages = store.rows.bulk_create([unsaved(), unsaved(event="f")])

    assert ids(store.claim()) == ids(messages)


def test_bulk_create_ignores_conflicts_where_it_is_asked_to(store: Store) -> None:
    holder = store.schedule(key="k")

    messages = store.rows.bulk_create([unsaved(key="k"), unsaved()], ignore_conflicts=True)

    assert messages[0] == holder
    assert store.search().count() == 2


def test_bulk_create_never_updates(store: Store) -> None:
    with pytest.raises(StoredMessage, match="bulk_create"):
        store.rows.bulk_create([unsaved()], update_conflicts=True, update_fields=["event"], unique_fields=["id"])


def test_a_baked_message_is_scheduled(store: Store) -> None:
    message = baker.make(ScheduledMessage, _using=store.database)

    assert store.status(message) == Status.SCHEDULED
    assert message.backend is store.backend


@pytest.mark.parametrize("status", list(Status))
def test_a_message_may_be_baked_in_any_status(store: Store, status: str) -> None:
    message = baker.make(ScheduledMessage, status=status, key="k", due_at=T0, _using=store.database)

    stored = store.find(message)
    assert stored.status == status
    assert (stored.finished_at is not None) == (status in FINISHED)
    assert stored.live_key == ("k" if status in LIVE else None)
    assert len(store.claim()) == (status == Status.SCHEDULED)


def test_several_messages_may_be_baked_at_once(store: Store) -> None:
    baker.make(ScheduledMessage, _quantity=3, _bulk_create=True, _using=store.database, due_at=T0)

    assert len(store.claim()) == 3


def test_a_baked_claimed_message_without_a_worker_is_rescued(store: Store) -> None:
    message = baker.make(ScheduledMessage, status="claimed", due_at=T0, _using=store.database)

    assert store.backend.rescue(now=T0) == [message.pk]


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"event": ""}, InvalidMessage, "event"),
        ({"event": None}, InvalidMessage, "event"),
        ({"queue": "two words"}, InvalidMessage, "queue"),
        ({"priority": 101}, InvalidMessage, "priority"),
        ({"priority": "5"}, InvalidMessage, "priority"),
        ({"payload": {1, 2}}, InvalidPayload, "payload"),
        ({"metadata": {"a": 1}}, InvalidPayload, "metadata"),
        ({"metadata": [1]}, InvalidPayload, "metadata"),
        ({"metadata": []}, InvalidPayload, "metadata"),
        ({"key": " k"}, InvalidMessage, "key"),
        ({"max_attempts": 0}, InvalidMessage, "max_attempts"),
        ({"timeout": timedelta(0)}, InvalidMessage, "timeout"),
        ({"due_at": T0.replace(tzinfo=None)}, InvalidMessage, "due_at"),
        ({"next_at": "tomorrow"}, InvalidMessage, "next_at"),
        ({"expires_at": T0}, InvalidMessage, "expire"),
        ({"expires_at": T0.replace(tzinfo=None)}, InvalidMessage, "expires_at"),
        ({"created_at": "yesterday"}, InvalidMessage, "created_at"),
        ({"finished_at": T0.replace(tzinfo=None), "status": "dead"}, InvalidMessage, "finished_at"),
        ({"status": "sent"}, InvalidMessage, "status"),
        ({"id": "not-an-id"}, InvalidMessage, "id"),
        ({"retry_policy": {"kind": "magic"}}, InvalidMessage, "retry"),
        ({"attempt": -1}, InvalidMessage, "attempt"),
        ({"attempt": "many"}, InvalidMessage, "attempt"),
        ({"subject_id": "x" * 65}, InvalidMessage, "subject_id"),
        ({"reason": "x" * 256}, InvalidMessage, "reason"),
        ({"origin": "nowhere"}, InvalidMessage, "origin"),
        ({"errors": "none"}, InvalidMessage, "errors"),
        ({"delivered_to": ["a"]}, InvalidMessage, "delivered_to"),
        ({"result": {1, 2}}, InvalidMessage, "result"),
    ],
)
def test_saving_a_wrong_message_is_refused_and_nothing_is_stored(
    store: Store, fields: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        unsaved(**fields).save(using=store.database)

    assert store.search().count() == 0


def test_saving_with_a_taken_key_or_id_is_refused(store: Store) -> None:
    holder = store.schedule(key="k")

    with pytest.raises(KeyInUse):
        unsaved(key="k").save(using=store.database)
    with pytest.raises(IdInUse):
        unsaved(id=holder.pk).save(using=store.database)

    assert store.search().count() == 1


@pytest.mark.parametrize("status", list(Status))
def test_a_stored_message_cannot_be_saved(store: Store, status: str) -> None:
    message = store.in_status(status)
    before = store.values(message)

    message.event = "changed"
    with pytest.raises(StoredMessage, match=str(message.pk)):
        message.save()
    with pytest.raises(StoredMessage):
        message.save(update_fields=["event"])
    with pytest.raises(StoredMessage):
        message.save(force_insert=True)

    assert store.values(message) == before


def test_a_scheduled_message_cannot_be_saved_again(store: Store) -> None:
    message = store.schedule()

    with pytest.raises(StoredMessage):
        message.save()
    with pytest.raises(InvalidMessage, match="stored already"):
        store.schedule_many([message])


def test_a_message_that_was_claimed_elsewhere_cannot_be_saved_back(store: Store) -> None:
    message = store.schedule()
    loaded = store.find(message)
    elsewhere(store.claim)

    loaded.payload = "from before the claim"
    with pytest.raises(StoredMessage):
        loaded.save()

    assert store.status(message) == Status.CLAIMED


def test_a_message_that_was_claimed_elsewhere_answers_too_late(store: Store) -> None:
    message = store.schedule()
    loaded = store.find(message)
    elsewhere(store.claim)

    assert loaded.reschedule(at=after(days=1)) is Answer.TOO_LATE
    assert (loaded.status, loaded.due_at) == (Status.CLAIMED, T0)


@pytest.mark.parametrize("status", sorted(LIVE))
def test_an_update_or_delete_that_reaches_a_live_row_is_refused(store: Store, status: str) -> None:
    store.in_status(Status.DEAD)
    live = store.in_status(status)
    before = store.values(live)

    with pytest.raises(StoredMessage, match=r"update\(\)"):
        store.rows.all().update(event="changed")
    with pytest.raises(StoredMessage, match=r"delete\(\)"):
        store.rows.all().delete()
    with pytest.raises(StoredMessage, match=r"delete\(\)"):
        live.delete()
    live.event = "changed"
    with pytest.raises(StoredMessage):
        store.rows.bulk_update([live], ["event"])

    assert store.values(live) == before
    assert store.search().count() == 2


@pytest.mark.parametrize("by", ["update", "delete", "its own delete"])
def test_what_is_redriven_after_the_look_at_it_is_neither_updated_nor_deleted(store: Store, by: str) -> None:
    dead = store.in_status(Status.DEAD)
    statements: list[str] = []

    def redrive_before_the_second(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        statements.append(sql)
        if len(statements) == 2:
            assert elsewhere(lambda: store.find(dead).redrive(at=T0)) is Answer.REDRIVEN
        return execute(sql, params, many, context)

    rows = store.rows.filter(pk=dead.pk)
    write = {"update": lambda: rows.update(reason="noted"), "delete": rows.delete, "its own delete": dead.delete}[by]
    with connections[store.database].execute_wrapper(redrive_before_the_second), pytest.raises(StoredMessage):
        write()

    assert (store.status(dead), store.find(dead).reason) == (Status.SCHEDULED, "")


@pytest.mark.parametrize("status", sorted(FINISHED))
def test_finished_rows_may_be_updated_and_deleted(store: Store, status: str) -> None:
    first, second = store.in_status(status), store.in_status(status)
    live = store.schedule()

    assert store.rows.finished().update(reason="noted") == 2
    assert first.delete()[0] == 1
    assert store.rows.finished().delete()[0] == 1

    assert store.rows.count() == 1
    assert store.status(live) == Status.SCHEDULED
    with pytest.raises(ScheduledMessage.DoesNotExist):
        store.find(second)


def test_a_queryset_has_the_verbs_after_any_filter(store: Store) -> None:
    keep = store.schedule(metadata={"customer": "1"})
    gone = store.schedule(metadata={"customer": "2"})

    theirs = store.rows.filter(metadata__customer="2").exclude(queue="other")
    assert theirs.order_by("-due_at").cancel(reason="left") == 1

    assert [store.status(keep), store.status(gone)] == [Status.SCHEDULED, Status.CANCELLED]


def test_a_sliced_ordered_queryset_changes_its_slice(store: Store) -> None:
    messages = [store.schedule(at=after(seconds=n)) for n in range(6)]

    assert store.rows.order_by("-due_at")[:2].hold() == 2

    assert [store.status(message) for message in messages[4:]] == [Status.BLOCKED] * 2


def test_a_message_is_read_again_from_its_own_backend(store: Store) -> None:
    message = store.schedule()
    store.objects.hold(id=message.pk, backend=store.alias)

    message.refresh_from_db()

    assert message.status == Status.BLOCKED


def test_rows_of_any_database_belong_to_its_backend(store: Store) -> None:
    assert store.rows.model.objects.using(store.database).create(event="e", due_at=T0).backend is store.backend
