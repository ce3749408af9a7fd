"""STEP settle: what became of a claim is written once, by its holder only."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from django_sked.outcomes import MOST_ERRORS
from django_sked.states import Status
from tests.contract.store import T0, WORKER, Store, after

OUTCOMES: list[tuple[str, dict[str, Any], str]] = [
    ("deliver", {}, Status.DELIVERED),
    ("deliver", {"delivered_to": {"a": "delivered", "b": "delivered"}}, Status.DELIVERED),
    ("retry", {"delay": 5}, Status.SCHEDULED),
    ("bury", {"reason": "no"}, Status.DEAD),
    ("expire", {}, Status.EXPIRED),
    ("release", {"counted": False}, Status.SCHEDULED),
]


def error(number: int) -> dict[str, Any]:
    return {"attempt": number, "type": "ValueError", "text": f"error {number} \N{SNOWMAN}", "receiver": "mail.send"}


def test_a_delivered_message_is_finished_and_free(store: Store) -> None:
    store.schedule(key="k")
    message = store.claim_one()

    settled = store.settle(message, "deliver", now=after(seconds=1), delivered_to={"mail.send": "delivered"})

    stored = store.find(message)
    assert (stored.status, stored.attempt, stored.finished_at) == (Status.DELIVERED, 1, after(seconds=1))
    assert (stored.key, stored.live_key) == ("k", None)
    assert (settled.lost, settled.busy) == ([], [])
    assert list(settled.written) == [message.pk]
    assert store.backend.held_by(WORKER) == {}


@pytest.mark.parametrize(("step", "how", "status"), OUTCOMES)
def test_what_a_settle_says_it_wrote_is_what_is_stored(
    store: Store, step: str, how: dict[str, Any], status: str
) -> None:
    store.schedule()
    message = store.claim_one()

    settled = store.settle(message, step, **how)

    stored = store.find(message)
    assert stored.status == status
    written = settled.written[message.pk]
    assert {name: getattr(stored, name) for name in written} == written
    assert {"status", "attempt"} <= set(written) | ({"attempt"} if step == "release" else set())


def test_who_received_it_is_kept_where_there_is_more_to_say_than_delivered(store: Store) -> None:
    receivers = {"mail.send": "delivered", "audit.note": "delivered"}
    store.schedule()
    message = store.claim_one()

    store.settle(message, "deliver", delivered_to=receivers)

    assert store.find(message).delivered_to == receivers


def test_a_retry_after_a_delay_counts_from_the_settle(store: Store) -> None:
    store.schedule(key="k")
    message = store.claim_one()

    store.settle(message, "retry", now=after(seconds=1), delay=2.5, errors=[error(1)], delivered_to={"a": "delivered"})

    stored = store.find(message)
    assert (stored.status, stored.attempt, stored.next_at) == (Status.SCHEDULED, 1, after(seconds=3.5))
    assert (stored.due_at, stored.claimed_by, stored.claimed_at) == (T0, None, None)
    assert (stored.errors, stored.delivered_to, stored.live_key) == ([error(1)], {"a": "delivered"}, "k")
    assert store.claim(now=after(seconds=3.5) - timedelta(microseconds=1)) == []
    assert store.claim(now=after(seconds=3.5)) == [message]


def test_a_retry_at_an_instant_comes_at_that_instant(store: Store) -> None:
    store.schedule()
    message = store.claim_one()

    store.settle(message, "retry", at=after(hours=1, microseconds=7))

    assert store.find(message).next_at == after(hours=1, microseconds=7)


def test_a_retry_that_would_land_past_its_expiry_ends_expired(store: Store) -> None:
    store.schedule(expires_at=after(minutes=1), key="k")
    message = store.claim_one()

    store.settle(message, "retry", delay=60)

    stored = store.find(message)
    assert (stored.status, stored.live_key, stored.attempt, stored.finished_at) == (Status.EXPIRED, None, 1, T0)
    assert stored.reason


def test_a_retry_just_before_its_expiry_is_tried(store: Store) -> None:
    store.schedule(expires_at=after(minutes=1))
    message = store.claim_one()

    store.settle(message, "retry", at=after(minutes=1) - timedelta(microseconds=1))

    assert store.status(message) == Status.SCHEDULED


@pytest.mark.parametrize("step", ["retry", "release"])
def test_a_message_that_shall_be_cancelled_does_not_come_again(store: Store, step: str) -> None:
    store.schedule(key="k")
    message = store.claim_one()
    store.find(message).cancel()

    store.settle(message, step, at=after(hours=1))

    stored = store.find(message)
    assert (stored.status, stored.live_key, stored.finished_at) == (Status.CANCELLED, None, T0)


@pytest.mark.parametrize("step", ["retry", "release", "expire", "bury"])
def test_a_message_that_shall_be_cancelled_and_has_not_begun_ends_cancelled(store: Store, step: str) -> None:
    store.schedule(key="k", expires_at=after(minutes=1))
    message = store.claim_one()
    store.find(message).cancel(reason="enough")

    settled = store.settle(message, step, has_begun=False, reason="r", now=after(minutes=2))

    assert settled.written[message.pk]["status"] == Status.CANCELLED
    stored = store.find(message)
    assert (stored.status, stored.reason, stored.live_key) == (Status.CANCELLED, "enough", None)
    assert stored.finished_at == after(minutes=2)


@pytest.mark.parametrize(("step", "status"), [("expire", Status.EXPIRED), ("bury", Status.DEAD)])
def test_a_message_that_shall_be_cancelled_and_has_begun_ends_as_its_receivers_said(
    store: Store, step: str, status: str
) -> None:
    store.schedule()
    message = store.claim_one()
    store.find(message).cancel()

    store.settle(message, step)

    assert store.status(message) == status


def test_a_message_that_shall_be_cancelled_may_still_be_delivered(store: Store) -> None:
    store.schedule()
    message = store.claim_one()
    store.find(message).cancel()

    store.settle(message, "deliver")

    assert store.status(message) == Status.DELIVERED


def test_what_is_in_doubt_adds_to_what_the_store_has_noted(store: Store) -> None:
    store.schedule()
    message = store.claim_one()
    store.settle(message, "keep", delivered_to={"a": "delivered"}, verdict={"end": "enough"})

    store.settle(
        message, "retry", at=T0, in_doubt=True, delivered_to={"b": "buried"}, verdict={"next_payload": 1}, counted=False
    )

    stored = store.find(message)
    assert (stored.status, stored.attempt) == (Status.SCHEDULED, 0)
    assert stored.delivered_to == {"a": "delivered", "b": "buried"}
    assert stored.verdict == {"end": "enough", "next_payload": 1}


def test_a_buried_message_is_dead_with_everything_it_had(store: Store) -> None:
    store.schedule(payload={"a": [1]}, key="k", metadata={"m": "1"})
    message = store.claim_one()

    store.settle(message, "bury", errors=[error(1)], reason="r" * 300)

    stored = store.find(message)
    assert (stored.status, stored.attempt, stored.finished_at) == (Status.DEAD, 1, T0)
    assert (stored.payload, stored.key, stored.live_key, stored.metadata) == ({"a": [1]}, "k", None, {"m": "1"})
    assert (stored.errors, stored.reason) == ([error(1)], "r" * 255)


def test_an_expired_message_is_not_counted_as_an_attempt(store: Store) -> None:
    store.schedule(key="k")
    message = store.claim_one()

    store.settle(message, "expire", counted=False, reason="too old")

    stored = store.find(message)
    assert (stored.status, stored.attempt, stored.reason, stored.live_key) == (Status.EXPIRED, 0, "too old", None)


def test_a_released_message_is_as_it_was_before_its_claim(store: Store) -> None:
    message = store.schedule(key="k")
    before = store.values(message)

    store.settle(store.claim_one(), "release", counted=False)

    assert store.values(message) == before | {"token": before["token"] + 1}


def test_a_message_without_a_receiver_is_put_off_and_counted_apart(store: Store) -> None:
    store.schedule()
    for n in range(3):
        message = store.claim_one(now=after(seconds=10 * n))
        store.settle(message, "release", counted=False, unroutable=True, at=after(seconds=10 * (n + 1)))

    stored = store.find(message)
    assert (stored.unroutable, stored.attempt, stored.next_at) == (3, 0, after(seconds=30))

    store.settle(store.claim_one(now=after(seconds=30)), "retry", at=T0)
    assert (store.find(message).unroutable, store.find(message).attempt) == (0, 1)


def test_a_delivery_clears_the_count_of_missing_receivers(store: Store) -> None:
    store.schedule()
    store.settle(store.claim_one(), "release", counted=False, unroutable=True)

    message = store.claim_one()
    store.settle(message, "deliver")

    assert store.find(message).unroutable == 0


def test_a_message_put_off_past_its_expiry_ends_expired(store: Store) -> None:
    store.schedule(expires_at=after(minutes=1))
    message = store.claim_one()

    store.settle(message, "release", counted=False, at=after(minutes=2))

    assert store.status(message) == Status.EXPIRED


def test_errors_are_capped_to_the_first_and_the_newest(store: Store) -> None:
    store.schedule(max_attempts=100)
    for number in range(1, 31):
        message = store.claim_one()
        store.settle(message, "retry", at=T0, errors=[error(number)])

    kept = [each["attempt"] for each in store.find(message).errors]
    assert kept == [1, *range(30 - MOST_ERRORS + 2, 31)]


def test_errors_of_a_delivered_message_are_kept(store: Store) -> None:
    store.schedule()
    store.settle(store.claim_one(), "retry", at=T0, errors=[error(1)])

    message = store.claim_one()
    store.settle(message, "deliver")

    assert store.find(message).errors == [error(1)]
    assert store.find(message).attempt == 2


def test_exactly_as_many_attempts_are_counted_as_failed_or_finished(store: Store) -> None:
    store.schedule()
    for _ in range(2):
        store.settle(store.claim_one(), "retry", at=T0)
        store.settle(store.claim_one(), "release", counted=False)

    message = store.claim_one()
    store.settle(message, "deliver")

    assert store.find(message).attempt == 3
