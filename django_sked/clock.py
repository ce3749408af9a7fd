"""Time: this host's clock, and a store's clock told without asking the store each time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

monotonic = time.monotonic


_pretended: ContextVar[datetime | None] = ContextVar("django_sked_pretended_time", default=None)


def now() -> datetime:
    """This host's time, aware, in UTC."""
    return _pretended.get() or datetime.now(UTC)


def pretended() -> datetime | None:
    """The time that `pretend` says it is in this context."""
    return _pretended.get()


@contextmanager
def pretend(now: datetime | None) -> Iterator[None]:
    """For tests: in this context, let every clock here stand still at `now`; None changes nothing."""
    token = _pretended.set(now or _pretended.get())
    try:
        yield
    finally:
        _pretended.reset(token)


def pretend_again(now: datetime) -> None:
    """Within `pretend`: from here on it is another time."""
    _pretended.set(now)


#: How much faster or slower the clocks of two machines may run: what is known of a store's time ages by so much.
DRIFT = 100e-6
#: Binary fractions cannot hold every microsecond: this much later is surely not earlier.
_ROUNDING = 1e-6


class StoreClock:
    """The time of a store, from readings of it and this host's monotonic clock.

    A reading was made somewhere between question and answer. Taken as if it were made when the *answer* came, it is
    late by a part of that time and never fast: whoever waits for a due time by this clock comes later, not earlier.
    The best reading is kept, worth less the older it is; one that contradicts it, as after a step of the store's
    clock, replaces it. Steps of the host's wall clock change nothing.
    """

    def __init__(self, read: Callable[[], datetime], *, refresh: float = 60.0) -> None:
        self._read = read
        self._refresh = refresh
        self._lock = threading.Lock()
        #: Seconds by which the store's time is ahead of the monotonic clock, and when that was known.
        self._ahead: tuple[float, float] | None = None

    def now(self) -> datetime:
        """The store's time; asks the store when the last reading is older than `refresh` seconds."""
        if pretended := _pretended.get():
            return pretended
        known = self._ahead
        if known is None or monotonic() - known[1] > self._refresh:
            known = self.read()
        ahead, at = known
        instant = monotonic()
        return datetime.fromtimestamp(ahead + instant - DRIFT * max(0.0, instant - at) - _ROUNDING, UTC)

    def monotonic_at(self, at: datetime) -> float:
        """The earliest instant of the monotonic clock at which the store's time is surely `at`, or later."""
        ahead, since = self._ahead or self.read()
        return since + (at.timestamp() - ahead - since) / (1 - DRIFT) + _ROUNDING

    def read(self) -> tuple[float, float]:
        """Ask the store now."""
        sent = monotonic()
        reading = self._read().timestamp()
        received = monotonic()
        with self._lock:
            if self._ahead is not None:
                ahead, at = self._ahead
                ahead -= DRIFT * max(0.0, received - at)
                if reading - received <= ahead <= reading - sent:
                    self._ahead = (ahead, received)
                    return self._ahead
            self._ahead = (reading - received, received)
            return self._ahead
