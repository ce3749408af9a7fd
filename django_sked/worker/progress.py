"""What receivers tell of their progress: written at once, then at most ten times a second, for all of them together.

`tell` is called in the middle of a receiver, where an exception of a deadline may arrive, or on the event loop: it
takes no lock and waits for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Iterable
from uuid import UUID

from django_sked.backends.base import BaseBackend
from django_sked.exceptions import LeaseLost
from django_sked.worker import hygiene
from django_sked.worker.answers import Attempt
from django_sked.worker.loops import SELDOM, Backoff, Part, Reporter

logger = logging.getLogger("django_sked.worker")

#: Seconds between two writes.
INTERVAL = 0.1


class ProgressWriter(Part):
    """The thread that writes. What it has not written when an attempt ends is written by the settle."""

    def __init__(self, backend: BaseBackend, reporter: Reporter) -> None:
        super().__init__(name="sked-progress")
        self._backend = backend
        self._reporter = reporter
        self._told: dict[UUID, Attempt] = {}
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._backoff = Backoff(INTERVAL)

    def tell(self, attempt: Attempt) -> None:
        """Have the present progress of this attempt written."""
        if self._told.get(attempt.message.id) is not attempt:
            self._told[attempt.message.id] = attempt
            self._wakes.put(None)

    def stop(self) -> None:
        self._stopped.set()
        self._wakes.put(None)

    def may_end(self) -> bool:
        return self._stopped.is_set()

    def work(self) -> None:
        while not self._stopped.is_set():
            try:
                self._wakes.get(timeout=SELDOM)
            except queue.Empty:
                hygiene.clean(closing=True)
                continue
            self._stopped.wait(self._write())
        hygiene.clean(closing=True)

    def _write(self) -> float:
        """Write what was told; returns after how many seconds to look again."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._wakes.get_nowait()
        attempts = []
        while self._told:  # one by one, as others add to it
            attempts.append(self._told.popitem()[1])
        try:
            self._backend.prepare_thread(apart=True)
            write(self._backend, attempts)
            hygiene.clean()
            self._backoff.reset()
            return INTERVAL
        except BaseException as error:
            with contextlib.suppress(BaseException):  # the project's own logging may be what raises
                self._reporter.report("progress", error)
                hygiene.clean(thoroughly=True)
            for attempt in attempts:
                self._told.setdefault(attempt.message.id, attempt)
            self._wakes.put(None)
            return self._backoff.next()


def write(backend: BaseBackend, attempts: Iterable[Attempt]) -> None:
    """Write their progress, and mark those whose message is somebody else's by now."""
    ours = {attempt.message.id: attempt for attempt in attempts if not attempt.is_over}
    known = {id: (attempt.message.token, attempt.progress or 0) for id, attempt in ours.items()}
    for id in backend.set_progress(known) if known else ():
        if not ours[id].is_over:
            ours[id].is_lost = True
            logger.warning("lease_lost id=%s token=%s step=progress", id, ours[id].message.token)


def write_now(backend: BaseBackend, attempt: Attempt) -> None:
    """Without a thread of its own, as in tests; on an event loop nothing may wait, and the settle writes it."""
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        return
    write(backend, [attempt])
    if attempt.is_lost:
        raise LeaseLost(f"Message {attempt.message.pk} is held by another worker by now, or has ended.")
