"""What a child of a supervisor is held by: a pipe that tells it to stop, and a limit to its memory."""

from __future__ import annotations

import logging
import os
import selectors
import sys
import threading
from pathlib import Path

from django_sked.worker.life import Life

if sys.platform != "win32":
    import resource

logger = logging.getLogger("django_sked.worker")

#: Seconds between two looks at the memory.
LOOK = 1.0
MIB = 1024 * 1024


class Tether(threading.Thread):
    """Stops the worker in order when a byte comes, or the end of the pipe: then the supervisor is gone. At the second
    byte, at once. And in order when the process has more than `max_rss` MiB: the supervisor will replace it."""

    def __init__(self, pipe: int, worker: Life, *, max_rss: int | None = None) -> None:
        super().__init__(name="sked-tether", daemon=True)
        self._pipe = pipe
        self._worker = worker
        self._max_rss = max_rss

    def run(self) -> None:
        asked = 0
        with selectors.DefaultSelector() as selector:
            selector.register(self._pipe, selectors.EVENT_READ)
            while asked < 2:
                if not selector.select(LOOK if self._max_rss else None):
                    self._look_at_memory()
                elif said := os.read(self._pipe, 16):
                    asked += len(said)
                    self._stop(asked)
                else:
                    logger.warning("supervisor_gone pid=%s", os.getpid())
                    self._worker.stop(0)
                    return

    def _stop(self, asked: int) -> None:
        # The same signal may have come to this process directly: the two together are one request.
        self._worker.stop(0)
        if asked >= 2:
            self._worker.request_stop()
            self._worker.request_stop()

    def _look_at_memory(self) -> None:
        used = resident()
        if self._max_rss and used > self._max_rss:
            logger.info("max_rss_exceeded pid=%s mib=%s", os.getpid(), used)
            self._max_rss = None
            self._worker.stop(0)


def resident() -> int:
    """The memory of this process in MiB; where the system tells no more, the most that it has ever had."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most // (MIB if sys.platform == "darwin" else 1024)
    return pages * os.sysconf("SC_PAGE_SIZE") // MIB
