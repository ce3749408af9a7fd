"""P6: an atomic receiver that takes too long."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from django.db import connections

from django_sked.exceptions import AttemptTimedOut, Retry
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.states import Status
from django_sked.testing import TickedWorker
from django_sked.worker import Worker
from django_sked.worker import deadlines as deadlines_module
from tests.testapp.models import Note
from tests.worker.conftest import PATIENCE, Store, eventually
from tests.worker.writing import failing_as_on_a_normal_day, notes, write

pytestmark = pytest.mark.usefixtures("no_pause", "no_failpoints")


def spin() -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        pass


def test_one_that_takes_too_long_is_ended_and_has_written_nothing(
    sql: Store, atomic: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    calls: list[int] = []

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        calls.append(message.attempt)
        write(sql, f"attempt {message.attempt}")
        if message.attempt == 1:
            spin()

    atomic(receiver)
    message = sql.schedule(timeout=0.5, retry=Fixed(0.01))
    start(sql.alias, concurrency=1)

    assert eventually(lambda: sql.find(message).status == Status.DELIVERED)
    found = sql.find(message)
    assert found.attempt > 1 and calls[0] == 1
    # On a busy machine another attempt or two may take too long.
    assert notes(sql) == [f"attempt {found.attempt}"]
    assert [error["type"] for error in found.errors] == (found.attempt - 1) * ["AttemptTimedOut"]


@pytest.mark.parametrize("error", [None, "on a normal day", Retry(delay=0.01)], ids=["none", "expected", "retry"])
def test_one_that_takes_too_long_and_swallows_that_has_failed_all_the_same(
    sql: Store, atomic: Callable[..., Any], start: Callable[..., Worker], error: Any
) -> None:
    """It may have been in the middle of a query: what its connection says from then on is not to be relied on."""
    calls: list[int] = []

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        calls.append(message.attempt)
        write(sql, f"attempt {message.attempt}")
        if message.attempt == 1:
            with suppress(AttemptTimedOut):
                while True:
                    Note.objects.using(sql.alias).count()
            if error is not None:
                raise failing_as_on_a_normal_day(sql) if isinstance(error, str) else error

    atomic(receiver)
    message = sql.schedule(timeout=0.5, retry=Fixed(0.01))
    start(sql.alias, concurrency=1)

    assert eventually(lambda: sql.find(message).status == Status.DELIVERED)
    found = sql.find(message)
    assert found.attempt > 1 and calls[0] == 1
    assert notes(sql) == [f"attempt {found.attempt}"]
    first, *others = [each["type"] for each in found.errors]
    assert first == ("Retry" if isinstance(error, Retry) else "AttemptTimedOut")
    # On a busy machine another attempt or two may take too long.
    assert others == (found.attempt - 2) * ["AttemptTimedOut"]


def test_one_without_a_timeout_of_its_own_has_no_more_than_the_lease(
    sql: Store, atomic: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    atomic(lambda **kwargs: spin())
    message = sql.schedule(max_attempts=1)
    start(sql.alias, lease=0.6)

    assert eventually(lambda: sql.find(message).status == Status.DEAD)
    assert sql.find(message).errors[0]["type"] == "AttemptTimedOut"


def test_one_that_was_written_off_undoes_what_it_wrote_when_it_ends(
    server: Store,
    atomic: Callable[..., Any],
    start: Callable[..., Worker],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(deadlines_module, "GRACE", (0.01, 0.01))
    may_end = threading.Event()

    def stubborn(message: ScheduledMessage, **kwargs: Any) -> None:
        write(server, "undone")
        while not may_end.is_set():
            try:
                may_end.wait(0.01)
            except AttemptTimedOut:
                pass

    atomic(stubborn)
    message = server.schedule(timeout=0.2, max_attempts=1)
    worker = start(server.alias, concurrency=2)
    assert eventually(lambda: server.find(message).status == Status.DEAD)

    with caplog.at_level(logging.WARNING, "django_sked.worker"):
        may_end.set()
        assert eventually(lambda: "lease_lost" in caplog.text)

    # A pool that has nothing more to do may be gone by then.
    assert eventually(lambda: not any(pool.abandoned for pool in list(worker._claimer.pools.values())))
    assert notes(server) == []
    assert server.find(message).status == Status.DEAD


def test_the_server_ends_its_transaction_when_it_is_idle_for_too_long(
    server: Store, atomic: Callable[..., Any], receive: Callable[..., Any]
) -> None:
    if connections[server.alias].vendor != "postgresql":
        pytest.skip("PostgreSQL's way; for MariaDB's see tests/database")
    seen: dict[str, str] = {}

    def ask(message: ScheduledMessage, **kwargs: Any) -> None:
        with connections[server.alias].cursor() as cursor:
            cursor.execute("SHOW idle_in_transaction_session_timeout")
            seen[message.receiver or ""] = cursor.fetchone()[0]

    atomic(ask, name="atomic")
    receive(ask, name="plain")
    server.schedule(timeout=7)

    TickedWorker(server.alias, lease=30).tick()

    assert seen == {"plain": "0", "atomic": "37s"}
