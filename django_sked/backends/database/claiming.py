"""STEP claim: due rows become claimed by one worker, in one atomic step; one strategy per kind of locking.

Each strategy reads the same index, `sked_message_claim`: (queue, priority, next_at, id) of scheduled rows. Priority
leads the due time in it, so a claim walks one *band* of equal priority after the other, highest first, each a range
scan that touches due rows only, however many wait for later.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.db import DataError, connections, transaction
from django.db.models import F, Max, Min, QuerySet

from django_sked.backends.database.store import messages, moment, take_write_lock
from django_sked.models import ScheduledMessage
from django_sked.outcomes import finish
from django_sked.states import Status

#: How long a row that cannot be read is left alone before it is tried again, perhaps by another release.
SET_ASIDE = timedelta(hours=1)


class ClaimStrategy(ABC):
    """How one kind of database hands a message to exactly one of many claimers."""

    def __init__(self, using: str) -> None:
        self.using = using

    @property
    def scheduled(self) -> QuerySet[ScheduledMessage]:
        return messages(self.using).filter(status=Status.SCHEDULED)

    @abstractmethod
    def claim(
        self, worker: UUID, queue: str, limit: int, at: datetime, now: datetime | None, *, quick: bool = False
    ) -> list[ScheduledMessage]:
        """Claim what is due by the store's time, or by `now`; `at` is only noted as the time of the claim."""

    def queues(self) -> list[str]:
        """The distinct queues of scheduled rows, one index probe each."""
        found: list[str] = []
        rest = self.scheduled
        while (queue := rest.aggregate(first=Min("queue"))["first"]) is not None:
            if not isinstance(queue, str) or (found and queue <= found[-1]):
                break  # written by other means than ours, such as a BLOB: the rest could not be told apart
            found.append(queue)
            rest = self.scheduled.filter(queue__gt=queue)
        return found

    def bands(self, queue: str) -> list[int]:
        """The distinct priorities of a queue's scheduled rows, highest first, one index probe each."""
        found: list[int] = []
        rows = rest = self.scheduled.filter(queue=queue)
        while (band := rest.aggregate(top=Max("priority"))["top"]) is not None:
            found.append(band)
            rest = rows.filter(priority__lt=band)
        return found

    def next_at(self, queue: str) -> datetime | None:
        """The earliest next_at of a queue's scheduled rows, one index probe per band."""
        rows = self.scheduled.filter(queue=queue)
        firsts = (rows.filter(priority=band).aggregate(at=Min("next_at"))["at"] for band in self.bands(queue))
        return min((at for at in firsts if at is not None), default=None)

    def due(self, queue: str, band: int, now: datetime | None) -> QuerySet[ScheduledMessage]:
        rows = self.scheduled.filter(queue=queue, priority=band, next_at__lte=moment(now))
        return rows.order_by("next_at", "id")

    def take(
        self, bands: list[int], worker: UUID, queue: str, limit: int, at: datetime, now: datetime | None
    ) -> list[ScheduledMessage]:
        """Read due rows and mark them. Until the transaction ends nobody else can write what was read."""
        found: list[ScheduledMessage] = []
        for band in bands:
            found += self.due(queue, band, now)[: limit - len(found)]
            if len(found) >= limit:
                break
        if found:
            rows = messages(self.using).filter(pk__in=[message.pk for message in found])
            # Raised by the row's own value, the token is new whoever claimed before.
            rows.update(status=Status.CLAIMED, claimed_by=worker, claimed_at=at, token=F("token") + 1)
        return [_mark(message, worker, at) for message in found]

    def deliver(self, tokens: Mapping[UUID, int], now: datetime, *, keep: bool) -> dict[UUID, int]:
        """Settle plain deliveries whose token still matches, deleting them unless they are to be kept.

        Returns the new attempt of each message that was written.
        """
        with transaction.atomic(using=self.using):
            rows = claimed_and_locked(self.using, list(tokens)).values_list("pk", "token", "attempt")
            attempts = {id: attempt + 1 for id, token, attempt in rows if token == tokens[id]}
            ours = messages(self.using).filter(pk__in=list(attempts))
            if not attempts:
                pass
            elif keep:
                ours.update(attempt=F("attempt") + 1, unroutable=0, **finish(Status.DELIVERED, now))
            else:
                ours._raw_delete(self.using)
        return attempts

    def set_aside_unreadable(
        self, worker: UUID, queue: str, limit: int, at: datetime, now: datetime | None
    ) -> dict[UUID, Exception]:
        """Move due rows that cannot be read out of the way, for an hour, with the reason; returns them.

        A claim may have marked rows before it failed to read one: they are given back first.
        """
        mine = messages(self.using).filter(status=Status.CLAIMED, claimed_by=worker, claimed_at=at)
        mine.update(status=Status.SCHEDULED, claimed_by=None, claimed_at=None)
        found: dict[UUID, Exception] = {}
        for band in self.bands(queue):
            due = self.scheduled.filter(queue=queue, priority=band, next_at__lte=moment(now)).order_by("next_at", "id")
            for id in due.values_list("pk", flat=True)[:limit]:
                if (error := self._read_error(id)) is not None:
                    found[id] = error
                    reason = f"cannot be read: {type(error).__name__}"
                    self.scheduled.filter(pk=id).update(next_at=at + SET_ASIDE, reason=reason)
        return found

    def _read_error(self, id: UUID) -> Exception | None:
        try:
            messages(self.using).filter(pk=id).first()
        except (ValueError, TypeError, OverflowError, DataError) as error:
            return error
        return None


def claimed_and_locked(using: str, ids: Sequence[UUID]) -> QuerySet[ScheduledMessage]:
    """Claimed rows of these ids, locked until the transaction ends; the primary key finds them."""
    rows = messages(using).filter(pk__in=sorted(ids), status=Status.CLAIMED)
    if connections[using].features.has_select_for_update_skip_locked:
        rows = rows.select_for_update(skip_locked=True)
    return rows


class SkipLocked(ClaimStrategy):
    """The reference: lock due rows that nobody else has locked, then mark them, in one transaction."""

    def claim(
        self, worker: UUID, queue: str, limit: int, at: datetime, now: datetime | None, *, quick: bool = False
    ) -> list[ScheduledMessage]:
        bands = self.bands(queue)
        if not bands:
            return []
        with transaction.atomic(using=self.using):
            return self.take(bands, worker, queue, limit, at, now)

    def due(self, queue: str, band: int, now: datetime | None) -> QuerySet[ScheduledMessage]:
        no_key = connections[self.using].features.has_select_for_no_key_update
        return super().due(queue, band, now).select_for_update(skip_locked=True, no_key=no_key)


class OneWriter(ClaimStrategy):
    """For SQLite, which locks the whole file: a claim takes that lock first, and an idle look takes none."""

    def claim(
        self, worker: UUID, queue: str, limit: int, at: datetime, now: datetime | None, *, quick: bool = False
    ) -> list[ScheduledMessage]:
        if not any(self.due(queue, band, now).exists() for band in self.bands(queue)):
            return []
        with transaction.atomic(using=self.using):
            take_write_lock(self.using)
            return self.take(self.bands(queue), worker, queue, limit, at, now)


def _mark(message: ScheduledMessage, worker: UUID, at: datetime) -> ScheduledMessage:
    """The instance as the UPDATE has left its row."""
    message.status = Status.CLAIMED
    message.claimed_by = worker
    message.claimed_at = at
    message.token += 1
    return message
