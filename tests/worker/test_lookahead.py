"""P2, P3: messages are claimed a little ahead of their time, and none starts before it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from django.conf import settings
from django.test import override_settings

from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.states import Answer, Status
from django_sked.worker import Worker
from django_sked.worker.options import DEFAULT_LOOKAHEAD
from tests.worker.conftest import PATIENCE, Calls, Gate, Store, eventually, run

#: Seconds that are waited for, and in which a worker that runs claims, and is seen to have claimed, on a busy machine.
SOON = 1.5


def true_time() -> datetime:
    """Every store of the tests is on this host. What a backend knows of its time lies a little behind."""
    return datetime.now(UTC)


@pytest.fixture
def set_lookahead(store: Store) -> Iterator[Callable[[float], Store]]:
    """`set_lookahead(seconds)` changes the setting of the queue "default", until the test ends."""
    changes: list[Any] = []

    def change(seconds: float) -> Store:
        setting = settings.SKED[store.alias] | {"QUEUES": {"default": {"lookahead": seconds}}}
        changes.append(override_settings(SKED=settings.SKED | {store.alias: setting}))
        changes[-1].enable()
        return Store(store.alias)

    yield change
    for each in changes:
        each.disable()


class Claim(NamedTuple):
    """How far ahead it looked, what it found, and when it had ended."""

    ahead: float
    found: list[ScheduledMessage]
    ended_at: datetime


def note_claims(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[Claim]:
    claims: list[Claim] = []
    claim = store.backend.claim

    def noted(*args: Any, **kwargs: Any) -> list[ScheduledMessage]:
        found = claim(*args, **kwargs)
        claims.append(Claim(kwargs.get("ahead", 0.0), found, true_time()))
        return found

    monkeypatch.setattr(store.backend, "claim", noted)
    return claims


def held_early(worker: Worker, count: int) -> bool:
    pool = worker._claimer.pools.get("default")
    return pool is not None and len(pool._early) == count


# On time, and never before


def test_of_many_messages_none_starts_early_and_most_were_claimed_ahead(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls()
    late: list[float] = []

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        late.append((true_time() - message.due_at).total_seconds())
        calls(message)

    receive(receiver, name="r")
    claims = note_claims(store, monkeypatch)
    start(store.alias)

    def claimed_ahead() -> int:
        claims.clear()
        so_far = len(calls.messages)
        # Stored, and the worker at work, before the first of them is due: also on a busy machine.
        begin = true_time() + timedelta(seconds=2)
        chance = random.Random(7)
        ScheduledMessage.objects.schedule_many(
            [{"event": "order.paid", "at": begin + timedelta(seconds=0.7 * chance.random())} for _ in range(300)],
            backend=store.alias,
        )
        assert calls.wait_for(so_far + 300)
        assert min(late) >= 0
        # By its end, as it may be long between what a claim notes as its time and the claim itself.
        early = [message.next_at - each.ended_at for each in claims for message in each.found]
        assert max(early) <= timedelta(seconds=DEFAULT_LOOKAHEAD)
        return sum(each > timedelta() for each in early)

    # A busy machine may be late with every claim; a worker that claims nothing ahead is so each time.
    assert any(claimed_ahead() > 100 for _ in range(3))


def test_messages_of_one_instant_all_start_then_and_none_before(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    """One thread waits for the first of them, and others must come to its help."""
    together, late = threading.Barrier(4), []
    calls = Calls()

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        late.append((true_time() - message.due_at).total_seconds())
        together.wait(PATIENCE)
        calls(message)

    receive(receiver, name="r")
    at = true_time() + timedelta(seconds=0.5)
    for _ in range(4):
        store.schedule(at=at)

    start(store.alias, concurrency=4)

    assert calls.wait_for(4)
    assert min(late) >= 0


def test_a_retry_that_was_claimed_ahead_does_not_start_early_either(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    calls = Calls()
    late: list[float] = []

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        late.append((true_time() - message.next_at).total_seconds())
        calls(message)
        if message.attempt < 4:
            raise ValueError

    receive(receiver, name="r")
    store.schedule(retry=Fixed(0.1))

    start(store.alias)

    assert calls.wait_for(4)
    assert min(late) >= 0


def test_a_lookahead_of_nothing_claims_nothing_ahead(
    set_lookahead: Callable[[float], Store],
    receive: Callable[..., Any],
    start: Callable[..., Worker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = set_lookahead(0)
    claims = note_claims(store, monkeypatch)
    calls = Calls()
    late: list[float] = []

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        late.append((true_time() - message.due_at).total_seconds())
        calls(message)

    receive(receiver, name="r")
    for tenth in range(5):
        store.schedule(delay=0.1 * tenth)

    start(store.alias)

    assert calls.wait_for(5)
    assert min(late) >= 0
    assert {claim.ahead for claim in claims} == {0}


def test_a_burst_claims_nothing_ahead(
    set_lookahead: Callable[[float], Store], receive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = set_lookahead(10)
    claims = note_claims(store, monkeypatch)
    calls = receive(Calls(), name="r")
    store.schedule(payload="now")
    store.schedule(payload="soon", delay=9)

    run(store, burst=True)

    assert calls.payloads == ["now"]
    assert {claim.ahead for claim in claims} == {0}


def test_what_is_claimed_ahead_counts_among_the_most_messages(store: Store, receive: Callable[..., Any]) -> None:
    calls = receive(Calls(), name="r")
    at = true_time() + timedelta(seconds=0.3)
    for number in range(5):
        store.schedule(payload=number, at=at + timedelta(milliseconds=number))

    run(store, max_messages=3, queues=["default"])

    assert sorted(calls.payloads) == [0, 1, 2]
    assert (store.count(status="delivered"), store.count(status="scheduled")) == (3, 2)


# What is due now goes first


def test_what_is_due_now_is_not_held_up_by_early_ones_that_fill_the_hand(
    set_lookahead: Callable[[float], Store], receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    store = set_lookahead(10)
    calls = receive(Calls(), name="r")
    store.schedule_many(50, delay=9)
    worker = start(store.alias, concurrency=1)
    assert eventually(lambda: held_early(worker, 10))

    for _ in range(3):
        store.schedule("now")

    assert calls.wait_for(3)
    assert [message.event for message in calls.messages[:3]] == 3 * ["now"]


def test_what_was_in_hand_early_and_what_came_later_start_in_order_of_priority(
    set_lookahead: Callable[[float], Store], receive: Callable[..., Any], start: Callable[..., Worker], gate: Gate
) -> None:
    store = set_lookahead(10)
    calls = receive(Calls(), "next", "n")
    receive(gate, "first", "f")
    store.schedule("first")
    worker = start(store.alias, concurrency=1)
    assert gate.begun.wait(PATIENCE)

    at = true_time() + timedelta(seconds=0.2)
    store.schedule("next", "early and low", at=at)
    store.schedule("next", "early and high", at=at + timedelta(seconds=0.1), priority=5)
    assert eventually(lambda: worker.in_flight == 3)
    assert eventually(lambda: true_time() > at + timedelta(seconds=0.15))
    gate.opened.set()

    assert calls.wait_for(2)
    assert calls.payloads == ["early and high", "early and low"]


# What is held early, and then changes


def test_a_stop_gives_back_at_once_what_was_claimed_ahead(
    set_lookahead: Callable[[float], Store], receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    store = set_lookahead(10)
    calls = receive(Calls(), name="r")
    messages = store.schedule_many(5, delay=9)
    worker = start(store.alias)
    assert eventually(lambda: held_early(worker, 5))
    assert store.count(status="claimed") == 5

    assert worker.stop(PATIENCE)

    assert true_time() < messages[0].due_at, "it waited for them"
    assert calls.messages == []
    found = [store.find(message) for message in messages]
    assert {(m.status, m.attempt, m.claimed_by, m.suspect, m.crashes) for m in found} == {
        (Status.SCHEDULED, 0, None, False, 0)
    }
    assert [m.next_at for m in found] == [m.next_at for m in messages]


def test_a_cancel_of_what_was_claimed_ahead_is_too_late_and_obeyed_if_the_worker_hears_of_it(
    set_lookahead: Callable[[float], Store], receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    store = set_lookahead(10)
    calls = receive(Calls(), name="r")
    message = store.schedule(delay=1)
    worker = start(store.alias)
    assert eventually(lambda: held_early(worker, 1))

    assert store.find(message).cancel(reason="enough") == Answer.TOO_LATE
    worker._beat()

    assert eventually(lambda: store.find(message).status != Status.CLAIMED)
    found = store.find(message)
    assert (found.status, found.reason, found.attempt) == (Status.CANCELLED, "enough", 0)
    assert calls.messages == []


def test_a_cancel_of_what_was_claimed_ahead_of_which_the_worker_does_not_hear_does_not_keep_it_from_starting(
    set_lookahead: Callable[[float], Store],
    receive: Callable[..., Any],
    start: Callable[..., Worker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = set_lookahead(10)
    beat = store.backend.beat
    monkeypatch.setattr(store.backend, "beat", lambda process, **kwargs: beat(process, **kwargs) and {})
    calls = receive(Calls(), name="r")
    worker = start(store.alias)
    message = store.schedule(delay=SOON)
    assert eventually(lambda: held_early(worker, 1))

    assert store.find(message).cancel() == Answer.TOO_LATE

    assert calls.wait_for(1)
    assert eventually(lambda: store.find(message).status == Status.DELIVERED)


def test_a_change_of_what_was_claimed_ahead_is_too_late(
    set_lookahead: Callable[[float], Store], receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    store = set_lookahead(10)
    receive(Calls(), name="r")
    message = store.schedule(delay=9)
    worker = start(store.alias)
    assert eventually(lambda: held_early(worker, 1))

    found = store.find(message)
    assert found.reschedule(delay=60) == Answer.TOO_LATE
    assert found.hold() == Answer.TOO_LATE
    assert store.find(message).due_at == message.due_at


def test_a_lease_in_doubt_gives_back_what_was_claimed_ahead_when_its_time_comes(
    set_lookahead: Callable[[float], Store],
    receive: Callable[..., Any],
    start: Callable[..., Worker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = set_lookahead(10)
    tokens: list[int] = []
    calls = Calls()

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        tokens.append(message.token)
        calls(message)

    receive(receiver, name="r")
    worker = start(store.alias)
    message = store.schedule(delay=SOON)
    assert eventually(lambda: held_early(worker, 1))

    with monkeypatch.context() as patch:
        patch.setattr(worker._leases, "may_start", lambda: False)
        assert eventually(lambda: store.find(message).status == Status.SCHEDULED)

    assert calls.wait_for(1)
    assert tokens == [2]


def test_a_pool_that_is_made_smaller_and_larger_starts_what_was_claimed_ahead_on_time(
    set_lookahead: Callable[[float], Store], receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    store = set_lookahead(10)
    calls = Calls()
    late: list[float] = []

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        late.append((true_time() - message.due_at).total_seconds())
        calls(message)

    receive(receiver, name="r")
    store.schedule_many(8)
    worker = start(store.alias, concurrency=4)
    assert calls.wait_for(8)
    store.schedule_many(20, delay=SOON)
    assert eventually(lambda: held_early(worker, 20))

    for size in (1, 3, 1, 2, 1):
        worker._claimer.pools["default"].resize(size)

    assert calls.wait_for(28)
    assert min(late) >= 0
