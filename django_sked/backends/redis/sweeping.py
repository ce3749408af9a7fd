"""What any worker does for all, in Redis: rescue, expire, prune; each a small batch."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django_sked.backends.redis.encoding import given_time, uuid
from django_sked.backends.redis.records import Record, Records, Write
from django_sked.backends.redis.scripts import Scripts
from django_sked.models import ScheduledMessage
from django_sked.outcomes import VERDICT_KEPT, finish, is_awaited, lost_alone, rescued
from django_sked.states import FINISHED, PENDING, Status

logger = logging.getLogger("django_sked.backends.redis")

#: Messages that one script looks for, and deletes.
BATCH = 100
#: A call that has staged records and was not heard of for so long will not go on.
STALE = timedelta(minutes=1)
#: Of so many calls one prune deletes what they have staged.
CALLS = 10

_MICROSECOND = timedelta(microseconds=1)
_AWAITED = VERDICT_KEPT // _MICROSECOND


class Sweeps:
    """The sweeps of one backend."""

    def __init__(
        self,
        scripts: Scripts,
        records: Records,
        retention: Mapping[Status, timedelta | None],
        forget_workflows: Callable[[Sequence[UUID]], None],
    ) -> None:
        self._scripts = scripts
        self._forget_workflows = forget_workflows
        self._records = records
        self._retention = retention

    def _found(self, what: str, limit: int, now: datetime | None) -> dict[UUID, tuple[str, str]]:
        """By id, the worker that holds it and where that is or was."""
        flat = self._scripts.call("sweep", limit, what, now=given_time(now))
        return {uuid(id): (worker, place) for id, worker, place in zip(flat[::3], flat[1::3], flat[2::3], strict=True)}

    def _put_aside(self, id: UUID, now: datetime | None, worker: str = "") -> bool:
        """What cannot be read is no longer found, so that it hides nothing behind it; false if it was not there."""
        logger.error("set_aside id=%s error=%s", id, "columns")
        source = f"held:{worker}" if worker else "expiry"
        reason = "cannot be read: columns"
        return bool(self._scripts.call("aside", source, worker, reason, id.hex, now=given_time(now)))

    def has_lapsed(self, now: datetime | None) -> bool:
        return bool(self._found("lapsed", 1, now))

    def rescue(self, limit: int, now: datetime | None) -> tuple[list[UUID], list[ScheduledMessage]]:
        """Take lapsed messages back; the raised token shuts their worker out. Returns all ids, and what has ended."""
        while True:
            found = self._found("lapsed", limit, now)
            done, unread = self._rescue(found, now)
            moved = sum(self._put_aside(id, now, found[id][0]) for id in unread)
            if done or not moved:
                ended = [write for write in done.values() if write.changes["status"] in FINISHED]
                return list(done), [write.message_after() for write in ended]

    def _rescue(
        self, found: Mapping[UUID, tuple[str, str]], now: datetime | None
    ) -> tuple[dict[UUID, Write], set[UUID]]:
        """What was rescued, and what cannot be read."""
        unread: set[UUID] = set()

        def decision(record: Record | None, id: UUID, at: datetime) -> Write | None:
            message = record.message if record is not None else None
            if record is None or message is None:
                unread.add(id)
                return None
            if message.status != Status.CLAIMED:
                return None
            changes = _rescued(message, found[id][1], at)
            return Write(
                record=record,
                step="rescue",
                changes=changes,
                lapsed=record.fields.get("claimed_by", "nobody"),
                delete=self._is_deleted(changes["status"], message),
            )

        return self._records.decide(found, decision, now), unread

    def expire(self, limit: int, now: datetime | None) -> list[ScheduledMessage]:
        """End pending messages that are past their expiry, the earliest first."""
        while True:
            done, unread = self._expire(limit, now)
            moved = sum(self._put_aside(id, now) for id in unread)
            if done or not moved:
                return [write.message_after() for write in done.values()]

    def _expire(self, limit: int, now: datetime | None) -> tuple[dict[UUID, Write], set[UUID]]:
        """What has expired, and what cannot be read."""
        unread: set[UUID] = set()

        def decision(record: Record | None, id: UUID, at: datetime) -> Write | None:
            message = record.message if record is not None else None
            if record is None or message is None:
                unread.add(id)
                return None
            if message.status not in PENDING:
                return None
            if message.expires_at is None or message.expires_at > at:
                return None
            return Write(record=record, step="expire", changes=finish(Status.EXPIRED, at))

        return self._records.decide(self._found("expired", limit, now), decision, now), unread

    def prune(self, limit: int, now: datetime | None) -> int:
        """Delete finished messages past their retention, the oldest of each status first."""
        for _ in range(CALLS):
            if not self._scripts.call("discard", "", STALE // _MICROSECOND, now=given_time(now)):
                break
        deleted = 0
        times = [(s.value, "" if time is None else time // _MICROSECOND) for s, time in self._retention.items()]
        every = [item for pair in times for item in pair]
        for status, kept in self._retention.items():
            while kept is not None and deleted < limit:
                most = min(BATCH, limit - deleted)
                looked, gone, workflows = self._scripts.call(
                    "prune", status.value, kept // _MICROSECOND, most, _AWAITED, *every, now=given_time(now)
                )
                deleted += gone
                if workflows:
                    self._forget_workflows([uuid(id) for id in workflows])
                if looked < most:
                    break
        return deleted

    def _is_deleted(self, status: Status, message: ScheduledMessage) -> bool:
        """A retention of 0: what has just ended in such a status is not kept, unless a promoter is to read it."""
        awaited = is_awaited(status, message.recurrence_id, message.verdict)
        return self._retention.get(status) == timedelta(0) and not awaited

    def forget(self, ids: Sequence[UUID]) -> int:
        """Delete those that are finished."""
        batches = (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))
        return sum(self._scripts.call("forget", *(id.hex for id in batch)) for batch in batches)


def _rescued(message: ScheduledMessage, place: str, at: datetime) -> dict[str, Any]:
    state = {name: getattr(message, name) for name in ("cancel_requested", "suspect", "crashes")}
    changes = rescued(**state, now=at) | {"token": message.token + 1}
    if changes["status"] == Status.DEAD:
        known = {name: getattr(message, name) for name in ("attempt", "errors", "delivered_to")}
        where = tuple(json.loads(place)) if place else None
        changes |= lost_alone(**known, worker=message.claimed_by, place=where, now=at)
    return changes
