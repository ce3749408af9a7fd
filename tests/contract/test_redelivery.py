"""What has ended is delivered once more by a copy, which names it as its origin."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction

from django_sked.exceptions import InvalidMessage, KeyInUse
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.revising import REDELIVERABLE
from django_sked.states import FINISHED, LIVE, Status
from tests.contract.store import T0, Store, after
from tests.testapp.models import Note

LATER = after(days=3)
#: What a copy has of the message that it is a copy of.
SAME = (
    *("event", "queue", "priority", "payload", "metadata", "schema_version", "key", "subject_type", "subject_id"),
    *("timeout", "max_attempts", "retry_policy"),
)


@pytest.mark.parametrize("status", sorted(REDELIVERABLE))
def test_what_has_ended_is_delivered_once_more_by_a_copy(store: Store, status: str) -> None:
    ended = store.in_status(
        status,
        payload={"keep": ["me", 2**53]},
        metadata={"tenant": "a"},
        priority=7,
        key="k",
        timeout=timedelta(seconds=9),
        max_attempts=3,
        retry=Fixed(60),
        subject=Note(pk=42, text="x"),
    )
    before = store.values(ended)

    copy = ended.redeliver(at=LATER)

    stored = store.find(copy)
    assert (stored.origin, stored.status, stored.due_at, stored.next_at) == (ended.pk, Status.SCHEDULED, LATER, LATER)
    assert [getattr(stored, name) for name in SAME] == [before[name] for name in SAME]
    assert (stored.attempt, stored.errors, stored.delivered_to, stored.finished_at) == (0, [], {}, None)
    assert (copy.was_created, copy.pk != ended.pk, copy.backend) == (True, True, store.backend)
    assert store.values(ended) == before


def test_the_copy_is_claimed_and_delivered_like_any_message(store: Store) -> None:
    ended = store.in_status(Status.DELIVERED, queue="q")

    copy = ended.redeliver(at=T0)

    claimed = store.claim_one(queue="q")
    assert (claimed.pk, claimed.origin) == (copy.pk, ended.pk)
    store.settle(claimed)
    assert store.status(copy) == Status.DELIVERED


def test_a_copy_may_be_redelivered_in_turn_and_names_the_copy(store: Store) -> None:
    ended = store.in_status(Status.DELIVERED)
    copy = ended.redeliver()
    copy.cancel()

    assert copy.redeliver().origin == copy.pk


def test_without_a_time_the_copy_is_due_now(store: Store) -> None:
    copy = store.in_status(Status.DELIVERED).redeliver()

    assert abs(copy.due_at - store.backend.now()) < timedelta(seconds=30)
    assert store.find(copy).is_live


def test_a_copy_may_have_another_payload(store: Store) -> None:
    ended = store.in_status(Status.DELIVERED, payload={"country": "Atlantis"})

    copy = store.objects.redeliver(id=ended.pk, payload={"country": "Greece"}, delay=60, backend=store.alias)

    assert (store.find(copy).payload, store.find(ended).payload) == ({"country": "Greece"}, {"country": "Atlantis"})


def test_the_newest_that_held_a_key_is_redelivered_by_it(store: Store) -> None:
    store.in_status(Status.DELIVERED, key="k", payload="old")
    newest = store.in_status(Status.CANCELLED, key="k", payload="new")

    copy = store.objects.redeliver(key="k", at=LATER, backend=store.alias)

    assert (copy.origin, copy.payload, copy.live_key) == (newest.pk, "new", "k")


def test_a_key_keeps_what_has_ended_from_being_redelivered_twice(store: Store) -> None:
    ended = store.in_status(Status.DELIVERED, key="k")
    copy = ended.redeliver(at=LATER)

    with pytest.raises(KeyInUse, match=str(copy.pk)):
        ended.redeliver(at=LATER)

    assert store.search().count() == 2


def test_an_expiry_keeps_its_distance_to_the_due_time(store: Store) -> None:
    ended = store.in_status(Status.EXPIRED, expires_at=after(minutes=5))

    assert store.find(ended.redeliver(at=LATER)).expires_at == LATER + timedelta(minutes=5)


def test_a_copy_belongs_to_no_recurrence(store: Store) -> None:
    tick = ScheduledMessage(event="e", due_at=T0, recurrence_id=uuid4(), tick_at=T0)
    (message,) = store.schedule_many([tick])
    message.cancel()

    copy = store.find(message.redeliver(at=LATER))

    assert (copy.recurrence_id, copy.tick_at, copy.workflow_id) == (None, None, None)


@pytest.mark.parametrize("status", sorted({*LIVE, Status.DEAD}))
def test_what_is_live_or_dead_is_not_redelivered_and_what_is_for_it_is_named(store: Store, status: str) -> None:
    message = store.in_status(status)
    instead = "redrive" if status == Status.DEAD else "reschedule"

    with pytest.raises(InvalidMessage, match=rf"{message.pk} is {status}.*Use {instead}\(\)"):
        message.redeliver()

    assert store.search().count() == 1


def test_every_status_is_either_redeliverable_or_has_a_verb_of_its_own() -> None:
    assert REDELIVERABLE | {Status.DEAD} == FINISHED


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"at": T0, "delay": 1}, "at= or delay="),
        ({"delay": "soon"}, "delay"),
        ({"payload": {"x": object()}}, "payload"),
        ({"queue": "mail"}, "'queue'"),
        ({"at": T0.replace(tzinfo=None)}, "at"),
    ],
)
def test_a_wrong_argument_is_refused_and_nothing_is_stored(
    store: Store, arguments: dict[str, object], named: str
) -> None:
    ended = store.in_status(Status.DELIVERED)

    with pytest.raises(InvalidMessage, match=named):
        ended.redeliver(**arguments)  # type: ignore[arg-type]

    assert store.search().count() == 1


def test_what_is_not_there_is_not_redelivered(store: Store) -> None:
    missing = uuid4()

    with pytest.raises(ScheduledMessage.DoesNotExist, match=str(missing)):
        store.objects.redeliver(id=missing, backend=store.alias)
    with pytest.raises(InvalidMessage, match="exactly one"):
        store.objects.redeliver(backend=store.alias)


@pytest.mark.needs("joins_transactions")
def test_a_redelivery_that_is_rolled_back_was_never_there(store: Store) -> None:
    ended = store.in_status(Status.DELIVERED)

    with transaction.atomic(using=store.database):
        ended.redeliver()
        transaction.set_rollback(True, using=store.database)

    assert store.search().count() == 1


def test_in_a_transaction_that_it_cannot_join_the_copy_follows_the_commit(store: Store) -> None:
    if store.backend.joins_transactions or not store.backend.reaches_other_processes:
        pytest.skip("it can")
    ended = store.in_status(Status.DELIVERED)

    with transaction.atomic():
        copy = ended.redeliver(at=LATER)
        assert store.search().count() == 1

    assert store.find(copy).origin == ended.pk


def test_asynchronous_code_redelivers_too(store: Store) -> None:
    ended = store.in_status(Status.DELIVERED)

    copies = [
        async_to_sync(ended.aredeliver)(delay=60),
        async_to_sync(store.objects.aredeliver)(id=ended.pk, backend=store.alias),
    ]

    assert [store.find(copy).origin for copy in copies] == [ended.pk] * 2
