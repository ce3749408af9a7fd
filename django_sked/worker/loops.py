"""What every part of a worker with a thread of its own needs: a loop that survives errors and says so, sparingly."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from django_sked import clock
from django_sked.backends.base import BaseBackend
from django_sked.signals import send_safely, worker_error
from django_sked.worker import hygiene

#: Seconds between two reports of one step that keeps failing.
QUIET = 10.0


class Reporter:
    """Tells `worker_error`, at most once in ten seconds per step: an outage is not a flood of log lines."""

    def __init__(self, worker: object, backend: BaseBackend) -> None:
        self._worker = worker
        self._backend = backend
        self._last: dict[str, float] = {}

    def report(self, step: str, error: BaseException) -> None:
        now = clock.monotonic()
        if now - self._last.get(step, float("-inf")) < QUIET:
            return
        self._last[step] = now
        expected = self._backend.is_expected(error)
        send_safely(
            worker_error, sender=type(self._worker), worker=self._worker, error=error, step=step, expected=expected
        )


class Backoff:
    """Waits between tries of a store that fails: doubled each time up to `most` seconds, with jitter."""

    def __init__(self, first: float = 0.1, most: float = 10.0) -> None:
        self._first, self._most = first, most
        self._tries = 0

    def next(self) -> float:
        delay = min(self._most, self._first * 2.0 ** min(self._tries, 20))
        self._tries += 1
        return delay * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        self._tries = 0


class Loop(threading.Thread):
    """Calls `step` every `interval` seconds until stopped. A failing step is reported and tried again soon."""

    def __init__(
        self, name: str, interval: float, step: Callable[[], object], backend: BaseBackend, reporter: Reporter
    ) -> None:
        super().__init__(name=f"sked-{name}", daemon=True)
        self._step_name = name
        self._interval = interval
        self._step = step
        self._backend = backend
        self._reporter = reporter
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        backoff = Backoff(most=max(1.0, min(10.0, self._interval)))
        while not self._stopped.is_set():
            try:
                self._backend.prepare_thread()
                self._step()
                backoff.reset()
                delay = self._interval
            except BaseException as error:  # also SystemExit from somebody who listens to the facts
                self._reporter.report(self._step_name, error)
                delay = min(backoff.next(), self._interval)
            hygiene.clean()
            self._stopped.wait(delay)
        hygiene.clean(closing=True)
