"""What a worker may not start any more, because time went by between the claim, or another receiver, and the start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from django_sked.models import QueueControl, ScheduledMessage
from django_sked.retry import Fixed
from django_sked.signals import message_cancelled
from django_sked.states import Status
from django_sked.testing import TickedWorker
from django_sked.worker import Worker
from tests.contract.store import elsewhere
from tests.worker.conftest import PATIENCE, Calls, Gate, Store, eventually
from tests.worker.writing import Writer, notes


def lose_the_lease(worker: Worker) -> None:
    """Until the next beat."""
    worker._leases._good_until = float("-inf")


# While an atomic receiver waits for its transaction: for a connection, or where one writes at a time


@pytest.fixture
def meanwhile(sql: Store, monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], Any]]:
    """Each of these is called once, while a transaction of a receiver is waited for."""
    happens: list[Callable[[], Any]] = []
    begin = sql.backend.receiver_transaction

    @contextmanager
    def slowly(seconds: float) -> Iterator[None]:
        if happens:
            happens.pop(0)()
        with begin(seconds):
            yield

    monkeypatch.setattr(sql.backend, "receiver_transaction", slowly)
    return happens


def test_one_whose_lease_ran_out_comes_again_as_if_it_had_not_been_claimed(
    sql: Store, atomic: Callable[..., Any], start: Callable[..., Worker], meanwhile: list[Callable[[], Any]]
) -> None:
    tokens: list[int] = []
    atomic(lambda message, **kwargs: tokens.append(message.token))
    worker = start(sql.alias, lease=3.0)
    meanwhile.append(lambda: lose_the_lease(worker))
    message = sql.schedule(max_attempts=1)

    assert eventually(lambda: sql.find(message).status == Status.DELIVERED)
    assert tokens == [2]
    assert (sql.find(message).attempt, sql.find(message).errors) == (1, [])


def test_one_whose_cancel_was_requested_ends_cancelled(
    sql: Store,
    atomic: Callable[..., Any],
    start: Callable[..., Worker],
    meanwhile: list[Callable[[], Any]],
    listen: Callable[..., Any],
) -> None:
    told = listen(message_cancelled)
    writer = atomic(Writer(sql))
    worker = start(sql.alias)

    def cancel() -> None:
        ScheduledMessage.objects.search(backend=sql.alias, status="claimed").cancel(reason="enough")
        worker._beat()

    meanwhile.append(cancel)
    message = sql.schedule()

    assert eventually(lambda: sql.find(message).status == Status.CANCELLED)
    assert (writer.attempts, notes(sql), sql.find(message).attempt) == ([], [], 0)
    assert eventually(lambda: len(told) == 1)


def test_one_whose_worker_was_stopped_is_handed_back(
    sql: Store, atomic: Callable[..., Any], start: Callable[..., Worker], meanwhile: list[Callable[[], Any]]
) -> None:
    writer = atomic(Writer(sql))
    worker = start(sql.alias)
    meanwhile.append(worker.request_stop)
    message = sql.schedule()

    assert worker.wait(PATIENCE)
    found = sql.find(message)
    assert (worker.exit_code, writer.attempts) == (0, [])
    assert (found.status, found.attempt, found.claimed_by) == (Status.SCHEDULED, 0, None)


def test_one_whose_queue_was_paused_is_given_back(
    sql: Store, atomic: Callable[..., Any], start: Callable[..., Worker], meanwhile: list[Callable[[], Any]]
) -> None:
    writer = atomic(Writer(sql))
    worker = start(sql.alias)

    def pause() -> None:
        QueueControl.objects.pause("default", backend=sql.alias)
        assert eventually(lambda: worker._controls.is_paused("default"))

    meanwhile.append(pause)
    message = sql.schedule()

    assert eventually(lambda: not meanwhile and worker.in_flight == 0)
    found = sql.find(message)
    assert (found.status, found.attempt, writer.attempts) == (Status.SCHEDULED, 0, [])
    QueueControl.objects.resume("default", backend=sql.alias)
    assert eventually(lambda: sql.find(message).status == Status.DELIVERED)
    assert writer.attempts == [1]


def test_one_that_expired_is_not_started(
    sql: Store, atomic: Callable[..., Any], meanwhile: list[Callable[[], Any]]
) -> None:
    writer = atomic(Writer(sql))
    message = sql.schedule(expires_in=60)
    worker = TickedWorker(sql.alias)
    later = sql.backend.now() + timedelta(hours=1)
    meanwhile.append(lambda: setattr(worker._dispatcher, "_clock", lambda: later))

    worker.tick(sql.backend.now() + timedelta(seconds=1))

    assert writer.attempts == []
    assert (sql.find(message).status, sql.find(message).attempt) == (Status.EXPIRED, 0)


def test_a_suspect_that_was_not_started_stays_suspect(
    sql: Store, atomic: Callable[..., Any], start: Callable[..., Worker], meanwhile: list[Callable[[], Any]]
) -> None:
    seen: list[bool] = []
    atomic(lambda message, **kwargs: seen.append(message.suspect))
    message = sql.schedule()
    TickedWorker(sql.alias).claim()
    assert sql.backend.rescue() == [message.pk]
    worker = start(sql.alias, lease=3.0)
    meanwhile.append(lambda: lose_the_lease(worker))

    assert eventually(lambda: sql.find(message).status == Status.DELIVERED)
    assert (seen, sql.find(message).token) == ([True], 4)


# While it waits in the worker's hands


def test_what_was_claimed_before_the_lease_ran_out_is_not_started_when_it_is_back(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker], gate: Gate
) -> None:
    """It may have been rescued. As in a process that stood still, and whose beat is quicker than its threads."""
    receive(gate, name="r")
    store.schedule_many(5)
    worker = start(store.alias, concurrency=1)
    assert gate.begun.wait(PATIENCE)
    assert eventually(lambda: worker.in_flight == 5)

    lose_the_lease(worker)
    worker._beat()
    gate.opened.set()

    assert eventually(lambda: store.count(status="delivered") == 5)
    assert [message.token for message in gate.messages] == [1, 2, 2, 2, 2]
    assert {message.attempt for message in gate.messages} == {1}


def test_nor_is_what_a_claim_brings_that_began_before(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = receive(Calls(), name="r")
    worker = start(store.alias)
    claim = store.backend.claim
    claims: list[Any] = []

    def slowly(*args: Any, **options: Any) -> list[ScheduledMessage]:
        messages = claim(*args, **options)
        if messages and not claims:
            claims.append(messages)
            lose_the_lease(worker)
            elsewhere(worker._beat)
        return messages

    monkeypatch.setattr(store.backend, "claim", slowly)
    store.schedule()

    assert calls.wait_for(1)
    assert [message.token for message in calls.messages] == [2]


# While another receiver of the same message runs


@pytest.mark.parametrize("is_back", [False, True])
def test_the_next_receiver_is_not_called_once_the_lease_has_run_out(
    some_store: Store, receive: Callable[..., Any], start: Callable[..., Worker], is_back: bool
) -> None:
    first, second = Calls(), Calls()

    def and_lose_the_lease(message: ScheduledMessage, **kwargs: Any) -> None:
        first(message)
        lose_the_lease(worker)
        if is_back:
            worker._beat()

    receive(and_lose_the_lease, name="first")
    receive(second, name="second")
    worker = start(some_store.alias, lease=3.0)
    message = some_store.schedule(max_attempts=1)

    assert eventually(lambda: some_store.find(message).status == Status.DELIVERED)
    assert [call.token for call in first.messages] == [1]
    assert [call.token for call in second.messages] == [2]
    assert (some_store.find(message).attempt, some_store.find(message).errors) == (1, [])


def test_an_attempt_that_failed_before_the_lease_ran_out_is_counted_and_the_others_are_still_called(
    some_store: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    second = Calls()

    def fail(message: ScheduledMessage, **kwargs: Any) -> None:
        lose_the_lease(worker)
        raise ValueError

    receive(fail, name="first")
    receive(second, name="second")
    worker = start(some_store.alias, lease=3.0)
    message = some_store.schedule(max_attempts=1, retry=Fixed(3600))

    assert eventually(lambda: some_store.find(message).status == Status.DEAD)
    assert [call.token for call in second.messages] == [2]
    assert [error["type"] for error in some_store.find(message).errors] == ["ValueError"]


def test_a_stop_or_a_cancel_leaves_no_attempt_half_done(
    some_store: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    second = Calls()

    def and_stop(message: ScheduledMessage, **kwargs: Any) -> None:
        some_store.find(message).cancel()
        worker._beat()
        worker.request_stop()

    receive(and_stop, name="first")
    receive(second, name="second")
    worker = start(some_store.alias)
    message = some_store.schedule()

    assert worker.wait(PATIENCE)
    assert len(second.messages) == 1
    assert some_store.find(message).status == Status.DELIVERED
