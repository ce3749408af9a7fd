"""Messages as rows of a Django database: PostgreSQL, SQLite, MariaDB, MySQL."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import Any, TypeVar, cast
from uuid import UUID

from django.core.checks import CheckMessage
from django.db import connections, router, transaction

from django_sked.backends.backlog import Backlog, Count
from django_sked.backends.base import BaseBackend, Settled
from django_sked.backends.database import (
    adding,
    backlog,
    changing,
    checking,
    copying,
    errors,
    kinds,
    settling,
    sweeping,
    threads,
    together,
)
from django_sked.backends.database.claiming import TRIED, ClaimStrategy, Wish
from django_sked.backends.database.edges import edges_of
from django_sked.backends.database.families import Families, links_to
from django_sked.backends.database.pruning import Pruning
from django_sked.backends.database.store import CLAIMED, StoreNow, lapsed, paged, read_time, take_write_lock, workers
from django_sked.backends.database.store import messages as rows_of
from django_sked.backends.database.strategies import strategy_for
from django_sked.backends.database.waking import Wake, Wakeups
from django_sked.clock import StoreClock
from django_sked.conf import BackendSettings, DatabaseOptions
from django_sked.criteria import Criteria
from django_sked.dependencies import Link
from django_sked.models import ScheduledMessage, WorkerProcess
from django_sked.outcomes import Outcome
from django_sked.queries import ScheduledMessageQuerySet
from django_sked.scheduling import OnConflict
from django_sked.series import Series
from django_sked.signals import message_cancelled, message_dead, message_rescheduled, message_scheduled
from django_sked.states import PENDING, Answer, Status
from django_sked.verbs import Anew, Cancel, Reschedule, Verb

logger = logging.getLogger("django_sked.backends.database")

_Claimed = TypeVar("_Claimed")
_Result = TypeVar("_Result")


class DatabaseBackend(BaseBackend):
    """Every write is a statement on Django's own connection, so it joins the caller's transaction."""

    options_class = DatabaseOptions
    joins_transactions = True
    supports_atomic_receivers = True
    supports_workflows = True
    supports_subjects = True
    supports_cipher = True

    def __init__(self, settings: BackendSettings) -> None:
        super().__init__(settings)
        self._clock = StoreClock(self.read_now)

    @cached_property
    def database(self) -> str:
        return cast(DatabaseOptions, self.options).database or router.db_for_write(ScheduledMessage)

    @property
    def has_one_writer(self) -> bool:
        return not connections[self.database].features.has_select_for_update

    @cached_property
    def _claiming(self) -> ClaimStrategy:
        return strategy_for(self.database, durable_settles=cast(DatabaseOptions, self.options).durable_settles)

    def check(self) -> list[CheckMessage]:
        return checking.check(self)

    # Time

    def now(self) -> datetime:
        return self._clock.now()

    def read_now(self) -> datetime:
        return read_time(self.database)

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
        stored = adding.add(self.database, messages, on_conflict, batch_size, now, self._families)
        self._wakeups.added(stored, now)
        self.tell(message_scheduled, (message for message in stored if message.was_created))
        if on_conflict == "replace":
            keys = [message.key for message in stored if message.key is not None]
            self.tell(message_cancelled, rows_of(self.database).filter(key__in=keys, **changing.cancelled_at(now)))
        return stored

    @property
    def takes_series(self) -> bool:
        # A cipher of others may want to use the database in the middle of the COPY.
        seal = self.options.payload_cipher
        return copying.can_copy(self.database) and (seal is None or not seal.path)

    def add_series(self, series: Series) -> list[ScheduledMessage] | None:
        stored = adding.add_series(self.database, series)
        if stored is not None:
            self._wakeups.added(stored[:1], self.now())  # all have the same queue and time
            self.tell(message_scheduled, stored)
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

    def find_many(self, ids: Collection[UUID]) -> dict[UUID, ScheduledMessage]:
        return rows_of(self.database).in_bulk(list(ids))

    def search(self, criteria: Criteria) -> ScheduledMessageQuerySet:
        conditions = {
            "event": criteria.event,
            "queue": criteria.queue,
            "status__in": criteria.statuses,
            "key": criteria.key,
            "workflow_id": criteria.workflow,
            "subject_type": criteria.subject and criteria.subject[0],
            "subject_id": criteria.subject and criteria.subject[1],
            "due_at__gte": criteria.due_from,
            "due_at__lte": criteria.due_until,
        }
        wanted = {name: value for name, value in conditions.items() if value is not None}
        rows = ScheduledMessageQuerySet(ScheduledMessage, using=self.database)
        return rows.filter(**wanted).order_by(*(("-due_at", "-id") if criteria.descending else ("due_at", "id")))

    def parents_of(self, id: UUID) -> list[ScheduledMessage]:
        parents = edges_of(self.database).filter(child_id=id).values_list("parent_id")
        return list(rows_of(self.database).filter(pk__in=parents).order_by("pk"))

    def links_to(self, children: Collection[UUID]) -> list[Link]:
        return links_to(self.database, children)

    def by_wall_time(self) -> Iterator[ScheduledMessage]:
        return paged(rows_of(self.database).filter(local_time__isnull=False, status__in=PENDING))

    def kinds(self, most: int | None) -> tuple[Counter[tuple[str, int]], bool]:
        return kinds.kinds(self.database, self._claiming, most)

    def keys(self, queue: str | None = None) -> list[str]:
        rows = rows_of(self.database).filter(live_key__isnull=False)
        if queue is not None:
            rows = rows.filter(queue=queue)
        return sorted(cast("list[str]", list(rows.values_list("live_key", flat=True))))

    def backlog(self, *, now: datetime | None = None) -> dict[str, Backlog]:
        return backlog.backlog(self.database, now or self.now())

    def forecast(self, edges: Sequence[datetime]) -> list[Count]:
        return backlog.forecast(self.database, edges)

    def next_due_at(self, queue: str | None = None, *, quick: bool = False) -> datetime | None:
        names = self.queues() if queue is None else [queue]
        times = (self._claiming.next_at(name, quick=quick) for name in names)
        return min((time for time in times if time is not None), default=None)

    # Change

    def at_once(self, action: Callable[[], _Result]) -> _Result:
        return together.at_once(self.database, action)

    def begin_change(self) -> None:
        take_write_lock(self.database)

    def change_one(self, id: UUID, verb: Verb, *, now: datetime | None = None) -> Answer:
        now = now or self.now()
        answer = changing.change_one(self.database, id, verb, now, self._families)
        if answer is verb.done:
            self._wakeups.changed([id], verb, now)
            self._tell_changed([id], verb, now)
        return answer

    def change(self, ids: Sequence[UUID], verb: Verb, *, now: datetime | None = None) -> int:
        now = now or self.now()
        changed = changing.change(self.database, ids, verb, now, self._families)
        if changed:
            self._wakeups.changed(ids, verb, now)
            self._tell_changed(ids, verb, now)
        return changed

    def seal_anew(self, ids: Sequence[UUID]) -> Anew:
        return changing.seal_anew(self.database, ids)

    def _tell_changed(self, ids: Sequence[UUID], verb: Verb, now: datetime) -> None:
        """Cancelled and rescheduled messages are read again for their listeners, if there are any."""
        rows = rows_of(self.database).filter(pk__in=ids)
        if isinstance(verb, Cancel):
            self.tell(message_cancelled, rows.filter(**changing.cancelled_at(now)))
        elif isinstance(verb, Reschedule):
            self.tell(message_rescheduled, rows.filter(status__in=verb.starts))

    # The worker's lease

    def register(self, worker: WorkerProcess, *, now: datetime | None = None) -> None:
        now = now or self.now()
        worker.started_at = worker.beat_at = now
        worker.lease_until = now + timedelta(seconds=worker.lease)
        worker.save(using=self.database, force_insert=True)

    def beat(self, worker: WorkerProcess, *, now: datetime | None = None) -> dict[UUID, int]:
        if not self._claiming.urgently(lambda: self._renew(worker, now or StoreNow())):
            self.register(worker, now=now)
        held = rows_of(self.database).filter(status=CLAIMED, claimed_by=worker.pk, cancel_requested=True)
        return dict(held.values_list("pk", "token"))

    def _renew(self, worker: WorkerProcess, moment: Any) -> int:
        return (
            workers(self.database)
            .filter(pk=worker.pk)
            .update(
                beat_at=moment,
                lease_until=moment + timedelta(seconds=worker.lease),
                in_flight=worker.in_flight,
                busy_with=worker.busy_with,
                busy_event=worker.busy_event,
                busy_since=worker.busy_since,
                queues=worker.queues,
                threads=worker.threads,
            )
        )

    def retire(self, worker: WorkerProcess) -> None:
        workers(self.database).filter(pk=worker.pk).delete()

    # Claim and settle

    def queues(self, *, known: Collection[str] = ()) -> list[str]:
        return self._claiming.queues(known)

    def claim(
        self,
        worker: UUID,
        queue: str,
        limit: int,
        *,
        ahead: float = 0.0,
        quick: bool = False,
        now: datetime | None = None,
    ) -> list[ScheduledMessage]:
        at = now or self.now()
        wish = Wish(worker=worker, queue=queue, limit=limit, at=at, now=now, ahead=ahead, quick=quick)
        strategy = self._claiming
        found = self._past_unreadable(worker, at, lambda: strategy.claim(wish), lambda: strategy.due_in_all_bands(wish))
        if found:
            self._wakeups.found()
        return found

    def look_back(self, at: datetime, *, queue: str | None = None, priority: int | None = None) -> None:
        self._claiming.look_back(at, queue, priority)

    def has_suspects(self, queues: Collection[str], *, now: datetime | None = None) -> bool:
        return self._claiming.has_suspects(queues, now)

    def claim_suspect(
        self, worker: UUID, queues: Collection[str], *, now: datetime | None = None
    ) -> ScheduledMessage | None:
        at = now or self.now()
        return self._past_unreadable(
            worker,
            at,
            lambda: self._claiming.claim_suspect(worker, queues, at, now),
            lambda: [self._claiming.due_suspects(queues, now)[:TRIED]],
        )

    def _past_unreadable(
        self, worker: UUID, at: datetime, claim: Callable[[], _Claimed], due: Callable[[], Sequence[Any]]
    ) -> _Claimed:
        """Claim; and once more when rows among the due ones could not be read, and were set aside."""
        try:
            return claim()
        except Exception as error:
            # In the caller's transaction nothing more can be asked; an error that is expected is no fault of a row.
            if connections[self.database].in_atomic_block or self.is_expected(error):
                raise
            unreadable = self._claiming.set_aside_unreadable(worker, due, at)
            if not unreadable:
                raise
            for id, wrong in unreadable.items():
                logger.error("set_aside id=%s error=%s", id, wrong)
            return claim()

    def settle(self, outcomes: Sequence[Outcome], *, now: datetime | None = None) -> Settled:
        return settling.settle(self._claiming, outcomes, now or self.now(), self.options.retention, self._families)

    def receiver_transaction(self, seconds: float) -> AbstractContextManager[None]:
        return self._claiming.receiver_transaction(seconds)

    def settle_now(self, outcome: Outcome, *, now: datetime | None = None) -> dict[str, Any] | None:
        return settling.settle_now(self.database, outcome, now or self.now(), self.options.retention, self._families)

    def read_back(self, id: UUID) -> ScheduledMessage:
        return self.find(id=id) if self.has_one_writer else settling.read_back(self._claiming, id)

    def set_progress(self, progress: Mapping[UUID, tuple[int, int]]) -> list[UUID]:
        return settling.set_progress(self._claiming, progress)

    def held_by(self, worker: UUID) -> dict[UUID, int]:
        return dict(rows_of(self.database).filter(status=CLAIMED, claimed_by=worker).values_list("pk", "token"))

    # Sweep

    def _at(self, now: datetime | None) -> datetime:
        """For steps that mostly find nothing to do, and then need not ask what time it is."""
        return now or self.now()

    def has_lapsed(self, *, now: datetime | None = None) -> bool:
        return lapsed(self.database, now).exists()

    def rescue(self, *, limit: int = 500, now: datetime | None = None) -> list[UUID]:
        at = partial(self._at, now)
        rescued, ended = sweeping.rescue(self._claiming, limit, now, at, self.options.retention, self._families)
        for status, fact in ((Status.CANCELLED, message_cancelled), (Status.DEAD, message_dead)):
            self.tell(fact, (message for message in ended if message.status == status))
        return rescued

    def expire(self, *, limit: int = 500, now: datetime | None = None) -> list[ScheduledMessage]:
        return sweeping.expire(self._claiming, limit, now, partial(self._at, now), self._families)

    def unblock(self, *, now: datetime | None = None) -> None:
        self._families.sweep(now)

    def prune(self, *, limit: int = 1000, now: datetime | None = None) -> int:
        return self._pruning.prune(limit, now or self.now(), self.options.retention)

    @cached_property
    def _pruning(self) -> Pruning:
        return Pruning(self.database, self.alias)

    def forget(self, ids: Sequence[UUID]) -> int:
        return sweeping.forget(self.database, ids)

    # Workflows

    @cached_property
    def _families(self) -> Families:
        return Families(self.database, now=self.now, tell=self._tell_of_children)

    def _tell_of_children(self, released: Sequence[UUID], cancelled: Sequence[UUID]) -> None:
        if released:
            self._wakeups.released(released, self.now())
        if cancelled:
            self.tell(message_cancelled, rows_of(self.database).filter(pk__in=cancelled))

    # Threads and wake-ups

    @cached_property
    def _wakeups(self) -> Wakeups:
        return Wakeups(self, enabled=cast(DatabaseOptions, self.options).wakeups)

    @property
    def supports_wakeup(self) -> bool:  # type: ignore[override]
        return self._wakeups.reach_other_processes

    def listen(self, wake: Wake) -> Callable[[], None]:
        return self._wakeups.listen(wake)

    def is_expected(self, error: BaseException) -> bool:
        return errors.is_expected(error)

    def prepare_thread(self, *, apart: bool = False) -> None:
        threads.prepare(self.database, apart=apart)

    def interrupt_thread(self, ident: int) -> bool:
        return threads.interrupt(ident)
