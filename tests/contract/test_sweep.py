"""Leases, rescue, expiry and pruning: what any worker does for all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings

from django_sked.backends import message_backends
from django_sked.conf import DEFAULT_RETENTION
from django_sked.exceptions import StoredMessage
from django_sked.models import ScheduledMessage
from django_sked.states import FINISHED, PENDING, Status
from tests.contract.store import OTHER_WORKER, T0, WORKER, Store, after, ids

# Leases and rescue


def test_what_a_worker_under_lease_holds_is_left_alone(store: Store) -> None:
    store.worker(lease=30)
    store.schedule()
    message = store.claim_one()

    assert store.backend.rescue(now=after(seconds=30)) == []
    assert store.status(message) == Status.CLAIMED


def test_what_a_worker_held_is_taken_back_when_its_lease_has_lapsed(store: Store) -> None:
    store.worker(lease=30)
    store.schedule(key="k")
    message = store.claim_one()

    assert store.backend.rescue(now=after(seconds=30, microseconds=1)) == [message.pk]

    stored = store.find(message)
    assert (stored.status, stored.claimed_by, stored.claimed_at) == (Status.SCHEDULED, None, None)
    assert stored.token == message.token + 1
    assert (stored.attempt, stored.next_at, stored.live_key) == (0, T0, "k")
    assert store.claim_one_suspect(worker=OTHER_WORKER).token == message.token + 2


def test_a_beat_keeps_the_lease(store: Store) -> None:
    worker = store.worker(lease=30)
    store.schedule()
    store.claim_one()

    store.backend.beat(worker, now=after(seconds=25))

    assert store.backend.rescue(now=after(seconds=50)) == []
    assert store.backend.rescue(now=after(seconds=56)) != []


def test_a_beat_by_the_stores_own_clock_keeps_the_lease(store: Store) -> None:
    worker = store.worker(lease=30)
    store.schedule(at=datetime(2020, 1, 1, tzinfo=UTC))
    store.backend.claim(WORKER, "default", 1)

    assert store.backend.beat(worker) == {}

    assert store.backend.rescue() == []
    now = store.backend.now()
    assert store.backend.rescue(now=now + timedelta(seconds=29)) == []
    assert len(store.backend.rescue(now=now + timedelta(seconds=31))) == 1


def test_a_beat_registers_a_worker_that_was_forgotten(store: Store) -> None:
    worker = store.worker()
    store.backend.retire(worker)
    store.schedule()
    store.claim_one()

    store.backend.beat(worker, now=T0)

    assert store.backend.rescue(now=T0) == []


def test_what_a_worker_without_a_lease_holds_is_rescued_at_once(store: Store) -> None:
    store.schedule()
    message = store.claim_one()

    assert store.backend.rescue(now=T0) == [message.pk]


def test_a_retired_worker_has_no_lease(store: Store) -> None:
    worker = store.worker()
    store.schedule()
    message = store.claim_one()

    store.backend.retire(worker)

    assert store.backend.rescue(now=T0) == [message.pk]


def test_retiring_twice_is_harmless(store: Store) -> None:
    worker = store.worker()
    store.worker(OTHER_WORKER)
    store.schedule()
    held = store.claim_one(worker=OTHER_WORKER)

    store.backend.retire(worker)
    store.backend.retire(worker)

    assert store.backend.rescue(now=T0) == []
    assert list(store.backend.held_by(OTHER_WORKER)) == [held.pk]


def test_only_the_lapsed_workers_messages_are_rescued(store: Store) -> None:
    store.worker(WORKER, lease=10)
    store.worker(OTHER_WORKER, lease=100)
    store.schedule_many([{"event": "e", "at": T0}] * 4)
    lapsed = store.claim(2)
    held = store.claim(2, worker=OTHER_WORKER)

    assert set(store.backend.rescue(now=after(seconds=50))) == set(ids(lapsed))
    assert set(store.backend.held_by(OTHER_WORKER)) == set(ids(held))


def test_a_rescued_message_that_shall_be_cancelled_ends_cancelled(store: Store) -> None:
    store.schedule(key="k")
    message = store.claim_one()
    store.find(message).cancel()

    assert store.backend.rescue(now=T0) == [message.pk]

    stored = store.find(message)
    assert (stored.status, stored.live_key) == (Status.CANCELLED, None)
    assert stored.token > message.token


def test_a_rescue_takes_no_more_than_its_limit(store: Store) -> None:
    store.schedule_many([{"event": "e", "at": T0}] * 5)
    store.claim()

    assert len(store.backend.rescue(limit=3, now=T0)) == 3
    assert len(store.backend.rescue(limit=3, now=T0)) == 2
    assert store.backend.rescue(limit=3, now=T0) == []


@pytest.mark.parametrize("status", [status for status in Status if status != Status.CLAIMED])
def test_only_claimed_messages_are_rescued(store: Store, status: str) -> None:
    message = store.in_status(status)
    before = store.values(message)

    assert store.backend.rescue(now=after(days=9)) == []
    assert store.values(message) == before


def test_a_worker_reads_which_of_its_messages_shall_be_cancelled(store: Store) -> None:
    mine, other = store.worker(WORKER), store.worker(OTHER_WORKER)
    store.schedule_many([{"event": "e", "at": T0}] * 3)
    first, second = store.claim(2)
    theirs = store.claim_one(worker=OTHER_WORKER)

    for message in (second, theirs):
        store.find(message).cancel()

    assert store.backend.beat(mine, now=T0) == {second.pk: second.token}
    assert store.backend.beat(other, now=T0) == {theirs.pk: theirs.token}
    assert set(store.backend.held_by(WORKER)) == {first.pk, second.pk}


def test_a_cancel_that_was_requested_before_a_redrive_is_not_read_after_it(store: Store) -> None:
    worker = store.worker()
    store.schedule()
    message = store.claim_one()
    store.find(message).cancel()
    assert store.backend.beat(worker, now=T0) == {message.pk: message.token}
    store.settle(message, "bury")
    store.find(message).redrive(at=T0)

    again = store.claim_one()

    assert again.token > message.token
    assert store.backend.beat(worker, now=T0) == {}


# Expire


@pytest.mark.parametrize("status", sorted(PENDING))
def test_a_pending_message_past_its_expiry_ends_expired(store: Store, status: str) -> None:
    message = store.in_status(status, expires_at=after(minutes=1), key="k")

    assert store.backend.expire(now=after(minutes=1) - timedelta(microseconds=1)) == []
    assert store.backend.expire(now=after(minutes=1)) == [message]

    stored = store.find(message)
    assert (stored.status, stored.live_key, stored.finished_at is not None) == (Status.EXPIRED, None, True)
    assert store.claim(now=after(days=1)) == []
    assert store.backend.expire(now=after(days=1)) == []


@pytest.mark.parametrize("status", [status for status in Status if status not in PENDING])
def test_only_pending_messages_are_swept(store: Store, status: str) -> None:
    message = store.in_status(status, expires_at=after(minutes=1))
    before = store.values(message)

    assert store.backend.expire(now=after(days=1)) == []
    assert store.values(message) == before


def test_a_message_without_an_expiry_never_expires(store: Store) -> None:
    store.schedule()

    assert store.backend.expire(now=after(days=10_000)) == []


def test_the_sweep_takes_the_longest_expired_first_and_no_more_than_its_limit(store: Store) -> None:
    messages = [store.schedule(expires_at=after(minutes=n)) for n in (3, 1, 2)]

    assert ids(store.backend.expire(limit=2, now=after(hours=1))) == ids([messages[1], messages[2]])
    assert ids(store.backend.expire(limit=2, now=after(hours=1))) == ids([messages[0]])


def test_the_sweep_goes_by_the_stores_own_clock(store: Store) -> None:
    past = store.schedule(at=datetime(2020, 1, 1, tzinfo=UTC), expires_at=datetime(2020, 1, 2, tzinfo=UTC))
    ahead = store.schedule(delay=0, expires_in=3600)

    (expired,) = store.backend.expire()

    assert expired == past
    assert (expired.status, expired.finished_at is not None) == (Status.EXPIRED, True)
    assert store.status(ahead) == Status.SCHEDULED


# Prune


def finished_at(store: Store, status: str, at: datetime) -> ScheduledMessage:
    """A message of this status that ended at this instant."""
    (message,) = store.schedule_many([ScheduledMessage(event="e", due_at=T0, status=status, finished_at=at)])
    return message


@pytest.mark.parametrize("status", sorted(FINISHED))
def test_a_finished_message_is_pruned_after_the_retention_of_its_status(store: Store, status: Any) -> None:
    message = finished_at(store, status, T0)
    kept = DEFAULT_RETENTION[status]

    assert store.backend.prune(now=T0 + kept) == 0
    assert store.backend.prune(now=T0 + kept + timedelta(microseconds=1)) == 1

    with pytest.raises(ScheduledMessage.DoesNotExist):
        store.find(message)


@pytest.mark.parametrize("status", [status for status in Status if status not in FINISHED])
def test_a_live_message_is_never_pruned(store: Store, status: str) -> None:
    message = store.in_status(status)

    assert store.backend.prune(now=after(days=10_000)) == 0
    assert store.status(message) == status


def test_pruning_takes_no_more_than_its_limit(store: Store) -> None:
    for n in range(5):
        finished_at(store, Status.DELIVERED if n % 2 else Status.DEAD, after(seconds=n))

    assert store.backend.prune(limit=3, now=after(days=365)) == 3
    assert store.backend.prune(limit=3, now=after(days=365)) == 2
    assert store.backend.prune(limit=3, now=after(days=365)) == 0


def test_a_status_whose_retention_is_none_is_kept_for_ever(store: Store) -> None:
    setting = settings.SKED[store.alias]
    options = setting.get("OPTIONS", {}) | {"retention": {"dead": None, "delivered": 60}}
    with override_settings(SKED=settings.SKED | {store.alias: setting | {"OPTIONS": options}}):
        store = Store(message_backends[store.alias])
        dead = finished_at(store, Status.DEAD, T0)
        finished_at(store, Status.DELIVERED, T0)

        assert store.backend.prune(now=after(seconds=61)) == 1
        assert store.backend.prune(now=after(days=10_000)) == 0
        assert store.status(dead) == Status.DEAD


def test_a_pruned_message_frees_its_id(store: Store) -> None:
    message = finished_at(store, Status.DELIVERED, T0)
    store.backend.prune(now=after(days=365))

    assert store.schedule(id=message.pk).was_created


def test_a_redriven_message_is_not_pruned(store: Store) -> None:
    message = finished_at(store, Status.DEAD, T0)
    message.redrive(at=T0)

    assert store.backend.prune(now=after(days=10_000)) == 0


def test_a_message_that_is_no_row_cannot_be_deleted_by_hand(store: Store) -> None:
    message = store.in_status(Status.DELIVERED)
    if store.backend.database is not None:
        assert message.delete()[0] == 1
        return

    with pytest.raises(StoredMessage, match="retention"):
        message.delete()
    assert store.status(message) == Status.DELIVERED


def test_what_a_lapsed_worker_holds_is_known_before_it_is_rescued(store: Store) -> None:
    store.schedule()
    assert not store.backend.has_lapsed(now=T0)

    store.claim()

    assert store.backend.has_lapsed(now=after(hours=1))
    store.backend.rescue(now=after(hours=1))
    assert not store.backend.has_lapsed(now=after(hours=1))
