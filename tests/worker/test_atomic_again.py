"""P6: what an atomic receiver does again, and what it never does again, when its transaction does not end well."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.db import OperationalError, connections

from django_sked import failpoints
from django_sked.exceptions import AttemptTimedOut, Retry
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.signals import message_delivered, message_failed, message_started
from django_sked.states import Status
from django_sked.testing import TickedWorker
from django_sked.worker import Worker, transactions
from django_sked.worker import deadlines as deadlines_module
from tests.contract.store import elsewhere
from tests.testapp.models import Note
from tests.worker.conftest import PATIENCE, Store, eventually
from tests.worker.writing import Writer, notes, tick, write


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "PAUSE", 0.0)


@pytest.fixture(autouse=True)
def no_failpoints() -> Iterator[None]:
    yield
    failpoints.clear()


# Tried again without spending an attempt


def failing_as_on_a_normal_day(store: Store) -> OperationalError:
    """What Django raises of a connection, or a disk, that went away."""
    vendor = connections[store.alias].vendor
    cause: Exception
    if vendor == "sqlite":
        cause = sqlite3.OperationalError("disk I/O error")
        cause.sqlite_errorcode = 10
    elif vendor == "mysql":
        cause = Exception(2013, "Lost connection to MySQL server during query")
    else:
        import psycopg

        cause = psycopg.OperationalError("server closed the connection unexpectedly")
    error = OperationalError(*cause.args)
    error.__cause__ = cause
    assert store.backend.is_expected(error)
    return error


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


# The connection is lost


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


@pytest.fixture
def lose_the_answer(sql: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The next COMMIT of a receiver takes place, and then the connection is lost: nobody is told."""
    lost: list[str] = []
    wrapper: Any = type(connections[sql.alias])
    commit = wrapper._commit

    def and_lose(self: Any) -> Any:
        result = commit(self)
        if self.alias == sql.alias and armed and not lost:
            lost.append(self.alias)
            self.errors_occurred = True  # as by Django around the driver's call
            if self.vendor != "sqlite":
                # As each driver does it to itself when the server is gone.
                getattr(self.connection, "_force_close", self.connection.close)()
            raise failing_as_on_a_normal_day(sql)
        return result

    armed: list[bool] = []
    hit = failpoints.hit

    def arm(name: str) -> None:
        if name == "atomic.before_commit":
            armed.append(True)
        hit(name)

    monkeypatch.setattr(failpoints, "hit", arm)
    monkeypatch.setattr(wrapper, "_commit", and_lose)
    return lost


def test_a_commit_of_which_nobody_was_told_is_read_back_and_not_run_again(
    sql: Store, atomic: Callable[..., Any], lose_the_answer: list[str], listen: Callable[..., Any]
) -> None:
    told = listen(message_delivered)
    writer = atomic(Writer(sql))
    message = sql.schedule(max_attempts=1)

    tick(sql)

    assert lose_the_answer
    assert (writer.attempts, notes(sql)) == ([1], ["atomic 1"])
    assert (sql.find(message).status, sql.find(message).attempt) == (Status.DELIVERED, 1)
    assert [each["messages"][0].status for each in told] == [Status.DELIVERED]


def test_one_of_two_whose_commit_was_not_told_is_kept_and_not_run_again(
    sql: Store, atomic: Callable[..., Any], lose_the_answer: list[str]
) -> None:
    first, second = atomic(Writer(sql), name="first"), atomic(Writer(sql), name="second")
    message = sql.schedule(max_attempts=1)

    tick(sql)

    assert lose_the_answer
    assert (first.attempts, second.attempts) == ([1], [1])
    assert notes(sql) == ["first 1", "second 1"]
    assert sql.find(message).status == Status.DELIVERED


