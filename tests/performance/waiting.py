"""Waiting for what processes do."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence

#: Seconds.
LONGEST = 600


def wait_for(condition: Callable[[], bool], running: Sequence[subprocess.Popen[bytes]], every: float = 0.02) -> None:
    deadline = time.monotonic() + LONGEST
    while not condition():
        if any(worker.poll() is not None for worker in running):
            raise SystemExit("A worker ended by itself.")
        if time.monotonic() > deadline:
            raise SystemExit(f"Nothing came of it within {LONGEST} s.")
        time.sleep(every)
