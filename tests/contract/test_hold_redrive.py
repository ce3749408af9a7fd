"""What holding, resuming, making due and redriving write; and bulk verbs over slices and chunks."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from django_sked.exceptions import InvalidMessage
from django_sked.models import ScheduledMessage
from django_sked.states import PENDING, Answer, Status
from tests.contract.store import T0, Store, after, ids

LATER = after(days=3)


# Hold, resume, make due


def test_a_held_message_is_not_claimed_until_it_is_resumed(store: Store) -> None:
    message = store.schedule()

    message.hold(reason="until the customer calls")
    assert (message.status, message.reason) == (Status.BLOCKED, "until the customer calls")
    assert message.held_at is not None
    assert store.claim(now=after(days=1)) == []

    message.resume()
    stored = store.find(message)
    assert stored.held_at is None
    assert (stored.status, stored.reason, stored.due_at) == (Status.SCHEDULED, "", T0)
    assert store.claim() == [message]


def test_a_held_message_that_also_waits_for_parents_stays_blocked(store: Store) -> None:
    (message,) = store.schedule_many(
        [ScheduledMessage(event="child", due_at=T0, status=Status.BLOCKED, parents_left=2)]
    )
    assert message.resume() is Answer.NOT_HELD

    message.hold()
    assert message.resume() is Answer.RESUMED

    assert (message.status, message.parents_left, message.held_at) == (Status.BLOCKED, 2, None)


def test_a_held_message_may_be_rescheduled_and_stays_held(store: Store) -> None:
    message = store.in_status(Status.BLOCKED)

    assert message.reschedule(at=LATER)

    assert (message.status, message.due_at) == (Status.BLOCKED, LATER)


def test_a_message_made_due_is_claimed_now(store: Store) -> None:
    message = store.schedule(at=after(days=300))

    assert message.make_due()

    assert message.due_at == message.next_at <= store.backend.now()
    assert ids(store.backend.claim(uuid4(), "default", 1)) == [message.pk]


# Redrive


def test_a_redriven_message_has_all_attempts_before_it_and_its_history(store: Store) -> None:
    message = store.in_status(Status.DEAD, payload={"keep": "me"}, key="k")
    assert (message.attempt, message.reason, message.live_key) == (1, "no luck", None)
    errors = message.errors

    assert message.redrive(at=LATER)

    assert (message.status, message.attempt, message.crashes, message.reason) == (Status.SCHEDULED, 0, 0, "")
    assert (message.due_at, message.next_at, message.finished_at) == (LATER, LATER, None)
    assert (message.claimed_by, message.claimed_at, message.cancel_requested) == (None, None, False)
    assert message.errors == errors != []
    assert (message.payload, message.live_key) == ({"keep": "me"}, "k")


def test_a_redriven_message_is_claimed_with_a_new_token(store: Store) -> None:
    message = store.in_status(Status.DEAD, queue="q")
    token = message.token

    message.redrive(at=T0)

    assert store.claim_one(queue="q").token > token


def test_a_redriven_message_has_the_wall_time_no_more_that_it_died_after(store: Store) -> None:
    wall: dict[str, Any] = {"at_local": datetime(2029, 7, 1, 9), "timezone": "Europe/Berlin"}
    dead = [store.in_status(Status.DEAD, key=key) for key in ("k", None, None)]
    for message in dead:
        assert message.redrive(at=T0) and message.reschedule(**wall)
        store.settle(store.claim_one(queue=message.queue), "bury")
        assert store.find(message).at_local == wall["at_local"]

    assert dead[0].redrive(at=LATER) and dead[1].redrive(at=LATER)
    assert store.search(status="dead").redrive(at=LATER) == 1

    for message in dead:
        stored = store.find(message)
        assert (stored.at_local, stored.timezone, stored.due_at) == (None, None, LATER)


def test_redrive_without_a_time_is_due_now(store: Store) -> None:
    message = store.in_status(Status.DEAD)

    message.redrive()

    assert abs(message.due_at - store.backend.now()) < timedelta(seconds=30)


def test_redrive_drops_an_expiry_that_has_passed_and_keeps_one_ahead(store: Store) -> None:
    passed = store.in_status(Status.DEAD, expires_at=after(hours=1))
    ahead = store.in_status(Status.DEAD, expires_at=after(days=9))

    assert store.search().redrive(at=LATER) == 2

    assert store.find(passed).expires_at is None
    assert store.find(ahead).expires_at == after(days=9)


def test_a_bulk_redrive_leaves_a_message_dead_whose_key_is_taken(store: Store) -> None:
    free = store.in_status(Status.DEAD, key="free")
    taken = store.in_status(Status.DEAD, key="taken")
    without = store.in_status(Status.DEAD)
    store.schedule(key="taken")

    assert store.search(status="dead").redrive() == 2

    assert store.status(free) == store.status(without) == Status.SCHEDULED
    assert store.status(taken) == Status.DEAD


def test_of_two_dead_messages_with_one_key_a_bulk_redrive_takes_one(store: Store) -> None:
    dead = [store.in_status(Status.DEAD, key="k") for _ in range(2)]

    assert store.search().redrive() == 1

    assert sorted(store.status(message) for message in dead) == [Status.DEAD, Status.SCHEDULED]


# Bulk


def test_a_bulk_verb_on_a_slice_changes_that_slice(store: Store) -> None:
    messages = [store.schedule(at=after(seconds=n)) for n in range(10)]

    assert store.search()[2:5].cancel() == 3

    assert [store.status(message) for message in messages[2:5]] == [Status.CANCELLED] * 3
    assert store.search(status=PENDING).count() == 7


def test_a_bulk_verb_changes_more_than_one_chunk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_sked.queries.CHUNK", 10)
    store.schedule_many({"event": "e", "at": after(seconds=-n)} for n in range(35))

    assert store.search().hold() == 35
    assert store.search(status="blocked").resume() == 35
    assert store.search().reschedule(delay=60, priority=3) == 35
    assert len({message.due_at for message in store.search()}) == 1
    assert store.search()[:25].cancel() == 25
    assert store.search(status="scheduled").count() == 10


def test_a_bulk_verb_reports_how_many_took_effect(store: Store) -> None:
    store.in_status(Status.CLAIMED)
    store.in_status(Status.DELIVERED)
    store.schedule()

    assert store.search().cancel() == 1
    assert store.search().cancel() == 0


@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize("way", ["one", "many", "by key"])
def test_a_message_may_be_redriven_with_another_payload(key: str | None, way: str, store: Store) -> None:
    message = store.in_status(Status.DEAD, payload={"country": "Atlantis"}, key=key)

    if way == "one":
        assert message.redrive(payload={"country": "Greece"}, at=LATER)
    elif way == "many":
        assert store.search().redrive(payload={"country": "Greece"}, at=LATER) == 1
    elif key is not None:
        assert store.objects.redrive(key=key, payload={"country": "Greece"}, at=LATER, backend=store.alias)
    else:
        assert store.objects.redrive(id=message.pk, payload={"country": "Greece"}, at=LATER, backend=store.alias)

    stored = store.find(message)
    assert (stored.status, stored.payload, stored.due_at) == (Status.SCHEDULED, {"country": "Greece"}, LATER)
    assert stored.errors


def test_a_payload_that_may_not_be_kept_is_refused_at_the_redrive(store: Store) -> None:
    message = store.in_status(Status.DEAD)

    with pytest.raises(InvalidMessage, match="payload"):
        message.redrive(payload={"x": object()})
    with pytest.raises(InvalidMessage, match="'queue'"):
        message.redrive(queue="mail")

    assert store.status(message) == Status.DEAD
