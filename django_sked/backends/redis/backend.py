"""Messages in Redis or Valkey: one server, a master that Sentinels name, or a cluster."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import ClassVar, cast
from uuid import UUID

from django.core.checks import CheckMessage

from django_sked.backends.backlog import Backlog
from django_sked.backends.base import BaseBackend, Settled
from django_sked.backends.query import MessageQuery
from django_sked.backends.redis import adding, changing, checking, committing, connecting, errors, staging
from django_sked.backends.redis.claiming import Claims
from django_sked.backends.redis.connections import Connections
from django_sked.backends.redis.encoding import given_time, instant, micros, uuid
from django_sked.backends.redis.families import Families
from django_sked.backends.redis.keys import Keys
from django_sked.backends.redis.records import Records
from django_sked.backends.redis.roster import Roster
from django_sked.backends.redis.scripts import Scripts
from django_sked.backends.redis.searching import Searches
from django_sked.backends.redis.settling import Settles
from django_sked.backends.redis.sweeping import Sweeps
from django_sked.backends.redis.waking import News, Wake
from django_sked.backends.ticks import MOST_TICKS
from django_sked.clock import StoreClock
from django_sked.conf import BackendSettings, RedisOptions
from django_sked.criteria import Criteria
from django_sked.dependencies import Link, refuse_unknown
from django_sked.exceptions import InvalidBackend
from django_sked.models import ScheduledMessage, WorkerProcess
from django_sked.outcomes import Outcome
from django_sked.scheduling import OnConflict
from django_sked.series import Series
from django_sked.signals import message_cancelled, message_dead, message_rescheduled, message_scheduled
from django_sked.states import Answer, Status
from django_sked.verbs import Anew, Cancel, Reschedule, Verb

#: Ids that a look at what a worker holds reads at once.
PAGE = 500
_NOT_KEPT = timedelta(0)


class RedisBackend(BaseBackend):
    """Every transition is one script, on the server's own clock. Writes inside `atomic()` follow the commit."""

    options_class = RedisOptions
    supports_wakeup: ClassVar[bool] = True
    supports_cipher: ClassVar[bool] = True
    supports_workflows: ClassVar[bool] = True

    def __init__(self, settings: BackendSettings) -> None:
        super().__init__(settings)
        try:
            self.location = connecting.location(settings.location)
        except InvalidBackend as error:
            raise InvalidBackend(f"SKED[{settings.alias!r}]['LOCATION'] {error}.") from None
        self.redis_options = cast(RedisOptions, self.options)
        connecting.refuse(settings.alias, self.location, self.redis_options)
        self.keys_of_store = Keys.of(settings.key_prefix, settings.alias)
        retention = self.options.retention
        self.connections = Connections(self.location, self.redis_options, self.keys_of_store.declared[0])
        self.scripts = Scripts(
            self.connections, self.keys_of_store, self.redis_options.replicas, self.redis_options.replica_timeout
        )
        self._clock = StoreClock(self.read_now)
        self._families = Families(self.alias, self.scripts, self._tell_followed)
        self._records = Records(self.alias, self.scripts, self._families, self.options.payload_cipher)
        self._claims = Claims(self.alias, self.scripts, self._records)
        self._settles = Settles(self.scripts, self._records, retention)
        self._roster = Roster(self.alias, lambda ids: self._families.missing(ids, "workflow:"))
        self._sweeps = Sweeps(self.scripts, self._records, retention, self._forget_workflows)
        self._searches = Searches(self.scripts, self._records)
        self._news = News(self.connections.client, self.keys_of_store.news, self.alias, self.options.poll_interval)

    def check(self) -> list[CheckMessage]:
        return checking.check(self)

    # Time

    def now(self) -> datetime:
        return self._clock.now()

    def read_now(self) -> datetime:
        return instant(self.scripts.call("read")[0])

    def is_postponing(self) -> bool:
        return committing.is_open(self.redis_options.transaction_database)

    def postpone(self, step: str, action: Callable[[], object]) -> bool:
        if not self.is_postponing():
            return False
        self._postpone(step, action)
        return True

    def _postpone(self, step: str, action: Callable[[], object], adds: Sequence[UUID] = ()) -> None:
        committing.after_commit(self.redis_options.transaction_database, self.alias, step, action, adds)

    # Schedule

    def add(
        self,
        messages: Sequence[ScheduledMessage],
        *,
        on_conflict: OnConflict = "error",
        batch_size: int | None = None,
    ) -> list[ScheduledMessage]:
        """See `BaseBackend.add`. One script stores all of them, at most 10,000, so `batch_size` has no say."""
        adding.refuse_many(messages)
        adding.refuse_late(messages)
        adding.refuse_twins(messages, on_conflict)
        adding.prepare(messages)
        if not messages:
            return []
        if self.is_postponing():
            self._refuse_unknown(messages)
            # As they are now: the caller may go on with the instances.
            taken, given = list(map(adding.taken, messages)), list(messages)
            self._postpone("schedule", lambda: self._add_taken(given, taken, on_conflict), [each.pk for each in given])
            for message in given:
                adding.stored(message, self.alias)
            return given
        return self._add(messages, on_conflict)

    def _add_taken(self, given: list[ScheduledMessage], taken: list[ScheduledMessage], on_conflict: OnConflict) -> None:
        """After the commit, when the caller's instances are told whether it has created them."""
        try:
            self._add(taken, on_conflict)
        finally:
            for message, stored in zip(given, taken, strict=True):
                message.was_created = stored.was_created

    @property
    def takes_series(self) -> bool:
        seal = self.options.payload_cipher
        return (seal is None or not seal.path) and not self.is_postponing()

    def add_series(self, series: Series) -> list[ScheduledMessage] | None:
        first = series.first
        if len(series.items) > adding.MOST:
            return None
        adding.refuse_late([first])
        adding.stored(first, self.alias)  # as each of them will be
        news = self._news.of([first], self.now())
        stored = staging.add_series(self.scripts, series, self.options.payload_cipher, news)
        if stored is not None:
            for message in stored:
                message._state.adding = False
            self._news.tell_here(stored[:1])
            self.tell(message_scheduled, stored)
        return stored

    def _refuse_unknown(self, messages: Sequence[ScheduledMessage]) -> None:
        """What is neither stored nor will be by this transaction: at the commit nobody could be told any more."""
        if named := {parent for message in messages for parent in message.waits_for}:
            named -= {each.pk for each in messages}
            named.difference_update(committing.added(self.redis_options.transaction_database, self.alias))
            refuse_unknown(self._families.missing(named))

    def add_ticks(self, messages: Sequence[ScheduledMessage]) -> list[ScheduledMessage]:
        """See `BaseBackend.add_ticks`. Their ticks are noted by the call that stores them."""
        if not messages:
            return []
        if self.is_postponing():
            taken = list(map(adding.taken, messages))
            self.postpone("promote", lambda: self._add(taken, "ignore", MOST_TICKS))
            for message in messages:
                adding.stored(message, self.alias)
            return list(messages)
        return self._add(messages, "ignore", MOST_TICKS)

    def _add(
        self, messages: Sequence[ScheduledMessage], on_conflict: OnConflict, ticks: int = 0
    ) -> list[ScheduledMessage]:
        now = self.now()
        news = self._news.of(messages, now)
        answers, replaced, followed = adding.add(
            self.scripts,
            self._records,
            messages,
            on_conflict,
            now=micros(now),
            news=news,
            ticks=ticks,
            is_known=not ticks and _NOT_KEPT in self.options.retention.values(),
        )
        ours = {id(message) for message in messages}
        fresh = [answer for answer in answers if id(answer) in ours]
        for message in fresh:
            adding.stored(message, self.alias)
        self._news.tell_here(fresh)
        self.tell(message_scheduled, fresh)
        if replaced and message_cancelled.has_listeners():
            self.tell(message_cancelled, self._read(replaced))
        if followed:
            self._families.followed(followed, None)
        return answers

    def _tell_followed(self, queues: Sequence[str], cancelled: Sequence[UUID]) -> None:
        self._news.wake_here(queues)
        if cancelled and message_cancelled.has_listeners():
            self.tell(message_cancelled, self._read(cancelled))

    def _read(self, ids: Sequence[UUID]) -> list[ScheduledMessage]:
        records = self._records.read(ids)[1].values()
        return [record.message for record in records if record.message is not None]

    # Read

    def find(self, *, id: UUID | None = None, key: str | None = None) -> ScheduledMessage:
        return self._searches.find(id, key)

    def find_many(self, ids: Collection[UUID]) -> dict[UUID, ScheduledMessage]:
        records = self._records.read(list(ids))[1].items()
        return {id: record.message for id, record in records if record.is_readable and record.message is not None}

    def search(self, criteria: Criteria) -> MessageQuery:
        return MessageQuery(self, criteria)

    def page(self, criteria: Criteria, start: int, stop: int | None) -> list[ScheduledMessage]:
        return self._searches.page(criteria, start, stop)

    def ids(self, criteria: Criteria, start: int, stop: int | None) -> Iterator[UUID]:
        """See `BaseBackend.ids`. Of a workflow, children before their parents: who changes them in this order releases
        nobody by that."""
        found = self._searches.ids(criteria, start, stop)
        return found if criteria.workflow is None else iter(self._families.children_first(list(found)))

    def parents_of(self, id: UUID) -> list[ScheduledMessage]:
        return self._read([link.parent for link in self._families.links_to([id])])

    def links_to(self, children: Collection[UUID]) -> list[Link]:
        return list(self._families.links_to(sorted(children)))

    def count(self, criteria: Criteria, *, most: int | None = None) -> int:
        return self._searches.count(criteria, most)

    def keys(self, queue: str | None = None) -> list[str]:
        return self._searches.keys(queue)

    def kinds(self, most: int | None) -> tuple[Counter[tuple[str, int]], bool]:
        return self._searches.kinds(self.queues(), most)

    def backlog(self, *, now: datetime | None = None) -> dict[str, Backlog]:
        return self._searches.backlog(self.queues(), now or self.now())

    def next_due_at(self, queue: str | None = None, *, quick: bool = False) -> datetime | None:
        names = self.queues() if queue is None else [queue]
        times = [time for name in names if (time := self.scripts.call("queues", name)) is not None]
        return min(map(instant, times), default=None)

    # Change

    def change_one(self, id: UUID, verb: Verb, *, now: datetime | None = None) -> Answer:
        changing.refuse_late(verb)
        if self.postpone(verb.step, lambda: self._change_one(id, verb, now)):
            return Answer.ON_COMMIT
        return self._change_one(id, verb, now)

    def _change_one(self, id: UUID, verb: Verb, now: datetime | None) -> Answer:
        changed = self._change([id], verb, now)
        return verb.done if changed.messages else changed.refusals.get(id, Answer.TOO_LATE)

    def change(self, ids: Sequence[UUID], verb: Verb, *, now: datetime | None = None) -> int:
        """See `BaseBackend.change`. Inside a transaction it returns on how many it will be tried."""
        changing.refuse_late(verb)
        if self.postpone(verb.step, lambda: self._change(ids, verb, now)):
            return len(ids)
        return len(self._change(ids, verb, now).messages)

    def _change(self, ids: Sequence[UUID], verb: Verb, now: datetime | None) -> changing.Changed:
        at = now or self.now()
        changed = changing.change(self._records, ids, verb, now, lambda messages: self._news.of(messages, at))
        self._news.tell_here(changed.messages)
        if isinstance(verb, Cancel | Reschedule):
            self.tell(message_cancelled if isinstance(verb, Cancel) else message_rescheduled, changed.messages)
        return changed

    def seal_anew(self, ids: Sequence[UUID]) -> Anew:
        return changing.seal_anew(self._records, ids)

    # The worker's lease

    def register(self, worker: WorkerProcess, *, now: datetime | None = None) -> None:
        self._renew(worker, now)
        worker.started_at = worker.beat_at
        self._enter(worker, now)

    def beat(self, worker: WorkerProcess, *, now: datetime | None = None) -> dict[UUID, int]:
        asked = self._renew(worker, now)
        started_at: datetime | None = worker.started_at
        worker.started_at = started_at or worker.beat_at
        self._enter(worker, now)
        return asked

    def _renew(self, worker: WorkerProcess, now: datetime | None) -> dict[UUID, int]:
        lease = round(worker.lease * 1_000_000)
        place = json.dumps([worker.host, worker.pid])
        at, stopping = self.scripts.call("beat", worker.pk.hex, lease, place, now=given_time(now))
        worker.beat_at = instant(at)
        worker.lease_until = worker.beat_at + timedelta(microseconds=lease)
        return {uuid(id): int(token) for id, token in zip(stopping[::2], stopping[1::2], strict=True)}

    def _enter(self, worker: WorkerProcess, now: datetime | None) -> None:
        # At a time that a test has named there is no worker that people could look for.
        if now is None:
            self._roster.enter(worker)

    def retire(self, worker: WorkerProcess) -> None:
        self.scripts.call("beat", worker.pk.hex, 0, "")
        self._roster.leave(worker)

    # Claim and settle

    def queues(self, *, known: Collection[str] = ()) -> list[str]:
        return sorted(self.scripts.call("queues", ""))

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
        found = self._claims.claim(worker, queue, limit, ahead, given_time(now))
        if found:
            self._news.found()
        return found

    def has_suspects(self, queues: Collection[str], *, now: datetime | None = None) -> bool:
        return self._claims.has_suspects(queues, given_time(now))

    def claim_suspect(
        self, worker: UUID, queues: Collection[str], *, now: datetime | None = None
    ) -> ScheduledMessage | None:
        return self._claims.claim_suspect(worker, queues, given_time(now))

    def settle(self, outcomes: Sequence[Outcome], *, now: datetime | None = None) -> Settled:
        return self._settles.settle(outcomes, now)

    def set_progress(self, progress: Mapping[UUID, tuple[int, int]]) -> list[UUID]:
        return self._settles.set_progress(progress)

    def held_by(self, worker: UUID) -> dict[UUID, int]:
        held: dict[UUID, int] = {}
        for start in range(0, 1 << 31, PAGE):
            flat = self.scripts.call("held", worker.hex, start, start + PAGE - 1)
            pairs = zip(flat[::2], flat[1::2], strict=True)
            held.update((uuid(id), int(token)) for id, token in pairs if token is not None)
            if len(flat) < 2 * PAGE:
                break
        return held

    # Sweep

    def has_lapsed(self, *, now: datetime | None = None) -> bool:
        return self._sweeps.has_lapsed(now)

    def rescue(self, *, limit: int = 500, now: datetime | None = None) -> list[UUID]:
        rescued, ended = self._sweeps.rescue(limit, now)
        for status, fact in ((Status.CANCELLED, message_cancelled), (Status.DEAD, message_dead)):
            self.tell(fact, [message for message in ended if message.status == status])
        return rescued

    def expire(self, *, limit: int = 500, now: datetime | None = None) -> list[ScheduledMessage]:
        return self._sweeps.expire(limit, now)

    def unblock(self, *, now: datetime | None = None) -> None:
        self._families.sweep(now)

    def prune(self, *, limit: int = 1000, now: datetime | None = None) -> int:
        if now is None:  # as for `_enter`
            self._roster.forget_empty(self.now())
        return self._sweeps.prune(limit, now)

    def forget(self, ids: Sequence[UUID]) -> int:
        self._families.finish()  # for those who still wait to hear how these have ended
        return self._sweeps.forget(ids)

    def _forget_workflows(self, ids: Sequence[UUID]) -> None:
        self._roster.forget(ids, lambda: self.scripts.call("gone", *(id.hex for id in ids)))

    # Wake-ups

    def is_expected(self, error: BaseException) -> bool:
        return errors.is_expected(error)

    def interrupt_thread(self, ident: int) -> bool:
        return self.connections.interrupt(ident)

    def listen(self, wake: Wake) -> Callable[[], None]:
        return self._news.listen(wake)
