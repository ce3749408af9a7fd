"""What any worker does for all: rescue, expire, prune; each a small batch, skipping what is locked."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from django.db import connections, transaction
from django.db.models import Exists, F, OuterRef, QuerySet

from django_sked.backends.database.settling import Retention
from django_sked.backends.database.store import messages, moment, workers
from django_sked.models import ScheduledMessage
from django_sked.outcomes import finish, stop
from django_sked.states import PENDING, Status

#: A worker's row outlives its lease by so long, for people to see which one it was.
FORGET_WORKERS_AFTER = timedelta(days=1)


def _skip_locked(rows: QuerySet[ScheduledMessage]) -> QuerySet[ScheduledMessage]:
    features = connections[rows.db].features
    return rows.select_for_update(skip_locked=True) if features.has_select_for_update_skip_locked else rows


def lapsed(using: str, now: datetime | None) -> QuerySet[ScheduledMessage]:
    """Claimed rows (index sked_message_holder) whose worker has no lease."""
    leased = workers(using).filter(pk=OuterRef("claimed_by"), lease_until__gte=moment(now))
    return messages(using).filter(~Exists(leased), status=Status.CLAIMED)


def rescue(using: str, limit: int, now: datetime | None, at: datetime) -> tuple[list[UUID], list[UUID]]:
    """Take lapsed rows back; the raised token shuts their worker out."""
    # The first look takes no lock: most of the time there is nothing to rescue.
    ids = list(lapsed(using, now).values_list("pk", flat=True)[:limit])
    if not ids:
        return [], []
    with transaction.atomic(using=using):
        found = dict(_skip_locked(lapsed(using, now).filter(pk__in=sorted(ids))).values_list("pk", "cancel_requested"))
        stopped = [id for id, cancel_requested in found.items() if cancel_requested]
        rows = messages(using)
        if stopped:
            rows.filter(pk__in=stopped).update(token=F("token") + 1, **stop(at))
        if back := sorted(found.keys() - set(stopped)):
            freed = {"status": Status.SCHEDULED, "claimed_by": None, "claimed_at": None}
            rows.filter(pk__in=back).update(token=F("token") + 1, **freed)
    return list(found), stopped


def expire(using: str, limit: int, now: datetime | None, at: datetime) -> list[ScheduledMessage]:
    """Pending rows past their expiry (index sked_message_expiry)."""
    passed = messages(using).filter(status__in=PENDING, finished_at__isnull=True, expires_at__lte=moment(now))
    if not passed.exists():
        return []
    with transaction.atomic(using=using):
        found = list(_skip_locked(passed.order_by("expires_at"))[:limit])
        ids = [message.pk for message in found]
        messages(using).filter(pk__in=ids, status__in=PENDING).update(**finish(Status.EXPIRED, at))
    for message in found:
        message.status, message.finished_at, message.live_key = Status.EXPIRED, at, None
    return found


def prune(using: str, limit: int, now: datetime, retention: Retention) -> int:
    """Finished rows past their retention (index sked_message_finished), oldest first."""
    deleted = 0
    for status, kept in retention.items():
        if kept is None or deleted >= limit:
            continue
        old = messages(using).filter(status=status, finished_at__isnull=False, finished_at__lt=now - kept)
        ids = list(old.order_by("finished_at").values_list("pk", flat=True)[: limit - deleted])
        if ids:
            # Conditional again: a message may have been redriven meanwhile.
            gone = messages(using).filter(pk__in=ids, status=status)._raw_delete(using)
            deleted += gone or 0
    return deleted


def forget_workers(using: str, now: datetime) -> None:
    """Rows of workers that ended without retiring, long since (index on lease_until)."""
    workers(using).filter(lease_until__lt=now - FORGET_WORKERS_AFTER).delete()
