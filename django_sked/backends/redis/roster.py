"""The `WorkerProcess` rows of workers whose messages are in Redis: for people, in the Django database if there is one.

The lease itself is in Redis. A row is written by a thread of its own, which ends when it has nothing left: neither a
database that is away nor one that hangs holds up a beat.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections, router

from django_sked.backends.empties import Empties
from django_sked.backends.quiet import Quiet
from django_sked.models import WorkerProcess, Workflow

logger = logging.getLogger("django_sked.backends.redis")

#: Seconds between two complaints about a database that is away.
COMPLAIN = 300.0
#: Seconds that a worker which ends waits for its row to be deleted.
LAST = 2.0
#: A row outlives its lease by so long, for people to see which worker it was.
FORGET_AFTER = timedelta(days=1)

#: Stands in for the id of a row where there is none.
_EMPTIES = UUID(int=0)


class Roster:
    """Writes rows; the newest state of a worker takes the place of one that is not written yet."""

    def __init__(self, alias: str, empty: Callable[[Sequence[UUID]], Sequence[UUID]]) -> None:
        """`empty` tells which of these workflows have no message."""
        self._alias = alias
        self._empties = Empties(alias, lambda using, ids: self._delete(using, empty(ids)))
        self._lock = threading.Lock()
        self._waiting: dict[UUID, Callable[[str], object]] = {}
        self._thread: threading.Thread | None = None
        self._quiet = Quiet(COMPLAIN)

    def enter(self, worker: WorkerProcess) -> None:
        """Write the row of a worker, as it is now."""
        row = copy.copy(worker)
        row._state = copy.copy(worker._state)
        self._put(row.pk, lambda using: _save(row, using))

    def leave(self, worker: WorkerProcess) -> None:
        """Delete its row, and wait for that a little."""
        pk = worker.pk
        self._put(pk, lambda using: WorkerProcess.objects.using(using).filter(pk=pk).delete())
        thread = self._thread
        if thread is not None:
            thread.join(LAST)

    def forget(self, workflows: Sequence[UUID], then: Callable[[], object]) -> None:
        """Delete the rows of workflows of which no message is left."""

        def write(using: str) -> None:
            self._delete(router.db_for_write(Workflow), workflows)
            then()

        self._put(workflows[0], write)

    def forget_empty(self, now: datetime) -> None:
        """Look for others: a page of all rows."""
        self._put(_EMPTIES, lambda using: self._empties.look(router.db_for_write(Workflow), now))

    def _delete(self, using: str, workflows: Sequence[UUID]) -> None:
        Workflow.objects.using(using).filter(pk__in=workflows, backend=self._alias).delete()

    def _put(self, pk: UUID, write: Callable[[str], object]) -> None:
        with self._lock:
            self._waiting[pk] = write
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_all, name="sked-roster", daemon=True)
                self._thread.start()

    def _write_all(self) -> None:
        try:
            while True:
                with self._lock:
                    if not self._waiting:
                        self._thread = None
                        return
                    write = self._waiting.pop(next(iter(self._waiting)))
                self._write(write)
        finally:
            connections.close_all()

    def _write(self, write: Callable[[str], object]) -> None:
        try:
            write(router.db_for_write(WorkerProcess))
        except ImproperlyConfigured:
            pass  # there is no database
        except Exception as error:
            if self._quiet.is_over():
                kind = "database" if isinstance(error, DatabaseError) else "unknown"
                logger.warning(
                    "roster_failed backend=%s kind=%s error=%s text=%s", self._alias, kind, type(error).__name__, error
                )


#: What people write into the row of a worker stays as it is.
_OURS = [field.name for field in WorkerProcess._meta.concrete_fields if field.name not in ("id", "drain_requested_at")]


def _save(row: WorkerProcess, using: str) -> None:
    rows = WorkerProcess.objects.using(using)
    row._state.adding = not rows.filter(pk=row.pk).exists()
    row.save(using=using, force_insert=row._state.adding, update_fields=None if row._state.adding else _OURS)
    rows.filter(backend=row.backend, lease_until__lt=row.beat_at - FORGET_AFTER).delete()
