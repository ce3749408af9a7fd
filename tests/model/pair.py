"""A store and the book side by side: each call goes to both, and every answer is compared.

The store is told the time, so nothing sleeps.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from django.conf import settings
from django.db import models, transaction

from django_sked import clock, scheduling
from django_sked.backends.base import BaseBackend
from django_sked.criteria import Criteria
from django_sked.exceptions import IdInUse, InvalidMessage, KeyInUse
from django_sked.models import ScheduledMessage, WorkerProcess
from django_sked.outcomes import Outcome
from django_sked.scheduling import OnConflict
from django_sked.states import Status
from django_sked.verbs import Verb
from tests.model import agreement as a
from tests.model.agreement import check
from tests.model.book import Book, Entry
from tests.model.moves import LEASE, T0, WORKERS
from tests.servers import empty

Retention = Mapping[Status, timedelta | None]
T = TypeVar("T")


class Pair:
    """One store, its book, and the time that both are told."""

    def __init__(self, store: BaseBackend) -> None:
        self.store = store
        self.book = Book({str(status): kept for status, kept in store.options.retention.items()})
        self.now = T0
        self.processes = {id: _process(id) for id in WORKERS}
        self._looks = 0

    def ask(self, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a method of the store, at our time."""
        with clock.pretend(self.now):
            return call(*args, **kwargs)

    # Schedule

    @contextmanager
    def transaction(self, *, roll_back: bool) -> Iterator[None]:
        """The caller's transaction: what is done in it is done when it commits, or not at all."""
        before = copy.deepcopy(self.book)
        try:
            with transaction.atomic(using=self.store.database):
                yield
                if roll_back:
                    raise _RolledBack
        except _RolledBack:
            self.book = before

    def add(
        self, entries: Sequence[Entry], own: Sequence[bool], conflict: OnConflict, *, batch_size: int | None = None
    ) -> None:
        """Schedule messages; `own` says of each whether the caller chose its id."""
        messages = [self._build(entry, is_own) for entry, is_own in zip(entries, own, strict=True)]
        refusals = self.book.refusals(entries, conflict)
        try:
            stored = self.ask(self.store.add, messages, on_conflict=conflict, batch_size=batch_size)
        except (IdInUse, KeyInUse, InvalidMessage) as error:
            check(a.ONE_KEY, type(error).__name__ in refusals, f"{error!r}, expected one of {refusals or 'none'}")
            return
        check(a.ONE_KEY, not refusals, f"stored, but expected one of {refusals}")
        for message, (known, created) in zip(stored, self.book.add(entries, conflict, self.now), strict=True):
            check(a.ONE_KEY, message.pk in known, f"add() returned {message.pk}, not one of {known}")
            check(a.ANSWERS, message.was_created is created, f"was_created of {message.pk} is {message.was_created}")

    def _build(self, entry: Entry, is_own: bool) -> ScheduledMessage:
        message = scheduling.build(
            ScheduledMessage,
            self.store.settings,
            self.now,
            "model.event",
            entry.payload,
            at=entry.due_at,
            expires_at=entry.expires_at,
            queue=entry.queue,
            priority=entry.priority,
            key=entry.key,
            id=entry.id,
        )
        message.has_own_id = is_own
        return message

    # Claim

    def claim(
        self,
        worker: UUID,
        queue: str,
        limit: int,
        *,
        ahead: float = 0.0,
        quick: bool = False,
        may_overlook: bool = False,
    ) -> list[tuple[UUID, int]]:
        """Claim, and return what is held now: id and token."""
        until = self.now + timedelta(seconds=ahead)
        due = self.book.due([queue], until)
        claimed = self.ask(self.store.claim, worker, queue, limit, ahead=ahead, quick=quick, now=self.now)
        for message in claimed:
            self._check_claimed(message, worker, [queue], until)
        ids = [message.pk for message in claimed]
        check(a.ALL_DUE, len(ids) <= limit, f"{len(ids)} claimed of at most {limit}")
        in_order = [entry.id for entry in due if entry.id in ids]
        check(a.ORDER, ids == in_order, f"{ids}, not {in_order}")
        first = [entry.id for entry in due[:limit]]
        check(a.ALL_DUE, may_overlook or len(ids) == len(first), f"{ids}, not {first}")
        check(a.ORDER, may_overlook or ids == first, f"{ids}, not {first}")
        return [(message.pk, message.token) for message in claimed]

    def look_back(self, queue: str) -> None:
        """Tell of each message that is due; the next claim overlooks none."""
        for entry in self.book.due([queue], self.now):
            self.store.look_back(entry.next_at, queue=queue, priority=entry.priority)

    def claim_suspect(self, worker: UUID, queues: Sequence[str]) -> list[tuple[UUID, int]]:
        first = [entry.id for entry in self.book.due(queues, self.now, suspect=True)][:1]
        message = self.ask(self.store.claim_suspect, worker, queues, now=self.now)
        claimed = [] if message is None else [message]
        for message in claimed:
            self._check_claimed(message, worker, queues, self.now, suspect=True)
        ids = [message.pk for message in claimed]
        check(a.SUSPECTS, len(ids) == len(first), f"{ids}, not {first}")
        check(a.ORDER, ids == first, f"{ids}, not {first}")
        return [(message.pk, message.token) for message in claimed]

    def _check_claimed(
        self, message: ScheduledMessage, worker: UUID, queues: Sequence[str], until: datetime, *, suspect: bool = False
    ) -> None:
        entry = self.book.entries.get(message.pk)
        if entry is None:
            raise a.Violation(a.UNEXPECTED, f"a claim returned {message.pk}")
        check(a.CANCELLED, entry.status != "cancelled", f"a claim returned {entry.id}, which is cancelled")
        check(a.ONE_HOLDER, entry.status != "claimed", f"a claim returned {entry.id}, which is claimed")
        check(a.ONLY_SCHEDULED, entry.status == "scheduled", f"a claim returned {entry.id}, which is {entry.status}")
        check(a.EARLY, entry.next_at <= until, f"{entry.id} claimed {entry.next_at - until} early")
        check(a.SUSPECTS, entry.suspect == suspect, f"suspect of {entry.id} is {entry.suspect}")
        check(a.ONLY_SCHEDULED, entry.queue in queues, f"{entry.id} of {entry.queue} claimed from {queues}")
        self.book.claim(entry, worker, self.now)
        check(a.TOKENS, message.token == entry.token, f"token {message.token}, not {entry.token}")
        a.agree_on_one(entry, message)

    def unknown(self, worker: UUID, hands: Sequence[tuple[UUID, int]]) -> list[tuple[UUID, int]]:
        """What the store says this worker holds, and it has no reply of."""
        held = self.ask(self.store.held_by, worker)
        return [hand for hand in held.items() if hand not in hands]

    # Settle

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        settled = self.ask(self.store.settle, outcomes, now=self.now)
        lost: list[Outcome] = []
        passed: dict[str, dict[UUID, Entry]] = {"written": {}, "repeated": {}}
        for outcome in outcomes:
            fence = self.book.fence(outcome)
            if fence == "lost":
                lost.append(outcome)
            else:
                known = self.book.settle(outcome, self.now) if fence == "written" else self.book.entries[outcome.id]
                passed[fence][outcome.id] = known
        check(a.ANSWERS, settled.busy == [], f"busy: {settled.busy}")
        check(a.FENCE, _same(settled.lost, lost), f"lost {settled.lost}, not {lost}")
        for told, entries in ((settled.written, passed["written"]), (settled.repeated, passed["repeated"])):
            check(a.FENCE, told.keys() == entries.keys(), f"{[*told]}, not {[*entries]}")
            for id, entry in entries.items():
                self._check_told(entry, told[id])

    def settle_now(self, outcome: Outcome, *, roll_back: bool) -> None:
        """In one transaction with what a receiver writes, which may be undone."""
        try:
            with self.store.receiver_transaction(LEASE):
                told = self.ask(self.store.settle_now, outcome, now=self.now)
                if roll_back:
                    raise _RolledBack
        except _RolledBack:
            return
        passes = self.book.fence(outcome) == "written"
        check(a.FENCE, (told is not None) == passes, f"settle_now() wrote {told}, passes: {passes}")
        if told is not None:
            self._check_told(self.book.settle(outcome, self.now), told)

    def _check_told(self, entry: Entry, told: Mapping[str, Any]) -> None:
        """What a settle says of a message; it may be finished, and then not all of it matters."""
        for name, value in told.items():
            if hasattr(entry, name) and not a.is_moot(entry, name):
                known = getattr(entry, name)
                check(a.ANSWERS, known == value, f"{name} of {entry.id} said to be {value!r}, not {known!r}")

    # Leases and sweeps

    def register(self, worker: UUID) -> None:
        self.ask(self.store.register, self.processes[worker], now=self.now)
        self.book.leases[worker] = self.now + timedelta(seconds=LEASE)

    def beat(self, worker: UUID) -> None:
        asked = self.ask(self.store.beat, self.processes[worker], now=self.now)
        self.book.leases[worker] = self.now + timedelta(seconds=LEASE)
        entries = {id: self.book.entries[id] for id in self.book.held_by(worker)}
        known = {id: entry.token for id, entry in entries.items() if entry.cancel_requested}
        check(a.CANCELLED, asked == known, f"asked to stop {asked}, not {known}")

    def retire(self, worker: UUID) -> None:
        self.ask(self.store.retire, self.processes[worker])
        self.book.leases.pop(worker, None)
        self.processes[worker] = _process(worker)

    def rescue(self, limit: int) -> None:
        lapsed = {entry.id for entry in self.book.lapsed(self.now)}
        rescued = self.ask(self.store.rescue, limit=limit, now=self.now)
        check(a.LEASES, set(rescued) <= lapsed, f"rescued {rescued}, lapsed were {lapsed}")
        check(a.LEASES, len(rescued) == min(limit, len(lapsed)), f"rescued {len(rescued)} of {len(lapsed)}")
        for id in rescued:
            self.book.rescue(self.book.entries[id], self.now)

    def expire(self, limit: int) -> None:
        passed = {entry.id: entry.expires_at for entry in self.book.past_expiry(self.now)}
        ended = {message.pk: message for message in self.ask(self.store.expire, limit=limit, now=self.now)}
        check(a.EXPIRY, ended.keys() <= passed.keys(), f"expired {ended.keys()} of {passed.keys()}")
        longest = sorted(at for at in passed.values() if at is not None)[:limit]
        check(a.EXPIRY, [passed[id] for id in ended] == longest, f"expired {[*ended]} of {passed}")
        for id, message in ended.items():
            self.book.entries[id].finish("expired", self.now, "")
            a.agree_on_one(self.book.entries[id], message, but=("reason",))

    def prune(self, limit: int) -> None:
        old = {entry.id for entry in self.book.past_retention(self.now)}
        count = self.ask(self.store.prune, limit=limit, now=self.now)
        gone = self.book.entries.keys() - self._stored().keys()
        check(a.RETENTION, gone <= old, f"deleted {gone - old}")
        check(a.RETENTION, count == len(gone) == min(limit, len(old)), f"{count}: {gone} of {old}")
        self.book.prune(gone)

    # Change

    def change(self, id: UUID, verb: Verb) -> None:
        if self.book.refuses([id], verb):
            return self._is_refused(self.store.change_one, id, verb)
        answer = self.ask(self.store.change_one, id, verb, now=self.now)
        known = self.book.change(id, verb, self.now)
        check(a.ANSWERS, answer == known, f"{verb.step} of {id} answered {answer.value!r}, not {known!r}")

    def change_many(self, ids: Sequence[UUID], verb: Verb) -> None:
        self.store.begin_change()
        if self.book.refuses(ids, verb):
            return self._is_refused(self.store.change, ids, verb)
        changed = self.ask(self.store.change, ids, verb, now=self.now)
        known = [self.book.change(id, verb, self.now) for id in ids]
        count = sum(answer == verb.done for answer in known)
        check(a.ANSWERS, changed == count, f"{verb.step} changed {changed}, not {count}: {known}")

    def _is_refused(self, call: Callable[..., object], what: object, verb: Verb) -> None:
        with contextlib.suppress(InvalidMessage):
            answer = self.ask(call, what, verb, now=self.now)
            check(a.EXPIRY, False, f"{verb} of {what} answered {answer!r}, though it would expire before it is due")

    # Read

    def agree(self) -> None:
        """The store holds what the book says, and shows it: to look at all of it each time is too slow in databases."""
        a.agree(self.book, self._stored())
        self._looks += 1
        views = a.VIEWS_AGREE if self.store.database is None else [a.VIEWS_AGREE[self._looks % len(a.VIEWS_AGREE)]]
        for view in views:
            self.ask(view, self.book, self.store, self.now)

    def _stored(self) -> dict[UUID, ScheduledMessage]:
        return {message.pk: message for message in self.ask(self.store.page, Criteria(), 0, None)}


class _RolledBack(Exception):
    pass


def _process(id: UUID) -> WorkerProcess:
    return WorkerProcess(id=id, backend="model", host="here", pid=1, version="1", lease=LEASE)


def _same(one: Sequence[Outcome], other: Sequence[Outcome]) -> bool:
    return sorted(map(repr, one)) == sorted(map(repr, other))


def emptied(store: BaseBackend, retention: Retention) -> BaseBackend:
    """A new store of the same kind and settings, without messages, that keeps finished ones for so long."""
    options = replace(store.options, retention=retention)
    made = type(store)(replace(store.settings, options=options))
    if made.database is not None:
        for model in (ScheduledMessage, WorkerProcess):
            models.QuerySet[Any](model, using=made.database).all().delete()
    elif server := settings.SKED_TEST_STORES.get(made.alias):
        empty(server)
    return made
