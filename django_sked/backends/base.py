"""The contract of a backend, in the order of a message's life.

`tests/contract` runs against every backend. Each call that looks at a clock takes `now=None`, the store's own time;
only tests and `django_sked.testing` pass another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from uuid import UUID

from django.core.checks import CheckMessage
from django.core.exceptions import ObjectDoesNotExist
from django.dispatch import Signal

from django_sked import clock, signals
from django_sked.backends import backlog as counting
from django_sked.backends.backlog import Backlog, Count
from django_sked.backends.settled import Settled as Settled  # for backends of others: part of the contract
from django_sked.conf import BackendSettings, Options
from django_sked.criteria import Criteria
from django_sked.dependencies import Link
from django_sked.outcomes import Outcome
from django_sked.redaction import Redaction
from django_sked.scheduling import OnConflict
from django_sked.series import Series
from django_sked.states import PENDING, Answer
from django_sked.verbs import Anew, Verb

if TYPE_CHECKING:
    from django_sked.backends.query import MessageQuery
    from django_sked.models import ScheduledMessage, WorkerProcess
    from django_sked.queries import ScheduledMessageQuerySet

_Result = TypeVar("_Result")


class BaseBackend(ABC):
    """Where messages are stored until they are due. One object per alias and process, used by many threads."""

    options_class: ClassVar[type[Options]] = Options

    #: Is a write inside `atomic()` undone when that transaction rolls back?
    joins_transactions: ClassVar[bool] = False
    #: Do workers in other processes see its messages?
    reaches_other_processes: ClassVar[bool] = True
    #: Can what a receiver writes and what becomes of its message be one transaction?
    supports_atomic_receivers: ClassVar[bool] = False
    #: Can a message wait for others?
    supports_workflows: ClassVar[bool] = False
    #: Can the messages about an object be searched for?
    supports_subjects: ClassVar[bool] = False
    #: Does it store encrypted what `payload_cipher` is for?
    supports_cipher: ClassVar[bool] = False
    #: Can it tell an idle worker, in whatever process, that a message arrived?
    supports_wakeup: ClassVar[bool] = False

    @property
    def has_one_writer(self) -> bool:
        """Does a transaction that writes keep everybody else from writing until it ends?"""
        return False

    def __init__(self, settings: BackendSettings) -> None:
        self.settings = settings
        self.alias = settings.alias
        self.options = settings.options
        #: What is shown to nobody but receivers.
        self.redaction = Redaction(self.options.redact)

    @property
    def database(self) -> str | None:
        """The alias in DATABASES whose rows its messages are; None when they are no rows."""
        return None

    def check(self) -> list[CheckMessage]:
        """What the system check framework shall say about this backend."""
        return []

    # Time

    def now(self) -> datetime:
        """The store's time, as it is known here."""
        return clock.now()

    def read_now(self) -> datetime:
        """The store's time, asked of it just now."""
        return self.now()

    def after_commit(self, action: Callable[[], None]) -> None:
        """Call `action` once what was written just now cannot be undone any more."""
        action()

    def is_postponing(self) -> bool:
        """Is this thread inside a transaction that writes cannot join, so that they wait for its commit?"""
        return False

    def postpone(self, step: str, action: Callable[[], object]) -> bool:
        """Inside a transaction that writes cannot join, do this after its commit, after what was postponed before.
        False when there is nothing to wait for. What goes wrong by then is told by `store_error`."""
        return False

    # Schedule

    @abstractmethod
    def add(
        self,
        messages: Sequence[ScheduledMessage],
        *,
        on_conflict: OnConflict = "error",
        batch_size: int | None = None,
    ) -> list[ScheduledMessage]:
        """Store checked, unsaved messages: all of them or none.

        Returns, in the same order, each message as stored, or in its place the one that holds its key or id already
        (`ignore`); sets `was_created` on each. Raises IdInUse or KeyInUse (`error`), and BackendFull.
        """

    @property
    def takes_series(self) -> bool:
        """Is `add_series` quicker than `add`?"""
        return False

    def add_series(self, series: Series) -> list[ScheduledMessage] | None:
        """Store all messages of a series or none, while they are built; None when they have to be added by `add`.

        Raises InvalidMessage for the first one that is wrong; then nothing was stored.
        """
        return None

    def add_ticks(self, messages: Sequence[ScheduledMessage]) -> list[ScheduledMessage]:
        """Store the messages of ticks of a recurrence, each at most once: their ids are made of recurrence and tick.

        Where writes join transactions, the caller moves the recurrence on in the same one, and only if nobody else has.
        Elsewhere it does so after this, and a message may be added, delivered and pruned before that: such a backend
        remembers ticks for longer than their messages. Returns what `add` returns with `ignore`.
        """
        return self.add(messages, on_conflict="ignore")

    # Read

    @abstractmethod
    def find(self, *, id: UUID | None = None, key: str | None = None) -> ScheduledMessage:
        """By id; or the live message that holds the key, else the newest that held it. Raises DoesNotExist."""

    def find_many(self, ids: Collection[UUID]) -> dict[UUID, ScheduledMessage]:
        """By id; those that are not there are left out."""
        found = {}
        for id in ids:
            with suppress(ObjectDoesNotExist):
                found[id] = self.find(id=id)
        return found

    @abstractmethod
    def search(self, criteria: Criteria) -> ScheduledMessageQuerySet | MessageQuery:
        """The messages that meet the criteria, ascending by due time."""

    def page(self, criteria: Criteria, start: int, stop: int | None) -> list[ScheduledMessage]:
        """Messages `start` to `stop` of a search; what a `MessageQuery` is made of."""
        return list(self.search(criteria)[start:stop])

    def by_wall_time(self) -> Iterator[ScheduledMessage]:
        """The pending messages whose due time was given as a wall time, some read at a time."""
        ids = self.ids(Criteria(statuses=PENDING), 0, None)
        while batch := list(islice(ids, 500)):
            found = self.find_many(batch).values()
            yield from (each for each in found if each.local_time is not None and each.status in PENDING)

    def ids(self, criteria: Criteria, start: int, stop: int | None) -> Iterator[UUID]:
        """The ids of the same messages as those of `page`. Which these are is found at the call: a caller who goes on
        to change them meets none twice."""
        return iter([message.pk for message in self.page(criteria, start, stop)])

    def parents_of(self, id: UUID) -> list[ScheduledMessage]:
        """The messages that this one waits for, or has waited for, as far as they have not been pruned."""
        return []

    def links_to(self, children: Collection[UUID]) -> list[Link]:
        """What these messages wait for, or have waited for, by child and parent, also parents that are pruned by now.
        Here from `parents_of`, one message at a time and without conditions."""
        return [Link(parent=parent.pk, child=id) for id in sorted(children) for parent in self.parents_of(id)]

    def count(self, criteria: Criteria, *, most: int | None = None) -> int:
        """How many there are; a backend that has to look at each need not go on beyond `most`."""
        return self.search(criteria).count()

    def kinds(self, most: int | None) -> tuple[Counter[tuple[str, int]], bool]:
        """Event and version of pending messages, and how many of each were met; and whether these are all.

        At most `most` are looked at, as many in each queue of what comes next there; None looks at every one.
        """
        return counting.kinds(self, most)

    @abstractmethod
    def keys(self, queue: str | None = None) -> list[str]:
        """The keys that live messages hold, sorted."""

    def backlog(self, *, now: datetime | None = None) -> dict[str, Backlog]:
        """What each queue has, counted up to a cap, in few steps however much is stored and however many queues are
        there; queues in which nothing is scheduled, claimed or dead may be left out."""
        return counting.backlog(self, now or self.now())

    def forecast(self, edges: Sequence[datetime]) -> list[Count]:
        """How many messages fire between each two of these ascending instants, counted up to a cap."""
        return counting.forecast(self, edges)

    @abstractmethod
    def next_due_at(self, queue: str | None = None, *, quick: bool = False) -> datetime | None:
        """When the next scheduled message may be claimed, or None. `quick` overlooks what a quick claim may."""

    # Change

    def at_once(self, action: Callable[[], _Result]) -> _Result:
        """Do several changes in one transaction, where there is one: it may be begun again, and the action with it."""
        return action()

    def begin_change(self) -> None:
        """Called before a change that first has to read which messages it is about."""

    @abstractmethod
    def change_one(self, id: UUID, verb: Verb, *, now: datetime | None = None) -> Answer:
        """Do it to one message, in the caller's transaction where there is one."""

    @abstractmethod
    def change(self, ids: Sequence[UUID], verb: Verb, *, now: datetime | None = None) -> int:
        """Do it to each of these messages that allows it; returns how many changed."""

    def seal_anew(self, ids: Sequence[UUID]) -> Anew:
        """Encrypt anew, by the first key, what those of these messages carry that are pending, if a key opens it."""
        return Anew()

    # The worker's lease

    @abstractmethod
    def register(self, worker: WorkerProcess, *, now: datetime | None = None) -> None:
        """Make this worker known, with a lease of `worker.lease` seconds from now."""

    @abstractmethod
    def beat(self, worker: WorkerProcess, *, now: datetime | None = None) -> dict[UUID, int]:
        """Renew its lease (register it again if need be); returns what it holds that shall be cancelled, by token."""

    @abstractmethod
    def retire(self, worker: WorkerProcess) -> None:
        """Forget this worker; what it still holds may be rescued at once."""

    # Claim and settle

    @abstractmethod
    def queues(self, *, known: Collection[str] = ()) -> list[str]:
        """The queues in which messages are scheduled, due or not, suspect or not; sorted. `known` ones need no look."""

    @abstractmethod
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
        """At most `limit` messages that are due within `ahead` seconds, now claimed by this worker with a new token
        each. One that is not due yet is to be held until it is.

        Higher priority first, then by next_at, then by id. No two claims ever return the same message and token. A
        `quick` claim may overlook, for a second at most, messages that came to be due before others that this process
        has claimed already, or the first ones of a priority.
        """

    def look_back(self, at: datetime, *, queue: str | None = None, priority: int | None = None) -> None:
        """A message with this next_at, and as far as it is known this queue and priority, has been committed
        somewhere: quick claims that begin from now on do not overlook it. Asks nobody; for any thread."""

    @abstractmethod
    def has_suspects(self, queues: Collection[str], *, now: datetime | None = None) -> bool:
        """Is a suspect due in any of these queues? Cheap enough to be asked each second.

        A suspect is a scheduled message that a lost worker held: perhaps what it died of. `claim` does not return it,
        and `next_due_at` does not count it.
        """

    @abstractmethod
    def claim_suspect(
        self, worker: UUID, queues: Collection[str], *, now: datetime | None = None
    ) -> ScheduledMessage | None:
        """One due suspect of these queues, the first by priority, next_at and id, claimed as by `claim`; or None.

        Only for a worker that holds nothing else, so that what dies with it is this message alone.
        """

    @abstractmethod
    def settle(self, outcomes: Sequence[Outcome], *, now: datetime | None = None) -> Settled:
        """Write what became of claimed messages, each only if its token still matches."""

    def receiver_transaction(self, seconds: float) -> AbstractContextManager[None]:
        """A transaction for one receiver and the settle of its message, ended by the store, where it can, when it has
        been idle for so many seconds. Only where `supports_atomic_receivers`. Raises RuntimeError inside another."""
        raise NotImplementedError

    def settle_now(self, outcome: Outcome, *, now: datetime | None = None) -> dict[str, Any] | None:
        """Settle one outcome as the last step of a `receiver_transaction`: one conditional write, which waits for who
        has the message locked, and is as durable as that transaction.

        Returns the fields that were written; None when the fence refuses, so that the caller rolls back.
        """
        raise NotImplementedError

    def read_back(self, id: UUID) -> ScheduledMessage:
        """The message as a `receiver_transaction` has left it that was cut off: it may still be about to commit, and is
        waited for. Raises DoesNotExist."""
        return self.find(id=id)

    def set_progress(self, progress: Mapping[UUID, tuple[int, int]]) -> list[UUID]:
        """Note how far claimed messages are: id -> (token, percent), each only while its token is the message's.

        Returns those that the fence refuses. One that somebody else has locked is passed over.
        """
        return []

    @abstractmethod
    def held_by(self, worker: UUID) -> dict[UUID, int]:
        """Id and token of every message that this worker has claimed and not settled, as far as the store knows."""

    # Sweep

    @abstractmethod
    def rescue(self, *, limit: int = 500, now: datetime | None = None) -> list[UUID]:
        """Take back what workers without a lease hold, raising the token; returns the ids.

        Each message is suspect from then on, until any settle but the release of what was not started. A worker that
        is lost while it holds a suspect is counted in `crashes`; the third time the message is dead. One whose cancel
        was requested ends cancelled.
        """

    @abstractmethod
    def has_lapsed(self, *, now: datetime | None = None) -> bool:
        """Is there anything to rescue?"""

    @abstractmethod
    def expire(self, *, limit: int = 500, now: datetime | None = None) -> list[ScheduledMessage]:
        """End pending messages whose `expires_at` has passed; returns them."""

    def unblock(self, *, now: datetime | None = None) -> None:
        """Decide what late children wait for, and whatever else was left over. Called each second by every worker."""

    @abstractmethod
    def prune(self, *, limit: int = 1000, now: datetime | None = None) -> int:
        """Delete at most `limit` finished messages that are past their retention; returns how many."""

    @abstractmethod
    def forget(self, ids: Sequence[UUID]) -> int:
        """Delete those of these messages that are finished, whatever their retention; returns how many."""

    # Threads and wake-ups

    def prepare_thread(self, *, apart: bool = False) -> None:
        """Called by each thread of a worker before its first use of this backend, and of a new connection.

        With `apart` the thread has its connection to itself: it never waits until others give one back to a pool.
        """

    def interrupt_thread(self, ident: int) -> bool:
        """Make a call to the store fail that this prepared thread has been waiting in; false when there is no way."""
        return False

    def is_expected(self, error: BaseException) -> bool:
        """Is this error part of a normal day (a deadlock, a lost connection), so that trying again is the answer?"""
        return False

    def listen(self, wake: Callable[[str | None], bool]) -> Callable[[], None]:
        """Call `wake` with the queue, or None for any, in which a message may have become due earlier than known.

        From whatever thread. `wake` answers whether that queue is served; `listen` returns how to stop it.
        """
        return lambda: None

    # Facts

    def tell(self, fact: Signal, messages: Iterable[ScheduledMessage]) -> None:
        """Tell listeners, after the commit, what happened to these messages; builds nothing when nobody listens."""
        if fact.has_listeners():
            batch = list(messages)
            if batch:
                self.after_commit(lambda: signals.tell(fact, batch, self.alias))
