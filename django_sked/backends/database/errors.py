"""Which database errors are part of a normal day: to be tried again, not to be reported as bugs."""

from __future__ import annotations

from django.db import Error, InterfaceError, OperationalError

#: serialization failure, deadlock, lock not available, query cancelled, too many connections, ... (SQLSTATE).
_STATES = {"40001", "40P01", "55P03", "57014", "53300"}
#: lock wait timeout, deadlock, server gone, connection lost (MySQL and MariaDB).
_NUMBERS = {1205, 1213, 2002, 2003, 2006, 2013}
_SQLITE = ("database is locked", "database table is locked")


def is_expected(error: BaseException) -> bool:
    """Will the same call probably succeed later: a deadlock, a lock, a timeout, a connection that went away?"""
    if not isinstance(error, Error):
        return False
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None)
    if state is not None:
        return state in _STATES or state[:2] in {"08", "57"}
    if cause is not None and cause.args and cause.args[0] in _NUMBERS:
        return True
    # psycopg gives no SQLSTATE for a connection that is gone.
    return isinstance(error, InterfaceError | OperationalError) and (
        any(text in str(error) for text in _SQLITE) or type(cause).__module__.startswith("psycopg")
    )
