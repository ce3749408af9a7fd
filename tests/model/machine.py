"""Hypothesis chooses the steps; a `Pair` of store and book takes them.

A step may be made twice, as by a caller whose first call did its work and then seemed to fail; a claim may lose its
reply. Steps bring about what they need, so that each is worth taking in whatever state it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from django_sked.backends.base import BaseBackend
from django_sked.outcomes import Outcome
from django_sked.scheduling import OnConflict
from django_sked.states import FINISHED, Status
from django_sked.verbs import Cancel, Hold
from tests.model.moves import (
    KEYS,
    LEASE,
    NOBODY,
    QUEUES,
    RELEASE,
    T0,
    TICK,
    WISHES,
    WORKERS,
    Ending,
    Order,
    Wish,
    aheads,
    conflicts,
    endings,
    id_of,
    limits,
    moves,
    orders,
    picks,
    ticks,
    times,
    wishes,
)
from tests.model.pair import Pair, Retention

Make = Callable[[Retention], BaseBackend]
WEEK = timedelta(days=7)
workers = st.sampled_from(WORKERS)
queues = st.sampled_from(QUEUES)
statuses = st.sampled_from(list(Status))


class StoreMachine(RuleBasedStateMachine):
    """`make(retention)` returns an empty store."""

    def __init__(self, make: Make) -> None:
        super().__init__()
        self._make = make
        self.pair: Pair | None = None
        #: Every id and token that a claim has returned, to whomever.
        self.hands: list[tuple[UUID, int]] = []
        self.ids = 0

    @initialize(gone=st.sampled_from([set(), {Status.DELIVERED}, FINISHED]))
    def begin(self, gone: set[Status]) -> None:
        """`gone` are the statuses in which nothing is kept."""
        kept: dict[Status, timedelta | None] = {Status.CANCELLED: WEEK, Status.EXPIRED: None}
        kept |= {Status.DELIVERED: WEEK, Status.DEAD: timedelta(days=90)} | dict.fromkeys(gone, timedelta(0))
        self.pair = Pair(self._make(kept))
        for id in WORKERS[:2]:
            self.pair.register(id)

    @property
    def both(self) -> Pair:
        assert self.pair is not None
        return self.pair

    # Time

    @rule(by=moves)
    def advance(self, by: timedelta) -> None:
        self.both.now += by

    @rule(pick=picks, by=ticks)
    def advance_to_what_comes_next(self, pick: int, by: timedelta) -> None:
        """To a due time, an expiry, the end of a lease or of a retention, or a tick beside it."""
        instants = sorted(at for at in self._instants() if at is not None and at + by > self.both.now)
        if instants:
            self.both.now = instants[pick % min(3, len(instants))] + by

    def _instants(self) -> Iterator[datetime | None]:
        yield from self.both.book.leases.values()
        for entry in self.both.book.entries.values():
            live = entry.finished_at is None
            yield from (entry.next_at, entry.expires_at) if live else [self.both.book.kept_until(entry)]

    # Schedule

    @rule(order=orders, conflict=conflicts, times=times)
    def schedule(self, order: Order, conflict: OnConflict, times: int) -> None:
        id = self._id(order)
        for _ in range(times):
            self.both.add([order.entry(id, self.both.now)], [order.own_id], conflict)
            id = id if order.own_id else self._id(order)

    @rule(several=st.lists(orders, min_size=2, max_size=4), conflict=conflicts, size=st.sampled_from([None, 1, 2]))
    def schedule_many(self, several: list[Order], conflict: OnConflict, size: int | None = None) -> None:
        entries = [order.entry(self._id(order), self.both.now) for order in several]
        self.both.add(entries, [order.own_id for order in several], conflict, batch_size=size)

    def _id(self, order: Order) -> UUID:
        """A new id, or with `again` the caller's own that is perhaps taken."""
        known = [*self.both.book.entries]
        if order.own_id and order.again is not None and known:
            return known[-1 - order.again % len(known)]
        self.ids += 1
        return id_of(self.ids)

    # Claim and settle

    @rule(
        worker=workers, queue=queues, limit=limits, ahead=aheads, lost=st.booleans(), wait=st.integers(0, 4), by=ticks
    )
    def claim(self, worker: UUID, queue: str, limit: int, ahead: float, lost: bool, wait: int, by: timedelta) -> None:
        """Now, or when so many are due."""
        self._wait_for(self.both.book.next_times(queue)[:wait][-1:], by)
        claimed = self.both.claim(worker, queue, limit, ahead=ahead)
        if not lost:
            self.hands += claimed

    @rule(several=st.lists(orders, min_size=2, max_size=5), worker=workers, limit=st.integers(1, 3))
    def claim_some_of_many(self, several: list[Order], worker: UUID, limit: int) -> None:
        self.schedule_many([replace(order, queue=QUEUES[0], key=None, own_id=False) for order in several], "error")
        self.both.now += timedelta(seconds=1)
        self.hands += self.both.claim(worker, QUEUES[0], limit)

    @rule(several=st.lists(orders, max_size=3), worker=workers, limit=limits, told=st.booleans())
    def claim_quickly(self, several: list[Order], worker: UUID, limit: int, told: bool) -> None:
        """Twice: the second time with messages there that were due before those of the first."""
        queue = QUEUES[0]
        self.hands += self.both.claim(worker, queue, limit, quick=True, may_overlook=True)
        self.schedule_many([replace(order, queue=queue, key=None, own_id=False) for order in several], "error")
        if told:
            self.both.look_back(queue)
        self.hands += self.both.claim(worker, queue, limit, quick=True, may_overlook=not told)

    @rule(worker=workers, queues=st.sets(queues))
    def claim_suspect(self, worker: UUID, queues: set[str]) -> None:
        self.hands += self.both.claim_suspect(worker, sorted(queues))

    @rule(pick=picks, ending=endings, times=times, any_hand=st.booleans(), cancel=st.booleans())
    def settle(self, pick: int, ending: Ending, times: int, any_hand: bool, cancel: bool) -> None:
        outcome = self._outcome(pick, ending, any_hand)
        if cancel:
            self.both.change(outcome.id, Cancel(reason="too late"))
        for _ in range(times):
            self.both.settle([outcome])

    @rule(several=st.lists(st.tuples(picks, endings, st.booleans()), min_size=2, max_size=4), times=times)
    def settle_many(self, several: list[tuple[int, Ending, bool]], times: int) -> None:
        outcomes = [self._outcome(*one) for one in several]
        for _ in range(times):
            self.both.settle(outcomes)

    def _outcome(self, pick: int, ending: Ending, any_hand: bool) -> Outcome:
        """Of a message that is held; or of any claim there ever was, however old, of whatever worker."""
        if any_hand and self.hands:
            return ending.outcome(*self.hands[-1 - pick % len(self.hands)], self.both.now)
        id = self._message(Status.CLAIMED, pick)
        return ending.outcome(id, self.both.book.entries[id].token, self.both.now)

    @precondition(lambda self: self.pair is not None and self.pair.store.supports_atomic_receivers)
    @rule(pick=picks, ending=endings, any_hand=st.booleans(), roll_back=st.booleans())
    def settle_with_the_receiver(self, pick: int, ending: Ending, any_hand: bool, roll_back: bool) -> None:
        self.both.settle_now(self._outcome(pick, ending, any_hand), roll_back=roll_back)

    @rule(pick=picks, ending=endings, rescued=st.booleans())
    def settle_too_late(self, pick: int, ending: Ending, rescued: bool) -> None:
        """When the message has been given to somebody else."""
        held = self.both.book.entries[self._message(Status.CLAIMED, pick)]
        late = ending.outcome(held.id, held.token, self.both.now)
        if rescued:
            self.both.now = max(self.both.now, *self.both.book.leases.values(), T0) + TICK
            self.both.rescue(1000)
        else:
            self.both.settle([RELEASE.outcome(held.id, held.token, self.both.now)])
        for queue in QUEUES:
            self.hands += self.both.claim(WORKERS[1], queue, 1000)
        while self.both.book.due(QUEUES, self.both.now, suspect=True):
            self.hands += self.both.claim_suspect(WORKERS[1], QUEUES)
        self.both.settle([late])

    @rule(worker=workers)
    def release_unknown(self, worker: UUID) -> None:
        """A worker gives back what the store says it holds, and it has no reply of."""
        unknown = self.both.unknown(worker, self.hands)
        self.both.settle([RELEASE.outcome(*hand, self.both.now) for hand in unknown])

    # Leases and sweeps

    @rule(worker=workers, times=times)
    def beat(self, worker: UUID, times: int) -> None:
        for _ in range(times):
            self.both.beat(worker)

    @rule(worker=workers, times=times)
    def retire(self, worker: UUID, times: int) -> None:
        for _ in range(times):
            self.both.retire(worker)

    @rule(limit=limits, times=times, beat=st.booleans(), cancel=st.booleans(), by=ticks)
    def rescue(self, limit: int, times: int, beat: bool, cancel: bool, by: timedelta) -> None:
        """A lease after the last beat, or a tick before or after that."""
        held = self.both.book.entries[self._message(Status.CLAIMED, 0)]
        if beat and held.claimed_by is not None:
            self.both.beat(held.claimed_by)
            self.both.now += timedelta(seconds=LEASE) + by
        if cancel:
            self.both.change(held.id, Cancel(reason="too late"))
        for _ in range(times):
            self.both.rescue(limit)

    @rule(count=st.integers(1, 4))
    def lose_workers(self, count: int) -> None:
        """One after the other, each with a message that it holds alone."""
        self._message(Status.CLAIMED, 0)
        for _ in range(count):
            self.both.now += timedelta(seconds=LEASE) + TICK
            self.both.rescue(1000)
            self.hands += self.both.claim_suspect(WORKERS[0], QUEUES)

    @rule(limit=limits, times=times, by=ticks)
    def expire(self, limit: int, times: int, by: timedelta) -> None:
        self._message(Status.SCHEDULED, 0)
        pending = self.both.book.of_status(Status.SCHEDULED, Status.BLOCKED)
        self._wait_for((entry.expires_at for entry in pending), by)
        for _ in range(times):
            self.both.expire(limit)

    @rule(limit=limits, times=times, by=ticks)
    def prune(self, limit: int, times: int, by: timedelta) -> None:
        self._wait_for((self.both.book.kept_until(entry) for entry in self.both.book.entries.values()), by)
        for _ in range(times):
            self.both.prune(limit)

    def _wait_for(self, instants: Iterable[datetime | None], by: timedelta) -> None:
        """For the first of them, and so much longer."""
        first = min((at + by for at in instants if at is not None), default=self.both.now)
        self.both.now = max(self.both.now, first)

    # Change

    @rule(pick=picks, status=statuses, wish=wishes, times=times)
    def change(self, pick: int, status: Status, wish: Wish, times: int) -> None:
        id = self._message(status, pick)
        for _ in range(times):
            self.both.change(id, wish.verb(self.both.now))

    @rule(pick=picks, wish=wishes, times=times)
    def change_what_allows_it(self, pick: int, wish: Wish, times: int) -> None:
        starts = sorted(wish.verb(self.both.now).starts)
        self.change(pick, starts[pick % len(starts)], wish, times)

    @rule(pick=picks, status=statuses)
    def change_what_refuses_it(self, pick: int, status: Status) -> None:
        """Every verb that must leave it as it is, save for the request to cancel."""
        id = self._message(status, pick)
        for kind in WISHES:
            verb = Wish(kind=kind, offset=timedelta(0)).verb(self.both.now)
            if status not in verb.starts:
                self.both.change(id, verb)

    @precondition(lambda self: self.pair is not None and self.pair.store.joins_transactions)
    @rule(
        several=st.lists(orders, max_size=3),
        conflict=conflicts,
        pick=picks,
        status=statuses,
        wish=wishes,
        roll_back=st.booleans(),
    )
    def change_in_a_transaction(
        self, several: list[Order], conflict: OnConflict, pick: int, status: Status, wish: Wish, roll_back: bool
    ) -> None:
        """A conflict in it must not end it."""
        with self.both.transaction(roll_back=roll_back):
            self.schedule_many(several, conflict)
            self.change(pick, status, wish, 1)

    @rule(several=st.sets(picks, min_size=1, max_size=6), wish=wishes)
    def change_many(self, several: set[int], wish: Wish) -> None:
        known = [*self.both.book.entries, NOBODY]
        ids = {known[-1 - pick % len(known)] for pick in several}
        self.both.change_many(sorted(ids), wish.verb(self.both.now))

    @invariant()
    def the_store_agrees_with_the_book(self) -> None:
        if self.pair is not None:
            self.pair.agree()

    # Messages of a status

    def _message(self, status: Status, pick: int) -> UUID:
        """A message of this status; a new one where there is none."""
        found = self.both.book.of_status(status)
        return found[-1 - pick % len(found)].id if found else self._bring(status, pick)

    def _bring(self, status: Status, pick: int) -> UUID:
        both, order = self.both, Order(key=[None, *KEYS][pick % 3], queue="brought", expires_in=timedelta(hours=1))
        id = self._id(order)
        both.add([order.entry(id, both.now)], [False], "replace")
        if status == Status.BLOCKED:
            both.change(id, Hold(reason="brought"))
        elif status == Status.CANCELLED:
            both.change(id, Cancel(reason="brought"))
        elif status != Status.SCHEDULED:
            self.hands += both.claim(WORKERS[pick % 3], "brought", 1000)
        ends = {Status.DELIVERED: "deliver", Status.DEAD: "bury", Status.EXPIRED: "expire"}
        if status in ends:
            both.settle([Outcome(id=id, token=1, step=ends[status])])  # type: ignore[arg-type]
        return id
