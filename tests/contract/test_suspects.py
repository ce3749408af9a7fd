"""P12: what a lost worker held is suspect, and is claimed alone; who is lost with it alone counts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.db import connections, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_sked.backends import message_backends
from django_sked.models import ScheduledMessage
from django_sked.outcomes import MOST_CRASHES, MOST_ERRORS
from django_sked.signals import message_cancelled, message_dead
from django_sked.states import FINISHED, Answer, Status
from tests.contract.store import OTHER_WORKER, T0, WORKER, Store, after, elsewhere, ids, together

SETTLES: list[tuple[str, dict[str, Any], str]] = [
    ("deliver", {}, Status.DELIVERED),
    ("deliver", {"delivered_to": {"a": "delivered", "b": "delivered"}}, Status.DELIVERED),
    ("retry", {"delay": 5}, Status.SCHEDULED),
    ("bury", {"reason": "no"}, Status.DEAD),
    ("expire", {}, Status.EXPIRED),
    ("release", {"counted": False, "unroutable": True, "delay": 5}, Status.SCHEDULED),
]


def has_suspects(store: Store, *queues: str, now: Any = T0) -> bool:
    return store.backend.has_suspects(queues or ("default",), now=now)


# A rescue makes suspects


def test_a_rescued_message_is_suspect(store: Store) -> None:
    store.schedule(key="k")
    message = store.claim_one()

    store.backend.rescue(now=T0)

    stored = store.find(message)
    assert (stored.status, stored.suspect, stored.crashes) == (Status.SCHEDULED, True, 0)
    assert (stored.claimed_by, stored.claimed_at, stored.live_key) == (None, None, "k")
    assert (stored.attempt, stored.next_at, stored.token) == (0, T0, message.token + 1)


def test_a_suspect_is_claimed_by_no_claim_of_many(store: Store) -> None:
    store.suspect()
    innocent = store.schedule()

    assert store.claim(now=after(days=1)) == [innocent]
    assert store.backend.claim(OTHER_WORKER, "default", 10, ahead=5.0, quick=True, now=after(days=1)) == []


def test_a_suspect_is_not_counted_among_what_is_due_next(store: Store) -> None:
    store.suspect()
    assert store.objects.next_due_at(backend=store.alias) is None

    store.schedule(at=after(hours=1))

    assert store.objects.next_due_at(backend=store.alias) == after(hours=1)
    assert store.objects.next_due_at("default", backend=store.alias) == after(hours=1)


def test_a_queue_in_which_only_suspects_wait_is_listed(store: Store) -> None:
    store.schedule(queue="b")
    store.suspect(queue="a")
    store.suspect(queue="c")

    assert store.backend.queues() == ["a", "b", "c"]


# Claim


def test_a_suspect_is_claimed_alone(store: Store) -> None:
    message = store.suspect()
    store.suspect(at=after(seconds=1), now=after(seconds=1))
    store.schedule()

    claimed = store.claim_suspect(now=after(seconds=1))

    assert claimed is not None
    assert claimed == message
    assert {name: getattr(claimed, name) for name in store.values(claimed)} == store.values(claimed)
    assert (claimed.status, claimed.suspect, claimed.crashes) == (Status.CLAIMED, True, 0)
    assert (claimed.claimed_by, claimed.claimed_at) == (WORKER, after(seconds=1))
    assert claimed.token == message.token + 1
    assert claimed.backend is store.backend
    assert store.backend.held_by(WORKER) == {claimed.pk: claimed.token}


def test_without_suspects_none_is_claimed(store: Store) -> None:
    assert store.claim_suspect() is None

    store.schedule()

    assert not has_suspects(store)
    assert store.claim_suspect() is None


def test_a_suspect_is_due_at_its_time_and_not_a_microsecond_before(store: Store) -> None:
    message = store.suspect()
    early = T0 - timedelta(microseconds=1)

    assert not has_suspects(store, now=early)
    assert store.claim_suspect(now=early) is None
    assert has_suspects(store)
    assert store.claim_suspect() == message
    assert not has_suspects(store)


def test_suspects_are_due_by_the_stores_own_clock(store: Store) -> None:
    message = store.schedule(delay=0)
    store.backend.claim(WORKER, "default", 1)
    store.backend.rescue()

    assert store.backend.has_suspects(["default"])
    assert store.backend.claim_suspect(WORKER, ["default"]) == message


def test_suspects_are_claimed_from_the_queues_asked_for(store: Store) -> None:
    message = store.suspect(queue="mail")

    for queues in (set(), {"Mail"}, {"mail2", "other"}):
        assert not has_suspects(store, *(queues or {"default"}))
        assert not store.backend.has_suspects(queues, now=T0)
        assert store.backend.claim_suspect(WORKER, queues, now=T0) is None
    assert store.backend.has_suspects({"mail", "other"}, now=T0)
    assert store.backend.claim_suspect(WORKER, {"mail", "other"}, now=T0) == message


def test_suspects_come_by_priority_then_time_then_id_whatever_their_queue(store: Store) -> None:
    third = store.suspect(at=after(seconds=2), now=after(seconds=9), queue="a")
    second = store.suspect(at=after(seconds=1), now=after(seconds=9), queue="b")
    first = store.suspect(at=after(seconds=3), now=after(seconds=9), queue="b", priority=5)
    fourth = store.suspect(at=after(seconds=2), now=after(seconds=9), queue="b")
    last = store.suspect(at=after(seconds=1), now=after(seconds=9), queue="a", priority=-5)

    claimed = [store.claim_suspect("a", "b", now=after(seconds=9)) for _ in range(5)]

    assert claimed == [first, second, third, fourth, last]
    assert store.claim_suspect("a", "b", now=after(seconds=9)) is None


def test_two_workers_never_get_the_same_suspect(store: Store) -> None:
    store.schedule_many([{"event": "e", "at": T0}] * 40)
    store.claim()
    store.backend.rescue(now=T0)

    def claim_all(worker: UUID) -> list[ScheduledMessage]:
        store.backend.prepare_thread()
        found = []
        while has_suspects(store):
            found += [message for message in [store.claim_suspect(worker=worker)] if message is not None]
        return found

    results = together(lambda: claim_all(WORKER), lambda: claim_all(OTHER_WORKER))

    assert not [result for result in results if isinstance(result, Exception)]
    claimed = [message.pk for result in results for message in result]
    assert len(claimed) == len(set(claimed)) == 40


@pytest.mark.needs("database")
def test_a_suspect_that_another_transaction_has_locked_is_skipped(store: Store) -> None:
    if not connections[store.database].features.has_select_for_update_skip_locked:
        pytest.skip("this database has no row locks")
    locked = store.suspect(priority=1)
    free = store.suspect()

    with transaction.atomic(using=store.database):
        store.rows.select_for_update().get(pk=locked.pk)
        assert elsewhere(store.claim_suspect) == free

    assert store.claim_suspect() == locked


@pytest.mark.needs("database")
def test_a_suspect_that_cannot_be_read_holds_up_no_other(store: Store) -> None:
    bad, good = store.suspect(priority=1), store.suspect()
    connection = connections[store.database]
    id = str(bad.pk) if connection.features.has_native_uuid_field else bad.pk.hex
    with connection.cursor() as cursor:
        sql = "UPDATE django_sked_scheduledmessage SET payload = %s WHERE id = %s"
        cursor.execute(sql, ["[" + "1" * 5000 + "]", id])

    assert store.claim_suspect() == good

    row = store.rows.filter(pk=bad.pk).values("status", "reason", "next_at", "suspect").get()
    assert (row["status"], row["suspect"]) == (Status.SCHEDULED, True)
    assert row["reason"].startswith("cannot be read")
    assert row["next_at"] > after(minutes=59)


# Settle


@pytest.mark.parametrize(("step", "how", "status"), SETTLES)
def test_any_settle_clears_a_suspicion(store: Store, step: str, how: dict[str, Any], status: str) -> None:
    store.suspect()
    message = store.claim_one_suspect()

    settled = store.settle(message, step, **how)

    stored = store.find(message)
    assert (stored.status, stored.suspect) == (status, False)
    assert settled.written[message.pk]["suspect"] is False


def test_a_suspect_that_was_put_off_is_claimed_among_others(store: Store) -> None:
    store.suspect()
    message = store.claim_one_suspect()
    store.settle(message, "retry", at=T0)

    assert store.claim() == [message]


def test_a_suspect_released_before_its_start_stays_suspect(store: Store) -> None:
    store.suspect()
    message = store.claim_one_suspect()

    store.settle(message, "release", counted=False)

    assert (store.find(message).suspect, store.find(message).crashes) == (True, 0)
    assert store.claim() == []
    assert store.claim_suspect() == message


def test_a_settle_of_many_clears_no_suspicion_of_others(store: Store) -> None:
    suspect = store.suspect()
    store.schedule()

    store.settle(store.claim_one(), "deliver")

    assert store.find(suspect).suspect


# Death


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
    assert error["class"] == "django_sked.contrib.tasks.exceptions.WorkerLost"
    assert error["started_at"] is None
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


# Verbs


def test_a_suspect_is_cancelled_like_any_other(store: Store) -> None:
    message = store.suspect(key="k")

    assert message.cancel() is Answer.CANCELLED

    assert not has_suspects(store)
    assert store.claim_suspect() is None
    assert store.objects.keys(backend=store.alias) == []


def test_a_suspect_that_was_held_and_resumed_is_still_suspect(store: Store) -> None:
    message = store.suspect()

    assert message.hold() is Answer.HELD
    assert not has_suspects(store)
    assert store.claim_suspect() is None

    assert message.resume() is Answer.RESUMED
    assert store.claim() == []
    assert store.claim_suspect() == message


def test_a_suspect_comes_when_it_was_rescheduled_to(store: Store) -> None:
    message = store.suspect()

    assert message.reschedule(at=after(hours=1), priority=7, queue="other") is Answer.RESCHEDULED

    assert not has_suspects(store, "default", "other")
    assert store.claim(queue="other", now=after(days=1)) == []
    assert store.claim_suspect("other", now=after(minutes=59)) is None
    claimed = store.claim_one_suspect("other", now=after(hours=1))
    assert (claimed.pk, claimed.priority) == (message.pk, 7)


def test_a_suspect_can_be_made_due(store: Store) -> None:
    message = store.suspect()
    message.reschedule(at=store.backend.now() + timedelta(hours=1))

    assert message.make_due() is Answer.MADE_DUE

    assert store.backend.has_suspects(["default"])
    assert store.backend.claim_suspect(WORKER, ["default"]) == message


def test_a_suspect_whose_key_is_taken_is_cancelled(store: Store) -> None:
    message = store.suspect(key="k")

    successor = store.schedule(key="k", on_conflict="replace")

    assert store.status(message) == Status.CANCELLED
    assert ids(store.claim()) == [successor.pk]
