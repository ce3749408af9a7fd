"""P6: several receivers of one message, some of them atomic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_sked import failpoints
from django_sked.exceptions import Bury
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.signals import (
    message_failed,
)
from django_sked.states import Status
from django_sked.testing import TickedWorker
from tests.worker.conftest import Store
from tests.worker.writing import Writer, notes, tick


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
