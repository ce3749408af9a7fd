"""Why has it not run? The answer for a stored message: what is around it is looked up, and put into words."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from django.db import DatabaseError, router

from django_sked.backends.base import BaseBackend
from django_sked.models import QueueControl, ScheduledMessage, WorkerProcess
from django_sked.reasons import Pause, Reason, Surroundings, reasons
from django_sked.states import Status

T = TypeVar("T")


def explain(message: ScheduledMessage, *, with_errors: bool = True) -> list[Reason]:
    """Why it has not run, the weightiest reason first; what has become of it, when it is finished.

    The message is taken as it is: `refresh_from_db()` it first, if it is not fresh. Without `with_errors` no text of a
    receiver's error is in the answer.
    """
    backend = message.backend
    now = backend.now()
    waits = message.status == Status.SCHEDULED
    return reasons(
        message,
        Surroundings(
            now=now,
            parents=message.parents if message.parents_left else (),
            workers=workers_of(backend) if message.is_live else None,
            pause=pauses_of(backend, now).get(message.queue) if waits else None,
            with_errors=with_errors,
        ),
    )


def workers_of(backend: BaseBackend) -> list[WorkerProcess] | None:
    """The rows of a backend's workers, by host and process, those whose lease has lapsed included.

    None where there are none to read: the workers of a memory backend are parts of the program that has it, and those
    of Redis are written down in a database, which may be away.
    """
    if not backend.reaches_other_processes:
        return None
    using = backend.database or router.db_for_read(WorkerProcess)
    rows = WorkerProcess.objects.using(using).filter(backend=backend.alias).order_by("host", "pid", "pk")
    return _read(backend, lambda: list(rows), None)


def pauses_of(backend: BaseBackend, now: datetime) -> dict[str, Pause]:
    """The queues that rest now, until when, and why; none where the database that says so is away."""
    rows = QueueControl.objects.of(backend).filter(paused_at__isnull=False)
    found: list[QueueControl] = _read(backend, lambda: list(rows), [])
    return {row.queue: Pause(until=row.paused_until, reason=row.reason) for row in found if row.is_paused(now)}


def _read(backend: BaseBackend, ask: Callable[[], T], otherwise: T) -> T:
    try:
        return ask()
    except DatabaseError:
        if backend.database is not None:
            raise  # the messages are there, too
        return otherwise
