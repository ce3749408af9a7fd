"""Messages in this process's memory: for unit tests, and for a worker embedded in the program that schedules.

They are gone when the process ends, and writes do not join database transactions: inside `atomic()` they happen at
once, also if that rolls back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from django.db import router

from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.backends.changes import assignments
from django_sked.backends.facts import Facts
from django_sked.backends.query import MessageQuery
from django_sked.backends.remembered import Families
from django_sked.backends.settled import STORED, Settled
from django_sked.backends.shelf import Shelf, copied
from django_sked.backends.ticks import Ticks
from django_sked.conf import BackendSettings
from django_sked.criteria import Criteria
from django_sked.dependencies import Decision, Link
from django_sked.models import ScheduledMessage, WorkerProcess, Workflow
from django_sked.outcomes import VERDICT_KEPT, Outcome, Row, finish, is_awaited, lost_alone, rescued, written
from django_sked.scheduling import OnConflict
from django_sked.signals import message_cancelled, message_dead, message_rescheduled, message_scheduled
from django_sked.states import FINISHED, PENDING, Answer, Status
from django_sked.verbs import Anew, Cancel, Redrive, Reschedule, Verb

_Result = TypeVar("_Result")


class MemoryBackend(BaseBackend):
    """One lock around plain dictionaries. What goes in and what comes out are copies."""

    reaches_other_processes: ClassVar[bool] = False
    supports_wakeup: ClassVar[bool] = True
    supports_workflows: ClassVar[bool] = True
    supports_subjects: ClassVar[bool] = True
    supports_cipher: ClassVar[bool] = True

    def __init__(self, settings: BackendSettings) -> None:
        super().__init__(settings)
        self._lock = threading.RLock()
        self._shelf = Shelf(self.options.payload_cipher)
        self._leases: dict[UUID, datetime] = {}
        # Where the workers with a lease are, or were.
        self._places: dict[UUID | None, tuple[str, int]] = {}
        self._ticks = Ticks()
        self._families = Families(self._shelf, self._shelf.write)
        # Workflows of which a message has been deleted since the last prune.
        self._left: set[UUID] = set()
        self._facts = Facts()
        self._wakers: list[Callable[[str | None], bool]] = []

    # Schedule

    def add(
        self,
        messages: Sequence[ScheduledMessage],
        *,
        on_conflict: OnConflict = "error",
        batch_size: int | None = None,
    ) -> list[ScheduledMessage]:
        with self._lock:
            self._shelf.refuse_conflicts(messages, on_conflict)
            is_ignored = self._shelf.is_taken if on_conflict == "ignore" else lambda message: False
            self._families.prepare(messages, is_ignored)
            replaced: list[ScheduledMessage] = []
            stored = [self._add_one(message, on_conflict, replaced) for message in messages]
            replaced += self._followed(self._families.join(messages, stored, self.now))
        self._wake()
        self.tell(message_scheduled, (message for message in stored if message.was_created))
        self.tell(message_cancelled, replaced)
        return stored

    def _end(self, message: ScheduledMessage, fields: dict[str, Any], now: datetime) -> list[ScheduledMessage]:
        """Write this; if the message has ended, its children follow. Returns those that are cancelled by that."""
        self._shelf.write(message, fields)
        if not message.has_children or message.status not in FINISHED:
            return []
        return self._followed(self._families.ended({message.pk: Status(message.status)}, now))

    def _followed(self, decision: Decision) -> list[ScheduledMessage]:
        if decision.released:
            self._wake()
        return self._shelf.copies(decision.cancelled)

    def add_ticks(self, messages: Sequence[ScheduledMessage]) -> list[ScheduledMessage]:
        with self._lock:
            fresh = {message.pk for message in self._ticks.new(messages)}
            wanted = [message for message in messages if message.pk in fresh or message.pk in self._shelf]
            return self.add(wanted, on_conflict="ignore")

    def _add_one(
        self, message: ScheduledMessage, on_conflict: OnConflict, replaced: list[ScheduledMessage]
    ) -> ScheduledMessage:
        holder = self._shelf.get(message.pk) or self._shelf.holder(message.live_key)
        if holder is not None and on_conflict == "ignore":
            return copied(holder)
        if holder is not None:
            replaced += self._take_key(holder, message)
        message.backend_alias = self.alias
        message._state.adding = False
        self._shelf.put(message)
        message.was_created = True
        return message

    def _take_key(self, holder: ScheduledMessage, message: ScheduledMessage) -> list[ScheduledMessage]:
        """Returns what is cancelled by that: a pending holder, and what waited for it."""
        reason = f"replaced by {message.pk}"
        if holder.status not in PENDING:
            self._shelf.write(holder, {"cancel_requested": True, "live_key": None, "reason": reason})
            return []
        now = self.now()
        others = self._end(holder, finish(Status.CANCELLED, now, reason), now)
        return [copied(holder), *others]

    # Read

    def find(self, *, id: UUID | None = None, key: str | None = None) -> ScheduledMessage:
        with self._lock:
            found = self._shelf.get(id) if id is not None else self._shelf.holder(key) or self._shelf.newest(key)
            if found is None:
                raise ScheduledMessage.DoesNotExist(f"There is no message with {f'id {id}' if id else f'key {key!r}'}.")
            return copied(found)

    def search(self, criteria: Criteria) -> MessageQuery:
        return MessageQuery(self, criteria)

    def page(self, criteria: Criteria, start: int, stop: int | None) -> list[ScheduledMessage]:
        with self._lock:
            return [copied(message) for message in self._shelf.ordered(criteria)[start:stop]]

    def parents_of(self, id: UUID) -> list[ScheduledMessage]:
        with self._lock:
            return self._shelf.copies(self._families.parents(id))

    def links_to(self, children: Collection[UUID]) -> list[Link]:
        with self._lock:
            return [link for id in sorted(children) for link in self._families.links_to(id)]

    def count(self, criteria: Criteria, *, most: int | None = None) -> int:
        with self._lock:
            return sum(1 for _ in self._shelf.matching(criteria))

    def keys(self, queue: str | None = None) -> list[str]:
        with self._lock:
            return self._shelf.keys_held(queue)

    def next_due_at(self, queue: str | None = None, *, quick: bool = False) -> datetime | None:
        with self._lock:
            return self._shelf.next_due_at(queue)

    # Change

    def at_once(self, action: Callable[[], _Result]) -> _Result:
        """See `BaseBackend.at_once`: nobody else comes between. Facts are told when others can go on again."""
        with self._facts.gathered(), self._lock:
            return action()

    def after_commit(self, action: Callable[[], None]) -> None:
        self._facts.tell(action)

    def change_one(self, id: UUID, verb: Verb, *, now: datetime | None = None) -> Answer:
        with self._lock:
            self._shelf.refuse_shift([id], verb)
            at = now or self.now()
            answer = self._change(id, verb, at)
            done = [id] if answer is verb.done else []
            others = self._follow(done, verb, at)
            changed = self._shelf.copies(done)
        self._tell_changed(changed + others, verb)
        return answer

    def change(self, ids: Sequence[UUID], verb: Verb, *, now: datetime | None = None) -> int:
        at = now or self.now()
        with self._lock:
            self._shelf.refuse_shift(ids, verb)
            done = [id for id in ids if self._change(id, verb, at) is verb.done]
            others = self._follow(done, verb, at)
            changed = self._shelf.copies(done)
        self._tell_changed(changed + others, verb)
        return len(changed)

    def _change(self, id: UUID, verb: Verb, now: datetime) -> Answer:
        """To this message alone; `_follow` sees to its children."""
        message = self._shelf.get(id)
        refusal = self._shelf.refusal(message, verb)
        if isinstance(verb, Cancel) and message is not None and message.status == Status.CLAIMED:
            self._shelf.write(message, {"cancel_requested": True, "reason": verb.reason})
        if message is None or refusal is not None:
            return Answer.NOT_FOUND if refusal is None else refusal
        self._shelf.write(message, assignments(verb, message, now))
        return verb.done

    def _follow(self, ids: Sequence[UUID], verb: Verb, now: datetime) -> list[ScheduledMessage]:
        """What waited for these, which have all been changed already. Returns what is cancelled by that."""
        parents = {id: Status(self._shelf[id].status) for id in ids if self._shelf[id].has_children}
        if parents and isinstance(verb, Redrive):
            self._families.redriven(parents, now, self._shelf.is_held)
        ended = {id: status for id, status in parents.items() if status in FINISHED}
        return self._followed(self._families.ended(ended, now)) if ended else []

    def _tell_changed(self, changed: Sequence[ScheduledMessage], verb: Verb) -> None:
        if changed:
            self._wake()
        if isinstance(verb, Cancel | Reschedule):
            self.tell(message_cancelled if isinstance(verb, Cancel) else message_rescheduled, changed)

    def seal_anew(self, ids: Sequence[UUID]) -> Anew:
        with self._lock:
            return self._shelf.seal_anew(ids)

    # The worker's lease

    def register(self, worker: WorkerProcess, *, now: datetime | None = None) -> None:
        worker.started_at = now or self.now()
        self.beat(worker, now=now)

    def beat(self, worker: WorkerProcess, *, now: datetime | None = None) -> dict[UUID, int]:
        worker.beat_at = now or self.now()
        worker.lease_until = worker.beat_at + timedelta(seconds=worker.lease)
        with self._lock:
            self._leases[worker.pk] = worker.lease_until
            self._places[worker.pk] = (worker.host, worker.pid)
            held = self.held_by(worker.pk).items()
            return {id: token for id, token in held if self._shelf[id].cancel_requested}

    def retire(self, worker: WorkerProcess) -> None:
        with self._lock:
            self._leases.pop(worker.pk, None)
            self._places.pop(worker.pk, None)

    # Claim and settle

    def queues(self, *, known: Collection[str] = ()) -> list[str]:
        with self._lock:
            return sorted({message.queue for message in self._shelf.with_status(Status.SCHEDULED)})

    def claim(
        self,
        worker: UUID,
        queue: str,
        limit: int,
        *,
        ahead: float = 0.0,
        quick: bool = False,
        now: datetime | None = None,
    ) -> list[ScheduledMessage]:
        at = now or self.now()
        until = at + timedelta(seconds=ahead)
        with self._lock:
            return [self._hold(message, worker, at) for message in self._shelf.pop_due(queue, until, limit)]

    def has_suspects(self, queues: Collection[str], *, now: datetime | None = None) -> bool:
        with self._lock:
            return bool(self._shelf.due_suspects(queues, now or self.now()))

    def claim_suspect(
        self, worker: UUID, queues: Collection[str], *, now: datetime | None = None
    ) -> ScheduledMessage | None:
        at = now or self.now()
        with self._lock:
            due = sorted(self._shelf.due_suspects(queues, at), key=lambda m: (-m.priority, m.next_at, m.pk))
            return self._hold(due[0], worker, at) if due else None

    def _hold(self, message: ScheduledMessage, worker: UUID, at: datetime) -> ScheduledMessage:
        claimed = {"status": Status.CLAIMED, "claimed_by": worker, "claimed_at": at, "token": message.token + 1}
        self._shelf.write(message, claimed)
        return copied(message)

    def settle(self, outcomes: Sequence[Outcome], *, now: datetime | None = None) -> Settled:
        settled = Settled()
        at = now or self.now()
        others: list[ScheduledMessage] = []
        with self._lock:
            for outcome in outcomes:
                message = self._shelf.get(outcome.id)
                if message is None or message.token != outcome.token:
                    settled.lost.append(outcome)
                    continue
                if message.status != Status.CLAIMED:
                    settled.repeated[outcome.id] = {name: getattr(message, name) for name in STORED}
                    continue
                row = Row(**{name: message_backends.opened(getattr(message, name)) for name in Row.__slots__})
                settled.written[outcome.id] = fields = written(outcome, row, at)
                others += self._end(message, fields, at)
                self._delete_at_once([message])
        self.tell(message_cancelled, others)
        return settled

    def set_progress(self, progress: Mapping[UUID, tuple[int, int]]) -> list[UUID]:
        with self._lock:
            return self._shelf.set_progress(progress)

    def held_by(self, worker: UUID) -> dict[UUID, int]:
        with self._lock:
            return self._shelf.held_by(worker)

    # Sweep

    def _lapsed(self, at: datetime) -> list[ScheduledMessage]:
        leased = {worker for worker, until in self._leases.items() if until >= at}
        return [m for m in self._shelf.with_status(Status.CLAIMED) if m.claimed_by not in leased]

    def has_lapsed(self, *, now: datetime | None = None) -> bool:
        with self._lock:
            return bool(self._lapsed(now or self.now()))

    def rescue(self, *, limit: int = 500, now: datetime | None = None) -> list[UUID]:
        at = now or self.now()
        with self._lock:
            lapsed = self._lapsed(at)[:limit]
            others = [child for message in lapsed for child in self._rescue(message, at)]
            ended = [copied(message) for message in lapsed if message.status in FINISHED]
            self._delete_at_once(ended)
        self.tell(message_cancelled, others)
        for status, fact in ((Status.CANCELLED, message_cancelled), (Status.DEAD, message_dead)):
            self.tell(fact, [message for message in ended if message.status == status])
        return [message.pk for message in lapsed]

    def _rescue(self, message: ScheduledMessage, at: datetime) -> list[ScheduledMessage]:
        state = {name: getattr(message, name) for name in ("cancel_requested", "suspect", "crashes")}
        fields = rescued(**state, now=at) | {"token": message.token + 1}
        if fields["status"] == Status.DEAD:
            known = {name: getattr(message, name) for name in ("attempt", "errors", "delivered_to")}
            place = self._places.get(message.claimed_by)
            fields |= lost_alone(**known, worker=message.claimed_by, place=place, now=at)
        return self._end(message, fields, at)

    def _delete_at_once(self, ended: Iterable[ScheduledMessage]) -> None:
        """A retention of 0: what has just ended in such a status is not kept, unless it is needed by others."""
        for m in ended:
            needed = m.has_children or m.workflow_id or is_awaited(m.status, m.recurrence_id, m.verdict)
            if m.status in FINISHED and not needed and self.options.retention[Status(m.status)] == timedelta(0):
                self._delete([m.pk])

    def _delete(self, ids: Iterable[UUID]) -> None:
        for id in ids:
            if (workflow := self._shelf[id].workflow_id) is not None:
                self._left.add(workflow)
            self._shelf.remove(id)
            self._families.forget(id)

    def expire(self, *, limit: int = 500, now: datetime | None = None) -> list[ScheduledMessage]:
        at = now or self.now()
        with self._lock:
            ended = self._shelf.expired(at)[:limit]
            others = [child for m in ended for child in self._end(m, finish(Status.EXPIRED, at), at)]
            found = [copied(message) for message in ended]
        self.tell(message_cancelled, others)
        return found

    def prune(self, *, limit: int = 1000, now: datetime | None = None) -> int:
        at = now or self.now()
        with self._lock:
            old = [message.pk for message in self._shelf.values() if self._is_old(message, at)][:limit]
            self._delete(old)
            left, self._left = self._left, set()
            empty = left - {message.workflow_id for message in self._shelf.values()} if left else left
        if empty:
            Workflow.objects.using(router.db_for_write(Workflow)).filter(pk__in=empty, backend=self.alias).delete()
        return len(old)

    def forget(self, ids: Sequence[UUID]) -> int:
        with self._lock:
            finished = [id for id in ids if id in self._shelf and self._shelf[id].status in FINISHED]
            self._delete(finished)
            return len(finished)

    def _is_old(self, message: ScheduledMessage, at: datetime) -> bool:
        """Past its retention, waited for by nobody, and no part of a workflow that is not past it as a whole."""
        if not self._is_past(message, at) or self._families.is_waited_for(message.pk):
            return False
        if (workflow := message.workflow_id) is None:
            return True
        return all(self._is_past(other, at) for other in self._shelf.values() if other.workflow_id == workflow)

    def _is_past(self, message: ScheduledMessage, at: datetime) -> bool:
        kept = self.options.retention.get(Status(message.status)) if message.status in FINISHED else None
        awaited = is_awaited(message.status, message.recurrence_id, message.verdict)
        kept = max(kept, VERDICT_KEPT) if kept is not None and awaited else kept
        return kept is not None and message.finished_at is not None and message.finished_at < at - kept

    # Wake-ups

    def listen(self, wake: Callable[[str | None], bool]) -> Callable[[], None]:
        self._wakers.append(wake)
        return lambda: self._wakers.remove(wake)

    def _wake(self) -> None:
        for wake in list(self._wakers):
            wake(None)
