"""An old transaction keeps dead rows from being vacuumed: who looks for what is left does not read them all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import connections

from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.backends.database import bands
from django_sked.models import ScheduledMessage, WorkerProcess
from django_sked.outcomes import Outcome
from tests.contract.store import WORKER
from tests.database.test_plans import buffers, explained_and_undone, parameters, statements

HOUR = timedelta(hours=1)
#: Messages that are settled, and pruned, after the snapshot was taken; and the pages that they leave behind at least.
DEAD, LEFT = 10_000, 150
#: What a look may read that begins where it should.
FEW = 40

pytestmark = [pytest.mark.slow]
on_postgresql = pytest.mark.parametrize("using", parameters("postgresql"))


@pytest.fixture
def backend(using: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[BaseBackend]:
    # What is known stays so, however slow the machine is.
    monkeypatch.setattr(bands, "KNOWN", 3600.0)
    message_backends.reset()
    yield message_backends[next(name for name in settings.SKED if message_backends[name].database == using)]
    message_backends.reset()


@contextmanager
def old_snapshot(using: str) -> Iterator[None]:
    other = connections[using].copy()
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT count(*) FROM django_sked_scheduledmessage")
        yield
    finally:
        other.close()


def schedule(backend: BaseBackend, count: int, at: datetime) -> None:
    ScheduledMessage.objects.schedule_many(
        ({"event": "e", "at": at + timedelta(microseconds=number)} for number in range(count)), backend=backend.alias
    )


def settle(backend: BaseBackend, count: int, now: datetime | None = None) -> None:
    """Deliver so many messages, as a worker does."""
    while count > 0:
        claimed = backend.claim(WORKER, "default", min(count, 500), quick=True)
        assert claimed
        backend.settle([Outcome(id=one.pk, token=one.token, step="deliver") for one in claimed], now=now)
        count -= len(claimed)


def pages(backend: BaseBackend, action: Any) -> int:
    """What the SELECTs and the claims of an action read of the messages."""
    using = str(backend.database)
    sent = [sql for sql in statements(using, action) if not sql.startswith("DELETE")]
    assert sent
    return sum(buffers(explained_and_undone(using, sql)) for sql in sent)


@on_postgresql
def test_what_a_worker_asks_again_and_again_does_not_read_what_is_settled(using: str, backend: BaseBackend) -> None:
    now = backend.now()
    backend.register(WorkerProcess(id=WORKER, backend=backend.alias, host="h", pid=1, lease=3600))
    schedule(backend, 1, now + HOUR)
    (tomorrow,) = ScheduledMessage.objects.search(backend=backend.alias)

    with old_snapshot(using):
        schedule(backend, DEAD, now - HOUR)
        settle(backend, DEAD)

        assert backend.next_due_at("default", quick=True) == backend.next_due_at("default") == tomorrow.due_at
        assert pages(backend, lambda: backend.next_due_at("default", quick=True)) <= FEW
        assert pages(backend, lambda: backend.claim(WORKER, "default", 10, quick=True)) <= FEW
        assert pages(backend, lambda: backend.queues(known=["default"])) <= FEW
        assert pages(backend, backend.rescue) <= FEW
        for ask in (backend.queues, lambda: backend.next_due_at("default"), backend.has_lapsed):
            assert pages(backend, ask) >= LEFT, "there are no dead rows to be read"


@on_postgresql
def test_a_batch_that_is_pruned_is_looked_for_behind_the_one_before_it(using: str, backend: BaseBackend) -> None:
    now = backend.now()
    schedule(backend, DEAD, now - HOUR)
    for number in range(DEAD // 500):
        settle(backend, 500, now - timedelta(days=30) + timedelta(seconds=number))
    with connections[using].cursor() as cursor:
        cursor.execute("VACUUM ANALYZE django_sked_scheduledmessage")
    with old_snapshot(using):
        for _ in range(DEAD // 1000 - 4):
            assert backend.prune(limit=1000) == 1000

        onwards = pages(backend, lambda: backend.prune(limit=1000))
        message_backends.reset()
        anew = message_backends[backend.alias]
        from_the_beginning = pages(anew, lambda: anew.prune(limit=1000))

    assert from_the_beginning - onwards >= LEFT


@pytest.mark.parametrize("using", [*parameters("postgresql"), *parameters("sqlite"), *parameters("mariadb")])
def test_what_was_needed_still_is_pruned_by_the_next_go(using: str, backend: BaseBackend) -> None:
    """Batches that follow one another begin where the last has ended, and the first one of a go where all begins."""
    now = backend.now()
    alias = backend.alias
    schedule(backend, 4, now - HOUR)
    child = ScheduledMessage.objects.schedule(
        "child", on_finish=ScheduledMessage.objects.search(backend=alias)[:1], backend=alias, at=now + HOUR
    )
    settle(backend, 1, now - timedelta(days=31))
    settle(backend, 3, now - timedelta(days=30))

    assert [backend.prune(limit=2) for _ in range(3)] == [2, 1, 0], "one is waited for"
    ScheduledMessage.objects.cancel(id=child.pk, backend=alias)

    assert backend.prune(limit=2) == 1
