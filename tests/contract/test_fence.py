"""P4: only the holder of a claim settles it; everybody else is told that it is lost."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from django_sked.outcomes import Outcome
from django_sked.states import FINISHED, Status
from tests.contract.store import OTHER_WORKER, T0, Store, after, elsewhere

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


@pytest.mark.parametrize(("step", "how", "_status"), OUTCOMES)
@pytest.mark.parametrize("off", [-1, 1, 1000])
def test_a_wrong_token_changes_nothing_and_is_reported(
    store: Store, step: str, how: dict[str, Any], _status: str, off: int
) -> None:
    store.schedule()
    message = store.claim_one()
    before = store.values(message)

    settled = store.settle(message, step, token=message.token + off, **how)

    assert [outcome.id for outcome in settled.lost] == [message.pk]
    assert (settled.written, settled.busy) == ({}, [])
    assert store.values(message) == before


@pytest.mark.parametrize(("step", "how", "_status"), OUTCOMES)
@pytest.mark.parametrize("status", [status for status in Status if status != Status.CLAIMED])
def test_only_a_claimed_message_is_settled(
    store: Store, step: str, how: dict[str, Any], _status: str, status: str
) -> None:
    message = store.in_status(status)
    before = store.values(message)

    settled = store.settle(message, step, **how)

    assert (settled.written, list(settled.repeated)) == ({}, [message.pk])
    assert store.values(message) == before


def test_a_settle_of_an_unknown_message_is_reported(store: Store) -> None:
    outcome = Outcome(id=uuid4(), token=1, step="deliver")

    assert store.backend.settle([outcome], now=T0).lost == [outcome]


def test_a_message_is_settled_once(store: Store) -> None:
    store.schedule()
    message = store.claim_one()

    first = store.settle(message, "deliver")
    second = store.settle(message, "bury")

    assert (list(first.written), second.written) == ([message.pk], {})
    assert second.repeated[message.pk]["status"] == Status.DELIVERED
    assert store.status(message) == Status.DELIVERED


@pytest.mark.parametrize(("step", "how", "_status"), OUTCOMES)
def test_a_worker_that_lost_its_lease_cannot_settle(store: Store, step: str, how: dict[str, Any], _status: str) -> None:
    store.schedule()
    late = store.claim_one()
    store.backend.rescue(now=T0)
    after_rescue = store.settle(late, step, **how)
    successor = store.claim_one_suspect(worker=OTHER_WORKER)
    before = store.values(successor)

    after_claim = store.settle(late, step, **how)

    assert len(after_rescue.lost) == len(after_claim.lost) == 1
    assert store.values(successor) == before
    assert list(store.settle(successor).written) == [successor.pk]


def test_a_holder_whose_lease_lapsed_but_was_not_replaced_may_still_settle(store: Store) -> None:
    store.worker(lease=1)
    store.schedule()
    message = store.claim_one()

    settled = store.settle(message, "deliver", now=after(hours=1))

    assert list(settled.written) == [message.pk]


def test_a_batch_is_sorted_into_written_and_lost(store: Store) -> None:
    store.schedule_many([{"event": "e", "at": T0}] * 6)
    messages = store.claim()
    steps: list[Any] = ["deliver", "retry", "bury", "expire", "release", "deliver"]
    outcomes = [
        Outcome(id=message.pk, token=message.token + (n == 5), step=step, errors=[error(1)] if step == "retry" else [])
        for n, (message, step) in enumerate(zip(messages, steps, strict=True))
    ]

    settled = store.backend.settle(outcomes, now=T0)

    assert set(settled.written) == {message.pk for message in messages[:5]}
    assert settled.lost == [outcomes[5]]
    assert [store.status(message) for message in messages] == [
        Status.DELIVERED,
        Status.SCHEDULED,
        Status.DEAD,
        Status.EXPIRED,
        Status.SCHEDULED,
        Status.CLAIMED,
    ]


def test_of_two_outcomes_of_one_message_the_one_with_its_token_is_written(store: Store) -> None:
    store.schedule()
    old = store.claim_one()
    store.backend.rescue(now=T0)
    new = store.claim_one_suspect()
    outcomes = [
        Outcome(id=old.pk, token=old.token, step="bury"),
        Outcome(id=new.pk, token=new.token, step="deliver"),
    ]

    for order in (outcomes, outcomes[::-1]):
        settled = store.backend.settle(order, now=T0)
        assert outcomes[0] in settled.lost

    assert store.status(new) == Status.DELIVERED


def test_a_large_batch_of_every_kind_keeps_each_its_own_values(store: Store) -> None:
    store.schedule_many([{"event": "e", "at": T0}] * 600)
    messages = store.claim()
    outcomes = [
        Outcome(id=message.pk, token=message.token, step="retry", at=after(seconds=n), errors=[error(n)])
        if n % 2
        else Outcome(id=message.pk, token=message.token, step="deliver")
        for n, message in enumerate(messages)
    ]

    settled = store.backend.settle(outcomes, now=T0)

    assert len(settled.written) == 600
    stored = {message.pk: message for message in store.search()}
    for n, message in enumerate(messages):
        found = stored[message.pk]
        if n % 2:
            assert (found.status, found.next_at, found.errors) == (Status.SCHEDULED, after(seconds=n), [error(n)])
        else:
            assert (found.status, found.finished_at) == (Status.DELIVERED, T0)


def test_settling_nothing_is_harmless(store: Store) -> None:
    settled = store.backend.settle([], now=T0)

    assert (settled.written, settled.lost, settled.busy) == ({}, [], [])


@pytest.mark.needs("database")
@pytest.mark.parametrize("step", ["deliver", "bury"])
def test_a_message_that_another_transaction_has_locked_is_busy_and_settled_later(store: Store, step: Any) -> None:
    from django.db import connections, transaction

    if not connections[store.database].features.has_select_for_update_skip_locked:
        pytest.skip("this database has no row locks")
    locked, free = store.schedule(), store.schedule()
    messages = {message.pk: message for message in store.claim()}
    outcomes = [Outcome(id=id, token=message.token, step=step) for id, message in messages.items()]

    with transaction.atomic(using=store.database):
        store.rows.select_for_update().get(pk=locked.pk)
        settled = elsewhere(lambda: store.backend.settle(outcomes, now=T0))

    assert list(settled.written) == [free.pk]
    assert [outcome.id for outcome in settled.busy] == [locked.pk]
    assert settled.lost == []
    assert list(store.backend.settle(settled.busy, now=T0).written) == [locked.pk]
    assert store.status(locked) in FINISHED


def test_a_message_cancelled_while_it_was_claimed_keeps_the_reason(store: Store) -> None:
    message = store.schedule()
    claimed = store.claim()[0]
    message.cancel(reason="customer left")

    store.settle(claimed, "release", counted=False)

    assert store.find(message).status == Status.CANCELLED
    assert store.find(message).reason == "customer left"
