"""The database connections of a worker's threads: kept from message to message, dropped when a receiver misused one."""

from __future__ import annotations

import logging
from typing import Any

from django.db import connections

#: ACTIVE, INTRANS, INERROR; not UNKNOWN, which is a connection that broke.
_PSYCOPG_OPEN = (1, 2, 3)

logger = logging.getLogger("django_sked.worker")


def clean(*, closing: bool = False) -> None:
    """Leave this thread's connections as the next receiver may expect them; with `closing`, close them.

    They are kept whatever CONN_MAX_AGE says: a message is not a request. It is the backends' and the receivers'
    connections alike, also those of a worker whose messages are in no database.
    """
    for connection in connections.all(initialized_only=True):
        if closing or not _is_fit(connection):
            _drop(connection)
        connection.errors_occurred = False


def _is_fit(connection: Any) -> bool:
    try:
        if _is_in_transaction(connection):
            logger.warning("transaction_left_open database=%s", connection.alias)
            return False
        return not connection.errors_occurred or connection.is_usable()
    except Exception:
        return False  # so broken that it cannot even be asked


def _is_in_transaction(connection: Any) -> bool:
    """Is a transaction open, through Django or behind its back? Asks the driver, not the server."""
    raw = connection.connection
    if connection.in_atomic_block or connection.needs_rollback:
        return True
    if raw is None:
        return False
    # psycopg and sqlite3 know; the MySQL drivers do not say.
    psycopg_status = getattr(getattr(raw, "info", None), "transaction_status", 0)
    return (
        connection.autocommit != connection.settings_dict["AUTOCOMMIT"]
        or psycopg_status in _PSYCOPG_OPEN
        or bool(getattr(raw, "in_transaction", False))
    )


def _drop(connection: Any) -> None:
    """Close it and forget its wrapper: one that was closed inside `atomic()` could never be used again."""
    try:
        connection.close()
    except Exception as error:
        logger.warning("connection_not_closed database=%s error=%s", connection.alias, type(error).__name__)
    del connections[connection.alias]
