"""STEP prune, in a database: finished rows past their retention, and rows of workers and workflows that have gone.

In the index of finished rows those that are gone come first. While some old transaction keeps them from being vacuumed
each batch would read all of them once more, so it begins where the last one has ended, as long as there is more to do.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import Q

from django_sked.backends.database.families import forget_edges, forget_workflows, needed_no_more
from django_sked.backends.database.settling import NOT_AWAITED, Retention
from django_sked.backends.database.store import messages, workers
from django_sked.backends.empties import Empties
from django_sked.outcomes import VERDICT_KEPT
from django_sked.states import Status

#: A worker's row outlives its lease by so long, for people to see which one it was.
FORGET_WORKERS_AFTER = timedelta(days=1)


class Pruning:
    """What a process prunes of one database, for the backend with this alias."""

    def __init__(self, using: str, alias: str) -> None:
        self._using = using
        self._empties = Empties(alias, forget_workflows)
        #: The last finished_at of a batch after which there may be more.
        self._floors: dict[Status, datetime] = {}

    def prune(self, limit: int, now: datetime, retention: Retention) -> int:
        """See `BaseBackend.prune`."""
        self._forget_workers(now)
        self._empties.look(self._using, now)
        deleted = 0
        for status, kept in retention.items():
            if kept is not None and deleted < limit:
                deleted += self._prune(status, kept, limit - deleted, now, retention)
        return deleted

    def _prune(self, status: Status, kept: timedelta, limit: int, now: datetime, retention: Retention) -> int:
        """The oldest of one status (index sked_message_finished)."""
        old = messages(self._using).filter(status=status, finished_at__isnull=False, finished_at__lt=now - kept)
        if kept < VERDICT_KEPT:
            old = old.filter(NOT_AWAITED | Q(finished_at__lt=now - VERDICT_KEPT))
        old = needed_no_more(self._using, old, now, retention)
        if (floor := self._floors.pop(status, None)) is not None:
            old = old.filter(finished_at__gte=floor)
        found = list(old.order_by("finished_at").values_list("pk", "workflow_id", "finished_at")[:limit])
        if not found:
            return 0
        if len(found) == limit:
            # After a batch that is not full the next one looks again for what was needed still.
            self._floors[status] = found[-1][2] or now - kept
        ids = [id for id, _, _ in found]
        # Conditional again: a message may have been redriven meanwhile.
        gone = messages(self._using).filter(pk__in=ids, status=status)._raw_delete(self._using)
        forget_edges(self._using, ids)
        forget_workflows(self._using, {workflow for _, workflow, _ in found if workflow is not None})
        return gone or 0

    def _forget_workers(self, now: datetime) -> None:
        """Rows of workers that ended without retiring, long since (index on lease_until).

        Read first, without a lock: a search that deletes would lock the row beside on MariaDB, which may be about to
        beat.
        """
        gone = workers(self._using).filter(lease_until__lt=now - FORGET_WORKERS_AFTER)
        if ids := list(gone.values_list("pk", flat=True)):
            gone.filter(pk__in=ids).delete()
