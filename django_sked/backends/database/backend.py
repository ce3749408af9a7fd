"""Messages as rows of a Django database: PostgreSQL, SQLite, MariaDB, MySQL (Oracle untested)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, cast
from uuid import UUID

from django.core.checks import CheckMessage
from django.db import connections, router, transaction

from django_sked.backends.base import BaseBackend, Settled
from django_sked.backends.database import adding, changing, checking, errors, settling, sweeping, threads
from django_sked.backends.database.claiming import ClaimStrategy
from django_sked.backends.database.store import StoreNow, read_time, take_write_lock, workers
from django_sked.backends.database.store import messages as rows_of
from django_sked.backends.database.strategies import strategy_for
from django_sked.clock import StoreClock
from django_sked.conf import BackendSettings, DatabaseOptions
from django_sked.criteria import Criteria
from django_sked.models import ScheduledMessage, WorkerProcess
from django_sked.outcomes import Outcome
from django_sked.queries import ScheduledMessageQuerySet
from django_sked.scheduling import OnConflict
from django_sked.signals import message_cancelled, message_rescheduled, message_scheduled
from django_sked.states import Answer, Status
from django_sked.verbs import Cancel, Reschedule, Verb

logger = logging.getLogger("django_sked.backends.database")


class DatabaseBackend(BaseBackend):
    """Every write is a statement on Django's own connection, so it joins the caller's transaction."""

    options_class = DatabaseOptions
    joins_transactions = True

    def __init__(self, settings: BackendSettings) -> None:
        super().__init__(settings)
        self._clock = StoreClock(lambda: read_time(self.database))

    @cached_property
    def database(self) -> str:
        return cast(DatabaseOptions, self.options).database or router.db_for_write(ScheduledMessage)

    @cached_property
    def _claiming(self) -> ClaimStrategy:
        return strategy_for(self.database)

    def check(self) -> list[CheckMessage]:
        return checking.check(self)

    # Time

    def now(self) -> datetime:
        return self._clock.now()

    def after_commit(self, action: Callable[[], None]) -> None:
        transaction.on_commit(action, using=self.database, robust=True)

    # Schedule

    def add(
        self,
        messages: Sequence[ScheduledMessage],
        *,
        on_conflict: OnConflict = "error",
        batch_size: int | None = None,
    ) -> list[ScheduledMessage]:
        now = self.now()
        stored = adding.add(self.database, messages, on_conflict, batch_size, now)
        self.tell(message_scheduled, (message for message in stored if message.was_created))
        if on_conflict == "replace":
            keys = [message.key for message in stored if message.key is not None]
            self.tell(message_cancelled, rows_of(self.database).filter(key__in=keys, **_cancelled_at(now)))
        return stored

    # Read

    def find(self, *, id: UUID | None = None, key: str | None = None) -> ScheduledMessage:
        rows = rows_of(self.database)
        if id is not None:
            found = rows.filter(pk=id).first()
        else:
            found = rows.filter(live_key=key).first() or rows.filter(key=key).order_by("-created_at", "-id").first()
        if found is None:
            raise ScheduledMessage.DoesNotExist(f"There is no message with {f'id {id}' if id else f'key {key!r}'}.")
        return found

    def search(self, criteria: Criteria) -> ScheduledMessageQuerySet:
        conditions = {
            "event": criteria.event,
            "queue": criteria.queue,
            "status__in": criteria.statuses,
            "key": criteria.key,
            "due_at__gte": criteria.due_from,
            "due_at__lte": criteria.due_until,
        }
        wanted = {name: value for name, value in conditions.items() if value is not None}
        rows = ScheduledMessageQuerySet(ScheduledMessage, using=self.database)
        return rows.filter(**wanted).order_by("due_at", "id")

    def keys(self, queue: str | None = None) -> list[str]:
        rows = rows_of(self.database).filter(live_key__isnull=False)
        if queue is not None:
            rows = rows.filter(queue=queue)
        return sorted(cast("list[str]", list(rows.values_list("live_key", flat=True))))

    def next_due_at(self, queue: str | None = None) -> datetime | None:
        names = self.queues() if queue is None else [queue]
        times = (self._claiming.next_at(name) for name in names)
        return min((time for time in times if time is not None), default=None)

    # Change

    def begin_change(self) -> None:
        take_write_lock(self.database)

    def change_one(self, id: UUID, verb: Verb, *, now: datetime | None = None) -> Answer:
        now = now or self.now()
        answer = changing.change_one(self.database, id, verb, now)
        if answer is verb.done:
            self._tell_changed([id], verb, now)
        return answer

    def change(self, ids: Sequence[UUID], verb: Verb, *, now: datetime | None = None) -> int:
        now = now or self.now()
        changed = changing.change(self.database, ids, verb, now)
        if changed:
            self._tell_changed(ids, verb, now)
        return changed

    def _tell_changed(self, ids: Sequence[UUID], verb: Verb, now: datetime) -> None:
        """Cancelled and rescheduled messages are read again for their listeners, if there are any."""
        rows = rows_of(self.database).filter(pk__in=ids)
        if isinstance(verb, Cancel):
            self.tell(message_cancelled, rows.filter(**_cancelled_at(now)))
        elif isinstance(verb, Reschedule):
            self.tell(message_rescheduled, rows.filter(status__in=verb.starts))

    # The worker's lease

    def register(self, worker: WorkerProcess, *, now: datetime | None = None) -> None:
        now = now or self.now()
        worker.started_at = worker.beat_at = now
        worker.lease_until = now + timedelta(seconds=worker.lease)
        worker.save(using=self.database, force_insert=True)

    def beat(self, worker: WorkerProcess, *, now: datetime | None = None) -> set[UUID]:
        moment = now or StoreNow()
        renewed = workers(self.database).filter(pk=worker.pk)
        if not renewed.update(
            beat_at=moment,
            lease_until=moment + timedelta(seconds=worker.lease),
            in_flight=worker.in_flight,
            queues=worker.queues,
        ):
            self.register(worker, now=now)
        held = rows_of(self.database).filter(status=Status.CLAIMED, claimed_by=worker.pk, cancel_requested=True)
        return set(held.values_list("pk", flat=True))

    def retire(self, worker: WorkerProcess) -> None:
        workers(self.database).filter(pk=worker.pk).delete()

    # Claim and settle

    def queues(self) -> list[str]:
        return self._claiming.queues()

    def claim(
        self, worker: UUID, queue: str, limit: int, *, quick: bool = False, now: datetime | None = None
    ) -> list[ScheduledMessage]:
        at = now or self.now()
        try:
            return self._claiming.claim(worker, queue, limit, at, now, quick=quick)
        except Exception as error:
            # In the caller's transaction nothing more can be asked; an error that is expected is no fault of a row.
            if connections[self.database].in_atomic_block or self.is_expected(error):
                raise
            unreadable = self._claiming.set_aside_unreadable(worker, queue, limit, at, now)
            if not unreadable:
                raise
            for id, wrong in unreadable.items():
                logger.error("set_aside id=%s queue=%s error=%s", id, queue, wrong)
            return self._claiming.claim(worker, queue, limit, at, now)

    def settle(self, outcomes: Sequence[Outcome], *, now: datetime | None = None) -> Settled:
        return settling.settle(self._claiming, outcomes, now or self.now(), self.options.retention)

    def held_by(self, worker: UUID) -> dict[UUID, int]:
        rows = rows_of(self.database).filter(status=Status.CLAIMED, claimed_by=worker)
        return dict(rows.values_list("pk", "token"))

    # Sweep

    def has_lapsed(self, *, now: datetime | None = None) -> bool:
        return sweeping.lapsed(self.database, now).exists()

    def rescue(self, *, limit: int = 500, now: datetime | None = None) -> list[UUID]:
        rescued, cancelled = sweeping.rescue(self.database, limit, now, self.now())
        if cancelled:
            self.tell(message_cancelled, rows_of(self.database).filter(pk__in=cancelled))
        return rescued

    def expire(self, *, limit: int = 500, now: datetime | None = None) -> list[ScheduledMessage]:
        return sweeping.expire(self.database, limit, now, self.now())

    def prune(self, *, limit: int = 1000, now: datetime | None = None) -> int:
        sweeping.forget_workers(self.database, now or self.now())
        return sweeping.prune(self.database, limit, now or self.now(), self.options.retention)

    # Threads and errors

    def is_expected(self, error: BaseException) -> bool:
        return errors.is_expected(error)

    def prepare_thread(self) -> None:
        threads.prepare(self.database)


def _cancelled_at(now: datetime) -> dict[str, Any]:
    """What distinguishes the messages cancelled just now from those that were cancelled before."""
    return {"status": Status.CANCELLED, "finished_at": now}