@pytest.fixture
def commit_later(server: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[threading.Timer]]:
    """The connection is lost in the next COMMIT of a receiver, and the server only takes its time over that."""
    late: list[threading.Timer] = []
    wrapper: Any = type(connections[server.alias])
    commit = wrapper._commit

    def lose_and_commit(self: Any) -> Any:
        if self.alias != server.alias or not armed or late:
            return commit(self)
        raw, self.connection = self.connection, self.get_new_connection(self.get_connection_params())
        getattr(self.connection, "_force_close", self.connection.close)()
        self.errors_occurred = True

        def commit_and_close() -> None:
            raw.commit()
            raw.close()

        late.append(threading.Timer(0.3, commit_and_close))
        late[0].start()
        raise failing_as_on_a_normal_day(server)

    armed: list[str] = []
    hit = failpoints.hit
    monkeypatch.setattr(
        failpoints, "hit", lambda name: armed.append(name) if name == "atomic.before_commit" else hit(name)
    )
    monkeypatch.setattr(wrapper, "_commit", lose_and_commit)
    yield late
    for timer in late:
        timer.join(PATIENCE)


def test_one_of_two_whose_commit_comes_after_its_connection_was_lost_is_not_run_again(
    server: Store, atomic: Callable[..., Any], commit_later: list[threading.Timer]
) -> None:
    """The fence lets a second try of it pass: its message is still claimed under the same token."""
    first, second = atomic(Writer(server), name="first"), atomic(Writer(server), name="second")
    message = server.schedule(max_attempts=1)

    tick(server)

    assert len(commit_later) == 1
    assert (first.attempts, second.attempts) == ([1], [1])
    assert notes(server) == ["first 1", "second 1"]
    assert (server.find(message).status, server.find(message).attempt) == (Status.DELIVERED, 1)


def test_a_retry_beside_it_whose_commit_was_not_told_is_read_back(
    sql: Store, atomic: Callable[..., Any], receive: Callable[..., Any], lose_the_answer: list[str]
) -> None:
    def plain(**kwargs: Any) -> None:
        raise ValueError

    receive(plain, name="plain")
    writer = atomic(Writer(sql))
    message = sql.schedule(retry=Fixed(3600))

    tick(sql)

    found = sql.find(message)
    assert lose_the_answer
    assert (writer.attempts, notes(sql)) == ([1], ["atomic 1"])
    assert (found.status, found.attempt, found.delivered_to) == (Status.SCHEDULED, 1, {"atomic": "delivered"})
    assert len(found.errors) == 1


def test_a_commit_that_deleted_its_message_was_a_delivery(
    keeps_nothing: Store,
    atomic: Callable[..., Any],
    lose_the_answer: list[str],
    listen: Callable[..., Any],
) -> None:
    told = listen(message_delivered)
    writer = atomic(Writer(keeps_nothing))
    keeps_nothing.schedule(max_attempts=1)

    tick(keeps_nothing)

    assert lose_the_answer
    assert (writer.attempts, notes(keeps_nothing), keeps_nothing.count()) == ([1], ["atomic 1"], 0)
    assert len(told) == 1


