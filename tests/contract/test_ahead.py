"""A claim ahead: messages that are due soon are held by a worker until they are due."""

from __future__ import annotations

from datetime import timedelta

import pytest

from django_sked.models import ScheduledMessage
from django_sked.states import Status
from tests.contract.store import T0, WORKER, Store, after, ids


def claim_ahead(store: Store, ahead: float, limit: int = 1000) -> list[ScheduledMessage]:
    return store.backend.claim(WORKER, "default", limit, ahead=ahead, now=T0)


@pytest.mark.parametrize("ahead", [0.0, 0.000001, 0.2, 1.0, 3600.0])
def test_a_message_is_claimable_so_much_ahead_and_not_a_microsecond_more(store: Store, ahead: float) -> None:
    message = store.schedule(at=T0 + timedelta(seconds=ahead, microseconds=1))

    assert claim_ahead(store, ahead) == []
    assert claim_ahead(store, ahead + 0.000001) == [message]


@pytest.mark.parametrize("microsecond", [0, 1, 999_999])
def test_the_end_of_a_claim_ahead_may_fall_on_a_whole_second(store: Store, microsecond: int) -> None:
    now = T0.replace(microsecond=microsecond)
    message = store.schedule(at=now + timedelta(seconds=1))
    store.schedule(at=now + timedelta(seconds=1, microseconds=1))

    assert store.backend.claim(WORKER, "default", 10, ahead=1.0, now=now) == [message]


def test_a_message_claimed_ahead_keeps_its_times(store: Store) -> None:
    message = store.schedule(at=after(seconds=1))

    (claimed,) = claim_ahead(store, 2.0)

    assert (claimed.due_at, claimed.next_at, claimed.claimed_at) == (message.due_at, message.next_at, T0)
    assert (claimed.status, store.status(message)) == (Status.CLAIMED, Status.CLAIMED)


def test_a_claim_ahead_goes_by_the_stores_own_clock(store: Store) -> None:
    message = store.schedule(delay=60)

    assert store.backend.claim(WORKER, "default", 10) == []
    assert store.backend.claim(WORKER, "default", 10, ahead=30.0) == []
    assert store.backend.claim(WORKER, "default", 10, ahead=61.0) == [message]


def test_a_claim_ahead_keeps_the_order_of_claims(store: Store) -> None:
    later = store.schedule(at=after(seconds=2))
    due = store.schedule(at=T0)
    urgent = store.schedule(at=after(seconds=1), priority=9)

    assert ids(claim_ahead(store, 5.0)) == ids([urgent, due, later])


def test_a_message_claimed_ahead_and_released_is_not_early(store: Store) -> None:
    store.schedule(at=after(seconds=1))
    (claimed,) = claim_ahead(store, 2.0)

    store.settle(claimed, "release", counted=False)

    assert store.claim(now=after(seconds=1) - timedelta(microseconds=1)) == []
    assert store.claim(now=after(seconds=1)) == [claimed]


def test_a_message_scheduled_for_now_is_not_hidden_by_a_claim_ahead(store: Store) -> None:
    store.schedule(delay=4)
    assert len(store.backend.claim(WORKER, "default", 10, ahead=5.0, quick=True)) == 1

    message = store.schedule(delay=0)

    assert store.backend.claim(WORKER, "default", 10, ahead=5.0, quick=True) == [message]


def test_a_quick_claim_overlooks_nothing_after_a_hint(store: Store) -> None:
    store.schedule(delay=0)
    assert len(store.backend.claim(WORKER, "default", 10, quick=True)) == 1
    past = store.backend.now() - timedelta(hours=1)
    earlier, urgent = store.schedule(at=past), store.schedule(at=past, priority=9)

    store.backend.look_back(past)

    assert store.backend.claim(WORKER, "default", 10, quick=True) == [urgent, earlier]


def test_a_hint_of_a_queue_is_about_that_queue(store: Store) -> None:
    for queue in ("mail", "print"):
        store.schedule(delay=0, queue=queue)
        store.backend.claim(WORKER, queue, 10, quick=True)
    past = store.backend.now() - timedelta(hours=1)
    message = store.schedule(at=past, queue="mail")

    store.backend.look_back(past, queue="mail")

    assert store.backend.claim(WORKER, "mail", 10, quick=True) == [message]
    assert store.backend.claim(WORKER, "print", 10, quick=True) == []
