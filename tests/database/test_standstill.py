"""A worker that stands still for ever in the middle of a transaction of its own: others get its messages."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.db import connections, transaction

from django_sked import failpoints
from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.backends.database.store import LONGEST_IDLE
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.states import Status
from tests.contract.store import elsewhere

PATIENCE = 30.0
SERVERS = [
    pytest.param(alias, marks=pytest.mark.django_db(transaction=True, databases=[alias]), id=vendor)
    for alias, vendor in settings.SKED_TEST_ALIASES.items()
    if vendor in ("postgresql", "mariadb") and alias in settings.DATABASES
]


def eventually(condition: Callable[[], bool]) -> bool:
    tries = threading.Event()
    return any(condition() or tries.wait(0.05) for _ in range(int(PATIENCE / 0.05)))


def claimed(backend: BaseBackend) -> ScheduledMessage:
    ScheduledMessage.objects.schedule("e", delay=0, expires_in=3600, backend=backend.alias)
    (message,) = backend.claim(UUID(int=1), "default", 1)
    return message


class Standstill:
    """What a thread of a worker does, until it passes a failpoint: there it stays until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
        self._begun, self._goes_on = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self.error: Exception | None = None
        hit = failpoints.hit

        def stand_still(name: str) -> None:
            if name == point and threading.current_thread() is self._thread:
                self._begun.set()
                assert self._goes_on.wait(PATIENCE)
            hit(name)

        monkeypatch.setattr(failpoints, "hit", stand_still)

    def begin(self, backend: BaseBackend, action: Callable[[], Any]) -> None:
        def run() -> None:
            backend.prepare_thread(apart=True)
            try:
                action()
            except Exception as error:
                self.error = error
            finally:
                connections.close_all()

        self._thread = threading.Thread(target=run)
        self._thread.start()
        assert self._begun.wait(PATIENCE)

    def end(self) -> None:
        assert self._thread is not None
        self._goes_on.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@pytest.mark.slow
@pytest.mark.parametrize("alias", SERVERS)
def test_what_it_was_settling_is_rescued(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = message_backends[alias]
    message = claimed(backend)
    retry = Outcome(id=message.pk, token=message.token, step="retry", delay=5.0)
    standstill = Standstill(monkeypatch, "settle.before_commit")
    standstill.begin(backend, lambda: backend.settle([retry]))
    later = backend.now() + timedelta(hours=1)
    assert backend.rescue(now=later) == [], "it is locked"

    assert eventually(lambda: backend.rescue(now=later) == [message.pk])

    standstill.end()
    assert standstill.error is not None
    assert backend.is_expected(standstill.error)
    assert backend.find(id=message.pk).attempt == 0


@pytest.mark.slow
@pytest.mark.parametrize("alias", SERVERS)
def test_what_it_was_rescuing_is_rescued_by_another(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = message_backends[alias]
    message = claimed(backend)
    later = backend.now() + timedelta(hours=1)
    standstill = Standstill(monkeypatch, "rescue.before_commit")
    standstill.begin(backend, lambda: backend.rescue(now=later))

    assert eventually(lambda: backend.rescue(now=later) == [message.pk])

    standstill.end()
    assert standstill.error is not None
    assert backend.is_expected(standstill.error)
    assert backend.find(id=message.pk).token == message.token + 1


@pytest.mark.slow
@pytest.mark.parametrize("alias", [each for each in SERVERS if each.id == "mariadb"])
def test_what_it_was_claiming_is_claimed_by_another(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a claim is more than one statement."""
    backend = message_backends[alias]
    message = ScheduledMessage.objects.schedule("e", delay=0, backend=alias)
    standstill = Standstill(monkeypatch, "claim.before_commit")
    standstill.begin(backend, lambda: backend.claim(UUID(int=1), "default", 1))

    assert eventually(lambda: backend.claim(UUID(int=2), "default", 1) == [message])

    standstill.end()
    assert standstill.error is not None
    assert backend.is_expected(standstill.error)


@pytest.mark.parametrize("alias", [each for each in SERVERS if each.id == "postgresql"])
def test_neither_the_callers_transaction_nor_the_session_is_limited(alias: str) -> None:
    backend = message_backends[alias]
    message = claimed(backend)
    release = Outcome(id=message.pk, token=message.token, step="release", counted=False)

    def limit() -> Any:
        with connections[alias].cursor() as cursor:
            cursor.execute("SHOW idle_in_transaction_session_timeout")
            return cursor.fetchone()[0]

    before = limit()
    with transaction.atomic(using=alias):
        backend.settle([release])
        assert limit() == before
    backend.rescue()

    assert limit() == before
    assert backend.find(id=message.pk).status == Status.SCHEDULED


@pytest.mark.parametrize("alias", [each for each in SERVERS if each.id == "mariadb"])
def test_receivers_may_be_idle_as_long_as_they_like(alias: str) -> None:
    backend = message_backends[alias]

    def limit(*, apart: bool) -> Any:
        backend.prepare_thread(apart=apart)
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT @@idle_transaction_timeout")
            return cursor.fetchone()[0]

    assert elsewhere(lambda: limit(apart=True)) == LONGEST_IDLE
    assert elsewhere(lambda: limit(apart=False)) == 0
