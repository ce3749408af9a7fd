"""STEP claim: due rows become claimed by one worker, in one atomic step; one strategy per kind of locking.

Each strategy reads the same index, `sked_message_claim`: (queue, priority, next_at, id) of scheduled rows that are not
suspect. Priority leads the due time in it, so a claim walks one *band* of equal priority after the other, highest
first, each a range scan that touches due rows only, however many wait for later. Suspects, which are few, have
`sked_message_suspect`.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from django.db import OperationalError, connections, transaction
from django.db.models import F, Max, Min, QuerySet

from django_sked import clock, failpoints
from django_sked.backends.database.edges import on_their_own
from django_sked.backends.database.errors import is_locked
from django_sked.backends.database.store import (
    busy_timeout,
    is_any,
    lapsed,
    messages,
    moment,
    read_error,
    skip_locked,
    take_write_lock,
)
from django_sked.backends.database.together import begun_again
from django_sked.models import ScheduledMessage
from django_sked.outcomes import finish
from django_sked.states import Status

#: How long a row that cannot be read is left alone before it is tried again, perhaps by another release.
SET_ASIDE = timedelta(hours=1)
#: Seconds after which a receiver waits for the lock of a file itself, as where the one before it does not end.
LONGEST_TURN = 20.0
#: Suspects that are tried, one after the other, while other workers take them from under our hands.
TRIED = 20


Written = TypeVar("Written")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a claim asks for: at most `limit` messages of this queue that are due within `ahead` seconds."""

    worker: UUID
    queue: str
    limit: int
    #: Noted as the time of the claim: the store's, as it is known here.
    at: datetime
    #: What the due times are compared with: the store's own time, unless a test names another.
    now: datetime | None = None
    ahead: float = 0.0
    quick: bool = False


