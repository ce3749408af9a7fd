"""What a worker does once a second where recurrences are: as people want it, for people to see, and their ticks.

That is with the messages, or, where these are no rows, in a database apart: its one thread, and one connection.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from datetime import datetime
from uuid import UUID

from django_sked import clock
from django_sked.backends.base import BaseBackend
from django_sked.models import ScheduledMessage
from django_sked.worker.controls import Controls
from django_sked.worker.options import WorkerOptions
from django_sked.worker.pool import Pool
from django_sked.worker.promoter import INTERVAL, Promoter
from django_sked.worker.rollups import Rollups


class Operating:
    """Its `step` is called each second. `release` takes messages that were not started, `tell` brings the row of the
    worker up to date, `drain` lets it finish and stop."""

    def __init__(
        self,
        backend: BaseBackend,
        worker: UUID,
        options: WorkerOptions,
        now: Callable[[], datetime],
        watch: Callable[[str, str], AbstractContextManager[None]],
        *,
        wake: Callable[[], None],
        pools: Callable[[], Iterable[Pool]],
        release: Callable[[Collection[ScheduledMessage]], None],
        tell: Callable[[], None],
        drain: Callable[[], None],
    ) -> None:
        self.controls = Controls(backend, worker, now, self._obey, drain, watch)
        self.rollups = Rollups(backend, now, watch, self._between)
        self._promoter = Promoter(backend, wake, watch, self._between)
        self._options = options
        self._looked_at = float("-inf")
        self._wake = wake
        self._pools = pools
        self._release = release
        self._tell = tell
        #: Whether queues may be scaled: a loop of your own takes one message at a time.
        self.scales = True

    def step(self) -> None:
        try:
            self._look()
        finally:
            self._promoter.step()
        self.rollups.step()

    def _look(self) -> None:
        self._looked_at = clock.monotonic()
        self.controls.step()
        self._withdraw()

    def _between(self) -> None:
        """Ticks that take long to be made up for hold up nobody who pauses a queue."""
        if clock.monotonic() - self._looked_at >= INTERVAL:
            self._look()

    def size_of(self, queue: str) -> int:
        """The threads of a queue: as people want it now, else as the worker was started."""
        return self.controls.size_of(queue) or self._options.size_of(queue) if self.scales else 1

    def _obey(self) -> None:
        """Queues were paused, resumed or scaled."""
        for pool in self._pools():
            size = self.size_of(pool.queue)
            if size != pool.size:
                pool.resize(size)
                self._tell()
        self._wake()

    def _withdraw(self) -> None:
        """Again each second: a claim may have been under way when the queue was paused."""
        if self.controls.paused:
            for pool in self._pools():
                if self.controls.is_paused(pool.queue):
                    self._release(pool.withdraw())
