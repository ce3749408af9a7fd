"""The messages of a memory backend, and the ways to find them: by id, key, due time, status and criteria.

Everything here runs under the backend's lock.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

from django_sked.backends import message_backends
from django_sked.backends.changes import refuse_times
from django_sked.backends.due import Due
from django_sked.criteria import Criteria
from django_sked.exceptions import IdInUse, InvalidMessage, KeyInUse
from django_sked.models import ScheduledMessage
from django_sked.scheduling import OnConflict
from django_sked.sealing import SEALED, Seal, carried, is_unopened, sealed
from django_sked.states import LIVE, PENDING, Answer, Status
from django_sked.verbs import Anew, Redrive, Reschedule, Verb

_JSON = ("payload", "metadata", "delivered_to", "errors", "result", "retry_policy", "verdict")


class Shelf(Mapping[UUID, ScheduledMessage]):
    """By id, with a table of keys and heaps of due times, which `write` keeps in step."""

    def __init__(self, seal: Seal | None = None) -> None:
        self._seal = seal
        self._messages: dict[UUID, ScheduledMessage] = {}
        self._holders: dict[str, UUID] = {}
        self._due = Due(self._messages)
        self._suspects: set[UUID] = set()

    def __getitem__(self, id: UUID) -> ScheduledMessage:
        return self._messages[id]

    def __iter__(self) -> Iterator[UUID]:
        return iter(self._messages)

    def __len__(self) -> int:
        return len(self._messages)

    # Change

    def put(self, message: ScheduledMessage) -> None:
        """Store a copy of a new message."""
        self._messages[message.pk] = stored = copied(message)
        self.write(stored, {name: getattr(stored, name) for name in SEALED})

    def write(self, message: ScheduledMessage, fields: dict[str, Any]) -> None:
        """Set fields of a stored message."""
        old_key = message.live_key
        for name, value in fields.items():
            setattr(message, name, sealed(self._seal, value) if name in SEALED else value)
        if old_key is not None and self._holders.get(old_key) == message.pk:
            del self._holders[old_key]
        if message.live_key is not None and message.status in LIVE:
            self._holders[message.live_key] = message.pk
        self._suspects.discard(message.pk)
        if message.status == Status.SCHEDULED and message.suspect:
            self._suspects.add(message.pk)
        elif message.status == Status.SCHEDULED:
            self._due.push(message)

    def seal_anew(self, ids: Iterable[UUID]) -> Anew:
        """See `BaseBackend.seal_anew`."""
        anew = Anew()
        for message in self.copies(ids):
            values = carried(message) if message.status in LIVE else {}
            if is_unopened(message):
                anew.unopened += message.status in LIVE
            elif values and message.status not in PENDING:
                anew.claimed.append(message.pk)
            elif values:
                self.write(self[message.pk], values)
                anew.done += 1
        return anew

    def set_progress(self, progress: Mapping[UUID, tuple[int, int]]) -> list[UUID]:
        """See `BaseBackend.set_progress`."""
        lost = []
        for id, (token, percent) in progress.items():
            message = self.get(id)
            if message is None or message.token != token or message.status != Status.CLAIMED:
                lost.append(id)
            else:
                message.progress = percent
        return lost

    def remove(self, id: UUID) -> None:
        """Forget a finished message, which is in no table but that of ids."""
        del self._messages[id]

    # Refuse

    def refuse_conflicts(self, messages: Iterable[ScheduledMessage], on_conflict: OnConflict) -> None:
        """All or nothing: whatever could be refused is refused before the first message is stored."""
        seen: set[object] = set()
        for message in messages:
            names = {name for name in (message.pk, message.live_key) if name is not None}
            if on_conflict != "ignore" and names & seen:
                raise InvalidMessage(f"Two messages of one call share the id {message.pk} or the key {message.key!r}.")
            seen |= names
            if on_conflict != "ignore" and (holder := self.get(message.pk)) is not None:
                raise IdInUse(f"A message with the id {message.pk} is stored already: {holder.event}, {holder.status}.")
            if on_conflict == "error" and (found := self.holder(message.live_key)) is not None:
                raise KeyInUse(
                    f"The key {message.key!r} is held by message {found.pk} ({found.status}).", holder=copied(found)
                )

    def refusal(self, message: ScheduledMessage | None, verb: Verb) -> Answer | None:
        """Why this message is left alone; None when it is not."""
        if message is None:
            return Answer.NOT_FOUND
        refusal = verb.refusal(message.status, held=message.held_at is not None)
        if refusal is not None:
            return refusal
        if verb.is_overtaken(message):
            return Answer.TOO_LATE
        return Answer.KEY_IN_USE if isinstance(verb, Redrive) and self.is_held(message.key) else None

    def refuse_shift(self, ids: Iterable[UUID], verb: Verb) -> None:
        """Raises InvalidMessage if one of those that would be moved cannot be, or would expire before it is due."""
        if isinstance(verb, Reschedule):
            for message in (self[id] for id in ids if id in self):
                if message.status in verb.starts:
                    refuse_times(verb, message)

    # Find

    def held_by(self, worker: UUID) -> dict[UUID, int]:
        """What a worker has claimed, with the token of each claim."""
        held = self.with_status(Status.CLAIMED)
        return {message.pk: message.token for message in held if message.claimed_by == worker}

    def expired(self, at: datetime) -> list[ScheduledMessage]:
        """Pending messages whose expiry has passed, the first of them first."""
        pending = self.with_status(*PENDING)
        passed = [(m.expires_at, m.pk) for m in pending if m.expires_at is not None and m.expires_at <= at]
        return [self[id] for _, id in sorted(passed)]

    def is_taken(self, message: ScheduledMessage) -> bool:
        """Is there a message with the id, or a live one with the key, of this one?"""
        return message.pk in self or self.is_held(message.live_key)

    def is_held(self, key: str | None) -> bool:
        """Does a live message hold this key?"""
        return key in self._holders

    def holder(self, key: str | None) -> ScheduledMessage | None:
        """The live message that holds this key."""
        return self._messages[self._holders[key]] if key in self._holders else None

    def newest(self, key: str | None) -> ScheduledMessage | None:
        """Of those that have, or had, this key."""
        held = (message for message in self._messages.values() if message.key == key)
        return max(held, key=lambda message: (message.created_at, message.pk), default=None)

    def matching(self, criteria: Criteria) -> Iterator[ScheduledMessage]:
        """In no order."""
        return filter(criteria.matches, self._messages.values())

    def ordered(self, criteria: Criteria) -> list[ScheduledMessage]:
        return sorted(self.matching(criteria), key=lambda m: (m.due_at, m.pk), reverse=criteria.descending)

    def keys_held(self, queue: str | None) -> list[str]:
        """Sorted."""
        return sorted(key for key, id in self._holders.items() if queue in (None, self._messages[id].queue))

    def pop_due(self, queue: str, until: datetime, limit: int) -> Iterator[ScheduledMessage]:
        """Taken out of its heap, one by one: whoever takes one claims it."""
        # Not one more than asked for.
        return islice(self._due.pop(queue, until), limit)

    def next_due_at(self, queue: str | None) -> datetime | None:
        scheduled = (m for m in self._messages.values() if m.status == Status.SCHEDULED and not m.suspect)
        return min((m.next_at for m in scheduled if queue in (None, m.queue)), default=None)

    def due_suspects(self, queues: Collection[str], at: datetime) -> list[ScheduledMessage]:
        suspects = map(self._messages.__getitem__, self._suspects)
        return [message for message in suspects if message.queue in queues and message.next_at <= at]

    def with_status(self, *statuses: str) -> Iterator[ScheduledMessage]:
        return (message for message in self._messages.values() if message.status in statuses)

    def copies(self, ids: Iterable[UUID]) -> list[ScheduledMessage]:
        """Of those that are there."""
        return [copied(self._messages[id]) for id in ids if id in self._messages]


def copied(message: ScheduledMessage) -> ScheduledMessage:
    """A message that shares nothing which somebody could change."""
    twin = copy.copy(message)
    twin._state = copy.copy(message._state)
    for name in _JSON:
        setattr(twin, name, message_backends.opened(copy.deepcopy(getattr(message, name))))
    return twin
