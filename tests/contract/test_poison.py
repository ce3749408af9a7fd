"""P12: a message that kills its workers is dead after the fourth of them, and no other dies of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.db import connections, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_sked.backends import message_backends
from django_sked.outcomes import MOST_CRASHES, MOST_ERRORS
from django_sked.signals import message_cancelled, message_dead
from django_sked.states import FINISHED, Answer, Status
from tests.contract.store import OTHER_WORKER, T0, WORKER, Store, after


def has_suspects(store: Store, *queues: str, now: Any = T0) -> bool:
    return store.backend.has_suspects(queues or ("default",), now=now)


def test_only_a_worker_lost_with_a_suspect_alone_counts(store: Store) -> None:
    message = store.suspect()
    assert message.crashes == 0

    for crashes in range(1, MOST_CRASHES):
        store.claim_suspect()
        store.backend.rescue(now=T0)
        stored = store.find(message)
        assert (stored.status, stored.suspect, stored.crashes) == (Status.SCHEDULED, True, crashes)


def test_a_message_is_dead_after_its_fourth_worker_at_the_latest(store: Store, hear: Any) -> None:
    dead = hear(message_dead)
    message = store.suspect(key="k", deaths=MOST_CRASHES)
    assert (message.status, dead.batches) == (Status.SCHEDULED, [])
    last = store.claim_one_suspect()

    assert store.backend.rescue(now=after(minutes=1)) == [message.pk]

    stored = store.find(message)
    assert (stored.status, stored.crashes, stored.finished_at) == (Status.DEAD, MOST_CRASHES, after(minutes=1))
    assert (stored.key, stored.live_key, stored.token) == ("k", None, last.token + 1)
    assert (stored.attempt, stored.due_at) == (0, T0)
    assert f"{MOST_CRASHES}" in stored.reason
    assert dead.batches == [[message.pk]]
    assert not has_suspects(store)
    assert store.backend.rescue(now=after(days=1)) == []


def test_its_neighbours_are_delivered_alive_and_only_four_workers_are_lost(store: Store) -> None:
    """1,000 messages claimed in one batch; the receiver of one of them ends the process of whoever calls it."""
    store.schedule_many([{"event": "e", "at": T0}] * 1000)
    poison = store.search()[500].pk
    batch = store.claim(1000)
    assert len(batch) == 1000
    store.backend.rescue(limit=2000, now=T0)
    lost = 1

    while store.backend.has_suspects(["default"], now=T0):
        message = store.claim_one_suspect()
        if message.pk == poison:
            assert store.backend.rescue(now=T0) == [poison]
            lost += 1
        else:
            assert list(store.settle(message).written) == [message.pk]

    assert lost == 4
    assert store.search(status=Status.DELIVERED).count() == 999
    assert [message.pk for message in store.search(status=Status.DEAD)] == [poison]


def test_the_dead_message_tells_which_worker_was_lost(store: Store) -> None:
    message = store.suspect(deaths=MOST_CRASHES)
    store.worker(OTHER_WORKER, lease=5)
    store.claim_suspect(worker=OTHER_WORKER)

    store.backend.rescue(now=after(minutes=1))

    (error,) = store.find(message).errors
    assert (error["type"], error["receiver"], error["worker"]) == ("WorkerLost", "", str(OTHER_WORKER))
    assert error["at"] == after(minutes=1).isoformat(timespec="microseconds")
    assert error["attempt"] == 1
    assert "host here" in error["text"]
    assert "process 1" in error["text"]
    assert store.find(message).reason == error["text"]


def test_a_worker_that_is_forgotten_is_told_by_its_id(store: Store) -> None:
    message = store.suspect(deaths=MOST_CRASHES + 1)

    (error,) = message.errors
    assert str(WORKER) in error["text"]
    assert error["worker"] == str(WORKER)


def test_a_dead_suspect_keeps_its_errors_and_who_received_it(store: Store) -> None:
    errors = [{"attempt": n, "text": f"error {n}"} for n in range(MOST_ERRORS)]
    store.schedule(max_attempts=100)
    message = store.claim_one()
    store.settle(message, "retry", at=T0, errors=errors, delivered_to={"a": "delivered", "b": "buried"})
    store.claim_one()
    store.backend.rescue(now=T0)
    for _ in range(MOST_CRASHES):
        store.claim_suspect()
        store.backend.rescue(now=T0)

    stored = store.find(message)
    assert (stored.status, stored.attempt) == (Status.DEAD, 1)
    assert [error.get("type") for error in stored.errors] == [None] * (MOST_ERRORS - 1) + ["WorkerLost"]
    assert stored.errors[0] == errors[0]
    assert stored.delivered_to == {"a": "delivered"}, "a redrive calls those again that gave up"


def test_a_redriven_message_is_neither_suspect_nor_crashed(store: Store) -> None:
    message = store.suspect(deaths=MOST_CRASHES + 1)

    assert message.redrive(at=T0) is Answer.REDRIVEN

    assert (message.suspect, message.crashes, message.status) == (False, 0, Status.SCHEDULED)
    assert store.claim() == [message]


def test_a_suspect_whose_cancel_was_requested_ends_cancelled(store: Store, hear: Any) -> None:
    message = store.suspect(deaths=MOST_CRASHES)
    store.claim_suspect()
    store.find(message).cancel(reason="enough")
    dead, cancelled = hear(message_dead), hear(message_cancelled)

    assert store.backend.rescue(now=T0) == [message.pk]

    stored = store.find(message)
    assert (stored.status, stored.reason, stored.live_key) == (Status.CANCELLED, "enough", None)
    assert (dead.batches, cancelled.batches) == ([], [[message.pk]])


def test_a_suspect_expires_like_any_other(store: Store) -> None:
    message = store.suspect(expires_at=after(minutes=1))

    assert store.backend.expire(now=after(minutes=1)) == [message]

    assert store.status(message) == Status.EXPIRED
    assert not has_suspects(store, now=after(hours=1))


@pytest.fixture
def keeps_nothing(store: Store) -> Iterator[Store]:
    setting = settings.SKED[store.alias]
    options = setting.get("OPTIONS", {}) | {"retention": dict.fromkeys(FINISHED, 0)}
    with override_settings(SKED=settings.SKED | {store.alias: setting | {"OPTIONS": options}}):
        yield Store(message_backends[store.alias])


def test_a_retention_of_nothing_keeps_nothing_that_a_rescue_ends(keeps_nothing: Store, hear: Any) -> None:
    store = keeps_nothing
    poison = store.suspect(deaths=MOST_CRASHES)
    store.claim_suspect()
    stopped = store.schedule()
    store.claim_one()
    store.find(stopped).cancel()
    dead, cancelled = hear(message_dead), hear(message_cancelled)

    assert set(store.backend.rescue(now=T0)) == {poison.pk, stopped.pk}

    assert store.search().count() == 0
    assert (dead.batches, cancelled.batches) == ([[poison.pk]], [[stopped.pk]])


@pytest.mark.needs("joins_transactions")
def test_a_death_is_told_after_the_commit(store: Store, hear: Any) -> None:
    message = store.suspect(deaths=MOST_CRASHES)
    store.claim_suspect()
    dead = hear(message_dead)

    with transaction.atomic(using=store.database):
        store.backend.rescue(now=T0)
        assert dead.batches == []

    assert dead.batches == [[message.pk]]


@pytest.mark.needs("database")
def test_a_rescue_of_many_takes_no_more_statements_than_one_of_few(store: Store) -> None:
    def statements(count: int) -> int:
        for suspect in (False, True):
            store.schedule_many([{"event": "e", "at": T0}] * count)
            store.claim()
            if not suspect:
                store.backend.rescue(now=T0)
                for _ in range(count):
                    store.claim_suspect()
        with CaptureQueriesContext(connections[store.database]) as captured:
            assert len(store.backend.rescue(now=T0)) == 2 * count
        store.search().cancel()
        return len(captured)

    assert statements(2) == statements(40)
