"""Timeouts of receivers: an exception raised in the middle of one that takes too long, then its connections are cut,
and then it is written off.

Who wins when a receiver returns just as its time is up is decided by who takes its entry out of the dictionary: that
is one atomic operation. While the exception may arrive nothing is called but what is written in C, and so done or not
done: the lock inside of an Event or a Condition could be left locked for ever.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from django_sked import clock
from django_sked.backends.database import threads
from django_sked.exceptions import AttemptTimedOut

logger = logging.getLogger("django_sked.worker")

#: Seconds that a receiver has to end after the exception, at least and at most; in between, as long as its timeout.
GRACE = (1.0, 5.0)


class Abandoned(Exception):
    """This thread was written off while its receiver ran: whatever came of it is of no interest any more."""


class _Call:
    """One receiver that runs under a deadline."""

    __slots__ = ("abandon", "abandoned", "at", "fired", "grace", "is_cut", "over", "raised", "thread")

    def __init__(self, seconds: float, abandon: Callable[[int], None]) -> None:
        self.thread = threading.get_ident()
        self.at = clock.monotonic() + seconds
        self.grace = min(max(seconds, GRACE[0]), GRACE[1])
        self.abandon = abandon
        self.fired = False
        self.is_cut = False
        #: Held to cut its connections, lest that meet what its thread does next.
        self.over = threading.Lock()
        #: Released once AttemptTimedOut has been sent to the thread.
        self.raised = threading.Lock()
        self.raised.acquire()
        #: Set once everybody knows that the thread has been written off.
        self.abandoned = threading.Event()


class Deadlines:
    """Watches the receivers of one worker that have a timeout, with one thread, started for the first of them."""

    name = "sked-deadlines"

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._running: dict[int, _Call] = {}
        #: Those that were sent the exception, and have not ended.
        self._late: dict[int, _Call] = {}
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = False
        #: Has its thread ended although it was not to?
        self.is_lost = False

    def run(
        self,
        receiver: Callable[[], Any],
        seconds: float,
        abandon: Callable[[int], None],
        on_interrupt: Callable[[], None] = lambda: None,
    ) -> Any:
        """Call the receiver in this thread, and return what it returns; raises AttemptTimedOut when it is too slow.

        `on_interrupt` is called when it was too slow and has ended, whatever it made of the exception. One that
        ignores the exception may wait for a database, where it cannot arrive: the connections of its thread are cut.
        If that does not help, it is written off: `abandon` is called with its thread, in another one, and when the
        receiver returns in the end, `Abandoned` is raised.
        """
        self._begin()
        number, call = next(self._numbers), _Call(seconds, abandon)
        arrived = False
        try:
            try:
                # From here on the exception may arrive, at the latest moment just before the receiver is entered.
                self._running[number] = call
                self._wakes.put(None)
                return receiver()
            except AttemptTimedOut:
                arrived = True
                raise
            finally:
                if self._running.pop(number, None) is None and not arrived:
                    _absorb(call)
        finally:
            if call.fired:
                on_interrupt()
                with call.over:
                    is_ours = self._late.pop(number, None) is not None
                if not is_ours:
                    call.abandoned.wait()
                    raise Abandoned

    def stop(self) -> None:
        self._stopped = True
        self._wakes.put(None)

    def _begin(self) -> None:
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._stopped:
                    thread = threading.Thread(target=self._watch, name=self.name, daemon=True)
                    thread.start()
                    self._thread = thread

    def _watch(self) -> None:
        try:
            while not self._stopped:
                self._look()
        finally:
            self.is_lost = not self._stopped

    def _look(self) -> None:
        """Do what is due, and wait until something else is."""
        now = clock.monotonic()
        for number, call in list(self._running.items()):
            if call.at <= now and self._running.pop(number, None) is not None:
                self._interrupt(number, call, now)
        for number, call in list(self._late.items()):
            if call.at <= now and not self._cut(number, call, now) and self._late.pop(number, None) is not None:
                self._write_off(call)
        waits = [call.at for calls in (self._running, self._late) for call in list(calls.values())]
        with contextlib.suppress(queue.Empty):
            self._wakes.get(timeout=max(0.0, min(waits) - clock.monotonic()) if waits else None)
            while True:
                self._wakes.get_nowait()

    def _interrupt(self, number: int, call: _Call, now: float) -> None:
        call.fired = True
        call.at = now + call.grace
        self._late[number] = call
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(call.thread), ctypes.py_object(AttemptTimedOut))
        call.raised.release()

    def _cut(self, number: int, call: _Call, now: float) -> bool:
        """Cut its connections, once; true when it had any, so that it may end now."""
        if call.is_cut:
            return False
        with call.over:
            call.is_cut = number in self._late and threads.interrupt(call.thread)
        if call.is_cut:
            call.at = now + call.grace
            logger.warning("call_cut call=receiver interrupted=True")
        return call.is_cut

    @staticmethod
    def _write_off(call: _Call) -> None:
        try:
            call.abandon(call.thread)
        except Exception:
            logger.exception("not_abandoned thread=%s", call.thread)
        finally:
            call.abandoned.set()


def _absorb(call: _Call) -> None:
    """The exception is on its way, or was swallowed: let it arrive here, not in some later code of this thread."""
    call.raised.acquire()
    for _ in range(100):
        time.sleep(0)
