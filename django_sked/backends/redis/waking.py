"""Wake-ups: idle workers are told of messages that are due before they would look. Hints only: whoever polls misses
nothing. The script that writes a message publishes them, so no call more is made."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django_sked.backends.attention import Attention
from django_sked.backends.hint import UNKNOWN, Hint
from django_sked.backends.quiet import Quiet
from django_sked.clock import monotonic
from django_sked.models import ScheduledMessage
from django_sked.retry import Exponential
from django_sked.states import Status

logger = logging.getLogger("django_sked.backends.redis")

#: Of several queues; none has this name.
ANY = "*"
#: Seconds that a listener waits for news before it looks whether it is to end.
PATIENCE = 1.0
RECONNECT = Exponential(base=0.1, cap=10.0, jitter="equal")
#: A connection that lasted so many seconds is no failing one: after it the next is tried at once.
STEADY = 10.0

#: See `BaseBackend.listen`.
Wake = Callable[[str | None], bool]


class News:
    """What one backend tells, and who in this process listens to it."""

    def __init__(self, client: Callable[[], Any], channel: str, alias: str, poll_interval: float) -> None:
        self._client = client
        self._channel = channel
        self._alias = alias
        self._horizon = timedelta(seconds=poll_interval)
        self._wakers: list[Wake] = []
        self._attentions: list[Attention] = []

    # Tell

    def of(self, messages: Sequence[ScheduledMessage], now: datetime) -> str:
        """The queue that the script which writes these messages shall tell of, or `ANY`; "" when nobody need be told.

        The script decides whether it was told of just now: it knows what others have told, and writes at that instant.
        """
        scheduled = [message for message in messages if message.status == Status.SCHEDULED]
        if not scheduled or min(message.next_at for message in scheduled) > now + self._horizon:
            return ""
        queues = {message.queue for message in scheduled}
        return queues.pop() if len(queues) == 1 else ANY

    def tell_here(self, messages: Sequence[ScheduledMessage]) -> None:
        """Wake the workers of this process, whatever was published."""
        if self._wakers and messages:
            queues = {message.queue for message in messages}
            queue = queues.pop() if len(queues) == 1 else None
            for wake in list(self._wakers):
                wake(queue)

    def wake_here(self, queues: Sequence[str]) -> None:
        """Wake the workers of this process for these queues, of which the script has told the others."""
        for wake in list(self._wakers):
            for queue in queues:
                wake(queue)

    # Listen

    def listen(self, wake: Wake) -> Callable[[], None]:
        self._wakers.append(wake)
        attention = Attention(lambda hint, again: wake(hint.queue))
        self._attentions.append(attention)
        listener = _Listener(self, attention)
        listener.start()

        def stop() -> None:
            if wake in self._wakers:
                self._wakers.remove(wake)
            if attention in self._attentions:
                self._attentions.remove(attention)
            listener.stop()

        return stop

    def found(self) -> None:
        """A worker of this process has claimed something."""
        for attention in self._attentions:
            attention.found()

    def hear(self, queue: str, attention: Attention) -> None:
        attention.hear(Hint(at=UNKNOWN.at, queue=None if queue == ANY else queue))

    def subscribe(self) -> Any:
        """A connection of its own that hears the channel."""
        subscription = self._client().pubsub(ignore_subscribe_messages=True)
        subscription.subscribe(self._channel)
        return subscription


class _Listener(threading.Thread):
    """Hears what is published, and lets `attention` decide when to look."""

    def __init__(self, news: News, attention: Attention) -> None:
        super().__init__(name="sked-listener", daemon=True)
        self._news = news
        self._attention = attention
        self._quiet = Quiet()
        self._stopped = threading.Event()
        self._subscription: Any = None

    def stop(self) -> None:
        """End soon: what it waits for is cut off."""
        self._stopped.set()
        subscription = self._subscription
        try:
            if subscription is not None and subscription.connection is not None:
                subscription.connection.disconnect()
        except Exception:
            pass  # it has ended already
        self.join(PATIENCE)

    def run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            begun_at = monotonic()
            try:
                self._hear_until_stopped()
            except Exception as error:
                if self._stopped.is_set():
                    return
                failures = 1 if monotonic() - begun_at >= STEADY else failures + 1
                if self._quiet.is_over():
                    logger.warning("listen_failed backend=%s error=%s", self._news._alias, type(error).__name__)
                self._stopped.wait(RECONNECT.delay_after(failures))

    def _hear_until_stopped(self) -> None:
        subscription = self._subscription = self._news.subscribe()
        try:
            self._attention.hear(UNKNOWN)  # what has been published meanwhile
            while not self._stopped.is_set():
                self._attention.look()
                seconds = self._attention.seconds()
                message = subscription.get_message(timeout=PATIENCE if seconds is None else min(seconds, PATIENCE))
                while message is not None:
                    self._news.hear(message["data"], self._attention)
                    message = subscription.get_message(timeout=0)
        finally:
            subscription.close()
