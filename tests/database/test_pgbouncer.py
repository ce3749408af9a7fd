"""Behind PgBouncer in transaction mode: every transaction may run on another connection of the server."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connections, transaction

from django_sked import civil, syncing
from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.backends.database import listening
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.testing import connected
from django_sked.worker import Worker
from tests.database.hearing import APPS, POSTGRESQL, Elsewhere, listeners, reached
from tests.servers.bouncer import PgBouncer
from tests.worker.conftest import Calls, eventually

POOL = 2

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=POSTGRESQL, available_apps=APPS),
    pytest.mark.skipif(not POSTGRESQL, reason="PostgreSQL is not part of this run"),
    pytest.mark.skipif(PgBouncer.find() is None, reason="PgBouncer is not installed"),
]


@pytest.fixture
def bouncer() -> Iterator[PgBouncer]:
    with PgBouncer(connections[POSTGRESQL[0]].settings_dict, pool_size=POOL) as bouncer:
        yield bouncer


@pytest.fixture
def using(bouncer: PgBouncer) -> Iterator[str]:
    """PostgreSQL, from now on through PgBouncer."""
    message_backends.reset()
    with reached(POSTGRESQL[0], HOST=bouncer.entry["HOST"], PORT=bouncer.entry["PORT"]):
        yield POSTGRESQL[0]
    message_backends.reset()


@pytest.fixture
def backend(using: str) -> BaseBackend:
    return message_backends[using]


def schedule(using: str, **arguments: Any) -> ScheduledMessage:
    return ScheduledMessage.objects.schedule("order.paid", backend=using, **arguments)


def server_of(connection: Any) -> int:
    """The process of the server that this transaction runs on."""
    (number,) = connection.execute("SELECT pg_backend_pid()").fetchone()
    return int(number)


def test_two_clients_share_one_connection_of_the_server(bouncer: PgBouncer) -> None:
    with closing(bouncer.connect()) as one, closing(bouncer.connect()) as other:
        assert server_of(one) == server_of(other)


def test_a_worker_delivers_everything_once(using: str, backend: BaseBackend, caplog: pytest.LogCaptureFixture) -> None:
    calls = Calls()

    def receive(message: ScheduledMessage, **kwargs: Any) -> None:
        if message.payload == "fails once" and message.attempt == 1:
            raise ValueError("once")
        with transaction.atomic(using=using):
            schedule(using, payload="later", delay=3600)
        calls(message)

    with caplog.at_level(logging.WARNING), connected(receive, "order.paid", dispatch_uid="r"):
        items = [{"event": "order.paid", "payload": number, "key": f"k{number}"} for number in range(300)]
        with transaction.atomic(using=using):
            ScheduledMessage.objects.schedule_many(items, backend=using)
        with Worker(using, poll_interval=0.05, concurrency=8) as worker:
            schedule(using, payload="fails once", retry=Fixed(0.01))
            for number in range(100):
                schedule(using, payload=1000 + number)
            worker._beat()
            assert calls.wait_for(401)

    numbers = [payload for payload in calls.payloads if payload != "fails once"]
    assert sorted(numbers) == [*range(300), *range(1000, 1100)]
    delivered = ScheduledMessage.objects.using(using).filter(status="delivered")
    assert delivered.count() == 401
    assert {record.getMessage().split()[0] for record in caplog.records} <= {"message_failed"}


def test_every_verb_works(using: str, backend: BaseBackend) -> None:
    message = schedule(using, delay=3600, key="k")
    assert message.hold()
    assert message.resume()
    assert message.reschedule(delay=60)
    assert message.make_due()
    assert schedule(using, key="k", on_conflict="replace").was_created
    found = ScheduledMessage.objects.search(backend=using, status="scheduled")
    assert found.reschedule(delay=3600) == 1
    assert found.cancel() == 1
    assert [message.status for message in ScheduledMessage.objects.using(using)] == ["cancelled"] * 2


def test_wall_times_are_read_through_whatever_connection_of_the_server(
    using: str, backend: BaseBackend, bouncer: PgBouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = {"event": "order.paid", "at_local": datetime(2030, 7, 1, 9), "timezone": "Europe/Berlin"}
    # More than are read at once, by us or by Django.
    ScheduledMessage.objects.schedule_many([item] * 2001, backend=using)
    rules = civil.instant_of
    sessions: list[Any] = []
    looked = 0

    def instant_of(wall: datetime, zone: ZoneInfo) -> datetime:
        """From the first one on somebody else has the connection that it was read through."""
        nonlocal looked
        looked += 1
        if not sessions:
            sessions.append(bouncer.connect())
            sessions[0].execute("BEGIN")
            server_of(sessions[0])
        return rules(wall, zone)

    monkeypatch.setattr(civil, "instant_of", instant_of)
    try:
        assert syncing.move_wall_times(backend) == (0, {})
        assert looked == 2001
    finally:
        for session in sessions:
            session.close()


def test_nothing_is_left_in_the_sessions_of_the_server(using: str, backend: BaseBackend, bouncer: PgBouncer) -> None:
    with connected(Calls(), "order.paid", dispatch_uid="r"):
        ScheduledMessage.objects.schedule_many([{"event": "order.paid"}] * 50, backend=using)
        Worker(using, burst=True, poll_interval=0.05).run()

    # One transaction each at the same time, so that each has a connection of its own: all of the pool.
    sessions = [bouncer.connect() for _ in range(POOL)]
    try:
        for session in sessions:
            session.execute("BEGIN")
        assert len({server_of(session) for session in sessions}) == POOL
        for session in sessions:
            for question in (
                "SELECT name FROM pg_prepared_statements",
                "SELECT pg_listening_channels()",
                "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
                "SELECT name FROM pg_cursors WHERE is_holdable",
                "SELECT name FROM pg_settings WHERE name = 'synchronous_commit' AND setting <> 'on'",
            ):
                assert session.execute(question).fetchall() == [], question
    finally:
        for session in sessions:
            session.close()


@pytest.mark.parametrize("is_seen", [True, False], ids=["at once", "by the notification that does not come"])
def test_behind_a_pooler_a_worker_says_so_once_and_polls(
    using: str,
    backend: BaseBackend,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    is_seen: bool,
) -> None:
    if not is_seen:
        monkeypatch.setattr(listening, "_share_sessions", lambda one, other: False)
        monkeypatch.setattr(listening, "TEST", 0.2)
    calls, elsewhere = Calls(), Elsewhere(using)
    with (
        caplog.at_level(logging.INFO, "django_sked.backends"),
        connected(calls, "order.paid", dispatch_uid="r"),
        Worker(using, poll_interval=0.2),
    ):
        assert eventually(lambda: not listeners())
        elsewhere()
        assert calls.wait_for(1)

    assert [record.getMessage() for record in caplog.records] == [
        f"listen_unavailable database={using} reason=no notification comes, as behind a pooler"
    ]


def test_a_worker_in_the_same_process_is_woken_all_the_same(using: str, backend: BaseBackend) -> None:
    calls = Calls()
    with connected(calls, "order.paid", dispatch_uid="r"), Worker(using, poll_interval=3000):
        schedule(using)
        assert calls.wait_for(1)
