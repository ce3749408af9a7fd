"""The rows of the messages, and the time of the database they are in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import DatabaseError, connections, models
from django.db.models import DateTimeField, F, Func, QuerySet, Value

from django_sked.models import ScheduledMessage, WorkerProcess


class StoreNow(Func):
    """The database's own time, when the statement began, in UTC: what due, lease and expiry are compared with."""

    output_field = DateTimeField()
    arity = 0

    def as_sql(self, compiler: Any, connection: Any, *args: Any, **extra: Any) -> tuple[str, tuple[str | int, ...]]:
        template = _NOW.get(connection.vendor)
        if template is None:
            raise DatabaseError(f"django-sked does not know how to ask {connection.vendor} for its time.")
        return template, ()


# `%%` because the text passes through the cursor's parameter formatting.
_NOW = {
    "postgresql": "STATEMENT_TIMESTAMP()",
    "mysql": "UTC_TIMESTAMP(6)",
    # Milliseconds are what it has. Compared as text: with all six digits, .123 is not before the stored .123000.
    "sqlite": "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f000', 'NOW')",
    "oracle": "SYS_EXTRACT_UTC(SYSTIMESTAMP)",
}


def moment(now: datetime | None) -> Any:
    """The instant to compare with, as SQL: the store's, unless a test gives one."""
    return StoreNow() if now is None else Value(now, output_field=DateTimeField())


def messages(using: str) -> QuerySet[ScheduledMessage]:
    """The message rows without the guards that the public manager has."""
    return models.QuerySet(ScheduledMessage, using=using)


def workers(using: str) -> QuerySet[WorkerProcess]:
    return models.QuerySet(WorkerProcess, using=using)


def take_write_lock(using: str) -> None:
    """Before a transaction reads what it is about to change, where a database locks no rows (SQLite).

    There a reader that turns into a writer fails when somebody else writes; one that begins with a write, be it of no
    row, waits its turn. Outside a transaction each statement is one of its own, and there is nothing to do.
    """
    connection = connections[using]
    if connection.in_atomic_block and not connection.features.has_select_for_update:
        workers(using).filter(pk=UUID(int=0)).update(in_flight=F("in_flight"))


def read_time(using: str) -> datetime:
    """Ask the database what time it is."""
    connection = connections[using]
    sql = "SELECT " + _NOW[connection.vendor].replace("%%", "%")
    with connection.cursor() as cursor:
        cursor.execute(sql)
        value: datetime | str = cursor.fetchone()[0]
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
