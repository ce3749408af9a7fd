"""The contract of a backend, in the order of a message's life.

`tests/contract` runs against every backend. Each call that looks at a clock takes `now=None`, the store's own time;
only tests and `django_sked.testing` pass another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from django.core.checks import CheckMessage
from django.dispatch import Signal

from django_sked import clock, signals
from django_sked.conf import BackendSettings, Options
from django_sked.criteria import Criteria
from django_sked.outcomes import Outcome
from django_sked.scheduling import OnConflict
from django_sked.states import Answer
from django_sked.verbs import Verb

if TYPE_CHECKING:
    from django_sked.backends.query import MessageQuery
    from django_sked.models import ScheduledMessage, WorkerProcess
    from django_sked.queries import ScheduledMessageQuerySet


@dataclass(slots=True, kw_only=True)
class Settled:
    """What a settle did with each outcome."""

    #: Message id -> the fields that were written.
    written: dict[UUID, dict[str, Any]] = field(default_factory=dict)
    #: Refused by the fence: the message is somebody else's by now, or finished.
    lost: list[Outcome] = field(default_factory=list)
    #: Not written because another transaction has the message locked: to be settled again.
    busy: list[Outcome] = field(default_factory=list)


class BaseBackend(ABC):
    """Where messages are stored until they are due. One object per alias and process, used by many threads."""

    options_class: ClassVar[type[Options]] = Options

    #: Is a write inside `atomic()` undone when that transaction rolls back?
    joins_transactions: ClassVar[bool] = False
    #: Do workers in other processes see its messages?
    reaches_other_processes: ClassVar[bool] = True
    #: Can it tell an idle worker that a message arrived?
    supports_wakeup: ClassVar[bool] = False

    def __init__(self, settings: BackendSettings) -> None:
        self.settings = settings
        self.alias = settings.alias
        self.options = settings.options

    @property
    def database(self) -> str | None:
        """The alias in DATABASES whose rows its messages are; None when they are no rows."""
        return None

    def check(self) -> list[CheckMessage]:
        """What the system check framework shall say about this backend."""
        return []

    # Time

    def now(self) -> datetime:
        """The store's time."""
        return clock.now()

    def after_commit(self, action: Callable[[], None]) -> None:
        """Call `action` once what was written just now cannot be undone any more."""
        action()

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
        (`ignore`); sets `was_created` on each. Raises IdInUse or KeyInUse (`error`).
        """

    # Read

    @abstractmethod
    def find(self, *, id: UUID | None = None, key: str | None = None) -> ScheduledMessage:
        """By id; or the live message that holds the key, else the newest that held it. Raises DoesNotExist."""

    @abstractmethod
    def search(self, criteria: Criteria) -> ScheduledMessageQuerySet | MessageQuery:
        """The messages that meet the criteria, ascending by due time."""

    def page(self, criteria: Criteria, start: int, stop: int | None) -> list[ScheduledMessage]:
        """Messages `start` to `stop` of a search; what a `MessageQuery` is made of."""
        return list(self.search(criteria)[start:stop])

    def count(self, criteria: Criteria) -> int:
        return self.search(criteria).count()

    @abstractmethod
    def keys(self, queue: str | None = None) -> list[str]:
        """The keys that live messages hold, sorted."""

    @abstractmethod
    def next_due_at(self, queue: str | None = None) -> datetime | None:
        """When the next scheduled message may be claimed; None when none is scheduled."""

    # Change

    def begin_change(self) -> None:
        """Called before a change that first has to read which messages it is about."""

    @abstractmethod
    def change_one(self, id: UUID, verb: Verb, *, now: datetime | None = None) -> Answer:
        """Do it to one message, in the caller's transaction where there is one."""

    @abstractmethod
    def change(self, ids: Sequence[UUID], verb: Verb, *, now: datetime | None = None) -> int:
        """Do it to each of these messages that allows it; returns how many changed."""

    # The worker's lease

    @abstractmethod
    def register(self, worker: WorkerProcess, *, now: datetime | None = None) -> None:
        """Make this worker known, with a lease of `worker.lease` seconds from now."""

    @abstractmethod
    def beat(self, worker: WorkerProcess, *, now: datetime | None = None) -> set[UUID]:
        """Renew its lease (register it again if need be); returns which messages it holds that shall be cancelled."""

    @abstractmethod
    def retire(self, worker: WorkerProcess) -> None:
        """Forget this worker; what it still holds may be rescued at once."""

    # Claim and settle

    @abstractmethod
    def queues(self) -> list[str]:
        """The queues in which messages are scheduled, due or not."""

    @abstractmethod
    def claim(
        self, worker: UUID, queue: str, limit: int, *, quick: bool = False, now: datetime | None = None
    ) -> list[ScheduledMessage]:
        """At most `limit` due messages, now claimed by this worker with a new token each.

        Higher priority first, then by next_at, then by id. No two claims ever return the same message and token. A
        `quick` claim may overlook, for a second at most, messages that came to be due before others that this process
        has claimed already, or the first ones of a priority.
        """

    @abstractmethod
    def settle(self, outcomes: Sequence[Outcome], *, now: datetime | None = None) -> Settled:
        """Write what became of claimed messages, each only if its token still matches."""

    @abstractmethod
    def held_by(self, worker: UUID) -> dict[UUID, int]:
        """Id and token of every message that this worker has claimed and not settled, as far as the store knows."""

    # Sweep

    @abstractmethod
    def rescue(self, *, limit: int = 500, now: datetime | None = None) -> list[UUID]:
        """Take back what workers without a lease hold, raising the token; returns the ids."""

    @abstractmethod
    def has_lapsed(self, *, now: datetime | None = None) -> bool:
        """Is there anything to rescue?"""

    @abstractmethod
    def expire(self, *, limit: int = 500, now: datetime | None = None) -> list[ScheduledMessage]:
        """End pending messages whose `expires_at` has passed; returns them."""

    @abstractmethod
    def prune(self, *, limit: int = 1000, now: datetime | None = None) -> int:
        """Delete at most `limit` finished messages that are past their retention; returns how many."""

    # Threads and wake-ups

    def prepare_thread(self) -> None:
        """Called by each thread of a worker before its first use of this backend."""

    def is_expected(self, error: BaseException) -> bool:
        """Is this error part of a normal day (a deadlock, a lost connection), so that trying again is the answer?"""
        return False

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` whenever a message may have become due earlier than known; returns how to stop that."""
        return lambda: None

    # Facts

    def tell(self, fact: Signal, messages: Iterable[ScheduledMessage]) -> None:
        """Tell listeners, after the commit, what happened to these messages; builds nothing when nobody listens."""
        if fact.has_listeners():
            batch = list(messages)
            if batch:
                self.after_commit(lambda: signals.tell(fact, batch, self.alias))
