"""Wake-ups from another process: what is announced on PostgreSQL, and the thread that hears it."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import connections, transaction
from django.test import override_settings

from django_sked.backends import attention, message_backends
from django_sked.backends.base import BaseBackend
from django_sked.backends.database import listening, waking
from django_sked.backends.quiet import Quiet
from django_sked.models import ScheduledMessage
from django_sked.retry import Exponential
from django_sked.testing import connected
from django_sked.worker import Worker
from tests.database.hearing import (
    APPS,
    POSTGRESQL,
    Ear,
    Elsewhere,
    Wakes,
    backends_listening,
    listeners,
    reached,
    terminate_listeners,
)
from tests.worker.conftest import Calls, at_once, eventually

LATER = 3600
#: Whoever begins to listen looks at once, and again.
WHEN_CONNECTED = 2

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=POSTGRESQL, available_apps=APPS),
    pytest.mark.skipif(not POSTGRESQL, reason="PostgreSQL is not part of this run"),
]


@pytest.fixture(autouse=True)
def _two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one is left out where the first comes late, as on a busy machine: here it must come much later."""
    monkeypatch.setattr(attention, "AGAIN", 0.25)


@pytest.fixture
def using() -> str:
    return POSTGRESQL[0]


@pytest.fixture
def backend(using: str) -> Iterator[BaseBackend]:
    message_backends.reset()
    yield message_backends[using]
    message_backends.reset()


@pytest.fixture
def elsewhere(using: str, backend: BaseBackend) -> Elsewhere:
    return Elsewhere(using)


@pytest.fixture
def ear(using: str) -> Iterator[Ear]:
    ear = Ear(using)
    with closing(ear.connection):
        yield ear


@pytest.fixture
def wakes(backend: BaseBackend) -> Iterator[Wakes]:
    """Woken already for what may have been sent before it listened."""
    wakes = Wakes()
    stop = backend.listen(wakes)
    assert wakes.wait_for(WHEN_CONNECTED)
    yield wakes
    stop()


def schedule(using: str, **arguments: Any) -> ScheduledMessage:
    return ScheduledMessage.objects.schedule("order.paid", backend=using, **arguments)


def test_what_is_due_now_comes_within_a_second_although_the_worker_polls_every_30(
    using: str, backend: BaseBackend, elsewhere: Elsewhere
) -> None:
    calls = Calls()
    with connected(calls, dispatch_uid="r"), Worker(using, poll_interval=30):
        elsewhere(payload="wait until it listens")
        assert calls.wait_for(1)

        def deliver() -> None:
            count = len(calls.payloads)
            elsewhere()
            assert calls.wait_for(count + 1)

        assert at_once(deliver)


def test_what_is_scheduled_while_nobody_listens_is_found_when_somebody_does(
    using: str, elsewhere: Elsewhere, wakes: Wakes
) -> None:
    terminate_listeners(using)
    elsewhere()

    assert wakes.wait_for(WHEN_CONNECTED + 1)


def test_a_listener_that_lost_its_connection_makes_another(using: str, elsewhere: Elsewhere, wakes: Wakes) -> None:
    for connections_so_far in (1, 2):
        terminate_listeners(using)
        assert wakes.wait_for((connections_so_far + 1) * WHEN_CONNECTED)

    elsewhere(queue="mail")

    assert eventually(lambda: "mail" in wakes.queues)


