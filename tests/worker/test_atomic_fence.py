"""P6: an atomic receiver whose message was taken back, cancelled or has expired."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections

from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.signals import (
    message_cancelled,
)
from django_sked.states import Status
from django_sked.testing import TickedWorker
from django_sked.worker import Worker
from tests.contract.store import elsewhere
from tests.worker.conftest import Store, eventually
from tests.worker.writing import Writer, notes, tick, write


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
