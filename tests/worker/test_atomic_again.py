"""P6: what an atomic receiver does again when its transaction does not end well."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections

from django_sked import failpoints
from django_sked.models import ScheduledMessage
from django_sked.signals import message_failed, message_started
from django_sked.states import Status
from django_sked.worker import Worker, transactions
from tests.contract.store import elsewhere
from tests.testapp.models import Note
from tests.worker.conftest import PATIENCE, Store, eventually
from tests.worker.writing import Writer, failing_as_on_a_normal_day, notes, tick, write

pytestmark = pytest.mark.usefixtures("no_pause", "no_failpoints")


def test_what_fails_as_on_a_normal_day_is_tried_again_in_the_same_attempt(
    sql: Store, atomic: Callable[..., Any], listen: Callable[..., Any]
) -> None:
    started, failed = listen(message_started), listen(message_failed)
    writer = atomic(Writer(sql, *[failing_as_on_a_normal_day(sql) for _ in range(transactions.MOST_TRIES - 1)]))
    message = sql.schedule(max_attempts=1)

    tick(sql)

    assert writer.attempts == [1] * transactions.MOST_TRIES
    assert notes(sql) == ["atomic 1"]
    found = sql.find(message)
    assert (found.status, found.attempt, found.errors) == (Status.DELIVERED, 1, [])
    assert (len(started), len(failed)) == (1, 0)


def test_what_fails_so_again_and_again_is_a_failed_attempt(sql: Store, atomic: Callable[..., Any]) -> None:
    writer = atomic(Writer(sql, *[failing_as_on_a_normal_day(sql) for _ in range(99)]))
    message = sql.schedule()

    tick(sql)

    assert writer.attempts == [1] * 5
    assert notes(sql) == []
    found = sql.find(message)
    assert (found.status, found.attempt, len(found.errors)) == (Status.SCHEDULED, 1, 1)
    assert found.errors[0]["type"] == "OperationalError"


def test_each_try_gets_the_message_as_it_is_stored(sql: Store, atomic: Callable[..., Any]) -> None:
    """One that takes its work out of the payload must not find it empty the second time, and so deliver nothing."""
    errors = [failing_as_on_a_normal_day(sql)]

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        while message.payload["lines"]:
            write(sql, message.payload["lines"].pop())
        message.attempt = 99
        if errors:
            raise errors.pop()

    atomic(receiver)
    message = sql.schedule(payload={"lines": ["a", "b"]})

    tick(sql)

    assert notes(sql) == ["a", "b"]
    assert (sql.find(message).attempt, sql.find(message).payload) == (1, {"lines": ["a", "b"]})


def test_a_deadlock_of_two_receivers_costs_no_attempt(
    server: Store, atomic: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    both = threading.Barrier(2)
    rows = Note.objects.using(server.alias)
    first, second = rows.create(text="0"), rows.create(text="0")
    calls: list[Any] = []

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        order = [first.pk, second.pk] if message.payload == 0 else [second.pk, first.pk]
        calls.append(message.payload)
        is_first_try = calls.count(message.payload) == 1
        for pk in order:
            rows.filter(pk=pk).update(text=f"{message.payload}")
            if is_first_try and pk == order[0]:
                both.wait(PATIENCE)

    atomic(receiver)
    server.schedule_many(2, max_attempts=1)
    start(server.alias, concurrency=2)

    assert eventually(lambda: server.count(status="delivered") == 2)
    assert len(calls) > 2
    assert len(set(notes(server))) == 1, "half of each was kept"
    found = ScheduledMessage.objects.search(backend=server.alias)
    assert {(message.attempt, len(message.errors)) for message in found} == {(1, 0)}


@pytest.fixture
def serializable(server: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    connection = connections[server.alias]
    if connection.vendor != "postgresql":
        pytest.skip("this database does not refuse what cannot be serialized")
    from psycopg import IsolationLevel

    connection.close()
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "isolation_level", IsolationLevel.SERIALIZABLE)
    yield server
    connection.close()


def test_two_receivers_that_count_up_one_row_lose_no_update_and_no_attempt(
    serializable: Store, atomic: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    both = threading.Barrier(2)
    rows = Note.objects.using(serializable.alias)
    row = rows.create(text="0")
    calls: list[Any] = []

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        with connections[serializable.alias].cursor() as cursor:
            cursor.execute("SHOW transaction_isolation")
            assert cursor.fetchone() == ("serializable",)
        calls.append(message.payload)
        before = int(rows.get(pk=row.pk).text)
        if calls.count(message.payload) == 1:
            both.wait(PATIENCE)
        rows.filter(pk=row.pk).update(text=str(before + 1))

    atomic(receiver)
    serializable.schedule_many(2, max_attempts=1)
    start(serializable.alias, concurrency=2)

    assert eventually(lambda: serializable.count(status="delivered") == 2)
    assert (notes(serializable), len(calls)) == (["2"], 3)
    found = ScheduledMessage.objects.search(backend=serializable.alias)
    assert {(message.attempt, len(message.errors)) for message in found} == {(1, 0)}


def test_a_connection_that_is_lost_before_the_commit_has_it_run_again(
    server: Store, atomic: Callable[..., Any]
) -> None:
    writer = atomic(Writer(server))
    message = server.schedule(max_attempts=1)
    failpoints.set("atomic.before_commit=drop")

    tick(server)

    assert writer.attempts == [1, 1]
    assert notes(server) == ["atomic 1"]
    assert (server.find(message).status, server.find(message).attempt) == (Status.DELIVERED, 1)


def test_a_connection_that_is_lost_after_the_commit_changes_nothing(
    server: Store, atomic: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    writer = atomic(Writer(server))
    messages = server.schedule_many(2, max_attempts=1)
    failpoints.set("atomic.after_commit=drop")
    start(server.alias, concurrency=1)

    assert eventually(lambda: server.count(status="delivered") == 2)
    assert (writer.attempts, notes(server)) == ([1, 1], ["atomic 1", "atomic 1"])
    assert {server.find(message).attempt for message in messages} == {1}


KILL = {"postgresql": "SELECT pg_terminate_backend({})", "mysql": "KILL {}"}
MINE = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT CONNECTION_ID()"}


def test_a_session_that_the_server_ends_has_it_run_again(server: Store, atomic: Callable[..., Any]) -> None:
    vendor = connections[server.alias].vendor
    calls: list[int] = []

    def ask(sql: str) -> Any:
        with connections[server.alias].cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0] if cursor.description else None

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        calls.append(message.attempt)
        write(server, f"call {len(calls)}")
        if len(calls) == 1:
            session = ask(MINE[vendor])
            elsewhere(lambda: ask(KILL[vendor].format(session)))

    atomic(receiver)
    message = server.schedule(max_attempts=1)

    tick(server)

    assert calls == [1, 1]
    assert notes(server) == ["call 2"]
    assert (server.find(message).status, server.find(message).attempt) == (Status.DELIVERED, 1)
