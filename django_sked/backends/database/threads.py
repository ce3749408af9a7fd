"""The connections of a worker's threads: prepared when they open, kept out of a pool, cut off when they hang."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

from django.db import connections
from django.db.backends.signals import connection_created

from django_sked.backends.database.store import LONGEST_IDLE, busy_timeout


class _Socket(NamedTuple):
    descriptor: int
    #: By which it is told from another that got the same number after it.
    inode: int


class _Prepared:
    """One thread of a worker, for as long as it lives: the alias it was prepared for, and what it has opened."""

    def __init__(self) -> None:
        self.using = ""
        #: Does it do the worker's own work only, and call no receivers?
        self.is_apart = False
        #: Its connections, with the socket that each had when it was open; None for what has none, or is opening yet.
        self.opened: WeakKeyDictionary[Any, _Socket | None] = WeakKeyDictionary()


_thread = threading.local()
_threads: WeakValueDictionary[int, _Prepared] = WeakValueDictionary()
_guard = threading.Lock()
#: Milliseconds that a worker waits for the lock of a file at the least.
PATIENCE = 20_000


def prepare(using: str, *, apart: bool) -> None:
    """Mark this thread as a worker's: its connections are noted, and those to `using` prepared, as they open."""
    mine = getattr(_thread, "prepared", None)
    if mine is None:
        mine = _thread.prepared = _Prepared()
        with _guard:
            _threads[threading.get_ident()] = mine
    mine.using, mine.is_apart = using, apart
    if apart:
        _leave_pool(using)
    connection = connections[using]
    _note(mine, connection)  # now, because the queries by which Django opens it may hang too
    if connection.connection is not None:
        _prepare(connection)


def _leave_pool(using: str) -> None:
    """Let this thread connect by itself, where Django would take a connection out of a pool and wait for one."""
    pooled: Any = connections[using]
    options = pooled.settings_dict["OPTIONS"]
    if options.get("pool"):
        pooled.close()
        settings = {**pooled.settings_dict, "OPTIONS": {name: options[name] for name in options if name != "pool"}}
        connections[using] = type(pooled)(settings, using)


def _note(mine: _Prepared, connection: Any) -> None:
    socket_now = _socket(connection.connection)
    with _guard:
        mine.opened[connection] = socket_now


def _on_connection_created(connection: Any, **kwargs: Any) -> None:
    mine = getattr(_thread, "prepared", None)
    if mine is not None:
        _note(mine, connection)
        if mine.using == connection.alias:
            _prepare(connection)
            if mine.is_apart:
                _limit_idle(connection)


def _prepare(connection: Any) -> None:
    if connection.vendor == "sqlite":
        # BEGIN IMMEDIATE: a transaction waits for the file at its start, where it can, instead of failing when it
        # turns from reading to writing. Set on the open connection, because connecting reads it from the settings.
        connection.transaction_mode = "IMMEDIATE"
        if busy_timeout(connection) < PATIENCE:
            connection.connection.execute(f"PRAGMA busy_timeout = {PATIENCE}")


def _limit_idle(connection: Any) -> None:
    """See `ClaimStrategy.transaction`: MariaDB has such a limit for a session only."""
    if getattr(connection, "mysql_is_mariadb", False):
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION idle_transaction_timeout = %s", [LONGEST_IDLE])


connection_created.connect(_on_connection_created, dispatch_uid="django_sked.prepare_connection")


def interrupt(ident: int) -> bool:
    """Cut the open connections of a prepared thread, so that a call which waits for a server fails; true if any was."""
    with _guard:
        mine = _threads.get(ident)
        opened = list(mine.opened.items()) if mine is not None else []
    return sum(_cut(_socket(connection.connection) or noted) for connection, noted in opened) > 0


def _cut(target: _Socket | None) -> bool:
    if target is None:
        return False
    try:
        with socket.socket(fileno=os.dup(target.descriptor)) as twin:
            # Had the thread closed it meanwhile, the number might be another socket's by now.
            if os.fstat(twin.fileno()).st_ino != target.inode:
                return False
            twin.shutdown(socket.SHUT_RDWR)
        return True
    except OSError:
        return False  # not open, or already cut


def _socket(raw: Any) -> _Socket | None:
    """What psycopg and mysqlclient tell, and PyMySQL keeps; none for what has none, as SQLite.

    While a call is under way mysqlclient (2.3) tells it to no other thread: then what was noted before must do.
    """
    try:
        holder = raw if hasattr(raw, "fileno") else raw._sock
        descriptor: int = holder.fileno()
        return _Socket(descriptor, os.fstat(descriptor).st_ino)
    except Exception:
        return None
