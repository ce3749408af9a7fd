"""What the system check framework says about a database backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.db import DatabaseError, connections

from django_sked.backends.database.store import _NOW

if TYPE_CHECKING:
    from django_sked.backends.database.backend import DatabaseBackend

_SQLITE_LINES = """Put these lines into DATABASES[%r]:
    "OPTIONS": {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }"""


def check(backend: DatabaseBackend) -> list[CheckMessage]:
    """Refuse a database that cannot keep the promises; point out what would make a weak one better."""
    connection: Any = connections[backend.database]
    try:
        found = _features(backend, connection)
    except DatabaseError as error:
        # MySQL and MariaDB must be asked for their version. A worker waits for a database that is away; so can a check.
        found = [
            Warning(
                f"DATABASES[{backend.database!r}] does not answer, so SKED[{backend.alias!r}] was not checked: {error}",
                id="django_sked.W004",
            )
        ]
    return found + _time_zones(backend, connection) + _sqlite(backend, connection) + _mysql(backend, connection)


def _features(backend: DatabaseBackend, connection: Any) -> list[CheckMessage]:
    where = f"SKED[{backend.alias!r}]"
    if connection.vendor not in _NOW or not connection.features.supports_transactions:
        return [
            Error(
                f"{where} cannot keep messages in a {connection.display_name} database.",
                hint="It needs transactions and either row locks or one writer: PostgreSQL, MariaDB, MySQL or SQLite.",
                id="django_sked.E004",
            )
        ]
    if connection.vendor != "sqlite" and not connection.features.has_select_for_update_skip_locked:
        return [
            Error(
                f"{where}: this {connection.display_name} has no SELECT ... FOR UPDATE SKIP LOCKED.",
                hint="Use PostgreSQL, MariaDB 10.6 or later, or MySQL 8.0.1 or later.",
                id="django_sked.E005",
            )
        ]
    return []


def _time_zones(backend: DatabaseBackend, connection: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    if not settings.USE_TZ:
        found.append(
            Error(
                "django-sked needs USE_TZ = True.",
                hint="Without it a stored time names no instant: it shifts with TIME_ZONE and with daylight saving.",
                id="django_sked.E006",
            )
        )
    if connection.settings_dict.get("TIME_ZONE"):
        found.append(
            Error(
                f"DATABASES[{backend.database!r}] has a TIME_ZONE of its own.",
                hint="Remove it, so that Django stores times in UTC as django-sked compares them.",
                id="django_sked.E007",
            )
        )
    return found


def _sqlite(backend: DatabaseBackend, connection: Any) -> list[CheckMessage]:
    if connection.vendor != "sqlite":
        return []
    options = connection.settings_dict.get("OPTIONS", {})
    wal = "journal_mode=wal" in str(options.get("init_command", "")).replace(" ", "").lower()
    if wal and str(options.get("transaction_mode", "")).upper() == "IMMEDIATE" and options.get("timeout", 5) >= 10:
        return []
    return [
        Warning(
            f"DATABASES[{backend.database!r}]: with these SQLite settings a web request may meet 'database is locked' "
            "while a worker writes.",
            hint=_SQLITE_LINES % backend.database,
            id="django_sked.W001",
        )
    ]


def _mysql(backend: DatabaseBackend, connection: Any) -> list[CheckMessage]:
    if connection.vendor != "mysql":
        return []
    level = connection.settings_dict.get("OPTIONS", {}).get("isolation_level", "read committed")
    if str(level).lower() == "read committed":
        return []
    return [
        Warning(
            f"DATABASES[{backend.database!r}] has the isolation_level {level!r}: claims would wait for the locks of "
            "other workers on the gaps between rows, and deadlock over them.",
            hint="Remove it from OPTIONS: Django's default is 'read committed'.",
            id="django_sked.W005",
        )
    ]
