"""P20: inside `atomic()` writes follow the commit, in order; arguments are checked at once; nothing comes out of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import transaction

from django_sked.exceptions import IdInUse, InvalidMessage, KeyInUse, PayloadTooLarge
from django_sked.models import ScheduledMessage
from django_sked.signals import message_scheduled, store_error
from django_sked.states import Answer, Status
from tests.contract.store import EVENT, Store, ids


@pytest.fixture
def errors() -> Iterator[list[Any]]:
    told: list[Any] = []

    def note(sender: Any, backend: str, step: str, error: Exception, **kwargs: Any) -> None:
        told.append((backend, step, type(error)))

    store_error.connect(note)
    yield told
    store_error.disconnect(note)


def test_a_message_is_stored_after_the_commit_and_not_before(store: Store) -> None:
    with transaction.atomic():
        message = store.schedule()
        assert message.was_created
        assert message.backend is store.backend
        assert store.search().count() == 0

    assert ids(list(store.search())) == [message.pk]


def test_a_rollback_leaves_nothing(store: Store) -> None:
    stored = store.schedule(key="k")
    with pytest.raises(RuntimeError), transaction.atomic():
        store.schedule()
        store.schedule_many([{"event": "e"}] * 3)
        assert stored.cancel() is Answer.ON_COMMIT
        assert store.objects.hold(key="k", backend=store.alias) is Answer.ON_COMMIT
        raise RuntimeError

    assert ids(list(store.search())) == [stored.pk]
    assert store.status(stored) == Status.SCHEDULED


def test_a_rollback_to_a_savepoint_takes_back_what_came_after_it(store: Store) -> None:
    with transaction.atomic():
        kept = store.schedule()
        with pytest.raises(RuntimeError), transaction.atomic():
            store.schedule()
            raise RuntimeError

    assert ids(list(store.search())) == [kept.pk]


def test_writes_are_applied_in_the_order_in_which_they_were_asked_for(store: Store) -> None:
    with transaction.atomic():
        first = store.schedule(key="k")
        assert store.objects.reschedule(key="k", priority=5, backend=store.alias) is Answer.ON_COMMIT
        second = store.schedule(key="k", on_conflict="replace")
        assert second.hold() is Answer.ON_COMMIT
        assert store.objects.resume(id=second.pk, backend=store.alias) is Answer.ON_COMMIT
        assert store.objects.cancel(key="k", reason="last", backend=store.alias) is Answer.ON_COMMIT

    assert store.find(first).priority == 5
    assert store.find(first).reason == f"replaced by {second.pk}"
    assert (store.status(second), store.find(second).reason) == (Status.CANCELLED, "last")


@pytest.mark.parametrize("own", [{}, {"id": "01234567-89ab-7def-8123-456789abcdef"}])
def test_what_becomes_of_an_instance_before_the_commit_is_not_stored(store: Store, own: dict[str, str]) -> None:
    payload = {"n": [1]}
    with transaction.atomic():
        message = store.schedule(payload=payload, metadata={"m": "1"}, **own)
        payload["n"].append(2)
        message.metadata["m"] = "2"
        message.priority, message.queue, message.event = 999, "not a queue!", "other"

    (found,) = store.search()
    assert (found.payload, found.metadata) == ({"n": [1]}, {"m": "1"})
    assert (found.priority, found.queue, found.event) == (0, "default", EVENT)
    assert not message._state.adding


def test_what_becomes_of_the_arguments_of_a_verb_before_the_commit_is_not_written(store: Store) -> None:
    message = store.schedule()
    payload = {"n": [1]}
    with transaction.atomic():
        assert store.objects.reschedule(id=message.pk, payload=payload, backend=store.alias) is Answer.ON_COMMIT
        payload["n"].append(2)

    assert store.find(message).payload == {"n": [1]}


def test_bulk_verbs_answer_on_how_many_they_will_be_tried(store: Store) -> None:
    messages = [store.schedule() for _ in range(3)]
    with transaction.atomic():
        assert store.search().cancel() == 3
        assert store.search(status="cancelled").count() == 0

    assert {store.status(message) for message in messages} == {Status.CANCELLED}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"event": "not an event!"}, InvalidMessage),
        ({"at": datetime(2030, 1, 1)}, InvalidMessage),
        ({"payload": "x" * 300_000}, PayloadTooLarge),
        ({"payload": {1, 2}}, InvalidMessage),
    ],
)
def test_arguments_are_checked_at_once(store: Store, arguments: dict[str, Any], error: type[Exception]) -> None:
    with transaction.atomic():
        with pytest.raises(error):
            store.schedule(**arguments)
        with pytest.raises(InvalidMessage, match="share"):
            store.schedule_many([{"event": "e", "key": "k"}] * 2)

    assert store.search().count() == 0


def test_a_late_conflict_is_told_and_comes_not_out_of_the_commit(store: Store, errors: list[Any]) -> None:
    taken = store.schedule(key="k")
    with transaction.atomic():
        by_key, by_id, after_it = store.schedule(key="k"), store.schedule(id=taken.pk), store.schedule()

    assert errors == [(store.alias, "schedule", KeyInUse), (store.alias, "schedule", IdInUse)]
    assert [message.was_created for message in (by_key, by_id, after_it)] == [False, False, True]
    assert set(ids(list(store.search()))) == {taken.pk, after_it.pk}


def test_a_redrive_that_finds_its_key_taken_at_the_commit_is_told(store: Store, errors: list[Any]) -> None:
    dead = store.in_status(Status.DEAD, key="k")
    with transaction.atomic():
        store.schedule(key="k")
        assert dead.redrive() is Answer.ON_COMMIT

    assert errors == [(store.alias, "redrive", KeyInUse)]
    assert store.status(dead) == Status.DEAD


def test_a_verb_that_is_too_late_at_the_commit_is_logged(
    store: Store, errors: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    cancelled = store.in_status(Status.CANCELLED)
    caplog.set_level("INFO", "django_sked.backends.redis")
    with transaction.atomic():
        assert cancelled.reschedule(delay=60) is Answer.ON_COMMIT
        assert store.objects.cancel(key="none", backend=store.alias) is Answer.ON_COMMIT

    assert [record.getMessage() for record in caplog.records if record.name == "django_sked.backends.redis"] == [
        f"refused_at_commit backend={store.alias} step=reschedule answer=finished",
        f"refused_at_commit backend={store.alias} step=cancel answer=not_found",
    ]
    assert errors == []


def test_a_server_that_is_away_at_the_commit_is_told(store: Store, server: Any, errors: list[Any]) -> None:
    with transaction.atomic():
        store.schedule()
        store.objects.cancel(key="k", backend=store.alias)
        server.stop()

    assert [(backend, step) for backend, step, _ in errors] == [(store.alias, "schedule"), (store.alias, "cancel")]


def test_the_fact_is_told_when_it_is_one(store: Store) -> None:
    told: list[Any] = []

    def note(messages: list[ScheduledMessage], **kwargs: Any) -> None:
        told.extend(message.pk for message in messages)

    message_scheduled.connect(note)
    try:
        with transaction.atomic():
            message = store.schedule()
            assert told == []
    finally:
        message_scheduled.disconnect(note)

    assert told == [message.pk]


def test_the_alias_whose_transactions_count_is_an_option(make: Any, server: Any) -> None:
    with pytest.raises(Exception, match="transaction_database"):
        make(server.location, transaction_database="nowhere")
    assert Store(make(server.location, transaction_database="default")).schedule(at=datetime.now(UTC)).was_created


def test_with_none_of_them_every_write_is_made_at_once(make: Any, server: Any) -> None:
    store = Store(make(server.location, transaction_database=None))
    with pytest.raises(RuntimeError), transaction.atomic():
        parent = store.schedule()
        child = store.schedule(on_success=parent)
        assert parent.hold() is Answer.HELD
        assert ids(list(store.search())) == [parent.pk, child.pk]
        raise RuntimeError

    assert store.search().count() == 2


def test_a_worker_writes_at_once_whatever_transaction_is_open(store: Store) -> None:
    message = store.schedule()
    with transaction.atomic():
        claimed = store.claim_one()
        store.settle(claimed)
        assert store.status(message) == Status.DELIVERED
