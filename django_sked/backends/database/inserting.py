"""New rows by INSERT: those whose key or id is taken are left out, without an error that would end a transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from operator import attrgetter
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.constants import OnConflict

from django_sked import payloads
from django_sked.backends import message_backends
from django_sked.backends.database.columns import ALL, LEAST, USUAL, Columns, Prepare, needed, prepared
from django_sked.backends.database.copying import sealing
from django_sked.models import ScheduledMessage


def _interval(value: timedelta) -> str:
    return f"{value.days} days {value.seconds}.{value.microseconds:06} seconds"


#: How values are written for PostgreSQL to read.
_TEXTS: dict[str, Prepare] = {
    "UUIDField": attrgetter("hex"),
    "CharField": str.__str__,
    "TextField": str.__str__,
    "SmallIntegerField": str,
    "PositiveSmallIntegerField": str,
    "BigIntegerField": str,
    "BooleanField": str,
    "DateTimeField": datetime.isoformat,
    "DurationField": _interval,
    "JSONField": payloads.encode,
}
_FOR_POSTGRESQL = {
    columns: [_TEXTS[field.get_internal_type()] for field in columns.fields] for columns in (ALL, USUAL, LEAST)
}
#: (vendor, columns, whether it may be in conflict with others) -> the statement for one row.
_for_one: dict[tuple[str, Columns, bool], str] = {}


def insert(using: str, messages: Sequence[ScheduledMessage]) -> int:
    """Insert rows; returns how many were inserted. One statement, unless the database limits its parameters."""
    connection = connections[using]
    columns = needed(messages)
    prepares = _prepares(connection, columns)
    if len(messages) == 1:
        values = columns.values(messages[0])
        row = [None if value is None else prepare(value) for value, prepare in zip(values, prepares, strict=True)]
        # To look for conflicts costs the database a tenth more.
        may_conflict = messages[0].has_own_id or messages[0].live_key is not None
        sql = _for_one.get((connection.vendor, columns, may_conflict))
        if sql is None:
            sql = _statement(connection, columns, 1, OnConflict.IGNORE if may_conflict else None)
            _for_one[connection.vendor, columns, may_conflict] = sql
        return _execute(connection, sql, row)
    most = max(1, connection.ops.bulk_batch_size(columns.fields, messages))
    parts = [messages[start : start + most] for start in range(0, len(messages), most)]
    return sum(_insert_many(connection, columns, prepares, part) for part in parts)


def _insert_many(
    connection: BaseDatabaseWrapper, columns: Columns, prepares: Iterable[Prepare], messages: Sequence[ScheduledMessage]
) -> int:
    lists = [prepared(messages, *pair) for pair in zip(columns.fields, prepares, strict=True)]
    parameters = list(chain.from_iterable(zip(*lists, strict=True)))
    return _execute(connection, _statement(connection, columns, len(messages)), parameters)


def _execute(connection: BaseDatabaseWrapper, sql: str, parameters: list[Any]) -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return int(cursor.rowcount)


def _prepares(connection: BaseDatabaseWrapper, columns: Columns) -> list[Prepare]:
    if connection.vendor == "postgresql":
        seal = message_backends.seal_of(connection.alias)
        prepares = _FOR_POSTGRESQL[columns]
        return prepares if seal is None else list(map(partial(sealing, seal), columns.fields, prepares))
    return [partial(field.get_db_prep_save, connection=connection) for field in columns.fields]


def _statement(
    connection: BaseDatabaseWrapper, columns: Columns, rows: int, on_conflict: OnConflict | None = OnConflict.IGNORE
) -> str:
    """What Django would compile for `bulk_create(ignore_conflicts=True)`, were it not for the constants."""
    ops: Any = connection.ops
    fields = [*columns.fields, *columns.constants]
    names = ", ".join(ops.quote_name(field.column) for field in fields)
    row = [*["%s"] * len(columns.fields), *map(_literal, columns.constants.values())]
    return (
        f"{ops.insert_statement(on_conflict=on_conflict)} {ops.quote_name(ScheduledMessage._meta.db_table)} "
        f"({names}) {ops.bulk_insert_sql(fields, [row] * rows)} "
        f"{ops.on_conflict_suffix_sql(fields, on_conflict, [], [])}"
    )


def _literal(value: Any) -> str:
    """A default of ours, as every database reads it."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int):
        return str(value)
    return f"'{payloads.encode(value) if isinstance(value, dict | list) else value}'"
