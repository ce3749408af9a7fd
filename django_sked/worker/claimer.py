"""STEP claim: due messages are fetched for each pool that has room, and handed to it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from uuid import UUID

from django_sked import clock
from django_sked.backends.base import BaseBackend
from django_sked.models import ScheduledMessage
from django_sked.worker.options import WorkerOptions
from django_sked.worker.pool import Pool

#: Seconds after which the queues in the store are looked up again, by a worker that serves all of them.
LOOK_AGAIN = 1.0


class Claimer:
    """Claims for the pools of one worker, each queue on its own: a slow one never holds up another."""

    def __init__(
        self,
        backend: BaseBackend,
        worker: UUID,
        options: WorkerOptions,
        holding: dict[UUID, ScheduledMessage],
        make_pool: Callable[[str, int], Pool],
    ) -> None:
        self._backend = backend
        self._worker = worker
        self._options = options
        self._holding = holding
        self._make_pool = make_pool
        self._left = options.max_messages
        self._looked_at = float("-inf")
        #: Held while a claim is under way: whoever compares the store with `holding` must not see half of one.
        self._lock = threading.Lock()
        self.pools: dict[str, Pool] = {
            queue: make_pool(queue, options.size_of(queue)) for queue in options.queues or ()
        }

    def round(self) -> tuple[int, bool]:
        """Claim once for every pool with room; returns how many, and whether more is likely to be due."""
        self._look_for_queues()
        claimed, more = 0, False
        failure: Exception | None = None
        for pool in list(self.pools.values()):
            wanted = self._wanted(pool)
            if wanted <= 0:
                continue
            try:
                messages = self._claim(pool.queue, wanted)
            except Exception as error:
                if self._backend.is_expected(error):
                    raise
                failure = error  # perhaps a row that cannot be read: it must not hold up the other queues
                continue
            pool.put(messages)
            claimed += len(messages)
            more = more or len(messages) == wanted
        if failure is not None:
            raise failure
        return claimed, more

    def _wanted(self, pool: Pool) -> int:
        room = pool.room(self._options.batch_size)
        return room if self._left is None else min(room, self._left)

    def _claim(self, queue: str, limit: int) -> list[ScheduledMessage]:
        with self._lock:
            messages = self._backend.claim(self._worker, queue, limit, quick=True)
            for message in messages:
                self._holding[message.pk] = message
        if self._left is not None:
            self._left -= len(messages)
        return messages

    @property
    def is_spent(self) -> bool:
        """Has it claimed as many messages as it was allowed to?"""
        return self._left is not None and self._left <= 0

    def seconds_until_next(self, longest: float) -> float:
        """How long nothing can become due for a pool with room, as far as the store knows now; at most `longest`."""
        self._look_for_queues()
        queues = [pool.queue for pool in list(self.pools.values()) if self._wanted(pool) > 0]
        times = [at for queue in queues if (at := self._backend.next_due_at(queue)) is not None]
        if not times:
            return longest
        return max(0.0, min(longest, (min(times) - self._backend.now()).total_seconds()))

    def unknown(self) -> dict[UUID, int]:
        """Messages that the store says this worker holds, and it does not know of: claims whose reply was lost."""
        with self._lock:
            # Before the store is asked: what is settled meanwhile is in neither, or only here.
            known = {id: message.token for id, message in list(self._holding.items())}
            held = self._backend.held_by(self._worker)
        return {id: token for id, token in held.items() if known.get(id) != token}

    def look_again(self) -> None:
        """Look for queues at the next round: a message came, perhaps the first of its queue."""
        self._looked_at = float("-inf")

    def _look_for_queues(self) -> None:
        if self._options.queues is not None or clock.monotonic() - self._looked_at < LOOK_AGAIN:
            return
        self._looked_at = clock.monotonic()
        found = set(self._backend.queues()) - self._options.exclude_queues
        for queue in [name for name, pool in self.pools.items() if name not in found and pool.is_unused]:
            del self.pools[queue]
        for queue in sorted(found - self.pools.keys()):
            self.pools[queue] = self._make_pool(queue, self._options.size_of(queue))
