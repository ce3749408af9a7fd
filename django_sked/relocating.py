"""A declaration whose backend has its recurrences in another database now: what it had come to goes on there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import DatabaseError

from django_sked import ticking
from django_sked.backends import message_backends
from django_sked.exceptions import RecurrenceChanged
from django_sked.models import Recurrence
from django_sked.models.occurrences import last_account

#: What is carried over, ...
_COUNTS = ("occurrences", "missed", "skipped", "last_tick_at", "runs")
#: ... and what makes the next tick the same one in both.
_RHYTHM = ("trigger", "timezone", "start_at", "end_at")
#: ... or, after it has run out, what lets it go on when it is another one.
_LIMITS = (*_RHYTHM, "max_occurrences")


class Unreachable(Exception):
    """A database cannot be asked whether this declaration has been there."""


def former(name: str, using: str, here: Recurrence | None, is_ready: Callable[[str], bool]) -> Recurrence | None:
    """The row of this declaration in another database than `using`: one that is in use, else the one that was orphaned
    last, and later than the row that is `here`. It makes no more ticks from now on; those that it has made are
    delivered where they are."""
    databases = {Recurrence.objects.database_of(backend) for backend in message_backends.all()} - {using}
    rows = [row for database in sorted(databases) for row in _rows(name, database, is_ready)]
    known = rows if here is None else [here, *rows]
    found = max(known, key=lambda row: (row.orphaned_at is None, row.orphaned_at or row.created_at), default=None)
    if found is here:
        return None
    if found is not None and found.backend in message_backends:
        found.orphan(cancels=False)
    return found


def _rows(name: str, database: str, is_ready: Callable[[str], bool]) -> list[Recurrence]:
    try:
        found = Recurrence.objects.using(database).filter(name=name, is_declared=True)
        return list(found) if is_ready(database) else []
    except DatabaseError as error:
        # To begin anew here would be to forget what it has come to there.
        raise Unreachable(f"The database {database!r} does not say whether it has been there: {error}") from error


def take_over(stored: Recurrence, before: Recurrence) -> None:
    """Write what the former row had come to into the one that goes on."""
    now = stored.store.now()
    fields: dict[str, Any] = {name: getattr(before, name) for name in _COUNTS} | last_account(before)
    fields["since_tick_at"] = before.since_tick_at or before.created_at
    if fields.get("has_next_payload", before.has_next_payload):
        fields = {"payload": before.payload, "stateful": True, "has_next_payload": True} | fields
    is_wider = before.has_run_out and any(getattr(stored, name) != getattr(before, name) for name in _LIMITS)
    if is_wider or (before.status == Recurrence.Status.PAUSED and before.reason == ticking.NOT_DECLARED):
        is_same = all(getattr(stored, name) == getattr(before, name) for name in _RHYTHM)
        is_recent = before.orphaned_at is None or now - before.orphaned_at <= stored.grace
        stored.next_tick_at, stored.last_tick_at, stored.open = None, before.last_tick_at, []
        stored.since_tick_at, stored.runs = fields["since_tick_at"], before.runs
        fields |= stored.going_on(now, before.next_tick_at if is_same and is_recent else None)
        fields["waiting_tick_at"] = before.waiting_tick_at if is_same and is_recent else None
    else:
        fields |= {"status": before.status, "reason": before.reason, "ended_at": before.ended_at}
        fields |= {"next_tick_at": None, "waiting_tick_at": None, "look_at": None}
    if not stored.write(fields):
        raise RecurrenceChanged(f"The recurrence {stored.name!r} was changed by others while it was brought here.")
