"""P6: what an atomic receiver never does again: a commit of which nobody was told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections

from django_sked import failpoints
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.signals import message_delivered
from django_sked.states import Status
from django_sked.testing import TickedWorker
from tests.worker.conftest import PATIENCE, Store
from tests.worker.writing import Writer, failing_as_on_a_normal_day, notes, tick

pytestmark = pytest.mark.usefixtures("no_pause", "no_failpoints")


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
