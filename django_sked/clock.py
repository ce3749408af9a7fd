"""Time: this host's clock, and a store's clock told without asking the store each time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

monotonic = time.monotonic


def now() -> datetime:
    """This host's time, aware, in UTC."""
    return datetime.now(UTC)


class StoreClock:
    """The time of a store, from one reading and this host's monotonic clock.

    A reading is taken as if it were made when the answer *arrived*. It was made earlier, so this clock is late by up
    to one round trip and never fast: whoever waits for a due time by it comes later, not earlier. Steps of the
    host's wall clock change nothing.
    """

    def __init__(self, read: Callable[[], datetime], *, refresh: float = 60.0) -> None:
        self._read = read
        self._refresh = refresh
        self._lock = threading.Lock()
        self._base: tuple[datetime, float] | None = None

    def now(self) -> datetime:
        """The store's time; asks the store when the last reading is older than `refresh` seconds."""
        base = self._base
        if base is None or monotonic() - base[1] > self._refresh:
            base = self.read()
        return base[0] + timedelta(seconds=monotonic() - base[1])

    def read(self) -> tuple[datetime, float]:
        """Ask the store now; returns its time and the monotonic instant at which the answer arrived."""
        reading = self._read()
        with self._lock:
            self._base = (reading, monotonic())
            return self._base
