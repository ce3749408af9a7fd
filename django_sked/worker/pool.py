"""The threads that dispatch the messages of one queue, and the claimed messages that wait for them."""

from __future__ import annotations

import contextlib
import heapq
import logging
import threading
from bisect import insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django_sked import clock
from django_sked.backends.base import BaseBackend
from django_sked.controls import MOST_CONCURRENCY
from django_sked.models import ScheduledMessage
from django_sked.worker import hygiene

logger = logging.getLogger("django_sked.worker")

#: Seconds of work that a pool keeps in hand, by how long its receivers have taken so far.
IN_HAND = 0.5
#: Receivers that take longer than this have at most `LEAST_EACH` messages in hand for each thread.
SLOW = 0.1
LEAST_EACH = 2
#: Seconds without a start after which what is in hand is given back: another worker may be free for it.
STALE = 1.0
#: Seconds after which a thread without work ends, and its connections with it.
IDLE = 60.0
#: ... or after so long, when the worker has no threads left for other queues.
LET_GO = 1.0
#: Threads in all pools of a worker together.
MOST_THREADS = MOST_CONCURRENCY
#: What a receiver is taken to need before any has been seen.
FIRST_GUESS = 0.05


class ThreadBudget:
    """How many threads all pools of a worker may have together: each may hold a database connection.

    Those that were written off still count, whatever has become of their pools, until they end.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        #: Threads that were written off and have not ended.
        self.lost = 0
        self._left = most
        self._lock = threading.Lock()

    @property
    def left(self) -> int:
        return self._left

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

    def lose(self, count: int) -> None:
        with self._lock:
            self.lost += count


@dataclass(frozen=True, slots=True)
class Room:
    """How many messages to claim now, and whether some of them may be due only soon."""

    limit: int
    ahead: bool = False


NO_ROOM = Room(0)


class Pool:
    """A queue's threads, started as work comes.

    What is due waits in order; what was claimed ahead waits in a heap, by the instant of the monotonic clock at which
    it is due. One idle thread sleeps until the first of these, and then dispatches it itself: no hand-over, no poll.
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
        #: Taken by itself for each message: a condition would do so in Python.
        self._lock = threading.RLock()
        self._condition = threading.Condition(self._lock)
        self._waiting: deque[ScheduledMessage] = deque()
        #: (instant, order of arrival, message)
        self._early: list[tuple[float, int, ScheduledMessage]] = []
        self._arrivals = 0
        #: Thread -> its message and when it was started.
        self._running: dict[int, tuple[ScheduledMessage, float]] = {}
        #: Threads whose receiver ignored its timeout: they end by themselves, or never.
        self._abandoned: set[int] = set()
        self._threads = 0
        self._idle = 0
        self._has_timer = False  # does an idle thread wait for the first early message?
        self._is_refused = False  # had the system no thread at the last try?
        self._seconds = FIRST_GUESS  # per message, a moving average
        #: Ask for more once so few are in hand; below 0: the claimer looks again by itself.
        self._ask_at = -1
        self._stopping = False

    # The claimer's side

    def room(self, batch_size: int) -> Room:
        """None while half of what it may hold is still waiting; what waits for its time leaves room for what is due."""
        with self._condition:
            if not self._obtainable:
                return NO_ROOM  # other queues have all the threads; one that falls idle lets go of its own
            most = self._most(batch_size)
            room = most - len(self._waiting) - len(self._running)
            left = room - len(self._early)
            half_full = bool(self._waiting) and 2 * room < most
            self._ask_at = most // 2 if half_full or left <= 0 else -1
            if half_full or room <= 0:
                return NO_ROOM
            return Room(min(left, batch_size), ahead=True) if left > 0 else Room(min(room, batch_size))

    def _most(self, batch_size: int) -> int:
        threads, standstill = self._obtainable, self._standstill()
        if standstill >= STALE:
            return threads  # what it had in hand was given back: it must not take it again
        seconds = max(self._seconds, standstill)
        each = LEAST_EACH if seconds > SLOW else int(IN_HAND / seconds)
        return max(threads, min(threads * each, 2 * batch_size))

    @property
    def _obtainable(self) -> int:
        """The threads that it has and those that it could start, up to its size."""
        return min(self.size, self._threads + (0 if self._is_refused else self._budget.left))

    def _standstill(self) -> float:
        """For how long every thread has been busy with what it has: 0 while one is free, endless where there is none
        to be had."""
        if len(self._running) < self._obtainable:
            return 0.0
        return clock.monotonic() - max((started for _, started in self._running.values()), default=float("-inf"))

    def put(self, messages: Sequence[ScheduledMessage], early: Sequence[tuple[float, ScheduledMessage]] = ()) -> None:
        """Take messages that are due, and others with the instant of the monotonic clock before which none starts."""
        with self._condition:
            if self._waiting and messages and _order(messages[0]) < _order(self._waiting[-1]):
                self._waiting = deque(sorted([*self._waiting, *messages], key=_order))
            else:
                self._waiting.extend(messages)
            first = self._early[0][0] if self._early else float("inf")
            for instant, message in early:
                self._arrivals += 1
                heapq.heappush(self._early, (instant, self._arrivals, message))
            self._start_threads()
            if early and self._early[0][0] < first:
                self._condition.notify_all()  # one of them waits for what was the first
            else:
                self._condition.notify(len(messages))

    def _start_threads(self) -> None:
        wanted = len(self._waiting) + bool(self._early) - self._idle
        # What could not be started has been given back: one thread tells whether the system has any again.
        for _ in range(min(max(wanted, self._is_refused and not self._idle), self.size - self._threads)):
            if not self._start_thread():
                break

    def _start_thread(self) -> bool:
        if not self._budget.take():
            return False
        thread = threading.Thread(target=self._run, name=f"sked-{self.queue}-{self._threads + 1}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            logger.error("no_thread queue=%s", self.queue)
            self._budget.give()
            self._is_refused = True
            return False
        self._threads += 1
        self._is_refused = False
        return True

    def resize(self, size: int) -> None:
        """Have so many threads from now on; those too many end when their receiver returns."""
        with self._condition:
            self.size = size
            self._start_threads()
            self._condition.notify_all()
        self._on_room()

    # What is in it

    @property
    def in_flight(self) -> int:
        """Messages claimed for this pool and not yet dispatched."""
        with self._condition:
            return len(self._waiting) + len(self._early) + len(self._running)

    @property
    def is_unused(self) -> bool:
        """Has it neither messages nor threads?"""
        with self._condition:
            return not self._waiting and not self._early and not self._threads

    @property
    def threads(self) -> int:
        """Threads that there are at this moment: they come with work, up to `size`, and go without."""
        with self._condition:
            return self._threads

    @property
    def abandoned(self) -> int:
        """Threads that were written off and have not ended."""
        with self._condition:
            return len(self._abandoned)

    def running(self) -> list[tuple[ScheduledMessage, float]]:
        """The messages whose receivers run at this moment, and since when by the monotonic clock."""
        with self._condition:
            return list(self._running.values())

    def stale(self) -> list[ScheduledMessage]:
        """Give up the messages in hand when no thread has become free for a while, or there is none to be had."""
        with self._condition:
            self._start_threads()  # in case that the system had none left before
            return self._unstarted() if self._standstill() >= STALE else []

    def withdraw(self) -> list[ScheduledMessage]:
        """Give up what is in hand and has not been started."""
        with self._condition:
            return self._unstarted()

    def stop(self) -> list[ScheduledMessage]:
        """Start nothing more; returns the messages that had not been started."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
            return self._unstarted()

    def _unstarted(self) -> list[ScheduledMessage]:
        unstarted = [*self._waiting, *(message for _, _, message in self._early)]
        self._waiting.clear()
        self._early.clear()
        return unstarted

    def abandon(self, thread: int) -> bool:
        """Write off a thread that is stuck in its receiver: another one takes its place."""
        with self._condition:
            if self._running.pop(thread, None) is None:
                return False
            self._abandoned.add(thread)
            self._budget.lose(1)
            self._threads -= 1
            self._start_threads()
        self._on_room()
        return True

    # The threads' side

    def _run(self) -> None:
        me = threading.get_ident()
        hygiene.watch()
        self._backend.prepare_thread()
        while (message := self._next(me)) is not None:
            try:
                self._deliver(message)
            finally:
                goes_on = self._done(me)
            if not goes_on:
                break
        hygiene.clean(closing=True)
        self._budget.give()
        self._on_room()

    def _deliver(self, message: ScheduledMessage) -> None:
        try:
            self._dispatch(message)
            hygiene.clean()
        except BaseException:
            with contextlib.suppress(BaseException):  # the project's own logging may be what raises
                logger.exception("not_dispatched event=%s id=%s", message.event, message.id)

    def _next(self, me: int) -> ScheduledMessage | None:
        """The next message; None when this thread is to end."""
        with self._lock:
            worked = True
            while not self._stopping and self._threads <= self.size:
                message = self._pop()
                if message is not None:
                    self._running[me] = message, clock.monotonic()
                    if self._early and not self._has_timer:
                        self._hand_on_the_timer()
                    return message
                if not worked:
                    break
                worked = self._wait_for_work()
            self._threads -= 1
            if self._early and not self._has_timer:
                self._hand_on_the_timer()
            return None

    def _pop(self) -> ScheduledMessage | None:
        """The first of what is due; what was claimed ahead takes its place among the others once it is due."""
        early = self._early
        while early and early[0][0] <= clock.monotonic():
            insort(self._waiting, heapq.heappop(early)[2], key=_order)
        return self._waiting.popleft() if self._waiting else None

    def _hand_on_the_timer(self) -> None:
        """The next early message needs a thread that waits for it."""
        if self._idle:
            self._condition.notify()
        else:
            self._start_threads()

    def _wait_for_work(self) -> bool:
        """False when none came for long, or when another queue wants the thread."""
        self._idle += 1
        try:
            if self._early and not self._has_timer:
                return self._wait_for_the_first()
            until = clock.monotonic() + IDLE
            while clock.monotonic() < until:
                # Not by its result alone: a wake-up that comes just as the time runs out is used up and says False.
                if self._condition.wait(min(LET_GO, IDLE)) or self._waiting or (self._early and not self._has_timer):
                    return True
                if self._budget.is_spent:
                    return False
            return False
        finally:
            self._idle -= 1

    def _wait_for_the_first(self) -> bool:
        self._has_timer = True
        try:
            self._condition.wait(max(0.0, self._early[0][0] - clock.monotonic()))
        finally:
            self._has_timer = False
        return True

    def _done(self, me: int) -> bool:
        """False when this thread has been written off meanwhile."""
        with self._lock:
            if me in self._abandoned:
                self._abandoned.remove(me)
                self._budget.lose(-1)
                return False
            _, started = self._running.pop(me)
            seconds = max(clock.monotonic() - started, 1e-5)
            self._seconds += 0.1 * (seconds - self._seconds)
            ask = len(self._waiting) + len(self._early) <= self._ask_at
            if ask:
                self._ask_at = -1
        if ask:
            self._on_room()
        return True


def _order(message: ScheduledMessage) -> tuple[Any, ...]:
    return -message.priority, message.next_at, message.id
