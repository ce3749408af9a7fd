"""STEP claim: due messages are fetched for each pool that has room, a little ahead of their time, and handed to it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from uuid import UUID

from django_sked import clock, failpoints
from django_sked.backends.base import BaseBackend
from django_sked.models import ScheduledMessage
from django_sked.worker.options import WorkerOptions
from django_sked.worker.pool import NO_ROOM, Pool, Room

#: Seconds after which the queues in the store are looked up again, by a worker that serves all of them.
LOOK_AGAIN = 1.0
#: ... and after which it is looked whether those that are known are there still.
LOOK_AT_ALL = 10.0


class Claimer:
    """Claims for the pools of one worker, each queue on its own: a slow one never holds up another."""

    def __init__(
        self,
        backend: BaseBackend,
        worker: UUID,
        options: WorkerOptions,
        holding: dict[UUID, ScheduledMessage],
        store_clock: clock.StoreClock,
        make_pool: Callable[[str, int], Pool],
        *,
        term: Callable[[], int] = lambda: 0,
        is_paused: Callable[[str], bool] = lambda queue: False,
        is_behind: Callable[[], bool] = lambda: False,
        on_pools: Callable[[], None] = lambda: None,
    ) -> None:
        self._backend = backend
        self._worker = worker
        self._options = options
        self._holding = holding
        self._clock = store_clock
        self._make_pool = make_pool
        self._term = term
        self._is_paused = is_paused
        self._is_behind = is_behind
        self._on_pools = on_pools
        self._left = options.max_messages
        #: Had a pool no room at the last round, so that nobody has looked whether something is due for it?
        self.passed_over = False
        self._looked_at = self._looked_at_all = float("-inf")
        #: When something was last claimed, or the store asked what is next without the look being quick.
        self._asked_at = float("-inf")
        #: How often somebody wanted the queues to be looked up, and the last of these wishes that came true.
        self._wishes = self._granted = 0
        #: Held while a claim is under way: whoever compares the store with `holding` must not see half of one.
        self._lock = threading.Lock()
        self.pools: dict[str, Pool] = {
            queue: make_pool(queue, options.size_of(queue)) for queue in options.queues or ()
        }

    def round(self) -> tuple[int, bool]:
        """Claim once for every pool with room; returns how many, and whether more is likely to be due."""
        self._look_for_queues()
        claimed, more = 0, False
        self.passed_over = False
        failure: Exception | None = None
        for pool in list(self.pools.values()):
            room = self._room(pool)
            if room.limit <= 0:
                self.passed_over = self.passed_over or not self._is_paused(pool.queue)
                continue
            try:
                count = self._claim(pool, room)
            except Exception as error:
                if self._backend.is_expected(error):
                    raise
                failure = error  # perhaps a row that cannot be read: it must not hold up the other queues
                continue
            claimed += count
            more = more or count == room.limit
        if failure is not None:
            raise failure
        return claimed, more

    def _room(self, pool: Pool) -> Room:
        if self._is_paused(pool.queue) or self._is_behind():
            return NO_ROOM
        room = pool.room(self._options.batch_size)
        if self._left is None or room.limit <= self._left:
            return room
        return Room(self._left, ahead=room.ahead)

    def _claim(self, pool: Pool, room: Room) -> int:
        ahead = self._options.lookahead_of(pool.queue) if room.ahead else 0.0
        # Known before the claim, so that what is not after it is surely due.
        now = self._clock.now()
        failpoints.hit("claim.before")
        with self._lock:
            term = self._term()
            messages = self._backend.claim(self._worker, pool.queue, room.limit, ahead=ahead, quick=True)
            failpoints.hit("claim.after")
            for message in messages:
                message._term = term
                self._holding[message.id] = message
        if self._left is not None:
            self._left -= len(messages)
        if messages:
            self._asked_at = clock.monotonic()
        if ahead and messages and any(message.next_at > now for message in messages):
            instant = self._clock.monotonic_at
            early = [(instant(message.next_at), message) for message in messages if message.next_at > now]
            pool.put([message for message in messages if message.next_at <= now], early)
        else:
            pool.put(messages)
        return len(messages)

    def claim_suspect(self) -> ScheduledMessage | None:
        """Claim one suspect, for a worker that holds nothing else; None when there was none."""
        if self.is_spent:
            return None
        self._look_for_queues()
        queues = self._awake(self.pools)
        if not queues:
            return None
        failpoints.hit("claim.before")
        with self._lock:
            term = self._term()
            message = self._backend.claim_suspect(self._worker, queues)
            failpoints.hit("claim.after")
            if message is not None:
                message._term = term
                self._holding[message.id] = message
        if message is None:
            return None
        if self._left is not None:
            self._left -= 1
        self.pools[message.queue].put([message])
        return message

    def has_suspects(self) -> bool:
        """Is a suspect due in a queue that is served here?"""
        queues = self._awake(self._queues_now() if self._looks_again else self.pools)
        return bool(queues) and self._backend.has_suspects(queues)

    def _awake(self, queues: Iterable[str]) -> list[str]:
        return [queue for queue in queues if not self._is_paused(queue)]

    @property
    def is_spent(self) -> bool:
        """Has it claimed as many messages as it was allowed to?"""
        return self._left is not None and self._left <= 0

    def seconds_until_next(self, longest: float) -> float:
        """How long nothing need be claimed for a pool with room, as far as the store knows now; at most `longest`.

        What comes is claimed by half of the lookahead before it is due, so that claims come in batches.
        """
        self._look_for_queues()
        now = clock.monotonic()
        # While claims follow one another, each second one of them overlooks nothing; and else it is looked again then.
        quick = now - self._asked_at < LOOK_AGAIN
        shortest = longest
        for pool in list(self.pools.values()):
            room = self._room(pool)
            if room.limit <= 0:
                continue
            if quick:
                shortest = min(shortest, LOOK_AGAIN)
            else:
                self._asked_at = now
            if (at := self._backend.next_due_at(pool.queue, quick=quick)) is None:
                continue
            ahead = self._options.lookahead_of(pool.queue) / 2 if room.ahead else 0.0
            shortest = min(shortest, (at - self._clock.now()).total_seconds() - ahead)
        return max(0.0, shortest)

    def unknown(self) -> dict[UUID, int]:
        """Messages that the store says this worker holds, and it does not know of: claims whose reply was lost."""
        with self._lock:
            # Before the store is asked: what is settled meanwhile is in neither, or only here.
            known = {id: message.token for id, message in list(self._holding.items())}
            held = self._backend.held_by(self._worker)
        return {id: token for id, token in held.items() if known.get(id) != token}

    def look_again(self) -> None:
        """Look for queues at the next round: a message came, perhaps the first of its queue."""
        self._wishes += 1

    @property
    def _looks_again(self) -> bool:
        """Is it time to look for queues?"""
        is_stale = self._wishes != self._granted or clock.monotonic() - self._looked_at >= LOOK_AGAIN
        return is_stale and self._options.queues is None

    def _queues_now(self) -> list[str]:
        now, known = clock.monotonic(), {*self.pools, *self._options.exclude_queues}
        if now - self._looked_at_all >= LOOK_AT_ALL:
            self._looked_at_all, known = now, set()
        return sorted(set(self._backend.queues(known=known)) - self._options.exclude_queues)

    def _look_for_queues(self) -> None:
        if not self._looks_again:
            return
        now, wishes = clock.monotonic(), self._wishes
        found, before = set(self._queues_now()), set(self.pools)
        for queue in [name for name, pool in self.pools.items() if name not in found and pool.is_unused]:
            del self.pools[queue]
        for queue in sorted(found - self.pools.keys()):
            self.pools[queue] = self._make_pool(queue, self._options.size_of(queue))
        # Last, because until the pools are there whoever asks for suspects asks for the queues, too.
        self._looked_at, self._granted = now, wishes
        if self.pools.keys() != before:
            self._on_pools()
