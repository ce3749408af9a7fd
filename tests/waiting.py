"""Waiting for what has no signal of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def until(condition: Callable[[], object], seconds: float = 30.0) -> float:
    """Look until it holds, and return when that was seen, by the monotonic clock; fails when it does not in time."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"It did not come true within {seconds} s."
        pause.wait(0.01)
    return time.monotonic()
