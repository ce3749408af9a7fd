"""What any worker does for all: rescue and expire; each a small batch, skipping what is locked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

from django.db.models import F, QuerySet

from django_sked import failpoints
from django_sked.backends.database.claiming import ClaimStrategy
from django_sked.backends.database.families import Families, forget_edges
from django_sked.backends.database.settling import Retention, delete_at_once
from django_sked.backends.database.store import (
    is_any,
    lapsed,
    messages,
    moment,
    readable,
    skip_locked,
    take_write_lock,
    workers,
)
from django_sked.models import ScheduledMessage
from django_sked.outcomes import finish, lost_alone, rescued
from django_sked.states import FINISHED, PENDING, Status

#: The time of the store, asked when it is needed.
Clock: TypeAlias = Callable[[], datetime]


def expired(using: str, now: datetime | None) -> QuerySet[ScheduledMessage]:
    """Pending rows past their expiry (index sked_message_expiry). Without the order, as exists() asks, a database may
    read everything that does not expire."""
    passed = messages(using).filter(status__in=PENDING, finished_at__isnull=True, expires_at__lte=moment(now))
    return passed.order_by("expires_at")


def _expired_now(using: str) -> QuerySet[ScheduledMessage]:
    return expired(using, None)


def rescue(
    strategy: ClaimStrategy, limit: int, now: datetime | None, at: Clock, retention: Retention, families: Families
) -> tuple[list[UUID], list[ScheduledMessage]]:
    """Take lapsed rows back; the raised token shuts their worker out. Returns all ids, and what has ended."""
    using = strategy.using
    # The first look takes no lock: most of the time there is nothing to rescue.
    if now is None and not strategy.has_lapsed():
        return [], []
    ids = list(lapsed(using, now).values_list("pk", flat=True)[:limit])
    if not ids:
        return [], []
    present = at()
    with strategy.transaction():
        take_write_lock(using)
        held = skip_locked(lapsed(using, now).filter(pk__in=sorted(ids)))
        # By what is written: there are few such sets of fields, and one UPDATE for each.
        groups: dict[tuple[tuple[str, Any], ...], list[UUID]] = {}
        for id, cancel_requested, suspect, crashes in held.values_list("pk", "cancel_requested", "suspect", "crashes"):
            fields = rescued(cancel_requested=cancel_requested, suspect=suspect, crashes=crashes, now=present)
            groups.setdefault(tuple(fields.items()), []).append(id)
        ended: dict[UUID, Status] = {}
        for items, group in groups.items():
            written = dict(items)
            messages(using).filter(pk__in=sorted(group)).update(token=F("token") + 1, **written)
            ended.update(dict.fromkeys(group, written["status"]) if written["status"] in FINISHED else {})
        found = _ended(using, ended, present, retention, families)
        failpoints.hit("rescue.before_commit")
    return [id for group in groups.values() for id in group], found


def _ended(
    using: str, statuses: Mapping[UUID, Status], at: datetime, retention: Retention, families: Families
) -> list[ScheduledMessage]:
    """The messages that a rescue has ended, the dead ones with an account of their death."""
    found = readable(using, list(statuses)) if statuses else []
    if dead := [message for message in found if message.status == Status.DEAD]:
        _note_deaths(using, dead, at)
    parents = _parents(using, statuses)
    families.ended({id: statuses[id] for id in parents}, at)
    delete_at_once(using, {id: status for id, status in statuses.items() if id not in parents}, retention)
    return found


def _parents(using: str, ids: Iterable[UUID]) -> set[UUID]:
    """Those of these locked rows that have children: asked in SQL, as some row may not be readable."""
    if not (ended := list(ids)):
        return set()
    return set(messages(using).filter(pk__in=ended, has_children=True).values_list("pk", flat=True))


def _note_deaths(using: str, dead: Sequence[ScheduledMessage], at: datetime) -> None:
    """Which worker was lost last: a suspect is held alone, so there is one death for each lost worker at most."""
    lost = workers(using).filter(pk__in=[message.claimed_by for message in dead])
    places = {id: (host, pid) for id, host, pid in lost.values_list("pk", "host", "pid")}
    for message in dead:
        fields = lost_alone(
            attempt=message.attempt,
            errors=message.errors,
            delivered_to=message.delivered_to,
            worker=message.claimed_by,
            place=places.get(message.claimed_by) if message.claimed_by else None,
            now=at,
        )
        for name, value in fields.items():
            setattr(message, name, value)
    messages(using).bulk_update(dead, ["reason", "errors", "delivered_to"])


def expire(
    strategy: ClaimStrategy, limit: int, now: datetime | None, clock: Clock, families: Families
) -> list[ScheduledMessage]:
    """End the pending rows that are past their expiry; returns those that can be read."""
    using = strategy.using
    if now is None and not is_any(using, _expired_now):
        return []
    passed = expired(using, now)
    at = clock()
    with strategy.transaction():
        # No whole rows: one that cannot be read ends as well.
        held = dict(skip_locked(passed).values_list("pk", "has_children")[:limit])
        messages(using).filter(pk__in=list(held), status__in=PENDING).update(**finish(Status.EXPIRED, at))
        found = {message.pk: message for message in readable(using, list(held))}
        families.ended({id: Status.EXPIRED for id, has_children in held.items() if has_children}, at)
    return [found[id] for id in held if id in found]


def forget(using: str, ids: Sequence[UUID]) -> int:
    """Those of these messages that are finished, with their edges; returns how many there were."""
    gone = messages(using).filter(pk__in=ids, status__in=FINISHED)._raw_delete(using) or 0
    forget_edges(using, ids)
    return gone