class ClaimStrategy(ABC):
    """How one kind of database hands a message to exactly one of many claimers."""

    def __init__(self, using: str) -> None:
        self.using = using

    @property
    def scheduled(self) -> QuerySet[ScheduledMessage]:
        """What claims of many look at, in the words of their index: everything scheduled but suspects."""
        return messages(self.using).filter(status=Status.SCHEDULED, suspect__in=[False])

    @property
    def suspects(self) -> QuerySet[ScheduledMessage]:
        return messages(self.using).filter(status=Status.SCHEDULED, suspect__in=[True])

    @abstractmethod
    def claim(self, wish: Wish) -> list[ScheduledMessage]:
        """See `BaseBackend.claim`."""

    def look_back(self, at: datetime, queue: str | None, priority: int | None) -> None:
        """For a strategy that remembers where to begin; see `BaseBackend.look_back`."""

    def queues(self, known: Collection[str] = ()) -> list[str]:
        """The distinct queues of scheduled rows, one index probe each."""
        return sorted({*_queues(self.scheduled), *_queues(self.suspects)})

    def bands(self, queue: str) -> list[int]:
        """The distinct priorities of a queue's scheduled rows, highest first, one index probe each."""
        found: list[int] = []
        rows = rest = self.scheduled.filter(queue=queue)
        while (band := rest.aggregate(top=Max("priority"))["top"]) is not None:
            found.append(band)
            rest = rows.filter(priority__lt=band)
        return found

    def next_at(self, queue: str, *, quick: bool = False) -> datetime | None:
        """The earliest next_at of a queue's scheduled rows, one index probe per band.

        A `quick` look may overlook what a quick claim may.
        """
        rows = self.scheduled.filter(queue=queue)
        firsts = (rows.filter(priority=band).aggregate(at=Min("next_at"))["at"] for band in self.bands(queue))
        return min((at for at in firsts if at is not None), default=None)

    def due(self, wish: Wish, band: int) -> QuerySet[ScheduledMessage]:
        until = moment(wish.now, wish.ahead)
        return self.scheduled.filter(queue=wish.queue, priority=band, next_at__lte=until).order_by("next_at", "id")

    def locked(self, rows: QuerySet[ScheduledMessage]) -> QuerySet[ScheduledMessage]:
        """The same rows, so that nobody else can write them until the transaction ends."""
        return rows

    def read(self, rows: QuerySet[ScheduledMessage]) -> list[ScheduledMessage]:
        return list(rows)

    def take(self, bands: list[int], wish: Wish) -> list[ScheduledMessage]:
        """Read due rows and mark them, in one transaction."""
        found: list[ScheduledMessage] = []
        for band in bands:
            found += self.read(self.locked(self.due(wish, band))[: wish.limit - len(found)])
            if len(found) >= wish.limit:
                break
        marked = self._mark(found, wish.worker, wish.at)
        failpoints.hit("claim.before_commit")
        return marked

    def _mark(self, found: list[ScheduledMessage], worker: UUID, at: datetime) -> list[ScheduledMessage]:
        if found:
            rows = messages(self.using).filter(pk__in=[message.pk for message in found])
            # Raised by the row's own value, the token is new whoever claimed before.
            rows.update(status=Status.CLAIMED, claimed_by=worker, claimed_at=at, token=F("token") + 1)
        for message in found:
            message.status, message.claimed_by, message.claimed_at = Status.CLAIMED, worker, at
            message.token += 1
        return found

    def has_lapsed(self) -> bool:
        """Does a worker without a lease hold anything? Asked each second by every worker."""
        return is_any(self.using, lapsed)

    def urgently(self, write: Callable[[], Written]) -> Written:
        """Do what cannot wait until others have written, such as a beat; outside of a transaction. A deadlock that it
        lost is not the end of it."""
        return begun_again(self.using, write)

    # Suspects

    def due_suspects(self, queues: Collection[str], now: datetime | None) -> QuerySet[ScheduledMessage]:
        rows = self.suspects.filter(queue__in=list(queues), next_at__lte=moment(now))
        return rows.order_by("-priority", "next_at", "id")

    def has_suspects(self, queues: Collection[str], now: datetime | None) -> bool:
        return self.due_suspects(queues, now).exists()

    def claim_suspect(
        self, worker: UUID, queues: Collection[str], at: datetime, now: datetime | None
    ) -> ScheduledMessage | None:
        """See `BaseBackend.claim_suspect`. Locked by its id: a sort would lock every suspect that it reads."""
        due = self.due_suspects(queues, now)
        for id in list(due.values_list("pk", flat=True)[:TRIED]):
            with transaction.atomic(using=self.using):
                take_write_lock(self.using)
                for message in self._mark(list(self.locked(due.filter(pk=id))), worker, at):
                    failpoints.hit("claim.before_commit")
                    return message
        return None

    # Settle

    def deliver(self, tokens: Mapping[UUID, int], now: datetime, *, keep: bool) -> dict[UUID, int]:
        """Settle plain deliveries of messages without children whose token still matches. Unless they are to be kept,
        delete those that are on their own, and leave the others as they are.

        Returns the new attempt of each message that was written.
        """
        with transaction.atomic(using=self.using):
            rows = claimed_and_locked(self.using, list(tokens)).filter(has_children=False)
            rows = rows if keep else on_their_own(self.using, rows)
            found = rows.values_list("pk", "token", "attempt")
            attempts = {id: attempt + 1 for id, token, attempt in found if token == tokens[id]}
            ours = messages(self.using).filter(pk__in=list(attempts))
            if not attempts:
                pass
            elif keep:
                ended = finish(Status.DELIVERED, now)
                ours.update(attempt=F("attempt") + 1, unroutable=0, suspect=False, **ended)
            else:
                ours._raw_delete(self.using)
            failpoints.hit("settle.before_commit")
        return attempts

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction of the worker's own, ended by the database, where it can, when it is idle for `LONGEST_IDLE`.

        What stands still in the middle of one would keep its rows locked, and nobody could rescue them.
        """
        with transaction.atomic(using=self.using):
            yield

    @contextmanager
    def receiver_transaction(self, seconds: float) -> Iterator[None]:
        """See `BaseBackend.receiver_transaction`."""
        with transaction.atomic(using=self.using, durable=True):
            yield

    # Unreadable rows

    def due_in_all_bands(self, wish: Wish) -> list[QuerySet[ScheduledMessage]]:
        return [self.due(wish, band)[: wish.limit] for band in self.bands(wish.queue)]

    def set_aside_unreadable(
        self, worker: UUID, due: Callable[[], Iterable[QuerySet[ScheduledMessage]]], at: datetime
    ) -> dict[UUID, Exception]:
        """Move due rows that cannot be read out of the way, for an hour, with the reason; returns them.

        A claim may have marked rows before it failed to read one: they are given back first.
        """
        mine = messages(self.using).filter(status=Status.CLAIMED, claimed_by=worker, claimed_at=at)
        mine.update(status=Status.SCHEDULED, claimed_by=None, claimed_at=None)
        found: dict[UUID, Exception] = {}
        for rows in due():
            for id in list(rows.values_list("pk", flat=True)):
                if (error := read_error(self.using, id)) is not None:
                    found[id] = error
                    reason = f"cannot be read: {type(error).__name__}"
                    still = messages(self.using).filter(pk=id, status=Status.SCHEDULED)
                    still.update(next_at=at + SET_ASIDE, reason=reason)
        return found


def _queues(rows: QuerySet[ScheduledMessage]) -> list[str]:
    found: list[str] = []
    rest = rows
    while (queue := rest.aggregate(first=Min("queue"))["first"]) is not None:
        if not isinstance(queue, str) or (found and queue <= found[-1]):
            break  # written by other means than ours, such as a BLOB: the rest could not be told apart
        found.append(queue)
        rest = rows.filter(queue__gt=queue)
    return found


def claimed_and_locked(using: str, ids: Sequence[UUID]) -> QuerySet[ScheduledMessage]:
    """Claimed rows of these ids, locked until the transaction ends; the primary key finds them."""
    return skip_locked(messages(using).filter(pk__in=sorted(ids), status=Status.CLAIMED))


class SkipLocked(ClaimStrategy):
    """The reference: lock due rows that nobody else has locked, then mark them, in one transaction."""

    def claim(self, wish: Wish) -> list[ScheduledMessage]:
        bands = self.bands(wish.queue)
        if not bands:
            return []
        with transaction.atomic(using=self.using):
            return self.take(bands, wish)

    def locked(self, rows: QuerySet[ScheduledMessage]) -> QuerySet[ScheduledMessage]:
        no_key = connections[self.using].features.has_select_for_no_key_update
        return rows.select_for_update(skip_locked=True, no_key=no_key)


class OneWriter(ClaimStrategy):
    """For SQLite, which locks the whole file: a claim takes that lock first, and an idle look takes none."""

    def __init__(self, using: str) -> None:
        super().__init__(using)
        self._turn = threading.Lock()

    def urgently(self, write: Callable[[], Written]) -> Written:
        """The lock of a file goes to whoever looks while it is free, and who has waited for long looks seldom: begin
        the wait anew, again and again. What fails otherwise, as on a full disk, does so without any wait, and is left
        to whoever asked."""
        connection = connections[self.using]
        if connection.in_atomic_block:
            return write()
        until = clock.monotonic() + LONGEST_TURN
        connection.ensure_connection()
        before = busy_timeout(connection)
        try:
            connection.connection.execute("PRAGMA busy_timeout = 10")
            while True:
                try:
                    return write()
                except OperationalError as error:
                    if not is_locked(error) or clock.monotonic() > until:
                        raise
        finally:
            if connection.connection is not None:
                connection.connection.execute(f"PRAGMA busy_timeout = {before}")

    @contextmanager
    def receiver_transaction(self, seconds: float) -> Iterator[None]:
        """The threads of a process line up here, lest a crowd of them at the lock of the file keeps out its beat."""
        is_ours = self._turn.acquire(timeout=LONGEST_TURN)
        try:
            with super().receiver_transaction(seconds):
                yield
        finally:
            if is_ours:
                self._turn.release()

    def claim(self, wish: Wish) -> list[ScheduledMessage]:
        if not any(self.due(wish, band).exists() for band in self.bands(wish.queue)):
            return []
        with transaction.atomic(using=self.using):
            take_write_lock(self.using)
            return self.take(self.bands(wish.queue), wish)
