"""The transaction of an atomic receiver, as the servers see it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.db import Error, connections

from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.states import Status
from tests.contract.store import elsewhere

PATIENCE = 30.0


def servers(*vendors: str) -> list[Any]:
    return [
        pytest.param(alias, marks=pytest.mark.django_db(transaction=True, databases=[alias]), id=vendor)
        for alias, vendor in settings.SKED_TEST_ALIASES.items()
        if vendor in vendors and alias in settings.DATABASES
    ]


def ask(alias: str, sql: str) -> Any:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def claimed(backend: BaseBackend) -> Outcome:
    """The delivery of a message that has just been claimed."""
    ScheduledMessage.objects.schedule("e", delay=0, backend=backend.alias)
    (message,) = backend.claim(UUID(int=1), "default", 1)
    return Outcome(id=message.pk, token=message.token, step="deliver")


def eventually(condition: Callable[[], bool]) -> bool:
    tries = threading.Event()
    return any(condition() or tries.wait(0.02) for _ in range(int(PATIENCE / 0.02)))


@pytest.mark.parametrize("alias", servers("postgresql"))
def test_postgresql_limits_the_transaction_and_nothing_after_it(alias: str) -> None:
    backend = message_backends[alias]
    question = "SHOW idle_in_transaction_session_timeout"
    before = ask(alias, question)

    for seconds, limit in ((1.5, "1500ms"), (10**9, "2147483647ms")):
        with backend.receiver_transaction(seconds):
            assert ask(alias, question) == limit

    assert ask(alias, question) == before


@pytest.mark.parametrize("alias", servers("postgresql"))
def test_no_limit_is_so_short_that_it_would_be_none(alias: str) -> None:
    """The server may end such a transaction before anything can be asked in it."""
    sent: list[str] = []

    def note(execute: Callable[..., Any], sql: str, *arguments: Any) -> Any:
        sent.append(sql)
        return execute(sql, *arguments)

    backend = message_backends[alias]
    with suppress(Error), connections[alias].execute_wrapper(note), backend.receiver_transaction(0.0001):
        pass

    assert sent == ["SET LOCAL idle_in_transaction_session_timeout = 1"]
    connections[alias].close()


@pytest.mark.parametrize("alias", servers("postgresql"))
def test_the_settle_of_an_atomic_receiver_is_durable(alias: str) -> None:
    backend = message_backends[alias]
    outcome = claimed(backend)

    with backend.receiver_transaction(30.0):
        assert backend.settle_now(outcome) is not None
        assert ask(alias, "SHOW synchronous_commit") == "on"


@pytest.mark.parametrize("alias", servers("mariadb"))
def test_mariadb_limits_the_transaction_and_nothing_after_it(alias: str) -> None:
    backend = message_backends[alias]
    question = "SELECT @@idle_transaction_timeout"
    with connections[alias].cursor() as cursor:
        cursor.execute("SET SESSION idle_transaction_timeout = 77")

    for seconds, limit in ((1.5, 2), (0.0001, 1), (10**9, 31_536_000)):
        with backend.receiver_transaction(seconds):
            assert ask(alias, question) == limit
    with pytest.raises(ZeroDivisionError), backend.receiver_transaction(5.0):
        raise ZeroDivisionError

    assert ask(alias, question) == 77
    connections[alias].close()


SESSIONS = {
    "postgresql": ("SELECT pg_backend_pid()", "SELECT count(*) FROM pg_stat_activity WHERE pid = {}"),
    "mysql": (
        "SELECT CONNECTION_ID()",
        "SELECT count(*) FROM information_schema.processlist WHERE id = {}",
    ),
}


@pytest.mark.parametrize("alias", servers("postgresql", "mariadb"))
def test_the_server_ends_a_transaction_that_is_idle_for_longer(alias: str) -> None:
    backend = message_backends[alias]
    outcome = claimed(backend)
    mine, alive = SESSIONS[connections[alias].vendor]

    with pytest.raises(Error) as caught, backend.receiver_transaction(0.1):
        session = ask(alias, mine)
        ScheduledMessage.objects.schedule("its.own.write", backend=alias)
        assert eventually(lambda: elsewhere(lambda: ask(alias, alive.format(session))) == 0)
        backend.settle_now(outcome)

    assert backend.is_expected(caught.value), caught.value
    assert backend.find(id=outcome.id).status == Status.CLAIMED
    assert not ScheduledMessage.objects.search(event="its.own.write", backend=alias).exists()
    assert list(backend.settle([outcome]).written) == [outcome.id]
