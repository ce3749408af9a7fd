"""The threads that dispatch the messages of one queue."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable

from django_sked import clock
from django_sked.backends.base import BaseBackend
from django_sked.models import ScheduledMessage
from django_sked.worker import hygiene

logger = logging.getLogger("django_sked.worker")

#: Seconds of work that a pool keeps in hand, by how long its receivers have taken so far.
IN_HAND = 0.5
#: Seconds without a start after which what is in hand is given back: another worker may be free for it.
STALE = 1.0
#: Seconds after which a thread without work ends, and its connections with it.
IDLE = 60.0
#: ... or after so long, when the process has no threads left for other queues.
LET_GO = 1.0
#: Threads in all pools of a process together.
MOST_THREADS = 100
#: What a receiver is taken to need before any has been seen.
FIRST_GUESS = 0.05


class ThreadBudget:
    """How many threads all pools of a process may have together: each may hold a database connection."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._lock = threading.Lock()

    @property
    def is_spent(self) -> bool:
        return self._left <= 0

    def take(self) -> bool:
        with self._lock:
            if self._left <= 0:
                return False
            self._left -= 1
            return True

    def give(self) -> None:
        with self._lock:
            self._left += 1


class Pool:
    """A queue's threads, started as work comes, and the claimed messages that wait for them, in order.

    `dispatch` is called with each message, in a thread of the pool. `on_room` is called when the pool could take more.
    """

    def __init__(
        self,
        queue: str,
        size: int,
        backend: BaseBackend,
        dispatch: Callable[[ScheduledMessage], None],
        on_room: Callable[[], None],
        budget: ThreadBudget | None = None,
    ) -> None:
        self.queue = queue
        self.size = size
        self._budget = budget or ThreadBudget(MOST_THREADS)
        self._backend = backend
        self._dispatch = dispatch
        self._on_room = on_room
        self._condition = threading.Condition()
        self._waiting: deque[ScheduledMessage] = deque()
        #: Thread -> its message and when it was started.
        self._running: dict[int, tuple[ScheduledMessage, float]] = {}
        self._threads = 0
        self._idle = 0
        self._seconds = FIRST_GUESS  # per message, a moving average
        self._stopping = False

    def room(self, batch_size: int) -> int:
        """How many messages to claim now: none while half of what it may hold is still waiting."""
        with self._condition:
            if not self._threads and self._budget.is_spent:
                return 0  # other queues have all the threads; one that falls idle lets go of its own
            for_each = max(1, int(IN_HAND / max(self._seconds, self._standstill())))
            most = max(self.size, min(self.size * for_each, 2 * batch_size))
            room = most - len(self._waiting) - len(self._running)
            return min(room, batch_size) if 2 * room >= most or not self._waiting else 0

    def _standstill(self) -> float:
        """For how long every thread has been busy with what it has: 0 while one is free."""
        if len(self._running) < self.size:
            return 0.0
        return clock.monotonic() - max(started for _, started in self._running.values())

    def put(self, messages: list[ScheduledMessage]) -> None:
        with self._condition:
            self._waiting.extend(messages)
            self._start_threads()
            self._condition.notify(len(messages))

    def _start_threads(self) -> None:
        for _ in range(min(len(self._waiting) - self._idle, self.size - self._threads)):
            if not self._budget.take():
                break
            thread = threading.Thread(target=self._run, name=f"sked-{self.queue}-{self._threads + 1}", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                self._budget.give()
                raise
            self._threads += 1

    def resize(self, size: int) -> None:
        """Have so many threads from now on; those too many end when their receiver returns."""
        with self._condition:
            self.size = size
            self._start_threads()
            self._condition.notify_all()
        self._on_room()

    @property
    def in_flight(self) -> int:
        """Messages claimed for this pool and not yet dispatched."""
        with self._condition:
            return len(self._waiting) + len(self._running)

    @property
    def is_unused(self) -> bool:
        """Has it neither messages nor threads?"""
        with self._condition:
            return not self._waiting and not self._threads

    def running(self) -> list[ScheduledMessage]:
        """The messages whose receivers run at this moment."""
        with self._condition:
            return [message for message, _ in self._running.values()]

    def stale(self) -> list[ScheduledMessage]:
        """Give up the messages in hand when no thread has become free for a while."""
        with self._condition:
            self._start_threads()  # in case that the system had none left before
            return self._unstarted() if self._standstill() >= STALE else []

    def stop(self) -> list[ScheduledMessage]:
        """Start nothing more; returns the messages that had not been started."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
            return self._unstarted()

    def _unstarted(self) -> list[ScheduledMessage]:
        unstarted = list(self._waiting)
        self._waiting.clear()
        return unstarted

    def _run(self) -> None:
        identity = threading.get_ident()
        self._backend.prepare_thread()
        while (message := self._next(identity)) is not None:
            try:
                self._deliver(message)
            finally:
                self._done(identity)
        hygiene.clean(closing=True)
        self._budget.give()
        self._on_room()

    def _deliver(self, message: ScheduledMessage) -> None:
        try:
            self._dispatch(message)
            hygiene.clean()
        except BaseException:
            with contextlib.suppress(BaseException):  # the project's own logging may be what raises
                logger.exception("not_dispatched event=%s id=%s", message.event, message.pk)

    def _next(self, identity: int) -> ScheduledMessage | None:
        """The next message; None when this thread is to end."""
        with self._condition:
            worked = True
            while not self._stopping and self._threads <= self.size and (self._waiting or worked):
                if self._waiting:
                    message = self._waiting.popleft()
                    self._running[identity] = message, clock.monotonic()
                    return message
                self._idle += 1
                worked = self._wait_for_work()
                self._idle -= 1
            self._threads -= 1
            return None

    def _wait_for_work(self) -> bool:
        """False when none came for long, or when another queue wants the thread."""
        until = clock.monotonic() + IDLE
        while clock.monotonic() < until:
            if self._condition.wait(min(LET_GO, IDLE)):
                return True
            if self._budget.is_spent:
                return False
        return False

    def _done(self, identity: int) -> None:
        with self._condition:
            _, started = self._running.pop(identity)
            seconds = max(clock.monotonic() - started, 1e-5)
            self._seconds += 0.1 * (seconds - self._seconds)
            dry = len(self._waiting) <= len(self._running)
        if dry:
            self._on_room()