def test_a_listener_whose_test_does_not_come_after_it_has_listened_tries_again(
    using: str, elsewhere: Elsewhere, wakes: Wakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests: list[bool] = []
    is_listening = listening.Listener._is_listening

    def fails_the_first(self: listening.Listener, connection: Any) -> bool:
        tests.append(len(tests) > 0 and is_listening(self, connection))
        return tests[-1]

    monkeypatch.setattr(listening.Listener, "_is_listening", fails_the_first)
    terminate_listeners(using)
    assert eventually(lambda: tests == [False, True])
    elsewhere(queue="mail")

    assert eventually(lambda: "mail" in wakes.queues)


def test_who_was_woken_looks_again_for_what_was_not_announced(
    ear: Ear, wakes: Wakes, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waking, "WINDOW", 60.0)
    elsewhere()
    elsewhere()

    assert wakes.wait_for(WHEN_CONNECTED + 2)
    assert len(ear.heard()) == 1


def test_each_queue_is_announced_by_itself(
    ear: Ear, wakes: Wakes, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waking, "WINDOW", 60.0)
    for queue in ("mail", "print", "mail"):
        elsewhere(queue=queue)

    assert [queue for _sender, _at, queue, _priority in ear.heard()] == ["mail", "print"]
    assert eventually(lambda: Counter(wakes.queues) > Counter(mail=2, print=2))


def test_one_that_was_due_long_before_the_announced_one_is_announced_by_itself(
    ear: Ear,
    elsewhere: Elsewhere,
    backend: BaseBackend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waking, "WINDOW", 60.0)
    elsewhere()
    old = elsewhere(at=backend.now() - timedelta(hours=1))

    assert [at for _sender, at, _queue, _priority in ear.heard()][1:] == [old.due_at.isoformat()]


def test_a_burst_is_announced_only_so_often(ear: Ear, elsewhere: Elsewhere, using: str) -> None:
    began = time.monotonic()
    for _ in range(200):
        elsewhere()
    took = time.monotonic() - began

    assert 1 <= len(ear.heard()) <= 1 + took / waking.WINDOW


def test_a_message_of_the_far_future_is_not_announced(ear: Ear, using: str, backend: BaseBackend) -> None:
    schedule(using, delay=LATER)
    with transaction.atomic(using=using):
        # Near enough for a transaction that takes long; this one does not.
        schedule(using, delay=30)

    assert ear.heard() == []


def test_a_transaction_is_announced_once_and_after_its_commit(ear: Ear, using: str, backend: BaseBackend) -> None:
    with transaction.atomic(using=using):
        earliest = schedule(using, at=backend.now() - timedelta(seconds=5))
        for _ in range(20):
            schedule(using, queue="other")
            transaction.on_commit(lambda: None, using=using)
        assert ear.heard() == []

    ((_sender, at, queue, priority),) = ear.heard()
    assert (at, queue, priority) == (earliest.due_at.isoformat(), None, 0)


def test_what_is_rolled_back_is_not_announced(ear: Ear, using: str, backend: BaseBackend) -> None:
    with transaction.atomic(using=using):
        with transaction.atomic(using=using):
            schedule(using)
            transaction.set_rollback(True, using=using)
        schedule(using, delay=LATER)
    with transaction.atomic(using=using):
        schedule(using)
        transaction.set_rollback(True, using=using)
    with transaction.atomic(using=using):
        schedule(using, delay=LATER)

    assert ear.heard() == []


def test_what_outlives_a_rollback_to_a_savepoint_is_announced(ear: Ear, using: str, backend: BaseBackend) -> None:
    with transaction.atomic(using=using):
        with transaction.atomic(using=using):
            schedule(using, queue="gone")
            transaction.set_rollback(True, using=using)
        schedule(using, queue="kept")

    assert [queue for _sender, _at, queue, _priority in ear.heard()] == ["kept"]


def test_a_notify_that_fails_does_not_concern_the_caller(
    using: str, backend: BaseBackend, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(execute: Any, sql: str, *arguments: Any) -> Any:
        if "pg_notify" in sql:
            execute("SELECT 1 / 0", None, *arguments[1:])
        return execute(sql, *arguments)

    with caplog.at_level(logging.INFO, "django_sked"), connections[using].execute_wrapper(refuse):
        messages = [schedule(using), schedule(using, at=backend.now() - timedelta(hours=1))]
        with transaction.atomic(using=using):
            messages.append(schedule(using, at=backend.now() - timedelta(hours=2)))
        assert ScheduledMessage.objects.using(using).count() == len(messages)

    lines = [record.getMessage() for record in caplog.records if record.name.startswith("django_sked")]
    assert lines == [f"wakeup_failed database={using} error=DataError"]


def test_without_autocommit_nothing_is_announced_and_nothing_fails(ear: Ear, using: str, backend: BaseBackend) -> None:
    transaction.set_autocommit(False, using=using)
    try:
        schedule(using)
        transaction.commit(using=using)
    finally:
        transaction.set_autocommit(True, using=using)

    assert ear.heard() == []


def test_what_this_process_has_told_its_workers_itself_they_do_not_hear_again(
    using: str, backend: BaseBackend, elsewhere: Elsewhere, wakes: Wakes
) -> None:
    schedule(using, queue="own")
    elsewhere(queue="foreign")

    # Commits are in order: the one of our own would have been heard before.
    assert eventually(lambda: "foreign" in wakes.queues)
    assert wakes.queues.count("own") == 1


def test_what_another_release_may_send_wakes_as_well(ear: Ear, wakes: Wakes, backend: BaseBackend) -> None:
    for payload in ("", "{}", '["sender", "not a time", null, null]', '["sender", 1, 2]', "\u00fc"):
        count = wakes.count
        ear.connection.execute("SELECT pg_notify(%s, %s)", [waking.CHANNEL, payload])
        assert wakes.wait_for(count + 2), payload
        backend._wakeups.found()  # type: ignore[attr-defined]


def test_switched_off_nothing_is_sent_and_nobody_listens(ear: Ear, using: str) -> None:
    options = settings.SKED[using].get("OPTIONS", {})
    quiet = {**settings.SKED[using], "OPTIONS": {**options, "wakeups": False}}
    with override_settings(SKED={**settings.SKED, using: quiet}):
        wakes = Wakes()
        stop = message_backends[using].listen(wakes)
        schedule(using)
        assert not message_backends[using].supports_wakeup
        assert (wakes.count, listeners(), ear.heard()) == (0, [], [])
        stop()


def test_a_worker_leaves_no_thread_and_no_connection_behind(using: str, backend: BaseBackend) -> None:
    wakes = Wakes()
    stop = backend.listen(wakes)
    assert wakes.wait_for(WHEN_CONNECTED)
    assert len(listeners()) == len(backends_listening(using)) == 1

    stop()
    stop()

    assert listeners() == []
    assert eventually(lambda: not backends_listening(using))


def test_the_connection_of_a_listener_is_none_of_the_pool(using: str, backend: BaseBackend) -> None:
    pytest.importorskip("psycopg_pool")
    with reached(using, OPTIONS={"pool": {"min_size": 1, "max_size": 1}}, CONN_MAX_AGE=0):
        wakes = Wakes()
        stop = backend.listen(wakes)
        assert wakes.wait_for(WHEN_CONNECTED)
        Elsewhere(using)(queue="mail")
        assert eventually(lambda: "mail" in wakes.queues)
        stop()
        # First the connection: giving it back to a pool that is gone would make another one, for tests to come.
        connections[using].close()
        connections[using].close_pool()  # type: ignore[attr-defined]


def test_a_database_that_is_away_is_tried_again_quietly(
    using: str, backend: BaseBackend, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = Wakes()
    connect = listening.Listener._connect

    def counted(listener: listening.Listener) -> Any:
        tries()
        return connect(listener)

    monkeypatch.setattr(listening, "RECONNECT", Exponential(base=0.001, cap=0.001))
    monkeypatch.setattr(listening.Listener, "_connect", counted)
    monkeypatch.setattr(Quiet, "is_over", lambda quiet: True)  # as in an outage of minutes
    with caplog.at_level(logging.INFO, "django_sked"), reached(using, HOST="/nowhere"):
        stop = backend.listen(Wakes())
        assert tries.wait_for(5)
        stop()

    assert [r.getMessage() for r in caplog.records] == [f"listen_failed database={using} error=OperationalError"]
    assert listeners() == []


def test_waiting_for_the_next_try_a_listener_stops_at_once(
    using: str, backend: BaseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "RECONNECT", Exponential(base=600, cap=600, jitter="none"))
    with reached(using, HOST="/nowhere"):
        stop = backend.listen(Wakes())
        stop()

    assert listeners() == []


def test_without_psycopg_3_a_worker_polls(
    using: str, backend: BaseBackend, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(connections[using]), "Database", object())
    with caplog.at_level(logging.INFO, "django_sked"):
        stop = backend.listen(Wakes())
        assert eventually(lambda: not listeners())
        stop()
    assert [r.getMessage() for r in caplog.records] == [
        f"listen_unavailable database={using} reason=it needs psycopg 3"
    ]
