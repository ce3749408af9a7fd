"""P12: what a lost worker held is suspect, and is claimed alone; who is lost with it alone counts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connections, transaction

from django_sked.models import ScheduledMessage
from django_sked.states import Answer, Status
from tests.contract.store import OTHER_WORKER, T0, WORKER, Store, after, elsewhere, ids, together


def has_suspects(store: Store, *queues: str, now: Any = T0) -> bool:
    return store.backend.has_suspects(queues or ("default",), now=now)


SETTLES: list[tuple[str, dict[str, Any], str]] = [
    ("deliver", {}, Status.DELIVERED),
    ("deliver", {"delivered_to": {"a": "delivered", "b": "delivered"}}, Status.DELIVERED),
    ("retry", {"delay": 5}, Status.SCHEDULED),
    ("bury", {"reason": "no"}, Status.DEAD),
    ("expire", {}, Status.EXPIRED),
    ("release", {"counted": False, "unroutable": True, "delay": 5}, Status.SCHEDULED),
]


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
