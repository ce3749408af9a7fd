"""`Recurrence.objects`, and the message of a tick."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import models, router

from django_sked import definitions, ids, scheduling, typed
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.exceptions import NotSupported
from django_sked.retry import RetryPolicy, from_json
from django_sked.triggers import Trigger

if TYPE_CHECKING:
    from django_sked.backends.base import BaseBackend
    from django_sked.models import Recurrence, ScheduledMessage


class RecurrenceQuerySet(models.QuerySet["Recurrence"]):
    """Rows of recurrences."""

    def update(self, **fields: Any) -> int:
        """Raises NotSupported for the payload where one may be encrypted: each by the cipher of its own backend."""
        self._refuse_payload(fields)
        return super().update(**fields)

    update.alters_data = True  # type: ignore[attr-defined]

    def bulk_update(self, objs: Iterable[Recurrence], fields: Iterable[str], batch_size: int | None = None) -> int:
        """Raises NotSupported as `update` does."""
        names = list(fields)
        self._refuse_payload(names)
        return super().bulk_update(objs, names, batch_size)

    bulk_update.alters_data = True  # type: ignore[attr-defined]

    def _refuse_payload(self, names: Collection[str]) -> None:
        if "payload" in names and self.model.objects.is_sealed(self.db):
            raise NotSupported(
                f"The payload of recurrences is encrypted in the database {self.db!r} (payload_cipher), by the backend "
                "of each: update() and bulk_update() cannot write it. Set it on each recurrence and call save()."
            )


class RecurrenceManager(models.Manager["Recurrence"]):
    """`Recurrence.objects`: rows of the database that has the messages of the default backend, if one has."""

    def get_queryset(self) -> RecurrenceQuerySet:
        using = self._db or self.database_of(message_backends[DEFAULT_ALIAS])
        return RecurrenceQuerySet(self.model, using=using, hints=self._hints)  # type: ignore[attr-defined]

    def database_of(self, backend: BaseBackend) -> str:
        """Where the recurrences of this backend are: with its messages, so that a tick is one transaction; or, if
        those are no rows, wherever the routers say."""
        return backend.database or router.db_for_write(self.model)

    def is_sealed(self, using: str) -> bool:
        """May there be an encrypted payload in this database?"""
        sealing = [backend for backend in message_backends.all() if backend.options.payload_cipher is not None]
        return any(self.database_of(backend) == using for backend in sealing)

    def of(self, backend: BaseBackend) -> models.QuerySet[Recurrence]:
        """The rows of this backend, in the database where they are kept."""
        return self.using(self.database_of(backend)).filter(backend=backend.alias)

    def create(  # type: ignore[override]
        self,
        /,
        name: str,
        *,
        event: str | None = None,
        payload: Any = None,
        cron: str | None = None,
        every: timedelta | float | None = None,
        trigger: Trigger | None = None,
        timezone: str = "UTC",
        queue: str = "default",
        priority: int = 0,
        metadata: dict[str, str] | None = None,
        max_attempts: int | None = None,
        retry: RetryPolicy | None = None,
        timeout: timedelta | float | None = None,
        expires_in: timedelta | float | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        max_occurrences: int | None = None,
        jitter: timedelta | float = 0,
        misfire: str = "latest",
        misfire_cap: int = 100,
        grace: timedelta | float = definitions.GRACE,
        overlap: str = "allow",
        stateful: bool = False,
        backend: str = DEFAULT_ALIAS,
        **unknown: Any,
    ) -> Recurrence:
        """Store a recurrence and return it; its first tick is the first one after now, or from `start` on.

        Exactly one of `cron` (an expression), `every` (an interval) and `trigger` says when; without `event` it is the
        name. `end` is the last instant that may be a tick; `max_occurrences` ends it after so many successes. `jitter`
        makes the message of each tick due later by up to so much, always by the same for one tick. A tick that could
        not be made within `grace` of its time has been missed: `misfire` makes up for the "latest" of these, for "all"
        up to `misfire_cap`, or "skip"s them. `overlap` says what happens while an occurrence is still live: "allow"
        the next, "skip" it, or "queue" one. With `stateful` each occurrence waits for the one before it, whose receiver
        may set `message.next_payload`. The other arguments are those of `schedule()`. Raises InvalidMessage for a wrong
        one, and IntegrityError for a name that is taken.
        """
        values = definitions.define(
            name,
            event=event,
            payload=payload,
            cron=cron,
            every=every,
            trigger=trigger,
            timezone=timezone,
            queue=queue,
            priority=priority,
            metadata=metadata,
            max_attempts=max_attempts,
            retry=retry,
            timeout=timeout,
            expires_in=expires_in,
            start=start,
            end=end,
            max_occurrences=max_occurrences,
            jitter=jitter,
            misfire=misfire,
            misfire_cap=misfire_cap,
            grace=grace,
            overlap=overlap,
            stateful=stateful,
            backend=backend,
            **unknown,
        )
        recurrence = self.model(**values)
        recurrence.save(using=self._db or self.database_of(message_backends[backend]), force_insert=True)
        return recurrence


def new_message(
    recurrence: Recurrence,
    model: type[ScheduledMessage],
    tick: datetime | None,
    *,
    due_at: datetime,
    id: UUID | None = None,
) -> ScheduledMessage:
    """An unsaved message of a recurrence: that of a tick, under the id made of both, or one besides its ticks."""
    if id is None and tick is not None:
        id = ids.of_tick(recurrence.pk, tick)
    store = recurrence.store
    message = scheduling.build(
        model,
        store.settings,
        store.now(),
        recurrence.event,
        recurrence.payload,
        at=due_at,
        queue=recurrence.queue,
        priority=recurrence.priority,
        metadata=recurrence.metadata or None,
        max_attempts=recurrence.max_attempts,
        retry=None if recurrence.retry_policy is None else from_json(recurrence.retry_policy),
        timeout=recurrence.timeout,
        expires_in=recurrence.expires_in,
        id=id,
        checks_type=False,  # a tick comes in any case; who cannot be delivered dies with the reason
    )
    if recurrence.event in typed.known:
        # It was kept for long, perhaps, and without a version.
        message.schema_version = typed.version_of(recurrence.event, message.payload)
    message.recurrence_id, message.tick_at = recurrence.pk, tick
    return message
