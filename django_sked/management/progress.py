"""How far a long command is: a line that is written over, where a terminal is attached, and nothing elsewhere."""

from __future__ import annotations

from typing import Any

from django_sked import clock

#: Seconds between two lines.
INTERVAL = 0.2


class Progress:
    """`out` is what the command writes to; `total` is None where that is not known."""

    def __init__(self, out: Any, total: int | None) -> None:
        self._out = out if out.isatty() else None
        self._total = total
        self._shown_at = clock.monotonic() - INTERVAL
        self._width = 0

    def show(self, done: int) -> None:
        if self._out is None or clock.monotonic() - self._shown_at < INTERVAL:
            return
        self._shown_at = clock.monotonic()
        text = f"{done:,}" if self._total is None else f"{done:,} of {self._total:,} ({self._share(done)}%)"
        self._out.write(f"\r{text.ljust(self._width)}", ending="")
        self._out.flush()
        self._width = len(text)

    def _share(self, done: int) -> int:
        return min(100, 100 * done // max(1, self._total or 1))

    def clear(self) -> None:
        if self._out is not None and self._width:
            self._out.write(f"\r{' ' * self._width}\r", ending="")
            self._out.flush()
