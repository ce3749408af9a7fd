"""The connections of a worker's threads: prepared when they open."""

from __future__ import annotations

import threading
from typing import Any

from django.db import connections
from django.db.backends.signals import connection_created

_thread = threading.local()


def prepare(using: str) -> None:
    """Mark this thread as a worker's: its connections to `using` are prepared as soon as they are open."""
    _thread.using = using
    connection = connections[using]
    if connection.connection is not None:
        _prepare(connection)


def _on_connection_created(connection: Any, **kwargs: Any) -> None:
    if getattr(_thread, "using", None) == connection.alias:
        _prepare(connection)


def _prepare(connection: Any) -> None:
    if connection.vendor == "sqlite":
        # BEGIN IMMEDIATE: a transaction waits for the file at its start, where it can, instead of failing when it
        # turns from reading to writing. Set on the open connection, because connecting reads it from the settings.
        connection.transaction_mode = "IMMEDIATE"
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout = 20000")


connection_created.connect(_on_connection_created, dispatch_uid="django_sked.prepare_connection")
