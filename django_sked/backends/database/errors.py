"""Which database errors are part of a normal day: to be tried again, not to be reported as bugs."""

from __future__ import annotations

from django.db import Error
from django.db.transaction import TransactionManagementError

#: Classes of SQLSTATE: connection, out of some resource, operator intervention, trouble outside of the server.
_CLASSES = {"08", "53", "57", "58"}
#: Serialization failure, outcome of the statement unknown, deadlock, lock not available; read only, as a standby or
#: during a failover; the limits of a transaction that is idle or takes too long.
_STATES = {"40001", "40003", "40P01", "55P03", "25006", "25P03", "25P04"}
#: The same of MySQL and MariaDB, and of their clients.
_NUMBERS = {
    *(1205, 1213, 1020, 1317, 1969, 3024),  # lock wait, deadlock, changed since it was read, interrupted, too long
    *(1021, 1026, 1030, 1114, 1037, 1038, 1041, 1135),  # out of disk, memory or threads
    *(1040, 1203, 1226),  # too many connections
    *(1047, 1053, 1290, 1792, 1836),  # not ready, shutting down, read only
    *(1152, 1158, 1159, 1160, 1161, 1184, 1927, 4031),  # connection aborted, killed or timed out
    *(0, 2002, 2003, 2005, 2006, 2012, 2013, 2026, 2055),  # told by the client: closed, not reached, gone, lost
}
#: SQLite's primary result codes: busy, locked, out of memory, I/O error, full, cannot open, locking protocol.
_CODES = {5, 6, 7, 10, 13, 14, 15}
_LOCKED = {5, 6}
#: Serialization failure and deadlock: the transaction has lost against another one, and may win when it is begun again.
_LOST_STATES = {"40001", "40P01"}
_LOST_NUMBERS = {1213, 1020}
_PSYCOPG = ("psycopg", "psycopg_pool")


def is_expected(error: BaseException | None) -> bool:
    """Will the same call probably succeed later: a deadlock, a lock, a timeout, a full disk, a connection that went
    away? Takes Django's errors, and those that psycopg and its pool raise past Django."""
    if isinstance(error, TransactionManagementError):
        # Somebody went on in a transaction that an error had ended already.
        return is_expected(error.__cause__)
    cause = error.__cause__ if isinstance(error, Error) else error
    if cause is None:
        return False
    if isinstance(error, Error) and cause.args and isinstance(cause.args[0], int):
        # A driver for MySQL; what it says of a SQLSTATE is too coarse.
        return cause.args[0] in _NUMBERS
    if (state := getattr(cause, "sqlstate", None)) is not None:
        return state in _STATES or state[:2] in _CLASSES
    if (code := getattr(cause, "sqlite_errorcode", None)) is not None:
        return code & 0xFF in _CODES
    # psycopg without a SQLSTATE: a connection that could not be made, is gone, or was not to be had from a pool.
    is_psycopg = type(cause).__module__.partition(".")[0] in _PSYCOPG
    return is_psycopg and any(kind.__name__ in {"OperationalError", "InterfaceError"} for kind in type(cause).__mro__)


def is_locked(error: Error) -> bool:
    """Has somebody else the lock of the SQLite file, or of a table in it?"""
    return getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF in _LOCKED


def is_conflict(error: BaseException | None) -> bool:
    """Did the database end this transaction because others were in its way, so that it may begin anew at once?"""
    cause = error.__cause__ if isinstance(error, Error) else error
    if cause is None:
        return False
    if isinstance(error, Error) and cause.args and isinstance(cause.args[0], int):
        return cause.args[0] in _LOST_NUMBERS
    return getattr(cause, "sqlstate", None) in _LOST_STATES
