"""The bulk verbs, and the QuerySet of the message rows."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

from django.db import models

from django_sked import arguments, revising, scheduling, verbs
from django_sked.backends import message_backends
from django_sked.exceptions import StoredMessage
from django_sked.states import FINISHED, LIVE, PENDING, Status
from django_sked.twins import twin

if TYPE_CHECKING:
    from django_sked.backends.base import BaseBackend
    from django_sked.models import ScheduledMessage

_Result = TypeVar("_Result")

Delay = timedelta | float
#: An argument that was not given, where None means something.
UNSET = scheduling.UNSET
#: Messages changed by one statement of a bulk verb.
CHUNK = 2000
#: What says where a message stands, and so is written by verbs and settles only, also on finished messages.
OWNED = frozenset(
    {"pk", "id", "status", "key", "live_key", "next_at", "token", "claimed_by", "claimed_at", "finished_at"}
)


def given(**fields: Any) -> dict[str, Any]:
    """Those that were given at all: not UNSET."""
    return {name: value for name, value in fields.items() if value is not UNSET}


class BulkVerbs:
    """The verbs on every message of a query: in chunks, each one statement; they return the number changed."""

    @property
    @abstractmethod
    def _store(self) -> BaseBackend: ...

    @abstractmethod
    def _chunks(self, size: int) -> Iterator[list[UUID]]: ...

    def _change(self, verb: verbs.Verb) -> int:
        self._store.begin_change()
        return sum(self._store.change(ids, verb) for ids in self._chunks(CHUNK))

    def cancel(self, *, reason: str = "") -> int:
        """Cancel the pending ones and ask the workers of the claimed ones to; returns how many were cancelled."""
        return self._change(verbs.Cancel(reason=reason))

    def reschedule(
        self,
        /,
        *,
        at: datetime | None = None,
        delay: Delay | None = None,
        shift: Delay | None = None,
        at_local: datetime | None = None,
        timezone: str | None = None,
        payload: Any = UNSET,
        metadata: Any = UNSET,
        priority: int = UNSET,
        queue: str = UNSET,
        expires_at: datetime | None = UNSET,
        **unknown: Any,
    ) -> int:
        """Move the pending ones to one time, or each by `shift`, or change their fields; returns how many changed."""
        times = {"at": at, "delay": delay, "shift": shift, "at_local": at_local, "timezone": timezone}
        fields = given(payload=payload, metadata=metadata, priority=priority, queue=queue, expires_at=expires_at)
        store = self._store
        return self._change(revising.reschedule(store.settings, store.now(), **times, **fields, **unknown))

    def hold(self, *, reason: str = "") -> int:
        """Keep the pending ones back until they are resumed."""
        return self._change(verbs.Hold(reason=reason))

    def resume(self) -> int:
        """Let the held ones go on; those that are due by now are delivered at once."""
        return self._change(verbs.Resume())

    def make_due(self) -> int:
        """Make the scheduled ones due now."""
        return self._change(verbs.MakeDue())

    def redrive(
        self,
        /,
        *,
        at: datetime | None = None,
        delay: Delay | None = None,
        payload: Any = UNSET,
        **unknown: Any,
    ) -> int:
        """Schedule the dead ones again, now or then, with all their attempts; a taken key leaves a message dead."""
        store, fields = self._store, given(payload=payload)
        return self._change(revising.redrive(store.settings, store.now(), at=at, delay=delay, **fields, **unknown))

    acancel = twin(cancel)
    areschedule = twin(reschedule)
    ahold = twin(hold)
    aresume = twin(resume)
    amake_due = twin(make_due)
    aredrive = twin(redrive)


class ScheduledMessageQuerySet(BulkVerbs, models.QuerySet["ScheduledMessage"]):
    """Rows of the database backend. Live rows are changed by the verbs only: `update()` and `delete()` refuse them."""

    def due(self) -> ScheduledMessageQuerySet:
        """Scheduled, and its due time has come."""
        return self.filter(status=Status.SCHEDULED, due_at__lte=self._store.now())

    def pending(self) -> ScheduledMessageQuerySet:
        """Blocked or scheduled."""
        return self.filter(status__in=PENDING)

    def live(self) -> ScheduledMessageQuerySet:
        """Blocked, scheduled or claimed."""
        return self.filter(status__in=LIVE)

    def finished(self) -> ScheduledMessageQuerySet:
        """Delivered, dead, cancelled or expired."""
        return self.filter(status__in=FINISHED)

    def dead(self) -> ScheduledMessageQuerySet:
        """Given up; `redrive()` brings them back."""
        return self.filter(status=Status.DEAD)

    def update(self, **kwargs: Any) -> int:
        """Update finished messages; raises StoredMessage when a live one is among them."""
        if owned := OWNED & set(kwargs):
            raise StoredMessage(
                f"update() of {sorted(owned)[0]!r} would bring a message into a state that no verb made."
            )
        instead = "a verb such as reschedule() or cancel()"
        return sum(self.on_finished("update()", instead, lambda rows: models.QuerySet.update(rows, **kwargs)))

    update.alters_data = True  # type: ignore[attr-defined]

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete finished messages; raises StoredMessage when a live one is among them."""
        by_model: Counter[str] = Counter()
        for _total, deleted in self.on_finished("delete()", "cancel()", models.QuerySet.delete):
            by_model.update(deleted)
        return by_model.total(), dict(by_model)

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]

    def bulk_create(
        self,
        objs: Iterable[ScheduledMessage],
        batch_size: int | None = None,
        ignore_conflicts: bool = False,
        update_conflicts: bool = False,
        update_fields: Collection[str] | None = None,
        unique_fields: Collection[str] | None = None,
    ) -> list[ScheduledMessage]:
        """The same as `schedule_many()` with unsaved instances."""
        if update_conflicts:
            raise StoredMessage(
                "bulk_create() cannot update stored messages; use schedule_many(on_conflict='replace')."
            )
        store = self._store
        messages = scheduling.build_many(self.model, store.settings, store.now(), objs)
        on_conflict: scheduling.OnConflict = "ignore" if ignore_conflicts else "error"
        return store.add(messages, on_conflict=on_conflict, batch_size=arguments.batch_size(batch_size))

    def on_finished(self, what: str, instead: str, write: Callable[[Self], _Result]) -> list[_Result]:
        """Write to these messages, in lots that no verb can reach meanwhile; StoredMessage when a live one is among
        them, be it since a moment ago."""
        live = StoredMessage(f"{what} would reach live messages, which a worker may hold: use {instead}.")

        def lock_and_write() -> list[_Result]:
            self._store.begin_change()
            rows: models.QuerySet[ScheduledMessage] = models.QuerySet(self.model, using=self.db).order_by("pk")
            locked = rows.filter(pk__in=self.order_by().values("pk")).select_for_update()
            # What the lock has waited for is told by the statement that takes it, and by no other.
            found = dict(locked.values_list("pk", "status"))
            if not LIVE.isdisjoint(found.values()):
                raise live
            ids = list(found)
            return [write(self.filter(pk__in=ids[start : start + CHUNK])) for start in range(0, len(ids), CHUNK)]

        self._for_write = True
        # Most are refused here, and wait for nobody.
        if self.order_by().filter(status__in=LIVE).exists():
            raise live
        return self._store.at_once(lock_and_write)

    @property
    def _store(self) -> BaseBackend:
        return message_backends.of_database(self.db)

    def _chunks(self, size: int) -> Iterator[list[UUID]]:
        if self.query.is_sliced:
            ids = list(self.values_list("pk", flat=True))
            yield from (ids[start : start + size] for start in range(0, len(ids), size))
            return
        rest = self.order_by("pk").values_list("pk", flat=True)
        ids = list(rest[:size])
        while ids:
            yield ids
            ids = list(rest.filter(pk__gt=ids[-1])[:size]) if len(ids) == size else []
