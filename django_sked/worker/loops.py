"""What every part of a worker with a thread of its own needs: a loop that survives errors and says so, sparingly."""

from __future__ import annotations

import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

from django.db import InterfaceError, OperationalError

from django_sked import clock
from django_sked.backends.base import BaseBackend
from django_sked.signals import send_safely, worker_error
from django_sked.worker import hygiene

#: Seconds between two reports of one step that keeps failing, or of a store that is away.
QUIET = 10.0
#: A step that rests for so many seconds keeps no connection meanwhile.
SELDOM = 30.0


class Reporter:
    """Tells `worker_error`, at most once in ten seconds per step, and of what is expected for all steps together: an
    outage meets every one of them, and is not a flood of log lines."""

    def __init__(self, worker: object, backend: BaseBackend) -> None:
        self._worker = worker
        self._backend = backend
        self._last: dict[str | None, float] = {}

    def report(self, step: str, error: BaseException) -> None:
        now = clock.monotonic()
        expected = self._is_expected(error)
        kind = None if expected else step
        if now - self._last.get(kind, float("-inf")) < QUIET:
            return
        self._last[kind] = now
        send_safely(
            worker_error, sender=type(self._worker), worker=self._worker, error=error, step=step, expected=expected
        )

    def _is_expected(self, error: BaseException) -> bool:
        # Where messages are no rows, recurrences are: a database that is away is no more than that.
        is_away = self._backend.database is None and isinstance(error, InterfaceError | OperationalError)
        return is_away or self._backend.is_expected(error)


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


class Part(threading.Thread, ABC):
    """A thread of the worker's own, without which that is none: `work` ends when it is told to, and never else."""

    def __init__(self, *, name: str) -> None:
        super().__init__(name=name, daemon=True)
        #: Has it ended although it was not to?
        self.is_lost = False

    @abstractmethod
    def work(self) -> None:
        """What it does."""

    @abstractmethod
    def may_end(self) -> bool:
        """Was it told to, or has it done everything?"""

    def run(self) -> None:
        try:
            self.work()
        finally:
            self.is_lost = not self.may_end()


class Loop(Part):
    """Calls `step` every `interval` seconds until stopped. A failing step is reported and tried again soon."""

    def __init__(
        self, name: str, interval: float, step: Callable[[], object], backend: BaseBackend, reporter: Reporter
    ) -> None:
        super().__init__(name=f"sked-{name}")
        self._step_name = name
        self._interval = interval
        self._step = step
        self._backend = backend
        self._reporter = reporter
        self._stopped = threading.Event()
        self._alarm = threading.Event()

    def stop(self) -> None:
        self._stopped.set()
        self._alarm.set()

    def soon(self) -> None:
        """Do the next step now."""
        self._alarm.set()

    def may_end(self) -> bool:
        return self._stopped.is_set()

    def work(self) -> None:
        backoff = Backoff(most=max(1.0, min(10.0, self._interval)))
        while not self._stopped.is_set():
            try:
                self._backend.prepare_thread(apart=True)
                self._step()
                backoff.reset()
                delay = self._interval
            except BaseException as error:  # also SystemExit from somebody who listens to the facts
                self._reporter.report(self._step_name, error)
                delay = min(backoff.next(), self._interval)
            hygiene.clean(closing=delay >= SELDOM, thoroughly=True)
            self._alarm.wait(delay)
            self._alarm.clear()
        hygiene.clean(closing=True)
