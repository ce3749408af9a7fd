"""P6: an atomic receiver runs in one transaction with the settle, on every SQL database."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction

from django_sked import failpoints
from django_sked.exceptions import AttemptTimedOut, Bury, InvalidReceiver, Reschedule, Retry
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.signals import (
    current_message,
    message_cancelled,
    message_dead,
    message_delivered,
    message_due,
    message_failed,
    message_started,
)
from django_sked.states import Status
from django_sked.testing import TickedWorker
from django_sked.worker import Worker
from tests.contract.store import elsewhere
from tests.testapp.models import Note
from tests.worker.conftest import Store, eventually
from tests.worker.writing import Writer, notes, tick, write

# Together or not at all


def test_what_it_writes_and_that_it_was_delivered_are_committed_together(
    sql: Store, atomic: Callable[..., Any]
) -> None:
    seen: list[Any] = []

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        write(sql, "written")
        seen.append(elsewhere(lambda: (notes(sql), sql.find(message).status)))

    atomic(receiver)
    message = sql.schedule()

    tick(sql)

    assert seen == [([], Status.CLAIMED)]
    assert notes(sql) == ["written"]
    found = sql.find(message)
    assert (found.status, found.attempt) == (Status.DELIVERED, 1)


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), RecursionError()], ids=repr)
def test_nothing_of_what_a_failing_one_wrote_is_kept_and_it_is_tried_again(
    sql: Store, atomic: Callable[..., Any], error: BaseException
) -> None:
    writer = atomic(Writer(sql, error))
    message = sql.schedule(retry=Fixed(0.5))

    tick(sql)
    between = sql.find(message)
    assert notes(sql) == []
    assert (between.status, between.attempt, between.errors[0]["type"]) == (
        Status.SCHEDULED,
        1,
        type(error).__name__,
    )
    TickedWorker(sql.alias).tick(between.next_at)

    assert notes(sql) == ["atomic 2"]
    assert writer.attempts == [1, 2]
    assert (sql.find(message).status, sql.find(message).attempt) == (Status.DELIVERED, 2)


def test_one_that_runs_out_of_attempts_is_dead_and_has_written_nothing(sql: Store, atomic: Callable[..., Any]) -> None:
    atomic(Writer(sql, ValueError("no")))
    message = sql.schedule(max_attempts=1)

    tick(sql)

    assert notes(sql) == []
    assert sql.find(message).status == Status.DEAD


@pytest.mark.parametrize(
    ("error", "status", "attempt"),
    [
        (Retry(delay=3600), Status.SCHEDULED, 1),
        (Reschedule(delay=3600), Status.SCHEDULED, 0),
        (Bury("no such order"), Status.DEAD, 1),
    ],
    ids=["retry", "reschedule", "bury"],
)
def test_what_it_raises_on_purpose_means_what_it_always_means_and_undoes_its_writes(
    sql: Store, atomic: Callable[..., Any], error: Exception, status: str, attempt: int
) -> None:
    atomic(Writer(sql, error))
    message = sql.schedule()

    tick(sql)

    found = sql.find(message)
    assert notes(sql) == []
    assert (found.status, found.attempt) == (status, attempt)
    if status == Status.SCHEDULED:
        assert found.next_at > sql.backend.now() + timedelta(seconds=3000)


def test_what_it_schedules_is_gone_with_its_other_writes(sql: Store, atomic: Callable[..., Any]) -> None:
    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        sql.schedule("follow.up", delay=3600)
        if message.attempt == 1:
            raise ValueError

    atomic(receiver, "order.paid")
    message = sql.schedule(retry=Fixed(0.5))

    tick(sql)
    assert sql.count(event="follow.up") == 0
    TickedWorker(sql.alias).tick(sql.find(message).next_at)

    assert sql.count(event="follow.up") == 1


def test_savepoints_inside_are_its_own_matter(sql: Store, atomic: Callable[..., Any]) -> None:
    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        write(sql, "before")
        with pytest.raises(IntegrityError), transaction.atomic(using=sql.alias):
            write(sql, "undone")
            raise IntegrityError
        with transaction.atomic(using=sql.alias):
            write(sql, "after")

    atomic(receiver)
    message = sql.schedule()

    tick(sql)

    assert notes(sql) == ["after", "before"]
    assert sql.find(message).status == Status.DELIVERED


def test_an_error_of_the_database_that_was_swallowed_is_a_failed_attempt(
    sql: Store, atomic: Callable[..., Any]
) -> None:
    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        write(sql, "before")
        taken = Note.objects.using(sql.alias).get().pk
        with pytest.raises(IntegrityError):
            Note.objects.using(sql.alias).create(pk=taken, text="twice")

    atomic(receiver)
    message = sql.schedule()

    tick(sql)

    found = sql.find(message)
    assert notes(sql) == []
    assert (found.status, found.attempt) == (Status.SCHEDULED, 1)
    assert found.errors[0]["type"] == "TransactionManagementError"


def test_one_that_marked_its_transaction_for_rollback_has_failed(sql: Store, atomic: Callable[..., Any]) -> None:
    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        write(sql, "undone")
        transaction.set_rollback(True, using=sql.alias)

    atomic(receiver)
    message = sql.schedule()

    tick(sql)

    assert notes(sql) == []
    assert (sql.find(message).status, sql.find(message).attempt) == (Status.SCHEDULED, 1)


def test_one_that_closed_its_connection_has_failed_and_the_next_one_finds_a_good_one(
    sql: Store, atomic: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        write(sql, message.payload)
        if message.payload == "closes":
            connections[sql.alias].close()

    atomic(receiver)
    bad = sql.schedule(payload="closes", max_attempts=1, priority=1)
    good = sql.schedule(payload="good")
    start(sql.alias, concurrency=1)

    assert eventually(lambda: sql.find(good).status == Status.DELIVERED)
    assert eventually(lambda: sql.find(bad).status == Status.DEAD)
    assert notes(sql) == ["good"]


# The fence


def test_one_whose_message_was_taken_back_before_its_start_writes_nothing(
    sql: Store, atomic: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    atomic(Writer(sql))
    message = sql.schedule()
    late = TickedWorker(sql.alias)
    (claimed,) = late.claim()
    assert sql.backend.rescue() == [message.pk]

    with caplog.at_level(logging.WARNING, "django_sked.worker"):
        assert late.dispatch(claimed) is None

    assert notes(sql) == []
    assert "lease_lost" in caplog.text
    found = sql.find(message)
    assert (found.status, found.attempt, found.errors, found.delivered_to) == (Status.SCHEDULED, 0, [], {})


def test_one_whose_message_is_taken_back_while_it_runs_undoes_what_it_wrote(
    server: Store, atomic: Callable[..., Any]
) -> None:
    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        write(server, f"written {message.token}")
        if message.token == 1:
            assert elsewhere(server.backend.rescue) == [message.pk]

    atomic(receiver)
    message = server.schedule()
    late = TickedWorker(server.alias)
    (claimed,) = late.claim()

    assert late.dispatch(claimed) is None
    assert notes(server) == []
    assert server.find(message).status == Status.SCHEDULED
    TickedWorker(server.alias).tick()

    assert notes(server) == ["written 3"]
    assert (server.find(message).status, server.find(message).attempt) == (Status.DELIVERED, 1)


def test_of_a_holder_and_its_successor_one_writes(server: Store, atomic: Callable[..., Any]) -> None:
    """The first one comes back after the second has ended, as when its process had been stopped."""
    successor = TickedWorker(server.alias)

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        write(server, f"written {message.token}")
        if message.token == 1:
            elsewhere(lambda: (server.backend.rescue(), successor.tick()))

    atomic(receiver)
    message = server.schedule()

    assert TickedWorker(server.alias).tick()[0].pk == message.pk

    assert notes(server) == ["written 3"]
    assert (server.find(message).status, server.find(message).attempt) == (Status.DELIVERED, 1)


def test_a_lost_message_is_not_held_any_longer(
    server: Store, atomic: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    tokens: list[int] = []

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        tokens.append(message.token)
        if len(tokens) == 1:
            elsewhere(lambda: _take_back(server))

    atomic(receiver)
    message = server.schedule()
    worker = start(server.alias)

    assert eventually(lambda: server.find(message).status == Status.DELIVERED)
    assert eventually(lambda: worker.in_flight == 0)
    assert len(tokens) == 2


def _take_back(store: Store) -> None:
    """As a rescue, which would wait until the lease has lapsed."""
    with connections[store.alias].cursor() as cursor:
        cursor.execute(
            "UPDATE django_sked_scheduledmessage SET status = 'scheduled', claimed_by = NULL, token = token + 1"
        )


def test_a_cancel_while_it_runs_does_not_undo_its_success(server: Store, atomic: Callable[..., Any]) -> None:
    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        write(server, "written")
        elsewhere(lambda: server.find(message).cancel())

    atomic(receiver)
    message = server.schedule()

    tick(server)

    assert (server.find(message).status, notes(server)) == (Status.DELIVERED, ["written"])


def test_a_cancel_while_it_runs_ends_one_that_fails(
    server: Store, atomic: Callable[..., Any], listen: Callable[..., Any]
) -> None:
    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        write(server, "undone")
        elsewhere(lambda: server.find(message).cancel())
        raise ValueError

    atomic(receiver)
    told = listen(message_cancelled)
    message = server.schedule()

    tick(server)

    assert (server.find(message).status, notes(server)) == (Status.CANCELLED, [])
    assert len(told) == 1


def test_one_that_expired_before_its_start_is_not_started(sql: Store, atomic: Callable[..., Any]) -> None:
    writer = atomic(Writer(sql))
    now = sql.backend.now()
    message = sql.schedule(at=now, expires_in=10)
    worker = TickedWorker(sql.alias)
    claimed = worker.claim(now)

    worker.settle([worker.dispatch(claimed[0], now + timedelta(seconds=10))], claimed, now + timedelta(seconds=10))

    assert (writer.attempts, sql.find(message).status) == ([], Status.EXPIRED)


def test_its_retry_that_would_come_after_the_expiry_ends_expired(sql: Store, atomic: Callable[..., Any]) -> None:
    atomic(Writer(sql, ValueError()))
    message = sql.schedule(expires_in=60, retry=Fixed(3600))

    tick(sql)

    assert (sql.find(message).status, notes(sql)) == (Status.EXPIRED, [])


# Several receivers


def test_the_plain_ones_come_first(sql: Store, atomic: Callable[..., Any], receive: Callable[..., Any]) -> None:
    order: list[str] = []
    atomic(lambda **kwargs: order.append("atomic"))
    receive(lambda **kwargs: order.append("plain"), name="plain")
    message = sql.schedule()

    tick(sql)

    assert order == ["plain", "atomic"]
    found = sql.find(message)
    assert (found.status, found.delivered_to) == (Status.DELIVERED, {"plain": "delivered", "atomic": "delivered"})


def test_one_that_succeeds_beside_a_plain_one_that_fails_is_not_called_again(
    sql: Store, atomic: Callable[..., Any], receive: Callable[..., Any], listen: Callable[..., Any]
) -> None:
    told = listen(message_failed)
    writer = atomic(Writer(sql))
    calls: list[int] = []

    def plain(message: ScheduledMessage, **kwargs: Any) -> None:
        calls.append(message.attempt)
        if message.attempt == 1:
            raise ValueError

    receive(plain, name="plain")
    message = sql.schedule(retry=Fixed(0.5))

    tick(sql)
    between = sql.find(message)
    TickedWorker(sql.alias).tick(between.next_at)

    assert (between.status, between.attempt, between.delivered_to) == (Status.SCHEDULED, 1, {"atomic": "delivered"})
    assert [error["receiver"] for error in between.errors] == ["plain"]
    assert (calls, writer.attempts, notes(sql)) == ([1, 2], [1], ["atomic 1"])
    assert sql.find(message).status == Status.DELIVERED
    assert len(told) == 1


def test_a_plain_one_that_succeeds_beside_one_that_fails_is_not_called_again(
    sql: Store, atomic: Callable[..., Any], receive: Callable[..., Any]
) -> None:
    writer = atomic(Writer(sql, ValueError()))
    calls: list[int] = []
    receive(lambda message, **kwargs: calls.append(message.attempt), name="plain")
    message = sql.schedule(retry=Fixed(0.5))

    tick(sql)
    between = sql.find(message)
    TickedWorker(sql.alias).tick(between.next_at)

    assert between.delivered_to == {"plain": "delivered"}
    assert (calls, writer.attempts, notes(sql)) == ([1], [1, 2], ["atomic 2"])
    assert sql.find(message).status == Status.DELIVERED


def test_of_two_the_first_is_kept_and_only_the_second_is_called_again(sql: Store, atomic: Callable[..., Any]) -> None:
    first, second = atomic(Writer(sql), name="first"), atomic(Writer(sql, ValueError()), name="second")
    message = sql.schedule(retry=Fixed(0.5))

    tick(sql)
    between = sql.find(message)
    assert notes(sql) == ["first 1"]
    TickedWorker(sql.alias).tick(between.next_at)

    assert (between.status, between.attempt, between.delivered_to) == (Status.SCHEDULED, 1, {"first": "delivered"})
    assert (first.attempts, second.attempts) == ([1], [1, 2])
    assert notes(sql) == ["first 1", "second 2"]
    assert sql.find(message).status == Status.DELIVERED


def test_what_the_first_of_two_wrote_survives_the_worker(sql: Store, atomic: Callable[..., Any]) -> None:
    first = atomic(Writer(sql), name="first")
    second = atomic(Writer(sql), name="second")
    message = sql.schedule()
    worker = TickedWorker(sql.alias)
    (claimed,) = worker.claim()

    with failpoints.failing("atomic.before_commit=raise:KeyboardInterrupt:2"), pytest.raises(KeyboardInterrupt):
        worker.dispatch(claimed)
    sql.backend.rescue()
    tick(sql)

    assert (len(first.attempts), len(second.attempts)) == (1, 2)
    assert notes(sql) == ["first 1", "second 1"]
    assert sql.find(message).status == Status.DELIVERED


def test_one_that_buries_beside_one_that_succeeds_leaves_the_message_dead(
    sql: Store, atomic: Callable[..., Any]
) -> None:
    atomic(Writer(sql, Bury("no")), name="burier")
    atomic(Writer(sql), name="writer")
    message = sql.schedule()

    tick(sql)

    found = sql.find(message)
    assert notes(sql) == ["writer 1"]
    assert (found.status, found.delivered_to, found.reason) == (Status.DEAD, {"writer": "delivered"}, "no")


def test_it_is_the_last_and_has_nobody_to_call_after_a_redrive(sql: Store, atomic: Callable[..., Any]) -> None:
    writer = atomic(Writer(sql), name="writer")
    burier = atomic(Writer(sql, Bury("no")), name="burier")
    message = sql.schedule()
    tick(sql)

    sql.find(message).redrive()
    tick(sql)

    assert (writer.attempts, burier.attempts) == ([1], [1, 1])
    assert notes(sql) == ["burier 1", "writer 1"]
    assert sql.find(message).status == Status.DELIVERED


# After the commit


def test_its_hooks_run_after_the_commit(sql: Store, atomic: Callable[..., Any]) -> None:
    seen: list[Any] = []

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        write(sql, "written")
        transaction.on_commit(
            lambda: seen.append(elsewhere(lambda: (notes(sql), sql.find(message).status))), using=sql.alias
        )
        assert seen == []

    atomic(receiver)
    sql.schedule()

    tick(sql)

    assert seen == [(["written"], Status.DELIVERED)]


def test_its_hooks_do_not_run_when_it_fails(sql: Store, atomic: Callable[..., Any]) -> None:
    seen: list[Any] = []

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        transaction.on_commit(lambda: seen.append(1), using=sql.alias)
        raise ValueError

    atomic(receiver)
    sql.schedule()

    tick(sql)

    assert seen == []


@pytest.mark.parametrize("error", [ValueError, SystemExit, AttemptTimedOut])
@pytest.mark.parametrize("names", [["hooked"], ["hooked", "last"]], ids=["the last", "not the last"])
def test_an_error_of_its_hooks_causes_no_retry(
    sql: Store,
    atomic: Callable[..., Any],
    listen: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    error: type[BaseException],
    names: list[str],
) -> None:
    def fail() -> None:
        raise error

    def hooked(message: ScheduledMessage, **kwargs: Any) -> None:
        write(sql, "hooked")
        transaction.on_commit(fail, using=sql.alias)

    for name in names:
        atomic(hooked if name == "hooked" else Writer(sql), name=name)
    delivered, failed = listen(message_delivered), listen(message_failed)
    message = sql.schedule(retry=Fixed(0.001))

    with caplog.at_level(logging.ERROR, "django_sked.worker"):
        tick(sql)
        tick(sql)

    found = sql.find(message)
    assert (found.status, found.attempt, found.errors) == (Status.DELIVERED, 1, [])
    assert notes(sql) == ["hooked", "last 1"][: len(names)]
    assert (len(delivered), len(failed)) == (1, 0)
    assert "on_commit_failed" in caplog.text


def test_facts_are_told_once_after_the_commit(
    sql: Store, atomic: Callable[..., Any], listen: Callable[..., Any]
) -> None:
    told = {fact: listen(fact) for fact in (message_started, message_delivered, message_failed, message_dead)}
    seen: list[Any] = []

    def look(messages: list[ScheduledMessage], **kwargs: Any) -> None:
        stored = sql.find(messages[0])
        seen.append((messages[0].status, messages[0].attempt, stored.status, stored.attempt))
        assert not connections[sql.alias].in_atomic_block

    message_delivered.connect(look)
    atomic(Writer(sql), name="first")
    atomic(Writer(sql), name="second")
    message = sql.schedule()
    try:
        tick(sql)
    finally:
        message_delivered.disconnect(look)

    ids = {fact: [each["messages"][0].pk for each in sent] for fact, sent in told.items()}
    assert ids == {message_started: [message.pk], message_delivered: [message.pk], message_failed: [], message_dead: []}
    assert seen == [(Status.DELIVERED, 1, Status.DELIVERED, 1)]


def test_facts_of_a_failed_one_are_told_once(
    sql: Store, atomic: Callable[..., Any], listen: Callable[..., Any]
) -> None:
    told = {fact: listen(fact) for fact in (message_delivered, message_failed, message_dead)}
    atomic(Writer(sql, ValueError()))
    sql.schedule(max_attempts=1)

    tick(sql)

    assert {fact: len(sent) for fact, sent in told.items()} == {
        message_delivered: 0,
        message_failed: 1,
        message_dead: 1,
    }


def test_code_below_it_can_ask_for_the_current_message(sql: Store, atomic: Callable[..., Any]) -> None:
    seen: list[Any] = []
    atomic(lambda message, **kwargs: seen.append(current_message() is message))
    sql.schedule()

    tick(sql)

    assert seen == [True]
    assert current_message() is None


def test_with_a_retention_of_nothing_it_is_deleted_with_what_was_written(
    keeps_nothing: Store, atomic: Callable[..., Any], listen: Callable[..., Any]
) -> None:
    told = listen(message_delivered)
    atomic(Writer(keeps_nothing, ValueError()))
    message = keeps_nothing.schedule(retry=Fixed(0.5))

    tick(keeps_nothing)
    assert (keeps_nothing.count(), notes(keeps_nothing)) == (1, [])
    TickedWorker(keeps_nothing.alias).tick(keeps_nothing.find(message).next_at)

    assert (keeps_nothing.count(), notes(keeps_nothing)) == (0, ["atomic 2"])
    assert [each["messages"][0].pk for each in told] == [message.pk]


# Where it cannot be


def test_a_coroutine_function_is_refused() -> None:
    async def receiver(**kwargs: Any) -> None: ...

    with pytest.raises(InvalidReceiver, match="a transaction needs a plain one"):
        message_due.connect(receiver, atomic=True)


@pytest.mark.parametrize("first", [True, False])
def test_a_receiver_is_atomic_or_it_is_not(receive: Callable[..., Any], first: bool) -> None:
    """Of two connections of one function the later one would decide for both, without a word."""

    def receiver(**kwargs: Any) -> None: ...

    message_due.connect(receiver, event="a", atomic=first)
    with pytest.raises(InvalidReceiver, match="atomic"):
        message_due.connect(receiver, event="b", atomic=not first)
    message_due.connect(receiver, event="c", atomic=first)

    assert [each.atomic for each in message_due.receivers_of("c")] == [first]


def test_on_a_store_that_has_no_transactions_the_attempt_fails_and_says_why(
    memory: Store, atomic: Callable[..., Any]
) -> None:
    calls: list[int] = []
    atomic(lambda **kwargs: calls.append(1))
    message = memory.schedule(max_attempts=1)

    tick(memory)

    found = memory.find(message)
    assert (calls, found.status) == ([], Status.DEAD)
    assert "An atomic receiver cannot take messages of the backend 'memory'." in found.errors[0]["text"]


def test_a_thousand_messages_are_delivered_and_written_once_each(
    sql: Store, atomic: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    atomic(lambda message, **kwargs: write(sql, message.payload))
    sql.schedule_many(200)
    for _ in range(2):
        start(sql.alias)

    assert eventually(lambda: sql.count(status="delivered") == 200)
    assert notes(sql) == sorted(map(str, range(200)))


# The key for services that are not part of the transaction


def test_the_idempotency_key_is_the_same_at_every_attempt_and_for_every_worker(
    some_store: Store, receive: Callable[..., Any]
) -> None:
    keys: list[str] = []

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        keys.append(message.idempotency_key)
        raise ValueError

    receive(receiver, name="pay")
    message = some_store.schedule(max_attempts=3, retry=Fixed(1))
    for _ in range(3):
        TickedWorker(some_store.alias).tick(some_store.find(message).next_at)

    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_the_idempotency_key_is_another_one_for_every_receiver_and_message(
    some_store: Store, receive: Callable[..., Any]
) -> None:
    keys: list[str] = []
    for name in ("pay", "ship"):
        receive(lambda message, **kwargs: keys.append(message.idempotency_key), name=name)
    some_store.schedule_many(2)

    TickedWorker(some_store.alias).tick()

    assert len(set(keys)) == 4


def test_the_idempotency_key_survives_a_redrive_and_the_store(some_store: Store, receive: Callable[..., Any]) -> None:
    keys: list[str] = []

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        keys.append(message.idempotency_key)
        raise Bury("no")

    receive(receiver, name="pay")
    message = some_store.schedule()
    TickedWorker(some_store.alias).tick()
    some_store.find(message).redrive()
    TickedWorker(some_store.alias).tick()

    assert len(keys) == 2
    assert len(set(keys)) == 1
