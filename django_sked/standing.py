"""How a backend stands: what is due, what is to come, what is held and what is dead, queue by queue.

No table is read from end to end: numbers stop at a cap, and each is read along an index.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from django.db.models import Max, Min

from django_sked.backends.base import BaseBackend
from django_sked.criteria import Criteria
from django_sked.explaining import workers_of
from django_sked.models import ScheduledMessage, WorkerProcess
from django_sked.queries import ScheduledMessageQuerySet
from django_sked.states import Status

#: A number stops here: it means "so many, or more".
CAP = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStanding:
    """One queue; each number is at most the cap. Dead ones are counted among the first `cap` of the backend."""

    queue: str
    due: int
    future: int
    claimed: int
    dead: int
    #: Since when the one that has waited longest may be claimed; None when nothing is due.
    oldest_due_at: datetime | None
    #: The workers whose lease is good that serve it; None where that is not known.
    workers: int | None
    now: datetime

    @property
    def late(self) -> timedelta:
        """How long the one that has waited longest has been due."""
        return max(self.now - self.oldest_due_at, timedelta(0)) if self.oldest_due_at else timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One backend."""

    alias: str
    now: datetime
    cap: int
    queues: list[QueueStanding]
    #: Those whose lease is good; None where that is not known.
    workers: list[WorkerProcess] | None


def standing(backend: BaseBackend, *, cap: int = CAP) -> Standing:
    """How it stands now; numbers stop at `cap`."""
    now = backend.read_now()
    found = workers_of(backend)
    alive = None if found is None else [worker for worker in found if worker.lease_until >= now]
    counts = _Rows(backend, now, cap) if backend.database is not None else _Searches(backend, now, cap)
    claimed, dead = counts.claimed(), counts.dead()
    served = {str(queue) for worker in alive or () for queue in worker.queues or ()}
    names = {*backend.queues(), *backend.settings.queues, *claimed, *dead, *served}
    queues = []
    for name in sorted(names):
        due, oldest = counts.due(name)
        queues.append(
            QueueStanding(
                queue=name,
                due=due,
                future=counts.future(name),
                claimed=claimed[name],
                dead=dead[name],
                oldest_due_at=oldest,
                workers=None if alive is None else sum(name in (worker.queues or ()) for worker in alive),
                now=now,
            )
        )
    return Standing(alias=backend.alias, now=now, cap=cap, queues=queues, workers=alive)


class _Rows:
    """The numbers, of messages that are rows."""

    def __init__(self, backend: BaseBackend, now: datetime, cap: int) -> None:
        rows = ScheduledMessageQuerySet(ScheduledMessage, using=backend.database)
        # In the words of the indexes sked_message_claim, sked_message_holder and sked_message_finished.
        self._scheduled = rows.filter(status=Status.SCHEDULED, suspect__in=[False])
        self._suspects = rows.filter(status=Status.SCHEDULED, suspect__in=[True])
        self._claimed = rows.filter(status=Status.CLAIMED)
        self._dead = rows.filter(status=Status.DEAD, finished_at__isnull=False)
        self._now = now
        self._cap = cap

    def due(self, queue: str) -> tuple[int, datetime | None]:
        """How many, and since when the first: band by band, so that what is to come is not looked at."""
        parts = [self._suspects.filter(queue=queue, next_at__lte=self._now)]
        rest = self._scheduled.filter(queue=queue)
        while (band := rest.aggregate(top=Max("priority"))["top"]) is not None:
            parts.append(self._scheduled.filter(queue=queue, priority=band, next_at__lte=self._now))
            rest = self._scheduled.filter(queue=queue, priority__lt=band)
        count, firsts = 0, []
        for part in parts:
            count += part[: self._cap - count].count() if count < self._cap else 0
            firsts.append(part.aggregate(first=Min("next_at"))["first"])
        return count, min((first for first in firsts if first is not None), default=None)

    def future(self, queue: str) -> int:
        return self._scheduled.filter(queue=queue, next_at__gt=self._now)[: self._cap].count()

    def claimed(self) -> Counter[str]:
        return self._by_queue(self._claimed)

    def dead(self) -> Counter[str]:
        return self._by_queue(self._dead)

    def _by_queue(self, rows: ScheduledMessageQuerySet) -> Counter[str]:
        return Counter(rows.order_by().values_list("queue", flat=True)[: self._cap])


class _Searches:
    """The numbers, of messages that are no rows: by their due time, as nothing else can be asked for there."""

    def __init__(self, backend: BaseBackend, now: datetime, cap: int) -> None:
        self._backend = backend
        self._now = now
        self._cap = cap

    def due(self, queue: str) -> tuple[int, datetime | None]:
        criteria = Criteria(queue=queue, statuses=frozenset({Status.SCHEDULED}), due_until=self._now)
        next_at = self._backend.next_due_at(queue)
        oldest = next_at if next_at is not None and next_at <= self._now else None
        return self._count(criteria), oldest

    def future(self, queue: str) -> int:
        later = self._now + timedelta(microseconds=1)
        return self._count(Criteria(queue=queue, statuses=frozenset({Status.SCHEDULED}), due_from=later))

    def claimed(self) -> Counter[str]:
        return self._by_queue(Status.CLAIMED)

    def dead(self) -> Counter[str]:
        return self._by_queue(Status.DEAD)

    def _count(self, criteria: Criteria) -> int:
        return min(self._cap, self._backend.count(criteria, most=self._cap))

    def _by_queue(self, status: Status) -> Counter[str]:
        found: Iterable[Any] = self._backend.search(Criteria(statuses=frozenset({status})))[: self._cap]
        return Counter(message.queue for message in islice(found, self._cap))
