"""`QueueControl.objects`: what people want of the queues of a backend while its workers run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError, models, router, transaction

from django_sked import arguments
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.exceptions import InvalidMessage
from django_sked.twins import twin

if TYPE_CHECKING:
    from django_sked.backends.base import BaseBackend
    from django_sked.models import QueueControl

logger = logging.getLogger("django_sked")

#: Threads of one queue in one worker, at most: what it has for all its queues together.
MOST_CONCURRENCY = 100
#: Characters of a reason, and of the name of who gave it, that are kept.
LONGEST_REASON, LONGEST_NAME = 255, 150


class QueueControlManager(models.Manager["QueueControl"]):
    """Rows of the Django database, whichever backend has the messages; every worker reads them once a second.

    Each verb is a write in the caller's transaction. All workers do as it says within two seconds of its commit, and
    go on to after a restart.
    """

    def get_queryset(self) -> models.QuerySet[QueueControl]:
        using = self._db or self.database_of(message_backends[DEFAULT_ALIAS])
        return models.QuerySet(self.model, using=using, hints=self._hints)  # type: ignore[attr-defined]

    def database_of(self, backend: BaseBackend) -> str:
        """Where the controls of this backend are: with its messages, or where the routers say if those are no rows."""
        return backend.database or router.db_for_write(self.model)

    def of(self, backend: BaseBackend) -> models.QuerySet[QueueControl]:
        """The rows of this backend, in the database where they are kept."""
        return self.using(self.database_of(backend)).filter(backend=backend.alias)

    def pause(
        self,
        queue: str,
        *,
        until: datetime | None = None,
        reason: str = "",
        by: str = "",
        backend: str = DEFAULT_ALIAS,
    ) -> QueueControl:
        """Let no message of this queue start, until it is resumed or this time comes. Returns the row.

        Receivers that run finish. What workers have claimed and not started is released, no attempt counted. Messages
        may be scheduled and changed as ever. Paused again, what is said last counts. Raises InvalidMessage for a wrong
        argument, also when `until` has passed.
        """
        store = message_backends[backend]
        now = store.now()
        if until is not None:
            until = arguments.instant(until, "until")
            if until <= now:
                raise InvalidMessage(f"until must be later than now, not {arguments.shown(until)}.")
        fields = {
            "paused_at": now,
            "paused_until": until,
            "reason": _text(reason, LONGEST_REASON),
            "by": _text(by, LONGEST_NAME),
        }
        row = self._write(queue, store, fields)
        shown = until.isoformat() if until else ""
        self._say("queue_paused queue=%s backend=%s until=%s by=%s reason=%r", row, shown, by, fields["reason"])
        return row

    def resume(self, queue: str, *, by: str = "", backend: str = DEFAULT_ALIAS) -> bool:
        """Let its messages start again; true when it was paused."""
        store = message_backends[backend]
        rows = self.of(store).filter(queue=arguments.queue(queue), paused_at__isnull=False)
        row = rows.first()
        if row is None or not rows.update(paused_at=None, paused_until=None, reason="", by=""):
            return False
        self._say("queue_resumed queue=%s backend=%s by=%s", row, by)
        return row.is_paused(store.now())

    def scale(self, queue: str, *, concurrency: int | None, by: str = "", backend: str = DEFAULT_ALIAS) -> QueueControl:
        """Give it so many threads in each worker, whatever that was started with; None leaves it to the worker again.

        Threads too many end when their receivers return. Returns the row. Raises InvalidMessage for more than the
        threads that a worker has for all its queues together.
        """
        if concurrency is not None and (
            isinstance(concurrency, bool)
            or not isinstance(concurrency, int)
            or not 1 <= concurrency <= MOST_CONCURRENCY
        ):
            allowed = f"a whole number from 1 to {MOST_CONCURRENCY}, or None"
            raise InvalidMessage(
                f"concurrency must be {allowed}, not {arguments.shown(concurrency)}: a worker has {MOST_CONCURRENCY} "
                "threads for all its queues together; start more workers for more."
            )
        row = self._write(queue, message_backends[backend], {"concurrency": concurrency})
        self._say("queue_scaled queue=%s backend=%s concurrency=%s by=%s", row, concurrency, by)
        return row

    def _write(self, queue: str, store: BaseBackend, fields: dict[str, Any]) -> QueueControl:
        rows = self.of(store).filter(queue=arguments.queue(queue))
        using = rows.db
        # First the write: where a database has one writer, who reads before it may find that somebody else has written.
        with transaction.atomic(using=using):
            if not rows.update(**fields):
                try:
                    with transaction.atomic(using=using):
                        self.model(backend=store.alias, queue=queue, **fields).save(using=using, force_insert=True)
                except IntegrityError:  # somebody else has just made the row
                    rows.update(**fields)
            return rows.get()

    def _say(self, line: str, row: QueueControl, *values: object) -> None:
        say: Callable[[], None] = lambda: logger.info(line, row.queue, row.backend, *values)  # noqa: E731
        transaction.on_commit(say, using=row._state.db, robust=True)

    apause = twin(pause)
    aresume = twin(resume)
    ascale = twin(scale)


def _text(value: object, most: int) -> str:
    return arguments.reason(value)[:most]
