"""The rows of the messages, and the time of the database they are in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import DatabaseError, DataError, connections, models
from django.db.models import DateTimeField, Exists, F, Func, OuterRef, QuerySet, Value
from django.db.models.expressions import RawSQL

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
}


#: Seconds after which a database that can ends a worker's own transaction in which nothing happens any more.
LONGEST_IDLE = 5

#: Rows that are read at once where all of them are wanted.
PAGE = 500

#: As a word of the SQL: a plan that is made without knowing the parameters could not use the partial index otherwise.
CLAIMED = RawSQL("'claimed'", ())

#: What reading a row raises that was written by other means than ours.
_UNREADABLE = (ValueError, TypeError, OverflowError, DataError)


def moment(now: datetime | None, ahead: float = 0.0) -> Any:
    """The instant to compare with, as SQL: the store's, unless a test gives one; or so many seconds later."""
    later = timedelta(seconds=ahead)
    if now is not None:
        return Value(now + later, output_field=DateTimeField())
    return StoreNow() + later if ahead else StoreNow()


def is_any(using: str, rows: Callable[[str], QuerySet[Any]]) -> bool:
    """Is there any of these? For what each worker asks each second: compiled once, so `rows`, a function of a module,
    must always give the same question."""
    known = _compiled.get((using, rows))
    if known is None:
        sql, parameters = rows(using).values_list("pk")[:1].query.get_compiler(using).as_sql()
        known = _compiled[using, rows] = sql, tuple(parameters)
    with connections[using].cursor() as cursor:
        cursor.execute(*known)
        return cursor.fetchone() is not None


_compiled: dict[tuple[str, Callable[[str], QuerySet[Any]]], tuple[str, tuple[Any, ...]]] = {}


def messages(using: str) -> QuerySet[ScheduledMessage]:
    """The message rows without the guards that the public manager has."""
    return models.QuerySet(ScheduledMessage, using=using)


def workers(using: str) -> QuerySet[WorkerProcess]:
    return models.QuerySet(WorkerProcess, using=using)


def lapsed(using: str, now: datetime | None = None) -> QuerySet[ScheduledMessage]:
    """Claimed rows (index sked_message_holder) whose worker has no lease."""
    leased = workers(using).filter(pk=OuterRef("claimed_by"), lease_until__gte=moment(now))
    return messages(using).filter(~Exists(leased), status=CLAIMED)


def skip_locked(rows: QuerySet[ScheduledMessage]) -> QuerySet[ScheduledMessage]:
    """Those that nobody else has locked, locked until the transaction ends; where a database locks rows."""
    features = connections[rows.db].features
    return rows.select_for_update(skip_locked=True) if features.has_select_for_update_skip_locked else rows


def read_error(using: str, id: UUID) -> Exception | None:
    """Why this row cannot be read; None when it can."""
    try:
        messages(using).filter(pk=id).first()
    except _UNREADABLE as error:
        return error
    return None


def readable(using: str, ids: Sequence[UUID]) -> list[ScheduledMessage]:
    """Those of these rows that can be read."""
    rows = messages(using).filter(pk__in=ids)
    try:
        return list(rows)
    except _UNREADABLE:
        return list(rows.filter(pk__in=[id for id in ids if read_error(using, id) is None]))


def take_write_lock(using: str) -> None:
    """Before a transaction reads what it is about to change, where a database locks no rows (SQLite).

    There a reader that turns into a writer fails when somebody else writes; one that begins with a write, be it of no
    row, waits its turn. Outside a transaction each statement is one of its own, and there is nothing to do.
    """
    connection = connections[using]
    if connection.in_atomic_block and not connection.features.has_select_for_update:
        workers(using).filter(pk=UUID(int=0)).update(in_flight=F("in_flight"))


def busy_timeout(connection: Any) -> int:
    """For how many milliseconds an open connection of SQLite waits for the lock of the file."""
    (milliseconds,) = connection.connection.execute("PRAGMA busy_timeout").fetchone()
    return int(milliseconds)


#: The time when the answer is made, where that is another than when the statement began: the less its way lasts, the
#: closer to it is whoever waits for an instant.
_AT_LAST = {"postgresql": "CLOCK_TIMESTAMP()"}


def read_time(using: str) -> datetime:
    """Ask the database what time it is."""
    connection = connections[using]
    sql = "SELECT " + (_AT_LAST.get(connection.vendor) or _NOW[connection.vendor].replace("%%", "%"))
    with connection.cursor() as cursor:
        cursor.execute(sql)
        value: datetime | str = cursor.fetchone()[0]
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def paged(rows: QuerySet[ScheduledMessage]) -> Iterator[ScheduledMessage]:
    """All of these, by id. Not `iterator()`: its cursor stays on the server between two looks, and behind a pooler the
    next one may be through another connection."""
    page = list(rows.order_by("pk")[:PAGE])
    while page:
        yield from page
        page = list(rows.filter(pk__gt=page[-1].pk).order_by("pk")[:PAGE]) if len(page) == PAGE else []
