"""STEP claim: who gets what, when and in which order."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from django_sked.states import Status
from tests.contract.store import OTHER_WORKER, T0, WORKER, Store, after, ids


def test_a_claimed_message_is_held_by_its_worker_under_a_new_token(store: Store) -> None:
    message = store.schedule(payload={"a": 1})

    claimed = store.claim_one()

    assert claimed == message
    assert (claimed.status, claimed.claimed_by, claimed.claimed_at) == (Status.CLAIMED, WORKER, T0)
    assert claimed.token == message.token + 1
    assert claimed.payload == {"a": 1}
    assert store.backend.held_by(WORKER) == {claimed.pk: claimed.token}
    assert store.backend.held_by(OTHER_WORKER) == {}


def test_a_claim_returns_what_is_stored(store: Store) -> None:
    store.schedule(payload=[1], key="k", metadata={"m": "1"}, expires_in=60)

    claimed = store.claim_one()

    assert {name: getattr(claimed, name) for name in store.values(claimed)} == store.values(claimed)
    assert claimed.backend is store.backend


def test_nothing_is_claimed_from_an_empty_store(store: Store) -> None:
    assert store.claim() == []


@pytest.mark.parametrize("microsecond", [0, 1, 1000, 123000, 123456, 999999])
def test_a_message_is_claimable_at_its_time_and_not_a_microsecond_before(store: Store, microsecond: int) -> None:
    at = T0.replace(microsecond=microsecond)
    message = store.schedule(at=at)

    assert store.claim(now=at - timedelta(microseconds=1)) == []
    assert store.claim(now=at) == [message]


def test_a_message_is_claimed_by_the_stores_own_clock(store: Store) -> None:
    future = store.schedule(delay=3600)
    due = store.schedule(delay=0)

    assert store.backend.claim(WORKER, "default", 10) == [due]
    assert store.status(future) == Status.SCHEDULED


def test_by_the_stores_own_clock_nothing_is_early(store: Store) -> None:
    for n in range(20):
        store.schedule(delay=n / 1000)

    claimed: list[Any] = []
    for _ in range(10_000):
        before = len(claimed)
        claimed += store.backend.claim(WORKER, "default", 100)
        # The store was asked before this reading; its clock is told no faster than it is.
        now = store.backend.now() + timedelta(milliseconds=1)
        assert all(message.due_at <= now for message in claimed[before:])
        if len(claimed) == 20:
            break
    assert len(claimed) == 20


def test_a_claimed_message_is_not_claimed_again(store: Store) -> None:
    store.schedule()
    store.claim_one()

    assert store.claim(now=after(days=1)) == []
    assert store.claim(now=after(days=1), worker=OTHER_WORKER) == []


@pytest.mark.parametrize("status", [status for status in Status if status != Status.SCHEDULED])
def test_only_scheduled_messages_are_claimed(store: Store, status: str) -> None:
    store.in_status(status, queue="q")

    assert store.claim(queue="q", now=after(days=1)) == []


def test_a_claim_takes_no_more_than_its_limit_and_the_next_one_the_rest(store: Store) -> None:
    messages = [store.schedule() for _ in range(5)]

    assert ids(store.claim(2)) == ids(messages[:2])
    assert ids(store.claim(2)) == ids(messages[2:4])
    assert ids(store.claim(2)) == ids(messages[4:])
    assert store.claim(2) == []


def test_a_claim_of_nothing_takes_nothing(store: Store) -> None:
    message = store.schedule()

    assert store.claim(0) == []
    assert store.status(message) == Status.SCHEDULED


def test_a_claim_takes_from_its_queue_only(store: Store) -> None:
    mail = store.schedule(queue="mail")
    store.schedule(queue="mail2")
    store.schedule(queue="Mail")

    assert store.claim(queue="mail") == [mail]


def test_a_higher_priority_comes_first_whenever_it_was_due(store: Store) -> None:
    by_priority = {
        priority: store.schedule(priority=priority, at=after(seconds=priority))
        for priority in (1, 20, -100, 5, 100, 2, 10)
    }

    claimed = store.claim(now=after(hours=1))

    assert [message.priority for message in claimed] == [100, 20, 10, 5, 2, 1, -100]
    assert ids(claimed) == ids([by_priority[message.priority] for message in claimed])


def test_priorities_are_kept_over_claims_of_one(store: Store) -> None:
    for priority in (10, 1, 20, 2, 5):
        store.schedule(priority=priority)

    assert [store.claim(1)[0].priority for _ in range(5)] == [20, 10, 5, 2, 1]


def test_a_high_priority_that_is_not_due_does_not_hold_up_a_lower_one(store: Store) -> None:
    store.schedule(priority=100, at=after(days=1))
    due = store.schedule(priority=-100)

    assert store.claim() == [due]


def test_of_one_priority_the_earlier_due_comes_first_then_the_smaller_id(store: Store) -> None:
    third = store.schedule(at=after(seconds=2))
    first = store.schedule(at=after(seconds=1))
    second = store.schedule(at=after(seconds=1))
    fourth = store.schedule(at=after(seconds=2))

    assert ids(store.claim(now=after(seconds=2))) == ids([first, second, third, fourth])


def test_the_order_within_a_large_batch_is_kept(store: Store) -> None:
    store.schedule_many({"event": "e", "at": after(seconds=(n * 7919) % 500), "priority": n % 3} for n in range(1_000))

    claimed = store.claim(1_000, now=after(days=1))

    order = [(-message.priority, message.next_at, message.pk) for message in claimed]
    assert len(claimed) == 1_000
    assert order == sorted(order)


def test_a_limit_spans_priorities(store: Store) -> None:
    low = [store.schedule(priority=0) for _ in range(3)]
    high = [store.schedule(priority=9) for _ in range(3)]

    assert ids(store.claim(4)) == ids([*high, low[0]])


def test_what_was_retried_comes_at_its_new_time(store: Store) -> None:
    first = store.schedule(at=T0)
    second = store.schedule(at=after(seconds=1))
    store.settle(store.claim_one(), "retry", at=after(seconds=2))

    assert ids(store.claim(now=after(seconds=2))) == ids([second, first])


def test_a_message_put_off_many_times_is_claimed_once(store: Store) -> None:
    message = store.schedule()
    for n in range(300):
        message.reschedule(at=after(seconds=n % 7), priority=n % 2, queue=f"q{n % 2}")

    claimed = store.claim(now=after(days=1), queue="q0") + store.claim(now=after(days=1), queue="q1")

    assert claimed == [message]


def test_claims_of_one_worker_never_return_a_message_twice(store: Store) -> None:
    store.schedule_many([{"event": "e", "at": T0}] * 30)

    claims = [store.claim(7) for _ in range(6)]

    claimed = [message.pk for claim in claims for message in claim]
    assert len(claimed) == len(set(claimed)) == 30


def test_tokens_rise_over_release_rescue_and_retry(store: Store) -> None:
    store.schedule()
    claims = [store.claim_one()]
    store.settle(claims[-1], "release")
    claims.append(store.claim_one())
    store.backend.rescue(now=T0)
    claims.append(store.claim_one_suspect())
    store.settle(claims[-1], "retry", at=T0)
    claims.append(store.claim_one())

    tokens = [message.token for message in claims]
    assert tokens == sorted(set(tokens))
