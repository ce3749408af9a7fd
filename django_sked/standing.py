"""How a backend stands: what is due, what is to come, what is held and what is dead, queue by queue, and who is there.

No table is read from end to end: see `BaseBackend.backlog`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django_sked.backends.backlog import Backlog
from django_sked.backends.base import BaseBackend
from django_sked.explaining import pauses_of, workers_of
from django_sked.models import WorkerProcess


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStanding:
    """One queue."""

    queue: str
    #: What it has, each number counted up to a cap, and since when the first of what is due may be claimed.
    backlog: Backlog
    #: The workers whose lease is good that serve it; None where that is not known.
    workers: int | None
    #: Does it rest: none of its messages is started?
    is_paused: bool
    now: datetime

    @property
    def late(self) -> timedelta:
        """How long the one that has waited longest has been due."""
        oldest = self.backlog.oldest
        return max(self.now - oldest, timedelta(0)) if oldest else timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One backend."""

    alias: str
    now: datetime
    queues: list[QueueStanding]
    #: Those whose lease is good; None where that is not known.
    workers: list[WorkerProcess] | None


def standing(backend: BaseBackend) -> Standing:
    """How it stands now."""
    now = backend.read_now()
    found = workers_of(backend)
    alive = None if found is None else [worker for worker in found if worker.lease_until >= now]
    backlog = backend.backlog(now=now)
    paused = pauses_of(backend, now)
    served = {str(queue) for worker in alive or () for queue in worker.queues or ()}
    queues = [
        QueueStanding(
            queue=name,
            backlog=backlog.get(name) or Backlog(),
            workers=None if alive is None else sum(name in (worker.queues or ()) for worker in alive),
            is_paused=name in paused,
            now=now,
        )
        for name in sorted({*backlog, *backend.settings.queues, *served, *paused})
    ]
    return Standing(alias=backend.alias, now=now, queues=queues, workers=alive)
