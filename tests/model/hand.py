"""A worker whose parts are the real ones, without their threads: it moves when it is told to, at a time we name."""

from __future__ import annotations

from datetime import datetime, timedelta

from django_sked import clock
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.worker import Worker
from django_sked.worker.pool import Pool
from tests.model.faulty import StoreAway


class Time:
    """The monotonic clock of this host, and the store's time with it, moved by hand."""

    def __init__(self, start: datetime) -> None:
        self._start = start
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self.seconds)


class HandPool(Pool):
    """Has no threads: whoever takes a message dispatches it."""

    def _start_threads(self) -> None:
        pass

    def take(self) -> ScheduledMessage | None:
        with self._condition:
            return self._pop()


class HandWorker(Worker):
    """`tick()` takes each step of each loop once; a step that the store fails is taken again at the next tick."""

    def __init__(self, backend: str, *, lease: float) -> None:
        super().__init__(backend, lease=lease)
        self._is_known = False
        self._beat_at = float("-inf")
        self._unwritten: list[Outcome] = []

    def _make_pool(self, queue: str) -> Pool:
        size = self._operating.size_of(queue)
        return HandPool(queue, size, self.backend, self._starter.deliver, self._waker.wake, self._budget)

    def tick(self) -> None:
        sweeps = (self._beat_in_time, self._sweep, self._pruner.step)
        for step in (self._make_known, *sweeps, self._claim_some, self._start_all, self._write):
            try:
                step()
            except StoreAway:
                if not self._is_known:
                    return

    def retire(self) -> None:
        """Go, whatever is still in hand."""
        self._try("retire", self._leases.retire)

    def _make_known(self) -> None:
        if not self._is_known:
            self._leases.register()
            self._clock.read()
            self._is_known = True

    def _beat_in_time(self) -> None:
        if clock.monotonic() - self._beat_at >= self._leases.interval:
            self._beat()
            self._beat_at = clock.monotonic()

    def _claim_some(self) -> None:
        if self._leases.may_start() and self._quarantine.seconds_to_wait() <= 0:
            self._claimer.round()
            self._claimer.seconds_until_next(1.0)

    def _start_all(self) -> None:
        for pool in self._claimer.pools.values():
            assert isinstance(pool, HandPool)
            while (message := pool.take()) is not None:
                self._starter.deliver(message)

    def _write(self) -> None:
        batch = [*self._unwritten, *self._settler._waiting]
        self._settler._waiting.clear()
        self._unwritten = self._settler._write(batch) if batch else []
