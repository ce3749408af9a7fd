"""Messages in this process's memory: for unit tests, and for a worker embedded in the program that schedules.

They are gone when the process ends, and writes do not join database transactions: inside `atomic()` they happen at
once, also if that rolls back.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush
from typing import Any, ClassVar
from uuid import UUID

from django_sked import arguments
from django_sked.backends.base import BaseBackend, Settled
from django_sked.backends.query import MessageQuery
from django_sked.conf import BackendSettings
from django_sked.criteria import Criteria
from django_sked.exceptions import IdInUse, InvalidMessage, KeyInUse
from django_sked.models import ScheduledMessage, WorkerProcess
from django_sked.outcomes import REDRIVEN, Outcome, Row, finish, stop, written
from django_sked.scheduling import OnConflict
from django_sked.signals import message_cancelled, message_rescheduled, message_scheduled
from django_sked.states import FINISHED, LIVE, PENDING, Answer, Status
from django_sked.verbs import Cancel, Hold, MakeDue, Redrive, Reschedule, Resume, Verb

_JSON = ("payload", "metadata", "delivered_to", "errors", "result", "retry_policy")
_Entry = tuple[datetime, UUID]


class MemoryBackend(BaseBackend):
    """One lock around plain dictionaries. What goes in and what comes out are copies."""

    reaches_other_processes: ClassVar[bool] = False
    supports_wakeup: ClassVar[bool] = True

    def __init__(self, settings: BackendSettings) -> None:
        super().__init__(settings)
        self._lock = threading.RLock()
        self._messages: dict[UUID, ScheduledMessage] = {}
        self._holders: dict[str, UUID] = {}
        # Queue -> priority -> heap of (next_at, id). Entries that are no longer true are dropped when met.
        self._due: dict[str, dict[int, list[_Entry]]] = {}
        self._leases: dict[UUID, datetime] = {}
        self._wakers: list[Callable[[], None]] = []

    # Schedule

    def add(
        self,
        messages: Sequence[ScheduledMessage],
        *,
        on_conflict: OnConflict = "error",
        batch_size: int | None = None,
    ) -> list[ScheduledMessage]:
        with self._lock:
            self._refuse_conflicts(messages, on_conflict)
            replaced: list[ScheduledMessage] = []
            stored = [self._add_one(message, on_conflict, replaced) for message in messages]
        self._wake()
        self.tell(message_scheduled, (message for message in stored if message.was_created))
        self.tell(message_cancelled, replaced)
        return stored

    def _refuse_conflicts(self, messages: Sequence[ScheduledMessage], on_conflict: OnConflict) -> None:
        """All or nothing: whatever could be refused is refused before the first message is stored."""
        seen: set[object] = set()
        for message in messages:
            names = {name for name in (message.pk, message.live_key) if name is not None}
            if on_conflict != "ignore" and names & seen:
                raise InvalidMessage(f"Two messages of one call share the id {message.pk} or the key {message.key!r}.")
            seen |= names
            if on_conflict != "ignore" and message.pk in self._messages:
                holder = self._messages[message.pk]
                raise IdInUse(f"A message with the id {message.pk} is stored already: {holder.event}, {holder.status}.")
            if on_conflict == "error" and message.live_key in self._holders:
                holder = self._copy(self._messages[self._holders[message.live_key]])
                raise KeyInUse(
                    f"The key {message.key!r} is held by message {holder.pk} ({holder.status}).", holder=holder
                )

    def _add_one(
        self, message: ScheduledMessage, on_conflict: OnConflict, replaced: list[ScheduledMessage]
    ) -> ScheduledMessage:
        holder = self._messages.get(message.pk) or self._holder(message.live_key)
        if holder is not None and on_conflict == "ignore":
            return self._copy(holder)
        if holder is not None:
            self._take_key(holder, message)
            if holder.status == Status.CANCELLED:
                replaced.append(self._copy(holder))
        message.backend_alias = self.alias
        message._state.adding = False
        self._put(self._copy(message))
        message.was_created = True
        return message

    def _holder(self, key: str | None) -> ScheduledMessage | None:
        return self._messages[self._holders[key]] if key in self._holders else None

    def _take_key(self, holder: ScheduledMessage, message: ScheduledMessage) -> None:
        if holder.status in PENDING:
            self._write(holder, finish(Status.CANCELLED, self.now(), f"replaced by {message.pk}"))
        else:
            reason = f"replaced by {message.pk}"
            self._write(holder, {"cancel_requested": True, "live_key": None, "reason": reason})

    # Read

    def find(self, *, id: UUID | None = None, key: str | None = None) -> ScheduledMessage:
        with self._lock:
            found = self._messages.get(id) if id is not None else self._holder(key) or self._newest(key)
            if found is None:
                raise ScheduledMessage.DoesNotExist(f"There is no message with {f'id {id}' if id else f'key {key!r}'}.")
            return self._copy(found)

    def _newest(self, key: str | None) -> ScheduledMessage | None:
        held = (message for message in self._messages.values() if message.key == key)
        return max(held, key=lambda message: (message.created_at, message.pk), default=None)

    def search(self, criteria: Criteria) -> MessageQuery:
        return MessageQuery(self, criteria)

    def page(self, criteria: Criteria, start: int, stop: int | None) -> list[ScheduledMessage]:
        with self._lock:
            found = sorted(self._matching(criteria), key=lambda message: (message.due_at, message.pk))
            return [self._copy(message) for message in found[start:stop]]

    def count(self, criteria: Criteria) -> int:
        with self._lock:
            return sum(1 for _ in self._matching(criteria))

    def _matching(self, criteria: Criteria) -> Iterable[ScheduledMessage]:
        return filter(criteria.matches, self._messages.values())

    def keys(self, queue: str | None = None) -> list[str]:
        with self._lock:
            return sorted(
                key for key, id in self._holders.items() if queue is None or self._messages[id].queue == queue
            )

    def next_due_at(self, queue: str | None = None) -> datetime | None:
        with self._lock:
            times = [
                message.next_at
                for message in self._messages.values()
                if message.status == Status.SCHEDULED and (queue is None or message.queue == queue)
            ]
            return min(times, default=None)

    # Change

    def change_one(self, id: UUID, verb: Verb, *, now: datetime | None = None) -> Answer:
        with self._lock:
            self._refuse_shift([id], verb)
            answer = self._change(id, verb, now or self.now())
            changed = [self._copy(self._messages[id])] if answer is verb.done else []
        self._tell_changed(changed, verb)
        return answer

    def change(self, ids: Sequence[UUID], verb: Verb, *, now: datetime | None = None) -> int:
        at = now or self.now()
        with self._lock:
            self._refuse_shift(ids, verb)
            changed = [self._copy(self._messages[id]) for id in ids if self._change(id, verb, at) is verb.done]
        self._tell_changed(changed, verb)
        return len(changed)

    def _refuse_shift(self, ids: Sequence[UUID], verb: Verb) -> None:
        if isinstance(verb, Reschedule) and verb.shift is not None:
            for message in (self._messages[id] for id in ids if id in self._messages):
                if message.status in verb.starts:
                    arguments.later(message.due_at, verb.shift, "shift")

    def _change(self, id: UUID, verb: Verb, now: datetime) -> Answer:
        message = self._messages.get(id)
        status = message.status if message else None
        refusal = verb.refusal(status, held=message is not None and message.held_at is not None)
        if isinstance(verb, Cancel) and message is not None and status == Status.CLAIMED:
            self._write(message, {"cancel_requested": True, "reason": verb.reason})
        if message is None or refusal is not None:
            return Answer.NOT_FOUND if refusal is None else refusal
        if isinstance(verb, Redrive) and message.key in self._holders:
            return Answer.KEY_IN_USE
        self._write(message, _assignments(verb, message, now))
        return verb.done

    def _tell_changed(self, changed: Sequence[ScheduledMessage], verb: Verb) -> None:
        if not changed:
            return
        self._wake()
        if isinstance(verb, Cancel | Reschedule):
            self.tell(message_cancelled if isinstance(verb, Cancel) else message_rescheduled, changed)

    # The worker's lease

    def register(self, worker: WorkerProcess, *, now: datetime | None = None) -> None:
        worker.started_at = now or self.now()
        self.beat(worker, now=now)

    def beat(self, worker: WorkerProcess, *, now: datetime | None = None) -> set[UUID]:
        worker.beat_at = now or self.now()
        worker.lease_until = worker.beat_at + timedelta(seconds=worker.lease)
        with self._lock:
            self._leases[worker.pk] = worker.lease_until
            return {id for id in self.held_by(worker.pk) if self._messages[id].cancel_requested}

    def retire(self, worker: WorkerProcess) -> None:
        with self._lock:
            self._leases.pop(worker.pk, None)

    # Claim and settle

    def queues(self) -> list[str]:
        with self._lock:
            return sorted({message.queue for message in self._messages.values() if message.status == Status.SCHEDULED})

    def claim(
        self, worker: UUID, queue: str, limit: int, *, quick: bool = False, now: datetime | None = None
    ) -> list[ScheduledMessage]:
        at = now or self.now()
        with self._lock:
            found: list[ScheduledMessage] = []
            bands = self._due.get(queue, {})
            for band in sorted(bands, reverse=True):
                while len(found) < limit and (message := self._pop(bands[band], band, queue, at)) is not None:
                    claimed = {"status": Status.CLAIMED, "claimed_by": worker, "claimed_at": at}
                    self._write(message, claimed | {"token": message.token + 1})
                    found.append(self._copy(message))
            return found

    def _pop(self, heap: list[_Entry], band: int, queue: str, at: datetime) -> ScheduledMessage | None:
        while heap and heap[0][0] <= at:
            entry = heappop(heap)
            if self._is_true(entry, queue, band):
                return self._messages[entry[1]]
        return None

    def settle(self, outcomes: Sequence[Outcome], *, now: datetime | None = None) -> Settled:
        settled = Settled()
        at = now or self.now()
        with self._lock:
            for outcome in outcomes:
                message = self._messages.get(outcome.id)
                if message is None or message.status != Status.CLAIMED or message.token != outcome.token:
                    settled.lost.append(outcome)
                    continue
                row = Row(**{name: getattr(message, name) for name in Row.__slots__})
                settled.written[outcome.id] = fields = written(outcome, row, at)
                self._write(message, fields)
                if fields["status"] in FINISHED and self.options.retention[fields["status"]] == timedelta(0):
                    del self._messages[outcome.id]
        return settled

    def held_by(self, worker: UUID) -> dict[UUID, int]:
        with self._lock:
            held = (m for m in self._messages.values() if m.status == Status.CLAIMED and m.claimed_by == worker)
            return {message.pk: message.token for message in held}

    # Sweep

    def _lapsed(self, at: datetime) -> list[ScheduledMessage]:
        leased = {worker for worker, until in self._leases.items() if until >= at}
        return [m for m in self._messages.values() if m.status == Status.CLAIMED and m.claimed_by not in leased]

    def has_lapsed(self, *, now: datetime | None = None) -> bool:
        with self._lock:
            return bool(self._lapsed(now or self.now()))

    def rescue(self, *, limit: int = 500, now: datetime | None = None) -> list[UUID]:
        at = now or self.now()
        with self._lock:
            lapsed = self._lapsed(at)
            for message in lapsed[:limit]:
                freed = {"status": Status.SCHEDULED, "claimed_by": None, "claimed_at": None}
                ended = stop(at) if message.cancel_requested else freed
                self._write(message, ended | {"token": message.token + 1})
            rescued = lapsed[:limit]
            cancelled = [self._copy(message) for message in rescued if message.status == Status.CANCELLED]
        self.tell(message_cancelled, cancelled)
        return [message.pk for message in rescued]

    def expire(self, *, limit: int = 500, now: datetime | None = None) -> list[ScheduledMessage]:
        at = now or self.now()
        with self._lock:
            pending = (m for m in self._messages.values() if m.status in PENDING)
            passed = [(m.expires_at, m.pk) for m in pending if m.expires_at is not None and m.expires_at <= at]
            ended = [self._messages[id] for _, id in sorted(passed)[:limit]]
            for message in ended:
                self._write(message, finish(Status.EXPIRED, at))
            return [self._copy(message) for message in ended]

    def prune(self, *, limit: int = 1000, now: datetime | None = None) -> int:
        at = now or self.now()
        with self._lock:
            old = [message.pk for message in self._messages.values() if self._is_old(message, at)][:limit]
            for id in old:
                del self._messages[id]
            return len(old)

    def _is_old(self, message: ScheduledMessage, at: datetime) -> bool:
        if message.status not in FINISHED or message.finished_at is None:
            return False
        kept = self.options.retention[Status(message.status)]
        return kept is not None and message.finished_at < at - kept

    # Wake-ups

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        self._wakers.append(wake)
        return lambda: self._wakers.remove(wake)

    def _wake(self) -> None:
        for wake in list(self._wakers):
            wake()

    # Rows

    def _put(self, message: ScheduledMessage) -> None:
        self._messages[message.pk] = message
        self._write(message, {})

    def _write(self, message: ScheduledMessage, fields: dict[str, Any]) -> None:
        """Set fields, and keep the key table and the due heaps in step with them."""
        old_key = message.live_key
        for name, value in fields.items():
            setattr(message, name, value)
        if old_key is not None and self._holders.get(old_key) == message.pk:
            del self._holders[old_key]
        if message.live_key is not None and message.status in LIVE:
            self._holders[message.live_key] = message.pk
        if message.status == Status.SCHEDULED:
            self._push(message)

    def _push(self, message: ScheduledMessage) -> None:
        heap = self._due.setdefault(message.queue, {}).setdefault(message.priority, [])
        if len(heap) > 2 * len(self._messages) + 100:
            # Mostly entries that are no longer true, as when messages are put off again and again.
            heap[:] = [entry for entry in set(heap) if self._is_true(entry, message.queue, message.priority)]
            heapify(heap)
        heappush(heap, (message.next_at, message.pk))

    def _is_true(self, entry: _Entry, queue: str, band: int) -> bool:
        next_at, id = entry
        message = self._messages.get(id)
        if message is None or message.status != Status.SCHEDULED:
            return False
        return (message.queue, message.priority, message.next_at) == (queue, band, next_at)

    def _copy(self, message: ScheduledMessage) -> ScheduledMessage:
        twin = copy.copy(message)
        twin._state = copy.copy(message._state)
        for name in _JSON:
            setattr(twin, name, copy.deepcopy(getattr(message, name)))
        return twin


def _assignments(verb: Verb, message: ScheduledMessage, now: datetime) -> dict[str, Any]:
    """What a verb writes to this message."""
    if isinstance(verb, Cancel):
        return finish(Status.CANCELLED, now, verb.reason)
    if isinstance(verb, Reschedule):
        return _rescheduled(verb, message)
    if isinstance(verb, Hold):
        return {"status": Status.BLOCKED, "held_at": now, "reason": verb.reason[:255]}
    if isinstance(verb, Resume):
        status = Status.BLOCKED if message.parents_left else Status.SCHEDULED
        return {"status": status, "held_at": None, "reason": ""}
    if isinstance(verb, MakeDue):
        return {"due_at": now, "next_at": now}
    assert isinstance(verb, Redrive)
    return _redriven(verb.due_at or now, message)


def _rescheduled(verb: Reschedule, message: ScheduledMessage) -> dict[str, Any]:
    if verb.due_at is None and verb.shift is None:
        return dict(verb.fields)
    due_at = verb.due_at if verb.due_at is not None else message.due_at + (verb.shift or timedelta(0))
    expires_at = message.expires_at and message.expires_at + (due_at - message.due_at)
    return {"due_at": due_at, "next_at": due_at, "expires_at": expires_at, **verb.fields}


def _redriven(due_at: datetime, message: ScheduledMessage) -> dict[str, Any]:
    still_ahead = message.expires_at is not None and message.expires_at > due_at
    return {
        **REDRIVEN,
        "due_at": due_at,
        "next_at": due_at,
        "live_key": message.key,
        "expires_at": message.expires_at if still_ahead else None,
    }
