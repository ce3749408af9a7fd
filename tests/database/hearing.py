"""What the tests of wake-ups have in common: who hears, who is told, and other ways to the same database."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.db import connections

from django_sked.backends import message_backends
from django_sked.backends.database.waking import CHANNEL
from django_sked.models import ScheduledMessage
from tests.worker.conftest import PATIENCE

APPS = ["django_sked", "tests.testapp"]
POSTGRESQL = [
    alias
    for alias, vendor in settings.SKED_TEST_ALIASES.items()
    if vendor == "postgresql" and alias in settings.DATABASES
]


class Wakes:
    """A worker's `wake`: notes the queues, and can be waited for."""

    def __init__(self) -> None:
        self.queues: list[str | None] = []
        self._condition = threading.Condition()

    @property
    def count(self) -> int:
        return len(self.queues)

    def __call__(self, queue: str | None = None) -> bool:
        with self._condition:
            self.queues.append(queue)
            self._condition.notify_all()
        return True

    def wait_for(self, count: int) -> bool:
        with self._condition:
            return self._condition.wait_for(lambda: self.count >= count, PATIENCE)


class Ear:
    """A second listener to the channel of wake-ups."""

    def __init__(self, alias: str) -> None:
        wrapper: Any = connections[alias]
        self.connection = wrapper.Database.connect(**wrapper.get_connection_params(), autocommit=True)
        self.connection.execute(f"LISTEN {CHANNEL}")

    def heard(self) -> list[Any]:
        """What has been sent since the last call: commits are in order, so nothing comes after the mark."""
        self.connection.execute("SELECT pg_notify(%s, '\"mark\"')", [CHANNEL])
        found: list[Any] = []
        for notification in self.connection.notifies(timeout=PATIENCE):
            if notification.payload == '"mark"':
                return found
            if not notification.payload.startswith("test "):
                found.append(json.loads(notification.payload))
        raise AssertionError("the mark did not come")


class Elsewhere:
    """Schedules as another process would: its backend has told and heard nothing of what ours has."""

    def __init__(self, using: str) -> None:
        self._using = using
        ours = message_backends[using]
        self._backend = type(ours)(ours.settings)

    def __call__(self, **arguments: Any) -> ScheduledMessage:
        ours, message_backends._backends[self._using] = message_backends[self._using], self._backend
        try:
            return ScheduledMessage.objects.schedule("order.paid", backend=self._using, **arguments)
        finally:
            message_backends._backends[self._using] = ours


def listeners() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sked-listener"]


def backends_listening(using: str) -> list[int]:
    with connections[using].cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'django_sked' AND datname = current_database()"
        )
        return [pid for (pid,) in cursor.fetchall()]


def terminate_listeners(using: str) -> None:
    pids = backends_listening(using)
    assert pids
    with connections[using].cursor() as cursor:
        for pid in pids:
            cursor.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])


@contextmanager
def reached(using: str, **changes: Any) -> Iterator[None]:
    """This database, reached in another way: from here on for every thread's new connection."""
    entry = connections.settings[using]
    _forget(using)
    connections.settings[using] = {**entry, **changes}
    try:
        yield
    finally:
        _forget(using)
        connections.settings[using] = entry


def _forget(using: str) -> None:
    connections[using].close()
    del connections[using]
