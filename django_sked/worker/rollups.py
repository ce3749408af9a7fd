"""What this worker has delivered, by queue and minute: counted in memory, and written once a minute."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime

from django_sked import clock, histogram
from django_sked.backends.base import BaseBackend
from django_sked.models import QueueMinute, ScheduledMessage
from django_sked.models.minute import COUNTS, KEPT
from django_sked.outcomes import Outcome

logger = logging.getLogger("django_sked.worker")

#: Seconds, at most, that a worker waits after a minute before it writes: not all of them at the same moment.
SPREAD = 5.0
#: Seconds between two looks for rows that are to be deleted.
PRUNE = 600.0
#: Minutes of queues that are kept while the database is away, at most.
MOST_KEPT = 5000


class Rollups:
    """`add` is called for each message, from any thread, and asks nobody. `step` is called each second."""

    def __init__(
        self,
        backend: BaseBackend,
        now: Callable[[], datetime],
        watch: Callable[[str, str], AbstractContextManager[None]] = lambda name, using: nullcontext(),
    ) -> None:
        self._backend = backend
        self._now = now
        self._watch = watch
        self._lock = threading.Lock()
        #: (minute, queue) -> delivered, failed, and how many were started in each class of lateness.
        self._minutes: dict[tuple[int, str], list[int]] = {}
        self._after = random.uniform(0.0, SPREAD)
        self._pruned_at = float("-inf")

    def started(self) -> float:
        """The store's time, in seconds, as a receiver is started: to be given to `add`."""
        return self._now().timestamp()

    def add(self, message: ScheduledMessage, started: float, outcome: Outcome | None) -> None:
        """Count a dispatch; not what was given back without an attempt."""
        if outcome is None or outcome.step == "release" or not outcome.has_begun:
            return
        place = (int(started) // 60, message.queue)
        late = 2 + histogram.class_of(started - message.next_at.timestamp())
        with self._lock:
            counts = self._minutes.get(place)
            if counts is None:
                counts = self._minutes[place] = [0] * len(COUNTS)
            counts[outcome.step != "deliver"] += 1
            counts[late] += 1

    def step(self) -> None:
        """Write the minutes that are over; those that cannot be written are kept for the next time."""
        if self._minutes:
            self._write(int(self._now().timestamp() - self._after) // 60)

    def finish(self) -> None:
        """Write everything: the worker ends."""
        if self._minutes:
            self._write(float("inf"))

    def _write(self, before: float) -> None:
        with self._lock:
            ready = sorted(place for place in self._minutes if place[0] < before)
        if not ready:
            return
        with self._watch("rollups", QueueMinute.objects.of(self._backend).db):
            for place in ready:
                self._write_one(place)
            self._prune()

    def _write_one(self, place: tuple[int, str]) -> None:
        with self._lock:
            counts = self._minutes.pop(place)
        try:
            QueueMinute.objects.add(self._backend, *place, dict(zip(COUNTS, counts, strict=True)))
        except BaseException:
            self._keep(place, counts)
            raise

    def _keep(self, place: tuple[int, str], counts: list[int]) -> None:
        with self._lock:
            if len(self._minutes) >= MOST_KEPT:
                logger.warning("rollups_dropped queue=%s backend=%s", place[1], self._backend.alias)
                return
            newer = self._minutes.get(place)
            self._minutes[place] = [a + b for a, b in zip(counts, newer, strict=True)] if newer else counts

    def _prune(self) -> None:
        present = clock.monotonic()
        if present - self._pruned_at >= PRUNE:
            self._pruned_at = present
            oldest = int((self._now() - KEPT).timestamp()) // 60
            rows = QueueMinute.objects.of(self._backend).filter(minute__lt=oldest)
            rows._raw_delete(rows.db)
