"""The thread that listens to PostgreSQL's notifications, on a connection of its own."""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import uuid
from collections.abc import Callable
from contextlib import closing
from typing import Any

from django.db import connections

from django_sked.backends.attention import Attention
from django_sked.backends.hint import UNKNOWN
from django_sked.backends.quiet import Quiet
from django_sked.clock import monotonic
from django_sked.retry import Exponential

logger = logging.getLogger("django_sked.backends.database")

#: Seconds in which a notification to oneself must come.
TEST = 2.0
#: Seconds that a stop waits for a connection that is being made.
STOP = 1.0
RECONNECT = Exponential(base=0.1, cap=10.0, jitter="equal")
#: A connection that lasted so many seconds is no failing one: after it the next is tried at once.
STEADY = 10.0
#: A server that has gone without a word is noticed after a minute, not after hours.
_CONNECTION = {
    "fallback_application_name": "django_sked",
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}


class _Unavailable(Exception):
    """This connection will never bring a notification."""


class Listener(threading.Thread):
    """Calls `hear` with the payload of each notification, and lets `attention` decide when to look."""

    def __init__(self, using: str, channel: str, attention: Attention, hear: Callable[[str], None]) -> None:
        super().__init__(name="sked-listener", daemon=True)
        self._using = using
        self._channel = channel
        self._attention = attention
        self._hear = hear
        self._quiet = Quiet()
        #: Has it been said that it does not listen? Once is enough: a worker says for itself that its store is away.
        self._said = False
        self._stopped = False
        #: Has a notification ever come? Then none that fails to come is the way of this connection.
        self._has_listened = False
        self._reader, self._writer = socket.socketpair()

    def stop(self) -> None:
        """End soon, at the latest when a connection that is being made has been made or refused."""
        self._stopped = True
        try:
            self._writer.send(b".")
        except OSError:
            pass  # it has ended already
        self.join(STOP)

    def run(self) -> None:
        failures = 0
        try:
            while not self._stopped:
                begun_at = monotonic()
                try:
                    self._connect_and_listen()
                except _Unavailable as error:
                    logger.info("listen_unavailable database=%s reason=%s", self._using, error)
                    return
                except Exception as error:
                    failures = 1 if monotonic() - begun_at >= STEADY else failures + 1
                    if not self._said and self._quiet.is_over():
                        self._said = True
                        logger.warning("listen_failed database=%s error=%s", self._using, type(error).__name__)
                    self._wait(RECONNECT.delay_after(failures))
        finally:
            self._reader.close()
            self._writer.close()

    def _connect_and_listen(self) -> None:
        with closing(self._connect()) as connection:
            if self._is_listening(connection):
                self._said, self._has_listened = False, True
                self._attention.hear(UNKNOWN)  # what has been sent meanwhile
                self._listen(connection)
            elif not self._stopped:
                why = "no notification comes, as behind a pooler"
                raise TimeoutError(why) if self._has_listened else _Unavailable(why)

    def _connect(self) -> Any:
        """As Django connects, past its pool."""
        wrapper: Any = connections[self._using]
        driver = wrapper.Database
        if not hasattr(driver, "pq"):
            raise _Unavailable("it needs psycopg 3")
        return driver.connect(**{**_CONNECTION, **wrapper.get_connection_params(), "autocommit": True})

    def _is_listening(self, connection: Any) -> bool:
        """Listen, and send a notification to oneself: by another connection, because a pooler in transaction mode
        would deliver it on the one that sends, and on that only."""
        payload = f"test {uuid.uuid4()}"
        with closing(self._connect()) as other:
            if _share_sessions(connection, other):
                return False
            connection.execute(f'LISTEN "{self._channel}"')
            other.execute("SELECT pg_notify(%s, %s)", [self._channel, payload])
        deadline = monotonic() + TEST
        while not self._stopped and (left := deadline - monotonic()) > 0:
            self._wait(left, connection)
            if payload in _notifications(connection):
                return True
        return False

    def _listen(self, connection: Any) -> None:
        attention = self._attention
        while not self._stopped:
            attention.look()
            self._wait(attention.seconds(), *([] if attention.is_elsewhere else [connection]))
            for payload in _notifications(connection):
                self._hear(payload)

    def _wait(self, seconds: float | None, *connections: Any) -> None:
        """Sleep so long, or until something comes or `stop()` is called."""
        with selectors.DefaultSelector() as selector:
            for file in (self._reader, *connections):
                selector.register(file.fileno(), selectors.EVENT_READ)
            selector.select(seconds)


def _share_sessions(one: Any, other: Any) -> bool:
    """Does a pooler give each transaction whatever session of the server is free? A LISTEN would stay with one of
    them, and be heard by whoever uses that next."""
    found = {tuple(each.execute("SELECT pg_backend_pid()").fetchone()[0] for each in (one, other)) for _ in range(10)}
    return len(found) > 1 or any(first == second for first, second in found)


def _notifications(connection: Any) -> list[str]:
    """The payloads that have come; raises when the connection is gone."""
    connection.pgconn.consume_input()
    found = []
    while (notification := connection.pgconn.notifies()) is not None:
        found.append(notification.extra.decode(errors="replace"))
    return found
