"""Time: this host's clock, and a store's clock told without asking the store each time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta

monotonic = time.monotonic


_pretended: ContextVar[datetime | None] = ContextVar("django_sked_pretended_time", default=None)


def now() -> datetime:
    """This host's time, aware, in UTC."""
    return _pretended.get() or datetime.now(UTC)


@contextmanager
def pretend(now: datetime | None) -> Iterator[None]:
    """For tests: in this context, let every clock here stand still at `now`; None changes nothing."""
    token = _pretended.set(now or _pretended.get())
    try:
        yield
    finally:
        _pretended.reset(token)


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
        if pretended := _pretended.get():
            return pretended
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
