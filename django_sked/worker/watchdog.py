"""Watches a worker's store calls: one that neither returns nor fails is cut, and if that does not help, given up.

What surrounds an atomic receiver is watched by a `Guard`: there the thread is given up, and not the worker.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, Self, cast

from django_sked import clock, signals
from django_sked.backends.base import BaseBackend
from django_sked.backends.database import threads
from django_sked.worker import hygiene
from django_sked.worker.deadlines import Abandoned
from django_sked.worker.loops import QUIET

logger = logging.getLogger("django_sked.worker")

#: What a worker calls in threads of its own.
CALLS = frozenset(
    {
        *("register", "beat", "retire", "queues", "next_due_at", "claim", "has_suspects", "claim_suspect"),
        *("settle", "held_by", "has_lapsed", "rescue", "expire", "unblock", "prune", "set_progress"),
        *("find", "now", "read_now"),
    }
)
#: Seconds between two looks.
INTERVAL = 0.25
#: Seconds that a call has when the worker was asked to stop, and when it was asked a second time.
PATIENCE = (5.0, 1.0)
#: Seconds for which a call may wait for its turn where a database lets one write at a time.
LONGEST_TURN = 30.0
#: Seconds after the second request at which nothing is waited for any more.
LAST = 3.0


class Call:
    """A store call that is under way; without one that is not vital the worker can do.

    With `abandon` it belongs to a message: when a cut does not help, that is called with its thread, and the worker
    goes on.
    """

    __slots__ = ("abandon", "abandoned", "is_vital", "name", "over")

    def __init__(self, name: str, *, is_vital: bool = True, abandon: Callable[[int], None] | None = None) -> None:
        self.name = name
        self.is_vital = is_vital
        self.abandon = abandon
        #: Taken by who is first: the thread, as the call ends, or the watchdog, as it abandons it.
        self.over = threading.Lock()
        #: Set once everybody knows that the thread has been written off.
        self.abandoned = threading.Event()


@contextmanager
def _while_others_listen(under_way: dict[int, Call]) -> Iterator[None]:
    """Whoever listens to the facts is the project's: it may take its time within a call of the store, and costs no
    worker. What it waits for is cut after a while all the same: it could be a server that has fallen silent."""
    thread = threading.get_ident()
    around = under_way.get(thread)
    under_way[thread] = Call("listener", is_vital=False)
    try:
        yield
    finally:
        _go_on(under_way, thread, around)


def _go_on(under_way: dict[int, Call], thread: int, around: Call | None) -> None:
    """A call of this thread has ended: watch the one that it was made in."""
    if around is None:
        del under_way[thread]
    else:
        under_way[thread] = around


class Guard:
    """Watches one thread of a pool while it begins and ends the transaction of an atomic receiver.

    A call that takes longer than a lease is cut, and when as much time has passed again its thread is abandoned: that
    is told to `abandon`, and when the call returns in the end, `Abandoned` is raised.
    """

    def __init__(self, under_way: dict[int, Call], abandon: Callable[[int], None]) -> None:
        self._under_way = under_way
        self._abandon = abandon
        self._thread = threading.get_ident()
        self._call: Call | None = None
        self._lost: Call | None = None

    @contextmanager
    def watch(self, name: str) -> Iterator[None]:
        """Watch what is done in here."""
        self._begin(name)
        try:
            yield
        finally:
            self.rest()
            if self._lost is not None:
                self._lost.abandoned.wait()
                raise Abandoned

    @contextmanager
    def pause(self, name: str) -> Iterator[None]:
        """Do not watch what is done in here, and then go on under this name."""
        self.rest()
        try:
            yield
        finally:
            self._begin(name)

    def rest(self) -> None:
        """Do not watch the rest."""
        call, self._call = self._call, None
        if call is not None:
            self._under_way.pop(self._thread, None)
            if not call.over.acquire(blocking=False):
                self._lost = call

    def _begin(self, name: str) -> None:
        if self._lost is None:
            self._call = self._under_way[self._thread] = Call(name, abandon=self._abandon)


class Watched:
    """A backend whose `CALLS` a watchdog knows of while they are under way; everything else is that backend's."""

    def __init__(self, backend: BaseBackend, under_way: dict[int, Call]) -> None:
        self._backend = backend
        self._under_way = under_way

    def __getattr__(self, name: str) -> Any:
        if name not in CALLS:
            return getattr(self._backend, name)
        watched = self.__dict__[name] = self._watched(name)
        return watched

    def _watched(self, name: str) -> Callable[..., Any]:
        backend, under_way, get_ident = self._backend, self._under_way, threading.get_ident
        around_listeners = partial(_while_others_listen, under_way)

        def call(*args: Any, **kwargs: Any) -> Any:
            # One item of a dictionary, by the thread that owns it: no lock.
            thread = get_ident()
            around = under_way.get(thread)
            under_way[thread] = Call(name)
            signals.surround_listeners(around_listeners)
            try:
                return getattr(backend, name)(*args, **kwargs)
            except BaseException:
                # Here, because it may have to ask the store whether the connection still works.
                hygiene.clean(thoroughly=True)
                backend.prepare_thread(apart=True)  # for it may have dropped it
                raise
            finally:
                _go_on(under_way, thread, around)

        return call


class _Seen:
    """A call that was under way at the last look, and for how long it has been since it was first seen, or cut."""

    __slots__ = ("call", "is_cut", "seconds")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.seconds = 0.0
        self.is_cut = False


