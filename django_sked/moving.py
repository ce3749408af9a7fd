"""STEP move: pending messages from one backend to another, each as a whole, and none delivered by both.

    source      scheduled -> hold -> blocked                   -> cancel -> cancelled
    target                                    add -> blocked                             resume -> scheduled

The two are never free at the same time, so nobody delivers a message in between. How far each one has come is written
in its `reason`, at both ends: a move that was killed, at whatever line, is taken up by the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django_sked import failpoints
from django_sked.backends.base import BaseBackend
from django_sked.criteria import Criteria
from django_sked.exceptions import InvalidMessage
from django_sked.models import ScheduledMessage
from django_sked.states import PENDING, Status
from django_sked.verbs import Cancel, Hold, Reschedule, Resume

#: What people may change of a message that waits.
_CHANGEABLE = ("due_at", "local_time", "payload", "schema_version", "metadata", "priority", "queue", "expires_at")
#: Where cancelled messages are deleted sooner than that, each is cancelled by itself, to know which of them were.
_KEPT = timedelta(hours=1)
#: What another process has scheduled before the move may be this much later, as that process knows the time.
_APART = timedelta(seconds=1)


@dataclass(slots=True)
class Tally:
    """What a move has done so far."""

    moved: int = 0
    #: Message id -> why it stays where it is, as the end of a sentence.
    refused: dict[UUID, str] = field(default_factory=dict)
    #: Somebody let them go on meanwhile and a worker holds them: the next move sees what became of them.
    undecided: int = 0


class Move:
    """Moves what is pending and meets the criteria, one batch after the other; messages that are scheduled while it
    goes on, or that a worker holds, are left to the next one."""

    def __init__(
        self, source: BaseBackend, target: BaseBackend, criteria: Criteria | None = None, *, batch_size: int = 500
    ) -> None:
        self.source = source
        self.target = target
        self.criteria = replace(criteria or Criteria(), statuses=PENDING)
        self.batch_size = batch_size
        self.tally = Tally()
        self._leaving = f"moving to {target.alias}"
        self._moved = f"moved to {target.alias}"
        self._arriving = f"arriving from {source.alias}"
        self._arriving_held = f"arriving on hold from {source.alias}: "

    def count(self) -> int:
        """How many messages it would try to move."""
        return self.source.count(self.criteria)

    def run(self) -> Iterator[Tally]:
        """Move; yields after each batch."""
        until = self.source.read_now() + _APART
        yield from self._take_up()
        moved = 1
        while moved:
            # Once more, because messages that were moved to an earlier time meanwhile have been passed by.
            moved = 0
            for batch in self._pass(until):
                moved += batch
                yield self.tally

    def _take_up(self) -> Iterator[Tally]:
        """Finish what an earlier move has copied."""
        criteria, passed = Criteria(statuses=frozenset({Status.BLOCKED})), 0
        while found := self.target.page(criteria, passed, passed + self.batch_size):
            copies = [message for message in found if self._is_arriving(message)]
            passed += len(found) - self._finish(copies, {})
            yield self.tally

    def _pass(self, until: datetime) -> Iterator[int]:
        passed = 0
        while found := self.source.page(self.criteria, passed, passed + self.batch_size):
            batch = [message for message in found if self._may_move(message, until)]
            moved = self._move(batch) if batch else 0
            passed += len(found) - moved
            yield moved

    def _may_move(self, message: ScheduledMessage, until: datetime) -> bool:
        if not self._is_readable(message):
            self.tally.refused[message.pk] = "it cannot be read"
        elif message.created_at > until:
            return False
        elif message.parents_left or message.has_children or message.workflow_id is not None:
            self.tally.refused[message.pk] = "it is part of a workflow"
        elif message.reason.startswith("arriving "):
            self.tally.refused[message.pk] = "another move brings it here and has not ended"
        return message.pk not in self.tally.refused

    def _move(self, messages: Sequence[ScheduledMessage]) -> int:
        """How many have left the source, and perhaps were delivered before they did."""
        held = self._hold(messages)
        failpoints.hit("move.held")
        copies = self._copy(held)
        failpoints.hit("move.copied")
        return self._finish(copies, {message.pk: message.reason for message in held})

    def _hold(self, messages: Sequence[ScheduledMessage]) -> list[ScheduledMessage]:
        """From here on no worker of the source gets them."""
        scheduled = [message.pk for message in messages if message.status == Status.SCHEDULED]
        self.source.change(scheduled, Hold(reason=self._leaving))
        found = self.source.find_many([message.pk for message in messages])
        return [message for message in found.values() if message.status == Status.BLOCKED]

    def _copy(self, messages: Sequence[ScheduledMessage]) -> list[ScheduledMessage]:
        """Store them, on hold; those that are refused there, or whose id or key is taken, are free again here."""
        copies = [self._as_copy(message) for message in messages]
        arrived, back = [], []
        for message, found in zip(messages, self._add(copies), strict=True):
            if found is not None and found.pk == message.pk and (found.was_created or self._is_arriving(found)):
                arrived.append(found)
                continue
            if found is not None:
                what = f"id {message.pk}" if found.pk == message.pk else f"key {message.key!r}"
                self.tally.refused[message.pk] = f"its {what} is in use there"
            if message.reason == self._leaving:
                back.append(message.pk)
        self.source.change(back, Resume())
        return arrived

    def _add(self, copies: Sequence[ScheduledMessage]) -> list[ScheduledMessage | None]:
        """In the same order, each copy as stored, or what is in its way, or None where it is refused."""
        stored = self._offer(copies)
        # Moved from there once, and now back: what that left behind is no message any more.
        left = f"moved to {self.source.alias}"
        remains = {message.pk for message in stored if message is not None and message.reason == left}
        if not remains or not self.target.forget(list(remains)):
            return stored
        again = iter(self._offer([copy for copy in copies if copy.pk in remains]))
        return [next(again) if message is not None and message.pk in remains else message for message in stored]

    def _offer(self, copies: Sequence[ScheduledMessage]) -> list[ScheduledMessage | None]:
        """Where one of them is refused none is stored; then each half by itself, until it is known which one it is."""
        if not copies:
            return []
        try:
            return list(self.target.add(copies, on_conflict="ignore"))
        except InvalidMessage as error:
            if len(copies) > 1:
                middle = len(copies) // 2
                return self._offer(copies[:middle]) + self._offer(copies[middle:])
            self.tally.refused[copies[0].pk] = f"it is refused there: {str(error).removesuffix('.')}"
            return [None]

    def _as_copy(self, message: ScheduledMessage) -> ScheduledMessage:
        values: dict[str, Any] = {f.attname: getattr(message, f.attname) for f in message._meta.concrete_fields}
        was_held = message.reason != self._leaving
        values["reason"] = (self._arriving_held + message.reason)[:255] if was_held else self._arriving
        copy = ScheduledMessage(**values)
        copy.has_own_id = True
        return copy

    def _is_readable(self, message: ScheduledMessage) -> bool:
        # A search shows of one that is not what it can.
        return message.created_at is not None

    def _is_arriving(self, message: ScheduledMessage) -> bool:
        is_ours = message.reason == self._arriving or message.reason.startswith(self._arriving_held)
        return is_ours and self._is_readable(message)

    def _finish(self, copies: Sequence[ScheduledMessage], reasons: Mapping[UUID, str]) -> int:
        """End them at the source and let them go at the target; returns how many of the copies are decided."""
        ids = [copy.pk for copy in copies]
        found = self.source.find_many(ids)
        ours = self._cancel([id for id, message in found.items() if message.status in PENDING])
        # What this move has seen there itself was not ended by an earlier one.
        unseen = [copy for copy in copies if copy.pk not in found and copy.pk not in reasons]
        ours |= {copy.pk for copy in unseen if self._may_be_pruned(copy)}
        failpoints.hit("move.finished")
        last = self.source.find_many(ids)
        # One that is gone, and not by our cancel, has ended there and was not kept.
        has_moved = {id: self._has_moved(last[id]) if id in last else id in ours for id in ids}
        moved = [copy for copy in copies if has_moved[copy.pk]]
        left = [id for id in ids if not has_moved[id]]
        undecided = [id for id in left if id in last and last[id].is_live]
        self._release(moved, last, reasons)
        failpoints.hit("move.released")
        self.target.change(
            [id for id in left if id not in undecided], Cancel(reason=f"it has ended at {self.source.alias}")
        )
        self.tally.moved += len(moved)
        self.tally.undecided += len(undecided)
        return len(copies) - len(undecided)

    def _cancel(self, ids: Sequence[UUID]) -> set[UUID]:
        """End these at the source; returns those of which it is known that they were ended by this."""
        verb = Cancel(reason=self._moved)
        kept = self.source.options.retention.get(Status.CANCELLED)
        if kept is None or kept >= _KEPT:
            return set(ids) if self.source.change(ids, verb) == len(ids) else set()
        return {id for id in ids if self.source.change_one(id, verb) == verb.done}

    def _may_be_pruned(self, copy: ScheduledMessage) -> bool:
        """Was it perhaps cancelled by a move that was killed, and deleted when that was as old as it may be?

        If it is not that old, it was no cancel of ours. Where both may be, delivered twice is better than never.
        """
        kept = self.source.options.retention.get(Status.CANCELLED)
        return kept is not None and (copy.held_at is None or copy.held_at + kept <= self.source.read_now())

    def _has_moved(self, last: ScheduledMessage) -> bool:
        return last.status == Status.CANCELLED and last.reason == self._moved

    def _release(
        self,
        copies: Sequence[ScheduledMessage],
        last: Mapping[UUID, ScheduledMessage],
        reasons: Mapping[UUID, str],
    ) -> None:
        free = []
        for copy in copies:
            if copy.pk in last:
                self._follow(copy, last[copy.pk])
            if self._stays_held(copy, last.get(copy.pk)):
                reason = reasons.get(copy.pk, copy.reason.removeprefix(self._arriving_held))
                self.target.change_one(copy.pk, Hold(reason=reason), now=copy.held_at)
            else:
                free.append(copy.pk)
        self.target.change(free, Resume())

    def _stays_held(self, copy: ScheduledMessage, last: ScheduledMessage | None) -> bool:
        was_held = copy.reason != self._arriving
        if last is None:
            return was_held
        # Also where somebody resumed or held it while it was on its way.
        return last.held_at is not None and (was_held or last.held_at != copy.held_at)

    def _follow(self, copy: ScheduledMessage, last: ScheduledMessage) -> None:
        """What people changed at the source between the copy and the end."""
        changed = {name: getattr(last, name) for name in _CHANGEABLE if getattr(last, name) != getattr(copy, name)}
        if changed:
            due_at = changed.pop("due_at", None)
            if last.expires_at is not None and last.expires_at <= last.due_at:
                due_at = last.due_at  # said with the expiry, it is taken as it is
            # A new time takes these two along, unless it says otherwise.
            along = {"expires_at": last.expires_at, "local_time": last.local_time}
            fields = changed if due_at is None else changed | along
            self.target.change_one(copy.pk, Reschedule(due_at=due_at, fields=fields))
