"""Several workers under one command: processes that are forked before anything is open, and replaced when they die."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import NoReturn

from django.db import connections

from django_sked import clock
from django_sked.worker.life import SIGNALS
from django_sked.worker.loops import Backoff
from django_sked.worker.waker import Waker
from django_sked.worker.worker import EXIT_ABANDONED, EXIT_STUCK

logger = logging.getLogger("django_sked.worker")

#: How a child ends that could not even begin. If it is the first in its place, so would all others.
EXIT_NOT_STARTED = 78
#: How a child ends whose worker says 0: what a receiver ends by `os._exit(0)` has not ended in order.
IN_ORDER = 79
#: Seconds before a child that died is replaced, doubled each time up to the second; after one that lived `LONG`, from
#: the first again.
RESTART = (0.1, 30.0)
LONG = 60.0
#: Seconds that children have after a second request to stop, to which they answer within three.
LAST = 5.0


@dataclass(slots=True, kw_only=True)
class Place:
    """One of the processes, whichever child fills it at the moment."""

    pid: int | None = None
    #: When to start a child, while there is none; None for never again.
    start_at: float | None = float("-inf")
    started_at: float = 0.0
    starts: int = 0
    backoff: Backoff = field(default_factory=lambda: Backoff(*RESTART))
    #: Our end of the child's `Tether`, and how many requests to stop were sent by it.
    pipe: int | None = None
    told: int = 0
    is_killed: bool = False


class Supervisor:
    """Keeps as many children alive as it has places, until it is asked to stop; then waits for the last of them.

    `work` is called in each child, with its end of a pipe for a `Tether`, and returns the child's exit code. With
    `ends`, a child that exits with 0 is not replaced. Only for a program's main thread, before it has others.
    """

    def __init__(self, work: Callable[[int], int], processes: int, *, ends: bool = False) -> None:
        self._work = work
        self._ends = ends
        self._places = [Place() for _ in range(processes)]
        self._waker = Waker()
        self._asked = 0
        self._kill_at = float("inf")
        self._worst = 0

    def request_stop(self) -> None:
        """Have the children stop in order; asked a second time, at once. Takes no lock: for signal handlers."""
        self._asked += 1
        self._waker.wake()

    def run(self) -> int:
        """Returns the worst exit code of the children that ended after a request to stop, or could not begin."""
        close_connections()
        if threading.active_count() > 1:
            names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
            logger.warning("fork_with_threads threads=%s", ",".join(names))
        with self._waker, _woken_by_children(self._waker):
            while True:
                self._reap()
                self._pass_on()
                self._fill()
                if not any(place.pid or place.start_at is not None for place in self._places):
                    return self._worst
                self._waker.wait(self._seconds_to_wait())

    def _seconds_to_wait(self) -> float:
        instants = [place.start_at for place in self._places if place.start_at is not None]
        return min(SIGNALS, min([*instants, self._kill_at]) - clock.monotonic())

    # Start

    def _fill(self) -> None:
        for place in self._places:
            if self._asked:
                place.start_at = None
            elif place.start_at is not None and place.start_at <= clock.monotonic():
                self._start(place)

    def _start(self, place: Place) -> None:
        # They wait until the child has somebody to hear them.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        reader: int | None = None
        try:
            reader, place.pipe = os.pipe()
            sys.stdout.flush()
            sys.stderr.flush()
            pid = os.fork()
            if pid == 0:
                self._become_child(reader)
            place.pid, place.start_at, place.started_at = pid, None, clock.monotonic()
            place.starts += 1
            place.told = 0
            logger.info("child_started pid=%s", pid)
        except OSError as error:
            if place.pipe is not None:
                os.close(place.pipe)
                place.pipe = None
            place.start_at = clock.monotonic() + place.backoff.next()
            logger.error("not_forked error=%s", error.strerror)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            if reader is not None:
                os.close(reader)

    def _become_child(self, reader: int) -> NoReturn:
        code = 1
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for place in self._places:
                if place.pipe is not None:
                    os.close(place.pipe)  # a child must not keep its own tether, or another's, from breaking
            code = self._work(reader)
        except BaseException:
            logger.exception("child_failed pid=%s", os.getpid())
        finally:
            leave(code or IN_ORDER)

    # Stop

    def _pass_on(self) -> None:
        """Tell the children how often we were asked. Not by signals: Ctrl-C and systemd send one to each of us, and
        ours would be the second."""
        asked = min(self._asked, 2)
        for place in self._places:
            if place.pipe is not None and place.told < asked:
                with suppress(OSError):  # it has just ended
                    os.write(place.pipe, b"." * (asked - place.told))
                if asked == 2:
                    self._kill_at = clock.monotonic() + LAST
                place.told = asked
        if clock.monotonic() >= self._kill_at:
            self._kill_at = float("inf")
            self._kill()

    def _kill(self) -> None:
        for place in self._places:
            if place.pid:
                place.is_killed = True
                os.kill(place.pid, signal.SIGKILL)

    def _reap(self) -> None:
        for place in self._places:
            if not place.pid:
                continue
            # One by one: the project may have children of its own.
            pid, status = os.waitpid(place.pid, os.WNOHANG)
            if pid:
                self._ended(place, os.waitstatus_to_exitcode(status))

    def _ended(self, place: Place, code: int) -> None:
        lived = clock.monotonic() - place.started_at
        has_died = code != IN_ORDER
        code = 0 if code == IN_ORDER else code
        level = logging.WARNING if has_died and not place.is_killed else logging.INFO
        logger.log(level, "child_ended pid=%s by=%s lived=%.1f", place.pid, _manner(code), lived)
        place.pid = None
        if place.pipe is not None:
            os.close(place.pipe)
            place.pipe = None
        if code == EXIT_NOT_STARTED and place.starts == 1:
            self._worst = max(self._worst, 1)
            self._asked = max(self._asked, 1)
        elif self._asked:
            # One that was killed, or crashed, has also left something to the rescue.
            self._worst = max(self._worst, EXIT_ABANDONED if has_died and code != EXIT_STUCK else code)
        elif has_died:
            if lived >= LONG:
                place.backoff.reset()
            place.start_at = clock.monotonic() + place.backoff.next()
        elif not self._ends:
            place.start_at = clock.monotonic()


def _manner(code: int) -> str:
    if code >= 0:
        return f"exit:{code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal:{-code}"


@contextmanager
def _woken_by_children(waker: Waker) -> Iterator[None]:
    previous = signal.signal(signal.SIGCHLD, lambda *_: waker.wake())
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, previous)


def close_connections() -> None:
    """A connection that two processes have would be the ruin of both."""
    for connection in connections.all(initialized_only=True):
        connection.close()
        if hasattr(connection, "close_pool"):
            connection.close_pool()


def leave(code: int) -> NoReturn:
    """End this process without waiting for its threads, some of which may never end."""
    for finish in (logging.shutdown, sys.stdout.flush, sys.stderr.flush):
        with suppress(Exception):
            finish()
    os._exit(code)
