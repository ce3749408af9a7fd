"""What is around each call of a receiver; see OPTIONS["around_delivery"] in the settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from django_sked.models import ScheduledMessage

#: Where the order came from whose message is being delivered, for whoever writes a log line.
channel: ContextVar[str] = ContextVar("channel", default="-")


@contextmanager
def channel_of_message(message: ScheduledMessage) -> Iterator[None]:
    token = channel.set(message.metadata.get("channel", "-"))
    try:
        yield
    finally:
        channel.reset(token)
