"""Log lines that an outage would make a flood of."""

from __future__ import annotations

from django_sked.clock import monotonic


class Quiet:
    """Ten seconds between two log lines: an outage is no flood of them."""

    def __init__(self, seconds: float = 10.0) -> None:
        self._seconds = seconds
        self._last = float("-inf")

    def is_over(self) -> bool:
        now = monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True
