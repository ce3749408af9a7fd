"""What this worker has delivered, by queue and minute: counted in memory, and written once a minute.

A write whose reply is lost is made again: had it been committed, its minute is counted twice.
"""

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
#: Rows that are deleted by one statement.
BATCH = 500
#: Minutes of queues that are kept while the database is away, at most.
MOST_KEPT = 5000


class Rollups:
    """`add` is called for each message, from any thread, and asks nobody. `step` is called each second.

    `between` is called between two writes of a step: with many queues they may take a while.
    """

    def __init__(
        self,
        backend: BaseBackend,
        now: Callable[[], datetime],
        watch: Callable[[str, str], AbstractContextManager[None]] = lambda name, using: nullcontext(),
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self._backend = backend
        self._now = now
        self._watch = watch
        self._between = between
        self._lock = threading.Lock()
        #: (minute, queue) -> delivered, failed, and how many were started in each class of lateness.
        self._minutes: dict[tuple[int, str], list[int]] = {}
        #: Seconds by which the store's time is ahead of the monotonic clock.
        self._ahead: float | None = None
        self._after = random.uniform(0.0, SPREAD)
        self._pruned_at = float("-inf")

    def started(self) -> float:
        """The store's time, in seconds, as a receiver is started: to be given to `add`."""
        ahead = self._ahead
        if ahead is None:
            ahead = self._look()
        return clock.monotonic() + ahead

    def _look(self) -> float:
        # Once a second: to make an instant of it for each message would be a part of what that costs in all.
        self._ahead = ahead = self._now().timestamp() - clock.monotonic()
        return ahead

    def add(self, message: ScheduledMessage, started: float, outcome: Outcome | None) -> None:
        """Count a dispatch; not what was given back without an attempt. One that comes again without an error, as after
        Reschedule, is neither delivered nor failed."""
        if outcome is None or outcome.step == "release" or not outcome.has_begun:
            return
        place = (int(started) // 60, message.queue)
        late = 2 + histogram.class_of(started - message.next_at.timestamp())
        with self._lock:
            counts = self._minutes.get(place)
            if counts is None:
                self._make_room()
                counts = self._minutes[place] = [0] * len(COUNTS)
            if outcome.step == "deliver":
                counts[0] += 1
            elif outcome.errors:
                counts[1] += 1
            counts[late] += 1

    def _make_room(self) -> None:
        """For one more; the lock is held. The oldest minutes are dropped, each with all its queues."""
        while len(self._minutes) >= MOST_KEPT:
            oldest = min(self._minutes)[0]
            places = [place for place in self._minutes if place[0] == oldest]
            for place in places:
                del self._minutes[place]
            logger.warning("rollups_dropped queues=%s backend=%s", len(places), self._backend.alias)

    def step(self) -> None:
        """Write the minutes that are over; those that cannot be written are kept for the next time."""
        if self._minutes:
            self._write(int(self._look() + clock.monotonic() - self._after) // 60, self._between)

    def finish(self) -> None:
        """Write everything: the worker ends."""
        if self._minutes:
            self._write(float("inf"), lambda: None)

    def _write(self, before: float, between: Callable[[], None]) -> None:
        with self._lock:
            ready = sorted(place for place in self._minutes if place[0] < before)
        if not ready:
            return
        using = QueueMinute.objects.of(self._backend).db
        for place in ready:
            with self._watch("rollups", using):
                self._write_one(place)
            between()
        self._prune(between)

    def _write_one(self, place: tuple[int, str]) -> None:
        with self._lock:
            counts = self._minutes.pop(place, None)
        if counts is None:  # dropped meanwhile
            return
        try:
            QueueMinute.objects.add(self._backend, *place, dict(zip(COUNTS, counts, strict=True)))
        except BaseException:
            self._keep(place, counts)
            raise

    def _keep(self, place: tuple[int, str], counts: list[int]) -> None:
        with self._lock:
            newer = self._minutes.pop(place, None)
            self._make_room()
            self._minutes[place] = [a + b for a, b in zip(counts, newer, strict=True)] if newer else counts

    def _prune(self, between: Callable[[], None] = lambda: None) -> None:
        present = clock.monotonic()
        if present - self._pruned_at < PRUNE:
            return
        self._pruned_at = present
        oldest = int((self._now() - KEPT).timestamp()) // 60
        rows = QueueMinute.objects.of(self._backend)
        old = rows.filter(minute__lt=oldest).order_by("minute").values_list("pk", flat=True)
        is_over = False
        while not is_over:
            with self._watch("rollups", rows.db):
                chosen = list(old[:BATCH])
                if chosen:
                    rows.filter(pk__in=chosen)._raw_delete(rows.db)
            is_over = len(chosen) < BATCH
            between()
