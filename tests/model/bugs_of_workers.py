"""Stores that break a promise to workers: in claims, settles, leases and sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django_sked.backends.base import BaseBackend, Settled
from django_sked.backends.memory import MemoryBackend
from django_sked.criteria import Criteria
from django_sked.models import WorkerProcess
from django_sked.outcomes import Outcome
from django_sked.states import FINISHED, Status
from tests.model.bug import Bug, Messages
from tests.model.moves import TICK

# Claim


class ClaimsATickEarly(Bug):
    """What is due in a microsecond is claimed now."""

    def claim(self, *args: Any, ahead: float = 0.0, **kwargs: Any) -> Messages:
        return self.store.claim(*args, ahead=ahead + 1e-6, **kwargs)


class ClaimsAMillisecondEarly(Bug):
    """Times are cut to milliseconds, as in a store that has no more."""

    def claim(self, *args: Any, ahead: float = 0.0, **kwargs: Any) -> Messages:
        return self.store.claim(*args, ahead=ahead + 1e-3, **kwargs)


class ClaimsWithoutANewToken(Bug):
    """A claim leaves the token as it is."""

    def claim(self, *args: Any, **kwargs: Any) -> Messages:
        claimed = self.store.claim(*args, **kwargs)
        for message in claimed:
            message.token -= 1
            self.alter(message.pk, token=message.token)
        return claimed


class PopsNotAtomically(Bug):
    """Between the look and the mark of one claim there is room for another: both get the same message."""

    def __init__(self, store: BaseBackend) -> None:
        super().__init__(store)
        self.last: Messages = []

    def claim(self, worker: UUID, queue: str, limit: int, **kwargs: Any) -> Messages:
        seen = [message for message in self.last if message.queue == queue and limit]
        self.last = self.store.claim(worker, queue, limit - len(seen), **kwargs)
        return seen + self.last


class ForgetsWhatItHandsOut(Bug):
    """A claim pops messages out of the store: one whose reply is lost, or whose worker dies, is gone."""

    def claim(self, *args: Any, **kwargs: Any) -> Messages:
        claimed = self.store.claim(*args, **kwargs)
        for message in claimed:
            self.delete(message.pk)
        return claimed


class ClaimsInAnyOrder(Bug):
    """The batch comes back as the rows were found, without regard to priority and time."""

    def claim(self, *args: Any, **kwargs: Any) -> Messages:
        return self.store.claim(*args, **kwargs)[::-1]


class ClaimsWithoutPriority(Bug):
    """A limited claim takes the oldest, whatever its priority."""

    def claim(self, worker: UUID, queue: str, limit: int, **kwargs: Any) -> Messages:
        claimed = self.store.claim(worker, queue, 1000, **kwargs)
        wanted = sorted(claimed, key=lambda message: (message.next_at, message.pk))[:limit]
        for message in claimed:
            if message not in wanted:
                fields = {"status": Status.SCHEDULED, "claimed_by": None, "claimed_at": None}
                self.alter(message.pk, token=message.token - 1, **fields)
        return sorted(wanted, key=lambda message: (-message.priority, message.next_at, message.pk))


class ClaimsMoreThanAsked(Bug):
    """The limit is applied again for each row, as by a planner without a fence."""

    def claim(self, worker: UUID, queue: str, limit: int, **kwargs: Any) -> Messages:
        return self.store.claim(worker, queue, limit and limit + 1, **kwargs)


class FreesTheKeyAtTheClaim(Bug):
    """A key is free as soon as its message is claimed."""

    def claim(self, *args: Any, **kwargs: Any) -> Messages:
        claimed = self.store.claim(*args, **kwargs)
        for message in claimed:
            self.alter(message.pk, live_key=None)
        return claimed


# Settle


class SettlesWithoutAFence(Bug):
    """Whoever settles a claimed message may, whatever his token: the fault of a guard by status alone."""

    def settle(self, outcomes: Sequence[Outcome], **kwargs: Any) -> Settled:
        return self.store.settle([self._let_pass(outcome) for outcome in outcomes], **kwargs)

    def _let_pass(self, outcome: Outcome) -> Outcome:
        found = self.read(outcome.id)
        held = found is not None and found.status == Status.CLAIMED
        return replace(outcome, token=found.token) if found is not None and held else outcome


class SettlesTwice(Bug):
    """The settle of a caller whose first reply was lost is counted again."""

    def settle(self, *args: Any, **kwargs: Any) -> Settled:
        settled = self.store.settle(*args, **kwargs)
        for id, fields in settled.repeated.items():
            self.alter(id, attempt=fields["attempt"] + 1)
        return settled


class SettlesOnlyInItsReply(Bug):
    """A delivery is confirmed, and then not written."""

    def settle(self, outcomes: Sequence[Outcome], **kwargs: Any) -> Settled:
        before = {outcome.id: self.read(outcome.id) for outcome in outcomes if outcome.step == "deliver"}
        settled = self.store.settle(outcomes, **kwargs)
        for id, message in before.items():
            if message is not None and id in settled.written:
                self.alter(id, status=message.status, finished_at=None, attempt=message.attempt)
        return settled


class CountsARetryTwice(Bug):
    """A retry takes two attempts."""

    def settle(self, outcomes: Sequence[Outcome], **kwargs: Any) -> Settled:
        settled = self.store.settle(outcomes, **kwargs)
        for outcome in outcomes:
            fields = settled.written.get(outcome.id)
            if fields is not None and outcome.step == "retry" and "attempt" in fields:
                fields["attempt"] += 1
                self.alter(outcome.id, attempt=fields["attempt"])
        return settled


class CountsAReleaseAsAnAttempt(Bug):
    """What was not started is counted."""

    def settle(self, outcomes: Sequence[Outcome], **kwargs: Any) -> Settled:
        return self.store.settle([replace(outcome, counted=True) for outcome in outcomes], **kwargs)


class RetriesAtOnce(Bug):
    """The wait before a retry is ignored."""

    def settle(self, outcomes: Sequence[Outcome], **kwargs: Any) -> Settled:
        hot = [replace(o, at=None, delay=0.0) if o.step == "retry" else o for o in outcomes]
        return self.store.settle(hot, **kwargs)


class ForgetsACancelAtTheRelease(Bug):
    """A message whose cancel was requested comes again."""

    def settle(self, outcomes: Sequence[Outcome], **kwargs: Any) -> Settled:
        for outcome in outcomes:
            found = self.read(outcome.id)
            if found is not None and found.token == outcome.token and found.cancel_requested:
                self.alter(outcome.id, cancel_requested=False)
        return self.store.settle(outcomes, **kwargs)


class RetriesPastTheExpiry(Bug):
    """A retry is scheduled even where the message will have expired."""

    def settle(self, outcomes: Sequence[Outcome], **kwargs: Any) -> Settled:
        known = {id: at for id in {o.id for o in outcomes} if (found := self.read(id)) and (at := found.expires_at)}
        for id in known:
            self.alter(id, expires_at=None)
        settled = self.store.settle(outcomes, **kwargs)
        for id, at in known.items():
            self.alter(id, expires_at=at)
        return settled


class KeepsTheKeyOfTheFinished(Bug):
    """A delivered message still holds its key."""

    def settle(self, *args: Any, **kwargs: Any) -> Settled:
        settled = self.store.settle(*args, **kwargs)
        for id in settled.written:
            found = self.read(id)
            if found is not None and found.key is not None and found.status == Status.DELIVERED:
                self.alter(id, live_key=found.key)
                if isinstance(self.store, MemoryBackend):
                    self.store._shelf._holders[found.key] = id
        return settled


# Leases and sweeps


class RescuesWithoutANewToken(Bug):
    """The worker that was given up can still settle."""

    def rescue(self, **kwargs: Any) -> list[UUID]:
        rescued = self.store.rescue(**kwargs)
        for id in rescued:
            if (found := self.read(id)) is not None:
                self.alter(id, token=found.token - 1)
        return rescued


class RescuesTheLiving(Bug):
    """A lease is given up at once, as by whoever does not look at leases."""

    def rescue(self, **kwargs: Any) -> list[UUID]:
        for id in {message.claimed_by for message in self.claimed()}:
            self.store.retire(WorkerProcess(id=id))
        return self.store.rescue(**kwargs)


class BeatsInVain(Bug):
    """A beat renews nothing: every lease ends as first granted."""

    def __init__(self, store: BaseBackend) -> None:
        super().__init__(store)
        self.first: dict[UUID, datetime] = {}

    def beat(self, worker: WorkerProcess, *, now: datetime) -> dict[UUID, int]:
        return self.store.beat(worker, now=self.first.setdefault(worker.pk, now))


class RescuesTheCancelled(Bug):
    """A rescue brings back what was to be cancelled."""

    def rescue(self, **kwargs: Any) -> list[UUID]:
        asked = {message.pk for message in self.claimed() if message.cancel_requested}
        for id in asked:
            self.alter(id, cancel_requested=False)
        rescued = self.store.rescue(**kwargs)
        for id in asked:
            self.alter(id, cancel_requested=True)
        return rescued


class SuspectsNobody(Bug):
    """What a lost worker held is claimed among others, and may kill the next worker with all that it holds."""

    def rescue(self, **kwargs: Any) -> list[UUID]:
        rescued = self.store.rescue(**kwargs)
        for id in rescued:
            self.alter(id, suspect=False)
        return rescued


class BlamesTheInnocent(Bug):
    """Whatever a lost worker held is counted as what it died of."""

    def rescue(self, **kwargs: Any) -> list[UUID]:
        innocent = {message.pk for message in self.claimed() if not message.suspect}
        rescued = self.store.rescue(**kwargs)
        for id in innocent & set(rescued):
            self.alter(id, crashes=1)
        return rescued


class NeverGivesUp(Bug):
    """A message may kill workers for ever."""

    def rescue(self, **kwargs: Any) -> list[UUID]:
        rescued = self.store.rescue(**kwargs)
        for id in rescued:
            if (found := self.read(id)) is not None and found.status == Status.SCHEDULED:
                self.alter(id, crashes=0)
        return rescued


class ExpiresATickEarly(Bug):
    """The sweep ends what expires in a microsecond."""

    def expire(self, *, now: datetime, **kwargs: Any) -> Messages:
        ended = self.store.expire(now=now + TICK, **kwargs)
        for message in ended:
            message.finished_at = now
            self.alter(message.pk, finished_at=now)
        return ended


class ExpiresNothing(Bug):
    """`expires_at` is stored, and that is all."""

    def expire(self, **kwargs: Any) -> Messages:
        return []


class PrunesTheLiving(Bug):
    """What is old is deleted, whether it has finished or not."""

    def prune(self, *, limit: int, now: datetime) -> int:
        old = self.store.page(Criteria(due_until=now - timedelta(days=7)), 0, limit)
        live = [message.pk for message in old if message.status not in FINISHED]
        for id in live:
            self.delete(id)
        return len(live) + self.store.prune(limit=limit - len(live), now=now)
