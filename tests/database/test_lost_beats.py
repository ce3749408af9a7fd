"""A beat that loses against another transaction, on a server that chooses whom to end."""

from __future__ import annotations

import threading
import uuid

import pytest
from django.db import connections, transaction

from django_sked.backends import message_backends
from django_sked.models import ScheduledMessage, WorkerProcess
from tests.contract.store import elsewhere
from tests.database.test_threads import PATIENCE, ask, databases

WAITING = "information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
INDEXED = "SELECT lease_until, id FROM django_sked_workerprocess WHERE lease_until IS NOT NULL LOCK IN SHARE MODE"
#: Seconds between two looks at it: what has been read in the last tenth of a second is shown again, and not renewed.
LOOK = 0.2


def is_waiting(alias: str) -> bool:
    """Does a transaction come to wait for a lock?"""
    pause = threading.Event()
    sql = f"SELECT count(*) FROM {WAITING}"
    return any(elsewhere(lambda: ask(alias, sql)) or pause.wait(LOOK) for _ in range(int(PATIENCE / LOOK)))


@pytest.mark.parametrize("alias", databases("mariadb"))
def test_a_beat_that_a_deadlock_ended_is_done_again(alias: str) -> None:
    backend = message_backends[alias]
    worker = WorkerProcess(pk=uuid.uuid4(), host="h", pid=1)
    backend.register(worker)
    before = WorkerProcess.objects.using(alias).get(pk=worker.pk)
    errors: list[BaseException] = []

    def beat() -> None:
        try:
            backend.beat(worker)
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    beating = threading.Thread(target=beat)
    with transaction.atomic(using=alias):
        # Whoever has written less is ended: that is to be the beat.
        ScheduledMessage.objects.schedule_many([{"event": "e"}] * 20, backend=alias)
        with connections[alias].cursor() as cursor:
            cursor.execute(INDEXED)
        # It has its row, and waits for the entry of the index.
        beating.start()
        assert is_waiting(alias), errors
        WorkerProcess.objects.using(alias).select_for_update().get(pk=worker.pk)
    beating.join(PATIENCE)

    assert not beating.is_alive()
    assert errors == []
    assert WorkerProcess.objects.using(alias).get(pk=worker.pk).beat_at > before.beat_at
