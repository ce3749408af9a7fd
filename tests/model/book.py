"""What a store of messages must do, in plain Python: a dictionary of entries and one short method per step.

Written from the promises, not from a backend: it knows no locks, no rows, and no time but the `now` it is told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import ANY
from uuid import UUID

from django_sked.outcomes import Outcome
from django_sked.verbs import Cancel, Hold, MakeDue, Redrive, Reschedule, Resume, Verb

#: A message dies when so many workers were lost, each with it alone.
MOST_CRASHES = 3
MOST_ERRORS = 20
PENDING = {"blocked", "scheduled"}
LIVE = PENDING | {"claimed"}


@dataclass(slots=True, kw_only=True)
class Entry:
    """One message. Its fields are named as those of `ScheduledMessage`, and are compared with them one by one."""

    id: UUID
    queue: str
    priority: int
    payload: Any
    key: str | None
    live_key: str | None
    created_at: datetime
    due_at: datetime
    next_at: datetime
    expires_at: datetime | None
    status: str = "scheduled"
    held_at: datetime | None = None
    reason: Any = ""
    token: int = 0
    claimed_by: UUID | None = None
    claimed_at: datetime | None = None
    cancel_requested: bool = False
    attempt: int = 0
    unroutable: int = 0
    suspect: bool = False
    crashes: int = 0
    errors: list[Any] = field(default_factory=list)
    delivered_to: dict[str, str] = field(default_factory=dict)
    finished_at: datetime | None = None

    @property
    def order(self) -> tuple[int, datetime, UUID]:
        return (-self.priority, self.next_at, self.id)

    def finish(self, status: str, now: datetime, reason: Any = None) -> None:
        self.status, self.finished_at, self.live_key = status, now, None
        if reason is not None:
            self.reason = reason

    def free(self) -> None:
        self.status, self.claimed_by, self.claimed_at = "scheduled", None, None


class Book:
    """All messages of one backend, and the leases of its workers."""

    def __init__(self, retention: dict[str, timedelta | None]) -> None:
        self.retention = retention
        self.entries: dict[UUID, Entry] = {}
        self.leases: dict[UUID, datetime] = {}

    # Read

    def of_status(self, *statuses: str) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.status in statuses]

    def holder(self, key: str | None) -> Entry | None:
        return next((e for e in self.entries.values() if key is not None and e.live_key == key), None)

    def found_by_key(self, key: str) -> UUID | None:
        """The live message that holds the key, else the newest that held it."""
        held = [entry for entry in self.entries.values() if entry.key == key]
        found = self.holder(key) or max(held, key=lambda entry: (entry.created_at, entry.id), default=None)
        return None if found is None else found.id

    def search(self, status: str, queue: str, until: datetime) -> list[UUID]:
        found = [entry for entry in self.of_status(status) if entry.queue == queue and entry.due_at <= until]
        return [entry.id for entry in sorted(found, key=lambda entry: (entry.due_at, entry.id))]

    def due(self, queues: Collection[str], until: datetime, *, suspect: bool = False) -> list[Entry]:
        """What a claim may return, in its order."""
        scheduled = [e for e in self.of_status("scheduled") if e.queue in queues and e.suspect == suspect]
        return sorted((e for e in scheduled if e.next_at <= until), key=lambda entry: entry.order)

    def next_times(self, queue: str | None) -> list[datetime]:
        """When what is scheduled may be claimed, the soonest first."""
        scheduled = [e for e in self.of_status("scheduled") if queue in (None, e.queue) and not e.suspect]
        return sorted(entry.next_at for entry in scheduled)

    def keys(self, queue: str | None) -> list[str]:
        return sorted(e.live_key for e in self.entries.values() if e.live_key is not None and queue in (None, e.queue))

    def held_by(self, worker: UUID) -> dict[UUID, int]:
        return {entry.id: entry.token for entry in self.of_status("claimed") if entry.claimed_by == worker}

    def lapsed(self, now: datetime) -> list[Entry]:
        leased = {worker for worker, until in self.leases.items() if until >= now}
        return [entry for entry in self.of_status("claimed") if entry.claimed_by not in leased]

    def past_expiry(self, now: datetime) -> list[Entry]:
        return [entry for entry in self.of_status(*PENDING) if entry.expires_at is not None and entry.expires_at <= now]

    def past_retention(self, now: datetime) -> list[Entry]:
        until = ((entry, self.kept_until(entry)) for entry in self.entries.values())
        return [entry for entry, at in until if at is not None and at < now]

    def kept_until(self, entry: Entry) -> datetime | None:
        """The end of its retention; None while it is live, or when it is kept for ever."""
        kept = self.retention.get(entry.status)
        return None if kept is None or entry.finished_at is None else entry.finished_at + kept

    # Schedule

    def refusals(self, entries: Sequence[Entry], on_conflict: str) -> set[str]:
        """The errors of which one must be raised; without any, everything is stored."""
        found: set[str] = set()
        seen: set[object] = set()
        for entry in entries:
            names = {entry.id, entry.key} - {None}
            if on_conflict != "ignore" and names & seen:
                found.add("InvalidMessage")
            if on_conflict != "ignore" and entry.id in self.entries:
                found.add("IdInUse")
            if on_conflict == "error" and self.holder(entry.key) is not None:
                found.add("KeyInUse")
            seen |= names
        return found

    def add(self, entries: Sequence[Entry], on_conflict: str, now: datetime) -> list[tuple[set[UUID], bool]]:
        """Store what is not refused; for each, the ids of which one must be returned, and whether it was created."""
        answers: list[tuple[set[UUID], bool]] = []
        for entry in entries:
            holders = [e for e in (self.entries.get(entry.id), self.holder(entry.key)) if e is not None]
            if holders and on_conflict == "ignore":
                answers.append(({holder.id for holder in holders}, False))
                continue
            for holder in holders:
                self._take_key(holder, f"replaced by {entry.id}", now)
            self.entries[entry.id] = entry
            answers.append(({entry.id}, True))
        return answers

    def _take_key(self, holder: Entry, reason: str, now: datetime) -> None:
        if holder.status in PENDING:
            holder.finish("cancelled", now, reason)
        else:
            holder.cancel_requested, holder.live_key, holder.reason = True, None, reason

    # Claim and settle

    def claim(self, entry: Entry, worker: UUID, now: datetime) -> None:
        entry.status, entry.claimed_by, entry.claimed_at = "claimed", worker, now
        entry.token += 1

    def fence(self, outcome: Outcome) -> str:
        """Whether a settle is "written", refused as "lost", or was "repeated"."""
        entry = self.entries.get(outcome.id)
        if entry is None or entry.token != outcome.token:
            return "lost"
        return "written" if entry.status == "claimed" else "repeated"

    def settle(self, outcome: Outcome, now: datetime) -> Entry:
        """Write what the fence has let pass."""
        entry = self.entries[outcome.id]
        entry.errors = _capped(entry.errors + outcome.errors)
        if outcome.delivered_to or outcome.step in ("bury", "keep"):
            entry.delivered_to = outcome.delivered_to
        if outcome.step != "keep":
            self._count(entry, outcome)
            self._end(entry, outcome, now)
            self._forget(entry)
        return entry

    def _count(self, entry: Entry, outcome: Outcome) -> None:
        if outcome.counted:
            entry.attempt, entry.unroutable = entry.attempt + 1, 0
        if outcome.unroutable:
            entry.unroutable += 1
        if outcome.step != "release" or outcome.unroutable:
            entry.suspect = False

    def _forget(self, entry: Entry) -> None:
        if self.retention.get(entry.status) == timedelta(0):
            del self.entries[entry.id]

    def _end(self, entry: Entry, outcome: Outcome, now: datetime) -> None:
        ends = {"deliver": "delivered", "bury": "dead", "expire": "expired"}
        if outcome.step in ends:
            entry.finish(ends[outcome.step], now, outcome.reason)
        elif entry.cancel_requested:
            entry.finish("cancelled", now)
        else:
            wait = None if outcome.delay is None else timedelta(seconds=outcome.delay)
            next_at = outcome.at or (entry.next_at if wait is None else now + wait)
            if entry.expires_at is not None and next_at >= entry.expires_at:
                entry.finish("expired", now, ANY)
            else:
                entry.free()
                entry.next_at = next_at

    # Leases and sweeps

    def rescue(self, entry: Entry, now: datetime) -> None:
        entry.token += 1
        entry.crashes += entry.suspect
        if entry.cancel_requested:
            entry.finish("cancelled", now)
        elif entry.suspect and entry.crashes >= MOST_CRASHES:
            entry.errors = _capped([*entry.errors, ANY])
            entry.finish("dead", now, ANY)
        else:
            entry.free()
            entry.suspect = True
        self._forget(entry)

    def prune(self, ids: Iterable[UUID]) -> None:
        for id in ids:
            del self.entries[id]

    # Change

    def change(self, id: UUID, verb: Verb, now: datetime) -> str:
        """Do it, and say what must be answered."""
        entry = self.entries.get(id)
        if entry is None:
            return "not_found"
        if isinstance(verb, Redrive):
            return self._redrive(entry, verb, now)
        if entry.status == "claimed":
            if isinstance(verb, Cancel):
                entry.cancel_requested, entry.reason = True, verb.reason
            return "too_late"
        if entry.status not in PENDING:
            return "finished"
        if isinstance(verb, Resume) and entry.held_at is None:
            return "not_held"
        if isinstance(verb, MakeDue) and entry.status == "blocked":
            return "blocked"
        return self._take_effect(entry, verb, now)

    def refuses(self, ids: Iterable[UUID], verb: Verb) -> bool:
        """Would one of them expire before it is due? Then none of them is changed."""
        if not isinstance(verb, Reschedule) or verb.due_at is not None or "expires_at" not in verb.fields:
            return False
        pending = [entry for id in ids if (entry := self.entries.get(id)) is not None and entry.status in PENDING]
        return any(entry.due_at >= verb.fields["expires_at"] for entry in pending)

    def _take_effect(self, entry: Entry, verb: Verb, now: datetime) -> str:
        if isinstance(verb, Cancel):
            entry.finish("cancelled", now, verb.reason)
            return "cancelled"
        if isinstance(verb, Hold):
            entry.status, entry.held_at, entry.reason = "blocked", now, verb.reason
            return "held"
        if isinstance(verb, Resume):
            entry.status, entry.held_at, entry.reason = "scheduled", None, ""
            return "resumed"
        if isinstance(verb, MakeDue):
            entry.due_at = entry.next_at = now
            return "made_due"
        assert isinstance(verb, Reschedule)
        self._reschedule(entry, verb)
        return "rescheduled"

    def _reschedule(self, entry: Entry, verb: Reschedule) -> None:
        if verb.due_at is not None or verb.shift is not None:
            due_at = verb.due_at or entry.due_at + (verb.shift or timedelta(0))
            if entry.expires_at is not None:
                entry.expires_at += due_at - entry.due_at
            entry.due_at = entry.next_at = due_at
        for name, value in verb.fields.items():
            setattr(entry, name, value)

    def _redrive(self, entry: Entry, verb: Redrive, now: datetime) -> str:
        if entry.status != "dead":
            return "not_dead"
        if self.holder(entry.key) is not None:
            return "key_in_use"
        entry.free()
        entry.due_at = entry.next_at = verb.due_at or now
        if entry.expires_at is not None and entry.expires_at <= entry.due_at:
            entry.expires_at = None
        entry.attempt = entry.unroutable = entry.crashes = 0
        entry.suspect = False
        entry.cancel_requested, entry.finished_at, entry.reason, entry.live_key = False, None, "", entry.key
        return "redriven"


def _capped(errors: list[Any]) -> list[Any]:
    """The first, and the newest."""
    return errors if len(errors) <= MOST_ERRORS else errors[:1] + errors[1 - MOST_ERRORS :]
