"""P6: an atomic receiver runs in one transaction with the settle, on every SQL database."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction

from django_sked.exceptions import AttemptTimedOut, Bury, InvalidReceiver, Reschedule, Retry
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.signals import (
    current_message,
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
