"""What a process remembers of the bands of each queue, so that a quick claim need not look for it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from django_sked.clock import monotonic

#: Seconds for which the bands of a queue are taken to be known, and for which a floor may hide an earlier message.
KNOWN = 1.0
#: Seconds for which they are remembered, where it is asked in between whether there are others.
REMEMBERED = 3.0
#: Queues that are remembered: beyond that, those which nobody has asked for lately are forgotten.
MOST_QUEUES = 1000
#: A floor trails the store's time by at least so much: another host's estimate of that time lies a round trip behind
#: it, and a transaction commits some time after it has scheduled.
MARGIN = timedelta(seconds=0.25)
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_NEVER: tuple[float, float, list[int]] = (float("-inf"), float("-inf"), [])


class Look(NamedTuple):
    """A look into the store that has begun: what had been hinted at until then, and how high it may raise a floor."""

    of_priorities: int
    of_times: int
    limit: datetime


class Bands:
    """The priorities in use and the *floor* of each band, the next_at before which there is nothing left to claim.

    Rows before the floor are gone, but while some old transaction keeps them from being vacuumed the index still leads
    through them, at 50 times the cost. Whatever comes to lie before a floor all the same, by a late commit or a
    change, is met when the floor is forgotten, once a second, or at once after a hint. Used by several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: Queue -> when its priorities were last known to be all, when they were looked up, and which.
        self._priorities: dict[str, tuple[float, float, list[int]]] = {}
        self._floors: dict[tuple[str, int], tuple[float, datetime]] = {}
        # Hints so far that may have been about a new priority, and about an earlier time than some floor.
        self._of_priorities = self._of_times = 0
        self._highest = _LONG_AGO

    def begin(self, now: datetime | None = None) -> Look:
        """Called before the store is asked; `now` is the store's time, for a claim."""
        with self._lock:
            limit = _LONG_AGO if now is None else now - MARGIN
            self._highest = max(self._highest, limit)
            return Look(self._of_priorities, self._of_times, limit)

    def known(self, queue: str) -> list[int] | None:
        """The priorities in use, highest first; None when they are to be looked up."""
        known_at, _, priorities = self._priorities.get(queue, _NEVER)
        return priorities if monotonic() - known_at < KNOWN else None

    def remembered(self, queue: str) -> list[int] | None:
        """Those that were in use a while ago; None when that was too long ago."""
        _, looked_at, priorities = self._priorities.get(queue, _NEVER)
        return priorities if monotonic() - looked_at < REMEMBERED else None

    def confirmed(self, queue: str, priorities: Sequence[int], *, since: Look) -> None:
        """No others than these were in use when this look began; perhaps not all of these any more."""
        with self._lock:
            if since.of_priorities == self._of_priorities and queue in self._priorities:
                self._priorities[queue] = (monotonic(), self._priorities[queue][1], list(priorities))

    def looked(self, queue: str, priorities: Sequence[int], *, since: Look) -> None:
        """These priorities were in use when this look began."""
        with self._lock:
            if since.of_priorities == self._of_priorities:
                self._priorities[queue] = (now := monotonic(), now, list(priorities))
                if len(self._priorities) > MOST_QUEUES:
                    self._forget(now - REMEMBERED)

    def floor(self, queue: str, band: int) -> datetime | None:
        """Where to begin in this band; None once a second, to look from its very beginning."""
        with self._lock:
            begun_at, floor = self._floors.get((queue, band), (float("-inf"), None))
            if floor is not None and monotonic() - begun_at >= KNOWN:
                del self._floors[queue, band]
                return None
            return floor

    def floors(self, queue: str) -> dict[int, datetime | None] | None:
        """Where to begin in each band, as far as that is known; None when the priorities are to be looked up.

        For who only asks what is next: no floor is forgotten by that.
        """
        with self._lock:
            if (known := self.known(queue)) is None:
                return None
            fresh = monotonic() - KNOWN
            floors = {band: self._floors.get((queue, band)) for band in known}
            return {band: held[1] if held and held[0] > fresh else None for band, held in floors.items()}

    def claimed(self, queue: str, band: int, last: datetime, *, since: Look) -> None:
        """Everything in this band up to `last` is taken. Claimed ahead, it says nothing of what comes meanwhile."""
        with self._lock:
            # A message that was hinted at after this claim began may not have been there for it to see.
            if since.of_times == self._of_times:
                begun_at, _ = self._floors.get((queue, band), (monotonic(), None))
                self._floors[queue, band] = (begun_at, min(last, since.limit))

    def look_back(self, at: datetime, queue: str | None, priority: int | None) -> None:
        """A message for `at` has been committed: see `BaseBackend.look_back`."""
        with self._lock:
            if queue is None:
                for name in self._priorities:
                    self._doubt(name)
                self._of_priorities += 1
            elif priority is None or (known := self.known(queue)) is None:
                self._doubt(queue)
                self._of_priorities += 1
            elif priority not in known:
                known_at, looked_at, _ = self._priorities[queue]
                self._priorities[queue] = (known_at, looked_at, sorted([*known, priority], reverse=True))
                self._of_priorities += 1
            self._of_times += at < self._highest
            for (name, band), (begun_at, floor) in self._floors.items():
                if floor > at and queue in (None, name):
                    self._floors[name, band] = (begun_at, at)

    def _forget(self, before: float) -> None:
        self._priorities = {queue: found for queue, found in self._priorities.items() if found[1] > before}
        self._floors = {name: floor for name, floor in self._floors.items() if name[0] in self._priorities}

    def _doubt(self, queue: str) -> None:
        """There may be other priorities, too: ask before the next claim."""
        if queue in self._priorities:
            _, looked_at, priorities = self._priorities[queue]
            self._priorities[queue] = (float("-inf"), looked_at, priorities)
