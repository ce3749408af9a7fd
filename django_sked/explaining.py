"""Why has it not run? The answer for a stored message: what is around it is looked up, and put into words."""

from __future__ import annotations

from django.db import router

from django_sked.backends.base import BaseBackend
from django_sked.models import ScheduledMessage, WorkerProcess
from django_sked.reasons import Pause, Reason, Surroundings, reasons


def explain(message: ScheduledMessage, *, with_errors: bool = True) -> list[Reason]:
    """Why it has not run, the weightiest reason first; what has become of it, when it is finished.

    The message is taken as it is: `refresh_from_db()` it first, if it is not fresh. Without `with_errors` no text of a
    receiver's error is in the answer.
    """
    backend = message.backend
    return reasons(
        message,
        Surroundings(
            now=backend.now(),
            parents=message.parents if message.parents_left else (),
            workers=workers_of(backend) if message.is_live else None,
            pause=find_pause(backend, message.queue),
            with_errors=with_errors,
        ),
    )


def workers_of(backend: BaseBackend) -> list[WorkerProcess] | None:
    """The rows of a backend's workers, by host and process, those whose lease has lapsed included.

    None where there are none to read: the workers of a memory backend are parts of the program that has it.
    """
    if not backend.reaches_other_processes:
        return None
    using = backend.database or router.db_for_read(WorkerProcess)
    return list(WorkerProcess.objects.using(using).filter(backend=backend.alias).order_by("host", "pid", "pk"))


def find_pause(backend: BaseBackend, queue: str) -> Pause | None:
    """Whether a queue is paused, until when, and why. Queues cannot be paused in this release."""
    return None
