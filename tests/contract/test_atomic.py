"""P6: what a receiver writes and what becomes of its message are one transaction, fenced by the token."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.db import connections, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_sked.backends import message_backends
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.states import FINISHED, Status
from tests.contract.store import OTHER_WORKER, T0, Store, after, elsewhere
from tests.contract.test_fence import OUTCOMES, error

RECEIVED = {"shop.pay": "delivered"}
atomic = pytest.mark.needs("supports_atomic_receivers")


def outcome(message: ScheduledMessage, step: Any, **how: Any) -> Outcome:
    return Outcome(id=message.pk, token=how.pop("token", message.token), step=step, **how)


def settle_now(store: Store, message: ScheduledMessage, step: Any = "deliver", **how: Any) -> dict[str, Any] | None:
    """In a transaction of its own, as at the end of an atomic receiver."""
    with store.backend.receiver_transaction(30.0):
        return store.backend.settle_now(outcome(message, step, **how), now=T0)


# Keep: on every backend


def test_a_message_that_is_kept_stays_claimed_and_notes_who_received_it(store: Store) -> None:
    store.schedule(key="k")
    message = store.claim_one()
    before = store.values(message)

    settled = store.settle(message, "keep", delivered_to=RECEIVED)

    assert store.values(message) == before | {"delivered_to": RECEIVED}
    written = settled.written[message.pk]
    assert (written["status"], written["delivered_to"]) == (Status.CLAIMED, RECEIVED)
    assert (settled.lost, settled.busy, settled.repeated) == ([], [], {})


def test_a_message_that_is_kept_keeps_errors_too(store: Store) -> None:
    store.schedule()
    message = store.claim_one()
    before = store.values(message)

    store.settle(message, "keep", delivered_to=RECEIVED, errors=[error(1)])

    assert store.values(message) == before | {"delivered_to": RECEIVED, "errors": [error(1)]}


def test_a_kept_message_is_settled_by_its_holder_afterwards(store: Store) -> None:
    store.schedule()
    message = store.claim_one()
    store.settle(message, "keep", delivered_to=RECEIVED)
    store.settle(message, "keep", delivered_to=RECEIVED | {"mail": "delivered"})

    store.settle(message, "retry", delay=5, delivered_to=RECEIVED | {"mail": "delivered"})

    stored = store.find(message)
    assert (stored.status, stored.attempt) == (Status.SCHEDULED, 1)
    assert stored.delivered_to == RECEIVED | {"mail": "delivered"}


def test_a_kept_suspect_stays_suspect(store: Store) -> None:
    store.suspect()
    message = store.claim_one_suspect()

    store.settle(message, "keep", delivered_to=RECEIVED)

    assert store.find(message).suspect


def test_a_kept_message_whose_worker_is_lost_remembers_who_received_it(store: Store) -> None:
    store.schedule()
    message = store.claim_one()
    store.settle(message, "keep", delivered_to=RECEIVED)

    store.backend.rescue(now=T0)

    assert store.claim_one_suspect().delivered_to == RECEIVED


def test_only_the_holder_keeps_a_message(store: Store) -> None:
    store.schedule()
    late = store.claim_one()
    store.backend.rescue(now=T0)
    successor = store.claim_one_suspect(worker=OTHER_WORKER)

    settled = store.settle(late, "keep", delivered_to=RECEIVED)

    assert [outcome.id for outcome in settled.lost] == [late.pk]
    assert store.find(successor).delivered_to == {}


# In the transaction of the receiver


def test_the_flag_says_whether_there_is_such_a_transaction(store: Store) -> None:
    assert store.backend.supports_atomic_receivers is (store.backend.database is not None)
    if not store.backend.supports_atomic_receivers:
        with pytest.raises(NotImplementedError):
            store.backend.receiver_transaction(30.0)
        with pytest.raises(NotImplementedError):
            store.backend.settle_now(Outcome(id=store.schedule().pk, token=1, step="deliver"))


@atomic
@pytest.mark.parametrize(("step", "how", "status"), [*OUTCOMES, ("keep", {"delivered_to": RECEIVED}, Status.CLAIMED)])
def test_a_settle_in_the_transaction_writes_what_any_settle_writes(
    store: Store, step: str, how: dict[str, Any], status: str
) -> None:
    store.schedule_many([{"event": "e", "at": T0, "payload": [1], "metadata": {"a": "b"}}] * 2)
    one, other = store.claim()

    fields = settle_now(store, one, step, errors=[error(1)], **how)
    store.settle(other, step, errors=[error(1)], **how)

    ours, theirs = store.values(one), store.values(other)
    assert fields is not None
    assert {name: ours[name] for name in fields} == fields
    assert ours["status"] == status
    assert ours | {"id": other.pk} == theirs


@atomic
def test_what_the_receiver_wrote_and_its_settle_are_undone_together(store: Store) -> None:
    store.schedule()
    message = store.claim_one()
    before = store.values(message)

    with pytest.raises(ZeroDivisionError), store.backend.receiver_transaction(30.0):
        successor = store.schedule("follow.up")
        assert store.backend.settle_now(outcome(message, "deliver"), now=T0)
        raise ZeroDivisionError

    assert store.values(message) == before
    with pytest.raises(ScheduledMessage.DoesNotExist):
        store.find(successor)
    assert list(store.settle(message).written) == [message.pk]


@atomic
@pytest.mark.parametrize(("step", "how", "_status"), OUTCOMES)
def test_the_fence_refuses_who_has_lost_the_message(store: Store, step: str, how: dict[str, Any], _status: str) -> None:
    store.schedule()
    late = store.claim_one()
    store.backend.rescue(now=T0)
    after_rescue = settle_now(store, late, step, **how)
    successor = store.claim_one_suspect(worker=OTHER_WORKER)
    before = store.values(successor)

    assert after_rescue is None
    assert settle_now(store, late, step, **how) is None
    assert settle_now(store, successor, step, token=successor.token + 1, **how) is None
    assert store.values(successor) == before


@atomic
def test_the_fence_refuses_what_is_settled_or_gone(store: Store) -> None:
    store.schedule()
    message = store.claim_one()
    store.settle(message, "retry", delay=5)
    before = store.values(message)

    assert settle_now(store, message) is None
    assert store.values(message) == before
    assert settle_now(store, message, token=0) is None
    store.rows.filter(pk=message.pk)._raw_delete(store.database)
    assert settle_now(store, message) is None


@atomic
def test_a_message_that_is_to_be_cancelled_does_not_come_again(store: Store) -> None:
    store.schedule()
    message = store.claim_one()
    store.find(message).cancel(reason="enough")

    fields = settle_now(store, message, "retry", delay=5)

    assert fields is not None
    assert (fields["status"], store.find(message).reason) == (Status.CANCELLED, "enough")


@atomic
def test_no_lock_is_taken_before_the_write_and_none_is_skipped(store: Store) -> None:
    store.schedule()
    message = store.claim_one()

    with CaptureQueriesContext(connections[store.database]) as captured:
        settle_now(store, message)

    sent = [query["sql"] for query in captured if "scheduledmessage" in query["sql"]]
    assert [sql.split()[0] for sql in sent] == ["SELECT", "UPDATE"]
    assert not any("FOR " in sql or "LOCKED" in sql for sql in sent)


@atomic
def test_a_settle_waits_for_who_has_the_row_locked(store: Store) -> None:
    if not connections[store.database].features.has_select_for_update:
        pytest.skip("this database has no row locks")
    store.schedule()
    message = store.claim_one()
    results: list[Any] = []

    def settle() -> None:
        results.append(elsewhere(lambda: settle_now(store, message)))

    thread = threading.Thread(target=settle, daemon=True)
    with transaction.atomic(using=store.database):
        store.rows.select_for_update().get(pk=message.pk)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive(), "it did not wait"
    thread.join(30)

    assert [fields["status"] for fields in results] == [Status.DELIVERED]
    assert store.status(message) == Status.DELIVERED


@atomic
def test_a_cancel_that_comes_between_the_look_and_the_write_is_obeyed(store: Store) -> None:
    if not connections[store.database].features.has_select_for_update:
        pytest.skip("this database has one writer")
    store.schedule()
    message = store.claim_one()
    cancelled: list[bool] = []

    def cancel_before_the_update(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("UPDATE") and not cancelled:
            cancelled.append(True)
            elsewhere(lambda: store.find(message).cancel(reason="enough"))
        return execute(sql, params, many, context)

    with connections[store.database].execute_wrapper(cancel_before_the_update):
        fields = settle_now(store, message, "retry", delay=5)

    assert cancelled
    assert fields is not None
    assert (fields["status"], store.status(message)) == (Status.CANCELLED, Status.CANCELLED)


@pytest.fixture
def keeps_nothing(store: Store) -> Iterator[Store]:
    setting = settings.SKED[store.alias]
    options = setting.get("OPTIONS", {}) | {"retention": dict.fromkeys(FINISHED, 0)}
    with override_settings(SKED=settings.SKED | {store.alias: setting | {"OPTIONS": options}}):
        yield Store(message_backends[store.alias])


@atomic
def test_a_retention_of_nothing_deletes_it_in_the_transaction(keeps_nothing: Store) -> None:
    store = keeps_nothing
    store.schedule()
    message = store.claim_one()

    assert settle_now(store, message, token=message.token + 1) is None
    assert store.search().count() == 1
    fields = settle_now(store, message)

    assert fields is not None
    assert fields["status"] == Status.DELIVERED
    assert store.search().count() == 0


@atomic
def test_a_receivers_transaction_is_never_part_of_another(store: Store) -> None:
    with (
        transaction.atomic(using=store.database),
        pytest.raises(RuntimeError, match="durable"),
        store.backend.receiver_transaction(30.0),
    ):
        raise AssertionError("it has begun")


@atomic
def test_what_happens_after_the_commit_happens_after_it(store: Store) -> None:
    store.schedule()
    message = store.claim_one()
    seen: list[str] = []

    with store.backend.receiver_transaction(30.0):
        store.backend.after_commit(lambda: seen.append(store.status(message)))
        store.backend.settle_now(outcome(message, "deliver"), now=after(seconds=1))
        assert seen == []

    assert seen == [Status.DELIVERED]