class Lasting(Protocol):
    """What has a thread that the worker cannot do without."""

    name: str
    is_lost: bool


def patience(backend: BaseBackend, lease: float) -> float:
    """Seconds that a call may take. Where a whole database has one writer, others wait long without being stuck."""
    return max(lease, LONGEST_TURN) if backend.has_one_writer else lease


class Watchdog:
    """Acts on store calls that take longer than a whole lease, or than `PATIENCE` once a stop was requested.

    It drops the connection of the thread that waits, which makes the call fail: the worker then tries again, as after
    any lost connection. If that thread still waits when as much time has passed again, it is beyond help, and
    `give_up` is called, once; under a `Guard`, the thread alone is given up. Time in which this very process stood
    still is not counted. `requests` tells how often the worker was asked to stop: `LAST` seconds after the second time
    it is given up in any case. So it is when one of its `parts` has lost its thread.
    """

    def __init__(
        self,
        backend: BaseBackend,
        lease: float,
        *,
        requests: Callable[[], int],
        on_cut: Callable[[], None],
        give_up: Callable[[str], None],
        parts: Callable[[], Iterable[Lasting]] = tuple,
    ) -> None:
        #: Thread -> its call.
        self._under_way: dict[int, Call] = {}
        #: The backend, for those parts of the worker that are to be watched.
        self.store = cast(BaseBackend, Watched(backend, self._under_way))
        self._backend = backend
        self._lease = lease
        self._requests = requests
        self._on_cut = on_cut
        self._give_up = give_up
        self._parts = parts
        self._seen: dict[int, _Seen] = {}
        #: What was said of which kind of calls, and how many more there were since.
        self._said: dict[str, tuple[float, int]] = {}
        self._forced_for = 0.0
        self._stopped = threading.Event()

    @contextmanager
    def watch(self, name: str, using: str) -> Iterator[None]:
        """Watch what this thread does with the database `using`, as a call of the store.

        Where that is not the store's own database it is cut, too, but no reason to give the worker up: its messages can
        be delivered without.
        """
        thread = threading.get_ident()
        is_apart = using != self._backend.database
        if is_apart:
            threads.prepare(using, apart=True)
        around = self._under_way.get(thread)
        self._under_way[thread] = Call(name, is_vital=not is_apart)
        signals.surround_listeners(partial(_while_others_listen, self._under_way))
        try:
            yield
        finally:
            _go_on(self._under_way, thread, around)

    def guard(self, abandon: Callable[[int], None]) -> Guard:
        """What watches this thread around an atomic receiver."""
        return Guard(self._under_way, abandon)

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="sked-watchdog", daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopped.set()

    def _watch(self) -> None:
        looked_at = clock.monotonic()
        while not self._stopped.wait(INTERVAL):
            now = clock.monotonic()
            try:
                reason = self.look(min(now - looked_at, 2 * INTERVAL))
            except Exception as error:
                reason = f"Its watchdog failed: {error!r}."
            if reason is not None:
                self._give_up(reason)
                return
            looked_at = now

    def look(self, passed: float) -> str | None:
        """Look at every call, `passed` seconds after the last look; returns why the worker is to be given up."""
        if (lost := next((part for part in self._parts() if part.is_lost), None)) is not None:
            return f"Its thread {lost.name!r} has ended."
        requests = min(self._requests(), 2)
        # Where there is one writer, what runs may be that one, and is finished before anything else is written.
        hurry = PATIENCE[1:requests] if self._backend.has_one_writer else PATIENCE[:requests]
        patience = min((self._lease, *hurry))
        before, self._seen = self._seen, {}
        for thread, call in list(self._under_way.items()):
            seen = before.get(thread)
            if seen is None or seen.call is not call:
                self._seen[thread] = _Seen(call)
                continue
            self._seen[thread] = seen
            seen.seconds += passed
            if seen.seconds < (patience if call.abandon is None else self._lease):
                continue
            if seen.is_cut and call.abandon is not None:
                _abandon(thread, call)
            elif seen.is_cut and call.is_vital:
                return f"The store call {call.name!r} neither returns nor fails."
            else:
                self._cut(thread, seen)
        if requests == 2:
            self._forced_for += passed
        return "The store did not let it stop." if self._forced_for >= LAST else None

    def _cut(self, thread: int, seen: _Seen) -> None:
        seen.is_cut, seen.seconds = True, 0.0
        self._on_cut()  # first: what is cut may be all that the worker still waits for
        try:
            interrupted = self._backend.interrupt_thread(thread)
        except Exception:
            interrupted = False
        if not seen.call.is_vital:
            interrupted = threads.interrupt(thread) or interrupted
        self._say(seen.call, interrupted)

    def _say(self, call: Call, interrupted: bool) -> None:
        """A store that has fallen silent meets every thread, again and again: that is one line in ten seconds."""
        kind = "" if call.is_vital and call.abandon is None else call.name
        now = clock.monotonic()
        said_at, more = self._said.get(kind, (float("-inf"), 0))
        if now - said_at < QUIET and call.abandon is None:
            self._said[kind] = said_at, more + 1
            return
        logger.warning("call_cut call=%s interrupted=%s more=%s", call.name, interrupted, more)
        self._said[kind] = now, 0


def _abandon(thread: int, call: Call) -> None:
    if call.abandon is None or not call.over.acquire(blocking=False):
        return  # it has just ended, or was abandoned before
    try:
        call.abandon(thread)
    except Exception:
        logger.exception("not_abandoned thread=%s", thread)
    finally:
        call.abandoned.set()
