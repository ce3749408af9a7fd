"""Messages for a loop of your own: the worker hands each over, and waits for what the loop says of it."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from django_sked.exceptions import AttemptTimedOut, LeaseLost, Reschedule, SkedError
from django_sked.models import ScheduledMessage
from django_sked.signals import EVERY_EVENT, Receiver
from django_sked.typed import MessageType
from django_sked.worker import failures
from django_sked.worker.dispatcher import Dispatcher
from django_sked.worker.hooks import Entered, Hooks
from django_sked.worker.pool import STALE, Pool

logger = logging.getLogger("django_sked.worker")

#: The name under which a message remembers that the loop has had it.
NAME = "worker.messages"
#: Seconds between two moments at which a timeout can reach a thread that waits for the loop.
REACHABLE = 0.25
#: More than there are threads.
EVERYBODY = 10_000


class Delivery:
    """A message in the hands of the loop, until that has said what became of it."""

    def __init__(self, message: ScheduledMessage) -> None:
        self.message = message
        #: Everything that was said of it, by the loop and by its timeout. The first counts: to append is atomic.
        self._said: list[tuple[BaseException | None, Any]] = []
        # Not an Event: an exception that is raised from outside could leave its inner lock locked for ever.
        self._silence = threading.Lock()
        self._silence.acquire()

    def answer(self, error: BaseException | None = None, *, result: Any = None) -> None:
        """It is delivered; or `error` means what it means in a receiver."""
        if self._say(error, result):
            return
        if isinstance(self._said[0][0], AttemptTimedOut):
            raise LeaseLost(f"Message {self.message.pk} has been given up: its timeout has passed.")
        raise SkedError(f"It has been said already what became of message {self.message.pk}.")

    @property
    def error(self) -> BaseException | None:
        """What was raised, or said instead, if anything was."""
        return self._said[0][0] if self._said else None

    def give_back(self) -> bool:
        """Have it come again at once, if nothing has been said of it; true when that was so."""
        return self._say(Reschedule(delay=0))

    def _say(self, error: BaseException | None, result: Any = None) -> bool:
        word = (error, result)
        self._said.append(word)
        if self._said[0] is not word:
            return False
        self._silence.release()
        return True

    def wait(self) -> Any:
        """Returns what a receiver would have returned."""
        while not self._silence.acquire(timeout=REACHABLE):
            pass
        return self._answered()

    def time_is_up(self, late: AttemptTimedOut) -> Any:
        """Wherever that was raised in the thread that waits: what the loop was told has been taken counts.

        Returns what a receiver would have returned; raises `late` when nothing was said in time.
        """
        self._say(late)
        return self._answered()

    def _answered(self) -> Any:
        error, result = self._said[0]
        if error is not None:
            raise error
        return result


class Handover:
    """Where the threads of the pools and the loop meet, one message at a time."""

    def __init__(
        self, kinds: Iterable[MessageType] = (), hooks: Hooks | None = None, wake: Callable[[], None] = lambda: None
    ) -> None:
        self._hooks = hooks or Hooks(())
        self._wake = wake
        #: Has it wanted no message for so long that what was claimed for it was given back? Ends with a call of `wake`.
        self.is_behind = False
        events = frozenset(kind.event for kind in kinds)
        receiver = Receiver(NAME, tuple(events) or EVERY_EVENT, False, False, lambda: self._receive, events)
        self._receivers = (receiver,)
        self._events = events
        self._deliveries: queue.SimpleQueue[Delivery | None] = queue.SimpleQueue()
        self._wanted = threading.Semaphore(0)
        self._local = threading.local()
        self._is_over = False

    @classmethod
    def instead_of(
        cls, dispatcher: Dispatcher, kinds: Iterable[MessageType], pools: Iterable[Pool], wake: Callable[[], None]
    ) -> Self:
        """One that gets what the receivers would have got, one message of a queue at a time."""
        handover = cls(kinds, dispatcher.hooks, wake)
        dispatcher.hooks = None  # those of a loop are around its own work
        dispatcher.receivers_of = handover.receivers_of
        for pool in pools:
            pool.resize(1)
        return handover

    def receivers_of(self, event: str) -> tuple[Receiver, ...]:
        """The loop, if it wants this event."""
        return self._receivers if not self._events or event in self._events else ()

    def messages(self) -> Iterator[ScheduledMessage]:
        """Each message in turn, until the worker has ended."""
        try:
            while (delivery := self._next()) is not None:
                try:
                    entered = self._hooks.enter(delivery.message)
                except KeyboardInterrupt:
                    delivery.give_back()
                    raise
                except BaseException as error:
                    # A failed attempt, unless its timeout has said so already; the loop does not see it.
                    delivery._say(error)
                    continue
                try:
                    yield delivery.message
                except GeneratorExit as error:
                    delivery.give_back()
                    self._leave(delivery, entered, error)
                    raise
                said, is_silent = delivery.error, delivery.give_back()
                self._leave(delivery, entered, said)
                if is_silent:
                    raise SkedError(
                        f"Nothing was said of message {delivery.message.pk}: use `with message.delivery():`, or "
                        "message.deliver(), .retry() or .bury(). It was given back."
                    )
        finally:
            # Set first: what is handed over from now on is given back by who hands it over.
            self._is_over = True
            while not self._deliveries.empty():
                if (delivery := self._deliveries.get()) is not None:
                    delivery.give_back()

    def _leave(self, delivery: Delivery, entered: Entered, error: BaseException | None) -> None:
        """What was said of the message stands, whatever a hook does on its way out."""
        try:
            self._hooks.leave(delivery.message, entered, error)
        except KeyboardInterrupt:
            raise
        except BaseException as failure:
            hooks, message = ",".join(path for path, _ in entered), delivery.message
            failures.log(logger, failure, message, "hook_failed hook=%s id=%s", hooks, message.pk)

    def _next(self) -> Delivery | None:
        self._wanted.release()
        if self.is_behind:
            self.is_behind = False
            self._wake()
        return self._deliveries.get()

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Wait until the loop wants a message, so that whether it may still be started is looked at just then.

        False if it has wanted none for so long that another worker may be free for it.
        """
        if not self._wanted.acquire(timeout=STALE):
            self.is_behind = True
            # Once more: it may have wanted one just before it could see that.
            if not self._wanted.acquire(blocking=False):
                yield False
                return
            self.is_behind = False
        self._local.took = False
        try:
            yield True
        finally:
            if not self._local.took:
                self._wanted.release()

    def _receive(self, message: ScheduledMessage, **kwargs: Any) -> Any:
        delivery = message._delivery = Delivery(message)  # the copy that the loop gets
        self._deliveries.put(delivery)
        # Not before: were a timeout to come in between, the loop would wait for a turn that nobody has.
        self._local.took = True
        if self._is_over:
            delivery.give_back()
        return delivery.wait()

    def close(self) -> None:
        """Let nobody wait any more: the worker stops, and hands nothing over that is not on its way already."""
        self._wanted.release(EVERYBODY)
        self._deliveries.put(None)
