"""Into Redis or Valkey: an entry of a stream, or a message to whoever listens to a channel at this moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django_sked.backends.redis import connecting
from django_sked.conf import RedisOptions, keywords
from django_sked.contrib.sinks import envelope, options
from django_sked.contrib.sinks.options import option
from django_sked.models import ScheduledMessage


def _location(value: object) -> connecting.Location:
    return connecting.location(options.text(value))


@dataclass(frozen=True, kw_only=True)
class _Redis:
    #: A URL, as in LOCATION of the Redis backend.
    location: connecting.Location = option(_location)
    #: Further keyword arguments of redis-py's connections.
    connection: Mapping[str, Any] = option(keywords, default_factory=dict, repr=False)
    #: How long one call may wait for the server, and for a connection to it.
    timeout: float = option(options.seconds(0.1, 3600), default=5.0)

    def __post_init__(self) -> None:
        connecting.refuse_unknown("'connection'", self.location, self.connection)

    @cached_property
    def _client(self) -> Any:
        limits: dict[str, Any] = {"socket_timeout": self.timeout, "connect_timeout": self.timeout}
        return connecting.client(self.location, RedisOptions(connection=self.connection, **limits))


@dataclass(frozen=True, kw_only=True)
class RedisStreamSink(_Redis):
    """Adds the message to `stream`, cut to about `maxlen` entries if that is given."""

    stream: str = option(options.text)
    maxlen: int | None = option(options.optional(options.whole(1, 1 << 40)), default=None)

    def deliver(self, message: ScheduledMessage, /) -> dict[str, Any]:
        """XADD it; returns {"entry": id}."""
        values = {name: value if isinstance(value, str) else envelope.text(value) for name, value in _fields(message)}
        entry = self._client.xadd(self.stream, values, maxlen=self.maxlen, approximate=True)
        return {"entry": entry}


@dataclass(frozen=True, kw_only=True)
class RedisChannelSink(_Redis):
    """Publishes the message on `channel`. Nobody may be listening; that delivers all the same."""

    channel: str = option(options.text)

    def deliver(self, message: ScheduledMessage, /) -> dict[str, Any]:
        """PUBLISH it as JSON; returns {"subscribers": how many heard it}."""
        return {"subscribers": self._client.publish(self.channel, envelope.text(envelope.of(message)))}


def _fields(message: ScheduledMessage) -> list[tuple[str, Any]]:
    """Those that are text as they are, the others as JSON; the payload always as JSON, also if it is text."""
    values = envelope.of(message) | {"payload": envelope.text(message.payload)}
    return [(name, value) for name, value in values.items() if value is not None]
