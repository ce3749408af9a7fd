"""A server without memory for more: it says so to who schedules, and everything that makes room goes on."""

from __future__ import annotations

from datetime import timedelta

import pytest

from django_sked.backends.redis import RedisBackend
from django_sked.exceptions import BackendFull
from django_sked.states import Answer, Status
from tests.contract.store import T0, WORKER, Store


def limit(backend: RedisBackend, memory: str) -> None:
    """A server that has more in its memory than that is as full as one can be."""
    backend.connections.client().config_set("maxmemory", memory)


def test_a_server_that_fills_up_refuses_what_does_not_fit_any_more(store: Store) -> None:
    stored = 0
    with pytest.raises(BackendFull):
        for _ in range(1000):
            store.schedule(payload="x" * 100_000)
            stored += 1

    assert stored > 0
    assert store.search().count() == stored


def test_a_full_server_refuses_new_messages_and_stores_no_part_of_them(store: Store, backend: RedisBackend) -> None:
    store.schedule(queue="before")
    limit(backend, "1mb")

    with pytest.raises(BackendFull):
        store.schedule_many([{"event": "e", "at": T0}] * 10)

    assert store.search().count() == 1
    assert store.backend.queues() == ["before"]


def test_what_is_stored_is_delivered_retried_rescued_and_cancelled_all_the_same(
    store: Store, backend: RedisBackend
) -> None:
    messages = [store.schedule("e", n) for n in range(5)]
    limit(backend, "1mb")

    claimed = store.claim()
    assert claimed == messages
    store.settle(claimed[0], "deliver")
    store.settle(claimed[1], "retry", delay=5.0, errors=[{"text": "no"}])
    store.settle(claimed[2], "release")
    assert claimed[3].cancel() is Answer.TOO_LATE
    assert store.backend.rescue(now=T0) == [claimed[3].pk, claimed[4].pk]

    statuses = [store.status(message) for message in messages]
    assert statuses == [Status.DELIVERED, *[Status.SCHEDULED] * 2, Status.CANCELLED, Status.SCHEDULED]
    assert messages[2].cancel() is Answer.CANCELLED


def test_a_lease_is_renewed_and_old_messages_are_pruned(store: Store, backend: RedisBackend) -> None:
    message = store.schedule()
    store.settle(store.claim_one())
    limit(backend, "1mb")

    store.worker(WORKER)
    assert backend.prune(now=T0 + timedelta(days=8)) == 1
    assert not backend._records.read([message.pk])[1]


def test_it_is_an_expected_error_that_ends_when_there_is_room_again(store: Store, backend: RedisBackend) -> None:
    limit(backend, "1mb")
    with pytest.raises(BackendFull) as raised:
        store.schedule(payload="x" * 10_000)
    assert backend.is_expected(raised.value)

    limit(backend, "64mb")

    assert store.schedule(payload="x" * 10_000).was_created
