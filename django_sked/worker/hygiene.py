"""The database connections of a worker's threads: kept from message to message, dropped when a receiver misused one."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from typing import Any

from django.db import connections
from django.db.backends.signals import connection_created

#: ACTIVE, INTRANS, INERROR; not UNKNOWN, which is a connection that broke.
_PSYCOPG_OPEN = (1, 2, 3)

#: Statements, as they begin, and functions after which a session is another one for whoever comes next; such as end
#: with the transaction; and those of a receiver's transaction, which are put back (`backends/database/mariadb.py`).
_CHANGES = ("set ", "use ", "pragma ", "create temp")
_CALLS = ("set_config(", "advisory_lock(", "get_lock(")
_PASSING = ("set local ", "set transaction ", "set constraints ")
_OURS = "sked_idle"
#: What opens a transaction of which the drivers for MySQL do not tell. Django opens its own past the cursor.
_OPENS = re.compile(r"(begin|start\s+transaction|xa\s+(start|begin))\b")
#: What may stand before a statement.
_REMARKS = re.compile(r"(\s+|/\*.*?\*/|(--|\#)[^\n]*(\n|$))*", re.DOTALL)
#: Characters of a statement that are looked at.
_BEGIN = 300

logger = logging.getLogger("django_sked.worker")


class _Opened(threading.local):
    """The connections that this thread has opened, and not dropped: asking Django for them takes ten times longer."""

    def __init__(self) -> None:
        self.connections: list[Any] = []
        #: Does this thread call receivers?
        self.is_watched = False
        #: Those whose session a receiver has changed.
        self.changed: list[Any] = []


_opened = _Opened()


def _on_connection_created(connection: Any, **kwargs: Any) -> None:
    # Not the copies that some code makes for itself.
    if connection in connections.all(initialized_only=True):
        if connection not in _opened.connections:
            _opened.connections.append(connection)
        if _opened.is_watched and _note_changes not in connection.execute_wrappers:
            connection.execute_wrappers.insert(0, _note_changes)
    # What Django itself has set on a new one is as it is to be.
    _opened.changed[:] = [other for other in _opened.changed if other is not connection]


connection_created.connect(_on_connection_created, dispatch_uid="django_sked.note_connection")


def watch() -> None:
    """From now on note what receivers in this thread change in the sessions of the connections that it opens."""
    _opened.is_watched = True


def _note_changes(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
    connection = context["connection"]
    # psycopg also takes statements that are put together from parts.
    text = sql if isinstance(sql, str) else sql.as_string(connection.connection)
    if changes_session(text, connection.vendor):
        _opened.changed.append(connection)
    return execute(sql, params, many, context)


def changes_session(statement: str, vendor: str = "") -> bool:
    """Does it leave the session another one, for whoever comes next on the connection? Judged by its beginning."""
    begin = statement[:_BEGIN].lstrip().lower()
    if begin.startswith(("/*", "--", "#")):
        begin = _REMARKS.sub("", begin, count=1)
    if vendor == "mysql" and _OPENS.match(begin):
        return True
    if begin.startswith(_CHANGES):
        return not begin.startswith(_PASSING) and _OURS not in begin
    return any(call in begin for call in _CALLS)


def note_all() -> None:
    """Note also the connections that Django did not tell of. One that is lost in its very first queries, before it
    counts as created, stays where it is and would fail for ever."""
    _opened.connections[:] = connections.all(initialized_only=True)


def clean(*, closing: bool = False, thoroughly: bool = False) -> None:
    """Leave this thread's connections as the next receiver may expect them; with `closing`, close them.

    They are kept whatever CONN_MAX_AGE says: a message is not a request. It is the backends' and the receivers'
    connections alike, also those of a worker whose messages are in no database. `thoroughly` is for after an error.
    """
    if closing or thoroughly:
        note_all()
    for connection in tuple(_opened.connections):
        if closing or not _is_fit(connection):
            _drop(connection)
        elif _opened.is_watched and connection.health_check_enabled:
            # Django asks once in each request whether it is alive still: so once for each message.
            connection.health_check_done = False
        connection.errors_occurred = False


def _is_fit(connection: Any) -> bool:
    try:
        if connection in _opened.changed:
            logger.info("session_changed database=%s", connection.alias)
            return False
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
    # psycopg and sqlite3 know; the MySQL drivers do not say, so what opens one is noted.
    libpq = getattr(raw, "pgconn", None)
    return (
        connection.autocommit != connection.settings_dict["AUTOCOMMIT"]
        or (libpq is not None and libpq.transaction_status in _PSYCOPG_OPEN)
        or bool(getattr(raw, "in_transaction", False))
    )


def _drop(connection: Any) -> None:
    """Close it and forget its wrapper: one that was closed inside `atomic()` could never be used again."""
    try:
        raw = connection.connection
        if getattr(raw, "_pool", None) is not None:
            # psycopg's pool would hand it on, session and all, to whoever comes next; one that is closed it replaces.
            raw.pgconn.finish()
        connection.close()
    except Exception as error:
        logger.warning("connection_not_closed database=%s error=%s", connection.alias, type(error).__name__)
    _opened.connections.remove(connection)
    _opened.changed[:] = [other for other in _opened.changed if other is not connection]
    if connection in connections.all(initialized_only=True):
        del connections[connection.alias]