@pytest.fixture
def away(sql: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """After a call of this the store cannot be asked what it has, once."""
    read_back = sql.backend.read_back

    def call() -> None:
        def fail(*args: Any, **kwargs: Any) -> Any:
            monkeypatch.setattr(sql.backend, "read_back", read_back)
            raise failing_as_on_a_normal_day(sql)

        monkeypatch.setattr(sql.backend, "read_back", fail)

    return call


def test_a_commit_in_doubt_that_took_place_is_not_run_again(
    sql: Store, atomic: Callable[..., Any], lose_the_answer: list[str], away: Callable[[], None]
) -> None:
    writer = atomic(Writer(sql))
    message = sql.schedule()
    away()

    tick(sql)
    tick(sql)

    assert lose_the_answer
    assert (writer.attempts, notes(sql)) == ([1], ["atomic 1"])
    assert (sql.find(message).status, sql.find(message).attempt) == (Status.DELIVERED, 1)


def test_a_commit_in_doubt_that_did_not_take_place_comes_again_and_costs_no_attempt(
    sql: Store, atomic: Callable[..., Any], receive: Callable[..., Any], away: Callable[[], None]
) -> None:
    plain: list[int] = []
    receive(lambda message, **kwargs: plain.append(message.attempt), name="plain")
    writer = atomic(Writer(sql, failing_as_on_a_normal_day(sql)))
    message = sql.schedule(max_attempts=1)
    away()

    tick(sql)
    between = sql.find(message)
    assert (between.status, between.attempt, notes(sql)) == (Status.SCHEDULED, 0, [])
    TickedWorker(sql.alias).tick(between.next_at)

    assert (writer.attempts, notes(sql)) == ([1, 1], ["atomic 1"])
    assert plain == [1], "it had been delivered to already"
    assert sql.find(message).status == Status.DELIVERED


def test_what_was_said_before_a_commit_in_doubt_is_kept(
    sql: Store, atomic: Callable[..., Any], receive: Callable[..., Any], away: Callable[[], None]
) -> None:
    """A plain receiver has failed, another one has succeeded, and the first of two atomic ones is in doubt."""
    calls: list[str] = []

    def fails(message: ScheduledMessage, **kwargs: Any) -> None:
        calls.append(f"fails {message.attempt}")
        raise ValueError("no")

    receive(fails, name="fails")
    receive(lambda message, **kwargs: calls.append(f"succeeds {message.attempt}"), name="succeeds")
    first = atomic(Writer(sql, failing_as_on_a_normal_day(sql)), name="first")
    second = atomic(Writer(sql), name="second")
    message = sql.schedule(max_attempts=2, retry=Fixed(0.01))
    away()

    tick(sql)

    between = sql.find(message)
    assert (between.status, between.attempt) == (Status.SCHEDULED, 1)
    assert between.delivered_to == {"succeeds": "delivered"}
    assert [(error["receiver"], error["text"]) for error in between.errors] == [("fails", "no")]

    TickedWorker(sql.alias).tick(between.next_at)

    assert calls == ["fails 1", "succeeds 1", "fails 2"]
    assert (first.attempts, second.attempts) == ([1, 2], [2])
    found = sql.find(message)
    assert (found.status, found.attempt, len(found.errors)) == (Status.DEAD, 2, 2)
    assert found.delivered_to.keys() == {"succeeds", "first", "second"}


def test_a_commit_in_doubt_that_took_place_is_kept_beside_what_was_said_before(
    sql: Store,
    atomic: Callable[..., Any],
    receive: Callable[..., Any],
    lose_the_answer: list[str],
    away: Callable[[], None],
) -> None:
    def fails(**kwargs: Any) -> None:
        raise ValueError

    receive(fails, name="fails")
    receive(lambda **kwargs: None, name="succeeds")
    first, second = atomic(Writer(sql), name="first"), atomic(Writer(sql), name="second")
    message = sql.schedule(retry=Fixed(3600))
    away()

    tick(sql)

    found = sql.find(message)
    assert lose_the_answer
    assert (first.attempts, second.attempts) == ([1], [])
    assert (found.status, found.attempt, len(found.errors)) == (Status.SCHEDULED, 1, 1)
    assert found.delivered_to == {"succeeds": "delivered", "first": "delivered"}


def test_a_first_one_of_two_in_doubt_is_not_forgotten(
    sql: Store, atomic: Callable[..., Any], lose_the_answer: list[str], away: Callable[[], None]
) -> None:
    first, second = atomic(Writer(sql), name="first"), atomic(Writer(sql), name="second")
    message = sql.schedule()
    away()

    tick(sql)
    between = sql.find(message)
    assert (between.status, between.delivered_to) == (Status.SCHEDULED, {"first": "delivered"})
    TickedWorker(sql.alias).tick(between.next_at)

    assert lose_the_answer
    assert (first.attempts, second.attempts) == ([1], [1])
    assert sql.find(message).status == Status.DELIVERED


# Timeouts


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

    assert eventually(lambda: not worker._claimer.pools["default"].abandoned)
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
