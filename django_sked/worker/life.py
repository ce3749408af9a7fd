"""The life of a worker: run in this thread or in one of its own, once, until somebody stops it."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self
from uuid import UUID

from django_sked import clock
from django_sked.exceptions import SkedError
from django_sked.signals import current_message
from django_sked.worker import hygiene
from django_sked.worker.waker import Waker

logger = logging.getLogger("django_sked.worker")

#: Seconds that receivers have to finish when the program ends under a worker.
FAREWELL = 5.0
#: Seconds between two moments at which the main thread surely hears of a signal: one that comes just as it begins to
#: wait does not wake it.
SIGNALS = 0.5


class Life(ABC):
    """What `Worker` lets its program do with it, whatever it does while it runs."""

    id: UUID

    def __init__(self) -> None:
        #: Set once it is registered and claims, or has ended before that.
        self.ready = threading.Event()
        self.exit_code = 0
        self._pid = os.getpid()
        self._waker = Waker()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        #: Another thread that it waits for before it ends, and that so must not wait for it.
        self._waits_for: threading.Thread | None = None
        self._error: BaseException | None = None
        self._stopping = self._requested = self._forced = False

    @abstractmethod
    def _run(self) -> int:
        """Deliver until `_stopping`; returns the exit code."""

    def run(self) -> int:
        """Deliver until stopped; returns the exit code.

        In another thread all the same: this one stays free for signals, which a call of a database may hold up.
        """
        self._begin()
        try:
            while not self._ended.wait(SIGNALS):
                pass
        except BaseException:
            self.stop()
            raise
        if self._error is not None:
            raise self._error
        return self.exit_code

    def start(self) -> Self:
        """Run in a thread of this program; returns once the worker is registered, or raises why it cannot be.

        It stops in order when the program's main thread ends, and then waits for its receivers a few seconds only.
        """
        self._begin()
        self.ready.wait()
        if self._error is not None and self._ended.wait():
            raise self._error
        return self

    def stop(self, timeout: float | None = None) -> bool:
        """Ask for a stop and wait for it: what runs is finished, what was not started is handed back.

        True when it has ended within `timeout` seconds. May be called again, from any thread; in a receiver, which is
        waited for itself, it only asks.
        """
        self._stopping = True
        self._waker.wake()
        if self._thread is None or self._is_copy:
            return True
        me = threading.current_thread()
        if me is self._thread or me is self._waits_for or current_message() is not None:
            return self._ended.is_set()
        return self._ended.wait(timeout)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end of a worker that ends by itself; true when it has ended."""
        return self._is_copy or self._ended.wait(timeout)

    def request_stop(self) -> None:
        """Stop in order; asked a second time, stop waiting for receivers. Takes no lock: for signal handlers."""
        self._forced = self._requested
        self._requested = self._stopping = True
        self._waker.wake()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until(self, done: Callable[[], bool]) -> bool:
        """Wait for receivers; false when a second request to stop came first."""
        while not done():
            if self._forced:
                return False
            self._waker.wait(0.1)
        return True

    def _refuse_a_second_run(self) -> None:
        if self._thread is not None:
            raise SkedError("A worker runs once: make a new one.")

    def _begin(self) -> None:
        self._refuse_a_second_run()
        if self._is_copy:
            raise SkedError("This worker was made before a fork, in the parent: make a new one in each process.")
        self._thread = threading.Thread(target=self._run_in_thread, name="sked-worker", daemon=True)
        _stop_with_the_program(self)
        self._thread.start()

    def _run_in_thread(self) -> None:
        try:
            self._run()
        except BaseException as error:
            if self.ready.is_set():
                logger.exception("worker_failed worker=%s", self.id)
            self._error = error
        finally:
            hygiene.clean(closing=True)
            self._finish()

    @property
    def _is_copy(self) -> bool:
        """Was it made in a process from which this one was forked? Its threads and its lease are there."""
        return self._pid != os.getpid()

    def _finish(self) -> None:
        _running.discard(self)
        self.ready.set()
        self._ended.set()


_running: set[Life] = set()


@functools.cache
def _register() -> None:
    # atexit comes too late: by then nobody may use a thread pool any more, as asynchronous receivers do.
    getattr(threading, "_register_atexit", atexit.register)(_stop_all)


def _stop_with_the_program(worker: Life) -> None:
    _running.add(worker)
    _register()


def _stop_all() -> None:
    """The program ends, and daemon threads with it: hand back what has not been started."""
    workers = [worker for worker in _running if not worker._is_copy]
    for worker in workers:
        worker.stop(0)
    _wait_for(workers)
    for worker in workers:
        worker.request_stop()
        worker.request_stop()
    _wait_for(workers)


def _wait_for(workers: Iterable[Life]) -> None:
    until = clock.monotonic() + FAREWELL
    for worker in workers:
        worker.wait(max(0.0, until - clock.monotonic()))
